//! The certificate that the API server sees: one that we make and renew ourselves, or one that somebody else (cert-manager) puts
//! into a directory.

mod directory;
mod own;
mod pair;
mod ring;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::health::Health;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateOptions {
    Own(OwnOptions),
    /// `tls.crt` and `tls.key` in here. Who makes them also tells the API server whom to trust.
    Directory(PathBuf),
}

/// Names of what a certificate of our own touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnOptions {
    /// Our own.
    pub namespace: String,
    /// Where replicas find each other's certificate.
    pub secret: String,
    /// By which the API server calls.
    pub service: String,
    /// The `ValidatingWebhookConfiguration` that is told whom to trust.
    pub configuration: String,
}

/// What is served now. New connections see a new certificate; those that are there go on.
#[derive(Debug, Default)]
pub(super) struct Served(RwLock<Option<(Arc<CertifiedKey>, SystemTime)>>);

impl Served {
    fn set(&self, key: Arc<CertifiedKey>, not_after: SystemTime) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((key, not_after));
    }

    pub(super) fn not_after(&self) -> Option<SystemTime> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, at)| *at)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(key, _)| Arc::clone(key))
    }
}

/// Keeps `served` good. Returns never; what fails is told in `health` and tried again.
pub(super) async fn keep(
    options: CertificateOptions,
    kubeconfig: Option<PathBuf>,
    served: Arc<Served>,
    health: Arc<Health>,
) {
    match options {
        CertificateOptions::Own(options) => own::keep(&options, kubeconfig.as_deref(), &served, &health).await,
        CertificateOptions::Directory(directory) => directory::keep(&directory, &served, &health).await,
    }
}
