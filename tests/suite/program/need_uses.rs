//! How often each need was used: exactly, whichever path and CPU a packet takes, and across policies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portcullis::abi::Reason;
use portcullis::gate::{NeedUse, UseCount};

use super::fast_path::opening;
use crate::support::cpu::{allowed_cpus, on_cpu};
use crate::support::dmz::{V4, V6, in_both_families};
use crate::support::frame::{ACK, Endpoint, PSH, RST, SYN, echo_reply, echo_request, tcp, tcp_numbered, udp};
use crate::support::test_gate::TestGate;

const POLICY: &str = r#"
[policy]
management = ["tcp/22 from 203.0.113.0/24, 2001:db8:50::/64"]

[roles.web]
in    = ["tcp/80", "udp/53", "icmp/echo-request", "icmpv6/echo-request"]
out   = ["tcp/25", "udp/123", "tcp/113 limit 2/m", "tcp/113 limit 1/m"]
quiet = ["tcp/445"]

[roles.other]
in  = ["tcp/8080"]
out = ["tcp/25"]

[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["web"]

[servers.web2]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = ["other"]
"#;

fn count_of(gate: &TestGate, role: &str, need: &str) -> Option<UseCount> {
    let is_it = |row: &&NeedUse| row.role.as_deref().unwrap_or_default() == role && row.need == need;
    gate.need_uses().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("no {need} of {role}")).count
}

fn uses(gate: &TestGate, role: &str, need: &str) -> u64 {
    count_of(gate, role, need).expect("a count").uses
}

/// Needs that were used, with how often.
fn used(gate: &TestGate) -> BTreeMap<String, u64> {
    let rows = gate.need_uses().unwrap().into_iter();
    let name = |row: &NeedUse| format!("{} {}", row.role.as_deref().unwrap_or("-"), row.need);
    rows.filter_map(|row| Some((name(&row), row.count?.uses))).filter(|(_, uses)| *uses > 0).collect()
}

fn expect(gate: &TestGate, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> =
        expected.iter().map(|(need, uses)| ((*need).to_owned(), *uses)).collect();
    assert_eq!(used(gate), expected);
}

#[test]
fn every_packet_of_a_server_that_opens_is_one_use_of_its_need() {
    in_both_families(|family| {
        let gate = TestGate::new(POLICY);
        let server = |port| (family.web, port);
        // by the full path, then by a cached verdict
        for port in 40_000..40_007 {
            gate.passes(&tcp(server(port), (family.peer, 25), SYN), Reason::Need);
        }
        expect(&gate, &[("web tcp/25", 7)]);
        // what goes on in a connection is no opening
        for flags in [ACK, ACK | PSH, RST] {
            gate.passes(&tcp(server(40_000), (family.peer, 25), flags), Reason::OwnConnection);
        }
        gate.passes(&udp(server(123), (family.peer, 123)), Reason::Need);
        gate.passes(&udp(server(123), (family.peer, 123)), Reason::Need);
        gate.drops(&udp(server(123), (family.peer, 124)), Reason::NewFlow);
        gate.drops(&tcp(server(1), (family.peer, 445), SYN), Reason::NewFlow);
        expect(&gate, &[("web tcp/25", 7), ("web udp/123", 2)]);
        // two limits hold for one port: each counts what passed by it
        for port in 0..3 {
            gate.passes(&tcp(server(50_000 + port), (family.peer, 113), SYN), Reason::Need);
        }
        gate.drops(&tcp(server(50_009), (family.peer, 113), SYN), Reason::Rate);
        // and the same need of another role is another one
        gate.passes(&tcp((family.ns, 40_000), (family.peer, 25), SYN), Reason::Need);
        expect(
            &gate,
            &[
                ("other tcp/25", 1),
                ("web tcp/113 limit 1/m", 1),
                ("web tcp/113 limit 2/m", 2),
                ("web tcp/25", 7),
                ("web udp/123", 2),
            ],
        );
    });
}

