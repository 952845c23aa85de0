//! Secret `kubernetes.io/tls` → [`CertificateFacts`]: parsed, and its key proven to belong to its certificate. Whether it
//! has expired is asked elsewhere, with the time as an argument: such a certificate is still served.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, sign::any_supported_type};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{X509Certificate, X509Version, parse_x509_certificate};

use super::Notes;
use crate::model::facts::{CertificateFacts, Origin, SecretFacts};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{Certificate, PrivateKey};

const TYPE: &str = "kubernetes.io/tls";

/// `None`: a Secret of another type, which is nobody's mistake.
pub fn parse(object: &Secret, notes: &mut Notes) -> Option<Result<CertificateFacts, Rejection>> {
    (object.type_.as_deref() == Some(TYPE)).then(|| certificate(object, notes))
}

/// Any other Secret: what it says is its reader's business.
pub fn plain(object: &Secret, notes: &Notes) -> SecretFacts {
    let mut data: std::collections::BTreeMap<String, Vec<u8>> =
        object.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    // `stringData` wins, as in the API server.
    data.extend(object.string_data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes())));
    SecretFacts { origin: notes.origin.clone(), data }
}

fn certificate(object: &Secret, notes: &Notes) -> Result<CertificateFacts, Rejection> {
    let chain_pem = value(object, "tls.crt").ok_or_else(|| notes.error("data[tls.crt]", "is missing"))?;
    let key_pem = value(object, "tls.key").ok_or_else(|| notes.error("data[tls.key]", "is missing"))?;

    let chain: Result<Vec<CertificateDer>, _> = CertificateDer::pem_slice_iter(chain_pem).collect();
    let chain = chain.map_err(|e| notes.error("data[tls.crt]", format!("is not PEM: {e}")))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| {
        let reason = "contains no PEM section `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY` (unencrypted)";
        notes.error("data[tls.key]", reason)
    });
    let mut facts = from_der(&chain, key, notes)?;
    facts.authority = value(object, "ca.crt").map(<[u8]>::to_vec);
    facts.revoked = value(object, "ca.crl").map(<[u8]>::to_vec);
    Ok(facts)
}

/// The same from what PEM wraps. The chain's faults are told before the key's.
pub fn from_der(
    chain: &[CertificateDer<'static>],
    key: Result<PrivateKeyDer<'static>, Rejection>,
    notes: &Notes,
) -> Result<CertificateFacts, Rejection> {
    let Some(leaf) = chain.first() else {
        return Err(notes.error("data[tls.crt]", "contains no PEM section `CERTIFICATE`"));
    };
    let (_, parsed) = parse_x509_certificate(leaf)
        .map_err(|e| notes.error("data[tls.crt]", format!("the first certificate is not X.509: {e}")))?;

    if parsed.version() != X509Version::V3 {
        let reason = "the certificate is X.509 version 1 or 2; TLS takes version 3 (one with extensions)";
        return Err(notes.error("data[tls.crt]", reason));
    }

    let key = key?;
    let signing = any_supported_type(&key)
        .map_err(|_| notes.error("data[tls.key]", "is not an RSA, ECDSA or Ed25519 key that TLS can use"))?;
    CertifiedKey::new(chain.to_vec(), signing).keys_match().map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            notes.error("data[tls.key]", "does not belong to the certificate in `tls.crt`: the public keys differ")
        }
        e => notes.error("data[tls.crt]", format!("cannot be served: {e}")),
    })?;

    let hash = TLS13_AES_128_GCM_SHA256.tls13().map(|suite| suite.common.hash_provider.hash(leaf));
    let mut fingerprint = [0; 32];
    if let Some(hash) = hash.as_ref().map(AsRef::as_ref).filter(|h: &&[u8]| h.len() == 32) {
        fingerprint.copy_from_slice(hash);
    }
    let certificate = Certificate {
        name: notes.origin.name.clone(),
        names: names(&parsed),
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
        fingerprint,
        key: match &key {
            PrivateKeyDer::Pkcs1(der) => PrivateKey::Pkcs1(der.secret_pkcs1_der().to_vec()),
            PrivateKeyDer::Sec1(der) => PrivateKey::Sec1(der.secret_sec1_der().to_vec()),
            PrivateKeyDer::Pkcs8(der) => PrivateKey::Pkcs8(der.secret_pkcs8_der().to_vec()),
            _ => return Err(notes.error("data[tls.key]", "is of a form that is not known here")),
        },
        chain: chain.iter().map(|c| c.to_vec()).collect(),
    };
    Ok(CertificateFacts {
        origin: notes.origin.clone(),
        certificate: Arc::new(certificate),
        authority: None,
        revoked: None,
    })
}

/// `stringData` wins, as in the API server.
fn value<'a>(object: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let string = object.string_data.as_ref().and_then(|d| d.get(key)).map(String::as_bytes);
    string.or_else(|| object.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice()))
}

/// RFC 6125 §6.4.4: the common name counts only where there is no subject alternative name of type DNS.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let san = certificate.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = Vec::new();
    for name in san.iter().flat_map(|san| &san.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            names.push(name.to_ascii_lowercase());
        }
    }
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().filter_map(|cn| cn.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    names
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// What to say about a certificate's dates at the time `now`. It is served all the same: a client that does not look still
/// gets through, and a client that does gives its user the reason.
pub fn date_warning(facts: &CertificateFacts, now: SystemTime) -> Option<Rejection> {
    let origin: &Origin = &facts.origin;
    let day = |t: SystemTime| {
        let seconds = t.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        k8s_openapi::jiff::Timestamp::from_second(seconds)
            .map_or_else(|_| "a distant date".to_owned(), |t| t.to_string())
    };
    let reason = if facts.certificate.not_after < now {
        format!("the certificate expired at {}; it is served all the same", day(facts.certificate.not_after))
    } else if facts.certificate.not_before > now {
        let from = day(facts.certificate.not_before);
        format!("the certificate is not valid before {from}; it is served all the same")
    } else {
        return None;
    };
    Some(origin.warn("Secret", "data[tls.crt]", reason))
}
