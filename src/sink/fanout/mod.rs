//! Gives events to the sinks. Each has a thread and a bounded queue of its own, so whoever
//! sends never waits.

mod backoff;
mod queue;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Event, Sink};
use worker::Worker;

/// How a sink does, for metrics and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStatus {
    /// [`Sink::name`].
    pub name: String,
    /// Events that it took.
    pub written: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Events that it never got: too many were waiting, or it refused them.
    pub lost: u64,
    /// Events that wait for it.
    pub pending: usize,
    /// Why it fails; `None` if it doesn't.
    pub error: Option<String>,
}

/// All sinks of a daemon. When it goes, each sink still writes what waits for it, in the
/// background; [`Fanout::close`] waits for that.
#[derive(Default)]
pub struct Fanout {
    workers: Vec<Worker>,
}

impl Fanout {
    /// Without sinks: events are dropped.
    pub fn new() -> Fanout {
        Fanout::default()
    }

    /// Adds a sink.
    pub fn add(&mut self, sink: Box<dyn Sink>) {
        self.workers.push(Worker::start(sink));
    }

    /// Gives an event to every sink that wants it. One that fails gets it later.
    pub fn send(&self, event: Event) {
        let event = Arc::new(event);
        for worker in &self.workers {
            worker.push(&event);
        }
    }

    /// Opens the files of all sinks anew (log rotation), and tries failing ones at once.
    pub fn reopen(&self) {
        for worker in &self.workers {
            worker.reopen();
        }
    }

    /// How each sink does.
    pub fn status(&self) -> Vec<SinkStatus> {
        self.workers.iter().map(Worker::status).collect()
    }

    /// Has every sink write what waits for it, and end. What takes longer is lost, and said to be.
    pub fn close(self, patience: Duration) {
        for worker in &self.workers {
            worker.stop();
        }
        let deadline = Instant::now() + patience;
        for worker in &self.workers {
            worker.await_end(deadline);
        }
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.stop();
        }
    }
}
