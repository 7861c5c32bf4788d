//! `tracking = "service"`: a flow's direction by the port alone, without a tracker.

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, in_both_families};
use crate::support::frame::{
    ACK, FIN, PSH, RST, SYN, echo_reply, fragment, packet, tcp, udp, udp_datagram, unreachable,
};
use crate::support::test_gate::TestGate;

fn service() -> TestGate {
    TestGate::new(&POLICY.replace("[policy]", "[policy]\ntracking = \"service\""))
}

#[test]
fn whatever_leaves_a_services_port_is_an_answer_but_a_bare_syn() {
    let gate = service();
    in_both_families(|family| {
        let (server, peer) = family.visit();
        for flags in [ACK, ACK | PSH, SYN | ACK, FIN | ACK, RST, RST | ACK] {
            gate.passes(&tcp(server, peer, flags), Reason::Reply);
        }
        gate.drops(&tcp(server, peer, SYN), Reason::NewFlow);
        gate.drops(&tcp(server, peer, SYN | PSH), Reason::NewFlow);
        gate.passes(&udp((family.ns, 53), peer), Reason::Reply);
    });
    assert!(gate.flows().unwrap().is_empty());
}

#[test]
fn whatever_leaves_another_port_is_no_answer() {
    let gate = service();
    in_both_families(|family| {
        for port in [79, 81, 40_000] {
            gate.drops(&tcp((family.web, port), (family.peer, 51_000), ACK), Reason::NoFlow);
            gate.drops(&tcp((family.web, port), (family.peer, 51_000), RST), Reason::Backscatter);
        }
        // the same numbers of another protocol, and of another server
        gate.drops(&udp((family.web, 80), (family.peer, 51_000)), Reason::NewFlow);
        gate.drops(&tcp((family.ns, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
        gate.drops(&udp((family.web, 53), (family.peer, 51_000)), Reason::NewFlow);
    });
}

#[test]
fn a_syn_ack_from_another_port_betrays_a_listener() {
    let gate = service();
    in_both_families(|family| {
        let row =
            gate.drops(&tcp((family.web, 4444), (family.peer, 51_000), SYN | ACK), Reason::UnlistedService);
        assert_eq!((row.key.port, row.key.flags), (4444, 4));
        gate.drops(&tcp((family.web, 4444), (family.peer, 51_000), ACK), Reason::NoFlow);
        // of a datagram nobody knows who began
        gate.drops(&udp((family.web, 4444), (family.peer, 51_000)), Reason::NewFlow);
    });
}

#[test]
fn an_answer_to_a_peer_outside_of_from_goes_to_a_stranger() {
    let gate = service();
    in_both_families(|family| {
        let row = gate.drops(&tcp((family.web, 22), (family.peer, 51_000), SYN | ACK), Reason::Stranger);
        assert_eq!((row.key.port, row.key.flags), (22, 4));
        gate.passes(&tcp((family.web, 22), (family.bastion, 51_000), SYN | ACK), Reason::Reply);
    });
}

#[test]
fn needs_hold_as_they_do_with_a_tracker() {
    let gate = service();
    in_both_families(|family| {
        gate.passes(&tcp((family.ns, 40_000), (family.peer, 53), SYN), Reason::Need);
        gate.passes(&tcp((family.ns, 40_000), (family.peer, 53), ACK), Reason::OwnConnection);
        gate.passes(&udp((family.web, 40_000), (family.loghost, 514)), Reason::Need);
        gate.drops(&udp((family.web, 40_000), (family.peer, 514)), Reason::Destination);
    });
}

#[test]
fn an_answer_in_fragments_passes_whole() {
    let gate = service();
    in_both_families(|family| {
        let (server, peer) = family.question();
        let datagram = udp_datagram(server, peer, &[0; 16]);
        gate.passes(&fragment(server.0, peer.0, 17, (7, 0, true), &datagram), Reason::Reply);
        gate.passes(&fragment(server.0, peer.0, 17, (7, 3, false), &[0; 8]), Reason::LaterFragment);
        gate.drops(&fragment(server.0, peer.0, 17, (8, 3, false), &[0; 8]), Reason::Fragment);
    });
}

#[test]
fn an_error_about_what_came_for_a_service_passes() {
    let gate = service();
    in_both_families(|family| {
        let (server, peer) = family.question();
        gate.passes(&unreachable(server.0, peer.0, &udp(peer, server)[14..]), Reason::FlowError);
        let closed = udp(peer, (family.ns, 54));
        gate.drops(&unreachable(server.0, peer.0, &closed[14..]), Reason::Backscatter);
    });
}

#[test]
fn no_opening_is_supposed_of_a_datagram_where_none_is_recorded() {
    let gate = service();
    in_both_families(|family| {
        let answer = udp((family.web, 4000), (family.peer, 51_000));
        for opened in [false, true] {
            let found = gate.explain(&answer, opened, None).expect("an answer");
            assert_eq!(found.reason, Some(Reason::NewFlow), "opened: {opened}");
        }
    });
}

#[test]
fn an_error_about_the_other_familys_ping_is_backscatter() {
    let gate = service();
    in_both_families(|family| {
        // both are services, but in their own family
        let (own, others) = if family.web.is_ipv4() { ((1, 8), (58, 128)) } else { ((58, 128), (1, 8)) };
        let error = |(protocol, kind)| {
            let quoted = packet(family.peer, family.web, protocol, &[kind, 0, 0, 0, 0, 1, 0, 1]);
            unreachable(family.web, family.peer, &quoted)
        };
        gate.passes(&error(own), Reason::FlowError);
        gate.drops(&error(others), Reason::Backscatter);
    });
}

#[test]
fn an_echo_reply_is_an_answer_where_pinging_is_a_service() {
    let gate = service();
    in_both_families(|family| {
        gate.passes(&echo_reply(family.web, family.peer, 1), Reason::Reply);
        gate.drops(&echo_reply(family.ns, family.peer, 1), Reason::Backscatter);
    });
}

#[test]
fn the_tracker_has_nothing_to_record() {
    let gate = service();
    in_both_families(|family| {
        gate.to_server(&tcp((family.peer, 51_000), (family.web, 80), SYN));
        gate.to_server(&udp((family.peer, 51_000), (family.ns, 53)));
        gate.passes(&tcp((family.web, 80), (family.peer, 51_000), SYN | ACK), Reason::Reply);
    });
}
