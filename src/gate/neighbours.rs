//! Neighbours: which MAC the kernel knows of an address of the link.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteFlags;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::Gate;
use super::error::GateError;
use super::neighbour_list::{Neighbour, list_neighbours};
use super::netlink::request;
use super::own_links::list_own_interfaces;
use super::place::GatePlace;
use super::routes::{Route, find_route};
use crate::abi::{mac_key, state, to_mac_number};
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
    /// Somebody has written it into the table for good (`ip neighbour add`), so nobody on the link has forged
    /// it.
    pub is_static: bool,
}

/// Where an address of the policy is on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// At this machine.
    Here(Sender),
    /// Behind the router with this MAC, as the routing table has it.
    Behind([u8; 6]),
    /// The kernel was just asked to find out.
    Asked,
    /// The routing table does not lead to the gate's link.
    NotOnLink,
}

impl Gate {
    /// The machine of an address, as far as the kernel has resolved it. `None`: it has not, the address is
    /// behind another router, or the MAC is a router's.
    ///
    /// # Errors
    /// When the kernel lists nothing.
    pub fn find_sender(&self, place: &GatePlace, address: IpAddr) -> Result<Option<Sender>, GateError> {
        let own = list_own_interfaces(place).map_err(name_failure)?;
        let neighbours = list_neighbours().map_err(name_failure)?;
        let Some(sender) = find_in(&neighbours, &own, address) else {
            return Ok(None);
        };
        Ok((!self.is_router(sender.mac)?).then_some(sender))
    }

    /// Where an address is, as the kernel knows it. An address whose MAC it does not know is asked for.
    ///
    /// # Errors
    /// When the kernel lists nothing.
    pub fn locate(&self, place: &GatePlace, address: IpAddr) -> Result<Whereabouts, GateError> {
        let own = list_own_interfaces(place).map_err(name_failure)?;
        let neighbours = list_neighbours().map_err(name_failure)?;
        if let Some(sender) = find_in(&neighbours, &own, address) {
            return Ok(Whereabouts::Here(sender));
        }
        // an error is the routing table's answer too: there is no route
        let route =
            Socket::new(NETLINK_ROUTE).and_then(|socket| find_route(&socket, address, RouteFlags::empty()));
        let Some(Route { interface, gateway, .. }) = route.ok().flatten() else {
            return Ok(Whereabouts::NotOnLink);
        };
        if !own.contains(&interface) {
            return Ok(Whereabouts::NotOnLink);
        }
        if let Some(router) = gateway.and_then(|gateway| find_in(&neighbours, &own, gateway)) {
            return Ok(Whereabouts::Behind(router.mac));
        }
        ask_for(gateway.unwrap_or(address), interface)
            .map_err(|error| GateError::from_io(format!("could not ask the link for {address}"), &error))?;
        Ok(Whereabouts::Asked)
    }

