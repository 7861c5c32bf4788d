//! The thread that writes. The consumer never waits for the disk.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::ageing::Ageing;
use super::{Filter, Limits, Pending, Store, StoreError};
use crate::alarm::{Change, Step};
use crate::clock::Clock;
use crate::drops::{Baseline, Drop as Dropped};

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
pub struct KeeperStatus {
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
struct Desk {
    pending: Pending,
    pressed: bool,
    ending: bool,
    ended: bool,
    limits: Option<Limits>,
    status: KeeperStatus,
}

#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    bell: Condvar,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The history of a running daemon.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    store: Arc<Store>,
    thread: Option<JoinHandle<()>>,
    started: Instant,
    answer: Receiver<Heritage>,
    /// The answer, until somebody takes it.
    heritage: Option<Heritage>,
}

/// What the daemon before has left.
#[derive(Debug)]
pub struct Heritage {
    /// Its alarms are marked as cut off.
    begun: bool,
    /// The highest id that an alarm has had.
    pub last_id: u64,
    /// What had been reported; empty if that can't be known.
    pub baseline: Baseline,
}

impl Heritage {
    fn look(store: &Store) -> Heritage {
        wait_for_others(store);
        let begun = store.begin().inspect_err(|error| warn!("{error}; tried again")).ok();
        let last_id = begun.unwrap_or_else(|| match store.alarms(&Filter::default()) {
            Ok(alarms) => alarms.last().map_or(0, |entry| entry.id),
            Err(_) => Heritage::nothing().last_id,
        });
        let baseline = store.baseline().unwrap_or_else(|error| {
            warn!("{error}; what an earlier daemon has reported is reported once more");
            Baseline::default()
        });
        Heritage { begun: begun.is_some(), last_id, baseline }
    }

    /// No alarm of an earlier daemon may have the next id, or it would be overwritten.
    fn nothing() -> Heritage {
        let last_id = u64::try_from(Clock::now().wall.as_second()).unwrap_or(0);
        Heritage { begun: false, last_id, baseline: Baseline::default() }
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

impl Keeper {
    /// Starts the thread, which opens the history in a folder. What fails now is tried again.
    pub fn start(folder: &Path, limits: Limits) -> Keeper {
        let store = Arc::new(Store::new(folder));
        let shared = Arc::new(Shared::default());
        shared.desk().limits = Some(limits);
        let (desk, writer) = (Arc::clone(&shared), Arc::clone(&store));
        let (question, answer) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                let heritage = Heritage::look(&writer);
                let begun = heritage.begun;
                let _ = question.send(heritage);
                keep(&desk, &writer, begun);
            })
            .inspect_err(|error| warn!("no thread for the history: {error}"))
            .ok();
        Keeper { shared, store, thread, started: Instant::now(), answer, heritage: None }
    }

    /// Waits for what the daemon before has left, but no longer than a moment: a daemon without a
    /// history is better than none. The highest id that an alarm has had, as far as known.
    pub fn wait(&mut self) -> u64 {
        let left = FIRST_PATIENCE.saturating_sub(self.started.elapsed());
        self.heritage = match self.answer.recv_timeout(left) {
            Ok(heritage) => Some(heritage),
            Err(RecvTimeoutError::Timeout) => {
                warn!("the history {} does not answer; the daemon goes on", self.store.path().display());
                None
            }
            Err(RecvTimeoutError::Disconnected) => Some(self.give_up()),
        };
        self.heritage.as_ref().map_or_else(|| Heritage::nothing().last_id, |heritage| heritage.last_id)
    }

    /// What the daemon before has left, once; `None` while the disk has not said so. After a
    /// minute it is taken for nothing: rather told twice than never.
    pub fn take_heritage(&mut self) -> Option<Heritage> {
        if let Some(heritage) = self.heritage.take() {
            return Some(heritage);
        }
        match self.answer.try_recv() {
            Ok(heritage) => Some(heritage),
            Err(TryRecvError::Empty) if self.started.elapsed() < LATE_PATIENCE => None,
            Err(TryRecvError::Empty) => {
                warn!(
                    "the history {} does not answer; what an earlier daemon has reported is \
                     reported once more",
                    self.store.path().display()
                );
                Some(Heritage::nothing())
            }
            Err(TryRecvError::Disconnected) => Some(self.give_up()),
        }
    }

    /// There is no thread that could write.
    fn give_up(&self) -> Heritage {
        let error = format!("the history {} is not written: its thread is gone", self.store.path().display());
        warn!("{error}; what an earlier daemon has reported is reported once more");
        self.shared.desk().status.error = Some(error);
        Heritage::nothing()
    }

    /// Another policy, another age.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.desk().limits = Some(limits);
    }

    /// Takes note of a drop.
    pub fn note_drop(&self, drop: &Dropped) {
        self.shared.desk().pending.add_drop(drop);
    }

    /// Takes note of an alarm; one that opens or turns graver is written at once.
    pub fn note_alarm(&self, change: &Change) {
        let mut desk = self.shared.desk();
        desk.pending.add_alarm(change);
        if change.step != Step::Updated {
            desk.pressed = true;
            self.shared.bell.notify_all();
        }
    }

    /// What has been reported until now, which accounts for every drop that was noted.
    pub fn settle(&self, baseline: Baseline) {
        self.shared.desk().pending.settle(baseline);
    }

    /// For whoever reads: the database may be read while it is written.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// How it does.
    pub fn status(&self) -> KeeperStatus {
        self.shared.desk().status.clone()
    }
}

impl Drop for Keeper {
    /// Writes what waits; a disk that hangs is left.
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.ending = true;
        self.shared.bell.notify_all();
        let deadline = Instant::now() + LAST_PATIENCE;
        while !desk.ended && Instant::now() < deadline && self.thread.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            let (back, _) = self.shared.bell.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner);
            desk = back;
        }
        if desk.ended {
            drop(desk);
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// Writes what waits, until the end.
fn keep(shared: &Shared, store: &Store, mut begun: bool) {
    let mut backlog = Pending::default();
    let mut ageing = Ageing::default();
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
        let mut desk = shared.desk();
        desk.status.lost = desk.status.lost.saturating_add(lost);
        match outcome {
            Ok(()) => {
                if !backlog.is_empty() {
                    desk.status.written += 1;
                    backlog = Pending::default();
                }
                if desk.status.error.take().is_some() {
                    info!("the history is written again");
                }
                (delay, pause) = (FIRST_DELAY, CALM);
            }
            Err(error) => {
                desk.status.failures += 1;
                if desk.status.error.is_none() {
                    // Once, and not with every try: the metrics have the count.
                    warn!("{error}; tried again, and nothing is lost until then");
                }
                desk.status.error = Some(error.to_string());
                pause = delay;
                delay = (delay * 2).min(LAST_DELAY);
            }
        }
        if ending {
            if !backlog.is_empty() {
                warn!("the history misses what came last");
            }
            desk.ended = true;
            shared.bell.notify_all();
            return;
        }
    }
}

/// Waits for something to write, and takes it.
fn wait(shared: &Shared, pause: Duration) -> (Pending, Limits, bool) {
    let begun = Instant::now();
    let mut desk = shared.desk();
    loop {
        let patience = if desk.pressed && desk.status.error.is_none() { PRESSED } else { pause };
        let left = patience.saturating_sub(begun.elapsed());
        if desk.ending || left.is_zero() {
            desk.pressed = false;
            let limits = desk.limits.unwrap_or(Limits::of_days(90));
            return (desk.pending.take(), limits, desk.ending);
        }
        let (back, _) = shared.bell.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner);
        desk = back;
    }
}
