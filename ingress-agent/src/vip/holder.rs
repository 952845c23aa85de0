//! The loop of the holder's thread: feeds netlink, sockets, commands and the clock to [`Schedule`] and does what it says.
//! It decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{mpsc, oneshot, watch};

use super::VipOptions;
use super::claims::Claims;
use super::frame::Mac;
use super::lingering::Lingering;
use super::netlink::{Link, Netlink, on_interface};
use super::schedule::{Action, Event, Schedule};
use super::voice::Voice;
use super::wire::Wire;
use crate::model::holding::{Claim, HeldAddress, Holding, LinkState};

pub(super) enum Command {
    /// These and no others. `unsure` ones are added only if nobody on the link answers for them, `open` ones are left as they are.
    Hold { held: BTreeSet<IpAddr>, unsure: BTreeSet<IpAddr>, open: BTreeSet<IpAddr> },
    /// Tell the link again where these are.
    Announce(BTreeSet<IpAddr>),
    /// Connections to these, and no others, end in this node's proxy.
    EndsHere(BTreeSet<IpAddr>),
    /// Remove all and end.
    Release(oneshot::Sender<Result<()>>),
}

/// What elections need to know of the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkFacts {
    /// Only while it is up and has a carrier.
    pub(super) index: Option<u32>,
    /// Its own usable addresses in the kernel's order: IPv4, and link-local IPv6.
    pub(super) sources: Vec<IpAddr>,
}

/// Shortest time between two looks at the kernel's state, so that a machine with many pods costs us nothing.
const LOOK_APART: Duration = Duration::from_millis(20);
/// A look without being told to, should a notification have been lost.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

/// An address stays deliverable for so much longer than its connections may last: for the last packets of those that were cut then.
const OUTLASTS: Duration = Duration::from_secs(2);
/// And where the agent ends with it.
const LAST_PACKETS: Duration = Duration::from_secs(1);

pub(super) struct Holder {
    interface: String,
    proc_sys: PathBuf,
    netlink: Netlink,
    schedule: Schedule,
    link: Option<Link>,
    wire: Option<Wire>,
    announced: BTreeMap<IpAddr, u64>,
    unsent: BTreeMap<IpAddr, String>,
    report: watch::Sender<Arc<Holding>>,
    link_facts: watch::Sender<LinkFacts>,
    voice: Voice,
    looked: Instant,
    lingering: Lingering,
    /// What the log was last told.
    told: Option<LinkState>,
    /// Addresses that a previous run left on another interface are looked for once.
    moved: bool,
}

impl Holder {
    pub(super) fn open(
        options: VipOptions,
        report: watch::Sender<Arc<Holding>>,
        link_facts: watch::Sender<LinkFacts>,
        voice: Voice,
    ) -> Result<Self> {
        let now = Instant::now();
        let chance =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        let lasts = options.vrrp.as_ref().map_or(Duration::ZERO, |vrrp| vrrp.drain);
        Ok(Self {
            interface: options.interface,
            proc_sys: options.proc_sys,
            netlink: Netlink::open()?,
            schedule: if options.vrrp.is_some() {
                Schedule::new(now, chance).elected()
            } else {
                Schedule::new(now, chance)
            },
            link: None,
            wire: None,
            announced: BTreeMap::new(),
            unsent: BTreeMap::new(),
            report,
            link_facts,
            voice,
            looked: now,
            lingering: Lingering::new(if lasts.is_zero() { lasts } else { lasts + OUTLASTS }),
            told: None,
            moved: false,
        })
    }

