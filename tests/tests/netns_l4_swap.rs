//! Endpoints that leave while connections to them begin or wait: what is under way reaches its end. The servers speak first, so
//! that a client who is cut off has nothing to send and would never hear of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ingress_agent::dataplane::Dataplane;
use ingress_agent::model::snapshot::Protocol::Tcp;
use ingress_tests::l4::{Snapshots, nat, verdicts};
use ingress_tests::l4_lan::L4Lan;
use ingress_tests::lan::Host;
use ingress_tests::wait::{SetOnDrop, until};

const VIP: &str = "203.0.113.10:80";
const PORT: u16 = 7070;
/// Below the second after which a SYN that was lost is sent again (RFC 6298 §2.1).
const AT_ONCE: Duration = Duration::from_millis(950);
/// For all connections of the load.
const LONGEST: Duration = Duration::from_mins(2);
const PATIENCE: Duration = Duration::from_secs(5);

fn endpoints(which: &[usize]) -> Vec<ingress_agent::model::snapshot::Backend> {
    which.iter().map(|i| nat(&format!("10.0.0.1{i}:{PORT}"))).collect()
}

fn apply(dataplane: &mut Dataplane, world: &mut Snapshots, which: &[usize]) {
    world.set("s", Tcp, VIP, &endpoints(which));
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
}

/// Hands out what it accepts.
fn accepting(host: &Host) -> Receiver<TcpStream> {
    let (accepted, streams) = channel();
    let listener = host.inside(|| TcpListener::bind(("0.0.0.0", PORT))).expect("listen");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if accepted.send(stream).is_err() {
                return;
            }
        }
    });
    streams
}

