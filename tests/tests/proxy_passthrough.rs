//! TLS that a backend ends: whose certificate a client sees, what the backend gets of its bytes, and what becomes of clients that name
//! nobody, of broken ones, and of open connections when something changes.

use std::io::{Read, Result, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use http::{HeaderMap, Method};
use ingress_agent::model::policy::{ListenerSettings, ProxyHeader};
use ingress_agent::model::route::{Balance, Listener};
use ingress_agent::model::snapshot::{ObjectName, Pool, Snapshot};
use ingress_agent::model::stream::Passthrough;
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::proxy::explain;
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use ingress_tests::http::backend::Backend;
use ingress_tests::http::raw::{Raw, get};
use ingress_tests::http::site::{HTTP, HTTPS, Served, Site, certificate, endpoint, pool, pool_name};
use ingress_tests::http::tls::client_config;
use ingress_tests::wait::until;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(10);

/// Writes no more than so many bytes at once, each in a segment of its own.
struct Cut(TcpStream, usize);

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

type Client = StreamOwned<ClientConnection, Cut>;

fn tcp(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the proxy listens");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream
}

fn hello(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from(name.to_owned()).expect("a name")).expect("a client")
}

fn shaken(config: &Arc<ClientConfig>, to: SocketAddr, name: &str, cut: usize) -> Client {
    let mut stream = StreamOwned::new(hello(config, name), Cut(tcp(to), cut));
    stream.conn.complete_io(&mut stream.sock).expect("a handshake");
    stream
}

fn leaf(stream: &Client) -> Vec<u8> {
    stream.conn.peer_certificates().and_then(|c| c.first()).expect("a certificate").to_vec()
}

fn status(stream: Client, host: &str) -> Option<u16> {
    Raw::over(stream).send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).response().map(|r| r.status)
}

fn passing(site: Site, host: &str, to: &[SocketAddr]) -> Site {
    let owner = ObjectName::new("shop", "pass");
    let passed = Passthrough { owner, pool: pool_name("tls"), balance: Balance::RoundRobin };
    let mut site = site.pool(pool("tls", to));
    site.hosts.passed.insert(host.to_owned(), passed);
    site
}

/// Another proxy of ours is the backend that ends TLS. Its certificate comes with it.
struct Inner {
    served: Served,
    backend: Backend,
    certificate: Vec<u8>,
}

fn inner() -> Inner {
    let (backend, own) = (Backend::named("inner"), certificate("inner", &["pass.example"]));
    let der = own.chain[0].clone();
    Inner { served: Served::new(&Site::to(backend.address).certificate(own)), backend, certificate: der }
}

/// A server that knows nothing of TLS: it reads to the end, tells what it read, and says goodbye.
fn listener() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (sender, read) = channel();
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.expect("accept"), sender.clone());
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if stream.read_to_end(&mut bytes).is_ok() {
                    let _ = sender.send(bytes);
                    let _ = stream.write_all(b"bye");
                }
            });
        }
    });
    (address, read)
}

fn first_bytes(config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello(config, name).write_tls(&mut bytes).expect("a hello");
    bytes
}

/// Sends in pieces of `cut`, closes its side, reads to the end.
fn exchange(to: SocketAddr, bytes: &[u8], cut: usize) -> Vec<u8> {
    let mut stream = tcp(to);
    for piece in bytes.chunks(cut) {
        // A connection that was refused may be gone already.
        let _ = stream.write_all(piece);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn clients_see_the_certificate_of_the_backend_and_beside_it_ours() {
    let (inner, own) = (inner(), certificate("shop", &["shop.example", "pass.example"]));
    let (ours, clear) = (own.chain[0].clone(), Backend::named("clear"));
    let site = Site::to(clear.address).certificate(own);
    let served = Served::new(&passing(site, "pass.example", &[inner.served.https()]));
    let config = client_config(&[b"http/1.1"]);
    for cut in [usize::MAX, 100, 1] {
        for (name, wanted) in
            [("pass.example", &inner.certificate), ("PASS.example", &inner.certificate), ("shop.example", &ours)]
        {
            let client = shaken(&config, served.https(), name, cut);
            assert_eq!(leaf(&client), *wanted, "{name} in pieces of {cut}");
            assert_eq!(status(client, name), Some(200), "{name} in pieces of {cut}");
        }
    }
    for name in ["a.pass.example", "unknown.example", "127.0.0.1"] {
        let shown = leaf(&shaken(&config, served.https(), name, usize::MAX));
        assert!(shown != inner.certificate && shown != ours, "{name} has the default certificate");
    }
    assert_eq!(get(served.http(), "pass.example", "/").text(), "clear", "in clear text it is a host like others");
    until("each is counted as what it was", || {
        let metrics = served.proxy().metrics();
        let counted = (metrics.passed_through, metrics.tls_handshakes, metrics.tls_handshake_failures);
        (counted == (6, 6, 0)).then_some(())
    });
    assert_eq!(inner.backend.received().len(), 6);

    // And curl, which trusts the backend's certificate and no other.
    let pem = base64::engine::general_purpose::STANDARD.encode(&inner.certificate);
    let place = ingress_tests::place::Place::new("passthrough").expect("a directory");
    let file = place.directory.join("ca.pem");
    std::fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n"))
        .expect("write it");
    let curl = |host: &str| {
        let resolve = format!("{host}:{HTTPS}:{}", served.vip);
        let format = "%{http_version} %{ssl_verify_result}";
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "--http2", "--resolve", &resolve, "-w", format, "--cacert"]);
        command.arg(&file).arg(format!("https://{host}:{HTTPS}/"));
        String::from_utf8_lossy(&command.output().expect("curl runs").stdout).into_owned()
    };
    assert_eq!(curl("pass.example"), "inner2 0", "HTTP/2 is agreed on with the backend");
    assert!(!curl("shop.example").contains("clear"), "it does not trust ours");
}

