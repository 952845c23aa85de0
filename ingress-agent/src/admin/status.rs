//! The status as one value: the server makes it from readings, the command line reads it back from JSON. Counters are
//! totals; rates are the difference of two.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::elections::ElectionsStatus;
use super::limit_drops::LimitDropStatus;
use super::query::{Readings, Room};
use super::sync_status::SyncStatus;
use crate::model::holding::HeldAddress;
use crate::model::rejection::{Rejection, Severity};
use crate::model::snapshot::{BackendState, Forwarding, Frontend, FrontendKind, Pool, PoolName};
use crate::model::traffic::{AttachMode, Counts, EndpointHealth};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub node: String,
    pub ready: bool,
    pub not_ready: Vec<String>,
    /// What to know although it is ready.
    #[serde(default)]
    pub notes: Vec<String>,
    #[serde(default)]
    pub source: SourceStatus,
    pub uptime_seconds: u64,
    pub planned_generation: u64,
    pub rooms: Vec<Room>,
    pub interfaces: Vec<InterfaceStatus>,
    pub vip_interface: String,
    pub vip_link: String,
    pub vips: Vec<VipStatus>,
    #[serde(default)]
    pub elections: ElectionsStatus,
    pub services: Vec<ServiceStatus>,
    pub flows: u64,
    pub flow_capacity: u64,
    /// `None`: flows are not shared with other edges.
    #[serde(default)]
    pub sync: Option<SyncStatus>,
    pub verdicts: Vec<VerdictStatus>,
    pub routes: Vec<RouteStatus>,
    /// `None`: nobody is dropped for exceeding limits.
    #[serde(default)]
    pub limit_drops: Option<LimitDropStatus>,
    /// Endpoints whose health is checked.
    #[serde(default)]
    pub health: Vec<HealthStatus>,
    pub certificates: Vec<CertificateStatus>,
    pub rejections: Vec<RejectionStatus>,
}

/// Where the facts come from, and how old they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    /// For how long changes may have been missed; `None`: it is followed.
    pub behind_seconds: Option<u64>,
    /// How long ago the facts in force were saved; `None`: they are the source's own.
    pub saved_seconds_ago: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    pub name: String,
    pub index: u32,
    /// `native` or `generic`.
    pub mode: String,
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipStatus {
    pub address: String,
    /// Whether this node should hold it: it may, and if there are elections, it has won.
    pub wanted: bool,
    /// Whether it does.
    pub held: bool,
    pub owners: Vec<String>,
    pub announcements: u64,
    pub fault: Option<String>,
    pub claimed_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `tcp 203.0.113.10:443`.
    pub frontend: String,
    pub owner: String,
    /// `l4`, `l7`, or `stream` for TCP that the proxy takes to one pool.
    pub kind: String,
    /// Name of the pool; none of `l7`, where routes choose.
    pub pool: Option<String>,
    pub traffic: Traffic,
    pub backends: Vec<BackendStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    pub address: String,
    /// `ready` or `draining`.
    pub state: String,
    pub weight: u32,
    /// `nat` or `local`; `proxy` for the backends of a stream.
    pub forwarding: String,
    pub node: Option<String>,
    pub traffic: Traffic,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub new_flows: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictStatus {
    pub verdict: String,
    pub meaning: String,
    pub packets: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub owner: String,
    pub rule: String,
    pub requests: u64,
    /// Answers of 500 and above.
    pub errors: u64,
    pub mean_milliseconds: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    pub endpoint: String,
    pub pool: String,
    pub check: String,
    pub well: bool,
    pub passed: u64,
    pub failed: u64,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub secret: String,
    pub names: Vec<String>,
    pub expires_in_seconds: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectionStatus {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub place: String,
    pub field: String,
    pub reason: String,
    /// `rejected` or `warning`.
    pub severity: String,
}

impl From<&Rejection> for RejectionStatus {
    fn from(r: &Rejection) -> Self {
        Self {
            kind: r.kind.clone(),
            namespace: r.name.namespace.clone(),
            name: r.name.name.clone(),
            place: r.place.clone(),
            field: r.field.clone(),
            reason: r.reason.clone(),
            severity: match r.severity {
                Severity::Rejected => "rejected".into(),
                Severity::Warning => "warning".into(),
            },
        }
    }
}

impl From<&Counts> for Traffic {
    fn from(c: &Counts) -> Self {
        Self {
            rx_packets: c.rx_packets,
            rx_bytes: c.rx_bytes,
            tx_packets: c.tx_packets,
            tx_bytes: c.tx_bytes,
            new_flows: c.new_flows,
        }
    }
}

impl Status {
    pub fn of(r: &Readings) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            node: r.node.clone(),
            ready: r.not_ready.is_empty(),
            not_ready: r.not_ready.clone(),
            notes: r.notes.iter().chain(&r.elections.notes).cloned().collect(),
            source: source(r),
            uptime_seconds: r.started.elapsed().as_secs(),
            planned_generation: r.snapshot.generation,
            rooms: r.rooms.clone(),
            interfaces: interfaces(r),
            vip_interface: r.holding.interface.clone(),
            vip_link: r.holding.link.describe().into(),
            vips: vips(r),
            elections: ElectionsStatus::of(&r.elections),
            services: services(r),
            flows: r.l4.flows,
            flow_capacity: r.l4.flow_capacity,
            sync: r.sync.as_ref().map(SyncStatus::of),
            verdicts: verdicts(r),
            routes: routes(r),
            limit_drops: r.limit_drops.as_ref().map(LimitDropStatus::of),
            health: health(r),
            certificates: certificates(r),
            rejections: r.snapshot.rejections.iter().map(RejectionStatus::from).collect(),
        }
    }
}

