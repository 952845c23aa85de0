//! What is done to the owner, and how the pair is made whole again.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::node::Who;
use crate::pair::Pair;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
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
    /// Both start at once.
    Cold,
    /// The owner's cores are busy and its link is flooded, for five seconds: nothing should happen.
    Flood,
}

/// What one run showed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// Longest time without an answer, of IPv4 and of IPv6.
    pub(crate) gaps: [Duration; 2],
    /// Connections that did not go on.
    pub(crate) lost: usize,
    /// Requests for the address, asked by ARP after the takeover, that two nodes answered.
    pub(crate) answered_twice: usize,
}

impl Scenario {
    pub(crate) fn is_for(self, who: Who) -> bool {
        who == Who::Ours || self != Self::Drain
    }

    pub(crate) fn asks_twice(self) -> bool {
        matches!(self, Self::Kill | Self::Stop)
    }

    /// What the issue of failover asks for, where it does.
    pub(crate) fn bar(self, interval_ms: u32) -> Option<Duration> {
        let death = if interval_ms <= 10 { 45 } else { 4 * interval_ms };
        match self {
            Self::Death | Self::Kill | Self::Stop => Some(Duration::from_millis(u64::from(death))),
            Self::Move | Self::Drain => Some(Duration::from_millis(5)),
            Self::Partition => Some(Duration::from_secs(1)),
            Self::Flood => Some(Duration::from_millis(50)),
            Self::Cold => None,
        }
    }

    pub(crate) fn run(self, pair: &mut Pair) -> Result<Round> {
        let owner = pair.settle()?;
        pair.hold_connections()?;
        if self == Self::Cold {
            return pair.cold_start();
        }
        let mut round = Round::default();
        if self == Self::Partition {
            pair.part(true)?;
            pair.until_both_have()?;
        }
        let watches = pair.watch()?;
        match self {
            Self::Death => pair.cable(owner, false),
            Self::Kill => pair.kill(owner)?,
            Self::Stop => pair.signal(owner, libc::SIGSTOP)?,
            Self::Move => pair.move_away(owner)?,
            Self::Drain => pair.drain(owner, true)?,
            Self::Partition => pair.part(false)?,
            Self::Flood => pair.flood(owner, Duration::from_secs(5))?,
            Self::Cold => {}
        }
        match self {
            Self::Flood => {}
            Self::Partition => pair.until_one_has()?,
            _ => pair.until_has(1 - owner)?,
        }
        if self.asks_twice() {
            round.answered_twice = pair.asked_twice()?;
        }
        round.gaps = watches.map(|watch| watch.end().longest);
        round.lost = pair.lost();
        match self {
            Self::Death => pair.cable(owner, true),
            Self::Kill => pair.start(owner)?,
            Self::Stop => pair.signal(owner, libc::SIGCONT)?,
            Self::Move => pair.move_back(owner)?,
            Self::Drain => pair.drain(owner, false)?,
            Self::Partition | Self::Flood | Self::Cold => {}
        }
        Ok(round)
    }
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
            Self::Cold => "both start at once",
            Self::Flood => "flood and busy cores",
        })
    }
}
