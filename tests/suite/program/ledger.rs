//! The ledger: every drop, exactly, also when it is full.

use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags};
use plain::Plain;
use portcullis::abi::Reason;
use portcullis::abi::{ledger_key, quota_key, row_quota};
use portcullis::clock::now_ns;
use portcullis::compile::RowQuotas;

use crate::support::dmz::{FAMILIES, POLICY, V4, V6, in_both_families};
use crate::support::frame::{ACK, RST, SYN, icmp, link_frame, padded, raw_ip, tcp, udp};
use crate::support::test_gate::{SECOND_NS, TestGate, with_dmz_in_both_families};

#[test]
fn a_kind_of_drop_is_one_row_that_grows() {
    let gate = TestGate::dmz();
    let mut bytes = 0;
    let mut first_ns = 0;
    for number in 1..=5 {
        // Source ports, destinations and families do not make another kind.
        let family = FAMILIES[number % 2];
        let to = if number < 3 { family.peer } else { family.other };
        let frame = tcp((family.web, 40_000 + number as u16), (to, 6667), SYN);
        let row = gate.drops(&frame, Reason::NewFlow);
        bytes += frame.len() as u64;
        assert_eq!((row.row.packets, row.row.bytes), (number as u64, bytes));
        first_ns = if number == 1 { row.row.first_ns } else { first_ns };
        assert_eq!(row.row.first_ns, first_ns);
        let address = portcullis::abi::from_address;
        assert_eq!(
            (address(&row.row.last_source), address(&row.row.last_destination)),
            (Some(family.web), Some(to))
        );
    }
    assert_eq!(gate.ledger().unwrap().len(), 1);
}

