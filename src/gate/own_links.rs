//! Own links: the MACs and interface indexes by which this machine takes frames from the gate's NIC.
//! The filter asks them which frames go to another host of the link, the tracker which ones come back
//! to the link that they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use libbpf_rs::MapFlags;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::Gate;
use super::error::GateError;
use super::netlink::dump;
use super::place::GatePlace;
use crate::abi::{state, to_mac_number};

/// One interface, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    mac: Option<[u8; 6]>,
    /// The interface that it is made on, as a VLAN's is.
    below: Option<u32>,
    /// The bridge or bond that it is a member of.
    member_of: Option<u32>,
}

impl Gate {
    /// Notes the MACs of the gate's NIC and of the interfaces above and below it, and the indexes of those
    /// above, as they are now.
    /// Writes only what has changed.
    ///
    /// # Errors
    /// When the kernel does not list its interfaces, or refuses to write.
    pub fn note_own_links(&self, place: &GatePlace) -> Result<(), GateError> {
        let failed = |error: io::Error| GateError::Kernelside {
            what: "could not list the interfaces of this machine".to_owned(),
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        };
        let links = list_links().map_err(failed)?;
        let above = find_above(place.ifindex, &links);
        // A frame to the MAC of a bridge's port or of a bond's member is taken as well. A packet that came in by
        // such a device has not come by the gate's NIC, so its index is not ours.
        let below = find_below(place.ifindex, &links);
        let is_ours = |link: &&Link| above.contains(&link.index) || below.contains(&link.index);
        let own: Vec<&Link> = links.iter().filter(is_ours).collect();
        let mac_of = |link: &Link| link.mac.map(to_mac_number);
        let nic = own.iter().find(|link| link.index == place.ifindex).and_then(|link| mac_of(link));

        let taken = list_taken_macs(place.ifindex).map_err(failed)?;
        let macs: BTreeSet<u64> =
            own.iter().filter_map(|link| mac_of(link)).chain(taken.into_iter().map(to_mac_number)).collect();
        for known in self.maps.own_macs.entries()?.iter().filter(|(mac, _)| !macs.contains(mac)) {
            self.maps.own_macs.remove(&known.0)?;
        }
        for mac in macs {
            if self.maps.own_macs.get(&mac)?.is_none() {
                self.maps.own_macs.put(&mac, &1, MapFlags::ANY)?;
            }
        }
        for known in self.maps.own_interfaces.entries()?.iter().filter(|(index, _)| !above.contains(index)) {
            self.maps.own_interfaces.remove(&known.0)?;
        }
        for index in above {
            if self.maps.own_interfaces.get(&index)?.is_none() {
                self.maps.own_interfaces.put(&index, &1, MapFlags::ANY)?;
            }
        }
        // Last: without it the filter takes no frame for another host's.
        let nic = nic.unwrap_or(0);
        if self.read_state(state::STATE_OWN_MAC)? != nic {
            self.write_state(state::STATE_OWN_MAC, nic)?;
        }
        Ok(())
    }
}

/// The indexes of the gate's NIC and of the interfaces above it.
pub(super) fn list_own_interfaces(place: &GatePlace) -> io::Result<BTreeSet<u32>> {
    Ok(find_above(place.ifindex, &list_links()?))
}

/// The interface and all interfaces above it, at any height.
fn find_above(ifindex: u32, links: &[Link]) -> BTreeSet<u32> {
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
fn find_below(ifindex: u32, links: &[Link]) -> BTreeSet<u32> {
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
fn list_links() -> io::Result<Vec<Link>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut links = Vec::new();
    dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            links.push(to_link(&link));
        }
    })?;
    Ok(links)
}

/// The MACs that an interface takes besides its own (RTM_GETNEIGH of AF_BRIDGE, as `bridge fdb`). Among
/// them are those of macvlans that were moved into another namespace, as that of a container.
fn list_taken_macs(ifindex: u32) -> io::Result<Vec<[u8; 6]>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    // otherwise the kernel does not heed the index, and lists what each bridge has learnt
    socket.set_netlink_get_strict_chk(true)?;
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Bridge;
    question.header.ifindex = ifindex;
    let mut macs = Vec::new();
    dump(&socket, RouteNetlinkMessage::GetNeighbour(question), |answer| {
        if let RouteNetlinkMessage::NewNeighbour(entry) = answer {
            macs.extend(find_taken_mac(ifindex, &entry));
        }
    })?;
    Ok(macs)
}

