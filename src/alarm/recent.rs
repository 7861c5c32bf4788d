//! A bounded map of what was used lately.

use std::collections::HashMap;
use std::hash::Hash;

/// A map of at most `cap` entries, which forgets those that were not used lately. It has two generations.
/// When the young one is as large as half the cap, it becomes the old one. Entries of the old one that
/// have not been used since are forgotten. Each use takes constant time, unlike a search for the oldest.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V: Default> Recent<K, V> {
    pub(super) fn new(cap: usize) -> Recent<K, V> {
        Recent { young: HashMap::new(), old: HashMap::new(), half: (cap / 2).max(1) }
    }

    pub(super) fn entry(&mut self, key: K) -> &mut V {
        if !self.young.contains_key(&key) && self.young.len() >= self.half {
            // Taken out first, or it would be forgotten in the moment it is used.
            let kept = self.old.remove(&key);
            self.old = std::mem::take(&mut self.young);
            return self.young.entry(key).or_insert(kept.unwrap_or_default());
        }
        let old = &mut self.old;
        let kept = old.remove(&key);
        self.young.entry(key).or_insert_with(|| kept.unwrap_or_default())
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_forgets_what_was_not_used_lately_and_keeps_what_was() {
        let mut recent: Recent<u32, u32> = Recent::new(8);
        *recent.entry(0) = 7;
        for key in 1..1000 {
            recent.entry(key);
            assert_eq!(*recent.entry(0), 7);
            assert!(recent.len() <= 8);
        }
        assert_eq!(*recent.entry(1), 0);
        // half of the cap is sure to be kept, whatever else is asked for in between
        for key in 2000..2004 {
            *recent.entry(key) = key;
        }
        for key in 2000..2004 {
            assert_eq!(*recent.entry(key), key);
        }
    }
}
