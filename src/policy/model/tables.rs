//! `[tables]`: how much room the kernel's tables have.

use super::keys::keys;
use super::location::Located;

/// The most entries that any table may have.
pub const MAX_ENTRIES: u32 = 16_777_216;

keys! {
    /// `[tables]`: sizes of the kernel's tables, in entries, 1 to [`MAX_ENTRIES`] each.
    TableSizes {
        /// Addresses and prefixes of all servers.
        "servers" servers: Located<u32> = Located::unset(65_536), integer(1..=MAX_ENTRIES);
        /// Port ranges of all sets of roles.
        "needs" needs: Located<u32> = Located::unset(262_144), integer(1..=MAX_ENTRIES);
        /// Addresses and prefixes that needs name, once for each set of needs that differ in them.
        "peers" peers: Located<u32> = Located::unset(262_144), integer(1..=MAX_ENTRIES);
        /// TCP flows that peers have opened, established.
        "established" established: Located<u32> = Located::unset(262_144), integer(1..=MAX_ENTRIES);
        /// TCP flows that peers have opened, half-open.
        "half_open" half_open: Located<u32> = Located::unset(65_536), integer(1..=MAX_ENTRIES);
        /// UDP flows that peers have opened.
        "datagrams" datagrams: Located<u32> = Located::unset(65_536), integer(1..=MAX_ENTRIES);
        /// ICMP flows that peers have opened.
        "icmp" icmp: Located<u32> = Located::unset(16_384), integer(1..=MAX_ENTRIES);
        /// Flows that peers have opened to ports that are no `in` service.
        "unlisted" unlisted: Located<u32> = Located::unset(65_536), integer(1..=MAX_ENTRIES);
        /// Fragmented packets of which the first fragment has passed.
        "fragments" fragments: Located<u32> = Located::unset(16_384), integer(1..=MAX_ENTRIES);
        /// Peers that asked a service in the last ten minutes, whose late answers are no attack.
        "heard" heard: Located<u32> = Located::unset(1_048_576), integer(1..=MAX_ENTRIES);
        /// Kinds of drops: server, protocol, destination port, reason.
        "ledger" ledger: Located<u32> = Located::unset(32_768), integer(1..=MAX_ENTRIES);
        /// Addresses that names were seen to have, of all servers together.
        "grants" grants: Located<u32> = Located::unset(65_536), integer(1..=MAX_ENTRIES);
        /// Token buckets: one for each server and each of its needs with a limit.
        "limits" limits: Located<u32> = Located::unset(16_384), integer(1..=MAX_ENTRIES);
    }
}
