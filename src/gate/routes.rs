//! Routes: by which way packets to an address leave (rtnetlink(7), RTM_GETROUTE).

use std::io;
use std::net::IpAddr;

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
