//! Addresses as the maps have them: IPv6 in network byte order, IPv4 mapped to it.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::types::{address, prefix_key};

/// The length of `::ffff:0:0/96`, which stands before an IPv4 address.
const MAPPED_BITS: u32 = 96;

/// The address as a map has it: IPv6 in network byte order, IPv4 mapped to it.
pub fn to_address(ip: IpAddr) -> address {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut address = address::default();
    for (word, bytes) in address.word_be.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    address
}

/// The IP address that a map has. `None`: it is all zeros, as in a frame without addresses.
pub fn from_address(address: &address) -> Option<IpAddr> {
    let mut octets = [0_u8; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(address.word_be) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = Ipv6Addr::from(octets);
    match ip.to_ipv4_mapped() {
        Some(ip) => Some(IpAddr::V4(ip)),
        None if ip.is_unspecified() => None,
        None => Some(IpAddr::V6(ip)),
    }
}

/// The length of a prefix of such an address, bits: 96 more than that of an IPv4 prefix.
pub fn prefix_bits(prefix: &IpNet) -> u32 {
    match prefix {
        IpNet::V4(prefix) => MAPPED_BITS + u32::from(prefix.prefix_len()),
        IpNet::V6(prefix) => u32::from(prefix.prefix_len()),
    }
}

/// The key of a prefix.
pub fn to_prefix_key(prefix: &IpNet) -> prefix_key {
    prefix_key { prefix_bits: prefix_bits(prefix), address: to_address(prefix.network()) }
}

/// The prefix of a key. `None`: no prefix has this length.
pub fn from_prefix_key(key: &prefix_key) -> Option<IpNet> {
    let mut octets = [0_u8; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(key.address.word_be) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = Ipv6Addr::from(octets);
    let prefix = match (ip.to_ipv4_mapped(), key.prefix_bits.checked_sub(MAPPED_BITS)) {
        (Some(ip), Some(bits)) => IpNet::new(ip.into(), u8::try_from(bits).ok()?).ok()?,
        _ => Ipv6Net::new(ip, u8::try_from(key.prefix_bits).ok()?).ok()?.into(),
    };
    Some(prefix.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_went_in() {
        for text in ["192.0.2.10", "0.0.0.0", "2001:db8:1::10", "fe80::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(from_address(&to_address(ip)), Some(ip));
        }
        assert_eq!(from_address(&address::default()), None);
    }

    #[test]
    fn a_prefix_comes_back_as_it_went_in() {
        for text in
            ["192.0.2.10/32", "192.0.2.128/26", "0.0.0.0/0", "2001:db8:1::/64", "2001:db8::1/128", "::/0"]
        {
            let prefix: IpNet = text.parse().unwrap();
            assert_eq!(from_prefix_key(&to_prefix_key(&prefix)), Some(prefix));
        }
        assert_eq!(from_prefix_key(&prefix_key { prefix_bits: 129, ..Default::default() }), None);
    }

    #[test]
    fn an_ipv4_prefix_counts_the_mapping() {
        assert_eq!(prefix_bits(&"192.0.2.128/26".parse().unwrap()), 122);
        assert_eq!(prefix_bits(&"2001:db8::/32".parse().unwrap()), 32);
    }
}
