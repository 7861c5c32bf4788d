//! Every protocol number, and what carries packets within packets.

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, passes, question};
use crate::support::dmz::{Family, V4, V6};
use crate::support::frame::{
    SYN, TCP, UDP, ethernet, fragment, packet, raw_ip, tcp_header, udp, udp_datagram,
};

classes! {
    every_protocol_number_is_judged_by_its_name: "Every IPv4 protocol and IPv6 next header", list_protocols;
    what_a_tunnel_carries_is_not_the_packets_own: "Tunnels", list_tunnels;
    a_tunnel_in_udp_is_udp: "Tunnels in UDP", list_udp_tunnels;
}

/// Whoever sends it claims to be the router.
const VRRP: u8 = 112;

fn inner(family: Family) -> Vec<u8> {
    let (from, to) = question(family);
    packet(family.ns, family.peer, UDP, &udp_datagram(from, to, b""))
}

/// What fills a packet of any protocol: a question that is needed, for those that look for ports.
fn content(family: Family) -> Vec<u8> {
    let (from, to) = question(family);
    [udp_datagram(from, to, b""), vec![0; 32]].concat()
}

fn list_protocols() -> Vec<Row> {
    let of = |family: Family, protocol| raw_ip(family.ns, family.peer, protocol, &content(family));
    let others = |family: Family| -> Vec<u8> {
        let known: &[u8] =
            if family.ns.is_ipv4() { &[1, TCP, UDP, VRRP] } else { &[0, TCP, UDP, 43, 44, 58, 60, VRRP] };
        (0..=255).filter(|protocol| !known.contains(protocol)).collect()
    };
    vec![
        Row::both("UDP, the same bytes", |family| passes(of(family, UDP), Reason::Need)),
        Row::both_many("all but TCP, UDP, ICMP, VRRP and extension headers", |family| {
            others(family).into_iter().map(|protocol| drops(of(family, protocol), Reason::Protocol)).collect()
        }),
        Row::both("VRRP", |family| drops(of(family, VRRP), Reason::RogueRouter)),
        Row::both("VRRP as a first fragment, and a later one", |family| {
            let piece =
                |offset, more| fragment(family.ns, family.peer, VRRP, (7, offset, more), &content(family));
            drops(piece(0, true), Reason::RogueRouter).drops(piece(5, false), Reason::RogueRouter)
        }),
        Row::both("VRRP as a later fragment alone", |family| {
            drops(fragment(family.ns, family.peer, VRRP, (7, 3, false), &content(family)), Reason::Fragment)
        }),
        Row::both_many("the same as first fragments", |family| {
            let first = |protocol| fragment(family.ns, family.peer, protocol, (7, 0, true), &content(family));
            others(family).into_iter().map(|protocol| drops(first(protocol), Reason::Protocol)).collect()
        }),
        Row::both_many("the same as later fragments", |family| {
            let later =
                |protocol| fragment(family.ns, family.peer, protocol, (7, 3, false), &content(family));
            others(family).into_iter().map(|protocol| drops(later(protocol), Reason::Fragment)).collect()
        }),
        Row::many("IPv6 extension headers that are none in IPv4", "4", {
            [0, 43, 44, 60].map(|protocol| drops(of(V4, protocol), Reason::Protocol)).into()
        }),
        Row::many("extension headers with nonsense in them", "6", {
            [0, 43, 44, 60]
                .map(|protocol| drops(raw_ip(V6.ns, V6.peer, protocol, &[0xff; 40]), Reason::Malformed))
                .into()
        }),
        Row::both_many("protocols that need no header: no payload at all", |family| {
            let empty = |protocol| ethernet(&packet(family.ns, family.peer, protocol, &[]));
            let reason = |protocol| {
                if family.ns.is_ipv4() || protocol == 59 { Reason::Protocol } else { Reason::Malformed }
            };
            [59].map(|protocol| drops(empty(protocol), reason(protocol))).into()
        }),
    ]
}

fn list_tunnels() -> Vec<Row> {
    let carry = |family: Family, protocol: u8, head: &[u8], inside: Family| {
        drops(raw_ip(family.ns, family.peer, protocol, &[head, &inner(inside)].concat()), Reason::Protocol)
    };
    let esp = [0, 0, 1, 0, 0, 0, 0, 1];
    let ah = [4, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        Row::both("the packet by itself", |family| passes(ethernet(&inner(family)), Reason::Need)),
        Row::both("IPIP: IPv4 in IP", |family| carry(family, 4, &[], V4)),
        Row::both("SIT, 6in4, 6in6: IPv6 in IP", |family| carry(family, 41, &[], V6)),
        Row::both("GRE with IPv4, IPv6", |family| {
            let head = if family.ns.is_ipv4() { [0, 0, 8, 0] } else { [0, 0, 0x86, 0xdd] };
            carry(family, 47, &head, family)
        }),
        Row::both("GRE with key and Ethernet (NVGRE)", |family| {
            carry(family, 47, &[0x20, 0, 0x65, 0x58, 0, 0, 1, 0], family)
        }),
        Row::both("ESP", |family| carry(family, 50, &esp, family)),
        Row::both("AH, readable all the same", |family| carry(family, 51, &ah, V4)),
        Row::both("MPLS in IP, EtherIP, L2TPv3, PIM registers, Ethernet in IP", |family| {
            [137, 97, 115, 103, 143].iter().fold(Script::default(), |script, protocol| {
                script.drops(raw_ip(family.ns, family.peer, *protocol, &inner(family)), Reason::Protocol)
            })
        }),
        Row::both("SCTP and DCCP, whose ports stand where UDP's do", |family| {
            [132, 33].iter().fold(Script::default(), |script, protocol| {
                script.drops(raw_ip(family.ns, family.peer, *protocol, &content(family)), Reason::Protocol)
            })
        }),
        Row::both("UDP-Lite, whose ports stand where UDP's do", |family| {
            drops(raw_ip(family.ns, family.peer, 136, &content(family)), Reason::Protocol)
        }),
    ]
}

fn list_udp_tunnels() -> Vec<Row> {
    let to = |family: Family, port: u16, content: &[u8]| {
        let ends = ((family.ns, 40_000), (family.peer, port));
        ethernet(&packet(family.ns, family.peer, UDP, &udp_datagram(ends.0, ends.1, content)))
    };
    let ports: [(&str, u16); 11] = [
        ("ESP (NAT-T)", 4500),
        ("IKE", 500),
        ("L2TP", 1701),
        ("VXLAN", 4789),
        ("Geneve", 6081),
        ("Teredo", 3544),
        ("GTP-U", 2152),
        ("WireGuard", 51_820),
        ("OpenVPN", 1194),
        ("QUIC", 443),
        ("FOU, GUE", 6080),
    ];
    let names = ports.map(|(name, port)| format!("{name} ({port})")).join(", ");
    vec![
        Row::both_many(names, |family| {
            ports.map(|(_, port)| drops(to(family, port, &inner(family)), Reason::NewFlow)).into()
        }),
        Row::both("a SYN in a datagram to a port that is needed: what a permitted flow carries", |family| {
            let (from, to_port) = ((family.ns, 40_000), (family.peer, 445));
            let syn = packet(family.ns, family.peer, TCP, &tcp_header(from, to_port, SYN, (1, 0)));
            passes(to(family, 53, &syn), Reason::Need)
        }),
        Row::both("from port 4500, 4789 or 53 to a port that is not needed", |family| {
            [4500, 4789, 53].iter().fold(Script::default(), |script, port| {
                script.drops(udp((family.ns, *port), (family.peer, 33_434)), Reason::NewFlow)
            })
        }),
    ]
}
