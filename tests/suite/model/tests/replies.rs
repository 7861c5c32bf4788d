//! Step 9: answers, what a new policy does to them, and pickup.

use portcullis::abi::Reason::{
    Backscatter, NewFlow, NoFlow, Pickup, Protocol, Reply, Stranger, UnlistedService,
};

use super::{SERVER_NUMBER, Testbed};
use crate::model::Table;
use crate::support::dmz::{self, FAMILIES, V4};
use crate::support::frame::{self, ACK, FIN, RST, SCTP, SYN};

#[test]
fn a_server_answers_what_a_peer_opened_and_nothing_else() {
    for family in FAMILIES {
        let mut testbed = Testbed::new();
        let (server, peer) = ((family.web, 80), (family.peer, 4000));
        let answer = frame::tcp(server, peer, ACK);
        assert_eq!(testbed.why(&answer), NoFlow);
        testbed.establish(server, peer);
        assert_eq!(testbed.why(&answer), Reply);
        for (from, to) in
            [(server, (family.peer, 4001)), (server, (family.other, 4000)), ((family.web, 443), peer)]
        {
            assert_eq!(testbed.why(&frame::tcp(from, to, ACK)), NoFlow);
        }
    }
}

#[test]
fn a_bare_syn_is_never_a_reply() {
    let mut testbed = Testbed::new();
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    testbed.establish(server, peer);
    assert_eq!(testbed.why(&frame::tcp(server, peer, SYN)), NewFlow);
    assert_eq!(testbed.why(&frame::tcp(server, peer, SYN | ACK)), Reply);
}

#[test]
fn datagrams_and_pings_are_answered_to_whom_they_came_from() {
    for family in FAMILIES {
        let mut testbed = Testbed::new();
        let dns = frame::udp((family.ns, 53), (family.peer, 4000));
        assert_eq!(testbed.why(&dns), NewFlow);
        testbed.gets(&frame::udp((family.peer, 4000), (family.ns, 53)));
        assert_eq!(testbed.why(&dns), Reply);
        assert_eq!(testbed.why(&frame::udp((family.ns, 53), (family.other, 4000))), NewFlow);
        let pong = frame::echo_reply(family.web, family.peer, 9);
        assert_eq!(testbed.why(&pong), Backscatter);
        testbed.gets(&frame::echo_request(family.peer, family.web, 9));
        assert_eq!(testbed.why(&pong), Reply);
        assert_eq!(testbed.why(&frame::echo_reply(family.web, family.peer, 8)), Backscatter);
        // A request is none.
        assert_eq!(testbed.why(&frame::echo_request(family.web, family.peer, 9)), NewFlow);
    }
}

#[test]
fn other_protocols_are_answered_too() {
    let mut testbed = Testbed::with(
        "[roles.vpn]\nin = [\"gre\", \"sctp/5000\"]\n[servers.one]\naddresses = [\"192.0.2.10\"]\nroles = [\"vpn\"]\n",
    );
    let gre = frame::raw_ip(V4.web, V4.peer, 47, &[]);
    assert_eq!(testbed.why(&gre), Protocol);
    testbed.gets(&frame::raw_ip(V4.peer, V4.web, 47, &[]));
    assert_eq!(testbed.why(&gre), Reply);
    let sctp = |ports: [u8; 4]| [&ports[..], &[0; 8]].concat();
    let answer = frame::raw_ip(V4.web, V4.peer, SCTP, &sctp([0x13, 0x88, 0, 9]));
    assert_eq!(testbed.why(&answer), Protocol);
    testbed.gets(&frame::raw_ip(V4.peer, V4.web, SCTP, &sctp([0, 9, 0x13, 0x88])));
    assert_eq!(testbed.why(&answer), Reply);
}

