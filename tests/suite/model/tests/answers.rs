//! Steps 12 to 15: errors about flows, listeners that should not be, and noise.

use portcullis::abi::Reason::{
    Backscatter, FlowError, NewFlow, NoFlow, OwnConnection, Stranger, UnlistedService,
};

use super::TimedModel;
use crate::support::dmz::{self, V4, V6, in_both_families};
use crate::support::frame::{self, ACK, IP, Ipv6, RST, SYN, TCP, UDP};

#[test]
fn an_icmp_error_about_a_peers_flow_passes() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let (server, peer) = ((family.ns, 53), (family.peer, 4000));
        let query = frame::udp(peer, server);
        let error = frame::unreachable(family.ns, family.peer, &query[IP..]);
        assert_eq!(timed.why(&error), Backscatter);
        timed.gets(&query);
        assert_eq!(timed.why(&error), FlowError);
        // To somebody else, or about somebody else's packet.
        assert_eq!(timed.why(&frame::unreachable(family.ns, family.other, &query[IP..])), Backscatter);
        assert_eq!(timed.why(&frame::unreachable(family.web, family.peer, &query[IP..])), Backscatter);
        let other = frame::udp((family.peer, 4001), server);
        assert_eq!(timed.why(&frame::unreachable(family.ns, family.peer, &other[IP..])), Backscatter);
    });
}

#[test]
fn an_icmp_error_about_an_answer_to_the_server_passes() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let about = |port| {
            let answer = frame::udp((family.peer, port), (family.ns, 5000));
            frame::unreachable(family.ns, family.peer, &answer[IP..])
        };
        assert_eq!(timed.why(&about(53)), FlowError);
        assert_eq!(timed.why(&about(54)), Backscatter);
        // To whom did not send it, or about what another server got.
        let answer = frame::udp((family.peer, 53), (family.ns, 5000));
        assert_eq!(timed.why(&frame::unreachable(family.ns, family.other, &answer[IP..])), Backscatter);
        let elsewhere = frame::udp((family.peer, 53), (family.web, 5000));
        assert_eq!(timed.why(&frame::unreachable(family.ns, family.peer, &elsewhere[IP..])), Backscatter);
    });
}

#[test]
fn an_icmp_error_about_tcp_and_ping_passes_while_the_flow_is_a_services() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let segment = frame::tcp((family.peer, 4000), (family.web, 80), ACK);
        let ping = frame::echo_request(family.peer, family.web, 9);
        timed.establish((family.web, 80), (family.peer, 4000));
        timed.gets(&ping);
        for frame in [&segment, &ping] {
            let error = frame::unreachable(family.web, family.peer, &frame[IP..]);
            assert_eq!(timed.why(&error), FlowError);
        }
        timed.apply(&dmz::POLICY.replace("\"tcp/80\", ", ""));
        let error = frame::unreachable(family.web, family.peer, &segment[IP..]);
        assert_eq!(timed.why(&error), Backscatter);
    });
}

#[test]
fn a_quote_needs_its_headers_first_eight_bytes_and_no_more() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let segment = frame::tcp((family.peer, 4000), (family.web, 80), ACK);
        timed.establish((family.web, 80), (family.peer, 4000));
        let quoted = |length: usize| {
            let end = frame::l4_of(family.web) + length;
            frame::unreachable(family.web, family.peer, &segment[IP..end])
        };
        assert_eq!(timed.why(&quoted(8)), FlowError);
        assert_eq!(timed.why(&quoted(7)), Backscatter);
    });
    // A later fragment tells no ports.
    let mut timed = TimedModel::new();
    timed.gets(&frame::udp((V6.peer, 4000), (V6.ns, 53)));
    let datagram = frame::udp_datagram((V6.peer, 4000), (V6.ns, 53), b"");
    for (offset, expected) in [(0, FlowError), (1, Backscatter)] {
        let quoted = Ipv6::new(V6.peer, V6.ns, UDP, &datagram).fragment(1, offset, false).packet();
        assert_eq!(timed.why(&frame::unreachable(V6.ns, V6.peer, &quoted)), expected);
    }
}

