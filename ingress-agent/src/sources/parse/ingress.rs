//! Ingress v1 → [`IngressFacts`]. A bad path, host or TLS entry is left out; the rest of the Ingress is served.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressTLS};

use super::annotations::{Nginx, unknown};
use super::care::{self, care, retry_budget};
use super::limit_drop::{self, limit_drop};
use super::{BALANCE, LIMIT_SHARED, Notes, annotation, balance, limit_shared, port_number, sibling};
use crate::model::facts::{
    BackendRef, ClassChoice, HostFacts, IngressFacts, NGINX_PREFIX, PathFacts, PathKind, PortRef, RuleFacts, TlsFacts,
};
use crate::model::rejection::Rejection;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Of our prefix.
const KNOWN: &[&str] = &[
    BALANCE,
    LIMIT_SHARED,
    care::HEALTH_CHECK,
    care::HEALTH_CHECK_PATH,
    care::HEALTH_CHECK_HOST,
    care::HEALTH_CHECK_STATUS,
    care::HEALTH_CHECK_SERVICE,
    care::HEALTH_CHECK_PORT,
    care::HEALTH_CHECK_INTERVAL,
    care::HEALTH_CHECK_TIMEOUT,
    care::HEALTH_CHECK_HEALTHY,
    care::HEALTH_CHECK_UNHEALTHY,
    care::SLOW_START,
    care::RETRY_BUDGET,
    limit_drop::LIMIT_DROP_AFTER,
    limit_drop::LIMIT_DROP_FOR,
];

/// `prefix` stands before the `/` of ingress-nginx's annotations; `None`: its own.
pub fn parse(object: &Ingress, notes: &mut Notes, prefix: Option<&Arc<str>>) -> Result<IngressFacts, Rejection> {
    let Some(spec) = &object.spec else {
        return Err(notes.error("spec", "is missing"));
    };
    let default_backend = spec.default_backend.as_ref().and_then(|b| backend(b, "spec.defaultBackend", notes));
    let catch_all = spec.rules.as_ref().is_none_or(Vec::is_empty);
    if spec.default_backend.is_none() && catch_all {
        return Err(notes.error("spec", "has neither `rules` nor a `defaultBackend`"));
    }
    let nginx = Nginx::new(prefix.map_or(NGINX_PREFIX, AsRef::as_ref), &object.metadata);
    let annotations = nginx.read();
    // There a path of any type is one (golden case 027).
    let regex = annotations.get("use-regex").is_some_and(|v| v == "true")
        || annotations.get("rewrite-target").is_some_and(|v| !v.is_empty());
    let mut rules = Vec::new();
    for (i, rule) in spec.rules.iter().flatten().enumerate() {
        let field = format!("spec.rules[{i}]");
        let host = match rule.host.as_deref().filter(|h| !h.is_empty()) {
            None => HostFacts::Any,
            Some(text) => match host(text) {
                Ok(host) => host,
                Err(reason) => {
                    notes.reject(format!("{field}.host"), reason);
                    continue;
                }
            },
        };
        let mut paths = Vec::new();
        for (k, written) in rule.http.iter().flat_map(|h| &h.paths).enumerate() {
            paths.extend(path(written, regex, format!("{field}.http.paths[{k}]"), notes));
        }
        paths.shrink_to_fit();
        rules.push(RuleFacts { field, host, paths });
    }
    rules.shrink_to_fit();
    let mut tls = Vec::new();
    for (i, entry) in spec.tls.iter().flatten().enumerate() {
        tls.push(tls_entry(entry, format!("spec.tls[{i}]"), notes));
    }
    Ok(IngressFacts {
        class: class(object),
        catch_all,
        default_backend,
        rules,
        tls,
        balance: balance(&object.metadata, notes),
        limit_shared: limit_shared(&object.metadata, notes),
        care: care(&object.metadata, notes).map(Arc::new),
        retry_budget: retry_budget(&object.metadata, notes),
        limit_drop: limit_drop(&object.metadata, notes),
        annotations,
        annotations_prefix: prefix.cloned(),
        secrets: nginx.secrets(&notes.origin.name.namespace),
        config_maps: nginx.config_maps(&notes.origin.name.namespace),
        // Only the plan knows whether it is ours; another controller may well honour these.
        unheeded: unknown(&object.metadata, "an Ingress", KNOWN).into_iter().chain(nginx.unheeded()).collect(),
        origin: notes.origin.clone(),
    })
}

/// The field is looked at first, as ingress-nginx does; the annotation is older than it.
fn class(object: &Ingress) -> ClassChoice {
    let named = object.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref()).filter(|c| !c.is_empty());
    if let Some(name) = named {
        return ClassChoice::Named(name.to_owned());
    }
    match annotation(&object.metadata, CLASS_ANNOTATION) {
        // What an empty one means depends on the options.
        Some(name) => ClassChoice::Annotation(name.to_owned()),
        None => ClassChoice::None,
    }
}

