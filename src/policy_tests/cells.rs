//! Cuts ports and peers into cells: within one, the tables have one answer. So the ends of the cells stand for all.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::compile::{NeedRow, PeerMatch, PeerRow, SportRow, Tables};
use crate::net::range_of;
use crate::policy::{Direction, Families};

/// Ports, or types of ICMP.
pub(super) type Ports = RangeInclusive<u16>;

/// The unicast addresses, which stand for every peer.
const UNICAST_V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(1, 0, 0, 1), Ipv4Addr::new(223, 255, 255, 254));
const UNICAST_V6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x3fff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xfffe),
);

/// The rows of a profile and protocol that have some of these ports.
pub(super) fn find_rows<'t>(
    tables: &'t Tables,
    profile: u32,
    proto: u8,
    ports: &Ports,
) -> impl Iterator<Item = &'t NeedRow> + use<'t> {
    let (first, last) = (*ports.start(), *ports.end());
    let start = tables
        .needs
        .partition_point(|row| (row.profile, row.proto, *row.ports.end()) < (profile, proto, first));
    let rows = tables.needs.get(start..).unwrap_or_default().iter();
    rows.take_while(move |row| (row.profile, row.proto) == (profile, proto) && *row.ports.start() <= last)
}

/// All rows of a profile.
pub(super) fn find_all_rows(tables: &Tables, profile: u32) -> impl Iterator<Item = &NeedRow> {
    let start = tables.needs.partition_point(|row| row.profile < profile);
    let rows = tables.needs.get(start..).unwrap_or_default().iter();
    rows.take_while(move |row| row.profile == profile)
}

/// The ranges of a server's own ports by which a profile has more needs.
pub(super) fn find_sports(tables: &Tables, profile: u32, proto: u8) -> impl Iterator<Item = &SportRow> {
    find_all_sports(tables, profile).filter(move |row| row.proto == proto)
}

/// The same of every protocol.
pub(super) fn find_all_sports(tables: &Tables, profile: u32) -> impl Iterator<Item = &SportRow> {
    let start = tables.sports.partition_point(|row| row.profile < profile);
    let rows = tables.sports.get(start..).unwrap_or_default().iter();
    rows.take_while(move |row| row.profile == profile)
}

/// The match of a row in one direction.
pub(super) fn match_of(row: &NeedRow, direction: Direction) -> PeerMatch {
    match direction {
        Direction::In => row.inbound,
        Direction::Out => row.outbound,
        Direction::Quiet => row.quiet,
    }
}

/// The prefixes of a set of peers, with their rules.
pub(super) fn find_peers(tables: &Tables, set: u32) -> impl Iterator<Item = &PeerRow> {
    let start = tables.peers.partition_point(|row| row.set < set);
    let rows = tables.peers.get(start..).unwrap_or_default().iter();
    rows.take_while(move |row| row.set == set && set != 0)
}

/// Cuts a range where others begin or end.
pub(super) fn cut(range: &Ports, others: impl Iterator<Item = Ports>) -> Vec<Ports> {
    let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
    let mut begins = BTreeSet::from([first]);
    for other in others {
        begins.extend([u32::from(*other.start()), u32::from(*other.end()) + 1]);
    }
    begins.retain(|at| (first..=last).contains(at));
    let ends = begins.iter().skip(1).copied().chain([last + 1]);
    let port = |at: u32| u16::try_from(at).unwrap_or(u16::MAX);
    begins.iter().zip(ends).map(|(begin, end)| port(*begin)..=port(end - 1)).collect()
}

/// The ends of a range, each once.
pub(super) fn ends_of(range: &Ports) -> impl Iterator<Item = u16> + use<> {
    let (first, last) = (*range.start(), *range.end());
    [first].into_iter().chain((last != first).then_some(last))
}

/// Whose addresses a test is about.
pub(super) enum Region<'r> {
    /// These.
    Prefixes(&'r [IpNet]),
    /// Every peer. With `special`, what the tables have beyond unicast as well.
    Everybody { special: bool },
}

