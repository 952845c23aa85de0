//! What the control thread has to do with elections: it says which addresses this node serves, how fit it is, and what an operator
//! ordered. Who wins, `vip` finds out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::warn;

use super::Control;
use crate::admin::query::Order;
use crate::dataplane::Dataplane;
use crate::model::election::{Fitness, Move, RouterKey, Standing, Standings, VipGroup};
use crate::vip::{Hooks, VrrpOptions};

/// So many times the interval of adverts the sign of life counts. Others take over three after the last advert, and the last sign may be
/// a whole one younger: with more than two, the first advert of whoever follows a killed agent would find it alive, and both would
/// answer for the address until the second.
const FRESH: f64 = 1.5;
const _: () = assert!(FRESH < 2.0);

/// Connections are sent on for so much longer than they may last on the other node: it began to count later, and closes what is
/// left then.
const OUTLASTS: Duration = Duration::from_secs(2);

/// What elections tell the data plane, and ask it. Called on their own thread.
pub(super) fn hooks(dataplane: &Dataplane, vrrp: &VrrpOptions) -> Result<Hooks> {
    let fence = Arc::new(Mutex::new((dataplane.fence()?, BTreeSet::new())));
    let (alive, hands_over) = (Arc::clone(&fence), Arc::clone(&fence));
    let fresh = vrrp.interval.mul_f64(FRESH);
    let drain = vrrp.drain;
    Ok(Hooks {
        standing: Box::new(move |standings: &Standings| {
            let (fence, here) = &mut *fence.lock().unwrap_or_else(PoisonError::into_inner);
            *here = standings.iter().filter(|(_, s)| **s == Standing::Here).map(|(key, _)| *key).collect();
            fence.set_standings(standings);
        }),
        hands_over: Box::new(move |key, mac| {
            if !drain.is_zero() {
                hands_over.lock().unwrap_or_else(PoisonError::into_inner).0.hand_over(key, mac, drain + OUTLASTS);
            }
        }),
        alive: Box::new(move || {
            // Nobody else locks it, so nobody waits.
            let (fence, here) = &mut *alive.lock().unwrap_or_else(PoisonError::into_inner);
            fence.beat(fresh);
            // A beat that came late, though not too late to stay: what was seen meanwhile is over.
            for key in here.iter().filter(|key| fence.is_fenced(**key)) {
                fence.set_standing(*key, Standing::Here);
            }
        }),
        may_preempt: dataplane.may_preempt(),
    })
}

impl Control {
    /// Stands for election for what the data plane and the proxy both have in force.
    pub(super) fn elect(&mut self, groups: Arc<[VipGroup]>) {
        let in_force = Arc::clone(&self.in_force);
        self.ends_here(&in_force);
        let same = self.elected.as_ref().is_some_and(|e| Arc::ptr_eq(e, &groups));
        if same {
            return;
        }
        self.fit();
        // Before the first word about them, so that the fence knows which addresses an advert is about.
        self.guard(&groups);
        if let Some(vips) = &self.vips {
            vips.elect(Arc::clone(&groups));
        }
        self.elected = Some(groups);
    }

    /// Tells the programs which virtual router an address is elected by, and where adverts for it come in.
    fn guard(&mut self, groups: &[VipGroup]) {
        let routers: BTreeMap<IpAddr, RouterKey> =
            groups.iter().flat_map(|g| g.addresses.iter().map(|a| (*a, g.key()))).collect();
        let peers = self.config.vips.vrrp.as_ref().is_some_and(|vrrp| !vrrp.peers.is_empty());
        let speaks = self.vips.as_ref().filter(|_| peers).map(|vips| vips.elections().speaks).unwrap_or_default();
        let wanted = (routers, speaks.into_iter().collect());
        if self.guarded.as_ref() == Some(&wanted) {
            return;
        }
        match self.dataplane.guard(&wanted.0, &wanted.1) {
            Ok(()) => self.guarded = Some(wanted),
            Err(e) => warn!("dataplane: the fence of virtual addresses: {e:#}; trying again"),
        }
    }

