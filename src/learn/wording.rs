//! Needs and their evidence in words.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::dns::Names;
use super::evidence::{MAX_PEERS_BY_ROW, PeerEvidence, Row, Service};
use crate::capture::Timestamp;
use crate::net::{Selector, name_icmp_type, name_protocol, show_prefix};

/// Peers that a comment names.
const MAX_NAMED: usize = 8;

/// A time of a capture. One beyond the calendar becomes its last.
pub(super) fn to_wall(time_ns: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or(jiff::Timestamp::MAX)
}

pub(super) fn show_moment_exactly(time_ns: Timestamp) -> String {
    to_wall(time_ns).to_string()
}

/// As "2026-11-22 15:00:07", in UTC.
pub(super) fn show_moment(time_ns: Timestamp) -> String {
    to_wall(time_ns).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The service in the words of a need.
pub(super) fn show_service(service: &Service) -> String {
    let protocol = name_protocol(service.protocol);
    match Selector::of(service.protocol) {
        Selector::Type => format!("{protocol}/{}", name_icmp_type(service.protocol, service.port)),
        selector if selector.whole() == (0..=0) => protocol.into_owned(),
        _ => format!("{protocol}/{}", service.port),
    }
}

/// A need with names, which stand before the addresses.
pub(super) fn show_named_need(service: &Service, names: &[Arc<str>], peers: &[IpNet]) -> String {
    if names.is_empty() {
        return show_need(service, peers);
    }
    let words = names.iter().map(ToString::to_string).chain(peers.iter().map(show_prefix));
    let words: Vec<String> = words.collect();
    format!("{} {} {}", show_service(service), service.direction.preposition(), words.join(", "))
}

/// A need of a service. Without peers it is for every peer.
pub(super) fn show_need(service: &Service, peers: &[IpNet]) -> String {
    let mut text = show_service(service);
    for (number, peer) in peers.iter().enumerate() {
        match number {
            0 => text.push_str(&format!(" {} {}", service.direction.preposition(), show_prefix(peer))),
            _ => text.push_str(&format!(", {}", show_prefix(peer))),
        }
    }
    text
}

/// As "3 times" or "once".
pub(super) fn show_times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// First, last, how often, and with whom.
pub(super) fn show_evidence(row: &Row, peers: &[(IpAddr, PeerEvidence)], names: &Names) -> String {
    let is_of_all = peers.is_empty();
    let (first_ns, last_ns) = match is_of_all {
        true => (row.first_ns, row.last_ns),
        false => (
            peers.iter().map(|(_, peer)| peer.first_ns).min().unwrap_or(row.first_ns),
            peers.iter().map(|(_, peer)| peer.last_ns).max().unwrap_or(row.last_ns),
        ),
    };
    let answered: u64 =
        if is_of_all { row.answered } else { peers.iter().map(|(_, peer)| peer.answered).sum() };
    let asked: u64 = if is_of_all { row.asked } else { peers.iter().map(|(_, peer)| peer.asked).sum() };
    let mut text = match first_ns == last_ns {
        true => show_moment(first_ns),
        false => format!("{} to {}", show_moment(first_ns), show_moment(last_ns)),
    };
    match (asked, answered) {
        (asked, 0) => text.push_str(&format!(", {}, never answered", show_times(asked))),
        (asked, answered) if asked > answered => {
            text.push_str(&format!(", {} of {asked} answered", answered));
        }
        (_, answered) => text.push_str(&format!(", {}", show_times(answered))),
    }
    let mut listed: Vec<(IpAddr, u64)> = match is_of_all {
        true => row.peers.iter().map(|(address, peer)| (address, peer.answered.max(peer.asked))).collect(),
        false => peers.iter().map(|(address, peer)| (*address, peer.answered.max(peer.asked))).collect(),
    };
    listed.sort_by(|(a, more), (b, fewer)| fewer.cmp(more).then(a.cmp(b)));
    let total = listed.len();
    let named: Vec<String> = listed
        .iter()
        .take(MAX_NAMED)
        .map(|(address, count)| match names.find(*address) {
            Some(name) => format!("{address} ({name}) {count}x"),
            None => format!("{address} {count}x"),
        })
        .collect();
    text.push_str(&format!(": {}", named.join(", ")));
    if total > MAX_NAMED {
        text.push_str(&format!(", and {} more", total - MAX_NAMED));
    }
    if is_of_all && row.others > 0 {
        text.push_str(&format!(" (more than {MAX_PEERS_BY_ROW} peers; {} openings of others)", row.others));
    }
    text
}
