//! Gives events to the sinks. Each sink has a thread and a bounded queue of its own, so the sender never
//! waits.

mod backoff;
mod queue;
#[cfg(test)]
mod tests;
mod threads;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Event, Receipt, Sink};
use crate::alarm::Change;
use threads::Threads;
pub use worker::SinkStatus;
use worker::Worker;

/// All sinks of a daemon. When it is dropped, each sink still writes its waiting events in the background.
/// [`Fanout::close`] waits for that.
pub struct Fanout {
    workers: Vec<Worker>,
    threads: Arc<Threads>,
}

impl Default for Fanout {
    fn default() -> Fanout {
        Fanout { workers: Vec::new(), threads: Threads::of_process() }
    }
}

impl Fanout {
    /// A fan-out without sinks, which ignores events.
    pub fn new() -> Fanout {
        Fanout::default()
    }

    /// Adds a sink.
    pub fn add(&mut self, sink: Box<dyn Sink>) {
        self.workers.push(Worker::start(sink, &self.threads));
    }

    /// Gives an event to every sink whose filter accepts it. A failing sink gets it later.
    pub fn send(&self, event: Event) {
        let event = Arc::new(event);
        for worker in &self.workers {
            worker.push(&event);
        }
    }

    /// Sends a test alarm through every sink, the failing ones too. One that takes no alarms is tried without it.
    /// Nobody waits here: the receipt does.
    pub fn send_test(&self, changes: Vec<Change>) -> Receipt {
        let receipt = Receipt::default();
        self.workers.iter().for_each(|worker| receipt.expect(worker.name()));
        let mut changes = changes.into_iter();
        if let Some(first) = changes.next() {
            let event = Arc::new(Event::of_test(first, receipt.clone()));
            self.workers.iter().for_each(|worker| worker.test(&event, &receipt));
        }
        changes.for_each(|change| self.send(Event::of_test(change, receipt.clone())));
        receipt
    }

    /// Opens the files of all sinks anew, as log rotation asks for. Failing sinks are retried at once.
    pub fn reopen(&self) {
        for worker in &self.workers {
            worker.reopen();
        }
    }

    /// The state of each sink.
    pub fn status(&self) -> Vec<SinkStatus> {
        self.workers.iter().map(Worker::status).collect()
    }

    /// Lets every sink write its waiting events, and end. Events of a sink that takes longer than `patience` are
    /// lost, and a warning says so.
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
