//! Bodies that are compressed on their way to clients who ask for it. What came is handed on when nothing more is there for now: a stream of
//! events stays one.

use std::io::{self, Write as _};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;

use super::body::{Body, BodyError, Kind};
use crate::model::policy::{Algorithm, Coding, Compression};

/// Compressed bytes that wait for more of their kind.
const PIECE: usize = 16 * 1024;
/// Taken in one turn.
const TURN: usize = 256 * 1024;

pub(super) struct Coded {
    inner: Kind,
    encoder: Option<Encoder>,
    /// Bytes went in since the last flush.
    dirty: bool,
    /// After the last byte.
    trailers: Option<HeaderMap>,
}

enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: &Coding) -> io::Result<Self> {
        let level = coding.level;
        Ok(match coding.algorithm {
            Algorithm::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level))),
            // 4 KiB of input at once and a window of 512 KiB, nginx's.
            Algorithm::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, level, 19))),
            Algorithm::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), level.cast_signed())?),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(e) => e.write_all(bytes),
            Self::Brotli(e) => e.write_all(bytes),
            Self::Zstd(e) => e.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(e) => e.flush(),
            Self::Brotli(e) => e.flush(),
            Self::Zstd(e) => e.flush(),
        }
    }

    fn made(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(e) => e.get_mut(),
            Self::Brotli(e) => e.get_mut(),
            Self::Zstd(e) => e.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(e) => e.finish(),
            Self::Brotli(e) => Ok(e.into_inner()),
            Self::Zstd(e) => e.finish(),
        }
    }
}

impl Coded {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let failed = |_| BodyError::Upstream("a response could not be compressed");
        let mut taken = 0;
        while let Some(encoder) = &mut self.encoder {
            let (result, ended) = match self.inner.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.dirty = true;
                        taken += data.len();
                        (encoder.write(&data), false)
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        (Ok(()), true)
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => (Ok(()), true),
                Poll::Pending => {
                    if std::mem::take(&mut self.dirty)
                        && let Err(error) = encoder.flush()
                    {
                        return Poll::Ready(Some(Err(failed(error))));
                    }
                    let made = std::mem::take(encoder.made());
                    if made.is_empty() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(made.into()))));
                }
            };
            if let Err(error) = result {
                return Poll::Ready(Some(Err(failed(error))));
            }
            if ended {
                let rest = self.encoder.take().map_or(Ok(Vec::new()), Encoder::finish);
                match rest {
                    Ok(rest) if rest.is_empty() => break,
                    Ok(rest) => return Poll::Ready(Some(Ok(Frame::data(rest.into())))),
                    Err(error) => return Poll::Ready(Some(Err(failed(error)))),
                }
            }
            if encoder.made().len() >= PIECE {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(encoder.made()).into()))));
            }
            if taken >= TURN {
                // Others of this worker want a turn, too.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

/// Compresses an answer where its kind is among the settings' and the client takes it so.
pub(super) fn compress(settings: &Compression, request: &HeaderMap, answer: &mut Response<Body>) {
    let status = answer.status();
    let headers = answer.headers();
    if !matches!(status, StatusCode::OK | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
        || headers.contains_key(header::CONTENT_ENCODING)
        || answer.body().kind.is_over()
    {
        return;
    }
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let length = answer.body().kind.length().exact();
    let suits = |coding: &&Coding| {
        length.is_none_or(|n| n >= coding.min_length)
            && coding.types.iter().any(|t| t == "*" || t.as_bytes().eq_ignore_ascii_case(kind))
    };
    let mut suitable = settings.codings.iter().filter(suits).peekable();
    if suitable.peek().is_none() {
        return;
    }
    let chosen = suitable.find(|coding| accepted(request, coding.algorithm));
    let encoder = chosen.and_then(|coding| Some((coding, Encoder::new(coding).ok()?)));
    // Also where this client gets it as it is: a cache must keep the two apart.
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let Some((coding, encoder)) = encoder else { return };
    let headers = answer.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.algorithm.name()));
    weaken(headers);
    let body = answer.body_mut();
    let inner = std::mem::replace(&mut body.kind, Kind::Empty);
    body.kind = Kind::Coded(Box::new(Coded { inner, encoder: Some(encoder), dirty: false, trailers: None }));
}

/// RFC 9110 §8.8.3.3: a compressed body is another representation; the tag says only that it means the same.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).map(HeaderValue::as_bytes) else { return };
    if tag.starts_with(b"W/") {
        return;
    }
    let weak = tag.starts_with(b"\"").then(|| HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()).flatten();
    match weak {
        Some(weak) => drop(headers.insert(header::ETAG, weak)),
        None => drop(headers.remove(header::ETAG)),
    }
}

/// RFC 9110 §12.5.3: named with a weight above 0, or covered by `*`.
fn accepted(request: &HeaderMap, algorithm: Algorithm) -> bool {
    const NAME: HeaderName = header::ACCEPT_ENCODING;
    let mut any = false;
    for value in request.get_all(NAME) {
        for element in value.as_bytes().split(|b| *b == b',') {
            let mut parts = element.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let zero = parts.any(|p| {
                let weight = p.strip_prefix(b"q=").or_else(|| p.strip_prefix(b"Q="));
                weight.is_some_and(|w| w.iter().all(|b| matches!(b, b'0' | b'.')))
            });
            if name.eq_ignore_ascii_case(algorithm.name().as_bytes()) {
                return !zero;
            }
            any |= name == b"*" && !zero;
        }
    }
    // Brotli and zstd are for those who name them.
    any && algorithm == Algorithm::Gzip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_used_only_where_it_is_asked_for() {
        for (value, gzip, brotli) in [
            ("gzip", true, false),
            ("gzip, br", true, true),
            ("gzip;q=0, br;q=0.5", false, true),
            ("GZIP ; q=0.0", false, false),
            ("*", true, false),
            ("*;q=0", false, false),
            ("gzip;q=0, *", false, false),
            ("identity", false, false),
            ("", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepted(&headers, Algorithm::Gzip), gzip, "{value}");
            assert_eq!(accepted(&headers, Algorithm::Brotli), brotli, "{value}");
        }
    }

    #[test]
    fn strong_tags_become_weak() {
        for (tag, weak) in [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("a", None)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ETAG, HeaderValue::from_static(tag));
            weaken(&mut headers);
            assert_eq!(headers.get(header::ETAG).and_then(|v| v.to_str().ok()), weak, "{tag}");
        }
    }
}