fn path(written: &HTTPIngressPath, regex: bool, field: String, notes: &mut Notes) -> Option<PathFacts> {
    let kind = match written.path_type.as_str() {
        "Exact" => PathKind::Exact,
        "Prefix" => PathKind::Prefix,
        "ImplementationSpecific" => PathKind::ImplementationSpecific,
        other => {
            let reason = match other {
                "" => "is missing: `Exact`, `Prefix` or `ImplementationSpecific`".to_owned(),
                other => format!("`{other}` is not one of `Exact`, `Prefix`, `ImplementationSpecific`"),
            };
            notes.reject(format!("{field}.pathType"), reason);
            return None;
        }
    };
    let path = match written.path.as_deref().unwrap_or_default() {
        "" if kind == PathKind::ImplementationSpecific => "/",
        path => path,
    };
    if let Some(reason) = path_fault(path, if regex { PathKind::ImplementationSpecific } else { kind }) {
        notes.reject(format!("{field}.path"), reason);
        return None;
    }
    let backend = backend(&written.backend, &format!("{field}.backend"), notes)?;
    Some(PathFacts { field, path: path.to_owned(), kind, backend })
}

/// The API server's rules for a path, and ingress-nginx's `strict-validate-path-type`: a regular expression that was
/// meant as one must not be served as a literal path that nothing ever matches.
fn path_fault(path: &str, kind: PathKind) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("`{path}` does not start with `/`"));
    }
    // A request for `/a%20b` is one for `/a b` (golden case 127).
    if path.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Some(format!("{path:?} contains a control character"));
    }
    if kind == PathKind::ImplementationSpecific {
        return None;
    }
    let (lower, end) = (path.to_ascii_lowercase(), path.rsplit('/').next().unwrap_or_default());
    if let Some(part) = ["//", "/./", "/../", "%2f"].into_iter().find(|part| lower.contains(part)) {
        return Some(format!("`{path}` contains `{part}`, which no request has after its path is made canonical"));
    }
    if end == "." || end == ".." {
        return Some(format!("`{path}` ends in `/{end}`"));
    }
    let odd = path.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-/".contains(*c)))?;
    Some(format!(
        "`{path}` contains `{odd}`: a path of type Exact or Prefix is made of letters, digits, `.`, `_`, `-` and `/`"
    ))
}

fn backend(written: &IngressBackend, field: &str, notes: &mut Notes) -> Option<BackendRef> {
    if written.resource.is_some() {
        notes.reject(format!("{field}.resource"), "is not supported: name a Service");
        return None;
    }
    let Some(service) = written.service.as_ref().filter(|s| !s.name.is_empty()) else {
        notes.reject(format!("{field}.service"), "is missing");
        return None;
    };
    let port = service.port.clone().unwrap_or_default();
    let field = format!("{field}.service");
    let port = match (port.number.filter(|n| *n != 0), port.name.filter(|n| !n.is_empty())) {
        (None, Some(name)) => PortRef::Name(name),
        (Some(number), None) => match port_number(number) {
            Ok(number) => PortRef::Number(number),
            Err(reason) => {
                notes.reject(format!("{field}.port.number"), reason);
                return None;
            }
        },
        (None, None) => {
            notes.reject(format!("{field}.port"), "needs a `number` or a `name`");
            return None;
        }
        (Some(_), Some(_)) => {
            notes.reject(format!("{field}.port"), "has both a `number` and a `name`");
            return None;
        }
    };
    Some(BackendRef { field, service: sibling(notes, &service.name), port })
}

/// RFC 1123 names, with `*` as the whole first label at most.
pub(super) fn host(text: &str) -> Result<HostFacts, String> {
    let lower = text.to_ascii_lowercase();
    let (wildcard, name) = match lower.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, lower.as_str()),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if lower == "*" {
        return Err("`*` is not a host: leave it out to mean any".to_owned());
    }
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!("`{text}` is not a DNS name (a `*.` may stand in front)"));
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(format!("`{text}` is an IP address, not a DNS name"));
    }
    Ok(if wildcard { HostFacts::Wildcard(name.to_owned()) } else { HostFacts::Exact(name.to_owned()) })
}

fn tls_entry(entry: &IngressTLS, field: String, notes: &mut Notes) -> TlsFacts {
    let mut hosts = Vec::new();
    for (i, text) in entry.hosts.iter().flatten().enumerate() {
        match host(text) {
            Ok(_) => hosts.push(text.to_ascii_lowercase()),
            Err(reason) => notes.reject(format!("{field}.hosts[{i}]"), reason),
        }
    }
    let secret = entry.secret_name.as_deref().filter(|s| !s.is_empty()).map(|s| sibling(notes, s));
    TlsFacts { field, hosts, secret }
}
