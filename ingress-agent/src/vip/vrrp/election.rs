//! The virtual routers of this node: which there are, with which priority, what each packet means to them, and what they want
//! sent and held. `(event, now) → actions`, without I/O or clock.

mod event;

mod options;

mod packets;

mod peers;

mod report;

mod router;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::auth::Auth;
use super::machine::{self, Machine, Settings};
use super::packet::Reject;
pub(in crate::vip) use event::{Action, Event};
pub use options::VrrpOptions;
use peers::Peers;
use router::Router;

use crate::model::election::{Fitness, ForeignRouter, Move, Standing, Standings, VipGroup};

/// VRID, and whether the adverts go over IPv4: the two families have VRIDs of their own (RFC 9568 §1.2).
type Key = (u8, bool);

/// Adverts carry at most this many addresses: they must fit into a packet, and whoever gets one compares at least one.
const ADVERTISED: usize = 64;

#[derive(Debug)]
pub(in crate::vip) struct Election {
    options: VrrpOptions,
    /// Adverts are signed.
    auth: Option<Auth>,
    routers: BTreeMap<Key, Router>,
    sources: Option<Vec<IpAddr>>,
    /// Of these, what adverts come from: IPv4, IPv6. None of our VIPs, which others have, too.
    speaks: [Option<IpAddr>; 2],
    fitness: Fitness,
    draining: bool,
    may_preempt: bool,
    /// What was last said of addresses: held, and open. Nothing before the groups are known.
    said: Option<(BTreeSet<IpAddr>, BTreeSet<IpAddr>, Standings)>,
    grouped: bool,
    /// Something happened that may change who holds what.
    stirred: bool,
    rejected: [u64; Reject::ALL.len()],
    /// When the log was last told of each.
    complained: [Option<Instant>; Reject::ALL.len()],
    foreign: BTreeMap<(u8, IpAddr), ForeignRouter>,
    peers: Peers,
}

impl Election {
    pub(in crate::vip) fn new(options: VrrpOptions) -> Self {
        Self {
            options,
            auth: None,
            routers: BTreeMap::new(),
            sources: None,
            speaks: [None; 2],
            fitness: Fitness::default(),
            draining: false,
            may_preempt: true,
            said: None,
            grouped: false,
            stirred: false,
            rejected: [0; Reject::ALL.len()],
            complained: [None; Reject::ALL.len()],
            foreign: BTreeMap::new(),
            peers: Peers::default(),
        }
    }

    /// The same with adverts that are signed, both ways.
    pub(in crate::vip) fn signed(self, auth: Option<Auth>) -> Self {
        Self { auth, ..self }
    }

