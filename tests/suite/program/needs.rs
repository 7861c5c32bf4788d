//! Rows 10, 11, 17 and 18: what a server may open itself, and to whom.

use portcullis::abi::Reason;

use crate::support::dmz::{in_both_families, ip};
use crate::support::frame::{
    ACK, FIN, PSH, RST, SYN, echo_reply, echo_request, icmp, tcp, tcp_numbered, udp,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

/// Destinations of every form, in both families.
const POLICY: &str = r#"
[sets]
loghosts = ["198.51.100.20", "198.51.100.21", "2001:db8:2::20"]
mirrors  = ["203.0.113.128/26", "2001:db8:3::/48"]

[roles.client]
out = [
    "udp/514 to @loghosts, @mirrors",
    "tcp/443 to @mirrors",
    "udp/123 to 198.51.100.30, 2001:db8:2::30",
    "tcp/8000-8100",
    "tcp/9000-9003",
    "icmp/echo-request to 198.51.100.30",
    "icmpv6/echo-request to 2001:db8:2::30",
]

[roles.web]
in = ["tcp/80"]

[servers.client1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["client", "web"]
"#;

#[test]
fn what_a_server_needs_passes_and_anything_else_is_a_new_flow() {
    with_dmz_in_both_families(|gate, family| {
        gate.passes(&udp((family.ns, 40_000), (family.peer, 53)), Reason::Need);
        gate.passes(&tcp((family.ns, 40_000), (family.peer, 53), SYN), Reason::Need);
        for port in [0, 52, 54, 80, 443, 53 << 8, 65_535] {
            let row = gate.drops(&udp((family.ns, 40_000), (family.peer, port)), Reason::NewFlow);
            assert_eq!((row.key.protocol, row.key.port), (17, port));
            assert_eq!(row.key.server, gate.id_of("ns1"));
            let row = gate.drops(&tcp((family.ns, 40_000), (family.peer, port), SYN), Reason::NewFlow);
            assert_eq!((row.key.protocol, row.key.port), (6, port));
        }
        // another server's need
        gate.drops(&udp((family.web, 40_000), (family.peer, 53)), Reason::NewFlow);
        gate.drops(&tcp((family.web, 40_000), (family.peer, 53), SYN), Reason::NewFlow);
    });
}

#[test]
fn an_in_service_is_no_permission_to_open() {
    with_dmz_in_both_families(|gate, family| {
        gate.drops(&tcp((family.web, 40_000), (family.peer, 80), SYN), Reason::NewFlow);
        gate.drops(&tcp((family.web, 80), (family.peer, 80), SYN), Reason::NewFlow);
        gate.drops(&echo_request(family.web, family.peer, 1), Reason::NewFlow);
    });
}

#[test]
fn one_server_calling_another_is_judged_as_any_other() {
    with_dmz_in_both_families(|gate, family| {
        gate.passes(&udp((family.ns, 40_000), (family.web, 53)), Reason::Need);
        gate.drops(&tcp((family.ns, 40_000), (family.web, 80), SYN), Reason::NewFlow);
    });
}

#[test]
fn a_permitted_port_is_permitted_to_its_destinations_only() {
    let gate = TestGate::new(POLICY);
    let check = |port: u16, to: &str, permitted: bool| {
        let to = ip(to);
        let from = if to.is_ipv4() { ip("192.0.2.10") } else { ip("2001:db8:1::10") };
        let frame = match port {
            443 => tcp((from, 40_000), (to, port), SYN),
            _ => udp((from, 40_000), (to, port)),
        };
        if permitted {
            gate.passes(&frame, Reason::Need);
        } else {
            let row = gate.drops(&frame, Reason::Destination);
            assert_eq!(row.key.port, port);
        }
    };
    // a set of addresses
    for (to, permitted) in [
        ("198.51.100.19", false),
        ("198.51.100.20", true),
        ("198.51.100.21", true),
        ("198.51.100.22", false),
        ("2001:db8:2::1f", false),
        ("2001:db8:2::20", true),
        ("2001:db8:2::21", false),
    ] {
        check(514, to, permitted);
    }
    // a set of prefixes, alone and beside another set
    for port in [443, 514] {
        for (to, permitted) in [
            ("203.0.113.127", false),
            ("203.0.113.128", true),
            ("203.0.113.150", true),
            ("203.0.113.191", true),
            ("203.0.113.192", false),
            ("2001:db8:2:ffff::1", false),
            ("2001:db8:3::", true),
            ("2001:db8:3:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:4::", false),
        ] {
            check(port, to, permitted);
        }
    }
    // addresses, in the need itself; and another need's destination
    for (to, permitted) in [
        ("198.51.100.30", true),
        ("198.51.100.20", false),
        ("203.0.113.150", false),
        ("2001:db8:2::30", true),
        ("2001:db8:2::20", false),
    ] {
        check(123, to, permitted);
    }
}

#[test]
fn a_permitted_port_of_another_protocol_is_a_new_flow() {
    let gate = TestGate::new(POLICY);
    let from = (ip("192.0.2.10"), 40_000);
    gate.drops(&tcp(from, (ip("198.51.100.20"), 514), SYN), Reason::NewFlow);
    gate.drops(&udp(from, (ip("203.0.113.150"), 443)), Reason::NewFlow);
    gate.drops(&tcp(from, (ip("203.0.113.1"), 514), SYN), Reason::NewFlow);
}

#[test]
fn a_range_of_ports_ends_where_it_says() {
    let gate = TestGate::new(POLICY);
    in_both_families(|family| {
        for (port, permitted) in [
            (7_999, false),
            (8_000, true),
            (8_001, true),
            (8_063, true),
            (8_064, true),
            (8_100, true),
            (8_101, false),
            (8_999, false),
            (9_000, true),
            (9_003, true),
            (9_004, false),
        ] {
            let frame = tcp((family.web, 40_000), (family.peer, port), SYN);
            match permitted {
                true => gate.passes(&frame, Reason::Need),
                false => drop(gate.drops(&frame, Reason::NewFlow)),
            }
        }
    });
}

#[test]
fn every_port_is_permitted_where_no_port_is_named() {
    let gate = TestGate::new(
        r#"
        [roles.open]
        out = ["tcp to 203.0.113.50, 2001:db8:50::50", "icmp", "icmpv6"]
        [servers.web1]
        addresses = ["192.0.2.10", "2001:db8:1::10"]
        roles = ["open"]
        "#,
    );
    in_both_families(|family| {
        for port in [0, 1, 53, 80, 1024, 32_768, 65_535] {
            gate.passes(&tcp((family.web, 40_000), (family.peer, port), SYN), Reason::Need);
            gate.drops(&tcp((family.web, 40_000), (family.other, port), SYN), Reason::Destination);
            gate.drops(&udp((family.web, 40_000), (family.peer, port)), Reason::NewFlow);
        }
        gate.passes(&echo_request(family.web, family.peer, 1), Reason::Need);
    });
}

#[test]
fn a_ping_passes_to_whom_the_server_may_ping() {
    let gate = TestGate::new(POLICY);
    for (from, to, elsewhere) in [
        (ip("192.0.2.10"), ip("198.51.100.30"), ip("198.51.100.20")),
        (ip("2001:db8:1::10"), ip("2001:db8:2::30"), ip("2001:db8:2::20")),
    ] {
        gate.passes(&echo_request(from, to, 1), Reason::Need);
        let row = gate.drops(&echo_request(from, elsewhere, 1), Reason::Destination);
        assert_eq!(row.key.port, if from.is_ipv4() { 8 } else { 128 });
        // another type of request, or none at all
        gate.drops(&echo_reply(from, to, 1), Reason::Backscatter);
        let other = icmp(from, to, (if from.is_ipv4() { 13 } else { 139 }, 0), [0; 4], &[0; 12]);
        gate.drops(&other, Reason::NewFlow);
    }
}

#[test]
fn the_segments_of_a_servers_own_connection_pass() {
    let gate = TestGate::new(POLICY);
    for (from, to) in [
        ((ip("192.0.2.10"), 40_000), (ip("203.0.113.150"), 443)),
        ((ip("2001:db8:1::10"), 40_000), (ip("2001:db8:3::1"), 443)),
    ] {
        gate.passes(&tcp(from, to, SYN), Reason::Need);
        for flags in [ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN | ACK] {
            gate.passes(&tcp(from, to, flags), Reason::OwnConnection);
        }
    }
}

#[test]
fn a_segment_to_another_port_or_destination_is_of_no_permitted_connection() {
    let gate = TestGate::new(POLICY);
    for (from, to, elsewhere) in [
        (ip("192.0.2.10"), ip("203.0.113.150"), ip("203.0.113.1")),
        (ip("2001:db8:1::10"), ip("2001:db8:3::1"), ip("2001:db8:4::1")),
    ] {
        for flags in [ACK, ACK | PSH, FIN | ACK, SYN | ACK] {
            gate.drops(&tcp((from, 40_000), (to, 444), flags), Reason::NoFlow);
            gate.drops(&tcp((from, 40_000), (elsewhere, 443), flags), Reason::NoFlow);
        }
        gate.drops(&tcp((from, 40_000), (elsewhere, 443), RST), Reason::Backscatter);
    }
}

#[test]
fn an_answer_from_a_port_that_a_peer_probed_is_no_connection_of_the_servers_own() {
    // A bind shell on 4444, and a peer that comes from 443 because the server may go there.
    let gate = TestGate::new(POLICY);
    for (server, peer) in
        [(ip("192.0.2.10"), ip("203.0.113.150")), (ip("2001:db8:1::10"), ip("2001:db8:3::1"))]
    {
        gate.to_server(&tcp_numbered((peer, 443), (server, 4444), SYN, (1000, 0)));
        let row = gate.drops(&tcp((server, 4444), (peer, 443), SYN | ACK), Reason::UnlistedService);
        assert_eq!((row.key.port, row.key.flags & 4), (4444, 4));
        // from a port that nobody probed it is the server's own
        gate.passes(&tcp((server, 4445), (peer, 443), SYN | ACK), Reason::OwnConnection);
    }
}

#[test]
fn an_answer_comes_before_the_need_of_the_same_port() {
    // ns1 may both be asked and ask: with both ports 53 it is an answer while it is in a flow
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.ns, 53), (family.peer, 53));
        gate.passes(&udp(server, peer), Reason::Need);
        gate.to_server(&udp(peer, server));
        gate.passes(&udp(server, peer), Reason::Reply);
        gate.passes(&tcp(server, peer, ACK), Reason::OwnConnection);
        gate.establish(server, peer);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
    });
}
