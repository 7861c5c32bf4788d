//! One need, as what nft compares.

use std::ops::RangeInclusive;

use super::sets::{Family, Sets};
use crate::net::{ICMP, ICMPV6, SCTP, Selector, TCP, UDP, find_icmp_answer, is_icmp};
use crate::policy::Need;

/// The families whose packets a need may be about.
pub(super) fn families_of(need: &Need) -> &'static [Family] {
    match need.protocol {
        ICMP => &[Family::V4],
        ICMPV6 => &[Family::V6],
        _ => &Family::ALL,
    }
}

/// ` ip daddr …` for each family that has peers. One empty text: every peer.
pub(super) fn name_peers(need: &Need, side: &str, sets: &mut Sets<'_>) -> Vec<String> {
    if need.peers.is_empty() {
        return vec![String::new()];
    }
    let name = |family: &Family| {
        let peers = sets.name_peers(need, *family)?;
        Some(format!(" {} {side} {peers}", family.header()))
    };
    families_of(need).iter().filter_map(name).collect()
}

/// What names a packet that opens the flow.
pub(super) fn name_opening(need: &Need) -> String {
    name_ports(need, "dport", need.sport.as_ref().map(|ports| ("sport", ports)))
}

/// What names an answer of the service. `None`: nobody answers such a packet.
pub(super) fn name_answer(need: &Need) -> Option<String> {
    if !is_icmp(need.protocol) {
        return Some(name_ports(need, "sport", None));
    }
    let answers: Vec<String> = need
        .ports
        .clone()
        .filter_map(|request| find_icmp_answer(need.protocol, request))
        .map(|answer| answer.to_string())
        .collect();
    let word = if need.protocol == ICMP { "icmp" } else { "icmpv6" };
    (!answers.is_empty()).then(|| format!("{word} type {{ {} }}", answers.join(", ")))
}

fn name_ports(need: &Need, side: &str, other: Option<(&str, &RangeInclusive<u16>)>) -> String {
    let word = match need.protocol {
        TCP => "tcp",
        UDP => "udp",
        SCTP => "sctp",
        ICMP | ICMPV6 => return name_types(need),
        protocol => return format!("meta l4proto {protocol}"),
    };
    let mut parts = Vec::new();
    if need.ports != Selector::Port.whole() {
        parts.push(format!("{word} {side} {}", show_range(&need.ports)));
    }
    if let Some((side, ports)) = other {
        parts.push(format!("{word} {side} {}", show_range(ports)));
    }
    match parts.is_empty() {
        true => format!("meta l4proto {}", need.protocol),
        false => parts.join(" "),
    }
}

fn name_types(need: &Need) -> String {
    let (word, family) = if need.protocol == ICMP { ("icmp", Family::V4) } else { ("icmpv6", Family::V6) };
    match need.ports == Selector::Type.whole() {
        true => format!("meta nfproto {} meta l4proto {}", family.protocol(), need.protocol),
        false => format!("{word} type {}", show_range(&need.ports)),
    }
}

/// What names the flow of an error by its first packet, a text each for the families that have peers. `peer` is the
/// side of the flow's opening that the peer is on.
pub(super) fn name_flow(need: &Need, peer: &str, sets: &mut Sets<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for family in families_of(need) {
        let peers = match need.peers.is_empty() {
            true => String::new(),
            false => match sets.name_peers(need, *family) {
                Some(peers) => format!(" ct original {} {peer} {peers}", family.header()),
                None => continue,
            },
        };
        // nft wants to know both protocols before it compares ports
        let mut text =
            format!("ct original l3proto {} ct original protocol {}", family.protocol(), need.protocol);
        if matches!(need.protocol, TCP | UDP | SCTP) && need.ports != Selector::Port.whole() {
            text.push_str(&format!(" ct original proto-dst {}", show_range(&need.ports)));
        }
        // there the type of an ICMP message stands before its code
        if is_icmp(need.protocol) && need.ports != Selector::Type.whole() {
            let (first, last) = (need.ports.start() << 8, need.ports.end() << 8 | 0xff);
            text.push_str(&format!(" ct original proto-dst {}", show_range(&(first..=last))));
        }
        if let Some(ports) = &need.sport {
            text.push_str(&format!(" ct original proto-src {}", show_range(ports)));
        }
        texts.push(text + &peers);
    }
    texts
}

fn show_range(range: &RangeInclusive<u16>) -> String {
    let (first, last) = (*range.start(), *range.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}
