//! Addresses, prefixes and MACs as they are written in a policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::foreign::advise_on_address;
use super::mistake::Mistake;
use crate::net;

/// Parses an address or a prefix without host bits; an address is a prefix of full length.
pub(super) fn parse_prefix(text: &str) -> Result<IpNet, Mistake> {
    let whole = 0..text.len();
    let (address_text, length_text) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    // The whole text goes first: a mask or a bracket may stand on either side of the `/`.
    let address: IpAddr = address_text.parse().map_err(|_| match advise_on_address(text) {
        Some(help) => Mistake::new(whole.clone(), format!("`{text}` is not an address")).with_help(help),
        None => explain_address(address_text),
    })?;
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(explain_mapped(text, v4, length_text));
    }
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = match length_text {
        None => full,
        Some(length) => parse_length(length, full).map_err(|mistake| {
            let help = advise_on_address(text).or_else(|| mistake.help.clone());
            mistake.with_hint(help).shifted(address_text.len() + 1)
        })?,
    };
    let prefix = IpNet::new(address, length)
        .map_err(|_| Mistake::new(whole.clone(), format!("`{text}` is not a prefix")))?;
    if prefix != prefix.trunc() {
        return Err(Mistake::new(whole, format!("`{text}` has host bits set"))
            .with_help(format!("write `{}` for the network, or `{address}` for the host", prefix.trunc())));
    }
    Ok(prefix)
}

fn explain_mapped(text: &str, v4: Ipv4Addr, length: Option<&str>) -> Mistake {
    let length = length
        .and_then(|length| length.parse::<u8>().ok()?.checked_sub(96))
        .map(|length| format!("/{length}"));
    Mistake::new(0..text.len(), format!("`{text}` is an IPv4 address written as IPv6, which no packet has"))
        .with_help(format!("write `{v4}{}`", length.unwrap_or_default()))
}

fn parse_length(text: &str, full: u8) -> Result<u8, Mistake> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::new(0..text.len(), format!("`{text}` is not a prefix length"))
            .with_help(format!("write a number from 0 to {full}")));
    }
    match text.parse::<u8>() {
        Ok(length) if length <= full => Ok(length),
        _ => Err(Mistake::new(0..text.len(), format!("prefix length {text} is over {full}"))),
    }
}

fn explain_address(text: &str) -> Mistake {
    let mistake = Mistake::new(0..text.len(), format!("`{text}` is not an address"));
    if text.is_empty() {
        return Mistake::new(0..0, "an address is missing here");
    }
    if let Some((_, zone)) = text.split_once('%') {
        return mistake.with_help(format!("remove `%{zone}`: a policy is for one interface"));
    }
    if let Some(help) = advise_on_address(text) {
        return mistake.with_help(help);
    }
    let octets: Vec<&str> = text.split('.').collect();
    if octets.len() == 4 && octets.iter().all(|octet| octet.parse::<u8>().is_ok()) {
        return mistake.with_help("remove the leading zeros: some tools read them as octal");
    }
    if text.chars().any(|letter| letter.is_ascii_alphabetic() && !letter.is_ascii_hexdigit())
        && !text.contains(':')
    {
        return mistake.with_help("write the address: names are not looked up");
    }
    mistake
}

/// Why a server can't have a prefix; `None` if it can.
pub(crate) fn find_objection(prefix: &IpNet) -> Option<&'static str> {
    let v4 = |a, b, length| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
    let v6 =
        |first, length| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length));
    let broadcast = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32));
    let loopback = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));
    let overlaps = |other: &IpNet| match other.prefix_len() <= prefix.prefix_len() {
        true => other.contains(prefix),
        false => prefix.contains(other),
    };
    [
        (v4(0, 0, 8), "is unspecified: no host has such an address"),
        (v4(127, 0, 8), "is loopback: it never leaves a host"),
        (
            v4(169, 254, 16),
            "is link-local: such addresses never leave the link, so nothing is routed to them",
        ),
        (v4(224, 0, 4), "is multicast: no packet has such a source"),
        (broadcast, "is the broadcast address: no packet has such a source"),
        (v6(0, 128), "is unspecified: no host has such an address"),
        (loopback, "is loopback: it never leaves a host"),
        (v6(0xfe80, 10), "is link-local: such addresses never leave the link, so nothing is routed to them"),
        (v6(0xff00, 8), "is multicast: no packet has such a source"),
    ]
    .into_iter()
    .find(|(range, _)| overlaps(range))
    .map(|(_, objection)| objection)
}

