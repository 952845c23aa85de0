//! CORS fields of answers.

use http::header::{self, HeaderMap, HeaderValue};

use crate::model::policy::{Cors, Origins};

/// The origin that is told to be allowed; `None`: this one is not.
pub(super) fn allowed(cors: &Cors, request: &HeaderMap) -> Option<HeaderValue> {
    let Origins::These(origins) = &cors.origins else { return Some(HeaderValue::from_static("*")) };
    let origin = request.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    let matches = |wanted: &String| match wanted.split_once("://*.") {
        None => *wanted == text,
        Some((scheme, suffix)) => text
            .strip_prefix(scheme)
            .and_then(|r| r.strip_prefix("://"))
            .is_some_and(|host| host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix)),
    };
    origins.iter().any(matches).then(|| origin.clone())
}

/// Whatever the status, and whatever the backend said itself.
pub(in crate::proxy) fn decorate(cors: &Cors, request: &HeaderMap, answer: &mut HeaderMap) {
    let Some(origin) = allowed(cors, request) else { return };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if cors.credentials {
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone());
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
    if let Some(expose) = &cors.expose {
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
}
