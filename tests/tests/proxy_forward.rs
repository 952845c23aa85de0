//! What reaches a backend and what comes back: fields, framing, bodies, tunnels, and failures.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ingress_agent::model::route::{Retry, Timeouts};
use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::{Raw, ask, get};
use ingress_tests::http::site::{Served, Site, pool, prefix, route};
use ingress_tests::wait::until;

#[test]
fn fields_are_those_of_ingress_nginx() {
    let backend = Backend::echo();
    let served = Served::new(&Site::to(backend.address));
    let request = "GET /x HTTP/1.1\r\nHost: Shop.Example:8080\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
                   X-Forwarded-Host: evil\r\nX-Real-IP: 203.0.113.9\r\nX-Scheme: gopher\r\nProxy: http://evil\r\n\
                   X-Original-Forwarded-For: 198.51.100.1\r\nX_Under: 1\r\nCookie: a=b\r\nAccept: */*\r\n\r\n";
    ask(served.http(), request).expect("a response");
    let got = backend.last();
    for (name, expected) in [
        ("host", &["Shop.Example:8080"][..]),
        ("x-real-ip", &["127.0.0.1"]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-original-forwarded-for", &["203.0.113.9"]),
        ("x-forwarded-host", &["Shop.Example:8080"]),
        ("x-forwarded-port", &["8080"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-scheme", &["http"]),
        ("x-scheme", &["http"]),
        ("proxy", &[]),
        ("x_under", &[]),
        ("cookie", &["a=b"]),
        ("accept", &["*/*"]),
        ("connection", &[]),
        ("content-length", &[]),
        ("transfer-encoding", &[]),
    ] {
        assert_eq!(got.fields(name), expected, "{name} in {}", got.head);
    }
    let id = got.field("x-request-id").expect("an id");
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    ask(served.http(), "GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n\r\n");
    assert_eq!(backend.last().fields("x-request-id"), ["mine"]);
}

#[test]
fn fields_of_a_connection_are_removed_and_no_client_removes_others() {
    let backend = Backend::answering(|_, stream| {
        reply(
            stream,
            "200 OK",
            "connection: keep-alive, x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\nserver: nginx\r\nx-kept: 2\r\n\
             upgrade: h2c\r\nproxy-connection: close\r\n",
            b"ok",
        );
        Then::Keep
    });
    let served = Served::new(&Site::to(backend.address));
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Named, keep-alive\r\nX-Named: 1\r\nKeep-Alive: 5\r\nTE: gzip, trailers\r\n\
                   Proxy-Connection: close\r\nUpgrade: h2c\r\nX-Kept: 2\r\n\r\n";
    let response = ask(served.http(), request).expect("a response");
    let got = backend.last();
    // RFC 9110 §10.1.4: TE goes with a Connection that names it, and ours names nothing.
    for name in ["connection", "te", "keep-alive", "upgrade"] {
        assert_eq!(got.fields(name), <[&str; 0]>::default(), "request {name}");
    }
    assert_eq!((got.fields("x-kept"), got.fields("x-named")), (vec!["2"], vec!["1"]));
    for name in ["connection", "x-secret", "keep-alive", "server", "upgrade", "proxy-connection"] {
        assert_eq!(response.fields(name), <[&str; 0]>::default(), "response {name}");
    }
    assert_eq!(response.fields("x-kept"), ["2"]);
    assert_eq!(response.fields("date").len(), 1);
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let backend = Backend::answering(|request, stream| {
        if request.line().contains("/chunked") {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nx-sum: 11\r\n\r\n",
            );
            return Then::Keep;
        }
        if request.line().contains("/close") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
            return Then::Close;
        }
        reply(stream, "200 OK", "", &request.body);
        Then::Keep
    });
    let served = Served::new(&Site::to(backend.address));
    let large: String = "0123456789abcdef".repeat(100_000);
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len());
    assert_eq!(ask(served.http(), post).expect("a response").text(), large);

    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nx-t: 1\r\n\r\n";
    ask(served.http(), chunked).expect("a response");
    let got = backend.last();
    assert_eq!(got.fields("transfer-encoding"), ["chunked"]);
    let body = String::from_utf8_lossy(&got.body).into_owned();
    assert!(body.contains("hello") && body.ends_with("0\r\nx-t: 1\r\n\r\n"), "{body:?}");

    let response = ask(served.http(), "GET /chunked HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").expect("a response");
    assert_eq!((response.text().as_str(), response.trailers.as_str()), ("hello world", "x-sum: 11\r\n"));
    assert_eq!(get(served.http(), "a", "/close").text(), "until the end");
    // HTTP/1.0 clients know no chunks: the body ends with the connection.
    let old = ask(served.http(), "GET /chunked HTTP/1.0\r\n\r\n").expect("a response");
    assert_eq!((old.text().as_str(), old.field("transfer-encoding")), ("hello world", None));
}

