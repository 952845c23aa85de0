//! Reading the head of an HTTP/1 response, and deciding where its body ends (RFC 9112 §6.3). Strict: a response whose
//! length could be read in two ways is refused, for the next one on the connection would be misread.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use smallvec::SmallVec;

use crate::proxy::body::sanitise;

/// Responses may have this many header lines in a head of this many bytes.
const HEADERS_MOST: usize = 128;
pub(super) const HEAD_MOST: usize = 64 * 1024;

pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) length: Length,
    /// The connection may be used again after the body.
    pub(super) keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Length {
    Exactly(u64),
    Chunked,
    UntilClose,
}

/// Not HTTP, or not safely so; the client gets 502.
#[derive(Debug)]
pub(super) struct Refused(pub(super) &'static str);

/// `Ok(None)`: more bytes are needed. On success the head is taken off `buffer`.
pub(super) fn parse(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, Refused> {
    let mut slots = [const { std::mem::MaybeUninit::<httparse::Header<'_>>::uninit() }; HEADERS_MOST];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, buffer, &mut slots);
    let size = match parsed {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_MOST => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Refused("the response's head is too large")),
        Err(_) => return Err(Refused("the response is not HTTP/1")),
    };
    let code = response.code.ok_or(Refused("the response has no status"))?;
    let status = StatusCode::from_u16(code).map_err(|_| Refused("the response's status is not one"))?;
    let http_11 = response.version == Some(1);
    // Positions, so that the borrow of the buffer ends and the values can share its memory.
    let base = buffer.as_ptr() as usize;
    let place = |header: &httparse::Header<'_>| {
        let name = header.name.as_ptr() as usize - base;
        let value = header.value.as_ptr() as usize - base;
        (name as u32, header.name.len() as u32, value as u32, header.value.len() as u32)
    };
    let places: SmallVec<[_; 32]> = response.headers.iter().map(place).collect();
    let head = buffer.split_to(size).freeze();
    build(&head, &places, status, http_11, method).map(Some)
}

fn build(
    head: &Bytes,
    places: &[(u32, u32, u32, u32)],
    status: StatusCode,
    http_11: bool,
    method: &Method,
) -> Result<Head, Refused> {
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    let mut headers = HeaderMap::with_capacity(places.len());
    let mut keep_alive = http_11;
    let mut length: Option<HeaderValue> = None;
    let mut chunked = false;
    let mut encoded = false;
    let mut nominated: Vec<HeaderValue> = Vec::new();
    for &(name, name_len, value, value_len) in places {
        let name = &head[name as usize..(name + name_len) as usize];
        let name = HeaderName::from_bytes(name).map_err(|_| Refused("a header's name is malformed"))?;
        let value = head.slice(value as usize..(value + value_len) as usize);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Refused("a header's value is malformed"))?;
        // RFC 9110 §7.6.1: fields of this connection only are not forwarded.
        match name {
            header::CONTENT_LENGTH => {
                // RFC 9112 §6.3, 5: differing lengths are unrecoverable; the same one twice is tolerated.
                if length.as_ref().is_some_and(|known| *known != value) {
                    return Err(Refused("the response has two lengths"));
                }
                length = Some(value);
            }
            header::TRANSFER_ENCODING => {
                encoded = true;
                chunked = ends_chunked(value.as_bytes());
            }
            header::CONNECTION => {
                for token in tokens(value.as_bytes()) {
                    if token.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        keep_alive = true;
                    } else {
                        nominated.push(value.clone());
                    }
                }
            }
            header::UPGRADE if !switching => {}
            _ if matches!(name.as_str(), "keep-alive" | "proxy-connection" | "x-pad") => {}
            // Orders for nginx, which nobody behind us obeys.
            _ if name.as_str().starts_with("x-accel-") => {}
            _ => {
                headers.append(name, value);
            }
        }
    }
    for nominated in nominated {
        for token in tokens(nominated.as_bytes()) {
            if let Ok(name) = HeaderName::from_bytes(token)
                && !(switching && name == header::UPGRADE)
            {
                headers.remove(name);
            }
        }
    }
    let known =
        length.as_ref().map(|value| decimal(value.as_bytes()).ok_or(Refused("the response's length is malformed")));
    let known = known.transpose()?;
    // RFC 9112 §6.3, 1: these have no body, whatever their fields say; the length then describes the other answer.
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if bodiless {
        if let Some(value) = length
            && !encoded
            && (*method == Method::HEAD || status == StatusCode::NOT_MODIFIED)
        {
            headers.insert(header::CONTENT_LENGTH, value);
        }
        return Ok(Head { status, headers, length: Length::Exactly(0), keep_alive: keep_alive && !switching });
    }
    // RFC 9112 §6.3, 3: the encoding overrides the length, and both together deserve no further trust.
    if encoded {
        let length = if chunked { Length::Chunked } else { Length::UntilClose };
        return Ok(Head { status, headers, length, keep_alive: keep_alive && chunked && known.is_none() });
    }
    let length = known.map_or(Length::UntilClose, Length::Exactly);
    Ok(Head { status, headers, length, keep_alive: keep_alive && length != Length::UntilClose })
}

