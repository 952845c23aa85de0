//! What the data plane counted and how it is attached, as plain values: `dataplane` fills them, `admin` shows them.

use std::net::{IpAddr, SocketAddr};

use super::measure::Series;
use super::policy::HealthCheck;
use super::snapshot::{Forwarding, FrontendKey, ObjectName, PoolName};

/// A reading of all L4 counters. Totals since the maps were made (they outlive the agent).
#[derive(Clone, Debug, Default)]
pub struct L4Traffic {
    /// (label, meaning, packets) for every verdict, in the order of the ABI.
    pub verdicts: Vec<(&'static str, &'static str, u64)>,
    pub frontends: Vec<(FrontendKey, Counts)>,
    pub backends: Vec<(PoolName, SocketAddr, Counts)>,
    /// Maglev tables in force: pool, whether of its IPv6 endpoints, slots, and a digest of what it was filled from (seed, size,
    /// endpoints, weights). Nodes whose digests differ send the same client to different backends.
    pub tables: Vec<(PoolName, bool, u32, u64)>,
    /// Live flow records at the last sweep.
    pub flows: u64,
    pub flow_capacity: u64,
}

/// Packets and bytes (layer 3 upwards) from clients (`rx`) and back (`tx`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub new_flows: u64,
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// As it was named to the agent.
    pub interface: String,
    /// Of the device that has the program: the interface, or one below it (a VLAN's, a bond's).
    pub index: u32,
    pub mode: AttachMode,
    /// Why it is not native, where it is not.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// After the kernel has built an skb: most of the gain is lost, the behaviour is the same.
    Generic,
}

/// What happens to one L4 tuple, and why: each sentence is a step that the program takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Explanation {
    pub steps: Vec<String>,
    pub frontend: Option<FrontendKey>,
    pub backend: Option<(SocketAddr, Forwarding)>,
    /// Source that the backend sees.
    pub source: Option<(IpAddr, u16)>,
    /// Whether a flow record decided, rather than the table.
    pub from_flow: bool,
    /// The proxy would have it, but for what the client did before.
    pub dropped: bool,
}

/// A reading of what the proxy counted. Totals since the agent started; `proxy` fills it, `admin` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct L7Traffic {
    pub connections: u64,
    pub open_connections: u64,
    pub tls_handshakes: u64,
    pub tls_handshake_failures: u64,
    /// Connections whose TLS was not ended here.
    pub passed_through: u64,
    /// Connections to ports with the PROXY protocol that did not begin with its header.
    pub proxy_header_failures: u64,
    /// Bytes on the wire from and to clients.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Answers without a route (404, 400, …) by the first digit of the status; index 0 is unused.
    pub unrouted: [u64; 6],
    /// Failures towards backends by reason.
    pub upstream_errors: Vec<(&'static str, u64)>,
    /// Tries beyond the first.
    pub retries: u64,
    /// Backends left alone for a while after repeated failures.
    pub ejections: u64,
    /// Tries that there would have been, but for the budget.
    pub over_budget: u64,
    /// Lines that the access log's writer could not keep up with.
    pub log_lines_lost: u64,
    /// Where requests are measured (`--nginx-metrics`): those under way, and all that ended.
    pub metering: u64,
    pub metered: u64,
    /// Routes that have seen a request.
    pub routes: Vec<RouteTraffic>,
    /// Endpoints whose health is checked.
    pub health: Vec<EndpointHealth>,
}

/// Requests of one route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTraffic {
    /// [`Route::owner`](super::route::Route::owner) and [`Route::rule`](super::route::Route::rule).
    pub owner: ObjectName,
    pub rule: String,
    /// By the first digit of the status; index 0 counts requests that the client gave up before any answer.
    pub by_class: [u64; 6],
    /// (upper bound in seconds, observations in this bucket alone), ascending; the last bound is `f64::MAX`.
    pub latency: Vec<(f64, u64)>,
    pub latency_sum_seconds: f64,
    pub bytes_out: u64,
    /// Where requests are measured.
    pub series: Vec<Series>,
}

/// What health checks say of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// One of those whose endpoint it is.
    pub pool: PoolName,
    /// Where requests go; the check may ask another port.
    pub endpoint: SocketAddr,
    pub check: HealthCheck,
    pub well: bool,
    /// Checks since they began.
    pub passed: u64,
    pub failed: u64,
    /// What was wrong last, of one that is not well or whose last check failed.
    pub reason: Option<String>,
}
