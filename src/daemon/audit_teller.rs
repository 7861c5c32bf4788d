//! Tells audit events: reads them from the file in which commands and the daemon keep them, and notes which ones
//! were reported. A thread does both, for the disk may hang.
//!
//! An event counts as reported once every sink that works has written it. A daemon that is killed before it has noted
//! that leaves the event to the next one: it is reported twice then, never lost.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use log::warn;

use crate::audit::{Event, Log, Look};
use crate::stderr::notice;

/// Between two looks at the file.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the disk may take to keep an event of the daemon's own. Then it is reported without being kept.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events that wait to be reported.
const MOST_WAITING: usize = 1024;
/// Own events that wait to be kept.
const MOST_NOTES: usize = 64;

/// What the thread is asked to do.
enum Order {
    /// Keep an event.
    Note(Box<Event>),
    /// Every event up to this number was reported.
    Reported(u64),
}

/// What the thread has found.
enum Found {
    /// An event in the file that this daemon has not reported.
    Event(Box<Event>),
    /// An event that could not be kept, and why.
    Unkept(Box<Event>, String),
    /// The file is damaged, in words.
    Damage(String),
}

/// Keeps and tells events.
pub(super) struct AuditTeller {
    /// `None`: there is no thread, or it has been asked to end.
    orders: Option<SyncSender<Order>>,
    found: Receiver<Found>,
    /// Own events that the thread has not kept yet, and since when.
    pending: VecDeque<(Event, Instant)>,
    /// Own events that were reported although they may still be kept.
    given_up: Vec<Event>,
    /// Events to tell that are in no file.
    unkept: Vec<Event>,
    /// The number of the last event that was reported, and of the last one that was noted as reported.
    reported: u64,
    noted: u64,
}

