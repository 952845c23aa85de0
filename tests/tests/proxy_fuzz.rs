//! Fuzz target for HTTP framing, with a seeded run: sound requests are mutated and sent in pieces. Whatever comes, the
//! proxy lives, and each request that reaches the backend is framed beyond doubt and answered exactly once.

use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use ingress_tests::http::backend::{Backend, Then, reply};
use ingress_tests::http::raw::{Raw, get};
use ingress_tests::http::site::{Served, Site};
use ingress_tests::wait::PATIENCE;

/// xorshift64: the run is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

const SEEDS: [&str; 6] = [
    "GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\nX-A: b\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nt: u\r\n\r\n",
    "GET http://b.example/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-y\r\nX-Y: 1\r\n\r\n",
    "HEAD /h HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

/// Pieces that framing bugs are made of.
const TOKENS: [&str; 24] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    "Content-Length: 5\r\n",
    "content-length:6\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Host: evil\r\n",
    "\r\n\r\n",
    "0\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ";",
    "5\r\nhello\r\n",
    "ffffffffffffffff\r\n",
    "\x0b",
    "\u{e9}",
    "%00",
    "/../",
];

fn mutate(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(2) {
        bytes.extend_from_slice(SEEDS[random.below(SEEDS.len())].as_bytes());
    }
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.below(256) as u8,
            1 => {
                bytes.remove(at);
            }
            2 => {
                let end = (at + random.below(20)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at..at, token.bytes());
            }
        }
    }
    bytes
}

#[test]
fn mutated_requests_never_desynchronise() {
    let backend = Backend::answering(|_, stream| {
        reply(stream, "200 OK", "x-from: backend\r\n", b"ok");
        Then::Keep
    });
    let served = Served::single(&Site::to(backend.address));
    let mut random = Random(0x0000_f0a1_1e57);
    let mut accepted = 0;
    for turn in 0..1000 {
        let bytes = mutate(&mut random);
        let before = backend.received().len();
        let mut client = Raw::connect(served.http());
        let cut = random.below(bytes.len());
        client.send(&bytes[..cut]).send(&bytes[cut..]);
        // A client that says it is done cancels what is under way, so the first answer is awaited; a request that never
        // becomes complete has none.
        client.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let first = client.response().is_some_and(|r| r.field("x-from") == Some("backend"));
        let _ = client.stream.shutdown(Shutdown::Write);
        client.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut rest = std::mem::take(&mut client.rest);
        let _ = client.stream.read_to_end(&mut rest);
        let answers = usize::from(first) + String::from_utf8_lossy(&rest).matches("x-from: backend").count();
        let reached = &backend.received()[before..];
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        // A request whose body never became complete reaches the backend only in part, and is not counted there.
        assert!(answers <= reached.len(), "turn {turn}: {answers} answers for {} requests\n{shown:?}", reached.len());
        accepted += answers;
        for request in reached {
            let (lengths, encodings) = (request.fields("content-length"), request.fields("transfer-encoding"));
            let sound = lengths.len() + encodings.len() <= 1
                && encodings.iter().all(|e| *e == "chunked")
                && request.fields("host").len() == 1
                && request.head.ends_with("\r\n\r\n")
                && !request.head.replace("\r\n", "").contains(['\r', '\n', '\0'])
                && request.head.lines().skip(1).all(|l| l.is_empty() || !l.starts_with([' ', '\t']));
            assert!(sound, "turn {turn}: {shown:?} reached the backend as {:?}", request.head);
        }
    }
    assert!(accepted > 300, "the seeds are mostly sound: {accepted}");
    assert_eq!(get(served.http(), "a", "/").status, 200);
}
