//! Requests that two readers could read differently never reach a backend (RFC 9112 §2, §3, §6, §7). Raw bytes over a
//! real socket: hyper alone accepts many of these.

use ingress_tests::http::backend::Backend;
use ingress_tests::http::raw::{Raw, Response};
use ingress_tests::http::site::{Served, Site};

/// A complete request after each row, so that a smuggled one would be seen at the backend.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

struct Proxied {
    served: Served,
    backend: Backend,
}

impl Proxied {
    fn new() -> Self {
        let backend = Backend::echo();
        Self { served: Served::new(&Site::to(backend.address)), backend }
    }

    fn ask(&self, bytes: &[u8]) -> Option<Response> {
        Raw::connect(self.served.http()).send(bytes).response()
    }

    /// Refused with `status`, the connection is closed, and no byte of it reached the backend.
    #[track_caller]
    fn refuses(&self, what: &str, request: &str, status: u16) {
        let before = self.backend.received().len();
        let mut client = Raw::connect(self.served.http());
        let response = client.send(format!("{request}{NEXT}")).response();
        // Within a body there may be no answer, but the connection is gone.
        let got = response.map(|r| r.status);
        assert!(got == Some(status), "{what}: {got:?} instead of {status}");
        assert!(client.closed(), "{what}: the connection stays open");
        let reached: Vec<String> = self.backend.received()[before..].iter().map(|r| r.line().to_owned()).collect();
        assert!(reached.is_empty(), "{what}: reached the backend: {reached:?}");
    }
}

#[test]
fn ambiguous_heads_are_refused() {
    let proxied = Proxied::new();
    let rows: &[(&str, &str, u16)] = &[
        (
            "§6.1 length and encoding",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "§6.1 encoding and length",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("§6.3 two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (
            "§6.3 one length twice",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            400,
        ),
        ("§6.3 a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
        ("§8.6 a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400),
        ("§8.6 a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", 400),
        ("§8.6 a hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400),
        ("§6.1 an unknown encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (
            "§6.1 chunked not last",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "§6.1 chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "§6.1 a quoted encoding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "§6.1 a hidden encoding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("§6.1 encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("§5.2 a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        ("§5.2 a folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("§2.2 a bare line feed", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("§2.2 bare line feeds", "GET / HTTP/1.1\nHost: a\n\n", 400),
        ("§2.2 a bare carriage return", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
        ("§5.1 a blank before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", 400),
        ("§5.1 a blank before Host's colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("§5.1 no colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length\r\n\r\n", 400),
        ("§5.5 NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
        ("§5.1 an empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        ("§3 two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("§2.3 HTTP/2.0 by name", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        ("§2.3 HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("§2.3 HTTP/0.9", "GET /\r\n\r\n", 400),
        ("§3.2 no Host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("§3.2 two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("§3.2 an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("§3.2 a Host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("§3.2 a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("§3.2 a Host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("§3.2 a Host with what is no port", "GET / HTTP/1.1\r\nHost: a:h-p\r\n\r\n", 400),
        ("§3.2 a list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("§3.2.4 asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("§3.2.1 a relative path", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("§3.2.2 absolute form without Host", "GET http://a/ HTTP/1.1\r\n\r\n", 400),
        ("§3.2.3 CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
        ("RFC 9110 §9.3.8 TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("RFC 3986 §2.1 a broken escape", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("an escaped NUL", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("above the root", "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ];
    for (what, request, status) in rows {
        proxied.refuses(what, request, *status);
    }
}

#[test]
fn malformed_chunks_end_the_connection() {
    let proxied = Proxied::new();
    for (what, body) in [
        ("§7.1.1 junk behind the size", "5 junk\r\nhello\r\n0\r\n\r\n"),
        ("§7.1.1 an extension without a name", "5;\r\nhello\r\n0\r\n\r\n"),
        ("§7.1.1 an extension with a bare line feed", "5;a\nhello\r\n0\r\n\r\n"),
        ("§7.1 no size", "\r\nhello\r\n0\r\n\r\n"),
        ("§7.1 a signed size", "+5\r\nhello\r\n0\r\n\r\n"),
        ("§7.1 a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("§7.1 a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("§7.1 data longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("§7.1 a bare line feed after the data", "5\r\nhello\n0\r\n\r\n"),
        ("§7.1.2 a folded trailer", "0\r\nx: y\r\n z\r\n\r\n"),
    ] {
        let mut client = Raw::connect(proxied.served.http());
        client.send(format!("POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{NEXT}"));
        let status = client.response().map(|r| r.status);
        assert!(matches!(status, None | Some(400)), "{what}: {status:?}");
        assert!(client.closed(), "{what}: the connection stays open");
        let complete = proxied.backend.received();
        assert!(complete.is_empty(), "{what}: a complete request reached the backend: {complete:?}");
    }
}

#[test]
fn sound_requests_pass_and_pipelining_keeps_its_order() {
    let proxied = Proxied::new();
    for (what, request, line) in [
        ("plain", "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b=c HTTP/1.1"),
        ("§2.2 empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1"),
        ("§3.2.2 absolute form", "GET http://b.example/x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x HTTP/1.1"),
        ("HTTP/1.0 without Host", "GET /old HTTP/1.0\r\n\r\n", "GET /old HTTP/1.1"),
        (
            "raw path when not rewritten",
            "GET /a%2Fb//c/../d HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a%2Fb//c/../d HTTP/1.1",
        ),
        ("an unusual method", "PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE /x HTTP/1.1"),
        ("an IPv6 host", "GET /v6 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", "GET /v6 HTTP/1.1"),
    ] {
        let response = proxied.ask(request.as_bytes()).unwrap_or_else(|| panic!("{what}: no response"));
        assert_eq!(response.status, 200, "{what}");
        assert_eq!(proxied.backend.last().line(), line, "{what}");
    }
    let mut client = Raw::connect(proxied.served.http());
    let chunked =
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y z\"\r\nabc\r\n0\r\nt: u\r\n\r\n";
    client.send(format!(
        "{chunked}POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ndefGET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    for expected in ["POST /1 ", "POST /2 ", "GET /3 "] {
        let text = client.response().expect("a response").text();
        assert!(text.starts_with(expected), "{expected}: {text}");
    }
    // §3.2.2: the Host that was sent beside an absolute form is replaced.
    proxied.ask(b"GET http://b.example/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(proxied.backend.last().fields("host"), ["b.example"]);
}

#[test]
fn a_violation_behind_good_requests_spoils_only_itself() {
    let proxied = Proxied::new();
    let mut client = Raw::connect(proxied.served.http());
    client.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\nHost: a\nX: b\r\n\r\n");
    assert_eq!(client.response().map(|r| r.status), Some(200));
    assert_eq!(client.response().map(|r| r.status), Some(400));
    assert!(client.closed());
}

/// nginx's `large_client_header_buffers`, with its statuses.
#[test]
fn heads_beyond_the_limits_are_refused() {
    let proxied = Proxied::new();
    let field = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    proxied.refuses("a large field", &field(8_200), 400);
    proxied.refuses("a larger field", &field(40_000), 400);
    proxied.refuses("a long target", &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8_200)), 414);
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(count));
    proxied.refuses("many fields", &fields(300), 431);
    for fine in [field(8_000), fields(200)] {
        assert_eq!(proxied.ask(fine.as_bytes()).map(|r| r.status), Some(200));
    }
}