#[test]
fn a_peers_opening_is_a_use_once_the_server_has_answered_it() {
    in_both_families(|family| {
        let gate = TestGate::new(POLICY);
        let (service, peer) = ((family.web, 80), (family.peer, 51_000));
        // a SYN alone is none, however often, and neither is the SYN+ACK
        for _ in 0..3 {
            gate.to_server(&tcp_numbered(peer, service, SYN, (1000, 0)));
        }
        gate.passes(&tcp_numbered(service, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        gate.passes(&tcp_numbered(service, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        expect(&gate, &[]);
        for _ in 0..3 {
            gate.to_server(&tcp_numbered(peer, service, ACK, (1001, 5001)));
        }
        expect(&gate, &[("web tcp/80", 1)]);
        for _ in 0..3 {
            gate.passes(&tcp(service, peer, ACK), Reason::Reply);
        }
        gate.establish((family.web, 22), (family.peer, 51_001));
        expect(&gate, &[(&management(), 1), ("web tcp/80", 1)]);

        // of datagrams the first answer, on the fast path too
        for port in 40_000..40_003 {
            let (service, peer) = ((family.web, 53), (family.peer, port));
            gate.to_server(&udp(peer, service));
            gate.to_server(&udp(peer, service));
            for _ in 0..3 {
                gate.passes(&udp(service, peer), Reason::Reply);
            }
        }
        expect(&gate, &[(&management(), 1), ("web tcp/80", 1), ("web udp/53", 3)]);
        // to what is no service, or to a stranger, nothing is used
        gate.to_server(&tcp(peer, (family.web, 81), SYN));
        gate.drops(&tcp((family.web, 81), peer, SYN | ACK), Reason::UnlistedService);
        expect(&gate, &[(&management(), 1), ("web tcp/80", 1), ("web udp/53", 3)]);
    });
}

fn management() -> String {
    "- tcp/22 from 203.0.113.0/24, 2001:db8:50::/64".to_owned()
}

#[test]
fn in_service_tracking_each_acceptance_and_each_datagram_is_a_use() {
    in_both_families(|family| {
        let gate = TestGate::new(&POLICY.replace("[policy]", "[policy]\ntracking = \"service\""));
        let (service, peer): (Endpoint, Endpoint) = ((family.web, 80), (family.peer, 51_000));
        gate.passes(&tcp(service, peer, SYN | ACK), Reason::Reply);
        gate.passes(&tcp(service, peer, ACK), Reason::Reply);
        gate.passes(&udp((family.web, 53), peer), Reason::Reply);
        gate.passes(&udp((family.web, 53), peer), Reason::Reply);
        expect(&gate, &[("web tcp/80", 1), ("web udp/53", 2)]);
    });
}

#[test]
fn a_question_of_explain_is_no_use() {
    let gate = TestGate::new(POLICY);
    gate.explain(&opening(V4.web, V4.peer, 25), false, None).unwrap();
    gate.explain(&tcp((V4.web, 80), (V4.peer, 51_000), SYN | ACK), true, None).unwrap();
    expect(&gate, &[]);
}

#[test]
fn the_last_use_is_that_of_the_last_packet_and_not_of_the_opening_alone() {
    let gate = TestGate::new(POLICY);
    let (server, peer) = ((V4.web, 40_000), (V4.peer, 25));
    let last = || count_of(&gate, "web", "tcp/25").and_then(|count| count.last_used);
    assert_eq!(last(), None);
    gate.passes(&tcp(server, peer, SYN), Reason::Need);
    let opened = last().expect("a time");
    let now = portcullis::clock::wall_now();
    assert!(now.duration_since(opened).as_secs() < 60, "{opened} is not now, {now}");
    // the programs' clock ticks
    while last() <= Some(opened) {
        gate.passes(&tcp(server, peer, ACK), Reason::OwnConnection);
    }
    // and of a peer's flow, once a second
    gate.establish((V4.web, 80), (V4.peer, 51_000));
    let last = || count_of(&gate, "web", "tcp/80").and_then(|count| count.last_used);
    let opened = last();
    while last() <= opened {
        gate.age_ns("established", 2_000_000_000);
        gate.passes(&tcp((V4.web, 80), (V4.peer, 51_000), ACK), Reason::Reply);
    }
    assert_eq!(uses(&gate, "web", "tcp/80"), 1);
}

#[test]
fn an_unchanged_need_keeps_its_count_through_policies_and_a_new_one_begins_at_none() {
    let gate = TestGate::new(POLICY);
    let syn = |port| tcp((V4.web, port), (V4.peer, 25), SYN);
    gate.passes(&syn(40_000), Reason::Need);
    let before = count_of(&gate, "web", "tcp/25").unwrap();
    // other rule numbers, other lines
    let longer = format!("[roles.first]\nin = [\"tcp/1\", \"tcp/2\"]\n\n{POLICY}");
    gate.swap(&longer);
    let after = count_of(&gate, "web", "tcp/25").unwrap();
    assert_eq!((after.uses, after.counted_since), (1, before.counted_since));
    assert_eq!(after.live_since, before.live_since);
    gate.passes(&syn(40_001), Reason::Need);
    assert_eq!(uses(&gate, "web", "tcp/25"), 2);
    assert_eq!(uses(&gate, "first", "tcp/1"), 0);
    // gone, and back again: its count is still there, but nobody could have used it in between
    gate.swap(&POLICY.replace("\"tcp/25\", \"udp/123\"", "\"udp/123\""));
    gate.drops(&syn(40_002), Reason::NewFlow);
    gate.swap(POLICY);
    let after = count_of(&gate, "web", "tcp/25").unwrap();
    assert_eq!((after.uses, after.counted_since), (2, before.counted_since));
    assert!(after.live_since >= before.live_since);
    // a need of other words is another one
    gate.swap(&POLICY.replace("\"tcp/25\", \"udp/123\"", "\"tcp/25 to 203.0.113.0/24\""));
    assert_eq!(uses(&gate, "web", "tcp/25 to 203.0.113.0/24"), 0);
}

#[test]
fn two_needs_that_say_the_same_are_reported_apart_by_their_order() {
    let text = POLICY.replace("out = [\"tcp/25\"]", "out = [\"tcp/25\", \"tcp/25\"]");
    let gate = TestGate::new(&text);
    let rows = gate.need_uses().unwrap();
    let same: Vec<&NeedUse> =
        rows.iter().filter(|row| row.role.as_deref() == Some("other") && row.need == "tcp/25").collect();
    assert_eq!(same.len(), 2);
    gate.passes(&opening(V6.ns, V6.peer, 25), Reason::Need);
    let rows = gate.need_uses().unwrap();
    let counts: Vec<u64> = rows
        .iter()
        .filter(|row| row.role.as_deref() == Some("other") && row.need == "tcp/25")
        .map(|row| row.count.unwrap().uses)
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 1, "{counts:?}");
}

#[test]
fn quiet_needs_are_listed_without_a_count() {
    let gate = TestGate::new(POLICY);
    gate.drops(&opening(V4.web, V4.peer, 445), Reason::NewFlow);
    assert_eq!(count_of(&gate, "web", "tcp/445"), None);
}

/// Openings on every CPU while another policy takes effect again and again.
#[test]
fn no_use_is_lost_on_several_cpus_while_policies_change() {
    let gate = TestGate::new(POLICY);
    let longer = format!("[roles.first]\nin = [\"tcp/1\", \"tcp/2\"]\n\n{POLICY}");
    let sent = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cpu in allowed_cpus() {
            let (gate, sent, done) = (&gate, &sent, &done);
            scope.spawn(move || {
                on_cpu(cpu, || {
                    while !done.load(Ordering::Relaxed) {
                        gate.programs.run_filter(&opening(V4.web, V4.peer, 25), 100).expect("a run");
                        gate.programs.run_filter(&udp((V4.web, 123), (V4.peer, 123)), 10).expect("a run");
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        for _ in 0..6 {
            gate.swap(&longer);
            gate.swap(POLICY);
        }
        done.store(true, Ordering::Relaxed);
    });
    let rounds = sent.load(Ordering::Relaxed);
    assert!(rounds > 0);
    expect(&gate, &[("web tcp/25", 100 * rounds), ("web udp/123", 10 * rounds)]);
}

#[test]
fn a_ping_of_a_peer_is_a_use_once_it_is_answered() {
    in_both_families(|family| {
        let gate = TestGate::new(POLICY);
        gate.to_server(&echo_request(family.peer, family.web, 77));
        expect(&gate, &[]);
        for _ in 0..3 {
            gate.passes(&echo_reply(family.web, family.peer, 77), Reason::Reply);
        }
        let need = if family.web.is_ipv4() { "web icmp/echo-request" } else { "web icmpv6/echo-request" };
        expect(&gate, &[(need, 1)]);
    });
}
