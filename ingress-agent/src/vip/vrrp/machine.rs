//! One virtual router: `(event, now) → actions`, RFC 9568 §6.4, without I/O or clock. It knows priorities and adverts, and neither
//! addresses nor interfaces.
//!
//! Beyond the RFC: giving up keeps the addresses until somebody else is heard ([`Event::Leave`]), a router can be told to take
//! over ([`Event::Take`]), one that woke too late steps down before it speaks, and one that hands over to a router that it has heard
//! lingers: what is on its way to it is still answered.

mod event;

use std::net::IpAddr;
use std::time::{Duration, Instant};

pub(super) use event::{Action, Counts, Event, Other, Settings};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// RFC 9568 §6.4.1, Initialize: takes no part.
    Idle,
    Backup {
        down_at: Instant,
    },
    Active {
        next: Instant,
        sent: Instant,
    },
    /// Says that it gives up, and holds on until somebody else speaks.
    Leaving {
        next: Instant,
        until: Instant,
        rejoin: bool,
    },
}

/// A [`Event::Take`] makes its router stronger than any that was ranked, so that nobody takes the addresses back.
const TAKEN: u8 = 254;
/// From holding addresses to telling their owner, where that is no emergency.
const HEAD_START: Duration = Duration::from_millis(20);
/// From hearing the next owner to the end of answering what still comes: its announcements at 0, 50 and 200 ms have arrived by then,
/// also where its kernel took 50 ms to add the address, and those after one second and later have the last word about any cache.
const LINGER: Duration = Duration::from_millis(300);
/// How many intervals of silence make an Active Router dead (RFC 9568 §6.1).
pub(super) const MISSED: u32 = 3;
/// Between two answers to adverts of lower priority, so that a flood of them makes none of ours.
const ANSWERS_APART: Duration = Duration::from_millis(10);
/// Between two waves of announcements for the same cause.
const ANNOUNCE_APART: Duration = Duration::from_secs(1);

/// How long it takes to hand over to a router that is there.
pub(super) fn hand_over(interval: Duration) -> Duration {
    interval * (MISSED + 1) + LINGER
}

#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    state: State,
    priority: u8,
    source: IpAddr,
    /// Interval of the Active Router, which backups adopt (RFC 9568 §6.1, `Active_Adver_Interval`).
    learned: Duration,
    other: Option<Other>,
    /// Priority after a [`Event::Take`], until somebody else prevails.
    taken: Option<u8>,
    /// It gave the addresses away and does not ask for them back while somebody has them.
    yielded: bool,
    /// Somebody else has the addresses since a moment ago; until then packets for them are still taken.
    lingers_until: Option<Instant>,
    lower_since: Option<Instant>,
    answered: Option<Instant>,
    announced: Option<Instant>,
    pub(super) since: Instant,
    pub(super) counts: Counts,
}

