//! Makes a compiled policy the live one, for all its entries at once.
//!
//! The new generation's tables are built and filled where no packet sees them,
//! put into the slot that is longest out of use, and go live by one 64-bit
//! store. Killed at any point before that store, this leaves the old policy;
//! after it, the new one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use plain::Plain;
use sha2::{Digest, Sha256};

use super::error::GateError;
use super::fault;
use super::map::Table;
use super::{Gate, OUTER_MAPS};
use crate::abi::{
    self, address, layout, limit, limit_key, name, need, need_key, peer_key, peer_match, prefix_key,
    quota_key, range_key, rule, rule_flag, server, server_flag, settings, settings_flag, state,
};
use crate::abi::{prefix_bits, to_address};
use crate::clock::wall_now;
use crate::compile::{Cell, NeedRow, ServerRow, Tables};
use crate::policy::{Policy, UnknownSources};

/// A range of at most this many ports is as many entries of the hash, which
/// is asked first and is faster than the trie.
const PORTS_AS_ENTRIES: u16 = 16;
const PORT_BITS: u32 = 16;
/// Bits of a need key before the port: profile, protocol, padding.
const NEED_BITS: u32 = 48;
const SET_BITS: u32 = 32;

/// One server gets at most one in so many of the ledger's rows that all have in common.
const COMMON_PART: u64 = 8;

/// One piece of policy text, as `sources` holds it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Chunk(pub [u8; layout::SOURCE_CHUNK_BYTES.0 as usize]);

impl Default for Chunk {
    fn default() -> Self {
        Chunk([0; layout::SOURCE_CHUNK_BYTES.0 as usize])
    }
}

// SAFETY: an array of bytes.
unsafe impl Plain for Chunk {}

/// What a generation consists of, ready to be put into the kernel.
struct Generation {
    hosts: Vec<(address, server)>,
    prefixes: Vec<(prefix_key, server)>,
    needs: Vec<(need_key, need)>,
    ranges: Vec<(range_key, need)>,
    peers: Vec<(peer_key, u32)>,
    rules: Vec<(u32, rule)>,
    chunks: Vec<(u32, Chunk)>,
    purses: Vec<limit_key>,
    flags: u32,
}

impl Gate {
    /// Makes `policy` the live one. The caller holds the lock.
    ///
    /// # Errors
    /// The live policy is what it was when this fails; names, purses and shares of the ledger may have
    /// been added to.
    pub fn install(&self, policy: &Policy, tables: &Tables) -> Result<u64, GateError> {
        let ids = self.give_ids(&tables.names)?;
        let generation = Generation::build(policy, tables, &ids);
        self.make_purses(&generation.purses)?;
        let shares = Shares::of(self.ledger.capacity(), tables.names.len());
        self.write_state(state::STATE_QUOTA_GUARANTEED, shares.own)?;
        self.write_state(state::STATE_QUOTA_SHARED, self.limit_common(&shares, &ids)?)?;
        self.write_state(state::STATE_QUOTA_MAX, shares.most)?;
        self.use_verdict_cache(generation.hosts.len(), !generation.prefixes.is_empty())?;
        // a server that had no further rows may have some now
        self.outdate_verdict_cache()?;

        let active = self.read_state(state::STATE_ACTIVE)?;
        let number = self.live_settings()?.map_or(0, |live| live.generation) + 1;
        // The slot after the live one is the longest out of use: the tables
        // of two swaps ago, which no packet can be reading any more.
        let slot = u32::try_from(active % u64::from(layout::SLOTS.0)).unwrap_or(0);

        let inner = generation.create_tables()?;
        self.fill_slot(slot, &inner)?;
        self.policies.put(&slot, &describe_settings(policy, tables, &generation, number), MapFlags::ANY)?;
        self.write_state(state::STATE_ACTIVE, u64::from(slot) + 1)?;
        if let Err(error) = self.end_revoked_flows(tables) {
            // the filter refuses their replies all the same
            log::warn!("flows of revoked services stay in their tables until they are idle: {error}");
        }
        Ok(number)
    }

