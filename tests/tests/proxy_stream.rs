//! TCP through the proxy where the PROXY protocol is spoken: who the backend takes for the client, what is refused, and
//! what becomes of connections when something changes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ingress_agent::model::route::Balance;
use ingress_agent::model::snapshot::Snapshot;
use ingress_agent::model::stream::{ProxyProtocol, Stream};
use ingress_tests::http::site::{HTTP, Served, Site, pool, pool_name};
use ingress_tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(5);
const IN: ProxyProtocol = ProxyProtocol { received: true, sent: false };
const OUT: ProxyProtocol = ProxyProtocol { received: false, sent: true };
const BOTH: ProxyProtocol = ProxyProtocol { received: true, sent: true };
const LINE: &str = "PROXY TCP4 192.0.2.1 203.0.113.1 40000 443\r\n";

/// A server that says its name, reads to the end, tells what it read, and says goodbye.
struct Server {
    address: SocketAddr,
    read: Receiver<String>,
    _thread: JoinHandle<()>,
}

fn server(name: &'static str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address");
    let (sender, read) = channel();
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.expect("accept"), sender.clone());
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stream.write_all(name.as_bytes());
                if stream.read_to_end(&mut text).is_ok() {
                    let _ = stream.write_all(b" bye");
                    let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
                }
            });
        }
    });
    Server { address, read, _thread: thread }
}

/// A proxy with one stream, on the port that HTTP otherwise has.
fn serve(proxy_protocol: ProxyProtocol, backends: &[SocketAddr]) -> Served {
    let mut served = Served::single(&Site::default());
    let problems = served.apply_snapshot(snapshot(&served, 2, proxy_protocol, backends));
    assert_eq!(problems, [""; 0]);
    served
}

fn snapshot(served: &Served, generation: u64, proxy_protocol: ProxyProtocol, to: &[SocketAddr]) -> Arc<Snapshot> {
    let balance = Balance::RoundRobin;
    let stream = Stream { vip: served.vip, port: HTTP, pool: pool_name("s"), balance, proxy_protocol };
    Arc::new(Snapshot {
        generation,
        streams: vec![Arc::new(stream)],
        pools: [(pool_name("s"), Arc::new(pool("s", to)))].into(),
        ..Snapshot::default()
    })
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream
}

