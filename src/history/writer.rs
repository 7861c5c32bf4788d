//! The thread that writes the history, so that the daemon never waits for the disk.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::retention::Retention;
use super::{AlarmFilter, Limits, Pending, Store, StoreError};
use crate::alarm::{Change, Step};
use crate::clock::Clock;
use crate::drops::{Baseline, DropEvent};

/// Between two writes when nothing is urgent.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two writes when an alarm has opened, escalated or closed.
const URGENT_PAUSE: Duration = Duration::from_millis(100);
/// Between two attempts at a disk that refuses. The delay doubles from the first to the last.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LAST_DELAY: Duration = Duration::from_secs(30);
/// How long the start of the daemon waits for the disk.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// How long the daemon waits, while it works, to learn what the previous run had reported.
const LATE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts at a history that another process has open.
const TAKEN_PAUSE: Duration = Duration::from_millis(50);
/// How long the end of the daemon waits for the last write.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// The state of the history, for metrics and messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryStatus {
    /// Writes that succeeded.
    pub written: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Damaged files that were put aside.
    pub damaged: u64,
    /// Packets whose counts were removed for lack of room.
    pub removed: u64,
    /// Alarms and samples that were never written, because too many waited.
    pub lost: u64,
    /// Why it fails; `None` if it works.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    pending: Pending,
    is_urgent: bool,
    is_ending: bool,
    has_ended: bool,
    limits: Option<Limits>,
    status: HistoryStatus,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The history of a running daemon.
#[derive(Debug)]
pub struct HistoryWriter {
    shared: Arc<Shared>,
    store: Arc<Store>,
    thread: Option<JoinHandle<()>>,
    started: Instant,
    answer: Receiver<PreviousRun>,
    /// The answer, until it is taken.
    previous_run: Option<PreviousRun>,
}

/// The traces of the previous run of the daemon.
#[derive(Debug)]
pub struct PreviousRun {
    /// Its open alarms are marked as cut off.
    has_begun: bool,
    /// The highest id that an alarm has had.
    pub last_id: u64,
    /// The drops that it had reported; empty if that is unknown.
    pub baseline: Baseline,
}

impl PreviousRun {
    fn load(store: &Store) -> PreviousRun {
        wait_for_readers(store);
        let begun = store.begin().inspect_err(|error| warn!("{error}. It is retried")).ok();
        // The ids of a history that was put aside are unknown.
        let begun_anew = store.damaged() > 0;
        let last_id =
            begun.filter(|_| !begun_anew).unwrap_or_else(|| match store.alarms(&AlarmFilter::default()) {
                Ok(alarms) if !begun_anew => alarms.last().map_or(0, |entry| entry.id),
                Ok(_) | Err(_) => PreviousRun::unknown().last_id,
            });
        let baseline = store.baseline().unwrap_or_else(|error| {
            warn!("{error}. Drops that the previous run reported are reported again");
            Baseline::default()
        });
        PreviousRun { has_begun: begun.is_some(), last_id, baseline }
    }

    /// Its id is the time, for the next alarm must not overwrite an alarm of an earlier run.
    fn unknown() -> PreviousRun {
        let last_id = u64::try_from(Clock::now().wall.as_second()).unwrap_or(0);
        PreviousRun { has_begun: false, last_id, baseline: Baseline::default() }
    }
}

/// Waits until no other process has the history open. A command reads it itself when no daemon runs, and it
/// keeps the next daemon out for that moment.
fn wait_for_readers(store: &Store) {
    let started = Instant::now();
    while started.elapsed() < LATE_PATIENCE {
        match store.try_open() {
            #[expect(clippy::disallowed_methods, reason = "no lock of another process can wake a thread")]
            Err(StoreError::Open { taken: true, .. }) => std::thread::sleep(TAKEN_PAUSE),
            _ => return,
        }
    }
}

