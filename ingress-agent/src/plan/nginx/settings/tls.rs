//! `ssl-protocols`, `ssl-ciphers`, `ssl-reject-handshake`. What TLS 1.3 and the newer half of 1.2 do not have is not there to be asked for.

use super::Values;
use crate::model::difference::{Contrast, Difference};
use crate::model::policy::TlsSettings;

/// OpenSSL's names of the suites of TLS 1.2 that we have.
const SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

pub(super) fn read(v: &mut Values<'_>) -> TlsSettings {
    let mut tls = TlsSettings { reject_unknown: v.flag("ssl-reject-handshake", false), ..TlsSettings::default() };
    if let Some(text) = v.text("ssl-protocols").map(str::to_owned) {
        let has = |name: &str| text.split_whitespace().any(|word| word == name);
        let (v12, v13) = (has("TLSv1.2"), has("TLSv1.3"));
        if v12 || v13 {
            (tls.v12, tls.v13) = (v12, v13);
        } else {
            v.ignore("ssl-protocols", "names neither TLSv1.2 nor TLSv1.3");
            v.contrast(Contrast::Differs(Difference::OldTls));
        }
        if has("TLSv1") || has("TLSv1.1") {
            v.remark("ssl-protocols", "TLS 1.0 and 1.1 are not served (RFC 8996)");
            v.contrast(Contrast::Differs(Difference::OldTls));
        }
    }
    if let Some(text) = v.text("ssl-ciphers").map(str::to_owned) {
        let wanted: Vec<&str> = text.split([':', ',', ' ']).filter(|word| !word.is_empty()).collect();
        let suites: Vec<String> = SUITES.iter().filter(|s| wanted.contains(s)).map(|s| (*s).to_owned()).collect();
        if suites.is_empty() {
            v.ignore("ssl-ciphers", "names no suite that is served (ECDHE with AES-GCM or ChaCha20)");
            v.contrast(Contrast::Differs(Difference::OldTls));
        } else {
            tls.suites = suites;
        }
    }
    tls
}
