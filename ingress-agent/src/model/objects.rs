//! A sorted set of named objects that shares all but the changed part with its clones, so that one change among many
//! objects costs neither a copy of all nor a comparison of all. Not a general map: the name is inside the object.

use std::cmp::Ordering;
use std::sync::Arc;

/// Objects a leaf holds at most; a full one splits in two. The root of 10,000 objects then has about 200 leaves.
const LEAF: usize = 96;

/// What a set sorts by.
pub trait Named {
    type Name: Ord;

    fn name(&self) -> &Self::Name;
}

type Leaf<T> = Arc<Vec<Arc<T>>>;

/// What an object was and what it is; never nothing twice.
pub type Change<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

/// Leaves are sorted and never empty.
#[derive(Debug)]
pub struct Objects<T> {
    leaves: Arc<Vec<Leaf<T>>>,
    len: usize,
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Self { leaves: Arc::clone(&self.leaves), len: self.len }
    }
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self { leaves: Arc::default(), len: 0 }
    }
}

/// Pointers first: equal sets usually share their leaves.
impl<T: PartialEq> PartialEq for Objects<T> {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
            || (self.len == other.len && self.iter().zip(other.iter()).all(|(a, b)| Arc::ptr_eq(a, b) || a == b))
    }
}

impl<T> Objects<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both are clones of one set with no change since. `false` does not mean that they differ.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.leaves, &other.leaves)
    }

    /// All objects, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.leaves.iter().flat_map(|leaf| leaf.iter())
    }
}

impl<T: Named> Objects<T> {
    pub fn find(&self, name: &T::Name) -> Option<&Arc<T>> {
        let leaf = self.leaves.get(self.leaf_of(name))?;
        let at = leaf.binary_search_by(|o| o.name().cmp(name)).ok()?;
        leaf.get(at)
    }

    /// Adds the object, or replaces the one of its name.
    pub fn insert(&mut self, object: Arc<T>) {
        let at = self.leaf_of(object.name());
        let leaves = Arc::make_mut(&mut self.leaves);
        if leaves.is_empty() {
            leaves.push(Arc::default());
        }
        let leaf = Arc::make_mut(&mut leaves[at]);
        match leaf.binary_search_by(|o| o.name().cmp(object.name())) {
            Ok(i) => leaf[i] = object,
            Err(i) => {
                leaf.insert(i, object);
                self.len += 1;
            }
        }
        if leaf.len() > LEAF {
            let upper = leaf.split_off(LEAF / 2);
            leaves.insert(at + 1, Arc::new(upper));
        }
    }

    pub fn remove(&mut self, name: &T::Name) -> Option<Arc<T>> {
        let at = self.leaf_of(name);
        let i = self.leaves.get(at)?.binary_search_by(|o| o.name().cmp(name)).ok()?;
        let leaves = Arc::make_mut(&mut self.leaves);
        let leaf = Arc::make_mut(&mut leaves[at]);
        let removed = leaf.remove(i);
        if leaf.is_empty() {
            leaves.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }

    /// What became another object since `before`, as pairs of what was and what is. Parts that both share are passed over
    /// unseen, so the cost is that of the change.
    pub fn changes<'a>(&'a self, before: &'a Self) -> Vec<Change<'a, T>> {
        let (mut old, mut new) = (Place::new(before), Place::new(self));
        let mut changes = Vec::new();
        loop {
            if let (Some(a), Some(b)) = (old.whole_leaf(), new.whole_leaf())
                && Arc::ptr_eq(a, b)
            {
                old.pass_leaf();
                new.pass_leaf();
                continue;
            }
            let (a, b) = (old.object(), new.object());
            let order = match (a, b) {
                (None, None) => return changes,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.name().cmp(b.name()),
            };
            match order {
                Ordering::Less => changes.push((a, None)),
                Ordering::Greater => changes.push((None, b)),
                Ordering::Equal if a.map(Arc::as_ptr) != b.map(Arc::as_ptr) => changes.push((a, b)),
                Ordering::Equal => {}
            }
            if order.is_le() {
                old.pass();
            }
            if order.is_ge() {
                new.pass();
            }
        }
    }

    /// Index of the leaf that holds `name`, or would.
    fn leaf_of(&self, name: &T::Name) -> usize {
        let above = self.leaves.partition_point(|leaf| leaf.first().is_some_and(|first| first.name() <= name));
        above.saturating_sub(1)
    }
}

/// How far a walk over all objects has come.
struct Place<'a, T> {
    leaves: &'a [Leaf<T>],
    leaf: usize,
    at: usize,
}

