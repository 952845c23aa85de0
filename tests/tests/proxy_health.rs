//! Health checks: endpoints that turn ill and well again, by HTTP, TCP and gRPC. Real servers, and the requests that reach them.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ingress_agent::model::policy::{Affinity, Care, HealthCheck, Policy, Probe, Upstream, UpstreamTls};
use ingress_agent::model::route::{PathMatch, Route};
use ingress_agent::model::snapshot::AppProtocol;
use ingress_agent::proxy::ProxyOptions;
use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::{Raw, get};
use ingress_tests::http::site::{Served, Site, pool, prefix, route};
use ingress_tests::wait::{SetOnDrop, until};

fn check(probe: Probe) -> HealthCheck {
    let interval = Duration::from_millis(100);
    HealthCheck { probe, port: None, interval, timeout: Duration::from_secs(5), healthy: 2, unhealthy: 3 }
}

fn http(path: &str) -> HealthCheck {
    check(Probe::Http { path: path.to_owned(), host: None, statuses: vec![(200, 399)] })
}

fn caring(path: PathMatch, check: &HealthCheck) -> Route {
    caring_for(path, Care { health: Some(check.clone()), slow_start: None })
}

fn caring_for(path: PathMatch, care: Care) -> Route {
    let mut route = route(path, "web");
    route.policy = Some(Arc::new(Policy { care: Some(Arc::new(care)), ..Policy::default() }));
    route
}

/// Answers 200 with its name, and 500 to everything while it is ill.
fn fickle(name: &'static str, ill: &Arc<AtomicBool>) -> Backend {
    let ill = Arc::clone(ill);
    Backend::answering(move |_, stream| {
        let status = if ill.load(Ordering::SeqCst) { "500 Internal Server Error" } else { "200 OK" };
        reply(stream, status, "", name.as_bytes());
        Then::Keep
    })
}

/// Requests of clients, without checks.
fn asked(backend: &Backend) -> usize {
    backend.received().iter().filter(|r| !r.head.contains("sluicegate-health/")).count()
}

fn is_well(served: &Served, endpoint: SocketAddr) -> Option<bool> {
    served.proxy().metrics().health.iter().find(|h| h.endpoint == endpoint).map(|h| h.well)
}

/// Whether this many requests in a row, on connections of their own (so that every worker has some), come from these.
fn only_from(served: &Served, count: usize, names: &[&str]) -> bool {
    (0..count).all(|_| {
        let answer = get(served.http(), "a", "/");
        answer.status == 200 && names.contains(&answer.text().as_str())
    })
}

#[test]
fn an_endpoint_that_fails_its_check_gets_no_request_until_it_is_well() {
    let ill = Arc::new(AtomicBool::new(false));
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), fickle("c", &ill));
    let site = Site::default()
        .pool(pool("web", &[a.address, b.address, c.address]))
        .any(vec![caring(prefix(""), &http("/healthz?x=1"))]);
    let served = Served::new(&site);
    until("c has requests", || (get(served.http(), "a", "/").text() == "c").then_some(()));
    let probe = until("c is checked", || c.received().into_iter().find(|r| r.head.contains("sluicegate-health/")));
    assert_eq!(probe.line(), "GET /healthz?x=1 HTTP/1.1");
    assert_eq!(probe.field("host"), Some(&*c.address.to_string()));

    ill.store(true, Ordering::SeqCst);
    until("it is found ill", || (is_well(&served, c.address) == Some(false)).then_some(()));
    let reason = served.proxy().metrics().health.into_iter().find(|h| h.endpoint == c.address).expect("c").reason;
    assert_eq!(reason.as_deref(), Some("it answered 500"));
    until("every worker knows", || only_from(&served, 20, &["a", "b"]).then_some(()));
    let before = asked(&c);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Raw::connect(served.http());
                    let mut failed = 0;
                    for _ in 0..250 {
                        let answer = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
                        failed += usize::from(answer.map(|r| r.status) != Some(200));
                    }
                    failed
                })
            })
            .collect();
        let failed: usize = clients.into_iter().map(|client| client.join().expect("a client")).sum();
        assert_eq!(failed, 0, "of 1000 requests");
    });
    assert_eq!(asked(&c), before, "none of them reached it");

    ill.store(false, Ordering::SeqCst);
    until("it is well again", || (is_well(&served, c.address) == Some(true)).then_some(()));
    until("it has requests again", || (get(served.http(), "a", "/").text() == "c").then_some(()));
}

