//! The tool's control of the programs' verdict cache: how much of it they use, and the word that outdates
//! every entry.

use super::Gate;
use super::error::GateError;
use super::sizes::{possible_cpus, verdict_cache_in_use};
use crate::abi::state;

/// The word `STATE_VERDICT_CACHE`: entries of a CPU's part, and the last index of those in use.
fn encode(part: u32, used: u32) -> u64 {
    u64::from(part) << 32 | u64::from(used.saturating_sub(1))
}

impl Gate {
    /// Says how the map is divided, once it is made.
    pub(super) fn divide_verdict_cache(&self, entries: u32) -> Result<(), GateError> {
        let part = entries / possible_cpus();
        self.write_state(state::STATE_VERDICT_CACHE, encode(part, part))
    }

    /// Lets the filter use as much of the map as a policy of this many single addresses needs, and
    /// perhaps prefixes. Each CPU's part stays where it was when the map was made.
    pub(super) fn use_verdict_cache(&self, addresses: usize, prefixes: bool) -> Result<(), GateError> {
        let part = (self.read_state(state::STATE_VERDICT_CACHE)? >> 32) as u32;
        let used = verdict_cache_in_use(part, addresses, prefixes);
        self.write_state(state::STATE_VERDICT_CACHE, encode(part, used))
    }

    /// Makes the filter find every verdict again: what it has kept is older than the quarantines.
    pub(super) fn outdate_verdict_cache(&self) -> Result<(), GateError> {
        let changes = self.read_state(state::STATE_QUARANTINE_CHANGES)?;
        self.write_state(state::STATE_QUARANTINE_CHANGES, changes + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_the_verdict_cache_has_the_part_and_the_last_index() {
        assert_eq!(encode(65_536, 256), 65_536 << 32 | 255);
        assert_eq!(encode(0, 0), 0);
    }
}
