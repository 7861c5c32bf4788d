//! Makes up for lost samples. The kernel counts every drop in the ledger and samples some of them. The
//! [`Reconciler`] compares the two and yields the drops that no sample has reported.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::hash::Seeded;
use super::ledger::to_event;
use super::{Context, DropEvent, Ledger, LedgerEntry, LedgerKey, ReasonCode};
use crate::abi::drop_flag;

/// How long a row must be idle before its unsampled drops are reported from the ledger, nanoseconds.
/// The kernel samples a key once a second. Until then the next sample may still come, and it says more
/// than a count.
const SETTLED_NS: u64 = 2_000_000_000;

/// How long the drops of a busy row may go unreported, nanoseconds. When a server tries every port, the
/// kernel samples each key only now and then.
const OVERDUE_NS: u64 = 10_000_000_000;

/// Last packets that one round yields at most. A scan of all ports makes tens of thousands of rows a
/// second, and it is detected without them.
const MAX_LAST_PACKETS: usize = 1024;

/// Events that one round yields at most. More than that at once is a scan, whose alarm is open. The
/// other rows wait for the next rounds, and their counts wait with them.
const MAX_EVENTS: usize = 2048;

/// The drops of each ledger row that have been reported. The history keeps it while no daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    rows: Vec<BaselineRow>,
}

impl Baseline {
    /// Whether all drops of the row have been reported.
    fn has(&self, key: &LedgerKey, entry: &LedgerEntry) -> bool {
        let found = self.rows.binary_search_by(|row| row.key.cmp(key)).ok();
        let row = found.and_then(|index| self.rows.get(index));
        row.is_some_and(|row| row.first_ns == entry.first_ns && row.packets >= entry.packets)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "CompactRow", from = "CompactRow")]
struct BaselineRow {
    key: LedgerKey,
    packets: u64,
    /// Tells the row from a later one with the same key: CLOCK_MONOTONIC, nanoseconds.
    first_ns: u64,
}

/// A [`BaselineRow`] as a list without names, a third as long: a ledger may have 65,536 rows. Server,
/// port, protocol, reason, flags, overflow, packets, `first_ns`.
type CompactRow = (u32, u16, u8, u8, u8, bool, u64, u64);

impl From<BaselineRow> for CompactRow {
    fn from(BaselineRow { key, packets, first_ns }: BaselineRow) -> CompactRow {
        let LedgerKey { server, port, protocol, reason, flags, overflow } = key;
        (server, port, protocol, reason, flags, overflow, packets, first_ns)
    }
}

impl From<CompactRow> for BaselineRow {
    fn from(row: CompactRow) -> BaselineRow {
        let (server, port, protocol, reason, flags, overflow, packets, first_ns) = row;
        let key = LedgerKey { server, port, protocol, reason, flags, overflow };
        BaselineRow { key, packets, first_ns }
    }
}

/// A row of the ledger all of whose drops have been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedRow {
    /// Its number.
    pub number: u32,
    /// Time of its first packet, which tells it from a later row of the same number.
    pub first_ns: u64,
    /// Its packets.
    pub packets: u64,
    /// Time of its last packet.
    pub last_ns: u64,
}

/// The drops of one ledger key that were reported.
#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    /// Packets, by samples and rounds together.
    packets: u64,
    /// Of those, packets that a round reported before the kernel's next sample, which will count them
    /// once more.
    unsampled: u64,
    /// Of the row; `None` until a round has seen it.
    first_ns: Option<u64>,
    /// Of the row when a round last saw it.
    last_ns: u64,
    /// When drops were last reported: CLOCK_MONOTONIC, nanoseconds.
    reported_ns: u64,
    /// The round that last saw the row.
    round: u32,
}

/// A row with unreported drops.
struct DueRow {
    /// Index into the ledger.
    index: usize,
    /// Packets of the row that will have been reported.
    packets: u64,
    /// As in [`Reported`]; 0: never.
    reported_ns: u64,
}

