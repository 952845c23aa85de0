//! The byte stream to a backend: TCP, or TLS over it. Connecting only; what is spoken is said elsewhere.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::policy::{Upstream, UpstreamTls};
use crate::model::snapshot::AppProtocol;
use crate::proxy::policy::signs_itself;
use crate::proxy::tls::{versions, with_suites};

pub(in crate::proxy) enum UpstreamIo {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(in crate::proxy) async fn tcp(address: SocketAddr) -> io::Result<UpstreamIo> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(UpstreamIo::Tcp(stream))
}

/// As nginx does by default: no SNI, no verification.
pub(in crate::proxy) async fn tls(address: SocketAddr, upstream: Option<&CompiledUpstream>) -> io::Result<UpstreamIo> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let (config, name) = match upstream {
        None => (CONFIG.get_or_init(|| Arc::new(unverified())), None),
        Some(upstream) => match &upstream.tls {
            Some(config) => (config, upstream.name.clone()),
            None => return Err(io::Error::other("TLS towards the backend cannot be set up as its annotations ask")),
        },
    };
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = name.unwrap_or(ServerName::IpAddress(address.ip().into()));
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    Ok(UpstreamIo::Tls(Box::new(stream)))
}

/// How the backends of one pool are spoken to, ready for use. A connection belongs to one such way and is never used for another, so that
/// what one Ingress has checked is not taken for what another one asked to check.
pub(in crate::proxy) struct CompiledUpstream {
    pub(in crate::proxy) source: Arc<Upstream>,
    /// `None`: it cannot be set up, and nothing is sent.
    tls: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl CompiledUpstream {
    pub(in crate::proxy) fn new(source: &Arc<Upstream>) -> Self {
        let wanted = source.tls.clone().unwrap_or_default();
        let tls = client_config(&wanted, source.protocol == AppProtocol::H2c);
        let tls = tls.map_err(|error| tracing::warn!("TLS towards backends: {error:#}")).ok().map(Arc::new);
        let name = wanted.name.and_then(|name| ServerName::try_from(name).ok());
        Self { source: Arc::clone(source), tls, name }
    }
}

fn client_config(wanted: &UpstreamTls, http2: bool) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &wanted.authorities {
        None => Arc::new(AcceptAny(Arc::clone(&provider))),
        Some(authorities) => {
            let mut roots = rustls::RootCertStore::empty();
            for authority in authorities {
                roots.add(CertificateDer::from(authority.clone()))?;
            }
            let builder =
                rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            Arc::new(Bounded { verifier: builder.build()?, depth: wanted.depth })
        }
    };
    let builder = ClientConfig::builder_with_provider(with_suites(provider, &wanted.profile));
    let builder = builder.with_protocol_versions(&versions(&wanted.profile))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &wanted.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = chain.iter().cloned().map(CertificateDer::from).collect();
            let key = PrivateKeyDer::try_from(key.clone()).map_err(|e| anyhow::anyhow!("the client's key: {e}"))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.enable_sni = wanted.send_name && wanted.name.is_some();
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(config)
}

fn unverified() -> ClientConfig {
    client_config(&UpstreamTls::default(), false).expect("the provider supports TLS 1.2 and 1.3")
}

/// `proxy-ssl-verify-depth`: no more than so many certificates between the backend's and an authority.
#[derive(Debug)]
struct Bounded {
    verifier: Arc<rustls::client::WebPkiServerVerifier>,
    depth: u32,
}

impl ServerCertVerifier for Bounded {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let between = intermediates.iter().filter(|c| !signs_itself(c)).count();
        if between > self.depth as usize {
            return Err(rustls::Error::General(format!("{between} certificates before an authority are too many")));
        }
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// `proxy-ssl-verify: off`: pods have certificates that nobody outside can check. Signatures are checked all the same.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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

impl UpstreamIo {
    /// Asks the kernel whether the peer has closed, without consuming anything. TLS answers for its TCP stream.
    pub(super) fn peer_closed(&self) -> bool {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // SockRef borrows the descriptor; MSG_PEEK leaves the data where it is.
        let socket = socket2::SockRef::from(stream);
        let mut byte = [std::mem::MaybeUninit::uninit(); 1];
        match socket.peek(&mut byte) {
            // A backend that speaks before it was asked is out of step as well; in TLS it may be a session ticket.
            Ok(0) => true,
            Ok(_) => matches!(self, Self::Tcp(_)),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority(name: &str, by: Option<&Issuer<'static, KeyPair>>) -> (Issuer<'static, KeyPair>, Vec<u8>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let made = match by {
            Some(by) => params.signed_by(&key, by),
            None => params.self_signed(&key),
        };
        let der = made.expect("a certificate").der().to_vec();
        (Issuer::new(params, key), der)
    }

    #[test]
    fn a_backends_chain_is_no_longer_than_it_may_be() {
        let (root, root_der) = authority("root", None);
        let (middle, middle_der) = authority("middle", Some(&root));
        let (low, low_der) = authority("low", Some(&middle));
        let of = |issuer: &Issuer<'static, KeyPair>| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec!["web.example".to_owned()]).expect("a name");
            params.signed_by(&key, issuer).expect("a certificate").der().clone()
        };
        let name = ServerName::try_from("web.example").expect("a name");
        let taken = |depth: u32, leaf: &CertificateDer<'_>, between: &[&Vec<u8>]| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from(root_der.clone())).expect("an authority");
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = Bounded { verifier: builder.build().expect("a verifier"), depth };
            let between: Vec<_> = between.iter().map(|der| CertificateDer::from((*der).clone())).collect();
            verifier.verify_server_cert(leaf, &between, &name, &[], UnixTime::now()).is_ok()
        };
        let (near, far) = (of(&middle), of(&low));
        assert!(taken(1, &near, &[&middle_der]) && !taken(0, &near, &[&middle_der]));
        assert!(taken(2, &far, &[&low_der, &middle_der]) && !taken(1, &far, &[&low_der, &middle_der]));
        assert!(taken(0, &of(&root), &[&root_der]), "the authority itself may come along");
        assert!(!taken(2, &far, &[&low_der]), "a chain with a hole is none");
    }
}