    /// How far the count of common rows may go. Rows outlive policies: what servers took as their own
    /// when they owned more, or that servers took who are gone, is nobody else's now.
    fn limit_common(&self, shares: &Shares, ids: &[u32]) -> Result<u64, GateError> {
        let ids: HashSet<u32> = ids.iter().copied().chain([quota_key::QUOTA_UNKNOWN.0]).collect();
        let (mut counted, mut beyond) = (0, 0);
        for (owner, share) in self.ledger_quotas.entries()? {
            match owner {
                owner if owner == quota_key::QUOTA_SHARED.0 => counted = share.rows,
                owner if owner == quota_key::QUOTA_ROWS_ISSUED.0 => {}
                owner if ids.contains(&owner) => beyond += share.rows.saturating_sub(shares.own),
                _ => beyond += share.rows,
            }
        }
        Ok((shares.common + counted).saturating_sub(beyond))
    }

    /// Ids of the servers' names: old names keep theirs, for the ledger's sake.
    fn give_ids(&self, names: &[String]) -> Result<Vec<u32>, GateError> {
        let known = self.names.entries()?;
        let mut ids: HashMap<String, u32> =
            known.iter().map(|(id, name)| (text_of(&name.text), *id)).collect();
        let fresh = names.iter().filter(|name| !ids.contains_key(*name)).count();
        if known.len() + fresh > self.names.capacity() as usize {
            self.forget_names(&known, names)?;
            ids = self.names.entries()?.iter().map(|(id, name)| (text_of(&name.text), *id)).collect();
            if ids.len() + fresh > self.names.capacity() as usize {
                return Err(GateError::TableFull {
                    table: "servers",
                    size: self.names.capacity(),
                    wanted: ids.len() + fresh,
                });
            }
        }
        let mut last = self.read_state(state::STATE_SERVER_ID)?;
        let mut entries = Vec::new();
        let mut result = Vec::with_capacity(names.len());
        for text in names {
            let id = *ids.entry(text.clone()).or_insert_with(|| {
                last += 1;
                let id = last as u32;
                let mut entry = name::default_text();
                for (to, from) in entry.text.iter_mut().zip(text.bytes()) {
                    *to = from;
                }
                entries.push((id, entry));
                id
            });
            result.push(id);
        }
        if !entries.is_empty() {
            // The number first: an id given twice would mix two servers' drops.
            self.write_state(state::STATE_SERVER_ID, last)?;
            self.names.put_all(&entries)?;
        }
        Ok(result)
    }

    /// Frees the names that neither a policy nor a ledger row uses.
    fn forget_names(&self, known: &[(u32, name)], wanted: &[String]) -> Result<(), GateError> {
        let wanted: HashSet<&str> = wanted.iter().map(String::as_str).collect();
        let mut used: HashSet<u32> = self
            .ledger
            .entries()?
            .iter()
            .chain(&self.ledger_overflow.entries()?)
            .map(|(kind, _)| kind.server)
            .collect();
        used.extend(self.live_server_ids()?);
        for (id, name) in known {
            if !used.contains(id) && !wanted.contains(text_of(&name.text).as_str()) {
                self.names.remove(id)?;
            }
        }
        Ok(())
    }

    /// Makes a purse for each limit of each server: the filter only finds them.
    fn make_purses(&self, purses: &[limit_key]) -> Result<(), GateError> {
        if purses.is_empty() {
            return Ok(());
        }
        let existing: HashSet<(u32, u32)> =
            self.limits.entries()?.iter().map(|(key, _)| (key.server, key.limit_key)).collect();
        let wanted: HashSet<(u32, u32)> = purses.iter().map(|key| (key.server, key.limit_key)).collect();
        let mut total = existing.union(&wanted).count();
        if total > self.limits.capacity() as usize {
            let live = self.live_purses()?;
            for key in existing.iter().filter(|key| !wanted.contains(*key) && !live.contains(*key)) {
                self.limits.remove(&limit_key { server: key.0, limit_key: key.1 })?;
                total -= 1;
            }
        }
        if total > self.limits.capacity() as usize {
            return Err(GateError::TableFull {
                table: "limits",
                size: self.limits.capacity(),
                wanted: total,
            });
        }
        for key in purses {
            if !existing.contains(&(key.server, key.limit_key)) {
                self.limits.put(key, &limit::default(), MapFlags::NO_EXIST)?;
            }
        }
        Ok(())
    }

