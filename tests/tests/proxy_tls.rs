//! TLS towards clients: certificates by name, swapped live, protocols by ALPN, sessions resumed at any worker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use ingress_agent::model::policy::{ListenerSettings, TlsProfile, TlsSettings};
use ingress_agent::model::route::Tls;
use ingress_agent::model::snapshot::{AppProtocol, ObjectName};
use ingress_tests::http::backend::Backend;
use ingress_tests::http::raw::Raw;
use ingress_tests::http::site::{Served, Site, certificate, pool, prefix, route};
use ingress_tests::http::tls::{Trusting, client_config};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn connect(config: &Arc<ClientConfig>, to: SocketAddr, name: &str) -> Option<TlsStream> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(to).expect("the proxy listens"));
    stream.conn.complete_io(&mut stream.sock).ok()?;
    Some(stream)
}

fn leaf(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().and_then(|c| c.first()).expect("a certificate").to_vec()
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let backend = Backend::echo();
    let (shop, wild, fallback) = (
        certificate("shop", &["shop.example"]),
        certificate("wild", &["*.shop.example"]),
        certificate("fallback", &["fallback.example"]),
    );
    let ders = [shop.chain[0].clone(), wild.chain[0].clone(), fallback.chain[0].clone()];
    let mut site = Site::to(backend.address).certificate(shop).certificate(wild).certificate(fallback);
    let served = Served::new(&site);
    let config = client_config(&[b"http/1.1"]);
    let shown = |name: &str| leaf(&connect(&config, served.https(), name).expect("a handshake"));
    assert_eq!(shown("shop.example"), ders[0]);
    assert_eq!(shown("SHOP.example"), ders[0]);
    assert_eq!(shown("a.shop.example"), ders[1]);
    let default = shown("a.b.shop.example");
    assert!(!ders.contains(&default), "one label only");
    assert!(default.windows(30).any(|w| w == b"Sluicegate default certificate"), "the self-signed default");
    assert_eq!(shown("unknown.example"), default, "made once");
    assert_eq!(shown("127.0.0.1"), default, "without SNI");
    // A default from a Secret.
    let tls = site.tls.take().expect("TLS");
    site.tls = Some(Tls { default: Some(ObjectName::new("shop", "fallback")), ..tls });
    let mut served = served;
    served.apply(&site);
    assert_eq!(leaf(&connect(&config, served.https(), "unknown.example").expect("a handshake")), ders[2]);
}

#[test]
fn requests_over_tls_say_so_to_the_backend() {
    let backend = Backend::echo();
    let site = Site::to(backend.address).certificate(certificate("shop", &["shop.example"]));
    let served = Served::new(&site);
    let stream = connect(&client_config(&[b"http/1.1"]), served.https(), "shop.example").expect("a handshake");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut client = Raw::over(stream);
    for _ in 0..3 {
        let response = client.send("GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n").response().expect("a response");
        assert_eq!(response.status, 200);
    }
    let got = backend.last();
    for (name, value) in [("x-forwarded-proto", "https"), ("x-forwarded-port", "8443"), ("x-scheme", "https")] {
        assert_eq!(got.field(name), Some(value), "{name}");
    }
    assert_eq!(served.proxy().metrics().tls_handshakes, 1);
}

#[test]
fn a_new_certificate_is_shown_at_once_and_old_connections_go_on() {
    let backend = Backend::named("x");
    let (old, new) = (certificate("shop", &["shop.example"]), certificate("shop", &["shop.example"]));
    let (old_der, new_der) = (old.chain[0].clone(), new.chain[0].clone());
    let site = Site::to(backend.address);
    let mut served = Served::new(&site.clone().certificate(old));
    let config = client_config(&[b"http/1.1"]);
    let before = connect(&config, served.https(), "shop.example").expect("a handshake");
    assert_eq!(leaf(&before), old_der);
    served.apply(&site.certificate(new));
    // A fresh client, which has no session to resume.
    let after = connect(&client_config(&[b"http/1.1"]), served.https(), "shop.example").expect("a handshake");
    assert_eq!(leaf(&after), new_der);
    for stream in [before, after] {
        let response = Raw::over(stream).send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").response();
        assert_eq!(response.map(|r| r.status), Some(200));
    }
}

#[test]
fn sessions_resume_at_any_worker_in_both_versions() {
    let backend = Backend::named("x");
    let served = Served::new(&Site::to(backend.address).certificate(certificate("shop", &["shop.example"])));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = Trusting::new().versions(&[version]);
        for turn in 0..20 {
            let stream = connect(&config, served.https(), "shop.example").expect("a handshake");
            let kind = stream.conn.handshake_kind();
            // TLS 1.3 tickets come after the handshake, with the first bytes.
            let mut client = Raw::over(stream);
            let response = client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").response();
            assert_eq!(response.map(|r| r.status), Some(200));
            if turn > 0 {
                assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}, connection {turn}");
            }
        }
    }
}