impl Reported {
    /// Begins anew for another row with the same key: the gate was detached in between, and the row
    /// counts from 0 again.
    fn reset_for_new_row(&mut self, entry: &LedgerEntry) {
        if self.first_ns.is_some_and(|first_ns| first_ns != entry.first_ns) {
            *self = Reported::default();
        }
    }

    /// Notes that `packets` of the row have been reported, and yields those that had not been.
    fn report(
        &mut self,
        key: &LedgerKey,
        entry: &LedgerEntry,
        packets: u64,
        context: &Context<'_>,
    ) -> Option<DropEvent> {
        self.reset_for_new_row(entry);
        let drops = packets.saturating_sub(self.packets);
        let since_ns = if self.packets == 0 { entry.first_ns } else { entry.last_ns };
        self.packets = self.packets.max(packets);
        // The kernel's next sample repeats what is reported now beyond its last one.
        self.unsampled = self.packets.saturating_sub(entry.sampled_packets);
        self.first_ns = Some(entry.first_ns);
        self.last_ns = entry.last_ns;
        (drops > 0).then(|| to_event(key, entry, drops, since_ns, context))
    }
}

/// Keeps what has been reported of each ledger key, so that each drop is reported once.
///
/// A sample and a round may race, and one count may be too high or too low for a moment. The next round
/// makes up for it, because it compares totals. Memory is bounded by the ledger's size and by the
/// samples between two rounds.
#[derive(Debug, Default)]
pub struct Reconciler {
    reported: HashMap<LedgerKey, Reported, Seeded>,
    round: u32,
    /// Rows that still had unreported drops after the last round.
    incomplete_rows: usize,
    /// Where in the ledger the next search for last packets begins.
    next_row: usize,
}

impl Reconciler {
    /// Begins with the ledger as a starting daemon finds it. `baseline` is that of the daemon before, or
    /// an empty one. Drops that it does not account for came while no daemon ran. They are yielded once,
    /// with `while_away` set. Call it after the perf buffer was opened, so that no drop falls between the
    /// two.
    pub fn starting(
        ledger: &Ledger,
        baseline: &Baseline,
        context: &Context<'_>,
    ) -> (Reconciler, Vec<DropEvent>) {
        let reported = baseline
            .rows
            .iter()
            .map(|row| {
                let first_ns = Some(row.first_ns);
                (row.key, Reported { packets: row.packets, first_ns, ..Reported::default() })
            })
            .collect();
        let mut reconciler = Reconciler { reported, ..Reconciler::default() };
        let mut drops = reconciler.reconcile_all(ledger, context);
        for drop in &mut drops {
            drop.while_away = true;
        }
        (reconciler, drops)
    }

    /// Notes a sample, and returns how many of its drops have not been reported yet. `key`: of the row that
    /// counts it. A sample of the overflow stands for its own packet only: the others have other ports, and
    /// rounds report them.
    pub fn note_sample(&mut self, key: LedgerKey, time_ns: u64, drops: u64) -> u64 {
        let reported = self.reported.entry(key).or_default();
        if reported.first_ns.is_some() && time_ns <= reported.last_ns {
            // It waited in the buffer while the ledger was read, so the last round has counted it.
            return 0;
        }
        let unreported = match key.overflow {
            true => 1,
            false => drops.saturating_sub(reported.unsampled),
        };
        reported.unsampled = reported.unsampled.saturating_sub(drops);
        reported.packets = reported.packets.saturating_add(unreported);
        reported.reported_ns = reported.reported_ns.max(time_ns);
        unreported
    }

