//! `ssl-protocols`, `ssl-ciphers`, `ssl-reject-handshake`. What TLS 1.3 and the newer half of 1.2 do not have is not there to be asked for.

use super::Values;
use crate::model::difference::{Contrast, Difference};
use crate::model::policy::TlsSettings;
use crate::plan::nginx::profile::{NO_SUITE, NO_VERSION, suites, versions};

pub(super) fn read(v: &mut Values<'_>) -> TlsSettings {
    let mut tls = TlsSettings { reject_unknown: v.flag("ssl-reject-handshake", false), ..TlsSettings::default() };
    if let Some(text) = v.text("ssl-protocols").map(str::to_owned) {
        if let Some(named) = versions(&text) {
            (tls.profile.v12, tls.profile.v13) = named;
        } else {
            v.ignore("ssl-protocols", NO_VERSION);
            v.contrast(Contrast::Differs(Difference::OldTls));
        }
        if text.split_whitespace().any(|word| matches!(word, "TLSv1" | "TLSv1.1")) {
            v.remark("ssl-protocols", "TLS 1.0 and 1.1 are not served (RFC 8996)");
            v.contrast(Contrast::Differs(Difference::OldTls));
        }
    }
    if let Some(text) = v.text("ssl-ciphers").map(str::to_owned) {
        tls.profile.suites = suites(&text);
        if tls.profile.suites.is_empty() {
            v.ignore("ssl-ciphers", NO_SUITE);
            v.contrast(Contrast::Differs(Difference::OldTls));
        }
    }
    tls
}
