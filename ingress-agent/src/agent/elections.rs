//! What the control thread has to do with elections: it says which addresses this node serves, how fit it is, and what an operator
//! ordered. Who wins, `vip` finds out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Control;
use crate::admin::query::Order;
use crate::model::election::{Fitness, Move, VipGroup};
use crate::vip::Ownership;

/// Called on the thread of elections with every address that is this node's, when that changes and before the kernel is told. Here the data
/// plane can learn for which addresses to answer.
pub(super) fn ownership() -> Ownership {
    Box::new(|held, open| tracing::trace!(held = held.len(), open = open.len(), "whose the addresses are"))
}

impl Control {
    /// Stands for election for what the data plane and the proxy both have in force.
    pub(super) fn elect(&mut self, groups: Arc<[VipGroup]>) {
        let same = self.elected.as_ref().is_some_and(|e| Arc::ptr_eq(e, &groups));
        if same {
            return;
        }
        self.fit();
        if let Some(vips) = &self.vips {
            vips.elect(Arc::clone(&groups));
        }
        self.elected = Some(groups);
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
