//! What the tables open beyond the `accept` of a test, whole: every row of the profile is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::cells::{Ports, cut, find_all_rows, find_all_sports, find_peers, has_family, match_of};
use crate::compile::{NeedRow, Tables};
use crate::net::{range_of, subtract};
use crate::policy::{Direction, Families};

/// A need that a test accepts.
pub(super) struct Accepted {
    pub(super) protocol: u8,
    pub(super) ports: Ports,
    /// Empty: every peer.
    pub(super) peers: Vec<IpNet>,
    /// The server's own ports. `None`: all.
    pub(super) sport: Option<Ports>,
}

/// Something that is open and that the test does not accept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Surplus {
    /// Number of the rule that opens it.
    pub(super) rule: u32,
    pub(super) protocol: u8,
    pub(super) ports: Ports,
    /// Peers, never empty.
    pub(super) areas: Vec<IpNet>,
    /// `areas` is every peer of the families.
    pub(super) is_everybody: bool,
    /// The server's own ports. `None`: all.
    pub(super) sport: Option<Ports>,
}

/// Whose openings are looked at.
pub(super) struct Question<'q> {
    pub(super) profile: u32,
    pub(super) direction: Direction,
    /// Families that the server has.
    pub(super) families: Families,
    /// The peers that the test is about. `None`: all.
    pub(super) peers: Option<&'q [IpNet]>,
    pub(super) accepted: &'q [Accepted],
}

/// Everything that the tables open beyond `accepted`.
pub(super) fn list_surplus(tables: &Tables, question: &Question<'_>) -> Vec<Surplus> {
    let mut list = Vec::new();
    for row in find_all_rows(tables, question.profile) {
        add_surplus(tables, question, row, None, &mut list);
    }
    if question.direction == Direction::Out {
        for sports in find_all_sports(tables, question.profile) {
            let rows = find_all_rows(tables, sports.needs).filter(|row| row.proto == sports.proto);
            for row in rows {
                add_surplus(tables, question, row, Some(&sports.ports), &mut list);
            }
        }
    }
    list
}

fn add_surplus(
    tables: &Tables,
    question: &Question<'_>,
    row: &NeedRow,
    sport: Option<&Ports>,
    list: &mut Vec<Surplus>,
) {
    let areas = list_areas(tables, question, row);
    if areas.is_empty() {
        return;
    }
    let has_sport = |accepted: &Accepted| match (&accepted.sport, sport) {
        (None, _) => true,
        (Some(outer), Some(inner)) => outer.start() <= inner.start() && inner.end() <= outer.end(),
        (Some(_), None) => false,
    };
    let accepted: Vec<&Accepted> =
        question.accepted.iter().filter(|need| need.protocol == row.proto && has_sport(need)).collect();
    for ports in cut(&row.ports, accepted.iter().map(|need| need.ports.clone())) {
        let covering: Vec<&Accepted> =
            accepted.iter().copied().filter(|need| need.ports.contains(ports.start())).collect();
        if covering.iter().any(|need| need.peers.is_empty()) {
            continue;
        }
        let holes: Vec<IpNet> = covering.iter().flat_map(|need| need.peers.iter().copied()).collect();
        for (rule, areas) in &areas {
            let left: Vec<IpNet> = areas.iter().flat_map(|area| subtract(*area, &holes)).collect();
            if !left.is_empty() {
                list.push(Surplus {
                    rule: *rule,
                    protocol: row.proto,
                    ports: ports.clone(),
                    is_everybody: left == every_peer(question.families) && question.peers.is_none(),
                    areas: left,
                    sport: sport.cloned(),
                });
            }
        }
    }
}

/// The peers to whom a row is open, by the rule that opens it.
fn list_areas(tables: &Tables, question: &Question<'_>, row: &NeedRow) -> BTreeMap<u32, Vec<IpNet>> {
    let found = match_of(row, question.direction);
    let named: BTreeSet<IpNet> = find_peers(tables, found.set).map(|row| row.prefix).collect();
    let mut areas: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for row in find_peers(tables, found.set) {
        let inside: Vec<IpNet> =
            named.range(range_of(row.prefix)).copied().filter(|inner| *inner != row.prefix).collect();
        let asked = narrow(row.prefix, question);
        areas.entry(row.rule).or_default().extend(asked.iter().flat_map(|area| subtract(*area, &inside)));
    }
    if found.any != 0 {
        let named: Vec<IpNet> = named.into_iter().collect();
        let all = every_peer(question.families);
        let asked = question.peers.map_or(all.as_slice(), |peers| peers);
        let asked = asked.iter().filter(|area| has_family(question.families, &area.addr()));
        areas.entry(found.any).or_default().extend(asked.flat_map(|area| subtract(*area, &named)));
    }
    areas.retain(|_, areas| !areas.is_empty());
    areas
}

