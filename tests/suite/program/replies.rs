//! Row 9, TCP: answers in flows that peers opened.

use portcullis::abi::Reason;
use portcullis::gate::FlowTable;

use crate::support::dmz::in_both_families;
use crate::support::frame::{ACK, FIN, PSH, RST, SYN, TCP, raw_ip, tagged, tcp, tcp_header, tcp_numbered};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

#[test]
fn a_connection_that_a_peer_opens_is_answered_from_the_first_packet_to_the_last() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.to_server(&tcp(peer, server, ACK | PSH));
        for flags in [ACK, ACK | PSH, ACK | FIN, ACK, RST | ACK, RST] {
            gate.passes(&tcp(server, peer, flags), Reason::Reply);
        }
    });
}

#[test]
fn nothing_is_an_answer_before_the_peer_has_asked() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.drops(&tcp(server, peer, SYN | ACK), Reason::NoFlow);
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        gate.drops(&tcp(server, peer, FIN | ACK), Reason::NoFlow);
        gate.to_server(&tcp(peer, server, SYN));
        gate.passes(&tcp(server, peer, SYN | ACK), Reason::Reply);
    });
}

#[test]
fn only_a_syn_of_the_peer_opens_a_flow() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        for flags in [ACK, SYN | ACK, RST, FIN | ACK, ACK | PSH, SYN | RST, 0] {
            gate.to_server(&tcp(peer, server, flags));
            assert!(gate.flows().unwrap().is_empty(), "a flow of flags {flags:#04x}");
        }
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        // some hosts take such a SYN for one, and then their answer is no attack
        gate.to_server(&tcp(peer, server, SYN | FIN));
        assert!(gate.has_flow(FlowTable::HalfOpen, server, peer));
        gate.passes(&tcp(server, peer, SYN | ACK), Reason::Reply);
        assert!(!gate.has_flow(FlowTable::Established, server, peer));
    });
}

#[test]
fn a_bare_syn_is_never_an_answer() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp(peer, server, SYN));
        gate.drops(&tcp(server, peer, SYN), Reason::NewFlow);
        gate.establish(server, peer);
        gate.drops(&tcp(server, peer, SYN), Reason::NewFlow);
        gate.drops(&tcp(server, peer, SYN | PSH), Reason::NewFlow);
        gate.drops(&tcp(server, peer, SYN | 0xc0), Reason::NewFlow); // with ECN
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn a_flow_is_its_addresses_and_its_ports() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.drops(&tcp(server, (peer.0, 51_001), ACK), Reason::NoFlow);
        gate.drops(&tcp(server, (family.other, peer.1), ACK), Reason::NoFlow);
        gate.drops(&tcp((family.web, 443), peer, ACK), Reason::NoFlow);
        gate.drops(&tcp((family.ns, 80), peer, ACK), Reason::NoFlow);
        gate.drops(&tcp((family.web, peer.1), (peer.0, 80), ACK), Reason::NoFlow);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn a_flow_is_half_open_until_the_peer_acknowledges_what_the_server_sent() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        let half_open = || {
            gate.has_flow(FlowTable::HalfOpen, server, peer)
                && !gate.has_flow(FlowTable::Established, server, peer)
        };
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        assert!(half_open());
        // an acknowledgment of what was not said yet
        gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 1)));
        gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 0)));
        assert!(half_open());
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        assert!(half_open(), "the server alone can't establish it");
        for wrong in [0, 1, 4999, 5000, 5001 + 0x0100_0000, 5001 ^ 0x8000_0000] {
            gate.to_server(&tcp_numbered(peer, server, ACK, (1001, wrong)));
            assert!(half_open(), "acknowledgment {wrong} of 5001");
        }
        // the right number, without the flag that makes it one
        gate.to_server(&tcp_numbered(peer, server, RST, (1001, 5001)));
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 5001)));
        assert!(!gate.has_flow(FlowTable::Established, server, peer));
    });
}

#[test]
fn an_acknowledgment_of_more_than_the_server_has_sent_establishes_nothing() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        for wrong in [5002, 6001, 5001 + 0xffff] {
            gate.to_server(&tcp_numbered(peer, server, ACK, (1001, wrong)));
            assert!(!gate.has_flow(FlowTable::Established, server, peer), "acknowledgment {wrong} of 5001");
        }
    });
}

#[test]
fn what_the_server_sends_before_it_is_acknowledged_can_be_acknowledged() {
    // TCP Fast Open: a hundred bytes right behind the SYN+ACK
    with_dmz_in_both_families(|gate, family| {
        for (acknowledged, establishes) in [(5000, false), (5001, true), (5101, true), (5102, false)] {
            gate.forget_flows();
            let (server, peer) = family.visit();
            gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
            gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
            let mut segment = tcp_header(server, peer, ACK | PSH, (5001, 1001));
            segment.resize(segment.len() + 100, 0x5a);
            gate.passes(&raw_ip(server.0, peer.0, TCP, &segment), Reason::Reply);
            gate.to_server(&tcp_numbered(peer, server, ACK, (1001, acknowledged)));
            let established = gate.has_flow(FlowTable::Established, server, peer);
            assert_eq!(established, establishes, "acknowledgment {acknowledged} of 5001 to 5101");
        }
    });
}