#[test]
fn answers_without_a_body_are_framed_as_such() {
    let backend = Backend::answering(|request, stream| {
        let status = match request.line().split(' ').nth(1) {
            Some("/204") => "204 No Content",
            Some("/304") => "304 Not Modified",
            _ => "200 OK",
        };
        let _ = write!(stream, "HTTP/1.1 {status}\r\n");
        if status == "200 OK" || status.starts_with("304") {
            let _ = write!(stream, "content-length: 1234\r\n");
        }
        let _ = write!(stream, "\r\n");
        Then::Keep
    });
    let served = Served::single(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    for (method, path, status, length) in [
        ("HEAD", "/", 200, Some("1234")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("1234")),
        ("HEAD", "/", 200, Some("1234")),
    ] {
        let response = client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")).response_to(method);
        let response = response.unwrap_or_else(|| panic!("{method} {path}: no response"));
        assert_eq!((response.status, response.field("content-length")), (status, length), "{method} {path}");
    }
    assert_eq!(backend.connections(), 1, "all of them leave the backend's connection usable");
}

#[test]
fn continue_is_given_when_the_body_is_wanted() {
    let backend = Backend::echo();
    let served = Served::new(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().map(|r| r.status), Some(100));
    assert_eq!(client.send("hello").response().map(|r| r.status), Some(200));
    assert_eq!(backend.last().fields("expect"), <[&str; 0]>::default());
}

#[test]
fn an_early_answer_reaches_the_client_while_it_still_sends() {
    let backend = Backend::answering(|_, stream| {
        reply(stream, "403 Forbidden", "", b"no");
        Then::Close
    });
    let served = Served::new(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nX-Read-Body: no\r\n\r\nbegin");
    let response = client.response().expect("an early response");
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

#[test]
fn a_client_that_leaves_cancels_the_request() {
    let (sender, ended) = std::sync::mpsc::channel();
    let backend = Backend::answering(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart");
        let _ = sender.send(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
        Then::Close
    });
    let served = Served::new(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.take(20).is_some());
    drop(client);
    assert_eq!(ended.recv_timeout(Duration::from_secs(10)), Ok(true), "the backend sees the end");
}

#[test]
fn websocket_bytes_pass_both_ways_and_half_close() {
    let backend = Backend::answering(|request, stream| {
        assert_eq!(request.field("connection"), Some("upgrade"));
        assert_eq!(request.field("upgrade"), Some("websocket"));
        // The first bytes of the new protocol come with the head.
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nhello",
        );
        let mut part = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut part) {
            let _ = stream.write_all(&part[..count]);
        }
        let _ = stream.write_all(b"bye");
        Then::Close
    });
    let served = Served::new(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n");
    let response = client.response().expect("a response");
    assert_eq!(response.status, 101);
    assert_eq!((response.field("upgrade"), response.field("sec-websocket-accept")), (Some("websocket"), Some("x")));
    assert_eq!(client.take(5).as_deref(), Some(&b"hello"[..]));
    let large = vec![7; 1_000_000];
    let mut writer = client.stream.try_clone().expect("a second handle");
    let sent = large.clone();
    let sending = std::thread::spawn(move || {
        let _ = writer.write_all(&sent);
        let _ = writer.shutdown(Shutdown::Write);
    });
    assert_eq!(client.take(large.len()), Some(large));
    assert_eq!(client.take(3).as_deref(), Some(&b"bye"[..]));
    sending.join().expect("the sender");
    assert!(client.closed());
}

#[test]
fn an_upgrade_that_the_backend_declines_stays_http() {
    let backend = Backend::named("plain");
    let served = Served::new(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.response().map(|r| r.text()).as_deref(), Some("plain"));
    }
}

#[test]
fn failures_have_the_codes_of_nginx() {
    let silent = Backend::answering(|_, _| {
        std::thread::park_timeout(Duration::from_secs(5));
        Then::Close
    });
    let rude = Backend::answering(|_, _| Then::Close);
    let babbling = Backend::answering(|request, stream| {
        let bytes: &[u8] = match request.line().split(' ').nth(1).unwrap_or("") {
            "/lengths" => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
            "/length" => b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "/name" => b"HTTP/1.1 200 OK\r\nbad name: x\r\ncontent-length: 0\r\n\r\n",
            _ => b"SSH-2.0-OpenSSH_9.2\r\n",
        };
        let _ = stream.write_all(bytes);
        Then::Close
    });
    let refused = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let quick = Timeouts { read: Some(Duration::from_millis(200)), ..Timeouts::default() };
    let whole = Timeouts { request: Some(Duration::from_millis(200)), ..Timeouts::default() };
    let mut slow = route(prefix("/slow"), "silent");
    slow.timeouts = quick;
    let mut limited = route(prefix("/whole"), "silent");
    limited.timeouts = whole;
    let mut small = route(prefix("/small"), "rude");
    small.max_body = Some(10);
    let site = Site::default()
        .pool(pool("silent", &[silent.address]))
        .pool(pool("rude", &[rude.address]))
        .pool(pool("babbling", &[babbling.address]))
        .pool(pool("refused", &[refused]))
        .pool(pool("empty", &[]))
        .any(vec![
            slow,
            limited,
            small,
            route(prefix("/rude"), "rude"),
            route(prefix("/refused"), "refused"),
            route(prefix("/empty"), "empty"),
            route(prefix("/absent"), "absent"),
            route(prefix("/lengths"), "babbling"),
            route(prefix("/length"), "babbling"),
            route(prefix("/name"), "babbling"),
            route(prefix("/ssh"), "babbling"),
        ]);
    let served = Served::new(&site);
    for (path, status) in [
        ("/nothing", 404),
        ("/slow", 504),
        ("/whole", 504),
        ("/rude", 502),
        ("/refused", 502),
        ("/empty", 503),
        ("/absent", 503),
        ("/lengths", 502),
        ("/length", 502),
        ("/name", 502),
        ("/ssh", 502),
    ] {
        let response = get(served.http(), "a", path);
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.field("server"), None);
    }
    let large = "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world";
    assert_eq!(ask(served.http(), large).map(|r| r.status), Some(413));
    let chunked =
        "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n6\r\nworld!\r\n0\r\n\r\n";
    assert_eq!(ask(served.http(), chunked).map(|r| r.status), Some(413));
    let errors = served.proxy().metrics().upstream_errors;
    assert!(errors.iter().sum::<u64>() >= 10, "{errors:?}");
}

