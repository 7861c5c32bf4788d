//! Row 8: later fragments go the way of their first one.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, V6};
use crate::support::frame::{
    ACK, DESTINATION_OPTIONS, HOP_BY_HOP, ICMPV6, Ipv6, SYN, TCP, UDP, echo_request, fragment, icmp_message,
    icmp_protocol, padded, tcp, tcp_header, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

/// The last offset at which sixteen bytes still end within the 65,535 of a packet.
const LAST_OFFSET: u16 = 8187;

/// The first fragment of a question that the name server may ask, or of one that it may not.
fn first(family: Family, port: u16, id: u16) -> Vec<u8> {
    let datagram = udp_datagram((family.ns, 40_000), (family.peer, port), &[0; 16]);
    fragment(family.ns, family.peer, UDP, (id, 0, true), &datagram)
}

fn later(family: Family, id: u16, offset: u16, more: bool) -> Vec<u8> {
    fragment(family.ns, family.peer, UDP, (id, offset, more), &[0x5a; 16])
}

#[test]
fn the_fragments_after_a_first_one_that_passed_pass() {
    with_dmz_in_both_families(|gate, family| {
        gate.passes(&first(family, 53, 7), Reason::Need);
        gate.passes(&later(family, 7, 3, true), Reason::LaterFragment);
        gate.passes(&later(family, 7, 5, false), Reason::LaterFragment);
        gate.passes(&later(family, 7, LAST_OFFSET, false), Reason::LaterFragment);
    });
}

#[test]
fn a_later_fragment_without_a_first_one_is_dropped() {
    with_dmz_in_both_families(|gate, family| {
        for (offset, more) in [(1, true), (1, false), (3, true), (LAST_OFFSET, false)] {
            let row = gate.drops(&later(family, 7, offset, more), Reason::Fragment);
            assert_eq!((row.key.server, row.key.port), (gate.id_of("ns1"), 0));
        }
        // a whole packet is no first fragment
        gate.passes(&udp((family.ns, 40_000), (family.peer, 53)), Reason::Need);
        gate.drops(&later(family, 0, 3, false), Reason::Fragment);
    });
}

#[test]
fn the_fragments_after_a_first_one_that_was_dropped_are_dropped() {
    with_dmz_in_both_families(|gate, family| {
        let begin = gate.drops(&first(family, 80, 7), Reason::NewFlow);
        let rest = gate.drops(&later(family, 7, 3, false), Reason::NewFlow);
        assert_eq!(rest.row.number, begin.row.number, "one kind of drop");
        assert_eq!(rest.row.packets, 2);
        // of another datagram nothing is known
        gate.drops(&later(family, 8, 3, false), Reason::Fragment);
    });
}

#[test]
fn what_another_policy_let_begin_is_not_continued() {
    with_dmz_in_both_families(|gate, family| {
        gate.swap(POLICY);
        gate.passes(&first(family, 53, 7), Reason::Need);
        gate.swap(&POLICY.replace("pickup", "# pickup"));
        gate.drops(&later(family, 7, 3, false), Reason::Fragment);
    });
}

#[test]
fn a_fragment_that_ends_past_the_largest_packet_is_malformed() {
    // the ping of death
    with_dmz_in_both_families(|gate, family| {
        gate.passes(&first(family, 53, 7), Reason::Need);
        gate.drops(&later(family, 7, 8191, false), Reason::Malformed);
        gate.passes(&later(family, 7, LAST_OFFSET, false), Reason::LaterFragment);
        // to the last byte that a length of 16 bits can say, and one more
        let end = |bytes| fragment(family.ns, family.peer, UDP, (7, 8191, false), &vec![0x5a; bytes]);
        gate.passes(&end(7), Reason::LaterFragment);
        gate.drops(&end(8), Reason::Malformed);
    });
}

#[test]
fn a_later_fragment_of_another_packet_is_dropped() {
    with_dmz_in_both_families(|gate, family| {
        gate.passes(&first(family, 53, 7), Reason::Need);
        let other = |from, to, protocol, id| fragment(from, to, protocol, (id, 3, false), &[0x5a; 16]);
        gate.drops(&other(family.ns, family.peer, UDP, 8), Reason::Fragment);
        gate.drops(&other(family.ns, family.peer, UDP, 0x0707), Reason::Fragment);
        gate.drops(&other(family.ns, family.peer, TCP, 7), Reason::Fragment);
        gate.drops(&other(family.ns, family.peer, 47, 7), Reason::Fragment);
        gate.drops(&other(family.ns, family.other, UDP, 7), Reason::Fragment);
        gate.drops(&other(family.web, family.peer, UDP, 7), Reason::Fragment);
        gate.passes(&other(family.ns, family.peer, UDP, 7), Reason::LaterFragment);
    });
}

#[test]
fn all_32_bits_of_an_ipv6_identification_count() {
    let gate = TestGate::dmz();
    let packet = |id, offset, more| {
        let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, 53), &[0; 16]);
        Ipv6::new(V6.ns, V6.peer, UDP, &datagram).fragment(id, offset, more).frame()
    };
    gate.passes(&packet(0x1234_5678, 0, true), Reason::Need);
    for id in [0x0000_5678, 0x1234_0000, 0x1334_5678, 0x7856_3412] {
        gate.drops(&packet(id, 3, false), Reason::Fragment);
    }
    gate.passes(&packet(0x1234_5678, 3, false), Reason::LaterFragment);
    for bit in 0..32 {
        gate.forget_flows();
        gate.passes(&packet(1 << bit, 0, true), Reason::Need);
        for id in [0, 1_u32.rotate_left(bit + 1), 1_u32.rotate_left(bit + 31)] {
            gate.drops(&packet(id, 3, false), Reason::Fragment);
        }
        gate.passes(&packet(1 << bit, 3, false), Reason::LaterFragment);
    }
}

