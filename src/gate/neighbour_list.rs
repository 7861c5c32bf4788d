//! The table of neighbours (rtnetlink(7), RTM_GETNEIGH): addresses of the links with their MACs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::dump;
use crate::net::is_host_mac;

/// An address with its MAC, at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub interface: u32,
    pub address: IpAddr,
    pub mac: [u8; 6],
    /// An administrator has written it (`ip neighbour add`).
    pub is_static: bool,
}

/// The MACs of neighbours at some interfaces.
pub(super) fn list_neighbour_macs(interfaces: &BTreeSet<u32>) -> io::Result<BTreeSet<[u8; 6]>> {
    let ours = list_neighbours()?.into_iter().filter(|neighbour| interfaces.contains(&neighbour.interface));
    Ok(ours.map(|neighbour| neighbour.mac).filter(is_host_mac).collect())
}

/// The machines of an interface's link, as far as the kernel has seen them: each MAC with its addresses.
///
/// # Errors
/// When there is no such interface, or the kernel lists nothing.
pub fn list_machines(interface: &str) -> io::Result<BTreeMap<[u8; 6], BTreeSet<IpAddr>>> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let mut machines: BTreeMap<[u8; 6], BTreeSet<IpAddr>> = BTreeMap::new();
    for Neighbour { interface, address, mac, .. } in list_neighbours()? {
        if interface == index && is_host_mac(&mac) {
            machines.entry(mac).or_default().insert(address);
        }
    }
    Ok(machines)
}

/// The neighbours of this process's network namespace (rtnetlink(7), RTM_GETNEIGH).
pub(super) fn list_neighbours() -> io::Result<Vec<Neighbour>> {
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
    let is_static = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { interface: message.header.ifindex, address: address?, mac: mac?, is_static })
}
