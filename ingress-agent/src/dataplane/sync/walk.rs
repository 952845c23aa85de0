//! Going through the flow table for news: which flows peers have to be told of, which are over, and which are told again in case a
//! datagram was lost. A pass stops where the rate is used up and goes on from there; nothing is queued.

use std::time::{Duration, Instant};

use xdp_ebpf::{WAYS, flow_state, meta, tag};

use super::datagram::Entry;
use super::ledger::{Ledger, Note};
use super::table::{Glance, Table};
use super::ticks::Moment;

/// Younger flows are not worth a datagram: most are over before it would arrive.
pub(super) const YOUNG_MS: u64 = 1000;
/// Passes begin this far apart at least.
pub(super) const PASS: Duration = Duration::from_millis(250);
/// Passes in which every flow is told again once: 20 s. Less than the 30 s after which an idle UDP flow is over.
const AGAIN: u32 = 80;

#[derive(Debug)]
pub(super) struct Walk {
    next: usize,
    /// Passes begun.
    number: u32,
    begun: Option<Instant>,
    /// Of this pass so far and of the last one: how late the latest flow was told, in milliseconds.
    late_now: u64,
    pub(super) late: u64,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { next: 0, number: 0, begun: None, late_now: 0, late: 0 }
    }

    /// When there is something to do next.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.next == 0 { self.begun.map(|begun| begun + PASS) } else { None }
    }

    /// Goes on until the pass ends or `tell` takes no more.
    pub(super) fn go(
        &mut self,
        table: &Table,
        ledger: &mut Ledger,
        now: Instant,
        moment: &Moment,
        mut tell: impl FnMut(Entry) -> bool,
    ) {
        if self.next == 0 {
            if self.begun.is_some_and(|begun| now < begun + PASS) {
                return;
            }
            self.begun = Some(now);
            self.number = self.number.wrapping_add(1);
        }
        while self.next < table.buckets() {
            if table.is_empty(self.next) && ledger.is_empty(self.next) {
                self.next += 1;
                continue;
            }
            for (way, seen) in table.glance(self.next).into_iter().enumerate() {
                let place = self.next * WAYS + way;
                // The writer will be done at the next pass.
                if seen.tag != tag::BUSY && !self.look(table, ledger, (place, seen), moment, &mut tell) {
                    // Not taken: this bucket again, then. What was taken of it is in the ledger.
                    return;
                }
            }
            self.next += 1;
        }
        self.next = 0;
        self.late = std::mem::take(&mut self.late_now);
    }

    /// False when `tell` took something no more.
    fn look(
        &mut self,
        table: &Table,
        ledger: &mut Ledger,
        (place, seen): (usize, Glance),
        moment: &Moment,
        tell: &mut impl FnMut(Entry) -> bool,
    ) -> bool {
        if let Some(key) = ledger.gone(place, seen) {
            // Lost if it is not taken: the peer's copy ends by its own age.
            let _ = tell(Entry::Delete(key));
        }
        if seen.tag < tag::FIRST {
            return true;
        }
        let state = meta::state(seen.word);
        let opening = matches!(state, flow_state::NEW | flow_state::REPLIED);
        let note = match ledger.note(place, seen) {
            Note::Theirs if !ledger.is_theirs(place, seen) => Note::None,
            Note::Closing if state != flow_state::CLOSING => Note::None,
            // Another connection of the same client port: all that was said is void.
            Note::Told | Note::Ours if opening => {
                if let Some(key) = ledger.forget(place) {
                    let _ = tell(Entry::Delete(key));
                }
                Note::None
            }
            note => note,
        };
        let due = match note {
            Note::Ours | Note::Theirs | Note::Closing => false,
            Note::None => state == flow_state::ESTABLISHED,
            Note::Told => state == flow_state::CLOSING || place as u32 % AGAIN == self.number % AGAIN,
        };
        if !due {
            return true;
        }
        let Some(flow) = table.record(place, seen) else { return true };
        // After a restart the ledger is empty, and the record knows.
        if note == Note::None && flow.synced != 0 && flow.synced == seen.word {
            ledger.set(place, seen, Note::Theirs, None);
            return true;
        }
        let Some((key, facts)) = table.facts(&flow, seen.word, moment) else {
            if let Some(key) = ledger.forget(place) {
                let _ = tell(Entry::Delete(key));
            }
            ledger.set(place, seen, Note::Ours, None);
            return true;
        };
        let age = moment.milliseconds_since(flow.opened);
        if note == Note::None && age < YOUNG_MS {
            return true;
        }
        let closing = state == flow_state::CLOSING;
        if !tell(Entry::Upsert(key, facts)) {
            return false;
        }
        if note == Note::None {
            self.late_now = self.late_now.max(age - YOUNG_MS);
        }
        ledger.set(place, seen, if closing { Note::Closing } else { Note::Told }, Some(key));
        true
    }
}

/// Everything that one peer has to be told, because it has just come.
#[derive(Debug)]
pub(super) struct Everything {
    next: usize,
}

impl Everything {
    pub(super) fn new() -> Self {
        Self { next: 0 }
    }

    /// Goes on until all is told (true) or `tell` takes no more. Flows that other peers told us are among it: they may be gone.
    pub(super) fn go(
        &mut self,
        table: &Table,
        ledger: &Ledger,
        moment: &Moment,
        mut tell: impl FnMut(Entry) -> bool,
    ) -> bool {
        for bucket in self.next / WAYS..table.buckets() {
            for (way, seen) in table.glance(bucket).into_iter().enumerate().skip(self.next % WAYS) {
                let place = bucket * WAYS + way;
                let known = matches!(ledger.note(place, seen), Note::Told | Note::Theirs);
                if known
                    && meta::state(seen.word) == flow_state::ESTABLISHED
                    && let Some(flow) = table.record(place, seen)
                    && let Some((key, facts)) = table.facts(&flow, seen.word, moment)
                    && !tell(Entry::Upsert(key, facts))
                {
                    self.next = place;
                    return false;
                }
            }
            self.next = (bucket + 1) * WAYS;
        }
        true
    }
}
