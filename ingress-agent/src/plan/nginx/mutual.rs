//! `auth-tls-*`: certificates of clients. They hold for the whole host, siblings included (golden case 283).

use super::Found;
use super::read::Reader;
use super::settings::Settings;
use crate::model::policy::{ClientCertificates, Demand};
use crate::model::snapshot::ObjectName;

pub(super) fn read(reader: &mut Reader<'_>, settings: &Settings, found: &mut Found<'_>) -> Option<ClientCertificates> {
    let text = reader.text("auth-tls-secret")?;
    let demand = match reader.text("auth-tls-verify-client") {
        None | Some("on") => Demand::Always,
        Some("off") => return None,
        Some("optional") => Demand::IfShown,
        Some("optional_no_ca") => Demand::Unchecked,
        Some(_) => {
            reader.ignore("auth-tls-verify-client", "is not `on`, `off`, `optional` or `optional_no_ca`");
            Demand::Always
        }
    };
    let own = &reader.ingress.origin.name.namespace;
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    let mut revoked = Vec::new();
    let authorities = if namespace != own && !settings.cross_namespace {
        reader.warn("auth-tls-secret", format!("`{text}` is in another namespace: every request over TLS gets 403"));
        None
    } else {
        let secret = ObjectName::new(namespace, name);
        let (mut authorities, _) = found.pair(&secret);
        if authorities.is_none() {
            reader.warn(
                "auth-tls-secret",
                format!("`{text}` has no `ca.crt` that can be read: every request over TLS gets 403"),
            );
        }
        if let Some(lists) = found.revoked(&secret) {
            revoked = lists;
        } else {
            // Who was shut out must not come in because nobody can read who it was.
            reader.warn("auth-tls-secret", format!("`{text}` has a `ca.crl` that is no PEM: every request gets 403"));
            authorities = None;
        }
        authorities
    };
    let depth = reader.number("auth-tls-verify-depth").unwrap_or(1);
    let match_subject = reader.text("auth-tls-match-cn").and_then(|pattern| {
        let fault = super::expression_fault(pattern);
        if let Some(fault) = &fault {
            reader.ignore("auth-tls-match-cn", format!("is not a regular expression that is taken here ({fault})"));
            reader.contrast(super::expression_contrast(fault));
        }
        fault.is_none().then(|| pattern.to_owned())
    });
    let error_page = reader.text("auth-tls-error-page").filter(|page| {
        let usable = page.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\;{}$<>".contains(&b));
        if !usable {
            reader.ignore("auth-tls-error-page", "is not an address");
        }
        usable
    });
    let error_page = error_page.map(str::to_owned);
    let pass = reader.flag("auth-tls-pass-certificate-to-upstream", false);
    Some(ClientCertificates { authorities, revoked, depth, demand, match_subject, error_page, pass })
}
