//! Who gets which address: Services of type LoadBalancer and IngressClasses, from the VirtualIPPools.
//!
//! Every node decides this alone and must find the same. So the order of rights is: what the operator wrote (options, the
//! annotation of an IngressClass); what a Service's status says that it has; IngressClasses that name a pool; addresses
//! that Services ask for; Services that take any. Within each, the older object comes first. The status comes early because
//! it is what makes an address outlive restarts, and clients know it: somebody's new wish never takes it away. While nobody
//! announces, the status is empty; then an annotation says what it was, with the right of any wish.
//!
//! Without a record a search begins at a place that the name's hash chooses, and not at the lowest free address: then a
//! new object moves an unrecorded one only where it hits the very address. That is all that keeps the addresses of an
//! IngressClass, which has no status, and of Services in manifests.
//!
//! As soon as there is any VirtualIPPool, an address outside of the pools, or of a pool that is not for the Service, is
//! refused (as MetalLB does): whoever may write a Service could otherwise take any address of the network. Without pools the
//! addresses that a Service names are served as they are: then nobody has said what there is to give.

mod held;

mod pools;

mod space;

mod external;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{PlanOptions, keep, vips};
use crate::model::addresses::AddressRange;
use crate::model::facts::{
    Exposure, Facts, Families, Family, IngressClassFacts, LoadBalancerFacts, Origin, PoolRef, ServiceFacts, VipFacts,
};
use crate::model::pool_state::PoolState;
use crate::model::rejection::Rejection;
use crate::model::snapshot::{Assigned, ObjectName};
use held::{Held, Share};
use pools::Pools;

#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Of every Service that we expose, with or without an address.
    pub(super) services: BTreeMap<ObjectName, Vec<VipFacts>>,
    /// Of the IngressClasses that name addresses or a pool. The others are served on `ingress`.
    pub(super) classes: BTreeMap<ObjectName, Vec<VipFacts>>,
    /// Addresses of the options, each with the option that it came by.
    pub(super) ingress: Vec<(IpAddr, &'static str)>,
    /// Addresses that this node does not hold. Sorted.
    elsewhere: Vec<AddressRange>,
    pub(super) rejections: Vec<Rejection>,
    pub(super) assigned: Arc<Assigned>,
    /// Sorted by name.
    pub(super) pools: Arc<Vec<PoolState>>,
}

impl Addresses {
    pub(super) fn may_hold(&self, address: IpAddr) -> bool {
        let after = self.elsewhere.partition_point(|range| range.first() <= address);
        !after.checked_sub(1).and_then(|i| self.elsewhere.get(i)).is_some_and(|range| range.contains(address))
    }

    pub(super) fn holds_as(&self, other: &Self) -> bool {
        self.elsewhere == other.elsewhere
    }

    pub(super) fn gives_services_as(&self, other: &Self) -> bool {
        self.services == other.services
    }

    pub(super) fn gives_ingress_as(&self, other: &Self) -> bool {
        self.classes == other.classes && self.ingress == other.ingress
    }
}

/// Neither endpoints nor Ingresses play a part here.
pub(super) fn same_input(a: &Facts, b: &Facts) -> bool {
    a.services.same(&b.services)
        && a.classes.same(&b.classes)
        && a.virtual_ip_pools.same(&b.virtual_ip_pools)
        && a.nodes.same(&b.nodes)
}

pub(super) fn plan(facts: &Facts, options: &PlanOptions, last: Option<&Addresses>) -> Addresses {
    let mut out = Addresses::default();
    let pools = Pools::new(facts, &mut out.rejections);
    out.elsewhere = pools.elsewhere(&facts.nodes, options, &mut out.rejections);
    let mut giving = Giving { pools, held: Held::default(), out };

    let mut classes: Vec<&IngressClassFacts> =
        facts.classes.iter().map(|c| &**c).filter(|c| options.classes.owns(c)).collect();
    classes.sort_by_key(|c| c.origin.seniority());
    let mut asks = asks(facts, options);

    giving.written(options, &classes);
    for ask in &mut asks {
        giving.keep(ask);
    }
    giving.ingress(options, &classes);
    for ask in &mut asks {
        giving.assigned(ask);
        giving.wanted(ask);
    }
    for ask in &mut asks {
        giving.any(ask);
    }
    for ask in asks {
        giving.out.services.insert(ask.service.origin.name.clone(), ask.given);
    }
    if options.external_ips {
        giving.external_ips(facts);
    }
    let states = giving.pools.states(giving.held.addresses());
    let Addresses { services, classes, .. } = &giving.out;
    let assigned = Assigned { services: plain(services), classes: plain(classes) };
    Addresses {
        assigned: keep(assigned, last.map(|l| &l.assigned)),
        pools: keep(states, last.map(|l| &l.pools)),
        ..giving.out
    }
}

