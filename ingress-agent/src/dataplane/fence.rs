//! The election's side of the fence (`xdp_ebpf::rules`, *who answers for a VIP*): it says that it is alive and what this node is. Every
//! word is one store into mapped memory, so that a thread with a deadline can afford it; no system call but for the clock.
//!
//! What the programs make of it: while the election is silent, another node's adverts fence this one, and the fence stays until it
//! lapses or is lifted. A node without its agent that hears nobody goes on answering. It also says between whom addresses change hands
//! (`xdp_ebpf::rules`, *whose connection it is*).

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use xdp_ebpf::{Heartbeat, ROUTERS, Router, mac_word, map, router, router_role};

use super::maps::mapped;
use super::pins::Pins;
use super::region::Region;
use crate::model::election::{RouterKey, Standing, Standings};

/// Made by [`Dataplane::fence`](super::Dataplane::fence), for one thread.
pub struct Fence {
    heartbeat: Region<Heartbeat>,
    routers: Region<Router>,
}

/// After a move a peer has told all flows that it had then: they are told of when they are a second old, in passes of a quarter, and a peer that
/// is behind has some time left.
const FLOWS_KNOWN: Duration = Duration::from_secs(3);

/// The second half of a [`Router`]'s first word.
const KNOWN: usize = 1;
/// Words of a [`Heartbeat`], and of a [`Router`].
const AT: usize = 0;
const FRESH_FOR: usize = 1;
const HAND_OVER_UNTIL: usize = 2;
const UNTIL: usize = 1;
const OTHER: usize = 2;
const OTHER_UNTIL: usize = 3;

impl Fence {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let routers: Region<Router> = mapped(pins, map::ROUTERS, ROUTERS as usize)?;
        // What an earlier agent said is over. Until this one has heard who has the addresses, adverts speak for themselves: a heart that
        // beats already would let the fence lapse, while the kernel may have addresses that the dead agent left.
        for index in 0..ROUTERS as usize {
            routers.half(index, 0).store(router_role::UNKNOWN, Ordering::Release);
        }
        Ok(Self { heartbeat: mapped(pins, map::HEARTBEAT, 1)?, routers })
    }

    /// The election is alive, and will say so again within `fresh_for`. That is to be less than the time after which other nodes take
    /// over (three adverts and some), so that their first advert finds it stale; and a thread that woke up too late gives up what
    /// it holds before it says so again.
    pub fn beat(&self, fresh_for: Duration) {
        let fresh_for = u64::try_from(fresh_for.as_nanos()).unwrap_or(u64::MAX);
        self.heartbeat.word(0, FRESH_FOR).store(fresh_for, Ordering::Relaxed);
        let now = nanoseconds();
        self.heartbeat.word(0, AT).store(now, Ordering::Release);
        let hand_over = self.heartbeat.word(0, HAND_OVER_UNTIL);
        let until = hand_over.load(Ordering::Relaxed);
        if (1..=now).contains(&until) {
            // Unless another begins in this moment.
            let _ = hand_over.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The node at this link-layer address gives the router's addresses to this one, or takes them, and lives: for `lasts` from now on
    /// packets of connections that nobody here knows go to it; those of clients of L4 for [`FLOWS_KNOWN`], since it tells of its flows, and
    /// may then end. Said before the addresses are announced from here.
    pub fn hand_over(&self, key: RouterKey, mac: [u8; 6], lasts: Duration) {
        let index = router(key.vrid, key.v6) as usize;
        let until = nanoseconds().saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX));
        let known = u32::try_from(lasts.saturating_sub(FLOWS_KNOWN).as_millis()).unwrap_or(u32::MAX);
        self.routers.half(index, KNOWN).store(known, Ordering::Release);
        self.routers.word(index, OTHER).store(mac_word(mac), Ordering::Release);
        self.routers.word(index, OTHER_UNTIL).store(until, Ordering::Release);
        self.heartbeat.word(0, HAND_OVER_UNTIL).fetch_max(until, Ordering::AcqRel);
    }

    /// Whose the addresses of each router are, from now on. `Here` lifts the fence, so it is said before the first announcement. With
    /// `Elsewhere`, requests for the addresses are kept from the kernel while the election is alive, even if they are still on an
    /// interface. With `Open` the fence stays as it is.
    pub fn set_standings(&self, standings: &Standings) {
        for (key, standing) in standings {
            self.set_standing(*key, *standing);
        }
    }

    /// The same of one router.
    pub fn set_standing(&self, key: RouterKey, standing: Standing) {
        let index = router(key.vrid, key.v6) as usize;
        let role = match standing {
            Standing::Here => router_role::ACTIVE,
            Standing::Elsewhere => router_role::BACKUP,
            Standing::Open => return,
        };
        self.routers.half(index, 0).store(role, Ordering::Release);
        if standing == Standing::Here {
            self.routers.word(index, UNTIL).store(0, Ordering::Release);
        }
    }

    /// Whether adverts of another node were seen while the election was silent, and it has not gone since.
    pub fn is_fenced(&self, key: RouterKey) -> bool {
        nanoseconds() < self.routers.word(router(key.vrid, key.v6) as usize, UNTIL).load(Ordering::Acquire)
    }
}

/// `CLOCK_MONOTONIC`, as the programs' `bpf_ktime_get_ns`.
pub(super) fn nanoseconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for one `timespec`. The clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
