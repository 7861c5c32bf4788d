use super::*;
use crate::abi::Reason;
use crate::clock::Clock;
use crate::drops::{Origin, example};

const S: u64 = 1_000_000_000;

fn key(port: u16) -> LedgerKey {
    LedgerKey { server: 1, port, protocol: 6, reason: Reason::NewFlow.number(), flags: 0, overflow: false }
}

/// A row whose last packet came at `last_s`; `sampled` of its packets had samples sent.
fn entry(packets: u64, sampled: u64, last_s: u64) -> LedgerEntry {
    LedgerEntry {
        packets,
        bytes: packets * 60,
        first_ns: S,
        last_ns: last_s * S,
        sampled_packets: sampled,
        last_source: Some("192.0.2.10".parse().unwrap()),
        last_destination: Some("198.51.100.7".parse().unwrap()),
        ..LedgerEntry::default()
    }
}

fn at(seconds: u64) -> Context<'static> {
    let start = example::clock();
    Context {
        interface: "dmz0".into(),
        clock: Clock { mono_ns: seconds * S, wall: start.wall },
        names: example::names(),
    }
}

fn ledger(rows: &[(LedgerKey, LedgerEntry)]) -> Ledger {
    rows.to_vec()
}

fn counts(drops: &[DropEvent]) -> Vec<(u16, u64)> {
    drops.iter().map(|drop| (drop.port, drop.drops)).collect()
}

#[test]
fn rows_that_a_starting_daemon_finds_came_while_away_and_are_reported_once() {
    let rows = ledger(&[(key(445), entry(5, 5, 20)), (key(80), entry(9, 2, 10))]);
    let (mut reconciler, drops) = Reconciler::starting(&rows, &Baseline::default(), &at(100));
    assert_eq!(counts(&drops), [(80, 9), (445, 5)]);
    assert!(drops.iter().all(|drop| drop.while_away && drop.from == Origin::Ledger));
    assert_eq!(drops[0].since, at(100).clock.to_wall(S));
    assert_eq!(drops[0].time, at(100).clock.to_wall(10 * S));
    assert!(reconciler.reconcile(&rows, &at(200)).is_empty());
}

#[test]
fn a_baseline_leaves_out_what_the_daemon_before_had_reported() {
    let before = ledger(&[(key(445), entry(5, 5, 20)), (key(80), entry(9, 9, 10))]);
    let (reconciler, _) = Reconciler::starting(&before, &Baseline::default(), &at(100));
    let text = serde_json::to_string(&reconciler.baseline()).unwrap();
    let baseline: Baseline = serde_json::from_str(&text).unwrap();

    let after = ledger(&[(key(445), entry(7, 7, 150)), (key(80), entry(9, 9, 10))]);
    let (_, drops) = Reconciler::starting(&after, &baseline, &at(200));
    assert_eq!(counts(&drops), [(445, 2)]);
    assert!(drops[0].while_away);
}

#[test]
fn a_key_that_only_a_sample_has_named_is_in_no_baseline_yet() {
    let mut reconciler = Reconciler::default();
    assert_eq!(reconciler.note_sample(key(445), 20 * S, 1), 1);
    assert!(!reconciler.has_seen_all());
    assert_eq!(reconciler.baseline(), Baseline::default());
    assert!(reconciler.reconcile(&ledger(&[(key(445), entry(1, 1, 20))]), &at(21)).is_empty());
    assert!(reconciler.has_seen_all());
    assert_ne!(reconciler.baseline(), Baseline::default());
}

#[test]
fn the_last_round_leaves_nothing_for_another_one() {
    let mut reconciler = Reconciler::default();
    let rows = ledger(&[(key(445), entry(4, 1, 5))]);
    assert_eq!(counts(&reconciler.reconcile(&rows, &at(5))), [(445, 1)]);
    assert_eq!(counts(&reconciler.reconcile_all(&rows, &at(5))), [(445, 3)]);
    assert!(reconciler.reconcile_all(&rows, &at(5)).is_empty());
}