impl HistoryWriter {
    /// Starts the thread, which opens the history in a folder. A failure is retried.
    pub fn start(folder: &Path, limits: Limits) -> HistoryWriter {
        let store = Arc::new(Store::new(folder));
        let shared = Arc::new(Shared::default());
        shared.state().limits = Some(limits);
        let (state, writer) = (Arc::clone(&shared), Arc::clone(&store));
        let (sender, answer) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                let _last_word = LastWord(&state);
                let previous_run = PreviousRun::load(&writer);
                let has_begun = previous_run.has_begun;
                let _ = sender.send(previous_run);
                write_until_end(&state, &writer, has_begun);
            })
            .inspect_err(|error| warn!("no thread for the history: {error}"))
            .ok();
        HistoryWriter { shared, store, thread, started: Instant::now(), answer, previous_run: None }
    }

    /// Waits for the previous run's traces, but only for a moment: a daemon without a history is better than
    /// none. Returns the highest id that an alarm has had, as far as known.
    pub fn wait_for_previous_run(&mut self) -> u64 {
        let left = FIRST_PATIENCE.saturating_sub(self.started.elapsed());
        self.previous_run = match self.answer.recv_timeout(left) {
            Ok(previous_run) => Some(previous_run),
            Err(RecvTimeoutError::Timeout) => {
                warn!(
                    "the history {} does not answer: the daemon goes on without it",
                    self.store.path().display()
                );
                None
            }
            Err(RecvTimeoutError::Disconnected) => Some(self.give_up()),
        };
        self.previous_run
            .as_ref()
            .map_or_else(|| PreviousRun::unknown().last_id, |previous_run| previous_run.last_id)
    }

    /// The previous run's traces, once. `None` while the disk does not answer. After a minute they count as
    /// unknown: it is better to report drops twice than never.
    pub fn take_previous_run(&mut self) -> Option<PreviousRun> {
        if let Some(previous_run) = self.previous_run.take() {
            return Some(previous_run);
        }
        match self.answer.try_recv() {
            Ok(previous_run) => Some(previous_run),
            Err(TryRecvError::Empty) if self.started.elapsed() < LATE_PATIENCE => None,
            Err(TryRecvError::Empty) => {
                warn!(
                    "the history {} does not answer: drops that the previous run reported are reported again",
                    self.store.path().display()
                );
                Some(PreviousRun::unknown())
            }
            Err(TryRecvError::Disconnected) => Some(self.give_up()),
        }
    }

    /// There is no thread that could write.
    fn give_up(&self) -> PreviousRun {
        let error = format!("the history {} is not written: its thread is gone", self.store.path().display());
        warn!("{error}. Drops that the previous run reported are reported again");
        self.shared.state().status.error = Some(error);
        PreviousRun::unknown()
    }

    /// Sets the limits of another policy.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.state().limits = Some(limits);
    }

    /// Notes a drop.
    pub fn note_drop(&self, drop: &DropEvent) {
        self.shared.state().pending.add_drop(drop);
    }

    /// Notes a change of an alarm. It is written at once, unless it is an update.
    pub fn note_alarm(&self, change: &Change) {
        let mut state = self.shared.state();
        state.pending.add_alarm(change);
        if change.step != Step::Updated {
            state.is_urgent = true;
            self.shared.wake.notify_all();
        }
    }

    /// Notes a checkpoint: `baseline` accounts for every drop that was noted until now.
    pub fn checkpoint(&self, baseline: Baseline) {
        self.shared.state().pending.checkpoint(baseline);
    }

    /// The database, which may be read while it is written.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// The state of the history.
    pub fn status(&self) -> HistoryStatus {
        let (damaged, removed) = (self.store.damaged(), self.store.removed_packets());
        HistoryStatus { damaged, removed, ..self.shared.state().status.clone() }
    }

    /// What was found damaged since the last call, in words.
    pub fn take_damage(&self) -> Vec<String> {
        self.store.take_news()
    }
}

impl Drop for HistoryWriter {
    /// Writes the waiting records. It does not wait for a disk that hangs.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_ending = true;
        self.shared.wake.notify_all();
        let deadline = Instant::now() + LAST_PATIENCE;
        while !state.has_ended && Instant::now() < deadline && self.thread.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            let (back, _) =
                self.shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = back;
        }
        if state.has_ended {
            drop(state);
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// Notes that the thread has ended, also if it ended by a panic.
struct LastWord<'s>(&'s Shared);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if std::thread::panicking() {
            state.status.failures += 1;
            state.status.error = Some("the history is not written: its thread is gone".to_owned());
        }
        state.has_ended = true;
        self.0.wake.notify_all();
    }
}

/// Writes waiting records until the daemon ends.
fn write_until_end(shared: &Shared, store: &Store, mut has_begun: bool) {
    let mut backlog = Pending::default();
    let mut retention = Retention::default();
    let mut delay = FIRST_DELAY;
    let mut pause = PAUSE;
    loop {
        let (fresh, limits, is_ending) = wait(shared, pause);
        backlog.merge(fresh);
        let now = Clock::now();
        let limits = retention.current_limits(limits, now);
        let lost = std::mem::take(&mut backlog.lost);
        let outcome = match backlog.is_empty() {
            true => store.heal(),
            // before any record of this run is in it
            false if !has_begun => store.begin().and_then(|_| {
                has_begun = true;
                store.write(&backlog, &limits, now.wall)
            }),
            false => store.write(&backlog, &limits, now.wall),
        };
        let mut state = shared.state();
        state.status.lost = state.status.lost.saturating_add(lost);
        match outcome {
            Ok(()) => {
                if !backlog.is_empty() {
                    state.status.written += 1;
                    backlog = Pending::default();
                }
                if state.status.error.take().is_some() {
                    info!("the history is written again");
                }
                (delay, pause) = (FIRST_DELAY, PAUSE);
            }
            Err(error) => {
                state.status.failures += 1;
                if state.status.error.is_none() {
                    // Once, and not for every attempt: the metrics have the count.
                    warn!("{error}. The records wait, and the write is retried");
                }
                state.status.error = Some(error.to_string());
                pause = delay;
                delay = (delay * 2).min(LAST_DELAY);
            }
        }
        if is_ending {
            if !backlog.is_empty() {
                warn!("the last records are not in the history");
            }
            return;
        }
    }
}

/// Waits for records, and takes them.
fn wait(shared: &Shared, pause: Duration) -> (Pending, Limits, bool) {
    let started = Instant::now();
    let mut state = shared.state();
    loop {
        let patience = if state.is_urgent && state.status.error.is_none() { URGENT_PAUSE } else { pause };
        let left = patience.saturating_sub(started.elapsed());
        if state.is_ending || left.is_zero() {
            state.is_urgent = false;
            let limits = state.limits.unwrap_or(Limits::of_days(90));
            return (state.pending.take(), limits, state.is_ending);
        }
        let (back, _) = shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        state = back;
    }
}
