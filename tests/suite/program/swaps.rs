//! What a change of the live policy keeps, and what it ends.

use portcullis::abi::Reason;
use portcullis::abi::flow;

use crate::support::dmz::{POLICY, V4, V6, in_both_families};
use crate::support::frame::{ACK, SYN, echo_reply, echo_request, tcp, udp};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

/// The policy with another text and the same meaning.
fn reworded(number: u32) -> String {
    format!("# version {number}\n{POLICY}")
}

#[test]
fn a_swap_keeps_counters_and_ledger() {
    let gate = TestGate::dmz();
    let syn = tcp((V4.web, 40_000), (V4.peer, 6667), SYN);
    let before = gate.drops(&syn, Reason::NewFlow);
    gate.passes(&udp((V4.ns, 40_000), (V4.peer, 53)), Reason::Need);
    for number in 1..=7 {
        let counters = gate.counters(false).unwrap();
        let total = gate.ledger_total();
        gate.swap(&reworded(number));
        assert_eq!(gate.counters(false).unwrap(), counters);
        assert_eq!(gate.ledger_total(), total);
        let after = gate.drops(&syn, Reason::NewFlow);
        assert_eq!(after.key.server, before.key.server, "the server keeps its id");
        assert_eq!(after.row.packets, 1 + u64::from(number));
        assert_eq!(after.row.first_ns, before.row.first_ns);
    }
}

#[test]
fn the_policy_that_decided_is_the_live_one() {
    let gate = TestGate::dmz();
    let syn = tcp((V4.web, 40_000), (V4.peer, 6667), SYN);
    for number in 1..=5 {
        let answer = gate.explain(&syn, false, None).unwrap();
        assert_eq!(answer.generation, number);
        assert_eq!(gate.live_settings().unwrap().unwrap().generation, u64::from(number));
        gate.swap(&reworded(number));
    }
}

#[test]
fn a_new_policy_holds_for_the_next_packet() {
    with_dmz_in_both_families(|gate, family| {
        let syn = tcp((family.web, 40_000), (family.peer, 8443), SYN);
        gate.drops(&syn, Reason::NewFlow);
        gate.swap(&POLICY.replace("\"tcp/6514 ", "\"tcp/8443\", \"tcp/6514 "));
        gate.passes(&syn, Reason::Need);
        gate.swap(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
        gate.would_drop(&syn, Reason::NewFlow);
        gate.swap(POLICY);
        gate.drops(&syn, Reason::NewFlow);
    });
}

#[test]
fn a_flow_lives_through_swaps_that_keep_its_service() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.to_server(&udp((family.peer, 51_000), (family.ns, 53)));
        gate.to_server(&echo_request(family.peer, family.web, 9));
        // more often than there are slots, with a packet in between or without
        for number in 1..=8 {
            gate.swap(&reworded(number));
            if number % 3 == 0 {
                continue;
            }
            gate.passes(&tcp(server, peer, ACK), Reason::Reply);
            gate.passes(&udp((family.ns, 53), (family.peer, 51_000)), Reason::Reply);
            gate.passes(&echo_reply(family.web, family.peer, 9), Reason::Reply);
        }
    });
}

#[test]
fn a_handshake_may_span_a_swap() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        let numbered = crate::support::frame::tcp_numbered;
        gate.to_server(&numbered(peer, server, SYN, (1000, 0)));
        gate.swap(&reworded(1));
        gate.passes(&numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        gate.swap(&reworded(2));
        gate.to_server(&numbered(peer, server, ACK, (1001, 5001)));
        gate.swap(&reworded(3));
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn a_flow_lives_when_its_service_moves_to_another_role() {
    let gate = TestGate::dmz();
    let moved = POLICY
        .replace("\"tcp/80\", ", "")
        .replace("[roles.managed]", "[roles.managed]\nin = [\"tcp/79-90\"]");
    in_both_families(|family| {
        gate.establish((family.web, 80), (family.peer, 51_000));
    });
    gate.swap(&moved);
    in_both_families(|family| {
        gate.passes(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::Reply);
    });
}

#[test]
fn a_revoked_service_ends_its_flows_at_once() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        gate.establish((family.web, 80), (family.peer, 51_000));
        gate.establish((family.web, 443), (family.peer, 51_000));
        gate.to_server(&tcp((family.peer, 51_001), (family.web, 80), SYN));
    });
    gate.swap(&POLICY.replace("\"tcp/80\", ", ""));
    in_both_families(|family| {
        gate.drops(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
        gate.passes(&tcp((family.web, 443), (family.peer, 51_000), ACK), Reason::Reply);
        // half-open ones as well: what answers now is a listener that should not be there
        let answer = tcp((family.web, 80), (family.peer, 51_001), SYN | ACK);
        let verdict = gate.explain(&answer, false, None).unwrap();
        assert!(matches!(verdict.reason, Some(Reason::NoFlow | Reason::UnlistedService)), "{verdict:?}");
        gate.drops(&answer, verdict.reason.unwrap());
    });
}

