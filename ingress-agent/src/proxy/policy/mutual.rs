//! Certificates of clients. TLS takes any (and proves that the client has its key); whether it is good is said in HTTP, so that a browser shows a
//! page instead of a broken connection. Judged once a connection and host.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use regex::bytes::Regex;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::parse_x509_certificate;
use x509_parser::x509::X509Name;

use super::Reply;
use crate::model::policy::{ClientCertificates, Demand, HttpsWhen};
use crate::proxy::hosts::CompiledRoute;

const VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");
const SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
const ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
const CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");

pub(in crate::proxy) struct Mutual {
    source: Arc<ClientCertificates>,
    /// `None`: there is nobody to trust.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    subject: Option<Regex>,
}

impl Mutual {
    pub(in crate::proxy) fn new(source: &Arc<ClientCertificates>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = source.authorities.as_ref().and_then(|authorities| {
            let mut roots = rustls::RootCertStore::empty();
            for authority in authorities {
                if let Err(error) = roots.add(CertificateDer::from(authority.clone())) {
                    tracing::warn!(%error, "an authority for certificates of clients is passed over");
                }
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
        });
        let subject = source.match_subject.as_ref().and_then(|p| crate::proxy::hosts::expression(p, false));
        Self { source: Arc::clone(source), verifier, subject }
    }

    /// The fields that tell the backend, or the refusal.
    pub(in crate::proxy) fn check(
        &self,
        chain: &[CertificateDer<'static>],
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Reply> {
        let Some(verifier) = &self.verifier else { return Err(Reply::new(StatusCode::FORBIDDEN)) };
        let Some((leaf, rest)) = chain.split_first() else {
            return match self.source.demand {
                Demand::Always => Err(self.refused()),
                Demand::IfShown | Demand::Unchecked => Ok(vec![(VERIFY, HeaderValue::from_static("NONE"))]),
            };
        };
        let good = verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok();
        if !good && self.source.demand != Demand::Unchecked {
            return Err(self.refused());
        }
        let Ok((_, parsed)) = parse_x509_certificate(leaf) else { return Err(self.refused()) };
        let subject = name(parsed.subject());
        if self.source.match_subject.is_some() && !self.subject.as_ref().is_some_and(|p| p.is_match(subject.as_bytes()))
        {
            return Err(Reply::new(StatusCode::FORBIDDEN));
        }
        let verdict = if good { "SUCCESS" } else { "FAILED:unable to verify the first certificate" };
        let mut fields = vec![(VERIFY, HeaderValue::from_static(verdict))];
        let issuer = name(parsed.issuer());
        let pem = self.source.pass.then(|| escaped_pem(leaf));
        for (field, text) in [(SUBJECT, Some(subject)), (ISSUER, Some(issuer)), (CERTIFICATE, pem)] {
            fields.extend(text.and_then(|t| HeaderValue::try_from(t).ok()).map(|value| (field, value)));
        }
        Ok(fields)
    }

    /// A request in clear text shows no certificate: it may be sent to https, and nowhere else.
    pub(in crate::proxy) fn in_clear(
        &self,
        found: &CompiledRoute,
        secured: bool,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Reply> {
        let sent_on = found.route.policy.as_ref().is_some_and(|p| match p.https.when {
            HttpsWhen::Always => true,
            HttpsWhen::Secured => secured,
            HttpsWhen::Never => p.redirect.is_some(),
        });
        if sent_on || self.source.demand != Demand::Always {
            return Ok(Vec::new());
        }
        Err(Reply::new(StatusCode::FORBIDDEN))
    }

    fn refused(&self) -> Reply {
        match &self.source.error_page {
            Some(page) => Reply { bare: true, ..Reply::location(StatusCode::FOUND, page) },
            None => Reply { bare: true, ..Reply::new(StatusCode::BAD_REQUEST) },
        }
    }
}

/// What a client says of its own certificate is no news.
pub(in crate::proxy) fn forget(headers: &mut HeaderMap) {
    for name in [VERIFY, SUBJECT, ISSUER, CERTIFICATE] {
        headers.remove(name);
    }
}

/// RFC 2253: the most specific part first.
fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in name.iter_rdn().flat_map(x509_parser::x509::RelativeDistinguishedName::iter) {
        let kind = x509_parser::objects::oid2abbrev(part.attr_type(), x509_parser::objects::oid_registry());
        let kind = kind.map_or_else(|_| part.attr_type().to_string(), str::to_owned);
        let value = part.as_str().unwrap_or_default();
        let mut escaped = String::new();
        for c in value.chars() {
            if ",+\"\\<>;".contains(c) {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        parts.push(format!("{kind}={escaped}"));
    }
    parts.reverse();
    parts.join(",")
}

/// `$ssl_client_escaped_cert`.
fn escaped_pem(leaf: &CertificateDer<'_>) -> String {
    let encoded = BASE64_STANDARD.encode(leaf);
    let lines: Vec<&str> = encoded.as_bytes().chunks(64).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    super::view::escape_component(pem.as_bytes())
}