#[test]
fn the_backend_gets_every_byte_and_each_side_closes_for_itself() {
    let (address, read) = listener();
    let site = Site::to(address).certificate(certificate("shop", &["shop.example"]));
    let served = Served::new(&passing(site.clone(), "pass.example", &[address]));
    let first = first_bytes(&client_config(&[]), "pass.example");
    let sent = [first.as_slice(), b"anything \0 else"].concat();
    for cut in [sent.len(), first.len(), first.len() - 1, 5, 1] {
        assert_eq!(exchange(served.https(), &sent, cut), b"bye");
        assert_eq!(read.recv_timeout(PATIENCE).expect("the backend has read"), sent, "in pieces of {cut}");
    }
    until("every connection is counted off", || (served.proxy().metrics().open_connections == 0).then_some(()));

    // Behind a load balancer that speaks the PROXY protocol: its header is for us.
    let header = ProxyHeader { from: Vec::new(), timeout: PATIENCE };
    let settings = Arc::new(ListenerSettings { proxy_protocol: Some(header), ..ListenerSettings::default() });
    let served = Served::new(&passing(Site { settings, ..site }, "pass.example", &[address]));
    let line = b"PROXY TCP4 192.0.2.1 203.0.113.1 40000 443\r\n";
    assert_eq!(exchange(served.https(), &[line.as_slice(), &sent].concat(), usize::MAX), b"bye");
    assert_eq!(read.recv_timeout(PATIENCE).expect("the backend has read"), sent);
    assert_eq!(exchange(served.https(), &sent, usize::MAX), b"", "without a header it is refused");
}

#[test]
fn what_is_no_hello_reaches_no_backend() {
    let (address, read) = listener();
    let site = Site::to(address).certificate(certificate("shop", &["shop.example"]));
    let served = Served::new(&passing(site, "pass.example", &[address]));
    let config = client_config(&[b"http/1.1"]);
    let first = first_bytes(&config, "pass.example");
    let mut wrong_version = first.clone();
    wrong_version[1] = 9;
    let mut no_hello = first.clone();
    no_hello[5] = 2;
    let endless = [&[22, 3, 1, 0, 4, 1, 255, 255, 255][..], &[22, 3, 1, 0, 1, 0].repeat(80_000)].concat();
    let refused: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[22; 600],
        &first[..first.len() - 1],
        &first[..1],
        &wrong_version,
        &no_hello,
        &endless,
    ];
    for (count, bytes) in refused.iter().enumerate() {
        let answer = exchange(served.https(), bytes, 4096);
        assert!(answer.first().is_none_or(|kind| *kind == 21), "an alert or the end: {answer:?}");
        let count = count as u64 + 1;
        until("it is counted", || (served.proxy().metrics().tls_handshake_failures == count).then_some(()));
    }
    let mut state = 0x0051_0ce9_u64;
    for _ in 0..300 {
        let mut bytes = first.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes[(state >> 40) as usize % first.len()] = (state >> 32) as u8;
        }
        exchange(served.https(), &bytes, 4096);
    }
    // Some of those were still hellos for the host.
    while read.try_recv().is_ok() {}
    // One that is longer than what is kept is answered here.
    let mut long = client_config(&[b"http/1.1"]);
    Arc::make_mut(&mut long).alpn_protocols.extend((0..100).map(|i| vec![b'a' + i % 26; 250]));
    let client = shaken(&long, served.https(), "pass.example", 4096);
    assert!(leaf(&client).windows(30).any(|w| w == b"Sluicegate default certificate"));
    drop(client);
    assert_eq!(exchange(served.https(), &first, 4096), b"bye", "and the next one is passed on");
    assert_eq!(read.recv_timeout(PATIENCE).expect("the backend has read"), first);
}

