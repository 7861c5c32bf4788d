//! A fast hash for ledger keys: the reconciler hashes tens of thousands a second. An attacker chooses
//! port and protocol, so they are mixed with a number of this process. Nobody can choose keys that
//! collide.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Odd numbers whose bits are as good as random: those of the golden ratio and of pi.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const PI: u64 = 0x2437_54a7_0a88_85a3;

/// Makes hashers that all begin with the same number. Each table has a number of its own.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Seeded {
        Seeded(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding(self.0)
    }
}

/// Multiplies, and folds the high half of the product onto the low one.
pub(crate) struct Folding(u64);

impl Hasher for Folding {
    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, GOLDEN);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        fold(self.0, PI)
    }
}

fn fold(word: u64, multiplier: u64) -> u64 {
    let product = u128::from(word) * u128::from(multiplier);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::LedgerKey;
    use super::*;

    #[test]
    fn keys_of_a_scan_spread_over_a_table_whatever_the_seed() {
        for _ in 0..20 {
            let seeded = Seeded::default();
            let buckets: HashSet<u64> = (0..=u16::MAX)
                .map(|port| LedgerKey { server: 7, port, protocol: 6, reason: 47, flags: 0, overflow: false })
                .map(|key| seeded.hash_one(key) & 0x1_ffff)
                .collect();
            // 65,536 keys at random over twice as many buckets leave 51,600 buckets used
            assert!(buckets.len() > 40_000, "{}", buckets.len());
        }
    }

    #[test]
    fn keys_that_differ_in_one_field_differ() {
        let seeded = Seeded::default();
        let key = LedgerKey { server: 1, port: 2, protocol: 3, reason: 4, flags: 0, overflow: false };
        let others = [
            LedgerKey { server: 2, ..key },
            LedgerKey { port: 3, ..key },
            LedgerKey { protocol: 4, ..key },
            LedgerKey { reason: 5, ..key },
            LedgerKey { flags: 1, ..key },
            LedgerKey { overflow: true, ..key },
        ];
        for other in others {
            assert_ne!(seeded.hash_one(other), seeded.hash_one(key), "{other:?}");
        }
    }
}
