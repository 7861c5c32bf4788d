//! Row 12: ICMP errors, and what they quote.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, V4, V6, in_both_families};
use crate::support::frame::{
    ACK, DESTINATION_OPTIONS, Endpoint, FRAGMENT, IP, Ipv4, Ipv6, SYN, TCP, UDP, echo_reply, echo_request,
    fragment, icmp, padded, patched, raw_ip, tcp, tcp_header, udp, udp_datagram, unreachable,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

/// The IP packet in a frame: what an error quotes.
fn quote(frame: &[u8]) -> &[u8] {
    &frame[IP..]
}

/// An error of the server about a frame, sent to the sender of that frame.
fn error_about(server: Endpoint, peer: Endpoint, frame: &[u8]) -> Vec<u8> {
    unreachable(server.0, peer.0, quote(frame))
}

/// Types and codes of all errors of a family.
fn errors(family: Family) -> &'static [(u8, u8)] {
    match family.web.is_ipv4() {
        // unreachable, source quench, time exceeded, parameter problem
        true => &[(3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (11, 1), (12, 0)],
        // unreachable, packet too big, time exceeded, parameter problem
        false => &[(1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 1)],
    }
}

#[test]
fn every_kind_of_error_about_a_flow_that_a_peer_opened_passes() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let quoted = tcp(peer, server, ACK);
        for kind in errors(family) {
            gate.passes(&icmp(server.0, peer.0, *kind, [0; 4], quote(&quoted)), Reason::FlowError);
        }
    });
}

#[test]
fn every_kind_of_error_about_nothing_is_backscatter() {
    with_dmz_in_both_families(|gate, family| {
        let quoted = tcp((family.peer, 51_000), (family.web, 80), ACK);
        for kind in errors(family) {
            let row = gate
                .drops(&icmp(family.web, family.peer, *kind, [0; 4], quote(&quoted)), Reason::Backscatter);
            assert_eq!(row.key.port, u16::from(kind.0), "the type");
        }
    });
}

#[test]
fn an_error_about_a_handshake_passes() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        let syn = tcp(peer, server, SYN);
        gate.drops(&error_about(server, peer, &syn), Reason::Backscatter);
        gate.to_server(&syn);
        gate.passes(&error_about(server, peer, &syn), Reason::FlowError);
    });
}

#[test]
fn an_error_about_a_datagram_or_a_ping_of_a_flow_passes() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        let question = udp(peer, server);
        gate.drops(&error_about(server, peer, &question), Reason::Backscatter);
        gate.to_server(&question);
        gate.passes(&error_about(server, peer, &question), Reason::FlowError);

        let ping = echo_request(family.peer, family.web, 9);
        gate.to_server(&ping);
        gate.passes(&unreachable(family.web, family.peer, quote(&ping)), Reason::FlowError);
        let other = echo_request(family.peer, family.web, 10);
        gate.drops(&unreachable(family.web, family.peer, quote(&other)), Reason::Backscatter);
    });
}

#[test]
fn an_error_about_a_flow_with_other_ends_is_backscatter() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let about = |from: Endpoint, to: Endpoint| error_about(server, peer, &tcp(from, to, ACK));
        gate.drops(&about((peer.0, 51_001), server), Reason::Backscatter);
        gate.drops(&about(peer, (server.0, 81)), Reason::Backscatter);
        gate.drops(&about((family.other, peer.1), server), Reason::Backscatter);
        // the wrong way round: the server's own packet
        gate.drops(&about(server, peer), Reason::Backscatter);
        gate.passes(&about(peer, server), Reason::FlowError);
    });
}

#[test]
fn an_error_goes_to_nobody_but_the_sender_of_what_it_quotes() {
    // otherwise one flow would be a pass for errors, and their 500 bytes, to everybody
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let quoted = tcp(peer, server, ACK);
        gate.drops(&unreachable(family.web, family.other, quote(&quoted)), Reason::Backscatter);
        // nor from a server that the quoted packet was not for
        gate.drops(&unreachable(family.ns, family.peer, quote(&quoted)), Reason::Backscatter);
        gate.passes(&unreachable(family.web, family.peer, quote(&quoted)), Reason::FlowError);
    });
}

