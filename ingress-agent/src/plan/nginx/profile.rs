//! Versions and suites of TLS as nginx's directives name them: those of the listener, of one host, and towards backends.

use std::sync::Arc;

use super::read::Reader;
use crate::model::difference::{Contrast, Difference};
use crate::model::policy::TlsProfile;

/// OpenSSL's names of the suites of TLS 1.2 that we have.
const SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
pub(super) const NO_SUITE: &str = "names no suite that is served (ECDHE with AES-GCM or ChaCha20)";
pub(super) const NO_VERSION: &str = "names neither TLSv1.2 nor TLSv1.3";

/// Whether TLS 1.2 and 1.3 are named; `None`: neither is.
pub(super) fn versions(text: &str) -> Option<(bool, bool)> {
    let has = |name: &str| text.split_whitespace().any(|word| word == name);
    let named = (has("TLSv1.2"), has("TLSv1.3"));
    (named != (false, false)).then_some(named)
}

/// The suites that a list of OpenSSL's comes to (`openssl-ciphers(1)`): names and groups, `+` between parts that must all hold, `-` takes
/// away, `!` for good. Their order is rustls's.
pub(super) fn suites(list: &str) -> Arc<[&'static str]> {
    let (mut taken, mut banned) = ([false; SUITES.len()], [false; SUITES.len()]);
    for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        let (sign, rest) = match word.split_at_checked(1) {
            Some((sign @ ("!" | "-" | "+"), rest)) => (sign, rest),
            _ => ("", word),
        };
        for (at, suite) in SUITES.iter().enumerate() {
            if rest.split('+').all(|part| is_of(suite, part)) {
                match sign {
                    "!" => banned[at] = true,
                    "-" => taken[at] = false,
                    // It only moves them.
                    "+" => {}
                    _ => taken[at] = true,
                }
            }
        }
    }
    let left = SUITES.iter().enumerate().filter(|(at, _)| taken[*at] && !banned[*at]);
    left.map(|(_, suite)| *suite).collect()
}

/// `group`: a suite's name, or one of the groups that some of ours are in.
fn is_of(suite: &str, group: &str) -> bool {
    match group {
        "ALL" | "DEFAULT" | "HIGH" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "TLSv1.2" => true,
        "AES" | "AESGCM" => suite.contains("-AES"),
        "AES128" | "AES256" | "CHACHA20" => suite.contains(group),
        "ECDSA" | "aECDSA" => suite.starts_with("ECDHE-ECDSA-"),
        "aRSA" => suite.starts_with("ECDHE-RSA-"),
        name => suite == name,
    }
}

/// `ssl-ciphers`, which a host has from its oldest Ingress that says so.
pub(super) fn of_host(reader: &mut Reader<'_>) -> Arc<[&'static str]> {
    named(reader, "ssl-ciphers")
}

/// `proxy-ssl-protocols` and `proxy-ssl-ciphers`.
pub(super) fn of_backends(reader: &mut Reader<'_>) -> TlsProfile {
    let mut profile = TlsProfile { suites: named(reader, "proxy-ssl-ciphers"), ..TlsProfile::default() };
    if let Some(text) = reader.text("proxy-ssl-protocols") {
        if let Some(named) = versions(text) {
            (profile.v12, profile.v13) = named;
        } else {
            reader.ignore("proxy-ssl-protocols", NO_VERSION);
            reader.contrast(Contrast::Differs(Difference::OldTls));
        }
    }
    profile
}

fn named(reader: &mut Reader<'_>, key: &str) -> Arc<[&'static str]> {
    let Some(text) = reader.text(key) else { return Arc::default() };
    let suites = suites(text);
    if suites.is_empty() {
        reader.ignore(key, NO_SUITE);
        reader.contrast(Contrast::Differs(Difference::OldTls));
    }
    suites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_openssl_reads_them() {
        let all = SUITES.len();
        for (list, count, has, has_not) in [
            ("HIGH:!aNULL:!MD5", all, "ECDHE-RSA-CHACHA20-POLY1305", "x"),
            ("ALL:!aNULL:!EXPORT56:RC4+RSA:+HIGH:+MEDIUM:+LOW:+SSLv2:+EXP", all, SUITES[0], "x"),
            ("DEFAULT:!CHACHA20", 4, SUITES[0], "ECDHE-RSA-CHACHA20-POLY1305"),
            ("ECDHE+AESGCM:ECDHE+CHACHA20:-aECDSA", 3, "ECDHE-RSA-AES256-GCM-SHA384", SUITES[0]),
            ("!AES128:AES128:AES256", 2, "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"),
            ("ECDHE-RSA-AES128-GCM-SHA256,AES256-SHA", 1, "ECDHE-RSA-AES128-GCM-SHA256", "AES256-SHA"),
            ("RSA:3DES:kRSA+AES", 0, "", ""),
            ("x y", 0, "", ""),
            ("!:-:+:::@STRENGTH", 0, "", ""),
        ] {
            let found = suites(list);
            assert_eq!(found.len(), count, "{list}: {found:?}");
            assert!(count == 0 || found.contains(&has) && !found.contains(&has_not), "{list}: {found:?}");
        }
    }
}