#[test]
fn a_first_fragment_is_remembered_as_long_as_a_host_waits_for_the_rest() {
    with_dmz_in_both_families(|gate, family| {
        let seconds = if family.ns.is_ipv4() { 30 } else { 60 };
        gate.passes(&first(family, 53, 7), Reason::Need);
        gate.age("fragments", seconds - 1);
        gate.passes(&later(family, 7, 3, true), Reason::LaterFragment);
        gate.age("fragments", 2);
        gate.drops(&later(family, 7, 5, false), Reason::Fragment);
        // the next packet of the same number is another one
        gate.passes(&first(family, 53, 7), Reason::Need);
        gate.passes(&later(family, 7, 5, false), Reason::LaterFragment);
    });
}

#[test]
fn a_first_fragment_too_short_for_its_header_is_dropped_with_all_that_follow() {
    with_dmz_in_both_families(|gate, family| {
        let (from, to) = ((family.ns, 40_000), (family.peer, 53));
        let header = tcp_header(from, to, ACK, (1, 1));
        for length in [8, 16] {
            let id = 100 + length as u16;
            let short = fragment(family.ns, family.peer, TCP, (id, 0, true), &header[..length]);
            gate.drops(&short, Reason::Fragment);
            gate.drops(&padded(&short, 120), Reason::Fragment);
            let rest = fragment(family.ns, family.peer, TCP, (id, 3, false), &[0; 16]);
            gate.drops(&rest, Reason::Fragment);
        }
        // long enough, in multiples of eight as fragments are
        let mut segment = tcp_header(from, to, ACK, (1, 1));
        segment.extend_from_slice(&[0; 4]);
        gate.passes(&fragment(family.ns, family.peer, TCP, (9, 0, true), &segment), Reason::OwnConnection);
    });
}

