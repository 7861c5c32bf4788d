//! Edits: what `allow` adds to a server and `deny` takes away, beside the policy and for a time.

use portcullis::abi::Reason;
use portcullis::gate::FlowTable;

use crate::support::dmz::{POLICY, V4, V6, in_both_families};
use crate::support::frame::{
    ACK, FIN, PSH, RST, SYN, TCP, UDP, echo_reply, echo_request, fragment, icmp_protocol, raw_ip, tcp,
    tcp_header, udp, udp_datagram, unreachable,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

#[test]
fn what_an_edit_allows_a_server_to_open_passes_and_nothing_beside_it() {
    with_dmz_in_both_families(|gate, family| {
        let (web, peer) = ((family.web, 40_000), (family.peer, 443));
        let frames = [tcp(web, peer, SYN), tcp(web, peer, ACK)];
        let refused = [Reason::NewFlow, Reason::NoFlow];
        for (frame, reason) in frames.iter().zip(refused) {
            gate.drops(frame, reason);
        }
        gate.allow("web1", "out", &format!("tcp/443 to {}", family.peer));
        for (frame, reason) in frames.iter().zip([Reason::Need, Reason::OwnConnection]) {
            gate.passes(frame, reason);
            gate.passes(frame, reason);
        }
        // another destination, port, protocol, server
        gate.drops(&tcp(web, (family.other, 443), SYN), Reason::NewFlow);
        gate.drops(&tcp(web, (family.peer, 444), SYN), Reason::NewFlow);
        gate.drops(&udp(web, peer), Reason::NewFlow);
        gate.drops(&tcp((family.ns, 40_000), peer, SYN), Reason::NewFlow);
        gate.end_time_of_edits();
        for (frame, reason) in frames.iter().zip(refused) {
            gate.drops(frame, reason);
        }
    });
}

#[test]
fn an_edit_that_is_cancelled_ends_with_the_same_packet() {
    with_dmz_in_both_families(|gate, family| {
        let frame = tcp((family.web, 40_000), (family.peer, 443), SYN);
        let number = gate.allow("web1", "out", "tcp/443");
        let other = gate.allow("web1", "out", "tcp/80");
        assert!(other > number);
        gate.passes(&frame, Reason::Need);
        assert_eq!(gate.cancel_edit(number).unwrap().map(|edit| edit.number), Some(number));
        gate.drops(&frame, Reason::NewFlow);
        assert_eq!(gate.cancel_edit(number).unwrap(), None);
        gate.passes(&tcp((family.web, 40_000), (family.peer, 80), SYN), Reason::Need);
        gate.cancel_edit(other).unwrap();
        assert_eq!(gate.edits().unwrap(), []);
        gate.drops(&tcp((family.web, 40_000), (family.peer, 80), SYN), Reason::NewFlow);
        assert!(gate.allow("web1", "out", "tcp/443") > other, "a number comes once");
    });
}

#[test]
fn a_verdict_that_was_cached_before_an_edit_does_not_outlive_its_beginning_or_its_end() {
    let gate = TestGate::new(&POLICY.replace("out = [\"udp/53\"", "out = [\"tcp/25\", \"udp/53\""));
    in_both_families(|family| {
        let allowed = tcp((family.web, 40_000), (family.peer, 443), SYN);
        let denied = tcp((family.ns, 40_000), (family.peer, 25), SYN);
        for _ in 0..3 {
            gate.drops(&allowed, Reason::NewFlow);
            gate.passes(&denied, Reason::Need);
        }
        gate.allow("web1", "out", "tcp/443");
        gate.deny("ns1", "out", &format!("tcp/25 to {}", family.peer));
        for _ in 0..3 {
            gate.passes(&allowed, Reason::Need);
            gate.drops(&denied, Reason::Denied);
            gate.passes(&tcp((family.ns, 40_000), (family.other, 25), SYN), Reason::Need);
        }
        gate.end_time_of_edits();
        for _ in 0..3 {
            gate.drops(&allowed, Reason::NewFlow);
            gate.passes(&denied, Reason::Need);
        }
        for edit in gate.edits().unwrap() {
            gate.cancel_edit(edit.number).unwrap();
        }
    });
}

#[test]
fn an_edit_opens_its_port_also_where_the_server_has_used_up_its_rows() {
    let gate = TestGate::sized(POLICY, &[("ledger", 256)]);
    for port in 1..2000 {
        let run = gate.programs.run_filter(&tcp((V4.web, 40_000), (V4.peer, port), SYN), 1).unwrap();
        assert_eq!(run.action, 1);
    }
    gate.allow("web1", "out", &format!("tcp/5555 to {}", V4.peer));
    // another opening notes again that the quota is used up
    for port in [3001, 3002, 3003] {
        gate.programs.run_filter(&tcp((V4.web, 40_000), (V4.peer, port), SYN), 1).unwrap();
    }
    gate.passes(&tcp((V4.web, 40_000), (V4.peer, 5555), SYN), Reason::Need);
    gate.drops(&tcp((V4.web, 40_000), (V4.other, 5555), SYN), Reason::NewFlow);
}

#[test]
fn a_flow_that_peers_open_under_an_edit_ends_with_it() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 8080), (family.peer, 51_000));
        gate.allow("web1", "in", "tcp/8080");
        gate.establish(server, peer);
        for flags in [ACK, PSH | ACK, ACK] {
            gate.passes(&tcp(server, peer, flags), Reason::Reply);
        }
        // half-open
        let late = (family.peer, 51_001);
        gate.to_server(&tcp(late, server, SYN));
        gate.passes(&tcp(server, late, SYN | ACK), Reason::Reply);
        gate.end_time_of_edits();
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        gate.drops(&tcp(server, peer, PSH | ACK), Reason::NoFlow);
        gate.drops(&tcp(server, late, SYN | ACK), Reason::NoFlow);
        assert!(gate.has_flow(FlowTable::Established, server, peer), "the flow itself is still there");
        // the same edit again, and the connection goes on
        gate.allow("web1", "in", "tcp/8080");
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn an_edit_for_some_peers_is_no_service_for_others() {
    with_dmz_in_both_families(|gate, family| {
        gate.allow("web1", "in", &format!("tcp/8000-8100 from {}", family.bastion));
        gate.establish((family.web, 8050), (family.bastion, 51_000));
        gate.to_server(&tcp((family.peer, 51_000), (family.web, 8050), SYN));
        gate.drops(&tcp((family.web, 8050), (family.peer, 51_000), SYN | ACK), Reason::UnlistedService);
        gate.to_server(&tcp((family.bastion, 51_000), (family.web, 8101), SYN));
        gate.drops(&tcp((family.web, 8101), (family.bastion, 51_000), SYN | ACK), Reason::UnlistedService);
    });
}