    /// What could not be told yet, and where adverts come in now.
    pub(super) fn guard_again(&mut self) {
        if let Some(groups) = self.elected.clone() {
            self.guard(&groups);
        }
    }

    /// Addresses that this node is to hold now; `None`: nobody knows yet.
    pub(super) fn wanted(&self) -> Option<BTreeSet<IpAddr>> {
        if self.config.vips.vrrp.is_none() {
            return self.held.clone();
        }
        self.elected.as_ref()?;
        self.vips.as_ref().map(|vips| vips.holding().addresses.keys().copied().collect())
    }

    /// Tells how fit this node is, from what is known here; the API server has no say in it.
    pub(super) fn fit(&self) {
        let Some(vips) = self.vips.as_ref().filter(|_| self.config.vips.vrrp.is_some()) else { return };
        let now = Instant::now();
        let mut fitness = Fitness::default();
        for wanted in &self.config.dataplane.interfaces {
            if !self.dataplane.attachments().iter().any(|a| a.interface == *wanted) {
                fitness.faults.push(format!("the program is not attached to {wanted}"));
            }
        }
        if self.read {
            fitness.faults.extend(self.l4.not_ready(now));
            fitness.faults.extend(self.l7.not_ready(now));
        }
        self.checks.judge(&mut fitness);
        vips.fit(fitness);
    }

    /// What an operator ordered, and in words what follows from it.
    pub(super) fn obey(&mut self, order: Order) -> Result<String, String> {
        let vips = self.vips.as_ref().filter(|_| self.config.vips.vrrp.is_some());
        let vips = vips.ok_or("this agent runs without elections (`--vip-mode static`)")?;
        match order {
            Order::Drain if self.draining => Err("the agent is ending, which drains it".into()),
            Order::Undrain if self.draining => Err("the agent is ending".into()),
            Order::Drain => {
                self.moved_away = true;
                vips.drain(true);
                Ok(format!("node {} gives its addresses away, and takes none until `undrain`", self.config.plan.node))
            }
            Order::Undrain => {
                self.moved_away = false;
                vips.drain(false);
                Ok(format!("node {} stands for election again", self.config.plan.node))
            }
            Order::Move { vip, node } => self.move_to(vip, &node),
        }
    }

    fn move_to(&self, vip: IpAddr, node: &str) -> Result<String, String> {
        let own = &self.config.plan.node;
        let groups = self.elected.as_ref().ok_or("nothing is served yet")?;
        let group = groups.iter().find(|g| g.addresses.contains(&vip));
        let group = group.ok_or_else(|| format!("{vip} is no address that is served here"))?;
        let vips = self.vips.as_ref().ok_or("the agent is ending")?;
        let elections = vips.elections();
        let router = elections.routers.iter().find(|r| r.addresses.contains(&vip));
        let has_it = router.is_some_and(|r| matches!(r.state, "active" | "leaving"));
        let to = if node == own {
            if has_it {
                return Ok(format!("{vip} is on {own} already"));
            }
            if group.priority == 0 || self.moved_away {
                return Err(format!("{own} may not hold {vip} now: see `sluicegate vip list`"));
            }
            if router.is_none_or(|r| r.state == "idle") {
                return Err(format!("{own} takes no part in elections now: see `sluicegate status`"));
            }
            Move::Here
        } else {
            if !has_it {
                return Err(format!("{vip} is not on {own}; run this on {node}, which then takes it"));
            }
            let next = group.order.iter().find(|n| *n != own);
            match next {
                Some(next) if next == node => Move::Away,
                Some(next) => {
                    return Err(format!("{next} comes next after {own}; run this on {node}, which then takes it"));
                }
                None => return Err(format!("nobody but {own} may hold {vip}; if {node} may, run this there")),
            }
        };
        vips.give(BTreeSet::from([vip]), to);
        Ok(format!("VRID {} moves from {} to {node}", group.vrid, if to == Move::Here { "where it is" } else { own }))
    }
}
