//! What is done to the owner, and how the pair is made whole again.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::node::Who;
use super::pair::{Pair, busy};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The cable of the owner is cut.
    Death,
    /// `kill -9`.
    Kill,
    /// SIGSTOP.
    Stop,
    /// `sluicegate vip move`; keepalived: SIGTERM.
    Move,
    /// `sluicegate vip drain`.
    Drain,
    /// The nodes do not hear each other, both hear the client; then the wire is whole again. The gap is that of the healing.
    Partition,
    /// The owner's cores are busy and its link is flooded, for two seconds: nothing should happen.
    Flood,
    /// Both start at once.
    Cold,
}

/// What one run showed.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Longest time without an answer, of each probe.
    pub gaps: Vec<Duration>,
    /// Longest time that a probe did not ask: gaps are not known better than this.
    pub paused: Duration,
    /// Questions of probes that were not answered.
    pub unanswered: usize,
    /// Connections that did not go on.
    pub lost: usize,
    /// The same of those that were opened just before.
    pub lost_young: usize,
    /// HTTP requests through the proxy that were answered, and those that failed.
    pub requests: (u64, usize),
    /// Of two `WebSockets` through the proxy.
    pub sockets_lost: usize,
    /// Requests for the addresses, asked by ARP and NDP after the takeover, that two nodes answered.
    pub answered_twice: usize,
    /// Changes of the owner that had no reason.
    pub false_takeovers: u64,
}

/// Connections that are opened just before something happens.
pub const YOUNG: usize = 20;
const FLOOD: Duration = Duration::from_secs(2);

impl Scenario {
    pub fn is_for(self, who: Who) -> bool {
        who == Who::Ours || self != Self::Drain
    }

    /// Told beforehand, so that nothing need be lost.
    pub fn is_planned(self) -> bool {
        matches!(self, Self::Move | Self::Drain)
    }

    /// A node that may still answer is left beside the new owner.
    pub fn asks_twice(self) -> bool {
        !matches!(self, Self::Death | Self::Flood | Self::Cold)
    }

    pub fn run(self, pair: &mut Pair) -> Result<Round> {
        let owner = pair.settle()?;
        if self == Self::Cold {
            return pair.cold_start();
        }
        pair.hold_connections()?;
        let mut round = Round::default();
        if self == Self::Partition {
            pair.part(true)?;
            pair.until_both_have()?;
        }
        let (before, requests) = (pair.takeovers()?, pair.ask_http()?);
        let watches = pair.watch()?;
        let mut young = pair.open(YOUNG)?;
        match self {
            Self::Death => pair.cable(owner, false),
            Self::Kill => pair.kill(owner)?,
            Self::Stop => pair.signal(owner, libc::SIGSTOP)?,
            Self::Move => pair.move_away(owner)?,
            Self::Drain => pair.drain(owner, true)?,
            Self::Partition => pair.part(false)?,
            Self::Flood => pair.flood(owner, FLOOD)?,
            Self::Cold => {}
        }
        match self {
            Self::Flood => round.false_takeovers = pair.takeovers()? - before,
            Self::Partition => pair.until_only_one_has()?,
            _ => pair.until_has(1 - owner)?,
        }
        if self.is_planned() {
            pair.until_only_one_has()?;
        }
        for watch in watches {
            let found = watch.end()?;
            round.gaps.push(found.longest);
            round.paused = round.paused.max(found.paused);
            round.unanswered += found.lost;
        }
        round.lost = pair.lost();
        round.lost_young = young.iter_mut().map(|held| usize::from(!held.works())).sum();
        if let Some(requests) = requests {
            let asked = requests.end()?;
            round.requests = (asked.answered, asked.failed);
            round.sockets_lost = asked.sockets_lost;
        }
        if self.asks_twice() {
            round.answered_twice = pair.answered_twice()?;
        }
        match self {
            Self::Death => pair.cable(owner, true),
            Self::Kill => pair.start(owner)?,
            Self::Stop => pair.signal(owner, libc::SIGCONT)?,
            Self::Move => pair.after_move(owner)?,
            Self::Drain => pair.drain(owner, false)?,
            Self::Partition | Self::Flood | Self::Cold => {}
        }
        Ok(round)
    }
}

/// Both cores are loaded for a time, and nothing else happens: how often the owner changed.
pub fn steady(pair: &mut Pair, time: Duration) -> Result<Round> {
    let owner = pair.settle()?;
    let before = pair.takeovers()?;
    let watches = pair.watch()?;
    busy(time)?;
    let mut round = Round { false_takeovers: pair.takeovers()? - before, ..Round::default() };
    for watch in watches {
        let found = watch.end()?;
        round.gaps.push(found.longest);
        round.unanswered += found.lost;
    }
    // A change there and back again has been counted; this is the rest.
    anyhow::ensure!(pair.settle()? == owner || round.false_takeovers > 0, "the owner changed, and nobody counted it");
    Ok(round)
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Death => "node dies (cable cut)",
            Self::Kill => "agent killed -9",
            Self::Stop => "agent stopped (SIGSTOP)",
            Self::Move => "planned move",
            Self::Drain => "node drained",
            Self::Partition => "partition heals",
            Self::Flood => "flood and busy cores",
            Self::Cold => "both start at once",
        })
    }
}