    /// Purses of the live policy.
    fn live_purses(&self) -> Result<HashSet<(u32, u32)>, GateError> {
        let Some(policy) = self.live_policy()? else {
            return Ok(HashSet::new());
        };
        let Ok(tables) = crate::compile::compile(&policy) else {
            return Ok(HashSet::new());
        };
        let ids = self.ids_by_name()?;
        let ids: Vec<u32> = tables.names.iter().map(|name| ids.get(name).copied().unwrap_or(0)).collect();
        Ok(list_purses(&tables, &ids).iter().map(|key| (key.server, key.limit_key)).collect())
    }

    /// Puts the inner maps into their slot of the outer ones. The kernel makes
    /// each of these wait until no program runs that might have seen the old
    /// content; in threads, they wait for the same moment.
    fn fill_slot(&self, slot: u32, inner: &[MapHandle]) -> Result<(), GateError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = OUTER_MAPS
                .iter()
                .zip(&self.outer)
                .zip(inner)
                .map(|((name, outer), inner)| {
                    scope.spawn(move || {
                        let fd = inner.as_fd().as_raw_fd();
                        fault::point();
                        outer.update(&slot.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).map_err(|error| {
                            GateError::from_libbpf(format!("could not put a new table into `{name}`"), &error)
                        })
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(GateError::Other {
                        what: "could not fill the new policy's slot".to_owned(),
                        why: "a thread died".to_owned(),
                    })
                })
            })
        })
    }
}

/// How the rows of the ledger are shared out, so that a server that calls every port takes no
/// other's room.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    /// What each server has, whatever the others do. Half of the ledger goes to these.
    own: u64,
    /// What is left for all of them.
    common: u64,
    /// What one may have, its own included.
    most: u64,
}

impl Shares {
    fn of(rows: u32, servers: usize) -> Shares {
        let rows = u64::from(rows);
        // and whoever has no server's address
        let owners = servers as u64 + 1;
        let own = rows / 2 / owners;
        let common = rows - own * owners;
        Shares { own, common, most: own + (common / COMMON_PART).max(1) }
    }
}

impl Generation {
    fn build(policy: &Policy, tables: &Tables, ids: &[u32]) -> Generation {
        let flags: Vec<u32> = tables
            .rules
            .iter()
            .enumerate()
            .map(|(id, row)| {
                let mut flags = id as u32;
                if row.limit.is_some() {
                    flags |= rule_flag::RULE_LIMITED.0;
                }
                if row.management {
                    flags |= rule_flag::RULE_MANAGEMENT.0;
                }
                flags
            })
            .collect();
        let flagged = |rule: u32| flags.get(rule as usize).copied().unwrap_or(0);
        let to_cell = |from: &Cell| peer_match { any: flagged(from.any), set: from.set };

        let mut needs = Vec::with_capacity(tables.needs.len());
        let mut ranges = Vec::new();
        let mut ranged = HashSet::new();
        for row in &tables.needs {
            let value = need {
                inbound: to_cell(&row.inbound),
                outbound: to_cell(&row.outbound),
                quiet: to_cell(&row.quiet),
            };
            let (first, last) = (*row.ports.start(), *row.ports.end());
            if last - first < PORTS_AS_ENTRIES {
                needs.extend((first..=last).map(|port| (to_need_key(row, port), value)));
            } else {
                ranged.insert(row.profile);
                ranges.extend(cut_into_blocks(first, last).map(|(port, bits)| {
                    let key = range_key { prefix_bits: NEED_BITS + bits, need: to_need_key(row, port) };
                    (key, value)
                }));
            }
        }

        let mut hosts = Vec::new();
        let mut prefixes = Vec::new();
        for row in &tables.servers {
            let id = ids.get(row.server).copied().unwrap_or(0);
            let value = to_server(row, id, ranged.contains(&row.profile));
            if row.prefix.prefix_len() == row.prefix.max_prefix_len() {
                hosts.push((to_address(row.prefix.addr()), value));
            } else {
                let key = prefix_key {
                    prefix_bits: prefix_bits(&row.prefix),
                    address: to_address(row.prefix.network()),
                };
                prefixes.push((key, value));
            }
        }

        let peers = tables
            .peers
            .iter()
            .map(|row| {
                let key = peer_key {
                    prefix_bits: SET_BITS + prefix_bits(&row.prefix),
                    set: row.set,
                    address: to_address(row.prefix.network()),
                };
                (key, flagged(row.rule))
            })
            .collect();
        let rules = tables
            .rules
            .iter()
            .enumerate()
            .filter_map(|(id, row)| {
                let limit = row.limit?;
                let period_ns = u64::from(limit.per_seconds) * 1_000_000_000;
                let interval_ns = period_ns / u64::from(limit.count);
                let rule = rule {
                    limit_key: row.limit_key,
                    zero: 0,
                    interval_ns,
                    // a burst of `count`, then the rate
                    tolerance_ns: interval_ns * (u64::from(limit.count) - 1),
                };
                Some((id as u32, rule))
            })
            .collect();
        let chunks = policy
            .text
            .as_bytes()
            .chunks(size_of::<Chunk>())
            .zip(0..)
            .map(|(text, index)| {
                let mut chunk = Chunk::default();
                chunk.0[..text.len()].copy_from_slice(text);
                (index, chunk)
            })
            .collect();

        let mut flags = 0;
        let mut set = |condition: bool, flag: settings_flag| {
            if condition {
                flags |= flag.0;
            }
        };
        set(tables.settings.observe, settings_flag::SETTINGS_OBSERVE);
        set(tables.settings.strict, settings_flag::SETTINGS_STRICT);
        set(tables.settings.dhcp, settings_flag::SETTINGS_DHCP);
        set(tables.settings.unknown_sources == UnknownSources::Allow, settings_flag::SETTINGS_UNKNOWN_ALLOW);
        set(tables.settings.unknown_sources == UnknownSources::Quiet, settings_flag::SETTINGS_UNKNOWN_QUIET);
        set(!prefixes.is_empty(), settings_flag::SETTINGS_PREFIXES);
        set(ranged.contains(&0), settings_flag::SETTINGS_RANGES);
        let binds = server_flag::SERVER_MAC.0 | server_flag::SERVER_VLAN.0;
        let bound = hosts.iter().map(|(_, row)| row).chain(prefixes.iter().map(|(_, row)| row));
        set(bound.into_iter().any(|row| row.flags & binds != 0), settings_flag::SETTINGS_BOUND);

        Generation {
            hosts,
            prefixes,
            needs,
            ranges,
            peers,
            rules,
            chunks,
            purses: list_purses(tables, ids),
            flags,
        }
    }

