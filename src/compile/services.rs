//! Which of the flows that peers have opened a policy still permits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::{ServerRow, Tables};
use crate::abi::{flow_key, from_address};
use crate::net::{TCP, is_icmp};
use crate::policy::Direction;

/// Servers by address, for many questions.
pub struct ServiceIndex<'t> {
    tables: &'t Tables,
    hosts: HashMap<IpAddr, &'t ServerRow>,
    /// The longest first.
    prefixes: Vec<&'t ServerRow>,
}

impl<'t> ServiceIndex<'t> {
    /// Sorts the servers of a policy.
    pub fn new(tables: &'t Tables) -> ServiceIndex<'t> {
        let is_host = |row: &ServerRow| row.prefix.prefix_len() == row.prefix.max_prefix_len();
        let (hosts, mut prefixes): (Vec<_>, Vec<_>) = tables.servers.iter().partition(|row| is_host(row));
        prefixes.sort_by_key(|row| std::cmp::Reverse(row.prefix.prefix_len()));
        let hosts = hosts.iter().map(|row| (row.prefix.addr(), *row)).collect();
        ServiceIndex { tables, hosts, prefixes }
    }

    /// Whether an `in` need lets the peer open this flow.
    pub fn permits(&self, key: &flow_key) -> bool {
        self.find_rule(key) != 0
    }

    /// Whether the need that lets the peer open this flow is one of the management.
    pub fn is_management(&self, key: &flow_key) -> bool {
        self.tables.rules.get(self.find_rule(key) as usize).is_some_and(|rule| rule.management)
    }

    /// Whether an `out` need lets a server open this TCP connection.
    pub fn opens(&self, server: IpAddr, (peer, port): (IpAddr, u16)) -> bool {
        self.find_server(server)
            .is_some_and(|row| self.tables.decide(row.profile, Direction::Out, TCP, port, peer) != 0)
    }

    /// The server that has an address.
    pub fn find_server(&self, address: IpAddr) -> Option<&'t ServerRow> {
        let covering = || self.prefixes.iter().find(|row| row.prefix.contains(&address)).copied();
        self.hosts.get(&address).copied().or_else(covering)
    }

    /// The rule by which the peer may open this flow, or 0.
    fn find_rule(&self, key: &flow_key) -> u32 {
        // a flow has both addresses: `None` is `::`, from which a packet may come
        let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let server = from_address(&key.server).unwrap_or(unspecified);
        let peer = from_address(&key.peer).unwrap_or(unspecified);
        let Some(row) = self.find_server(server) else { return 0 };
        // the service of an ICMP flow is the type of the request
        let port_be = if is_icmp(key.protocol) { key.peer_port_be } else { key.server_port_be };
        self.tables.decide(row.profile, Direction::In, key.protocol, u16::from_be(port_be), peer)
    }
}