#[test]
fn a_connection_outlives_changes_a_refusing_backend_costs_none_and_a_drain_waits() {
    let inner = inner();
    let gone = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address");
    let site = Site::to(inner.backend.address).certificate(certificate("shop", &["shop.example"]));
    let mut served = Served::single(&passing(site.clone(), "pass.example", &[gone, inner.served.https()]));
    let config = client_config(&[b"http/1.1"]);
    let mut clients: Vec<Client> =
        (0..6).map(|_| shaken(&config, served.https(), "pass.example", usize::MAX)).collect();
    assert!(served.proxy().metrics().retries > 0);

    // Nobody is left, and then the host is not passed on any more.
    served.apply(&passing(site.clone(), "pass.example", &[]));
    assert_eq!(exchange(served.https(), &first_bytes(&config, "pass.example"), 4096), b"");
    served.apply(&site);
    assert_ne!(leaf(&shaken(&config, served.https(), "pass.example", usize::MAX)), inner.certificate);
    let last = clients.pop().expect("one of them");
    for client in clients {
        assert_eq!(leaf(&client), inner.certificate);
        assert_eq!(status(client, "pass.example"), Some(200));
    }
    let proxy = served.proxy.take().expect("it runs");
    let draining = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(proxy.drain(PATIENCE * 6));
    });
    let address = SocketAddr::new(served.vip, HTTPS);
    until("nobody listens any more", || TcpStream::connect(address).is_err().then_some(()));
    assert_eq!(status(last, "pass.example"), Some(200));
    draining.join().expect("drained");
}

/// An Ingress `name`, so many seconds old, of `host`, with these annotations (a YAML map) and this rest of its spec.
fn ingress(name: &str, second: u32, host: &str, annotations: &str, path: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n\
         metadata: {{name: {name}, namespace: t, creationTimestamp: '2026-01-01T00:00:{second:02}Z', annotations: {{{annotations}}}}}\n\
         spec: {{tls: [{{hosts: ['{host}']}}], rules: [{{host: '{host}', http: {{paths: [{{path: {path}, pathType: Prefix, \
         backend: {{service: {{name: web, port: {{number: 443}}}}}}}}]}}}}]}}\n"
    )
}

fn planned(flag: bool, ingresses: &str) -> Arc<Snapshot> {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: t}\nspec: {ports: [{port: 443}]}\n";
    let mut store = Store::new(SourceOptions::default());
    store.put("all.yaml", Ok(&[service, ingresses].concat()));
    let facts = store.publish(SystemTime::now(), &[]).expect("facts");
    let ingress_vips = vec!["203.0.113.80".parse().expect("an address")];
    let mut options = PlanOptions { ingress_vips, ssl_passthrough: flag, ..PlanOptions::default() };
    options.classes.without_class = true;
    (options.http_port, options.https_port) = (HTTP, HTTPS);
    plan(&facts, &options, None).snapshot
}

/// The same at an address of loopback, which the plan takes for nobody's, with this one backend behind each Service.
fn brought(snapshot: &Snapshot, vip: IpAddr, backend: SocketAddr) -> Arc<Snapshot> {
    let listeners = snapshot.listeners.iter().map(|l| Arc::new(Listener { vip, ..Listener::clone(l) }));
    let pools = snapshot
        .pools
        .iter()
        .map(|(name, pool)| (name.clone(), Arc::new(Pool { backends: vec![endpoint(backend)], ..Pool::clone(pool) })));
    Arc::new(Snapshot { listeners: listeners.collect(), pools: pools.collect(), ..Snapshot::default() })
}

const PASS: &str = "nginx.ingress.kubernetes.io/ssl-passthrough: 'true'";

