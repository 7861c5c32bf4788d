//! Intake: how the daemon learns of drops. Samples come from the perf buffer, exact counts from the
//! ledger, and the reconciler makes one report of each drop out of both.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::warn;

use super::drop_source::DropSource;
use super::ledger_cursor::LedgerCursor;
use super::metrics::snapshot::{Snapshot, increment};
use crate::clock::{Clock, now_ns};
use crate::drops::{
    Baseline, Context, DropEvent, HotRows, LastPacket, Ledger, LedgerKey, Names, Reconciler, Sample, decode,
};

/// Between two polls of the hot rows.
pub(crate) const HOT_ROWS_PERIOD: Duration = Duration::from_millis(100);
/// Rows that have counted nothing for so long, nanoseconds, may be given back.
const IDLE_NS: u64 = 60_000_000_000;
/// Up to so many kinds of drops, a checkpoint every second costs little.
const FEW_KINDS: usize = 2048;

/// The events of one reading of the ledger.
#[derive(Debug, Default)]
pub(super) struct LedgerReading {
    /// The last packets of rows that have grown. They count no drops.
    pub last_packets: Vec<DropEvent>,
    /// Drops that nobody has reported.
    pub unreported: Vec<DropEvent>,
}

/// Learns of drops and remembers which ones were reported.
pub(super) struct Intake<'gate> {
    source: &'gate dyn DropSource,
    interface: Arc<str>,
    names: Names,
    reconciler: Reconciler,
    cursor: LedgerCursor,
    hot_rows: HotRows,
    hot_rows_polled: Instant,
    /// The ledger as it was at the start, until the history says which drops of it were reported.
    startup_ledger: Option<Ledger>,
    /// The last checkpoint.
    checkpoint: Baseline,
    snapshot: Arc<Snapshot>,
}