#[test]
fn a_fragment_of_no_multiple_of_eight_bytes_is_malformed_unless_it_is_the_last() {
    // Of UDP and ICMP, every first fragment too short for its header is such a one.
    with_dmz_in_both_families(|gate, family| {
        gate.passes(&first(family, 53, 7), Reason::Need);
        let content = [0x5a; 40];
        let datagram = udp_datagram((family.ns, 40_000), (family.peer, 53), &content);
        let piece = |place, length: usize| fragment(family.ns, family.peer, UDP, place, &datagram[..length]);
        for length in [0, 1, 4, 7, 9, 12, 20] {
            gate.drops(&piece((8, 0, true), length), Reason::Malformed);
            gate.drops(&piece((7, 3, true), length), Reason::Malformed);
            if length > 0 {
                gate.passes(&piece((7, 3, false), length), Reason::LaterFragment);
            }
        }
        gate.passes(&piece((8, 0, true), 8), Reason::Need);
    });
}

#[test]
fn a_tcp_fragment_at_offset_1_would_overwrite_the_flags_and_is_dropped() {
    with_dmz_in_both_families(|gate, family| {
        let mut segment = tcp_header((family.ns, 40_000), (family.peer, 53), ACK, (1, 1));
        segment.extend_from_slice(&[0; 4]);
        gate.passes(&fragment(family.ns, family.peer, TCP, (9, 0, true), &segment), Reason::OwnConnection);
        for more in [true, false] {
            let overlap = fragment(family.ns, family.peer, TCP, (9, 1, more), &[0; 16]);
            gate.drops(&overlap, Reason::Fragment);
        }
        let next = fragment(family.ns, family.peer, TCP, (9, 3, false), &[0; 16]);
        gate.passes(&next, Reason::LaterFragment);
        // UDP has no flags there
        gate.passes(&first(family, 53, 10), Reason::Need);
        gate.passes(&later(family, 10, 1, false), Reason::LaterFragment);
    });
}

#[test]
fn a_fragmented_answer_passes_whole() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        gate.to_server(&udp(peer, server));
        let datagram = udp_datagram(server, peer, &[0; 16]);
        gate.passes(&fragment(server.0, peer.0, UDP, (7, 0, true), &datagram), Reason::Reply);
        gate.passes(&later(family, 7, 3, false), Reason::LaterFragment);
    });
}

#[test]
fn a_question_that_comes_in_fragments_opens_its_flow() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        let datagram = udp_datagram(peer, server, &[0; 16]);
        gate.to_server(&fragment(peer.0, server.0, UDP, (7, 3, false), &[0; 16]));
        gate.drops(&udp(server, peer), Reason::NewFlow);
        gate.to_server(&fragment(peer.0, server.0, UDP, (7, 0, true), &datagram));
        gate.passes(&udp(server, peer), Reason::Reply);
    });
}

#[test]
fn an_ipv6_atomic_fragment_is_a_whole_packet() {
    let gate = TestGate::dmz();
    let atomic = |port, id| {
        let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, port), b"");
        Ipv6::new(V6.ns, V6.peer, UDP, &datagram).fragment(id, 0, false).frame()
    };
    gate.passes(&atomic(53, 7), Reason::Need);
    gate.drops(&atomic(80, 7), Reason::NewFlow);
    // and nobody's first fragment
    gate.drops(&later(V6, 7, 3, false), Reason::Fragment);
    // truncated, it is malformed as a whole packet is
    let short = Ipv6::new(V6.ns, V6.peer, UDP, &[0; 4]).fragment(8, 0, false).frame();
    gate.drops(&short, Reason::Malformed);
    let syn = tcp_header((V6.ns, 40_000), (V6.peer, 53), SYN, (1, 0));
    gate.passes(&Ipv6::new(V6.ns, V6.peer, TCP, &syn).fragment(9, 0, false).frame(), Reason::Need);
}