    /// The last packets of the rows that have grown since the last round, without a count. Ask for them
    /// before the next round. Between two samples of a worm each shows one destination more. Only of
    /// attempts, and at most 1,024. If there are more, the next call yields others.
    pub fn last_packets(&mut self, ledger: &Ledger, context: &Context<'_>) -> Vec<DropEvent> {
        let has_grown = |key: &LedgerKey, entry: &LedgerEntry| {
            self.reported.get(key).is_some_and(|row| entry.last_ns > row.last_ns)
        };
        let (before, after) = ledger.split_at(self.next_row.min(ledger.len()));
        let mut last_packets = Vec::new();
        let mut visited = 0;
        for (key, entry) in after.iter().chain(before) {
            if last_packets.len() >= MAX_LAST_PACKETS {
                break;
            }
            visited += 1;
            if is_attempt(key) && has_grown(key, entry) {
                last_packets.push(to_event(key, entry, 0, entry.last_ns, context));
            }
        }
        self.next_row = (self.next_row + visited) % ledger.len().max(1);
        last_packets
    }

    /// One round: compares with the ledger, and yields the drops that have not been reported. Those are
    /// keys without any sample, and counts that samples missed. Read the ledger after the perf buffer was
    /// emptied.
    pub fn reconcile(&mut self, ledger: &Ledger, context: &Context<'_>) -> Vec<DropEvent> {
        let now_ns = context.clock.mono_ns;
        self.compare(ledger, context, MAX_EVENTS, |key, entry, reported| {
            let is_settled = now_ns.saturating_sub(entry.last_ns) >= SETTLED_NS;
            let is_overdue = now_ns.saturating_sub(reported.reported_ns.max(entry.first_ns)) >= OVERDUE_NS;
            // Quiet drops are never sampled.
            if is_settled || is_overdue || key.has(drop_flag::DROP_QUIET) {
                entry.packets
            } else {
                entry.sampled_packets.min(entry.packets)
            }
        })
    }

    /// The last round: as [`Reconciler::reconcile`], but it leaves nothing for another one.
    pub fn reconcile_all(&mut self, ledger: &Ledger, context: &Context<'_>) -> Vec<DropEvent> {
        self.compare(ledger, context, usize::MAX, |_, entry, _| entry.packets)
    }

    /// The unreported drops of one row, for an alarm that can't wait for the next round. They count as
    /// reported from here on.
    pub fn take_unreported(
        &mut self,
        key: LedgerKey,
        entry: &LedgerEntry,
        context: &Context<'_>,
    ) -> Option<DropEvent> {
        let reported = self.reported.entry(key).or_default();
        reported.reported_ns = context.clock.mono_ns;
        reported.report(&key, entry, entry.packets, context)
    }

    /// Rows of kinds that were idle since `idle_since_ns`, and whose drops the next daemon would know as
    /// reported by `checkpoint`: nobody needs them any more.
    pub fn idle_rows(ledger: &Ledger, checkpoint: &Baseline, idle_since_ns: u64) -> Vec<ReportedRow> {
        let is_idle = |(key, entry): &&(LedgerKey, LedgerEntry)| {
            !key.overflow && entry.last_ns < idle_since_ns && checkpoint.has(key, entry)
        };
        let to_row = |(_, entry): &(LedgerKey, LedgerEntry)| ReportedRow {
            number: entry.number,
            first_ns: entry.first_ns,
            packets: entry.packets,
            last_ns: entry.last_ns,
        };
        ledger.iter().filter(is_idle).map(to_row).collect()
    }

    /// Forgets what was reported of rows that were given back. A kind that comes again gets another row, and
    /// its samples must not count for the old one.
    pub fn forget(&mut self, keys: impl Iterator<Item = LedgerKey>) {
        for key in keys {
            self.reported.remove(&key);
        }
    }

    /// The drops that were reported so far, for [`Reconciler::starting`] of the next daemon.
    pub fn baseline(&self) -> Baseline {
        let mut rows: Vec<BaselineRow> = self
            .reported
            .iter()
            .filter_map(|(key, reported)| {
                let first_ns = reported.first_ns?;
                Some(BaselineRow { key: *key, packets: reported.packets, first_ns })
            })
            .collect();
        rows.sort_by_key(|row| row.key);
        Baseline { rows }
    }

    /// Whether a round has found each key of which a sample came. A baseline leaves the others out.
    pub fn has_seen_all(&self) -> bool {
        self.reported.values().all(|reported| reported.first_ns.is_some())
    }

