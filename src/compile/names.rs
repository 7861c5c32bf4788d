//! Which names a policy has, who needs them, and what no name may point to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::name_tables::NameTables;
use super::rows::Profile;
use super::rules::Rulebook;
use crate::abi::name_range;
use crate::policy::{Direction, Policy, Questions};

/// The names of a policy, those who need them, and what they may point to. The names of sets come later.
pub(super) fn find_names(policy: &Policy, profiles: &[Profile], book: &Rulebook<'_>) -> NameTables {
    let names = book.domains().to_vec();
    let is_asked_by_name =
        policy.servers.iter().any(|server| policy.questions_of(server) == Questions::Named);
    let sources = policy.name_sources();
    if names.is_empty() {
        // there is nothing to learn, but the resolvers are still asked
        return NameTables { sources, is_asked_by_name, ..NameTables::default() };
    }
    let mut needs: Vec<(u32, u32)> = (0..).take(names.len()).map(|name| (0, name)).collect();
    for (number, profile) in (0u32..).zip(profiles) {
        let is_out = |rule: &&u32| book.need(**rule).is_some_and(|need| need.direction == Direction::Out);
        let of_rules = profile.rules.iter().filter(is_out).flat_map(|rule| book.names(*rule));
        needs.extend(of_rules.map(|name| (number, name)));
    }
    needs.sort_unstable();
    needs.dedup();
    NameTables {
        names,
        needs,
        peers: Vec::new(),
        sources,
        ranges: list_ranges(policy),
        has_forwarder: policy.servers.iter().any(|server| server.forwards),
        is_asked_by_name,
        seeds: Vec::new(),
    }
}

fn v4(a: u8, b: u8, c: u8, length: u8) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length).into()
}

fn v6(words: [u16; 4], length: u8) -> IpNet {
    let [a, b, c, d] = words;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length).into()
}

/// What is no address of a host that anybody can reach, by IANA's registries of special-purpose addresses,
/// 2025. Of IPv6 all but the global unicast addresses.
fn list_special() -> Vec<(IpNet, u32)> {
    let refused = name_range::NAME_RANGE_REFUSED.0;
    let mut ranges = vec![
        (v4(0, 0, 0, 8), refused),
        (v4(10, 0, 0, 8), refused),
        (v4(100, 64, 0, 10), refused),
        (v4(127, 0, 0, 8), refused),
        (v4(169, 254, 0, 16), refused),
        (v4(172, 16, 0, 12), refused),
        (v4(192, 0, 0, 24), refused),
        (v4(192, 0, 2, 24), refused),
        (v4(192, 88, 99, 24), refused),
        (v4(192, 168, 0, 16), refused),
        (v4(198, 18, 0, 15), refused),
        (v4(198, 51, 100, 24), refused),
        (v4(203, 0, 113, 24), refused),
        (v4(224, 0, 0, 4), refused),
        (v4(240, 0, 0, 4), refused),
    ];
    let mapped = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));
    ranges.extend([
        (v6([0; 4], 0), refused),
        // where the kernel keeps IPv4
        (mapped, 0),
        (v6([0x2000, 0, 0, 0], 3), 0),
        // Teredo among them
        (v6([0x2001, 0, 0, 0], 23), refused),
        (v6([0x2001, 0xdb8, 0, 0], 32), refused),
        // 6to4
        (v6([0x2002, 0, 0, 0], 16), refused),
        (v6([0x3fff, 0, 0, 0], 20), refused),
        (v6([0x64, 0xff9b, 0, 0], 96), to_nat64(96)),
    ]);
    ranges
}

/// Whether no name may point to an address unless the policy says so.
pub fn is_special(address: IpAddr) -> bool {
    let ranges = list_special();
    let holding = ranges.iter().filter(|(prefix, _)| prefix.contains(&address));
    let longest = holding.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.is_some_and(|(_, kind)| *kind & 0xff == name_range::NAME_RANGE_REFUSED.0)
}

fn to_nat64(bits: u8) -> u32 {
    name_range::NAME_RANGE_NAT64.0 | u32::from(bits) << 8
}

fn list_ranges(policy: &Policy) -> Vec<(IpNet, u32)> {
    let names = &policy.names;
    let is_private = |prefix: &IpNet| names.private.iter().any(|private| private.contains(prefix));
    let mut ranges: BTreeMap<IpNet, u32> =
        list_special().into_iter().filter(|(prefix, _)| !is_private(prefix)).collect();
    ranges.extend(names.nat64.iter().map(|prefix| (prefix, to_nat64(prefix.prefix_len()))));
    ranges.extend(names.private.iter().map(|prefix| (prefix, name_range::NAME_RANGE_PRIVATE.0)));
    ranges.into_iter().collect()
}