impl Machine {
    pub(super) fn new(settings: Settings, source: IpAddr, now: Instant) -> Self {
        Self {
            settings,
            state: State::Idle,
            priority: 0,
            source,
            learned: settings.interval,
            other: None,
            taken: None,
            yielded: false,
            lingers_until: None,
            lower_since: None,
            answered: None,
            announced: None,
            since: now,
            counts: Counts::default(),
        }
    }

    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.fence(now, &mut actions);
        match event {
            Event::Join { priority, source } => self.join(priority, source, now, &mut actions),
            Event::Fault => self.idle(now, &mut actions),
            Event::Leave { rejoin } => self.leave(rejoin, now, &mut actions),
            Event::Take => self.take(now, &mut actions),
            Event::Heard { from, priority, interval } => {
                self.counts.heard += 1;
                self.heard(Other { from, priority, interval, at: now }, now, &mut actions);
            }
            Event::Tick => {}
        }
        self.due(now, &mut actions);
        self.counts.sent += actions.iter().filter(|a| matches!(a, Action::Send { .. })).count() as u64;
        actions
    }

    /// When to call with [`Event::Tick`] at the latest.
    pub(super) fn next(&self) -> Option<Instant> {
        let of_state = match self.state {
            State::Idle => None,
            State::Backup { down_at } => Some(down_at),
            State::Active { next, .. } | State::Leaving { next, .. } => Some(next),
        };
        of_state.into_iter().chain(self.lingers_until).min()
    }

    /// Whether the addresses, which are another's now, stay where they are for a moment: it is not to be told about them, but what
    /// was sent here before its announcement arrived is answered.
    pub(super) fn lingers(&self) -> bool {
        self.lingers_until.is_some()
    }

    pub(super) fn holds(&self) -> bool {
        matches!(self.state, State::Active { .. } | State::Leaving { .. })
    }

    pub(super) fn state(&self) -> &'static str {
        match self.state {
            State::Idle => "idle",
            State::Backup { .. } => "backup",
            State::Active { .. } => "active",
            State::Leaving { .. } => "leaving",
        }
    }

    /// The last other router that was heard.
    pub(super) fn other(&self) -> Option<Other> {
        self.other
    }

    /// As advertised.
    pub(super) fn priority(&self) -> u8 {
        self.taken.unwrap_or(self.priority)
    }

    pub(super) fn may_preempt(&mut self, may: bool) {
        self.settings.preempt = may;
    }

    /// Whether nobody else may hold the addresses.
    pub(super) fn has_nobody_beside(&self) -> bool {
        self.settings.alone
    }

    pub(super) fn is_alone(&mut self, alone: bool) {
        self.settings.alone = alone;
    }

    /// When the others have had reason to believe that we are gone, one of them may be Active: then the first thing to do is not
    /// to hold the addresses. What was received meanwhile says who has them.
    fn fence(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let State::Active { sent, .. } = self.state else { return };
        if self.settings.alone || now < sent + self.settings.interval * MISSED {
            return;
        }
        self.counts.fenced += 1;
        self.step_down(now, actions);
    }

    fn join(&mut self, priority: u8, source: IpAddr, now: Instant, actions: &mut Vec<Action>) {
        let changed = self.priority() != self.taken.unwrap_or(priority);
        self.source = source;
        self.priority = priority;
        match &mut self.state {
            State::Idle => {
                self.learned = self.settings.interval;
                if priority == 255 {
                    // RFC 9568 §6.4.1 (110): the owner does not wait.
                    self.become_active(now, actions);
                } else {
                    self.enter(State::Backup { down_at: now + self.down() }, now);
                }
            }
            State::Active { .. } if changed => self.advertise(now, actions),
            State::Leaving { rejoin, .. } => *rejoin = true,
            State::Backup { .. } | State::Active { .. } => {}
        }
    }

    fn leave(&mut self, rejoin: bool, now: Instant, actions: &mut Vec<Action>) {
        self.taken = None;
        match self.state {
            State::Active { .. } => {
                // RFC 9568 §6.4.3 (605): priority 0 makes the next one take over within its Skew_Time, less than an interval.
                actions.push(Action::Send { priority: 0 });
                let (interval, next) = (self.settings.interval, now + self.settings.interval);
                self.enter(State::Leaving { next, until: now + interval * (MISSED + 1), rejoin }, now);
            }
            State::Leaving { next, until, .. } => self.state = State::Leaving { next, until, rejoin },
            State::Backup { .. } if !rejoin => self.enter(State::Idle, now),
            State::Backup { .. } | State::Idle => {}
        }
    }

    fn take(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.state == State::Idle {
            return;
        }
        let theirs = self.other.filter(|o| now < o.at + o.interval * (MISSED + 1)).map_or(0, |o| o.priority);
        self.taken = Some(TAKEN.max(theirs.saturating_add(1)).max(self.priority));
        if let State::Active { .. } = self.state {
            return self.advertise(now, actions);
        }
        // The other one lets go as soon as it hears of it, and the kernel may take a moment to add what we hold.
        let was_held = self.holds();
        self.become_active(now, actions);
        if !was_held {
            actions.retain(|a| !matches!(a, Action::Send { .. }));
            self.state = State::Active { next: now + HEAD_START.min(self.settings.interval / 2), sent: now };
        }
    }

    fn heard(&mut self, other: Other, now: Instant, actions: &mut Vec<Action>) {
        let priority = self.priority();
        match self.state {
            State::Idle => self.other = Some(other),
            State::Backup { down_at } => {
                self.other = Some(other);
                if other.priority == 0 {
                    // RFC 9568 §6.4.2 (425).
                    self.yielded = false;
                    self.lower_since = None;
                    self.state = State::Backup { down_at: down_at.min(now + self.skew()) };
                } else if other.priority >= priority || !self.preempts(now) {
                    if other.priority >= priority {
                        self.lower_since = None;
                    }
                    self.learned = other.interval;
                    self.state = State::Backup { down_at: now + self.down() };
                }
                // Otherwise (450): as if nothing had been heard, and with the time we become Active.
            }
            State::Active { .. } => {
                self.other = Some(other);
                if other.priority == 0 {
                    self.advertise(now, actions);
                } else if (other.priority, other.from) > (priority, self.source) {
                    // RFC 9568 §6.4.3 (705): higher, or equal with the greater address. A last advert lets the winner know that
                    // the addresses were announced from here, too: nobody else can tell it which caches are wrong.
                    actions.push(Action::Send { priority });
                    self.learned = other.interval;
                    self.hand_over(now, actions);
                } else {
                    self.assert_active(now, actions);
                }
            }
            State::Leaving { rejoin, .. } => {
                // Of two that leave, one stays until somebody comes.
                if other.priority == 0 && other.from < self.source {
                    return;
                }
                // Who leaves, too, has not taken over.
                let taken = other.priority != 0;
                self.other = Some(other);
                self.learned = other.interval;
                if taken {
                    self.hand_over(now, actions);
                } else {
                    self.step_down(now, actions);
                }
                // Who left for good and comes back has his rank again.
                self.yielded = rejoin;
                if !rejoin {
                    self.enter(State::Idle, now);
                }
            }
        }
    }

    /// RFC 9568 §6.4.3 (740): tells the sender, and the bridges on the way, that we are here.
    fn assert_active(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.answered.is_none_or(|at| now >= at + ANSWERS_APART) {
            self.answered = Some(now);
            self.advertise(now, actions);
        }
        // Whoever was Active beside us has announced the addresses as its own.
        if self.announced.is_none_or(|at| now >= at + ANNOUNCE_APART) {
            self.announced = Some(now);
            actions.push(Action::Announce);
        }
    }

    fn preempts(&mut self, now: Instant) -> bool {
        let since = *self.lower_since.get_or_insert(now);
        self.settings.preempt && !self.yielded && now >= since + self.settings.preempt_delay
    }

    fn due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.lingers_until = self.lingers_until.filter(|until| now < *until);
        match self.state {
            State::Backup { down_at } if now >= down_at => self.become_active(now, actions),
            State::Active { next, .. } if now >= next => {
                self.advertise(now, actions);
                // Keeps the beat while it can, so that lateness does not add up.
                let beat = next + self.settings.interval;
                if let State::Active { next, .. } = &mut self.state
                    && beat > now
                {
                    *next = beat;
                }
            }
            // Nobody wanted it.
            State::Leaving { until, rejoin: true, .. } if now >= until => self.become_active(now, actions),
            // Nobody has come yet. Better a node that should not than none.
            State::Leaving { next, until, rejoin } if now >= next => {
                actions.push(Action::Send { priority: 0 });
                self.state = State::Leaving { next: now + self.settings.interval, until, rejoin };
            }
            _ => {}
        }
    }

    fn advertise(&mut self, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Send { priority: self.priority() });
        self.state = State::Active { next: now + self.settings.interval, sent: now };
    }

    fn become_active(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.counts.became_active += 1;
        self.yielded = false;
        self.lower_since = None;
        self.lingers_until = None;
        if !self.holds() {
            actions.push(Action::Hold);
        }
        self.enter(State::Active { next: now, sent: now }, now);
        self.advertise(now, actions);
    }

    /// To a router that speaks: it has added the addresses and announces them, but whoever has not heard of that yet sends to us.
    fn hand_over(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.step_down(now, actions);
        self.lingers_until = Some(now + LINGER);
    }

    fn step_down(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.counts.stepped_down += 1;
        self.taken = None;
        self.lower_since = None;
        actions.push(Action::Release);
        self.enter(State::Backup { down_at: now + self.down() }, now);
    }

    fn idle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.holds() {
            actions.push(Action::Release);
        }
        self.taken = None;
        self.yielded = false;
        self.lingers_until = None;
        if self.state != State::Idle {
            self.enter(State::Idle, now);
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }

    /// RFC 9568 §6.1: `Active_Down_Interval`.
    fn down(&self) -> Duration {
        self.learned * MISSED + self.skew()
    }

    /// RFC 9568 §6.1: `Skew_Time`. The stronger the router, the sooner it takes over.
    fn skew(&self) -> Duration {
        self.learned * (256 - u32::from(self.priority())) / 256
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod simulation;
