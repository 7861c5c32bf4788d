//! The thread of one sink.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{info, warn};

use super::backoff::Backoff;
use super::queue::{Queue, QueuedEvent};
use super::threads::Threads;
use crate::sink::{Event, EventFilter, Matter, PermanentError, Receipt, Sink, escape};

/// Attempts at an event that the other side refuses.
const MAX_ATTEMPTS: u32 = 3;

/// How long drops gather after a write. Otherwise each of hundreds a second would wake the thread.
const GATHER: Duration = Duration::from_millis(3);

/// How long a sink that a new policy has replaced goes on writing what waits.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How long a cancelled write may take to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// The state of a sink, for metrics and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStatus {
    /// [`Sink::name`].
    pub name: String,
    /// Events that it has written.
    pub written: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Events that it lost: too many were waiting, or it refused them.
    pub lost: u64,
    /// Events that wait for it.
    pub pending: usize,
    /// Why it fails; `None` if it works.
    pub error: Option<String>,
}

/// A sink in its thread, as the other threads see it.
pub(super) struct Worker {
    name: String,
    filter: EventFilter,
    cancel_flag: Option<Arc<AtomicBool>>,
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    /// The sink, until it has a thread.
    waiting: Mutex<Option<Box<dyn Sink>>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do.
    wake: Condvar,
    /// It has ended.
    done: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// An event is being written.
    in_flight: bool,
    /// Drops gather: the thread need not be woken for one more.
    gathering: bool,
    written: u64,
    failures: u64,
    error: Option<String>,
    backoff: Backoff,
    reopen: bool,
    /// The trial of a sink that begins.
    trial: Trial,
    /// Tests of a sink that takes no alarms.
    tests: Vec<Receipt>,
    /// Of a test whose event waits behind others: what fails for them fails for it.
    asked: Option<Receipt>,
    stopping: bool,
    /// When it ends although events wait.
    stop_by: Option<Instant>,
    ended: bool,
}

/// Each sink is tried when it begins, and not first by a break-in.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Trial {
    /// It comes before everything else.
    #[default]
    Due,
    /// It failed, and comes again while no event waits.
    Failed,
    Passed,
}

enum Task {
    Write(QueuedEvent),
    Reopen,
    TryOut(Option<Receipt>),
    Tick,
    End,
}

impl Worker {
    pub(super) fn start(sink: Box<dyn Sink>, threads: &Arc<Threads>) -> Worker {
        let state = Mutex::new(State::default());
        let worker = Worker {
            name: sink.name().to_owned(),
            filter: sink.filter(),
            cancel_flag: sink.cancel_flag(),
            shared: Arc::new(Shared { state, wake: Condvar::new(), done: Condvar::new() }),
            threads: Arc::clone(threads),
            waiting: Mutex::new(Some(sink)),
        };
        worker.start_thread();
        worker
    }

    /// Starts the thread, unless too many sinks of earlier policies still have theirs. Then events wait.
    fn start_thread(&self) {
        let mut waiting = self.lock_waiting();
        if waiting.is_none() {
            return;
        }
        let Some(slot) = self.threads.take_slot() else {
            let mut state = self.shared.lock();
            if state.error.is_none() {
                warn!("sink {} waits, because too many sinks of earlier policies hang", self.name);
                state.failures += 1;
                state.error = Some("too many sinks of earlier policies hang".to_owned());
            }
            return;
        };
        let Some(mut sink) = waiting.take() else { return };
        self.shared.lock().error = None;
        let work = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("sink".to_owned());
        let started = thread.spawn(move || {
            let _slot = slot;
            work.run(&mut *sink);
        });
        if let Err(error) = started {
            warn!("sink {} has no thread: {error}", self.name);
            let mut state = self.shared.lock();
            state.error = Some(format!("it has no thread: {error}"));
            state.ended = true;
        }
    }

