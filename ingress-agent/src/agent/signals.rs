//! Signals that the agent understands: stop (and finish what is under way), and open the access log again.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) enum Caught {
    Stop(&'static str),
    Hangup,
}

pub(super) struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn open() -> Result<Self> {
        let open = |kind| signal(kind).context("catch signals");
        Ok(Self {
            term: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.term.recv() => Caught::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Caught::Stop("SIGINT"),
            _ = self.hangup.recv() => Caught::Hangup,
        }
    }
}