#[test]
fn server_protocol_port_reason_and_flags_make_a_kind() {
    let gate = TestGate::dmz();
    let frames = [
        (tcp((V4.web, 40_000), (V4.peer, 6667), SYN), Reason::NewFlow),
        (tcp((V4.ns, 40_000), (V4.peer, 6667), SYN), Reason::NewFlow),
        (udp((V4.web, 40_000), (V4.peer, 6667)), Reason::NewFlow),
        (tcp((V4.web, 40_000), (V4.peer, 6668), SYN), Reason::NewFlow),
        (tcp((V4.web, 6667), (V4.peer, 40_000), SYN), Reason::NewFlow),
        (tcp((V4.web, 40_000), (V4.peer, 6667), 0), Reason::Malformed),
        (udp((V4.web, 40_000), (V4.peer, 5353)), Reason::NewFlow),
        (tcp((V4.unknown, 40_000), (V4.peer, 6667), SYN), Reason::UnknownSource),
    ];
    for (index, (frame, reason)) in frames.iter().enumerate() {
        let row = gate.drops(frame, *reason);
        assert_eq!(row.row.packets, 1);
        assert_eq!(gate.ledger().unwrap().len(), index + 1);
    }
    gate.swap(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
    let row = gate.would_drop(&frames[0].0, Reason::NewFlow);
    assert_eq!((row.row.packets, row.key.flags), (1, 2));
    assert_eq!(gate.ledger().unwrap().len(), frames.len() + 1);
}

#[test]
fn the_port_is_what_the_flow_was_for() {
    let gate = TestGate::dmz();
    in_both_families(|family| {
        let kind = if family.web.is_ipv4() { 13 } else { 139 };
        gate.to_server(&tcp((family.peer, 51_000), (family.web, 4444), SYN));
        gate.to_server(&tcp((family.peer, 51_000), (family.web, 22), SYN));
        let cases = [
            // the peer's port, of what the server opens
            (tcp((family.web, 40_000), (family.peer, 6667), SYN), Reason::NewFlow, 6667),
            (udp((family.web, 40_000), (family.peer, 514)), Reason::Destination, 514),
            // its own, of what it answers
            (tcp((family.web, 4444), (family.peer, 51_000), SYN | ACK), Reason::UnlistedService, 4444),
            (tcp((family.web, 22), (family.peer, 51_000), SYN | ACK), Reason::Stranger, 22),
            (tcp((family.web, 81), (family.peer, 51_000), RST), Reason::Backscatter, 81),
            (raw_ip(family.web, family.peer, 47, &[0; 8]), Reason::Protocol, 0),
            // the type
            (icmp(family.web, family.peer, (kind, 0), [0; 4], &[0; 12]), Reason::NewFlow, u16::from(kind)),
        ];
        for (frame, reason, port) in cases {
            let row = gate.drops(&frame, reason);
            assert_eq!(row.key.port, port, "for {reason}");
            assert_eq!(row.key.server, gate.id_of("web1"));
        }
    });
    // the EtherType
    assert_eq!(gate.drops(&link_frame(0x88f7, &[0; 46]), Reason::Ethertype).key.port, 0x88f7);
}

/// A SYN that makes a row of its own.
fn kind(from: IpAddr, port: u16) -> Vec<u8> {
    let to = if from.is_ipv4() { V4.peer } else { V6.peer };
    tcp((from, 40_000), (to, port), SYN)
}

#[test]
fn a_full_ledger_counts_on_by_server_and_reason() {
    let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
    let mut sent = (0, 0);
    let mut send = |frame: &[u8], reason| {
        let row = gate.drops(frame, reason);
        sent = (sent.0 + 1, sent.1 + frame.len() as u64);
        (row, sent)
    };
    // one of the two rows is the most that one server gets
    for (server, port) in [(V4.web, 2), (V4.ns, 1)] {
        let (row, _) = send(&kind(server, port), Reason::NewFlow);
        assert_eq!((row.key.port, row.key.protocol), (port, 6));
    }
    assert_eq!(gate.program_statistics().unwrap().ledger_full, 0);
    for (count, port) in [(1, 3), (2, 4), (3, 5)] {
        let (row, _) = send(&kind(V6.web, port), Reason::NewFlow);
        assert_eq!((row.key.port, row.key.protocol, row.key.server), (0, 0, gate.id_of("web1")));
        assert_eq!(row.row.packets, count);
    }
    // by server, and by reason
    let (row, _) = send(&kind(V4.ns, 3), Reason::NewFlow);
    assert_eq!((row.key.server, row.row.packets), (gate.id_of("ns1"), 1));
    let (row, _) = send(&udp((V4.web, 1), (V4.peer, 514)), Reason::Destination);
    assert_eq!((row.key.port, row.key.protocol, row.row.packets), (0, 0, 1));
    // a kind that has its row keeps it
    let (row, total) = send(&kind(V4.web, 2), Reason::NewFlow);
    assert_eq!((row.key.port, row.row.packets), (2, 2));

    assert_eq!(gate.ledger_total(), total, "every drop, exactly");
    assert_eq!(gate.program_statistics().unwrap().ledger_full, 5);
    assert_eq!(gate.program_statistics().unwrap().ledger_overflow_full, 0);
    assert_eq!(gate.ledger_rows(true).len(), 3);
}

#[test]
fn observed_drops_count_apart_in_a_full_ledger() {
    let gate = TestGate::sized(POLICY, &[("ledger", 1)]);
    gate.drops(&kind(V4.web, 1), Reason::NewFlow);
    gate.drops(&kind(V4.web, 2), Reason::NewFlow);
    gate.swap(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
    let row = gate.would_drop(&kind(V4.web, 3), Reason::NewFlow);
    assert_eq!((row.row.packets, row.key.flags & 2), (1, 2));
    let row = gate.would_drop(&udp((V4.web, 1), (V4.peer, 5353)), Reason::NewFlow);
    assert_eq!((row.row.packets, row.key.flags & 3), (1, 3));
}

#[test]
fn drops_on_two_cpus_at_once_are_counted_exactly() {
    const THREADS: u64 = 4;
    const REPEAT: u32 = 20_000;
    let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
    // two rows, and one that finds the ledger full
    let frames = [kind(V4.web, 1), kind(V6.ns, 2), kind(V4.web, 3)];
    // One makes the rows: who comes while the last of a share is being made counts in the rest.
    for frame in &frames {
        gate.programs.run_filter(frame, 1).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for frame in &frames {
                    gate.programs.run_filter(frame, REPEAT).unwrap();
                }
            });
        }
    });
    let packets = THREADS * u64::from(REPEAT) + 1;
    let bytes: u64 = frames.iter().map(|frame| frame.len() as u64 * packets).sum();
    assert_eq!(gate.ledger_total(), (3 * packets, bytes));
    let counters = gate.counters(false).unwrap();
    let of_reason = counters.iter().find(|(reason, _, _)| *reason == Reason::NewFlow);
    assert_eq!(of_reason, Some(&(Reason::NewFlow, 3 * packets, bytes)));
    assert!(gate.ledger().unwrap().iter().all(|(_, row)| row.packets == packets));
}