fn connect(client: &Host) -> std::io::Result<TcpStream> {
    let vip: SocketAddr = VIP.parse().expect("an address");
    let stream = client.inside(|| TcpStream::connect_timeout(&vip, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn line(stream: &TcpStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

#[test]
fn an_endpoint_that_left_ends_what_it_was_asked_and_then_its_connections_are_reset() {
    let lan = L4Lan::new("swlate").expect("make the LAN");
    let grace = Duration::from_secs(2);
    let mut dataplane = lan.open_with(|o| o.leave = grace).expect("open");
    let (first, second) = (accepting(&lan.backends[0]), accepting(&lan.backends[1]));
    let mut world = Snapshots::default();
    apply(&mut dataplane, &mut world, &[1]);
    let client = connect(&lan.client).expect("connect");
    let server = first.recv_timeout(PATIENCE).expect("the connection arrives at the first endpoint");

    apply(&mut dataplane, &mut world, &[2]);
    let left = Instant::now();
    (&server).write_all(b"late\n").expect("greet");
    assert_eq!(line(&client).expect("the greeting comes"), "late");
    (&client).write_all(b"thanks\n").expect("answer");
    assert_eq!(line(&server).expect("the answer comes"), "thanks");
    let other = connect(&lan.client).expect("connect");
    let _other = second.recv_timeout(PATIENCE).expect("new connections go to the second endpoint");
    drop(other);

    // The next thing that the client says after that gets a reset.
    until("its time is over", || (left.elapsed() > grace).then_some(()));
    dataplane.tick().expect("tick");
    (&client).write_all(b"still there?\n").expect("send");
    let error = line(&client).expect_err("the endpoint is gone");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn an_endpoint_that_comes_back_has_its_connections() {
    let lan = L4Lan::new("swback").expect("make the LAN");
    let grace = Duration::from_millis(300);
    let mut dataplane = lan.open_with(|o| o.leave = grace).expect("open");
    let first = accepting(&lan.backends[0]);
    let mut world = Snapshots::default();
    apply(&mut dataplane, &mut world, &[1]);
    let client = connect(&lan.client).expect("connect");
    let server = first.recv_timeout(PATIENCE).expect("the connection arrives");
    for _ in 0..3 {
        apply(&mut dataplane, &mut world, &[2]);
        apply(&mut dataplane, &mut world, &[1, 2]);
    }
    let back = Instant::now();
    until("its time would be over", || (back.elapsed() > grace).then_some(()));
    dataplane.tick().expect("tick");
    apply(&mut dataplane, &mut world, &[1]);
    (&server).write_all(b"hello\n").expect("greet");
    assert_eq!(line(&client).expect("the greeting comes"), "hello");
    let living = dataplane.read().expect("read").backends;
    assert_eq!(living.len(), 1, "{living:?}");
}

/// Ids are few, and each is given again while its last owner's connections might still be there.
#[test]
fn ids_that_are_short_end_the_oldest_leave_and_refuse_nobody() {
    let lan = L4Lan::new("swshort").expect("make the LAN");
    let mut dataplane = lan.open_with(|o| o.max_backends = 4).expect("open");
    let mut world = Snapshots::default();
    for round in 0..300 {
        let endpoint = |i: u32| nat(&format!("10.1.{}.{}:80", (4 * round + i) / 250, (4 * round + i) % 250 + 1));
        world.set("s", Tcp, VIP, &[0, 1, 2, 3].map(endpoint));
        assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0], "round {round}");
    }
    assert_eq!(dataplane.read().expect("read").backends.len(), 4);
}

/// Clients connect and wait to be greeted, one after another on each of four threads, while the one endpoint is another one
/// every few milliseconds. The one that left goes on answering, as a pod does that terminates.
#[test]
fn every_connection_that_begins_while_its_endpoint_goes_is_greeted() {
    let lan = L4Lan::new("swload").expect("make the LAN");
    let mut dataplane = lan.open();
    let greeters: Vec<_> = lan.backends.iter().map(accepting).collect();
    let mut world = Snapshots::default();
    apply(&mut dataplane, &mut world, &[1]);
    let (stop, over, greeted) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let failures = thread::scope(|scope| {
        for (i, streams) in greeters.into_iter().enumerate() {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    let Ok(stream) = streams.recv_timeout(Duration::from_millis(20)) else { continue };
                    let _ = (&stream).write_all(format!("b{}\n", i + 1).as_bytes());
                }
            });
        }
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load(&lan.client, &stop, &greeted))).collect();
        // The servers outlive the clients.
        let _over_at_the_end = SetOnDrop(&over);
        let stop_at_the_end = SetOnDrop(&stop);
        let began = Instant::now();
        // On a busy machine it takes more changes.
        let enough = |round| round >= 300 && greeted.load(Relaxed) >= 1000;
        for round in (0..).take_while(|round| !enough(*round) && began.elapsed() < LONGEST) {
            apply(&mut dataplane, &mut world, &[round % 3 + 1]);
            dataplane.tick().expect("tick");
            let before = greeted.load(Relaxed);
            let began = Instant::now();
            while greeted.load(Relaxed) < before + 8 && began.elapsed() < Duration::from_millis(50) {
                thread::yield_now();
            }
        }
        drop(stop_at_the_end);
        clients.into_iter().flat_map(|c| c.join().expect("the load ends")).collect::<Vec<_>>()
    });
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for failure in &failures {
        *kinds.entry(failure).or_default() += 1;
    }
    let greeted = greeted.load(Relaxed);
    assert!(failures.is_empty(), "of {greeted}: {kinds:?}; {:?}", verdicts(&dataplane));
    assert!(greeted >= 1000, "only {greeted} connections in {LONGEST:?}");
}

fn load(client: &Host, stop: &AtomicBool, greeted: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Relaxed) {
        let began = Instant::now();
        let result = connect(client).and_then(|stream| {
            let opened = began.elapsed();
            line(&stream).map(|line| (opened, line))
        });
        match result {
            Ok((opened, _)) if opened > AT_ONCE => failures.push("the SYN was sent again".to_owned()),
            Ok((_, line)) if line.starts_with('b') => {
                greeted.fetch_add(1, Relaxed);
            }
            Ok(_) => failures.push("closed without a greeting".to_owned()),
            Err(e) => failures.push(e.to_string()),
        }
    }
    failures
}
