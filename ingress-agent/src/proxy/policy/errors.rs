//! `custom-http-errors`: what another pool is asked instead of showing an error.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::view::View;
use crate::model::policy::ErrorPages;

/// The fields of the question. The client's own go along, without what it said of itself in these names.
pub(in crate::proxy) fn question(pages: &ErrorPages, status: u16, format: &HeaderValue, view: &View<'_>) -> HeaderMap {
    let mut headers = view.parts.headers.clone();
    for name in [
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::EXPECT,
    ] {
        headers.remove(name);
    }
    let mut set = |name: &'static str, value: &[u8]| {
        // Of what nobody has, there is no Ingress to tell (golden case 346).
        if value.is_empty() {
            headers.remove(name);
        } else if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-code", status.to_string().as_bytes());
    set("x-format", format.as_bytes());
    set("x-original-uri", view.target().as_bytes());
    set("x-namespace", pages.ingress.namespace.as_bytes());
    set("x-ingress-name", pages.ingress.name.as_bytes());
    set("x-service-name", pages.service.as_bytes());
    set("x-service-port", pages.service_port.as_bytes());
    set("x-request-id", view.request_id);
    set("x-forwarded-for", view.origin.address.to_string().as_bytes());
    headers
}