impl<'gate> Intake<'gate> {
    /// Begins with the ledger as it is. The perf buffer must be open already, so that no drop falls
    /// between the two.
    pub(super) fn start(
        source: &'gate dyn DropSource,
        interface: Arc<str>,
        snapshot: Arc<Snapshot>,
    ) -> anyhow::Result<Intake<'gate>> {
        let ledger = source.ledger()?;
        let mut intake = Intake {
            source,
            interface,
            names: Names::new(),
            reconciler: Reconciler::default(),
            cursor: LedgerCursor::default(),
            hot_rows: HotRows::default(),
            hot_rows_polled: Instant::now(),
            startup_ledger: None,
            checkpoint: Baseline::default(),
            snapshot,
        };
        intake.learn_names()?;
        intake.reconciler = Reconciler::starting(&ledger, &Baseline::default(), &intake.context()).0;
        intake.startup_ledger = Some(ledger);
        Ok(intake)
    }

    /// Reads the names of the servers again, after the policy has changed.
    pub(super) fn learn_names(&mut self) -> anyhow::Result<()> {
        self.names = self.source.names().context("could not read the servers' names")?;
        Ok(())
    }

    /// Notes that the perf buffer has lost samples. Only the ledger has their drops.
    pub(super) fn note_lost_samples(&mut self) {
        self.cursor.note_loss();
    }

    /// The event of a sample as the perf buffer delivered it. `None` if it can't be decoded: the
    /// ledger has its drops.
    pub(super) fn read_sample(&mut self, bytes: &[u8]) -> anyhow::Result<Option<DropEvent>> {
        match decode(bytes) {
            Ok(sample) => Ok(Some(self.take_sample(&sample)?)),
            Err(error) => {
                increment(&self.snapshot.undecoded);
                self.cursor.note_loss();
                warn!("{error}");
                Ok(None)
            }
        }
    }

    fn take_sample(&mut self, sample: &Sample) -> anyhow::Result<DropEvent> {
        if sample.server != 0 && !self.names.contains_key(&sample.server) {
            // the ledger has the drop
            self.learn_names().inspect_err(|_| self.cursor.note_loss())?;
        }
        self.hot_rows.note_sample(sample.key(), sample.time_ns);
        let unreported = self.reconciler.note_sample(sample.key(), sample.time_ns, sample.drops);
        let mut event = sample.to_event(unreported, &self.context());
        self.source.add_lookups(&mut std::iter::once(&mut event));
        Ok(event)
    }

    /// The last packets of the rows that grow right now, between two readings of the whole ledger.
    pub(super) fn poll_hot_rows(&mut self) -> Vec<LastPacket> {
        if self.hot_rows_polled.elapsed() < HOT_ROWS_PERIOD {
            return Vec::new();
        }
        self.hot_rows_polled = Instant::now();
        let context = context_of(&self.interface, &self.names);
        let mut rows = self.hot_rows.poll(&context, |key| self.source.row(key));
        self.source.add_contacts(&mut rows.iter_mut().map(|row| &mut row.drop));
        rows
    }

    /// The drops of a row that nobody has reported, for an alarm that can't wait for the next reading
    /// of the ledger. They count as reported from now on.
    pub(super) fn take_unreported(&mut self, row: &LastPacket) -> Option<DropEvent> {
        let context = context_of(&self.interface, &self.names);
        let drop = self.reconciler.take_unreported(row.key, &row.entry, &context)?;
        let (sources, destinations) = (row.drop.sources.clone(), row.drop.destinations.clone());
        Some(DropEvent { sources, destinations, ..drop })
    }

    /// Reads the ledger if it may hold something that was not reported and can't wait.
    pub(super) fn read_ledger_if_due(&mut self) -> anyhow::Result<LedgerReading> {
        let (dropped, lost) = self.source.counters()?;
        self.cursor.note_counters(dropped, lost);
        let has_backlog = !self.reconciler.is_complete() || !self.reconciler.has_seen_all();
        match self.cursor.is_due(has_backlog, Instant::now()) {
            true => self.read_ledger(),
            false => Ok(LedgerReading::default()),
        }
    }

    /// Reads the ledger and compares it with what was reported.
    pub(super) fn read_ledger(&mut self) -> anyhow::Result<LedgerReading> {
        let ledger = self.source.ledger()?;
        let is_nameless = |key: &LedgerKey| key.server != 0 && !self.names.contains_key(&key.server);
        // A new server comes with a new row.
        if self.cursor.has_grown_or_shrunk(ledger.len()) && ledger.iter().any(|(key, _)| is_nameless(key)) {
            self.learn_names()?;
        }
        self.cursor.note_reading(ledger.len(), Instant::now());
        let context = context_of(&self.interface, &self.names);
        // First, because reconciling forgets which rows have grown.
        let mut last_packets = self.reconciler.last_packets(&ledger, &context);
        let mut unreported = self.reconciler.reconcile(&ledger, &context);
        self.source.add_contacts(&mut last_packets.iter_mut().chain(&mut unreported));
        self.source.add_lookups(&mut unreported.iter_mut());
        Ok(LedgerReading { last_packets, unreported })
    }

    /// All drops that nobody has reported, when there will be no other reading. It works after the gate
    /// was detached too, because this process keeps the maps alive. An unreadable ledger has none.
    pub(super) fn read_rest(&mut self) -> Vec<DropEvent> {
        let Ok(ledger) = self.source.ledger() else {
            return Vec::new();
        };
        let mut drops = self.reconciler.reconcile_all(&ledger, &context_of(&self.interface, &self.names));
        self.source.add_contacts(&mut drops.iter_mut());
        self.source.add_lookups(&mut drops.iter_mut());
        drops
    }

    /// Whether the drops from before the start are still to be reported.
    pub(super) fn has_startup_ledger(&self) -> bool {
        self.startup_ledger.is_some()
    }

    /// The drops from before the start that are not in `baseline`, once.
    pub(super) fn take_startup_drops(&mut self, baseline: &Baseline) -> Vec<DropEvent> {
        match self.startup_ledger.take() {
            Some(ledger) => {
                let mut drops = Reconciler::starting(&ledger, baseline, &self.context()).1;
                self.source.add_contacts(&mut drops.iter_mut());
                self.source.add_lookups(&mut drops.iter_mut());
                drops
            }
            None => Vec::new(),
        }
    }

    /// Whether a checkpoint every second costs little.
    pub(super) fn has_few_kinds(&self) -> bool {
        self.reconciler.len() <= FEW_KINDS
    }

    /// Whether a checkpoint would be true: every drop is either in it or not reported. Otherwise the
    /// next daemon would skip a drop, or report one again that only a sample has reported.
    pub(super) fn can_checkpoint(&self) -> bool {
        self.startup_ledger.is_none() && self.reconciler.has_seen_all()
    }

    /// The drops that were reported so far, for the next daemon. `None` if the last checkpoint says the same.
    pub(super) fn take_checkpoint(&mut self) -> Option<Baseline> {
        let baseline = self.reconciler.baseline();
        if baseline == self.checkpoint {
            return None;
        }
        self.checkpoint = baseline.clone();
        Some(baseline)
    }

    /// Gives rows of the ledger back that nobody needs any more, with the lock held. They are idle, and by
    /// the last checkpoint the next daemon knows that their drops were reported.
    pub(super) fn give_rows_back(&mut self) -> anyhow::Result<()> {
        if !self.can_checkpoint() {
            return Ok(());
        }
        let ledger = self.source.ledger()?;
        let idle_since_ns = now_ns().saturating_sub(IDLE_NS);
        let rows = Reconciler::idle_rows(&ledger, &self.checkpoint, idle_since_ns);
        let gone: HashSet<u32> = self.source.give_rows_back(&rows)?.into_iter().collect();
        let rows = ledger.iter().filter(|(_, entry)| gone.contains(&entry.number));
        self.reconciler.forget(rows.map(|(key, _)| *key));
        Ok(())
    }

    fn context(&self) -> Context<'_> {
        context_of(&self.interface, &self.names)
    }
}

