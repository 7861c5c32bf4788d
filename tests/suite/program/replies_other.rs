//! Row 9 without TCP: answers to datagrams, to pings and to other protocols.

use portcullis::abi::Reason;
use portcullis::gate::FlowTable;

use crate::support::dmz::in_both_families;
use crate::support::frame::{Endpoint, SCTP, SYN, echo_reply, echo_request, icmp, raw_ip, tcp, udp};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

#[test]
fn a_datagram_from_an_in_service_answers_the_peer_that_asked() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        let row = gate.drops(&udp(server, peer), Reason::NewFlow);
        assert_eq!((row.key.port, row.key.flags & 4), (51_000, 0), "nobody asked: it opens");
        gate.to_server(&udp(peer, server));
        gate.passes(&udp(server, peer), Reason::Reply);
        gate.passes(&udp(server, peer), Reason::Reply);
        // of the same peer, to another of its ports: late, perhaps
        let row = gate.drops(&udp(server, (peer.0, 51_001)), Reason::NoFlow);
        assert_eq!((row.key.port, row.key.flags & 4), (53, 4));
        gate.drops(&udp(server, (family.other, peer.1)), Reason::NewFlow);
        gate.drops(&udp((family.web, 53), peer), Reason::NewFlow);
        gate.drops(&udp((family.ns, 54), peer), Reason::NewFlow);
        // TCP with the same numbers is another flow
        gate.drops(&tcp(server, peer, 0x10), Reason::NoFlow);
    });
}

#[test]
fn an_echo_reply_answers_the_request_of_its_identifier() {
    with_dmz_in_both_families(|gate, family| {
        gate.drops(&echo_reply(family.web, family.peer, 77), Reason::NewFlow);
        gate.to_server(&echo_request(family.peer, family.web, 77));
        assert!(gate.flows().unwrap().iter().any(|row| row.table == FlowTable::Icmp));
        gate.passes(&echo_reply(family.web, family.peer, 77), Reason::Reply);
        gate.drops(&echo_reply(family.web, family.peer, 78), Reason::NoFlow);
        gate.drops(&echo_reply(family.web, family.peer, 77 << 8), Reason::NoFlow);
        gate.drops(&echo_reply(family.web, family.other, 77), Reason::NewFlow);
        // a request is no reply
        gate.drops(&echo_request(family.web, family.peer, 77), Reason::NewFlow);
    });
}

#[test]
fn an_echo_reply_without_the_need_for_it_is_backscatter_though_the_peer_asked() {
    with_dmz_in_both_families(|gate, family| {
        gate.to_server(&echo_request(family.peer, family.ns, 77));
        gate.drops(&echo_reply(family.ns, family.peer, 77), Reason::Backscatter);
    });
}

#[test]
fn another_kind_of_reply_does_not_answer_a_ping() {
    let gate = TestGate::dmz();
    let family = crate::support::dmz::V4;
    gate.to_server(&echo_request(family.peer, family.web, 77));
    let timestamp_reply = icmp(family.web, family.peer, (14, 0), [0, 77, 0, 1], &[0; 12]);
    gate.drops(&timestamp_reply, Reason::Backscatter);
}

const OTHERS: &str = r#"
[roles.tunnel]
in = ["gre from 203.0.113.50, 2001:db8:50::50", "sctp/3868", "icmp/timestamp-request"]
[servers.gw]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["tunnel"]
"#;

const GRE: u8 = 47;

/// The chunk of an SCTP packet does not matter here, its ports do.
fn sctp(from: Endpoint, to: Endpoint) -> Vec<u8> {
    let mut packet = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    packet.resize(16, 0);
    raw_ip(from.0, to.0, SCTP, &packet)
}

#[test]
fn a_protocol_without_ports_is_answered_by_its_addresses() {
    let gate = TestGate::new(OTHERS);
    in_both_families(|family| {
        let answer = raw_ip(family.web, family.peer, GRE, &[0; 8]);
        gate.drops(&answer, Reason::Protocol);
        gate.to_server(&raw_ip(family.peer, family.web, GRE, &[0; 8]));
        gate.passes(&answer, Reason::Reply);
        gate.drops(&raw_ip(family.web, family.peer, 50, &[0; 8]), Reason::Protocol);
        gate.drops(&raw_ip(family.web, family.other, GRE, &[0; 8]), Reason::Protocol);
        // `other` is not in `from`
        gate.to_server(&raw_ip(family.other, family.web, GRE, &[0; 8]));
        assert!(!gate.has_flow(FlowTable::Datagrams, (family.web, 0), (family.other, 0)));
    });
}

