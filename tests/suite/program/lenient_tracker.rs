//! The tracker sees what a host may accept, and the filter stays as strict as it is.

use portcullis::abi::Reason;
use portcullis::gate::FlowTable;

use crate::support::dmz::{Family, V6};
use crate::support::frame::{
    ACK, DESTINATION_OPTIONS, Endpoint, FIN, HOP_BY_HOP, Ipv6, RST, SYN, TCP, UDP, fragment, l4_of, patched,
    tcp, tcp_header, tcp_numbered, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

const OWN_PORT: u8 = 4;

/// Two name server's ports, of which one is a service, and a peer whose port looks like a database's.
fn ports(family: Family) -> [(Endpoint, bool); 2] {
    [((family.ns, 53), true), ((family.ns, 5353), false)]
}

/// The answer to a datagram that was seen passes from a service, and else is a back door.
#[track_caller]
fn check_answer(gate: &TestGate, server: Endpoint, peer: Endpoint, is_service: bool) {
    if is_service {
        gate.passes(&udp(server, peer), Reason::Reply);
    } else {
        let row = gate.drops(&udp(server, peer), Reason::UnlistedService);
        assert_eq!((row.key.port, row.key.flags), (server.1, OWN_PORT));
    }
}

fn behind_options(from: Endpoint, to: Endpoint, headers: usize) -> Vec<u8> {
    let datagram = udp_datagram(from, to, b"question");
    let packet = Ipv6::new(from.0, to.0, UDP, &datagram);
    (0..headers).fold(packet, |packet, _| packet.options(DESTINATION_OPTIONS, 0)).frame()
}

#[test]
fn a_question_behind_many_extension_headers_is_answered() {
    let peer = (V6.peer, 1434);
    for headers in [1, 8, 9, 20, 100] {
        for (server, is_service) in ports(V6) {
            let gate = TestGate::dmz();
            gate.to_server(&behind_options(peer, server, headers));
            check_answer(&gate, server, peer, is_service);
            gate.drops(&udp(server, (V6.other, 1434)), Reason::NewFlow);
        }
    }
    // no server may send the same
    let gate = TestGate::dmz();
    gate.passes(&behind_options((V6.ns, 40_000), (V6.peer, 53), 8), Reason::Need);
    gate.drops(&behind_options((V6.ns, 40_000), (V6.peer, 53), 9), Reason::Malformed);
}

#[test]
fn a_question_behind_extension_headers_in_another_order_is_answered() {
    let gate = TestGate::dmz();
    let (server, peer) = V6.question();
    let datagram = |from, to| udp_datagram(from, to, b"question");
    let odd = |from: Endpoint, to: Endpoint| {
        let packet = Ipv6::new(from.0, to.0, UDP, &datagram(from, to));
        packet.options(DESTINATION_OPTIONS, 0).options(HOP_BY_HOP, 0).frame()
    };
    gate.to_server(&odd(peer, server));
    gate.passes(&udp(server, peer), Reason::Reply);
    gate.drops(&odd((V6.ns, 40_000), (V6.peer, 53)), Reason::Malformed);
}

#[test]
fn a_question_in_an_odd_first_fragment_is_answered() {
    // Linux trims it to 40 bytes, and the rest begins there.
    with_dmz_in_both_families(|gate, family| {
        let peer = (family.peer, 1434);
        for (server, is_service) in ports(family) {
            let datagram = udp_datagram(peer, server, &[0; 80]);
            gate.to_server(&fragment(peer.0, server.0, UDP, (7, 0, true), &datagram[..45]));
            gate.to_server(&fragment(peer.0, server.0, UDP, (7, 5, false), &datagram[40..]));
            check_answer(&gate, server, peer, is_service);
        }
        gate.drops(&udp((family.ns, 53), (family.other, 1434)), Reason::NewFlow);
        let own = udp_datagram((family.ns, 40_000), (family.peer, 53), &[0; 80]);
        gate.drops(&fragment(family.ns, family.peer, UDP, (7, 0, true), &own[..45]), Reason::Malformed);
    });
}

#[test]
fn a_question_of_another_length_than_it_says_is_answered() {
    with_dmz_in_both_families(|gate, family| {
        let peer = (family.peer, 1434);
        for length in [[0, 0], [0, 7], [0xff, 0xff]] {
            for (server, is_service) in ports(family) {
                gate.forget_flows();
                gate.to_server(&patched(&udp(peer, server), l4_of(family.ns) + 4, &length));
                check_answer(&gate, server, peer, is_service);
            }
        }
    });
}

/// A segment in fragments of eight bytes.
fn tiny(from: Endpoint, to: Endpoint, flags: u8, numbers: (u32, u32)) -> Vec<Vec<u8>> {
    let segment = [tcp_header(from, to, flags, numbers), vec![0; 4]].concat();
    let pieces = segment.chunks(8).zip(0..);
    pieces.map(|(piece, at)| fragment(from.0, to.0, TCP, (7, at, at < 2), piece)).collect()
}

#[test]
fn a_syn_in_fragments_of_eight_bytes_is_a_syn() {
    with_dmz_in_both_families(|gate, family| {
        let peer = (family.peer, 1434);
        for (server, is_service) in [((family.web, 80), true), ((family.web, 4444), false)] {
            let answer = tcp_numbered(server, peer, SYN | ACK, (5000, 1001));
            assert_eq!(gate.drops(&answer, Reason::NoFlow).key.port, if is_service { 80 } else { 1434 });
            for piece in tiny(peer, server, SYN, (1000, 0)) {
                gate.to_server(&piece);
            }
            if is_service {
                gate.passes(&answer, Reason::Reply);
                gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
                assert!(gate.has_flow(FlowTable::Established, server, peer));
            } else {
                let row = gate.drops(&answer, Reason::UnlistedService);
                assert_eq!((row.key.port, row.key.flags), (4444, OWN_PORT));
            }
            // to nobody else
            gate.drops(&tcp(server, (family.other, 1434), SYN | ACK), Reason::NoFlow);
        }
        let own = tiny((family.ns, 40_000), (family.peer, 53), SYN, (1, 0));
        gate.drops(&own[0], Reason::Fragment);
    });
}

#[test]
fn a_syn_with_a_reset_opens_nothing_and_one_with_a_fin_may() {
    // whoever listens looks at the reset first (RFC 9293, 3.10.7.2)
    with_dmz_in_both_families(|gate, family| {
        let peer = (family.peer, 1434);
        for (server, is_service) in [((family.web, 80), true), ((family.web, 4444), false)] {
            let answer = tcp_numbered(server, peer, SYN | ACK, (5000, 1001));
            for flags in [SYN | RST, SYN | RST | FIN, SYN | RST | ACK] {
                gate.to_server(&tcp_numbered(peer, server, flags, (1000, 0)));
                assert!(gate.flows().unwrap().is_empty(), "{flags:#x}");
                gate.drops(&answer, Reason::NoFlow);
            }
            gate.to_server(&tcp_numbered(peer, server, SYN | FIN, (1000, 0)));
            if is_service {
                gate.passes(&answer, Reason::Reply);
            } else {
                gate.drops(&answer, Reason::UnlistedService);
            }
            gate.forget_flows();
            // the flags of a first fragment may be overwritten by a later one
            let segment = [tcp_header(peer, server, SYN | RST, (1000, 0)), vec![0; 4]].concat();
            gate.to_server(&fragment(peer.0, server.0, TCP, (7, 0, true), &segment));
            if is_service {
                gate.passes(&answer, Reason::Reply);
            } else {
                gate.drops(&answer, Reason::UnlistedService);
            }
            gate.forget_flows();
        }
    });
}

#[test]
fn the_fragments_after_a_first_one_open_nothing() {
    with_dmz_in_both_families(|gate, family| {
        let peer = (family.peer, 1434);
        for port in [80, 4444] {
            let server = (family.web, port);
            for piece in &tiny(peer, server, SYN, (1000, 0))[1..] {
                gate.to_server(piece);
            }
            assert!(gate.flows().unwrap().is_empty());
            gate.drops(&tcp(server, peer, SYN | ACK), Reason::NoFlow);
        }
    });
}

#[test]
fn only_a_segment_that_every_host_reads_alike_changes_a_flow() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        let answer = tcp_numbered(server, peer, SYN | ACK, (5000, 1001));
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.passes(&answer, Reason::Reply);
        // the right numbers, with a header too long for its packet, and in small pieces
        let acknowledgment = tcp_numbered(peer, server, ACK, (1001, 5001));
        gate.to_server(&patched(&acknowledgment, l4_of(family.web) + 12, &[0xf0]));
        for piece in tiny(peer, server, ACK, (1001, 5001)) {
            gate.to_server(&piece);
        }
        assert!(!gate.has_flow(FlowTable::Established, server, peer));
        gate.to_server(&acknowledgment);
        assert!(gate.has_flow(FlowTable::Established, server, peer));
        // nor is such a segment a sign of life
        gate.age("established", 431_990);
        for flags in [0, FIN, RST] {
            gate.to_server(&tcp(peer, server, flags));
        }
        gate.age("established", 11);
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    });
}