    /// The tables, filled, in the order of [`OUTER_MAPS`].
    fn create_tables(&self) -> Result<Vec<MapHandle>, GateError> {
        let trie = libbpf_sys::BPF_F_NO_PREALLOC;
        Ok(vec![
            fill("hosts", MapType::Hash, 0, &self.hosts)?,
            fill("prefixes", MapType::LpmTrie, trie, &self.prefixes)?,
            fill("needs", MapType::Hash, 0, &self.needs)?,
            fill("ranges", MapType::LpmTrie, trie, &self.ranges)?,
            fill("peers", MapType::LpmTrie, trie, &self.peers)?,
            fill("rules", MapType::Hash, 0, &self.rules)?,
            fill("sources", MapType::Array, libbpf_sys::BPF_F_INNER_MAP, &self.chunks)?,
        ])
    }
}

fn fill<K: Plain + Copy + Default, V: Plain + Copy + Default>(
    name: &'static str,
    map_type: MapType,
    flags: u32,
    entries: &[(K, V)],
) -> Result<MapHandle, GateError> {
    let table = Table::<K, V>::create(name, map_type, flags, entries.len())?;
    table.put_all(entries)?;
    Ok(table.into_handle())
}

/// Every server's limits: `out` needs of its profile that have one.
fn list_purses(tables: &Tables, ids: &[u32]) -> Vec<limit_key> {
    let limit_of = |rule: u32| {
        let row = tables.rules.get(rule as usize)?;
        row.limit.is_some().then_some(row.limit_key)
    };
    let mut by_set: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for row in &tables.peers {
        if let Some(key) = limit_of(row.rule) {
            by_set.entry(row.set).or_default().insert(key);
        }
    }
    let mut by_profile: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for row in &tables.needs {
        let peer_match = &row.outbound;
        let in_set = by_set.get(&peer_match.set).into_iter().flatten().copied();
        let keys: Vec<u32> = limit_of(peer_match.any).into_iter().chain(in_set).collect();
        if !keys.is_empty() {
            by_profile.entry(row.profile).or_default().extend(keys);
        }
    }
    let mut purses = BTreeSet::new();
    for row in &tables.servers {
        let id = ids.get(row.server).copied().unwrap_or(0);
        for &key in by_profile.get(&row.profile).into_iter().flatten() {
            purses.insert((id, key));
        }
    }
    purses.into_iter().map(|(server, key)| limit_key { server, limit_key: key }).collect()
}

