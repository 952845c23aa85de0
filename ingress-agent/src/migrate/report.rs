//! The verdicts, for people (`text`) and programs (`-o json`). Field names are promised.

use serde::Serialize;

use crate::model::difference::{Difference, Row};

/// The worst that was found of a thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    #[default]
    Same,
    Differs,
    Unsupported,
}

impl Verdict {
    pub fn text(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Unsupported => "unsupported",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was read.
    pub source: String,
    pub ingresses: Vec<Judged>,
    /// `None`: there is no ConfigMap of settings.
    pub settings: Option<Group>,
    /// `None`: no controller was found.
    pub flags: Option<Group>,
    /// Options of `sluicegate run` that do what the flags did.
    pub options: Vec<String>,
    /// Ingresses of other classes.
    pub passed_over: Vec<PassedOver>,
    /// Of other objects that Ingresses use.
    pub others: Vec<String>,
    pub notes: Vec<String>,
    /// What could not be read.
    pub errors: Vec<String>,
    /// How HTTP itself is treated otherwise, whatever the objects say.
    pub everybody: Vec<Deliberate>,
    pub summary: Summary,
}

/// One Ingress, one key, or one flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Judged {
    pub name: String,
    /// `shop.yaml, document 2`; empty for a cluster's.
    pub place: String,
    pub verdict: Verdict,
    pub findings: Vec<Found>,
}

/// What was found of it, also of what stays the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Found {
    pub verdict: Verdict,
    /// `metadata.annotations[…]`; empty: the whole.
    pub field: String,
    pub reason: String,
    /// What to do about something unsupported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// The row of the table of differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Deliberate>,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Deliberate {
    pub here: &'static str,
    pub there: &'static str,
    pub why: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// `ConfigMap ingress-nginx/ingress-nginx-controller`.
    pub name: String,
    pub place: String,
    pub items: Vec<Judged>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    pub name: String,
    pub place: String,
    pub class: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub ingresses: Count,
    pub settings: Count,
    pub flags: Count,
    pub exit_code: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub same: usize,
    pub differs: usize,
    pub unsupported: usize,
}

/// Of a report that is not about all, and of a command that could not be understood.
pub const INCOMPLETE: u8 = 3;

impl From<Difference> for Deliberate {
    fn from(difference: Difference) -> Self {
        let Row { here, there, why, .. } = difference.row();
        Self { here, there, why }
    }
}

impl Judged {
    pub(super) fn new(name: String, place: String, mut findings: Vec<Found>) -> Self {
        findings.sort_by(|a, b| b.verdict.cmp(&a.verdict).then_with(|| a.cmp(b)));
        findings.dedup();
        let verdict = findings.iter().map(|f| f.verdict).max().unwrap_or_default();
        Self { name, place, verdict, findings }
    }
}

impl Count {
    fn of(items: &[Judged]) -> Self {
        let count = |wanted| items.iter().filter(|item| item.verdict == wanted).count();
        Self { same: count(Verdict::Same), differs: count(Verdict::Differs), unsupported: count(Verdict::Unsupported) }
    }

    pub fn all(self) -> usize {
        self.same + self.differs + self.unsupported
    }
}

impl Report {
    /// 0: all is the same. 1: something differs. 2: something is not supported. 3: something could not be read.
    pub(super) fn summed(mut self) -> Self {
        let of = |group: &Option<Group>| group.as_ref().map_or(Count::default(), |group| Count::of(&group.items));
        let (ingresses, settings, flags) = (Count::of(&self.ingresses), of(&self.settings), of(&self.flags));
        let any = |count: fn(&Count) -> usize| [ingresses, settings, flags].iter().any(|c| count(c) > 0);
        let exit_code = if !self.errors.is_empty() {
            INCOMPLETE
        } else if any(|c| c.unsupported) {
            2
        } else {
            u8::from(any(|c| c.differs))
        };
        self.summary = Summary { ingresses, settings, flags, exit_code };
        self
    }
}
