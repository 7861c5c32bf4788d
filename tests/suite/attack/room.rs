//! What each table does when it is full, as `bpf/maps.h` and `docs/policy.md` have it.
//!
//! An LRU table keeps the newest rows of each CPU on a list of that CPU until it makes more there
//! (kernel/bpf/bpf_lru_list.c, since 4.10). So whoever shall be pushed out and whoever pushes run on one CPU.

use libbpf_rs::{MapCore as _, MapFlags};
use portcullis::abi::Reason;
use portcullis::abi::{ledger_key, ledger_row, quota_key, row_counts};
use portcullis::gate::{FlowTable, GateError};

use crate::support::cpu::on_one_cpu;
use crate::support::dmz::{POLICY, V4};
use crate::support::frame::{
    ACK, SYN, UDP, echo_reply, echo_request, fragment, tcp, tcp_numbered, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, read_policy};

/// Of the gate's tables.
const ROOM: u16 = 2_048;
/// As many as push out whatever is idle.
const MANY: u16 = 20_000;

fn track(gate: &TestGate, frame: &[u8]) {
    gate.programs.run_track(frame, 1).expect("a run");
}

fn filter(gate: &TestGate, frame: &[u8]) -> u32 {
    gate.programs.run_filter(frame, 1).expect("a run").action
}

fn count(gate: &TestGate, map: &str) -> usize {
    gate.maps.find(map).expect("a map").keys().count()
}

/// Handshakes of one peer with the web server, from these ports of its own.
fn connect(gate: &TestGate, ports: std::ops::Range<u16>, mut meanwhile: impl FnMut(u16)) {
    for port in ports {
        let (server, peer) = ((V4.web, 80), (V4.other, port));
        track(gate, &tcp_numbered(peer, server, SYN, (1000, 0)));
        filter(gate, &tcp_numbered(server, peer, SYN | ACK, (5000, 1001)));
        track(gate, &tcp_numbered(peer, server, ACK, (1001, 5001)));
        meanwhile(port);
    }
}

#[test]
fn established_full_the_idle_flow_goes_and_the_busy_one_stays() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        let server = (V4.web, 80);
        let (idle, busy) = ((V4.peer, 1), (V4.peer, 2));
        gate.establish(server, idle);
        gate.establish(server, busy);
        connect(&gate, 1..MANY, |port| {
            if port % 16 == 0 {
                assert_eq!(filter(&gate, &tcp(server, busy, ACK)), 2, "after {port} others");
            }
        });
        assert!(count(&gate, "established") <= usize::from(ROOM));
        gate.passes(&tcp(server, busy, ACK), Reason::Reply);
        gate.passes(&tcp(server, (V4.other, MANY - 1), ACK), Reason::Reply);
        gate.drops(&tcp(server, idle, ACK), Reason::NoFlow);
    });
}

#[test]
fn half_open_full_the_oldest_handshake_goes_and_its_client_may_try_again() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        let (server, client) = ((V4.web, 80), (V4.peer, 1));
        gate.to_server(&tcp_numbered(client, server, SYN, (1000, 0)));
        for port in 1..MANY {
            track(&gate, &tcp((V4.other, port), server, SYN));
        }
        assert!(count(&gate, "half_open") <= usize::from(ROOM));
        gate.drops(&tcp_numbered(server, client, SYN | ACK, (5000, 1001)), Reason::NoFlow);
        gate.establish(server, client);
    });
}

#[test]
fn datagrams_full_the_idle_flow_goes_and_the_newest_is_answered() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        let server = (V4.ns, 53);
        for port in 1..MANY {
            track(&gate, &udp((V4.other, port), server));
        }
        assert!(count(&gate, "datagrams") <= usize::from(ROOM));
        gate.passes(&udp(server, (V4.other, MANY - 1)), Reason::Reply);
        // its peer has asked, so the late answer is no sign of anything
        gate.drops(&udp(server, (V4.other, 1)), Reason::NoFlow);
    });
}

