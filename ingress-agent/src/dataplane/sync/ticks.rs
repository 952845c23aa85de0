//! Time as the packet programs keep it, and seconds as edges tell each other. Pure.

use xdp_ebpf::tick_shift;

/// One reading of the programs' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Low 32 bits of jiffies.
    pub jiffies: u32,
    pub tick: u32,
    /// Jiffies a second.
    pub hz: u32,
}

impl Moment {
    pub(super) fn new(jiffies: u32, hz: u32) -> Self {
        Self { jiffies, tick: jiffies >> tick_shift(hz), hz }
    }

    /// Whole seconds, rounded down.
    pub(super) fn seconds_of_ticks(&self, ticks: u32) -> u16 {
        saturated((u64::from(ticks) << tick_shift(self.hz)) / u64::from(self.hz.max(1)))
    }

    /// Rounded down, so that a flow is never made older than it is.
    pub(super) fn ticks(&self, seconds: u16) -> u32 {
        ((u64::from(seconds) * u64::from(self.hz)) >> tick_shift(self.hz)) as u32
    }

    /// Seconds since jiffies said `then`. Right for 49 days at 1000 Hz.
    pub(super) fn seconds_since(&self, then: u32) -> u16 {
        saturated(u64::from(self.jiffies.wrapping_sub(then)) / u64::from(self.hz.max(1)))
    }

    pub(super) fn milliseconds_since(&self, then: u32) -> u64 {
        u64::from(self.jiffies.wrapping_sub(then)) * 1000 / u64::from(self.hz.max(1))
    }

    /// Jiffies `age` seconds ago.
    pub(super) fn opened(&self, age: u16) -> u32 {
        self.jiffies.wrapping_sub(u32::from(age).wrapping_mul(self.hz))
    }
}

fn saturated(seconds: u64) -> u16 {
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_ticks_agree_at_every_rate() {
        for hz in [100, 250, 300, 1000] {
            let now = Moment::new(5_000_000, hz);
            for seconds in [0, 1, 2, 30, 600, 9000] {
                let back = now.seconds_of_ticks(now.ticks(seconds));
                assert!(back <= seconds && seconds - back <= 1, "{seconds} s became {back} at {hz} Hz");
                assert_eq!(now.seconds_since(now.opened(seconds)), seconds);
            }
            assert_eq!(now.seconds_of_ticks(u32::MAX), u16::MAX);
        }
    }

    #[test]
    fn a_clock_that_wrapped_still_tells_differences() {
        let now = Moment::new(50, 100);
        assert_eq!(now.seconds_since(50u32.wrapping_sub(300)), 3);
        assert_eq!(now.milliseconds_since(50u32.wrapping_sub(25)), 250);
    }
}
