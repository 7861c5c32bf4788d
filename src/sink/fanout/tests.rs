//! Sinks that work, fail, hang, refuse and panic, beside each other.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard};

use super::queue::MAX_DROPS;
use super::*;
use crate::drops::example::syn;
use crate::sink::{EventFilter, Matter, PermanentError};

/// Far more than anything in here needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Notes the events it gets, and behaves as its page says.
struct Notebook {
    name: &'static str,
    page: Arc<Mutex<Page>>,
}

#[derive(Default)]
struct Page {
    broken: bool,
    /// Until something is sent, or the other end is gone.
    hangs: Option<Receiver<()>>,
    refuses: Option<u64>,
    panics: bool,
    attempts: usize,
    got: Vec<u64>,
}

fn open(page: &Mutex<Page>) -> MutexGuard<'_, Page> {
    page.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Sink for Notebook {
    fn name(&self) -> &str {
        self.name
    }

    fn filter(&self) -> EventFilter {
        EventFilter::Everything
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        let Matter::Drop(drop) = &event.matter else { return Ok(()) };
        let hangs = open(&self.page).hangs.take();
        if let Some(hangs) = hangs {
            let _ = hangs.recv();
        }
        let mut page = open(&self.page);
        page.attempts += 1;
        anyhow::ensure!(!page.broken, "no space left");
        assert!(!page.panics, "a bug");
        if page.refuses == Some(drop.drops) {
            return Err(PermanentError("not this one".to_owned()).into());
        }
        page.got.push(drop.drops);
        Ok(())
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        open(&self.page).broken = false;
        Ok(())
    }
}

fn event(number: u64) -> Event {
    let mut drop = syn();
    drop.drops = number;
    Event::of_drop(drop)
}

fn two_sinks() -> (Fanout, Arc<Mutex<Page>>, Arc<Mutex<Page>>) {
    let (bad, good) = (Arc::default(), Arc::default());
    let mut fanout = Fanout::new();
    for (name, page) in [("bad", &bad), ("good", &good)] {
        fanout.add(Box::new(Notebook { name, page: Arc::clone(page) }));
    }
    (fanout, bad, good)
}

fn hang(page: &Mutex<Page>) -> Sender<()> {
    let (sender, receiver) = channel();
    open(page).hangs = Some(receiver);
    sender
}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_failing_sink_does_not_stop_another_one() {
    let (fanout, bad, good) = two_sinks();
    open(&bad).broken = true;
    (0..3).for_each(|number| fanout.send(event(number)));
    eventually("the good one has all", || open(&good).got == [0, 1, 2]);
    eventually("the bad one has failed", || fanout.status()[0].failures >= 1);
    let status = fanout.status();
    assert_eq!(status[0].error.as_deref(), Some("no space left"));
    assert_eq!((status[0].pending, status[0].written), (3, 0));
    eventually("the good one is done", || fanout.status()[1].written == 3);
    assert_eq!((fanout.status()[1].failures, fanout.status()[1].pending), (0, 0));
}

#[test]
fn a_sink_that_recovers_gets_everything_in_order() {
    let (fanout, bad, _) = two_sinks();
    open(&bad).broken = true;
    fanout.send(event(1));
    fanout.send(event(2));
    eventually("it has failed", || fanout.status()[0].failures >= 1);
    open(&bad).broken = false;
    fanout.send(event(3));
    eventually("it has all", || open(&bad).got == [1, 2, 3]);
    eventually("its status is well again", || fanout.status()[0].error.is_none());
    assert_eq!(fanout.status()[0].lost, 0);
}

#[test]
fn a_reopen_retries_a_failing_sink_at_once() {
    let (fanout, bad, _) = two_sinks();
    open(&bad).broken = true;
    fanout.send(event(1));
    eventually("it has failed", || fanout.status()[0].failures >= 1);
    fanout.reopen();
    eventually("it has it", || open(&bad).got == [1]);
}

