//! Ends the flows whose `in` service a new policy no longer has. The filter
//! refuses their replies from the first packet on; taking them out of the
//! tables keeps them from coming back with their service.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use plain::Plain;

use super::Gate;
use super::error::GateError;
use super::map::Table;
use crate::abi::flow_key;
use crate::abi::from_address;
use crate::compile::{ServerRow, Tables};
use crate::policy::Direction;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Profiles by address, for many questions.
struct Index<'t> {
    tables: &'t Tables,
    hosts: HashMap<IpAddr, u32>,
    /// The longest first.
    prefixes: Vec<&'t ServerRow>,
}

impl<'t> Index<'t> {
    fn new(tables: &'t Tables) -> Index<'t> {
        let is_host = |row: &ServerRow| row.prefix.prefix_len() == row.prefix.max_prefix_len();
        let (hosts, mut prefixes): (Vec<_>, Vec<_>) = tables.servers.iter().partition(|row| is_host(row));
        prefixes.sort_by_key(|row| std::cmp::Reverse(row.prefix.prefix_len()));
        let hosts = hosts.iter().map(|row| (row.prefix.addr(), row.profile)).collect();
        Index { tables, hosts, prefixes }
    }

    fn permits(&self, key: &flow_key) -> bool {
        // a flow has both: none is `::`, from which a packet may come
        let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let server = from_address(&key.server).unwrap_or(unspecified);
        let peer = from_address(&key.peer).unwrap_or(unspecified);
        let covering =
            || self.prefixes.iter().find(|row| row.prefix.contains(&server)).map(|row| row.profile);
        let Some(profile) = self.hosts.get(&server).copied().or_else(covering) else {
            return false;
        };
        // of an ICMP flow, the service is the type of the request
        let port = match key.protocol {
            ICMP | ICMPV6 => u16::from_be(key.peer_port_be),
            _ => u16::from_be(key.server_port_be),
        };
        self.tables.decide(profile, Direction::In, key.protocol, port, peer) != 0
    }
}

impl Gate {
    /// To be called once `tables` are live.
    pub(super) fn end_revoked_flows(&self, tables: &Tables) -> Result<(), GateError> {
        let index = Index::new(tables);
        end_in(&self.established, &index)?;
        end_in(&self.half_open, &index)?;
        end_in(&self.datagrams, &index)?;
        end_in(&self.icmp_queries, &index)
    }
}

fn end_in<V: Plain + Copy + Default>(table: &Table<flow_key, V>, index: &Index<'_>) -> Result<(), GateError> {
    for (key, _) in table.entries()? {
        if !index.permits(&key) {
            table.remove(&key)?;
        }
    }
    Ok(())
}
