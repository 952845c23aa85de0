//! What the endpoints of a route go through before they get their share: health checks, and a slow start. And how much may be tried again.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Of one Ingress. At least one part is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Care {
    pub health: Option<HealthCheck>,
    /// For so long an endpoint that is new, or back, has less than its share. Never zero.
    pub slow_start: Option<Duration>,
}

/// Endpoints are asked whether they are well; requests avoid those that are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HealthCheck {
    pub probe: Probe,
    /// Of the endpoint's address; `None`: the port that requests go to. Never 0.
    pub port: Option<u16>,
    /// From the beginning of one check to that of the next.
    pub interval: Duration,
    /// For connecting and the answer together.
    pub timeout: Duration,
    /// So many checks in a row bring an endpoint back, at least 1.
    pub healthy: u32,
    /// So many failures in a row take it out, at least 1.
    pub unhealthy: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Probe {
    /// It takes a connection.
    Tcp,
    /// It answers `GET path` with one of these statuses: ranges, both ends included.
    Http { path: String, host: Option<String>, statuses: Vec<(u16, u16)> },
    /// `grpc.health.v1.Health/Check` says SERVING; an empty name asks about the server as a whole.
    Grpc { service: String },
}

/// For people: `http /healthz on port 8081 every 5s`.
impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Probe::Tcp => f.write_str("tcp")?,
            Probe::Http { path, .. } => write!(f, "http {path}")?,
            Probe::Grpc { service } if service.is_empty() => f.write_str("grpc")?,
            Probe::Grpc { service } => write!(f, "grpc {service}")?,
        }
        if let Some(port) = self.port {
            write!(f, " on port {port}")?;
        }
        write!(f, " every {:?}", self.interval)
    }
}

/// How many requests may be sent a second time for a failure that a backend had a part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetryBudget {
    /// Of the requests to the pool, beside a few a second.
    Percent(u8),
    Unlimited,
}

/// As in Envoy's and Linkerd's examples: a fifth more load is borne, twice the load is not.
impl Default for RetryBudget {
    fn default() -> Self {
        Self::Percent(20)
    }
}