#[test]
fn a_baseline_of_another_ledger_hides_nothing() {
    let before = ledger(&[(key(445), entry(500, 500, 20))]);
    let (reconciler, _) = Reconciler::starting(&before, &Baseline::default(), &at(100));
    let mut row = entry(3, 3, 150);
    row.first_ns = 140 * S;
    let (_, drops) = Reconciler::starting(&ledger(&[(key(445), row)]), &reconciler.baseline(), &at(200));
    assert_eq!(counts(&drops), [(445, 3)]);
}

#[test]
fn a_key_whose_only_sample_was_lost_is_reported_by_the_next_round() {
    let mut reconciler = Reconciler::default();
    let rows = ledger(&[(key(445), entry(1, 1, 10))]);
    let drops = reconciler.reconcile(&rows, &at(10));
    assert_eq!(counts(&drops), [(445, 1)]);
    assert!(!drops[0].while_away);
    assert!(reconciler.reconcile(&rows, &at(20)).is_empty());
}

#[test]
fn drops_that_samples_reported_are_not_reported_again() {
    let mut reconciler = Reconciler::default();
    assert_eq!(reconciler.note_sample(key(445), 10 * S, 1), 1);
    assert_eq!(reconciler.note_sample(key(445), 11 * S, 6), 6);
    assert!(reconciler.reconcile(&ledger(&[(key(445), entry(7, 7, 11))]), &at(60)).is_empty());
}

#[test]
fn drops_since_the_last_sample_wait_for_the_next_one_until_the_row_is_idle() {
    let mut reconciler = Reconciler::default();
    reconciler.note_sample(key(445), 10 * S, 1);
    let busy = ledger(&[(key(445), entry(40, 1, 10))]);
    assert!(reconciler.reconcile(&busy, &at(11)).is_empty());
    assert_eq!(counts(&reconciler.reconcile(&busy, &at(13))), [(445, 39)]);
    assert!(reconciler.reconcile(&busy, &at(14)).is_empty());
}

#[test]
fn a_sample_that_counts_reported_drops_once_more_adds_only_the_new_ones() {
    let mut reconciler = Reconciler::default();
    reconciler.note_sample(key(445), 10 * S, 1);
    reconciler.reconcile(&ledger(&[(key(445), entry(40, 1, 10))]), &at(13));
    // the kernel's next sample: the 39 that were reported, and two more
    assert_eq!(reconciler.note_sample(key(445), 20 * S, 41), 2);
    assert!(reconciler.reconcile(&ledger(&[(key(445), entry(42, 42, 20))]), &at(60)).is_empty());
}

#[test]
fn a_sample_that_waited_while_the_ledger_was_read_adds_nothing() {
    let mut reconciler = Reconciler::default();
    let rows = ledger(&[(key(445), entry(3, 3, 10))]);
    assert_eq!(counts(&reconciler.reconcile(&rows, &at(10))), [(445, 3)]);
    assert_eq!(reconciler.note_sample(key(445), 10 * S, 3), 0);
    assert!(reconciler.reconcile(&rows, &at(60)).is_empty());
}

#[test]
fn lost_samples_between_received_ones_are_made_up_for() {
    let mut reconciler = Reconciler::default();
    reconciler.note_sample(key(445), 10 * S, 1);
    // a sample of 50 drops is lost, one of 20 arrives
    reconciler.note_sample(key(445), 12 * S, 20);
    let drops = reconciler.reconcile(&ledger(&[(key(445), entry(71, 71, 12))]), &at(12));
    assert_eq!(counts(&drops), [(445, 50)]);
}