    pub(in crate::vip) fn on(&mut self, event: Event<'_>, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Groups(groups) => self.groups(&groups, now, &mut actions),
            Event::Link(sources) => {
                self.sources = sources;
                self.review(now, &mut actions);
            }
            Event::Fitness(fitness) => {
                if self.fitness != fitness {
                    self.fitness = fitness;
                    self.review(now, &mut actions);
                }
            }
            Event::Drain(draining) => {
                self.draining = draining;
                self.review(now, &mut actions);
            }
            Event::Move(addresses, to) => {
                let event = match to {
                    Move::Here => machine::Event::Take,
                    Move::Away => machine::Event::Leave { rejoin: true },
                };
                let keys: Vec<Key> = self
                    .routers
                    .iter()
                    .filter(|(_, r)| !r.group.addresses.is_disjoint(&addresses))
                    .map(|(key, _)| *key)
                    .collect();
                for key in keys {
                    self.feed(key, event, now, &mut actions);
                }
            }
            Event::Packet { packet, mac } => {
                let from = packet.as_ref().ok().map(|(envelope, _)| envelope.source);
                let heard =
                    packet.and_then(|(envelope, payload)| self.packet(&envelope, payload, mac, now, &mut actions));
                match heard {
                    Ok((key, event)) => self.feed(key, event, now, &mut actions),
                    Err(reject) => {
                        self.rejected[reject as usize] += 1;
                        self.complain(reject, from, mac, now, &mut actions);
                    }
                }
            }
            Event::Clock(since_1970) => {
                if let Some(auth) = &mut self.auth {
                    auth.clock_is(now, since_1970);
                }
            }
            Event::MayPreempt(may) => {
                if self.may_preempt != may {
                    self.may_preempt = may;
                    let preempt = self.options.preempt && may;
                    self.routers.values_mut().for_each(|r| r.machine.may_preempt(preempt));
                }
            }
            Event::Tick => {
                self.forget_foreign(now);
                let due = |r: &Router| r.machine.next().is_some_and(|at| at <= now);
                let keys: Vec<Key> = self.routers.iter().filter(|(_, r)| due(r)).map(|(key, _)| *key).collect();
                for key in keys {
                    self.feed(key, machine::Event::Tick, now, &mut actions);
                }
            }
        }
        if std::mem::take(&mut self.stirred) {
            self.hold(&mut actions);
        }
        actions
    }

    pub(in crate::vip) fn next(&self) -> Option<Instant> {
        self.routers.values().filter_map(|r| r.machine.next()).min()
    }

    /// Whether, after a [`Event::Drain`], something is not in other hands yet, or is still to be answered for a moment.
    pub(in crate::vip) fn is_handing_over(&self) -> bool {
        self.routers.values().any(|r| !r.machine.has_nobody_beside() && (r.machine.holds() || r.machine.lingers()))
    }

    /// How long [`Election::is_handing_over`] may be true where somebody is there to take over.
    pub(in crate::vip) fn patience(&self) -> Duration {
        machine::hand_over(self.options.interval)
    }

    fn groups(&mut self, groups: &[VipGroup], now: Instant, actions: &mut Vec<Action>) {
        self.grouped = true;
        let wanted: BTreeMap<Key, &VipGroup> = groups.iter().map(|g| ((g.vrid, g.is_v4()), g)).collect();
        let gone: Vec<Key> = self.routers.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        for key in gone {
            // The addresses are nobody's any more, and those that moved to another group are elected there.
            self.feed(key, machine::Event::Leave { rejoin: false }, now, actions);
            self.routers.remove(&key);
        }
        for (key, group) in wanted {
            let settings = Settings {
                interval: self.options.interval,
                preempt: self.options.preempt && self.may_preempt,
                preempt_delay: self.options.preempt_delay,
                alone: group.order.len() == 1 && group.priority > 0,
            };
            let router = self.routers.entry(key).or_insert_with(|| Router {
                group: group.clone(),
                advertised: Vec::new(),
                machine: Machine::new(settings, IpAddr::from([0, 0, 0, 0]), now),
                heard: false,
                from: [0; 6],
                settled: false,
            });
            router.group = group.clone();
            router.machine.is_alone(settings.alone);
            router.advertised = advertised(group);
        }
        self.review(now, actions);
    }

    /// Tells each router whether it takes part, and how strong it is.
    fn review(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.stirred = true;
        let is_vip = |address: &IpAddr| self.routers.values().any(|r| r.group.addresses.contains(address));
        let own = |v4: bool| self.sources.iter().flatten().find(|a| a.is_ipv4() == v4 && !is_vip(a)).copied();
        self.speaks = [own(true), own(false)];
        let keys: Vec<Key> = self.routers.keys().copied().collect();
        for key in keys {
            let priority = self.priority(key);
            let event = match (self.source(key.1), priority) {
                (None, _) => machine::Event::Fault,
                (Some(_), 0) => machine::Event::Leave { rejoin: false },
                (Some(source), priority) => machine::Event::Join { priority, source },
            };
            self.feed(key, event, now, actions);
        }
    }

    /// 0: takes no part.
    fn priority(&self, key: Key) -> u8 {
        let ranked = self.routers.get(&key).map_or(0, |r| r.group.priority);
        if ranked == 0 || self.draining || !self.fitness.bans.is_empty() {
            return 0;
        }
        if ranked == 255 {
            return 255;
        }
        let weighted = (i32::from(ranked) + self.fitness.weight).clamp(1, 254) as u8;
        // Where every node has a fault, the order among them stays, and somebody still serves.
        if self.fitness.faults.is_empty() { weighted } else { 1 + weighted / 8 }
    }

    fn source(&self, v4: bool) -> Option<IpAddr> {
        self.speaks[usize::from(!v4)]
    }

    fn feed(&mut self, key: Key, event: machine::Event, now: Instant, actions: &mut Vec<Action>) {
        let source = self.source(key.1);
        let Some(router) = self.routers.get_mut(&key) else { return };
        let before = router.machine.state();
        let (fenced, lingered) = (router.machine.counts.fenced, router.machine.lingers());
        let wanted = router.machine.on(event, now);
        let after = router.machine.state();
        self.stirred |= lingered != router.machine.lingers();
        if before != after {
            self.stirred = true;
            let late = if router.machine.counts.fenced > fenced { ", as this thread woke too late" } else { "" };
            let other = router.machine.other().filter(|_| after == "backup" || after == "idle");
            let to =
                other.map_or_else(String::new, |o| format!("; last heard: {} with priority {}", o.from, o.priority));
            actions.push(Action::Say(format!(
                "VRID {} ({}): {before} → {after}{late}{to}",
                key.0,
                report::list(&router.group.addresses)
            )));
        }
        let handed_over = !lingered && router.machine.lingers();
        if (after == "active" || handed_over)
            && let Some(mac) = router.counterpart(now)
        {
            actions.push(Action::HandOver(router.group.key(), mac));
        }
        let Some(source) = source else { return };
        for action in wanted {
            match action {
                machine::Action::Send { priority } => self.send(key, source, priority, now, actions),
                machine::Action::Announce => {
                    let addresses = self.routers.get(&key).map(|r| r.group.addresses.clone()).unwrap_or_default();
                    actions.push(Action::Announce(addresses));
                }
                // `hold` looks at all of them together.
                machine::Action::Hold | machine::Action::Release => {}
            }
        }
    }

    /// What all routers together hold, if that has changed.
    fn hold(&mut self, actions: &mut Vec<Action>) {
        if !self.grouped {
            return;
        }
        let out: Vec<Key> = self.routers.keys().filter(|key| self.priority(**key) == 0).copied().collect();
        let (mut held, mut unsure, mut open) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut standings = Standings::new();
        for (key, router) in &mut self.routers {
            let holds = router.machine.holds();
            router.settled |= holds || router.heard || out.contains(key);
            let of = &router.group.addresses;
            let standing = match (holds, router.settled) {
                (true, _) => Standing::Here,
                (false, false) => Standing::Open,
                (false, true) => Standing::Elsewhere,
            };
            match standing {
                Standing::Here => held.extend(of),
                Standing::Open => open.extend(of),
                // It is not announced or asked for here any more, but taken off the interface only when nothing comes for it.
                Standing::Elsewhere if router.machine.lingers() => open.extend(of),
                Standing::Elsewhere => {}
            }
            standings.insert(router.group.key(), standing);
            if holds && !router.heard {
                unsure.extend(of);
            }
        }
        let now = (held, open, standings);
        if self.said.as_ref() != Some(&now) {
            let (held, open, standings) = now.clone();
            self.said = Some(now);
            // Before what is sent: whoever hears that the addresses moved may let go of them at once. After whom they come from: the
            // first packet of a connection made elsewhere may come with the address.
            actions.push(Action::Hold { held, unsure, open, standings });
            actions.sort_by_key(|action| match action {
                Action::HandOver(..) => 0,
                Action::Hold { .. } => 1,
                _ => 2,
            });
        }
    }
}

/// Of the family of the adverts; in IPv6 a link-local one comes first (RFC 9568 §5.2.9).
fn advertised(group: &VipGroup) -> Vec<IpAddr> {
    let v4 = group.is_v4();
    let mut list: Vec<IpAddr> = group.addresses.iter().filter(|a| a.is_ipv4() == v4).copied().collect();
    list.sort_by_key(|a| !matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    list.truncate(ADVERTISED);
    list
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
