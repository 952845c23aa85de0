//! The loop of elections, on a thread of its own: packets, orders, the link and the clock go to [`Election`], and what it wants is
//! done. It decides nothing, and it waits for nobody: the holder may be busy with the kernel meanwhile.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{mpsc, oneshot, watch};

use super::holder::{Command, LinkFacts};
use super::voice::Voice;
use super::vrrp::election::{Action, Election, Event};
use super::vrrp::keys::since_1970;
use super::vrrp::socket::Sockets;
use crate::model::election::{ElectionReport, Fitness, Move, RouterKey, Standings, VipGroup};

pub(super) enum Order {
    Elect(Arc<[VipGroup]>),
    Fit(Fitness),
    Drain(bool),
    Move(BTreeSet<IpAddr>, Move),
    EndsHere(BTreeSet<IpAddr>),
    /// Give up, wait until another node has taken over, remove all and end.
    Release(oneshot::Sender<Result<()>>),
}

/// What elections tell others, and ask them, while they run. All of it is called on their thread and must not wait for anything.
pub struct Hooks {
    /// Whose the addresses of each router are, whenever that changes, before the kernel is told.
    pub standing: Box<dyn FnMut(&Standings) + Send>,
    /// The node at this link-layer address lives, and gives the router's addresses to this one or takes them. Said before `standing`,
    /// and again while both are heard.
    pub hands_over: Box<dyn FnMut(RouterKey, [u8; 6]) + Send>,
    /// The elections are alive: once a turn, and so at least once between two adverts of a router that is Active here.
    pub alive: Box<dyn FnMut() + Send>,
    /// Whether this node may take addresses from one that has them.
    pub may_preempt: Box<dyn FnMut() -> bool + Send>,
}

impl Default for Hooks {
    /// Nobody listens, and nothing speaks against preemption.
    fn default() -> Self {
        Self {
            standing: Box::new(|_| ()),
            hands_over: Box::new(|_, _| ()),
            alive: Box::new(|| ()),
            may_preempt: Box::new(|| true),
        }
    }
}

/// Between two reports that nothing but counters asks for.
const REPORT_APART: Duration = Duration::from_millis(250);
/// Longest wait for another node when this one ends. Whoever waits for the end has a limit, too.
const HAND_OVER: Duration = Duration::from_secs(3);
/// Between two attempts to open sockets.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Elector {
    pub(super) interface: String,
    pub(super) election: Election,
    pub(super) holder: mpsc::UnboundedSender<Command>,
    pub(super) link: watch::Receiver<LinkFacts>,
    pub(super) report: Arc<Mutex<ElectionReport>>,
    pub(super) voice: Voice,
    pub(super) hooks: Hooks,
    /// What real time lacks.
    pub(super) notes: Vec<String>,
    pub(super) sockets: Option<Sockets>,
    pub(super) unsent: u64,
    pub(super) reported: Instant,
}

