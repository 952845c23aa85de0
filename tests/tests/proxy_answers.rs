//! What is done to answers on their way, and what is remembered between requests: compression, pace, snippets, an authority's verdicts, bodies
//! that are sent again. The recorded cases (`proxy_golden`) say what each setting means; here are the parts that a recording cannot show.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use http::StatusCode;
use ingress_agent::model::policy::{
    Against, Algorithm, AuthCache, Coding, Compression, ExternalAuth, ListenerSettings, Part, Policy, ProxyHeader,
    RetryOn, Return, SendRate, Snippet, Statement, Template, Test, Variable,
};
use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::{Raw, ask};
use ingress_tests::http::site::{Served, Site};

fn text(text: &str) -> Template {
    Template(vec![Part::Text(text.to_owned())])
}

fn field(name: &'static str) -> Template {
    Template(vec![Part::Variable(Variable::Field(http::HeaderName::from_static(name)))])
}

fn compressing(site: Site) -> Site {
    let coding = |algorithm| Coding { algorithm, level: 3, min_length: 256, types: vec!["text/plain".to_owned()] };
    let codings = [Algorithm::Brotli, Algorithm::Zstd, Algorithm::Gzip].map(coding).to_vec();
    let settings = ListenerSettings { compression: Some(Compression { codings }), ..ListenerSettings::default() };
    Site { settings: Arc::new(settings), ..site }
}

#[test]
fn bodies_are_compressed_only_for_those_who_ask_and_where_it_suits() {
    let backend = Backend::answering(|request, stream| {
        let fields =
            request.field("x-answer").unwrap_or("content-type: text/plain; charset=utf-8").replace("\\r\\n", "\r\n");
        reply(stream, "200 OK", &format!("{fields}\r\netag: \"a\"\r\n"), &[b'a'; 2000]);
        Then::Keep
    });
    let served = Served::new(&compressing(Site::to(backend.address)));
    let plain = "content-type: text/plain";
    for (method, accept, fields, coding, vary) in [
        ("GET", "gzip", plain, Some("gzip"), true),
        ("GET", "gzip, br;q=0.1, zstd", plain, Some("br"), true),
        ("GET", "zstd", plain, Some("zstd"), true),
        ("GET", "identity", plain, None, true),
        ("GET", "", plain, None, true),
        ("GET", "gzip;q=0", plain, None, true),
        ("GET", "gzip", "content-type: image/png", None, false),
        ("GET", "gzip", "content-type: text/plain\\r\\ncontent-encoding: br", Some("br"), false),
        ("HEAD", "gzip", plain, None, false),
    ] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\nX-Answer: {fields}\r\n\r\n");
        let response = Raw::connect(served.http()).send(request).response_to(method).expect("a response");
        let case = format!("{method} {accept} {fields}");
        assert_eq!(response.field("content-encoding"), coding, "{case}");
        assert_eq!(response.field("vary").is_some(), vary, "{case}");
        if coding.is_some() && vary {
            assert_eq!(response.field("etag"), Some("W/\"a\""), "{case}");
            assert!(response.body.len() < 200, "{case}: {} bytes", response.body.len());
        }
        if coding == Some("gzip") {
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(&*response.body).read_to_end(&mut read).expect("gzip");
            assert_eq!(read, [b'a'; 2000], "{case}");
        }
    }
}