#[test]
fn a_revoked_service_ends_its_flows_at_once_and_a_kept_one_does_not() {
    let revoked = dmz::POLICY.replace("\"tcp/80\", ", "").replace("in  = [\"udp/53\", ", "in  = [");
    for family in FAMILIES {
        let mut testbed = Testbed::new();
        testbed.establish((family.web, 80), (family.peer, 4000));
        testbed.establish((family.web, 443), (family.peer, 4000));
        testbed.half_open((family.web, 80), (family.peer, 4001));
        testbed.gets(&frame::udp((family.peer, 4000), (family.ns, 53)));
        testbed.apply(&revoked);
        assert_eq!(testbed.why(&frame::tcp((family.web, 80), (family.peer, 4000), ACK)), NoFlow);
        assert_eq!(testbed.why(&frame::tcp((family.web, 80), (family.peer, 4000), RST)), Backscatter);
        assert_eq!(testbed.why(&frame::tcp((family.web, 443), (family.peer, 4000), ACK)), Reply);
        let syn_ack = frame::tcp((family.web, 80), (family.peer, 4001), SYN | ACK);
        assert_eq!(testbed.why(&syn_ack), NoFlow);
        assert_eq!(testbed.why(&frame::udp((family.ns, 53), (family.peer, 4000))), NewFlow);
        // Permitted again, they don't come back.
        testbed.apply(dmz::POLICY);
        assert_eq!(testbed.why(&frame::tcp((family.web, 80), (family.peer, 4000), ACK)), NoFlow);
    }
}

#[test]
fn a_flow_of_a_peer_that_may_no_longer_has_ended() {
    let mut testbed = Testbed::new();
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    testbed.establish(server, peer);
    testbed.apply(&dmz::POLICY.replace("\"tcp/80\"", "\"tcp/80 from @bastion\""));
    assert_eq!(testbed.why(&frame::tcp(server, peer, ACK)), NoFlow);
}

#[test]
fn a_reply_brings_its_flow_into_the_live_generation() {
    let mut testbed = Testbed::new();
    testbed.establish((V4.web, 80), (V4.peer, 4000));
    testbed.apply(dmz::POLICY);
    let generation = |testbed: &Testbed| testbed.model.flows().values().next().expect("a flow").generation;
    assert_eq!(generation(&testbed), 1);
    testbed.why(&frame::tcp((V4.web, 80), (V4.peer, 4000), ACK));
    assert_eq!(generation(&testbed), 2);
}

#[test]
fn open_flows_are_taken_over_while_the_gate_is_new() {
    for family in FAMILIES {
        let mut testbed = Testbed::new();
        let (server, peer) = ((family.web, 80), (family.peer, 4000));
        testbed.model.set_pickup_until(testbed.now + 120 * super::SECOND);
        assert_eq!(testbed.why(&frame::tcp(server, peer, SYN | ACK)), NoFlow);
        assert_eq!(testbed.why(&frame::tcp((family.web, 81), peer, ACK)), NoFlow);
        assert_eq!(testbed.why(&frame::tcp(server, peer, ACK)), Pickup);
        assert_eq!(testbed.why(&frame::tcp(server, peer, FIN | ACK)), Reply);
        // Only whom the service is for.
        let ssh = |to| frame::tcp((family.web, 22), (to, 4000), ACK);
        assert_eq!(testbed.why(&ssh(family.bastion)), Pickup);
        assert_eq!(testbed.why(&ssh(family.peer)), NoFlow);
        testbed.wait(120);
        assert_eq!(testbed.why(&frame::tcp(server, (family.peer, 4001), ACK)), NoFlow);
    }
}

#[test]
fn pickup_counts_from_the_first_policy_only() {
    let mut testbed = Testbed { model: crate::model::Model::new(), now: 5 * super::SECOND };
    testbed.apply(dmz::POLICY);
    testbed.wait(119);
    testbed.apply(dmz::POLICY);
    assert_eq!(testbed.why(&frame::tcp((V4.web, 80), (V4.peer, 4000), ACK)), Pickup);
    testbed.wait(2);
    assert_eq!(testbed.why(&frame::tcp((V4.web, 80), (V4.peer, 4001), ACK)), NoFlow);
}

