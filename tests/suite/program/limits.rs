//! Row 10: the `limit` of an `out` need.

use libbpf_rs::MapCore;
use portcullis::abi::Reason;
use portcullis::abi::{limit, limit_key};
use portcullis::clock::now_ns;

use crate::support::dmz::{V4, V6, in_both_families, ip};
use crate::support::frame::{ACK, RST, SYN, from_mac, tcp, udp};
use crate::support::test_gate::{SECOND_NS, TestGate};

const POLICY: &str = r#"
[roles.mail]
out = ["tcp/25 limit 3/m", "tcp/113", "tcp/587 to 198.51.100.0/24 limit 1/m"]

[roles.resolver]
out = ["udp/53 limit 2/m"]

[servers.mx1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
mac = "02:00:00:00:00:10"
roles = ["mail", "resolver"]

[servers.mx2]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = ["mail", "resolver"]

[servers.farm]
addresses = ["192.0.2.128/26"]
roles = ["mail"]
"#;

/// A SYN to somebody's mail server, from mx1 or mx2.
fn mail(from: std::net::IpAddr, port: u16) -> Vec<u8> {
    let to = if from.is_ipv4() { V4.peer } else { V6.peer };
    tcp((from, port), (to, 25), SYN)
}

#[test]
fn as_many_flows_as_the_limit_says_pass_and_the_next_is_dropped() {
    let gate = TestGate::new(POLICY);
    for port in [40_000, 40_001, 40_002] {
        gate.passes(&mail(V4.web, port), Reason::Need);
    }
    for port in [40_003, 40_000] {
        let row = gate.drops(&mail(V4.web, port), Reason::Rate);
        assert_eq!((row.key.server, row.key.protocol, row.key.port), (gate.id_of("mx1"), 6, 25));
    }
    // what has no limit goes on, and so does another need's
    gate.passes(&tcp((V4.web, 40_000), (V4.peer, 113), SYN), Reason::Need);
    gate.passes(&udp((V4.web, 40_000), (V4.peer, 53)), Reason::Need);
}

#[test]
fn a_missing_token_bucket_counts_as_empty() {
    let gate = TestGate::new(POLICY);
    gate.passes(&mail(V4.web, 40_000), Reason::Need);
    for (key, _) in gate.entries::<limit_key, limit>("limits") {
        // SAFETY: plain data, without padding
        let key = unsafe { plain::as_bytes(&key) };
        gate.maps.limits.handle().delete(key).unwrap();
    }
    gate.drops(&mail(V4.web, 40_001), Reason::Rate);
    gate.passes(&tcp((V4.web, 40_000), (V4.peer, 113), SYN), Reason::Need);
}

#[test]
fn every_datagram_counts() {
    let gate = TestGate::new(POLICY);
    let question = udp((V4.web, 40_000), (V4.peer, 53));
    gate.passes(&question, Reason::Need);
    gate.passes(&question, Reason::Need);
    gate.drops(&question, Reason::Rate);
    gate.passes(&mail(V4.web, 40_000), Reason::Need);
}

#[test]
fn a_limit_is_each_servers_own_over_all_of_its_addresses() {
    let gate = TestGate::new(POLICY);
    gate.passes(&mail(V4.web, 40_000), Reason::Need);
    gate.passes(&mail(V6.web, 40_000), Reason::Need);
    gate.passes(&mail(V4.web, 40_001), Reason::Need);
    gate.drops(&mail(V6.web, 40_001), Reason::Rate);
    gate.drops(&mail(V4.web, 40_002), Reason::Rate);
    for port in [40_000, 40_001, 40_002] {
        gate.passes(&mail(V6.ns, port), Reason::Need);
    }
    gate.drops(&mail(V4.ns, 40_003), Reason::Rate);
    for host in ["192.0.2.130", "192.0.2.131", "192.0.2.132"] {
        gate.passes(&mail(ip(host), 40_000), Reason::Need);
    }
    gate.drops(&mail(ip("192.0.2.133"), 40_000), Reason::Rate);
}

#[test]
fn only_what_opens_a_flow_counts() {
    let gate = TestGate::new(POLICY);
    for _ in 0..5 {
        for flags in [ACK, RST, SYN | ACK] {
            gate.passes(&tcp((V4.web, 40_000), (V4.peer, 25), flags), Reason::OwnConnection);
        }
    }
    for port in [40_000, 40_001, 40_002] {
        gate.passes(&mail(V4.web, port), Reason::Need);
    }
    gate.drops(&mail(V4.web, 40_003), Reason::Rate);
    // and the connections that are open stay so
    gate.passes(&tcp((V4.web, 40_000), (V4.peer, 25), ACK), Reason::OwnConnection);
}

#[test]
fn what_is_dropped_spends_nothing() {
    let gate = TestGate::new(POLICY);
    in_both_families(|family| {
        for _ in 0..3 {
            gate.drops(&from_mac(&mail(family.web, 40_000), [2, 0, 0, 0, 0, 0x66]), Reason::Spoofed);
            gate.drops(&tcp((family.web, 40_000), (family.peer, 587), SYN), Reason::Destination);
        }
    });
    gate.quarantine("mx1", None).unwrap();
    gate.drops(&mail(V4.web, 40_000), Reason::Quarantined);
    gate.release("mx1").unwrap();
    for port in [40_000, 40_001, 40_002] {
        gate.passes(&mail(V4.web, port), Reason::Need);
    }
    // being too fast does not make one wait any longer
    for _ in 0..20 {
        gate.drops(&mail(V4.web, 40_003), Reason::Rate);
    }
    gate.age("limits", 20);
    gate.passes(&mail(V4.web, 40_003), Reason::Need);
}

#[test]
fn a_limit_per_minute_gives_back_one_flow_at_a_time() {
    let gate = TestGate::new(POLICY);
    for port in [40_000, 40_001, 40_002] {
        gate.passes(&mail(V4.web, port), Reason::Need);
    }
    // three a minute: one in twenty seconds; the test itself takes less than the second that is left
    gate.age("limits", 10);
    gate.drops(&mail(V4.web, 40_003), Reason::Rate);
    gate.age("limits", 10);
    gate.passes(&mail(V4.web, 40_003), Reason::Need);
    gate.drops(&mail(V4.web, 40_004), Reason::Rate);
    gate.age("limits", 40);
    gate.passes(&mail(V4.web, 40_004), Reason::Need);
    gate.passes(&mail(V4.web, 40_005), Reason::Need);
    gate.drops(&mail(V4.web, 40_006), Reason::Rate);
}

#[test]
fn a_long_silence_saves_up_no_more_than_the_limit() {
    let gate = TestGate::new(POLICY);
    gate.passes(&mail(V4.web, 40_000), Reason::Need);
    gate.age("limits", 1_000);
    for port in [40_001, 40_002, 40_003] {
        gate.passes(&mail(V4.web, port), Reason::Need);
    }
    gate.drops(&mail(V4.web, 40_004), Reason::Rate);
}

/// How many mails mx2 may send at once to the peer, with these needs in the place of `tcp/25 limit 3/m`.
fn count_mails(needs: &[&str]) -> usize {
    let list: Vec<String> = needs.iter().map(|need| format!("\"{need}\"")).collect();
    let gate = TestGate::new(&POLICY.replace("\"tcp/25 limit 3/m\"", &list.join(", ")));
    let frame = mail(V4.ns, 40_000);
    let passes = || gate.explain(&frame, false, None).unwrap().reason == Some(Reason::Need);
    let passed = (0..30).take_while(|_| passes()).inspect(|_| gate.passes(&frame, Reason::Need)).count();
    if passed < 30 {
        gate.drops(&frame, Reason::Rate);
    }
    passed
}

#[test]
fn of_several_limits_each_is_used_up_in_turn_whatever_their_order() {
    for (needs, count) in [
        (vec!["tcp/25 limit 2/m", "tcp/25 to 203.0.113.0/24 limit 4/m"], 6),
        (vec!["tcp/25 limit 4/m", "tcp/25 to 203.0.113.0/24 limit 2/m"], 6),
        (vec!["tcp/25 limit 4/m", "tcp/25 to 198.51.100.0/24 limit 2/m"], 4),
        (vec!["tcp/25 limit 4/m", "tcp/25 to 203.0.113.0/24"], 30),
        (vec!["tcp/20-30 limit 1/m", "tcp/25 to 203.0.113.50 limit 2/m", "tcp limit 3/m"], 6),
        // the same rate, and not the same burst
        (vec!["tcp/25 limit 1/s", "tcp/25-26 limit 10/m"], 11),
        // the same need twice is one
        (vec!["tcp/25 limit 2/m", "tcp/25 limit 2/m"], 2),
    ] {
        let mut turned = needs.clone();
        turned.reverse();
        assert_eq!(count_mails(&needs), count, "{needs:?}");
        assert_eq!(count_mails(&turned), count, "{turned:?}");
    }
}

#[test]
fn of_more_than_eight_limits_the_most_generous_ones_count() {
    let needs: Vec<String> = (1..=9).map(|count| format!("tcp/25 limit {count}/m")).collect();
    let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
    assert_eq!(count_mails(&needs[..4]), 1 + 2 + 3 + 4);
    let needs: Vec<String> = (0..9).map(|port| format!("tcp/{}-25 limit 1/m", 17 + port)).collect();
    let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
    assert_eq!(count_mails(&needs[..8]), 8);
    assert_eq!(count_mails(&needs), 8);
}

/// The programs' clock may be the coarse one, which ticks at 100 Hz at least.
const TICK_NS: u64 = 20_000_000;

/// How far one new flow moves the time of the next, by the clock before and after it.
fn spend(words: &str) -> (u64, u64) {
    let gate = TestGate::new(&POLICY.replace("3/m", words));
    let before = now_ns();
    gate.passes(&mail(V4.web, 40_000), Reason::Need);
    let after = now_ns();
    let spent: Vec<(limit_key, limit)> = gate.entries("limits");
    let spent: Vec<_> = spent.iter().filter(|(_, limit)| limit.arrival_ns != 0).collect();
    let [(key, limit)] = spent[..] else { panic!("not one bucket: {spent:?}") };
    assert_eq!(key.server, gate.id_of("mx1"));
    (limit.arrival_ns - after, limit.arrival_ns - before)
}

#[test]
fn a_limit_is_in_flows_per_second_or_per_minute() {
    for (words, interval_ns) in
        [("4/s", SECOND_NS / 4), ("1/s", SECOND_NS), ("1/m", 60 * SECOND_NS), ("120/m", SECOND_NS / 2)]
    {
        let (least, most) = spend(words);
        assert!(least <= interval_ns && interval_ns <= most + TICK_NS, "{words}: {least} to {most}");
    }
}

#[test]
fn a_limit_lives_through_a_change_of_policy() {
    let gate = TestGate::new(POLICY);
    for port in [40_000, 40_001, 40_002] {
        gate.passes(&mail(V4.web, port), Reason::Need);
    }
    for text in ["# the same\n", "[roles.more]\nout = [\"tcp/80 limit 9/s\"]\n", "# the same\n"] {
        gate.swap(&format!("{text}{POLICY}"));
        gate.drops(&mail(V4.web, 40_003), Reason::Rate);
    }
    // another limit is another token bucket, and holds what it says
    gate.swap(&POLICY.replace("3/m", "2/m"));
    gate.passes(&mail(V6.ns, 40_000), Reason::Need);
    gate.passes(&mail(V6.ns, 40_001), Reason::Need);
    gate.drops(&mail(V6.ns, 40_002), Reason::Rate);
}

#[test]
fn a_limit_that_is_observed_is_counted() {
    let gate = TestGate::new(&format!("[policy]\nmode = \"observe\"\n{POLICY}"));
    for port in [40_000, 40_001, 40_002] {
        gate.passes(&mail(V4.web, port), Reason::Need);
    }
    gate.would_drop(&mail(V4.web, 40_003), Reason::Rate);
}
