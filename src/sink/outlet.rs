//! Gives events to the sinks, and keeps what a failing one has to be offered again.

use std::collections::VecDeque;
use std::sync::Arc;

use log::{info, warn};

use super::{Event, Sink};
use crate::clock::Clock;

/// Events that are kept for a failing sink; beyond it the oldest are lost, and counted.
const MAX_PENDING: usize = 4096;
/// Between two tries at a failing sink, nanoseconds: doubled with each, up to the second.
const FIRST_DELAY_NS: u64 = 1_000_000_000;
const LAST_DELAY_NS: u64 = 60_000_000_000;

/// How a sink does, for metrics and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStatus {
    /// [`Sink::name`].
    pub name: String,
    /// Events that it took.
    pub written: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Events that it never got, because too many were waiting.
    pub lost: u64,
    /// Events that wait for its recovery.
    pub pending: usize,
    /// Why it fails; `None` if it doesn't.
    pub error: Option<String>,
}

/// All sinks of a daemon.
#[derive(Default)]
pub struct Outlet {
    slots: Vec<Slot>,
}

struct Slot {
    sink: Box<dyn Sink>,
    pending: VecDeque<Arc<Event>>,
    written: u64,
    failures: u64,
    lost: u64,
    error: Option<String>,
    delay_ns: u64,
    /// CLOCK_MONOTONIC.
    retry_ns: u64,
}

impl Outlet {
    /// Without sinks: events are dropped.
    pub fn new() -> Outlet {
        Outlet::default()
    }

    /// Adds a sink.
    pub fn add(&mut self, sink: Box<dyn Sink>) {
        self.slots.push(Slot {
            sink,
            pending: VecDeque::new(),
            written: 0,
            failures: 0,
            lost: 0,
            error: None,
            delay_ns: FIRST_DELAY_NS,
            retry_ns: 0,
        });
    }

    /// Gives an event to every sink. One that fails gets it later.
    pub fn send(&mut self, event: Event, now: Clock) {
        let event = Arc::new(event);
        for slot in &mut self.slots {
            slot.push(event.clone());
            slot.flush(now);
        }
    }

    /// Tries failing sinks again, when it is time to. To be called about once a second.
    pub fn tick(&mut self, now: Clock) {
        for slot in &mut self.slots {
            slot.flush(now);
        }
    }

    /// Opens the files of all sinks anew (log rotation), and tries failing ones at once.
    pub fn reopen(&mut self, now: Clock) {
        for slot in &mut self.slots {
            match slot.sink.reopen() {
                Ok(()) => slot.retry_ns = 0,
                Err(error) => slot.fail(&error, now),
            }
            slot.flush(now);
        }
    }

    /// How each sink does.
    pub fn status(&self) -> Vec<SinkStatus> {
        let status = |slot: &Slot| SinkStatus {
            name: slot.sink.name().to_owned(),
            written: slot.written,
            failures: slot.failures,
            lost: slot.lost,
            pending: slot.pending.len(),
            error: slot.error.clone(),
        };
        self.slots.iter().map(status).collect()
    }
}