#[test]
fn whoever_sent_a_packet_that_nobody_can_read_may_have_asked_anything() {
    let gate = TestGate::dmz();
    let peer = (V6.peer, 1434);
    let answers = |peer| [udp((V6.ns, 53), peer), tcp((V6.ns, 4444), peer, SYN | ACK)];
    let check_strangers = |peer| {
        let [datagram, segment] = answers(peer);
        gate.drops(&datagram, Reason::NewFlow);
        gate.drops(&segment, Reason::NoFlow);
    };
    check_strangers(peer);
    // the options go on in a later fragment, and there begins the header with the ports
    let begin = [DESTINATION_OPTIONS, 1, 1, 12, 0, 0, 0, 0];
    gate.to_server(&fragment(V6.peer, V6.ns, DESTINATION_OPTIONS, (7, 0, true), &begin));
    let [datagram, segment] = answers(peer);
    let row = gate.drops(&datagram, Reason::NoFlow);
    assert_eq!((row.key.port, row.key.flags), (53, OWN_PORT));
    let row = gate.drops(&segment, Reason::UnlistedService);
    assert_eq!((row.key.port, row.key.flags), (4444, OWN_PORT));
    // of a service it is an answer that came late, and of any other port an attack
    gate.drops(&tcp((V6.ns, 53), peer, SYN | ACK), Reason::NoFlow);
    gate.drops(&udp((V6.ns, 5353), peer), Reason::NewFlow);
    check_strangers((V6.other, 1434));
    gate.drops(&udp((V6.web, 53), peer), Reason::NewFlow);
}
