//! Whether traffic should be sent here, and what to know of the agent all the same: what `/readyz` says.

use std::time::{Instant, SystemTime};

use super::{Control, source};
use crate::model::holding::LinkState;
use crate::status::Status;

impl Control {
    /// Why traffic should not be sent here; empty if it should.
    pub(super) fn not_ready(&self) -> Vec<String> {
        if self.draining {
            return vec!["the agent is draining".into()];
        }
        let mut reasons = Vec::new();
        if !self.read {
            reasons.extend(source::not_read(&self.source.borrow()));
        }
        let now = Instant::now();
        if self.read {
            reasons.extend(self.l4.not_ready(now));
            reasons.extend(self.l7.not_ready(now));
        }
        for wanted in &self.config.dataplane.interfaces {
            if !self.dataplane.attachments().iter().any(|a| a.interface == *wanted) {
                reasons.push(format!("the program is not attached to {wanted}"));
            }
        }
        reasons.extend(self.addresses_not_ready());
        reasons
    }

    /// What to know all the same.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = if self.read { source::notes(&self.source.borrow(), SystemTime::now()) } else { Vec::new() };
        notes.extend(self.status.iter().flat_map(Status::troubles));
        let sync = self.dataplane.sync().unwrap_or_default();
        let silent = sync.peers.iter().filter(|peer| !peer.heard);
        notes.extend(silent.map(|peer| match peer.silent_for {
            Some(time) => format!("flow sync: {} is silent for {} s", peer.address, time.as_secs()),
            None => format!("flow sync: {} was never heard", peer.address),
        }));
        notes
    }

    fn addresses_not_ready(&self) -> Vec<String> {
        let Some(vips) = &self.vips else { return Vec::new() };
        if !vips.is_alive() {
            return vec!["the thread that holds the addresses has ended; restart the agent".into()];
        }
        let Some(wanted) = self.wanted().filter(|h| !h.is_empty()) else { return Vec::new() };
        let holding = vips.holding();
        if holding.link != LinkState::Up {
            return vec![format!(
                "interface {} {}; {} addresses wait for it",
                holding.interface,
                holding.link.describe(),
                wanted.len()
            )];
        }
        let missing = wanted.iter().filter(|a| !holding.addresses.get(a).is_some_and(|h| h.present)).count();
        if missing == 0 {
            return Vec::new();
        }
        let fault =
            holding.addresses.values().find_map(|a| a.fault.as_ref()).map_or_else(String::new, |f| format!(": {f}"));
        vec![format!("{missing} of {} addresses are not on interface {}{fault}", wanted.len(), holding.interface)]
    }
}