#[test]
fn quiet_drops_are_never_sampled_and_come_from_the_ledger_alone() {
    let quiet = LedgerKey { flags: 1, ..key(137) };
    let mut reconciler = Reconciler::default();
    let drops = reconciler.reconcile(&ledger(&[(quiet, entry(4, 0, 10))]), &at(10));
    assert_eq!(counts(&drops), [(137, 4)]);
    assert!(drops[0].quiet);
    let drops = reconciler.reconcile(&ledger(&[(quiet, entry(6, 0, 11))]), &at(11));
    assert_eq!(counts(&drops), [(137, 2)]);
}

#[test]
fn a_sample_of_the_overflow_stands_for_its_own_packet_and_a_round_reports_the_others() {
    let mut reconciler = Reconciler::default();
    assert_eq!(reconciler.note_sample(overflow(), 10 * S, 1), 1);
    assert_eq!(reconciler.note_sample(overflow(), 11 * S, 4), 1);
    let rows = ledger(&[(overflow(), entry(8, 5, 11))]);
    let drops = reconciler.reconcile(&rows, &at(60));
    assert_eq!(counts(&drops), [(0, 6)]);
    assert!(drops[0].any_protocol);
    assert!(reconciler.reconcile(&rows, &at(90)).is_empty());
}

fn overflow() -> LedgerKey {
    LedgerKey { port: 0, protocol: 0, overflow: true, ..key(0) }
}

/// Loses samples and rounds by chance. `is_overflow`: the row is the overflow's.
fn report_all(is_overflow: bool) {
    // xorshift: a fixed sequence, so that a failure can be had again
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let row_key = if is_overflow { overflow() } else { key(445) };
    for _ in 0..50 {
        let mut row = entry(0, 0, 1);
        let (mut reconciler, _) = Reconciler::starting(&Ledger::new(), &Baseline::default(), &at(1));
        let mut reported = 0;
        let mut sampled_s = 0;
        // samples that wait in the buffer
        let mut waiting = Vec::new();
        for second in 2..300 {
            if random(3) > 0 {
                for _ in 0..=random(9) {
                    row.packets += 1;
                    row.last_ns = second * S;
                    if sampled_s != second {
                        sampled_s = second;
                        let drops = row.packets - row.sampled_packets;
                        row.sampled_packets = row.packets;
                        if random(4) > 0 {
                            waiting.push((row_key, second * S, drops));
                        }
                    }
                }
            }
            if random(4) > 0 {
                for (key, time_ns, drops) in waiting.drain(..) {
                    reported += reconciler.note_sample(key, time_ns, drops);
                }
            }
            if random(5) == 0 && row.packets > 0 {
                let rows = ledger(&[(row_key, row.clone())]);
                for drop in reconciler.reconcile(&rows, &at(second)) {
                    reported += drop.drops;
                }
            }
            assert!(reported <= row.packets);
        }
        for (key, time_ns, drops) in waiting {
            reported += reconciler.note_sample(key, time_ns, drops);
        }
        for drop in reconciler.reconcile(&ledger(&[(row_key, row.clone())]), &at(400)) {
            reported += drop.drops;
        }
        assert_eq!(reported, row.packets);
    }
}

#[test]
fn every_drop_is_reported_exactly_once_whatever_is_lost_and_whenever_rounds_come() {
    report_all(false);
}

#[test]
fn every_drop_that_found_the_ledger_full_is_reported_exactly_once() {
    report_all(true);
}

#[test]
fn a_busy_row_that_is_seldom_sampled_is_reported_every_ten_seconds() {
    let mut reconciler = Reconciler::default();
    reconciler.note_sample(key(445), 10 * S, 1);
    let mut reported = 0;
    for second in 11..=100 {
        let busy = ledger(&[(key(445), entry(second * 100, 1, second))]);
        reported += counts(&reconciler.reconcile(&busy, &at(second))).len();
        assert!(!reconciler.is_complete() || second % 10 == 0);
    }
    assert_eq!(reported, 9);
    // the kernel's next sample has them all once more
    assert_eq!(reconciler.note_sample(key(445), 101 * S, 10_049), 50);
}

