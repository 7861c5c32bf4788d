//! Rows 13 and 14: what a host answers by itself to anybody's packet is noise, and a listener is a back door, in every
//! protocol that has connections or requests.

use std::net::IpAddr;

use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, V4, V6, in_both_families, ip};
use crate::support::frame::{
    DCCP, Endpoint, IGMP, Ipv4, Ipv6, SCTP, ethernet, fragment, icmp, packet, raw_ip, udp, udp_datagram,
};
use crate::support::test_gate::TestGate;

const QUIET: u8 = 1;
const OWN_PORT: u8 = 4;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN_COMPLETE: u8 = 14;

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const DCCP_DATA: u8 = 2;
const RESET: u8 = 7;

fn sctp_bytes(from: Endpoint, to: Endpoint, chunk: u8) -> Vec<u8> {
    let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    bytes.resize(12, 0);
    bytes.extend([chunk, 0, 0, 20]);
    bytes.resize(32, 0);
    bytes
}

fn sctp(from: Endpoint, to: Endpoint, chunk: u8) -> Vec<u8> {
    raw_ip(from.0, to.0, SCTP, &sctp_bytes(from, to, chunk))
}

fn dccp(from: Endpoint, to: Endpoint, kind: u8) -> Vec<u8> {
    let mut bytes = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    bytes.resize(20, 0);
    // the lowest bit says that the sequence number is long
    bytes[8] = kind << 1 | 1;
    raw_ip(from.0, to.0, DCCP, &bytes)
}

#[track_caller]
fn is_noise(gate: &TestGate, frame: &[u8], port: u16) {
    let row = gate.drops(frame, Reason::Backscatter);
    assert_eq!((row.key.port, row.key.flags), (port, OWN_PORT));
}

#[track_caller]
fn is_back_door(gate: &TestGate, frame: &[u8], port: u16) {
    let row = gate.drops(frame, Reason::UnlistedService);
    assert_eq!((row.key.port, row.key.flags), (port, OWN_PORT));
}

fn ends(family: Family) -> (Endpoint, Endpoint) {
    ((family.web, 4444), (family.peer, 51_000))
}

fn with_tracking(tracking: &str) -> TestGate {
    TestGate::new(&POLICY.replace("[policy]", &format!("[policy]\ntracking = \"{tracking}\"")))
}

#[test]
fn a_closed_port_of_sctp_or_dccp_answers_with_noise() {
    for tracking in ["strict", "service"] {
        let gate = with_tracking(tracking);
        in_both_families(|family| {
            let (server, peer) = ends(family);
            for asked in [true, false] {
                if asked {
                    gate.to_server(&sctp(peer, server, INIT));
                    gate.to_server(&dccp(peer, server, REQUEST));
                }
                is_noise(&gate, &sctp(server, peer, ABORT), server.1);
                is_noise(&gate, &sctp(server, peer, SHUTDOWN_COMPLETE), server.1);
                // of DCCP no ports are read
                is_noise(&gate, &dccp(server, peer, RESET), 0);
                gate.forget_flows();
            }
            // whatever else it sends is its own doing
            for chunk in [DATA, INIT, 3, 4, 5, 7, 8, 9, 10, 11, 13, 15, 64 + ABORT, 128 + ABORT] {
                assert_eq!(gate.drops(&sctp(server, peer, chunk), Reason::Protocol).key.port, 51_000);
            }
            for kind in [REQUEST, DCCP_DATA, 3, 4, 5, 6, 8, 9, 15] {
                gate.drops(&dccp(server, peer, kind), Reason::Protocol);
            }
            // the same bytes in a protocol that nobody knows
            gate.drops(&raw_ip(server.0, peer.0, 253, &sctp_bytes(server, peer, ABORT)), Reason::Protocol);
        });
    }
}

#[test]
fn a_listener_of_sctp_or_dccp_is_a_back_door_if_a_peer_asked() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        let (server, peer) = ends(family);
        gate.drops(&sctp(server, peer, INIT_ACK), Reason::Protocol);
        gate.drops(&dccp(server, peer, RESPONSE), Reason::Protocol);
        // no question
        gate.to_server(&sctp(peer, server, DATA));
        gate.to_server(&dccp(peer, server, DCCP_DATA));
        gate.drops(&sctp(server, peer, INIT_ACK), Reason::Protocol);
        gate.drops(&dccp(server, peer, RESPONSE), Reason::Protocol);

        gate.to_server(&sctp(peer, server, INIT));
        gate.to_server(&dccp(peer, server, REQUEST));
        is_back_door(&gate, &sctp(server, peer, INIT_ACK), 4444);
        is_back_door(&gate, &dccp(server, peer, RESPONSE), 0);
        // what comes after an answer that was dropped is no answer to the question
        gate.drops(&sctp(server, peer, DATA), Reason::Protocol);
        gate.drops(&sctp((family.web, 4445), peer, INIT_ACK), Reason::Protocol);
        gate.drops(&sctp(server, (family.other, 51_000), INIT_ACK), Reason::Protocol);
        gate.drops(&dccp(server, (family.other, 51_000), RESPONSE), Reason::Protocol);
        gate.age("unlisted", 121);
        gate.drops(&sctp(server, peer, INIT_ACK), Reason::Protocol);
    });
    let gate = with_tracking("service");
    in_both_families(|family| {
        let (server, peer) = ends(family);
        is_back_door(&gate, &sctp(server, peer, INIT_ACK), 4444);
        is_back_door(&gate, &dccp(server, peer, RESPONSE), 0);
    });
}