/// Sends in pieces, closes its side, reads to the end.
fn exchange(to: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = connect(to);
    stream.set_nodelay(true).expect("no delay");
    for piece in pieces {
        // A refused connection may be gone already.
        let _ = stream.write_all(piece);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_header_is_taken_from_the_client_and_given_to_the_backend_as_asked() {
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xcb\0\x71\x01\x9c\x40\x01\xbb";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
    for (spoken, sent, wanted) in [
        (IN, [LINE.as_bytes(), b"hello"].concat(), Some("hello".to_owned())),
        (BOTH, [LINE.as_bytes(), b"hello"].concat(), Some(format!("{LINE}hello"))),
        (BOTH, [v2.as_slice(), b"hello"].concat(), Some(format!("{LINE}hello"))),
        // The sender's own connection, and one of a client without header: the socket's addresses are said.
        (BOTH, [local.as_slice(), b"hello"].concat(), None),
        (OUT, b"hello".to_vec(), None),
        (OUT, LINE.as_bytes().to_vec(), None),
    ] {
        let server = server("srv");
        let served = serve(spoken, &[server.address]);
        for cut in [0, 1, 5, sent.len() / 2, sent.len() - 1] {
            let (first, second) = sent.split_at(cut);
            assert_eq!(exchange(served.http(), &[first, second]), "srv bye");
            let read = server.read.recv_timeout(PATIENCE).expect("the backend has read");
            if let Some(wanted) = &wanted {
                assert_eq!(read, *wanted);
                continue;
            }
            let (line, rest) = read.split_once("\r\n").expect("a line");
            assert!(line.starts_with(&format!("PROXY TCP4 127.0.0.1 {} ", served.vip)), "{line}");
            assert!(line.ends_with(&format!(" {HTTP}")), "{line}");
            assert_eq!(rest, if spoken == BOTH { "hello" } else { std::str::from_utf8(&sent).expect("text") });
        }
        let open = || (served.proxy().metrics().open_connections == 0).then_some(());
        until("every connection is counted off", open);
    }
}

#[test]
fn who_does_not_begin_with_a_header_is_refused_and_reaches_no_backend() {
    let server = server("srv");
    let served = serve(IN, &[server.address]);
    let refused: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP4 ", b""];
    for sent in refused {
        assert_eq!(exchange(served.http(), &[sent]), "", "{:?}", String::from_utf8_lossy(sent));
    }
    // It came after them, and is the first that the backend sees.
    assert_eq!(exchange(served.http(), &[LINE.as_bytes(), b"good"]), "srv bye");
    assert_eq!(server.read.recv_timeout(PATIENCE).expect("read"), "good");
    until("refusals are counted", || (served.proxy().metrics().proxy_header_failures == 4).then_some(()));
}

#[test]
fn a_backend_that_refuses_costs_no_connection_while_another_takes_it() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address");
    let server = server("srv");
    let mut served = serve(OUT, &[gone, server.address]);
    for _ in 0..6 {
        assert_eq!(exchange(served.http(), &[b"x"]), "srv bye");
    }
    assert!(served.proxy().metrics().retries > 0);
    // And with nobody left the client is told at once.
    let alone = snapshot(&served, 3, OUT, &[gone]);
    served.apply_snapshot(alone);
    assert_eq!(exchange(served.http(), &[b"x"]), "");
}

#[test]
fn a_connection_outlives_changes_and_the_end_of_its_stream_and_a_drain_waits_for_it() {
    let (old, new) = (server("old"), server("new"));
    let mut served = serve(IN, &[old.address]);
    let mut lasting = connect(served.http());
    lasting.write_all(LINE.as_bytes()).expect("write");
    let mut name = [0; 3];
    lasting.read_exact(&mut name).expect("the backend's name");
    assert_eq!(&name, b"old");

    let changed = snapshot(&served, 3, IN, &[new.address]);
    served.apply_snapshot(changed);
    assert_eq!(exchange(served.http(), &[LINE.as_bytes()]), "new bye");
    served.apply_snapshot(Arc::new(Snapshot { generation: 4, ..Snapshot::default() }));
    until("nobody listens any more", || TcpStream::connect(served.http()).is_err().then_some(()));

    let proxy = served.proxy.take().expect("it runs");
    let draining = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(proxy.drain(PATIENCE * 12));
    });
    lasting.write_all(b"still here").expect("write");
    lasting.shutdown(Shutdown::Write).expect("close one way");
    let mut rest = String::new();
    lasting.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, " bye");
    assert_eq!(old.read.recv_timeout(PATIENCE).expect("read"), "still here");
    draining.join().expect("drained");
}

/// More than sockets and pipes hold, with neither side waiting for the other.
#[test]
fn a_great_deal_passes_both_ways_at_once_and_whole() {
    const MUCH: usize = 24 << 20;
    let bytes = |seed: u32| -> Arc<Vec<u8>> {
        Arc::new((0..MUCH as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 24) as u8).collect())
    };
    let (up, down) = (bytes(1), bytes(2));
    let both = |stream: TcpStream, sent: Arc<Vec<u8>>| -> Vec<u8> {
        let mut writer = stream.try_clone().expect("a second handle");
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).expect("write");
            writer.shutdown(Shutdown::Write).expect("close one way");
        });
        let (mut stream, mut read) = (stream, Vec::new());
        stream.read_to_end(&mut read).expect("read");
        writing.join().expect("written");
        read
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let served = serve(IN, &[listener.local_addr().expect("an address")]);
    let sent = Arc::clone(&down);
    let backend = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        both(stream, sent)
    });
    let mut client = connect(served.http());
    client.write_all(LINE.as_bytes()).expect("write");
    assert!(both(client, Arc::clone(&up)) == *down, "the client has all of it, in order");
    assert!(backend.join().expect("read") == *up, "and so has the backend");
    let counted = || {
        let metrics = served.proxy().metrics();
        (metrics.bytes_in == MUCH as u64 && metrics.bytes_out == MUCH as u64).then_some(())
    };
    until("the bytes are counted", counted);
}
