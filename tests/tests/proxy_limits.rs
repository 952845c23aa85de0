//! Clients that keep us waiting, and the access log of those that do not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ingress_agent::proxy::{AccessLog, AccessLogFormat, Limits, ProxyOptions};
use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::{Raw, ask, get};
use ingress_tests::http::site::{Served, Site};
use ingress_tests::wait::until;

fn limited() -> ProxyOptions {
    let second = Duration::from_secs(1);
    let limits = Limits { header: second, client_body: second, client_send: second, keep_alive: second };
    ProxyOptions { workers: 1, limits, ..ProxyOptions::default() }
}

#[test]
fn slow_clients_are_closed_and_quick_ones_are_not() {
    let backend = Backend::echo();
    let served = Served::with(limited(), &Site::to(backend.address));
    let rows: [(&str, &str); 4] = [
        ("nothing", ""),
        ("half a head", "GET / HTTP/1.1\r\nHost: a\r\n"),
        ("half a body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"),
        ("half a chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"),
    ];
    let mut clients: Vec<_> = rows
        .iter()
        .map(|(what, sent)| {
            let mut client = Raw::connect(served.http());
            client.send(sent);
            (what, client)
        })
        .collect();
    let mut idle = Raw::connect(served.http());
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.response().map(|r| r.status), Some(200));
    let begun = Instant::now();
    for (what, client) in &mut clients {
        assert!(client.closed(), "{what}");
    }
    assert!(idle.closed(), "idle after a request");
    assert!(begun.elapsed() < Duration::from_secs(10), "limits of a second took {:?}", begun.elapsed());
}

#[test]
fn a_head_that_trickles_does_not_stretch_its_limit() {
    let backend = Backend::echo();
    let served = Served::with(limited(), &Site::to(backend.address));
    let mut client = TcpStream::connect(served.http()).expect("the proxy listens");
    let begun = Instant::now();
    // A byte every 100 ms: never silent for a second.
    while client.write_all(b"G").is_ok() && begun.elapsed() < Duration::from_secs(15) {
        client.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        if matches!(client.read(&mut [0; 1]), Ok(0)) {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let backend = Backend::answering(|_, stream| {
        reply(stream, "200 OK", "", &vec![b'x'; 64 << 20]);
        Then::Close
    });
    let served = Served::with(limited(), &Site::to(backend.address));
    let mut client = TcpStream::connect(served.http()).expect("the proxy listens");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    until("the stuck connection is closed", || (served.proxy().metrics().open_connections == 0).then_some(()));
}

#[test]
fn an_http2_client_that_stops_the_flow_is_closed_although_it_pings() {
    let backend = Backend::answering(|_, stream| {
        reply(stream, "200 OK", "", &vec![b'x'; 1 << 20]);
        Then::Close
    });
    let served = Served::with(limited(), &Site::to(backend.address));
    let mut client = TcpStream::connect(served.http()).expect("the proxy listens");
    // Preface, SETTINGS with an initial window of 10 bytes, and GET / by static and literal HPACK fields.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 10]);
    bytes.extend([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41, 1, b'a']);
    client.write_all(&bytes).expect("sent");
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        // PING, and whatever the proxy says.
        let pinged = client.write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        if pinged.is_err() || matches!(client.read(&mut [0; 1024]), Ok(0)) {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(backend.received().len(), 1, "the request itself was sound");
}

#[test]
fn a_long_download_is_not_idle() {
    let backend = Backend::answering(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n");
        for _ in 0..12 {
            let _ = stream.write_all(b"x");
            std::thread::park_timeout(Duration::from_millis(300));
        }
        Then::Close
    });
    let served = Served::with(limited(), &Site::to(backend.address));
    assert_eq!(get(served.http(), "a", "/").text(), "x".repeat(12));
}

#[test]
fn the_access_log_has_both_formats_and_reopens() {
    let backend = Backend::named("hello");
    for format in [AccessLogFormat::Combined, AccessLogFormat::Json] {
        let path = std::env::temp_dir().join(format!("sluicegate-log-{}-{format:?}", std::process::id()));
        let moved = path.with_extension("1");
        let options = ProxyOptions {
            workers: 1,
            access_log: AccessLog::File(path.clone()),
            access_log_format: format,
            ..ProxyOptions::default()
        };
        let served = Served::with(options, &Site::to(backend.address));
        let request = "GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl \"8\"\r\nReferer: http://r/\r\nX-Request-ID: 77\r\n\r\n";
        assert_eq!(ask(served.http(), request).map(|r| r.status), Some(200));
        let read = |path: &std::path::Path| {
            until("a line in the log", || std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n')))
        };
        let line = read(&path);
        match format {
            AccessLogFormat::Combined => {
                let parts: Vec<&str> = line.trim_end().split('"').collect();
                assert_eq!(parts.len(), 7, "{line}");
                assert!(parts[0].starts_with("127.0.0.1 - - [") && parts[0].ends_with(" +0000] "), "{line}");
                assert_eq!(parts[1], "GET /a?b=c HTTP/1.1");
                assert_eq!(parts[2], " 200 5 ");
                assert_eq!((parts[3], parts[5]), ("http://r/", "curl \\x228\\x22"));
                let tail: Vec<&str> = parts[6].split_whitespace().collect();
                assert_eq!(tail.len(), 9, "{line}");
                assert_eq!((tail[2], tail[3], tail[7], tail[8]), ("[shop-web-80]", "[]", "200", "77"), "{line}");
                assert_eq!(tail[4], backend.address.to_string());
            }
            AccessLogFormat::Json => {
                let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!(value["uri"], "/a?b=c");
                assert_eq!(value["status"], 200);
                assert_eq!(value["host"], "shop.example");
                assert_eq!(value["user_agent"], "curl \"8\"");
                assert_eq!(value["upstream"], "shop/web:80");
                assert_eq!(value["upstream_status"], 200);
            }
        }
        std::fs::rename(&path, &moved).expect("rotate");
        served.proxy().reopen();
        assert_eq!(get(served.http(), "a", "/second").status, 200);
        assert!(read(&path).contains("/second"));
        assert!(!read(&moved).contains("/second"));
        std::fs::remove_file(&path).expect("remove");
        std::fs::remove_file(&moved).expect("remove");
    }
}

#[test]
fn metrics_count_requests_by_route_and_class() {
    let backend = Backend::named("hello");
    let mut site = Site::to(backend.address);
    site.hosts.any = None;
    let site = site.host("a", vec![ingress_tests::http::site::route(ingress_tests::http::site::prefix("/x"), "web")]);
    let served = Served::new(&site);
    for _ in 0..3 {
        get(served.http(), "a", "/x");
    }
    get(served.http(), "a", "/none");
    let metrics = until("four requests are counted", || {
        let metrics = served.proxy().metrics();
        let routed = metrics.routes.first().is_some_and(|r| r.by_class[2] == 3);
        // The last bytes leave after the request is recorded.
        (routed && metrics.unrouted[4] == 1 && metrics.bytes_out > 300).then_some(metrics)
    });
    assert_eq!(metrics.routes.len(), 1);
    let route = &metrics.routes[0];
    assert_eq!((route.latency.iter().sum::<u64>(), route.bytes_out), (3, 15));
    assert!(metrics.bytes_in > 100, "{metrics:?}");
}