#[test]
fn sctp_is_answered_by_its_ports() {
    let gate = TestGate::new(OTHERS);
    in_both_families(|family| {
        let (server, peer) = ((family.web, 3868), (family.peer, 51_000));
        gate.drops(&sctp(server, peer), Reason::Protocol);
        gate.to_server(&sctp(peer, server));
        gate.passes(&sctp(server, peer), Reason::Reply);
        gate.drops(&sctp((family.web, 3869), peer), Reason::Protocol);
        gate.drops(&sctp(server, (family.peer, 51_001)), Reason::NoFlow);
        gate.drops(&sctp(server, (family.other, 51_000)), Reason::Protocol);
    });
}

#[test]
fn a_timestamp_reply_answers_a_timestamp_request() {
    let gate = TestGate::new(OTHERS);
    let family = crate::support::dmz::V4;
    let reply = icmp(family.web, family.peer, (14, 0), [0, 77, 0, 1], &[0; 12]);
    gate.to_server(&icmp(family.peer, family.web, (13, 0), [0, 77, 0, 1], &[0; 12]));
    gate.passes(&reply, Reason::Reply);
    gate.drops(&echo_reply(family.web, family.peer, 77), Reason::Backscatter);
}

#[test]
fn every_kind_of_icmp_reply_answers_its_own_request_and_no_other() {
    // echo, timestamp, information, address mask
    let kinds = [(8, 0), (13, 14), (15, 16), (17, 18)];
    let gate = TestGate::new(
        r#"
        [roles.asked]
        in = ["icmp/8", "icmp/13", "icmp/15", "icmp/17"]
        [servers.gw]
        addresses = ["192.0.2.10"]
        roles = ["asked"]
        "#,
    );
    let family = crate::support::dmz::V4;
    let reply = |kind| icmp(family.web, family.peer, (kind, 0), [0, 77, 0, 1], &[0; 12]);
    for (request, _) in kinds {
        gate.forget_flows();
        gate.to_server(&icmp(family.peer, family.web, (request, 0), [0, 77, 0, 1], &[0; 12]));
        for (other, kind) in kinds {
            match other == request {
                true => gate.passes(&reply(kind), Reason::Reply),
                false => assert_eq!(gate.drops(&reply(kind), Reason::NewFlow).key.port, u16::from(kind)),
            }
        }
    }
    for kind in (0..=255).filter(|kind| !kinds.iter().any(|(request, _)| kind == request)) {
        gate.forget_flows();
        gate.to_server(&icmp(family.peer, family.web, (kind, 0), [0, 77, 0, 1], &[0; 12]));
        assert!(gate.flows().unwrap().is_empty(), "type {kind} asks for nothing");
    }
}

/// Both sides of a range's ends, and of the whole of a protocol.
#[test]
fn a_range_of_services_ends_where_it_says() {
    let gate = TestGate::new(
        r#"
        [roles.range]
        in = ["tcp/30000-40000", "udp/1000-1003"]
        [servers.web1]
        addresses = ["192.0.2.10", "2001:db8:1::10"]
        roles = ["range"]
        "#,
    );
    in_both_families(|family| {
        for (port, is_service) in
            [(29_999, false), (30_000, true), (35_000, true), (40_000, true), (40_001, false)]
        {
            let (server, peer) = ((family.web, port), (family.peer, 51_000));
            gate.to_server(&tcp(peer, server, SYN));
            let answer = tcp(server, peer, SYN | 0x10);
            if is_service {
                gate.passes(&answer, Reason::Reply);
            } else {
                gate.drops(&answer, Reason::UnlistedService);
            }
        }
        for (port, is_service) in [(999, false), (1000, true), (1003, true), (1004, false)] {
            let (server, peer) = ((family.web, port), (family.peer, 51_000));
            gate.to_server(&udp(peer, server));
            if is_service {
                gate.passes(&udp(server, peer), Reason::Reply);
            } else {
                gate.drops(&udp(server, peer), Reason::UnlistedService);
            }
        }
    });
}
