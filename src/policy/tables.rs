//! `[tables]`: how much room the kernel's tables have.

use super::diagnostic::Located;
use super::document::Table;

/// The most entries that any table may be given.
pub const MAX_ENTRIES: u32 = 16_777_216;

macro_rules! table_sizes {
    ($($(#[$doc:meta])* $key:ident = $default:literal),* $(,)?) => {
        /// Sizes of the kernel's tables, in entries, 1 to [`MAX_ENTRIES`] each.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct TableSizes {
            $($(#[$doc])* pub $key: Located<u32>,)*
        }

        impl Default for TableSizes {
            fn default() -> Self {
                Self { $($key: Located { value: $default, place: None },)* }
            }
        }

        impl TableSizes {
            /// Every size with its key, in the order of the documentation.
            pub fn entries(&self) -> Vec<(&'static str, Located<u32>)> {
                vec![$((stringify!($key), self.$key),)*]
            }
        }

        const KEYS: &[&str] = &[$(stringify!($key),)*];

        /// Reads `[tables]`.
        pub(super) fn read_tables(table: &Table<'_, '_>) -> TableSizes {
            table.check_keys(KEYS);
            let default = TableSizes::default();
            TableSizes { $($key: table.integer(stringify!($key), 1..=MAX_ENTRIES, default.$key.value),)* }
        }
    };
}

table_sizes! {
    /// Addresses and prefixes of all servers.
    servers = 65_536,
    /// Port ranges of all sets of roles.
    needs = 262_144,
    /// Addresses and prefixes that needs name, once for each set of needs that differ in them.
    peers = 262_144,
    /// TCP flows that peers have opened, established.
    established = 262_144,
    /// TCP flows that peers have opened, half-open.
    half_open = 65_536,
    /// UDP flows that peers have opened.
    datagrams = 65_536,
    /// ICMP flows that peers have opened.
    icmp = 16_384,
    /// What peers have opened that is no `in` service.
    unlisted = 65_536,
    /// Fragmented packets of which the first fragment has passed.
    fragments = 16_384,
    /// Kinds of drops: server, protocol, destination port, reason.
    ledger = 65_536,
    /// Token buckets: servers times their limited needs.
    limits = 16_384,
}
