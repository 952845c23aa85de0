//! Who has which address, and who may join.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use crate::model::facts::{LoadBalancerFacts, Origin, ServiceFacts};
use crate::model::selector::Labels;
use crate::model::snapshot::Protocol;

#[derive(Debug, Default)]
pub(super) struct Held<'a> {
    addresses: BTreeMap<IpAddr, Holder<'a>>,
    /// For Services that would rather join than get an address of their own.
    shared: BTreeMap<Share<'a>, Vec<IpAddr>>,
}

#[derive(Debug)]
enum Holder<'a> {
    /// Whose: `IngressClass nginx`.
    Ingress(String),
    Services {
        share: Option<Share<'a>>,
        first: &'a Origin,
        ports: BTreeMap<(Protocol, u16), &'a Origin>,
    },
}

/// What Services of one address must have in common, as in MetalLB: the key, and with `externalTrafficPolicy: Local` the
/// endpoints, since then the nodes that can serve them are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Share<'a> {
    key: &'a str,
    endpoints: Option<&'a Labels>,
}

impl<'a> Share<'a> {
    pub(super) fn of(service: &'a ServiceFacts, asks: &'a LoadBalancerFacts) -> Option<Self> {
        let endpoints = service.external_traffic_local.then_some(&service.selector);
        asks.share_key.as_deref().map(|key| Self { key, endpoints })
    }
}

impl<'a> Held<'a> {
    pub(super) fn ingress(&mut self, address: IpAddr, owner: String) {
        self.addresses.entry(address).or_insert(Holder::Ingress(owner));
    }

    pub(super) fn ingress_owner(&self, address: IpAddr) -> Option<&str> {
        match self.addresses.get(&address)? {
            Holder::Ingress(owner) => Some(owner),
            Holder::Services { .. } => None,
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }

    /// Why the Service cannot have it too.
    pub(super) fn refuse(&self, address: IpAddr, service: &ServiceFacts, share: Option<Share<'a>>) -> Option<String> {
        let (theirs, first, ports) = match self.addresses.get(&address)? {
            Holder::Ingress(owner) => {
                return Some(format!(
                    "Ingresses are served on it ({owner}); a tcp-services ConfigMap adds ports to it"
                ));
            }
            Holder::Services { share, first, ports } => (share, first, ports),
        };
        match (share, theirs) {
            (Some(ours), Some(theirs)) if ours == *theirs => {}
            (Some(ours), Some(theirs)) if ours.key == theirs.key => {
                return Some(format!(
                    "Service {} has it under the same key, and where `externalTrafficPolicy` is Local, policy and \
                     selector must be the same",
                    first.name
                ));
            }
            _ => {
                return Some(format!(
                    "Service {} has it, and only Services of one `sluicegate.io/allow-shared-ip` share an address",
                    first.name
                ));
            }
        }
        let clash = service.ports.iter().find_map(|p| Some((p, ports.get(&(p.protocol, p.port))?)));
        clash
            .map(|(port, other)| format!("its {} port {} is taken by Service {}", port.protocol, port.port, other.name))
    }

    /// To be asked for with [`Held::refuse`] before.
    pub(super) fn join(&mut self, address: IpAddr, service: &'a ServiceFacts, share: Option<Share<'a>>) {
        let origin = &service.origin;
        let holder = match self.addresses.entry(address) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(vacant) => {
                if let Some(share) = share {
                    self.shared.entry(share).or_default().push(address);
                }
                vacant.insert(Holder::Services { share, first: origin, ports: BTreeMap::new() })
            }
        };
        if let Holder::Services { ports, .. } = holder {
            ports.extend(service.ports.iter().map(|p| ((p.protocol, p.port), origin)));
        }
    }

    /// Addresses that the Service may join, in the order in which they were given.
    pub(super) fn joinable(&self, service: &'a ServiceFacts, share: Share<'a>) -> impl Iterator<Item = IpAddr> {
        let there = self.shared.get(&share).into_iter().flatten().copied();
        there.filter(move |address| self.refuse(*address, service, Some(share)).is_none())
    }
}
