//! One policy for all Ingresses that ask for the same. Most of 10,000 ask for nothing at all, and each would have its own copy of that.

use std::sync::Arc;

use crate::model::policy::Policy;

/// How many are looked for: whatever else there is differs from one Ingress to the next.
const MOST: usize = 16;

#[derive(Clone, Debug, Default)]
pub(super) struct Policies(Vec<Arc<Policy>>);

impl Policies {
    /// For the plan after this one.
    pub(super) fn in_use(&self) -> Self {
        Self(self.0.iter().filter(|policy| Arc::strong_count(policy) > 1).map(Arc::clone).collect())
    }

    pub(super) fn share(&mut self, policy: &mut Arc<Policy>) {
        match self.0.iter().find(|known| *known == policy) {
            Some(known) => *policy = Arc::clone(known),
            None if self.0.len() < MOST => self.0.push(Arc::clone(policy)),
            None => {}
        }
    }
}
