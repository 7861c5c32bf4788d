//! The tool's control of the programs' verdict cache: how much of it they use, and the word that outdates
//! every entry.

use super::Gate;
use super::error::GateError;
use super::sizes::{possible_cpus, verdict_cache_in_use};
use crate::abi::state;

impl Gate {
    /// Says how the map is divided, once it is made.
    pub(super) fn divide_verdict_cache(&self, entries: u32) -> Result<(), GateError> {
        self.write_state(state::STATE_VERDICT_CACHE, u64::from(entries / possible_cpus()))
    }

    /// The last index that the filter uses of each CPU's part, under a policy of this many single addresses,
    /// and perhaps prefixes. Each part stays where it was when the map was made.
    pub(super) fn find_verdicts_mask(&self, addresses: usize, prefixes: bool) -> Result<u32, GateError> {
        let part = u32::try_from(self.read_state(state::STATE_VERDICT_CACHE)?).unwrap_or(0);
        Ok(verdict_cache_in_use(part, addresses, prefixes).saturating_sub(1))
    }

    /// Makes the filter find every verdict again: what it has kept is older than the quarantines.
    pub(super) fn outdate_verdict_cache(&self) -> Result<(), GateError> {
        let changes = self.read_state(state::STATE_QUARANTINE_CHANGES)?;
        self.write_state(state::STATE_QUARANTINE_CHANGES, changes + 1)
    }
}