impl Slot {
    fn push(&mut self, event: Arc<Event>) {
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
            self.lost = self.lost.saturating_add(1);
        }
        self.pending.push_back(event);
    }

    /// Writes what is pending, in order, until something fails.
    fn flush(&mut self, now: Clock) {
        if self.error.is_some() && now.mono_ns < self.retry_ns {
            return;
        }
        while let Some(event) = self.pending.front() {
            if let Err(error) = self.sink.write(event) {
                self.fail(&error, now);
                return;
            }
            self.pending.pop_front();
            self.written = self.written.saturating_add(1);
            if self.error.take().is_some() {
                info!("sink {}: works again, {} events lost", self.sink.name(), self.lost);
                self.delay_ns = FIRST_DELAY_NS;
            }
        }
    }

    fn fail(&mut self, error: &anyhow::Error, now: Clock) {
        self.failures = self.failures.saturating_add(1);
        if self.error.is_none() {
            // Once, and not with every event: the status has the count.
            warn!("sink {}: {error:#}; to be retried", self.sink.name());
        }
        self.error = Some(format!("{error:#}"));
        self.retry_ns = now.mono_ns.saturating_add(self.delay_ns);
        self.delay_ns = self.delay_ns.saturating_mul(2).min(LAST_DELAY_NS);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::drops::example::{after_ms, syn};

    /// Writes down what it gets, and fails while it is told to.
    struct Notebook {
        name: &'static str,
        page: Arc<Mutex<Page>>,
    }

    #[derive(Default)]
    struct Page {
        broken: bool,
        tries: usize,
        got: Vec<u64>,
    }

    impl Sink for Notebook {
        fn name(&self) -> &str {
            self.name
        }

        fn write(&mut self, event: &Event) -> anyhow::Result<()> {
            let mut page = self.page.lock().unwrap();
            page.tries += 1;
            anyhow::ensure!(!page.broken, "no space left");
            if let Event::Drop(drop) = event {
                page.got.push(drop.drops);
            }
            Ok(())
        }

        fn reopen(&mut self) -> anyhow::Result<()> {
            self.page.lock().unwrap().broken = false;
            Ok(())
        }
    }

    fn event(number: u64) -> Event {
        let mut drop = syn();
        drop.drops = number;
        Event::Drop(drop)
    }

    fn two_sinks() -> (Outlet, Arc<Mutex<Page>>, Arc<Mutex<Page>>) {
        let (bad, good) = (Arc::default(), Arc::default());
        let mut outlet = Outlet::new();
        for (name, page) in [("bad", &bad), ("good", &good)] {
            outlet.add(Box::new(Notebook { name, page: Arc::clone(page) }));
        }
        (outlet, bad, good)
    }

    #[test]
    fn a_failing_sink_does_not_stop_another_one() {
        let (mut outlet, bad, good) = two_sinks();
        bad.lock().unwrap().broken = true;
        for number in 0..3 {
            outlet.send(event(number), after_ms(0));
        }
        assert_eq!(good.lock().unwrap().got, [0, 1, 2]);
        let status = outlet.status();
        assert_eq!(status[0].error.as_deref(), Some("no space left"));
        assert_eq!((status[0].failures, status[0].pending, status[0].written), (1, 3, 0));
        assert_eq!((status[1].failures, status[1].pending, status[1].written), (0, 0, 3));
    }

    #[test]
    fn a_sink_that_recovers_gets_everything_in_order() {
        let (mut outlet, bad, _) = two_sinks();
        bad.lock().unwrap().broken = true;
        outlet.send(event(1), after_ms(0));
        outlet.send(event(2), after_ms(10));
        bad.lock().unwrap().broken = false;
        outlet.send(event(3), after_ms(20));
        assert!(bad.lock().unwrap().got.is_empty(), "it is not time yet");
        outlet.tick(after_ms(1_100));
        assert_eq!(bad.lock().unwrap().got, [1, 2, 3]);
        assert_eq!(outlet.status()[0].error, None);
    }

    #[test]
    fn a_broken_sink_is_tried_less_and_less_often() {
        let (mut outlet, bad, _) = two_sinks();
        bad.lock().unwrap().broken = true;
        outlet.send(event(1), after_ms(0));
        for second in 0..3600 {
            outlet.tick(after_ms(second * 1000));
        }
        let tries = bad.lock().unwrap().tries;
        assert!((60..=70).contains(&tries), "{tries}");
    }

    #[test]
    fn what_waits_for_a_broken_sink_is_bounded_and_the_loss_is_counted() {
        let (mut outlet, bad, _) = two_sinks();
        bad.lock().unwrap().broken = true;
        let sent = MAX_PENDING as u64 + 100;
        for number in 0..sent {
            outlet.send(event(number), after_ms(0));
        }
        let status = &outlet.status()[0];
        assert_eq!((status.pending, status.lost), (MAX_PENDING, 100));
        outlet.reopen(after_ms(1));
        assert_eq!(bad.lock().unwrap().got.first(), Some(&100));
        assert_eq!(outlet.status()[0].written, MAX_PENDING as u64);
    }
}