#[test]
fn a_thousand_answers_leave_no_row() {
    let gate = TestGate::dmz();
    let (server, peer) = V4.visit();
    gate.establish(server, peer);
    gate.programs.run_filter(&tcp(server, peer, ACK), 1_000).unwrap();
    assert_eq!(gate.ledger_total(), (0, 0));
    let counters = gate.counters(false).unwrap();
    let replies = counters.iter().find(|(reason, _, _)| *reason == Reason::Reply).unwrap();
    assert_eq!(replies.1, 1_001);
}

/// Rows that the ledger has of a server.
fn rows_of(gate: &TestGate, server: u32) -> usize {
    gate.ledger_rows(false).iter().filter(|row| row.kind.server == server).count()
}

#[test]
fn a_server_that_calls_every_port_leaves_the_others_their_rows() {
    const ROWS: u32 = 512;
    let gate = TestGate::sized(POLICY, &[("ledger", ROWS)]);
    let (web, ns) = (gate.id_of("web1"), gate.id_of("ns1"));
    let servers = gate.ids_by_name().unwrap().len();
    let RowQuotas { own, .. } = RowQuotas::of(ROWS, servers);
    let (own, most) = (own.guaranteed as usize, own.max as usize);

    let mut bytes = 0;
    for port in 1..=4_000 {
        let frame = kind(V4.web, port);
        bytes += frame.len() as u64;
        gate.programs.run_filter(&frame, 1).unwrap();
    }
    assert_eq!(rows_of(&gate, web), most);
    assert_eq!(gate.ledger_total(), (4_000, bytes), "every drop, exactly");
    assert_eq!(gate.program_statistics().unwrap().ledger_full, 4_000 - most as u64);
    let rest = gate.ledger_rows(true);
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].kind.server, rest[0].kind.reason), (web, Reason::NewFlow.number()));
    assert_eq!(rest[0].packets, 4_000 - most as u64);

    // another server's kinds have port and protocol, as if nothing had been
    for port in 1_001..=1_000 + own as u16 {
        let row = gate.drops(&kind(V6.ns, port), Reason::NewFlow);
        assert_eq!((row.key.server, row.key.port, row.key.protocol), (ns, port, 6));
    }
    // so have the kinds that the greedy one has already
    assert_eq!(gate.drops(&kind(V4.web, 7), Reason::NewFlow).key.port, 7);
}

#[test]
fn every_server_gets_its_guaranteed_rows_when_all_are_greedy() {
    const ROWS: u32 = 512;
    let mut policy = POLICY.to_owned();
    for number in 0..40 {
        policy.push_str(&format!(
            "[servers.s{number}]\naddresses = [\"192.0.2.{}\"]\nroles = [\"web\"]\n",
            150 + number
        ));
    }
    let gate = TestGate::sized(&policy, &[("ledger", ROWS)]);
    let own = RowQuotas::of(ROWS, gate.ids_by_name().unwrap().len()).own.guaranteed as usize;
    assert!(own > 2);
    let greedy = |number: u8| IpAddr::from([192, 0, 2, 150 + number]);
    for number in 0..39 {
        for port in 1..=200 {
            gate.programs.run_filter(&kind(greedy(number), port), 1).unwrap();
        }
    }
    assert!(gate.ledger_rows(false).len() < ROWS as usize, "room is left for who has not been heard yet");
    let shares: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
    for number in 0..39 {
        let server = gate.id_of(&format!("s{number}"));
        assert!(rows_of(&gate, server) >= own);
        // who got no row from what all have in common has not spent one
        let counted = shares.iter().find(|(owner, _)| *owner == server).expect("a share").1.rows;
        assert_eq!(counted as usize, rows_of(&gate, server));
    }
    for port in 1..=own as u16 {
        assert_eq!(gate.drops(&kind(greedy(39), port), Reason::NewFlow).key.port, port);
    }
    assert_eq!(gate.drops(&kind(greedy(39), 9_999), Reason::NewFlow).key.port, 0, "and no more");
    assert_eq!(gate.ledger_total().0, 39 * 200 + own as u64 + 1);
}

