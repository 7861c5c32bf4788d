//! Makes up for samples that nobody heard. The kernel counts every drop in the ledger and
//! samples some; a sweep compares the two and yields what no sample has reported.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::ledger::to_drop;
use super::{Cause, Context, Drop, Ledger, LedgerEntry, LedgerKey};
use crate::gate::contract::drop_flag;
use crate::reason::Reason;

/// How long a row must be idle before drops that no sample covers yet are reported from the
/// ledger, nanoseconds. The kernel samples a kind once a second, so until then the next
/// sample may still come and tell more than a count.
const SETTLED_NS: u64 = 2_000_000_000;

/// A scan of all ports makes tens of thousands of rows a second; it is found out without them.
const MAX_GLIMPSES: usize = 1024;

/// What had been reported of each kind of drop, to be kept while no daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    rows: Vec<Reported>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reported {
    key: LedgerKey,
    packets: u64,
    /// Tells the row from a later one with the same key: CLOCK_MONOTONIC, nanoseconds.
    first_ns: u64,
}

/// What is known of one kind of drop.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Reported, by samples and sweeps together.
    packets: u64,
    /// Of those, reported by a sweep before the kernel's next sample, which will count them
    /// once more.
    unsampled: u64,
    /// Of the row; `None` until a sweep has seen it.
    first_ns: Option<u64>,
    /// Of the row when a sweep last saw it.
    last_ns: u64,
}

impl Known {
    /// Takes note that `due` packets of a row have been reported, and yields those that were not.
    fn report(
        &mut self,
        key: &LedgerKey,
        entry: &LedgerEntry,
        due: u64,
        context: &Context<'_>,
    ) -> Option<Drop> {
        if self.first_ns.is_some_and(|first_ns| first_ns != entry.first_ns) {
            // The gate was lifted in between: another row, which counts from 0 again.
            *self = Known::default();
        }
        let drops = due.saturating_sub(self.packets);
        let since_ns = if self.packets == 0 { entry.first_ns } else { entry.last_ns };
        self.packets = self.packets.max(due);
        // What is reported now beyond the kernel's last sample, its next one will repeat.
        self.unsampled = self.packets.saturating_sub(entry.sampled_packets);
        self.first_ns = Some(entry.first_ns);
        self.last_ns = entry.last_ns;
        (drops > 0).then(|| to_drop(key, entry, drops, since_ns, context))
    }
}

/// Keeps what was reported of each kind of drop, so that each drop is reported once.
///
/// A small race is allowed to be wrong for a moment: a count that one side got too high or
/// too low is made up for by the next sweep, because it compares totals. Memory is bounded
/// by the ledger's size and the samples between two sweeps.
#[derive(Debug, Default)]
pub struct Sweep {
    known: HashMap<LedgerKey, Known>,
}

impl Sweep {
    /// Begins with the ledger as a starting daemon finds it. What `baseline` (of the daemon
    /// before, or an empty one) does not account for came while nobody listened: it is
    /// yielded, once, with `while_away` set. To be called after the perf buffer was opened,
    /// so that no drop falls between the two.
    pub fn starting(ledger: &Ledger, baseline: &Baseline, context: &Context<'_>) -> (Sweep, Vec<Drop>) {
        let known = baseline
            .rows
            .iter()
            .map(|row| {
                let known = Known { packets: row.packets, first_ns: Some(row.first_ns), ..Known::default() };
                (row.key, known)
            })
            .collect();
        let mut sweep = Sweep { known };
        let mut drops = sweep.compare(ledger, context, |_, entry| entry.packets);
        for drop in &mut drops {
            drop.while_away = true;
        }
        (sweep, drops)
    }

