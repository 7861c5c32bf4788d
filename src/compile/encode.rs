//! The rows of a compiled policy as the maps hold them: keys and values of `bpf/contract.h`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use plain::Plain;
use sha2::{Digest, Sha256};

use super::encode_names::{DomainIds, EncodedNames, encode_names};
use super::ports::cut_into_blocks;
use super::{NeedRow, PeerMatch, RuleRow, ServerRow, SportRow, Tables};
use crate::abi::{
    address, layout, limit_key, mac_key, need, need_key, peer_key, peer_match, prefix_bits, prefix_key,
    range_key, router_key, rule, rule_flag, server, server_flag, settings, settings_flag, to_address,
    to_mac_number, to_prefix_key, write_text,
};
use crate::policy::{Limit, Policy};

/// A range of at most this many ports becomes as many entries of the hash, which is asked first and is
/// faster than the trie.
const PORTS_AS_ENTRIES: u16 = 16;
/// Bits of a need key before the port: profile, protocol, padding.
const NEED_BITS: u32 = 48;
/// Bits of a peer key before the address.
const SET_BITS: u32 = 32;

/// One piece of the policy's text, as `sources` holds it. The last one is filled up with NULs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SourceChunk(pub [u8; layout::SOURCE_CHUNK_BYTES.0 as usize]);

impl Default for SourceChunk {
    fn default() -> Self {
        SourceChunk([0; layout::SOURCE_CHUNK_BYTES.0 as usize])
    }
}

// SAFETY: an array of bytes.
unsafe impl Plain for SourceChunk {}

/// A policy generation, ready to be put into the kernel: the entries of each of its maps.
pub struct EncodedPolicy {
    /// Single addresses of servers.
    pub hosts: Vec<(address, server)>,
    /// Prefixes of servers.
    pub prefixes: Vec<(prefix_key, server)>,
    /// Needs on a single port or a short range.
    pub needs: Vec<(need_key, need)>,
    /// Needs on longer ranges, as blocks.
    pub ranges: Vec<(range_key, need)>,
    /// Profiles by the server's own ports, as blocks.
    pub sports: Vec<(range_key, u32)>,
    /// Sets of peers.
    pub peers: Vec<(peer_key, u32)>,
    /// Rules with a limit.
    pub rules: Vec<(u32, rule)>,
    /// MACs of servers and routers.
    pub macs: Vec<(mac_key, u64)>,
    /// Routers, by address and MAC.
    pub routers: Vec<(router_key, u32)>,
    /// The policy's text.
    pub sources: Vec<(u32, SourceChunk)>,
    /// Each limit of each server, once. The tool makes the token buckets, the filter only finds them.
    pub token_buckets: Vec<limit_key>,
    /// Names as destinations.
    pub names: EncodedNames,
    /// `enum settings_flag`.
    pub flags: u32,
}

/// Encodes a compiled policy. `ids` are the servers' ids, in the order of [`Tables::names`].
pub fn encode(policy: &Policy, tables: &Tables, ids: &[u32], domains: &DomainIds) -> EncodedPolicy {
    let rules = RuleWords::of(&tables.rules);
    let (needs, ranges) = encode_needs(&tables.needs, &rules);
    let ranged: HashSet<u32> = ranges.iter().map(|(key, _)| key.need.profile).collect();
    let with_sport: HashSet<u32> = tables.sports.iter().map(|row| row.profile).collect();
    let (hosts, prefixes) = encode_servers(&tables.servers, ids, &ranged, &with_sport);

    let mut flags = tables.settings.flags;
    let mut set = |condition: bool, flag: settings_flag| flags |= if condition { flag.0 } else { 0 };
    set(!prefixes.is_empty(), settings_flag::SETTINGS_PREFIXES);
    set(ranged.contains(&0), settings_flag::SETTINGS_RANGES);
    let is_bound = |row: &ServerRow| !row.macs.is_empty() || row.vlan.is_some();
    set(tables.servers.iter().any(is_bound), settings_flag::SETTINGS_BOUND);

    let is_link_service = |row: &NeedRow| row.profile == 0 && row.outbound != PeerMatch::default();
    set(tables.needs.iter().any(is_link_service), settings_flag::SETTINGS_LINK_SERVICES);
    set(!tables.routers.is_empty(), settings_flag::SETTINGS_ROUTERS);
    set(!tables.destinations.names.is_empty(), settings_flag::SETTINGS_NAMES);
    let has_common = tables.destinations.has_forwarder || tables.destinations.sources.resolve;
    set(has_common, settings_flag::SETTINGS_COMMON_GRANTS);
    set(!tables.destinations.sources.resolvers.is_empty(), settings_flag::SETTINGS_RESOLVERS);
    set(tables.destinations.is_asked_by_name, settings_flag::SETTINGS_NAMED);

    let limits =
        (0..).zip(&tables.rules).filter_map(|(id, row)| Some((id, encode_limit(row, row.limit?, &rules))));
    EncodedPolicy {
        hosts,
        prefixes,
        needs,
        ranges,
        sports: encode_sports(&tables.sports),
        peers: tables.peers.iter().map(|row| (to_peer_key(row), rules.word(row.rule))).collect(),
        rules: limits.collect(),
        macs: encode_macs(tables, ids),
        routers: encode_routers(tables),
        sources: cut_text(&policy.text),
        token_buckets: list_token_buckets(tables, ids),
        names: encode_names(tables, domains, |rule| rules.word(rule)),
        flags,
    }
}

