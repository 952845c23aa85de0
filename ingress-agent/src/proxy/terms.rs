//! How a route asks its backends, and what its requests must meet. Most of thousands of routes say the same, so they share one of these: it is
//! warm in the cache when a request comes to a route that nobody has used for a while.

use std::sync::Arc;

use crate::model::policy::Policy;
use crate::model::route::{Balance, Retry, Route, Timeouts};

/// Of a route, what every request needs.
#[derive(Default)]
pub(super) struct Terms {
    pub(super) timeouts: Timeouts,
    pub(super) retry: Retry,
    pub(super) balance: Balance,
    pub(super) max_body: Option<u64>,
    pub(super) policy: Option<Arc<Policy>>,
}

impl Terms {
    fn new(route: &Route) -> Self {
        let Route { timeouts, retry, balance, max_body, .. } = *route;
        Self { timeouts, retry, balance, max_body, policy: route.policy.clone() }
    }

    fn are_those_of(&self, route: &Route) -> bool {
        // Equal policies are one, where there are many of them: the plan sees to that.
        let same_policy = self.policy.as_ref().map(Arc::as_ptr) == route.policy.as_ref().map(Arc::as_ptr);
        let Route { timeouts, retry, balance, max_body, .. } = *route;
        same_policy && (self.timeouts, self.retry, self.balance, self.max_body) == (timeouts, retry, balance, max_body)
    }
}

/// Those that routes share.
#[derive(Default)]
pub(super) struct SharedTerms(Vec<Arc<Terms>>);

impl SharedTerms {
    /// How many are looked for: whatever else there is differs from one route to the next.
    const MOST: usize = 32;

    pub(super) fn of(&mut self, route: &Route) -> Arc<Terms> {
        if let Some(known) = self.0.iter().find(|known| known.are_those_of(route)) {
            return Arc::clone(known);
        }
        let terms = Arc::new(Terms::new(route));
        if self.0.len() < Self::MOST {
            self.0.push(Arc::clone(&terms));
        }
        terms
    }

    /// Those that no route has any more make room.
    pub(super) fn forget_unused(&mut self) {
        self.0.retain(|terms| Arc::strong_count(terms) > 1);
    }
}