#[test]
fn a_scan_is_reported_in_several_rounds_and_hides_no_other_server() {
    let scan = (0..10_000).map(|port| (key(port), entry(3, 3, 10)));
    let quiet = LedgerKey { server: 2, ..key(445) };
    let rows: Ledger = scan.chain([(quiet, entry(7, 7, 11))]).collect();
    let mut reconciler = Reconciler::default();
    let first = reconciler.reconcile(&rows, &at(12));
    assert_eq!(first.len(), MAX_EVENTS);
    assert!(first.iter().any(|drop| drop.server_id() == 2));
    assert!(!reconciler.is_complete());
    let mut packets: u64 = first.iter().map(|drop| drop.drops).sum();
    let mut rounds = 1;
    while !reconciler.is_complete() {
        packets += reconciler.reconcile(&rows, &at(12)).iter().map(|drop| drop.drops).sum::<u64>();
        rounds += 1;
    }
    assert_eq!((packets, rounds), (30_007, 5));
    assert!(reconciler.reconcile(&rows, &at(60)).is_empty());
}

#[test]
fn keys_that_were_never_reported_come_first() {
    let scan = |packets, last_s| (0..4096).map(move |port| (key(port), entry(packets, packets, last_s)));
    let mut reconciler = Reconciler::default();
    while !reconciler.is_complete() || reconciler.is_empty() {
        reconciler.reconcile(&scan(1, 10).collect(), &at(10));
    }
    let rows: Ledger = scan(2, 20).chain([(key(5000), entry(1, 1, 20))]).collect();
    assert!(reconciler.reconcile(&rows, &at(20)).iter().any(|drop| drop.port == 5000));
}

#[test]
fn memory_is_bounded_by_the_ledger() {
    let mut reconciler = Reconciler::default();
    for port in 0..10_000 {
        reconciler.note_sample(key(port), 10 * S, 1);
    }
    reconciler.reconcile(&ledger(&[(key(1), entry(1, 1, 10))]), &at(60));
    assert_eq!(reconciler.reported.len(), 1);
}

#[test]
fn a_row_that_grows_shows_its_last_destination_and_an_idle_one_does_not() {
    let mut quiet = key(137);
    quiet.flags = drop_flag::DROP_QUIET.0 as u8;
    let rows = |last_s| {
        ledger(&[(key(445), entry(5, 5, last_s)), (key(80), entry(5, 5, 10)), (quiet, entry(1, 0, last_s))])
    };
    let (mut reconciler, _) = Reconciler::starting(&rows(20), &Baseline::default(), &at(100));
    assert!(reconciler.last_packets(&rows(20), &at(101)).is_empty());
    let last_packets = reconciler.last_packets(&rows(101), &at(101));
    assert_eq!(counts(&last_packets), [(445, 0)]);
    assert_eq!(last_packets[0].destination, entry(1, 1, 1).last_destination);
    reconciler.reconcile(&rows(101), &at(101));
    assert!(reconciler.last_packets(&rows(101), &at(102)).is_empty());
}

#[test]
fn last_packets_are_bounded_whatever_a_scan_leaves_in_the_ledger() {
    let rows = |last_s| ledger(&(0..5000).map(|port| (key(port), entry(1, 1, last_s))).collect::<Vec<_>>());
    let (mut reconciler, _) = Reconciler::starting(&rows(20), &Baseline::default(), &at(100));
    let ports =
        |last_packets: Vec<DropEvent>| last_packets.iter().map(|drop| drop.port).collect::<HashSet<u16>>();
    let first = ports(reconciler.last_packets(&rows(101), &at(101)));
    let second = ports(reconciler.last_packets(&rows(101), &at(102)));
    assert_eq!((first.len(), second.len()), (MAX_LAST_PACKETS, MAX_LAST_PACKETS));
    assert!(first.is_disjoint(&second), "others the next time");
}
