//! The NIC under a gate: whether its frames can be judged at all, and which packets go past a gate there.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoIpVtap, InfoKind, IpVlanMode, LinkAttribute, LinkInfo, LinkLayerType,
    LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::GateError;
use super::netlink::{ask, dump};
use super::own_links::list_own_interfaces;
use super::place::GatePlace;
use crate::net::show_prefix;
use crate::policy::Policy;

/// An interface, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nic {
    index: u32,
    name: String,
    layer: LinkLayerType,
    kind: Option<InfoKind>,
    /// An ipvlan that takes IP packets and no frames.
    is_routed: bool,
    below: Option<u32>,
    member_of: Option<u32>,
}

/// Refuses an interface whose packets have no Ethernet header: the filter would read addresses where there
/// are none.
pub(super) fn refuse_unfit(place: &GatePlace) -> Result<(), GateError> {
    let nics = list_nics().map_err(|error| {
        GateError::from_io("could not list the interfaces of this machine".to_owned(), &error)
    })?;
    let Some(nic) = nics.iter().find(|nic| nic.index == place.ifindex) else {
        return Ok(());
    };
    let interface = place.interface.clone();
    match describe_unfit(nic) {
        None => Ok(()),
        Some(Unfit::Loopback) => Err(GateError::Loopback { interface }),
        Some(Unfit::Headerless(what)) => Err(GateError::NoEthernet { interface, what }),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    Loopback,
    Headerless(String),
}

fn describe_unfit(nic: &Nic) -> Option<Unfit> {
    // the numbers of linux/if_arp.h
    match nic.layer {
        LinkLayerType::Ether if nic.is_routed => Some(Unfit::Headerless("an ipvlan in L3 mode".to_owned())),
        LinkLayerType::Ether => None,
        LinkLayerType::Loopback => Some(Unfit::Loopback),
        other => Some(Unfit::Headerless(match &nic.kind {
            Some(kind) => format!("a device of the kind `{kind}`"),
            None => format!("a device of the type {other}"),
        })),
    }
}

/// Which packets go past a gate on this interface, a sentence each.
pub(super) fn find_ways_past(interface: &str) -> Vec<String> {
    let Ok(nics) = list_nics() else {
        return Vec::new();
    };
    let Some(nic) = nics.iter().find(|nic| nic.name == interface) else {
        return Vec::new();
    };
    let find = |index: Option<u32>| nics.iter().find(|other| Some(other.index) == index);
    let mut ways = Vec::new();
    if let Some(bridge) = find(nic.member_of).filter(|above| above.kind == Some(InfoKind::Bridge)) {
        ways.push(format!(
            "{interface} is a port of the bridge {bridge}: packets of servers behind its other ports do not pass this \
             gate; attach to {bridge} if it has such servers",
            bridge = bridge.name
        ));
    }
    if matches!(nic.kind, Some(InfoKind::MacVlan | InfoKind::MacVtap))
        && let Some(parent) = find(nic.below)
    {
        ways.push(format!(
            "{interface} is a macvlan on {parent}: packets to the MAC of {parent} or of another macvlan on it do not pass \
             this gate; attach to {parent}",
            parent = parent.name
        ));
    }
    ways
}

/// Says when servers of the policy are behind another interface than the gate's. A default route says
/// nothing: at boot the servers' own route may still be missing.
pub(super) fn find_servers_elsewhere(place: &GatePlace, policy: &Policy) -> Option<String> {
    let own = list_own_interfaces(place).ok()?;
    let nics = list_nics().ok()?;
    let socket = Socket::new(NETLINK_ROUTE).ok()?;
    let mut elsewhere = Vec::new();
    for server in &policy.servers {
        let found = server.addresses.iter().find_map(|(prefix, _)| {
            let index = find_route(&socket, prefix.addr()).ok()??.interface;
            (!own.contains(&index)).then_some((prefix, index))
        });
        if let Some((prefix, index)) = found {
            elsewhere.push((server.name.as_str(), show_prefix(prefix), index));
        }
    }
    let (name, prefix, index) = elsewhere.first()?;
    let other =
        nics.iter().find(|nic| nic.index == *index).map_or("another interface", |nic| nic.name.as_str());
    let interface = &place.interface;
    let who = match elsewhere.len() {
        1 => format!("{name} ({prefix}) is"),
        count => format!("{name} ({prefix}) and {} more of the policy's servers are", count - 1),
    };
    Some(format!(
        "{who} behind {other} by the routing table: such packets do not pass a gate on {interface}; \
         attach to the interface that the servers are behind"
    ))
}

/// Whether hosts of the gate's link reach an address without this router: its route leads to the gate's NIC,
/// or to an interface above it, and names no other router. `None`: there is no such route.
pub fn find_on_link(place: &GatePlace, address: IpAddr) -> Option<bool> {
    let own = list_own_interfaces(place).ok()?;
    let socket = Socket::new(NETLINK_ROUTE).ok()?;
    let route = find_route(&socket, address).ok()??;
    Some(own.contains(&route.interface) && !route.has_gateway)
}

/// A way to an address.
struct Route {
    interface: u32,
    has_gateway: bool,
}

/// The interface by which an address is reached, of a route that is no default route.
fn find_route(socket: &Socket, address: IpAddr) -> io::Result<Option<Route>> {
    let mut question = RouteMessage::default();
    let bits = if address.is_ipv4() { 32 } else { 128 };
    question.header.address_family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    question.header.destination_prefix_length = bits;
    // the route that was chosen, not one made for this address (RTM_F_FIB_MATCH, Linux 4.13)
    question.header.flags = RouteFlags::FibMatch;
    question.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
    let RouteNetlinkMessage::NewRoute(route) = ask(socket, RouteNetlinkMessage::GetRoute(question))? else {
        return Ok(None);
    };
    if route.header.destination_prefix_length == 0 {
        return Ok(None);
    }
    let has_gateway =
        |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    let has_gateway = route.attributes.iter().any(has_gateway);
    Ok(route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(interface) => Some(Route { interface: *interface, has_gateway }),
        _ => None,
    }))
}

