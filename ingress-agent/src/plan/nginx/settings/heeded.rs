//! Keys that change something here. Others are told: a key that is accepted and silently ignored looks like a setting.

use super::Values;
use crate::model::difference::Contrast;

const HEEDED: &[&str] = &[
    "add-headers",
    "allow-backend-server-header",
    "allow-cross-namespace-resources",
    "allow-snippet-annotations",
    "annotation-value-word-blocklist",
    "annotations-risk-level",
    "block-cidrs",
    "block-referers",
    "block-user-agents",
    "brotli-level",
    "brotli-min-length",
    "brotli-types",
    "client-body-timeout",
    "client-header-buffer-size",
    "client-header-timeout",
    "compute-full-forwarded-for",
    "custom-http-errors",
    "denylist-source-range",
    "disable-access-log",
    "disable-http-access-log",
    "enable-brotli",
    "enable-real-ip",
    "enable-underscores-in-headers",
    "enable-zstd",
    "force-ssl-redirect",
    "forwarded-for-header",
    "generate-request-id",
    "global-allowed-response-headers",
    "gzip-level",
    "gzip-min-length",
    "gzip-types",
    "hide-headers",
    "hsts",
    "hsts-include-subdomains",
    "hsts-max-age",
    "hsts-preload",
    "http-redirect-code",
    "http2-max-concurrent-streams",
    "ignore-invalid-headers",
    "keep-alive",
    "keep-alive-requests",
    "large-client-header-buffers",
    "limit-conn-status-code",
    "limit-rate",
    "limit-rate-after",
    "limit-req-status-code",
    "load-balance",
    "log-format-escape-json",
    "log-format-escape-none",
    "log-format-upstream",
    "no-auth-locations",
    "no-tls-redirect-locations",
    "proxy-add-original-uri-header",
    "proxy-body-size",
    "proxy-buffering",
    "proxy-connect-timeout",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-next-upstream-tries",
    "proxy-protocol-header-timeout",
    "proxy-read-timeout",
    "proxy-real-ip-cidr",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-send-timeout",
    "proxy-set-headers",
    "relative-redirects",
    "retry-non-idempotent",
    "service-upstream",
    "skip-access-log-urls",
    "ssl-ciphers",
    "ssl-protocols",
    "ssl-redirect",
    "ssl-reject-handshake",
    "strict-validate-path-type",
    "upstream-keepalive-connections",
    "upstream-keepalive-requests",
    "upstream-keepalive-time",
    "upstream-keepalive-timeout",
    "use-forwarded-headers",
    "use-gzip",
    "use-http2",
    "use-port-in-redirects",
    "use-proxy-protocol",
    "whitelist-source-range",
    "zstd-level",
    "zstd-min-length",
    "zstd-types",
];
/// What they are about is done here in another way, or not at all, and nobody misses it: nginx's processes, tables and buffers.
const NEEDLESS: &[&str] = &[
    "bind-address",
    "client-body-buffer-size",
    "disable-ipv6",
    "enable-multi-accept",
    "enable-serial-reloads",
    "max-worker-connections",
    "max-worker-open-files",
    "nginx-status-ipv4-whitelist",
    "nginx-status-ipv6-whitelist",
    "proxy-buffer-size",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-max-temp-file-size",
    "proxy-request-buffering",
    "reuse-port",
    "server-tokens",
    "ssl-buffer-size",
    "ssl-session-cache",
    "ssl-session-cache-size",
    "worker-cpu-affinity",
    "worker-processes",
];
/// Keys that one remark names.
const MOST: usize = 12;

/// What becomes of a key of ingress-nginx's ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingUse {
    Heeded,
    /// What it is about is done here in another way, and nobody misses it.
    Needless,
    None,
}

pub fn setting_use(key: &str) -> SettingUse {
    match key {
        _ if HEEDED.contains(&key) || key.starts_with("global-auth-") => SettingUse::Heeded,
        _ if NEEDLESS.contains(&key) => SettingUse::Needless,
        _ => SettingUse::None,
    }
}

/// One remark of those that change nothing.
pub(super) fn tell(v: &mut Values<'_>) {
    let Some(map) = v.map else { return };
    let unheeded = map.data.keys().map(String::as_str).filter(|key| setting_use(key) == SettingUse::None);
    let unheeded: Vec<&str> = unheeded.collect();
    let Some(first) = unheeded.first() else { return };
    let short = |key: &&str| key.chars().filter(char::is_ascii_graphic).take(60).collect::<String>();
    let mut names = unheeded.iter().take(MOST).map(short).collect::<Vec<_>>().join(", ");
    if unheeded.len() > MOST {
        names = format!("{names} and {} more", unheeded.len() - MOST);
    }
    let field = format!("data[{}]", short(first));
    let told = map.origin.warn("ConfigMap", field, format!("changes nothing here: {names}"));
    v.rejections.push(told.contrasted(Contrast::Listed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        assert!(HEEDED.is_sorted() && NEEDLESS.is_sorted());
    }
}
