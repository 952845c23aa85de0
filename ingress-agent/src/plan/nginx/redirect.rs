//! `ssl-redirect` and its kin, `ssl-passthrough`, `permanent-redirect`, `temporal-redirect`, `app-root`, HSTS.

use http::StatusCode;

use super::read::{Reader, Spoilt};
use super::settings::Settings;
use crate::model::policy::{FixedRedirect, Https, HttpsWhen, Part, Policy, Template, Variable};

/// `ssl-passthrough`, which its hosts have from their oldest Ingress.
pub(super) fn passed(reader: &mut Reader<'_>, settings: &Settings) -> bool {
    let asked = reader.flag("ssl-passthrough", false);
    if asked && !settings.passthrough {
        reader.ignore("ssl-passthrough", "needs `--enable-ssl-passthrough`");
    }
    asked && settings.passthrough
}

pub(super) fn fill(reader: &mut Reader<'_>, settings: &Settings, policy: &mut Policy) {
    let wanted = reader.flag("ssl-redirect", settings.ssl_redirect);
    let forced = reader.flag("force-ssl-redirect", settings.force_ssl_redirect);
    let when = match (forced, wanted) {
        (true, _) => HttpsWhen::Always,
        (false, true) => HttpsWhen::Secured,
        (false, false) => HttpsWhen::Never,
    };
    let keep_slash = reader.flag("preserve-trailing-slash", false);
    policy.https = Https { when, status: settings.redirect_code, keep_slash };
    policy.redirect = fixed(reader);
    policy.app_root = reader.text("app-root").and_then(|root| {
        if !root.starts_with('/') || root.bytes().any(|b| b"\"\\;{}$ ".contains(&b)) {
            reader.ignore("app-root", "is not a path");
            return None;
        }
        Some(Template(vec![
            Part::Variable(Variable::Scheme),
            Part::Text("://".to_owned()),
            Part::Variable(Variable::HttpHost),
            Part::Text(root.to_owned()),
        ]))
    });
}

/// The temporal one wins where both are.
fn fixed(reader: &mut Reader<'_>) -> Option<FixedRedirect> {
    for (key, code_key, default) in [
        ("temporal-redirect", "temporal-redirect-code", StatusCode::FOUND),
        ("permanent-redirect", "permanent-redirect-code", StatusCode::MOVED_PERMANENTLY),
    ] {
        let Some(target) = reader.text(key) else { continue };
        // Observed: golden cases 060 and 402.
        let usable = target.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\;{}$<>`^|".contains(&b));
        if !usable {
            reader.spoil(key, Spoilt::Ingress, "is not an address (variables are not allowed in it)");
            return None;
        }
        let status = reader.number(code_key).and_then(|code| {
            let code = u16::try_from(code).ok().filter(|code| (300..=308).contains(code));
            code.and_then(|code| StatusCode::from_u16(code).ok())
        });
        if reader.text(code_key).is_some() && status.is_none() {
            reader.warn(code_key, format!("is not a status from 300 to 308; {} is sent", default.as_u16()));
        }
        let location = Template(vec![Part::Text(target.to_owned())]);
        return Some(FixedRedirect { status: status.unwrap_or(default), location, trim_slash: false });
    }
    None
}

/// `from-to-www-redirect`: what the other of the two names answers.
pub(in crate::plan) fn to_other_name(host: &str, settings: &Settings) -> Policy {
    let location = vec![
        Part::Variable(Variable::Scheme),
        Part::Text(format!("://{host}:")),
        Part::Variable(Variable::ServerPort),
        Part::Variable(Variable::RequestUri),
    ];
    let status = StatusCode::from_u16(settings.redirect_code).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    let redirect = Some(FixedRedirect { status, location: Template(location), trim_slash: true });
    Policy { redirect, ..Policy::default() }
}