    fn lock_waiting(&self) -> MutexGuard<'_, Option<Box<dyn Sink>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits for the sink.
    pub(super) fn push(&self, event: &Arc<Event>) {
        if self.filter.accepts(event) {
            let mut state = self.shared.lock();
            state.queue.push(Arc::clone(event));
            if !state.gathering || matches!(event.matter, Matter::Alarm(_) | Matter::Audit(_)) {
                self.shared.wake.notify_one();
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a test: the event, or a trial without it if the sink takes no alarms.
    pub(super) fn test(&self, event: &Arc<Event>, receipt: &Receipt) {
        let mut state = self.shared.lock();
        if state.ended {
            drop(state);
            receipt.note(&self.name, Err("it has no thread".to_owned()));
            return;
        }
        match self.filter.accepts(event) {
            true => {
                state.queue.push(Arc::clone(event));
                state.asked = Some(receipt.clone());
            }
            false => state.tests.push(receipt.clone()),
        }
        state.backoff.hurry();
        self.shared.wake.notify_one();
    }

    pub(super) fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Asks the sink to write what it can, once more, and to end.
    pub(super) fn stop(&self) {
        let has_no_thread = self.lock_waiting().take().is_some();
        let mut state = self.shared.lock();
        state.stopping = true;
        state.stop_by = Some(Instant::now() + STOP_PATIENCE);
        state.backoff.hurry();
        if has_no_thread {
            state.queue.lose_all();
            state.ended = true;
        }
        self.shared.wake.notify_one();
    }

    /// Waits for the sink to end. If that takes too long, its write is cancelled.
    pub(super) fn await_end(&self, deadline: Instant) {
        if self.ends_by(deadline) {
            return;
        }
        let pending = {
            let mut state = self.shared.lock();
            let pending = state.pending();
            state.queue.lose_all();
            pending
        };
        warn!("sink {} did not end in time: {pending} events are lost", self.name);
        if let Some(cancel_flag) = &self.cancel_flag {
            cancel_flag.store(true, Ordering::Relaxed);
            self.ends_by(Instant::now() + CANCEL_PATIENCE);
        }
    }

    fn ends_by(&self, deadline: Instant) -> bool {
        let mut state = self.shared.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return state.ended;
            }
            let waited = self.shared.done.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn status(&self) -> SinkStatus {
        self.start_thread();
        let state = self.shared.lock();
        SinkStatus {
            name: self.name.clone(),
            written: state.written,
            failures: state.failures,
            lost: state.queue.lost(),
            pending: state.pending(),
            error: state.error.clone(),
        }
    }
}

impl State {
    fn pending(&self) -> usize {
        self.queue.len() + usize::from(self.in_flight)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, sink: &mut dyn Sink) {
        // the event that was refused last, and how often
        let mut refused: Option<(u64, u32)> = None;
        let mut last_tick = Instant::now();
        loop {
            self.note_lost(sink);
            match self.next_task(sink.tick_interval().map(|interval| last_tick + interval)) {
                Task::End => break,
                Task::Tick => {
                    last_tick = Instant::now();
                    let result = attempt(|| sink.tick());
                    self.note_result(sink, result);
                }
                Task::Reopen => {
                    // A success says nothing of the waiting events: they are tried at once.
                    if let Err(error) = attempt(|| sink.reopen()) {
                        self.note_result(sink, Err(error));
                    }
                    self.lock().backoff.hurry();
                }
                Task::TryOut(receipt) => {
                    let result = attempt(|| sink.try_out());
                    if let Some(receipt) = receipt {
                        receipt.note(sink.name(), describe_result(&result));
                    }
                    self.note_trial(sink, result);
                }
                Task::Write(queued) => {
                    let number = queued.number;
                    if queued.event.receipt.as_ref().is_some_and(|receipt| receipt.is_stale(sink.name())) {
                        self.put_away(queued, false, true);
                        continue;
                    }
                    let result = attempt(|| sink.write(&queued.event));
                    let is_refused = result.as_ref().is_err_and(|error| error.is::<PermanentError>());
                    let attempts = match refused {
                        Some((last, attempts)) if last == number => attempts + 1,
                        _ => 1,
                    };
                    refused = is_refused.then_some((number, attempts));
                    let receipt = queued.event.receipt.as_ref();
                    if let Some(receipt) = receipt {
                        receipt.note(sink.name(), describe_result(&result));
                    }
                    let asked = if result.is_err() { self.lock().asked.take() } else { None };
                    if let Some(receipt) = asked {
                        receipt.note(sink.name(), describe_result(&result));
                    }
                    // nobody wants a test that comes when its asker is gone
                    let is_given_up = is_refused && attempts >= MAX_ATTEMPTS || receipt.is_some();
                    self.put_away(queued, result.is_ok(), is_given_up);
                    self.note_result(sink, result);
                    self.gather();
                }
            }
        }
        let is_well = self.lock().error.is_none();
        if is_well {
            let _ = attempt(|| {
                sink.finish();
                Ok(())
            });
        }
        self.note_lost(sink);
        let mut state = self.lock();
        let lost = state.queue.len();
        state.queue.lose_all();
        state.ended = true;
        self.done.notify_all();
        drop(state);
        if lost > 0 {
            warn!("sink {} has ended: {lost} events are lost", sink.name());
        }
    }

    fn note_lost(&self, sink: &mut dyn Sink) {
        let lost = sink.take_lost();
        if lost > 0 {
            self.lock().queue.add_lost(lost);
        }
    }

    /// Waits a little when all events are written. An alarm ends the wait, and so does any other task.
    fn gather(&self) {
        let mut state = self.lock();
        if state.queue.len() > 0 || state.reopen || state.stopping {
            return;
        }
        state.gathering = true;
        let (mut state, _) = self.wake.wait_timeout(state, GATHER).unwrap_or_else(PoisonError::into_inner);
        state.gathering = false;
    }

    fn next_task(&self, tick: Option<Instant>) -> Task {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.reopen {
                state.reopen = false;
                return Task::Reopen;
            }
            if let Some(receipt) = state.tests.pop() {
                return Task::TryOut(Some(receipt));
            }
            if state.trial == Trial::Due && !state.stopping {
                return Task::TryOut(None);
            }
            let wait = state.backoff.left(now);
            if state.stopping && (wait.is_some() || state.stop_by.is_some_and(|by| now >= by)) {
                return Task::End; // it had its last attempt, or it is too slow
            }
            if wait.is_none()
                && let Some(queued) = state.queue.pop()
            {
                state.in_flight = true;
                return Task::Write(queued);
            }
            if state.stopping {
                return Task::End;
            }
            if wait.is_none() && state.trial == Trial::Failed {
                return Task::TryOut(None);
            }
            if wait.is_none() && tick.is_some_and(|tick| now >= tick) {
                return Task::Tick;
            }
            let tick = tick.map(|tick| tick.saturating_duration_since(now));
            state = match wait.or(tick) {
                Some(left) => {
                    let left = left.max(Duration::from_millis(1));
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Counts an event that was written or is given up, and puts any other back.
    fn put_away(&self, queued: QueuedEvent, is_written: bool, is_given_up: bool) {
        let mut state = self.lock();
        state.in_flight = false;
        if is_written {
            state.written += 1;
        } else if is_given_up {
            state.queue.count_lost();
        } else {
            state.queue.put_back(queued);
        }
    }

    /// Whoever refuses a trial is there all the same, and may take an event.
    fn note_trial(&self, sink: &dyn Sink, result: anyhow::Result<()>) {
        let is_there = result.as_ref().err().is_none_or(|error| error.is::<PermanentError>());
        let has_events = {
            let mut state = self.lock();
            state.trial = if is_there { Trial::Passed } else { Trial::Failed };
            state.queue.len() > 0
        };
        match result {
            Err(error) if !is_there => self.note_result(sink, Err(error)),
            // a success says nothing of events that wait
            _ if has_events => {}
            _ => self.note_result(sink, Ok(())),
        }
    }

    fn note_result(&self, sink: &dyn Sink, result: anyhow::Result<()>) {
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.backoff.succeed();
                if state.error.take().is_some() {
                    info!("sink {} works again: {} events are lost", sink.name(), state.queue.lost());
                }
            }
            Err(error) => {
                state.failures += 1;
                // It may hold texts of servers, and names of files.
                let text = escape(&format!("{error:#}")).into_owned();
                if state.error.is_none() {
                    // Once, and not for every event: the status has the count.
                    warn!("sink {} fails and is retried: {text}", sink.name());
                }
                state.error = Some(text);
                state.backoff.fail(Instant::now());
            }
        }
    }
}

fn describe_result(result: &anyhow::Result<()>) -> Result<(), String> {
    result.as_ref().map(drop).map_err(|error| escape(&format!("{error:#}")).into_owned())
}

/// A panic of a sink is a failure like any other.
fn attempt(act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))
}
