//! Why something was not taken. A rejection concerns one object (or a part of it) and nothing else; the owner can read from
//! it what to change, and where.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::snapshot::ObjectName;

/// A [`Finding`] that is shared: it goes from the facts through the parts of the plan into every snapshot, and there may be as many as
/// objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejection(Arc<Finding>);

/// Ordered by what an operator looks for first: kind, name, place, field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `Service`, `Ingress`, … as in the manifest; `File` where not even that could be read.
    pub kind: String,
    pub name: ObjectName,
    /// Where it was read: `shop.yaml, document 2`, or empty for objects from the API server.
    pub place: String,
    /// Path of the field: `spec.rules[0].http.paths[1].path`. Empty for the whole object.
    pub field: String,
    /// What is wrong and what would be right, without a full stop.
    pub reason: String,
    pub severity: Severity,
    /// Of the object, where it came from an API server.
    pub uid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// This part does not serve (or its last good state does).
    Rejected,
    /// It serves, but somebody should know (an expired certificate).
    Warning,
}

impl From<Finding> for Rejection {
    fn from(finding: Finding) -> Self {
        Self(Arc::new(finding))
    }
}

impl Deref for Rejection {
    type Target = Finding;

    fn deref(&self) -> &Finding {
        &self.0
    }
}

impl Rejection {
    /// Says more in the reason.
    pub fn add(&mut self, words: &str) {
        Arc::make_mut(&mut self.0).reason += words;
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{} {}", self.kind, self.name)?;
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}