#[test]
fn an_ingress_asks_for_it_and_the_flag_allows_it() {
    let inner = inner();
    let mut served = Served::new(&Site::default());
    let objects = ingress("pass", 1, "pass.example", PASS, "/") + &ingress("shop", 1, "shop.example", "", "/");
    let snapshot = planned(true, &objects);
    assert!(!snapshot.rejections.iter().any(|r| r.field.contains("passthrough")), "{:?}", snapshot.rejections);
    let snapshot = brought(&snapshot, served.vip, inner.served.https());
    served.apply_snapshot(Arc::clone(&snapshot));
    let config = client_config(&[b"http/1.1"]);
    let client = shaken(&config, served.https(), "pass.example", usize::MAX);
    assert_eq!(leaf(&client), inner.certificate);
    assert_eq!(status(client, "pass.example"), Some(200));
    assert_ne!(leaf(&shaken(&config, served.https(), "shop.example", usize::MAX)), inner.certificate);
    let clear = get(served.http(), "pass.example", "/x");
    assert_eq!((clear.status, clear.field("location")), (308, Some("https://pass.example/x")));

    let asked = |url: &str| explain(&snapshot, url, &Method::GET, &HeaderMap::new()).expect("an explanation");
    let told = asked(&format!("https://Pass.example:{HTTPS}/anything"));
    let said = "TLS of host `pass.example` is passed through to the Service t/web and ends there";
    assert!(told.steps.iter().any(|s| s.starts_with(said)), "{:#?}", told.steps);
    assert_eq!((told.backends, told.owner), (vec![inner.served.https()], Some(ObjectName::new("t", "pass"))));
    for url in [format!("http://pass.example:{HTTP}/"), format!("https://shop.example:{HTTPS}/")] {
        assert!(!asked(&url).steps.iter().any(|s| s.contains("passed through")), "{url}");
    }

    // Without the flag TLS is ended here, and the owner is told.
    let snapshot = planned(false, &objects);
    served.apply_snapshot(brought(&snapshot, served.vip, inner.served.https()));
    assert_ne!(leaf(&shaken(&config, served.https(), "pass.example", usize::MAX)), inner.certificate);
    let told: Vec<String> = snapshot.rejections.iter().map(ToString::to_string).collect();
    let said = "ssl-passthrough]: `true` needs `--enable-ssl-passthrough`; it is ignored";
    assert!(told.iter().any(|t| t.contains("t/pass") && t.contains(said)), "{told:#?}");
}

#[test]
fn the_oldest_ingress_decides_about_a_whole_name_with_a_root() {
    let host = |annotations, path| ingress("a", 1, "a.example", annotations, path);
    let younger = |annotations, path| ingress("b", 2, "a.example", annotations, path);
    let rest =
        host(PASS, "/x").replace("spec: {", "spec: {defaultBackend: {service: {name: web, port: {number: 443}}}, ");
    let off = "nginx.ingress.kubernetes.io/ssl-passthrough: 'false'";
    let odd = "nginx.ingress.kubernetes.io/ssl-passthrough: 'maybe'";
    for (objects, passed, said) in [
        (host(PASS, "/"), Some("t/a"), ""),
        (host(off, "/"), None, ""),
        (host(odd, "/"), None, "t/a: metadata.annotations[…]: `maybe` is not `true` or `false`"),
        (host(PASS, "/x"), None, "t/a: metadata.annotations[…]: a.example has no path `/` with a Service"),
        (rest, Some("t/a"), ""),
        (host(PASS, "/x") + &younger("", "/"), Some("t/a"), ""),
        (
            host("", "/x") + &younger(PASS, "/"),
            None,
            "t/b: metadata.annotations[…]: a.example does not ask for it: Ingress t/a decides",
        ),
        (
            host(PASS, "/").replace("web", "none"),
            None,
            "t/a: metadata.annotations[…]: a.example has no path `/` with a Service",
        ),
        (
            ingress("w", 1, "*.a.example", PASS, "/"),
            None,
            "t/w: metadata.annotations[…]: *.a.example is not a whole name",
        ),
    ] {
        let snapshot = planned(true, &objects);
        let hosts = &snapshot.listeners[0].hosts;
        let found = hosts.passed.get("a.example").map(|p| p.owner.to_string());
        assert_eq!(found.as_deref(), passed, "{objects}");
        assert_eq!(hosts.passed.len(), usize::from(passed.is_some()), "{objects}");
        let told = snapshot.rejections.iter().filter(|r| r.field.contains("passthrough"));
        let told: Vec<String> = told.map(|r| format!("{}: metadata.annotations[…]: {}", r.name, r.reason)).collect();
        assert_eq!(told.is_empty(), said.is_empty(), "{told:#?} of {objects}");
        assert!(said.is_empty() || told.iter().any(|t| t.starts_with(said)), "{told:#?} of {objects}");
    }
}
