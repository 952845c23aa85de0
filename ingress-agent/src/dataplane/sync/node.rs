//! The thread of the flow sync: takes what came, answers, tells what is new, and says how it goes. It decides nothing that the files
//! beside it can decide without a socket and a clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::{debug, info, warn};
use xdp_ebpf::flow_state;

use super::Shared;
use super::datagram::{self, Body, Draft, Entry, Fault, Kind, LARGEST};
use super::directory::Directory;
use super::ledger::{Ledger, Note};
use super::limits::{self, Limits};
use super::pace::Pace;
use super::peer::Peer;
use super::post::{self, Post};
use super::replay::Stale;
use super::table::{Glance, Refusal, Table, Upserted};
use super::ticks::Moment;
use super::walk::Walk;
use crate::dataplane::clock::Clock;
use crate::model::sync::{PeerReading, SyncReading};

/// Datagrams taken in one turn; then others get theirs.
const TURN: usize = 256;
/// A peer that has nothing to tell says that it is there.
const ALIVE: Duration = Duration::from_secs(1);
/// Longest sleep: how soon an end is noticed.
const NAP: Duration = Duration::from_millis(100);
/// The same complaint is not repeated for this long.
const COMPLAIN_AGAIN: Duration = Duration::from_mins(1);

pub(super) struct Node {
    pub table: Table,
    pub directory: Directory,
    pub clock: Clock,
    pub hz: u32,
    pub peers: Vec<Peer>,
    pub post: Post,
    pub news: Pace,
    pub answers: Pace,
    pub shared: Arc<Shared>,
    ledger: Ledger,
    walk: Walk,
    limits: Limits,
    draft: Draft,
    started: Option<Instant>,
    spoke: Option<Instant>,
    tokens: u64,
    counts: Counts,
    complained: BTreeMap<(Option<IpAddr>, &'static str), Instant>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Entries, once for each peer that they went to.
    sent: u64,
    taken: u64,
    kept: u64,
    deleted: u64,
    /// Datagrams and entries without effect.
    rejected: BTreeMap<&'static str, u64>,
}

/// Why a datagram had no effect, for metrics.
pub(super) const DATAGRAM_FAULTS: [&str; 7] =
    ["unknown_peer", "malformed", "version", "forged", "old_epoch", "replayed", "clock"];

impl Node {
    pub(super) fn new(
        table: Table,
        directory: Directory,
        (clock, hz): (Clock, u32),
        peers: Vec<Peer>,
        post: Post,
        rate: u32,
        shared: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        let places = table.buckets() * xdp_ebpf::WAYS;
        let labels = DATAGRAM_FAULTS.into_iter().chain(Refusal::ALL.map(Refusal::label)).chain([limits::UNKNOWN]);
        let counts = Counts { rejected: labels.map(|label| (label, 0)).collect(), ..Counts::default() };
        // News and answers to who asks for everything have half each, so that neither waits for the other.
        let half = rate.div_ceil(2);
        Self {
            tokens: post.epoch(),
            table,
            directory,
            clock,
            hz,
            peers,
            post,
            news: Pace::new(half, now),
            answers: Pace::new(half, now),
            shared,
            ledger: Ledger::new(places),
            walk: Walk::new(),
            limits: Limits::default(),
            draft: Draft::new(),
            started: None,
            spoke: None,
            counts,
            complained: BTreeMap::new(),
        }
    }

