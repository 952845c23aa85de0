//! What the elected node does, for as long as it may: follows what is there, writes what is owed, tells what is wrong. When
//! its time is up everything here is dropped, with what it knew; the next writer, here or elsewhere, begins anew from the API.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, info};

use super::StatusOptions;
use super::conflict::Owners;
use super::decide::{Entry, Seen, Write, says, words};
use super::ledger::{FORGET, Key, Kind, Ledger, Order};
use super::nodes::Nodes;
use super::notices::{Notice, Notices};
use super::pool;
use super::send::{Outcome, Sender, Told};
use super::takeover::{self, Holders};
use super::troubles::Troubles;
use super::watches::{List, News, Watches};
use crate::model::report::Report;
use crate::model::snapshot::{Served, Snapshot};

/// Between two writes that begin: a hundred a second, of status and of Events each. Ten thousand Ingresses then take as long as
/// a rolling restart, and the API server does not notice.
const PACE: Duration = Duration::from_millis(10);
/// Writes under way.
const AT_ONCE: usize = 8;
/// Objects that changed and are not looked at yet, taken in one go.
const BATCH: usize = 256;
/// Longer than a watch that fails is silent between two attempts.
const SILENCE: Duration = Duration::from_secs(20);
/// Between two Leases that are deleted.
const CLEAN: Duration = Duration::from_mins(1);
/// A node's Lease is deleted when the node has been gone for so long.
const ABANDONED: Duration = Duration::from_hours(1);

type Under<T> = Pin<Box<dyn Future<Output = T>>>;

/// Runs for ever, and writes while `until` allows it. `settled` says that nothing is left to be written.
pub(super) async fn run(
    client: Client,
    options: &StatusOptions,
    report: watch::Receiver<Arc<Report>>,
    mut until: watch::Receiver<Option<Instant>>,
    settled: &watch::Sender<bool>,
    troubles: &Troubles,
) {
    loop {
        settled.send_replace(true);
        if until.wait_for(|until| until.is_some_and(|u| u > Instant::now())).await.is_err() {
            return std::future::pending().await;
        }
        settled.send_replace(false);
        let mut writer = Writer::new(client.clone(), options, report.clone(), until.clone(), troubles.of_writer());
        tokio::select! {
            () = writer.run(settled) => {}
            () = over(until.clone()) => {}
        }
        drop(writer);
        troubles.writer_ended();
    }
}

/// Returns when the time is up, or the lease another one's.
async fn over(mut until: watch::Receiver<Option<Instant>>) {
    loop {
        let Some(end) = *until.borrow_and_update() else { return };
        tokio::select! {
            () = sleep_until(end.into()) => if until.borrow().is_none_or(|now| now <= end) { return },
            changed = until.changed() => if changed.is_err() { return },
        }
    }
}

struct Writer<'a> {
    options: &'a StatusOptions,
    report: watch::Receiver<Arc<Report>>,
    until: watch::Receiver<Option<Instant>>,
    troubles: Troubles,
    /// When a quarrel about a status was last seen.
    contested: Option<Instant>,
    send: Sender,
    watches: Watches,
    /// Lists that are not complete for the first time. Nothing is written before.
    unlisted: BTreeSet<List>,
    nodes: Nodes,
    /// What the nodes announce has to be looked at again: now, or at this time.
    stale: bool,
    nodes_end: Option<Instant>,
    ledger: Ledger,
    notices: Notices,
    holders: Holders,
    said: Arc<Report>,
    /// Whose rejections were passed on, and what else was wrong.
    told: Arc<Snapshot>,
    strangers: Vec<Notice>,
    /// Not before this time.
    next_write: Instant,
    next_event: Instant,
    next_cleaning: Instant,
    /// A watch was in trouble lately.
    watch_trouble: bool,
}

impl<'a> Writer<'a> {
    fn new(
        client: Client,
        options: &'a StatusOptions,
        report: watch::Receiver<Arc<Report>>,
        until: watch::Receiver<Option<Instant>>,
        troubles: Troubles,
    ) -> Self {
        let watches = Watches::start(&client, &options.namespace, &options.watch_namespaces, &troubles);
        let now = Instant::now();
        Self {
            options,
            report,
            until,
            send: Sender::new(client, &options.namespace, &options.node, troubles.clone()),
            troubles,
            contested: None,
            stale: true,
            nodes_end: None,
            unlisted: watches.lists.iter().cloned().collect(),
            watches,
            nodes: Nodes::default(),
            ledger: Ledger::new(&options.published),
            notices: Notices::default(),
            holders: Holders::default(),
            said: Arc::default(),
            told: Arc::default(),
            strangers: Vec::new(),
            next_write: now,
            next_event: now,
            next_cleaning: now,
            watch_trouble: false,
        }
    }

