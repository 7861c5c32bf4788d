//! The rows of names as the maps hold them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::{NameTables, Tables};
use crate::abi::{
    layout, name_key, name_need_key, name_pattern, name_peer_key, pattern_flag, prefix_bits, prefix_key,
    to_address,
};
use crate::net::DomainName;

/// The ids of names: those of the policy, in the order of [`NameTables::names`], and all that were ever given.
#[derive(Clone, Debug, Default)]
pub struct DomainIds {
    /// Of the policy's names.
    pub ids: Vec<u32>,
    /// Of names that earlier policies had.
    pub earlier: Vec<(u32, DomainName)>,
}

/// Names as destinations: the entries of their maps.
#[derive(Default)]
pub struct EncodedNames {
    /// The names, with what is below them.
    pub patterns: Vec<(name_key, name_pattern)>,
    /// Which profile has a need with which name.
    pub needs: Vec<(name_need_key, u32)>,
    /// The names of sets of peers, with the rule that holds.
    pub peers: Vec<(name_peer_key, u32)>,
    /// What names may not point to, and what they may all the same.
    pub ranges: Vec<(prefix_key, u32)>,
}

/// Encodes names. `word`: a rule as the maps name it.
pub(super) fn encode_names(tables: &Tables, domains: &DomainIds, word: impl Fn(u32) -> u32) -> EncodedNames {
    let names = &tables.destinations;
    let id_of = |number: u32| domains.ids.get(number as usize).copied().unwrap_or(0);
    let need =
        |(profile, number): &(u32, u32)| (name_need_key { profile: *profile, name: id_of(*number) }, 1);
    let peer = |(set, name, rule): (u32, u32, u32)| (name_peer_key { set, name }, word(rule));
    let own = names.peers.iter().map(|row| (row.set, id_of(row.name), row.rule));
    EncodedNames {
        patterns: encode_patterns(names, &domains.ids),
        needs: names.needs.iter().map(need).collect(),
        peers: own.chain(list_earlier(names, domains)).map(peer).collect(),
        ranges: names.ranges.iter().map(|(prefix, range)| (to_range_key(prefix), *range)).collect(),
    }
}

/// As `to_prefix_key`, but a prefix of all IPv4 stands in IPv6 too.
fn to_range_key(prefix: &IpNet) -> prefix_key {
    prefix_key { prefix_bits: prefix_bits(prefix), address: to_address(prefix.network()) }
}

/// A name of an earlier policy that a wildcard of this one has: what was granted for it still counts.
fn list_earlier(names: &NameTables, domains: &DomainIds) -> Vec<(u32, u32, u32)> {
    let mut sets: BTreeMap<u32, Vec<(&DomainName, u32)>> = BTreeMap::new();
    for row in &names.peers {
        if let Some(name) = names.names.get(row.name as usize)
            && name.is_wildcard()
        {
            sets.entry(row.set).or_default().push((name, row.rule));
        }
    }
    let current: BTreeSet<u32> = domains.ids.iter().copied().collect();
    let mut rows = Vec::new();
    for (set, wildcards) in &sets {
        for (id, earlier) in domains.earlier.iter().filter(|(id, _)| !current.contains(id)) {
            let around = wildcards.iter().filter(|(name, _)| earlier.is_within(name));
            if let Some((_, rule)) = around.max_by_key(|(name, _)| name.domain().len()) {
                rows.push((*set, *id, *rule));
            }
        }
    }
    rows
}

/// One entry for each domain, with the most specific names for itself and for what is below. If a server may ask
/// for these names alone, there are entries for what is asked beside them, too.
fn encode_patterns(names: &NameTables, ids: &[u32]) -> Vec<(name_key, name_pattern)> {
    // the exact name's id, and the wildcard's
    let mut known: HashMap<&str, (u32, u32)> = HashMap::new();
    for (name, id) in names.names.iter().zip(ids) {
        let entry = known.entry(name.domain()).or_default();
        match name.is_wildcard() {
            true => entry.1 = *id,
            false => entry.0 = *id,
        }
    }
    let mut domains: BTreeMap<&str, u32> = names.names.iter().map(|name| (name.domain(), 0)).collect();
    let mut entries = Vec::new();
    if names.is_asked_by_name {
        let mut mark = |domain, flag: pattern_flag| *domains.entry(domain).or_default() |= flag.0;
        for name in &names.names {
            if name.is_wildcard() {
                mark(name.domain(), pattern_flag::PATTERN_PARENT);
            }
            list_domains_around(name.domain()).for_each(|outer| mark(outer, pattern_flag::PATTERN_PARENT));
        }
        REVERSE_DOMAINS.iter().for_each(|domain| mark(domain, pattern_flag::PATTERN_REVERSE));
        entries.extend(encode_fronts(names));
    }
    for (domain, flags) in domains {
        let (exact, wildcard) = known.get(domain).copied().unwrap_or_default();
        let around = list_domains_around(domain)
            .find_map(|outer| known.get(outer).map(|(_, wildcard)| *wildcard).filter(|id| *id != 0))
            .unwrap_or(0);
        let or_around = |id: u32| if id == 0 { around } else { id };
        let bytes = DomainName::from_printed(domain).to_key();
        let pattern = name_pattern {
            exact: or_around(exact),
            below: or_around(wildcard),
            bytes: bytes.len() as u32,
            flags,
        };
        entries.push((to_name_key(&bytes), pattern));
    }
    entries
}

/// The names forwards: a client that got no answer asks for them once more, with a domain behind them.
fn encode_fronts(names: &NameTables) -> Vec<(name_key, name_pattern)> {
    let mut fronts: BTreeMap<&str, u32> = BTreeMap::new();
    for name in &names.names {
        let flag = match name.is_wildcard() {
            true => pattern_flag::PATTERN_FRONT_OF_BELOW,
            false => pattern_flag::PATTERN_FRONT,
        };
        *fronts.entry(name.domain()).or_default() |= flag.0;
    }
    // the longest front is found, so it has what shorter ones have
    let around = |domain: &str| {
        let ends = domain.match_indices('.').map(|(at, _)| at).chain([domain.len()]);
        ends.filter_map(|end| fronts.get(domain.get(..end)?)).fold(0, |all, flags| all | flags)
    };
    let encode = |domain: &str| {
        let mut bytes = DomainName::from_printed(domain).to_key();
        bytes.reverse();
        let pattern = name_pattern { exact: 0, below: 0, bytes: bytes.len() as u32, flags: around(domain) };
        (to_name_key(&bytes), pattern)
    };
    fronts.keys().copied().map(encode).collect()
}

fn to_name_key(bytes: &[u8]) -> name_key {
    let mut key = name_key { prefix_bits: bytes.len() as u32 * 8, ..name_key::default() };
    key.bytes.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    key
}

/// Where addresses are looked up (RFC 1035, 3.5; RFC 3596, 2.5).
const REVERSE_DOMAINS: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

/// The domains that a domain is below of, the nearest first.
fn list_domains_around(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(domain), |inner| inner.split_once('.').map(|(_, outer)| outer)).skip(1)
}

const _: () = assert!(layout::DOMAIN_BYTES.0 >= 254);