#[test]
fn datagrams_and_pings_follow_edits_too() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 69), (family.peer, 51_000));
        let ping = if family.web.is_ipv4() { "icmp/echo-request" } else { "icmpv6/echo-request" };
        gate.allow("web1", "in", "udp/69");
        gate.allow("ns1", "in", ping);
        gate.allow("ns1", "out", "gre");
        gate.allow("ns1", "out", ping);
        gate.to_server(&udp(peer, server));
        gate.passes(&udp(server, peer), Reason::Reply);
        gate.to_server(&echo_request(family.peer, family.ns, 7));
        gate.passes(&echo_reply(family.ns, family.peer, 7), Reason::Reply);
        gate.passes(&echo_request(family.ns, family.peer, 8), Reason::Need);
        gate.passes(&raw_ip(family.ns, family.peer, 47, &[0; 8]), Reason::Need);
        // an error about the peer's datagram
        gate.passes(&unreachable(family.web, family.peer, &udp(peer, server)[14..]), Reason::FlowError);
        gate.end_time_of_edits();
        gate.drops(&unreachable(family.web, family.peer, &udp(peer, server)[14..]), Reason::Backscatter);
        gate.drops(&udp(server, peer), Reason::NewFlow);
        gate.drops(&echo_reply(family.ns, family.peer, 7), Reason::Backscatter);
        gate.drops(&echo_request(family.ns, family.peer, 8), Reason::NewFlow);
        gate.drops(&raw_ip(family.ns, family.peer, 47, &[0; 8]), Reason::Protocol);
        let _ = icmp_protocol(family.ns);
    });
}

