//! Flows already open when the gate is attached.

use portcullis::abi::Reason;
use portcullis::gate::FlowTable;

use crate::support::dmz::{POLICY, V4, in_both_families};
use crate::support::frame::{ACK, FIN, PSH, RST, SYN, tcp, udp};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

#[test]
fn a_segment_from_a_service_opens_its_flow_while_the_gate_is_new() {
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    in_both_families(|family| {
        for (port, flags) in [(51_000, ACK), (51_001, ACK | PSH), (51_002, FIN | ACK)] {
            let (server, peer) = ((family.web, 80), (family.peer, port));
            gate.passes(&tcp(server, peer, flags), Reason::Pickup);
            assert!(gate.has_flow(FlowTable::Established, server, peer));
            gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        }
    });
}

#[test]
fn a_flow_that_was_taken_over_outlives_the_pickup() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.set_pickup(60);
        gate.passes(&tcp(server, peer, ACK), Reason::Pickup);
        gate.set_pickup(-1);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.drops(&tcp(server, (peer.0, 51_001), ACK), Reason::NoFlow);
    });
}

#[test]
fn nothing_is_taken_over_after_the_pickup() {
    let gate = TestGate::dmz();
    gate.set_pickup(-1);
    in_both_families(|family| {
        gate.drops(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
    });
    assert!(gate.flows().unwrap().is_empty());
}

#[test]
fn a_syn_is_never_taken_over() {
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    in_both_families(|family| {
        gate.drops(&tcp((family.web, 80), (family.peer, 51_000), SYN), Reason::NewFlow);
    });
    assert!(gate.flows().unwrap().is_empty());
}

#[test]
fn only_the_port_of_a_service_is_taken_over() {
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    in_both_families(|family| {
        for port in [79, 81, 4444, 40_000] {
            gate.drops(&tcp((family.web, port), (family.peer, 51_000), ACK), Reason::NoFlow);
        }
        // another server's, and one for others only
        gate.drops(&tcp((family.ns, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
        gate.drops(&tcp((family.web, 22), (family.peer, 51_000), ACK), Reason::NoFlow);
        gate.passes(&tcp((family.web, 22), (family.bastion, 51_000), ACK), Reason::Pickup);
        // the peer's side of a service is none
        gate.drops(&tcp((family.web, 40_000), (family.peer, 80), ACK), Reason::NoFlow);
    });
}

#[test]
fn datagrams_are_not_taken_over() {
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    in_both_families(|family| {
        gate.drops(&udp((family.ns, 53), (family.peer, 51_000)), Reason::NewFlow);
    });
}

#[test]
fn a_flow_in_the_tables_is_no_pickup() {
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    in_both_families(|family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn a_handshake_that_began_just_before_the_gate_outlives_the_half_open() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.set_pickup(60);
        // its SYN+ACK went out before the filter was there
        gate.to_server(&tcp(peer, server, SYN));
        gate.to_server(&tcp(peer, server, ACK));
        gate.passes(&tcp(server, peer, ACK | PSH), Reason::Pickup);
        gate.set_pickup(-1);
        gate.to_server(&tcp(peer, server, ACK));
        gate.age("half_open", 61);
        gate.age("established", 121);
        gate.passes(&tcp(server, peer, ACK | PSH), Reason::Reply);
    });
}

#[test]
fn a_handshake_that_the_gate_sees_is_no_pickup() {
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    in_both_families(|family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp(peer, server, SYN));
        gate.passes(&tcp(server, peer, SYN | ACK), Reason::Reply);
        gate.passes(&tcp(server, peer, ACK | PSH), Reason::Reply);
        assert!(gate.has_flow(FlowTable::HalfOpen, server, peer));
        assert!(!gate.has_flow(FlowTable::Established, server, peer));
    });
}

#[test]
fn a_change_of_policy_starts_no_pickup() {
    let gate = TestGate::dmz();
    gate.set_pickup(-1);
    gate.swap(&format!("{POLICY}\n# another text\n"));
    gate.drops(&tcp((V4.web, 80), (V4.peer, 51_000), ACK), Reason::NoFlow);
}

#[test]
fn a_flow_that_the_server_ends_is_taken_over_as_ended() {
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    let (server, peer) = ((V4.web, 80), (V4.peer, 52_000));
    gate.passes(&tcp(server, peer, FIN | ACK), Reason::Pickup);
    gate.set_pickup(-1);
    gate.age("established", 121);
    gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
}

#[test]
fn a_reset_is_let_through_and_opens_nothing() {
    // A closed port answers forged segments: they must not fill the table of the established.
    let gate = TestGate::dmz();
    gate.set_pickup(60);
    in_both_families(|family| {
        let (server, peer) = family.visit();
        gate.passes(&tcp(server, peer, RST | ACK), Reason::Pickup);
        gate.passes(&tcp(server, peer, RST), Reason::Pickup);
        // nor do those that answer a SYN
        gate.to_server(&tcp((family.peer, 51_001), server, SYN));
        gate.passes(&tcp(server, (family.peer, 51_001), RST | ACK), Reason::Reply);
        assert!(!gate.has_flow(FlowTable::Established, server, (family.peer, 51_001)));
        assert!(!gate.has_flow(FlowTable::Established, server, peer));
    });
}

#[test]
fn a_flow_that_was_taken_over_and_has_ended_is_not_woken_by_its_peer() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.set_pickup(60);
        gate.passes(&tcp(server, peer, ACK), Reason::Pickup);
        gate.set_pickup(-1);
        gate.age("established", 121);
        gate.to_server(&tcp(peer, server, ACK));
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    });
}
