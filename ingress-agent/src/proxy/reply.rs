//! Answers of our own: short HTML pages for a person who meets them, nothing that names the software or its version.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::{Body, Kind};
use super::record::Record;

/// The connection of an HTTP/1 request after an answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
}

pub(super) fn page(status: StatusCode, after: After, record: Record) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_str();
    let text = format!(
        "<html>\r\n<head><title>{code} {reason}</title></head>\r\n<body>\r\n<center><h1>{code} {reason}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    if after == After::Close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response(status, headers, Kind::Full(Bytes::from(text)), record)
}

pub(super) fn response(status: StatusCode, headers: HeaderMap, kind: Kind, mut record: Record) -> Response<Body> {
    record.status = status.as_u16();
    let mut response = Response::new(Body { kind, record });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