/// `ssl-protocols`, `ssl-ciphers`, `ssl-reject-handshake`.
#[test]
fn settings_choose_versions_suites_and_names() {
    let backend = Backend::named("x");
    let named = |settings: TlsSettings| {
        let settings = Arc::new(ListenerSettings { tls: settings, ..ListenerSettings::default() });
        // The default certificate is also that of a name.
        let mut site = Site::to(backend.address).certificate(certificate("shop", &["shop.example"]));
        let tls = site.tls.take().expect("TLS");
        site.tls = Some(Tls { default: Some(ObjectName::new("shop", "shop")), ..tls });
        Served::new(&Site { settings, ..site })
    };
    let (old, new) = (Trusting::new().versions(&[&TLS12]), Trusting::new().versions(&[&TLS13]));
    let shaken = |served: &Served, config: &Arc<ClientConfig>, name: &str| connect(config, served.https(), name);

    let with = |profile| named(TlsSettings { profile, ..TlsSettings::default() });
    let served = with(TlsProfile { v12: false, ..TlsProfile::default() });
    assert!(shaken(&served, &old, "shop.example").is_none() && shaken(&served, &new, "shop.example").is_some());
    let served = with(TlsProfile { v13: false, ..TlsProfile::default() });
    assert!(shaken(&served, &old, "shop.example").is_some() && shaken(&served, &new, "shop.example").is_none());

    let suites = ["ECDHE-ECDSA-CHACHA20-POLY1305"].into();
    let served = with(TlsProfile { suites, ..TlsProfile::default() });
    let suite = |stream: TlsStream| stream.conn.negotiated_cipher_suite().map(|suite| suite.suite());
    let chosen = shaken(&served, &old, "shop.example").and_then(suite);
    assert_eq!(chosen, Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256));
    assert!(shaken(&served, &new, "shop.example").is_some(), "TLS 1.3 has its own");

    let served = named(TlsSettings { reject_unknown: true, ..TlsSettings::default() });
    assert!(shaken(&served, &new, "shop.example").is_some());
    assert!(shaken(&served, &new, "unknown.example").is_none() && shaken(&served, &new, "127.0.0.1").is_none());
}

#[test]
fn clear_text_and_old_versions_are_refused_on_the_tls_port() {
    let backend = Backend::named("x");
    let served = Served::new(&Site::to(backend.address).certificate(certificate("shop", &["shop.example"])));
    let mut client = Raw::connect(served.https());
    assert_eq!(client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").response(), None);
    // A TLS 1.1 hello: record and client version 3.2, one old suite, no extensions.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut stream = TcpStream::connect(served.https()).expect("the proxy listens");
    stream.write_all(&hello).expect("sent");
    let mut answer = [0; 1];
    // An alert (record type 21) or the end; never a server hello (22).
    assert!(!matches!(stream.read(&mut answer), Ok(1) if answer[0] == 22));
    ingress_tests::wait::until("two failed handshakes", || {
        (served.proxy().metrics().tls_handshake_failures == 2).then_some(())
    });
}

#[test]
fn any_bytes_as_a_hello_harm_nobody() {
    let backend = Backend::named("x");
    let served = Served::new(&Site::to(backend.address).certificate(certificate("shop", &["shop.example"])));
    let mut state = 0x0051_0ce9_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let length = 1 + (random() % 300) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        // Half of them begin as a handshake record with a client hello, so that parsing gets further.
        if random() % 2 == 0 && length > 11 {
            bytes[..6].copy_from_slice(&[22, 3, 1, 0, (length - 5) as u8, 1]);
        }
        let mut stream = TcpStream::connect(served.https()).expect("the proxy listens");
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let stream = connect(&client_config(&[b"http/1.1"]), served.https(), "shop.example").expect("a handshake");
    let response = Raw::over(stream).send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").response();
    assert_eq!(response.map(|r| r.status), Some(200));
}

#[test]
fn backends_behind_tls_are_reached_without_verification() {
    // Another proxy of ours is the TLS backend.
    let backend = Backend::echo();
    let inner = Served::new(&Site::to(backend.address).certificate(certificate("inner", &["inner.example"])));
    let mut outer_pool = pool("web", &[inner.https()]);
    outer_pool.app_protocol = AppProtocol::Https;
    let outer = Served::new(&Site::default().pool(outer_pool).any(vec![route(prefix(""), "web")]));
    let mut client = Raw::connect(outer.http());
    let body = "x".repeat(300_000);
    for _ in 0..3 {
        let request = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let response = client.send(request).response().expect("a response");
        assert!(response.text().ends_with(&body));
    }
    assert_eq!(backend.last().field("x-forwarded-proto"), Some("https"), "as the inner proxy saw it");
}
