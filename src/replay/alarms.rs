//! Alarms as the daemon would have raised them: the same engine reads samples and ledger of the private gate, in the
//! daemon's rounds, by the time of the capture.

use std::path::Path;
use std::sync::Arc;

use crate::alarm::{Change, Engine};
use crate::clock::Clock;
use crate::daemon::{DropSource, HOT_ROWS_PERIOD, LONGEST_GATHER, ROUND};
use crate::drops::{Context, DropEvent, HotRows, Names, Reconciler, decode};
use crate::gate::{Consumer, GateError, ReplayGate};
use crate::policy::Policy;
use crate::policy_file::name_interface;

/// How long samples gather while something is dropped.
const GATHER_NS: u64 = LONGEST_GATHER.as_nanos() as u64;
/// Between two polls of the hot rows.
const HOT_ROWS_NS: u64 = HOT_ROWS_PERIOD.as_nanos() as u64;
/// Between two readings of the ledger.
const ROUND_NS: u64 = ROUND.as_nanos() as u64;
/// Samples that the perf buffer certainly holds.
const MAX_UNREAD: u32 = 256;
/// The daemon's rounds after the end of a capture, in which it would say what has waited. Alarms that are open then
/// stay open.
const LAST_ROUNDS: u64 = 12;
/// Changes that are kept. What comes later is counted.
const MAX_CHANGES: usize = 10_000;

/// The daemon's part of a replay.
pub(super) struct AlarmRun<'a> {
    gate: &'a ReplayGate,
    consumer: Consumer<'a>,
    interface: Arc<str>,
    names: Arc<Names>,
    reconciler: Reconciler,
    hot_rows: HotRows,
    engine: Engine,
    clock: Option<Clock>,
    next_poll_ns: u64,
    next_round_ns: u64,
    gathered_ns: u64,
    /// Drops since the samples were last read.
    unread: u32,
    /// The ledger may hold something new.
    is_stirred: bool,
    /// The clock at the last drop, and since then the polls for hot rows that are worth it.
    last_drop_ns: u64,
    pub(super) changes: Vec<Change>,
    /// Changes beyond those that are kept.
    pub(super) more_changes: u64,
}