#[test]
fn where_all_are_ill_all_are_asked() {
    let ill = Arc::new(AtomicBool::new(true));
    // Only what is checked is wrong.
    let answer = |name: &'static str| {
        let ill = Arc::clone(&ill);
        Backend::answering(move |request, stream| {
            let bad = request.line().contains("/healthz") && ill.load(Ordering::SeqCst);
            reply(stream, if bad { "503 Service Unavailable" } else { "200 OK" }, "", name.as_bytes());
            Then::Keep
        })
    };
    let (a, b) = (answer("a"), answer("b"));
    let mut sticky = caring(prefix("/sticky"), &http("/healthz"));
    let cookie = Affinity {
        cookie: "at".to_owned(),
        persistent: false,
        change_on_failure: false,
        canary_sticks: true,
        path: None,
        domain: None,
        expires: None,
        max_age: None,
        same_site: None,
        conditional_none: false,
        secure: None,
    };
    let mut policy = Policy::clone(sticky.policy.as_ref().expect("a policy"));
    policy.affinity = Some(Arc::new(cookie));
    sticky.policy = Some(Arc::new(policy));
    let site = Site::default()
        .pool(pool("web", &[a.address, b.address]))
        .any(vec![caring(prefix(""), &http("/healthz")), sticky]);
    let served = Served::new(&site);
    for backend in [&a, &b] {
        // The first check decides alone.
        until("both are ill", || (is_well(&served, backend.address) == Some(false)).then_some(()));
    }
    let (before_a, before_b) = (asked(&a), asked(&b));
    assert!(only_from(&served, 40, &["a", "b"]));
    assert!(asked(&a) > before_a && asked(&b) > before_b, "both are asked");
    // A client stays with his, as he does where all are well.
    let first = get(served.http(), "a", "/sticky");
    let cookie = first.field("set-cookie").and_then(|c| c.split(';').next()).expect("a cookie").to_owned();
    for _ in 0..10 {
        let request = format!("GET /sticky HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        let again = ingress_tests::http::raw::ask(served.http(), request).expect("a response");
        assert_eq!(again.text(), first.text());
    }
}

#[test]
fn one_check_serves_all_workers_and_ingresses_and_ends_with_the_last() {
    let backend = Backend::named("x");
    let same = http("/healthz");
    let other = Care { health: Some(same.clone()), slow_start: Some(Duration::from_secs(30)) };
    let site = |routes: Vec<Route>| Site::default().pool(pool("web", &[backend.address])).any(routes);
    let all = site(vec![caring(prefix("/a"), &same), caring(prefix("/b"), &same), caring_for(prefix("/c"), other)]);
    let mut served = Served::new(&all);
    for path in ["/a", "/b", "/c", "/a", "/b", "/c"] {
        assert_eq!(get(served.http(), "a", path).status, 200);
    }
    let passed = |served: &Served| served.proxy().metrics().health.iter().map(|h| h.passed).sum::<u64>();
    until("five checks", || (passed(&served) >= 5).then_some(()));
    assert_eq!(served.proxy().metrics().health.len(), 1);
    let made = backend.received().len() - asked(&backend);
    // One may be under way.
    let counted = passed(&served) as usize;
    assert!(made <= counted + 1 && made >= 5, "{made} checks were made, {counted} passed");
    // One of three Ingresses goes, then the others: by losing the annotation, which must not cost them a request.
    served.apply(&site(vec![caring(prefix("/a"), &same), route(prefix("/b"), "web")]));
    until("it goes on", || (passed(&served) > counted as u64 + 2).then_some(()));
    served.apply(&site(vec![route(prefix("/a"), "web")]));
    until("nothing is checked any more", || served.proxy().metrics().health.is_empty().then_some(()));
    assert_eq!(get(served.http(), "a", "/a").status, 200);
}

