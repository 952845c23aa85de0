//! Log lines of the VIP thread, written by another: standard error may be a pipe that nobody empties, and an advert must not wait
//! for it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tracing::{info, warn};

/// Lines that may wait. More than these are lost: the thread goes on.
const WAITING: usize = 4096;

enum Line {
    Say(String),
    Warn(String),
}

#[derive(Clone)]
pub(super) struct Voice(SyncSender<Line>);

impl Voice {
    /// The thread ends with the last voice.
    pub(super) fn start() -> Result<(Self, JoinHandle<()>)> {
        let (sender, lines) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("vip-log".into()).spawn(move || write(&lines));
        Ok((Self(sender), thread.context("start the thread that writes the VIP thread's log")?))
    }

    pub(super) fn say(&self, line: String) {
        let _ = self.0.try_send(Line::Say(line));
    }

    pub(super) fn warn(&self, line: String) {
        let _ = self.0.try_send(Line::Warn(line));
    }
}

fn write(lines: &Receiver<Line>) {
    while let Ok(line) = lines.recv() {
        match line {
            Line::Say(line) => info!(target: "ingress_agent::vip", "{line}"),
            Line::Warn(line) => warn!(target: "ingress_agent::vip", "{line}"),
        }
    }
}