#[test]
fn a_refused_connection_is_tried_elsewhere_and_the_backend_ejected() {
    let refused = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let good = Backend::named("good");
    let site = Site::default().pool(pool("web", &[good.address, refused])).any(vec![route(prefix(""), "web")]);
    let served = Served::single(&site);
    for _ in 0..50 {
        assert_eq!(get(served.http(), "a", "/").text(), "good");
    }
    let metrics = served.proxy().metrics();
    assert_eq!((metrics.retries, metrics.ejections), (3, 1), "three failures, then nobody asks it");
    let mut alone = route(prefix(""), "web");
    alone.retry = Retry { tries: 1 };
    let single = Served::single(&Site::default().pool(pool("web", &[refused])).any(vec![alone]));
    for _ in 0..5 {
        assert_eq!(get(single.http(), "a", "/").status, 502, "the only backend is never ejected");
    }
}

#[test]
fn a_backend_that_closes_idle_connections_costs_no_request() {
    // Answers one request a connection and closes it without having said so.
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let backend = Backend::answering(move |_, stream| {
        reply(stream, "200 OK", "", b"once");
        let _ = stream.shutdown(Shutdown::Both);
        count.fetch_add(1, Ordering::SeqCst);
        Then::Close
    });
    let served = Served::single(&Site::to(backend.address));
    let mut client = Raw::connect(served.http());
    for turn in 0..50 {
        // A POST must not be sent twice, so the proxy looks before it uses an idle connection for one.
        let method = if turn % 2 == 0 { "GET" } else { "POST" };
        let request = format!("{method} /{turn} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.send(request).response().map(|r| r.status), Some(200), "request {turn}");
        until("the backend has closed", || (closed.load(Ordering::SeqCst) == turn + 1).then_some(()));
    }
    assert_eq!(backend.received().len(), 50, "none was sent twice");
}

#[test]
fn connections_are_reused() {
    let backend = Backend::named("x");
    let served = Served::single(&Site::to(backend.address));
    for _ in 0..20 {
        get(served.http(), "a", "/");
    }
    assert_eq!(backend.connections(), 1);
    let open = until("connections closed by the client are noticed", || {
        let open = served.proxy().metrics().open_connections;
        (open == 0).then_some(open)
    });
    assert_eq!(open, 0);
}
