//! The addresses at one end of a ledger row.

use std::net::IpAddr;

/// The addresses at one end of the drops of a ledger row, as the kernel remembers them: the sources or the
/// destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contacts {
    /// The first distinct ones, at most 16, in the order in which they came.
    pub first: Vec<IpAddr>,
    /// The most frequent ones, at most 8, each with its packets, the most frequent first.
    pub frequent: Vec<(IpAddr, u64)>,
    /// The numbers in `frequent` are estimates.
    pub is_estimate: bool,
    /// There were more than `first` has room for.
    pub is_full: bool,
}
