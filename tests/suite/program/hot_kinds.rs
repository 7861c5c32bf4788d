//! Kinds that find their server's quota used up: hot ones get a row of the reserve, the others are sampled in
//! turn. So a flood of ports hides no port that matters, and no outsider uses up the rows of a server.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portcullis::abi::{Reason, quota_class, quota_key, row_quota};
use portcullis::clock::now_ns;
use portcullis::compile::RowQuotas;
use portcullis::drops::{CountedRow, Sample, decode};
use portcullis::gate::Consumer;

use super::fast_path::opening;
use crate::support::cpu::on_one_cpu;
use crate::support::dmz::{POLICY, V4, V6};
use crate::support::frame::{ACK, RST, tcp, udp};
use crate::support::test_gate::{SECOND_NS, TestGate};

/// A window of time, `HOT_WINDOW_SHIFT`.
const WINDOW_NS: u64 = 1 << 33;
const RESERVE: u16 = 24;

fn send(gate: &TestGate, frame: &[u8]) {
    gate.programs.run_filter(frame, 1).expect("a run");
}

fn target(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 51, 100, 0)) + number).into()
}

/// One SYN of web1 to each port, all to one destination.
fn call_every_port(gate: &TestGate) {
    (1..=65_534).for_each(|port| send(gate, &opening(V4.web, V4.peer, port)));
}

/// The row of web1's openings to a port.
fn row_of(gate: &TestGate, port: u16) -> Option<CountedRow> {
    let rows = gate.ledger_rows(false).into_iter();
    rows.filter(|row| row.kind.reason == Reason::NewFlow.number()).find(|row| row.kind.port == port)
}

/// A port that has no row after a flood of all ports.
fn port_without_row(gate: &TestGate) -> u16 {
    let taken: HashSet<u16> = gate.ledger_rows(false).iter().map(|row| row.kind.port).collect();
    (20_000..60_000).find(|port| !taken.contains(port)).expect("a port")
}

/// Runs at the beginning of a window of time, so that the next one is seconds away.
fn within_a_window(test: impl FnOnce() + Send) {
    on_one_cpu(|| {
        await_window();
        test();
    });
}

