//! Which of the flows that peers have opened a policy still permits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::{ServerRow, Tables};
use crate::abi::{flow_key, from_address};
use crate::net::is_icmp;
use crate::policy::Direction;

/// Profiles by address, for many questions.
pub struct ServiceIndex<'t> {
    tables: &'t Tables,
    hosts: HashMap<IpAddr, u32>,
    /// The longest first.
    prefixes: Vec<&'t ServerRow>,
}

impl<'t> ServiceIndex<'t> {
    /// Sorts the servers of a policy.
    pub fn new(tables: &'t Tables) -> ServiceIndex<'t> {
        let is_host = |row: &ServerRow| row.prefix.prefix_len() == row.prefix.max_prefix_len();
        let (hosts, mut prefixes): (Vec<_>, Vec<_>) = tables.servers.iter().partition(|row| is_host(row));
        prefixes.sort_by_key(|row| std::cmp::Reverse(row.prefix.prefix_len()));
        let hosts = hosts.iter().map(|row| (row.prefix.addr(), row.profile)).collect();
        ServiceIndex { tables, hosts, prefixes }
    }

    /// Whether an `in` need lets the peer open this flow.
    pub fn permits(&self, key: &flow_key) -> bool {
        // a flow has both addresses: `None` is `::`, from which a packet may come
        let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let server = from_address(&key.server).unwrap_or(unspecified);
        let peer = from_address(&key.peer).unwrap_or(unspecified);
        let covering =
            || self.prefixes.iter().find(|row| row.prefix.contains(&server)).map(|row| row.profile);
        let Some(profile) = self.hosts.get(&server).copied().or_else(covering) else {
            return false;
        };
        // the service of an ICMP flow is the type of the request
        let port_be = if is_icmp(key.protocol) { key.peer_port_be } else { key.server_port_be };
        self.tables.decide(profile, Direction::In, key.protocol, u16::from_be(port_be), peer) != 0
    }
}
