//! The interfaces of this process's network namespace, and how they are stacked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoIpVtap, InfoKind, IpVlanMode, LinkAttribute, LinkInfo, LinkLayerType,
    LinkMessage, Prop,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::dump;

/// One interface, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Alternative names (Linux 5.5, `ip link property add`).
    pub(super) altnames: Vec<String>,
    pub(super) mac: Option<[u8; 6]>,
    /// The type of its headers (linux/if_arp.h).
    pub(super) layer: LinkLayerType,
    pub(super) kind: Option<InfoKind>,
    /// An ipvlan that takes IP packets and no frames.
    pub(super) is_routed: bool,
    /// The interface that it is made on, as a VLAN's is.
    pub(super) below: Option<u32>,
    /// The bridge or bond that it is a member of.
    pub(super) member_of: Option<u32>,
}

impl Link {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|altname| altname == name)
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge)
    }
}

/// The interface and all interfaces above it, at any height.
pub(super) fn find_above(ifindex: u32, links: &[Link]) -> BTreeSet<u32> {
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let mut above: BTreeSet<u32> = [ifindex].into();
    loop {
        let members = above.iter().filter_map(|index| by_index.get(index)?.member_of);
        let made_on = links.iter().filter(|link| link.below.is_some_and(|below| above.contains(&below)));
        let next: BTreeSet<u32> = members.chain(made_on.map(|link| link.index)).collect();
        let before = above.len();
        above.extend(next);
        if above.len() == before {
            return above;
        }
    }
}

/// The interfaces below this one, at any depth.
pub(super) fn find_below(ifindex: u32, links: &[Link]) -> BTreeSet<u32> {
    let mut below = BTreeSet::new();
    let mut next = vec![ifindex];
    while let Some(index) = next.pop() {
        let made_on = links.iter().find(|link| link.index == index).and_then(|link| link.below);
        let members = links.iter().filter(|link| link.member_of == Some(index)).map(|link| link.index);
        next.extend(members.chain(made_on).filter(|index| below.insert(*index)));
    }
    below
}

/// The interfaces of this process's network namespace (rtnetlink(7), RTM_GETLINK).
pub(super) fn list_links() -> io::Result<Vec<Link>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut links = Vec::new();
    dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            links.push(to_link(&link));
        }
    })?;
    Ok(links)
}

pub(super) fn to_link(message: &LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, layer: message.header.link_layer_type, ..Link::default() };
    let (mut below, mut is_here) = (None, true);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => name.clone_into(&mut link.name),
            LinkAttribute::PropList(properties) => {
                for property in properties {
                    if let Prop::AltIfName(name) = property {
                        link.altnames.push(name.clone());
                    }
                }
            }
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Controller(index) if *index != 0 => link.member_of = Some(*index),
            LinkAttribute::Link(index) => below = Some(*index),
            // the index is one of another namespace
            LinkAttribute::LinkNetNsId(_) => is_here = false,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.clone()),
                        LinkInfo::Data(data) => link.is_routed = is_routed(data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let is_above = link.kind.as_ref().is_some_and(is_made_on_another);
    link.below = below.filter(|_| is_above && is_here);
    link
}

/// Whether the interface takes the frames of the one that it names as its link. A veth's link is its
/// other end.
fn is_made_on_another(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Vlan
            | InfoKind::MacVlan
            | InfoKind::MacVtap
            | InfoKind::IpVlan
            | InfoKind::IpVtap
            | InfoKind::MacSec
    )
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