impl<'a> AlarmRun<'a> {
    pub(super) fn new(gate: &'a ReplayGate, policy: &Policy) -> Result<AlarmRun<'a>, GateError> {
        let mut engine = Engine::default();
        engine.set_prefix_servers(policy.prefix_servers());
        Ok(AlarmRun {
            consumer: gate.consume_samples()?,
            interface: name_interface(Path::new(&policy.file)).unwrap_or("replay").into(),
            names: Arc::new(gate.gate().names_by_id()?),
            gate,
            reconciler: Reconciler::default(),
            hot_rows: HotRows::default(),
            engine,
            clock: None,
            next_poll_ns: 0,
            next_round_ns: 0,
            gathered_ns: 0,
            unread: 0,
            is_stirred: false,
            last_drop_ns: 0,
            changes: Vec::new(),
            more_changes: 0,
        })
    }

    /// Names of servers by id.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Alarms that are open at the end.
    pub(super) fn count_open(&self) -> usize {
        self.engine.open_ids().len()
    }

    /// Notes a drop, whose sample may wait in the buffer.
    pub(super) fn note_drop(&mut self) -> Result<(), GateError> {
        self.unread += 1;
        self.is_stirred = true;
        let Some(clock) = self.clock else { return Ok(()) };
        self.last_drop_ns = clock.mono_ns;
        let is_due = clock.mono_ns.saturating_sub(self.gathered_ns) >= GATHER_NS;
        if is_due || self.unread >= MAX_UNREAD {
            self.take_samples(clock)?;
        }
        Ok(())
    }

    /// Does what the daemon does until this moment.
    pub(super) fn run_until(&mut self, now: Clock) -> Result<(), GateError> {
        let Some(before) = self.clock else {
            self.clock = Some(now);
            self.next_poll_ns = now.mono_ns + HOT_ROWS_NS;
            self.next_round_ns = now.mono_ns + ROUND_NS;
            return Ok(());
        };
        while self.next_poll_ns <= now.mono_ns || self.next_round_ns <= now.mono_ns {
            let at_ns = self.next_poll_ns.min(self.next_round_ns);
            let at = Clock { mono_ns: at_ns, wall: before.to_wall(at_ns) };
            self.clock = Some(at);
            if at_ns == self.next_poll_ns {
                self.poll(at)?;
                self.next_poll_ns += HOT_ROWS_NS;
            }
            if at_ns == self.next_round_ns {
                self.run_round(at)?;
                self.next_round_ns += ROUND_NS;
            }
            self.skip_quiet(now.mono_ns);
        }
        self.clock = Some(now);
        Ok(())
    }

    /// Skips polls and rounds in which nothing can happen: no drop is unreported, and no alarm is open.
    fn skip_quiet(&mut self, now_ns: u64) {
        if self.is_stirred || self.unread > 0 {
            return;
        }
        let rows_are_cold = self.next_poll_ns.saturating_sub(self.last_drop_ns) > 3 * ROUND_NS;
        if rows_are_cold {
            let rounds = now_ns.saturating_sub(self.next_poll_ns) / HOT_ROWS_NS;
            self.next_poll_ns += rounds * HOT_ROWS_NS;
        }
        if rows_are_cold && self.engine.open_ids().is_empty() {
            let rounds = now_ns.saturating_sub(self.next_round_ns) / ROUND_NS;
            self.next_round_ns += rounds * ROUND_NS;
        }
    }

    /// The daemon's last rounds, and everything that nobody has reported.
    pub(super) fn finish(&mut self) -> Result<(), GateError> {
        let Some(end) = self.clock else { return Ok(()) };
        let until_ns = end.mono_ns + LAST_ROUNDS * ROUND_NS;
        self.run_until(Clock { mono_ns: until_ns, wall: end.to_wall(until_ns) })
    }

    fn poll(&mut self, now: Clock) -> Result<(), GateError> {
        self.take_samples(now)?;
        let names = Arc::clone(&self.names);
        let context = context_of(&self.interface, &names, now);
        let source: &dyn DropSource = self.gate.gate();
        let mut rows = self.hot_rows.poll(&context, |key| source.row(key));
        source.add_contacts(&mut rows.iter_mut().map(|row| &mut row.drop));
        for row in rows {
            let reconciler = &mut self.reconciler;
            let take = || {
                let drop = reconciler.take_unreported(row.key, &row.entry, &context)?;
                let (sources, destinations) = (row.drop.sources.clone(), row.drop.destinations.clone());
                Some(DropEvent { sources, destinations, ..drop })
            };
            let changes = self.engine.observe_hot_row(&row.drop, row.new_packets, take, now);
            keep(&mut self.changes, &mut self.more_changes, changes);
        }
        let changes = self.engine.flush(now);
        keep(&mut self.changes, &mut self.more_changes, changes);
        Ok(())
    }

    fn run_round(&mut self, now: Clock) -> Result<(), GateError> {
        self.take_samples(now)?;
        if self.is_stirred || !self.reconciler.is_complete() || !self.reconciler.has_seen_all() {
            self.is_stirred = false;
            let source: &dyn DropSource = self.gate.gate();
            let ledger = source.ledger()?;
            let names = Arc::clone(&self.names);
            let context = context_of(&self.interface, &names, now);
            let mut last_packets = self.reconciler.last_packets(&ledger, &context);
            let mut unreported = self.reconciler.reconcile(&ledger, &context);
            source.add_contacts(&mut last_packets.iter_mut().chain(&mut unreported));
            self.is_stirred = !self.reconciler.is_complete();
            for packet in &last_packets {
                let changes = self.engine.observe_last_packet(packet, now);
                keep(&mut self.changes, &mut self.more_changes, changes);
            }
            for drop in &unreported {
                let changes = self.engine.observe(drop, now);
                keep(&mut self.changes, &mut self.more_changes, changes);
            }
        }
        let changes = self.engine.tick(now);
        keep(&mut self.changes, &mut self.more_changes, changes);
        Ok(())
    }

    fn take_samples(&mut self, now: Clock) -> Result<(), GateError> {
        self.gathered_ns = now.mono_ns;
        if std::mem::take(&mut self.unread) == 0 {
            return Ok(());
        }
        let received = self.consumer.take()?;
        let names = Arc::clone(&self.names);
        let context = context_of(&self.interface, &names, now);
        // the ledger has the drops of a sample that is lost or can't be read
        for sample in received.samples.iter().filter_map(|bytes| decode(bytes).ok()) {
            self.hot_rows.note_sample(sample.key(), sample.time_ns);
            let unreported = self.reconciler.note_sample(sample.key(), sample.time_ns, sample.drops);
            let changes = self.engine.observe(&sample.to_event(unreported, &context), now);
            keep(&mut self.changes, &mut self.more_changes, changes);
        }
        Ok(())
    }
}

fn context_of<'n>(interface: &Arc<str>, names: &'n Names, clock: Clock) -> Context<'n> {
    Context { interface: Arc::clone(interface), clock, names }
}

fn keep(kept: &mut Vec<Change>, more: &mut u64, changes: Vec<Change>) {
    for change in changes {
        if kept.len() < MAX_CHANGES {
            kept.push(change);
        } else {
            *more += 1;
        }
    }
}
