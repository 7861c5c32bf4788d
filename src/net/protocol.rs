//! Numbers and names of IP protocols and ICMP types, and what a need may have after a protocol's `/`.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// Multicast memberships of IPv4.
pub const IGMP: u8 = 2;
/// IPv4 in IP.
pub const IPIP: u8 = 4;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// IPv6 in IP: 6in4.
pub const SIT: u8 = 41;
/// GRE.
pub const GRE: u8 = 47;
/// IPsec's encryption.
pub const ESP: u8 = 50;
/// IPsec's authentication.
pub const AH: u8 = 51;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// OSPF.
pub const OSPF: u8 = 89;
/// VRRP.
pub const VRRP: u8 = 112;
/// L2TP over IP.
pub const L2TP: u8 = 115;
/// SCTP.
pub const SCTP: u8 = 132;

/// Whether packets of this protocol have ports.
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

/// Whether this is the ICMP of either family.
pub fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6)
}

/// The names that the policy language has.
const NAMES: &[(&str, u8)] = &[
    ("tcp", TCP),
    ("udp", UDP),
    ("sctp", SCTP),
    ("icmp", ICMP),
    ("icmpv6", ICMPV6),
    ("igmp", IGMP),
    ("ipip", IPIP),
    ("sit", SIT),
    ("gre", GRE),
    ("esp", ESP),
    ("ah", AH),
    ("vrrp", VRRP),
    ("ospf", OSPF),
];

/// Where several names share a number, the first one is canonical.
const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
    ("extended-echo-request", 42),
    ("extended-echo-reply", 43),
    ("unreachable", 3),
    ("ping", 8),
    ("pong", 0),
    ("ttl-exceeded", 11),
];

const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbour-solicitation", 135),
    ("neighbour-advertisement", 136),
    ("redirect", 137),
    ("node-information-request", 139),
    ("node-information-reply", 140),
    ("mld2-listener-report", 143),
    ("extended-echo-request", 160),
    ("extended-echo-reply", 161),
    ("unreachable", 1),
    ("ping", 128),
    ("pong", 129),
    ("neighbor-solicitation", 135),
    ("neighbor-advertisement", 136),
];

/// The kind of value behind a protocol's `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A port, 0 to 65535.
    Port,
    /// An ICMP type, 0 to 255.
    Type,
    /// Nothing.
    None,
}

impl Selector {
    /// The kind of value behind the `/` of a protocol.
    pub fn of(protocol: u8) -> Self {
        match protocol {
            TCP | UDP | SCTP => Self::Port,
            ICMP | ICMPV6 => Self::Type,
            _ => Self::None,
        }
    }

    /// Every value: a need without `/` has all of them.
    pub fn whole(self) -> RangeInclusive<u16> {
        match self {
            Self::Port => 0..=u16::MAX,
            Self::Type => 0..=u16::from(u8::MAX),
            Self::None => 0..=0,
        }
    }
}

/// The number of a named protocol.
pub fn find_protocol(name: &str) -> Option<u8> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// A protocol's name, or its number if the policy language has no name for it.
pub fn name_protocol(protocol: u8) -> Cow<'static, str> {
    match NAMES.iter().find(|(_, number)| *number == protocol) {
        Some((name, _)) => Cow::Borrowed(name),
        None => Cow::Owned(protocol.to_string()),
    }
}

/// All protocol names of the policy language.
pub fn protocol_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

fn icmp_types(protocol: u8) -> &'static [(&'static str, u8)] {
    match protocol {
        ICMP => ICMP_TYPES,
        ICMPV6 => ICMPV6_TYPES,
        _ => &[],
    }
}

/// The number of a named ICMP type; `protocol` says which ICMP.
pub fn find_icmp_type(protocol: u8, name: &str) -> Option<u8> {
    icmp_types(protocol).iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// An ICMP type's canonical name, or its number.
pub fn name_icmp_type(protocol: u8, number: u16) -> Cow<'static, str> {
    match icmp_types(protocol).iter().find(|(_, known)| u16::from(*known) == number) {
        Some((name, _)) => Cow::Borrowed(name),
        None => Cow::Owned(number.to_string()),
    }
}

/// The type of the answer to an ICMP request; `None` for messages that ask nothing.
pub fn find_icmp_answer(protocol: u8, request: u16) -> Option<u16> {
    match (protocol, request) {
        (ICMP, 8) => Some(0),
        (ICMP, 13 | 15 | 17 | 42) | (ICMPV6, 128 | 139 | 160) => Some(request + 1),
        _ => None,
    }
}

/// All ICMP type names that a protocol knows.
pub fn icmp_type_names(protocol: u8) -> impl Iterator<Item = &'static str> {
    icmp_types(protocol).iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_name_leads_back_to_itself() {
        for name in protocol_names() {
            let number = find_protocol(name).unwrap();
            assert_eq!(name_protocol(number), name);
        }
    }

    #[test]
    fn a_protocol_without_a_name_is_called_by_its_number() {
        assert_eq!(name_protocol(88), "88");
    }

    #[test]
    fn the_two_icmps_number_their_types_differently() {
        assert_eq!(find_icmp_type(ICMP, "echo-request"), Some(8));
        assert_eq!(find_icmp_type(ICMPV6, "echo-request"), Some(128));
        assert_eq!(find_icmp_type(ICMP, "packet-too-big"), None);
        assert_eq!(find_icmp_type(ICMPV6, "packet-too-big"), Some(2));
    }

    #[test]
    fn an_alias_of_an_icmp_type_is_printed_by_its_canonical_name() {
        assert_eq!(name_icmp_type(ICMP, 8), "echo-request");
        assert_eq!(name_icmp_type(ICMPV6, 135), "neighbour-solicitation");
        assert_eq!(name_icmp_type(ICMP, 200), "200");
    }

    #[test]
    fn an_icmp_request_and_its_answer_have_names_that_match() {
        for protocol in [ICMP, ICMPV6] {
            for request in 0..=255 {
                if let Some(answer) = find_icmp_answer(protocol, request) {
                    let (asked, answered) =
                        (name_icmp_type(protocol, request), name_icmp_type(protocol, answer));
                    assert_eq!(asked.replace("request", "reply"), answered);
                }
            }
        }
        assert_eq!(find_icmp_answer(ICMP, 3), None);
        assert_eq!(find_icmp_answer(ICMPV6, 8), None);
    }

    #[test]
    fn only_tcp_udp_and_sctp_have_ports() {
        let with_ports: Vec<u8> =
            (0..=255).filter(|number| Selector::of(*number) == Selector::Port).collect();
        assert_eq!(with_ports, [TCP, UDP, SCTP]);
    }
}
