//! The ways by which the answers of resolvers come.

use std::net::IpAddr;

use netlink_packet_route::route::RouteFlags;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

use super::routes::find_route;
use crate::abi::{address, layout, resolver, resolver_flag, to_address};
use crate::compile::NameTables;

/// The index of `lo`, by which a machine reaches its own addresses.
const LOOPBACK: u32 = 1;
const MOST: usize = layout::RESOLVER_INTERFACES_MAX.0 as usize;

/// The resolvers of a policy, with the interfaces by which their answers may come. What can't be found out is a
/// warning, and answers that come by it don't count.
pub(super) fn find_ways_of_resolvers(names: &NameTables) -> Vec<(address, resolver)> {
    if names.resolvers.is_empty() {
        return Vec::new();
    }
    let mut given = Vec::new();
    for interface in &names.interfaces {
        match if_nametoindex(interface.as_str()) {
            Ok(index) => given.push(index),
            Err(_) => log::warn!("no interface is called {interface}: no answer of a resolver comes by it"),
        }
    }
    let socket = Socket::new(NETLINK_ROUTE);
    let find = |to: IpAddr| {
        let socket = socket.as_ref().map_err(ToString::to_string)?;
        find_route(socket, to, RouteFlags::empty()).map_err(|error| error.to_string())
    };
    let way = |to: &IpAddr| {
        let mut row = resolver::default();
        let routed = match find(*to) {
            Ok(route) => route.map(|route| route.interface),
            Err(why) => {
                log::warn!("could not look up the route to the resolver {to}: {why}");
                None
            }
        };
        let mut interfaces = given.clone();
        if routed == Some(LOOPBACK) {
            row.flags = resolver_flag::RESOLVER_LOCAL.0;
        } else if names.interfaces.is_empty() {
            interfaces.extend(routed);
        }
        row.interface.iter_mut().zip(interfaces.iter().take(MOST)).for_each(|(to, from)| *to = *from);
        (to_address(*to), row)
    };
    names.resolvers.iter().map(way).collect()
}