#[test]
fn an_answer_to_what_an_edit_lets_a_server_ask_reveals_no_listener() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 40_000), (family.peer, 123));
        gate.allow("web1", "out", "udp/123");
        gate.passes(&udp(server, peer), Reason::Need);
        gate.to_server(&udp(peer, server));
        gate.end_time_of_edits();
        gate.drops(&udp(server, peer), Reason::NewFlow);
    });
}

#[test]
fn a_denial_goes_before_the_policy_and_cuts_open_flows_at_once() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        let other = (family.other, 51_000);
        gate.establish(server, peer);
        gate.establish(server, other);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        let number = gate.deny("web1", "in", &format!("tcp/80 from {}", family.peer));
        for flags in [ACK, PSH | ACK, FIN | ACK] {
            let row = gate.drops(&tcp(server, peer, flags), Reason::Denied);
            assert_eq!((row.key.port, u32::from(row.key.flags) & 4), (80, 4), "under the server's own port");
        }
        gate.passes(&tcp(server, other, ACK), Reason::Reply);
        // a new one
        let next = (family.peer, 51_001);
        gate.to_server(&tcp(next, server, SYN));
        gate.drops(&tcp(server, next, SYN | ACK), Reason::Denied);
        gate.drops(&tcp(server, next, RST | ACK), Reason::Denied);
        assert_eq!(gate.explain(&tcp(server, peer, ACK), false, None).unwrap().edit, Some(number));
        gate.end_time_of_edits();
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.passes(&tcp(server, next, SYN | ACK), Reason::Reply);
    });
}

#[test]
fn a_denial_cuts_off_what_the_server_opened_and_a_longer_one_goes_first() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.ns, 40_000), (family.peer, 53));
        let frames = [tcp(server, peer, SYN), tcp(server, peer, ACK)];
        gate.passes(&frames[0], Reason::Need);
        gate.passes(&frames[1], Reason::OwnConnection);
        gate.allow("ns1", "out", "tcp/53");
        let number = gate.deny("ns1", "out", "tcp/1-1000");
        for frame in &frames {
            gate.drops(frame, Reason::Denied);
            assert_eq!(gate.explain(frame, false, None).unwrap().edit, Some(number));
        }
        // what nothing permits keeps its own reason, and its alarm
        gate.drops(&tcp(server, (family.peer, 25), SYN), Reason::NewFlow);
        gate.passes(&udp(server, peer), Reason::Need);
    });
}