/// Returns in the first half of a window of time.
fn await_window() {
    while now_ns() % WINDOW_NS > WINDOW_NS / 2 {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn take(consumer: &Consumer<'_>) -> Vec<Sample> {
    let received = consumer.poll(Duration::ZERO).expect("a poll");
    received.samples.iter().map(|bytes| decode(bytes).expect("a sample")).collect()
}

fn quota(gate: &TestGate, key: u32) -> u64 {
    let quotas: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
    quotas.iter().find(|(other, _)| *other == key).map_or(0, |(_, quota)| quota.rows)
}

#[test]
fn a_worm_gets_a_row_with_its_destinations_after_a_flood_of_every_port() {
    within_a_window(|| {
        let gate = TestGate::dmz();
        call_every_port(&gate);
        let port = port_without_row(&gate);
        (1..=30).for_each(|number| send(&gate, &opening(V4.web, target(number), port)));
        let row = row_of(&gate, port).expect("a row of the worm");
        assert!(row.packets >= 28, "{row:?}");
        let reader = gate.contact_reader().expect("addresses");
        let (_, destinations) = reader.read(row.number).expect("addresses").expect("a row");
        assert_eq!(destinations.first.len(), 16);
        assert!(destinations.is_full);
        // all of it is exact
        assert_eq!(gate.ledger_total().0, 65_534 + 30);
        assert_eq!(quota(&gate, gate.id_of("web1") + quota_key::QUOTA_RESERVE.0), 1);
    });
}

#[test]
fn a_worm_on_tcp_445_is_sampled_with_a_row_of_its_own_after_a_flood_that_left_it_none() {
    within_a_window(|| {
        let gate = TestGate::dmz();
        (1..=65_534).rev().for_each(|port| send(&gate, &opening(V4.web, V4.peer, port)));
        assert!(row_of(&gate, 445).is_none(), "the flood came to it last");
        // samples of the rest have room again
        gate.move_samples(1);
        let consumer = gate.consume_samples().expect("a perf buffer");
        (1..=30).for_each(|number| send(&gate, &opening(V4.web, target(number), 445)));
        let row = row_of(&gate, 445).expect("a row of the worm");
        assert!(row.packets >= 28, "{row:?}");
        let of_worm = |sample: &Sample| (sample.port, sample.in_rest);
        let samples: Vec<_> = take(&consumer).iter().map(of_worm).collect();
        assert!(samples.contains(&(445, false)), "{samples:?}");
    });
}

#[test]
fn a_worm_gets_a_row_while_the_flood_goes_on() {
    within_a_window(|| {
        let gate = TestGate::dmz();
        call_every_port(&gate);
        let port = port_without_row(&gate);
        // the flood has a hundred ports for each of the worm's packets, and two destinations
        let mut flooded = 1_000_u16;
        let mut sent = 0;
        while row_of(&gate, port).is_none() {
            sent += 1;
            assert!(sent < 40, "the worm has no row");
            send(&gate, &opening(V4.web, target(sent), port));
            for _ in 0..100 {
                flooded = if flooded == 65_000 { 1_000 } else { flooded + 1 };
                if flooded != port {
                    send(&gate, &opening(V4.web, if sent % 2 == 0 { V4.peer } else { V4.other }, flooded));
                }
            }
        }
        let reserve = quota(&gate, gate.id_of("web1") + quota_key::QUOTA_RESERVE.0);
        assert!(reserve <= 3, "ports with two destinations took {reserve} rows");
    });
}

#[test]
fn decoys_make_a_worm_rise_later_and_no_more() {
    within_a_window(|| {
        let gate = TestGate::dmz();
        call_every_port(&gate);
        let first = port_without_row(&gate);
        let decoys = RESERVE - 1;
        for decoy in 0..decoys {
            let mut number = 0;
            while row_of(&gate, first + decoy).is_none() {
                number += 1;
                send(&gate, &opening(V4.web, target(number), first + decoy));
                assert!(number < 200, "the decoy {decoy} has no row");
            }
            // one destination may be of the flood; hashes may agree, so it may be more
            assert!(number > u32::from(decoy), "the decoy {decoy} had to call {number} destinations");
        }
        let worm = first + decoys;
        (0..250).for_each(|number| send(&gate, &opening(V4.web, target(number), worm)));
        assert!(row_of(&gate, worm).is_some(), "the worm has no row");
        // and that was the last one
        (0..250).for_each(|number| send(&gate, &opening(V4.web, target(number), worm + 1)));
        assert!(row_of(&gate, worm + 1).is_none());
        assert_eq!(quota(&gate, gate.id_of("web1") + quota_key::QUOTA_RESERVE.0), u64::from(RESERVE));
        // another server has its own
        for port in 1..=4_000 {
            send(&gate, &opening(V4.ns, V4.peer, port));
        }
        (0..10).for_each(|number| send(&gate, &opening(V4.ns, target(number), 4_001)));
        let ns = gate.id_of("ns1");
        let rows = gate.ledger_rows(false);
        assert!(rows.iter().any(|row| (row.kind.server, row.kind.port) == (ns, 4_001)));
    });
}

#[test]
fn destinations_of_an_earlier_window_make_no_kind_hot() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        call_every_port(&gate);
        let port = port_without_row(&gate);
        for number in 1..=2 {
            let window = now_ns() / WINDOW_NS;
            // the programs' clock is a little behind
            while now_ns() < (window + 1) * WINDOW_NS + SECOND_NS / 10 {
                std::thread::sleep(Duration::from_millis(20));
            }
            send(&gate, &opening(V4.web, target(number), port));
        }
        assert!(row_of(&gate, port).is_none());
        // several in one window do, and by chance the hashes of two may agree
        let third = now_ns() / WINDOW_NS;
        (3..=8).for_each(|number| send(&gate, &opening(V4.web, target(number), port)));
        assert!(row_of(&gate, port).is_some() || now_ns() / WINDOW_NS > third);
    });
}

#[test]
fn a_sample_without_a_row_says_so_and_has_its_port_and_destination() {
    within_a_window(|| {
        let gate = TestGate::dmz();
        call_every_port(&gate);
        let consumer = gate.consume_samples().expect("a perf buffer");
        let port = port_without_row(&gate);
        gate.move_samples(now_ns() - SECOND_NS);
        // the flood was TCP, so this is the first destination of its kind
        send(&gate, &udp((V4.web, 40_000), (target(7), port)));
        let samples = take(&consumer);
        let [sample] = &samples[..] else { panic!("one sample: {samples:?}") };
        assert!(sample.in_rest);
        assert_eq!((sample.port, sample.destination), (port, Some(target(7))));
        let key = sample.key();
        assert_eq!((key.port, key.protocol, key.overflow), (0, 0, true));
        // a kind with a row does not
        send(&gate, &opening(V4.ns, target(7), port));
        let samples = take(&consumer);
        assert!(matches!(&samples[..], [sample] if !sample.in_rest && sample.key().port == port));
    });
}

