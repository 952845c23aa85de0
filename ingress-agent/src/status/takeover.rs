//! Which node answers for an address, and when that is another one than before. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ledger::Key;
use super::notices::Notice;
use crate::model::snapshot::ObjectName;

/// Services of one address that are told of a move; a thousand that share one would be told a thousand times.
pub(super) const MOST: usize = 20;

/// Who announced each address last. An address that nobody announces for a while keeps its last holders.
#[derive(Debug, Default)]
pub(super) struct Holders {
    last: BTreeMap<IpAddr, BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) address: IpAddr,
    from: BTreeSet<String>,
    to: BTreeSet<String>,
}

impl Holders {
    /// A node that comes to an address beside another one is news only when the other has left.
    pub(super) fn moved(&mut self, now: BTreeMap<IpAddr, BTreeSet<String>>) -> Vec<Moved> {
        let mut moved = Vec::new();
        for (address, to) in now {
            match self.last.get_mut(&address) {
                Some(from) if *from == to => {}
                Some(from) => {
                    if from.is_disjoint(&to) {
                        moved.push(Moved { address, from: from.clone(), to: to.clone() });
                    }
                    *from = to;
                }
                None => drop(self.last.insert(address, to)),
            }
        }
        moved
    }
}

impl Moved {
    pub(super) fn text(&self) -> String {
        let words = |nodes: &BTreeSet<String>| nodes.iter().cloned().collect::<Vec<_>>().join(", ");
        format!("{} is announced by {} now, and no longer by {}", self.address, words(&self.to), words(&self.from))
    }

    /// For the nodes that have it, and for these Services.
    pub(super) fn notices(&self, services: Vec<(String, Key)>) -> Vec<Notice> {
        let notice = |kind: &str, name: ObjectName, uid: String| Notice {
            kind: kind.to_owned(),
            name,
            uid,
            warning: false,
            reason: "AddressTakeover",
            note: self.text(),
        };
        // `kubectl describe node` looks for a node's Events by its name in place of its uid, as the kubelet writes them.
        let nodes = self.to.iter().map(|n| notice("Node", ObjectName::new("", n.as_str()), n.clone()));
        let services = services.into_iter().map(|(uid, key)| notice(key.0.name(), key.1, uid));
        nodes.chain(services).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_told_when_nobody_of_those_before_is_left() {
        let mut holders = Holders::default();
        for (now, moved) in [
            ("", ""),
            ("a", ""),
            ("a", ""),
            ("a b", ""),
            ("b", ""),
            // Nobody, for a moment.
            ("", ""),
            ("c", "10.0.0.1 is announced by c now, and no longer by b"),
            ("", ""),
            ("c", ""),
        ] {
            let nodes: BTreeSet<String> = now.split_whitespace().map(str::to_owned).collect();
            let address: IpAddr = "10.0.0.1".parse().expect("an address");
            let all = if nodes.is_empty() { BTreeMap::new() } else { BTreeMap::from([(address, nodes)]) };
            let told: Vec<String> = holders.moved(all).iter().map(Moved::text).collect();
            assert_eq!(told.join(";"), moved, "now {now:?}");
        }
    }
}
