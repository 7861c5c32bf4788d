//! The daemon's own numbers, for the threads that answer clients. The event loop writes numbers
//! here and waits for nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::alarm::{Change, Kind, Severity, Step};
use crate::clock::now_ns;
use crate::history::HistoryStatus;
use crate::sink::SinkStatus;

/// The event loop hangs when it has been silent for this long, nanoseconds.
const HANGS_NS: u64 = 5_000_000_000;

/// The numbers of a running daemon.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Snapshot {
    /// When the event loop last came round: CLOCK_MONOTONIC, nanoseconds.
    heartbeat_ns: AtomicU64,
    /// Samples that were read.
    pub samples: AtomicU64,
    /// Samples that could not be decoded.
    pub undecoded: AtomicU64,
    /// Clients of the control socket that did not read and were dropped.
    pub clients_disconnected: AtomicU64,
    /// Requests of the metrics page.
    pub scrapes: AtomicU64,
    /// Servers and addresses that the daemon has put into quarantine.
    pub quarantines: AtomicU64,
    /// Changes of how the filter is attached.
    pub filter_changes: AtomicU64,
    /// Changes of where the tracker is attached.
    pub tracker_changes: AtomicU64,
    state: Mutex<State>,
}

/// The part of a snapshot that is more than single numbers.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct State {
    /// Alarms since the start by kind and severity: opened, or escalated to them.
    pub alarms: BTreeMap<(Kind, Severity), u64>,
    /// Open alarms by severity.
    pub open: BTreeMap<Severity, u64>,
    /// How each sink does.
    pub sinks: Vec<SinkStatus>,
    /// How the history does.
    pub history: HistoryStatus,
}

impl Snapshot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the event loop came round.
    pub(in crate::daemon) fn note_heartbeat(&self) {
        self.heartbeat_ns.store(now_ns(), Ordering::Relaxed);
    }

    /// Whether the event loop goes on.
    pub(in crate::daemon) fn is_consumer_up(&self) -> bool {
        now_ns().saturating_sub(self.heartbeat_ns.load(Ordering::Relaxed)) < HANGS_NS
    }

    /// Counts an alarm that opens or escalates.
    pub(in crate::daemon) fn note_alarm(&self, change: &Change) {
        if matches!(change.step, Step::Opened | Step::Escalated { .. }) {
            *self.lock().alarms.entry((change.alarm.kind(), change.alarm.severity())).or_default() += 1;
        }
    }

    /// Publishes the state of alarms, sinks and history, about once a second.
    pub(in crate::daemon) fn publish(
        &self,
        open: BTreeMap<Severity, u64>,
        sinks: Vec<SinkStatus>,
        history: HistoryStatus,
    ) {
        let mut state = self.lock();
        state.open = open;
        state.sinks = sinks;
        state.history = history;
    }

    /// A copy of the published state.
    pub(in crate::daemon) fn state(&self) -> State {
        self.lock().clone()
    }

    /// How many alarms are open.
    pub(in crate::daemon) fn count_open(&self) -> u64 {
        self.lock().open.values().sum()
    }
}

/// Counts one more.
pub(in crate::daemon) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::example::{after_ms, syn};

    #[test]
    fn an_alarm_counts_when_it_opens_and_when_it_escalates_but_not_for_an_update() {
        let snapshot = Snapshot::default();
        let mut engine = crate::alarm::Engine::default();
        let mut change = engine.observe(&syn(), after_ms(0)).remove(0);
        snapshot.note_alarm(&change);
        change.step = Step::Updated;
        snapshot.note_alarm(&change);
        let attempt = (change.alarm.kind(), change.alarm.severity());
        change.step = Step::Escalated { from: Kind::Attempt };
        change.alarm.parts[0].kind = Kind::Spread;
        snapshot.note_alarm(&change);
        let alarms = snapshot.state().alarms;
        assert_eq!(alarms[&attempt], 1);
        assert_eq!(alarms[&(Kind::Spread, attempt.1)], 1);
        snapshot.publish(engine.count_open(), Vec::new(), HistoryStatus::default());
        assert_eq!(snapshot.count_open(), 1);
    }

    #[test]
    fn the_consumer_is_up_from_its_first_heartbeat_on() {
        let snapshot = Snapshot::default();
        snapshot.note_heartbeat();
        assert!(snapshot.is_consumer_up());
        snapshot.heartbeat_ns.store(now_ns() - HANGS_NS, Ordering::Relaxed);
        assert!(!snapshot.is_consumer_up());
    }
}