#[test]
fn what_one_ingress_checks_is_nothing_to_another() {
    let ill = Arc::new(AtomicBool::new(true));
    let (good, bad) = (Backend::named("good"), fickle("bad", &ill));
    let mut unchecked = route(prefix("/plain"), "web");
    unchecked.policy = Some(Arc::new(Policy::default()));
    let site = Site::default()
        .pool(pool("web", &[good.address, bad.address]))
        .any(vec![caring(prefix(""), &http("/")), unchecked]);
    let served = Served::new(&site);
    until("it is left alone", || only_from(&served, 20, &["good"]).then_some(()));
    let statuses: Vec<u16> = (0..20).map(|_| get(served.http(), "a", "/plain").status).collect();
    assert!(statuses.contains(&500) && statuses.contains(&200), "{statuses:?}");
}

#[test]
fn a_port_of_its_own_says_whether_an_endpoint_is_well() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    // Endpoints on two addresses with one health port, of which one listens.
    let health = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = health.local_addr().expect("its address").port();
    let moved = Backend::bound("127.0.0.2:0".parse().expect("an address"), |_, stream| {
        reply(stream, "200 OK", "", b"moved");
        Then::Keep
    });
    drop(b);
    let check = HealthCheck { port: Some(port), ..check(Probe::Tcp) };
    let site = Site::default().pool(pool("web", &[a.address, moved.address])).any(vec![caring(prefix(""), &check)]);
    let served = Served::new(&site);
    until("nobody listens beside the second", || (is_well(&served, moved.address) == Some(false)).then_some(()));
    until("it is left alone", || only_from(&served, 20, &["a"]).then_some(()));
    let second = TcpListener::bind(("127.0.0.2", port)).expect("bind");
    until("it is back", || (get(served.http(), "a", "/").text() == "moved").then_some(()));
    drop(health);
    until("the first is left alone", || only_from(&served, 20, &["moved"]).then_some(()));
    drop(second);
}

#[test]
fn an_endpoint_that_comes_ill_is_found_out_by_its_first_check() {
    let ill = Arc::new(AtomicBool::new(true));
    let (a, b) = (Backend::named("a"), fickle("b", &ill));
    let slow = HealthCheck { interval: Duration::from_mins(10), ..http("/") };
    let site = |ends: &[SocketAddr]| Site::default().pool(pool("web", ends)).any(vec![caring(prefix(""), &slow)]);
    let mut served = Served::new(&site(&[a.address]));
    served.apply(&site(&[a.address, b.address]));
    until("it is found ill at once", || (is_well(&served, b.address) == Some(false)).then_some(()));
    until("every worker knows", || only_from(&served, 20, &["a"]).then_some(()));
    // What is known outlives a change of the others, also in workers that make their pool anew.
    let c = Backend::named("c");
    served.apply(&site(&[a.address, b.address, c.address]));
    assert!(only_from(&served, 40, &["a", "c"]));
    // Whoever leaves and comes back begins anew.
    served.apply(&site(&[a.address, c.address]));
    ill.store(false, Ordering::SeqCst);
    served.apply(&site(&[a.address, b.address, c.address]));
    until("it has requests", || (get(served.http(), "a", "/").text() == "b").then_some(()));
}

/// What gRPC servers say of themselves.
#[derive(Clone, Copy)]
enum Said {
    Serving,
    NotServing,
    Unimplemented,
}

type Frames = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A gRPC server with the health service, over h2c or TLS; its other calls answer its name. Serves until the process ends.
fn grpc(name: &'static str, said: Arc<std::sync::Mutex<Said>>, secure: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("its address");
    listener.set_nonblocking(true).expect("not blocking");
    let config = secure.then(|| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["grpc.example".to_owned()]).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate], key).expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec()];
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    });
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let (said, config) = (Arc::clone(&said), config.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| call(name, Arc::clone(&said), request));
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // A connection that breaks is the proxy's affair.
                    match config {
                        None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                        Some(config) => {
                            let Ok(stream) = config.accept(stream).await else { return };
                            drop(builder.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
    });
    address
}

