//! What checks in a row come to. Pure.

use crate::model::policy::HealthCheck;

/// Of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) well: bool,
    /// Checks in a row that say the opposite.
    against: u32,
    checked: bool,
}

/// An endpoint that has not been checked serves: whoever called it ready had a reason.
impl Default for Verdict {
    fn default() -> Self {
        Self { well: true, against: 0, checked: false }
    }
}

impl Verdict {
    /// True if the endpoint is now thought of otherwise. The first check decides alone (as HAProxy's does): a newcomer that is ill
    /// must not get requests for the time of several checks.
    pub(super) fn add(&mut self, check: &HealthCheck, passed: bool) -> bool {
        let first = !std::mem::replace(&mut self.checked, true);
        if passed == self.well {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = match passed {
            _ if first => 1,
            true => check.healthy,
            false => check.unhealthy,
        };
        if self.against < needed {
            return false;
        }
        (self.well, self.against) = (passed, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::policy::Probe;

    #[test]
    fn thresholds_count_checks_in_a_row() {
        let second = Duration::from_secs(1);
        let check =
            HealthCheck { probe: Probe::Tcp, port: None, interval: second, timeout: second, healthy: 2, unhealthy: 3 };
        // Checks, and what is thought after each.
        for (checks, thought) in [
            ("++++", "++++"),
            ("+--+--+---", "+++++++++-"),
            ("+---+-+-++", "+++------+"),
            // The first one decides alone, whatever it says.
            ("-", "-"),
            ("-++", "--+"),
        ] {
            let mut verdict = Verdict::default();
            let mut said = String::new();
            for check_passed in checks.chars().map(|c| c == '+') {
                verdict.add(&check, check_passed);
                said.push(if verdict.well { '+' } else { '-' });
            }
            assert_eq!(said, thought, "{checks}");
        }
    }
}