#[test]
fn an_error_about_the_answer_to_a_servers_own_question_passes() {
    with_dmz_in_both_families(|gate, family| {
        // The name server asked, waited, closed its socket; then the answer came.
        let (server, peer) = ((family.ns, 40_000), (family.peer, 53));
        gate.passes(&error_about(server, peer, &udp(peer, server)), Reason::FlowError);
        gate.passes(&error_about(server, peer, &tcp(peer, server, ACK)), Reason::FlowError);
        let elsewhere = (family.peer, 54);
        gate.drops(&error_about(server, elsewhere, &udp(elsewhere, server)), Reason::Backscatter);
        // the need's destination counts as well
        let (server, loghost) = ((family.web, 40_000), (family.loghost, 514));
        gate.passes(&error_about(server, loghost, &udp(loghost, server)), Reason::FlowError);
        let stranger = (family.peer, 514);
        gate.drops(&error_about(server, stranger, &udp(stranger, server)), Reason::Backscatter);
        // and its protocol
        gate.drops(&error_about(server, loghost, &tcp(loghost, server, ACK)), Reason::Backscatter);
    });
}

#[test]
fn eight_bytes_of_the_quoted_transport_header_are_enough_and_fewer_are_not() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let quoted = tcp(peer, server, ACK);
        let header = if family.web.is_ipv4() { 20 } else { 40 };
        let error = |length: usize| unreachable(server.0, peer.0, &quote(&quoted)[..length]);
        for length in [header + 8, header + 12, header + 20] {
            gate.passes(&error(length), Reason::FlowError);
        }
        for length in [0, 1, header - 1, header, header + 3] {
            let frame = error(length);
            let verdict = gate.explain(&frame, false, None).unwrap();
            assert!(matches!(verdict.reason, Some(Reason::Backscatter | Reason::Malformed)), "{verdict:?}");
            gate.drops(&frame, verdict.reason.unwrap());
        }
    });
}

#[test]
fn a_quoted_header_in_the_ethernet_padding_is_not_quoted() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let whole = padded(&error_about(server, peer, &tcp(peer, server, ACK)), 160);
        gate.passes(&whole, Reason::FlowError);
        // the packet ends within the quoted addresses, or just before the ports
        for left in [8, 8 + 16, 8 + 20] {
            let (at, length) = if family.web.is_ipv4() { (IP + 2, 20 + left) } else { (IP + 4, left) };
            let short = patched(&whole, at, &(length as u16).to_be_bytes());
            let verdict = gate.explain(&short, false, None).unwrap();
            assert!(matches!(verdict.reason, Some(Reason::Backscatter | Reason::Malformed)), "{verdict:?}");
        }
    });
}

#[test]
fn a_quoted_packet_may_have_options_or_extension_headers() {
    let gate = TestGate::dmz();
    let (server, peer) = V4.visit();
    gate.establish(server, peer);
    let header = tcp_header(peer, server, ACK, (1, 1));
    let quoted = Ipv4::new(peer.0, server.0, TCP, &header).options(&[1, 1, 1, 0]).packet();
    gate.passes(&unreachable(server.0, peer.0, &quoted), Reason::FlowError);

    let (server, peer) = V6.visit();
    gate.establish(server, peer);
    let header = tcp_header(peer, server, ACK, (1, 1));
    for units in [0, 1, 3] {
        let quoted = Ipv6::new(peer.0, server.0, TCP, &header).options(DESTINATION_OPTIONS, units).packet();
        gate.passes(&unreachable(server.0, peer.0, &quoted), Reason::FlowError);
    }
    // the second byte of a fragment header is no length, whatever stands there (RFC 8200, 4.5)
    let atomic = Ipv6::new(peer.0, server.0, TCP, &header).extension(FRAGMENT, &[9, 0, 0, 0, 0, 0, 7]);
    gate.passes(&unreachable(server.0, peer.0, &atomic.packet()), Reason::FlowError);
}

#[test]
fn what_is_quoted_is_an_ip_packet_of_the_same_family() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let quoted = tcp(peer, server, ACK);
        let quoted = quote(&quoted);
        for version in [0, 1, 5, 7, if family.web.is_ipv4() { 6 } else { 4 }] {
            let mut other = quoted.to_vec();
            other[0] = version << 4 | other[0] & 0x0f;
            gate.drops(&unreachable(server.0, peer.0, &other), Reason::Backscatter);
        }
        gate.passes(&unreachable(server.0, peer.0, quoted), Reason::FlowError);
    });
}