async fn call(
    name: &'static str,
    said: Arc<std::sync::Mutex<Said>>,
    request: Request<Incoming>,
) -> Result<Response<StreamBody<Frames>>, Infallible> {
    let health = request.uri().path() == "/grpc.health.v1.Health/Check";
    let typed = request.headers().get("content-type").is_some_and(|t| t == "application/grpc");
    let message = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut trailers = HeaderMap::new();
    let said = *said.lock().expect("no panic holds it");
    let asked_well = typed && *message == *b"\0\0\0\0\x06\x0a\x04shop";
    let (data, status) = match said {
        _ if !health => (Bytes::from_static(name.as_bytes()), "0"),
        _ if !asked_well => (Bytes::new(), "3"),
        Said::Serving => (Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), "0"),
        Said::NotServing => (Bytes::from_static(&[0, 0, 0, 0, 2, 8, 2]), "0"),
        Said::Unimplemented => (Bytes::new(), "12"),
    };
    trailers.insert("grpc-status", status.parse().expect("a value"));
    let frames = [Ok(Frame::data(data)), Ok(Frame::trailers(trailers))];
    let frames: Frames = Box::pin(futures_util::stream::iter(frames));
    Ok(Response::new(StreamBody::new(frames)))
}

#[test]
fn grpc_servers_are_asked_in_their_own_protocol() {
    for secure in [false, true] {
        let (well, sick) =
            (Arc::new(std::sync::Mutex::new(Said::Serving)), Arc::new(std::sync::Mutex::new(Said::Serving)));
        let (a, b) = (grpc("a", well, secure), grpc("b", Arc::clone(&sick), secure));
        let grpc_check = check(Probe::Grpc { service: "shop".to_owned() });
        let mut route = caring(prefix(""), &grpc_check);
        let mut policy = Policy::clone(route.policy.as_ref().expect("a policy"));
        let tls = secure.then(UpstreamTls::default);
        policy.upstream = Some(Arc::new(Upstream { protocol: AppProtocol::H2c, tls }));
        route.policy = Some(Arc::new(policy));
        let served = Served::new(&Site::default().pool(pool("web", &[a, b])).any(vec![route]));
        until("both are checked", || served.proxy().metrics().health.iter().all(|h| h.passed > 1).then_some(()));
        until("b has requests", || (get(served.http(), "a", "/").text() == "b").then_some(()));
        for (said, reason) in [(Said::NotServing, "NOT_SERVING"), (Said::Unimplemented, "UNIMPLEMENTED")] {
            *sick.lock().expect("no panic holds it") = said;
            until("b is ill", || (is_well(&served, b) == Some(false)).then_some(()));
            until("every worker knows", || only_from(&served, 20, &["a"]).then_some(()));
            let told = served.proxy().metrics().health.into_iter().find(|h| h.endpoint == b).expect("b").reason;
            assert!(told.as_deref().is_some_and(|told| told.contains(reason)), "{told:?}");
            *sick.lock().expect("no panic holds it") = Said::Serving;
            until("b is back", || (get(served.http(), "a", "/").text() == "b").then_some(()));
        }
    }
}

#[test]
fn an_ejection_is_known_to_every_worker() {
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners = [free(), free()];
    let refused = listeners.map(|l| l.local_addr().expect("an address"));
    let good = Backend::named("good");
    let endpoints = [refused.as_slice(), &[good.address]].concat();
    let site = Site::default().pool(pool("web", &endpoints)).any(vec![route(prefix(""), "web")]);
    let served = Served::with(ProxyOptions { workers: 8, ..ProxyOptions::default() }, &site);
    for _ in 0..400 {
        assert_eq!(get(served.http(), "a", "/").text(), "good");
    }
    // Workers that told each other nothing would eject both each, after three retries: 16 and 48. One that has not yet read what
    // another told may eject again.
    let metrics = served.proxy().metrics();
    assert!((2..8).contains(&metrics.ejections), "{}", metrics.ejections);
    assert!((6..32).contains(&metrics.retries), "{}", metrics.retries);
}
