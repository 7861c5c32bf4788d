//! That the tables say what the policy says: random policies, asked both ways.

use std::net::IpAddr;

use ipnet::IpNet;

use super::policy;
use crate::chance::Chance;
use crate::compile::{NeedRow, Tables, compile};
use crate::policy::{Direction, Need, Policy, Server};

const PROTOCOLS: &[&str] = &["tcp", "tcp", "udp", "icmp", "gre"];
const PORTS: &[&str] =
    &["", "/0", "/1", "/80", "/79-81", "/80-443", "/0-80", "/65535", "/443-65535", "/81-442"];
const TYPES: &[&str] = &["", "/0", "/8", "/255"];
const PEERS: &[&str] = &[
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3",
    "10.2.0.0/16",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::1",
    "@a",
    "@b",
];
const LIMITS: &[&str] = &["", "", " limit 1/s", " limit 60/m", " limit 61/m", " limit 5/s"];
const PROBES: &[&str] = &[
    "10.1.2.3",
    "10.1.2.4",
    "10.1.3.1",
    "10.2.0.1",
    "10.3.0.1",
    "192.0.2.1",
    "198.51.100.7",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:2::1",
    "2001:dead::1",
];

fn random_need(chance: &mut Chance, direction: Direction) -> String {
    let protocol = chance.pick(PROTOCOLS);
    let selection = match protocol {
        "tcp" | "udp" => chance.pick(PORTS),
        "icmp" => chance.pick(TYPES),
        _ => "",
    };
    let mut need = format!("{protocol}{selection}");
    let peers: Vec<&str> = (0..chance.below(4)).map(|_| chance.pick(PEERS)).collect();
    if !peers.is_empty() {
        need += &format!(" {} {}", direction.preposition(), peers.join(", "));
    }
    if direction == Direction::Out {
        need += chance.pick(LIMITS);
    }
    format!("\"{need}\"")
}

fn random_policy(chance: &mut Chance) -> String {
    let mut list = |most: usize, direction| -> String {
        (0..chance.below(most + 1)).map(|_| random_need(chance, direction)).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("[policy]\nmanagement = [{}]\n", list(2, Direction::In));
    text += "[sets]\na = [\"10.1.0.0/16\", \"2001:db8:1::/48\", \"198.51.100.7\"]\nb = [\"10.0.0.0/8\", \"10.1.2.3\"]\n";
    for role in 0..4 {
        text += &format!(
            "[roles.r{role}]\nin = [{}]\nout = [{}]\nquiet = [{}]\n",
            list(6, Direction::In),
            list(8, Direction::Out),
            list(3, Direction::Quiet)
        );
    }
    for server in 0..5 {
        let roles: Vec<String> = (0..chance.below(4)).map(|_| format!("\"r{}\"", chance.below(4))).collect();
        text += &format!(
            "[servers.s{server}]\naddresses = [\"192.0.2.{server}\"]\nroles = [{}]\n",
            roles.join(", ")
        );
    }
    text
}

/// The needs for a packet in the order in which they are asked, looked for in the plainest way.
fn find_needs_naively<'p>(
    policy: &'p Policy,
    server: Option<&Server>,
    direction: Direction,
    (proto, port, peer): (u8, u16, IpAddr),
) -> Vec<&'p Need> {
    let assigned =
        |name: &str| server.is_some_and(|server| server.roles.iter().any(|(role, _)| role == name));
    let management = policy.settings.management.iter().filter(|_| server.is_some()).map(|need| (0, need));
    let of_roles = policy.roles.iter().filter(|role| server.is_none() || assigned(&role.name));
    let mut candidates: Vec<(u8, &Need)> =
        management.chain(of_roles.flat_map(|role| role.needs()).map(|need| (1, need))).collect();
    candidates.retain(|(_, need)| {
        let peers = need.resolve_peers(&policy.sets);
        need.direction == direction
            && (server.is_some() || direction == Direction::Quiet)
            && need.protocol == proto
            && need.ports.contains(&port)
            && (peers.is_empty() || peers.iter().any(|prefix| prefix.contains(&peer)))
    });
    let slowness =
        |need: &Need| need.limit.map_or(0.0, |limit| f64::from(limit.per_seconds) / f64::from(limit.count));
    let burst = |need: &Need| need.limit.map_or(0, |limit| limit.count);
    candidates.sort_by(|(a_kind, a), (b_kind, b)| {
        let by_limit = slowness(a).total_cmp(&slowness(b)).then(burst(b).cmp(&burst(a)));
        a_kind.cmp(b_kind).then(by_limit).then(a.place.start.cmp(&b.place.start))
    });
    let count = match candidates.first() {
        Some((_, need)) if need.limit.is_none() => 1,
        _ => 8,
    };
    let mut needs: Vec<&Need> = Vec::new();
    for (_, need) in candidates {
        if needs.iter().all(|known| known.to_string() != need.to_string()) {
            needs.push(need);
        }
    }
    needs.truncate(count);
    needs
}