#[test]
fn an_ipv6_fragments_protocol_is_what_its_own_header_says() {
    let gate = TestGate::dmz();
    let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, 53), &[0; 16]);
    let first = Ipv6::new(V6.ns, V6.peer, UDP, &datagram)
        .options(HOP_BY_HOP, 0)
        .fragment(7, 0, true)
        .options(DESTINATION_OPTIONS, 0);
    gate.passes(&first.frame(), Reason::Need);
    let later = |next| Ipv6::new(V6.ns, V6.peer, next, &[0; 16]).options(HOP_BY_HOP, 0).fragment(7, 4, false);
    gate.drops(&later(UDP).frame(), Reason::Fragment);
    gate.passes(&later(DESTINATION_OPTIONS).frame(), Reason::LaterFragment);
    // what follows in a later fragment is content, and not an extension header to be read
    let content = Ipv6::new(V6.ns, V6.peer, DESTINATION_OPTIONS, &[0xff; 16]).fragment(7, 6, false);
    gate.passes(&content.frame(), Reason::LaterFragment);
}

#[test]
fn a_chain_that_is_not_whole_in_the_first_fragment_hides_something() {
    let gate = TestGate::dmz();
    // eight bytes of options announced as sixteen: the rest, and UDP, in the next fragment
    let first = Ipv6::new(V6.ns, V6.peer, UDP, &[])
        .fragment(7, 0, true)
        .extension(DESTINATION_OPTIONS, &[1, 1, 4, 0, 0, 0, 0]);
    let run = gate.explain(&first.frame(), false, None).unwrap();
    assert!(matches!(run.reason, Some(Reason::Fragment | Reason::Malformed)), "{run:?}");
    gate.drops(&first.frame(), run.reason.unwrap());
    let rest = Ipv6::new(V6.ns, V6.peer, DESTINATION_OPTIONS, &[0; 16]).fragment(7, 1, false);
    gate.drops(&rest.frame(), Reason::Fragment);
    // nothing at all of the options that it announces
    let first = Ipv6::new(V6.ns, V6.peer, DESTINATION_OPTIONS, &[]).fragment(8, 0, true);
    gate.drops(&first.frame(), Reason::Malformed);
}

#[test]
fn neighbour_discovery_in_fragments_is_not_the_links() {
    // RFC 6980: no node takes it
    let gate = TestGate::dmz();
    let from = crate::support::dmz::ip("fe80::10");
    let message = icmp_message(from, V6.peer, (135, 0), [0; 4], &[0; 16]);
    let packet = Ipv6::new(from, V6.peer, ICMPV6, &message).hop_limit(255);
    gate.drops(&packet.clone().fragment(7, 0, true).frame(), Reason::UnknownSource);
    gate.passes(&packet.frame(), Reason::Neighbour);
}

#[test]
fn the_first_fragment_of_an_advertisement_is_a_rogue_routers() {
    let gate = TestGate::dmz();
    let from = crate::support::dmz::ip("fe80::10");
    let message = icmp_message(from, V6.peer, (134, 0), [0; 4], &[0; 16]);
    let packet = Ipv6::new(from, V6.peer, ICMPV6, &message).hop_limit(255);
    gate.drops(&packet.fragment(7, 0, true).frame(), Reason::RogueRouter);
}

#[test]
fn a_ping_in_fragments_needs_a_need() {
    with_dmz_in_both_families(|gate, family| {
        let ping = echo_request(family.ns, family.peer, 1);
        gate.drops(&ping, Reason::NewFlow);
        let message = icmp_message(
            family.ns,
            family.peer,
            (if family.ns.is_ipv4() { 8 } else { 128 }, 0),
            [0, 1, 0, 1],
            &[0; 16],
        );
        let first = fragment(family.ns, family.peer, icmp_protocol(family.ns), (7, 0, true), &message);
        gate.drops(&first, Reason::NewFlow);
        gate.drops(&tcp((family.ns, 40_000), (family.peer, 80), SYN), Reason::NewFlow);
    });
}

