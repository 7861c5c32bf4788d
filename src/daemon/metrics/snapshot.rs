//! What the daemon knows of itself, for whoever asks from another thread. The consumer writes
//! numbers here and waits for nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::alarm::{Change, Engine, Kind, Severity, Step};
use crate::gate::now_ns;
use crate::history::HistoryStatus;
use crate::sink::SinkStatus;

/// A consumer that was not heard of for this long hangs, nanoseconds.
const HANGS_NS: u64 = 5_000_000_000;

/// The numbers of a running daemon.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// When the consumer last came round, CLOCK_MONOTONIC, nanoseconds.
    heard_ns: AtomicU64,
    /// Samples that were read.
    pub samples: AtomicU64,
    /// Samples that could not be decoded.
    pub undecoded: AtomicU64,
    /// Clients of the socket that did not read, and were left.
    pub clients_left: AtomicU64,
    /// Requests of the metrics.
    pub scrapes: AtomicU64,
    /// Servers that were put into quarantine by themselves.
    pub quarantines: AtomicU64,
    /// Changes of how the filter is attached.
    pub filter_changes: AtomicU64,
    /// Changes of where the tracker is.
    pub tracker_changes: AtomicU64,
    told: Mutex<Told>,
}

/// What is more than a number.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Alarms by kind and severity, since the start: opened, or turned into this.
    pub alarms: BTreeMap<(Kind, Severity), u64>,
    /// Alarms that are open, by severity.
    pub open: BTreeMap<Severity, u64>,
    /// Each sink.
    pub sinks: Vec<SinkStatus>,
    /// The history.
    pub history: HistoryStatus,
}

impl Snapshot {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The consumer came round.
    pub fn beat(&self) {
        self.heard_ns.store(now_ns(), Ordering::Relaxed);
    }

    /// Whether the consumer reads.
    pub fn is_consumer_up(&self) -> bool {
        now_ns().saturating_sub(self.heard_ns.load(Ordering::Relaxed)) < HANGS_NS
    }

    /// EventFilter note of a change of an alarm.
    pub fn note_alarm(&self, change: &Change) {
        if matches!(change.step, Step::Opened | Step::Escalated { .. }) {
            *self.lock().alarms.entry((change.alarm.kind, change.alarm.severity)).or_default() += 1;
        }
    }

    /// How things stand, about once a second.
    pub fn note_standing(&self, engine: &Engine, sinks: Vec<SinkStatus>, history: HistoryStatus) {
        let mut open = BTreeMap::new();
        for alarm in engine.open_alarms() {
            *open.entry(alarm.severity).or_default() += 1;
        }
        let mut told = self.lock();
        told.open = open;
        told.sinks = sinks;
        told.history = history;
    }

    /// A copy.
    pub fn told(&self) -> Told {
        self.lock().clone()
    }

    /// How many alarms are open.
    pub fn count_open(&self) -> u64 {
        self.lock().open.values().sum()
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