#[test]
fn an_init_in_pieces_is_one_too() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        let (server, peer) = ends(family);
        let init = sctp_bytes(peer, server, INIT);
        gate.to_server(&fragment(peer.0, server.0, SCTP, (7, 0, true), &init[..8]));
        is_back_door(&gate, &sctp(server, peer, INIT_ACK), 4444);
    });
}

const SIGNALLING: &str = r#"
[roles.diameter]
in    = ["sctp/3868 from 203.0.113.50, 2001:db8:50::50"]
out   = ["sctp/3869"]
quiet = ["sctp/3870"]
[servers.gw]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["diameter"]
"#;

#[test]
fn a_service_of_sctp_answers_its_peers_and_strangers_quietly() {
    let gate = TestGate::new(SIGNALLING);
    in_both_families(|family| {
        let server = (family.web, 3868);
        let (peer, stranger) = ((family.peer, 51_000), (family.other, 51_000));
        for client in [peer, stranger] {
            gate.to_server(&sctp(client, server, INIT));
        }
        gate.passes(&sctp(server, peer, INIT_ACK), Reason::Reply);
        gate.passes(&sctp(server, peer, ABORT), Reason::Reply);
        let row = gate.drops(&sctp(server, stranger, INIT_ACK), Reason::Stranger);
        assert_eq!((row.key.port, row.key.flags), (3868, OWN_PORT));
        is_noise(&gate, &sctp(server, stranger, ABORT), server.1);
    });
}

#[test]
fn an_init_that_crosses_the_servers_own_makes_no_back_door() {
    let gate = TestGate::new(SIGNALLING);
    in_both_families(|family| {
        for (port, crosses) in [(3870, true), (3871, false)] {
            let (server, peer) = ((family.web, 5000), (family.peer, port));
            let flags = gate.drops(&sctp(server, peer, INIT), Reason::Protocol).key.flags;
            assert_eq!(flags, if crosses { QUIET } else { 0 });
            gate.to_server(&sctp(peer, server, INIT));
            if crosses {
                let row = gate.drops(&sctp(server, peer, INIT_ACK), Reason::NoFlow);
                assert_eq!((row.key.port, row.key.flags), (5000, OWN_PORT));
            } else {
                is_back_door(&gate, &sctp(server, peer, INIT_ACK), 5000);
            }
        }
        // a need permits whatever goes to its port
        let (server, peer) = ((family.web, 5000), (family.peer, 3869));
        gate.to_server(&sctp(peer, server, INIT));
        gate.passes(&sctp(server, peer, INIT_ACK), Reason::Need);
    });
}

/// Replies of hosts and routers that some kernels give by themselves.
fn replies(server: IpAddr) -> &'static [u8] {
    // echo, timestamp, information, address mask, extended echo; node information
    if server.is_ipv4() { &[0, 14, 16, 18, 43] } else { &[129, 140, 161] }
}

/// Destination unreachable, source quench, time exceeded, parameter problem; packet too big.
fn errors(server: IpAddr) -> &'static [u8] {
    if server.is_ipv4() { &[3, 4, 11, 12] } else { &[1, 2, 3, 4] }
}

#[test]
fn what_an_icmp_of_any_host_answers_to_a_stranger_is_noise() {
    for tracking in ["strict", "service"] {
        let gate = with_tracking(tracking);
        in_both_families(|family| {
            // ns1 must answer no ping
            for kind in replies(family.ns).iter().chain(errors(family.ns)) {
                for code in [0, 1, 2, 3, 4] {
                    let message = icmp(family.ns, family.peer, (*kind, code), [0, 9, 0, 1], &[0x60; 48]);
                    let row = gate.drops(&message, Reason::Backscatter);
                    assert_eq!((row.key.port, row.key.flags), (u16::from(*kind), OWN_PORT));
                }
            }
            // questions of its own are no answers
            for kind in if family.ns.is_ipv4() { [8, 13, 42] } else { [128, 139, 160] } {
                let message = icmp(family.ns, family.peer, (kind, 0), [0, 9, 0, 1], &[0; 16]);
                assert_eq!(gate.drops(&message, Reason::NewFlow).key.port, u16::from(kind));
            }
        });
    }
}

