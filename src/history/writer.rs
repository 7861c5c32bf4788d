//! The thread that writes. The consumer never waits for the disk.

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

/// Between two writes when nothing presses.
const CALM: Duration = Duration::from_secs(1);
/// Between two writes when alarms have opened.
const PRESSED: Duration = Duration::from_millis(100);
/// Between two tries at a disk that refuses: doubled up to the second.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LAST_DELAY: Duration = Duration::from_secs(30);
/// How long the start of the daemon waits for the disk.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// How long what the daemon before had reported is waited for, while the daemon works.
const LATE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries at a history that another process has open.
const TAKEN_PAUSE: Duration = Duration::from_millis(50);
/// How long the end of the daemon waits for the last write.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// How the history does, for metrics and messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryStatus {
    /// Writes that succeeded.
    pub written: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Alarms and samples that were never written, because too many waited.
    pub lost: u64,
    /// Why it fails; `None` if it doesn't.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    pending: Pending,
    pressed: bool,
    ending: bool,
    ended: bool,
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
    /// The answer, until somebody takes it.
    previous_run: Option<PreviousRun>,
}

/// What the daemon before has left.
#[derive(Debug)]
pub struct PreviousRun {
    /// Its alarms are marked as cut off.
    begun: bool,
    /// The highest id that an alarm has had.
    pub last_id: u64,
    /// What had been reported; empty if that can't be known.
    pub baseline: Baseline,
}

impl PreviousRun {
    fn look(store: &Store) -> PreviousRun {
        wait_for_others(store);
        let begun = store.begin().inspect_err(|error| warn!("{error}; tried again")).ok();
        let last_id = begun.unwrap_or_else(|| match store.alarms(&AlarmFilter::default()) {
            Ok(alarms) => alarms.last().map_or(0, |entry| entry.id),
            Err(_) => PreviousRun::nothing().last_id,
        });
        let baseline = store.baseline().unwrap_or_else(|error| {
            warn!("{error}; what an earlier daemon has reported is reported once more");
            Baseline::default()
        });
        PreviousRun { begun: begun.is_some(), last_id, baseline }
    }

    /// No alarm of an earlier daemon may have the next id, or it would be overwritten.
    fn nothing() -> PreviousRun {
        let last_id = u64::try_from(Clock::now().wall.as_second()).unwrap_or(0);
        PreviousRun { begun: false, last_id, baseline: Baseline::default() }
    }
}

/// Whoever reads a history that no daemon has keeps the next one from it for a moment.
fn wait_for_others(store: &Store) {
    let begun = Instant::now();
    while begun.elapsed() < LATE_PATIENCE {
        match store.try_open() {
            Err(StoreError::Open { taken: true, .. }) => std::thread::sleep(TAKEN_PAUSE),
            _ => return,
        }
    }
}