    async fn run(&mut self, settled: &watch::Sender<bool>) {
        let mut writes: FuturesUnordered<Under<Outcome>> = FuturesUnordered::new();
        let mut event: Option<Under<Told>> = None;
        let mut cleaning: Option<Under<()>> = None;
        let mut batch = Vec::new();
        loop {
            let now = Instant::now();
            self.look(now);
            let (may, may_tell) = (self.may_write(now), self.may_tell(now));
            while may && writes.len() < AT_ONCE && now >= self.next_write {
                let Some(order) = self.ledger.take(now) else { break };
                self.next_write = now + PACE;
                debug!(object = %order.key.1, write = ?order.write, "status");
                let send = self.send.clone();
                writes.push(Box::pin(async move { send.write(order).await }));
            }
            if may_tell
                && event.is_none()
                && now >= self.next_event
                && let Some((notice, before)) = self.notices.take(now)
            {
                self.next_event = now + PACE;
                let send = self.send.clone();
                event = Some(Box::pin(async move { send.tell(notice, before).await }));
            }
            if may
                && cleaning.is_none()
                && now >= self.next_cleaning
                && let Some(lease) = self.nodes.abandoned(ABANDONED, now)
            {
                self.next_cleaning = now + CLEAN;
                info!("status: {lease} was not renewed for an hour; it is deleted");
                let (send, lease) = (self.send.clone(), lease.to_owned());
                cleaning = Some(Box::pin(async move { send.delete_lease(&lease).await }));
            }
            let idle = self.said.stopping && may && self.ledger.is_settled();
            settled.send_if_modified(|before| std::mem::replace(before, idle) != idle);
            let wake = self.wake(now, may && writes.len() < AT_ONCE, may_tell && event.is_none());
            tokio::select! {
                n = self.watches.news.recv_many(&mut batch, BATCH) => if n == 0 { return },
                changed = self.report.changed() => if changed.is_err() { return std::future::pending().await },
                Some(outcome) = writes.next(), if !writes.is_empty() => self.wrote(outcome),
                told = under(&mut event) => {
                    event = None;
                    self.heard(&told);
                }
                () = under(&mut cleaning) => cleaning = None,
                // The state of the election bears on what may be written.
                _ = self.until.changed() => {}
                () = sleep_until(wake.into()) => {}
            }
            for news in batch.drain(..) {
                self.take(news);
            }
        }
    }

    /// Everything is known, and it is still this node's turn. Saved facts, or half of them, say nothing about what is not there.
    fn may_tell(&self, now: Instant) -> bool {
        self.unlisted.is_empty() && self.said.complete && self.until.borrow().is_some_and(|until| until > now)
    }

    fn may_write(&self, now: Instant) -> bool {
        self.may_tell(now) && self.said.in_force.generation > 0
    }

