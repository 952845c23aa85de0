//! What a route's filters do to a request's target and fields, to a response's fields, and what a redirect says. Pure
//! functions over values; the order is that of the route.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::header::HeaderMap;

use super::path;
use crate::model::route::{Filter, HeaderEdits, PathMatch, PathRewrite, Redirect, RedirectPort, Route};

/// The target and host of a request on its way.
pub(super) struct Rewritten<'a> {
    pub(super) target: Cow<'a, str>,
    pub(super) host: Cow<'a, [u8]>,
}

/// Applies path and host rewrites. `normalised` is the path that was matched, `query` what followed it.
pub(super) fn rewrite<'a>(
    rewritten: &mut Rewritten<'a>,
    filters: &'a [Filter],
    route: &Route,
    normalised: &[u8],
    query: Option<&str>,
) {
    for filter in filters {
        match filter {
            Filter::RewriteHost(host) => rewritten.host = Cow::Borrowed(host.as_bytes()),
            Filter::RewritePath(rewrite) => {
                rewritten.target = Cow::Owned(with_query(new_path(rewrite, route, normalised), query));
            }
            Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::Mirror { .. } => {}
        }
    }
}

/// A path for a target: encoded, beginning with a slash.
fn new_path(rewrite: &PathRewrite, route: &Route, normalised: &[u8]) -> String {
    let (replacement, rest): (&str, &[u8]) = match rewrite {
        PathRewrite::Full(path) => (path, b""),
        PathRewrite::Prefix(path) => {
            let matched = match &route.matches.path {
                PathMatch::Prefix(prefix) | PathMatch::Exact(prefix) => prefix.len(),
                PathMatch::Regex { .. } => 0,
            };
            (path, normalised.get(matched..).unwrap_or(b""))
        }
    };
    // Gateway API, HTTPPathModifier: `/foo` → `/` gives `/bar` for `/foo/bar`, never `//bar`.
    let rest = if rest.is_empty() || matches!(rewrite, PathRewrite::Full(_)) {
        Cow::Borrowed(replacement)
    } else {
        let rest = path::encode(rest);
        Cow::Owned(format!("{}/{}", replacement.trim_end_matches('/'), rest.trim_start_matches('/')))
    };
    if rest.starts_with('/') { rest.into_owned() } else { format!("/{rest}") }
}

fn with_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}

pub(super) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for (name, value) in &edits.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name.clone(), value.clone());
    }
    for name in &edits.remove {
        headers.remove(name);
    }
}

pub(super) fn edit_request(headers: &mut HeaderMap, filters: &[Filter]) {
    for filter in filters {
        if let Filter::RequestHeaders(edits) = filter {
            edit(headers, edits);
        }
    }
}

pub(super) fn edit_response(headers: &mut HeaderMap, filters: &[Filter]) {
    for filter in filters {
        if let Filter::ResponseHeaders(edits) = filter {
            edit(headers, edits);
        }
    }
}

/// The Location of a redirect. Gateway API, `HTTPRequestRedirectFilter`: a port that is not named follows a named scheme,
/// else it is the listener's; the usual port of the scheme is left out.
pub(super) fn location(
    redirect: &Redirect,
    route: &Route,
    scheme: &str,
    name: &str,
    listener_port: u16,
    raw_target: &str,
    normalised: &[u8],
) -> String {
    let usual = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let to = redirect.scheme.as_deref().unwrap_or(scheme);
    let port = match (redirect.port, &redirect.scheme) {
        (RedirectPort::This(port), _) => port,
        (RedirectPort::Own, None) => listener_port,
        (RedirectPort::Own, Some(_)) | (RedirectPort::Usual, _) => usual(to),
    };
    let mut location = format!("{to}://{}", redirect.host.as_deref().unwrap_or(name));
    if port != usual(to) {
        // Writing to a String cannot fail.
        let _ = write!(location, ":{port}");
    }
    match &redirect.path {
        None => location.push_str(raw_target),
        Some(rewrite) => {
            let query = raw_target.split_once('?').map(|(_, query)| query);
            location.push_str(&with_query(new_path(rewrite, route, normalised), query));
        }
    }
    location
}
