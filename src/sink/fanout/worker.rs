//! The thread of one sink.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{info, warn};

use super::SinkStatus;
use super::backoff::Backoff;
use super::queue::{Queue, QueuedEvent};
use crate::sink::{Event, EventFilter, PermanentError, Sink, escape};

/// Tries at an event that the other side refuses.
const TRIES: u32 = 3;

/// How long drops are left to gather behind those that were written: of hundreds a second each
/// would wake the thread for itself.
const GATHER: Duration = Duration::from_millis(3);

/// How long what was broken off may take to end.
const BRAKING: Duration = Duration::from_secs(1);

/// A sink in its thread, as the others see it.
pub(super) struct Worker {
    name: String,
    filter: EventFilter,
    cancel_flag: Option<Arc<AtomicBool>>,
    shared: Arc<Shared>,
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
    /// One is being written.
    in_flight: bool,
    /// Drops are left to gather: nobody has to be woken for one more.
    gathering: bool,
    written: u64,
    failures: u64,
    error: Option<String>,
    backoff: Backoff,
    reopen: bool,
    stopping: bool,
    ended: bool,
}

enum Task {
    Write(QueuedEvent),
    Reopen,
    Tick,
    End,
}

impl Worker {
    pub fn start(mut sink: Box<dyn Sink>) -> Worker {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { state, wake: Condvar::new(), done: Condvar::new() });
        let (name, filter, cancel_flag) = (sink.name().to_owned(), sink.filter(), sink.cancel_flag());
        let work = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("sink".to_owned());
        let started = thread.spawn(move || work.run(&mut *sink));
        if let Err(error) = started {
            warn!("sink {name}: no thread for it: {error}");
            let mut state = shared.lock();
            state.error = Some(format!("no thread for it: {error}"));
            state.ended = true;
        }
        Worker { name, filter, cancel_flag, shared }
    }

    /// Never waits for the sink.
    pub fn push(&self, event: &Arc<Event>) {
        if self.filter.wants(event) {
            let mut state = self.shared.lock();
            state.queue.push(Arc::clone(event));
            if !state.gathering || matches!(**event, Event::Alarm(_)) {
                self.shared.wake.notify_one();
            }
        }
    }

    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Asks it to write what it can, once more, and to end.
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.backoff.hurry();
        self.shared.wake.notify_one();
    }

    /// Waits for its end, and pulls its cancel_flag if that takes too long.
    pub fn await_end(&self, deadline: Instant) {
        if self.ends_by(deadline) {
            return;
        }
        let pending = {
            let mut state = self.shared.lock();
            let pending = state.pending();
            state.queue.lose_all();
            pending
        };
        warn!("sink {}: did not end in time, {pending} events lost", self.name);
        if let Some(cancel_flag) = &self.cancel_flag {
            cancel_flag.store(true, Ordering::Relaxed);
            self.ends_by(Instant::now() + BRAKING);
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

    pub fn status(&self) -> SinkStatus {
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
        let mut tried: Option<(u64, u32)> = None;
        let mut beaten = Instant::now();
        loop {
            match self.next_task(sink.tick_interval().map(|interval| beaten + interval)) {
                Task::End => break,
                Task::Tick => {
                    beaten = Instant::now();
                    let result = attempt(|| sink.tick());
                    self.finish(sink, result);
                }
                Task::Reopen => {
                    // A success tells nothing of what waits: it is tried at once.
                    if let Err(error) = attempt(|| sink.reopen()) {
                        self.finish(sink, Err(error));
                    }
                    self.lock().backoff.hurry();
                }
                Task::Write(ticket) => {
                    let result = attempt(|| sink.write(&ticket.1));
                    let refused = result.as_ref().is_err_and(|error| error.is::<PermanentError>());
                    let tries = match tried {
                        Some((number, tries)) if number == ticket.0 => tries + 1,
                        _ => 1,
                    };
                    tried = refused.then_some((ticket.0, tries));
                    self.settle(ticket, result.is_ok(), refused && tries >= TRIES);
                    self.finish(sink, result);
                    self.gather();
                }
            }
        }
        let mut state = self.lock();
        state.queue.lose_all();
        state.ended = true;
        self.done.notify_all();
    }

    /// Waits a little when all is written. An alarm ends that, and whatever else presses.
    fn gather(&self) {
        let mut state = self.lock();
        if state.queue.len() > 0 || state.reopen || state.stopping {
            return;
        }
        state.gathering = true;
        let (mut state, _) = self.wake.wait_timeout(state, GATHER).unwrap_or_else(PoisonError::into_inner);
        state.gathering = false;
    }

    fn next_task(&self, beat: Option<Instant>) -> Task {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.reopen {
                state.reopen = false;
                return Task::Reopen;
            }
            let wait = state.backoff.left(now);
            if state.stopping && wait.is_some() {
                return Task::End; // it had its last chance
            }
            if wait.is_none()
                && let Some(ticket) = state.queue.pop()
            {
                state.in_flight = true;
                return Task::Write(ticket);
            }
            if state.stopping {
                return Task::End;
            }
            if wait.is_none() && beat.is_some_and(|beat| now >= beat) {
                return Task::Tick;
            }
            let beat = beat.map(|beat| beat.saturating_duration_since(now));
            state = match wait.or(beat) {
                Some(left) => {
                    let left = left.max(Duration::from_millis(1));
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// What becomes of an event that was tried.
    fn settle(&self, ticket: QueuedEvent, is_written: bool, is_given_up: bool) {
        let mut state = self.lock();
        state.in_flight = false;
        if is_written {
            state.written += 1;
        } else if is_given_up {
            state.queue.lose();
        } else {
            state.queue.put_back(ticket);
        }
    }

    fn finish(&self, sink: &dyn Sink, result: anyhow::Result<()>) {
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.backoff.succeed();
                if state.error.take().is_some() {
                    info!("sink {}: works again, {} events lost", sink.name(), state.queue.lost());
                }
            }
            Err(error) => {
                state.failures += 1;
                // Servers and names of files have their say in it.
                let text = escape(&format!("{error:#}")).into_owned();
                if state.error.is_none() {
                    // Once, and not with every event: the status has the count.
                    warn!("sink {}: {text}; to be retried", sink.name());
                }
                state.error = Some(text);
                state.backoff.fail(Instant::now());
            }
        }
    }
}

/// A sink that panics has failed, no more.
fn attempt(act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))
}