#[test]
fn a_denial_beats_an_allowance_of_the_same_flow_and_names_itself() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 8080), (family.peer, 51_000));
        gate.allow("web1", "in", "tcp/8080");
        gate.establish(server, peer);
        let denial = gate.deny("web1", "in", &format!("tcp/8080 from {}", family.peer));
        gate.drops(&tcp(server, peer, ACK), Reason::Denied);
        gate.cancel_edit(denial).unwrap();
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn an_allowance_counts_for_nothing_in_quarantine_and_a_denial_cuts_off_the_management() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 8080), (family.peer, 51_000));
        let (ssh, bastion) = ((family.web, 22), (family.bastion, 50_000));
        gate.allow("web1", "in", "tcp/8080");
        gate.allow("web1", "out", "tcp/443");
        gate.establish(server, peer);
        gate.establish(ssh, bastion);
        gate.quarantine("web1", None).unwrap();
        gate.drops(&tcp(server, peer, ACK), Reason::Quarantined);
        gate.drops(&tcp((family.web, 40_000), (family.peer, 443), SYN), Reason::Quarantined);
        gate.passes(&tcp(ssh, bastion, ACK), Reason::Reply);
        gate.deny("web1", "in", "tcp/22");
        gate.drops(&tcp(ssh, bastion, ACK), Reason::Quarantined);
        gate.release("web1").unwrap();
        gate.drops(&tcp(ssh, bastion, ACK), Reason::Denied);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn later_fragments_end_with_the_edit_that_let_the_first_one_pass() {
    with_dmz_in_both_families(|gate, family| {
        let datagram = udp_datagram((family.web, 40_000), (family.peer, 5000), &[0; 16]);
        let first = |id| fragment(family.web, family.peer, UDP, (id, 0, true), &datagram);
        let later = |id| fragment(family.web, family.peer, UDP, (id, 3, false), &[0; 16]);
        gate.allow("web1", "out", "udp/5000");
        gate.passes(&first(1), Reason::Need);
        gate.passes(&later(1), Reason::LaterFragment);
        gate.end_time_of_edits();
        let row = gate.drops(&later(1), Reason::Fragment);
        assert_eq!(u32::from(row.key.flags) & 1, 1, "expected, so quietly");
        // cancelled
        let number = gate.allow("web1", "out", "udp/5000");
        gate.passes(&first(2), Reason::Need);
        gate.cancel_edit(number).unwrap();
        gate.drops(&later(2), Reason::Fragment);
    });
}

#[test]
fn a_denial_cuts_off_the_rest_of_a_datagram_whose_first_fragment_passed() {
    with_dmz_in_both_families(|gate, family| {
        let datagram = udp_datagram((family.ns, 40_000), (family.peer, 53), &[0; 16]);
        gate.passes(&fragment(family.ns, family.peer, UDP, (1, 0, true), &datagram), Reason::Need);
        gate.deny("ns1", "out", "udp/53");
        gate.drops(&fragment(family.ns, family.peer, UDP, (1, 3, false), &[0; 16]), Reason::Fragment);
        let mut segment = tcp_header((family.ns, 40_000), (family.peer, 53), ACK, (1, 1));
        segment.extend_from_slice(&[0; 4]);
        gate.deny("ns1", "out", "tcp/53");
        gate.drops(&fragment(family.ns, family.peer, TCP, (2, 0, true), &segment), Reason::Denied);
        gate.drops(&fragment(family.ns, family.peer, TCP, (2, 3, false), &[0; 16]), Reason::Denied);
    });
}

#[test]
fn an_edit_survives_other_policies_and_ends_with_its_server() {
    let gate = TestGate::dmz();
    let (server, peer) = ((V4.web, 8080), (V4.peer, 51_000));
    gate.allow("web1", "in", "tcp/8080");
    gate.allow("ns1", "out", "tcp/443");
    gate.establish(server, peer);
    gate.swap(&POLICY.replace("\"tcp/80\", ", ""));
    gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    gate.passes(&tcp((V6.ns, 40_000), (V6.peer, 443), SYN), Reason::Need);
    gate.swap(&POLICY.replace("[servers.web1]", "[servers.web2]"));
    gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    gate.passes(&tcp((V6.ns, 40_000), (V6.peer, 443), SYN), Reason::Need);
    assert_eq!(gate.edits().unwrap().len(), 1);
    // whoever gets the name next gets no edit with it
    gate.swap(POLICY);
    gate.drops(&tcp((V4.web, 8080), (V4.peer, 51_000), ACK), Reason::NoFlow);
}