impl Region<'_> {
    /// Addresses of these families that stand for the whole region, where the tables have `borders` in it. `None`:
    /// more than `most`.
    pub(super) fn pick(
        &self,
        families: Families,
        borders: &BTreeSet<IpNet>,
        most: usize,
    ) -> Option<BTreeSet<IpAddr>> {
        let mut picked = BTreeSet::new();
        match self {
            Region::Prefixes(prefixes) => {
                for prefix in prefixes.iter().filter(|prefix| has_family(families, &prefix.addr())) {
                    let ends = (prefix.network(), prefix.broadcast());
                    picked.extend([ends.0, ends.1]);
                    pick_borders(ends, borders.range(range_of(*prefix)), &mut picked);
                    if picked.len() > most {
                        return None;
                    }
                }
            }
            Region::Everybody { special } => {
                let (v4, v6) = (UNICAST_V4, UNICAST_V6);
                let both: [(IpAddr, IpAddr); 2] = [(v4.0.into(), v4.1.into()), (v6.0.into(), v6.1.into())];
                for ends in both.into_iter().filter(|(first, _)| has_family(families, first)) {
                    picked.extend([ends.0, ends.1]);
                    let of_family =
                        borders.iter().filter(|border| border.addr().is_ipv4() == ends.0.is_ipv4());
                    let whole = match ends.0 {
                        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
                        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from(u128::MAX).into()),
                    };
                    pick_borders(if *special { whole } else { ends }, of_family, &mut picked);
                }
                // nothing is sent to it, or from it
                picked.remove(&IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                picked.remove(&IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            }
        }
        (picked.len() <= most).then_some(picked)
    }
}

/// The addresses at both sides of each border, where they lie between two addresses.
fn pick_borders<'b>(
    between: (IpAddr, IpAddr),
    borders: impl Iterator<Item = &'b IpNet>,
    picked: &mut BTreeSet<IpAddr>,
) {
    let range = between.0..=between.1;
    for border in borders {
        let (first, last) = (border.network(), border.broadcast());
        let around = [Some(first), Some(last), step(first, false), step(last, true)];
        picked.extend(around.into_iter().flatten().filter(|address| range.contains(address)));
    }
}

/// The address after one, or before it. `None`: there is none.
fn step(address: IpAddr, up: bool) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            Ipv4Addr::from(if up { bits.checked_add(1)? } else { bits.checked_sub(1)? }).into()
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            Ipv6Addr::from(if up { bits.checked_add(1)? } else { bits.checked_sub(1)? }).into()
        }
    })
}

pub(super) fn has_family(families: Families, address: &IpAddr) -> bool {
    if address.is_ipv4() { families.v4 } else { families.v6 }
}

/// The families of one address.
pub(super) fn families_of(address: &IpAddr) -> Families {
    Families { v4: address.is_ipv4(), v6: address.is_ipv6() }
}

/// Addresses of an area that a packet may have.
pub(super) fn pick_of(area: &IpNet) -> [IpAddr; 3] {
    let usual = if area.addr().is_ipv4() { IpAddr::V4(UNICAST_V4.0) } else { IpAddr::V6(UNICAST_V6.0) };
    let first = area.hosts().next().unwrap_or_else(|| area.network());
    [if area.contains(&usual) { usual } else { first }, area.network(), area.broadcast()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn picks(region: &Region<'_>, borders: &[&str]) -> Vec<String> {
        let borders = nets(borders).into_iter().collect();
        let picked = region.pick(Families::BOTH, &borders, 100).unwrap();
        picked.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_range_is_cut_at_both_ends_of_each_other_range() {
        assert_eq!(cut(&(1..=9), [3..=5].into_iter()), [1..=2, 3..=5, 6..=9]);
        assert_eq!(cut(&(0..=65535), [0..=65535].into_iter()), [0..=65535]);
        assert_eq!(cut(&(80..=80), [1..=100].into_iter()), [80..=80]);
        assert_eq!(cut(&(5..=6), [6..=65535].into_iter()), [5..=5, 6..=6]);
    }

    #[test]
    fn a_prefix_has_its_ends_and_both_sides_of_each_border_inside() {
        let region = nets(&["192.0.2.0/24"]);
        assert_eq!(picks(&Region::Prefixes(&region), &["198.51.100.0/24"]), ["192.0.2.0", "192.0.2.255"]);
        assert_eq!(
            picks(&Region::Prefixes(&region), &["192.0.2.64/26"]),
            ["192.0.2.0", "192.0.2.63", "192.0.2.64", "192.0.2.127", "192.0.2.128", "192.0.2.255"]
        );
        // a wider one has no border inside
        assert_eq!(picks(&Region::Prefixes(&region), &["192.0.0.0/16"]), ["192.0.2.0", "192.0.2.255"]);
    }

    #[test]
    fn everybody_is_unicast_and_what_the_tables_have_beyond_it_only_where_that_is_asked() {
        let borders = ["224.0.0.251/32"];
        let plain = picks(&Region::Everybody { special: false }, &borders);
        assert!(!plain.contains(&"224.0.0.251".to_owned()) && plain.len() == 4, "{plain:?}");
        let special = picks(&Region::Everybody { special: true }, &borders);
        assert!(special.contains(&"224.0.0.251".to_owned()), "{special:?}");
    }

    #[test]
    fn more_addresses_than_the_most_are_none_at_all() {
        let region = nets(&["192.0.2.0/24"]);
        let borders = nets(&["192.0.2.64/26"]).into_iter().collect();
        assert_eq!(Region::Prefixes(&region).pick(Families::BOTH, &borders, 5), None);
    }
}
