//! Changes under load cost no request and no connection; listeners come and go; drain finishes what is under way.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ingress_agent::model::route::Listener;
use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::{Raw, get};
use ingress_tests::http::site::{HTTP, Served, Site, certificate, pool, prefix, route};
use ingress_tests::wait::until;

#[test]
fn changes_of_routes_endpoints_and_certificates_fail_nothing() {
    let backends = [Backend::named("a"), Backend::named("b"), Backend::named("c")];
    let addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
    let site = |turn: usize| {
        let ends = &addresses[turn % 3..=(turn % 3).max(turn % 2 + 1).min(2)];
        let mut routes = vec![route(prefix(""), "web")];
        routes.extend((0..turn % 5).map(|i| route(prefix(&format!("/extra{i}")), "web")));
        Site::default().pool(pool("web", ends)).any(routes).certificate(certificate("shop", &["shop.example"]))
    };
    let mut served = Served::new(&site(0));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let to = served.http();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                // One connection all the time: a closed one would be noticed.
                let mut client = Raw::connect(to);
                while !stop.load(Ordering::Relaxed) {
                    let response = client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").response();
                    assert_eq!(response.map(|r| r.status), Some(200));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for turn in 1..200 {
        let problems = served.apply(&site(turn));
        assert!(problems.is_empty(), "{problems:?}");
    }
    until("requests during the changes", || (done.load(Ordering::Relaxed) > 1000).then_some(()));
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no request failed");
    }
    assert_eq!(served.proxy().metrics().connections, 8);
    assert_eq!(served.proxy().metrics().generation, 200);
}

#[test]
fn a_removed_endpoint_gets_nothing_once_apply_has_returned() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let mut served = Served::new(&Site::to(old.address));
    let mut clients: Vec<Raw> = (0..10).map(|_| Raw::connect(served.http())).collect();
    let mut round = |expected: &str| {
        for client in &mut clients {
            let response = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().expect("a response");
            assert_eq!(response.text(), expected);
        }
    };
    round("old");
    served.apply(&Site::to(new.address));
    round("new");
    assert_eq!(old.received().len(), 10);
}

#[test]
fn services_with_one_endpoint_share_its_connections_until_the_last_of_them_goes() {
    let backend = Backend::echo();
    let site = |names: &[&str]| {
        let pools = names.iter().map(|name| pool(name, &[backend.address]));
        let site = pools.fold(Site::default(), Site::pool);
        site.any(names.iter().map(|name| route(prefix(&format!("/{name}")), name)).collect())
    };
    let mut served = Served::single(&site(&["a", "b", "c"]));
    let mut client = Raw::connect(served.http());
    let mut ask = |name: &str| {
        let response = client.send(format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n")).response();
        assert_eq!(response.map(|r| r.status), Some(200), "{name}");
        backend.connections()
    };
    assert_eq!(["a", "b", "c", "b", "a"].map(&mut ask), [1; 5]);
    served.apply(&site(&["b"]));
    assert_eq!(ask("b"), 1, "others left");
    served.apply(&site(&[]));
    served.apply(&site(&["b"]));
    assert_eq!(ask("b"), 2, "with the last one it was closed");
}

#[test]
fn requests_under_way_keep_their_route() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = Backend::answering(move |_, stream| {
        let _ = held.lock().expect("the only lock").recv_timeout(Duration::from_secs(10));
        reply(stream, "200 OK", "", b"slow");
        Then::Keep
    });
    let mut served = Served::new(&Site::to(slow.address));
    let mut client = Raw::connect(served.http());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the request is under way", || (!slow.received().is_empty()).then_some(()));
    // Its host, its pool and its listener go away.
    let empty = ingress_agent::model::snapshot::Snapshot { generation: 2, ..Default::default() };
    served.apply_snapshot(Arc::new(empty));
    release.send(()).expect("the backend waits");
    assert_eq!(client.response().expect("a response").text(), "slow");
    until("nobody listens", || TcpStream::connect(served.http()).is_err().then_some(()));
}

#[test]
fn a_taken_port_is_reported_and_bound_when_free() {
    let backend = Backend::named("x");
    let site = Site::to(backend.address);
    let vip = ingress_tests::http::address();
    // Without SO_REUSEPORT, so nobody can share it.
    let taken = TcpListener::bind((vip, HTTP)).expect("bind");
    let mut served = Served::new(&site);
    let mut snapshot = site.snapshot(2, served.vip);
    snapshot.listeners.push(Arc::new(Listener { vip, ..(*snapshot.listeners[0]).clone() }));
    let problems = served.apply_snapshot(Arc::new(snapshot));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains(&format!("{vip}:{HTTP}")) && problems[0].contains("ss -ltnp"), "{problems:?}");
    assert_eq!(get(served.http(), "a", "/").text(), "x", "the other listener serves");
    drop(taken);
    until("the listener is bound", || {
        let left = served.runtime.block_on(served.proxy().problems()).expect("the workers answer");
        left.is_empty().then_some(())
    });
    assert_eq!(get(SocketAddr::new(vip, HTTP), "a", "/").text(), "x");
}