fn to_need_key(row: &NeedRow, port: u16) -> need_key {
    need_key { profile: row.profile, protocol: row.proto, zero: 0, port_be: port.to_be() }
}

fn to_server(row: &ServerRow, id: u32, ranged: bool) -> server {
    let mut flags = 0;
    let mut set = |condition: bool, flag: server_flag| {
        if condition {
            flags |= flag.0;
        }
    };
    set(row.observe, server_flag::SERVER_OBSERVE);
    set(row.mac.is_some(), server_flag::SERVER_MAC);
    set(row.vlan.is_some(), server_flag::SERVER_VLAN);
    set(ranged, server_flag::SERVER_RANGES);
    server { id, profile: row.profile, vlan: row.vlan.unwrap_or(0), mac: row.mac.unwrap_or_default(), flags }
}

/// Aligned blocks that make up a range of ports: first port and bits that count.
fn cut_into_blocks(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let end = u32::from(last) + 1;
    let mut next = u32::from(first);
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        // the largest block that begins here and does not reach beyond the end
        let aligned = if next == 0 { PORT_BITS } else { next.trailing_zeros() };
        let bits = aligned.min((end - next).ilog2());
        let block = (next as u16, PORT_BITS - bits);
        next += 1 << bits;
        Some(block)
    })
}

fn describe_settings(policy: &Policy, tables: &Tables, generation: &Generation, number: u64) -> settings {
    let applied_s = u64::try_from(wall_now().as_second()).unwrap_or(0);
    let mut file = [0; layout::FILE_BYTES.0 as usize];
    let room = file.len() - 1;
    for (to, from) in file.iter_mut().zip(policy.file.bytes().take(room)) {
        *to = from;
    }
    settings {
        generation: number,
        applied_s,
        flags: generation.flags,
        source_bytes: u32::try_from(policy.text.len()).unwrap_or(u32::MAX),
        servers: tables.servers.len() as u32,
        needs: tables.needs.len() as u32,
        peers: tables.peers.len() as u32,
        pickup_s: tables.settings.pickup_s,
        hash: Sha256::digest(policy.text.as_bytes()).into(),
        file,
    }
}

/// The text before the first NUL.
pub(super) fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl abi::name {
    fn default_text() -> Self {
        abi::name { text: [0; layout::NAME_BYTES.0 as usize] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(first: u16, last: u16) {
        let mut next = u32::from(first);
        for (port, bits) in cut_into_blocks(first, last) {
            assert_eq!(u32::from(port), next, "{first}-{last}");
            let size = 1_u32 << (PORT_BITS - bits);
            assert_eq!(next % size, 0, "{first}-{last}: {port}/{bits} is not aligned");
            next += size;
        }
        assert_eq!(next, u32::from(last) + 1, "{first}-{last}");
    }

    #[test]
    fn blocks_of_a_port_range_cover_it_exactly() {
        for (first, last) in [
            (0, 65535),
            (0, 0),
            (65535, 65535),
            (1, 65535),
            (0, 65534),
            (1024, 65535),
            (137, 138),
            (1, 2),
            (32767, 32768),
        ] {
            covers(first, last);
        }
    }

    #[test]
    fn what_servers_own_of_the_ledger_and_what_they_share_is_all_of_it() {
        assert_eq!(Shares::of(65_536, 19), Shares { own: 1638, common: 32_776, most: 1638 + 4097 });
        for rows in [1, 2, 7, 512, 65_536, 1 << 24] {
            for servers in [0, 1, 3, 100, 65_536] {
                let Shares { own, common, most } = Shares::of(rows, servers);
                assert_eq!(own * (servers as u64 + 1) + common, u64::from(rows));
                assert!(most > own && most <= u64::from(rows), "{servers} servers, {rows} rows: {most}");
            }
        }
    }

    #[test]
    fn every_port_is_one_block() {
        assert_eq!(cut_into_blocks(0, 65535).collect::<Vec<_>>(), [(0, 0)]);
    }
}