    /// Takes note of a sample and returns how many of its drops nobody has reported yet.
    pub fn hear(&mut self, key: LedgerKey, time_ns: u64, drops: u64) -> u64 {
        let row = self.row_of(key);
        let counted = self.known.entry(row).or_default();
        if counted.first_ns.is_some() && time_ns <= counted.last_ns {
            // It waited in the buffer while a sweep read the ledger, which has it.
            return 0;
        }
        let fresh = drops.saturating_sub(counted.unsampled);
        counted.unsampled = counted.unsampled.saturating_sub(drops);
        // Under its own name even so: whether it has a row by now, the next sweep finds out.
        let known = self.known.entry(key).or_default();
        known.packets = known.packets.saturating_add(fresh);
        fresh
    }

    /// Where a kind's drops are counted, as far as the last sweep could see: a kind without a row
    /// in a ledger that is full counts for the rest.
    fn row_of(&self, key: LedgerKey) -> LedgerKey {
        let has_row = |key: &LedgerKey| self.known.get(key).is_some_and(|known| known.first_ns.is_some());
        let rest = rest_of(key);
        if !has_row(&key) && has_row(&rest) { rest } else { key }
    }

    /// The last packets of the kinds that went on since the last step, to be asked for before it:
    /// where they went, with no count. Between two samples of a worm's many packets that is one
    /// destination more. Only of tries to reach something, and at most [`MAX_GLIMPSES`].
    pub fn glimpse(&self, ledger: &Ledger, context: &Context<'_>) -> Vec<Drop> {
        let went_on = |key: &LedgerKey, entry: &LedgerEntry| {
            self.known.get(key).is_some_and(|known| entry.last_ns > known.last_ns)
        };
        let rows = ledger.iter().filter(|(key, entry)| is_try(key) && went_on(key, entry));
        let glimpses = rows.map(|(key, entry)| to_drop(key, entry, 0, entry.last_ns, context));
        glimpses.take(MAX_GLIMPSES).collect()
    }

    /// Compares with the ledger, to be read after the perf buffer was emptied, and yields what
    /// nobody has reported: kinds of which no sample came, and counts that samples missed.
    pub fn step(&mut self, ledger: &Ledger, context: &Context<'_>) -> Vec<Drop> {
        let now_ns = context.clock.mono_ns;
        self.compare(ledger, context, |key, entry| {
            let settled = now_ns.saturating_sub(entry.last_ns) >= SETTLED_NS;
            // Quiet drops are never sampled.
            if settled || key.has(drop_flag::DROP_QUIET) {
                entry.packets
            } else {
                entry.sampled_packets.min(entry.packets)
            }
        })
    }

    /// What nobody has reported of one row yet, now: for an alarm that can't wait for the next step.
    pub fn claim(&mut self, key: LedgerKey, entry: &LedgerEntry, context: &Context<'_>) -> Option<Drop> {
        let mut known = self.known.get(&key).copied().unwrap_or_default();
        let drop = known.report(&key, entry, entry.packets, context);
        self.known.insert(key, known);
        drop
    }

    /// What has been reported so far, to be given to `starting` by the next daemon.
    pub fn baseline(&self) -> Baseline {
        let mut rows: Vec<Reported> = self
            .known
            .iter()
            .filter_map(|(key, known)| {
                Some(Reported { key: *key, packets: known.packets, first_ns: known.first_ns? })
            })
            .collect();
        rows.sort_by_key(|row| row.key);
        Baseline { rows }
    }

    /// How many kinds of drops are known: what a baseline has to say.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Yields, oldest first, what `due` says has to be reported of a row and was not.
    fn compare(
        &mut self,
        ledger: &Ledger,
        context: &Context<'_>,
        due: impl Fn(&LedgerKey, &LedgerEntry) -> u64,
    ) -> Vec<Drop> {
        self.move_rest(ledger);
        let mut found: Vec<(u64, LedgerKey, Drop)> = Vec::new();
        for (key, entry) in ledger {
            let mut known = self.known.get(key).copied().unwrap_or_default();
            if let Some(drop) = known.report(key, entry, due(key, entry), context) {
                found.push((entry.last_ns, *key, drop));
            }
            self.known.insert(*key, known);
        }
        self.known.retain(|key, _| ledger.contains_key(key));
        found.sort_by_key(|(last_ns, key, _)| (*last_ns, *key));
        found.into_iter().map(|(_, _, drop)| drop).collect()
    }