#[test]
fn every_closed_door_is_noise_whatever_protocol_knocked() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        let (server, peer) = ends(family);
        // UDP, UDP-Lite, SCTP, DCCP, GRE, ESP, AH, L2TP, IPIP, and a protocol of nobody
        for protocol in [17, 136, SCTP, DCCP, 47, 50, 51, 115, 4, 253] {
            let question = packet(peer.0, server.0, protocol, &udp_datagram(peer, server, &[0; 24]));
            gate.to_server(&ethernet(&question));
            let kinds: &[(u8, u8)] = if family.web.is_ipv4() { &[(3, 2), (3, 3)] } else { &[(1, 4), (4, 1)] };
            for kind in kinds {
                gate.drops(&icmp(server.0, peer.0, *kind, [0; 4], &question), Reason::Backscatter);
            }
        }
        // an answer of UDP itself comes from something that listens
        gate.to_server(&udp(peer, server));
        is_back_door(&gate, &udp(server, peer), 4444);
    });
}

#[test]
fn a_new_kind_of_icmp_request_may_be_a_service_as_the_old_ones() {
    let gate = TestGate::new(
        r#"
        [roles.asked]
        in = ["icmp/42", "icmpv6/139", "icmpv6/extended-echo-request"]
        [servers.gw]
        addresses = ["192.0.2.10", "2001:db8:1::10"]
        roles = ["asked"]
        "#,
    );
    for (family, kinds) in [(V4, &[(42, 43)][..]), (V6, &[(139, 140), (160, 161)])] {
        for (request, reply) in kinds {
            let answer = icmp(family.web, family.peer, (*reply, 0), [0, 77, 0, 1], &[0; 12]);
            gate.drops(&answer, Reason::NewFlow);
            gate.to_server(&icmp(family.peer, family.web, (*request, 0), [0, 77, 0, 1], &[0; 12]));
            gate.passes(&answer, Reason::Reply);
        }
    }
}

fn group_message(to: IpAddr, kind: u8, ttl: u8) -> Vec<u8> {
    let mut bytes = Ipv4::new(V4.ns, to, IGMP, &[kind, 0, 0, 0, 0, 0, 0, 0]).frame();
    bytes[14 + 8] = ttl;
    bytes
}

#[test]
fn in_quarantine_the_groups_that_a_host_reports_are_quiet_and_a_querier_is_not() {
    for tracking in ["strict", "service"] {
        let gate = with_tracking(tracking);
        let (all, group) = (ip("224.0.0.22"), ip("239.255.255.250"));
        let reports = [all, group].map(|to| [0x12, 0x16, 0x17, 0x22].map(|kind| group_message(to, kind, 1)));
        // a question of its own; what a router may forward; what is no group; in IPv6 it is any protocol
        let others = [
            group_message(all, 0x11, 1),
            group_message(all, 0, 1),
            group_message(all, 0x22, 2),
            group_message(V4.peer, 0x22, 1),
            Ipv6::new(V6.ns, ip("ff02::16"), IGMP, &[0x22; 8]).hop_limit(1).frame(),
        ];
        for frame in reports.iter().flatten().chain(&others) {
            let row = gate.drops(frame, Reason::Protocol);
            assert_eq!((row.key.protocol, row.key.flags), (IGMP, 0), "chatter, which raises a low alarm");
        }
        gate.quarantine("ns1", None).unwrap();
        for frame in reports.iter().flatten() {
            let row = gate.drops(frame, Reason::Quarantined);
            assert_eq!((row.key.port, row.key.flags), (0, QUIET | OWN_PORT));
        }
        for frame in &others {
            assert_eq!(gate.drops(frame, Reason::Quarantined).key.flags, 0);
        }
    }
}

#[test]
fn from_quarantine_all_of_it_is_quiet() {
    in_both_families(|family| {
        let gate = TestGate::dmz();
        gate.quarantine("web1", None).unwrap();
        gate.quarantine("ns1", None).unwrap();
        let (server, peer) = ends(family);
        let mut noise = vec![
            (sctp(server, peer, ABORT), server.1),
            (sctp(server, peer, SHUTDOWN_COMPLETE), server.1),
            // no ports are read
            (dccp(server, peer, RESET), 0),
        ];
        if family.web.is_ipv4() {
            noise.push((group_message(ip("224.0.0.22"), 0x22, 1), 0));
        }
        for (frame, port) in &noise {
            let row = gate.drops(frame, Reason::Quarantined);
            assert_eq!((row.key.port, row.key.flags), (*port, QUIET | OWN_PORT));
        }
        for kind in replies(family.web).iter().chain(errors(family.web)) {
            let message = icmp(family.web, family.peer, (*kind, 0), [0, 9, 0, 1], &[0; 16]);
            let row = gate.drops(&message, Reason::Quarantined);
            assert_eq!((row.key.port, row.key.flags), (u16::from(*kind), QUIET | OWN_PORT));
        }
        for frame in [sctp(server, peer, INIT), sctp(server, peer, INIT_ACK), dccp(server, peer, RESPONSE)] {
            assert_eq!(gate.drops(&frame, Reason::Quarantined).key.flags, 0);
        }
    });
}
