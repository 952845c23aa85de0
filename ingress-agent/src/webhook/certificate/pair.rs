//! A serving certificate, its key and the authority that signed it. The authority's own key is forgotten at once: it signs one
//! certificate, and nobody can steal what is kept nowhere.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::parse_x509_certificate;

/// How long a certificate is good for.
pub(super) const LIFE: Duration = Duration::from_hours(90 * 24);
/// Clocks of the cluster's machines may be apart.
const SKEW: Duration = Duration::from_mins(5);

/// All of it PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Without the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Pair {
    pub(super) fn make(names: &[String], now: SystemTime, life: Duration) -> Result<Self> {
        let (not_before, not_after) = (now - SKEW, now + life);
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.distinguished_name = named("Sluicegate webhook authority");
        (authority.not_before, authority.not_after) = (not_before.into(), not_after.into());
        let authority_key = KeyPair::generate()?;
        let signed = authority.self_signed(&authority_key)?;

        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name = named("Sluicegate webhook");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        (leaf.not_before, leaf.not_after) = (not_before.into(), not_after.into());
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?;
        Self::read(&signed.pem(), &certificate.pem(), &key.serialize_pem())
    }

    pub(super) fn read(authority: &str, certificate: &str, key: &str) -> Result<Self> {
        let (not_before, not_after) = times(&chain(certificate)?)?;
        let pair = Self {
            authority: authority.to_owned(),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            not_before,
            not_after,
        };
        certified(certificate, key)?;
        Ok(pair)
    }

    /// Whether it is a certificate for all of these.
    pub(super) fn is_for(&self, names: &[String]) -> bool {
        let Ok(chain) = chain(&self.certificate) else { return false };
        let Some(Ok((_, leaf))) = chain.first().map(|leaf| parse_x509_certificate(leaf)) else { return false };
        let Ok(Some(there)) = leaf.subject_alternative_name() else { return false };
        let has = |name: &String| {
            let is = |n: &x509_parser::extensions::GeneralName<'_>| matches!(n, x509_parser::extensions::GeneralName::DNSName(n) if *n == name);
            there.value.general_names.iter().any(is)
        };
        names.iter().all(has)
    }

    /// The share of its life that is over at a time, from 0 to 1 and beyond.
    pub(super) fn spent(&self, now: SystemTime) -> f64 {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default().as_secs_f64();
        let age = now.duration_since(self.not_before).unwrap_or_default().as_secs_f64();
        if life > 0.0 { age / life } else { 1.0 }
    }

    pub(super) fn certified(&self) -> Result<Arc<CertifiedKey>> {
        certified(&self.certificate, &self.key)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.context("the certificate is not PEM")?;
    ensure!(!chain.is_empty(), "there is no PEM section `CERTIFICATE`");
    Ok(chain)
}

/// When the first certificate begins and ends to be good.
pub(super) fn times(chain: &[CertificateDer<'_>]) -> Result<(SystemTime, SystemTime)> {
    let Some(Ok((_, leaf))) = chain.first().map(|leaf| parse_x509_certificate(leaf)) else {
        bail!("the certificate is not X.509");
    };
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    Ok((at(leaf.validity().not_before.timestamp()), at(leaf.validity().not_after.timestamp())))
}

/// What rustls serves, the key proven to belong to the certificate.
pub(super) fn certified(certificate: &str, key: &str) -> Result<Arc<CertifiedKey>> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok().context("there is no private key in PEM")?;
    let certified = CertifiedKey::from_der(chain(certificate)?, key, &default_provider());
    Ok(Arc::new(certified.context("the key does not belong to the certificate, or rustls cannot use them")?))
}

/// As [`times`], of PEM.
pub(super) fn times_of(certificate: &str) -> Result<(SystemTime, SystemTime)> {
    times(&chain(certificate)?)
}