fn plain(given: &BTreeMap<ObjectName, Vec<VipFacts>>) -> BTreeMap<ObjectName, Vec<IpAddr>> {
    given.iter().map(|(name, vips)| (name.clone(), vips.iter().map(|vip| vip.address).collect())).collect()
}

/// A Service, and what it has got so far.
struct Ask<'a> {
    service: &'a ServiceFacts,
    asks: &'a LoadBalancerFacts,
    share: Option<Share<'a>>,
    given: Vec<VipFacts>,
    /// Why it does not keep what its status says.
    lost: Vec<(&'a VipFacts, String)>,
}

/// Older Services first.
fn asks<'a>(facts: &'a Facts, options: &PlanOptions) -> Vec<Ask<'a>> {
    let ask = |service: &'a ServiceFacts| match &service.exposure {
        Exposure::LoadBalancer(asks) if options.watch_services_without_class || !asks.classless => {
            let share = Share::of(service, asks);
            Some(Ask { service, asks, share, given: Vec::new(), lost: Vec::new() })
        }
        _ => None,
    };
    let mut all: Vec<Ask<'a>> = facts.services.iter().filter_map(|s| ask(s)).collect();
    all.sort_by_key(|ask| ask.service.origin.seniority());
    all
}

impl Ask<'_> {
    /// Families of which it still wants an address; with [`Families::Either`], one of these.
    fn missing(&self) -> Vec<Family> {
        let has = |family: Family| self.given.iter().any(|vip| Family::of(vip.address) == family);
        let families: &[Family] = match self.asks.families {
            Families::Either if !self.given.is_empty() => &[],
            Families::Either | Families::Prefer | Families::Both => &Family::BOTH,
            Families::Only(Family::V4) => &[Family::V4],
            Families::Only(Family::V6) => &[Family::V6],
        };
        families.iter().copied().filter(|family| !has(*family)).collect()
    }

    fn origin(&self) -> &Origin {
        &self.service.origin
    }
}

struct Giving<'a> {
    pools: Pools<'a>,
    held: Held<'a>,
    out: Addresses,
}

impl<'a> Giving<'a> {
    /// Addresses that the options and IngressClasses name are the operator's word, in a pool or not.
    fn written(&mut self, options: &PlanOptions, classes: &[&IngressClassFacts]) {
        for vip in &options.ingress_vips {
            self.give_ingress(*vip, "--ingress-vip".to_owned());
            self.out.ingress.push((*vip, "--ingress-vip"));
        }
        for class in classes.iter().filter(|c| !c.vips.is_empty()) {
            for vip in &class.vips {
                self.give_ingress(vip.address, format!("IngressClass {}", class.origin.name));
            }
            // Which of them can be served at all, `http` says.
            self.out.classes.insert(class.origin.name.clone(), class.vips.clone());
        }
    }

    fn give_ingress(&mut self, address: IpAddr, owner: String) {
        self.held.ingress(address, owner);
        self.pools.take(address);
    }

    /// What its status says, where it still wants that and may have it.
    fn keep(&mut self, ask: &mut Ask<'a>) {
        if let Some(wanted) = &ask.asks.wanted {
            let kept = wanted.iter().filter(|vip| ask.asks.recorded.iter().any(|r| r.address == vip.address));
            for vip in kept {
                // What is refused here is refused again, and then said, when it is its turn to ask.
                let _ = self.give(ask, vip);
            }
            return;
        }
        for vip in &ask.asks.recorded {
            // Without pools the status is the operator's word as well, and he may name as many as he likes.
            if !self.pools.none() && !ask.missing().contains(&Family::of(vip.address)) {
                continue;
            }
            match self.give(ask, vip) {
                Ok(()) => {}
                Err(reason) if self.pools.none() => self.refused("Service", ask.origin(), vip, &reason),
                Err(reason) => ask.lost.push((vip, reason)),
            }
        }
    }

