//! Whether this replica should be asked, and what it counted.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::{error, info};

use super::certificate::Served;
use crate::model::source::SourceState;

/// Upper bounds in seconds.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];
/// Kinds that are asked about; anything else must not make a series of its own.
const KINDS: [&str; 5] = ["Ingress", "Service", "VirtualIPPool", "ConfigMap", "IngressClass"];

type Labels = [(&'static str, &'static str); 2];

pub(super) struct Health {
    source: watch::Receiver<SourceState>,
    /// What is wrong with the certificate; it begins without one.
    certificate: Mutex<Option<String>>,
    stopping: AtomicBool,
    registry: Registry,
    reviews: Family<Vec<(&'static str, &'static str)>, Counter>,
    malformed: Counter,
    seconds: Histogram,
    expiry: Gauge<i64, AtomicI64>,
    ingresses: Gauge<i64, AtomicI64>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("reasons", &self.reasons()).finish_non_exhaustive()
    }
}

impl Health {
    pub(super) fn new(source: watch::Receiver<SourceState>) -> Self {
        let mut registry = Registry::with_prefix("sluicegate_webhook");
        let (reviews, malformed, expiry, ingresses) =
            (Family::default(), Counter::default(), Gauge::default(), Gauge::default());
        let seconds = Histogram::new(BUCKETS);
        registry.register("reviews", "Requests by kind and verdict.", Family::clone(&reviews));
        registry.register("malformed", "Requests that were no AdmissionReview.", Counter::clone(&malformed));
        registry.register("review_seconds", "From the whole request to the answer.", Histogram::clone(&seconds));
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires; 0: none is.",
            Gauge::clone(&expiry),
        );
        registry.register("indexed_ingresses", "Ingresses that are compared with.", Gauge::clone(&ingresses));
        Self {
            source,
            certificate: Mutex::new(Some("there is no certificate yet".to_owned())),
            stopping: AtomicBool::new(false),
            registry,
            reviews,
            malformed,
            seconds,
            expiry,
            ingresses,
        }
    }

    /// What is wrong with the certificate now. Each trouble is logged once.
    pub(super) fn certificate(&self, trouble: Option<String>) {
        let mut known = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == trouble {
            return;
        }
        if let Some(text) = &trouble {
            error!("certificate: {text}");
        } else {
            info!("the certificate is in order");
        }
        *known = trouble;
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Why nobody should ask this replica. Empty: it is ready.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("it is stopping".to_owned());
        }
        let source = self.source.borrow();
        // Facts that are a little old are better than nobody's; a watch that fails is told, but not a reason.
        if !source.waits_for.is_empty() {
            reasons.push(format!("waits for {}", source.waits_for.join(", ")));
            reasons.extend(source.troubles.iter().cloned());
        } else if source.name.is_empty() {
            reasons.push("waits for the API server".to_owned());
            reasons.extend(source.troubles.iter().cloned());
        }
        let certificate = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.extend(certificate.iter().cloned());
        reasons
    }

    /// What is in the way without being a reason.
    pub(super) fn notes(&self) -> Vec<String> {
        self.source.borrow().troubles.clone()
    }

    pub(super) fn answered(&self, kind: &str, verdict: &'static str, took: Duration) {
        let kind = KINDS.iter().find(|known| **known == kind).copied().unwrap_or("other");
        let labels: Labels = [("kind", kind), ("verdict", verdict)];
        self.reviews.get_or_create(&labels.to_vec()).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn refused(&self) {
        self.malformed.inc();
    }

    pub(super) fn indexed(&self, ingresses: usize) {
        self.ingresses.set(i64::try_from(ingresses).unwrap_or(i64::MAX));
    }

    pub(super) fn metrics(&self, served: &Served) -> Result<String, fmt::Error> {
        let expiry = served.not_after().unwrap_or(UNIX_EPOCH);
        self.expiry.set(seconds(expiry));
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