impl Elector {
    /// Runs until released, or until the other side is gone (then the addresses stay, and nobody defends them).
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut open_at: Option<Instant> = None;
        let mut ending: Option<(oneshot::Sender<Result<()>>, Instant)> = None;
        self.relink(&mut open_at);
        loop {
            self.feed(Event::Clock(since_1970()));
            // What was received is older than what the clock says now.
            self.receive();
            let may_preempt = (self.hooks.may_preempt)();
            self.feed(Event::MayPreempt(may_preempt));
            self.feed(Event::Tick);
            // Behind the tick: a thread that woke too late has given up what it held by now.
            (self.hooks.alive)();
            if let Some((done, until)) = ending.take() {
                if !self.election.is_handing_over() || until <= Instant::now() {
                    // The holder answers; if it is gone, the asker notices.
                    let _ = self.holder.send(Command::Release(done));
                    return;
                }
                ending = Some((done, until));
            }
            let report_at = self.reported + REPORT_APART;
            if Instant::now() >= report_at {
                self.publish();
            }
            let others = open_at.into_iter().chain(ending.as_ref().map(|(_, until)| *until));
            let wake = self.election.next().into_iter().chain(others).fold(report_at.max(Instant::now()), Instant::min);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Elect(groups)) => self.feed(Event::Groups(groups)),
                    Some(Order::Fit(fitness)) => self.feed(Event::Fitness(fitness)),
                    Some(Order::Drain(draining)) => self.feed(Event::Drain(draining)),
                    Some(Order::Move(addresses, to)) => self.feed(Event::Move(addresses, to)),
                    Some(Order::EndsHere(addresses)) => drop(self.holder.send(Command::EndsHere(addresses))),
                    Some(Order::Release(done)) => {
                        self.feed(Event::Drain(true));
                        ending = Some((done, Instant::now() + self.election.patience().min(HAND_OVER)));
                    }
                    None => return,
                },
                Ok(()) = self.link.changed() => self.relink(&mut open_at),
                () = readable(self.sockets.as_ref()) => {}
                () = tokio::time::sleep_until(wake.into()) => {
                    if open_at.is_some_and(|at| at <= Instant::now()) {
                        self.relink(&mut open_at);
                    }
                }
            }
        }
    }

    /// Opens sockets on the interface that is there now, and tells the election whether it can speak.
    fn relink(&mut self, open_at: &mut Option<Instant>) {
        *open_at = None;
        let facts = self.link.borrow_and_update().clone();
        let Some(index) = facts.index else {
            self.sockets = None;
            return self.feed(Event::Link(None));
        };
        if self.sockets.as_ref().is_none_or(|s| !s.fits(index)) {
            self.sockets = match Sockets::open(&self.interface, index) {
                Ok(sockets) => Some(sockets),
                Err(e) => {
                    self.voice.warn(format!("cannot take part in elections: {e:#}; trying again"));
                    *open_at = Some(Instant::now() + OPEN_AGAIN);
                    None
                }
            };
        }
        let sources = self.sockets.is_some().then_some(facts.sources);
        self.feed(Event::Link(sources));
    }

    fn receive(&mut self) {
        let Some(sockets) = self.sockets.take() else { return };
        let now = Instant::now();
        let mut actions = Vec::new();
        sockets.receive(|packet, mac| actions.extend(self.election.on(Event::Packet { packet, mac }, now)));
        self.sockets = Some(sockets);
        self.act(actions);
    }

    fn feed(&mut self, event: Event<'_>) {
        let actions = self.election.on(event, Instant::now());
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let mut changed = false;
        for action in actions {
            match action {
                Action::Send { source, destination, payload } => {
                    let sent = self.sockets.as_ref().map(|s| s.send(source, destination, &payload));
                    self.unsent += u64::from(!matches!(sent, Some(Ok(()))));
                }
                Action::Hold { held, unsure, open, standings } => {
                    (self.hooks.standing)(&standings);
                    // It ends together with this thread.
                    let _ = self.holder.send(Command::Hold { held, unsure, open });
                    changed = true;
                }
                Action::HandOver(key, mac) => (self.hooks.hands_over)(key, mac),
                Action::Announce(addresses) => drop(self.holder.send(Command::Announce(addresses))),
                Action::Say(line) => {
                    self.voice.say(line);
                    changed = true;
                }
                Action::Warn(line) => {
                    self.voice.warn(line);
                    changed = true;
                }
            }
        }
        if changed {
            self.publish();
        }
    }

    /// Skipped while somebody reads: this thread does not wait for one of lower priority.
    fn publish(&mut self) {
        if let Ok(mut report) = self.report.try_lock() {
            *report = self.election.report(&self.notes, self.unsent);
            self.reported = Instant::now();
        }
    }
}

async fn readable(sockets: Option<&Sockets>) {
    match sockets {
        Some(sockets) => sockets.readable().await,
        None => std::future::pending().await,
    }
}
