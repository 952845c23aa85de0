//! What the plan decided: one immutable value from which each room derives all that it does.
//!
//! Parts are behind `Arc` and are shared with the previous snapshot where nothing changed, so a consumer finds what
//! to do by comparing pointers (`Arc::ptr_eq`). Nothing here says how: no map, socket or header.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::election::VipGroup;
use super::policy::Limits;
use super::pool_state::PoolState;
use super::rejection::Rejection;
use super::route::Listener;
use super::stream::Stream;

/// The whole of what this node has to be.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows by one with each published snapshot of this process, from 1. 0 is "none yet".
    pub generation: u64,
    /// Addresses that we answer for, sorted.
    pub vips: BTreeMap<IpAddr, Vip>,
    /// The same addresses as they stand for election, by VRID; empty where nothing is elected.
    pub groups: Arc<[VipGroup]>,
    /// What was given to each Service that we expose, and to each IngressClass that has addresses of its own: what their
    /// objects' status should say. A Service without an address is here as well.
    pub assigned: Arc<Assigned>,
    /// (vip, protocol, port) to what is done with it.
    pub frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    /// Pools by name. Every pool that a frontend or a route names is here.
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// L7 listeners, by address and port. Each has an L7 frontend as well.
    pub listeners: Vec<Arc<Listener>>,
    /// TCP through the proxy, by address and port. Each has an L7 frontend as well.
    pub streams: Vec<Arc<Stream>>,
    /// Limits of routes whose rates are those of all edges together, by owner.
    pub shared_limits: Arc<Vec<Arc<Limits>>>,
    /// Certificates that listeners may present, by the name of their Secret.
    pub certificates: BTreeMap<ObjectName, Arc<Certificate>>,
    /// What is to be said of objects in the cluster.
    pub served: Served,
    /// What was not taken, and why. Sorted, without repetition.
    pub rejections: Vec<Rejection>,
}

/// Which objects are served on which addresses, and what the addresses come from. Each list is sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Services of type `LoadBalancer` that have at least one port at an address.
    pub services: Arc<Vec<Arc<ServedObject>>>,
    /// Ingresses of our classes.
    pub ingresses: Arc<Vec<Arc<ServedObject>>>,
    /// Every VirtualIPPool, whether or not addresses are given from it. Sorted by name.
    pub pools: Arc<Vec<PoolState>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedObject {
    pub name: ObjectName,
    /// Sorted, without repetition, never empty.
    pub addresses: Arc<[IpAddr]>,
}

/// Who was given which addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    pub services: BTreeMap<ObjectName, Vec<IpAddr>>,
    pub classes: BTreeMap<ObjectName, Vec<IpAddr>>,
}

/// An address that we answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Whether this node may hold it: adds it to its interface and announces it, unless there are elections and it loses. Decided here;
    /// `vip` obeys.
    pub held_here: bool,
    /// Who asked for it (Services, Ingress classes), sorted, for people. Shared: a thousand Services may have one address.
    pub owners: Arc<[String]>,
}

/// Namespace and name of a Kubernetes object; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// L4 protocol of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    pub vip: IpAddr,
    pub protocol: Protocol,
    /// Never 0.
    pub port: u16,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, SocketAddr::new(self.vip, self.port))
    }
}

/// What is done with the packets of one (vip, protocol, port).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub key: FrontendKey,
    /// The Service (L4) or what the listener serves (L7), for people and metric labels.
    pub owner: ObjectName,
    pub kind: FrontendKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrontendKind {
    /// Forwarded by XDP to the named pool.
    L4 {
        pool: PoolName,
        /// `sessionAffinity: ClientIP`: a client keeps its endpoint for so many seconds after its last new flow.
        client_ip_affinity: Option<u32>,
        /// Source address towards `nat` backends: the VIP itself unless configured otherwise. Same family as the VIP.
        snat: IpAddr,
        /// Clients that may open flows, of the VIP's family, sorted; `None`: all. Empty: nobody.
        sources: Option<Vec<IpNet>>,
    },
    /// Passed up to the proxy, which has a listener or a stream for it.
    L7,
}

/// A Service port: the name of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolName {
    pub service: ObjectName,
    /// `spec.ports[].port` of the Service. Never 0.
    pub port: u16,
    pub protocol: Protocol,
    pub scope: PoolScope,
}

/// Which backends of a Service a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolScope {
    /// All of its endpoints.
    #[default]
    All,
    /// Only the endpoints on this node (`externalTrafficPolicy: Local`).
    Node,
    /// Those that EndpointSlices mean for this node's zone, where they say so of all (`--enable-topology-aware-routing`).
    Zone,
    /// One, the Service's cluster IP (ingress-nginx's `service-upstream`); whoever serves that chooses the endpoint.
    ClusterIp,
}

/// `namespace/service:port`, with `/udp` where it is not TCP, and `/local`, `/zone` or `/cluster-ip` where it is not all of the Service.
impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)?;
        if self.protocol == Protocol::Udp {
            f.write_str("/udp")?;
        }
        f.write_str(match self.scope {
            PoolScope::All => "",
            PoolScope::Node => "/local",
            PoolScope::Zone => "/zone",
            PoolScope::ClusterIp => "/cluster-ip",
        })
    }
}

/// The backends behind one Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: PoolName,
    /// Sorted by address, without repetition. May be empty. Both families: a frontend uses those of its own.
    pub backends: Vec<Backend>,
    /// Prime number of Maglev slots of one of `xdp_ebpf::maglev::SIZES`.
    pub table_size: u32,
    /// How HTTP is spoken to these backends (`appProtocol`); L4 does not care.
    pub app_protocol: AppProtocol,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its identity, together with the pool. The port is never 0.
    pub address: SocketAddr,
    /// 0 takes no new flow.
    pub weight: u32,
    pub state: BackendState,
    pub forwarding: Forwarding,
    /// `nodeName` of the endpoint, if any.
    pub node: Option<Arc<str>>,
}

impl Backend {
    /// Whether it gets new flows, connections and requests.
    pub fn takes_new(&self) -> bool {
        self.state == BackendState::Ready && self.weight > 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// Takes new flows.
    Ready,
    /// Not ready or terminating: no new flow, old ones go on.
    Draining,
}

/// How a packet gets to a backend and its reply back (design, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarding {
    /// On this node: DNAT, PASS to the kernel, the reply is rewritten at TC egress. The client's address is kept.
    Local,
    /// Anywhere else: DNAT and SNAT in XDP; replies come back here.
    Nat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppProtocol {
    #[default]
    Http1,
    /// `kubernetes.io/h2c`, or gRPC: HTTP/2 with prior knowledge.
    H2c,
    /// `https`: HTTP/1.1 in TLS, not verified unless told otherwise.
    Https,
}

/// A certificate with its private key, parsed and known to match.
pub struct Certificate {
    /// Its Secret.
    pub name: ObjectName,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// DER of the private key: PKCS #8, PKCS #1 or SEC1, as in the PEM label.
    pub key: PrivateKey,
    /// DNS names (with `*.`) that the leaf is valid for, lower case; the common name only where there is no SAN.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// SHA-256 of the leaf.
    pub fingerprint: [u8; 32],
}

#[derive(Clone, PartialEq, Eq)]
pub enum PrivateKey {
    Pkcs8(Vec<u8>),
    Pkcs1(Vec<u8>),
    Sec1(Vec<u8>),
}

/// Never prints the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("name", &self.name)
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
