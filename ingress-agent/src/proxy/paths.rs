//! The exact paths and prefixes of one host. Laid out so that a request meets few places in memory that nobody has been at lately: with
//! thousands of hosts each look-up would wait for memory several times. A path's bytes, and what is known of it, stand in the table itself.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::hosts::CompiledRoute;
use crate::model::route::PathMatch;

/// Most hosts have no more paths.
const FEW: usize = 6;

/// In this order: its first lines are the host's.
#[repr(C)]
pub(super) struct Paths {
    /// Longer paths, and longer parts of a path, need no look-up.
    longest: usize,
    longest_prefix: Option<usize>,
    /// No prefix comes before what is longer: the first to hold, from the longest on, is the first of all.
    longest_first: bool,
    known: Known,
}

/// A whole path, or a prefix without a trailing slash.
type Path = SmallVec<[u8; 16]>;

/// In the routes' order.
type Entries = SmallVec<[Entry; 1]>;

#[expect(clippy::large_enum_variant, reason = "nearly all hosts are of the large one, which is to stand in the host")]
enum Known {
    /// Beside each other in memory, and compared one after another.
    Few(SmallVec<[(Path, Entries); FEW]>),
    Many(HashMap<Path, Entries, RandomState>),
}

pub(super) struct Entry {
    /// Among the host's routes.
    pub(super) number: u32,
    exact: bool,
    pub(super) route: Arc<CompiledRoute>,
}

impl Paths {
    pub(super) fn new(routes: &[Arc<CompiledRoute>]) -> Self {
        let mut known: HashMap<Path, Entries, RandomState> = HashMap::default();
        let (mut longest, mut longest_prefix) = (0, None);
        for (number, route) in routes.iter().enumerate() {
            let (path, exact) = match &route.route.matches.path {
                PathMatch::Exact(path) => (path.as_bytes(), true),
                PathMatch::Prefix(path) => (path.as_bytes(), false),
                PathMatch::Regex { .. } => continue,
            };
            longest = longest.max(path.len());
            if !exact {
                longest_prefix = longest_prefix.max(Some(path.len()));
            }
            let entry = Entry { number: number as u32, exact, route: Arc::clone(route) };
            known.entry(path.into()).or_default().push(entry);
        }
        let known = if known.len() <= FEW { Known::Few(known.into_iter().collect()) } else { Known::Many(known) };
        let mut paths = Self { longest, longest_prefix, longest_first: false, known };
        let late = |path: &Path, of: &Entries| {
            let last = of.last().map_or(0, |entry| entry.number);
            paths.prefixes_of(path).any(|prefix| prefix.iter().any(|entry| !entry.exact && entry.number < last))
        };
        paths.longest_first = !match &paths.known {
            Known::Few(all) => all.iter().any(|(path, of)| late(path, of)),
            Known::Many(all) => all.iter().any(|(path, of)| late(path, of)),
        };
        paths
    }

    /// The first that has this path and whose route `holds`. No more look-ups than the longest prefix has elements, whatever the client sends.
    pub(super) fn first(&self, path: &[u8], holds: impl Fn(&CompiledRoute) -> bool) -> Option<&Entry> {
        let whole = if path.len() <= self.longest { self.known.get(path) } else { None };
        let mut best = whole.into_iter().flatten().find(|entry| holds(&entry.route));
        for prefix in self.prefixes_of(path) {
            if best.is_some() && self.longest_first {
                break;
            }
            let mut sooner = prefix.iter().take_while(|entry| best.is_none_or(|best| entry.number < best.number));
            best = sooner.find(|entry| !entry.exact && holds(&entry.route)).or(best);
        }
        best
    }

    /// What is known of the path cut at each end of an element, the longest part first.
    fn prefixes_of(&self, path: &[u8]) -> impl Iterator<Item = &Entries> {
        let mut end = self.longest_prefix.map_or(0, |longest| path.len().min(longest + 1));
        let parts = std::iter::from_fn(move || {
            end = path[..end].iter().rposition(|&byte| byte == b'/')?;
            Some(&path[..end])
        });
        parts.filter_map(|part| self.known.get(part))
    }
}

impl Known {
    fn get(&self, path: &[u8]) -> Option<&Entries> {
        match self {
            Self::Few(all) => all.iter().find(|(known, _)| known[..] == *path).map(|(_, of)| of),
            Self::Many(all) => all.get(path),
        }
    }
}
