//! The one table of maps. A map of `bpf/maps.h` is a row of `maps!` here: from the row follow the
//! handle in [`Maps`], the pin, the size at attach, and the line in `show status` and in the metrics.

use std::os::fd::AsFd;

use libbpf_rs::{MapCore, MapHandle, MapType};
use plain::Plain;
use serde::Serialize;

use super::error::GateError;
use super::mapped_array::MappedArray;
use super::outer_map::{Array, Hash, InnerKind, OuterMap, Trie};
use super::sizes;
use super::typed_map::{TypedMap, memory_bytes};
use crate::abi::{
    address, counted_need, counter, domain, edit_cell, edit_key, evidence, evidence_key, exchange, flow,
    flow_key, fragment, fragment_key, frequent, given_back, grant, granted, granted_key, half_open, layout,
    ledger_key, ledger_row, lessors, limit, limit_key, lookup, mac_key, name, name_connection, name_event,
    name_event_key, name_key, name_need_key, name_pattern, name_peer_key, name_share, need, need_key,
    need_use, opening, opening_bucket, peer_key, prefix_key, quarantine, query, range_key, refused_fragment,
    resolver, router_key, row_addresses, row_counts, row_quota, rule, server, settings, share_key, stream,
};
use crate::compile::SourceChunk;
use crate::policy::TableSizes;

/// How full a table is, and how much memory it takes.
#[derive(Clone, Debug, Serialize)]
pub struct TableUsage {
    /// Name of the map.
    pub table: &'static str,
    /// Entries in use. `None`: each CPU uses its part by itself, and never too much of it.
    pub entries: Option<usize>,
    /// Entries that there is room for.
    pub size: u32,
    /// Kernel memory.
    pub bytes: u64,
}

