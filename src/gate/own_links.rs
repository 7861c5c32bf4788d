//! Own links: the MACs and interface indexes by which this machine takes frames from the gate's NIC, and the
//! MACs of hosts on the link. The filter asks them which frames go to another host of the link, the tracker
//! which ones come back to the link that they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use libbpf_rs::MapFlags;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::Gate;
use super::error::GateError;
use super::links::{Link, find_above, find_below, list_links};
use super::neighbour_list::list_neighbour_macs;
use super::netlink::dump;
use super::place::GatePlace;
use crate::abi::{own_mac_flag, state, to_mac_number};
use crate::clock::now_ns;
use crate::net::is_host_mac;

const NS_PER_S: u64 = 1_000_000_000;

/// What this machine takes and forwards of the frames that come by the gate's NIC, and what it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LinkSurvey {
    /// Of the NIC; 0: unknown.
    nic: u64,
    /// Of the NIC and of the interfaces above and below it.
    devices: BTreeSet<u64>,
    /// Indexes of the NIC and of the interfaces above it.
    above: BTreeSet<u32>,
    /// The NIC, or an interface above it, is one of several ports of a bridge.
    is_bridged: bool,
    /// Of hosts behind the other ports.
    behind_others: BTreeSet<u64>,
    /// Of hosts of the link, as the kernel knows them.
    neighbours: BTreeSet<u64>,
}

/// So long a host counts as behind another port of the bridge after it was seen there, as long as a bridge
/// remembers one. A forged frame by the gate's port moves it in the bridge's table for a moment.
const REMEMBER_S: u64 = 300;
/// How old a note of that may grow before it is written anew.
const NOTE_ANEW_S: u64 = 60;
/// So many hosts that the kernel knows are noted, half of the table.
const MOST_NEIGHBOURS: usize = 2048;

impl Gate {
    /// Notes which MACs and devices are this machine's, and which MACs are other hosts' of the link, as they are
    /// now. Writes only what has changed.
    ///
    /// # Errors
    /// When the kernel does not list its interfaces: then what was known before holds. Or when it refuses to
    /// write: then each MAC may be this machine's.
    pub fn note_own_links(&self, place: &GatePlace) -> Result<(), GateError> {
        // known without asking: what comes back by the NIC itself opens no flow for a stranger
        if place.ifindex != 0 && self.maps.own_interfaces.get(&place.ifindex)?.is_none() {
            self.maps.own_interfaces.put(&place.ifindex, &1, MapFlags::ANY)?;
        }
        let around = survey(place)?;
        self.write_survey(&around).inspect_err(|_| {
            let _ = self.write_state(state::STATE_OWN_MAC, 0);
        })
    }

    fn write_survey(&self, around: &LinkSurvey) -> Result<(), GateError> {
        let (macs, now_s) = (&self.maps.own_macs, now_ns() / NS_PER_S);
        let known: BTreeMap<u64, u32> = macs.entries()?.into_iter().collect();
        let wanted = merge_macs(&known, around, now_s);
        for (mac, value) in &wanted {
            if known.get(mac) != Some(value) {
                macs.put(mac, value, MapFlags::ANY)?;
            }
        }
        for mac in known.keys().filter(|mac| !wanted.contains_key(mac)) {
            macs.remove(mac)?;
        }
        let interfaces = &self.maps.own_interfaces;
        for index in &around.above {
            if interfaces.get(index)?.is_none() {
                interfaces.put(index, &1, MapFlags::ANY)?;
            }
        }
        for (index, _) in interfaces.entries()?.iter().filter(|(index, _)| !around.above.contains(index)) {
            interfaces.remove(index)?;
        }
        let neighbours = &self.maps.neighbour_macs;
        for mac in around.neighbours.iter().filter(|mac| !wanted.contains_key(mac)).take(MOST_NEIGHBOURS) {
            if neighbours.get(mac)?.is_none() {
                neighbours.put(mac, &1, MapFlags::ANY)?;
            }
        }
        // Last: without it the filter takes no frame for another host's.
        if self.read_state(state::STATE_OWN_MAC)? != around.nic {
            self.write_state(state::STATE_OWN_MAC, around.nic)?;
        }
        Ok(())
    }

    /// Whether the NIC is one of several ports of a bridge, as it was noted.
    pub(super) fn is_one_of_several_ports(&self) -> Result<bool, GateError> {
        let value = self.maps.own_macs.get(&self.read_state(state::STATE_OWN_MAC)?)?;
        Ok(value.is_some_and(|value| value & own_mac_flag::OWN_MAC_BRIDGED.0 != 0))
    }

    /// A sentence for people, if MACs and devices of this machine are others than those that were noted. Without
    /// a daemon nobody notes them.
    pub fn describe_outdated_links(&self, place: &GatePlace) -> Option<String> {
        let around = survey(place).ok()?;
        let is_noted = |mac: &u64| matches!(self.maps.own_macs.get(mac), Ok(Some(_)) | Err(_));
        let has_index = |index: &u32| matches!(self.maps.own_interfaces.get(index), Ok(Some(_)) | Err(_));
        let has_all = around.devices.iter().all(is_noted) && around.above.iter().all(has_index);
        let has_nic = self.read_state(state::STATE_OWN_MAC).ok()? == around.nic;
        (!has_all || !has_nic).then(|| {
            format!(
                "the MACs or devices of this machine have changed since they were noted, so frames to them may \
                 count as elsewhere; a daemon follows them, and so does portcullis attach -i {} -p POLICY",
                place.interface
            )
        })
    }
}

