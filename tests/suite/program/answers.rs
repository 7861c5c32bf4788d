//! Rows 13 to 15: answers that should not be, and those that mean nothing.

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, V4, in_both_families};
use crate::support::frame::{ACK, FIN, PSH, RST, SYN, echo_reply, tcp, udp, unreachable};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

/// `DROP_OWN_PORT`.
const OWN_PORT: u8 = 4;

#[test]
fn a_syn_ack_from_a_port_that_is_no_service_betrays_a_listener() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 4444), (family.peer, 51_000));
        let answer = tcp(server, peer, SYN | ACK);
        gate.drops(&answer, Reason::NoFlow); // nobody has called
        gate.to_server(&tcp(peer, server, SYN));
        let row = gate.drops(&answer, Reason::UnlistedService);
        assert_eq!((row.key.port, row.key.flags, row.key.protocol), (4444, OWN_PORT, 6));
        // to whom has called, from where he was calling
        gate.drops(&tcp(server, (peer.0, 51_001), SYN | ACK), Reason::NoFlow);
        gate.drops(&tcp(server, (family.other, peer.1), SYN | ACK), Reason::NoFlow);
        gate.drops(&tcp((family.web, 4445), peer, SYN | ACK), Reason::NoFlow);
        gate.drops(&tcp((family.ns, 4444), peer, SYN | ACK), Reason::NoFlow);
    });
}

#[test]
fn a_datagram_from_a_port_that_is_no_service_betrays_a_listener() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 4444), (family.peer, 51_000));
        let answer = udp(server, peer);
        let row = gate.drops(&answer, Reason::NewFlow);
        assert_eq!((row.key.port, row.key.flags), (51_000, 0));
        gate.to_server(&udp(peer, server));
        let row = gate.drops(&answer, Reason::UnlistedService);
        assert_eq!((row.key.port, row.key.flags, row.key.protocol), (4444, OWN_PORT, 17));
        gate.drops(&udp(server, (peer.0, 51_001)), Reason::NewFlow);
        gate.drops(&udp(server, (family.other, peer.1)), Reason::NewFlow);
        gate.drops(&udp((family.web, 4445), peer), Reason::NewFlow);
        // a probe by TCP is not one by UDP
        gate.to_server(&tcp((peer.0, 51_002), server, SYN));
        gate.drops(&udp(server, (peer.0, 51_002)), Reason::NewFlow);
    });
}

#[test]
fn a_closed_port_says_so_without_an_alarm() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 4444), (family.peer, 51_000));
        gate.to_server(&tcp(peer, server, SYN));
        gate.drops(&tcp(server, peer, RST | ACK), Reason::Backscatter);
        let probe = udp(peer, server);
        gate.to_server(&probe);
        gate.drops(&unreachable(server.0, peer.0, &probe[14..]), Reason::Backscatter);
    });
}

#[test]
fn only_the_answer_to_an_opening_betrays_a_listener() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 4444), (family.peer, 51_000));
        gate.to_server(&tcp(peer, server, SYN));
        for flags in [ACK, ACK | PSH, FIN | ACK] {
            gate.drops(&tcp(server, peer, flags), Reason::NoFlow);
        }
        gate.drops(&tcp(server, peer, SYN), Reason::NewFlow);
    });
}

#[test]
fn a_listener_is_betrayed_to_whom_the_server_might_call() {
    // ns1 may send datagrams and SYNs to every port 53: no cover for a listener on 4444
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.ns, 4444), (family.peer, 53));
        gate.to_server(&tcp(peer, server, SYN));
        gate.drops(&tcp(server, peer, SYN | ACK), Reason::UnlistedService);
        // a refusal is a segment as any other of what might be its own connection
        gate.passes(&tcp(server, peer, RST | ACK), Reason::OwnConnection);
    });
}

/// A service for the bastion alone, beside tcp/22.
fn with_private_services() -> TestGate {
    let open = "\"tcp/80\"";
    TestGate::new(
        &POLICY.replace(open, &format!("\"udp/161 from @bastion\", \"icmp/13 from @bastion\", {open}")),
    )
}

