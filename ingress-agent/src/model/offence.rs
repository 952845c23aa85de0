//! Clients that go on exceeding limits: `proxy` tells of them, `agent` decides, `dataplane` drops them, `admin` shows them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::snapshot::ObjectName;

/// A client has been refused so often that an Ingress wants it dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offence {
    /// Its own address: the other end of its connections, as the kernel has it, and nobody's word.
    pub client: IpAddr,
    /// The Ingress whose limits it exceeded.
    pub owner: Arc<ObjectName>,
    pub lasts: Duration,
}

/// A client that is dropped now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedClient {
    pub client: IpAddr,
    /// `None`: an agent before this one dropped it.
    pub owner: Option<Arc<ObjectName>>,
    pub left: Duration,
}

/// Who is dropped, and what became of offences since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitDropReading {
    /// By address.
    pub clients: Vec<DroppedClient>,
    pub dropped: u64,
    /// Of clients that are never dropped.
    pub spared: u64,
}
