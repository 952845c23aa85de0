//! Clients that went on exceeding limits, and are kept from the proxy for a while. Asked on its way only, and only while there are any: no
//! packet of an L4 service comes here.

use crate::maps::{self, Address};

/// One question where nobody is dropped.
#[inline(always)]
pub fn is_dropped(client: Address) -> bool {
    maps::config().is_some_and(|config| config.dropping != 0) && sluicegate_is_dropped(client.high, client.low) != 0
}

/// A function of its own, since the key has to lie on the stack. The words are those of an [`Address`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sluicegate_is_dropped(high: u64, low: u64) -> u32 {
    let until = maps::dropped_until(Address { high, low });
    u32::from(until != 0 && maps::nanoseconds() < until)
}
