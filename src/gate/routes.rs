//! Routes: by which way packets to an address leave (rtnetlink(7), RTM_GETROUTE).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;

use super::netlink::request;

/// A way to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: u32,
    /// The router to which packets go, if it has an address of the same family.
    pub(super) gateway: Option<IpAddr>,
    /// Packets go to a router, whatever its family.
    pub(super) has_gateway: bool,
    pub(super) prefix_length: u8,
}

/// Addresses that are outside wherever this machine is: two root servers in each family, and one that nobody has,
/// to which a default route alone leads.
const OUTSIDE: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V4(Ipv4Addr::new(193, 0, 14, 129)),
    IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x7fd, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0xfff, 0xffff, 0, 0, 0, 0, 1)),
];

/// The interfaces by which packets of anybody outside come, if they come by the way back. A list of all routes would
/// tell more, and a router may have a million of them.
pub(super) fn find_outward_interfaces(socket: &Socket) -> BTreeSet<u32> {
    let find = |address: &IpAddr| find_route(socket, *address, RouteFlags::empty()).ok().flatten();
    OUTSIDE.iter().filter_map(find).map(|route| route.interface).collect()
}

/// `None`: there is no such route. `flags`: how the kernel looks for it.
pub(super) fn find_route(socket: &Socket, address: IpAddr, flags: RouteFlags) -> io::Result<Option<Route>> {
    let mut question = RouteMessage::default();
    let (family, bits) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    (question.header.address_family, question.header.destination_prefix_length) = (family, bits);
    question.header.flags = flags;
    question.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
    let mut found = None;
    request(socket, RouteNetlinkMessage::GetRoute(question), 0, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            found = read_route(&route);
        }
    })?;
    Ok(found)
}

fn read_route(message: &RouteMessage) -> Option<Route> {
    let mut route = Route { prefix_length: message.header.destination_prefix_length, ..Route::default() };
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => {
                route.has_gateway = true;
                match address {
                    RouteAddress::Inet(ip) => route.gateway = Some(IpAddr::V4(*ip)),
                    RouteAddress::Inet6(ip) => route.gateway = Some(IpAddr::V6(*ip)),
                    _ => {}
                }
            }
            RouteAttribute::Via(_) => route.has_gateway = true,
            _ => {}
        }
    }
    route.interface = interface?;
    Some(route)
}
