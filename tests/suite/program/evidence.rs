//! What the kernel keeps for `learn`: exactly what was opened and answered, while the policy observes or somebody
//! learns, and nothing otherwise.

use std::collections::BTreeMap;

use portcullis::abi::{evidence, evidence_key, exchange, flow_key, from_address, layout, state};
use portcullis::clock::now_ns;
use portcullis::history::{CountedOpening, OpenedService};
use portcullis::policy::Direction;

use crate::support::dmz::in_both_families;
use crate::support::frame::{
    ACK, Endpoint, RST, SYN, echo_reply, echo_request, icmp_protocol, tcp_numbered, udp,
};
use crate::support::patience::eventually;
use crate::support::test_gate::{SECOND_NS, TestGate};

/// It knows the servers and none of their needs.
const OBSERVING: &str = r#"
[policy]
mode = "observe"

[roles.web]
in = ["tcp/80"]

[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["web"]

[servers.ns1]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = []
"#;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Direction, protocol, port, peer: answered and asked.
type Kept = BTreeMap<(Direction, u8, u16, Option<std::net::IpAddr>), (u64, u64)>;

/// What was kept of one server.
fn kept(gate: &TestGate, server: &str) -> Kept {
    let rows = gate.evidence().expect("rows").into_iter().filter(|row| row.server == server);
    let read = |row: CountedOpening| {
        let OpenedService { direction, protocol, port } = row.service?;
        (row.answered + row.asked > 0)
            .then_some(((direction, protocol, port, row.peer), (row.answered, row.asked)))
    };
    rows.filter_map(read).collect()
}

/// A gate that keeps evidence by now: each CPU looks once a tick.
fn keeping(policy: &str) -> TestGate {
    let gate = TestGate::new(policy);
    eventually("evidence is kept", || {
        gate.programs.run_filter(&tcp_numbered((OTHER, 1), (OTHER, 2), SYN, (1, 0)), 1).expect("a run");
        gate.programs.run_filter(&probe(), 1).expect("a run");
        !gate.entries::<flow_key, exchange>("exchanges").is_empty()
    });
    forget(&gate, "exchanges");
    gate
}

const OTHER: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

/// A SYN of web1.
fn probe() -> Vec<u8> {
    tcp_numbered((std::net::Ipv4Addr::new(192, 0, 2, 10).into(), 1), (OTHER, 2), SYN, (1, 0))
}

fn forget(gate: &TestGate, map: &str) {
    use libbpf_rs::MapCore as _;
    let map = gate.maps.find(map).expect("a map");
    let keys: Vec<Vec<u8>> = map.keys().collect();
    keys.iter().for_each(|key| map.delete(key).expect("a deletion"));
}

/// Both programs see a packet of a server, or to it, without a look at the verdict.
fn from_server(gate: &TestGate, frame: &[u8]) {
    gate.programs.run_filter(frame, 1).expect("a run");
}

fn shake_hands(gate: &TestGate, server: Endpoint, peer: Endpoint, by_server: bool) {
    if by_server {
        from_server(gate, &tcp_numbered(server, peer, SYN, (1000, 0)));
        gate.to_server(&tcp_numbered(peer, server, SYN | ACK, (5000, 1001)));
        from_server(gate, &tcp_numbered(server, peer, ACK, (1001, 5001)));
    } else {
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        from_server(gate, &tcp_numbered(server, peer, SYN | ACK, (5000, 1001)));
        gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
    }
}

/// Direction, protocol, port and peer of an opening.
type Opening = (Direction, u8, u16, std::net::IpAddr);

/// `expected`: openings with how often they were asked and answered.
fn expect(gate: &TestGate, server: &str, expected: &[(Opening, (u64, u64))]) {
    let expected: Kept = expected
        .iter()
        .map(|((direction, protocol, port, peer), counts)| {
            ((*direction, *protocol, *port, Some(*peer)), *counts)
        })
        .collect();
    assert_eq!(kept(gate, server), expected);
}

#[test]
fn connections_count_for_whoever_opened_them_once_both_ends_have_agreed() {
    in_both_families(|family| {
        let gate = keeping(OBSERVING);
        // a service that the policy has, and one that it lacks
        for (port, service) in [(51_000, 80), (51_001, 80), (51_002, 8080)] {
            shake_hands(&gate, (family.web, service), (family.peer, port), false);
        }
        for port in [40_000, 40_001] {
            shake_hands(&gate, (family.web, port), (family.peer, 443), true);
        }
        let tcp = |direction, port| (direction, TCP, port, family.peer);
        let all = [
            (tcp(Direction::In, 80), (2, 0)),
            (tcp(Direction::In, 8080), (1, 0)),
            (tcp(Direction::Out, 443), (2, 0)),
        ];
        expect(&gate, "web1", &all);
        // what goes on, and what is sent again, is no other opening
        shake_hands(&gate, (family.web, 40_000), (family.peer, 443), true);
        gate.to_server(&tcp_numbered((family.peer, 51_000), (family.web, 80), ACK, (1001, 5001)));
        expect(&gate, "web1", &all);
    });
}

#[test]
fn what_nobody_answered_and_what_was_forged_is_no_evidence() {
    in_both_families(|family| {
        let gate = keeping(OBSERVING);
        let (web, peer) = ((family.web, 40_000), (family.peer, 443));
        from_server(&gate, &tcp_numbered(web, peer, SYN, (1000, 0)));
        gate.to_server(&tcp_numbered(peer, web, RST | ACK, (0, 1001)));
        gate.to_server(&tcp_numbered(peer, web, SYN | ACK, (1, 4_000_000)));
        // a peer that does not get the server's SYN+ACK, and one that makes up that of a server
        let service = (family.web, 80);
        gate.to_server(&tcp_numbered((family.peer, 51_000), service, SYN, (1000, 0)));
        from_server(&gate, &tcp_numbered(service, (family.peer, 51_000), SYN | ACK, (5000, 1001)));
        gate.to_server(&tcp_numbered((family.peer, 51_000), service, ACK, (1001, 4_000_000)));
        gate.to_server(&tcp_numbered((family.peer, 25), (family.web, 40_001), SYN | ACK, (1, 1001)));
        from_server(&gate, &udp((family.web, 40_000), (family.peer, 5000)));
        gate.to_server(&udp((family.peer, 5001), (family.web, 6000)));
        expect(&gate, "web1", &[]);
    });
}

#[test]
fn datagrams_and_queries_count_with_their_first_answer_and_log_lines_without_one() {
    in_both_families(|family| {
        let gate = keeping(OBSERVING);
        let (web, peer) = (family.web, family.peer);
        for _ in 0..3 {
            from_server(&gate, &udp((web, 40_000), (peer, 53)));
            gate.to_server(&udp((peer, 53), (web, 40_000)));
            gate.to_server(&udp((peer, 50_000), (web, 443)));
            from_server(&gate, &udp((web, 443), (peer, 50_000)));
            from_server(&gate, &udp((web, 40_001), (peer, 514)));
        }
        from_server(&gate, &echo_request(web, peer, 7));
        gate.to_server(&echo_reply(peer, web, 7));
        gate.to_server(&echo_request(peer, web, 8));
        from_server(&gate, &echo_reply(web, peer, 8));
        let request = if web.is_ipv4() { 8 } else { 128 };
        expect(
            &gate,
            "web1",
            &[
                ((Direction::In, icmp_protocol(web), request, peer), (1, 0)),
                ((Direction::In, UDP, 443, peer), (1, 0)),
                ((Direction::Out, icmp_protocol(web), request, peer), (1, 0)),
                ((Direction::Out, UDP, 53, peer), (1, 0)),
                ((Direction::Out, UDP, 514, peer), (0, 1)),
            ],
        );
    });
}

#[test]
fn a_gate_that_enforces_keeps_nothing_unless_somebody_learns_and_then_only_what_passes() {
    let enforcing = OBSERVING.replace("mode = \"observe\"", "");
    in_both_families(|family| {
        let gate = TestGate::new(&enforcing);
        // a gate of before may have kept some until this tick
        eventually("nothing is kept", || {
            forget(&gate, "exchanges");
            gate.to_server(&tcp_numbered((family.peer, 1), (family.web, 80), SYN, (1000, 0)));
            gate.entries::<flow_key, exchange>("exchanges").is_empty()
        });
        shake_hands(&gate, (family.web, 80), (family.peer, 51_000), false);
        expect(&gate, "web1", &[]);
        let until = now_ns() + 3600 * SECOND_NS;
        gate.maps
            .state
            .put(&state::STATE_EVIDENCE_UNTIL_NS.0, &until, libbpf_rs::MapFlags::ANY)
            .expect("a write");
        eventually("evidence is kept", || {
            gate.to_server(&tcp_numbered((family.peer, 1), (family.web, 80), SYN, (1000, 0)));
            !gate.entries::<flow_key, exchange>("exchanges").is_empty()
        });
        shake_hands(&gate, (family.web, 80), (family.peer, 51_001), false);
        // no need of the policy
        shake_hands(&gate, (family.web, 40_000), (family.peer, 443), true);
        expect(&gate, "web1", &[((Direction::In, TCP, 80, family.peer), (1, 0))]);
    });
}

#[test]
fn peers_and_services_beyond_their_quotas_are_counted_exactly_in_wider_rows() {
    let gate = keeping(OBSERVING);
    let web = std::net::Ipv4Addr::new(192, 0, 2, 10).into();
    let peers = layout::EVIDENCE_PEERS_MAX.0 + 6;
    for number in 0..peers {
        let peer = std::net::Ipv4Addr::from(0xcb00_7100 + number).into();
        shake_hands(&gate, (web, 80), (peer, 51_000), false);
    }
    let rows = kept(&gate, "web1");
    let service = (Direction::In, TCP, 80, None);
    assert_eq!(rows.len() as u32, layout::EVIDENCE_PEERS_MAX.0 + 1);
    assert_eq!(rows.get(&service), Some(&(6, 0)));
    assert_eq!(rows.values().map(|(answered, _)| answered).sum::<u64>(), u64::from(peers));
    // a server that has used up its rows
    let server = gate.entries::<evidence_key, evidence>("evidence").into_iter();
    let (key, row) = server.into_iter().find(|(key, _)| key.direction == 0).expect("the server's row");
    assert_eq!(row.rows, layout::EVIDENCE_PEERS_MAX.0 + 1, "the peers and the service");
    let full = evidence { rows: layout::EVIDENCE_ROWS_MAX.0, ..row };
    gate.maps.evidence.put(&key, &full, libbpf_rs::MapFlags::ANY).expect("a write");
    shake_hands(&gate, (web, 40_000), (OTHER, 443), true);
    let folded: u64 = gate
        .evidence()
        .expect("rows")
        .iter()
        .filter(|row| row.service.is_none())
        .map(|row| row.answered)
        .sum();
    assert_eq!(folded, 1);
    assert!(from_address(&key.peer).is_none());
}