#[test]
fn what_would_write_over_headers_behind_the_fragment_header_is_dropped() {
    let gate = TestGate::dmz();
    let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, 53), &[0; 16]);
    let begin = |units| {
        let packet = Ipv6::new(V6.ns, V6.peer, UDP, &datagram).fragment(7, 0, true);
        packet.options(DESTINATION_OPTIONS, units).frame()
    };
    let later = |offset| fragment(V6.ns, V6.peer, DESTINATION_OPTIONS, (7, offset, false), &[0x5a; 16]);
    gate.passes(&begin(1), Reason::Need);
    // a second first fragment, with a shorter chain, lays nothing open
    gate.passes(&begin(0), Reason::Need);
    for offset in [1, 2] {
        gate.drops(&later(offset), Reason::Fragment);
    }
    gate.passes(&later(3), Reason::LaterFragment);
    // a receiver of IPv6 keeps the first fragment for a minute
    gate.age("fragments", 58);
    gate.passes(&begin(0), Reason::Need);
    for offset in [1, 2] {
        gate.drops(&later(offset), Reason::Fragment);
    }
    // what is long over says nothing about another datagram of the same number
    gate.age("fragments", 61);
    gate.passes(&begin(0), Reason::Need);
    gate.passes(&later(2), Reason::LaterFragment);
}

#[test]
fn a_fragment_that_a_new_policy_overtakes_is_dropped_without_an_alarm() {
    const QUIET: u8 = 1;
    const PRESUMED: u8 = 8;
    with_dmz_in_both_families(|gate, family| {
        let content = udp_datagram((family.ns, 40_000), (family.peer, 53), &[0; 64]);
        let place = |offset: u16, more| (7, offset, more);
        gate.passes(&fragment(family.ns, family.peer, UDP, place(0, true), &content[..40]), Reason::Need);
        gate.swap(POLICY);
        let late = fragment(family.ns, family.peer, UDP, place(5, false), &content[40..]);
        assert_eq!(gate.drops(&late, Reason::Fragment).key.flags, QUIET);
        let of_nothing = fragment(family.ns, family.peer, UDP, (8, 5, false), &content[40..]);
        assert_eq!(gate.drops(&of_nothing, Reason::Fragment).key.flags, PRESUMED);
    });
}

#[test]
fn no_new_policy_makes_an_overlap_quiet() {
    let gate = TestGate::dmz();
    let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, 53), &[0; 16]);
    let first = Ipv6::new(V6.ns, V6.peer, UDP, &datagram).fragment(7, 0, true);
    gate.passes(&first.options(DESTINATION_OPTIONS, 0).frame(), Reason::Need);
    gate.swap(POLICY);
    let overlap = fragment(V6.ns, V6.peer, DESTINATION_OPTIONS, (7, 1, false), &[0x5a; 16]);
    assert_eq!(gate.drops(&overlap, Reason::Fragment).key.flags, 0);
    let next = fragment(V6.ns, V6.peer, DESTINATION_OPTIONS, (7, 4, false), &[0x5a; 16]);
    assert_eq!(gate.drops(&next, Reason::Fragment).key.flags, 1);
}

#[test]
fn another_protocol_in_the_fragment_header_lays_no_ipv6_headers_open() {
    // RFC 8200, 4.5: what puts IPv6 together goes by addresses and id alone.
    let gate = TestGate::dmz();
    let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, 53), &[0; 16]);
    let whole = Ipv6::new(V6.ns, V6.peer, UDP, &datagram);
    let long = whole.clone().fragment(7, 0, true).options(DESTINATION_OPTIONS, 0).frame();
    let short = whole.fragment(7, 0, true).frame();
    let later = |protocol, offset| fragment(V6.ns, V6.peer, protocol, (7, offset, false), &[0x5a; 16]);
    for (one, other) in [(&long, &short), (&short, &long)] {
        gate.forget_flows();
        gate.passes(one, Reason::Need);
        gate.passes(other, Reason::Need);
        for protocol in [UDP, DESTINATION_OPTIONS] {
            gate.drops(&later(protocol, 1), Reason::Fragment);
        }
    }
    gate.passes(&later(DESTINATION_OPTIONS, 2), Reason::LaterFragment);
}