/// The MAC of an entry, if it is one that the interface itself takes, and no group.
fn find_taken_mac(ifindex: u32, entry: &NeighbourMessage) -> Option<[u8; 6]> {
    let (header, mut mac) = (&entry.header, None);
    // a bridge's entries are of hosts behind its ports
    if header.ifindex != ifindex
        || !header.flags.contains(NeighbourFlags::Own)
        || header.flags.contains(NeighbourFlags::Controller)
    {
        return None;
    }
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            // of a host behind a tunnel
            NeighbourAttribute::Destination(_) => return None,
            _ => {}
        }
    }
    mac.filter(|mac| mac[0] & 1 == 0)
}

fn to_link(message: &LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, ..Link::default() };
    let (mut below, mut is_above, mut is_here) = (None, false, true);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Controller(index) if *index != 0 => link.member_of = Some(*index),
            LinkAttribute::Link(index) => below = Some(*index),
            // the index is one of another namespace
            LinkAttribute::LinkNetNsId(_) => is_here = false,
            LinkAttribute::LinkInfo(infos) => {
                is_above = infos.iter().any(|info| match info {
                    LinkInfo::Kind(kind) => is_made_on_another(kind),
                    _ => false,
                });
            }
            _ => {}
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, below: Option<u32>, member_of: Option<u32>) -> Link {
        Link { index, mac: None, below, member_of }
    }

    #[test]
    fn interfaces_above_are_found_at_any_height_and_those_beside_are_not() {
        // NIC 2 in bridge 3, VLAN 4 on the bridge, macvlan 5 on the VLAN; NIC 6 in the bridge, NIC 7 alone
        let links = [
            link(1, None, None),
            link(2, None, Some(3)),
            link(3, None, None),
            link(4, Some(3), None),
            link(5, Some(4), None),
            link(6, None, Some(3)),
            link(7, None, None),
            link(8, Some(7), None),
        ];
        assert_eq!(find_above(2, &links), [2, 3, 4, 5].into());
        assert_eq!(find_above(7, &links), [7, 8].into());
        assert_eq!(find_above(9, &links), [9].into(), "gone");
    }

    #[test]
    fn interfaces_below_are_found_at_any_depth_and_those_beside_are_not() {
        // NICs 2 and 3 in bond 4, VLAN 5 on the bond, in bridge 6 with NIC 7; VLAN 8 on the bond
        let links = [
            link(2, None, Some(4)),
            link(3, None, Some(4)),
            link(4, None, None),
            link(5, Some(4), Some(6)),
            link(6, None, None),
            link(7, None, Some(6)),
            link(8, Some(4), None),
        ];
        assert_eq!(find_below(6, &links), [2, 3, 4, 5, 7].into());
        assert_eq!(find_below(8, &links), [2, 3, 4].into());
        assert_eq!(find_below(4, &links), [2, 3].into());
        assert_eq!(find_below(7, &links), BTreeSet::new());
    }

    #[test]
    fn the_loopback_interface_is_listed() {
        let links = list_links().unwrap();
        let lo = links.iter().find(|link| link.index == 1).unwrap();
        assert_eq!((lo.mac, lo.below, lo.member_of), (Some([0; 6]), None, None));
    }

    #[test]
    fn a_device_above_one_of_another_namespace_is_above_none_of_this_one() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes =
            vec![LinkAttribute::Link(2), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan)])];
        assert_eq!(to_link(&message).below, Some(2));
        message.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert_eq!(to_link(&message).below, None);
    }

    #[test]
    fn a_mac_that_the_nic_takes_is_neither_a_group_nor_one_that_a_bridge_has_learnt() {
        let entry = |ifindex: u32, flags: NeighbourFlags, mac: [u8; 6]| {
            let mut entry = NeighbourMessage::default();
            (entry.header.ifindex, entry.header.flags) = (ifindex, flags);
            entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            entry
        };
        let (own, learnt) = (NeighbourFlags::Own, NeighbourFlags::Controller);
        let (mac, group) = ([2, 0, 0, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(find_taken_mac(2, &entry(2, own, mac)), Some(mac));
        for other in
            [entry(3, own, mac), entry(2, learnt, mac), entry(2, own | learnt, mac), entry(2, own, group)]
        {
            assert_eq!(find_taken_mac(2, &other), None);
        }
    }

    #[test]
    fn the_kernel_understands_the_question_for_taken_macs() {
        assert_eq!(list_taken_macs(1).unwrap(), Vec::<[u8; 6]>::new());
    }
}