#[test]
fn a_quoted_packet_has_no_more_extension_headers_than_a_healthy_one() {
    let gate = TestGate::dmz();
    let (server, peer) = V6.visit();
    gate.establish(server, peer);
    let header = tcp_header(peer, server, ACK, (1, 1));
    let mut quoted = Ipv6::new(peer.0, server.0, TCP, &header);
    for count in 1..=5 {
        quoted = quoted.options(DESTINATION_OPTIONS, 0);
        let error = unreachable(server.0, peer.0, &quoted.packet());
        match count <= 3 {
            true => gate.passes(&error, Reason::FlowError),
            false => _ = gate.drops(&error, Reason::Backscatter),
        }
    }
}

#[test]
fn a_quoted_later_fragment_has_no_ports_to_be_known_by() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        gate.to_server(&udp(peer, server));
        let datagram = udp_datagram(peer, server, &[0; 16]);
        let at = |offset| fragment(peer.0, server.0, UDP, (7, offset, true), &datagram);
        gate.passes(&error_about(server, peer, &at(0)), Reason::FlowError);
        gate.drops(&error_about(server, peer, &at(3)), Reason::Backscatter);
    });
}

#[test]
fn an_error_about_an_error_is_backscatter() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let inner = unreachable(peer.0, server.0, quote(&tcp(server, peer, ACK)));
        gate.drops(&error_about(server, peer, &inner), Reason::Backscatter);
    });
}

#[test]
fn an_error_about_what_a_peer_may_not_open_is_backscatter() {
    with_dmz_in_both_families(|gate, family| {
        // closed, and rejected rather than reset
        let (server, peer) = ((family.web, 4444), (family.peer, 51_000));
        for probe in [tcp(peer, server, SYN), udp(peer, server)] {
            gate.to_server(&probe);
            gate.drops(&error_about(server, peer, &probe), Reason::Backscatter);
        }
    });
}

#[test]
fn an_error_about_a_flow_that_has_ended_is_backscatter() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        let question = udp(peer, server);
        gate.to_server(&question);
        gate.age("datagrams", 31);
        gate.drops(&error_about(server, peer, &question), Reason::Backscatter);
    });
}

#[test]
fn an_error_about_a_revoked_service_is_backscatter() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        gate.establish((family.web, 80), (family.peer, 51_000));
    });
    gate.swap(&POLICY.replace("\"tcp/80\", ", ""));
    in_both_families(|family| {
        let (server, peer) = family.visit();
        gate.drops(&error_about(server, peer, &tcp(peer, server, ACK)), Reason::Backscatter);
    });
}

#[test]
fn an_error_about_a_protocol_without_ports_is_about_its_flow() {
    let gate = TestGate::new(&POLICY.replace("[roles.web]\nin = [", "[roles.web]\nin = [\"gre\", "));
    in_both_families(|family| {
        let tunnelled = raw_ip(family.peer, family.web, 47, &[0; 12]);
        let error = unreachable(family.web, family.peer, quote(&tunnelled));
        gate.drops(&error, Reason::Backscatter);
        gate.to_server(&tunnelled);
        gate.passes(&error, Reason::FlowError);
    });
}

#[test]
fn an_error_about_the_answer_to_a_servers_own_ping_is_about_its_need() {
    let policy = POLICY.replace(
        "[roles.managed]\nout   = [",
        "[roles.managed]\nout   = [\"icmp/echo-request\", \"icmpv6/echo-request\", ",
    );
    let gate = TestGate::new(&policy);
    in_both_families(|family| {
        let answer = echo_reply(family.peer, family.web, 9);
        gate.passes(&unreachable(family.web, family.peer, quote(&answer)), Reason::FlowError);
        // ns1 has no such need
        let answer = echo_reply(family.peer, family.ns, 9);
        gate.drops(&unreachable(family.ns, family.peer, quote(&answer)), Reason::Backscatter);
    });
}

#[test]
fn an_error_about_an_error_is_backscatter_even_where_every_type_is_a_service() {
    let policy = "[policy]\ntracking = \"service\"\n[roles.open]\nin = [\"icmp\", \"icmpv6\"]\n\
                  [servers.web1]\naddresses = [\"192.0.2.10\", \"2001:db8:1::10\"]\nroles = [\"open\"]\n";
    let gate = TestGate::new(policy);
    in_both_families(|family| {
        let request = echo_request(family.peer, family.web, 7);
        gate.passes(&unreachable(family.web, family.peer, quote(&request)), Reason::FlowError);
        let error = unreachable(family.peer, family.web, quote(&request));
        gate.drops(&unreachable(family.web, family.peer, quote(&error)), Reason::Backscatter);
    });
}
