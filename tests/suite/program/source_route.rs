//! Row 3: packets that say themselves which way they want to go.

use portcullis::abi::Reason;

use crate::support::dmz::{V4, V6};
use crate::support::frame::{
    DESTINATION_OPTIONS, HOP_BY_HOP, Ipv4, Ipv6, ROUTING, TCP, UDP, octets, tcp_header, udp_datagram,
};
use crate::support::test_gate::TestGate;

const LOOSE: u8 = 131;
const STRICT: u8 = 137;

fn with_options(options: &[u8]) -> Vec<u8> {
    let datagram = udp_datagram((V4.ns, 40_000), (V4.peer, 53), b"");
    Ipv4::new(V4.ns, V4.peer, UDP, &datagram).options(options).frame()
}

fn question() -> Ipv6 {
    Ipv6::new(V6.ns, V6.peer, UDP, &udp_datagram((V6.ns, 40_000), (V6.peer, 53), b""))
}

/// A routing header with one address.
fn routing(packet: Ipv6, kind: u8, segments_left: u8) -> Ipv6 {
    let mut rest = vec![2, kind, segments_left, 0, 0, 0, 0];
    rest.extend_from_slice(&octets(V6.other));
    packet.extension(ROUTING, &rest)
}

#[test]
fn a_loose_or_strict_source_route_is_dropped_wherever_it_stands_among_the_options() {
    let gate = TestGate::dmz();
    for kind in [LOOSE, STRICT] {
        let route = [kind, 7, 4, 203, 0, 113, 51];
        let places = [
            [&route[..], &[0]].concat(),
            [&[1][..], &route].concat(),
            [&[1, 1, 1, 1, 1][..], &route].concat(),
            [&[148, 4, 0, 0][..], &route, &[0]].concat(),
            [&[1, 7, 3, 4][..], &route, &[1]].concat(),
            // the last possible place, after 37 times nothing
            [&[1; 37][..], &[kind, 3, 4]].concat(),
            // after 18 options of two bytes
            [&[30, 2].repeat(18)[..], &[1, kind, 3, 4]].concat(),
        ];
        for options in places {
            gate.drops(&with_options(&options), Reason::SourceRoute);
        }
    }
    gate.passes(&with_options(&[1; 40]), Reason::Need);
    gate.passes(&with_options(&[30, 2].repeat(20)), Reason::Need);
}

#[test]
fn what_only_looks_like_a_source_route_passes() {
    let gate = TestGate::dmz();
    // within another option, and after the end of all options
    gate.passes(&with_options(&[148, 4, LOOSE, STRICT]), Reason::Need);
    gate.passes(&with_options(&[0, LOOSE, 3, 4]), Reason::Need);
    // their neighbours by number
    for kind in [LOOSE - 1, LOOSE + 1, STRICT - 1, STRICT + 1, 3, 9] {
        gate.passes(&with_options(&[kind, 4, 0, 0]), Reason::Need);
    }
}

#[test]
fn an_ipv6_routing_header_of_type_0_is_dropped_even_when_it_is_used_up() {
    let gate = TestGate::dmz();
    for segments_left in [0, 1, 2, 255] {
        gate.drops(&routing(question(), 0, segments_left).frame(), Reason::SourceRoute);
    }
}

#[test]
fn any_other_routing_header_passes_only_when_it_is_used_up() {
    let gate = TestGate::dmz();
    // mobility, RPL, segment routing, two experiments
    for kind in [1, 2, 3, 4, 253, 254] {
        gate.passes(&routing(question(), kind, 0).frame(), Reason::Need);
        for segments_left in [1, 255] {
            gate.drops(&routing(question(), kind, segments_left).frame(), Reason::SourceRoute);
        }
    }
}

#[test]
fn a_routing_header_is_found_behind_others() {
    let gate = TestGate::dmz();
    let mut packet = question().options(HOP_BY_HOP, 0);
    for _ in 0..6 {
        packet = packet.options(DESTINATION_OPTIONS, 0);
    }
    gate.drops(&routing(packet.clone(), 0, 0).frame(), Reason::SourceRoute);
    gate.passes(&routing(packet, 2, 0).frame(), Reason::Need);
    let second = routing(routing(question(), 2, 0), 0, 1);
    gate.drops(&second.frame(), Reason::SourceRoute);
}

#[test]
fn a_routing_header_in_a_first_fragment_is_found() {
    let gate = TestGate::dmz();
    let fragment = |kind| routing(question().fragment(7, 0, true), kind, 0).frame();
    gate.drops(&fragment(0), Reason::SourceRoute);
    gate.passes(&fragment(2), Reason::Need);
}

#[test]
fn a_source_route_is_judged_after_the_form_and_before_the_source() {
    let gate = TestGate::dmz();
    let route = [LOOSE, 7, 4, 203, 0, 113, 51, 0];
    let unknown = udp_datagram((V4.unknown, 40_000), (V4.peer, 53), b"");
    let packet = Ipv4::new(V4.unknown, V4.peer, UDP, &unknown);
    gate.drops(&packet.clone().options(&route).frame(), Reason::SourceRoute);
    gate.drops(&packet.frame(), Reason::UnknownSource);
    let no_flags = tcp_header((V4.ns, 40_000), (V4.peer, 53), 0, (1, 0));
    let broken = Ipv4::new(V4.ns, V4.peer, TCP, &no_flags).options(&route);
    gate.drops(&broken.frame(), Reason::Malformed);
}
