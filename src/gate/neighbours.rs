//! Neighbours: which MAC the kernel knows of an address of the link.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::Gate;
use super::error::GateError;
use super::netlink::dump;
use super::own_links::list_own_interfaces;
use super::place::GatePlace;
use crate::abi::{mac_key, to_mac_number};
use crate::net::is_host_mac;

/// The first five bytes of a virtual router's MAC (RFC 9568, 7.3): the last one is its number.
const VIRTUAL_ROUTERS: [[u8; 5]; 2] = [[0, 0, 0x5e, 0, 1], [0, 0, 0x5e, 0, 2]];

/// The machine that has an address of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its MAC.
    pub mac: [u8; 6],
    /// Other addresses of this MAC.
    pub others: Vec<IpAddr>,
}

/// An address with its MAC, at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbour {
    interface: u32,
    address: IpAddr,
    mac: [u8; 6],
}

impl Gate {
    /// The machine of an address, as far as the kernel has resolved it. `None`: it has not, the address is
    /// behind another router, or the MAC is a router's.
    ///
    /// # Errors
    /// When the kernel lists nothing.
    pub fn find_sender(&self, place: &GatePlace, address: IpAddr) -> Result<Option<Sender>, GateError> {
        let failed = |error: io::Error| {
            GateError::from_io("could not list the neighbours of this machine".to_owned(), &error)
        };
        let own = list_own_interfaces(place).map_err(failed)?;
        let neighbours = list_neighbours().map_err(failed)?;
        let Some(sender) = find_in(&neighbours, &own, address) else {
            return Ok(None);
        };
        Ok((!self.is_router(sender.mac)?).then_some(sender))
    }

    /// Whether frames of this MAC may come from behind a router, or from this machine.
    fn is_router(&self, mac: [u8; 6]) -> Result<bool, GateError> {
        if VIRTUAL_ROUTERS.iter().any(|virtual_router| mac.starts_with(virtual_router)) {
            return Ok(true);
        }
        let number = to_mac_number(mac);
        if self.maps.own_macs.get(&number)?.is_some() {
            return Ok(true);
        }
        let Some(slot) = self.live_slot()? else {
            return Ok(false);
        };
        // the id of the server that has it, 0 for a router
        let holder = self.maps.macs.open_inner(slot)?.get(&mac_key { mac: number, server: 0, zero: 0 })?;
        Ok(holder == Some(0))
    }
}

fn find_in(neighbours: &[Neighbour], own: &BTreeSet<u32>, address: IpAddr) -> Option<Sender> {
    let ours = || neighbours.iter().filter(|neighbour| own.contains(&neighbour.interface));
    let mac = ours().find(|neighbour| neighbour.address == address)?.mac;
    let others: BTreeSet<IpAddr> = ours()
        .filter(|neighbour| neighbour.mac == mac && neighbour.address != address)
        .map(|neighbour| neighbour.address)
        .collect();
    is_host_mac(&mac).then(|| Sender { mac, others: others.into_iter().collect() })
}

/// The neighbours of this process's network namespace (rtnetlink(7), RTM_GETNEIGH).
fn list_neighbours() -> io::Result<Vec<Neighbour>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut neighbours = Vec::new();
    dump(&socket, RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewNeighbour(neighbour) = answer {
            neighbours.extend(to_neighbour(&neighbour));
        }
    })?;
    Ok(neighbours)
}

/// `None`: the kernel has no MAC of it.
fn to_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour { interface: message.header.ifindex, address: address?, mac: mac? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x30];

    fn neighbour(interface: u32, address: &str, mac: [u8; 6]) -> Neighbour {
        Neighbour { interface, address: address.parse().unwrap(), mac }
    }

    #[test]
    fn a_machine_is_found_by_its_address_at_the_own_interfaces_with_its_other_addresses() {
        let other = [2, 0, 0, 0, 0, 0x31];
        let list = [
            neighbour(7, "192.0.2.130", other),
            neighbour(2, "192.0.2.130", MAC),
            neighbour(3, "2001:db8:1::130", MAC),
            neighbour(2, "192.0.2.131", other),
            neighbour(7, "192.0.2.132", MAC),
            neighbour(2, "192.0.2.133", [1, 0, 0x5e, 0, 0, 1]),
        ];
        let own = [2, 3].into();
        let find = |address: &str| find_in(&list, &own, address.parse().unwrap());
        let others = vec!["2001:db8:1::130".parse().unwrap()];
        assert_eq!(find("192.0.2.130"), Some(Sender { mac: MAC, others }));
        assert_eq!(find("192.0.2.132"), None, "another NIC's");
        assert_eq!(find("192.0.2.133"), None, "a group");
        assert_eq!(find("192.0.2.9"), None);
    }
}