    /// Until the data plane is dropped.
    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if let Err(e) = self.turn(now) {
                self.complain(None, "clock_program", now, &format!("{e:#}"));
            }
            self.publish(Instant::now());
            self.post.wait(self.nap());
        }
    }

    fn turn(&mut self, now: Instant) -> Result<()> {
        self.tell_limits(now);
        let moment = Moment::new(self.clock.jiffies()?, self.hz);
        self.receive(now, &moment);
        // Before the first snapshot nothing that comes could be placed.
        if !self.directory.lock().is_ready() {
            return Ok(());
        }
        self.started.get_or_insert(now);
        self.ask(now);
        self.tell(now, &moment);
        self.answer(now, &moment);
        if self.spoke.is_none_or(|spoke| now.saturating_duration_since(spoke) >= ALIVE) {
            self.spoke = Some(now);
            let everybody = self.peers.iter().map(|peer| peer.to);
            self.post.send(&mut Draft::new(), Kind::Alive, 0, everybody);
        }
        Ok(())
    }

    /// How long there is nothing to do unless something comes.
    fn nap(&self) -> Duration {
        let now = Instant::now();
        let pass = self.walk.due().map_or(self.news.wait(), |due| due.saturating_duration_since(now));
        let answering = self.peers.iter().any(|peer| peer.answer.is_some());
        let nap = if answering { pass.min(self.answers.wait()) } else { pass };
        let nap = self.shared.limits.get().map_or(nap, |_| nap.min(self.limits.wait(now)));
        // A tenth of a burst at least, so that what is sent fills datagrams.
        nap.clamp(Duration::from_millis(2), NAP)
    }

    fn receive(&mut self, now: Instant, moment: &Moment) {
        let mut buffer = [0; LARGEST + 1];
        for _ in 0..TURN {
            let Some((from, bytes)) = self.post.receive(&mut buffer) else { return };
            let Some(peer) = self.peers.iter().position(|peer| peer.address == from) else {
                self.reject("unknown_peer");
                self.complain(None, "unknown_peer", now, &format!("a datagram from {from}, which is no --sync-peer"));
                continue;
            };
            let bytes = bytes.to_vec();
            if let Err(why) = self.take(peer, &bytes, now, moment) {
                self.reject(why);
                let skew = self.peers[peer].skew;
                let what = match why {
                    "forged" => "its datagrams do not prove the key; is --sync-key-file the same on every edge?".into(),
                    "version" => {
                        "it speaks another version of the flow sync; run the same sluicegate on every edge".into()
                    }
                    "clock" => format!(
                        "its clock and ours differ by {skew} ms, more than {}; let NTP set both",
                        super::replay::SKEW_MS
                    ),
                    why => format!("a datagram was rejected: {why}"),
                };
                self.complain(Some(from), why, now, &what);
            }
        }
    }

    fn take(&mut self, peer: usize, bytes: &[u8], now: Instant, moment: &Moment) -> Result<(), &'static str> {
        let (header, body) = datagram::open(bytes, &self.post.key).map_err(|fault| match fault {
            Fault::Malformed => "malformed",
            Fault::Version => "version",
            Fault::Forged => "forged",
        })?;
        let said = (header.epoch, header.sequence, header.time);
        self.peers[peer].accept(said, post::milliseconds(), now).map_err(|stale| match stale {
            Stale::Epoch => "old_epoch",
            Stale::Repeated => "replayed",
            Stale::Clock => "clock",
        })?;
        match (header.kind, body) {
            (Kind::Flows, Body::Flows(entries)) => {
                self.peers[peer].flows(header.token, now);
                let taken = self.apply(&entries, moment);
                self.peers[peer].taken += taken;
            }
            (Kind::End, Body::End(datagrams)) => {
                let before = self.peers[peer].complete;
                self.peers[peer].end(header.token, datagrams);
                if !before && self.peers[peer].complete {
                    info!(peer = %self.peers[peer].address, datagrams, "the peer has told all its flows");
                }
            }
            (Kind::Request, _) => self.peers[peer].asked(header.token),
            (Kind::Limits, Body::Limits(uses)) => {
                let unknown = self.limits.hear(self.shared.limits.get(), &uses);
                *self.counts.rejected.entry(limits::UNKNOWN).or_default() += unknown;
            }
            _ => {}
        }
        Ok(())
    }

    fn apply(&mut self, entries: &[Entry], moment: &Moment) -> u64 {
        let directory = self.directory.clone();
        let known = directory.lock();
        let mut taken = 0;
        for entry in entries {
            match entry {
                Entry::Upsert(key, facts) => {
                    let theirs = |place, seen| self.ledger.is_theirs(place, seen);
                    match self.table.upsert(&known, key, facts, moment, theirs) {
                        Upserted::Done(place, seen) => {
                            let note = if facts.state == flow_state::CLOSING { Note::Closing } else { Note::Theirs };
                            self.ledger.set(place, seen, note, None);
                            taken += 1;
                        }
                        Upserted::Kept => self.counts.kept += 1,
                        Upserted::Refused(why) => self.reject(why.label()),
                    }
                }
                Entry::Delete(key) => {
                    let found = self.table.find(&known, key);
                    // A flow that goes on here is nobody else's to end.
                    if let Some((place, seen)) = found.filter(|(place, seen)| self.ledger.is_theirs(*place, *seen))
                        && self.table.free(place, seen)
                    {
                        self.ledger.set(place, Glance { tag: 0, word: 0 }, Note::None, None);
                        self.counts.deleted += 1;
                    }
                }
            }
        }
        self.counts.taken += taken;
        taken
    }

    /// Asks peers that came (back) for all of their flows.
    fn ask(&mut self, now: Instant) {
        for peer in &mut self.peers {
            let tokens = &mut self.tokens;
            let new = || {
                *tokens += 1;
                *tokens
            };
            if let Some(token) = peer.request(now, new) {
                debug!(peer = %peer.address, token, "asked for all flows");
                self.post.send(&mut Draft::new(), Kind::Request, token, std::iter::once(peer.to));
            }
        }
    }

    /// Tells everybody what is new.
    fn tell(&mut self, now: Instant, moment: &Moment) {
        self.news.refill(now);
        let to: Vec<_> = self.peers.iter().map(|peer| peer.to).collect();
        let (draft, post, pace, sent) = (&mut self.draft, &mut self.post, &mut self.news, &mut self.counts.sent);
        let mut flush = |draft: &mut Draft, pace: &mut Pace| {
            let cost = usize::from(draft.entries()) * to.len();
            pace.spend(cost);
            *sent += cost as u64;
            post.send(draft, Kind::Flows, 0, to.iter().copied());
        };
        self.walk.go(&self.table, &mut self.ledger, now, moment, |entry| {
            if !pace.is_open() {
                return false;
            }
            if !draft.push(&entry) {
                flush(draft, pace);
                draft.push(&entry);
            }
            true
        });
        if !draft.is_empty() {
            flush(draft, pace);
            self.spoke = Some(now);
        }
    }

    /// No sign of life: a peer may be too old to understand it.
    fn tell_limits(&mut self, now: Instant) {
        let Some(ends) = self.shared.limits.get() else { return };
        let (peers, post) = (&self.peers, &mut self.post);
        self.limits.tell(ends, peers.len(), now, |draft| {
            post.send(draft, Kind::Limits, 0, peers.iter().map(|peer| peer.to));
        });
    }

    /// Goes on with what peers asked for.
    fn answer(&mut self, now: Instant, moment: &Moment) {
        self.answers.refill(now);
        for peer in &mut self.peers {
            let Some(answer) = &mut peer.answer else { continue };
            let (pace, post, sent, to) = (&mut self.answers, &mut self.post, &mut self.counts.sent, peer.to);
            let (draft, datagrams, token) = (&mut answer.draft, &mut answer.datagrams, answer.token);
            let mut flush = |draft: &mut Draft, pace: &mut Pace| {
                pace.spend(draft.entries().into());
                *sent += u64::from(draft.entries());
                *datagrams += 1;
                post.send(draft, Kind::Flows, token, std::iter::once(to));
            };
            let done = answer.rest.go(&self.table, &self.ledger, moment, |entry| {
                if !pace.is_open() {
                    return false;
                }
                if !draft.push(&entry) {
                    flush(draft, pace);
                    draft.push(&entry);
                }
                true
            });
            if !done {
                continue;
            }
            if !draft.is_empty() {
                flush(draft, pace);
            }
            let datagrams = answer.datagrams;
            self.post.send(&mut Draft::end(datagrams), Kind::End, token, std::iter::once(to));
            peer.answer = None;
        }
    }

    fn reject(&mut self, label: &'static str) {
        *self.counts.rejected.entry(label).or_default() += 1;
    }

    fn complain(&mut self, peer: Option<IpAddr>, why: &'static str, now: Instant, what: &str) {
        let last = self.complained.get(&(peer, why));
        if last.is_some_and(|last| now.saturating_duration_since(*last) < COMPLAIN_AGAIN) {
            return;
        }
        self.complained.insert((peer, why), now);
        let whom = peer.map(|peer| format!(" with {peer}")).unwrap_or_default();
        warn!("flow sync{whom}: {what}");
    }

    fn publish(&mut self, now: Instant) {
        let settled = self.started.is_some_and(|start| self.peers.iter().all(|peer| peer.is_settled(start, now)));
        // Once true it stays: whoever comes later is behind us.
        if settled && !self.shared.settled.swap(true, Ordering::AcqRel) {
            info!("the first flow sync is complete, or nobody answers");
        }
        let reading = SyncReading {
            peers: self.peers.iter().map(|peer| reading(peer, now)).collect(),
            settled: self.shared.settled.load(Ordering::Acquire),
            told: self.ledger.told() as u64,
            sent: self.counts.sent,
            taken: self.counts.taken,
            kept: self.counts.kept,
            deleted: self.counts.deleted,
            unsent: self.post.unsent,
            late: Duration::from_millis(self.walk.late),
            rejected: self.counts.rejected.iter().map(|(label, count)| (*label, *count)).collect(),
            limits_told: self.limits.told,
            limits_left_out: self.limits.left_out,
            limits_heard: self.limits.heard,
        };
        *self.shared.reading.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }
}

fn reading(peer: &Peer, now: Instant) -> PeerReading {
    PeerReading {
        address: peer.address,
        heard: peer.is_heard(now),
        silent_for: peer.silent_for(now),
        fetching: peer.is_asked(),
        complete: peer.complete,
        taken: peer.taken,
        skew_ms: peer.skew,
    }
}