    /// IngressClasses that name a pool, and `--ingress-pool`: an address of each family that the pool has.
    fn ingress(&mut self, options: &PlanOptions, classes: &[&IngressClassFacts]) {
        const OPTION: &str = "--ingress-pool";
        if let Some(name) = &options.ingress_pool {
            match self.take_from(name, &ObjectName::new("", OPTION), OPTION) {
                Ok(given) => self.out.ingress.extend(given.into_iter().map(|address| (address, OPTION))),
                Err(reason) => self.out.rejections.push(super::http::option(OPTION).reject("Option", "", reason)),
            }
        }
        for class in classes.iter().filter(|c| c.vips.is_empty()) {
            let (origin, Some(PoolRef { name, field })) = (&class.origin, &class.pool) else { continue };
            let given = self.take_from(name, &origin.name, &format!("IngressClass {}", origin.name));
            let given = given.unwrap_or_else(|reason| {
                self.out.rejections.push(origin.reject("IngressClass", field.as_str(), reason));
                Vec::new()
            });
            let given = given.into_iter().map(|address| VipFacts { address, field: field.clone() });
            self.out.classes.insert(origin.name.clone(), given.collect());
        }
    }

    fn take_from(&mut self, pool: &ObjectName, name: &ObjectName, owner: &str) -> Result<Vec<IpAddr>, String> {
        let index = self.pools.named(pool)?;
        let mut given = Vec::new();
        for family in Family::BOTH.into_iter().filter(|family| self.pools.has(index, *family)).collect::<Vec<_>>() {
            let Some(address) = self.pools.free(index, family, hash(name, family)) else {
                return Err(format!(
                    "no {} address is left in {}",
                    family.name(),
                    self.pools.describe(&[index], family)
                ));
            };
            given.push(address);
        }
        for address in &given {
            self.give_ingress(*address, owner.to_owned());
        }
        Ok(given)
    }

    /// What it had when it was announced last. Weaker than the status, which whoever may write a Service may not write: with
    /// this annotation he could take an address from an IngressClass.
    fn assigned(&mut self, ask: &mut Ask<'a>) {
        if ask.asks.wanted.is_some() {
            return;
        }
        for vip in &ask.asks.assigned {
            let had = ask.given.iter().any(|given| given.address == vip.address);
            let lost = ask.lost.iter().any(|(lost, _)| lost.address == vip.address);
            let enough = !self.pools.none() && !ask.missing().contains(&Family::of(vip.address));
            if had || lost || enough {
                continue;
            }
            if let Err(reason) = self.give(ask, vip) {
                ask.lost.push((vip, reason));
            }
        }
    }

    /// The addresses that it names. Each stands for itself: one that it cannot have costs it no other.
    fn wanted(&mut self, ask: &mut Ask<'a>) {
        for vip in ask.asks.wanted.iter().flatten() {
            if ask.given.iter().any(|given| given.address == vip.address) {
                continue;
            }
            if let Err(reason) = self.give(ask, vip) {
                self.refused("Service", ask.origin(), vip, &reason);
            }
        }
    }

    fn refused(&mut self, kind: &str, origin: &Origin, vip: &VipFacts, reason: &str) {
        let reason = format!("{} cannot be served: {reason}", vip.address);
        self.out.rejections.push(origin.reject(kind, vip.field.as_str(), reason));
    }

    fn give(&mut self, ask: &mut Ask<'a>, vip: &VipFacts) -> Result<(), String> {
        let address = vip.address;
        if let Some(fault) = vips::fault(address) {
            return Err(format!("it {fault}"));
        }
        if !self.pools.none() {
            let refused = self.pools.refuse(address, ask.service, ask.asks.pool.as_ref());
            if let Some(reason) = refused.or_else(|| self.held.refuse(address, ask.service, ask.share)) {
                return Err(reason);
            }
            self.held.join(address, ask.service, ask.share);
            self.pools.take(address);
        }
        ask.given.push(vip.clone());
        Ok(())
    }