pub(super) fn source(r: &Readings) -> SourceStatus {
    let ago = |then: SystemTime| then.elapsed().unwrap_or_default().as_secs();
    SourceStatus {
        name: r.source.name.clone(),
        behind_seconds: r.source.behind_since.map(ago),
        saved_seconds_ago: r.source.saved_at.map(ago),
    }
}

fn interfaces(r: &Readings) -> Vec<InterfaceStatus> {
    let mode = |m| match m {
        AttachMode::Native => "native".to_owned(),
        AttachMode::Generic => "generic".to_owned(),
    };
    r.attachments
        .iter()
        .map(|a| InterfaceStatus {
            name: a.interface.clone(),
            index: a.index,
            mode: mode(a.mode),
            note: a.note.clone(),
        })
        .collect()
}

fn vips(r: &Readings) -> Vec<VipStatus> {
    let of = |address| r.holding.addresses.get(address);
    r.snapshot
        .vips
        .iter()
        .map(|(address, vip)| VipStatus {
            address: address.to_string(),
            wanted: if r.elections.routers.is_empty() { vip.held_here } else { of(address).is_some() },
            held: of(address).is_some_and(|a| a.present),
            owners: vip.owners.to_vec(),
            announcements: of(address).map_or(0, |a| a.announced),
            fault: of(address).and_then(|a| a.fault.clone()),
            claimed_by: of(address).and_then(HeldAddress::claimed_by),
        })
        .collect()
}

fn services(r: &Readings) -> Vec<ServiceStatus> {
    let frontends: BTreeMap<_, _> = r.l4.frontends.iter().map(|(k, c)| (*k, c)).collect();
    let backends: BTreeMap<(&PoolName, SocketAddr), &Counts> =
        r.l4.backends.iter().map(|(p, a, c)| ((p, *a), c)).collect();
    let streams: BTreeMap<(IpAddr, u16), &PoolName> =
        r.snapshot.streams.iter().map(|s| ((s.vip, s.port), &s.pool)).collect();
    r.snapshot
        .frontends
        .values()
        .map(|f| {
            let (kind, pool) = match &f.kind {
                FrontendKind::L4 { pool, .. } => ("l4", Some(pool)),
                FrontendKind::L7 => match streams.get(&(f.key.vip, f.key.port)) {
                    Some(pool) => ("stream", Some(*pool)),
                    None => ("l7", None),
                },
            };
            let found = pool.and_then(|name| r.snapshot.pools.get(name));
            ServiceStatus {
                frontend: f.key.to_string(),
                owner: f.owner.to_string(),
                kind: kind.into(),
                pool: pool.map(ToString::to_string),
                traffic: frontends.get(&f.key).map(|c| Traffic::from(*c)).unwrap_or_default(),
                backends: found.map(|p| pool_backends(p, f, &backends)).unwrap_or_default(),
            }
        })
        .collect()
}

/// In XDP those of the frontend's family, since the others are never chosen for it; the proxy does not mind.
fn pool_backends(
    pool: &Pool,
    frontend: &Frontend,
    counts: &BTreeMap<(&PoolName, SocketAddr), &Counts>,
) -> Vec<BackendStatus> {
    let (proxied, v4) = (frontend.kind == FrontendKind::L7, frontend.key.vip.is_ipv4());
    pool.backends
        .iter()
        .filter(|b| proxied || b.address.is_ipv4() == v4)
        .map(|b| BackendStatus {
            address: b.address.to_string(),
            state: match b.state {
                BackendState::Ready => "ready".into(),
                BackendState::Draining => "draining".into(),
            },
            weight: b.weight,
            forwarding: match b.forwarding {
                _ if proxied => "proxy".into(),
                Forwarding::Local => "local".into(),
                Forwarding::Nat => "nat".into(),
            },
            node: b.node.as_deref().map(str::to_owned),
            // What XDP counted for the same pool under another frontend is not this one's.
            traffic: counts
                .get(&(&pool.name, b.address))
                .filter(|_| !proxied)
                .map(|c| Traffic::from(*c))
                .unwrap_or_default(),
        })
        .collect()
}

fn verdicts(r: &Readings) -> Vec<VerdictStatus> {
    r.l4.verdicts
        .iter()
        .map(|(label, meaning, packets)| VerdictStatus {
            verdict: (*label).into(),
            meaning: meaning.trim().into(),
            packets: *packets,
        })
        .collect()
}

fn routes(r: &Readings) -> Vec<RouteStatus> {
    r.l7.routes
        .iter()
        .map(|t| {
            let requests: u64 = t.by_class.iter().sum();
            RouteStatus {
                owner: t.owner.to_string(),
                rule: t.rule.clone(),
                requests,
                errors: t.by_class[5],
                mean_milliseconds: if requests == 0 { 0.0 } else { t.latency_sum_seconds * 1e3 / requests as f64 },
            }
        })
        .collect()
}

fn health(r: &Readings) -> Vec<HealthStatus> {
    let of = |h: &EndpointHealth| HealthStatus {
        endpoint: h.endpoint.to_string(),
        pool: h.pool.to_string(),
        check: h.check.to_string(),
        well: h.well,
        passed: h.passed,
        failed: h.failed,
        reason: h.reason.clone(),
    };
    r.l7.health.iter().map(of).collect()
}

fn certificates(r: &Readings) -> Vec<CertificateStatus> {
    let now = SystemTime::now();
    let seconds = |at: SystemTime| match at.duration_since(now) {
        Ok(left) => left.as_secs() as i64,
        Err(past) => -(past.duration().as_secs() as i64),
    };
    r.snapshot
        .certificates
        .values()
        .map(|c| CertificateStatus {
            secret: c.name.to_string(),
            names: c.names.clone(),
            expires_in_seconds: seconds(c.not_after),
        })
        .collect()
}
