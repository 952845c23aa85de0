//! Annotations that change nothing although their prefix says that they should: they are told, not swallowed. A misspelt name would
//! otherwise look like a setting.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::annotation_field;
use crate::model::facts::Remark;
use crate::model::snapshot::ObjectName;

const OURS: &str = "sluicegate.io/";
/// What `plan::nginx` reads.
const HEEDED: &[&str] = &[
    "affinity",
    "affinity-canary-behavior",
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "auth-always-set-cookie",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
    "auth-method",
    "auth-proxy-set-headers",
    "auth-realm",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-secret",
    "auth-secret-type",
    "auth-signin",
    "auth-signin-redirect-param",
    "auth-snippet",
    "auth-tls-error-page",
    "auth-tls-match-cn",
    "auth-tls-pass-certificate-to-upstream",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-tls-verify-depth",
    "auth-type",
    "auth-url",
    "backend-protocol",
    "canary",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "canary-weight",
    "canary-weight-total",
    "client-body-buffer-size",
    "configuration-snippet",
    "cors-allow-credentials",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "cors-max-age",
    "custom-headers",
    "custom-http-errors",
    "default-backend",
    "denylist-source-range",
    "disable-proxy-intercept-errors",
    "enable-access-log",
    "enable-cors",
    "enable-global-auth",
    "force-ssl-redirect",
    "from-to-www-redirect",
    "limit-allowlist",
    "limit-burst-multiplier",
    "limit-connections",
    "limit-rate",
    "limit-rate-after",
    "limit-rpm",
    "limit-rps",
    "limit-whitelist",
    "load-balance",
    "mirror-host",
    "mirror-request-body",
    "mirror-target",
    "permanent-redirect",
    "permanent-redirect-code",
    "preserve-trailing-slash",
    "proxy-body-size",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-connect-timeout",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-http-version",
    "proxy-max-temp-file-size",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-next-upstream-tries",
    "proxy-read-timeout",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-request-buffering",
    "proxy-send-timeout",
    "proxy-ssl-ciphers",
    "proxy-ssl-name",
    "proxy-ssl-protocols",
    "proxy-ssl-secret",
    "proxy-ssl-server-name",
    "proxy-ssl-verify",
    "proxy-ssl-verify-depth",
    "relative-redirects",
    "rewrite-target",
    "satisfy",
    "server-alias",
    "server-snippet",
    "service-upstream",
    "session-cookie-change-on-failure",
    "session-cookie-conditional-samesite-none",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-samesite",
    "session-cookie-secure",
    "ssl-ciphers",
    "ssl-passthrough",
    "ssl-redirect",
    "temporal-redirect",
    "temporal-redirect-code",
    "upstream-hash-by",
    "upstream-hash-by-subset",
    "upstream-hash-by-subset-size",
    "upstream-vhost",
    "use-port-in-redirects",
    "use-regex",
    "whitelist-source-range",
    "x-forwarded-prefix",
];
/// Names that one remark lists, and bytes that it spends on them: an object may have 256 KiB of annotations.
const MOST_NAMES: usize = 8;
const MOST_BYTES: usize = 240;

/// Those of our prefix that this kind of object does not have. `known` are whole names.
pub(super) fn unknown(metadata: &ObjectMeta, kind: &str, known: &[&str]) -> Option<Remark> {
    let names = metadata.annotations.iter().flatten().map(|(name, _)| name.as_str());
    let unknown: Vec<&str> = names.filter(|name| name.starts_with(OURS) && !known.contains(name)).collect();
    let first = unknown.first()?;
    let (verb, effect) = if unknown.len() > 1 { ("are", "they change") } else { ("is", "it changes") };
    let known = match known {
        [] => format!("{kind} has no annotations of this prefix"),
        known => format!("{kind} has {}", known.join(", ")),
    };
    Some(Remark {
        field: annotation_field(&shorten(first)).into(),
        reason: format!("{} {verb} unknown, so {effect} nothing: {known}", listed(&unknown)).into(),
    })
}