#[test]
fn an_answer_from_what_is_no_service_betrays_the_listener() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let (server, peer) = ((family.web, 8080), (family.peer, 4000));
        assert_eq!(timed.why(&frame::tcp(server, peer, SYN | ACK)), NoFlow);
        assert_eq!(timed.why(&frame::udp(server, peer)), NewFlow);
        timed.gets(&frame::tcp(peer, server, SYN));
        timed.gets(&frame::udp(peer, server));
        for frame in [frame::tcp(server, peer, SYN | ACK), frame::udp(server, peer)] {
            let outcome = timed.sends(&frame);
            assert_eq!((outcome.reason, outcome.port), (UnlistedService, 8080));
        }
        assert!(timed.model.ledger().keys().any(|key| key.reason == UnlistedService && key.own_port));
        assert_eq!(timed.why(&frame::tcp(server, peer, ACK)), NoFlow);
        assert_eq!(timed.why(&frame::tcp(server, peer, RST | ACK)), Backscatter);
    });
}

#[test]
fn a_listener_is_betrayed_though_nobody_could_read_who_asked_it() {
    // The chain of headers goes on in a later fragment, and with it the ports.
    let chain = [[6, 0, 1, 4, 0, 0, 0, 0], [0; 8]].concat();
    let unreadable = Ipv6::new(V6.peer, V6.ns, 60, &[&[60, 1], &chain[2..], &[60, 9]].concat()[..16]);
    let unreadable = unreadable.fragment(1, 0, true).frame();
    let syn_ack = |port, to| frame::tcp((V6.ns, port), to, SYN | ACK);
    let mut timed = TimedModel::new();
    // ns may ask tcp/53 of anybody, so this looks like an answer of its own.
    assert_eq!(timed.why(&syn_ack(8080, (V6.peer, 53))), OwnConnection);
    assert_eq!(timed.why(&syn_ack(8080, (V6.peer, 4000))), NoFlow);
    timed.gets(&unreadable);
    for peer_port in [53, 4000] {
        let outcome = timed.sends(&syn_ack(8080, (V6.peer, peer_port)));
        assert_eq!((outcome.reason, outcome.port), (UnlistedService, 8080));
    }
    assert_eq!(timed.why(&frame::udp((V6.ns, 53), (V6.peer, 4000))), NoFlow, "a late answer at worst");
    assert_eq!(timed.why(&syn_ack(8080, (V6.other, 4000))), NoFlow);
    assert_eq!(timed.why(&frame::tcp((V6.ns, 8080), (V6.peer, 4000), ACK)), NoFlow);
}

#[test]
fn a_service_answers_a_stranger() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let (server, peer) = ((family.web, 22), (family.peer, 4000));
        assert_eq!(timed.why(&frame::tcp(server, peer, SYN | ACK)), NoFlow);
        timed.gets(&frame::tcp(peer, server, SYN));
        let outcome = timed.sends(&frame::tcp(server, peer, SYN | ACK));
        assert_eq!((outcome.reason, outcome.port, outcome.quiet), (Stranger, 22, false));
        assert_eq!(timed.why(&frame::tcp(server, peer, RST | ACK)), Backscatter);
        timed.apply(&dmz::POLICY.replace("in  = [\"udp/53\"", "in  = [\"udp/53 from @bastion\""));
        timed.gets(&frame::udp(peer, (family.ns, 53)));
        assert_eq!(timed.why(&frame::udp((family.ns, 53), peer)), Stranger);
    });
}

#[test]
fn answers_to_the_internets_noise_are_backscatter() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let outcome = timed.sends(&frame::tcp((family.web, 7), (family.peer, 4000), RST | ACK));
        assert_eq!((outcome.reason, outcome.port), (Backscatter, 7));
        let outcome = timed.sends(&frame::unreachable(family.web, family.peer, &[]));
        let kind = if family.web.is_ipv4() { 3 } else { 1 };
        assert_eq!((outcome.reason, outcome.port), (Backscatter, kind));
        assert_eq!(timed.why(&frame::echo_reply(family.ns, family.peer, 9)), Backscatter);
    });
}

#[test]
fn a_segment_without_a_flow_counts_under_the_more_telling_port() {
    let mut timed = TimedModel::new();
    let outcome = timed.sends(&frame::tcp((V4.web, 80), (V4.peer, 4000), ACK));
    assert_eq!((outcome.reason, outcome.port), (NoFlow, 80));
    let outcome = timed.sends(&frame::tcp((V4.web, 5000), (V4.peer, 4000), ACK));
    assert_eq!((outcome.reason, outcome.port, outcome.protocol), (NoFlow, 4000, TCP));
}
