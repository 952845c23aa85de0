//! When to add, announce, re-add and remove which address: `(event, now) → actions`, without I/O, clock or chance of its
//! own. Who should hold an address is not decided here: the set comes in, today from the plan, later from an election.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::claims::Claims;
use super::frame::Mac;
use crate::model::holding::LinkState;

/// Times after taking an address at which it is announced: a lost first frame costs 50 ms, and switches that learn late
/// (spanning tree, a peer that still boots) are caught by the later ones. Then every [`REFRESH`], because a switch forgets
/// a silent port in 300 s while hosts keep their ARP entry for 1,200 s.
const WAVE: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// Varied by a tenth in both directions, so that many addresses (and nodes) don't speak at once.
const REFRESH: Duration = Duration::from_mins(1);
/// Announcements at once and per second for the whole interface.
const BURST: f64 = 64.0;
const PER_SECOND: f64 = 500.0;
/// Between two attempts to add an address that the kernel refused, or that somebody deletes again and again.
const ADD_AGAIN: Duration = Duration::from_secs(1);
/// RFC 5227 §2.4 (b): an address is defended at most once in this time.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer to a probe may take: an unsure address is added after that.
const PROBE_WAIT: Duration = Duration::from_millis(200);
/// Between two looks whether an address that somebody else uses has become free.
const PROBE_AGAIN: Duration = Duration::from_secs(2);
/// Under elections two may claim an address for a moment: the loser must not have the last word.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) enum Event {
    /// These addresses, and no others, are to be held; the unsure ones only if nobody on the link answers for them. Open ones are
    /// left as they are.
    Hold { held: BTreeSet<IpAddr>, unsure: BTreeSet<IpAddr>, open: BTreeSet<IpAddr> },
    /// Somebody may believe that he has these.
    Announce(BTreeSet<IpAddr>),
    /// The interface as it is now.
    Link(LinkState, Mac),
    /// Addresses on the interface: ours by their marker, and all others.
    Kernel { ours: BTreeSet<IpAddr>, others: BTreeSet<IpAddr> },
    /// The kernel took an address that it was asked to.
    Added(IpAddr),
    /// The kernel refused an address.
    AddFailed(IpAddr, String),
    /// Another machine says that the address is its own.
    Claim(IpAddr, Mac),
    /// The time that [`Schedule::next`] named has come.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask the LAN who has it. An answer keeps an unsure address away; of any other it is only told.
    Probe(IpAddr),
    Add(IpAddr),
    Remove(IpAddr),
    Announce(IpAddr),
    /// Tell the operator about another holder.
    Warn(IpAddr, Mac),
}

/// Everything known about the interface and its addresses.
#[derive(Debug)]
pub(super) struct Schedule {
    link: LinkState,
    mac: Mac,
    held: BTreeMap<IpAddr, Held>,
    /// Addresses with our marker that nobody asked for. Known since the last [`Event::Kernel`].
    ours: BTreeSet<IpAddr>,
    /// Neither added nor removed.
    open: BTreeSet<IpAddr>,
    /// Addresses move between machines, so a claim is no attack yet.
    elected: bool,
    /// Nothing is removed before the first [`Event::Hold`]: until then a killed agent's addresses wait for adoption.
    told: bool,
    tokens: f64,
    refilled: Instant,
    chance: u64,
}

#[derive(Debug)]
struct Held {
    present: bool,
    /// Not added before this time.
    add_at: Instant,
    /// Whether it is free was not known when it was taken.
    unsure: Option<Probed>,
    /// Next announcement, and which of the wave it is.
    announce_at: Instant,
    step: usize,
    defended: Option<Instant>,
    claims: Claims,
    fault: Option<String>,
}

/// How far the question who uses an address has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probed {
    /// Not asked, or the answer is old.
    No,
    /// Asked, and nobody has answered.
    Silence,
    /// Somebody did.
    Used,
}

impl Schedule {
    /// `chance` is any number; it only spreads the refreshes.
    pub(super) fn new(now: Instant, chance: u64) -> Self {
        Self {
            link: LinkState::Absent,
            mac: Mac::default(),
            held: BTreeMap::new(),
            ours: BTreeSet::new(),
            open: BTreeSet::new(),
            elected: false,
            told: false,
            tokens: BURST,
            refilled: now,
            chance: chance | 1,
        }
    }

