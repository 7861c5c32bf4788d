//! Servers with their names and all their evidence. The two addresses of one machine become one server where the capture
//! shows their MAC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::everyday;
use super::evidence::{Row, Service};
use super::scope::Servers;
use super::seen::Seen;
use super::suspicion::Troubles;
use crate::net::{TCP, UDP};
use crate::policy::Direction;

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) addresses: Vec<IpNet>,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) rows: BTreeMap<Service, Row>,
    pub(super) troubles: Troubles,
}

/// The servers of which there is evidence, and the addresses that turned out to be the router's.
pub(super) fn list_hosts(seen: &mut Seen<'_>, servers: &Servers<'_>) -> (Vec<Host>, Vec<IpAddr>) {
    let evidence = std::mem::take(&mut seen.evidence.servers);
    let mut by_address: BTreeMap<IpAddr, Host> = BTreeMap::new();
    let mut routers = Vec::new();
    for (id, found) in evidence {
        let Some(address) = seen.scope.address_of(id) else { continue };
        let is_named = matches!(servers, Servers::Policy(_));
        if !is_named && seen.macs.is_router(address) {
            routers.push(address);
            continue;
        }
        let place = seen.scope.place_of(id);
        let (name, addresses) = match (servers, place) {
            (Servers::Policy(compiled), Some(place)) => {
                let server = compiled.policy.servers.get(place);
                let nets = server.map(|server| server.addresses.iter().map(|(net, _)| *net).collect());
                (server.map(|server| server.name.clone()).unwrap_or_default(), nets.unwrap_or_default())
            }
            _ => (String::new(), vec![IpNet::from(address)]),
        };
        let troubles = seen.troubles.remove(&id).unwrap_or_default();
        let mac = seen.macs.find_own(address);
        by_address.insert(address, Host { name, addresses, mac, rows: found.rows, troubles });
    }
    if !matches!(servers, Servers::Policy(_)) {
        join_twins(seen, &mut by_address);
    }
    let mut hosts: Vec<Host> = by_address.into_values().collect();
    if !matches!(servers, Servers::Policy(_)) {
        name_hosts(&mut hosts);
    }
    (hosts, routers)
}

/// Joins the IPv6 address of a machine to its IPv4 address.
fn join_twins(seen: &Seen<'_>, hosts: &mut BTreeMap<IpAddr, Host>) {
    let pairs: Vec<(IpAddr, IpAddr)> = hosts
        .keys()
        .filter(|address| address.is_ipv4())
        .filter_map(|address| Some((*address, seen.macs.find_twin(*address)?)))
        .collect();
    for (address, twin) in pairs {
        let Some(other) = hosts.remove(&twin) else { continue };
        let Some(host) = hosts.get_mut(&address) else { continue };
        host.addresses.extend(other.addresses);
        for (service, row) in other.rows {
            match host.rows.get_mut(&service) {
                Some(known) => known.merge(row),
                None => {
                    host.rows.insert(service, row);
                }
            }
        }
        host.troubles.merge(other.troubles);
    }
}

impl Troubles {
    fn merge(&mut self, other: Troubles) {
        self.is_scan |= other.is_scan;
        self.first_ns = match (self.first_ns, other.first_ns) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for (service, kinds) in other.by_service {
            self.by_service.entry(service).or_default().extend(kinds);
        }
    }
}

/// Names servers by what they offer: web1, web2, dns1, host1.
fn name_hosts(hosts: &mut [Host]) {
    let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
    for host in hosts {
        let offered = host.rows.iter().filter(|(service, row)| {
            service.direction == Direction::In && row.answered > 0 && service.port != everyday::SSH
        });
        let roles: BTreeSet<(usize, &'static str)> = offered
            .filter(|(service, _)| matches!(service.protocol, TCP | UDP))
            .filter_map(|(service, _)| everyday::find_role(service.protocol, service.port))
            .filter(|role| *role != "monitored")
            .map(|role| (everyday::rank_role(role), role))
            .collect();
        let word = roles.first().map_or("host", |(_, role)| *role);
        let count = counts.entry(word).or_default();
        *count += 1;
        host.name = format!("{word}{count}");
    }
}

/// Whether the port is of no common service.
pub(super) fn is_odd(service: &Service) -> bool {
    matches!(service.protocol, TCP | UDP) && everyday::find_role(service.protocol, service.port).is_none()
}

/// Unnamed ports that were answered, by direction and protocol.
pub(super) fn count_odd_ports(host: &Host) -> BTreeMap<(Direction, u8), usize> {
    let mut odd = BTreeMap::new();
    for service in host.rows.keys().filter(|service| is_odd(service)) {
        *odd.entry((service.direction, service.protocol)).or_default() += 1;
    }
    odd
}
