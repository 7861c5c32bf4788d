//! Distinct things, remembered up to a cap.

/// What was seen, in that order, without repetition. Beyond its cap it counts nothing more,
/// so its length is then a lower bound. (An estimate of the real number, at constant memory,
/// can take this place without the alarms noticing.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distinct<T> {
    seen: Vec<T>,
    cap: usize,
    more: bool,
}

impl<T: PartialEq + Copy> Distinct<T> {
    /// Remembers up to `cap` of them.
    pub fn new(cap: usize) -> Distinct<T> {
        Distinct { seen: Vec::new(), cap, more: false }
    }

    /// Takes note of one. Caps are small, so a scan costs less than a hash.
    pub fn insert(&mut self, item: T) {
        if self.seen.contains(&item) {
            return;
        }
        if self.seen.len() < self.cap {
            self.seen.push(item);
        } else {
            self.more = true;
        }
    }

    /// Takes note of all that another one has seen.
    pub fn merge(&mut self, other: &Distinct<T>) {
        for &item in &other.seen {
            self.insert(item);
        }
        self.more |= other.more;
    }

    /// How many; at least so many if there were `more`.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Were there more than could be remembered?
    pub fn more(&self) -> bool {
        self.more
    }

    /// Those that are remembered, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.seen.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_twice_counts_once() {
        let mut distinct = Distinct::new(4);
        for item in [3, 1, 3, 1, 2] {
            distinct.insert(item);
        }
        assert_eq!(distinct.iter().copied().collect::<Vec<_>>(), [3, 1, 2]);
        assert!(!distinct.more());
    }

    #[test]
    fn beyond_the_cap_its_length_is_a_lower_bound() {
        let mut distinct = Distinct::new(4);
        for item in 0..1000 {
            distinct.insert(item);
        }
        assert_eq!(distinct.len(), 4);
        assert!(distinct.more());
        let mut other = Distinct::new(10);
        other.merge(&distinct);
        assert_eq!((other.len(), other.more()), (4, true));
    }
}
