//! Rows that are given back: what they counted stays exact, and their kinds and servers begin anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use libbpf_rs::{MapCore, MapFlags};
use plain::Plain;
use portcullis::abi::{
    Reason, bloom_word, ledger_key, ledger_row, quota_key, row_class, row_quota, state, sweep_request,
    sweep_row, sweep_step,
};
use portcullis::compile::RowQuotas;
use portcullis::drops::{CountedRow, ReportedRow};

use super::fast_path::opening;
use crate::support::cpu::{allowed_cpus, on_cpu, on_one_cpu};
use crate::support::dmz::{POLICY, V4, V6};
use crate::support::frame::udp;
use crate::support::patience::{PATIENCE, deadline};
use crate::support::test_gate::TestGate;

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: requests, rows and quotas are integers without padding.
    unsafe { plain::as_bytes(value) }
}

/// All rows with a kind of their own, as if all their drops had been reported.
fn reported(gate: &TestGate) -> Vec<ReportedRow> {
    let to_reported = |row: &CountedRow| ReportedRow {
        number: row.number,
        first_ns: row.first_ns,
        packets: row.packets,
        last_ns: row.last_ns,
    };
    gate.ledger_rows(false).iter().map(to_reported).collect()
}

/// Packets by server and reason.
fn sums(gate: &TestGate) -> BTreeMap<(u32, u8), (u64, u64)> {
    let mut sums: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for (kind, row) in gate.ledger().expect("the ledger") {
        let sum = sums.entry((kind.server, kind.reason)).or_default();
        *sum = (sum.0 + row.packets, sum.1 + row.bytes);
    }
    sums.retain(|_, sum| sum.0 > 0);
    sums
}

fn quota(gate: &TestGate, key: u32) -> u64 {
    let quotas: Vec<(u32, row_quota)> = gate.entries("ledger_quotas");
    quotas.iter().find(|(other, _)| *other == key).map_or(0, |(_, quota)| quota.rows)
}

fn send(gate: &TestGate, frame: &[u8]) {
    gate.programs.run_filter(frame, 1).expect("a run");
}

/// Ports of web1 until its quota is used up, and some beyond it.
fn fill(gate: &TestGate) -> u16 {
    let max = RowQuotas::of(gate.maps.ledger.capacity(), gate.ids_by_name().unwrap().len()).own.max as u16;
    (1..=max + 20).for_each(|port| send(gate, &opening(V4.web, V4.peer, port)));
    assert_eq!(gate.ledger_rows(false).len(), usize::from(max));
    max
}

/// One step of a sweep, and nothing that the tool does before and after it.
fn step(gate: &TestGate, step: sweep_step, rows: &[ReportedRow]) -> u32 {
    let mut frame = bytes_of(&sweep_request { step: step.0, rows: rows.len() as u32, zero: 0 }).to_vec();
    for row in rows {
        let row = sweep_row { first_ns: row.first_ns, packets: row.packets, number: row.number, zero: 0 };
        frame.extend_from_slice(bytes_of(&row));
    }
    gate.programs.run_sweep(&frame).expect("a sweep")
}

#[test]
fn a_server_that_used_up_its_quota_gets_rows_again_and_no_count_is_lost() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        let max = fill(&gate);
        let web = gate.id_of("web1");
        send(&gate, &udp((V6.ns, 40_000), (V6.peer, 7)));
        let before = (gate.ledger_total(), sums(&gate));
        let shared = quota(&gate, quota_key::QUOTA_SHARED.0);
        assert!(gate.is_ledger_crowded().unwrap());
        let gone = gate.give_rows_back(&reported(&gate)).unwrap();
        assert!(!gate.is_ledger_crowded().unwrap());
        // the oldest ones, until half of the quota is free
        assert_eq!(gone.len(), usize::from(max - max / 2));
        assert_eq!((gate.ledger_total(), sums(&gate)), before);
        assert_eq!(quota(&gate, web), u64::from(max / 2));
        let own = RowQuotas::of(512, gate.ids_by_name().unwrap().len()).own;
        let shared_now = (u64::from(max / 2)).saturating_sub(own.guaranteed);
        assert_eq!(
            shared - quota(&gate, quota_key::QUOTA_SHARED.0),
            u64::from(max) - own.guaranteed - shared_now
        );
        // the other server's row is none of them
        assert!(gate.ledger_rows(false).iter().any(|row| row.kind.server == gate.id_of("ns1")));

        // new kinds have rows, and the numbers of those that are gone
        let issued = quota(&gate, quota_key::QUOTA_ROWS_ISSUED.0);
        for port in 20_001..=20_000 + gone.len() as u16 {
            let row = gate.drops(&opening(V4.web, V4.peer, port), Reason::NewFlow);
            assert_eq!((row.key.port, row.row.packets), (port, 1));
            assert!(gone.contains(&row.row.number), "{row:?}");
        }
        assert_eq!(quota(&gate, quota_key::QUOTA_ROWS_ISSUED.0), issued);
        assert_eq!(gate.ledger_total().0, before.0.0 + gone.len() as u64);
    });
}

