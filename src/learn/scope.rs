//! Which addresses are servers: those of networks that a person named, or those of a policy. Nothing is guessed.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::drops::Seeded;
use crate::policy::{Direction, find_objection};
use crate::policy_file::CompiledPolicy;

/// Servers at most. What others do is counted.
const MAX_SERVERS: usize = 4096;

/// Which addresses are servers.
#[derive(Debug)]
pub enum Servers<'a> {
    /// Each address of these networks is a server.
    Networks {
        /// The networks.
        networks: Vec<IpNet>,
        /// Addresses in them that are no servers: the router's own.
        except: Vec<IpAddr>,
    },
    /// Those of a policy.
    Policy(&'a CompiledPolicy),
}

/// A server's number.
pub(super) type ServerId = u32;

/// Finds servers by address.
pub(super) struct Scope<'a> {
    servers: &'a Servers<'a>,
    ids: HashMap<IpAddr, ServerId, Seeded>,
    /// The address of each server. Of a server of a policy, the first that was seen.
    addresses: Vec<IpAddr>,
    numbers: Vec<Option<usize>>,
    by_number: HashMap<usize, ServerId, Seeded>,
    /// Openings of servers that found no room.
    pub(super) crowded: u64,
}

impl<'a> Scope<'a> {
    pub(super) fn new(servers: &'a Servers<'a>) -> Scope<'a> {
        Scope {
            servers,
            ids: HashMap::default(),
            addresses: Vec::new(),
            numbers: Vec::new(),
            by_number: HashMap::default(),
            crowded: 0,
        }
    }

    /// Whether an address is a server's.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        match self.servers {
            Servers::Networks { networks, except } => {
                networks.iter().any(|network| is_host_of(network, address)) && !except.contains(&address)
            }
            Servers::Policy(compiled) => compiled.tables.find_server(address).is_some(),
        }
    }

    /// The server that has an address. A new one gets a number while there is room.
    pub(super) fn number(&mut self, address: IpAddr) -> Option<ServerId> {
        if let Some(id) = self.ids.get(&address) {
            return Some(*id);
        }
        // an address that no host has can't be a server's, whatever network it is in
        if !self.holds(address) || find_objection(&IpNet::from(address)).is_some() {
            return None;
        }
        let number = match self.servers {
            Servers::Networks { .. } => None,
            Servers::Policy(compiled) => Some(compiled.tables.find_server(address)?.server),
        };
        let known = number.and_then(|number| self.by_number.get(&number)).copied();
        if self.ids.len() >= MAX_SERVERS {
            self.crowded += 1;
            return known;
        }
        let id = known.unwrap_or_else(|| {
            self.addresses.push(address);
            self.numbers.push(number);
            // servers are numbered from 1, as in the maps
            u32::try_from(self.addresses.len()).unwrap_or(u32::MAX)
        });
        if let Some(number) = number {
            self.by_number.insert(number, id);
        }
        self.ids.insert(address, id);
        Some(id)
    }

    /// The address by which a server was seen first.
    pub(super) fn address_of(&self, id: ServerId) -> Option<IpAddr> {
        self.addresses.get(usize::try_from(id).ok()?.checked_sub(1)?).copied()
    }

    /// Its place among the servers of the policy.
    pub(super) fn place_of(&self, id: ServerId) -> Option<usize> {
        self.numbers.get(usize::try_from(id).ok()?.checked_sub(1)?).copied().flatten()
    }

    /// The rule of the policy by which this is permitted. `None`: no rule is.
    pub(super) fn find_rule(
        &self,
        server: IpAddr,
        direction: Direction,
        (protocol, port, own_port): (u8, u16, u16),
        peer: IpAddr,
    ) -> Option<u32> {
        let Servers::Policy(compiled) = self.servers else { return None };
        let tables = &compiled.tables;
        let row = tables.find_server(server)?;
        let by_profile = |profile| tables.decide(profile, direction, protocol, port, peer);
        let rule = match by_profile(row.profile) {
            0 if direction == Direction::Out => {
                tables.find_sport(row.profile, protocol, own_port).map_or(0, by_profile)
            }
            rule => rule,
        };
        (rule != 0).then_some(rule)
    }

    /// Whether nobody in particular has this address: a multicast or broadcast address.
    pub(super) fn is_for_all(&self, address: IpAddr) -> bool {
        let is_broadcast = match self.servers {
            Servers::Networks { networks, .. } => {
                networks.iter().any(|network| is_broadcast(network, address))
            }
            Servers::Policy(compiled) => {
                compiled.tables.servers.iter().any(|row| is_broadcast(&row.prefix, address))
            }
        };
        is_broadcast
            || match address {
                IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
                IpAddr::V6(address) => address.is_multicast(),
            }
    }
}

fn is_broadcast(network: &IpNet, address: IpAddr) -> bool {
    address.is_ipv4() && network.prefix_len() < 31 && network.broadcast() == address
}

/// Networks hold two addresses that no host has.
fn is_host_of(network: &IpNet, address: IpAddr) -> bool {
    let is_end = address.is_ipv4()
        && network.prefix_len() < 31
        && (network.network() == address || network.broadcast() == address);
    network.contains(&address) && !is_end
}
