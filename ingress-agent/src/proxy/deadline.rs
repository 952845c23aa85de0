//! Time limits without a timer a request: each request under way has a slot, and one task a worker looks through them
//! once a second, or sooner where a limit is shorter. Arming a limit is a store; precision is that of the clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The worker's round: idle connections, log buffers and long limits are looked at this often.
pub(super) const ROUND: Duration = Duration::from_secs(1);
const NEVER: u64 = u64::MAX;

pub(super) struct Deadlines {
    epoch: Instant,
    /// Milliseconds since `epoch`, refreshed by each request and each round.
    now: Cell<u64>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    next_round: Cell<u64>,
    pub(super) sooner: Notify,
}

struct Slot {
    at: u64,
    /// The limit of the whole request, which no phase may exceed.
    total: u64,
    fired: bool,
    waker: Option<Waker>,
}

/// A slot; freed on drop.
pub(super) struct Deadline {
    deadlines: Rc<Deadlines>,
    slot: u32,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            now: Cell::new(0),
            slots: RefCell::default(),
            free: RefCell::default(),
            next_round: Cell::new(0),
            sooner: Notify::new(),
        }
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.now.set(now.saturating_duration_since(self.epoch).as_millis() as u64);
    }

    /// Milliseconds since the worker began, as of the last request or round.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    /// The same as a point in time, without asking the clock.
    fn instant(&self) -> Instant {
        self.epoch + Duration::from_millis(self.now.get())
    }

    /// Wakes whoever is over time; returns until when to sleep.
    pub(super) fn round(&self, now: Instant) -> Instant {
        self.set_now(now);
        let now = self.now.get();
        let mut next = now + ROUND.as_millis() as u64;
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.fired || slot.at == NEVER {
                continue;
            }
            if slot.at <= now {
                slot.fired = true;
                if let Some(waker) = slot.waker.take() {
                    waker.wake();
                }
            } else {
                next = next.min(slot.at);
            }
        }
        self.next_round.set(next);
        self.epoch + Duration::from_millis(next)
    }

    fn arm(&self, slot: u32, after: Option<Duration>, total: bool) {
        let Some(after) = after else {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[slot as usize];
            slot.at = slot.total;
            return;
        };
        if after < ROUND * 5 {
            self.set_now(Instant::now());
        }
        let at = self.now.get().saturating_add(u64::try_from(after.as_millis()).unwrap_or(NEVER - 1).max(1));
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[slot as usize];
        if total {
            slot.total = at;
        }
        slot.at = at.min(slot.total);
        if slot.at < self.next_round.get() {
            self.next_round.set(slot.at);
            self.sooner.notify_one();
        }
    }
}

impl Deadline {
    pub(super) fn new(deadlines: &Rc<Deadlines>) -> Self {
        let fresh = Slot { at: NEVER, total: NEVER, fired: false, waker: None };
        let mut slots = deadlines.slots.borrow_mut();
        let slot = if let Some(slot) = deadlines.free.borrow_mut().pop() {
            slots[slot as usize] = fresh;
            slot
        } else {
            slots.push(fresh);
            slots.len() as u32 - 1
        };
        drop(slots);
        Self { deadlines: Rc::clone(deadlines), slot }
    }

    /// The time of the last request or round.
    pub(super) fn instant(&self) -> Instant {
        self.deadlines.instant()
    }

    /// The whole request may take so long from now.
    pub(super) fn limit(&self, total: Option<Duration>) {
        if total.is_some() {
            self.deadlines.arm(self.slot, total, true);
        }
    }

    /// The phase that begins now may take so long; `None` leaves only the whole request's limit.
    pub(super) fn arm(&self, phase: Option<Duration>) {
        self.deadlines.arm(self.slot, phase, false);
    }

    /// The same after what was waited for has come: that it came late, because its reader did, is no matter.
    pub(super) fn renew(&self, phase: Option<Duration>) {
        {
            let mut slots = self.deadlines.slots.borrow_mut();
            let slot = &mut slots[self.slot as usize];
            slot.fired &= slot.total <= self.deadlines.now.get();
        }
        self.arm(phase);
    }

    /// Whether time is over; if not, the task is woken when it is.
    pub(super) fn over(&self, cx: &Context<'_>) -> bool {
        let mut slots = self.deadlines.slots.borrow_mut();
        let slot = &mut slots[self.slot as usize];
        if slot.fired {
            return true;
        }
        if slot.at != NEVER && !slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        false
    }

    /// Whether it was the whole request's limit that fired.
    pub(super) fn total_over(&self) -> bool {
        let slots = self.deadlines.slots.borrow();
        slots[self.slot as usize].total <= self.deadlines.now.get()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.deadlines.slots.borrow_mut();
        let slot = &mut slots[self.slot as usize];
        slot.at = NEVER;
        slot.waker = None;
        self.deadlines.free.borrow_mut().push(self.slot);
    }
}