/// The part of a prefix that the question is about.
fn narrow(prefix: IpNet, question: &Question<'_>) -> Vec<IpNet> {
    if !has_family(question.families, &prefix.addr()) {
        return Vec::new();
    }
    let Some(peers) = question.peers else {
        return vec![prefix];
    };
    if peers.iter().any(|peer| peer.contains(&prefix)) {
        return vec![prefix];
    }
    peers.iter().copied().filter(|peer| prefix.contains(peer)).collect()
}

fn every_peer(families: Families) -> Vec<IpNet> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into();
    let v6 = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into();
    [(families.v4, v4), (families.v6, v6)].into_iter().filter(|(has, _)| *has).map(|(_, net)| net).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::policy::parse;

    /// What is open beyond `accepted`, as `PORTS AREAS`, for the only server of a policy.
    fn surplus(role: &str, accepted: &[(u8, Ports, &[&str])], peers: Option<&[&str]>) -> Vec<String> {
        let text = format!(
            "[sets]\nlogs = [\"198.51.100.0/24\", \"2001:db8:2::/64\"]\n[roles.r]\n{role}\n[servers.s]\n\
             addresses = [\"192.0.2.1\", \"2001:db8::1\"]\nroles = [\"r\"]\n"
        );
        let policy = parse(&text, "t").unwrap_or_else(|errors| panic!("{errors}"));
        let tables = compile(&policy).unwrap();
        let nets =
            |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let accepted: Vec<Accepted> = accepted
            .iter()
            .map(|(protocol, ports, peers)| Accepted {
                protocol: *protocol,
                ports: ports.clone(),
                peers: nets(peers),
                sport: None,
            })
            .collect();
        let peers = peers.map(nets);
        let direction = if role.starts_with("in") { Direction::In } else { Direction::Out };
        let question = Question {
            profile: tables.servers[0].profile,
            direction,
            families: Families::BOTH,
            peers: peers.as_deref(),
            accepted: &accepted,
        };
        let say = |surplus: Surplus| {
            let areas: Vec<String> = surplus.areas.iter().map(ToString::to_string).collect();
            let areas = if surplus.is_everybody { "*".to_owned() } else { areas.join(" ") };
            let sport = surplus.sport.map_or_else(String::new, |sport| format!(" sport {sport:?}"));
            format!("{:?} {areas}{sport}", surplus.ports)
        };
        list_surplus(&tables, &question).into_iter().map(say).collect()
    }

    #[test]
    fn what_is_accepted_is_no_surplus_and_the_rest_is() {
        let out = "out = [\"tcp/80-90 to @logs\", \"udp/53\"]";
        let logs: &[&str] = &["198.51.100.0/24", "2001:db8:2::/64"];
        assert_eq!(surplus(out, &[(6, 80..=90, logs), (17, 53..=53, &[])], None), Vec::<String>::new());
        assert_eq!(surplus(out, &[(6, 0..=65535, &[])], None), ["53..=53 *"]);
        assert_eq!(
            surplus(out, &[(6, 80..=85, logs), (17, 53..=53, &[])], None),
            ["86..=90 198.51.100.0/24 2001:db8:2::/64"]
        );
    }

    #[test]
    fn a_part_of_a_prefix_that_is_not_accepted_is_named_alone() {
        let out = "out = [\"tcp/80 to @logs\"]";
        let most: &[&str] = &["198.51.100.0/25", "2001:db8:2::/64"];
        assert_eq!(surplus(out, &[(6, 80..=80, most)], None), ["80..=80 198.51.100.128/25"]);
        let one_family: &[&str] = &["0.0.0.0/0"];
        assert_eq!(surplus("out = [\"tcp/80\"]", &[(6, 80..=80, one_family)], None), ["80..=80 ::/0"]);
    }

    #[test]
    fn a_source_port_opens_what_only_the_same_or_no_source_port_accepts() {
        let out = "out = [\"tcp/1024-65535 sport 20\"]";
        assert_eq!(surplus(out, &[], None), ["1024..=65535 * sport 20..=20"]);
        assert_eq!(surplus(out, &[(6, 1024..=65535, &[])], None), Vec::<String>::new());
    }

    #[test]
    fn a_service_is_surplus_for_the_peers_that_the_test_is_about() {
        let services = "in = [\"tcp/80\", \"tcp/22 from 203.0.113.0/24\"]";
        assert_eq!(surplus(services, &[(6, 80..=80, &[])], Some(&["198.51.100.1/32"])), Vec::<String>::new());
        assert_eq!(
            surplus(services, &[(6, 80..=80, &[])], Some(&["203.0.113.7/32"])),
            ["22..=22 203.0.113.7/32"]
        );
        assert_eq!(surplus(services, &[(6, 80..=80, &[])], None), ["22..=22 203.0.113.0/24"]);
    }
}