#[test]
fn a_spoofed_frame_spends_none_of_its_owners_quota() {
    let policy = POLICY.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:77\"");
    let gate = TestGate::sized(&policy, &[("ledger", 512)]);
    for port in 1..=1_000 {
        gate.programs.run_filter(&kind(V4.ns, port), 1).unwrap();
        // broken ones are named before the source is judged
        gate.programs.run_filter(&tcp((V4.ns, 40_000), (V4.peer, port), 0), 1).unwrap();
    }
    let mut own = kind(V4.ns, 4_000);
    own[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x77]);
    let row = gate.drops(&own, Reason::NewFlow);
    assert_eq!((row.key.server, row.key.port), (gate.id_of("ns1"), 4_000));
    let shares: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
    let rows = shares.iter().find(|(owner, _)| *owner == gate.id_of("ns1")).map(|(_, share)| share.rows);
    assert_eq!(rows, Some(1));
}

#[test]
fn quotas_are_exact_when_several_cpus_make_rows_at_once() {
    const THREADS: u16 = 4;
    let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let gate = &gate;
            scope.spawn(move || {
                // each kind by all threads, so that they meet
                for number in 0..3_000 {
                    let server = if thread % 2 == 0 { V4.web } else { V6.web };
                    gate.programs.run_filter(&kind(server, 1 + number), 1).unwrap();
                }
            });
        }
    });
    assert_eq!(gate.ledger_total().0, u64::from(THREADS) * 3_000);
    let shares: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
    let web = gate.id_of("web1");
    let rows =
        |owner| shares.iter().find(|(other, _)| *other == owner).map_or(0, |(_, share)| share.rows as usize);
    // each kind goes to two destinations, so some are hot if a CPU sees both of them
    let all = rows(web) + rows(web + quota_key::QUOTA_RESERVE.0);
    assert_eq!(all, rows_of(&gate, web), "what is counted, and what there is");
    // a row that two made at once, and whose neighbour was given out before one could return it
    let spare = rows(quota_key::QUOTA_ROWS_ISSUED.0) - gate.ledger().unwrap().len();
    assert!(spare < 512 / 8, "{spare} rows are lost");
}

#[test]
fn a_frame_in_several_buffers_counts_whole_however_short_its_packet() {
    with_dmz_in_both_families(|gate, family| {
        let frame = padded(&udp((family.web, 40_000), (family.peer, 6667)), 9000);
        let row = gate.drops(&frame, Reason::NewFlow);
        assert_eq!(row.row.bytes % 9000, 0);
    });
}

#[test]
fn a_server_that_once_had_more_rows_leaves_new_servers_their_guaranteed_ones() {
    const ROWS: u32 = 512;
    let one = "[roles.web]\nin=[\"tcp/80\"]\n[servers.old]\naddresses=[\"192.0.2.140\"]\nroles=[\"web\"]\n";
    let gate = TestGate::sized(one, &[("ledger", ROWS)]);
    let old = IpAddr::from([192, 0, 2, 140]);
    for port in 1..=4000 {
        gate.programs.run_filter(&kind(old, port), 1).unwrap();
    }
    let mut policy = one.to_owned();
    for number in 0..40 {
        policy.push_str(&format!(
            "[servers.s{number}]\naddresses = [\"192.0.2.{}\"]\nroles = [\"web\"]\n",
            150 + number
        ));
    }
    gate.swap(&policy);
    for number in 0..39u8 {
        for port in 1..=200 {
            gate.programs.run_filter(&kind(IpAddr::from([192, 0, 2, 150 + number]), port), 1).unwrap();
        }
    }
    assert_eq!(gate.drops(&kind(IpAddr::from([192, 0, 2, 189]), 77), Reason::NewFlow).key.port, 77);
}

/// The value as the kernel has it.
fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: what the tables hold are integers without padding.
    unsafe { plain::as_bytes(value) }
}

/// Fills a table with kinds of a server that is none.
pub fn fill(gate: &TestGate, table: &str) {
    let map = gate.maps.find(table).expect("a map");
    for port in 0..map.max_entries() as u16 {
        let key = ledger_key { server: 4_000_000_000, port, ..ledger_key::default() };
        map.update(bytes_of(&key), &u32::MAX.to_ne_bytes(), MapFlags::ANY).unwrap();
    }
}

