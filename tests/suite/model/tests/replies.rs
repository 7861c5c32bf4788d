//! Step 9: answers, what a new policy does to them, and pickup.

use portcullis::abi::Reason::{
    Backscatter, NewFlow, NoFlow, Pickup, Protocol, Reply, Stranger, UnlistedService,
};

use super::{SERVER_NUMBER, TimedModel};
use crate::model::Table;
use crate::support::dmz::{self, V4, in_both_families};
use crate::support::frame::{self, ACK, FIN, RST, SCTP, SYN};

#[test]
fn a_server_answers_what_a_peer_opened_and_nothing_else() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let (server, peer) = ((family.web, 80), (family.peer, 4000));
        let answer = frame::tcp(server, peer, ACK);
        assert_eq!(timed.why(&answer), NoFlow);
        timed.establish(server, peer);
        assert_eq!(timed.why(&answer), Reply);
        for (from, to) in
            [(server, (family.peer, 4001)), (server, (family.other, 4000)), ((family.web, 443), peer)]
        {
            assert_eq!(timed.why(&frame::tcp(from, to, ACK)), NoFlow);
        }
    });
}

#[test]
fn a_bare_syn_is_never_a_reply() {
    let mut timed = TimedModel::new();
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    timed.establish(server, peer);
    assert_eq!(timed.why(&frame::tcp(server, peer, SYN)), NewFlow);
    assert_eq!(timed.why(&frame::tcp(server, peer, SYN | ACK)), Reply);
}

#[test]
fn datagrams_and_pings_are_answered_to_whom_they_came_from() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let dns = frame::udp((family.ns, 53), (family.peer, 4000));
        assert_eq!(timed.why(&dns), NewFlow);
        timed.gets(&frame::udp((family.peer, 4000), (family.ns, 53)));
        assert_eq!(timed.why(&dns), Reply);
        assert_eq!(timed.why(&frame::udp((family.ns, 53), (family.other, 4000))), NewFlow);
        let pong = frame::echo_reply(family.web, family.peer, 9);
        assert_eq!(timed.why(&pong), NewFlow);
        timed.gets(&frame::echo_request(family.peer, family.web, 9));
        assert_eq!(timed.why(&pong), Reply);
        // Of no request, but to whom has asked.
        assert_eq!(timed.why(&frame::echo_reply(family.web, family.peer, 8)), NoFlow);
        assert_eq!(timed.why(&frame::echo_reply(family.web, family.other, 8)), NewFlow);
        assert_eq!(timed.why(&frame::echo_reply(family.ns, family.peer, 8)), Backscatter);
        // A request is none.
        assert_eq!(timed.why(&frame::echo_request(family.web, family.peer, 9)), NewFlow);
    });
}

#[test]
fn other_protocols_are_answered_too() {
    let mut timed = TimedModel::with(
        "[roles.vpn]\nin = [\"gre\", \"sctp/5000\"]\n[servers.one]\naddresses = [\"192.0.2.10\"]\nroles = [\"vpn\"]\n",
    );
    let gre = frame::raw_ip(V4.web, V4.peer, 47, &[]);
    assert_eq!(timed.why(&gre), Protocol);
    timed.gets(&frame::raw_ip(V4.peer, V4.web, 47, &[]));
    assert_eq!(timed.why(&gre), Reply);
    let sctp = |ports: [u8; 4]| [&ports[..], &[0; 8]].concat();
    let answer = frame::raw_ip(V4.web, V4.peer, SCTP, &sctp([0x13, 0x88, 0, 9]));
    assert_eq!(timed.why(&answer), Protocol);
    timed.gets(&frame::raw_ip(V4.peer, V4.web, SCTP, &sctp([0, 9, 0x13, 0x88])));
    assert_eq!(timed.why(&answer), Reply);
}

