//! The command line's side of the Unix socket. Blocking and bounded: a person waits for it.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::query::Explanation;
use super::status::Status;

/// A busy agent answers between two other things.
const PATIENCE: Duration = Duration::from_secs(15);
/// The status of 10,000 services with 100,000 backends is about 40 MB.
const LARGEST: u64 = 512 << 20;

pub fn status(socket: &Path) -> Result<Status> {
    serde_json::from_str(&get(socket, "/api/status")?).context("read the agent's answer; is it of another version?")
}

/// What is typed goes to the agent as it is; it answers with the explanation or with what is wrong with the question.
pub fn explain(
    socket: &Path,
    what: &[String],
    method: &str,
    headers: &[String],
    client: Option<&str>,
) -> Result<Explanation> {
    let mut query = String::new();
    let mut pair = |name: &str, value: &str| {
        let _ = write!(query, "{}{name}={}", if query.is_empty() { '?' } else { '&' }, encode(value));
    };
    for word in what {
        pair("what", word);
    }
    pair("method", method);
    for header in headers {
        pair("header", header);
    }
    if let Some(client) = client {
        pair("client", client);
    }
    serde_json::from_str(&get(socket, &format!("/api/explain{query}"))?).context("read the agent's answer")
}

/// Gives an order about virtual addresses; the answer in words.
pub fn order(socket: &Path, name: &str, parameters: &[(&str, &str)]) -> Result<String> {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let answer = talk(socket, "POST", &format!("/api/vip/{name}?{}", pairs.join("&")))?;
    Ok(answer.trim_end().to_owned())
}

/// Lets a client go that is dropped; the answer in words.
pub fn release(socket: &Path, client: &str) -> Result<String> {
    let answer = talk(socket, "POST", &format!("/api/limits/release?client={}", encode(client)))?;
    Ok(answer.trim_end().to_owned())
}

/// One GET; the body of a 200.
pub fn get(socket: &Path, target: &str) -> Result<String> {
    talk(socket, "GET", target)
}

fn talk(socket: &Path, method: &str, target: &str) -> Result<String> {
    let shown = socket.display();
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            bail!("no agent answers on {shown} ({e}); is `sluicegate run` running, with the same --admin-socket?")
        }
        Err(e) => return Err(e).with_context(|| format!("connect to {shown}")),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream
        .write_all(
            format!("{method} {target} HTTP/1.1\r\nhost: sluicegate\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .as_bytes(),
        )
        .with_context(|| format!("ask the agent on {shown}"))?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).with_context(|| format!("the agent on {shown} does not answer"))?;
    let answer = String::from_utf8(answer).context("the agent's answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the agent's answer ends in its head")?;
    // The server never uses chunked coding for a body of known length, and all of ours are.
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => bail!("{}", body.trim_end()),
    }
}

/// RFC 3986 §2.1, for everything but the unreserved.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b as char);
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

/// The pairs of a query string; what is not valid stays as it is.
pub(super) fn decode_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |p: &str| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        (decode(name), decode(value))
    };
    query.split('&').filter(|p| !p.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [b, after @ ..] = rest {
        rest = after;
        let hex = |b: u8| (b as char).to_digit(16);
        match (b, after) {
            (b'%', [high, low, more @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                out.push((hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0)) as u8);
                rest = more;
            }
            (b'+', _) => out.push(b' '),
            (b, _) => out.push(*b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_the_query_string() {
        for text in ["https://a.b/c?d=e&f=g#h", "x-a: b +%zz", "[2001:db8::1]:53", "größer", ""] {
            assert_eq!(decode_pairs(&format!("a={}", encode(text))), [("a".to_owned(), text.to_owned())]);
        }
    }

    #[test]
    fn hostile_query_strings_are_text() {
        for text in ["%", "%4", "%zz", "&&&", "a&=&b", "%ff%fe", "%u1234"] {
            let _ = decode_pairs(text);
        }
        assert_eq!(decode_pairs("a=%4").as_slice(), [("a".to_owned(), "%4".to_owned())]);
    }
}