#[test]
fn a_service_that_the_policy_takes_over_from_an_edit_outlives_it() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 8080), (family.peer, 51_000));
        gate.allow("web1", "in", "tcp/8080");
        gate.establish(server, peer);
        gate.swap(&POLICY.replace("\"tcp/80\", ", "\"tcp/80\", \"tcp/8080\", "));
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.end_time_of_edits();
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        assert_eq!(gate.explain(&tcp(server, peer, ACK), false, None).unwrap().edit, None);
    });
}

#[test]
fn an_allowance_lifts_the_limit_of_a_need() {
    let gate = TestGate::new(&POLICY.replace("out = [\"udp/53\"", "out = [\"tcp/25 limit 1/m\", \"udp/53\""));
    let frame = tcp((V4.ns, 40_000), (V4.peer, 25), SYN);
    gate.passes(&frame, Reason::Need);
    gate.drops(&frame, Reason::Rate);
    gate.allow("ns1", "out", &format!("tcp/25 to {}", V4.peer));
    gate.passes(&frame, Reason::Need);
    gate.passes(&frame, Reason::Need);
    gate.drops(&tcp((V4.ns, 40_000), (V4.other, 25), SYN), Reason::Rate);
    gate.end_time_of_edits();
    gate.drops(&frame, Reason::Rate);
}

#[test]
fn what_is_denied_passes_in_observe_and_is_counted() {
    let gate = TestGate::new(&POLICY.replace("[policy]\n", "[policy]\nmode = \"observe\"\n"));
    gate.deny("ns1", "out", "udp/53");
    let row = gate.would_drop(&udp((V4.ns, 40_000), (V4.peer, 53)), Reason::Denied);
    assert_eq!(row.key.port, 53);
}

#[test]
fn service_tracking_asks_the_edits_too() {
    let gate = TestGate::new(&POLICY.replace("[policy]\n", "[policy]\ntracking = \"service\"\n"));
    in_both_families(|family| {
        let (server, peer) = ((family.web, 8080), (family.peer, 51_000));
        let number = gate.allow("web1", "in", "tcp/8080");
        gate.passes(&tcp(server, peer, SYN | ACK), Reason::Reply);
        let denial = gate.deny("web1", "in", "tcp/80");
        gate.drops(&tcp((family.web, 80), peer, ACK), Reason::Denied);
        gate.cancel_edit(number).unwrap();
        gate.cancel_edit(denial).unwrap();
        gate.drops(&tcp(server, peer, SYN | ACK), Reason::UnlistedService);
        gate.passes(&tcp((family.web, 80), peer, ACK), Reason::Reply);
    });
}

#[test]
fn a_set_and_a_server_as_peers_are_those_of_the_time_when_the_edit_was_made() {
    let gate = TestGate::dmz();
    gate.allow("web1", "out", "tcp/443 to @loghosts, ns1");
    in_both_families(|family| {
        gate.passes(&tcp((family.web, 40_000), (family.loghost, 443), SYN), Reason::Need);
        gate.passes(&tcp((family.web, 40_000), (family.ns, 443), SYN), Reason::Need);
        gate.drops(&tcp((family.web, 40_000), (family.bastion, 443), SYN), Reason::NewFlow);
    });
    gate.swap(&POLICY.replace("loghosts = [\"198.51.100.20\"", "loghosts = [\"203.0.113.7\""));
    gate.passes(&tcp((V4.web, 40_000), (V4.loghost, 443), SYN), Reason::Need);
    gate.drops(&tcp((V4.web, 40_000), (V4.bastion, 443), SYN), Reason::NewFlow);
}

#[test]
fn what_asks_under_an_edit_is_taken_over_by_pickup_and_not_beyond_it() {
    let gate = TestGate::dmz();
    let (server, peer) = ((V4.web, 8080), (V4.peer, 51_000));
    gate.allow("web1", "in", "tcp/8080");
    gate.set_pickup(60);
    gate.passes(&tcp(server, peer, ACK), Reason::Pickup);
    gate.set_pickup(-1);
    gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    gate.end_time_of_edits();
    gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
}