#[test]
fn icmp_full_the_idle_query_goes_and_the_newest_is_answered() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        for identifier in 1..MANY {
            track(&gate, &echo_request(V4.other, V4.web, identifier));
        }
        assert!(count(&gate, "icmp_queries") <= usize::from(ROOM));
        gate.passes(&echo_reply(V4.web, V4.other, MANY - 1), Reason::Reply);
        gate.drops(&echo_reply(V4.web, V4.other, 1), Reason::NoFlow);
    });
}

#[test]
fn unlisted_full_the_answer_of_the_oldest_is_dropped_under_another_name() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        for port in 1..MANY {
            track(&gate, &tcp((V4.other, port), (V4.web, 4444), SYN));
        }
        assert!(count(&gate, "unlisted") <= usize::from(ROOM));
        gate.drops(&tcp((V4.web, 4444), (V4.other, MANY - 1), SYN | ACK), Reason::UnlistedService);
        // a SYN+ACK betrays its listener all the same, what follows is in no flow
        let old = gate.drops(&tcp((V4.web, 4444), (V4.other, 1), ACK), Reason::NoFlow);
        assert_eq!(old.row.packets, 1);
        track(&gate, &udp((V4.other, 1), (V4.web, 4444)));
        for port in 2..MANY {
            track(&gate, &udp((V4.other, port), (V4.web, 4444)));
        }
        gate.drops(&udp((V4.web, 4444), (V4.other, MANY - 1)), Reason::UnlistedService);
        gate.drops(&udp((V4.web, 4444), (V4.other, 1)), Reason::NewFlow);
    });
}

#[test]
fn fragments_full_the_rest_of_the_oldest_datagram_is_dropped() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        let datagram = udp_datagram((V4.web, 40_000), (V4.loghost, 514), &[0; 16]);
        for id in 1..MANY {
            filter(&gate, &fragment(V4.web, V4.loghost, UDP, (id, 0, true), &datagram));
        }
        assert!(count(&gate, "fragments") <= usize::from(ROOM));
        let rest = |id| fragment(V4.web, V4.loghost, UDP, (id, 3, false), &[0x5a; 16]);
        gate.passes(&rest(MANY - 1), Reason::LaterFragment);
        gate.drops(&rest(1), Reason::Fragment);
    });
}

#[test]
fn ledger_overflow_full_the_counters_still_have_every_drop() {
    let gate = TestGate::fresh(POLICY, &[("ledger", 1)]);
    gate.drops(&tcp((V4.web, 40_000), (V4.peer, 6667), SYN), Reason::NewFlow);
    // as many rows of other servers as it holds
    let rest = gate.maps.ledger_overflow.handle();
    for server in 0..rest.max_entries() {
        let key =
            ledger_key { server: 1_000 + server, reason: Reason::NewFlow.number(), ..Default::default() };
        // SAFETY: integers without padding.
        let key = unsafe { plain::as_bytes(&key) };
        // a row that there is not
        rest.update(key, &u32::MAX.to_ne_bytes(), MapFlags::ANY).expect("a row");
    }
    let counted = || {
        let counters = gate.counters(false).expect("counters");
        counters.iter().find(|(reason, _, _)| *reason == Reason::NewFlow).expect("a reason").1
    };
    let (before, ledger) = (counted(), gate.ledger_total().0);
    for port in 1..=5 {
        assert_eq!(filter(&gate, &tcp((V4.ns, 40_000), (V4.peer, 7_000 + port), SYN)), 1, "still dropped");
    }
    assert_eq!(counted(), before + 5);
    assert_eq!(gate.ledger_total().0, ledger);
    assert_eq!(gate.program_statistics().expect("the statistic").ledger_overflow_full, 5);
}

