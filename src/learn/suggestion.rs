//! Which networks a capture's servers probably have, for the message that asks for them. Only a person can know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::capture::{LinkType, Merge};

/// Packets that are looked at.
const PACKETS: usize = 20_000;
/// Addresses of one MAC that are remembered.
const MAX_ADDRESSES: usize = 4;
const MAX_MACS: usize = 4096;
/// The networks that are named.
const NETWORK_V4: u8 = 24;
const NETWORK_V6: u8 = 64;

/// The networks of those who have a MAC of their own on the link. The router's MAC sends for many addresses. `None`:
/// the capture does not show it.
pub fn suggest_servers(files: &[PathBuf]) -> Option<String> {
    if files.iter().any(|file| file == Path::new("-")) {
        return None;
    }
    let mut merge = Merge::open(files).ok()?;
    let mut senders: BTreeMap<[u8; 6], BTreeSet<IpAddr>> = BTreeMap::new();
    for _ in 0..PACKETS {
        let Some(frame) = merge.read() else { break };
        let (Some(facts), Some(mac)) = (&frame.facts, frame.source_mac) else { continue };
        if frame.link != LinkType::Ethernet || is_local(facts.source) {
            continue;
        }
        if senders.len() < MAX_MACS || senders.contains_key(&mac) {
            let addresses = senders.entry(mac).or_default();
            if addresses.len() < MAX_ADDRESSES {
                addresses.insert(facts.source);
            }
        }
    }
    let count = |addresses: &BTreeSet<IpAddr>| addresses.iter().filter(|address| address.is_ipv4()).count();
    let has_router = senders.values().any(|addresses| addresses.len() > 2);
    let own = senders.values().filter(|addresses| count(addresses) <= 1 && addresses.len() <= 2);
    let networks: BTreeSet<IpNet> = own.flatten().filter_map(|address| network_of(*address)).collect();
    let words: Vec<String> = networks.iter().map(ToString::to_string).collect();
    (has_router && !words.is_empty()).then(|| words.join(","))
}

fn network_of(address: IpAddr) -> Option<IpNet> {
    let length = if address.is_ipv4() { NETWORK_V4 } else { NETWORK_V6 };
    IpNet::new(address, length).ok().map(|network| network.trunc())
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unspecified() || address.is_unicast_link_local(),
    }
}