/// RFC 9112 §6.3, 4: chunked must be the last encoding, or the body lasts until the connection closes.
fn ends_chunked(value: &[u8]) -> bool {
    tokens(value).last().is_some_and(|token| token.eq_ignore_ascii_case(b"chunked"))
}

/// Elements of a comma-separated list, trimmed; empty ones are none (RFC 9110 §5.6.1.2).
pub(in crate::proxy) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Digits only: no sign, no blank, no list (RFC 9110 §8.6).
pub(in crate::proxy) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Takes a chunked body apart. The framing of a backend is judged less sternly than a client's: junk behind a `;` harms
/// nobody, as chunks are framed anew towards the client.
#[derive(Debug)]
pub(in crate::proxy) enum Chunks {
    Size,
    Data(u64),
    /// The line break after a chunk's data.
    After,
    Trailers,
}

pub(super) enum Piece {
    Data(Bytes),
    End(Option<HeaderMap>),
    /// More bytes are needed.
    More,
}

/// Longest size line and trailer section.
const LINE_MOST: usize = 4096;
const TRAILERS_MOST: usize = 16 * 1024;

impl Chunks {
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Refused> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(buffer) {
                    Ok(httparse::Status::Complete((used, size))) => {
                        buffer.advance(used);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    Ok(httparse::Status::Partial) if buffer.len() < LINE_MOST => return Ok(Piece::More),
                    _ => return Err(Refused("a chunk's size is malformed")),
                },
                Self::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Piece::More);
                    }
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    *left -= take as u64;
                    if *left == 0 {
                        *self = Self::After;
                    }
                    return Ok(Piece::Data(buffer.split_to(take).freeze()));
                }
                Self::After => {
                    if buffer.len() < 2 {
                        return Ok(Piece::More);
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(Refused("a chunk does not end where its size says"));
                    }
                    buffer.advance(2);
                    *self = Self::Size;
                }
                Self::Trailers => return Self::trailers(buffer),
            }
        }
    }

    fn trailers(buffer: &mut BytesMut) -> Result<Piece, Refused> {
        let mut slots = [httparse::EMPTY_HEADER; 32];
        let (used, map) = match httparse::parse_headers(buffer, &mut slots) {
            Ok(httparse::Status::Complete((used, []))) => (used, None),
            Ok(httparse::Status::Complete((used, lines))) => {
                let mut map = HeaderMap::with_capacity(lines.len());
                for line in lines {
                    let name =
                        HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Refused("a trailer is malformed"))?;
                    let value = HeaderValue::from_bytes(line.value).map_err(|_| Refused("a trailer is malformed"))?;
                    map.append(name, value);
                }
                sanitise(&mut map);
                (used, Some(map))
            }
            Ok(httparse::Status::Partial) if buffer.len() < TRAILERS_MOST => return Ok(Piece::More),
            _ => return Err(Refused("the trailers are malformed")),
        };
        buffer.advance(used);
        Ok(Piece::End(map))
    }
}