#[test]
fn limits_full_the_policy_is_refused_and_the_live_one_stays() {
    let gate = TestGate::fresh(POLICY, &[("limits", 2)]);
    let mut greedy = POLICY.replace(r#""udp/514 to @loghosts""#, r#""udp/514 to @loghosts limit 5/s""#);
    for number in 0..3 {
        let row = format!(
            "[servers.m{number}]\naddresses = [\"192.0.2.{}\"]\nroles = [\"managed\"]\n",
            150 + number
        );
        greedy.push_str(&row);
    }
    let (policy, tables) = read_policy(&greedy, &[]);
    let error = gate.install(&policy, &tables).expect_err("a refusal");
    assert!(matches!(error, GateError::TableFull { table: "limits", .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("raise `limits` under [tables]") && text.contains("help:"), "{text}");
    gate.drops(&tcp((V4.web, 40_000), (V4.peer, 6667), SYN), Reason::NewFlow);
    assert_eq!(gate.live_settings().expect("settings").expect("a policy").generation, 1);
}

#[test]
fn names_full_the_policy_is_refused_and_the_live_one_stays() {
    let gate = TestGate::fresh(POLICY, &[("servers", 8)]);
    let mut larger = POLICY.to_owned();
    for number in 0..12 {
        larger.push_str(&format!(
            "[servers.n{number}]\naddresses = [\"192.0.2.{}\"]\nroles = [\"web\"]\n",
            150 + number
        ));
    }
    let (policy, tables) = read_policy(&larger, &[]);
    let text = gate.install(&policy, &tables).expect_err("a refusal").to_string();
    assert!(text.contains("raise `servers` under [tables]") && text.contains("help:"), "{text}");
    gate.drops(&tcp((V4.web, 40_000), (V4.peer, 6667), SYN), Reason::NewFlow);
    assert_eq!(gate.live_settings().expect("settings").expect("a policy").generation, 1);
}

#[test]
fn quarantines_full_the_command_is_refused_in_words_and_the_others_hold() {
    let gate = TestGate::fresh(POLICY, &[("servers", 4)]);
    let map = gate.maps.quarantines.handle();
    for id in 0..map.max_entries() {
        map.update(&(500 + id).to_ne_bytes(), &[0; 32], MapFlags::ANY).expect("a row");
    }
    let text = gate.quarantine("web1", None).expect_err("a refusal").to_string();
    assert!(text.contains("raise `servers` under [tables]") && text.contains("help:"), "{text}");
    gate.establish((V4.web, 80), (V4.peer, 50_000));
    assert!(gate.has_flow(FlowTable::Established, (V4.web, 80), (V4.peer, 50_000)));
}

#[test]
fn a_table_of_many_batches_is_read_to_its_end() {
    const ROWS: u32 = 30_000;
    let gate = TestGate::fresh(POLICY, &[("ledger", 65_536), ("servers", 65_536)]);
    let before = gate.names_by_id().expect("names").len();
    for number in 0..ROWS {
        let kind = ledger_key { server: number, reason: Reason::NewFlow.number(), ..Default::default() };
        let row = ledger_row { kind, number, first_ns: 1, ..Default::default() };
        let counts = row_counts { packets: 1, bytes: 60, ..Default::default() };
        // SAFETY: integers without padding.
        let (row, counts) = unsafe { (plain::as_bytes(&row), plain::as_bytes(&counts)) };
        gate.maps.ledger_rows.handle().update(&number.to_ne_bytes(), row, MapFlags::ANY).expect("a row");
        gate.maps
            .ledger_counts
            .handle()
            .update(&number.to_ne_bytes(), counts, MapFlags::ANY)
            .expect("counts");
        // and a hash, of which the kernel hands out whole buckets
        let id = (1_000_000 + number).to_ne_bytes();
        gate.maps.names.handle().update(&id, &[b'x'; 64], MapFlags::ANY).expect("a name");
    }
    let given = u64::from(ROWS).to_ne_bytes();
    let key = quota_key::QUOTA_ROWS_ISSUED.0.to_ne_bytes();
    gate.maps.ledger_quotas.handle().update(&key, &given, MapFlags::ANY).expect("a share");
    assert_eq!(gate.ledger().expect("the ledger").len(), ROWS as usize);
    assert_eq!(gate.names_by_id().expect("names").len(), before + ROWS as usize);
    assert_eq!(gate.ledger_total(), (u64::from(ROWS), u64::from(ROWS) * 60));
}