impl AuditTeller {
    /// Of the events of a gate. Those that no daemon has reported come first.
    pub(super) fn start(log: Log) -> AuditTeller {
        let (orders, receiver) = sync_channel(MOST_NOTES);
        let (sender, found) = sync_channel(MOST_WAITING);
        let worker =
            Worker { log, sent: None, last: Look::default(), damaged: 0, failed: false, found: sender };
        let started =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || worker.work(&receiver));
        let orders = match started {
            Ok(_) => Some(orders),
            Err(error) => {
                warn!("audit events are reported, but not kept: {error}");
                None
            }
        };
        let (pending, given_up, unkept) = (VecDeque::new(), Vec::new(), Vec::new());
        AuditTeller { orders, found, pending, given_up, unkept, reported: 0, noted: 0 }
    }

    /// Has an event of the daemon's own kept, and reported then.
    pub(super) fn note(&mut self, event: Event, now: Instant) {
        let order = Order::Note(Box::new(event.clone()));
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(())) => self.pending.push_back((event, now)),
            Some(Err(_)) | None => self.unkept.push(event),
        }
    }

    /// Has an event reported that could not be kept.
    pub(super) fn tell_unkept(&mut self, event: Event) {
        self.unkept.push(event);
    }

    /// The events to tell.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(found) = self.found.try_recv() {
            events.extend(self.sort_in(found));
        }
        events.append(&mut self.unkept);
        while self.pending.front().is_some_and(|(_, since)| now.duration_since(*since) >= PATIENCE) {
            if let Some((event, _)) = self.pending.pop_front() {
                notice!(
                    "portcullis: warning: an audit event ({}) is not kept: its disk does not answer",
                    event.action
                );
                if self.given_up.len() < MOST_WAITING {
                    self.given_up.push(event.clone());
                }
                events.push(event);
            }
        }
        events
    }

    fn sort_in(&mut self, found: Found) -> Option<Event> {
        match found {
            Found::Event(event) => {
                self.pending.retain(|(own, _)| !is_same(own, &event));
                self.reported = self.reported.max(event.seq);
                let known = self.given_up.iter().position(|own| is_same(own, &event));
                match known {
                    Some(known) => {
                        self.given_up.swap_remove(known);
                        None
                    }
                    None => Some(*event),
                }
            }
            Found::Unkept(event, why) => {
                self.pending.retain(|(own, _)| !is_same(own, &event));
                notice!("portcullis: warning: an audit event ({}) is not kept: {why}", event.action);
                Some(*event)
            }
            Found::Damage(text) => {
                notice!("portcullis: warning: {text}");
                None
            }
        }
    }

    /// Whether events were reported that the file does not say of yet.
    pub(super) fn has_news(&self) -> bool {
        self.reported > self.noted
    }

    /// Notes that every event that was taken is reported.
    pub(super) fn note_reported(&mut self) {
        if self.has_news()
            && self
                .orders
                .as_ref()
                .is_some_and(|orders| orders.try_send(Order::Reported(self.reported)).is_ok())
        {
            self.noted = self.reported;
        }
    }

    /// Waits for own events to be kept, and returns everything that is left to tell.
    pub(super) fn drain(&mut self, patience: Duration) -> Vec<Event> {
        let deadline = Instant::now() + patience;
        let mut events = self.take(Instant::now());
        while !self.pending.is_empty() {
            match self.found.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(found) => events.extend(self.sort_in(found)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        events.extend(self.pending.drain(..).map(|(event, _)| event));
        events
    }

    /// Has the last note written, and ends the thread. A disk that hangs is left alone.
    pub(super) fn finish(&mut self, patience: Duration) {
        self.note_reported();
        self.orders = None;
        let deadline = Instant::now() + patience;
        // what comes now is left to the next daemon
        while self.found.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

/// The thread that has the disk.
struct Worker {
    log: Log,
    /// The number of the last event that was found. `None`: it was not asked yet what is reported.
    sent: Option<u64>,
    last: Look,
    damaged: usize,
    /// The last attempt to note what is reported failed.
    failed: bool,
    found: SyncSender<Found>,
}

impl Worker {
    /// Works until nobody asks any more.
    fn work(mut self, orders: &Receiver<Order>) {
        loop {
            if self.look().is_none() {
                return;
            }
            match orders.recv_timeout(PAUSE) {
                Ok(Order::Note(event)) => {
                    if let Err(error) = self.log.append((*event).clone())
                        && self.found.send(Found::Unkept(event, error.to_string())).is_err()
                    {
                        return;
                    }
                }
                Ok(Order::Reported(seq)) => self.note_reported(seq),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn note_reported(&mut self, seq: u64) {
        let noted = self.log.note_reported(seq);
        if let (Err(error), false) = (&noted, self.failed) {
            warn!(
                "the next daemon tells audit events again, for it can't be noted that they were reported: {error}"
            );
        }
        self.failed = noted.is_err();
    }

    /// Finds the events that are new. `None`: nobody wants them any more.
    fn look(&mut self) -> Option<()> {
        let sent = *self.sent.get_or_insert_with(|| self.log.read_reported());
        let now = self.log.look();
        if now == self.last {
            return Some(());
        }
        let reading = match self.log.read() {
            Ok(reading) => reading,
            Err(error) => {
                self.last = now;
                let text = format!("{} can't be read: {error}", self.log.path().display());
                return self.found.send(Found::Damage(text)).ok();
            }
        };
        self.last = now;
        if reading.damaged > self.damaged {
            let text = format!(
                "{} of the lines in {} are damaged, and their audit events are lost",
                reading.damaged,
                self.log.path().display()
            );
            self.found.send(Found::Damage(text)).ok()?;
        }
        self.damaged = reading.damaged;
        for event in reading.events.into_iter().filter(|event| event.seq > sent) {
            self.sent = Some(event.seq);
            self.found.send(Found::Event(Box::new(event))).ok()?;
        }
        Some(())
    }
}

/// Whether an event of the file is this one, which had no number yet.
fn is_same(own: &Event, kept: &Event) -> bool {
    (own.time, own.action, own.who.pid) == (kept.time, kept.action, kept.who.pid)
}