#[test]
fn under_service_tracking_the_port_alone_tells_an_answer() {
    for family in FAMILIES {
        let mut testbed = Testbed::setting("tracking = \"service\"");
        assert_eq!(testbed.why(&frame::tcp((family.web, 80), (family.peer, 4000), SYN | ACK)), Reply);
        assert_eq!(testbed.why(&frame::tcp((family.web, 80), (family.peer, 4000), SYN)), NewFlow);
        assert_eq!(testbed.why(&frame::udp((family.ns, 53), (family.peer, 4000))), Reply);
        assert_eq!(testbed.why(&frame::echo_reply(family.web, family.peer, 9)), Reply);
        assert_eq!(
            testbed.why(&frame::tcp((family.web, 8080), (family.peer, 4000), SYN | ACK)),
            UnlistedService
        );
        assert_eq!(testbed.why(&frame::tcp((family.web, 22), (family.peer, 4000), ACK)), NoFlow);
        assert_eq!(testbed.why(&frame::tcp((family.web, 22), (family.peer, 4000), SYN | ACK)), Stranger);
        assert_eq!(testbed.why(&frame::udp((family.web, 53), (family.peer, 4000))), NewFlow);
        testbed.gets(&frame::tcp((family.peer, 4000), (family.web, 80), SYN));
        assert!(testbed.model.flows().is_empty());
    }
}

#[test]
fn only_whoever_saw_the_servers_number_opens_a_connection() {
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    let number = SERVER_NUMBER.wrapping_add(1);
    let tables =
        |testbed: &Testbed| testbed.model.flows().keys().map(|(table, _)| *table).collect::<Vec<_>>();
    let mut testbed = Testbed::new();
    testbed.gets(&frame::tcp(peer, server, SYN));
    testbed.gets(&frame::tcp_numbered(peer, server, ACK, (1, number)));
    assert_eq!(tables(&testbed), [Table::HalfOpen], "no SYN+ACK was sent yet");
    testbed.half_open(server, peer);
    for (flags, number) in
        [(ACK, number.wrapping_add(1)), (ACK, number.wrapping_sub(1)), (RST | ACK, number), (RST, number)]
    {
        testbed.gets(&frame::tcp_numbered(peer, server, flags, (1, number)));
        assert_eq!(tables(&testbed), [Table::HalfOpen], "{flags:#x} {number}");
    }
    // Sent again, the SYN does not make the handshake forgotten.
    testbed.gets(&frame::tcp(peer, server, SYN));
    testbed.gets(&frame::tcp_numbered(peer, server, ACK, (1, number)));
    assert_eq!(tables(&testbed), [Table::Established]);
}

#[test]
fn the_last_two_syn_acks_count() {
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    for (acknowledged, opens) in [(100, false), (200, true), (300, true)] {
        let mut testbed = Testbed::new();
        testbed.gets(&frame::tcp(peer, server, SYN));
        for number in [100, 200, 300, 300] {
            testbed.why(&frame::tcp_numbered(server, peer, SYN | ACK, (number, 1)));
        }
        testbed.gets(&frame::tcp_numbered(peer, server, ACK, (1, acknowledged + 1)));
        let established = testbed.model.flows().keys().any(|(table, _)| *table == Table::Established);
        assert_eq!(established, opens, "{acknowledged}");
    }
}

#[test]
fn data_behind_the_syn_ack_may_be_acknowledged() {
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    let first = SERVER_NUMBER.wrapping_add(1);
    for (bytes, opens) in [(0, true), (4, true), (5, false)] {
        let mut testbed = Testbed::new();
        testbed.half_open(server, peer);
        let mut segment = frame::tcp_header(server, peer, ACK, (first, 1));
        segment.extend_from_slice(b"data");
        assert_eq!(
            testbed.why(&frame::ethernet(&frame::packet(V4.web, V4.peer, frame::TCP, &segment))),
            Reply
        );
        testbed.gets(&frame::tcp_numbered(peer, server, ACK, (1, first.wrapping_add(bytes))));
        let established = testbed.model.flows().keys().any(|(table, _)| *table == Table::Established);
        assert_eq!(established, opens, "{bytes}");
    }
}
