//! A map of few entries in one allocation that is no larger than they are.
//!
//! A B-tree takes room for eleven entries where there is one; most Services have one front.

use std::ops::Index;

/// Pairs, sorted by key, each key once. Finding is a binary search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallMap<K, V>(Box<[(K, V)]>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap(Box::default())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let index = self.0.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        Some(&self.0[index].1)
    }
}

impl<K, V> SmallMap<K, V> {
    /// The keys in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SmallMap<K, V> {
    /// Of equal keys the first counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(K, V)> = pairs.into_iter().collect();
        // Order: the sort is stable, so that the first of equal keys stays the first.
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(later, _), (kept, _)| later == kept);
        SmallMap(pairs.into_boxed_slice())
    }
}

impl<K: Ord, V> Index<&K> for SmallMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the key is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sorted_and_keeps_the_first_of_equal_keys() {
        let map: SmallMap<u16, &str> = [(443, "b"), (80, "a"), (443, "c")].into_iter().collect();
        assert_eq!(map.keys().collect::<Vec<_>>(), [&80, &443]);
        assert_eq!(map.values().collect::<Vec<_>>(), [&"a", &"b"]);
        assert_eq!((map.get(&443), map.get(&81)), (Some(&"b"), None));
    }
}