#[test]
fn kinds_without_a_row_are_sampled_eight_times_a_second_and_each_once_in_a_window() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        call_every_port(&gate);
        let consumer = gate.consume_samples().expect("a perf buffer");
        let first = port_without_row(&gate);
        let rest = gate.ledger_rows(true)[0].number;
        let sampled_ns = || gate.maps.ledger_rows.get(rest).unwrap().unwrap().sampled_ns;
        // where the programs are emulated, the flood takes longer than a window
        await_window();
        let mut seen = Vec::new();
        // three ports by turns, and one of them much more often
        for _ in 0..6 {
            gate.move_sample(rest, now_ns() - SECOND_NS / 4);
            for port in [first, first, first, first + 1, first, first + 2] {
                send(&gate, &opening(V4.web, V4.peer, port));
                // as if an eighth of a second had gone by
                gate.move_sample(rest, sampled_ns().min(now_ns() - SECOND_NS / 4));
            }
            seen.extend(take(&consumer).iter().map(|sample| sample.port));
        }
        assert_eq!(seen, [first, first + 1, first + 2], "each once");
        // within an eighth of a second there is one
        let start_ns = now_ns();
        gate.move_sample(rest, start_ns - SECOND_NS / 4);
        for port in first + 3..first + 30 {
            send(&gate, &opening(V4.web, V4.peer, port));
        }
        let most = 2 + (now_ns() - start_ns) / (SECOND_NS / 8);
        let samples = take(&consumer);
        assert!(samples.len() as u64 <= most && samples[0].port == first + 3, "{most}: {samples:?}");
        // and all of them are counted, in this one or in the next
        gate.move_sample(rest, now_ns() - SECOND_NS / 4);
        send(&gate, &opening(V4.web, V4.peer, first + 100));
        let row = gate.ledger_rows(true)[0];
        assert_eq!(row.sampled_packets, row.packets);
    });
}

#[test]
fn another_servers_single_try_is_sampled_at_once_whatever_one_server_floods() {
    let gate = TestGate::dmz();
    call_every_port(&gate);
    let consumer = gate.consume_samples().expect("a perf buffer");
    for port in [445, 22, 3389] {
        send(&gate, &opening(V6.ns, V6.peer, port));
        let samples = take(&consumer);
        let [sample] = &samples[..] else { panic!("one sample: {samples:?}") };
        assert_eq!((sample.port, sample.drops, sample.in_rest), (port, 1, false));
    }
}

#[test]
fn outsiders_use_up_none_of_a_servers_own_rows() {
    let gate = TestGate::dmz();
    let web = gate.id_of("web1");
    let own = RowQuotas::of(gate.maps.ledger.capacity(), gate.ids_by_name().unwrap().len());
    // forty thousand odd questions: resets of every port, and answers of a service in no flow
    for port in 1..=40_000 {
        send(&gate, &tcp((V4.web, port), (V4.peer, 51_000), RST | ACK));
        send(&gate, &tcp((V4.web, 80), (V4.peer, port), ACK));
    }
    assert_eq!(quota(&gate, web), 0);
    assert_eq!(quota(&gate, web + quota_key::QUOTA_OUTSIDE.0), own.outside.max);
    assert_eq!(quota(&gate, quota_key::QUOTA_SHARED.0), 0);
    assert_eq!(gate.ledger_total().0, 80_000);
    for port in 1..=own.own.max as u16 {
        let row = gate.drops(&opening(V4.web, V4.peer, port), Reason::NewFlow);
        assert_eq!((row.key.port, row.row.packets), (port, 1));
    }
}

#[test]
fn what_outsiders_cause_and_what_is_quiet_takes_no_row_of_the_reserve() {
    within_a_window(|| {
        let gate = TestGate::dmz();
        call_every_port(&gate);
        for port in 1..=10_000 {
            send(&gate, &tcp((V4.web, port), (V4.peer, 51_000), RST | ACK));
        }
        let taken = gate.ledger_rows(false).len();
        for number in 0..200 {
            send(&gate, &tcp((V4.web, 20_000), (target(number), 51_000), RST | ACK));
            send(&gate, &udp((V4.web, 40_000), (target(number), 5353)));
        }
        assert_eq!(gate.ledger_rows(false).len(), taken);
        assert_eq!(quota(&gate, gate.id_of("web1") + quota_key::QUOTA_RESERVE.0), 0);
        // what a server sends itself gets one, by the full path as well
        for number in 0..10 {
            send(&gate, &udp((V4.web, 40_000), (target(number), 33_333)));
        }
        assert_eq!(gate.ledger_rows(false).len(), taken + 1);
    });
}

#[test]
fn the_reserve_is_of_all_servers_and_each_gets_its_part() {
    let gate = TestGate::sized(POLICY, &[("ledger", 64)]);
    let of = RowQuotas::of(64, gate.ids_by_name().unwrap().len()).reserve;
    assert_eq!((of.shared, of.max), (8, 2));
    let limits = gate.live_settings().unwrap().unwrap().limits[quota_class::CLASS_RESERVE.0 as usize];
    assert_eq!((limits.shared, limits.max), (8, 2));
    within_a_window(|| {
        for server in [V4.web, V4.ns] {
            (1..200).for_each(|port| send(&gate, &opening(server, V4.peer, port)));
            for port in 300..310 {
                (0..100).for_each(|number| send(&gate, &opening(server, target(number), port)));
            }
        }
        for name in ["web1", "ns1"] {
            assert_eq!(quota(&gate, gate.id_of(name) + quota_key::QUOTA_RESERVE.0), 2, "{name}");
        }
        assert_eq!(quota(&gate, quota_key::QUOTA_RESERVE_SHARED.0), 4);
    });
}
