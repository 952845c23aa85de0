//! TLS towards clients: the certificate by SNI from the snapshot, TLS 1.2 and 1.3, session tickets that every worker
//! accepts. Never logs a key; a certificate that rustls refuses leaves its names with the default one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName as DistinguishedNameDer, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion, version,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::model::policy::TlsProfile;
use crate::model::snapshot::{Certificate, PrivateKey};

/// What all listeners share for the life of the process.
pub(super) struct TlsBasis {
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
    default: Arc<CertifiedKey>,
}

/// Certificates of a listener by lower-case name; `*.suffix` for one label.
pub(super) struct Names {
    pub(super) by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
    pub(super) default: Arc<CertifiedKey>,
    /// Names that are not there get nothing.
    pub(super) strict: bool,
}

impl TlsBasis {
    pub(super) fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().context("make the key for TLS session tickets")?;
        let default = self_signed(&provider).context("make the default certificate")?;
        Ok(Self { provider, ticketer, default })
    }

    pub(super) fn default(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.default)
    }

    pub(super) fn certified(&self, certificate: &Certificate) -> anyhow::Result<Arc<CertifiedKey>> {
        let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = match &certificate.key {
            PrivateKey::Pkcs8(der) => PrivateKeyDer::Pkcs8(der.clone().into()),
            PrivateKey::Pkcs1(der) => PrivateKeyDer::Pkcs1(der.clone().into()),
            PrivateKey::Sec1(der) => PrivateKeyDer::Sec1(der.clone().into()),
        };
        let key = CertifiedKey::from_der(chain, key, &self.provider);
        Ok(Arc::new(key.with_context(|| format!("certificate {}", certificate.name))?))
    }

    /// `mutual`: clients are asked for certificates. Any is taken here; whether it is good is judged with the request.
    pub(super) fn config(
        &self,
        names: &Arc<Names>,
        mutual: bool,
        http2: bool,
        profile: &TlsProfile,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(with_suites(Arc::clone(&self.provider), profile));
        let builder = builder.with_protocol_versions(&versions(profile))?;
        let builder = if mutual {
            builder.with_client_cert_verifier(Arc::new(AnyClient(Arc::clone(&self.provider))))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::<Names>::clone(names));
        config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
        config.alpn_protocols.push(b"http/1.1".to_vec());
        // Tickets are stateless, so a session begun at one worker resumes at any.
        config.ticketer = Arc::clone(&self.ticketer);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

/// The provider with no other suites than those of the profile.
pub(super) fn with_suites(mut provider: Arc<CryptoProvider>, profile: &TlsProfile) -> Arc<CryptoProvider> {
    if !profile.suites.is_empty() {
        let wanted = |suite: &SupportedCipherSuite| {
            suite.tls13().is_some() || openssl_name(suite).is_some_and(|n| profile.suites.contains(&n.as_str()))
        };
        Arc::make_mut(&mut provider).cipher_suites.retain(wanted);
    }
    provider
}

pub(super) fn versions(profile: &TlsProfile) -> Vec<&'static SupportedProtocolVersion> {
    let versions = [(profile.v13, &version::TLS13), (profile.v12, &version::TLS12)];
    versions.into_iter().filter(|v| v.0).map(|v| v.1).collect()
}

/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is OpenSSL's `ECDHE-RSA-AES128-GCM-SHA256`.
fn openssl_name(suite: &SupportedCipherSuite) -> Option<String> {
    let name = format!("{:?}", suite.suite());
    let name = name.strip_prefix("TLS_")?.replace("_WITH_", "_").replace("AES_", "AES").replace('_', "-");
    // Of ChaCha20, OpenSSL does not name the hash.
    Some(name.strip_suffix("POLY1305-SHA256").map_or(name.clone(), |start| format!("{start}POLY1305")))
}

/// Takes any certificate of which the client has the key.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedNameDer] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Names {
    /// The exact name, then the wildcard one label up.
    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.by_name.get(name).or_else(|| {
            let (_, suffix) = name.split_once('.')?;
            self.by_name.get(format!("*.{suffix}").as_str())
        })
    }

    /// The same, then the default.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        name.and_then(|name| self.named(name)).or_else(|| (!self.strict).then_some(&self.default))
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case and has checked that it is a DNS name.
        self.find(hello.server_name()).cloned()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

fn self_signed(provider: &CryptoProvider) -> anyhow::Result<Arc<CertifiedKey>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["sluicegate.invalid".to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Sluicegate default certificate");
    params.distinguished_name.push(DnType::OrganizationName, "Sluicegate");
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::from_der(vec![certificate.der().clone()], der, provider)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_of_openssl() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let old = provider.cipher_suites.iter().filter(|s| s.tls13().is_none());
        let mut names: Vec<String> = old.filter_map(openssl_name).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-RSA-CHACHA20-POLY1305",
            ]
        );
    }
}