/// The places of a rule and of those that are asked after it.
fn list_places(tables: &Tables, rule: u32) -> Vec<(u32, u32)> {
    let find = |rule: u32| Some(&tables.rules[rule as usize]).filter(|row| row.line != 0);
    std::iter::successors(find(rule), |row| find(row.next)).map(|row| (row.line, row.column)).collect()
}

#[test]
fn the_tables_say_what_the_policy_says() {
    let probes: Vec<IpAddr> = PROBES.iter().map(|probe| probe.parse().unwrap()).collect();
    for seed in 1..=60 {
        let mut chance = Chance::new(seed);
        let text = random_policy(&mut chance);
        let policy = policy(&text);
        let tables = compile(&policy).unwrap_or_else(|errors| panic!("{errors}"));
        check_shape(&tables);
        let servers = policy.servers.iter().map(Some).chain([None]);
        for (index, server) in servers.enumerate() {
            let profile = tables.servers.get(index).map_or(0, |row| row.profile);
            for direction in Direction::ALL {
                for (proto, port) in [
                    (6, 0),
                    (6, 1),
                    (6, 79),
                    (6, 80),
                    (6, 81),
                    (6, 82),
                    (6, 443),
                    (6, 444),
                    (6, 65534),
                    (6, 65535),
                    (17, 80),
                    (17, 442),
                    (1, 0),
                    (1, 8),
                    (1, 9),
                    (1, 255),
                    (47, 0),
                    (50, 0),
                ] {
                    for peer in &probes {
                        let expected: Vec<(u32, u32)> =
                            find_needs_naively(&policy, server, direction, (proto, port, *peer))
                                .iter()
                                .map(|need| (need.place.line, need.place.column))
                                .collect();
                        let rule = tables.decide(profile, direction, proto, port, *peer);
                        assert_eq!(
                            list_places(&tables, rule),
                            expected,
                            "seed {seed}, server {index}, {direction} {proto}/{port} with {peer}:\n{text}"
                        );
                    }
                }
            }
        }
    }
}

/// Properties of the tables of every policy.
fn check_shape(tables: &Tables) {
    for pair in tables.needs.windows(2) {
        let key = |row: &NeedRow| (row.profile, row.proto);
        assert!(key(&pair[0]) <= key(&pair[1]), "rows are sorted");
        if key(&pair[0]) == key(&pair[1]) {
            assert!(pair[0].ports.end() < pair[1].ports.start(), "ranges are disjoint and sorted");
            let cells = |row: &NeedRow| [row.inbound, row.outbound, row.quiet];
            let touch = u32::from(*pair[0].ports.end()) + 1 == u32::from(*pair[1].ports.start());
            assert!(!touch || cells(&pair[0]) != cells(&pair[1]), "ranges that say the same are one");
        }
    }
    let mut keys: Vec<(u32, IpNet)> = tables.peers.iter().map(|row| (row.set, row.prefix)).collect();
    assert!(keys.is_sorted(), "peers are sorted");
    keys.dedup();
    assert_eq!(keys.len(), tables.peers.len(), "a set holds a prefix once");
    assert!(tables.peers.iter().all(|row| row.rule != 0 && row.set != 0));
}