    /// Runs until released, or until the other side is gone (then the addresses stay).
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut look_at = Instant::now();
        self.forget_delivered().await;
        loop {
            if look_at <= Instant::now() {
                self.look().await;
                look_at = self.looked + LOOK_ANYWAY;
            }
            for address in self.lingering.over(Instant::now()) {
                self.deliver_no_more(address).await;
            }
            let wake = self.schedule.next().into_iter().chain(self.lingering.next()).fold(look_at, Instant::min);
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Hold { held, unsure, open }) => {
                        self.forget_moved(&held).await;
                        self.feed(Event::Hold { held, unsure, open }).await;
                    }
                    Some(Command::Announce(addresses)) => self.feed(Event::Announce(addresses)).await,
                    Some(Command::EndsHere(addresses)) => self.lingering.ends_here(addresses),
                    Some(Command::Release(done)) => {
                        let result = self.release().await;
                        // The asker may have given up waiting.
                        let _ = done.send(result);
                        return;
                    }
                    None => return,
                },
                changed = self.netlink.changed() => match changed {
                    Ok(()) => look_at = look_at.min(Instant::now().max(self.looked + LOOK_APART)),
                    Err(e) => {
                        self.voice.warn(format!("{e:#}; opening another"));
                        match Netlink::open() {
                            Ok(netlink) => self.netlink = netlink,
                            Err(e) => {
                                self.voice.warn(format!("{e:#}"));
                                tokio::time::sleep(Duration::from_secs(1)).await;
                            }
                        }
                    }
                },
                (address, mac) = claim(self.wire.as_ref()) => self.feed(Event::Claim(address, mac)).await,
                () = tokio::time::sleep_until(wake.into()) => self.feed(Event::Tick).await,
            }
        }
    }

    /// Reads the interface and its addresses from the kernel.
    async fn look(&mut self) {
        self.looked = Instant::now();
        let events = match self.read_kernel().await {
            Ok(events) => events,
            Err(e) => {
                self.voice.warn(format!("{e:#}"));
                return;
            }
        };
        for event in events {
            self.feed(event).await;
        }
    }

    async fn read_kernel(&mut self) -> Result<Vec<Event>> {
        let link = self.netlink.link(&self.interface).await?;
        let state = link.map_or(LinkState::Absent, |l| l.state);
        if self.told.replace(state) != Some(state) {
            if state == LinkState::Up {
                self.voice.say(format!("interface {} is up", self.interface));
            } else {
                self.voice.warn(format!("interface {} {}; its VIPs wait for it", self.interface, state.describe()));
            }
        }
        self.link = link;
        let Some(link) = link else {
            self.wire = None;
            self.link_facts.send_if_modified(|facts| std::mem::take(facts) != LinkFacts::default());
            let nothing = Event::Kernel { ours: BTreeSet::new(), others: BTreeSet::new() };
            return Ok(vec![Event::Link(LinkState::Absent, Mac::default()), nothing]);
        };
        let mac = link.mac.unwrap_or_default();
        if self.wire.as_ref().is_none_or(|w| !w.fits(link.index, mac)) {
            self.wire = match Wire::open(&self.interface, link.index, mac) {
                Ok(wire) => Some(wire),
                Err(e) => {
                    self.voice.warn(format!("cannot announce: {e:#}"));
                    None
                }
            };
            super::arp_settings::apply(&self.proc_sys, &self.interface, &self.voice);
        }
        let found = self.netlink.addresses().await?;
        let (ours, others) = on_interface(&found, link.index);
        let facts = LinkFacts {
            index: (link.state == LinkState::Up).then_some(link.index),
            sources: found.iter().filter(|f| f.index == link.index && f.speaks()).map(|f| f.address).collect(),
        };
        self.link_facts.send_if_modified(|before| std::mem::replace(before, facts.clone()) != facts);
        Ok(vec![Event::Link(link.state, mac), Event::Kernel { ours, others }])
    }

    /// Gives an event to the schedule and does what follows from it, to the end.
    async fn feed(&mut self, event: Event) {
        let mut actions = VecDeque::from(self.schedule.on(event, Instant::now()));
        let mut changed = false;
        loop {
            let Some(action) = actions.pop_front() else {
                if !std::mem::take(&mut changed) {
                    break;
                }
                // Read back rather than assume that nothing else has happened to them meanwhile.
                match self.read_kernel().await {
                    Ok(events) => actions.extend(events.into_iter().flat_map(|e| self.schedule.on(e, Instant::now()))),
                    Err(e) => self.voice.warn(format!("{e:#}")),
                }
                continue;
            };
            changed |= matches!(action, Action::Add(_) | Action::Remove(_));
            if let Some(event) = self.act(action).await {
                // An address is announced before the next one is added: the kernel may take its time.
                for action in self.schedule.on(event, Instant::now()).into_iter().rev() {
                    actions.push_front(action);
                }
            }
        }
        self.publish();
    }

    async fn act(&mut self, action: Action) -> Option<Event> {
        let index = self.link?.index;
        match action {
            Action::Add(address) => match self.netlink.add(index, address).await {
                Ok(()) => {
                    self.voice.say(format!("{address} added to {}", self.interface));
                    if self.lingering.takes(address) {
                        self.deliver_no_more(address).await;
                    }
                    return Some(Event::Added(address));
                }
                Err(e) => {
                    let why = format!("{e:#}");
                    self.voice.warn(format!("{}: {why}; trying again", self.interface));
                    return Some(Event::AddFailed(address, why));
                }
            },
            Action::Remove(address) => {
                // First the route, then the address: no packet comes in between. Connections to what an earlier agent left ended with it.
                if self.announced.contains_key(&address)
                    && self.lingering.gives_up(address, Instant::now())
                    && let Err(e) = self.netlink.deliver(address).await
                {
                    self.voice.warn(format!("{e:#}; HTTP connections to it end with the move"));
                }
                match self.netlink.remove(index, address).await {
                    Ok(()) => self.voice.say(format!("{address} removed from {}", self.interface)),
                    Err(e) => self.voice.warn(format!("{}: {e:#}", self.interface)),
                }
            }
            Action::Announce(address) => self.announce(address),
            Action::Probe(address) => {
                // Only for a warning: without an answer nothing is lost.
                let _ = self.wire.as_ref().map(|w| w.probe(address));
            }
            Action::Warn(address, mac) => {
                self.voice.warn(format!(
                    "{address} is also claimed by {mac} on {}: two machines hold one address",
                    self.interface
                ));
            }
        }
        None
    }

    fn announce(&mut self, address: IpAddr) {
        let why = match (&self.wire, self.link.and_then(|l| l.mac)) {
            (_, None) => "the interface has no Ethernet address to announce".to_owned(),
            (None, _) => "no socket to announce with".to_owned(),
            (Some(wire), _) => match wire.announce(address) {
                Ok(()) => {
                    *self.announced.entry(address).or_default() += 1;
                    self.unsent.remove(&address);
                    return;
                }
                Err(e) => format!("announce: {e}"),
            },
        };
        if self.unsent.get(&address) != Some(&why) {
            self.voice.warn(format!("{address} on {}: {why}", self.interface));
        }
        self.unsent.insert(address, why);
    }

    /// After `--vip-interface` changed, a killed agent's addresses would answer on two interfaces.
    async fn forget_moved(&mut self, set: &BTreeSet<IpAddr>) {
        let Some(link) = self.link.filter(|_| !self.moved) else { return };
        self.moved = true;
        let found = self.netlink.addresses().await.unwrap_or_default();
        for f in found.iter().filter(|f| f.ours && f.index != link.index && set.contains(&f.address)) {
            match self.netlink.remove(f.index, f.address).await {
                Ok(()) => self
                    .voice
                    .say(format!("{} was still on interface {}; it moves to {}", f.address, f.index, self.interface)),
                Err(e) => self.voice.warn(format!("{e:#}")),
            }
        }
    }

    /// What an earlier agent left: its connections ended with it.
    async fn forget_delivered(&self) {
        match Netlink::delivered().await {
            Ok(found) => {
                for address in found {
                    self.deliver_no_more(address).await;
                }
            }
            Err(e) => self.voice.warn(format!("{e:#}")),
        }
    }

    async fn deliver_no_more(&self, address: IpAddr) {
        if let Err(e) = self.netlink.deliver_no_more(address).await {
            self.voice.warn(format!("{e:#}"));
        }
    }

    async fn release(&mut self) -> Result<()> {
        let lingering = self.lingering.all();
        if !lingering.is_empty() {
            // The kernel is still closing what the proxy has closed.
            tokio::time::sleep(LAST_PACKETS).await;
            for address in lingering {
                self.deliver_no_more(address).await;
            }
        }
        let Some(link) = self.link else { return Ok(()) };
        let (ours, _) = on_interface(&self.netlink.addresses().await?, link.index);
        for address in ours {
            self.netlink.remove(link.index, address).await?;
            self.voice.say(format!("{address} removed from {}", self.interface));
        }
        Ok(())
    }

    fn publish(&self) {
        let address = |present, fault: Option<&String>, claims: &Claims, address: IpAddr| HeldAddress {
            present,
            announced: self.announced.get(&address).copied().unwrap_or(0),
            fault: fault.or_else(|| self.unsent.get(&address)).cloned(),
            claims: claims.iter().map(|(by, since)| Claim { mac: by.to_string(), since }).collect(),
        };
        let now = Holding {
            interface: self.interface.clone(),
            link: self.schedule.link(),
            addresses: self.schedule.report().map(|(a, p, f, c)| (a, address(p, f, c, a))).collect(),
        };
        self.report.send_if_modified(|before| {
            let changed = **before != now;
            *before = Arc::new(now);
            changed
        });
    }
}

async fn claim(wire: Option<&Wire>) -> (IpAddr, Mac) {
    match wire {
        Some(wire) => wire.claim().await,
        None => std::future::pending().await,
    }
}