#[test]
fn the_right_acknowledgment_establishes_a_flow() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        // sequence numbers wrap
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (u32::MAX, 1001)), Reason::Reply);
        gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 0)));
        assert!(gate.has_flow(FlowTable::Established, server, peer));
        assert!(!gate.has_flow(FlowTable::HalfOpen, server, peer));
        gate.passes(&tcp(server, peer, ACK | PSH), Reason::Reply);
    });
}

#[test]
fn the_first_data_establishes_a_flow_whose_acknowledgment_was_lost() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        gate.to_server(&tcp_numbered(peer, server, ACK | PSH, (1001, 5001)));
        assert!(gate.has_flow(FlowTable::Established, server, peer));
    });
}

#[test]
fn a_syn_ack_sent_again_with_another_number_counts_as_well() {
    let gate = TestGate::dmz();
    // of several the last two
    for (acknowledged, counts) in [(5001, true), (6001, true), (4001, false)] {
        in_both_families(|family| {
            gate.forget_flows();
            let (server, peer) = family.visit();
            gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
            for sequence in [4000, 5000, 6000] {
                gate.passes(&tcp_numbered(server, peer, SYN | ACK, (sequence, 1001)), Reason::Reply);
            }
            gate.to_server(&tcp_numbered(peer, server, ACK, (1001, acknowledged)));
            assert_eq!(gate.has_flow(FlowTable::Established, server, peer), counts, "{acknowledged}");
        });
    }
}

#[test]
fn a_syn_ack_sent_again_unchanged_does_not_push_out_another() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        for sequences in [[5000, 5000, 5000, 5000], [5000, 7000, 7000, 7000]] {
            gate.forget_flows();
            gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
            for sequence in sequences {
                gate.passes(&tcp_numbered(server, peer, SYN | ACK, (sequence, 1001)), Reason::Reply);
            }
            gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
            gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
            assert!(gate.has_flow(FlowTable::Established, server, peer), "{sequences:?}");
        }
    });
}

#[test]
fn a_service_that_refuses_says_so() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp(peer, server, SYN));
        gate.passes(&tcp(server, peer, RST | ACK), Reason::Reply);
    });
}

#[test]
fn a_flood_of_syns_pushes_out_no_established_flow() {
    let gate = TestGate::sized(crate::support::dmz::POLICY, &[("half_open", 64), ("unlisted", 64)]);
    in_both_families(|family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.to_server(&crate::support::frame::udp((family.peer, 51_000), (family.ns, 53)));
        for port in 1..2_000 {
            for to in [80, 443, 4444] {
                let syn = tcp((family.other, port), (family.web, to), SYN);
                gate.programs.run_track(&syn, 1).unwrap();
            }
        }
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        let answer = crate::support::frame::udp((family.ns, 53), (family.peer, 51_000));
        gate.passes(&answer, Reason::Reply);
        // and the gate still takes new ones
        gate.establish((family.web, 443), (family.peer, 51_001));
    });
}

#[test]
fn the_same_ports_can_be_opened_again() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.passes(&tcp(server, peer, FIN | ACK), Reason::Reply);
        gate.to_server(&tcp(peer, server, FIN | ACK));
        gate.to_server(&tcp_numbered(peer, server, SYN, (9000, 0)));
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (7000, 9001)), Reason::Reply);
        gate.to_server(&tcp_numbered(peer, server, ACK, (9001, 7001)));
        assert!(gate.has_flow(FlowTable::Established, server, peer));
        // it is a new connection, and not the closed one
        gate.age("established", 3600);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn the_tracker_looks_through_tags_too() {
    with_dmz_in_both_families(|gate, family| {
        for (port, tags) in [(1, &[0x8100][..]), (2, &[0x8100, 0x88a8]), (3, &[0x88a8])] {
            let (server, peer) = ((family.web, 80), (family.peer, 51_000 + port));
            let wrap = |frame: Vec<u8>| tags.iter().fold(frame, |frame, tpid| tagged(&frame, *tpid, 7));
            gate.to_server(&wrap(tcp(peer, server, SYN)));
            gate.passes(&wrap(tcp(server, peer, SYN | ACK)), Reason::Reply);
        }
    });
}

#[test]
fn the_tracker_decides_nothing() {
    let gate = TestGate::dmz();
    let frames = [
        crate::support::frame::link_frame(0x0806, &[0; 28]),
        crate::support::frame::link_frame(0x8137, &[0; 46]),
        crate::support::frame::link_frame(0x0800, &[0xff; 46]),
        crate::support::frame::link_frame(0x86dd, &[0x60; 46]),
        crate::support::frame::link_frame(0x8100, &[]),
        vec![0; 14],
    ];
    for frame in frames {
        gate.to_server(&frame);
    }
    assert!(gate.flows().unwrap().is_empty());
}

#[test]
fn a_peer_outside_of_from_opens_nothing() {
    with_dmz_in_both_families(|gate, family| {
        gate.establish((family.web, 22), (family.bastion, 50_000));
        gate.to_server(&tcp((family.peer, 50_000), (family.web, 22), SYN));
        assert!(!gate.has_flow(FlowTable::HalfOpen, (family.web, 22), (family.peer, 50_000)));
    });
}

#[test]
fn a_single_byte_behind_the_syn_ack_may_be_acknowledged() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        let mut segment = tcp_header(server, peer, ACK | PSH, (5001, 1001));
        segment.push(0x5a);
        gate.passes(&raw_ip(server.0, peer.0, TCP, &segment), Reason::Reply);
        gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 5002)));
        assert!(gate.has_flow(FlowTable::Established, server, peer));
    });
}
