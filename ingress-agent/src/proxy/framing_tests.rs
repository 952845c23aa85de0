//! Framing judged whole and split at every byte: the judgement must not depend on how the bytes arrive.

use super::*;

#[track_caller]
fn check(input: &str, expected: Judgement) {
    let mut bytes = input.as_bytes().to_vec();
    assert_eq!(Framing::new(HeadLimits::default()).feed(&mut bytes), expected, "{input:?} at once");
    for cut in 1..bytes.len() {
        let mut framing = Framing::new(HeadLimits::default());
        let mut judged = framing.feed(&mut bytes[..cut]);
        if judged == Judgement::Fine {
            judged = framing.feed(&mut bytes[cut..]);
        }
        assert_eq!(judged, expected, "{input:?} cut at {cut}");
    }
}

#[test]
fn sound_requests_are_fine() {
    for input in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d;\\\"e\" ; f\r\nabc\r\n0\r\nx: y\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00a\r\n0123456789\r\n0\r\n\r\n",
    ] {
        check(input, Judgement::Fine);
    }
}

#[test]
fn heads_that_two_readers_could_read_differently_are_bad() {
    for (fields, violation) in [
        ("Host: a\n\r\n", Violation::BareLineFeed),
        ("Host: a\r\n\n", Violation::BareLineFeed),
        ("Host: a\r\n b\r\n\r\n", Violation::FoldedLine),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Violation::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", Violation::LengthAndEncoding),
        ("Content-Length: 3\r\nContent-Length: 3\r\n\r\n", Violation::RepeatedLength),
        ("Content-Length: 3, 3\r\n\r\n", Violation::MalformedLength),
        ("Content-Length: +3\r\n\r\n", Violation::MalformedLength),
        ("Content-Length: 0x3\r\n\r\n", Violation::MalformedLength),
        ("Content-Length: \r\n\r\n", Violation::MalformedLength),
        ("Content-Length: 99999999999999999999\r\n\r\n", Violation::MalformedLength),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n", Violation::Encoding),
        ("Transfer-Encoding: chunked, chunked\r\n\r\n", Violation::Encoding),
        ("Transfer-Encoding: xchunked\r\n\r\n", Violation::Encoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Violation::Encoding),
        ("Transfer-Encoding\r\n\r\n", Violation::NoColon),
    ] {
        check(&format!("GET / HTTP/1.1\r\n{fields}"), Judgement::BadHead(0, violation));
        check(&format!("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n{fields}"), Judgement::BadHead(1, violation));
    }
}

#[test]
fn chunks_that_two_readers_could_read_differently_are_bad() {
    for (body, violation) in [
        ("3\nabc\r\n0\r\n\r\n", Violation::BareLineFeed),
        ("3;\r\nabc\r\n", Violation::ChunkExtension),
        ("3;a b\r\nabc\r\n", Violation::ChunkExtension),
        ("3 x\r\nabc\r\n", Violation::ChunkExtension),
        ("3;a=\"b\r\nabc\r\n", Violation::ChunkExtension),
        ("x\r\n", Violation::ChunkSize),
        ("-1\r\n", Violation::ChunkSize),
        ("0x3\r\nabc\r\n", Violation::ChunkExtension),
        ("fffffffffffffffff\r\n", Violation::ChunkSize),
        ("3\r\nabcd\r\n", Violation::ChunkEnd),
        ("0\r\n x: y\r\n\r\n", Violation::FoldedLine),
        ("0\r\nx\r\n\r\n", Violation::NoColon),
    ] {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{head}{body}"), Judgement::BadBody(violation));
    }
}

#[test]
fn endless_lines_do_not_fill_memory() {
    let mut framing = Framing::new(HeadLimits::default());
    let mut judged = framing.feed(&mut b"GET / HTTP/1.1\r\nx: ".to_owned());
    for _ in 0..40 {
        if judged == Judgement::Fine {
            judged = framing.feed(&mut [b'a'; 1024]);
        }
    }
    assert_eq!(judged, Judgement::BadHead(0, Violation::HeadTooLarge));
    assert!(framing.partial.capacity() == 0);
}

/// nginx's four buffers of 8 KiB: golden case 128.
#[test]
fn heads_fill_buffers_as_nginxs_do() {
    let judged = |input: &str| Framing::new(HeadLimits::default()).feed(&mut input.as_bytes().to_vec());
    let line = |length: usize| format!("x: {}\r\n", "h".repeat(length - 5));
    let fields = |count: usize, length: usize| format!("GET / HTTP/1.1\r\n{}\r\n", line(length).repeat(count));
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 16));
    let large = Judgement::BadHead(0, Violation::HeadTooLarge);
    for (input, expected) in [
        (fields(1, 8192), Judgement::Fine),
        (fields(1, 8193), large),
        (fields(8, 3008), Judgement::Fine),
        (fields(9, 3008), large),
        (fields(152, 9), Judgement::Fine),
        (target(8192), Judgement::Fine),
        (target(8193), Judgement::BadHead(0, Violation::TargetTooLong)),
    ] {
        assert_eq!(judged(&input), expected, "{} bytes", input.len());
    }
}

#[test]
fn odd_targets_are_hidden_and_kept_however_they_arrive() {
    let input = b"GET /a HTTP/1.1\r\n\r\nGET /\xfc?x=\"#\" HTTP/1.1\r\nx: \"\xfc\r\n\r\n";
    let shown = b"GET /a HTTP/1.1\r\n\r\nGET /_?x=___ HTTP/1.1\r\nx: \"\xfc\r\n\r\n";
    for cut in 0..input.len() {
        let (mut bytes, mut framing) = (input.to_vec(), Framing::new(HeadLimits::default()));
        let (first, second) = bytes.split_at_mut(cut);
        assert_eq!((framing.feed(first), framing.feed(second)), (Judgement::Fine, Judgement::Fine));
        assert_eq!(bytes, shown, "cut at {cut}");
        let found: Vec<(u32, &[u8])> = framing.found_odd.iter().map(|(n, odd)| (*n, &odd.raw[..])).collect();
        assert_eq!(found, [(1, &b"/\xfc?x=\"#\""[..])], "cut at {cut}");
    }
}