#[test]
fn a_hanging_sink_holds_up_neither_the_sender_nor_another_sink() {
    let (fanout, bad, good) = two_sinks();
    let release = hang(&bad);
    let sent = MAX_DROPS as u64 + 101;
    for number in 0..sent {
        fanout.send(event(number));
        // the good one is given the time to write, so that nothing is lost there
        if number % 1000 == 999 {
            eventually("the good one follows", || fanout.status()[1].pending < 500);
        }
    }
    eventually("the good one has all", || open(&good).got.len() as u64 == sent);
    let status = &fanout.status()[0];
    assert_eq!((status.written, status.pending, status.lost), (0, MAX_DROPS + 1, 100));
    drop(release);
    eventually("the bad one has the rest", || open(&bad).got.len() == MAX_DROPS + 1);
    let got = open(&bad).got.clone();
    assert_eq!(got[..2], [0, 101], "the one that hung, and the oldest that was left");
}

#[test]
fn an_event_that_is_refused_three_times_is_left_out_and_counted() {
    let (fanout, bad, _) = two_sinks();
    open(&bad).refuses = Some(1);
    (1..4).for_each(|number| fanout.send(event(number)));
    eventually("the others are there", || open(&bad).got == [2, 3]);
    assert_eq!(open(&bad).attempts, 5);
    eventually("all is counted", || fanout.status()[0].written == 2);
    let status = &fanout.status()[0];
    assert_eq!((status.failures, status.lost, status.pending), (3, 1, 0));
}

#[test]
fn a_panic_is_a_failure_that_is_retried() {
    let (fanout, bad, _) = two_sinks();
    open(&bad).panics = true;
    fanout.send(event(1));
    eventually("it has failed", || fanout.status()[0].failures >= 1);
    assert_eq!(fanout.status()[0].error.as_deref(), Some("it panicked"));
    open(&bad).panics = false;
    eventually("it has it", || open(&bad).got == [1]);
}

#[test]
fn quiet_drops_reach_no_sink() {
    let (fanout, _, good) = two_sinks();
    let mut quiet = syn();
    quiet.quiet = true;
    fanout.send(Event::of_drop(quiet));
    fanout.send(event(7));
    eventually("the other one is there", || open(&good).got == [7]);
    assert_eq!(fanout.status()[1].written, 1);
}

#[test]
fn closing_writes_waiting_events_and_does_not_wait_for_a_sink_that_hangs() {
    let (fanout, bad, good) = two_sinks();
    let release = hang(&bad);
    (0..1000).for_each(|number| fanout.send(event(number)));
    let began = Instant::now();
    fanout.close(Duration::from_millis(500));
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(open(&good).got.len(), 1000);
    assert!(open(&bad).got.is_empty());
    drop(release);
}

#[test]
fn a_failing_sink_has_one_last_attempt_when_the_daemon_ends() {
    let (fanout, bad, _) = two_sinks();
    open(&bad).broken = true;
    fanout.send(event(1));
    eventually("it has failed", || fanout.status()[0].failures >= 1);
    open(&bad).broken = false;
    fanout.close(PATIENCE);
    assert_eq!(open(&bad).got, [1]);
}

#[test]
fn reloads_while_a_sink_hangs_leave_no_more_threads_than_there_may_be() {
    let threads = Arc::new(Threads::new(3));
    let mut releases = Vec::new();
    let mut pages = Vec::new();
    let reload = |releases: &mut Vec<Sender<()>>, pages: &mut Vec<Arc<Mutex<Page>>>| {
        let page: Arc<Mutex<Page>> = Arc::default();
        releases.push(hang(&page));
        let mut fanout = Fanout { workers: Vec::new(), threads: Arc::clone(&threads) };
        fanout.add(Box::new(Notebook { name: "hangs", page: Arc::clone(&page) }));
        fanout.send(event(1));
        pages.push(page);
        fanout
    };
    for _ in 0..3 {
        let fanout = reload(&mut releases, &mut pages);
        eventually("it hangs", || open(pages.last().unwrap()).hangs.is_none());
        drop(fanout);
    }
    for _ in 0..30 {
        let status = reload(&mut releases, &mut pages).status();
        assert_eq!(status[0].error.as_deref(), Some("too many sinks of earlier policies hang"));
        assert_eq!((status[0].pending, status[0].failures), (1, 1));
    }
    let last = reload(&mut releases, &mut pages);
    releases.clear();
    eventually("the last one works when the first ones have ended", || last.status()[0].written == 1);
    assert_eq!(last.status()[0].error, None);
}
