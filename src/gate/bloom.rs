//! The Bloom filter of the kinds that have a row. The programs add to it. After rows were given back it is
//! built anew, or it would find more and more kinds that have none.

use super::Gate;
use super::error::GateError;
use super::fault;
use crate::abi::{bloom_word, ledger_key, state};

/// Of the golden ratio, as in `bpf/verdict_cache.h`.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// The word `STATE_LEDGER_BLOOM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BloomState {
    /// Words of one half, a power of two.
    words: u32,
    /// The upper half is in use.
    is_upper: bool,
    /// Kinds are added to both halves.
    is_both: bool,
}

impl BloomState {
    fn decode(word: u64) -> BloomState {
        let flags = (word >> 32) as u32;
        BloomState {
            words: (word as u32).wrapping_add(1),
            is_upper: flags & bloom_word::BLOOM_UPPER.0 != 0,
            is_both: flags & bloom_word::BLOOM_BOTH.0 != 0,
        }
    }

    fn encode(self) -> u64 {
        let upper = if self.is_upper { bloom_word::BLOOM_UPPER.0 } else { 0 };
        let both = if self.is_both { bloom_word::BLOOM_BOTH.0 } else { 0 };
        u64::from(upper | both) << 32 | u64::from(self.words.wrapping_sub(1))
    }
}

/// The word and the bits of a kind in a half of this many words, as `bpf/ledger.h` has them.
fn locate(kind: &ledger_key, words: u32) -> (usize, u64) {
    let hash = u64::from(kind.server) << 32
        | u64::from(kind.port) << 16
        | u64::from(kind.protocol) << 8
        | u64::from(kind.reason);
    let hash = (hash ^ u64::from(kind.flags) << 56).wrapping_mul(GOLDEN_RATIO);
    let bits = 1 << (hash >> 58) | 1 << ((hash >> 52) & 63);
    (((hash >> 20) as u32 & words.wrapping_sub(1)) as usize, bits)
}

impl Gate {
    /// Says how large the halves are, once the map is made.
    pub(super) fn begin_bloom(&self) -> Result<(), GateError> {
        let words = self.maps.ledger_bloom.capacity() / 2;
        let filter = BloomState { words, is_upper: false, is_both: false };
        self.write_state(state::STATE_LEDGER_BLOOM, filter.encode())
    }

    /// Builds the half that is not in use of the kinds that have a row, and lets the programs use it. No kind
    /// is ever missing that has a row. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel refuses. The half that was in use stays so.
    pub(super) fn rebuild_bloom(&self) -> Result<(), GateError> {
        let filter = BloomState::decode(self.read_state(state::STATE_LEDGER_BLOOM)?);
        let other = if filter.is_upper { 0 } else { filter.words };
        let half = self.maps.ledger_bloom.map_for_writing(other, filter.words)?;
        fault::point();
        // A rebuild that was cut short may have left bits, and programs may add some right now. The rows
        // of these are found below.
        half.clear();
        self.write_state(state::STATE_LEDGER_BLOOM, BloomState { is_both: true, ..filter }.encode())?;
        // a program that has not seen this has made its row by then
        self.wait_for_programs()?;
        fault::point();
        self.maps.ledger.visit(|kind, _| {
            let (word, bits) = locate(kind, filter.words);
            half.set_bits(word, bits);
        })?;
        let swapped = BloomState { is_upper: !filter.is_upper, is_both: false, ..filter };
        self.write_state(state::STATE_LEDGER_BLOOM, swapped.encode())
    }

    /// Returns when every program has ended that may have read anything which was changed before this call.
    pub(super) fn wait_for_programs(&self) -> Result<(), GateError> {
        self.maps.fence.create_inner(&[(0, 0)])?.put(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_the_filter_comes_back_as_it_went_in() {
        for words in [1, 1024, 1 << 22] {
            for (is_upper, is_both) in [(false, false), (false, true), (true, false), (true, true)] {
                let filter = BloomState { words, is_upper, is_both };
                assert_eq!(BloomState::decode(filter.encode()), filter);
            }
        }
        assert_eq!(BloomState { words: 1024, is_upper: false, is_both: false }.encode(), 1023);
    }

    #[test]
    fn kinds_spread_over_all_words() {
        let kind = |port| ledger_key { server: 7, port, protocol: 6, reason: 47, ..ledger_key::default() };
        let used: std::collections::HashSet<usize> =
            (0..4096).map(|port| locate(&kind(port), 1024).0).collect();
        assert!(used.len() > 900 && used.iter().all(|word| *word < 1024), "{}", used.len());
    }
}
