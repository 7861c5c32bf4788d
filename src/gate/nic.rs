//! The NIC under a gate: whether its frames can be judged at all, and which packets go past a gate there.

use std::net::IpAddr;

use netlink_packet_route::link::{InfoKind, LinkLayerType};
use netlink_packet_route::route::RouteFlags;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::GateError;
use super::links::{Link, find_above, list_links};
use super::own_links::list_own_interfaces;
use super::place::GatePlace;
use super::routes::{Route, find_route};
use crate::net::show_prefix;
use crate::policy::Policy;

/// Refuses an interface whose packets have no Ethernet header: the filter would read addresses where there
/// are none.
pub(super) fn refuse_unfit(place: &GatePlace) -> Result<(), GateError> {
    let nics = list_links().map_err(|error| {
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

fn describe_unfit(nic: &Link) -> Option<Unfit> {
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
    let Ok(nics) = list_links() else {
        return Vec::new();
    };
    let Some(nic) = nics.iter().find(|nic| nic.name == interface) else {
        return Vec::new();
    };
    let find = |index: Option<u32>| nics.iter().find(|other| Some(other.index) == index);
    let mut ways = Vec::new();
    if let Some(bridge) = find(nic.member_of).filter(|above| above.is_bridge()) {
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
    let nics = list_links().ok()?;
    let own = find_above(place.ifindex, &nics);
    let socket = Socket::new(NETLINK_ROUTE).ok()?;
    let mut elsewhere = Vec::new();
    for server in &policy.servers {
        let found = server.addresses.iter().find_map(|(prefix, _)| {
            let index = find_specific_route(&socket, prefix.addr())?.interface;
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
    let route = find_specific_route(&socket, address)?;
    Some(own.contains(&route.interface) && !route.has_gateway)
}

/// The route to an address, if it is no default route.
pub(super) fn find_specific_route(socket: &Socket, address: IpAddr) -> Option<Route> {
    // the route that was chosen, not one made for this address (RTM_F_FIB_MATCH, Linux 4.13)
    let route = find_route(socket, address, RouteFlags::FibMatch).ok()??;
    (route.prefix_length > 0).then_some(route)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{
        InfoData, InfoIpVlan, IpVlanMode, LinkAttribute, LinkInfo, LinkMessage,
    };

    use super::super::links::to_link;
    use super::*;

    fn message(layer: LinkLayerType, infos: Vec<LinkInfo>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.link_layer_type = layer;
        message.attributes = vec![LinkAttribute::IfName("dmz0".to_owned()), LinkAttribute::LinkInfo(infos)];
        message
    }

    fn unfit(layer: LinkLayerType, infos: Vec<LinkInfo>) -> Option<Unfit> {
        describe_unfit(&to_link(&message(layer, infos)))
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
        assert!(find_specific_route(&socket, "127.0.0.1".parse().unwrap()).is_some());
    }
}