/// The row of `policies` that says what a generation is. `applied_s` is UNIX time.
pub fn encode_settings(
    policy: &Policy,
    tables: &Tables,
    flags: u32,
    generation: u64,
    applied_s: u64,
) -> settings {
    settings {
        generation,
        applied_s,
        flags,
        source_bytes: u32::try_from(policy.text.len()).unwrap_or(u32::MAX),
        servers: tables.servers.len() as u32,
        needs: tables.needs.len() as u32,
        peers: tables.peers.len() as u32,
        pickup_s: tables.settings.pickup_s,
        hash: Sha256::digest(policy.text.as_bytes()).into(),
        file: write_text(&policy.file),
        quiet_ethertypes: list_quiet_ethertypes(policy),
        // of the tables that there are, see `Gate::install`
        limits: Default::default(),
        verdicts_mask: 0,
        zero: 0,
        name_floor_s: policy.names.ttl.floor_s,
        name_cap_s: policy.names.ttl.cap_s,
    }
}

fn list_quiet_ethertypes(policy: &Policy) -> [u16; layout::QUIET_ETHERTYPES_MAX.0 as usize] {
    let mut list = [0; layout::QUIET_ETHERTYPES_MAX.0 as usize];
    list.iter_mut().zip(&policy.settings.quiet_ethertypes.0).for_each(|(to, from)| *to = *from);
    list
}

/// Further MACs of each server, and all MACs of the policy with the server's id. A MAC that several have is
/// the first server's. The server's VLAN stands above its id.
fn encode_macs(tables: &Tables, ids: &[u32]) -> Vec<(mac_key, u64)> {
    let mut rows: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for row in &tables.servers {
        let server = id_of(row, ids);
        let vlan = row.vlan.map_or(0, |vlan| u64::from(vlan) + 1);
        for mac in row.macs.iter().skip(1) {
            rows.insert((server, to_mac_number(*mac)), 1);
        }
        for mac in &row.macs {
            rows.entry((0, to_mac_number(*mac))).or_insert(vlan << 32 | u64::from(server));
        }
    }
    for mac in tables.routers.iter().flat_map(|(_, macs)| macs) {
        rows.entry((0, to_mac_number(*mac))).or_insert(0);
    }
    rows.into_iter().map(|((server, mac), value)| (mac_key { mac, server, zero: 0 }, value)).collect()
}

fn encode_routers(tables: &Tables) -> Vec<(router_key, u32)> {
    let rows = tables.routers.iter().flat_map(|(address, macs)| {
        macs.iter().map(|mac| (router_key { address: to_address(*address), mac: to_mac_number(*mac) }, 1))
    });
    rows.collect()
}

/// Every server's limits: the `out` needs of its profile that have one.
pub fn list_token_buckets(tables: &Tables, ids: &[u32]) -> Vec<limit_key> {
    // All limits that are asked one after the other.
    let limits_of = |rule: u32| {
        let find = |rule: u32| tables.rules.get(rule as usize).filter(|row| row.limit.is_some());
        let rows = std::iter::successors(find(rule), move |row| find(row.next));
        rows.map(|row| row.limit_key)
    };
    let mut by_set: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for row in &tables.peers {
        by_set.entry(row.set).or_default().extend(limits_of(row.rule));
    }
    for row in &tables.destinations.peers {
        by_set.entry(row.set).or_default().extend(limits_of(row.rule));
    }
    let mut by_profile: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for row in &tables.needs {
        let in_set = by_set.get(&row.outbound.set).into_iter().flatten().copied();
        let keys: Vec<u32> = limits_of(row.outbound.any).chain(in_set).collect();
        if !keys.is_empty() {
            by_profile.entry(row.profile).or_default().extend(keys);
        }
    }
    for row in &tables.sports {
        let keys = by_profile.get(&row.needs).cloned().unwrap_or_default();
        if !keys.is_empty() {
            by_profile.entry(row.profile).or_default().extend(keys);
        }
    }
    let mut buckets = BTreeSet::new();
    for row in &tables.servers {
        let id = id_of(row, ids);
        for &key in by_profile.get(&row.profile).into_iter().flatten() {
            buckets.insert((id, key));
        }
    }
    buckets.into_iter().map(|(server, key)| limit_key { server, limit_key: key }).collect()
}

/// Rules as the maps name them: the number, and `enum rule_flag` in its upper bits.
struct RuleWords(Vec<u32>);