/// What the backend has said is with the client although more will follow: streams of events live by it.
#[test]
fn a_compressed_stream_waits_for_nobody() {
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::answering(move |_, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        let _ = stream.write_all(head.as_bytes());
        let held = wait.lock().expect("one request").recv_timeout(Duration::from_secs(10));
        let _ = stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n");
        assert!(held.is_ok(), "the client saw the first part");
        Then::Close
    });
    let served = Served::new(&compressing(Site::to(backend.address)));
    let mut client = std::net::TcpStream::connect(served.http()).expect("connect");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n").expect("sent");
    let mut got = Vec::new();
    let decoded = |got: &[u8]| -> Vec<u8> {
        let text = String::from_utf8_lossy(got);
        let Some(at) = text.find("\r\n\r\n").map(|_| got.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0) + 4)
        else {
            return Vec::new();
        };
        let (mut rest, mut body) = (&got[at..], Vec::new());
        while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
            let size =
                std::str::from_utf8(&rest[..end]).ok().and_then(|t| usize::from_str_radix(t, 16).ok()).unwrap_or(0);
            if size == 0 || rest.len() < end + 2 + size + 2 {
                break;
            }
            body.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest = &rest[end + 4 + size..];
        }
        let mut out = Vec::new();
        let mut decoder = flate2::write::GzDecoder::new(&mut out);
        let _ = decoder.write_all(&body);
        let _ = decoder.flush();
        drop(decoder);
        out
    };
    let mut part = [0; 4096];
    while decoded(&got) != b"first" {
        let count = client.read(&mut part).expect("the first part, before the second");
        assert!(count > 0, "closed after {:?}", decoded(&got));
        got.extend_from_slice(&part[..count]);
    }
    go.send(()).expect("the backend waits");
    client.read_to_end(&mut got).expect("the rest");
    assert_eq!(decoded(&got), b"firstsecond");
}

