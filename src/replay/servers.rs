//! Which server has an address: that of the longest prefix, as in the programs.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::compile::{ServerRow, Tables};
use crate::drops::Seeded;

/// The addresses of a policy's servers.
pub(super) struct Servers<'a> {
    rows: &'a [ServerRow],
    hosts: HashMap<IpAddr, usize, Seeded>,
    /// The lengths of prefixes that there are, the longest first.
    lengths: Vec<u8>,
    prefixes: HashMap<IpNet, usize, Seeded>,
}

impl<'a> Servers<'a> {
    pub(super) fn of(tables: &'a Tables) -> Servers<'a> {
        let mut servers = Servers {
            rows: &tables.servers,
            hosts: HashMap::default(),
            lengths: Vec::new(),
            prefixes: HashMap::default(),
        };
        for (number, row) in tables.servers.iter().enumerate() {
            if row.prefix.prefix_len() == row.prefix.max_prefix_len() {
                servers.hosts.insert(row.prefix.addr(), number);
            } else {
                servers.prefixes.insert(row.prefix, number);
                servers.lengths.push(row.prefix.prefix_len());
            }
        }
        servers.lengths.sort_unstable_by(|a, b| b.cmp(a));
        servers.lengths.dedup();
        servers
    }

    /// The row of the server that has an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<&'a ServerRow> {
        let number = self.hosts.get(&address).or_else(|| {
            self.lengths.iter().find_map(|length| {
                let prefix = IpNet::new(address, *length).ok()?.trunc();
                self.prefixes.get(&prefix)
            })
        })?;
        self.rows.get(*number)
    }
}
