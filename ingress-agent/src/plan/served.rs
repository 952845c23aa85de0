//! Lists of what is served where, made so that what did not change is the same `Arc` as before.

use std::net::IpAddr;
use std::sync::Arc;

use super::keep;
use crate::model::pool_state::{PoolState, PoolVerdict};
use crate::model::rejection::{Rejection, Severity};
use crate::model::snapshot::{ObjectName, ServedObject};

/// An object and its addresses.
pub(super) type At<'a> = (&'a ObjectName, Arc<[IpAddr]>);

/// `now` comes sorted by name. An object without an address is not in the list.
pub(super) fn list<'a>(
    now: impl Iterator<Item = At<'a>>,
    last: Option<&Arc<Vec<Arc<ServedObject>>>>,
) -> Arc<Vec<Arc<ServedObject>>> {
    let before = last.map(|l| l.as_slice()).unwrap_or_default();
    let mut old = before.iter().peekable();
    let mut list = Vec::with_capacity(before.len());
    let mut same = true;
    for (name, addresses) in now.filter(|(_, addresses)| !addresses.is_empty()) {
        while old.next_if(|o| o.name < *name).is_some() {
            same = false;
        }
        let kept = old.next_if(|o| o.name == *name).filter(|o| o.addresses == addresses);
        same &= kept.is_some();
        list.push(match kept {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(ServedObject { name: name.clone(), addresses }),
        });
    }
    match last.filter(|_| same && old.next().is_none()) {
        Some(last) => Arc::clone(last),
        None => Arc::new(list),
    }
}

/// A list in which these became others, as what each was and what it is.
pub(super) fn changed<'a>(
    changes: impl Iterator<Item = (Option<At<'a>>, Option<At<'a>>)>,
    last: &Arc<Vec<Arc<ServedObject>>>,
) -> Arc<Vec<Arc<ServedObject>>> {
    let mut list = Arc::clone(last);
    for (was, is) in changes {
        let was = was.filter(|(_, addresses)| !addresses.is_empty());
        let is = is.filter(|(_, addresses)| !addresses.is_empty());
        let Some((name, _)) = was.as_ref().or(is.as_ref()) else { continue };
        let at = list.binary_search_by(|object| object.name.cmp(name));
        match (at, is) {
            (Ok(at), Some((_, addresses))) if list[at].addresses == addresses => {}
            (Ok(at), Some((name, addresses))) => {
                Arc::make_mut(&mut list)[at] = Arc::new(ServedObject { name: name.clone(), addresses });
            }
            (Err(at), Some((name, addresses))) => {
                Arc::make_mut(&mut list).insert(at, Arc::new(ServedObject { name: name.clone(), addresses }));
            }
            (Ok(at), None) => drop(Arc::make_mut(&mut list).remove(at)),
            (Err(_), None) => {}
        }
    }
    list
}

/// The pools, with those that could not be parsed. `now` is sorted by name.
pub(super) fn pools(
    now: &Arc<Vec<PoolState>>,
    rejections: &[Rejection],
    last: Option<&Arc<Vec<PoolState>>>,
) -> Arc<Vec<PoolState>> {
    let broken = |r: &&Rejection| r.kind == "VirtualIPPool" && r.severity == Severity::Rejected;
    let mut broken = rejections.iter().filter(broken).peekable();
    if broken.peek().is_none() {
        return Arc::clone(now);
    }
    let mut all = now.to_vec();
    for rejection in broken {
        let message = format!("{}: {}", rejection.field, rejection.reason);
        let verdict = PoolVerdict::Invalid;
        match all.binary_search_by(|state| state.name.cmp(&rejection.name)) {
            // Its last good state gives addresses on.
            Ok(at) => {
                let Some(state) = all.get_mut(at) else { continue };
                if state.verdict != verdict {
                    (state.verdict, state.message, state.generation) = (verdict, message, 0);
                }
            }
            Err(at) => {
                let (name, uid) = (rejection.name.clone(), rejection.uid.clone());
                let (ranges, v4, v6) = (Vec::new(), None, None);
                all.insert(at, PoolState { name, uid, generation: 0, ranges, verdict, message, v4, v6 });
            }
        }
    }
    keep(all, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(objects: &[(&str, &str)], last: Option<&Arc<Vec<Arc<ServedObject>>>>) -> Arc<Vec<Arc<ServedObject>>> {
        let objects: Vec<_> = objects.iter().map(|(n, a)| (ObjectName::new("ns", *n), *a)).collect();
        let addresses = |text: &str| text.split_whitespace().map(|a| a.parse().expect("an address")).collect();
        list(objects.iter().map(|(n, a)| (n, addresses(a))), last)
    }

    #[test]
    fn what_did_not_change_is_the_same() {
        let first = made(&[("a", "10.0.0.1"), ("b", "10.0.0.1"), ("c", "10.0.0.2 fd00::2"), ("d", "")], None);
        assert_eq!(first.len(), 3, "without an address there is nothing to say");
        let again = made(&[("a", "10.0.0.1"), ("b", "10.0.0.1"), ("c", "10.0.0.2 fd00::2")], Some(&first));
        assert!(Arc::ptr_eq(&first, &again));
        for (objects, kept) in [
            (&[("a", "10.0.0.1"), ("b", "10.0.0.9"), ("c", "10.0.0.2 fd00::2")][..], 2),
            (&[("a", "10.0.0.1"), ("c", "10.0.0.2 fd00::2")][..], 2),
            (&[("b", "10.0.0.1"), ("c", "10.0.0.2 fd00::2")][..], 2),
            (&[("a", "10.0.0.1"), ("b", "10.0.0.1")][..], 2),
            (&[("a", "10.0.0.1"), ("b", "10.0.0.1"), ("bb", "10.0.0.1"), ("c", "10.0.0.2 fd00::2")][..], 3),
            (&[][..], 0),
        ] {
            let now = made(objects, Some(&first));
            assert!(!Arc::ptr_eq(&first, &now), "{objects:?}");
            assert_eq!(now.len(), objects.len());
            let shared = now.iter().filter(|o| first.iter().any(|f| Arc::ptr_eq(f, o))).count();
            assert_eq!(shared, kept, "{objects:?}");
        }
    }
}