    /// Samples name protocol and port also when the ledger is full and their drops are
    /// counted in `ledger_rest`, without either. A kind that was heard of and has no row is
    /// one of those.
    fn move_rest(&mut self, ledger: &Ledger) {
        let homeless: Vec<(LedgerKey, u64)> = self
            .known
            .iter()
            .filter(|(key, known)| known.first_ns.is_none() && !ledger.contains_key(*key))
            .map(|(key, known)| (*key, known.packets))
            .collect();
        for (key, packets) in homeless {
            self.known.remove(&key);
            let rest = rest_of(key);
            if ledger.contains_key(&rest) {
                let known = self.known.entry(rest).or_default();
                known.packets = known.packets.saturating_add(packets);
            }
        }
    }
}

/// A try to reach something, of which the ledger says where it went.
pub(super) fn is_try(key: &LedgerKey) -> bool {
    let reason = Cause::from(key.reason).known();
    matches!(reason, Some(Reason::NewFlow | Reason::Destination))
        && !key.rest
        && !key.has(drop_flag::DROP_QUIET)
}

fn rest_of(key: LedgerKey) -> LedgerKey {
    LedgerKey { port: 0, protocol: 0, rest: true, ..key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::drops::{Origin, example};

    const S: u64 = 1_000_000_000;

    fn key(port: u16) -> LedgerKey {
        LedgerKey { server: 1, port, protocol: 6, reason: Reason::NewFlow.number(), flags: 0, rest: false }
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
        rows.iter().copied().collect()
    }

    fn counts(drops: &[Drop]) -> Vec<(u16, u64)> {
        drops.iter().map(|drop| (drop.port, drop.drops)).collect()
    }

    #[test]
    fn what_is_in_the_ledger_at_start_came_while_away_and_is_told_once() {
        let rows = ledger(&[(key(445), entry(5, 5, 20)), (key(80), entry(9, 2, 10))]);
        let (mut sweep, drops) = Sweep::starting(&rows, &Baseline::default(), &at(100));
        assert_eq!(counts(&drops), [(80, 9), (445, 5)]);
        assert!(drops.iter().all(|drop| drop.while_away && drop.from == Origin::Ledger));
        assert_eq!(drops[0].since, at(100).clock.to_wall(S));
        assert_eq!(drops[0].time, at(100).clock.to_wall(10 * S));
        assert!(sweep.step(&rows, &at(200)).is_empty());
    }

    #[test]
    fn a_baseline_takes_away_what_the_daemon_before_had_reported() {
        let before = ledger(&[(key(445), entry(5, 5, 20)), (key(80), entry(9, 9, 10))]);
        let (sweep, _) = Sweep::starting(&before, &Baseline::default(), &at(100));
        let text = serde_json::to_string(&sweep.baseline()).unwrap();
        let baseline: Baseline = serde_json::from_str(&text).unwrap();

        let after = ledger(&[(key(445), entry(7, 7, 150)), (key(80), entry(9, 9, 10))]);
        let (_, drops) = Sweep::starting(&after, &baseline, &at(200));
        assert_eq!(counts(&drops), [(445, 2)]);
        assert!(drops[0].while_away);
    }

    #[test]
    fn a_baseline_of_another_ledger_hides_nothing() {
        let before = ledger(&[(key(445), entry(500, 500, 20))]);
        let (sweep, _) = Sweep::starting(&before, &Baseline::default(), &at(100));
        let mut row = entry(3, 3, 150);
        row.first_ns = 140 * S;
        let (_, drops) = Sweep::starting(&ledger(&[(key(445), row)]), &sweep.baseline(), &at(200));
        assert_eq!(counts(&drops), [(445, 3)]);
    }

    #[test]
    fn a_kind_whose_only_sample_was_lost_is_reported_by_the_sweep() {
        let mut sweep = Sweep::default();
        let rows = ledger(&[(key(445), entry(1, 1, 10))]);
        let drops = sweep.step(&rows, &at(10));
        assert_eq!(counts(&drops), [(445, 1)]);
        assert!(!drops[0].while_away);
        assert!(sweep.step(&rows, &at(20)).is_empty());
    }

    #[test]
    fn what_samples_reported_is_not_reported_again() {
        let mut sweep = Sweep::default();
        assert_eq!(sweep.hear(key(445), 10 * S, 1), 1);
        assert_eq!(sweep.hear(key(445), 11 * S, 6), 6);
        assert!(sweep.step(&ledger(&[(key(445), entry(7, 7, 11))]), &at(60)).is_empty());
    }

    #[test]
    fn drops_since_the_last_sample_wait_for_the_next_one_until_the_row_is_idle() {
        let mut sweep = Sweep::default();
        sweep.hear(key(445), 10 * S, 1);
        let busy = ledger(&[(key(445), entry(40, 1, 10))]);
        assert!(sweep.step(&busy, &at(11)).is_empty());
        assert_eq!(counts(&sweep.step(&busy, &at(13))), [(445, 39)]);
        assert!(sweep.step(&busy, &at(14)).is_empty());
    }

    #[test]
    fn a_sample_that_counts_swept_drops_once_more_adds_only_the_new_ones() {
        let mut sweep = Sweep::default();
        sweep.hear(key(445), 10 * S, 1);
        sweep.step(&ledger(&[(key(445), entry(40, 1, 10))]), &at(13));
        // the kernel's next sample: the 39 that were swept, and two more
        assert_eq!(sweep.hear(key(445), 20 * S, 41), 2);
        assert!(sweep.step(&ledger(&[(key(445), entry(42, 42, 20))]), &at(60)).is_empty());
    }

    #[test]
    fn a_sample_that_waited_while_the_ledger_was_read_adds_nothing() {
        let mut sweep = Sweep::default();
        let rows = ledger(&[(key(445), entry(3, 3, 10))]);
        assert_eq!(counts(&sweep.step(&rows, &at(10))), [(445, 3)]);
        assert_eq!(sweep.hear(key(445), 10 * S, 3), 0);
        assert!(sweep.step(&rows, &at(60)).is_empty());
    }

    #[test]
    fn lost_samples_between_heard_ones_are_made_up_for() {
        let mut sweep = Sweep::default();
        sweep.hear(key(445), 10 * S, 1);
        // a sample of 50 drops is lost, one of 20 is heard
        sweep.hear(key(445), 12 * S, 20);
        let drops = sweep.step(&ledger(&[(key(445), entry(71, 71, 12))]), &at(12));
        assert_eq!(counts(&drops), [(445, 50)]);
    }

    #[test]
    fn quiet_drops_are_never_sampled_and_come_from_the_ledger_alone() {
        let quiet = LedgerKey { flags: 1, ..key(137) };
        let mut sweep = Sweep::default();
        let drops = sweep.step(&ledger(&[(quiet, entry(4, 0, 10))]), &at(10));
        assert_eq!(counts(&drops), [(137, 4)]);
        assert!(drops[0].quiet);
        let drops = sweep.step(&ledger(&[(quiet, entry(6, 0, 11))]), &at(11));
        assert_eq!(counts(&drops), [(137, 2)]);
    }

    #[test]
    fn samples_of_kinds_that_found_the_ledger_full_count_for_its_rest() {
        let rest = LedgerKey { port: 0, protocol: 0, rest: true, ..key(0) };
        let mut sweep = Sweep::default();
        sweep.hear(key(1000), 10 * S, 1);
        sweep.hear(key(1001), 11 * S, 4);
        let rows = ledger(&[(rest, entry(8, 5, 11))]);
        let drops = sweep.step(&rows, &at(60));
        assert_eq!(counts(&drops), [(0, 3)]);
        assert!(drops[0].any_protocol);
        assert!(sweep.step(&rows, &at(90)).is_empty());
    }

    /// Whether the samples are of one kind, or each of another that counts for the rest.
    fn report_all(is_rest: bool) {
        // xorshift: a fixed sequence, so that a failure can be had again
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let place = if is_rest { rest_of(key(445)) } else { key(445) };
        for _ in 0..50 {
            let mut row = entry(0, 0, 1);
            let (mut sweep, _) = Sweep::starting(&Ledger::new(), &Baseline::default(), &at(1));
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
                            let port = if is_rest { second as u16 } else { 445 };
                            if random(4) > 0 {
                                waiting.push((key(port), second * S, drops));
                            }
                        }
                    }
                }
                if random(4) > 0 {
                    for (key, time_ns, drops) in waiting.drain(..) {
                        reported += sweep.hear(key, time_ns, drops);
                    }
                }
                if random(5) == 0 && row.packets > 0 {
                    let rows = ledger(&[(place, row)]);
                    for drop in sweep.step(&rows, &at(second)) {
                        reported += drop.drops;
                    }
                }
                if !is_rest && random(7) == 0 && row.packets > 0 {
                    reported += sweep.claim(place, &row, &at(second)).map_or(0, |drop| drop.drops);
                }
                assert!(reported <= row.packets);
            }
            for (key, time_ns, drops) in waiting {
                reported += sweep.hear(key, time_ns, drops);
            }
            for drop in sweep.step(&ledger(&[(place, row)]), &at(400)) {
                reported += drop.drops;
            }
            assert_eq!(reported, row.packets);
        }
    }

    #[test]
    fn every_drop_is_reported_exactly_once_whatever_is_lost_and_when_it_is_swept() {
        report_all(false);
    }

    #[test]
    fn so_is_every_drop_that_found_the_ledger_full() {
        report_all(true);
    }

    #[test]
    fn memory_is_bounded_by_the_ledger() {
        let mut sweep = Sweep::default();
        for port in 0..10_000 {
            sweep.hear(key(port), 10 * S, 1);
        }
        sweep.step(&ledger(&[(key(1), entry(1, 1, 10))]), &at(60));
        assert_eq!(sweep.known.len(), 1);
    }

    #[test]
    fn a_kind_that_goes_on_shows_its_last_destination_and_one_that_rests_does_not() {
        let mut quiet = key(137);
        quiet.flags = drop_flag::DROP_QUIET.0 as u8;
        let rows = |last_s| {
            ledger(&[
                (key(445), entry(5, 5, last_s)),
                (key(80), entry(5, 5, 10)),
                (quiet, entry(1, 0, last_s)),
            ])
        };
        let (mut sweep, _) = Sweep::starting(&rows(20), &Baseline::default(), &at(100));
        assert!(sweep.glimpse(&rows(20), &at(101)).is_empty());
        let glimpses = sweep.glimpse(&rows(101), &at(101));
        assert_eq!(counts(&glimpses), [(445, 0)]);
        assert_eq!(glimpses[0].destination, entry(1, 1, 1).last_destination);
        sweep.step(&rows(101), &at(101));
        assert!(sweep.glimpse(&rows(101), &at(102)).is_empty());
    }

    #[test]
    fn glimpses_are_bounded_whatever_a_scan_leaves_in_the_ledger() {
        let rows =
            |last_s| ledger(&(0..5000).map(|port| (key(port), entry(1, 1, last_s))).collect::<Vec<_>>());
        let (sweep, _) = Sweep::starting(&rows(20), &Baseline::default(), &at(100));
        assert_eq!(sweep.glimpse(&rows(101), &at(101)).len(), MAX_GLIMPSES);
    }
}
