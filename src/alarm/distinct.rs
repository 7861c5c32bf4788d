//! Distinct things: the first ones themselves, and how many there were.

use std::hash::{BuildHasher as _, DefaultHasher, Hash, RandomState};
use std::sync::OnceLock;

use cardinality_estimator::CardinalityEstimator;

/// 1,024 registers: less than a kilobyte, and 3 % off in most cases.
const REGISTERS_LOG2: usize = 10;
const REGISTER_BITS: usize = 5;

type Sketch = CardinalityEstimator<u64, DefaultHasher, REGISTERS_LOG2, REGISTER_BITS>;

/// Distinct things in the order in which they were seen. Those beyond the cap are not remembered but counted,
/// by a sketch (HyperLogLog) whose memory does not grow.
#[derive(Clone, Debug, PartialEq)]
pub struct Distinct<T> {
    seen: Vec<T>,
    cap: usize,
    sketch: Option<Sketch>,
    /// There are more, and nobody knows which.
    has_more: bool,
    /// Of a snapshot: how many there were, and whether that is an estimate.
    total: Option<(usize, bool)>,
}

impl<T: PartialEq + Copy + Hash> Distinct<T> {
    /// Remembers up to `cap` of them.
    pub fn new(cap: usize) -> Distinct<T> {
        Distinct { seen: Vec::new(), cap, sketch: None, has_more: false, total: None }
    }

    /// Notes a thing. Caps are small, so a scan costs less than a hash.
    pub fn insert(&mut self, item: T) {
        if self.seen.contains(&item) {
            return;
        }
        if self.seen.len() < self.cap {
            self.seen.push(item);
        } else {
            self.sketch().insert_hash(hash(&item));
        }
    }

    /// Notes that there are more than were seen.
    pub fn note_more(&mut self) {
        self.has_more = true;
    }

    /// Notes everything that another one has seen.
    pub fn merge(&mut self, other: &Distinct<T>) {
        if let Some(theirs) = &other.sketch {
            self.sketch().merge(theirs);
        }
        self.has_more |= other.has_more || other.total.is_some_and(|(_, is_estimate)| is_estimate);
        for &item in &other.seen {
            self.insert(item);
        }
    }

    /// How many there were: exactly, unless it is an estimate.
    pub fn len(&self) -> usize {
        match (&self.sketch, self.total) {
            (_, Some((total, _))) => total,
            (Some(sketch), None) => sketch.estimate().max(self.seen.len() + 1),
            (None, None) => self.seen.len() + usize::from(self.has_more),
        }
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Whether there were more than are remembered, so that their number is an estimate.
    pub fn is_estimate(&self) -> bool {
        self.sketch.is_some() || self.has_more || self.total.is_some_and(|(_, is_estimate)| is_estimate)
    }

    /// The remembered things, in the order in which they were seen.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.seen.iter()
    }

    /// The first ones and the number, without the means to count on. It takes little memory.
    pub(super) fn snapshot(&self, most: usize) -> Distinct<T> {
        Distinct {
            seen: self.seen.iter().take(most).copied().collect(),
            cap: self.cap,
            sketch: None,
            has_more: false,
            total: Some((self.len(), self.is_estimate())),
        }
    }

    /// The sketch, which holds the remembered things as well.
    fn sketch(&mut self) -> &mut Sketch {
        let seen = &self.seen;
        self.sketch.get_or_insert_with(|| {
            let mut sketch = Sketch::new();
            seen.iter().for_each(|item| sketch.insert_hash(hash(item)));
            sketch
        })
    }
}

/// Keyed by this process, so that an attacker can't choose addresses that count as one.
fn hash(item: &impl Hash) -> u64 {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    KEY.get_or_init(RandomState::new).hash_one(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_that_were_seen_twice_count_once() {
        let mut distinct = Distinct::new(4);
        for item in [3, 1, 3, 1, 2] {
            distinct.insert(item);
        }
        assert_eq!(distinct.iter().copied().collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!((distinct.len(), distinct.is_estimate()), (3, false));
    }

    #[test]
    fn beyond_the_cap_its_length_is_an_estimate_that_is_never_below_what_is_remembered() {
        let mut distinct = Distinct::new(4);
        for round in 0..3 {
            for item in 0..5 {
                distinct.insert(item);
            }
            assert_eq!((distinct.len(), distinct.is_estimate()), (5, true), "round {round}");
        }
        assert_eq!(distinct.iter().count(), 4);
    }

    #[test]
    fn a_million_is_told_from_half_a_million_in_less_than_a_kilobyte() {
        let mut distinct = Distinct::new(32);
        for item in 0..1_000_000_u32 {
            distinct.insert(item);
        }
        // five times the usual error: the hash has another key in every run
        assert!((850_000..1_150_000).contains(&distinct.len()), "{}", distinct.len());
        assert!(distinct.sketch.as_ref().is_some_and(|sketch| sketch.size_of() < 1000));
    }

    #[test]
    fn things_that_both_have_seen_count_once_after_a_merge() {
        let of = |items: std::ops::Range<u32>, cap| {
            let mut distinct = Distinct::new(cap);
            items.for_each(|item| distinct.insert(item));
            distinct
        };
        let mut few = of(0..3, 8);
        few.merge(&of(2..6, 8));
        assert_eq!((few.len(), few.is_estimate()), (6, false));
        let mut many = of(0..3, 8);
        many.merge(&of(1..20_000, 8));
        assert!(many.is_estimate() && (17_000..23_000).contains(&many.len()), "{}", many.len());
        let mut other = of(0..20_000, 8);
        other.merge(&of(10_000..30_000, 8));
        assert!((25_500..34_500).contains(&other.len()), "{}", other.len());
        other.merge(&of(0..4, 8));
        assert!((25_500..34_500).contains(&other.len()), "{}", other.len());
    }

    #[test]
    fn a_snapshot_has_the_first_ones_and_the_number_and_keeps_no_sketch() {
        let mut distinct = Distinct::new(4);
        (0..4).for_each(|item| distinct.insert(item));
        let few = distinct.snapshot(2);
        assert_eq!((few.iter().count(), few.len(), few.is_estimate()), (2, 4, false));
        (0..1000).for_each(|item| distinct.insert(item));
        let many = distinct.snapshot(2);
        assert_eq!((many.len(), many.is_estimate()), (distinct.len(), true));
        assert!(many.sketch.is_none());
    }

    #[test]
    fn what_is_known_to_be_more_is_an_estimate_and_stays_one_after_a_merge() {
        let mut distinct = Distinct::new(4);
        distinct.insert(1);
        distinct.note_more();
        assert_eq!((distinct.len(), distinct.is_estimate()), (2, true));
        let mut other = Distinct::new(4);
        other.merge(&distinct);
        assert_eq!((other.len(), other.is_estimate()), (2, true));
    }
}
