//! Sums of drops, by what a page needs them by.

use std::collections::BTreeMap;

use crate::history::MinuteCount;

/// The label for drops whose source address no server has.
pub(super) const NO_SERVER: &str = "(no server)";
/// The label for the rest.
pub(super) const OTHERS: &str = "(others)";
/// The label for a destination that was not recorded.
pub(super) const NOT_RECORDED: &str = "(not recorded)";

/// The label of a count's server.
pub(super) fn server_of(count: &MinuteCount) -> &str {
    count.server.as_deref().unwrap_or(NO_SERVER)
}

/// The label of a count's destination.
pub(super) fn destination_of(count: &MinuteCount) -> String {
    count.destination.map_or(NOT_RECORDED.to_owned(), |address| address.to_string())
}

/// Packets by a key, the largest sum first.
pub(super) fn sum_by<K: Ord + Clone>(
    counts: &[MinuteCount],
    key: impl Fn(&MinuteCount) -> K,
) -> Vec<(K, u64)> {
    let mut sums: BTreeMap<K, u64> = BTreeMap::new();
    for count in counts {
        let sum = sums.entry(key(count)).or_default();
        *sum = sum.saturating_add(count.packets);
    }
    let mut sums: Vec<(K, u64)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
    sums
}
