//! Makes up for samples that nobody heard. The kernel counts every drop in the ledger and
//! samples some; a reconciler compares the two and yields what no sample has reported.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::hash::Seeded;
use super::ledger::to_drop;
use super::{Context, DropEvent, Ledger, LedgerEntry, LedgerKey, ReasonCode};
use crate::abi::Reason;
use crate::abi::drop_flag;

/// How long a row must be idle before drops that no sample covers yet are reported from the
/// ledger, nanoseconds. The kernel samples a kind once a second, so until then the next
/// sample may still come and tell more than a count.
const SETTLED_NS: u64 = 2_000_000_000;

/// How long the drops of a busy row may go unreported, nanoseconds. Of a server that calls every
/// port the kernel samples each kind but now and then.
const OVERDUE_NS: u64 = 10_000_000_000;

/// A scan of all ports makes tens of thousands of rows a second; it is found out without them.
const MAX_LAST_PACKETS: usize = 1024;

/// What one step yields at most. More than that at once is a scan, whose alarm is open; the rest
/// waits for the next steps, its counts with it.
const MAX_DROPS: usize = 2048;

/// What had been reported of each kind of drop, to be kept while no daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    rows: Vec<Reported>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Row", from = "Row")]
struct Reported {
    key: LedgerKey,
    packets: u64,
    /// Tells the row from a later one with the same key: CLOCK_MONOTONIC, nanoseconds.
    first_ns: u64,
}

/// A [`Reported`] as a list without names, a third as long: a ledger may have 65,536 of them. Server,
/// port, protocol, reason, flags, whether it is of the rest, packets, `first_ns`.
type Row = (u32, u16, u8, u8, u8, bool, u64, u64);

impl From<Reported> for Row {
    fn from(Reported { key, packets, first_ns }: Reported) -> Row {
        let LedgerKey { server, port, protocol, reason, flags, rest } = key;
        (server, port, protocol, reason, flags, rest, packets, first_ns)
    }
}

impl From<Row> for Reported {
    fn from((server, port, protocol, reason, flags, rest, packets, first_ns): Row) -> Reported {
        let key = LedgerKey { server, port, protocol, reason, flags, rest };
        Reported { key, packets, first_ns }
    }
}

/// What is known of one kind of drop.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Reported, by samples and sweeps together.
    packets: u64,
    /// Of those, reported by a reconciler before the kernel's next sample, which will count them
    /// once more.
    unsampled: u64,
    /// Of the row; `None` until a reconciler has seen it.
    first_ns: Option<u64>,
    /// Of the row when a reconciler last saw it.
    last_ns: u64,
    /// When drops were last reported: CLOCK_MONOTONIC, nanoseconds.
    told_ns: u64,
    /// The round of the reconciler that last saw its row.
    round: u32,
}

/// A row with drops to be reported.
struct Found {
    /// Index into the ledger.
    index: usize,
    /// What will have been reported of the row then.
    due: u64,
    /// As in [`Known`]; 0: nothing was.
    told_ns: u64,
}

impl Known {
    /// Begins anew where the gate was lifted in between: another row, which counts from 0 again.
    fn meet(&mut self, entry: &LedgerEntry) {
        if self.first_ns.is_some_and(|first_ns| first_ns != entry.first_ns) {
            *self = Known::default();
        }
    }