    /// The same where elections decide who holds an address.
    pub(super) fn elected(self) -> Self {
        Self { elected: true, ..self }
    }

    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Hold { held, unsure, open } => {
                self.open = open;
                self.hold(&held, &unsure, now, &mut actions);
            }
            Event::Announce(addresses) => {
                for (_, held) in self.held.iter_mut().filter(|(a, h)| h.present && addresses.contains(a)) {
                    held.restart(now);
                }
            }
            Event::Link(link, mac) => self.link_is(link, mac, now),
            Event::Kernel { ours, others } => self.kernel_has(ours, &others, now),
            Event::Added(address) => {
                if let Some(held) = self.held.get_mut(&address) {
                    held.appeared(now);
                }
            }
            Event::AddFailed(address, why) => {
                if let Some(held) = self.held.get_mut(&address) {
                    held.fault = Some(why);
                    held.add_at = now + ADD_AGAIN;
                }
            }
            Event::Claim(address, by) => self.claimed(address, by, now, &mut actions),
            Event::Tick => {}
        }
        self.due(now, &mut actions);
        actions
    }

    /// When to call with [`Event::Tick`] at the latest.
    pub(super) fn next(&self) -> Option<Instant> {
        let adding = self
            .can_add()
            .then(|| self.held.values().filter(|h| self.waits_to_add(h)).map(|h| h.add_at).min())
            .flatten();
        let announcing = self
            .can_announce()
            .then(|| self.held.values().filter(|h| h.present).map(|h| h.announce_at).min())
            .flatten();
        // Without a token the earliest announcement waits for one.
        let token = self.refilled + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / PER_SECOND);
        let announcing = announcing.map(|at| at.max(token));
        let forgetting = self.held.values().filter_map(|h| h.claims.next()).min();
        adding.into_iter().chain(announcing).chain(forgetting).min()
    }

    pub(super) fn link(&self) -> LinkState {
        self.link
    }

    /// (address, present, fault, foreign claims) of all that should be held.
    pub(super) fn report(&self) -> impl Iterator<Item = (IpAddr, bool, Option<&String>, &Claims)> {
        self.held.iter().map(|(a, h)| (*a, h.present, h.fault.as_ref(), &h.claims))
    }

    fn hold(&mut self, set: &BTreeSet<IpAddr>, unsure: &BTreeSet<IpAddr>, now: Instant, actions: &mut Vec<Action>) {
        self.told = true;
        self.held.retain(|address, _| set.contains(address));
        for address in set {
            if self.held.contains_key(address) {
                continue;
            }
            let present = self.ours.contains(address);
            let mut held = Held::new(present, now);
            if !present && unsure.contains(address) {
                held.unsure = Some(Probed::No);
            } else if !present && self.can_announce() {
                actions.push(Action::Probe(*address));
            }
            self.held.insert(*address, held);
        }
        self.drop_unwanted(actions);
    }

    fn drop_unwanted(&mut self, actions: &mut Vec<Action>) {
        if !self.told || !self.can_add() {
            return;
        }
        let (held, open) = (&self.held, &self.open);
        self.ours.retain(|address| {
            let keep = held.contains_key(address) || open.contains(address);
            if !keep {
                actions.push(Action::Remove(*address));
            }
            keep
        });
    }

    fn link_is(&mut self, link: LinkState, mac: Mac, now: Instant) {
        let could = self.can_announce();
        let changed = self.mac != mac;
        self.link = link;
        self.mac = mac;
        if self.can_announce() && (!could || changed) {
            // Caches may have forgotten us, or the port moved: the whole wave again.
            for held in self.held.values_mut().filter(|h| h.present) {
                held.restart(now);
            }
        }
    }

    fn kernel_has(&mut self, ours: BTreeSet<IpAddr>, others: &BTreeSet<IpAddr>, now: Instant) {
        for (address, held) in &mut self.held {
            let present = ours.contains(address) || others.contains(address);
            match (held.present, present) {
                (false, true) => held.appeared(now),
                (true, false) => {
                    held.present = false;
                    held.fault = Some("somebody removed it from the interface".into());
                    // At once the first time; `due` sets the pause before the next attempt.
                    held.add_at = held.add_at.max(now);
                }
                _ => {}
            }
        }
        self.ours = ours;
    }

    fn claimed(&mut self, address: IpAddr, by: Mac, now: Instant, actions: &mut Vec<Action>) {
        let (mac, can_announce, elected) = (self.mac, self.can_announce(), self.elected);
        let Some(held) = self.held.get_mut(&address) else { return };
        if by == mac {
            return;
        }
        // In elections another may be about to take it over. Who has settled is told of by those who know the peers.
        if held.claims.heard(by, now) && !elected {
            actions.push(Action::Warn(address, by));
        }
        if !held.present && held.unsure.is_some() {
            held.unsure = Some(Probed::Used);
            held.fault = Some(format!("not added: {by} on this link uses it"));
            return;
        }
        // RFC 5227 §2.4 (b): one announcement, not again within the interval, so that two holders don't flood the LAN.
        if held.present && can_announce && held.defended.is_none_or(|at| now >= at + DEFEND_INTERVAL) {
            held.defended = Some(now);
            if elected {
                held.announce_at = held.announce_at.min(now + PATIENCE);
            } else {
                actions.push(Action::Announce(address));
            }
        }
    }

    /// What the clock asks for.
    fn due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.drop_unwanted(actions);
        self.held.values_mut().for_each(|h| h.claims.forget(now));
        if self.can_add() {
            for (address, held) in self.held.iter_mut().filter(|(_, h)| !h.present && h.add_at <= now) {
                // The question waits for a link that carries it.
                let (next, pause) = match held.unsure {
                    Some(_) if self.link != LinkState::Up => continue,
                    Some(Probed::No) => (Action::Probe(*address), PROBE_WAIT),
                    Some(Probed::Used) => {
                        held.unsure = Some(Probed::No);
                        held.add_at = now + PROBE_AGAIN;
                        continue;
                    }
                    Some(Probed::Silence) | None => (Action::Add(*address), ADD_AGAIN),
                };
                held.unsure = held.unsure.map(|_| Probed::Silence);
                held.add_at = now + pause;
                actions.push(next);
            }
        }
        if !self.can_announce() {
            return;
        }
        self.tokens =
            (self.tokens + now.saturating_duration_since(self.refilled).as_secs_f64() * PER_SECOND).min(BURST);
        self.refilled = self.refilled.max(now);
        let mut due: Vec<_> = self.held.iter_mut().filter(|(_, h)| h.present && h.announce_at <= now).collect();
        due.sort_by_key(|(_, h)| h.announce_at);
        for (address, held) in due {
            if self.tokens < 1.0 {
                return;
            }
            self.tokens -= 1.0;
            actions.push(Action::Announce(*address));
            held.step += 1;
            held.announce_at = match WAVE.get(held.step) {
                // Relative to the one before, so that a late step delays the rest instead of crowding it.
                Some(at) => now + at.saturating_sub(WAVE[held.step - 1]),
                None => now + jittered(&mut self.chance),
            };
        }
    }

    fn can_add(&self) -> bool {
        matches!(self.link, LinkState::Up | LinkState::NoCarrier)
    }

    fn waits_to_add(&self, held: &Held) -> bool {
        !held.present && (held.unsure.is_none() || self.link == LinkState::Up)
    }

    fn can_announce(&self) -> bool {
        self.link == LinkState::Up
    }
}

impl Held {
    fn new(present: bool, now: Instant) -> Self {
        Self {
            present,
            add_at: now,
            unsure: None,
            announce_at: now,
            step: 0,
            defended: None,
            claims: Claims::default(),
            fault: None,
        }
    }

    fn appeared(&mut self, now: Instant) {
        self.present = true;
        if self.unsure.take().is_some() {
            // Who had it did not answer any more.
            self.claims.clear();
        }
        self.fault = None;
        self.restart(now);
    }

    fn restart(&mut self, now: Instant) {
        self.step = 0;
        self.announce_at = now;
    }
}

/// [`REFRESH`] ± 10 %.
fn jittered(chance: &mut u64) -> Duration {
    // xorshift64 (Marsaglia 2003): spreading needs no better.
    *chance ^= *chance << 13;
    *chance ^= *chance >> 7;
    *chance ^= *chance << 17;
    REFRESH.mul_f64(0.9 + (*chance % 1_000) as f64 / 5_000.0)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