impl HistoryWriter {
    /// Starts the thread, which opens the history in a folder. What fails now is tried again.
    pub fn start(folder: &Path, limits: Limits) -> HistoryWriter {
        let store = Arc::new(Store::new(folder));
        let shared = Arc::new(Shared::default());
        shared.state().limits = Some(limits);
        let (state, writer) = (Arc::clone(&shared), Arc::clone(&store));
        let (question, answer) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                let previous_run = PreviousRun::look(&writer);
                let begun = previous_run.begun;
                let _ = question.send(previous_run);
                keep(&state, &writer, begun);
            })
            .inspect_err(|error| warn!("no thread for the history: {error}"))
            .ok();
        HistoryWriter { shared, store, thread, started: Instant::now(), answer, previous_run: None }
    }

    /// Waits for what the daemon before has left, but no longer than a moment: a daemon without a
    /// history is better than none. The highest id that an alarm has had, as far as known.
    pub fn wait_for_previous_run(&mut self) -> u64 {
        let left = FIRST_PATIENCE.saturating_sub(self.started.elapsed());
        self.previous_run = match self.answer.recv_timeout(left) {
            Ok(previous_run) => Some(previous_run),
            Err(RecvTimeoutError::Timeout) => {
                warn!("the history {} does not answer; the daemon goes on", self.store.path().display());
                None
            }
            Err(RecvTimeoutError::Disconnected) => Some(self.give_up()),
        };
        self.previous_run
            .as_ref()
            .map_or_else(|| PreviousRun::nothing().last_id, |previous_run| previous_run.last_id)
    }

    /// What the daemon before has left, once; `None` while the disk has not said so. After a
    /// minute it is taken for nothing: rather told twice than never.
    pub fn take_previous_run(&mut self) -> Option<PreviousRun> {
        if let Some(previous_run) = self.previous_run.take() {
            return Some(previous_run);
        }
        match self.answer.try_recv() {
            Ok(previous_run) => Some(previous_run),
            Err(TryRecvError::Empty) if self.started.elapsed() < LATE_PATIENCE => None,
            Err(TryRecvError::Empty) => {
                warn!(
                    "the history {} does not answer; what an earlier daemon has reported is \
                     reported once more",
                    self.store.path().display()
                );
                Some(PreviousRun::nothing())
            }
            Err(TryRecvError::Disconnected) => Some(self.give_up()),
        }
    }

    /// There is no thread that could write.
    fn give_up(&self) -> PreviousRun {
        let error = format!("the history {} is not written: its thread is gone", self.store.path().display());
        warn!("{error}; what an earlier daemon has reported is reported once more");
        self.shared.state().status.error = Some(error);
        PreviousRun::nothing()
    }

    /// Another policy, another age.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.state().limits = Some(limits);
    }

    /// EventFilter note of a drop.
    pub fn note_drop(&self, drop: &DropEvent) {
        self.shared.state().pending.add_drop(drop);
    }

    /// EventFilter note of an alarm; one that opens or turns graver is written at once.
    pub fn note_alarm(&self, change: &Change) {
        let mut state = self.shared.state();
        state.pending.add_alarm(change);
        if change.step != Step::Updated {
            state.pressed = true;
            self.shared.wake.notify_all();
        }
    }

    /// What has been reported until now, which accounts for every drop that was noted.
    pub fn checkpoint(&self, baseline: Baseline) {
        self.shared.state().pending.checkpoint(baseline);
    }

    /// For whoever reads: the database may be read while it is written.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// How it does.
    pub fn status(&self) -> HistoryStatus {
        self.shared.state().status.clone()
    }
}

impl Drop for HistoryWriter {
    /// Writes what waits; a disk that hangs is left.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ending = true;
        self.shared.wake.notify_all();
        let deadline = Instant::now() + LAST_PATIENCE;
        while !state.ended && Instant::now() < deadline && self.thread.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            let (back, _) =
                self.shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = back;
        }
        if state.ended {
            drop(state);
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// Writes what waits, until the end.
fn keep(shared: &Shared, store: &Store, mut begun: bool) {
    let mut backlog = Pending::default();
    let mut ageing = Retention::default();
    let mut delay = FIRST_DELAY;
    let mut pause = CALM;
    loop {
        let (fresh, limits, ending) = wait(shared, pause);
        backlog.merge(fresh);
        let now = Clock::now();
        let limits = ageing.judge(limits, now);
        let lost = std::mem::take(&mut backlog.lost);
        let outcome = match backlog.is_empty() {
            true => Ok(()),
            // before anything of this daemon is in it
            false if !begun => store.begin().and_then(|_| {
                begun = true;
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
                (delay, pause) = (FIRST_DELAY, CALM);
            }
            Err(error) => {
                state.status.failures += 1;
                if state.status.error.is_none() {
                    // Once, and not with every try: the metrics have the count.
                    warn!("{error}; tried again, and nothing is lost until then");
                }
                state.status.error = Some(error.to_string());
                pause = delay;
                delay = (delay * 2).min(LAST_DELAY);
            }
        }
        if ending {
            if !backlog.is_empty() {
                warn!("the history misses what came last");
            }
            state.ended = true;
            shared.wake.notify_all();
            return;
        }
    }
}

/// Waits for something to write, and takes it.
fn wait(shared: &Shared, pause: Duration) -> (Pending, Limits, bool) {
    let begun = Instant::now();
    let mut state = shared.state();
    loop {
        let patience = if state.pressed && state.status.error.is_none() { PRESSED } else { pause };
        let left = patience.saturating_sub(begun.elapsed());
        if state.ending || left.is_zero() {
            state.pressed = false;
            let limits = state.limits.unwrap_or(Limits::of_days(90));
            return (state.pending.take(), limits, state.ending);
        }
        let (back, _) = shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        state = back;
    }
}
