//! `annotations-risk-level` and `annotation-value-word-blocklist`: what an operator lets the owners of Ingresses say. The levels are those of
//! ingress-nginx's own table.

use super::read::{Reader, Spoilt};
use super::settings::Settings;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Risk {
    Low,
    Medium,
    #[default]
    High,
    Critical,
}

impl Risk {
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let known = [("low", Self::Low), ("medium", Self::Medium), ("high", Self::High), ("critical", Self::Critical)];
        known.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, risk)| risk)
    }
}

const CRITICAL: &[&str] =
    &["auth-snippet", "configuration-snippet", "modsecurity-snippet", "server-snippet", "stream-snippet"];
const HIGH: &[&str] = &[
    "auth-signin",
    "auth-tls-error-page",
    "auth-tls-match-cn",
    "auth-url",
    "mirror-host",
    "mirror-target",
    "modsecurity-transaction-id",
    "proxy-ssl-name",
    "server-alias",
    "upstream-hash-by",
];
const MEDIUM: &[&str] = &[
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-proxy-set-headers",
    "auth-realm",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-secret",
    "auth-signin-redirect-param",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "custom-headers",
    "denylist-source-range",
    "fastcgi-index",
    "fastcgi-params-configmap",
    "force-ssl-redirect",
    "opentelemetry-operation-name",
    "permanent-redirect",
    "preserve-trailing-slash",
    "proxy-body-size",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-next-upstream",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-ssl-ciphers",
    "proxy-ssl-secret",
    "rewrite-target",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "temporal-redirect",
    "whitelist-source-range",
    "x-forwarded-prefix",
];

fn risk(annotation: &str) -> Risk {
    let among = |list: &[&str]| list.contains(&annotation);
    match annotation {
        _ if among(CRITICAL) => Risk::Critical,
        _ if among(HIGH) => Risk::High,
        _ if among(MEDIUM) => Risk::Medium,
        _ => Risk::Low,
    }
}

/// Spoils an Ingress that says more than it may (observed: golden cases 405 and 406). Snippets say themselves that they are not allowed.
pub(super) fn judge(reader: &mut Reader<'_>, settings: &Settings) {
    let ingress = reader.ingress;
    for (key, value) in &ingress.annotations {
        let risk = risk(key);
        if risk > settings.risk && risk != Risk::Critical {
            let level = settings.risk;
            reader.spoil(
                key,
                Spoilt::Ingress,
                format!("has the risk {risk:?}, and `annotations-risk-level` is {level:?}"),
            );
        }
        if let Some(word) = settings.words.iter().find(|word| value.contains(word.as_str())) {
            let reason = format!("contains `{word}`, which is in `annotation-value-word-blocklist`");
            reader.spoil(key, Spoilt::Ingress, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_lists_are_disjoint() {
        assert!(Risk::Low < Risk::Medium && Risk::Medium < Risk::High && Risk::High < Risk::Critical);
        assert_eq!(Risk::of_text("LOW"), Some(Risk::Low));
        assert_eq!(Risk::of_text("lowest"), None);
        for (name, expected) in
            [("server-alias", Risk::High), ("rewrite-target", Risk::Medium), ("ssl-redirect", Risk::Low)]
        {
            assert_eq!(risk(name), expected, "{name}");
        }
        for list in [CRITICAL, HIGH, MEDIUM] {
            assert!(list.is_sorted(), "{list:?}");
        }
    }
}
