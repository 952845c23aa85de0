//! What ingress-nginx 1.15 knows and the agent does not heed: its annotations and the keys of its ConfigMap, each with what to do
//! instead. What the agent heeds is said where it is read (`sources::parse`, `plan::nginx`); a name in neither place was nothing there,
//! too.

use crate::model::difference::Difference;

/// What becomes of something that is not heeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody misses it, for this reason.
    Needless(&'static str),
    /// What to do instead.
    Unsupported(&'static str),
    /// On purpose.
    Differs(Difference),
}

use Fate::{Differs, Needless, Unsupported};

const WAF: &str = "a web application firewall in front of the edge, or as a sidecar of the backend";
const TRACING: &str = "`X-Request-ID` runs through access log and backend; traces begin in the backend";
const SUITES: &str = "TLS 1.2 and 1.3 with forward secrecy are always spoken, in rustls's order";
const FASTCGI: &str = "put an HTTP server that speaks FastCGI (nginx, Caddy) into the pod, and name its port";
const NO_PROCESSES: &str = "is about nginx's processes, tables and buffers, which are not here";
const NO_SNIPPET: &str = "no text becomes configuration here; annotations and keys do most of what snippets did";
const GEO: &str = "look the client's address up in the backend, or filter in front of the edge";
const STREAMS: &str =
    "TCP and UDP ports are served by XDP (README, `--tcp-services-configmap`), without timeouts and tries of their own";

/// Sorted by name.
pub(super) const ANNOTATIONS: &[(&str, Fate)] = &[
    (
        "connection-proxy-header",
        Unsupported("`Connection` towards the backend is the proxy's own business (RFC 9110 §7.6.1)"),
    ),
    ("enable-modsecurity", Unsupported(WAF)),
    ("enable-opentelemetry", Unsupported(TRACING)),
    ("enable-owasp-core-rules", Unsupported(WAF)),
    ("enable-rewrite-log", Needless("`sluicegate explain URL` says what a request meets")),
    ("fastcgi-index", Unsupported(FASTCGI)),
    ("fastcgi-params-configmap", Unsupported(FASTCGI)),
    ("http2-push-preload", Needless("nginx has no server push since 1.25, and browsers have none either")),
    ("modsecurity-snippet", Unsupported(WAF)),
    ("modsecurity-transaction-id", Unsupported(WAF)),
    ("opentelemetry-operation-name", Unsupported(TRACING)),
    ("opentelemetry-trust-incoming-span", Unsupported(TRACING)),
    ("ssl-prefer-server-ciphers", Needless(SUITES)),
    ("stream-snippet", Unsupported(NO_SNIPPET)),
];

/// Sorted by name. Of those that begin with one of [`SETTING_FAMILIES`], only the exceptions.
pub(super) const SETTINGS: &[(&str, Fate)] = &[
    ("access-log-params", Needless("how log lines are buffered is decided here")),
    ("access-log-path", Differs(Difference::LogPath)),
    ("aio-write", Needless(NO_PROCESSES)),
    ("block-stream", Unsupported(STREAMS)),
    ("debug-connections", Needless("`sluicegate explain` and `--log` say what happens to one connection")),
    ("default-type", Unsupported("answers without a `Content-Type` stay so; set it in the backend")),
    ("disable-ipv6-dns", Needless("names are looked up in both families, and either serves")),
    ("disable-stream-access-log", Needless("packets have counters instead of log lines")),
    ("enable-access-log-for-default-backend", Needless("all requests are in the access log")),
    ("enable-aio-write", Needless(NO_PROCESSES)),
    ("enable-auth-access-log", Needless("auth requests are not in the access log")),
    ("enable-modsecurity", Unsupported(WAF)),
    ("enable-ocsp", Unsupported("`auth-tls-secret` with a `ca.crl`")),
    ("enable-opentelemetry", Unsupported(TRACING)),
    ("enable-owasp-modsecurity-crs", Unsupported(WAF)),
    ("enable-real-ip-recursive", Unsupported("name every proxy of yours in `proxy-real-ip-cidr`")),
    ("error-log-level", Unsupported("`--log LEVEL`")),
    ("error-log-path", Unsupported("standard error; systemd or the kubelet keeps it")),
    ("grpc-buffer-size-kb", Needless(NO_PROCESSES)),
    ("gzip-disable", Unsupported("clients that do not ask for gzip do not get it")),
    ("http-access-log-path", Differs(Difference::LogPath)),
    ("http-snippet", Unsupported(NO_SNIPPET)),
    ("http2-max-concurrent-pushes", Needless("nginx has no server push since 1.25")),
    ("http2-max-field-size", Needless("`large-client-header-buffers` is the bound for both versions of HTTP")),
    ("http2-max-header-size", Needless("`large-client-header-buffers` is the bound for both versions of HTTP")),
    ("http2-max-requests", Needless("`keep-alive-requests` is the bound for both versions of HTTP")),
    ("limit-conn-zone-variable", Unsupported("limits go by the client's address")),
    ("location-snippet", Unsupported(NO_SNIPPET)),
    ("log-format-stream", Unsupported("packets have counters instead of log lines")),
    ("lua-shared-dicts", Needless(NO_PROCESSES)),
    ("main-snippet", Unsupported(NO_SNIPPET)),
    ("proxy-headers-hash-bucket-size", Needless(NO_PROCESSES)),
    ("proxy-headers-hash-max-size", Needless(NO_PROCESSES)),
    ("proxy-http-version", Needless("HTTP/1.1 is spoken to every backend that has not asked for HTTP/2")),
    ("server-name-hash-bucket-size", Needless(NO_PROCESSES)),
    ("server-name-hash-max-size", Needless(NO_PROCESSES)),
    ("server-snippet", Unsupported(NO_SNIPPET)),
    ("ssl-dh-param", Needless("key exchange is over elliptic curves")),
    ("ssl-early-data", Needless("early data is not taken: it can be replayed (RFC 8446 §8)")),
    ("ssl-ecdh-curve", Unsupported("rustls's curves are offered, X25519 before the others")),
    ("ssl-session-ticket-key", Needless("tickets are made with keys of each node, which change by themselves")),
    ("ssl-session-tickets", Needless("sessions are resumed as the client asks")),
    ("ssl-session-timeout", Needless("sessions are resumed as the client asks")),
    ("stream-snippet", Unsupported(NO_SNIPPET)),
    ("use-geoip", Unsupported(GEO)),
    ("use-geoip2", Unsupported(GEO)),
    ("use-http3", Unsupported("HTTP/2 is served to every client that has it")),
    ("variables-hash-bucket-size", Needless(NO_PROCESSES)),
    ("variables-hash-max-size", Needless(NO_PROCESSES)),
    ("worker-shutdown-timeout", Differs(Difference::ShutdownTimeout)),
];

/// Keys that begin alike.
pub(super) const SETTING_FAMILIES: &[(&str, Fate)] = &[
    ("annotation-", Unsupported("write a ValidatingAdmissionPolicy")),
    ("geoip2-", Unsupported(GEO)),
    ("jaeger-", Unsupported(TRACING)),
    ("map-hash-", Needless(NO_PROCESSES)),
    ("modsecurity-", Unsupported(WAF)),
    ("opentelemetry-", Unsupported(TRACING)),
    ("otel-", Unsupported(TRACING)),
    ("otlp-", Unsupported(TRACING)),
    ("plugins", Unsupported(NO_SNIPPET)),
    ("proxy-stream-", Unsupported(STREAMS)),
    ("syslog-", Unsupported("standard output or a file, and a collector that reads it")),
    ("use-syslog", Unsupported("standard output or a file, and a collector that reads it")),
    ("worker-", Needless(NO_PROCESSES)),
];

/// `None`: ingress-nginx does not know the annotation either.
pub(super) fn annotation(name: &str) -> Option<Fate> {
    find(ANNOTATIONS, name)
}

/// The same for a key of the ConfigMap.
pub(super) fn setting(key: &str) -> Option<Fate> {
    find(SETTINGS, key).or_else(|| {
        let family = SETTING_FAMILIES.iter().find(|(begins, _)| key.starts_with(begins));
        family.map(|(_, fate)| *fate)
    })
}

fn find(table: &[(&str, Fate)], name: &str) -> Option<Fate> {
    table.iter().find(|(known, _)| *known == name).map(|(_, fate)| *fate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{SettingUse, setting_use};
    use crate::sources::parse::is_heeded;

    /// A name that is heeded has no place among those that are not.
    #[test]
    fn nothing_is_both_heeded_and_not() {
        for (name, _) in ANNOTATIONS {
            assert!(!is_heeded(name), "{name}");
        }
        for (key, _) in SETTINGS {
            assert_eq!(setting_use(key), SettingUse::None, "{key}");
        }
    }

    #[test]
    fn each_name_stands_once() {
        for table in [ANNOTATIONS, SETTINGS, SETTING_FAMILIES] {
            let mut names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.len());
        }
    }
}