#[test]
fn a_row_says_when_its_first_and_its_last_packet_came() {
    for table in ["ledger", "ledger_overflow"] {
        let gate = TestGate::sized(POLICY, &[("ledger", 64)]);
        if table == "ledger_overflow" {
            fill(&gate, "ledger");
        }
        let before_ns = now_ns();
        let first = gate.drops(&kind(V4.web, 1), Reason::NewFlow).row;
        // the coarse clock is up to two ticks old, of 10 ms at most
        assert!(first.first_ns + 20_000_000 >= before_ns && first.first_ns <= now_ns(), "{first:?}");
        assert_eq!(first.last_ns, first.first_ns);
        let last = loop {
            let row = gate.drops(&kind(V4.web, 1), Reason::NewFlow).row;
            if row.last_ns != first.last_ns {
                break row;
            }
            assert!(now_ns() < before_ns + 20 * SECOND_NS, "the clock stands still");
        };
        assert_eq!(last.first_ns, first.first_ns);
        assert!(last.last_ns > first.last_ns && last.last_ns <= now_ns());
    }
}

#[test]
fn a_drop_that_finds_no_room_in_the_ledger_spends_no_quota() {
    let gate = TestGate::sized(POLICY, &[("ledger", 64)]);
    let web = gate.id_of("web1");
    fill(&gate, "ledger");
    let rows_by_owner = || -> Vec<(u32, u64)> {
        let mut shares: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
        shares.sort_unstable_by_key(|(owner, _)| *owner);
        shares.iter().map(|(owner, share)| (*owner, share.rows)).collect()
    };
    let row = gate.drops(&kind(V4.web, 1), Reason::NewFlow);
    assert_eq!((row.key.server, row.key.port, row.key.protocol), (web, 0, 0), "counted in the rest");
    // the one row that was given out is the rest's
    let given = [(quota_key::QUOTA_ROWS_ISSUED.0, 1), (quota_key::QUOTA_OVERFLOW.0, 1)];
    assert_eq!(rows_by_owner(), [&[(web, 0)], &given[..]].concat());
    // and nothing of what all have in common: its own rows are gone
    let own = RowQuotas::of(64, gate.ids_by_name().unwrap().len()).own.guaranteed;
    let spent = row_quota { rows: own };
    gate.maps.ledger_quotas.handle().update(&web.to_ne_bytes(), bytes_of(&spent), MapFlags::ANY).unwrap();
    gate.drops(&udp((V4.web, 40_000), (V4.peer, 2)), Reason::NewFlow);
    assert_eq!(rows_by_owner(), [&[(web, own), (quota_key::QUOTA_SHARED.0, 0)], &given[..]].concat());
    assert_eq!(gate.program_statistics().unwrap().ledger_full, 2);
}

#[test]
fn drops_for_which_even_the_ledgers_overflow_has_no_room_are_counted_and_reported() {
    let gate = TestGate::sized(POLICY, &[("ledger", 64)]);
    fill(&gate, "ledger");
    fill(&gate, "ledger_overflow");
    for count in 1..=3 {
        let run = gate.programs.run_filter(&kind(V4.web, 1), 1).unwrap();
        assert_eq!(run.action, 1, "XDP_DROP");
        let statistic = gate.program_statistics().unwrap();
        assert_eq!(
            (statistic.ledger_full, statistic.ledger_overflow_full, statistic.samples_no_reader),
            (count, count, 0)
        );
    }
    let counters = gate.counters(false).unwrap();
    assert!(counters.iter().any(|(reason, packets, _)| (*reason, *packets) == (Reason::NewFlow, 3)));
    assert_eq!(gate.ledger_total(), (0, 0));
}

#[test]
fn kinds_of_a_server_that_has_many_take_turns_in_being_sampled() {
    const SECOND_NS: u64 = 1_000_000_000;
    let gate = TestGate::sized(POLICY, &[("ledger", 4096)]);
    let names = gate.ids_by_name().unwrap().len() as u64;
    // a 32nd of the rows that each owns: servers share half of all with those who are none
    let turns = RowQuotas::of(4096, names as usize).own.guaranteed / 32;
    let call = |server: IpAddr, port: u16| {
        let row = gate.drops(&tcp((server, 40_000), (V4.peer, port), SYN), Reason::NewFlow).row;
        // each is sampled at once, for it is the first of its kind
        assert_eq!((row.packets, row.sampled_packets), (1, 1));
        row.sampled_ns - row.last_ns
    };
    for number in 1..=4 * turns {
        let silence = call(V4.web, 7000 + number as u16);
        assert_eq!(silence, number.saturating_sub(turns) * SECOND_NS / turns, "{number} of {turns}");
    }
    assert_eq!(call(V4.ns, 7000), 0, "another server is heard as ever");
}