#[test]
fn a_kind_that_comes_again_has_a_new_row_with_a_new_beginning_and_new_addresses() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        for peer in [V4.peer, V4.other, V4.loghost] {
            send(&gate, &opening(V4.web, peer, 1));
        }
        fill(&gate);
        let row_of = |port| gate.ledger_rows(false).into_iter().find(|row| row.kind.port == port);
        let before = row_of(1).expect("a row");
        let gone = gate.give_rows_back(&reported(&gate)).unwrap();
        assert!(gone.contains(&before.number) && row_of(1).is_none());
        // the fast path knew the row
        let row = gate.drops(&opening(V4.web, V6_MAPPED, 1), Reason::NewFlow);
        assert_eq!((row.key.port, row.row.packets, row.row.sampled_packets), (1, 1, 1));
        assert!(row.row.first_ns >= before.last_ns);
        let reader = gate.contact_reader().unwrap();
        let (_, destinations) = reader.read(row.row.number).unwrap().expect("a row");
        assert_eq!((destinations.first, destinations.frequent), (vec![V6_MAPPED], vec![(V6_MAPPED, 1)]));
        assert!(!destinations.is_estimate);
    });
}

const V6_MAPPED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 99));

#[test]
fn a_row_that_has_counted_another_drop_stays() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        fill(&gate);
        let rows = reported(&gate);
        send(&gate, &opening(V4.web, V4.peer, 1));
        let gone = gate.give_rows_back(&rows).unwrap();
        let row = gate.ledger_rows(false).into_iter().find(|row| row.kind.port == 1).expect("its row");
        assert!(row.packets == 2 && !gone.contains(&row.number));
        // nor does a row that is another by now
        let stale: Vec<ReportedRow> =
            rows.iter().map(|row| ReportedRow { first_ns: row.first_ns - 1, ..*row }).collect();
        assert_eq!(step(&gate, sweep_step::SWEEP_RETIRE, &stale), 0);
    });
}

#[test]
fn drops_that_come_while_a_row_is_retired_are_counted_and_still_to_be_reported() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        let frame = opening(V4.web, V4.peer, 445);
        (0..5).for_each(|_| send(&gate, &frame));
        let rows = reported(&gate);
        let before = gate.ledger_total();
        assert_eq!(step(&gate, sweep_step::SWEEP_RETIRE, &rows), 1);
        assert_eq!(gate.ledger_total(), before, "retired rows count on for readers");
        assert!(gate.ledger().unwrap().iter().all(|(_, row)| row.given_back));
        // this CPU knows the verdict, and so it counts in the row that is retired
        (0..3).for_each(|_| send(&gate, &frame));
        assert_eq!(gate.ledger_rows(false).len(), 0);
        assert_eq!(gate.ledger_total().0, 8);
        // a sweep that was cut short here is finished by the next one
        gate.give_rows_back(&[]).unwrap();
        assert_eq!(gate.ledger_total().0, 8);
        let rest: Vec<(u64, bool)> =
            gate.ledger().unwrap().iter().map(|(_, row)| (row.packets, row.given_back)).collect();
        assert_eq!(rest, [(3, false), (5, true)], "three that nobody has reported");
        let row = gate.drops(&frame, Reason::NewFlow);
        assert_eq!((row.key.port, row.row.packets), (445, 1));
    });
}

#[test]
fn a_reclaim_without_a_retirement_and_a_second_one_change_nothing() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        send(&gate, &opening(V4.web, V4.peer, 445));
        let rows = reported(&gate);
        assert_eq!(step(&gate, sweep_step::SWEEP_RECLAIM, &rows), 0);
        assert_eq!(gate.ledger_rows(false).len(), 1);
        assert_eq!(step(&gate, sweep_step::SWEEP_RETIRE, &rows), 1);
        assert_eq!(step(&gate, sweep_step::SWEEP_RETIRE, &rows), 0);
        assert_eq!(step(&gate, sweep_step::SWEEP_RECLAIM, &rows), 1);
        assert_eq!(step(&gate, sweep_step::SWEEP_RECLAIM, &rows), 0);
        assert_eq!(gate.ledger_total().0, 1);
        assert_eq!(quota(&gate, quota_key::QUOTA_ROWS_FREED.0), 1);
    });
}