#[test]
fn a_body_is_sent_no_faster_than_its_rate() {
    let backend = Backend::answering(|_, stream| {
        reply(stream, "200 OK", "", &vec![b'a'; 50_000]);
        Then::Keep
    });
    let policy = Policy { send_rate: Some(SendRate { rate: 20_000, after: 5_000 }), ..Policy::default() };
    let served = Served::new(&Site::under(backend.address, policy));
    let began = Instant::now();
    let response = ask(served.http(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("a response");
    assert_eq!(response.body.len(), 50_000);
    // 25,000 at once, 20,000 after a second, the rest after another.
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[test]
fn statements_of_snippets_act_in_their_order() {
    let backend = Backend::echo();
    let header = http::HeaderName::from_static;
    let robot = Test {
        value: field("user-agent"),
        against: Against::Pattern { pattern: "bot".to_owned(), case_insensitive: true },
        negated: false,
    };
    let refused = Statement::Return(Return { status: StatusCode::FORBIDDEN, text: Some(text("no robots")) });
    let snippet = Snippet(vec![
        Statement::AddHeader { name: header("x-always"), value: text("1"), always: true },
        Statement::AddHeader { name: header("x-success"), value: text("1"), always: false },
        Statement::If(robot, vec![refused]),
        Statement::RequestHeader { name: header("x-to-backend"), value: field("x-said") },
        Statement::RequestHeader { name: header("x-gone"), value: Template::default() },
        Statement::SetHeader { name: header("content-type"), value: text("text/odd") },
    ]);
    let policy = Policy { snippet: Some(Arc::new(snippet)), ..Policy::default() };
    let served = Served::new(&Site::under(backend.address, policy));
    let request =
        "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: curl\r\nX-Said: hello\r\nX-Gone: 1\r\nX-To-Backend: forged\r\n\r\n";
    let response = ask(served.http(), request).expect("a response");
    assert_eq!((response.field("x-always"), response.field("x-success")), (Some("1"), Some("1")));
    assert_eq!(response.field("content-type"), Some("text/odd"));
    let got = backend.last();
    assert_eq!(got.fields("x-to-backend"), ["hello"]);
    assert_eq!(got.fields("x-gone"), <[&str; 0]>::default());
    let response =
        ask(served.http(), "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: GoogleBot\r\n\r\n").expect("a response");
    assert_eq!((response.status, response.text().as_str()), (403, "no robots"));
    assert_eq!((response.field("x-always"), response.field("x-success")), (Some("1"), None));
    assert_eq!(backend.received().len(), 1, "what is answered at once reaches no backend");
}

#[test]
fn what_an_authority_said_holds_for_its_key_and_its_time() {
    let backend = Backend::named("in");
    let authority = Backend::answering(|request, stream| {
        let status = if request.field("authorization") == Some("good") { "200 OK" } else { "403 Forbidden" };
        reply(stream, status, "x-user: u\r\n", b"");
        Then::Keep
    });
    let hold = Duration::from_mins(1);
    let auth = ExternalAuth {
        secure: false,
        host: authority.address.ip().to_string(),
        port: authority.address.port(),
        target: text("/auth"),
        method: None,
        signin: None,
        signin_parameter: "rd".to_owned(),
        response_headers: vec![http::HeaderName::from_static("x-user")],
        request_redirect: None,
        always_set_cookie: false,
        set_headers: Vec::new(),
        cache: Some(AuthCache { key: field("authorization"), holds: vec![(200, hold)] }),
    };
    let policy = Policy { external: Some(Arc::new(auth)), ..Policy::default() };
    let served = Served::single(&Site::under(backend.address, policy));
    let status = |authorization: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
        ask(served.http(), request).expect("a response").status
    };
    assert_eq!((status("good", "/1"), status("good", "/2")), (200, 200));
    assert_eq!(authority.received().len(), 1, "the second one is known");
    assert_eq!(backend.last().field("x-user"), Some("u"), "with what the authority said of him");
    // Another key is another question; a refusal does not hold here.
    assert_eq!((status("bad", "/"), status("bad", "/")), (403, 403));
    assert_eq!(authority.received().len(), 3);
}

#[test]
fn with_the_proxy_protocol_a_connection_says_whose_it_is_or_is_closed() {
    let backend = Backend::echo();
    let header = ProxyHeader { from: Vec::new(), timeout: Duration::from_secs(5) };
    let settings = Arc::new(ListenerSettings { proxy_protocol: Some(header), ..ListenerSettings::default() });
    let served = Served::new(&Site { settings, ..Site::to(backend.address) });
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Raw::connect(served.http());
    client.send(format!("PROXY TCP4 203.0.113.7 192.0.2.1 5555 80\r\n{request}"));
    assert_eq!(client.response().map(|r| r.status), Some(200));
    assert_eq!(backend.last().fields("x-real-ip"), ["203.0.113.7"]);
    // The second request of the connection is the same client's.
    client.send(request);
    assert_eq!(client.response().map(|r| r.status), Some(200));
    assert_eq!(backend.last().fields("x-real-ip"), ["203.0.113.7"]);
    // In pieces it is the same header.
    let mut client = Raw::connect(served.http());
    for piece in ["PRO", "XY TCP4 198.51.100.9 192.0.2.1 ", "5555 80\r", "\n", request] {
        client.send(piece);
    }
    assert_eq!(client.response().map(|r| r.status), Some(200));
    assert_eq!(backend.last().fields("x-real-ip"), ["198.51.100.9"]);
    assert!(Raw::connect(served.http()).send(request).closed(), "without a header");
    assert_eq!(backend.received().len(), 3);
}

#[test]
fn a_short_body_is_sent_again_and_a_long_one_is_not() {
    let backend = Backend::answering(|_, _| Then::Close);
    let retry_on = RetryOn { non_idempotent: true, ..RetryOn::default() };
    let served = Served::single(&Site::under(backend.address, Policy { retry_on, ..Policy::default() }));
    for (size, tries) in [(10, 3), (60_000, 3), (100_000, 1)] {
        let before = backend.received().len();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{}", "b".repeat(size));
        assert_eq!(ask(served.http(), request).map(|r| r.status), Some(502), "{size} bytes");
        let bodies: Vec<usize> = backend.received()[before..].iter().map(|r| r.body.len()).collect();
        assert_eq!(bodies, vec![size; tries], "{size} bytes");
    }
}
