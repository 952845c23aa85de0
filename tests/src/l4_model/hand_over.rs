//! Section "Whose connection it is" of the rules. No socket of the model's host has any connection.

use xdp_ebpf::IPPROTO_TCP;
use xdp_ebpf::verdict::Verdict;

use super::parse::Parsed;
use super::{Action, Model, Outcome, Tuple, rewrite};

impl Model {
    /// A packet for the proxy that goes on to the node that held the VIP before.
    pub(super) fn hand_over(&self, frame: &[u8], parsed: &Parsed, tuple: Tuple, flags: u8) -> Option<Outcome> {
        let previous = self.maps.previous?;
        let opens = tuple.proto != IPPROTO_TCP || flags & 2 != 0;
        if opens || !self.maps.vips.contains_key(&tuple.dst) || parsed.ttl <= 1 || frame[6..12] == previous {
            return None;
        }
        let mut frame = [&previous, &frame[..6], &frame[12..]].concat();
        if parsed.v4 {
            let at = parsed.ip + 8;
            rewrite::patch(&mut frame, at, &[parsed.ttl - 1, parsed.proto], &[parsed.ip + 10]);
        } else {
            frame[parsed.ip + 7] -= 1;
        }
        Some(Outcome { action: Action::Tx, verdict: Verdict::HandOver, frame })
    }
}