    /// EventFilter note that `due` packets of a row have been reported, and yields those that were not.
    fn report(
        &mut self,
        key: &LedgerKey,
        entry: &LedgerEntry,
        due: u64,
        context: &Context<'_>,
    ) -> Option<DropEvent> {
        self.meet(entry);
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
/// too low is made up for by the next reconciler, because it compares totals. Memory is bounded
/// by the ledger's size and the samples between two sweeps.
#[derive(Debug, Default)]
pub struct Reconciler {
    known: HashMap<LedgerKey, Known, Seeded>,
    round: u32,
    /// Rows that had drops beyond the reported ones when a step was last over.
    behind: usize,
    /// Where in the ledger the next last_packets begin.
    next_glimpse: usize,
}

impl Reconciler {
    /// Begins with the ledger as a starting daemon finds it. What `baseline` (of the daemon
    /// before, or an empty one) does not account for came while nobody listened: it is
    /// yielded, once, with `while_away` set. To be called after the perf buffer was opened,
    /// so that no drop falls between the two.
    pub fn starting(
        ledger: &Ledger,
        baseline: &Baseline,
        context: &Context<'_>,
    ) -> (Reconciler, Vec<DropEvent>) {
        let known = baseline
            .rows
            .iter()
            .map(|row| {
                let known = Known { packets: row.packets, first_ns: Some(row.first_ns), ..Known::default() };
                (row.key, known)
            })
            .collect();
        let mut reconciler = Reconciler { known, ..Reconciler::default() };
        let mut drops = reconciler.reconcile_all(ledger, context);
        for drop in &mut drops {
            drop.while_away = true;
        }
        (reconciler, drops)
    }

    /// EventFilter note of a sample and returns how many of its drops nobody has reported yet.
    pub fn note_sample(&mut self, key: LedgerKey, time_ns: u64, drops: u64) -> u64 {
        let row = self.row_of(key);
        let counted = self.known.entry(row).or_default();
        if counted.first_ns.is_some() && time_ns <= counted.last_ns {
            // It waited in the buffer while a reconciler read the ledger, which has it.
            return 0;
        }
        let fresh = drops.saturating_sub(counted.unsampled);
        counted.unsampled = counted.unsampled.saturating_sub(drops);
        // Under its own name even so: whether it has a row by now, the next reconciler finds out.
        let known = self.known.entry(key).or_default();
        known.packets = known.packets.saturating_add(fresh);
        known.told_ns = known.told_ns.max(time_ns);
        fresh
    }

    /// Where a kind's drops are counted, as far as the last reconciler could see: a kind without a row
    /// in a ledger that is full counts for the rest.
    fn row_of(&self, key: LedgerKey) -> LedgerKey {
        let has_row = |key: &LedgerKey| self.known.get(key).is_some_and(|known| known.first_ns.is_some());
        let rest = rest_of(key);
        if !has_row(&key) && has_row(&rest) { rest } else { key }
    }

    /// The last packets of the kinds that went on since the last step, to be asked for before it:
    /// where they went, with no count. Between two samples of a worm's many packets that is one
    /// destination more. Only of tries to reach something, and at most [`MAX_LAST_PACKETS`]; where
    /// there are more, others the next time.
    pub fn last_packets(&mut self, ledger: &Ledger, context: &Context<'_>) -> Vec<DropEvent> {
        let went_on = |key: &LedgerKey, entry: &LedgerEntry| {
            self.known.get(key).is_some_and(|known| entry.last_ns > known.last_ns)
        };
        let (before, after) = ledger.split_at(self.next_glimpse.min(ledger.len()));
        let mut last_packets = Vec::new();
        let mut looked_at = 0;
        for (key, entry) in after.iter().chain(before) {
            if last_packets.len() >= MAX_LAST_PACKETS {
                break;
            }
            looked_at += 1;
            if is_try(key) && went_on(key, entry) {
                last_packets.push(to_drop(key, entry, 0, entry.last_ns, context));
            }
        }
        self.next_glimpse = (self.next_glimpse + looked_at) % ledger.len().max(1);
        last_packets
    }

    /// Compares with the ledger, to be read after the perf buffer was emptied, and yields what
    /// nobody has reported: kinds of which no sample came, and counts that samples missed.
    pub fn reconcile(&mut self, ledger: &Ledger, context: &Context<'_>) -> Vec<DropEvent> {
        let now_ns = context.clock.mono_ns;
        self.compare(ledger, context, MAX_DROPS, |key, entry, known| {
            let settled = now_ns.saturating_sub(entry.last_ns) >= SETTLED_NS;
            let overdue = now_ns.saturating_sub(known.told_ns.max(entry.first_ns)) >= OVERDUE_NS;
            // Quiet drops are never sampled.
            if settled || overdue || key.has(drop_flag::DROP_QUIET) {
                entry.packets
            } else {
                entry.sampled_packets.min(entry.packets)
            }
        })
    }

    /// As [`Reconciler::reconcile`], when there will be no other: all that nobody has reported.
    pub fn reconcile_all(&mut self, ledger: &Ledger, context: &Context<'_>) -> Vec<DropEvent> {
        self.compare(ledger, context, usize::MAX, |_, entry, _| entry.packets)
    }

    /// What nobody has reported of one row yet, now: for an alarm that can't wait for the next step.
    pub fn take_unreported(
        &mut self,
        key: LedgerKey,
        entry: &LedgerEntry,
        context: &Context<'_>,
    ) -> Option<DropEvent> {
        let mut known = self.known.get(&key).copied().unwrap_or_default();
        known.told_ns = context.clock.mono_ns;
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

    /// Whether each kind that a sample has told of was found in the ledger since: a baseline says
    /// nothing of the others.
    pub fn has_seen_all(&self) -> bool {
        self.known.values().all(|known| known.first_ns.is_some())
    }

    /// How many kinds of drops are known: what a baseline has to say.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether all drops that the last step saw have been reported. While nothing is dropped, there
    /// is no need for another step then.
    pub fn is_complete(&self) -> bool {
        self.behind == 0
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
        most: usize,
        due: impl Fn(&LedgerKey, &LedgerEntry, &Known) -> u64,
    ) -> Vec<DropEvent> {
        self.round = self.round.wrapping_add(1);
        self.behind = 0;
        let mut found = Vec::new();
        for rest in [false, true] {
            if rest {
                self.move_rest(ledger);
            }
            for (index, (key, entry)) in ledger.iter().enumerate().filter(|(_, (key, _))| key.rest == rest) {
                let known = self.known.entry(*key).or_default();
                known.meet(entry);
                let due = due(key, entry, known);
                if due > known.packets {
                    let told_ns = if known.packets == 0 { 0 } else { known.told_ns };
                    found.push(Found { index, due, told_ns });
                }
                self.behind += usize::from(entry.packets > known.packets);
                // What was reported beyond the kernel's last sample, its next one will repeat.
                known.unsampled = known.packets.saturating_sub(entry.sampled_packets);
                known.first_ns = Some(entry.first_ns);
                known.last_ns = entry.last_ns;
                known.round = self.round;
            }
        }
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        choose_fairly(&mut found, ledger, most);
        found.iter().filter_map(|found| self.tell(found, ledger, context)).collect()
    }

    /// Notes the drops of a row as reported, and yields them.
    fn tell(&mut self, found: &Found, ledger: &Ledger, context: &Context<'_>) -> Option<DropEvent> {
        let (key, entry) = ledger.get(found.index)?;
        let known = self.known.get_mut(key)?;
        known.told_ns = context.clock.mono_ns;
        let drop = known.report(key, entry, found.due, context);
        self.behind -= usize::from(known.packets >= entry.packets);
        drop
    }

    /// Samples name protocol and port also when the ledger is full and their drops are
    /// counted in `ledger_overflow`, without either. A kind that was heard of and has no row is
    /// one of those. To be called when all rows but those of the rest were seen.
    fn move_rest(&mut self, ledger: &Ledger) {
        let rests = ledger.iter().map(|(key, _)| *key).filter(|key| key.rest);
        let rests: HashSet<LedgerKey, Seeded> = rests.collect();
        let round = self.round;
        let homeless: Vec<(LedgerKey, u64)> = self
            .known
            .extract_if(|key, known| known.first_ns.is_none() && known.round != round && !key.rest)
            .map(|(key, known)| (key, known.packets))
            .collect();
        for (key, packets) in homeless {
            let rest = rest_of(key);
            if rests.contains(&rest) {
                let known = self.known.entry(rest).or_default();
                known.packets = known.packets.saturating_add(packets);
            }
        }
    }
}

/// A try to reach something, of which the ledger says where it went.
pub(super) fn is_try(key: &LedgerKey) -> bool {
    let reason = ReasonCode::from(key.reason).known();
    matches!(reason, Some(Reason::NewFlow | Reason::Destination))
        && !key.rest
        && !key.has(drop_flag::DROP_QUIET)
}

fn rest_of(key: LedgerKey) -> LedgerKey {
    LedgerKey { port: 0, protocol: 0, rest: true, ..key }
}

/// Leaves at most `most`, the oldest first: of each server as many as of any other, what was never
/// reported before what was, and what was reported long ago before what was just now.
fn choose_fairly(found: &mut Vec<Found>, ledger: &Ledger, most: usize) {
    let place = |found: &Found| ledger.get(found.index).map(|(key, entry)| (entry.last_ns, *key));
    if found.len() > most {
        found.sort_unstable_by_key(|found| (found.told_ns, found.index));
        let mut turns: HashMap<u32, usize> = HashMap::new();
        let mut order: Vec<(usize, usize)> = Vec::with_capacity(found.len());
        for (at, found) in found.iter().enumerate() {
            let server = ledger.get(found.index).map_or(0, |(key, _)| key.server);
            let turn = turns.entry(server).or_default();
            *turn += 1;
            order.push((*turn, at));
        }
        order.sort_unstable();
        order.truncate(most);
        let chosen: HashSet<usize> = order.into_iter().map(|(_, at)| at).collect();
        let mut at = 0;
        found.retain(|_| {
            at += 1;
            chosen.contains(&(at - 1))
        });
    }
    found.sort_by_key(place);
}