impl<'a, T> Place<'a, T> {
    fn new(objects: &'a Objects<T>) -> Self {
        Self { leaves: &objects.leaves, leaf: 0, at: 0 }
    }

    fn object(&self) -> Option<&'a Arc<T>> {
        self.leaves.get(self.leaf)?.get(self.at)
    }

    /// The leaf that the walk is about to begin.
    fn whole_leaf(&self) -> Option<&'a Leaf<T>> {
        self.leaves.get(self.leaf).filter(|_| self.at == 0)
    }

    fn pass_leaf(&mut self) {
        (self.leaf, self.at) = (self.leaf + 1, 0);
    }

    fn pass(&mut self) {
        self.at += 1;
        if self.leaves.get(self.leaf).is_some_and(|leaf| leaf.len() <= self.at) {
            self.pass_leaf();
        }
    }
}

impl<T: Named> FromIterator<Arc<T>> for Objects<T> {
    fn from_iter<I: IntoIterator<Item = Arc<T>>>(objects: I) -> Self {
        let mut set = Self::default();
        for object in objects {
            set.insert(object);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::ObjectName;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq)]
    struct Item(ObjectName, u64);

    impl Named for Item {
        type Name = ObjectName;

        fn name(&self) -> &ObjectName {
            &self.0
        }
    }

    #[test]
    fn behaves_as_a_sorted_map_and_leaves_clones_alone() {
        let (mut set, mut model) = (Objects::default(), BTreeMap::new());
        let mut before = Vec::new();
        let mut state = 7_u64;
        for step in 0..20_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = ObjectName::new("n", format!("{}", (state >> 33) % 1500));
            if state >> 63 == 0 || model.len() < 300 {
                set.insert(Arc::new(Item(name.clone(), step)));
                model.insert(name, step);
            } else {
                let removed = set.remove(&name).map(|i| i.1);
                assert_eq!(removed, model.remove(&name));
            }
            assert_eq!(set.len(), model.len());
            if step % 1000 == 0 {
                before.push((set.clone(), model.clone()));
            }
        }
        before.push((set, model));
        for pair in before.windows(2) {
            let ((old_set, old), (new_set, new)) = (&pair[0], &pair[1]);
            let found: Vec<_> =
                new_set.changes(old_set).iter().map(|(a, b)| (a.map(|i| i.1), b.map(|i| i.1))).collect();
            let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            let both = names.into_iter().map(|name| (old.get(name).copied(), new.get(name).copied()));
            assert_eq!(found, both.filter(|(a, b)| a != b).collect::<Vec<_>>());
        }
        for (set, model) in before {
            assert!(set.iter().map(|i| (&i.0, &i.1)).eq(model.iter()));
            assert!(model.iter().all(|(name, v)| set.find(name).is_some_and(|i| i.1 == *v)));
        }
    }

    #[test]
    fn sameness_ends_with_a_change() {
        let mut a: Objects<Item> = (0..500).map(|i| Arc::new(Item(ObjectName::new("", format!("{i}")), i))).collect();
        let b = a.clone();
        assert!(a.same(&b) && a == b);
        a.insert(Arc::new(Item(ObjectName::new("", "7"), 8)));
        assert!(!a.same(&b) && a != b);
    }
}
