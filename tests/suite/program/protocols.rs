//! Row 16: protocols other than TCP, UDP and ICMP.

use portcullis::abi::Reason;

use crate::support::dmz::{V4, in_both_families};
use crate::support::frame::{SCTP, TCP, UDP, fragment, raw_ip};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

const IGMP: u8 = 2;
const IPIP: u8 = 4;
const SIT: u8 = 41;
const GRE: u8 = 47;
const ESP: u8 = 50;
const AH: u8 = 51;

/// What fills a packet of such a protocol: TCP to port 53 for those that look for it.
fn content() -> Vec<u8> {
    let mut bytes = [0, 0, 0, 53, 0, 53].to_vec();
    bytes.resize(40, 0);
    bytes
}

#[test]
fn a_protocol_that_nobody_needs_is_dropped_and_named() {
    with_dmz_in_both_families(|gate, family| {
        for protocol in [IGMP, IPIP, 8, SIT, GRE, ESP, AH, 89, 94, 103, 115, SCTP, 136, 253, 254, 255] {
            let row = gate.drops(&raw_ip(family.ns, family.peer, protocol, &content()), Reason::Protocol);
            assert_eq!((row.key.server, row.key.protocol), (gate.id_of("ns1"), protocol));
        }
        // a server that claims the router's address is worse
        let row = gate.drops(&raw_ip(family.ns, family.peer, 112, &content()), Reason::RogueRouter);
        assert_eq!((row.key.server, row.key.protocol), (gate.id_of("ns1"), 112));
        // IPv6 without a next header is a protocol of its own, and a channel as any other
        gate.drops(&raw_ip(family.ns, family.peer, 59, &content()), Reason::Protocol);
    });
}

const POLICY: &str = r#"
[roles.router]
out = [
    "gre to 203.0.113.50, 2001:db8:50::50",
    "esp",
    "ah",
    "ipip",
    "sit",
    "igmp",
    "99",
    "sctp/3868 to 203.0.113.50, 2001:db8:50::50",
]
[servers.gw]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["router"]
"#;

#[test]
fn a_protocol_that_a_server_needs_passes() {
    let gate = TestGate::new(POLICY);
    in_both_families(|family| {
        for protocol in [IGMP, IPIP, SIT, GRE, ESP, AH, 99] {
            gate.passes(&raw_ip(family.web, family.peer, protocol, &content()), Reason::Need);
        }
        for protocol in [IGMP + 1, IPIP + 1, SIT - 1, GRE - 1, GRE + 1, AH + 1, 98, 100] {
            gate.drops(&raw_ip(family.web, family.peer, protocol, &content()), Reason::Protocol);
        }
    });
}

#[test]
fn a_needed_protocol_to_another_destination_is_named_so() {
    let gate = TestGate::new(POLICY);
    in_both_families(|family| {
        gate.drops(&raw_ip(family.web, family.other, GRE, &content()), Reason::Destination);
        gate.passes(&raw_ip(family.web, family.other, ESP, &content()), Reason::Need);
    });
}

#[test]
fn sctp_is_needed_by_its_ports() {
    let gate = TestGate::new(POLICY);
    let sctp = |port: u16| {
        let mut packet = [40_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
        packet.resize(16, 0);
        packet
    };
    in_both_families(|family| {
        gate.passes(&raw_ip(family.web, family.peer, SCTP, &sctp(3868)), Reason::Need);
        let row = gate.drops(&raw_ip(family.web, family.peer, SCTP, &sctp(3869)), Reason::Protocol);
        assert_eq!(row.key.port, 3869);
        gate.drops(&raw_ip(family.web, family.other, SCTP, &sctp(3868)), Reason::Destination);
    });
}

#[test]
fn a_truncated_sctp_header_is_malformed() {
    let gate = TestGate::new(POLICY);
    let packet = [&40_000_u16.to_be_bytes()[..], &3868_u16.to_be_bytes(), &[0; 8]].concat();
    in_both_families(|family| {
        for length in 0..12 {
            gate.drops(&raw_ip(family.web, family.peer, SCTP, &packet[..length]), Reason::Malformed);
        }
        gate.passes(&raw_ip(family.web, family.peer, SCTP, &packet), Reason::Need);
    });
}

#[test]
fn what_a_tunnel_carries_is_not_the_packets_own() {
    // a datagram that ns1 may send, within IP in IP
    let gate = TestGate::dmz();
    let inner = crate::support::frame::udp((V4.ns, 40_000), (V4.peer, 53));
    gate.drops(&raw_ip(V4.ns, V4.peer, IPIP, &inner[14..]), Reason::Protocol);
    gate.passes(&inner, Reason::Need);
}

#[test]
fn a_fragment_of_a_protocol_needs_its_need_too() {
    let gate = TestGate::new(POLICY);
    in_both_families(|family| {
        let first = |protocol, id| fragment(family.web, family.peer, protocol, (id, 0, true), &content());
        let later = |protocol, id| fragment(family.web, family.peer, protocol, (id, 5, false), &content());
        gate.passes(&first(GRE, 1), Reason::Need);
        gate.passes(&later(GRE, 1), Reason::LaterFragment);
        gate.drops(&first(89, 2), Reason::Protocol);
        gate.drops(&later(89, 2), Reason::Protocol);
        gate.drops(&later(89, 3), Reason::Fragment);
        gate.drops(&later(TCP, 1), Reason::Fragment);
        gate.drops(&later(UDP, 1), Reason::Fragment);
    });
}