/// The interfaces of this process's network namespace (rtnetlink(7), RTM_GETLINK).
fn list_nics() -> io::Result<Vec<Nic>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut nics = Vec::new();
    dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            nics.push(to_nic(&link));
        }
    })?;
    Ok(nics)
}

fn to_nic(message: &LinkMessage) -> Nic {
    let mut nic = Nic {
        index: message.header.index,
        name: String::new(),
        layer: message.header.link_layer_type,
        kind: None,
        is_routed: false,
        below: None,
        member_of: None,
    };
    let mut is_here = true;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => name.clone_into(&mut nic.name),
            LinkAttribute::Controller(index) if *index != 0 => nic.member_of = Some(*index),
            LinkAttribute::Link(index) => nic.below = Some(*index),
            // the index is one of another namespace
            LinkAttribute::LinkNetNsId(_) => is_here = false,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => nic.kind = Some(kind.clone()),
                        LinkInfo::Data(data) => nic.is_routed = is_routed(data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    nic.below = nic.below.filter(|_| is_here);
    nic
}

fn is_routed(data: &InfoData) -> bool {
    let is_l2 = |mode: &IpVlanMode| *mode == IpVlanMode::L2;
    match data {
        InfoData::IpVlan(infos) => {
            infos.iter().any(|info| matches!(info, InfoIpVlan::Mode(mode) if !is_l2(mode)))
        }
        InfoData::IpVtap(infos) => {
            infos.iter().any(|info| matches!(info, InfoIpVtap::Mode(mode) if !is_l2(mode)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(layer: LinkLayerType, infos: Vec<LinkInfo>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.link_layer_type = layer;
        message.attributes = vec![LinkAttribute::IfName("dmz0".to_owned()), LinkAttribute::LinkInfo(infos)];
        message
    }

    fn unfit(layer: LinkLayerType, infos: Vec<LinkInfo>) -> Option<Unfit> {
        describe_unfit(&to_nic(&message(layer, infos)))
    }

    #[test]
    fn only_devices_with_an_ethernet_header_are_fit() {
        assert_eq!(unfit(LinkLayerType::Ether, vec![]), None);
        for kind in [InfoKind::Vlan, InfoKind::Bridge, InfoKind::Bond, InfoKind::Veth, InfoKind::MacVlan] {
            assert_eq!(unfit(LinkLayerType::Ether, vec![LinkInfo::Kind(kind)]), None);
        }
        assert_eq!(unfit(LinkLayerType::Loopback, vec![]), Some(Unfit::Loopback));
        for (layer, kind, word) in [
            (LinkLayerType::None, InfoKind::Tun, "tun"),
            (LinkLayerType::None, InfoKind::Wireguard, "wireguard"),
            (LinkLayerType::Tunnel, InfoKind::IpIp, "ipip"),
            (LinkLayerType::Ipgre, InfoKind::GreTun, "gre"),
            (LinkLayerType::Sit, InfoKind::SitTun, "sit"),
        ] {
            let Some(Unfit::Headerless(what)) = unfit(layer, vec![LinkInfo::Kind(kind)]) else {
                panic!("{word} is taken");
            };
            assert!(what.contains(word), "{what}");
        }
        assert!(matches!(unfit(LinkLayerType::Ppp, vec![]), Some(Unfit::Headerless(_))));
    }

    #[test]
    fn an_ipvlan_is_fit_in_its_l2_mode_alone() {
        let ipvlan = |mode| {
            vec![
                LinkInfo::Kind(InfoKind::IpVlan),
                LinkInfo::Data(InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)])),
            ]
        };
        assert_eq!(unfit(LinkLayerType::Ether, ipvlan(IpVlanMode::L2)), None);
        for mode in [IpVlanMode::L3, IpVlanMode::L3S] {
            assert!(matches!(unfit(LinkLayerType::Ether, ipvlan(mode)), Some(Unfit::Headerless(_))));
        }
    }

    #[test]
    fn the_kernel_finds_the_way_to_an_address_of_this_machine() {
        let socket = Socket::new(NETLINK_ROUTE).unwrap();
        assert!(find_route(&socket, "127.0.0.1".parse().unwrap()).unwrap().is_some());
    }
}