    /// How many ledger keys are known: the length of a baseline.
    pub fn len(&self) -> usize {
        self.reported.len()
    }

    /// Whether all drops that the last round saw have been reported. While nothing is dropped, no other
    /// round is needed then.
    pub fn is_complete(&self) -> bool {
        self.incomplete_rows == 0
    }

    /// Whether no ledger key is known.
    pub fn is_empty(&self) -> bool {
        self.reported.is_empty()
    }

    /// Yields the unreported drops of at most `max_events` rows, the oldest first. `due` says how many
    /// packets of a row have to be reported by now.
    fn compare(
        &mut self,
        ledger: &Ledger,
        context: &Context<'_>,
        max_events: usize,
        due: impl Fn(&LedgerKey, &LedgerEntry, &Reported) -> u64,
    ) -> Vec<DropEvent> {
        self.round = self.round.wrapping_add(1);
        self.incomplete_rows = 0;
        let mut due_rows = Vec::new();
        for (index, (key, entry)) in ledger.iter().enumerate() {
            let reported = self.reported.entry(*key).or_default();
            reported.reset_for_new_row(entry);
            let packets = due(key, entry, reported);
            if packets > reported.packets {
                let reported_ns = if reported.packets == 0 { 0 } else { reported.reported_ns };
                due_rows.push(DueRow { index, packets, reported_ns });
            }
            self.incomplete_rows += usize::from(entry.packets > reported.packets);
            // The kernel's next sample repeats what was reported beyond its last one.
            reported.unsampled = reported.packets.saturating_sub(entry.sampled_packets);
            reported.first_ns = Some(entry.first_ns);
            reported.last_ns = entry.last_ns;
            reported.round = self.round;
        }
        let round = self.round;
        self.reported.retain(|_, reported| reported.round == round);
        choose_fairly(&mut due_rows, ledger, max_events);
        due_rows.iter().filter_map(|row| self.report_row(row, ledger, context)).collect()
    }

    /// Notes the drops of a row as reported, and yields them.
    fn report_row(&mut self, row: &DueRow, ledger: &Ledger, context: &Context<'_>) -> Option<DropEvent> {
        let (key, entry) = ledger.get(row.index)?;
        let reported = self.reported.get_mut(key)?;
        reported.reported_ns = context.clock.mono_ns;
        let drop = reported.report(key, entry, row.packets, context);
        self.incomplete_rows -= usize::from(reported.packets >= entry.packets);
        drop
    }
}

/// Whether a row counts attempts that may raise an alarm, with a destination each.
pub(super) fn is_attempt(key: &LedgerKey) -> bool {
    ReasonCode::from(key.reason).is_attempt() && !key.overflow && !key.has(drop_flag::DROP_QUIET)
}

/// Leaves at most `max_rows`, and sorts them, the oldest first. Each server keeps as many rows as any
/// other. Rows that were never reported go before rows that were, and those that were reported long ago
/// before those of just now.
fn choose_fairly(due_rows: &mut Vec<DueRow>, ledger: &Ledger, max_rows: usize) {
    if due_rows.len() > max_rows {
        due_rows.sort_unstable_by_key(|row| (row.reported_ns, row.index));
        let mut turns: HashMap<u32, usize> = HashMap::new();
        let mut order: Vec<(usize, usize)> = Vec::with_capacity(due_rows.len());
        for (at, row) in due_rows.iter().enumerate() {
            let server = ledger.get(row.index).map_or(0, |(key, _)| key.server);
            let turn = turns.entry(server).or_default();
            *turn += 1;
            order.push((*turn, at));
        }
        order.sort_unstable();
        order.truncate(max_rows);
        let chosen: HashSet<usize> = order.into_iter().map(|(_, at)| at).collect();
        let mut at = 0;
        due_rows.retain(|_| {
            at += 1;
            chosen.contains(&(at - 1))
        });
    }
    due_rows.sort_by_key(|row| ledger.get(row.index).map(|(key, entry)| (entry.last_ns, *key)));
}
