//! How Services want to be reached from outside, and what there is to give them: addresses, pools, nodes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Origin;
use crate::model::addresses::AddressRange;
use crate::model::selector::{LabelSelector, Labels};
use crate::model::snapshot::ObjectName;

/// How a Service wants to be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exposure {
    /// Only as a backend of routes.
    Internal,
    LoadBalancer(Box<LoadBalancerFacts>),
    /// By somebody else: the `loadBalancerClass` is not ours. Still a backend of routes.
    OtherLoadBalancer,
    /// A DNS name instead of endpoints. `None`: what it names was rejected.
    ExternalName(Option<Box<ExternalNameFacts>>),
}

/// What a Service of type `ExternalName` stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalNameFacts {
    /// A DNS name, absolute, lower case, without the final dot.
    pub host: String,
    /// TCP ports of the Service, each with the one that it means there. Any other port means itself.
    pub targets: Vec<(u16, u16)>,
}

impl ExternalNameFacts {
    /// The port to connect to.
    pub fn target(&self, port: u16) -> u16 {
        self.targets.iter().find(|(own, _)| *own == port).map_or(port, |(_, target)| *target)
    }
}

/// What a Service of type LoadBalancer asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerFacts {
    /// It names no `loadBalancerClass`: the plan's options know whether it is ours.
    pub classless: bool,
    /// These addresses, each with the field that it stands in, and no others. `Some` of nothing: what it named was rejected.
    pub wanted: Option<Vec<VipFacts>>,
    /// `status.loadBalancer.ingress`: what it was given before.
    pub recorded: Vec<VipFacts>,
    /// `sluicegate.io/assigned`: the same, when the status is empty because nobody announces.
    pub assigned: Vec<VipFacts>,
    pub families: Families,
    /// The pool that it asks for by name.
    pub pool: Option<PoolRef>,
    /// Services of one key may have one address.
    pub share_key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipFacts {
    pub address: IpAddr,
    pub field: String,
}

/// The name of a VirtualIPPool, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRef {
    pub name: ObjectName,
    pub field: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Of which families a Service wants addresses: `ipFamilies` and `ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// One, and it does not say which.
    #[default]
    Either,
    Only(Family),
    /// `PreferDualStack`: what can be had.
    Prefer,
    /// `RequireDualStack`: both or none.
    Both,
}

/// A VirtualIPPool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIpPoolFacts {
    pub origin: Origin,
    /// `metadata.generation`; 0 where there is none.
    #[serde(default)]
    pub generation: i64,
    /// Sorted and apart from each other. Never empty.
    pub ranges: Vec<AddressRange>,
    /// Services get an address without asking for this pool.
    pub auto_assign: bool,
    /// Never IPv4 addresses that end in .0 or .255.
    pub avoid_buggy: bool,
    /// Whose Services may have addresses. Empty: everybody's.
    pub namespaces: Vec<String>,
    pub services: LabelSelector,
    pub nodes: NodeSelector,
    /// What carries the addresses, where it is not what the node's options say.
    pub interface: Option<String>,
}

/// Which nodes may hold an address. Everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSelector {
    /// Empty: any.
    pub names: Vec<String>,
    pub labels: LabelSelector,
}

/// A Node. Its heartbeats change nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    pub origin: Origin,
    pub labels: Labels,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// It is to give up the virtual addresses that it holds: `sluicegate.io/drain`.
    #[serde(default)]
    pub draining: bool,
}