/// Why a router of the link can't have an address; `None` if it can.
pub(super) fn find_router_objection(address: &IpNet) -> Option<&'static str> {
    let link_local = match address.addr() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    find_objection(address).filter(|_| !link_local)
}

/// Parses the MAC of a server or a router.
pub(super) fn parse_mac(text: &str) -> Result<[u8; 6], Mistake> {
    let whole = 0..text.len();
    match net::parse_mac(text) {
        Some(mac) if net::is_host_mac(&mac) => Ok(mac),
        Some(_) => Err(Mistake::new(whole, format!("`{text}` can't be the source of a frame"))
            .with_help("write the MAC of a NIC: its first byte is even, and not all of its bytes are zero")),
        None => Err(Mistake::new(whole, format!("`{text}` is not a MAC"))
            .with_help("write a MAC like `02:00:00:00:00:10`")),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn mistake(text: &str) -> (Range<usize>, String, String) {
        let mistake = parse_prefix(text).unwrap_err();
        (mistake.span, mistake.message, mistake.help.unwrap_or_default())
    }

    #[test]
    fn an_address_is_a_prefix_of_full_length() {
        assert_eq!(parse_prefix("192.0.2.1").unwrap(), "192.0.2.1/32".parse().unwrap());
        assert_eq!(parse_prefix("2001:db8::1").unwrap(), "2001:db8::1/128".parse().unwrap());
        assert_eq!(parse_prefix("192.0.2.1/32").unwrap(), parse_prefix("192.0.2.1").unwrap());
        assert_eq!(parse_prefix("2001:DB8:0::/64").unwrap(), "2001:db8::/64".parse().unwrap());
    }

    #[test]
    fn host_bits_are_refused_and_the_network_is_offered() {
        let (span, message, help) = mistake("192.0.2.5/24");
        assert_eq!((span, message.as_str()), (0..12, "`192.0.2.5/24` has host bits set"));
        assert_eq!(help, "write `192.0.2.0/24` for the network, or `192.0.2.5` for the host");
    }

    #[test]
    fn a_prefix_length_is_checked_for_its_family_and_pointed_at() {
        assert_eq!(mistake("192.0.2.0/33"), (10..12, "prefix length 33 is over 32".into(), String::new()));
        assert_eq!(mistake("2001:db8::/129").0, 11..14);
        assert_eq!(mistake("2001:db8::/").0, 11..11);
        assert_eq!(mistake("192.0.2.0/+8").0, 10..12);
        assert_eq!(mistake("192.0.2.0/24/8").0, 10..14);
    }

    #[test]
    fn an_ipv4_mapped_address_is_to_be_written_as_ipv4() {
        assert_eq!(mistake("::ffff:192.0.2.1").2, "write `192.0.2.1`");
        assert_eq!(mistake("::ffff:192.0.2.0/120").2, "write `192.0.2.0/24`");
    }

    #[test]
    fn a_text_that_is_not_an_address_gets_the_help_that_fits() {
        assert!(mistake("192.0.2.010").2.contains("leading zeros"));
        assert_eq!(mistake("fe80::1%eth0").2, "remove `%eth0`: a policy is for one interface");
        assert!(mistake("www.example.org").2.contains("not looked up"));
        assert_eq!(mistake("192.0.2").2, "write `192.0.2.0/24`");
        assert_eq!(mistake("192.0.2.0/255.255.255.0").2, "write `192.0.2.0/24`");
        assert_eq!(mistake("[2001:db8::]/64").2, "write `2001:db8::/64`");
        assert_eq!(mistake("192.0.2.300").2, "");
        assert_eq!(mistake("").1, "an address is missing here");
    }

    #[test]
    fn a_server_can_have_only_addresses_that_packets_have_as_their_source() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "0.0.0.0/0",
            "::/0",
            "128.0.0.0/1",
        ] {
            assert!(find_objection(&parse_prefix(text).unwrap()).is_some(), "{text}");
        }
        for text in ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "fc00::/7", "240.0.0.1"] {
            assert_eq!(find_objection(&parse_prefix(text).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_mac_is_refused_by_its_form_or_as_a_groups() {
        assert_eq!(parse_mac("02-00-5E-00-00-1f").unwrap(), [2, 0, 0x5e, 0, 0, 0x1f]);
        assert_eq!(parse_mac("02:00:00:00:00:0g").unwrap_err().message, "`02:00:00:00:00:0g` is not a MAC");
        for text in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
            assert_eq!(
                parse_mac(text).unwrap_err().message,
                format!("`{text}` can't be the source of a frame")
            );
        }
    }
}