/// The values of `own_macs`.
fn merge_macs(known: &BTreeMap<u64, u32>, around: &LinkSurvey, now_s: u64) -> BTreeMap<u64, u32> {
    let shift = own_mac_flag::OWN_MAC_SEEN_SHIFT.0;
    let age_s = |value: u32| now_s.wrapping_sub(u64::from(value >> shift)) & u64::from(u32::MAX >> shift);
    let note = (now_s << shift) as u32;
    let mut macs: BTreeMap<u64, u32> = known
        .iter()
        .filter(|(_, value)| **value >> shift != 0 && age_s(**value) < REMEMBER_S)
        .map(|(mac, value)| (*mac, *value))
        .collect();
    for mac in &around.behind_others {
        let value = macs.entry(*mac).or_insert(note);
        if age_s(*value) >= NOTE_ANEW_S {
            *value = note;
        }
    }
    for mac in &around.devices {
        macs.insert(*mac, own_mac_flag::OWN_MAC_DEVICE.0);
    }
    if around.is_bridged && around.nic != 0 {
        macs.insert(around.nic, own_mac_flag::OWN_MAC_DEVICE.0 | own_mac_flag::OWN_MAC_BRIDGED.0);
    }
    macs
}

/// Asks the kernel.
fn survey(place: &GatePlace) -> Result<LinkSurvey, GateError> {
    let failed = |error: io::Error| {
        GateError::from_io("could not list the interfaces of this machine".to_owned(), &error)
    };
    let links = list_links().map_err(failed)?;
    let entries = list_bridge_entries().map_err(failed)?;
    let above = find_above(place.ifindex, &links);
    let mut around = put_together(place.ifindex, &links, &entries, above);
    let known = list_neighbour_macs(&around.above).map_err(failed)?.into_iter().map(to_mac_number);
    // Of a host behind the bridge the table of neighbours does not say behind which port.
    if !around.is_bridged {
        around.neighbours.extend(known);
    }
    Ok(around)
}

fn put_together(ifindex: u32, links: &[Link], entries: &[BridgeEntry], above: BTreeSet<u32>) -> LinkSurvey {
    // A frame to the MAC of a bridge's port or of a bond's member is taken as well. A packet that came in by
    // such a device has not come by the gate's NIC, so its index is not ours.
    let below = find_below(ifindex, links);
    let is_ours = |link: &&Link| above.contains(&link.index) || below.contains(&link.index);
    let own: Vec<&Link> = links.iter().filter(is_ours).collect();
    let mac_of = |link: &Link| link.mac.filter(is_host_mac).map(to_mac_number);
    let bridges: BTreeSet<u32> = links
        .iter()
        .filter(|link| link.is_bridge() && above.contains(&link.index))
        .map(|link| link.index)
        .collect();
    let is_port = |link: &&Link| link.member_of.is_some_and(|bridge| bridges.contains(&bridge));
    let (our_ports, other_ports): (BTreeSet<u32>, BTreeSet<u32>) =
        links.iter().filter(is_port).map(|link| link.index).partition(|index| above.contains(index));
    let behind = |ports: &BTreeSet<u32>| {
        let entries = entries.iter().filter(|entry| !entry.is_taken && ports.contains(&entry.interface));
        entries.map(|entry| to_mac_number(entry.mac)).collect::<BTreeSet<_>>()
    };
    let taken = entries.iter().filter(|entry| entry.is_taken && entry.interface == ifindex);
    let devices: BTreeSet<u64> = own
        .iter()
        .filter_map(|link| mac_of(link))
        .chain(taken.map(|entry| to_mac_number(entry.mac)))
        .collect();
    LinkSurvey {
        nic: own.iter().find(|link| link.index == ifindex).and_then(|link| mac_of(link)).unwrap_or(0),
        is_bridged: !other_ports.is_empty(),
        behind_others: behind(&other_ports),
        neighbours: behind(&our_ports).difference(&devices).copied().collect(),
        devices,
        above,
    }
}

/// The indexes of the gate's NIC and of the interfaces above it.
pub(super) fn list_own_interfaces(place: &GatePlace) -> io::Result<BTreeSet<u32>> {
    Ok(find_above(place.ifindex, &list_links()?))
}

/// An entry of a table by which frames are forwarded (RTM_GETNEIGH of AF_BRIDGE, as `bridge fdb`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BridgeEntry {
    interface: u32,
    mac: [u8; 6],
    /// The interface itself takes frames to it, besides those to its own MAC. Among such MACs are those of
    /// macvlans that were moved into another namespace, as that of a container. False: a host behind it.
    is_taken: bool,
}

fn list_bridge_entries() -> io::Result<Vec<BridgeEntry>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Bridge;
    let mut entries = Vec::new();
    dump(&socket, RouteNetlinkMessage::GetNeighbour(question), |answer| {
        if let RouteNetlinkMessage::NewNeighbour(entry) = answer {
            entries.extend(read_bridge_entry(&entry));
        }
    })?;
    Ok(entries)
}

/// `None`: it is no MAC of one host, or of one behind a tunnel.
fn read_bridge_entry(entry: &NeighbourMessage) -> Option<BridgeEntry> {
    let (header, mut mac) = (&entry.header, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::Destination(_) => return None,
            _ => {}
        }
    }
    let is_own =
        header.flags.contains(NeighbourFlags::Own) && !header.flags.contains(NeighbourFlags::Controller);
    // The hardware of a switch (switchdev) lists hosts that it has learnt in the same way. Its entries are not
    // permanent, as those are that the interface takes (net/core/rtnetlink.c, net/dsa/user.c).
    let is_taken = is_own && header.state == NeighbourState::Permanent;
    let mac = mac.filter(is_host_mac)?;
    Some(BridgeEntry { interface: header.ifindex, mac, is_taken })
}

#[cfg(test)]
mod tests;