#[test]
fn a_revoked_service_ends_its_flows_at_once_and_a_kept_one_does_not() {
    let revoked = dmz::POLICY.replace("\"tcp/80\", ", "").replace("in  = [\"udp/53\", ", "in  = [");
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        timed.establish((family.web, 80), (family.peer, 4000));
        timed.establish((family.web, 443), (family.peer, 4000));
        timed.half_open((family.web, 80), (family.peer, 4001));
        timed.gets(&frame::udp((family.peer, 4000), (family.ns, 53)));
        timed.apply(&revoked);
        assert_eq!(timed.why(&frame::tcp((family.web, 80), (family.peer, 4000), ACK)), NoFlow);
        assert_eq!(timed.why(&frame::tcp((family.web, 80), (family.peer, 4000), RST)), Backscatter);
        assert_eq!(timed.why(&frame::tcp((family.web, 443), (family.peer, 4000), ACK)), Reply);
        let syn_ack = frame::tcp((family.web, 80), (family.peer, 4001), SYN | ACK);
        assert_eq!(timed.why(&syn_ack), NoFlow);
        assert_eq!(timed.why(&frame::udp((family.ns, 53), (family.peer, 4000))), NewFlow);
        // Permitted again, they don't come back.
        timed.apply(dmz::POLICY);
        assert_eq!(timed.why(&frame::tcp((family.web, 80), (family.peer, 4000), ACK)), NoFlow);
    });
}

#[test]
fn a_flow_has_ended_when_its_peer_may_no_longer_use_the_service() {
    let mut timed = TimedModel::new();
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    timed.establish(server, peer);
    timed.apply(&dmz::POLICY.replace("\"tcp/80\"", "\"tcp/80 from @bastion\""));
    assert_eq!(timed.why(&frame::tcp(server, peer, ACK)), NoFlow);
}

#[test]
fn a_reply_brings_its_flow_into_the_live_generation() {
    let mut timed = TimedModel::new();
    timed.establish((V4.web, 80), (V4.peer, 4000));
    timed.apply(dmz::POLICY);
    let generation = |timed: &TimedModel| timed.model.flows().values().next().expect("a flow").generation;
    assert_eq!(generation(&timed), 1);
    timed.why(&frame::tcp((V4.web, 80), (V4.peer, 4000), ACK));
    assert_eq!(generation(&timed), 2);
}

#[test]
fn open_flows_are_taken_over_while_the_gate_is_new() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let (server, peer) = ((family.web, 80), (family.peer, 4000));
        timed.model.set_pickup_until(timed.now + 120 * super::SECOND);
        assert_eq!(timed.why(&frame::tcp(server, peer, SYN | ACK)), NoFlow);
        assert_eq!(timed.why(&frame::tcp((family.web, 81), peer, ACK)), NoFlow);
        assert_eq!(timed.why(&frame::tcp(server, peer, ACK)), Pickup);
        assert_eq!(timed.why(&frame::tcp(server, peer, FIN | ACK)), Reply);
        // Only whom the service is for.
        let ssh = |to| frame::tcp((family.web, 22), (to, 4000), ACK);
        assert_eq!(timed.why(&ssh(family.bastion)), Pickup);
        assert_eq!(timed.why(&ssh(family.peer)), NoFlow);
        timed.wait(120);
        assert_eq!(timed.why(&frame::tcp(server, (family.peer, 4001), ACK)), NoFlow);
    });
}

#[test]
fn pickup_counts_from_the_first_policy_only() {
    let mut timed = TimedModel { model: crate::model::Model::new(), now: 5 * super::SECOND };
    timed.apply(dmz::POLICY);
    timed.wait(119);
    timed.apply(dmz::POLICY);
    assert_eq!(timed.why(&frame::tcp((V4.web, 80), (V4.peer, 4000), ACK)), Pickup);
    timed.wait(2);
    assert_eq!(timed.why(&frame::tcp((V4.web, 80), (V4.peer, 4001), ACK)), NoFlow);
}

