//! The addresses of a packet, as samples and ledger rows carry them.

use std::net::{IpAddr, Ipv6Addr};

use crate::abi::address;

/// A packet's addresses. No packet goes from `::` to `::`, so two empty ones mean a frame without
/// addresses. `::` as the source alone is an IPv6 host that has no address yet. `ip_version` is 0 where
/// only the addresses are known. In an IPv6 header an address that looks like a mapped IPv4 one stays
/// IPv6, because a reader has to see that a server sent it.
pub(crate) fn read_addresses(
    source: &address,
    destination: &address,
    ip_version: u8,
) -> (Option<IpAddr>, Option<IpAddr>) {
    let source = to_ipv6(source);
    let destination = to_ipv6(destination);
    if source.is_unspecified() && destination.is_unspecified() {
        return (None, None);
    }
    let read = |ip: Ipv6Addr| match ip.to_ipv4_mapped() {
        Some(ip) if ip_version != 6 => IpAddr::V4(ip),
        _ => IpAddr::V6(ip),
    };
    (Some(read(source)), Some(read(destination)))
}

fn to_ipv6(address: &address) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(address.word_be) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets)
}