impl RuleWords {
    fn of(rules: &[RuleRow]) -> RuleWords {
        let word = |(id, row): (u32, &RuleRow)| {
            let limited = if row.limit.is_some() { rule_flag::RULE_LIMITED.0 } else { 0 };
            let management = if row.management { rule_flag::RULE_MANAGEMENT.0 } else { 0 };
            id | limited | management
        };
        RuleWords((0..).zip(rules).map(word).collect())
    }

    fn word(&self, rule: u32) -> u32 {
        self.0.get(rule as usize).copied().unwrap_or(0)
    }

    fn encode(&self, from: &PeerMatch) -> peer_match {
        peer_match { any: self.word(from.any), set: from.set }
    }
}

type NeedEntries = (Vec<(need_key, need)>, Vec<(range_key, need)>);

fn encode_needs(rows: &[NeedRow], rules: &RuleWords) -> NeedEntries {
    let mut needs = Vec::with_capacity(rows.len());
    let mut ranges = Vec::new();
    for row in rows {
        let value = need {
            inbound: rules.encode(&row.inbound),
            outbound: rules.encode(&row.outbound),
            quiet: rules.encode(&row.quiet),
        };
        let (first, last) = (*row.ports.start(), *row.ports.end());
        if last - first < PORTS_AS_ENTRIES {
            needs.extend((first..=last).map(|port| (to_need_key(row, port), value)));
        } else {
            ranges.extend(cut_into_blocks(first, last).map(|(port, bits)| {
                let key = range_key { prefix_bits: NEED_BITS + bits, need: to_need_key(row, port) };
                (key, value)
            }));
        }
    }
    (needs, ranges)
}

fn to_need_key(row: &NeedRow, port: u16) -> need_key {
    need_key { profile: row.profile, protocol: row.proto, zero: 0, port_be: port.to_be() }
}

fn encode_sports(rows: &[SportRow]) -> Vec<(range_key, u32)> {
    let blocks = rows.iter().flat_map(|row| {
        cut_into_blocks(*row.ports.start(), *row.ports.end()).map(|(port, bits)| {
            let need = need_key { profile: row.profile, protocol: row.proto, zero: 0, port_be: port.to_be() };
            (range_key { prefix_bits: NEED_BITS + bits, need }, row.needs)
        })
    });
    blocks.collect()
}

type ServerEntries = (Vec<(address, server)>, Vec<(prefix_key, server)>);

fn encode_servers(
    rows: &[ServerRow],
    ids: &[u32],
    ranged: &HashSet<u32>,
    with_sport: &HashSet<u32>,
) -> ServerEntries {
    let mut hosts = Vec::new();
    let mut prefixes = Vec::new();
    for row in rows {
        let value =
            to_server(row, id_of(row, ids), ranged.contains(&row.profile), with_sport.contains(&row.profile));
        if row.prefix.prefix_len() == row.prefix.max_prefix_len() {
            hosts.push((to_address(row.prefix.addr()), value));
        } else {
            prefixes.push((to_prefix_key(&row.prefix), value));
        }
    }
    (hosts, prefixes)
}

fn id_of(row: &ServerRow, ids: &[u32]) -> u32 {
    ids.get(row.server).copied().unwrap_or(0)
}

fn to_server(row: &ServerRow, id: u32, ranged: bool, with_sport: bool) -> server {
    let mut flags = 0;
    let mut set = |condition: bool, flag: server_flag| flags |= if condition { flag.0 } else { 0 };
    set(row.observe, server_flag::SERVER_OBSERVE);
    set(!row.macs.is_empty(), server_flag::SERVER_MAC);
    set(row.macs.len() > 1, server_flag::SERVER_MACS);
    set(row.vlan.is_some(), server_flag::SERVER_VLAN);
    set(ranged, server_flag::SERVER_RANGES);
    set(with_sport, server_flag::SERVER_SPORTS);
    set(row.forwards, server_flag::SERVER_FORWARDS);
    set(row.named, server_flag::SERVER_NAMED);
    server {
        id,
        profile: row.profile,
        vlan: row.vlan.unwrap_or(0),
        mac: row.macs.first().copied().unwrap_or_default(),
        flags,
    }
}

fn to_peer_key(row: &super::PeerRow) -> peer_key {
    peer_key {
        prefix_bits: SET_BITS + prefix_bits(&row.prefix),
        set: row.set,
        address: to_address(row.prefix.network()),
    }
}

/// A burst of as many as the limit counts, and then its rate.
fn encode_limit(row: &RuleRow, limit: Limit, rules: &RuleWords) -> rule {
    let interval_ns = u64::from(limit.per_seconds) * 1_000_000_000 / u64::from(limit.count);
    rule {
        limit_key: row.limit_key,
        next: rules.word(row.next),
        interval_ns,
        tolerance_ns: interval_ns * (u64::from(limit.count) - 1),
    }
}

/// A text in chunks, as maps hold it.
pub fn cut_text(text: &str) -> Vec<(u32, SourceChunk)> {
    let fill = |text: &[u8]| {
        let mut chunk = SourceChunk::default();
        chunk.0.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
        chunk
    };
    (0..).zip(text.as_bytes().chunks(size_of::<SourceChunk>()).map(fill)).collect()
}