/// Where a map's number of entries comes from.
enum Size {
    /// `bpf/maps.h` gives it, or the live policy.
    Fixed,
    /// A key of `[tables]`, and its value.
    Setting(&'static str, fn(&TableSizes) -> u32),
    /// It follows from `[tables]` or from the machine.
    Derived(fn(&TableSizes) -> u32),
}

/// How entries in use are counted.
enum Count {
    /// Every entry of a hash.
    Entries,
    /// Rows of the ledger that have counted a drop.
    LedgerRows,
    /// None: see [`TableUsage::entries`].
    Nothing,
    /// Every entry of the live policy's inner map.
    LivePolicy,
    /// `show status` does not list the map.
    Hidden,
}

/// Facts from elsewhere that [`Maps::usage`] needs.
pub(super) struct Live {
    /// The slot of the live policy.
    pub slot: Option<u32>,
    /// Rows of the ledger that have counted a drop.
    pub ledger_rows: usize,
}

/// Any of the handles below.
trait Handle: Sized {
    fn take(name: &'static str, handle: MapHandle) -> Result<Self, GateError>;

    fn handle(&self) -> &MapHandle;

    /// `table` is the map's name.
    fn usage(&self, table: &'static str, count: &Count, live: &Live) -> Result<TableUsage, GateError>;
}

impl<K: Plain + Copy + Default, V: Plain + Copy + Default> Handle for TypedMap<K, V> {
    fn take(name: &'static str, handle: MapHandle) -> Result<Self, GateError> {
        TypedMap::new(name, handle)
    }

    fn handle(&self) -> &MapHandle {
        self.handle()
    }

    fn usage(&self, table: &'static str, count: &Count, live: &Live) -> Result<TableUsage, GateError> {
        let mut usage = self.handle().usage(table, count, live)?;
        if matches!(count, Count::Entries) {
            let mut entries = 0;
            self.visit(|_, _| entries += 1)?;
            usage.entries = Some(entries);
        }
        Ok(usage)
    }
}

/// Of the rows of the ledger, those that have counted a drop are in use.
impl<V: Plain + Copy + Default> Handle for MappedArray<V> {
    fn take(name: &'static str, handle: MapHandle) -> Result<Self, GateError> {
        MappedArray::new(name, handle)
    }

    fn handle(&self) -> &MapHandle {
        self.handle()
    }

    fn usage(&self, table: &'static str, count: &Count, live: &Live) -> Result<TableUsage, GateError> {
        let mut usage = self.handle().usage(table, count, live)?;
        if matches!(count, Count::LedgerRows) {
            usage.entries = Some(live.ledger_rows);
        }
        Ok(usage)
    }
}

impl<T: InnerKind, K: Plain + Copy + Default, V: Plain + Copy + Default> Handle for OuterMap<T, K, V> {
    fn take(name: &'static str, handle: MapHandle) -> Result<Self, GateError> {
        Ok(OuterMap::new(name, handle))
    }

    fn handle(&self) -> &MapHandle {
        self.handle()
    }

    /// Entries and size of the live policy's inner map, and the memory of all inner maps.
    fn usage(&self, table: &'static str, _: &Count, live: &Live) -> Result<TableUsage, GateError> {
        let mut usage = TableUsage { table, entries: Some(0), size: 0, bytes: 0 };
        for slot in 0..layout::SLOTS.0 {
            let inner = match self.open_inner(slot) {
                Ok(inner) => inner,
                Err(error) if live.slot == Some(slot) => return Err(error),
                // empty, or a swap has just taken it
                Err(_) => continue,
            };
            let inner = inner.handle();
            usage.bytes += memory_bytes(inner.as_fd());
            if live.slot == Some(slot) {
                usage.size = inner.max_entries();
                usage.entries = Some(match inner.map_type() {
                    MapType::Array => inner.max_entries() as usize,
                    _ => inner.keys().count(),
                });
            }
        }
        Ok(usage)
    }
}

/// A map whose types are the programs' own.
impl Handle for MapHandle {
    fn take(_: &'static str, handle: MapHandle) -> Result<Self, GateError> {
        Ok(handle)
    }

    fn handle(&self) -> &MapHandle {
        self
    }

    fn usage(&self, table: &'static str, _: &Count, _: &Live) -> Result<TableUsage, GateError> {
        Ok(TableUsage { table, entries: None, size: self.max_entries(), bytes: memory_bytes(self.as_fd()) })
    }
}

/// A key of `[tables]` that is a map's size.
macro_rules! setting {
    ($key:ident) => {
        Size::Setting(stringify!($key), |sizes| sizes.$key.value)
    };
}

macro_rules! maps {
    ($($(#[$doc:meta])* $map:ident: $handle:ty, $size:expr, $count:expr;)*) => {
        /// Every map of a gate, by the name that it has in `bpf/maps.h` and as a pin.
        pub struct Maps {
            $($(#[$doc])* pub $map: $handle,)*
        }

        /// Names and sizes, in the order of the table.
        const ROWS: &[(&str, Size)] = &[$((stringify!($map), $size),)*];

        impl Maps {
            /// Takes the maps from wherever `find` has them.
            pub(super) fn collect(
                mut find: impl FnMut(&'static str) -> Result<MapHandle, GateError>,
            ) -> Result<Maps, GateError> {
                Ok(Maps {
                    $($map: Handle::take(stringify!($map), find(stringify!($map))?)?,)*
                })
            }

            /// The maps with their names, in the order of the table.
            pub(super) fn handles(&self) -> Vec<(&'static str, &MapHandle)> {
                vec![$((stringify!($map), Handle::handle(&self.$map)),)*]
            }

            /// How full the tables are that `show status` lists, in the order of the table.
            pub(super) fn usage(&self, live: &Live) -> Result<Vec<TableUsage>, GateError> {
                let mut list = Vec::new();
                $(match $count {
                    Count::Hidden => {}
                    count => list.push(Handle::usage(&self.$map, stringify!($map), &count, live)?),
                })*
                Ok(list)
            }
        }
    };
}

maps! {
    // name: handle, size, what `show status` counts

    /// TCP flows after the handshake.
    established: TypedMap<flow_key, flow>, setting!(established), Count::Entries;
    /// TCP flows before that.
    half_open: TypedMap<flow_key, half_open>, setting!(half_open), Count::Entries;
    /// Flows of UDP, SCTP and protocols without ports.
    datagrams: TypedMap<flow_key, flow>, setting!(datagrams), Count::Entries;
    /// ICMP requests of peers.
    icmp_queries: TypedMap<flow_key, flow>, setting!(icmp), Count::Entries;
    /// Openings of peers that no `in` service allows.
    unlisted: TypedMap<flow_key, opening>, setting!(unlisted), Count::Entries;
    /// TCP connections that servers began to open.
    own_openings: MappedArray<opening_bucket>, Size::Fixed, Count::Nothing;
    /// First fragments that passed.
    fragments: TypedMap<fragment_key, fragment>, setting!(fragments), Count::Entries;
    /// First fragments that were dropped.
    refused_fragments: TypedMap<fragment_key, refused_fragment>, Size::Fixed, Count::Entries;
    /// Peers that asked a service of a server.
    heard: TypedMap<u32, u64>, Size::Derived(sizes::heard), Count::Nothing;
    /// How many bits of each region of `heard` are set.
    heard_bits: TypedMap<u32, u64>, Size::Fixed, Count::Hidden;
    /// The drop ledger: which row counts a kind of drop.
    ledger: TypedMap<ledger_key, u32>, setting!(ledger), Count::Entries;
    /// As `ledger`, by server and reason only, for drops that found it full.
    ledger_overflow: TypedMap<ledger_key, u32>, Size::Derived(sizes::ledger_overflow), Count::Entries;
    /// The rows of both.
    ledger_rows: MappedArray<ledger_row>, Size::Derived(sizes::ledger_rows), Count::LedgerRows;
    /// What each CPU has counted in each row.
    ledger_counts: MappedArray<row_counts>, Size::Derived(sizes::ledger_counts), Count::Nothing;
    /// The first addresses of each row.
    ledger_addresses: MappedArray<row_addresses>, Size::Derived(sizes::ledger_rows), Count::Nothing;
    /// The most frequent addresses, by CPU.
    frequent: MappedArray<frequent>, Size::Derived(sizes::frequent), Count::Nothing;
    /// Kinds that have no row, by CPU.
    hot_kinds: MapHandle, Size::Derived(sizes::hot_kinds), Count::Nothing;
    /// Numbers of rows that were given back.
    ledger_free: TypedMap<u32, u32>, Size::Derived(sizes::ledger_rows), Count::Hidden;
    /// What rows had counted that were given back.
    ledger_given_back: TypedMap<ledger_key, given_back>, Size::Derived(sizes::ledger_overflow), Count::Entries;
    /// For an update that waits until the programs have ended.
    fence: OuterMap<Array, u32, u32>, Size::Fixed, Count::Hidden;
    /// Verdicts that were found before.
    verdict_cache: MapHandle, Size::Derived(sizes::verdict_cache), Count::Nothing;
    /// Which kinds `ledger` may have.
    ledger_bloom: MappedArray<u64>, Size::Derived(sizes::ledger_bloom), Count::Nothing;
    /// Servers that have used up their quota of the ledger.
    quota_cache: MapHandle, Size::Derived(sizes::quota_cache), Count::Nothing;
    /// How many rows of the ledger each server has.
    ledger_quotas: TypedMap<u32, row_quota>, Size::Derived(sizes::ledger_quotas), Count::Entries;
    /// Token buckets.
    limits: TypedMap<limit_key, limit>, setting!(limits), Count::Entries;
    /// How often each need was used, by its number and by CPU.
    need_uses: TypedMap<u32, need_use>, Size::Fixed, Count::Nothing;
    /// Which need has a number.
    counted_needs: TypedMap<u32, counted_need>, Size::Fixed, Count::Entries;
    /// Answered openings.
    evidence: TypedMap<evidence_key, evidence>, Size::Fixed, Count::Entries;
    /// Openings that are not answered yet.
    exchanges: TypedMap<flow_key, exchange>, Size::Fixed, Count::Hidden;
    /// Names of server ids.
    names: TypedMap<u32, name>, Size::Derived(|sizes| sizes.servers.value), Count::Entries;
    /// Names as destinations, by their ids.
    domains: TypedMap<u32, domain>, Size::Fixed, Count::Hidden;
    /// Addresses that names were seen to have.
    grants: TypedMap<share_key, grant>, setting!(grants), Count::Entries;
    /// Where the grants of an address stand.
    granted: TypedMap<granted_key, granted>, Size::Derived(|sizes| sizes.grants.value), Count::Entries;
    /// Connections that a grant has let a server open.
    name_connections: TypedMap<flow_key, name_connection>, Size::Derived(|sizes| sizes.grants.value), Count::Entries;
    /// The same by their places.
    connection_places: TypedMap<share_key, flow_key>, Size::Derived(|sizes| sizes.grants.value), Count::Hidden;
    /// Questions to resolvers.
    queries: TypedMap<share_key, query>, Size::Derived(|sizes| sizes.grants.value), Count::Hidden;
    /// TCP connections to resolvers.
    streams: TypedMap<share_key, stream>, Size::Derived(sizes::streams), Count::Hidden;
    /// What servers were answered for any name.
    lookups: TypedMap<share_key, lookup>, Size::Fixed, Count::Hidden;
    /// Where the next row of each server goes.
    name_shares: TypedMap<u32, name_share>, Size::Derived(sizes::name_shares), Count::Hidden;
    /// What went wrong with answers, for each CPU.
    name_counts: TypedMap<u32, u64>, Size::Fixed, Count::Hidden;
    /// Answers that are a matter for people.
    name_events: TypedMap<name_event_key, name_event>, Size::Fixed, Count::Hidden;
    /// Addresses of this machine, and prefixes on the NIC's link.
    own_networks: TypedMap<prefix_key, u32>, Size::Fixed, Count::Hidden;
    /// What each CPU hands on while it reads a message.
    name_scratches: MapHandle, Size::Fixed, Count::Hidden;
    /// Servers in quarantine, by id.
    quarantines: TypedMap<u32, quarantine>, Size::Derived(|sizes| sizes.servers.value), Count::Entries;
    /// Addresses in quarantine, whatever server has them.
    quarantined_addresses: TypedMap<prefix_key, quarantine>, Size::Derived(|sizes| sizes.servers.value), Count::Entries;
    /// MACs in quarantine, by server.
    quarantined_macs: TypedMap<mac_key, quarantine>, Size::Derived(|sizes| sizes.servers.value), Count::Entries;

    /// Single addresses of servers.
    hosts: OuterMap<Hash, address, server>, Size::Fixed, Count::LivePolicy;
    /// Prefixes of servers.
    prefixes: OuterMap<Trie, prefix_key, server>, Size::Fixed, Count::LivePolicy;
    /// Needs on a single port.
    needs: OuterMap<Hash, need_key, need>, Size::Fixed, Count::LivePolicy;
    /// Needs on a range of ports.
    ranges: OuterMap<Trie, range_key, need>, Size::Fixed, Count::LivePolicy;
    /// Sets of peers, with the rule that holds for each prefix.
    peers: OuterMap<Trie, peer_key, u32>, Size::Fixed, Count::LivePolicy;
    /// Rules with a `limit`.
    rules: OuterMap<Hash, u32, rule>, Size::Fixed, Count::LivePolicy;
    /// MACs of servers and routers.
    macs: OuterMap<Hash, mac_key, u64>, Size::Fixed, Count::LivePolicy;
    /// Routers, by address and MAC.
    routers: OuterMap<Hash, router_key, u32>, Size::Fixed, Count::LivePolicy;
    /// Needs with a source port.
    sports: OuterMap<Trie, range_key, u32>, Size::Fixed, Count::LivePolicy;
    /// The number of each rule's need.
    need_numbers: OuterMap<Array, u32, u32>, Size::Fixed, Count::Hidden;
    /// The names of the policy.
    name_patterns: OuterMap<Trie, name_key, name_pattern>, Size::Fixed, Count::LivePolicy;
    /// Which profile has a need with which name.
    name_needs: OuterMap<Hash, name_need_key, u32>, Size::Fixed, Count::Hidden;
    /// The names of sets of peers, with the rule that holds for each.
    name_peers: OuterMap<Hash, name_peer_key, u32>, Size::Fixed, Count::LivePolicy;
    /// The resolvers whose answers count.
    resolvers: OuterMap<Hash, address, resolver>, Size::Fixed, Count::Hidden;
    /// What no name may point to.
    name_ranges: OuterMap<Trie, prefix_key, u32>, Size::Fixed, Count::Hidden;
    /// The text of the policy.
    sources: OuterMap<Array, u32, SourceChunk>, Size::Fixed, Count::LivePolicy;
    /// What edits allow and deny.
    edit_tables: OuterMap<Trie, edit_key, edit_cell>, Size::Fixed, Count::Hidden;
    /// The edits with who, when and why.
    edit_texts: OuterMap<Array, u32, SourceChunk>, Size::Fixed, Count::Hidden;

    /// Words that hold for every packet: `enum state`.
    state: TypedMap<u32, u64>, Size::Fixed, Count::Hidden;
    /// Settings of each slot's policy.
    policies: TypedMap<u32, settings>, Size::Fixed, Count::Hidden;
    /// Packets and bytes by reason, for each CPU.
    counters: TypedMap<u32, counter>, Size::Fixed, Count::Hidden;
    /// Events inside the programs, `enum statistic`, for each CPU.
    statistics: TypedMap<u32, u64>, Size::Fixed, Count::Hidden;
    /// MACs of the devices above the NIC.
    own_macs: TypedMap<u64, u32>, Size::Fixed, Count::Hidden;
    /// Indexes of the NIC and of the devices above it.
    own_interfaces: TypedMap<u32, u32>, Size::Fixed, Count::Hidden;
    /// DHCP servers that have answered a server.
    lessors: TypedMap<u32, lessors>, Size::Derived(|sizes| sizes.servers.value), Count::Hidden;
    /// MACs of other hosts on the link.
    neighbour_macs: TypedMap<u64, u32>, Size::Fixed, Count::Hidden;
    /// The perf buffer of samples.
    samples: MapHandle, Size::Fixed, Count::Hidden;
    /// Findings of each CPU that it keeps for itself.
    cpus: MapHandle, Size::Fixed, Count::Hidden;
}

impl Maps {
    /// The map of this name. `None`: there is no such map.
    pub fn find(&self, name: &str) -> Option<&MapHandle> {
        self.handles().into_iter().find(|(known, _)| *known == name).map(|(_, handle)| handle)
    }

    /// The maps' names, in the order of the table.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        ROWS.iter().map(|(name, _)| *name)
    }

    /// Keys of `[tables]` whose size is not that of their map: key, size wanted, size of the map.
    pub(super) fn differing_sizes(&self, sizes: &TableSizes) -> Vec<(&'static str, u32, u32)> {
        let sized = ROWS.iter().zip(self.handles()).filter_map(|((_, size), (_, handle))| match size {
            Size::Setting(key, wanted) => Some((*key, wanted(sizes), handle.max_entries())),
            Size::Fixed | Size::Derived(_) => None,
        });
        sized.filter(|(_, wanted, live)| wanted != live).collect()
    }
}

/// The size that a policy asks for. `None`: that of `bpf/maps.h` holds.
///
/// # Errors
/// When no map has this name: then the object is of another version.
pub(super) fn size_of(name: &str, sizes: &TableSizes) -> Result<Option<u32>, GateError> {
    match ROWS.iter().find(|(known, _)| *known == name) {
        Some((_, Size::Fixed)) => Ok(None),
        Some((_, Size::Setting(_, size) | Size::Derived(size))) => Ok(Some(size(sizes))),
        None => Err(GateError::foreign_object(format!("it has a map `{name}`"))),
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::ObjectBuilder;

    use super::*;
    use crate::gate::OBJECT;
    use crate::gate::program::is_for_variables;
    use crate::policy::Value;

    #[test]
    fn the_table_has_every_map_of_the_object_and_no_other() {
        let mut object = ObjectBuilder::default();
        let object = object.open_memory(OBJECT).unwrap();
        let mut expected: Vec<String> =
            object.maps().map(|map| map.name().to_string_lossy().into_owned()).collect();
        expected.retain(|name| !is_for_variables(name));
        let mut known: Vec<&str> = Maps::names().collect();
        expected.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, expected, "bpf/maps.h and the table in maps.rs differ");
    }

    #[test]
    fn a_map_that_the_table_does_not_have_is_refused() {
        let error = size_of("hosts2", &TableSizes::default()).unwrap_err().to_string();
        assert!(error.contains("hosts2"), "{error}");
    }

    #[test]
    fn keys_of_the_tables_that_are_sizes_of_maps_are_keys_of_the_policy() {
        let sizes = TableSizes::default();
        let keys = sizes.entries();
        for (name, size) in ROWS {
            if let Size::Setting(key, value) = size {
                let found = keys.iter().find(|(known, _)| known == key).map(|(_, value)| value);
                assert_eq!(found, Some(&Value::Number(value(&sizes))), "{name}");
            }
        }
    }
}
