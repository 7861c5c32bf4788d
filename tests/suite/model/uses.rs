//! How often each need was used. Where several needs permit a packet, one of them counts it, and nothing tells
//! which.

use std::collections::{BTreeMap, BTreeSet};

/// What may have been counted of the needs in one line of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineUses {
    /// By this line alone.
    pub certain: u64,
    /// By this line or by another.
    pub possible: u64,
}

/// What was counted under one policy.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    pub total: u64,
    pub lines: BTreeMap<u32, LineUses>,
}

impl Uses {
    /// Something opens, and the needs of these lines permit it.
    pub fn count(&mut self, lines: impl IntoIterator<Item = u32>) {
        let lines: BTreeSet<u32> = lines.into_iter().collect();
        self.total += 1;
        for line in &lines {
            let uses = self.lines.entry(*line).or_default();
            uses.possible += 1;
            uses.certain += u64::from(lines.len() == 1);
        }
    }
}
