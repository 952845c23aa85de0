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
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
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
            let lists = source.revoked.iter().map(|der| CertificateRevocationListDer::from(der.clone()));
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists).build();
            verifier
                .map_err(|error| tracing::warn!(%error, "certificates of clients cannot be judged: nobody gets in"))
                .ok()
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
        let between = rest.iter().filter(|c| !signs_itself(c)).count();
        let good =
            between <= self.source.depth as usize && verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok();
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
        let sent_on = found.terms.policy.as_ref().is_some_and(|p| match p.https.when {
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

/// Clients may send the authority itself along.
pub(in crate::proxy) fn signs_itself(certificate: &CertificateDer<'_>) -> bool {
    parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
        KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;

    /// An authority, signed by `above` or by itself.
    fn authority(
        name: &str,
        above: Option<&Issuer<'static, KeyPair>>,
    ) -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let made = match above {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        let der = made.expect("a certificate").der().clone();
        (Issuer::new(params, key), der)
    }

    fn client(serial: u64, issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["client.example".to_owned()]).expect("a name");
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        params.signed_by(&key, issuer).expect("a certificate").der().clone()
    }

    fn list(serial: u64, issuer: &Issuer<'static, KeyPair>) -> Vec<u8> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(issuer).expect("a list").der().to_vec()
    }

    fn judge(
        authority: &CertificateDer<'_>,
        revoked: Vec<Vec<u8>>,
        depth: u32,
        chain: &[CertificateDer<'static>],
    ) -> u16 {
        let source = ClientCertificates {
            authorities: Some(vec![authority.to_vec()]),
            revoked,
            depth,
            demand: Demand::Always,
            match_subject: None,
            error_page: None,
            pass: false,
        };
        Mutual::new(&Arc::new(source)).check(chain).map_or_else(|reply| reply.status.as_u16(), |_| 200)
    }

    #[test]
    fn revoked_certificates_are_no_good() {
        let (issuer, der) = authority("root", None);
        let revoked = vec![list(7, &issuer)];
        assert_eq!(judge(&der, revoked.clone(), 1, &[client(6, &issuer)]), 200);
        assert_eq!(judge(&der, revoked.clone(), 1, &[client(7, &issuer)]), 400);
        assert_eq!(judge(&der, Vec::new(), 1, &[client(7, &issuer)]), 200, "nothing is revoked");
        // A list that another one signed says nothing of this authority, and then nobody is known to be good.
        let (other, _) = authority("other", None);
        assert_eq!(judge(&der, vec![list(7, &other)], 1, &[client(6, &issuer)]), 400);
    }

    #[test]
    fn a_chain_is_no_deeper_than_it_may_be() {
        let (root, der) = authority("root", None);
        let (middle, middle_der) = authority("middle", Some(&root));
        let (low, low_der) = authority("low", Some(&middle));
        let near = [client(1, &middle), middle_der.clone()];
        let far = [client(1, &low), low_der, middle_der];
        assert_eq!((judge(&der, Vec::new(), 1, &near), judge(&der, Vec::new(), 0, &near)), (200, 400));
        assert_eq!((judge(&der, Vec::new(), 2, &far), judge(&der, Vec::new(), 1, &far)), (200, 400));
        // The authority itself may come along.
        assert_eq!(judge(&der, Vec::new(), 0, &[client(1, &root), der.clone()]), 200);
    }
}