    /// Whether frames to this MAC are for this machine, as far as is known. In a bridge, and without any
    /// knowledge, each may be.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn takes_frames_to(&self, mac: [u8; 6]) -> Result<bool, GateError> {
        let is_certain = !is_host_mac(&mac) || is_virtual(mac);
        Ok(is_certain
            || self.read_state(state::STATE_OWN_MAC)? == 0
            || self.is_one_of_several_ports()?
            || self.maps.own_macs.get(&to_mac_number(mac))?.is_some())
    }

    /// The MAC, unless frames of it may come from behind a router or from this machine.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn without_routers(&self, mac: [u8; 6]) -> Result<Option<[u8; 6]>, GateError> {
        Ok((!self.is_router(mac)?).then_some(mac))
    }

    /// Whether frames of this MAC may come from behind a router, or from this machine.
    fn is_router(&self, mac: [u8; 6]) -> Result<bool, GateError> {
        if is_virtual(mac) {
            return Ok(true);
        }
        let number = to_mac_number(mac);
        if self.maps.own_macs.get(&number)?.is_some() {
            return Ok(true);
        }
        Ok(self.find_mac_holder(number)? == Some(0))
    }

    /// To whom the live policy gives a MAC: the server's id, or 0 for a router.
    pub(super) fn find_mac_holder(&self, mac: u64) -> Result<Option<u32>, GateError> {
        let Some(slot) = self.live_slot()? else {
            return Ok(None);
        };
        let holder = self.maps.macs.open_inner(slot)?.get(&mac_key { mac, server: 0, zero: 0 })?;
        // above the id stands the server's VLAN
        Ok(holder.map(|value| value as u32))
    }

    /// The MACs of a server's machines, as far as the kernel has resolved their addresses. Those of routers are
    /// left out.
    ///
    /// # Errors
    /// When the kernel lists nothing.
    pub fn find_machines(&self, place: &GatePlace, server: &str) -> Result<Vec<[u8; 6]>, GateError> {
        let own = list_own_interfaces(place).map_err(name_failure)?;
        let neighbours = list_neighbours().map_err(name_failure)?;
        let ours = neighbours.iter().filter(|neighbour| own.contains(&neighbour.interface));
        let addresses: Vec<IpAddr> = ours.clone().map(|neighbour| neighbour.address).collect();
        let held: BTreeSet<IpAddr> = self.select_addresses(server, &addresses)?.into_iter().collect();
        let machines =
            ours.filter(|neighbour| held.contains(&neighbour.address) && is_host_mac(&neighbour.mac));
        let mut macs = Vec::new();
        for mac in machines.map(|neighbour| neighbour.mac).collect::<BTreeSet<_>>() {
            if !self.is_router(mac)? {
                macs.push(mac);
            }
        }
        Ok(macs)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where a closure for map_err does")]
fn name_failure(error: io::Error) -> GateError {
    GateError::from_io("could not list the neighbours of this machine".to_owned(), &error)
}

fn find_in(neighbours: &[Neighbour], own: &BTreeSet<u32>, address: IpAddr) -> Option<Sender> {
    let ours = || neighbours.iter().filter(|neighbour| own.contains(&neighbour.interface));
    let Neighbour { mac, is_static, .. } = *ours().find(|neighbour| neighbour.address == address)?;
    let others: BTreeSet<IpAddr> = ours()
        .filter(|neighbour| neighbour.mac == mac && neighbour.address != address)
        .map(|neighbour| neighbour.address)
        .collect();
    is_host_mac(&mac).then(|| Sender { mac, others: others.into_iter().collect(), is_static })
}

/// Whether it is that of a virtual router.
fn is_virtual(mac: [u8; 6]) -> bool {
    VIRTUAL_ROUTERS.iter().any(|virtual_router| mac.starts_with(virtual_router))
}

/// Has the kernel ask the link for an address (RTM_NEWNEIGH with NTF_USE, as `ip neighbour add … use`).
fn ask_for(address: IpAddr, interface: u32) -> io::Result<()> {
    let mut entry = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    (entry.header.family, entry.header.ifindex) = (family, interface);
    (entry.header.state, entry.header.flags) = (NeighbourState::None, NeighbourFlags::Use);
    entry.attributes.push(NeighbourAttribute::Destination(destination));
    let socket = Socket::new(NETLINK_ROUTE)?;
    request(&socket, RouteNetlinkMessage::NewNeighbour(entry), NLM_F_CREATE | NLM_F_ACK, |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x30];

    fn neighbour(interface: u32, address: &str, mac: [u8; 6]) -> Neighbour {
        Neighbour { interface, address: address.parse().unwrap(), mac, is_static: interface == 3 }
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
        assert_eq!(find("192.0.2.130"), Some(Sender { mac: MAC, others, is_static: false }));
        assert!(find("2001:db8:1::130").unwrap().is_static);
        assert_eq!(find("192.0.2.132"), None, "another NIC's");
        assert_eq!(find("192.0.2.133"), None, "a group");
        assert_eq!(find("192.0.2.9"), None);
    }
}