/// Of two fields, so that a third may be changed meanwhile.
fn context_of<'names>(interface: &Arc<str>, names: &'names Names) -> Context<'names> {
    Context { interface: Arc::clone(interface), clock: Clock::now(), names }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::net::IpAddr;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::abi::{self, Reason};
    use crate::drops::{Contacts, LedgerEntry, LookedUp, ReportedRow};
    use crate::gate::GateError;

    /// A ledger in memory.
    #[derive(Default)]
    struct Source {
        ledger: RefCell<Ledger>,
        names: RefCell<Names>,
        readings: Cell<usize>,
    }

    impl DropSource for Source {
        fn names(&self) -> Result<Names, GateError> {
            Ok(self.names.borrow().clone())
        }

        fn counters(&self) -> Result<(u64, u64), GateError> {
            Ok((self.ledger.borrow().iter().map(|(_, entry)| entry.packets).sum(), 0))
        }

        fn ledger(&self) -> Result<Ledger, GateError> {
            self.readings.set(self.readings.get() + 1);
            Ok(self.ledger.borrow().clone())
        }

        fn row(&self, key: &LedgerKey) -> Option<LedgerEntry> {
            self.ledger.borrow().iter().find(|(known, _)| known == key).map(|(_, entry)| entry.clone())
        }

        fn give_rows_back(&self, rows: &[ReportedRow]) -> Result<Vec<u32>, GateError> {
            let gone: Vec<u32> = rows.iter().map(|row| row.number).collect();
            self.ledger.borrow_mut().retain(|(_, entry)| !gone.contains(&entry.number));
            Ok(gone)
        }

        /// Every destination is evil.example.
        fn add_lookups(&self, events: &mut dyn Iterator<Item = &mut DropEvent>) {
            for event in events.filter(|event| event.destination.is_some()) {
                event.looked_up = Some(LookedUp { name: "evil.example".into(), at: event.time });
            }
        }

        /// Each row has one source, 192.0.2.N for the row N.
        fn add_contacts(&self, events: &mut dyn Iterator<Item = &mut DropEvent>) {
            for event in events {
                let first = event.row.map(|number| IpAddr::from([192, 0, 2, number as u8]));
                let contacts = Contacts { first: first.into_iter().collect(), ..Contacts::default() };
                event.sources = Some(Arc::new(contacts));
            }
        }
    }

    const OLD_NS: u64 = 3_000_000_000;

    fn key(port: u16) -> LedgerKey {
        let reason = Reason::NewFlow.number();
        LedgerKey { server: 1, port, protocol: 6, reason, flags: 0, overflow: false }
    }

    /// A row that has been idle long enough to be reported from the ledger.
    fn row(port: u16, packets: u64) -> (LedgerKey, LedgerEntry) {
        let first_ns = now_ns() - OLD_NS;
        (key(port), LedgerEntry { packets, first_ns, last_ns: first_ns, ..LedgerEntry::default() })
    }

    fn source(ledger: Ledger) -> Source {
        Source { ledger: ledger.into(), names: Names::from([(1, "web1".into())]).into(), ..Source::default() }
    }

    fn start(source: &Source) -> Intake<'_> {
        Intake::start(source, "dmz0".into(), Arc::default()).unwrap()
    }

    fn sample(port: u16, drops: u64) -> Sample {
        let mut sample = decode(&vec![0; size_of::<abi::sample>()]).unwrap();
        (sample.server, sample.port, sample.protocol) = (1, port, 6);
        (sample.reason, sample.drops, sample.time_ns) = (Reason::NewFlow.into(), drops, now_ns());
        sample
    }

    #[test]
    fn drops_from_before_the_start_are_reported_once_and_before_any_checkpoint() {
        let source = source(vec![row(445, 10)]);
        let mut intake = start(&source);
        assert!(intake.has_startup_ledger() && !intake.can_checkpoint());
        let drops = intake.take_startup_drops(&Baseline::default());
        assert_eq!(drops.iter().map(|drop| drop.drops).collect::<Vec<_>>(), [10]);
        assert!(drops[0].while_away && drops[0].server_name() == Some("web1"));
        assert!(!intake.has_startup_ledger() && intake.can_checkpoint());
        assert!(intake.take_startup_drops(&Baseline::default()).is_empty());
        assert!(intake.read_ledger().unwrap().unreported.is_empty());
    }

    #[test]
    fn the_next_daemon_reports_what_came_after_the_last_checkpoint() {
        let source = source(vec![row(445, 10)]);
        let mut intake = start(&source);
        intake.take_startup_drops(&Baseline::default());
        let checkpoint = intake.take_checkpoint().unwrap();
        assert!(intake.take_checkpoint().is_none(), "nothing has changed");
        source.ledger.borrow_mut()[0].1.packets = 17;
        let drops = start(&source).take_startup_drops(&checkpoint);
        assert_eq!(drops.iter().map(|drop| drop.drops).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn a_drop_that_a_sample_has_reported_is_not_reported_from_the_ledger_again() {
        let source = source(Vec::new());
        let mut intake = start(&source);
        intake.take_startup_drops(&Baseline::default());
        assert_eq!(intake.take_sample(&sample(445, 3)).unwrap().drops, 3);
        assert!(!intake.can_checkpoint(), "its row was not found yet");
        *source.ledger.borrow_mut() = vec![row(445, 3), row(80, 5)];
        let reading = intake.read_ledger_if_due().unwrap();
        assert_eq!(
            reading.unreported.iter().map(|drop| (drop.port, drop.drops)).collect::<Vec<_>>(),
            [(80, 5)]
        );
        assert!(intake.can_checkpoint());
    }

    #[test]
    fn events_of_rows_carry_the_addresses_of_their_rows_and_samples_do_not() {
        let mut rows = vec![row(445, 10), row(80, 3)];
        (rows[0].1.number, rows[1].1.number) = (7, 8);
        let source = source(rows);
        let mut intake = start(&source);
        assert!(intake.take_sample(&sample(22, 1)).unwrap().sources.is_none());
        let drops = intake.take_startup_drops(&Baseline::default());
        let first = |drop: &DropEvent| drop.sources.as_ref().unwrap().first.clone();
        let mut firsts: Vec<_> = drops.iter().map(|drop| (drop.port, first(drop))).collect();
        firsts.sort();
        let ip = |last| vec![IpAddr::from([192, 0, 2, last])];
        assert_eq!(firsts, [(80, ip(8)), (445, ip(7))]);
    }

    #[test]
    fn idle_rows_are_given_back_once_a_checkpoint_has_them_and_a_kind_that_comes_again_is_reported() {
        let old_ns = now_ns() - IDLE_NS - OLD_NS;
        let idle = |number, port| {
            let (key, entry) = row(port, 10);
            (key, LedgerEntry { number, first_ns: old_ns, last_ns: old_ns, ..entry })
        };
        let (busy_key, busy) = row(22, 4);
        let source = source(vec![idle(1, 445), idle(2, 80), (busy_key, LedgerEntry { number: 3, ..busy })]);
        let mut intake = start(&source);
        let ports =
            |source: &Source| source.ledger.borrow().iter().map(|(key, _)| key.port).collect::<Vec<u16>>();
        intake.give_rows_back().unwrap();
        assert_eq!(ports(&source), [445, 80, 22], "nothing was reported");
        intake.take_startup_drops(&Baseline::default());
        intake.give_rows_back().unwrap();
        assert_eq!(ports(&source), [445, 80, 22], "no checkpoint says so");
        intake.take_checkpoint();
        source.ledger.borrow_mut()[1].1.packets += 1;
        intake.give_rows_back().unwrap();
        assert_eq!(ports(&source), [80, 22], "one has counted another drop");
        // the kind has another row, and its sample comes before the next reading
        source.ledger.borrow_mut().push((key(445), LedgerEntry { number: 1, ..row(445, 3).1 }));
        assert_eq!(intake.take_sample(&sample(445, 1)).unwrap().drops, 1);
        let drops = intake.read_ledger().unwrap().unreported;
        let of_port = drops.iter().filter(|drop| drop.port == 445).map(|drop| drop.drops).sum::<u64>();
        assert_eq!(of_port, 2, "three, of which the sample was one");
    }

    #[test]
    fn an_event_has_what_its_destination_was_looked_up_as_wherever_it_comes_from() {
        let name = |event: &DropEvent| event.looked_up.as_ref().map(|looked_up| looked_up.name.to_string());
        let evil = Some("evil.example".to_owned());
        let (key, entry) = row(445, 3);
        let entry = LedgerEntry { last_destination: Some([198, 51, 100, 7].into()), ..entry };
        let source = source(vec![(key, entry)]);
        let mut intake = start(&source);
        assert_eq!(
            intake.take_startup_drops(&Baseline::default()).iter().map(name).collect::<Vec<_>>(),
            std::slice::from_ref(&evil)
        );
        source.ledger.borrow_mut()[0].1.packets += 2;
        let reading = intake.read_ledger().unwrap();
        assert_eq!(reading.unreported.iter().map(name).collect::<Vec<_>>(), std::slice::from_ref(&evil));
        let sample = Sample { destination: Some([198, 51, 100, 7].into()), ..sample(80, 1) };
        assert_eq!(name(&intake.take_sample(&sample).unwrap()), evil);
    }

    #[test]
    fn a_ledger_at_rest_is_not_read() {
        let source = source(vec![row(445, 1)]);
        let mut intake = start(&source);
        for _ in 0..10 {
            intake.read_ledger_if_due().unwrap();
        }
        assert_eq!(source.readings.get(), 3, "once at the start, and twice until it has come to rest");
    }

    #[test]
    fn bytes_that_are_no_sample_are_counted_and_the_ledger_is_read() {
        let source = source(Vec::new());
        let mut intake = start(&source);
        assert!(intake.read_sample(&[1, 2, 3]).unwrap().is_none());
        assert_eq!(intake.snapshot.undecoded.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_name_of_a_new_server_is_learnt_with_its_first_sample() {
        let source = source(Vec::new());
        source.names.borrow_mut().clear();
        let mut intake = start(&source);
        source.names.borrow_mut().insert(1, "late".into());
        assert_eq!(intake.take_sample(&sample(445, 1)).unwrap().server_name(), Some("late"));
    }

    #[test]
    fn hot_rows_show_their_last_packets_and_their_drops_are_taken_once() {
        let source = source(Vec::new());
        let mut intake = start(&source);
        intake.take_sample(&sample(445, 1)).unwrap();
        let entry = LedgerEntry { packets: 9, last_ns: now_ns(), ..LedgerEntry::default() };
        *source.ledger.borrow_mut() = vec![(key(445), entry)];
        assert!(intake.poll_hot_rows().is_empty(), "too soon after the start");
        intake.hot_rows_polled = Instant::now() - HOT_ROWS_PERIOD;
        let rows = intake.poll_hot_rows();
        assert_eq!((rows.len(), rows[0].drop.drops), (1, 0));
        assert_eq!(intake.take_unreported(&rows[0]).unwrap().drops, 8);
        assert!(intake.take_unreported(&rows[0]).is_none());
    }
}