#[test]
fn an_answer_to_a_peer_outside_of_from_goes_to_a_stranger() {
    let gate = with_private_services();
    in_both_families(|family| {
        let (server, peer) = ((family.web, 22), (family.peer, 51_000));
        gate.drops(&tcp(server, peer, SYN | ACK), Reason::NoFlow);
        gate.to_server(&tcp(peer, server, SYN));
        let row = gate.drops(&tcp(server, peer, SYN | ACK), Reason::Stranger);
        assert_eq!((row.key.port, row.key.flags), (22, OWN_PORT));
        gate.drops(&tcp(server, (family.other, 51_000), SYN | ACK), Reason::NoFlow);

        let (server, peer) = ((family.web, 161), (family.peer, 51_000));
        gate.drops(&udp(server, peer), Reason::NewFlow);
        gate.to_server(&udp(peer, server));
        let row = gate.drops(&udp(server, peer), Reason::Stranger);
        assert_eq!((row.key.port, row.key.flags), (161, OWN_PORT));
        // the bastion is none
        gate.to_server(&udp((family.bastion, 51_000), server));
        gate.passes(&udp(server, (family.bastion, 51_000)), Reason::Reply);
        gate.establish((family.web, 22), (family.bastion, 51_000));
    });
}

#[test]
fn resets_in_no_flow_are_backscatter_of_the_servers_own_port_whatever_port_a_scanner_came_from() {
    let gate = TestGate::dmz();
    let ports = [80, 443, 22, 1, 4444, 65_535];
    in_both_families(|family| {
        for port in ports {
            for flags in [RST, RST | ACK, RST | PSH] {
                // to the port that a scanner came from, as it likes
                let row = gate.drops(
                    &tcp((family.web, port), (family.peer, port ^ 0x5555), flags),
                    Reason::Backscatter,
                );
                assert_eq!((row.key.port, row.key.protocol, row.key.flags), (port, 6, OWN_PORT));
            }
        }
    });
    assert_eq!(gate.ledger().unwrap().len(), ports.len());
}

#[test]
fn an_echo_reply_that_nobody_asked_for_is_backscatter_or_of_a_service_an_attack() {
    with_dmz_in_both_families(|gate, family| {
        for (server, reason, flags) in
            [(family.web, Reason::NewFlow, 0), (family.ns, Reason::Backscatter, OWN_PORT)]
        {
            let row = gate.drops(&echo_reply(server, family.peer, 1), reason);
            assert_eq!(row.key.port, if server.is_ipv4() { 0 } else { 129 });
            assert_eq!(row.key.flags, flags);
        }
    });
}

#[test]
fn a_segment_in_no_flow_is_a_stray() {
    with_dmz_in_both_families(|gate, family| {
        for flags in [ACK, ACK | PSH, FIN | ACK, SYN | ACK, SYN | ACK | PSH] {
            // from a service: an idle connection has ended
            let row = gate.drops(&tcp((family.web, 80), (family.peer, 51_000), flags), Reason::NoFlow);
            assert_eq!((row.key.port, row.key.flags), (80, OWN_PORT));
            // towards one: of a connection that the server may not have
            let row = gate.drops(&tcp((family.web, 40_000), (family.peer, 80), flags), Reason::NoFlow);
            assert_eq!(row.key.server, gate.id_of("web1"));
        }
        gate.drops(&tcp((family.web, 80), (family.peer, 51_000), SYN), Reason::NewFlow);
        gate.drops(&tcp((family.web, 80), (family.peer, 51_000), RST), Reason::Backscatter);
    });
}

#[test]
fn the_question_whether_a_peer_has_opened_can_be_supposed() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        let segment = tcp((family.web, 80), (family.peer, 51_000), ACK);
        let ask = |frame: &[u8], opened| gate.explain(frame, opened, None).unwrap().reason;
        assert_eq!(ask(&segment, true), Some(Reason::Reply));
        assert_eq!(ask(&segment, false), Some(Reason::NoFlow));
        let datagram = udp((family.ns, 53), (family.peer, 51_000));
        assert_eq!(ask(&datagram, true), Some(Reason::Reply));
        assert_eq!(ask(&datagram, false), Some(Reason::NewFlow));
        // supposing changes nothing for what is no service, and leaves no flow behind
        let shell = tcp((family.web, 4444), (family.peer, 51_000), SYN | ACK);
        assert_eq!(ask(&shell, true), Some(Reason::UnlistedService));
        let outside = tcp((family.web, 22), (family.peer, 51_000), SYN | ACK);
        assert_eq!(ask(&outside, true), Some(Reason::Stranger));
        let syn = tcp((family.web, 80), (family.peer, 51_000), SYN);
        assert_eq!(ask(&syn, true), Some(Reason::NewFlow));
        gate.drops(&segment, Reason::NoFlow);
    });
    assert!(gate.flows().unwrap().is_empty());
    assert_eq!(gate.ledger_total().0, 2);
    assert_eq!(gate.drops(&udp((V4.web, 1), (V4.peer, 9)), Reason::NewFlow).row.packets, 1);
}
