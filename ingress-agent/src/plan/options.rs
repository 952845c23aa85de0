//! What the operator decided beforehand.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::election::ElectionOptions;
use crate::model::class_rule::ClassRule;
use crate::model::snapshot::ObjectName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Name of this node, as in the endpoints' `nodeName`.
    pub node: String,
    /// Which Ingresses are ours.
    pub classes: ClassRule,
    /// Where Ingresses are served unless their class says otherwise.
    pub ingress_vips: Vec<IpAddr>,
    /// The VirtualIPPool that gives more such addresses.
    pub ingress_pool: Option<ObjectName>,
    /// Expose Services of type LoadBalancer that name no class, too.
    pub watch_services_without_class: bool,
    /// Answer for the `externalIPs` of Services. Whoever may write a Service may then take any address of the network
    /// (CVE-2020-8554), so this is for clusters where the two may do the same.
    pub external_ips: bool,
    /// Services of type `ExternalName` may be backends of Ingresses: somebody resolves them.
    pub external_names: bool,
    /// Ingresses of nothing but a default backend are served.
    pub catch_all: bool,
    /// Requests go to the endpoints of this node's zone, where EndpointSlices say which these are. Only the proxy's: where the XDP program sends a
    /// flow is the same on every node, so that its connections outlive a move of their address.
    pub by_zone: bool,
    /// Hosts whose Ingress says `ssl-passthrough` keep their TLS.
    pub ssl_passthrough: bool,
    /// Clients that go on exceeding the limits of an Ingress that says so are dropped, at all ports of the proxy.
    pub limit_drop: bool,
    /// There are no other edges that this one could share limits with.
    pub alone: bool,
    /// What carries addresses on this node.
    pub vip_interface: String,
    /// 0: no HTTP listener.
    pub http_port: u16,
    /// 0: no HTTPS listener.
    pub https_port: u16,
    /// Secret served to clients that name no host, or one without a certificate.
    pub default_certificate: Option<ObjectName>,
    /// Service that answers where no rule does.
    pub default_backend: Option<ObjectName>,
    /// ingress-nginx's settings (`--configmap`).
    pub config_map: Option<ObjectName>,
    /// Source addresses towards `nat` backends; the first of the VIP's family is used, and without one the VIP itself.
    pub snat: Vec<IpAddr>,
    pub hold: Hold,
    /// Which node holds what is found out by elections; `None`: every node holds all that it may.
    pub election: Option<ElectionOptions>,
}

/// Which of the addresses this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    All,
    None,
    Only(BTreeSet<IpAddr>),
}

impl Hold {
    pub fn holds(&self, vip: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(vips) => vips.contains(&vip),
        }
    }
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            node: String::new(),
            classes: ClassRule::default(),
            ingress_vips: Vec::new(),
            ingress_pool: None,
            watch_services_without_class: true,
            external_ips: false,
            external_names: true,
            catch_all: true,
            by_zone: false,
            ssl_passthrough: false,
            limit_drop: false,
            alone: false,
            vip_interface: String::new(),
            http_port: 80,
            https_port: 443,
            default_certificate: None,
            default_backend: None,
            config_map: None,
            snat: Vec::new(),
            hold: Hold::All,
            election: None,
        }
    }
}