    /// Addresses for a Service that names none, as far as it still needs any.
    fn any(&mut self, ask: &mut Ask<'a>) {
        let missing = ask.missing();
        if ask.asks.wanted.is_some() || missing.is_empty() {
            return;
        }
        let field = ask.asks.pool.as_ref().map_or("spec", |pool| pool.field.as_str());
        if self.pools.none() && ask.asks.pool.is_none() {
            if ask.given.is_empty() {
                let reason = "has no address yet: a VirtualIPPool, `metadata.annotations[sluicegate.io/vips]` or \
                              `spec.loadBalancerIP` gives one";
                self.out.rejections.push(ask.origin().warn("Service", "spec", reason));
            }
            return;
        }
        let choices = match self.pools.choices(ask.service, ask.asks.pool.as_ref()) {
            Ok(choices) => choices,
            Err(reason) => {
                self.out.rejections.push(ask.origin().reject("Service", field, reason));
                return;
            }
        };
        let offers = self.offers(ask, &choices, &missing);
        let short: Vec<Family> =
            missing.iter().copied().filter(|family| !offers.iter().any(|a| Family::of(*a) == *family)).collect();
        let enough = match ask.asks.families {
            Families::Either | Families::Prefer => !offers.is_empty() || !ask.given.is_empty(),
            Families::Only(_) | Families::Both => short.is_empty(),
        };
        self.told_of_a_change(ask, if enough { &offers } else { &[] });
        if enough {
            for address in offers {
                self.held.join(address, ask.service, ask.share);
                self.pools.take(address);
                ask.given.push(VipFacts { address, field: field.to_owned() });
            }
            return;
        }
        let families: Vec<&str> = short.iter().map(|family| family.name()).collect();
        let (which, first) = (families.join(" and no "), short.first().copied().unwrap_or(Family::V4));
        let need = if ask.asks.families == Families::Both { " (RequireDualStack wants both families)" } else { "" };
        let reason = format!("no {which} address is left in {}{need}", self.pools.describe(&choices, first));
        self.out.rejections.push(ask.origin().reject("Service", field, reason));
    }

    /// One pool for all families where there is such a pool, since a pool says which nodes hold an address.
    fn offers(&mut self, ask: &Ask<'a>, choices: &[usize], missing: &[Family]) -> Vec<IpAddr> {
        let either = ask.asks.families == Families::Either;
        let mut best: BTreeMap<Family, IpAddr> = BTreeMap::new();
        for index in choices {
            let mut found = Vec::new();
            for family in missing {
                if let Some(address) = self.offer(ask, *index, *family) {
                    if either {
                        return vec![address];
                    }
                    found.push(address);
                    best.entry(*family).or_insert(address);
                }
            }
            if found.len() == missing.len() {
                return found;
            }
        }
        best.into_values().collect()
    }

    fn offer(&mut self, ask: &Ask<'a>, index: usize, family: Family) -> Option<IpAddr> {
        let fits = |address: &IpAddr| Family::of(*address) == family && self.pools.holds(index, *address);
        let shared = ask.share.and_then(|share| self.held.joinable(ask.service, share).find(fits));
        shared.or_else(|| self.pools.free(index, family, hash(&ask.origin().name, family)))
    }

    fn told_of_a_change(&mut self, ask: &Ask<'a>, offers: &[IpAddr]) {
        for (vip, reason) in &ask.lost {
            let instead = offers.iter().find(|a| a.is_ipv4() == vip.address.is_ipv4());
            let instead = instead.map_or(String::new(), |address| format!("; it is {address} now"));
            let reason = format!("{} is given up: {reason}{instead}", vip.address);
            self.out.rejections.push(ask.origin().warn("Service", vip.field.as_str(), reason));
        }
    }
}

/// FNV-1a, folded once more so that names that differ in their last letter are apart. Written down here because agents of
/// two versions must find the same; std's hash may change.
fn hash(name: &ObjectName, family: Family) -> u64 {
    let bytes = name.namespace.bytes().chain([b'/']).chain(name.name.bytes()).chain([family as u8]);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
}