#[test]
fn a_revoked_service_of_datagrams_or_pings_ends_its_flows_at_once() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        gate.to_server(&udp((family.peer, 51_000), (family.ns, 53)));
        gate.to_server(&echo_request(family.peer, family.web, 9));
        gate.passes(&udp((family.ns, 53), (family.peer, 51_000)), Reason::Reply);
        gate.passes(&echo_reply(family.web, family.peer, 9), Reason::Reply);
    });
    let without = POLICY.replace("in  = [\"udp/53\", ", "in  = [");
    gate.swap(&without.replace(", \"icmp/echo-request\", \"icmpv6/echo-request\"", ""));
    in_both_families(|family| {
        let answer = udp((family.ns, 53), (family.peer, 51_000));
        let verdict = gate.explain(&answer, false, None).unwrap();
        assert!(matches!(verdict.reason, Some(Reason::NewFlow | Reason::UnlistedService)), "{verdict:?}");
        gate.drops(&answer, verdict.reason.unwrap());
        gate.drops(&echo_reply(family.web, family.peer, 9), Reason::Backscatter);
    });
}

#[test]
fn a_peer_that_from_no_longer_holds_loses_its_flows_at_once() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        gate.establish((family.web, 22), (family.bastion, 50_000));
    });
    gate.swap(
        &POLICY.replace("\"203.0.113.7\", \"2001:db8:f::/64\"", "\"203.0.113.8\", \"2001:db8:e::/64\""),
    );
    in_both_families(|family| {
        gate.drops(&tcp((family.web, 22), (family.bastion, 50_000), ACK), Reason::NoFlow);
    });
}

#[test]
fn a_flow_that_was_ended_does_not_come_back_with_its_service() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        gate.establish((family.web, 80), (family.peer, 51_000));
    });
    gate.swap(&POLICY.replace("\"tcp/80\", ", ""));
    in_both_families(|family| {
        gate.drops(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
    });
    gate.swap(POLICY);
    in_both_families(|family| {
        gate.drops(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
        gate.establish((family.web, 80), (family.peer, 51_000));
    });
}

#[test]
fn a_server_that_is_taken_out_is_an_unknown_source_and_keeps_its_id_if_it_returns() {
    let gate = TestGate::dmz();
    let id = gate.id_of("ns1");
    let (start, _) = POLICY.split_once("[servers.ns1]").unwrap();
    gate.swap(start);
    in_both_families(|family| {
        gate.drops(&udp((family.ns, 40_000), (family.peer, 53)), Reason::UnknownSource);
    });
    gate.swap(POLICY);
    assert_eq!(gate.id_of("ns1"), id);
    in_both_families(|family| {
        let row = gate.drops(&udp((family.ns, 40_000), (family.peer, 80)), Reason::NewFlow);
        assert_eq!(row.key.server, id);
    });
}

#[test]
fn tracking_can_change_with_the_policy() {
    let gate = TestGate::dmz();
    let service = POLICY.replace("[policy]", "[policy]\ntracking = \"service\"");
    in_both_families(|family| {
        let segment = tcp((family.web, 80), (family.peer, 51_000), ACK);
        gate.drops(&segment, Reason::NoFlow);
        gate.swap(&service);
        gate.passes(&segment, Reason::Reply);
        gate.swap(POLICY);
        gate.drops(&segment, Reason::NoFlow);
    });
}

#[test]
fn service_tracking_believes_nothing_that_strict_tracking_has_seen() {
    let gate = TestGate::dmz();
    let service = POLICY.replace("[policy]", "[policy]\ntracking = \"service\"");
    in_both_families(|family| {
        let answer = tcp((family.ns, 40_000), (family.peer, 53), SYN | ACK);
        gate.to_server(&tcp((family.peer, 53), (family.ns, 40_000), SYN));
        gate.drops(&answer, Reason::UnlistedService);
        gate.swap(&service);
        gate.passes(&answer, Reason::OwnConnection);
        gate.swap(POLICY);
    });
}

#[test]
fn a_swap_writes_into_no_flow() {
    let gate = TestGate::dmz();
    gate.establish((V4.web, 80), (V4.peer, 51_000));
    let times = || {
        let flows: Vec<(portcullis::abi::flow_key, flow)> = gate.entries("established");
        flows.iter().map(|(_, flow)| flow.last_ns).collect::<Vec<_>>()
    };
    let before = times();
    gate.swap(&reworded(1));
    assert_eq!((before.len(), times()), (1, before.clone()));
}

#[test]
fn a_swap_that_keeps_a_service_keeps_the_flow_of_a_host_without_an_address() {
    let gate = TestGate::dmz();
    let peer = crate::support::dmz::ip("::");
    gate.to_server(&udp((peer, 51_000), (V6.ns, 53)));
    gate.swap(&reworded(1));
    gate.passes(&udp((V6.ns, 53), (peer, 51_000)), Reason::Reply);
}