#[test]
fn under_service_tracking_the_port_alone_makes_an_answer() {
    in_both_families(|family| {
        let mut timed = TimedModel::setting("tracking = \"service\"");
        assert_eq!(timed.why(&frame::tcp((family.web, 80), (family.peer, 4000), SYN | ACK)), Reply);
        assert_eq!(timed.why(&frame::tcp((family.web, 80), (family.peer, 4000), SYN)), NewFlow);
        assert_eq!(timed.why(&frame::udp((family.ns, 53), (family.peer, 4000))), Reply);
        assert_eq!(timed.why(&frame::echo_reply(family.web, family.peer, 9)), Reply);
        assert_eq!(
            timed.why(&frame::tcp((family.web, 8080), (family.peer, 4000), SYN | ACK)),
            UnlistedService
        );
        assert_eq!(timed.why(&frame::tcp((family.web, 22), (family.peer, 4000), ACK)), NoFlow);
        assert_eq!(timed.why(&frame::tcp((family.web, 22), (family.peer, 4000), SYN | ACK)), Stranger);
        assert_eq!(timed.why(&frame::udp((family.web, 53), (family.peer, 4000))), NewFlow);
        timed.gets(&frame::tcp((family.peer, 4000), (family.web, 80), SYN));
        assert!(timed.model.flows().is_empty());
    });
}

#[test]
fn only_whoever_saw_the_servers_number_opens_a_connection() {
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    let number = SERVER_NUMBER.wrapping_add(1);
    let tables = |timed: &TimedModel| timed.model.flows().keys().map(|(table, _)| *table).collect::<Vec<_>>();
    let mut timed = TimedModel::new();
    timed.gets(&frame::tcp(peer, server, SYN));
    timed.gets(&frame::tcp_numbered(peer, server, ACK, (1, number)));
    assert_eq!(tables(&timed), [Table::HalfOpen], "no SYN+ACK was sent yet");
    timed.half_open(server, peer);
    for (flags, number) in
        [(ACK, number.wrapping_add(1)), (ACK, number.wrapping_sub(1)), (RST | ACK, number), (RST, number)]
    {
        timed.gets(&frame::tcp_numbered(peer, server, flags, (1, number)));
        assert_eq!(tables(&timed), [Table::HalfOpen], "{flags:#x} {number}");
    }
    // Sent again, the SYN does not make the handshake forgotten.
    timed.gets(&frame::tcp(peer, server, SYN));
    timed.gets(&frame::tcp_numbered(peer, server, ACK, (1, number)));
    assert_eq!(tables(&timed), [Table::Established]);
}

#[test]
fn the_last_two_syn_acks_count() {
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    for (acknowledged, opens) in [(100, false), (200, true), (300, true)] {
        let mut timed = TimedModel::new();
        timed.gets(&frame::tcp(peer, server, SYN));
        for number in [100, 200, 300, 300] {
            timed.why(&frame::tcp_numbered(server, peer, SYN | ACK, (number, 1)));
        }
        timed.gets(&frame::tcp_numbered(peer, server, ACK, (1, acknowledged + 1)));
        let established = timed.model.flows().keys().any(|(table, _)| *table == Table::Established);
        assert_eq!(established, opens, "{acknowledged}");
    }
}

#[test]
fn data_behind_the_syn_ack_may_be_acknowledged() {
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    let first = SERVER_NUMBER.wrapping_add(1);
    for (bytes, opens) in [(0, true), (4, true), (5, false)] {
        let mut timed = TimedModel::new();
        timed.half_open(server, peer);
        let mut segment = frame::tcp_header(server, peer, ACK, (first, 1));
        segment.extend_from_slice(b"data");
        assert_eq!(timed.why(&frame::ethernet(&frame::packet(V4.web, V4.peer, frame::TCP, &segment))), Reply);
        timed.gets(&frame::tcp_numbered(peer, server, ACK, (1, first.wrapping_add(bytes))));
        let established = timed.model.flows().keys().any(|(table, _)| *table == Table::Established);
        assert_eq!(established, opens, "{bytes}");
    }
}