#[test]
fn listeners_are_bound_before_their_address_exists() {
    let backend = Backend::named("x");
    let site = Site::to(backend.address);
    let mut served = Served::new(&site);
    let addresses: [IpAddr; 2] = ["203.0.113.77".parse().expect("v4"), "2001:db8::77".parse().expect("v6")];
    let mut snapshot = site.snapshot(2, served.vip);
    for vip in addresses {
        snapshot.listeners.push(Arc::new(Listener { vip, ..(*snapshot.listeners[0]).clone() }));
    }
    assert_eq!(served.apply_snapshot(Arc::new(snapshot)), Vec::<String>::new());
}

/// Of all sockets that listen there, another descriptor.
fn copies(address: SocketAddr) -> Vec<OwnedFd> {
    let numbers = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let numbers: Vec<i32> = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let copy = |number: i32| {
        // SAFETY: borrowed for one call of fcntl only, which fails where another test has closed it.
        unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().ok()
    };
    let listens = |fd: &OwnedFd| {
        let socket = socket2::SockRef::from(fd);
        let here = socket.local_addr().ok().and_then(|a| a.as_socket()) == Some(address);
        here && socket.is_listener().unwrap_or(false)
    };
    numbers.into_iter().filter_map(copy).filter(listens).collect()
}

#[test]
fn a_port_that_was_given_up_is_free_while_a_child_that_starts_has_its_sockets() {
    let backend = Backend::named("x");
    let site = Site::to(backend.address);
    let mut served = Served::new(&site);
    // As fork makes them; they last until exec.
    let copies = copies(served.http());
    assert!(copies.len() >= 2, "one a worker, not {}", copies.len());
    let empty = ingress_agent::model::snapshot::Snapshot { generation: 2, ..Default::default() };
    served.apply_snapshot(Arc::new(empty));
    until("nobody listens", || TcpStream::connect(served.http()).is_err().then_some(()));
    let problems = served.apply_snapshot(Arc::new(site.snapshot(3, served.vip)));
    assert_eq!(problems, Vec::<String>::new());
    for _ in 0..50 {
        assert_eq!(get(served.http(), "a", "/").text(), "x");
    }
    drop(copies);
}

#[test]
fn drain_closes_idle_connections_and_finishes_requests() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let backend = Backend::answering(move |request, stream| {
        if request.line().contains("/slow") {
            let _ = held.lock().expect("the only lock").recv_timeout(Duration::from_secs(10));
        }
        reply(stream, "200 OK", "", b"done");
        Then::Keep
    });
    let mut served = Served::new(&Site::to(backend.address));
    let (mut idle, mut fresh, mut busy) =
        (Raw::connect(served.http()), Raw::connect(served.http()), Raw::connect(served.http()));
    assert_eq!(idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().map(|r| r.status), Some(200));
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the request is under way", || (backend.received().len() == 2).then_some(()));
    until("three connections", || (served.proxy().metrics().connections >= 2).then_some(()));
    let (proxy, to) = (served.proxy.take().expect("the proxy"), served.http());
    let draining = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(proxy.drain(Duration::from_secs(20)));
    });
    assert!(idle.closed(), "an idle connection is closed");
    until("nobody listens", || TcpStream::connect(to).is_err().then_some(()));
    assert!(!draining.is_finished(), "drain waits for the request");
    release.send(()).expect("the backend waits");
    let response = busy.response().expect("the response");
    assert_eq!((response.text().as_str(), response.field("connection")), ("done", Some("close")));
    draining.join().expect("drained");
    assert!(fresh.closed());
}

#[test]
fn drain_ends_with_its_time() {
    let backend = Backend::answering(|_, _| {
        std::thread::park_timeout(Duration::from_secs(10));
        Then::Close
    });
    let mut served = Served::new(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the request is under way", || (!backend.received().is_empty()).then_some(()));
    let proxy = served.proxy.take().expect("the proxy");
    let begun = Instant::now();
    served.runtime.block_on(proxy.drain(Duration::from_millis(300)));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(client.closed());
}
