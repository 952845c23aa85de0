//! The certificates that we make for ourselves, and when the next step is due. Pure but for the making of keys: the time is an
//! argument.
//!
//! No gap: a new authority is told to the API server long before its certificate is served, and the old one long after. Each step
//! is due at a share of the certificate's own life, so the steps need no option.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::pair::{LIFE, Pair};

/// The next certificate is made, and its authority trusted, from this share of a life on.
const PREPARE: f64 = 2.0 / 3.0;
/// It is served from this share on: 15 of 90 days later, and as long before the old one ends.
const SERVE: f64 = 5.0 / 6.0;

/// What is kept in the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Served.
    pub(super) current: Pair,
    /// Trusted already.
    pub(super) next: Option<Pair>,
    /// Authority of the certificate that was served before: some replica may serve it for a few seconds more.
    pub(super) retired: Option<String>,
}

/// A ring to be kept instead, and why.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) ring: Ring,
    pub(super) why: String,
}

impl Ring {
    pub(super) fn new(names: &[String], now: SystemTime) -> Result<Self> {
        Ok(Self { current: Pair::make(names, now, LIFE)?, next: None, retired: None })
    }

    /// Every authority to be trusted, as PEM.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| &next.authority);
        let mut bundle = String::new();
        for authority in [Some(&self.current.authority), next, self.retired.as_ref()].into_iter().flatten() {
            bundle.push_str(authority.trim_end());
            bundle.push('\n');
        }
        bundle
    }

    /// The step that is due. `trusted` is the bundle that the API server has: what it does not trust is not served.
    pub(super) fn step(&self, names: &[String], trusted: &str, now: SystemTime) -> Result<Option<Step>> {
        let current = &self.current;
        if !current.is_for(names) {
            let why = format!("the certificate is not for {}: a new one is made", names.join(", "));
            return Ok(Some(Step { ring: Self::new(names, now)?, why }));
        }
        let expired = now >= current.not_after;
        if expired && self.next.as_ref().is_none_or(|next| now >= next.not_after || !next.is_for(names)) {
            let ago = now.duration_since(current.not_after).unwrap_or_default().as_secs();
            let why = format!("the certificate expired {ago} s ago: a new one is made");
            return Ok(Some(Step { ring: Self::new(names, now)?, why }));
        }
        let spent = current.spent(now);
        match &self.next {
            None if spent >= PREPARE => {
                // As long a life as the one before, which was ours to choose.
                let next = Pair::make(names, now, LIFE)?;
                let ring = Self { next: Some(next), ..self.clone() };
                let why = "the certificate nears its end: the next one is made, and its authority trusted from now on";
                Ok(Some(Step { ring, why: why.to_owned() }))
            }
            Some(next) if expired || (spent >= SERVE && trusted.contains(next.authority.trim())) => {
                let retired = Some(current.authority.clone());
                let ring = Self { current: next.clone(), next: None, retired };
                Ok(Some(Step { ring, why: "the next certificate takes over".to_owned() }))
            }
            _ => Ok(None),
        }
    }

    /// How long until something is due; `most` at most.
    pub(super) fn wait(&self, now: SystemTime, most: Duration) -> Duration {
        let life = self.current.not_after.duration_since(self.current.not_before).unwrap_or_default();
        let until = |share: f64| (self.current.not_before + life.mul_f64(share)).duration_since(now).ok();
        let steps = [until(PREPARE), until(SERVE), until(1.0)];
        steps.into_iter().flatten().min().unwrap_or(most).clamp(Duration::from_millis(200), most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["sluicegate-webhook.sluicegate-system.svc".to_owned()]
    }

    #[test]
    fn a_certificate_is_followed_by_one_that_was_trusted_before() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let day = |n: u64| start + Duration::from_hours(24 * n);
        let first = Ring::new(&names(), start).unwrap();
        assert!(first.step(&names(), "", day(59)).unwrap().is_none());
        let prepared = first.step(&names(), "", day(61)).unwrap().expect("the next is made").ring;
        assert_eq!(prepared.current, first.current);
        assert!(prepared.bundle().starts_with(first.bundle().trim_end()));
        assert_eq!(prepared.bundle().matches("BEGIN CERTIFICATE").count(), 2);
        // Not before its authority is trusted.
        assert!(prepared.step(&names(), &prepared.bundle(), day(74)).unwrap().is_none());
        assert!(prepared.step(&names(), &first.bundle(), day(76)).unwrap().is_none());
        let served = prepared.step(&names(), &prepared.bundle(), day(76)).unwrap().expect("it takes over").ring;
        assert_eq!(Some(&served.current), prepared.next.as_ref());
        // Whoever still serves the old one is trusted.
        assert!(served.bundle().contains(first.current.authority.trim()));
        assert!(served.step(&names(), &served.bundle(), day(90)).unwrap().is_none());
        assert!(served.step(&names(), &served.bundle(), day(61 + 61)).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_served_is_replaced_at_once() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let ring = Ring::new(&names(), start).unwrap();
        let step = ring.step(&names(), "", start + LIFE + Duration::from_secs(7)).unwrap().expect("a new one");
        assert!(step.why.contains("expired 7 s ago"), "{}", step.why);
        assert_eq!(step.ring.bundle().matches("BEGIN CERTIFICATE").count(), 1);
        let other = vec!["other.ns.svc".to_owned()];
        let step = ring.step(&other, "", start).unwrap().expect("a new one");
        assert!(step.why.contains("not for other.ns.svc") && step.ring.current.is_for(&other), "{}", step.why);
        // The next one was ready, but nobody was there to serve it in time.
        let late = Ring { next: Some(Pair::make(&names(), start + LIFE, LIFE).unwrap()), ..ring.clone() };
        let step = late.step(&names(), "", start + LIFE).unwrap().expect("the next one");
        assert_eq!(Some(step.ring.current), late.next);
    }
}