#[test]
fn a_row_that_two_cpus_made_for_one_kind_is_given_back_as_well() {
    let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
    send(&gate, &opening(V4.web, V4.peer, 445));
    // as add_row() leaves it when another CPU was faster, and a third has taken the next row
    let row = gate.ledger_rows(false)[0];
    let number = row.number + 1;
    let vain = ledger_row { kind: row.kind, number, first_ns: 7, ..ledger_row::default() };
    let rows = gate.maps.ledger_rows.handle();
    rows.update(&number.to_ne_bytes(), bytes_of(&vain), MapFlags::ANY).unwrap();
    let issued = row_quota { rows: u64::from(number) + 1 };
    let key = quota_key::QUOTA_ROWS_ISSUED.0.to_ne_bytes();
    gate.maps.ledger_quotas.handle().update(&key, bytes_of(&issued), MapFlags::ANY).unwrap();
    gate.give_rows_back(&[]).unwrap();
    assert_eq!(quota(&gate, quota_key::QUOTA_ROWS_FREED.0), 1);
    assert_eq!(gate.ledger_total().0, 1, "the other one stays");
    let next = gate.drops(&opening(V4.web, V4.peer, 446), Reason::NewFlow);
    assert_eq!(next.row.number, number);
}

#[test]
fn a_full_table_of_what_was_given_back_keeps_the_rows() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        fill(&gate);
        let table = gate.maps.ledger_given_back.handle();
        for server in 0..table.max_entries() {
            let key = ledger_key { server: 1_000_000 + server, ..ledger_key::default() };
            table.update(bytes_of(&key), &[0; 64], MapFlags::ANY).unwrap();
        }
        let before = sums(&gate);
        gate.give_rows_back(&reported(&gate)).unwrap();
        let after = sums(&gate);
        assert!(before.iter().all(|(key, sum)| after[key] == *sum), "{before:?}, {after:?}");
        assert_eq!(quota(&gate, quota_key::QUOTA_ROWS_FREED.0), 0);
        // once there is room, the next sweep ends what this one began
        for server in 0..table.max_entries() {
            let key = ledger_key { server: 1_000_000 + server, ..ledger_key::default() };
            table.delete(bytes_of(&key)).unwrap();
        }
        gate.give_rows_back(&[]).unwrap();
        assert!(quota(&gate, quota_key::QUOTA_ROWS_FREED.0) > 0);
        assert_eq!(sums(&gate), before);
    });
}

#[test]
fn the_bloom_filter_forgets_kinds_that_are_gone_and_never_one_that_has_a_row() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        let word = || {
            let words: Vec<(u32, u64)> = gate.entries("state");
            words.iter().find(|(index, _)| *index == state::STATE_LEDGER_BLOOM.0).expect("a word").1
        };
        let bits = || {
            let words: Vec<(u32, u64)> = gate.entries("ledger_bloom");
            let half = words.len() as u32 / 2;
            let upper = word() >> 32 & u64::from(bloom_word::BLOOM_UPPER.0) != 0;
            let of_half = words.iter().filter(|(index, _)| (*index >= half) == upper);
            of_half.map(|(_, word)| word.count_ones()).sum::<u32>()
        };
        fill(&gate);
        let full = bits();
        gate.give_rows_back(&reported(&gate)).unwrap();
        assert!(bits() < full * 2 / 3, "{} of {full} bits", bits());
        assert_eq!(word() >> 32 & u64::from(bloom_word::BLOOM_BOTH.0), 0);
        for row in gate.ledger_rows(false) {
            let again = gate.drops(&opening(V4.web, V4.peer, row.kind.port), Reason::NewFlow);
            assert_eq!((again.key.port, again.row.packets), (row.kind.port, row.packets + 1));
        }
        // and once more, into the other half
        fill_again(&gate);
        gate.give_rows_back(&reported(&gate)).unwrap();
        for row in gate.ledger_rows(false) {
            let again = gate.drops(&opening(V4.web, V4.peer, row.kind.port), Reason::NewFlow);
            assert_eq!(again.key.port, row.kind.port);
        }
    });
}