    fn take(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Begun(List::Nodes) => self.nodes.begin_list(),
            News::Begun(List::Objects(kind, namespace)) => self.ledger.begin_list(kind, &namespace),
            News::Complete(list) => {
                match &list {
                    List::Nodes => self.nodes.complete_list(),
                    List::Objects(kind, namespace) => self.ledger.complete_list(*kind, namespace),
                }
                self.unlisted.remove(&list);
                self.stale = true;
            }
            News::Object(key, seen) => {
                let what = format!("status of {} {}", key.0.name(), key.1);
                if let Some(who) = self.ledger.see(key, seen, now) {
                    let text = format!("the {what} is also written by {who}; it is set right ever more seldom");
                    self.troubles.appeared("contest", &text);
                    self.contested = Some(now);
                }
            }
            News::ObjectGone(key) => {
                self.ledger.gone(&key);
                self.notices.object_gone(key.0.name(), &key.1, now);
                self.events_in_trouble();
            }
            News::Node(lease, report) => self.stale |= self.nodes.see(&lease, report, now),
            News::NodeGone(lease) => {
                self.nodes.gone(&lease);
                self.stale = true;
            }
        }
    }

    /// Brings what is owed up to date.
    fn look(&mut self, now: Instant) {
        if self.contested.is_some_and(|at| now >= at + FORGET) {
            self.contested = None;
            self.troubles.gone("contest");
        }
        let silent = now.checked_sub(SILENCE).unwrap_or(now);
        self.watch_trouble = self.troubles.watches_silent_since(silent);
        if self.ledger.is_settled() {
            self.send.nothing_fails();
        }
        let said = Arc::clone(&self.report.borrow_and_update());
        if !self.stale && Arc::ptr_eq(&said, &self.said) && self.nodes_end.is_none_or(|end| now < end) {
            return;
        }
        self.stale = false;
        self.said = Arc::clone(&said);
        self.nodes_end = self.nodes.next(now);
        let by_node = self.nodes.announced(&self.options.node, &said.announced, now);
        let mut strangers = None;
        if self.unlisted.is_empty() && said.complete {
            let announced: BTreeSet<IpAddr> = by_node.keys().copied().collect();
            // What became of a pool does not wait for the data plane.
            let pools = Arc::clone(&said.planned.served.pools);
            let served = Served { pools, ..said.in_force.served.clone() };
            self.ledger.owe(&served, announced, said.stopping, now);
            strangers = Some(self.strangers(&served, now));
            for moved in self.holders.moved(by_node) {
                self.takeover(&moved, now);
            }
        }
        let strangers = strangers.filter(|now| *now != self.strangers);
        let planned = !Arc::ptr_eq(&self.told, &said.planned) && self.told.rejections != said.planned.rejections;
        if strangers.is_some() || planned {
            self.strangers = strangers.unwrap_or_else(|| std::mem::take(&mut self.strangers));
            self.notices.wrong(&said.planned.rejections, &self.strangers, now);
            self.events_in_trouble();
        }
        self.told = Arc::clone(&said.planned);
    }

    /// What machines that are none of ours use of ours.
    fn strangers(&self, served: &Served, now: Instant) -> Vec<Notice> {
        let conflicts = self.nodes.conflicts(&self.options.node, &self.said.conflicts, now);
        let uid = |key: &Key| self.ledger.find(key).map(|seen: &Seen| seen.uid.clone());
        Owners { served, groups: &self.said.in_force.groups, uid: &uid }.notices(&conflicts)
    }

    fn takeover(&mut self, moved: &takeover::Moved, now: Instant) {
        info!("status: {}", moved.text());
        let served = &self.said.in_force.served.services;
        let on = served.iter().filter(|o| o.addresses.contains(&moved.address));
        let uid = |key: &Key| self.ledger.find(key).map(|seen: &Seen| seen.uid.clone());
        let services = on.take(takeover::MOST).filter_map(|o| {
            let key = (Kind::Service, o.name.clone());
            Some((uid(&key)?, key))
        });
        for notice in moved.notices(services.collect()) {
            self.notices.happened(&notice, now);
        }
    }

    fn wrote(&mut self, outcome: Outcome) {
        let now = Instant::now();
        let Outcome { order, seen } = outcome;
        if seen.is_some() {
            for notice in notices(&order) {
                self.notices.happened(&notice, now);
            }
        }
        self.ledger.done(&order.key, seen, now);
    }

    fn heard(&mut self, told: &Told) {
        let now = Instant::now();
        if told.done {
            self.notices.told(&told.notice, now);
        } else {
            self.notices.failed(&told.notice, now);
        }
        self.events_in_trouble();
    }

    /// What is not true any more, or was given up, is in nobody's way.
    fn events_in_trouble(&self) {
        if self.send.is_event_in_trouble() && !self.notices.any_failed() {
            self.send.nothing_is_untold();
        }
    }

    /// When something is to be done without anything happening.
    fn wake(&self, now: Instant, can_write: bool, can_tell: bool) -> Instant {
        let write = self.ledger.next().filter(|_| can_write).map(|at| at.max(self.next_write));
        let tell = self.notices.next().filter(|_| can_tell).map(|at| at.max(self.next_event));
        let at = [write, tell, self.nodes_end].into_iter().flatten().min();
        let look = now + if self.watch_trouble { SILENCE / 4 } else { Duration::from_mins(1) };
        at.map_or(look, |at| at.min(look))
    }
}

async fn under<T>(future: &mut Option<Under<T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// What the object's owner reads of a write.
fn notices(order: &Order) -> Vec<Notice> {
    let (kind, name) = &order.key;
    let notice = |warning, reason, note: String| Notice {
        kind: kind.name().to_owned(),
        name: name.clone(),
        uid: order.seen.uid.clone(),
        warning,
        reason,
        note,
    };
    let (record, status) = match &order.write {
        Write::Put { record, status } => (record, status),
        // What is wrong with a pool its rejection tells.
        Write::Pool(status) => {
            let full = pool::exhausted(status, &order.seen);
            return full.map(|why| notice(true, "Exhausted", why.to_owned())).into_iter().collect();
        }
        Write::GiveUp => {
            let note = "is no longer served by Sluicegate; its status is given up".to_owned();
            return vec![notice(false, "GivenUp", note)];
        }
    };
    let mut list = Vec::new();
    if let Some(record) = record.as_ref().map(|r| words(r)).filter(|r| *r != order.seen.record) {
        list.push(notice(false, "AddressAssigned", format!("{record} is assigned")));
    }
    let Some(entries) = status else { return list };
    let before = &order.seen.entries;
    if entries.iter().any(|entry| !says(before, entry)) {
        let all: Vec<&str> = entries.iter().map(Entry::text).collect();
        list.push(notice(false, "AddressAnnounced", format!("is served on {}", all.join(","))));
    } else if entries.is_empty() && !before.is_empty() {
        list.push(notice(true, "AddressWithdrawn", "no edge node announces its address any more".to_owned()));
    }
    if let Some(other) = order.seen.other.as_ref().filter(|_| !order.seen.ours && !order.seen.entries.is_empty()) {
        list.push(notice(false, "StatusTakenOver", format!("its addresses were written by {other} before")));
    }
    list
}
