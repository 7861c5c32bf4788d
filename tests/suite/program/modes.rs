//! `quiet` and `observe`: drops that raise no alarm, and drops that are none.

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, V4, in_both_families, ip};
use crate::support::frame::{
    ACK, Ipv4, SYN, echo_request, fragment, from_mac, icmp, link_frame, raw_ip, tcp, udp, udp_datagram,
};
use crate::support::test_gate::TestGate;

/// `DROP_QUIET`, `DROP_WOULD`.
const QUIET: u8 = 1;
const WOULD: u8 = 2;

const QUIET_POLICY: &str = r#"
[roles.chatty]
quiet = [
    "udp/137-138",
    "udp/5353",
    "tcp/7000 to 203.0.113.50, 2001:db8:50::50",
    "igmp",
    "icmp/timestamp-request",
    "udp/20000-40000",
]
[roles.web]
in = ["tcp/80"]
[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["chatty", "web"]
[servers.ns1]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = ["web"]
"#;

#[test]
fn a_quiet_need_drops_and_counts_without_an_alarm() {
    let gate = TestGate::new(QUIET_POLICY);
    in_both_families(|family| {
        for (port, quiet) in [
            (136, 0),
            (137, QUIET),
            (138, QUIET),
            (139, 0),
            (5352, 0),
            (5353, QUIET),
            (19_999, 0),
            (20_000, QUIET),
            (32_768, QUIET),
            (40_000, QUIET),
            (40_001, 0),
        ] {
            let row = gate.drops(&udp((family.web, 60_000), (family.peer, port)), Reason::NewFlow);
            assert_eq!((row.key.flags, row.key.port), (quiet, port));
            // the other server has no such role
            let row = gate.drops(&udp((family.ns, 60_000), (family.peer, port)), Reason::NewFlow);
            assert_eq!(row.key.flags, 0);
        }
        let row = gate.drops(&tcp((family.web, 60_000), (family.peer, 5353), SYN), Reason::NewFlow);
        assert_eq!(row.key.flags, 0, "another protocol");
        let row = gate.drops(&raw_ip(family.web, family.peer, 2, &[0; 8]), Reason::Protocol);
        assert_eq!(row.key.flags, QUIET);
        let row = gate.drops(&raw_ip(family.web, family.peer, 47, &[0; 8]), Reason::Protocol);
        assert_eq!(row.key.flags, 0);
    });
    let timestamp = icmp(V4.web, V4.peer, (13, 0), [0; 4], &[0; 12]);
    assert_eq!(gate.drops(&timestamp, Reason::NewFlow).key.flags, QUIET);
    assert_eq!(gate.drops(&echo_request(V4.web, V4.peer, 1), Reason::NewFlow).key.flags, 0);
}

#[test]
fn a_quiet_need_is_quiet_towards_its_destinations() {
    let gate = TestGate::new(QUIET_POLICY);
    in_both_families(|family| {
        let row = gate.drops(&tcp((family.web, 60_000), (family.peer, 7000), SYN), Reason::NewFlow);
        assert_eq!(row.key.flags, QUIET);
        let row = gate.drops(&tcp((family.web, 60_000), (family.other, 7000), SYN), Reason::NewFlow);
        assert_eq!(row.key.flags, 0);
    });
}

#[test]
fn a_quiet_need_permits_nothing_and_forbids_no_answer() {
    let gate = TestGate::new(QUIET_POLICY);
    in_both_families(|family| {
        // an answer to a peer that comes from a quiet port
        gate.establish((family.web, 80), (family.peer, 7000));
        gate.passes(&tcp((family.web, 80), (family.peer, 7000), ACK), Reason::Reply);
    });
}

#[test]
fn what_any_role_calls_quiet_is_quiet_from_a_link_local_or_unspecified_address() {
    // a multicast name query: from fe80::/10, or before there is an address
    let gate = TestGate::new(QUIET_POLICY);
    for source in ["fe80::10", "::"] {
        let row = gate.drops(&udp((ip(source), 5353), (ip("ff02::fb"), 5353)), Reason::UnknownSource);
        assert_eq!(row.key.flags, QUIET);
        let row = gate.drops(&udp((ip(source), 5353), (ip("ff02::fb"), 5354)), Reason::UnknownSource);
        assert_eq!(row.key.flags, 0);
    }
    // any other address that no server has is somebody's
    in_both_families(|family| {
        let row = gate.drops(&udp((family.unknown, 5353), (family.peer, 5353)), Reason::UnknownSource);
        assert_eq!(row.key.flags, 0);
    });
}

#[test]
fn a_gate_that_observes_counts_drops_and_lets_pass() {
    let gate = TestGate::new(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
    in_both_families(|family| {
        let datagram = udp_datagram((family.ns, 40_000), (family.peer, 80), &[0; 16]);
        let cases = [
            (tcp((family.web, 40_000), (family.peer, 80), SYN), Reason::NewFlow),
            (tcp((family.web, 40_000), (family.peer, 80), ACK), Reason::NoFlow),
            (tcp((family.web, 40_000), (family.peer, 80), 0), Reason::Malformed),
            (tcp((family.web, 40_000), (family.peer, 80), 4), Reason::Backscatter),
            (udp((family.web, 40_000), (family.peer, 514)), Reason::Destination),
            (raw_ip(family.web, family.peer, 47, &[0; 8]), Reason::Protocol),
            (udp((family.unknown, 40_000), (family.peer, 53)), Reason::UnknownSource),
            (fragment(family.ns, family.peer, 17, (7, 0, true), &datagram), Reason::NewFlow),
            (fragment(family.ns, family.peer, 17, (7, 3, false), &[0; 8]), Reason::NewFlow),
            (fragment(family.ns, family.peer, 17, (8, 3, false), &[0; 8]), Reason::Fragment),
        ];
        for (frame, reason) in cases {
            let row = gate.would_drop(&frame, reason);
            assert_eq!(row.key.flags & (QUIET | WOULD), WOULD);
        }
        // what passes anyway is no would-be drop
        gate.passes(&udp((family.ns, 40_000), (family.peer, 53)), Reason::Need);
        gate.establish((family.web, 80), (family.peer, 51_000));
        let row = gate.would_drop(&udp((family.web, 40_000), (family.peer, 5353)), Reason::NewFlow);
        assert_eq!(row.key.flags, QUIET | WOULD);
    });
    gate.would_drop(&link_frame(0x8137, &[0; 46]), Reason::Ethertype);
    assert!(
        gate.counters(false).unwrap().iter().all(|(reason, packets, _)| !reason.drops() || *packets == 0)
    );
}

/// The policy's mode, and a server with the other one.
fn with_modes(policy: &str, web1: &str) -> TestGate {
    let text = POLICY.replace("[policy]", &format!("[policy]\nmode = \"{policy}\""));
    TestGate::new(&text.replace("[servers.web1]", &format!("[servers.web1]\nmode = \"{web1}\"")))
}

#[test]
fn a_server_may_be_observed_where_the_others_are_not() {
    let gate = with_modes("enforce", "observe");
    in_both_families(|family| {
        let syn = |from| tcp((from, 40_000), (family.peer, 80), SYN);
        gate.would_drop(&syn(family.web), Reason::NewFlow);
        gate.drops(&syn(family.ns), Reason::NewFlow);
        gate.drops(&syn(family.unknown), Reason::UnknownSource);
        gate.would_drop(&tcp((family.web, 40_000), (family.peer, 80), 0), Reason::Malformed);
        gate.drops(&tcp((family.ns, 40_000), (family.peer, 80), 0), Reason::Malformed);
    });
    gate.drops(&link_frame(0x8137, &[0; 46]), Reason::Ethertype);
}

#[test]
fn a_server_may_be_kept_in_order_where_the_others_are_observed() {
    let gate = with_modes("observe", "enforce");
    in_both_families(|family| {
        let syn = |from| tcp((from, 40_000), (family.peer, 80), SYN);
        gate.drops(&syn(family.web), Reason::NewFlow);
        gate.would_drop(&syn(family.ns), Reason::NewFlow);
        gate.would_drop(&syn(family.unknown), Reason::UnknownSource);
    });
    gate.would_drop(&link_frame(0x8137, &[0; 46]), Reason::Ethertype);
}

#[test]
fn a_rogue_router_and_a_spoof_are_observed_as_well() {
    let text = POLICY.replace("[policy]", "[policy]\nmode = \"observe\"");
    let gate = TestGate::new(&text.replace("[servers.web1]", "[servers.web1]\nvlan = 7"));
    in_both_families(|family| {
        gate.would_drop(&tcp((family.web, 40_000), (family.peer, 80), SYN), Reason::Spoofed);
        // what it may do from its own place does not count here
        gate.would_drop(&udp((family.web, 40_000), (family.loghost, 514)), Reason::Spoofed);
    });
    let (from, to) = (ip("fe80::10"), ip("ff02::1"));
    gate.would_drop(&icmp(from, to, (134, 0), [0; 4], &[0; 8]), Reason::RogueRouter);
}

#[test]
fn a_spoofed_frame_is_not_observed_with_its_owner() {
    // The mode is the server's, and the frame is by its MAC not that server's.
    let gate = TestGate::new(
        r#"
[roles.web]
in = ["tcp/80"]
[servers.farm]
addresses = ["192.0.2.130"]
mac = "02:00:00:00:00:99"
roles = ["web"]
mode = "observe"
"#,
    );
    let server = ip("192.0.2.130");
    gate.drops(&tcp((server, 40_000), (V4.peer, 4444), SYN), Reason::Spoofed);
    // nor by what is judged before its source is
    let odd = tcp((server, 40_000), (V4.peer, 4444), 0);
    gate.drops(&odd, Reason::Malformed);
    let routed = Ipv4::new(server, V4.peer, 47, &[0; 8]).options(&[131, 7, 4, 198, 51, 100, 1, 0]);
    gate.drops(&routed.frame(), Reason::SourceRoute);
    gate.drops(&icmp(server, V4.peer, (5, 0), [0; 4], &[0; 28]), Reason::RogueRouter);
    gate.would_drop(&from_mac(&odd, [2, 0, 0, 0, 0, 0x99]), Reason::Malformed);
}