fn fill_again(gate: &TestGate) {
    (10_000..10_400).for_each(|port| send(gate, &opening(V4.web, V4.peer, port)));
}

/// Puts the Bloom filter into the middle of a rebuild. Returns the words of a half.
fn begin_rebuild(gate: &TestGate) -> u32 {
    let key = state::STATE_LEDGER_BLOOM.0.to_ne_bytes();
    let words = gate.maps.ledger_bloom.capacity() / 2;
    let word = u64::from(bloom_word::BLOOM_BOTH.0) << 32 | u64::from(words - 1);
    gate.maps.state.handle().update(&key, &word.to_ne_bytes(), MapFlags::ANY).unwrap();
    words
}

#[test]
fn a_kind_that_gets_its_row_during_a_rebuild_stands_in_both_halves() {
    let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
    let words = begin_rebuild(&gate);
    send(&gate, &opening(V4.web, V4.peer, 445));
    let set: Vec<(u32, u64)> = gate.entries("ledger_bloom");
    let in_half = |upper| set.iter().any(|(index, bits)| (*index >= words) == upper && *bits != 0);
    assert!(in_half(false) && in_half(true));
}

#[test]
fn a_rebuild_that_was_cut_short_loses_no_kind_and_the_next_one_ends_it() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
        fill(&gate);
        // it died after the word: kinds are added to both halves, and the other one holds rubbish
        let words = begin_rebuild(&gate);
        for index in words..2 * words {
            let bits = u64::MAX.to_ne_bytes();
            gate.maps.ledger_bloom.handle().update(&index.to_ne_bytes(), &bits, MapFlags::ANY).unwrap();
        }
        gate.give_rows_back(&reported(&gate)).unwrap();
        let set: Vec<(u32, u64)> = gate.entries("ledger_bloom");
        assert!(set.iter().any(|(index, bits)| *index >= words && *bits == 0), "the rubbish is gone");
        for row in gate.ledger_rows(false) {
            let again = gate.drops(&opening(V4.web, V4.peer, row.kind.port), Reason::NewFlow);
            assert_eq!(again.key.port, row.kind.port);
        }
    });
}

#[test]
fn sums_never_fall_while_rows_are_given_back_and_made_anew_and_end_exact() {
    /// More than a quota has at a time.
    const ROWS: usize = 300;
    let gate = TestGate::sized(POLICY, &[("ledger", 512)]);
    let done = AtomicBool::new(false);
    let cpus = allowed_cpus();
    let sent: u64 = std::thread::scope(|scope| {
        let senders: Vec<_> = cpus
            .iter()
            .map(|cpu| {
                let (gate, done) = (&gate, &done);
                scope.spawn(move || {
                    on_cpu(*cpu, || {
                        let mut sent = 0;
                        while !done.load(Ordering::SeqCst) {
                            for port in 1..=600 {
                                send(
                                    gate,
                                    &opening(V4.web, V4.peer, port + 600 * (sent / 3_000 % 90) as u16),
                                );
                                sent += 1;
                            }
                        }
                        sent
                    })
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut last = BTreeMap::new();
            let mut readings = 0;
            while !done.load(Ordering::SeqCst) || readings == 0 {
                let sums = sums(&gate);
                for (key, before) in &last {
                    let now: &(u64, u64) = &sums[key];
                    let before: &(u64, u64) = before;
                    assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?}, then {now:?}");
                }
                last = sums;
                readings += 1;
            }
            readings
        });
        let mut given_back = 0;
        let start = Instant::now();
        while given_back < ROWS {
            assert!(start.elapsed() < deadline(PATIENCE), "{given_back} rows were given back");
            given_back += gate.give_rows_back(&reported(&gate)).expect("a sweep").len();
        }
        done.store(true, Ordering::SeqCst);
        assert!(reader.join().expect("the readings") > 0);
        senders.into_iter().map(|sender| sender.join().expect("the frames")).sum()
    });
    assert_eq!(gate.ledger_total().0, sent);
    // whatever was left half-done by a row that grew
    gate.give_rows_back(&[]).unwrap();
    assert_eq!(gate.ledger_total().0, sent);
    let web = gate.id_of("web1");
    let rows = gate.ledger_rows(false).len() as u64;
    assert_eq!(quota(&gate, web) + quota(&gate, web + quota_key::QUOTA_RESERVE.0), rows);
    let classes: Vec<(u32, ledger_row)> = gate.entries("ledger_rows");
    assert!(classes.iter().all(|(_, row)| u32::from(row.class) != row_class::ROW_RETIRED.0));
}