/// Those of ingress-nginx. What they mean is the plan's business.
pub(super) struct Nginx<'a> {
    /// What stands before the `/`.
    prefix: &'a str,
    metadata: &'a ObjectMeta,
}

impl<'a> Nginx<'a> {
    pub(super) fn new(prefix: &'a str, metadata: &'a ObjectMeta) -> Self {
        Self { prefix, metadata }
    }

    /// Without their prefix.
    fn all(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let prefix = self.prefix;
        let annotations = self.metadata.annotations.iter().flatten();
        annotations.filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?.strip_prefix('/')?, value.trim())))
    }

    pub(super) fn read(&self) -> BTreeMap<String, String> {
        self.all().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Those that change nothing here.
    pub(super) fn unheeded(&self) -> Option<Remark> {
        let names: Vec<&str> = self.all().map(|(name, _)| name).filter(|name| !is_heeded(name)).collect();
        if names.is_empty() {
            return None;
        }
        let prefix = self.prefix;
        let reason = format!("{prefix}/* is not honoured in full, so it is served without: {}", listed(&names));
        Some(Remark { field: "metadata.annotations".into(), reason: reason.into() })
    }

    /// Secrets that they name, `name` or `namespace/name`.
    pub(super) fn secrets(&self, namespace: &str) -> Vec<ObjectName> {
        self.named(namespace, &["auth-secret", "auth-tls-secret", "proxy-ssl-secret"])
    }

    /// ConfigMaps, in the same way.
    pub(super) fn config_maps(&self, namespace: &str) -> Vec<ObjectName> {
        self.named(namespace, &["auth-proxy-set-headers", "custom-headers"])
    }

    fn named(&self, namespace: &str, keys: &[&str]) -> Vec<ObjectName> {
        let named = self.all().filter(|(key, _)| keys.contains(key)).filter_map(|(_, value)| {
            let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
            (!namespace.is_empty() && !name.is_empty()).then(|| ObjectName::new(namespace, name))
        });
        named.collect()
    }
}

/// Whether an annotation of ingress-nginx, without its prefix, changes something here.
pub fn is_heeded(name: &str) -> bool {
    HEEDED.contains(&name)
}

/// `a, b and 3 more`.
fn listed(names: &[&str]) -> String {
    let mut text = String::new();
    let mut told = 0;
    for name in names.iter().take(MOST_NAMES) {
        let name = shorten(name);
        if told > 0 && text.len() + name.len() > MOST_BYTES {
            break;
        }
        if told > 0 {
            text += ", ";
        }
        text += &name;
        told += 1;
    }
    match names.len() - told {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// A name from a manifest may be of any length and hold anything.
fn shorten(name: &str) -> String {
    let clean = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    let short: String = name.chars().take(80).map(clean).collect();
    if short.len() < name.len() { short + "…" } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::NGINX_PREFIX;

    fn with(names: impl IntoIterator<Item = String>) -> ObjectMeta {
        let annotations = names.into_iter().map(|name| (name, String::new())).collect();
        ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() }
    }

    #[test]
    fn remarks_are_bounded_whatever_the_annotations() {
        let many = (0..5000).flat_map(|i| {
            let long = "\n".repeat(i % 300);
            [format!("{OURS}{i}-{long}"), format!("{NGINX_PREFIX}/{i}-{long}")]
        });
        let metadata = with(many);
        let ours = unknown(&metadata, "an Ingress", &["sluicegate.io/balance"]).expect("a remark");
        let nginx = Nginx::new(NGINX_PREFIX, &metadata).unheeded().expect("a remark");
        for remark in [ours, nginx] {
            assert!(remark.field.len() + remark.reason.len() < 800, "{remark:?}");
            assert!(!remark.reason.contains('\n') && !remark.field.contains('\n'), "{remark:?}");
            assert!(remark.reason.contains(" more"), "{remark:?}");
        }
    }

    #[test]
    fn known_and_foreign_names_are_no_matter() {
        let metadata = with(["sluicegate.io/vips", "example.com/x", "kubernetes.io/ingress.class"].map(str::to_owned));
        assert_eq!(unknown(&metadata, "a Service", &["sluicegate.io/vips"]), None);
    }
}
