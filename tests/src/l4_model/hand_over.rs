//! Section "Whose connection it is" of the rules. No socket of the model's host has any connection.

use xdp_ebpf::verdict::Verdict;

use super::parse::Parsed;
use super::{Action, Model, Outcome, Tuple, rewrite};

impl Model {
    /// What opens nothing and is not known here goes on to the node with which the VIP changes hands.
    pub(super) fn hand_over(&self, frame: &[u8], parsed: &Parsed, tuple: Tuple, opens: bool) -> Option<Outcome> {
        let other = self.maps.other?;
        if opens || !self.maps.vips.contains_key(&tuple.dst) || parsed.ttl <= 1 || frame[6..12] == other {
            return None;
        }
        let mut frame = [&other, &frame[..6], &frame[12..]].concat();
        if parsed.v4 {
            let at = parsed.ip + 8;
            rewrite::patch(&mut frame, at, &[parsed.ttl - 1, parsed.proto], &[parsed.ip + 10]);
        } else {
            frame[parsed.ip + 7] -= 1;
        }
        Some(Outcome { action: Action::Tx, verdict: Verdict::HandOver, frame })
    }
}
