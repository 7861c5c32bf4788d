//! The addresses of this machine, and the prefixes on the link of the gate's NIC: no name may have them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use libbpf_rs::MapFlags;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::Gate;
use super::error::GateError;
use super::netlink::dump;
use super::own_links::list_own_interfaces;
use super::place::GatePlace;
use crate::abi::{own_network, prefix_key, state, to_prefix_key};

impl Gate {
    /// Notes the addresses of this machine and the prefixes on the gate's link, and forgets earlier ones.
    ///
    /// # Errors
    /// When the kernel refuses to list or to write them. Those that were noted before stay.
    pub fn note_own_networks(&self, place: &GatePlace) -> Result<(), GateError> {
        let failed = |error: io::Error| GateError::Other {
            what: "could not list the addresses of this machine, which no name may have".to_owned(),
            why: error.to_string(),
        };
        let own = list_own_interfaces(place).map_err(failed)?;
        let wanted = to_rows(&list_addresses().map_err(failed)?, &own);
        let mut changed = false;
        for (prefix, kind) in &wanted {
            let key = to_prefix_key(prefix);
            if self.maps.own_networks.get(&key)? != Some(kind.0) {
                self.maps.own_networks.put(&key, &kind.0, MapFlags::ANY)?;
                changed = true;
            }
        }
        let keys: BTreeSet<(u32, [u32; 4])> =
            wanted.keys().map(|prefix| to_order(&to_prefix_key(prefix))).collect();
        for (key, _) in self.maps.own_networks.entries()? {
            if !keys.contains(&to_order(&key)) {
                self.maps.own_networks.remove(&key)?;
                changed = true;
            }
        }
        if changed {
            // afterwards: a program that finds the new number finds the new networks too
            let number = self.read_state(state::STATE_OWN_NETWORKS)?;
            self.write_state(state::STATE_OWN_NETWORKS, number.wrapping_add(1))?;
        }
        Ok(())
    }
}

fn to_order(key: &prefix_key) -> (u32, [u32; 4]) {
    (key.prefix_bits, key.address.word_be)
}

/// An address of an interface, with the prefix that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnAddress {
    interface: u32,
    address: IpAddr,
    prefix: IpNet,
}

/// What to note: every address, and the prefixes of the interfaces that lead to the gate's link.
fn to_rows(addresses: &[OwnAddress], link: &BTreeSet<u32>) -> BTreeMap<IpNet, own_network> {
    let mut rows = BTreeMap::new();
    for own in addresses.iter().filter(|own| link.contains(&own.interface)) {
        rows.insert(own.prefix, own_network::OWN_NETWORK_LINK);
    }
    for own in addresses {
        rows.insert(own.address.into(), own_network::OWN_NETWORK_ADDRESS);
    }
    rows
}

fn list_addresses() -> io::Result<Vec<OwnAddress>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut addresses = Vec::new();
    dump(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            addresses.extend(read_address(&message));
        }
    })?;
    Ok(addresses)
}

/// Of a link with two ends, `Local` is the own one, and the prefix is the other's.
fn read_address(message: &AddressMessage) -> Option<OwnAddress> {
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    let address = local.or(other)?;
    let prefix = IpNet::new(other.unwrap_or(address), message.header.prefix_len).ok()?.trunc();
    Some(OwnAddress { interface: message.header.index, address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(interface: u32, address: &str, prefix: &str) -> OwnAddress {
        OwnAddress { interface, address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    #[test]
    fn every_own_address_is_noted_and_of_the_gates_link_the_prefixes_too() {
        let addresses = [
            own(1, "127.0.0.1", "127.0.0.0/8"),
            own(2, "203.0.113.1", "203.0.113.0/24"),
            own(3, "192.0.2.1", "192.0.2.0/24"),
        ];
        let rows: Vec<(String, u32)> = to_rows(&addresses, &BTreeSet::from([3]))
            .into_iter()
            .map(|(prefix, kind)| (prefix.to_string(), kind.0))
            .collect();
        let (link, address) = (own_network::OWN_NETWORK_LINK.0, own_network::OWN_NETWORK_ADDRESS.0);
        let expected = [
            ("127.0.0.1/32", address),
            ("192.0.2.0/24", link),
            ("192.0.2.1/32", address),
            ("203.0.113.1/32", address),
        ];
        assert_eq!(rows, expected.map(|(prefix, kind)| (prefix.to_owned(), kind)));
    }
}
