use std::path::Path;

use super::*;
use crate::audit::{Action, Entry};

fn event(action: Action) -> Event {
    Entry::done(action).into_event("dmz0")
}

/// Takes events until there are so many.
fn take(teller: &mut AuditTeller, count: usize) -> Vec<Action> {
    let start = Instant::now();
    let mut found = Vec::new();
    while found.len() < count {
        assert!(start.elapsed() < Duration::from_secs(60), "{found:?}");
        found.extend(teller.take(start).into_iter().map(|event| event.action));
        std::thread::yield_now();
    }
    found
}

fn append(folder: &Path, action: Action) {
    Log::new(folder).append(event(action)).unwrap();
}

#[test]
fn what_was_done_without_a_daemon_is_reported_once_and_by_one_daemon_alone() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), Action::Quarantine);
    append(folder.path(), Action::Release);
    let mut teller = AuditTeller::start(Log::new(folder.path()));
    assert_eq!(take(&mut teller, 2), [Action::Quarantine, Action::Release]);
    append(folder.path(), Action::Apply);
    assert_eq!(take(&mut teller, 1), [Action::Apply]);
    teller.finish(Duration::from_secs(60));
    let mut next = AuditTeller::start(Log::new(folder.path()));
    append(folder.path(), Action::Detach);
    assert_eq!(take(&mut next, 1), [Action::Detach]);
}

#[test]
fn a_daemon_that_was_killed_before_it_noted_what_it_reported_tells_it_again() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), Action::Quarantine);
    let mut killed = AuditTeller::start(Log::new(folder.path()));
    assert_eq!(take(&mut killed, 1), [Action::Quarantine]);
    assert!(killed.has_news());
    drop(killed);
    let mut next = AuditTeller::start(Log::new(folder.path()));
    assert_eq!(take(&mut next, 1), [Action::Quarantine]);
}

#[test]
fn an_event_of_the_daemon_is_kept_first_and_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut teller = AuditTeller::start(Log::new(folder.path()));
    teller.note(event(Action::DaemonStart), Instant::now());
    assert_eq!(take(&mut teller, 1), [Action::DaemonStart]);
    teller.note(event(Action::DaemonStop), Instant::now());
    let left = teller.drain(Duration::from_secs(60));
    assert_eq!(
        left.iter().map(|event| (event.seq, event.action)).collect::<Vec<_>>(),
        [(2, Action::DaemonStop)]
    );
    assert!(teller.pending.is_empty());
    teller.finish(Duration::from_secs(60));
    assert_eq!(Log::new(folder.path()).read_reported(), 2);
}

#[test]
fn an_event_that_no_disk_takes_is_reported_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no-folder");
    std::fs::write(&file, "").unwrap();
    let mut teller = AuditTeller::start(Log::new(&file));
    teller.note(event(Action::DaemonStart), Instant::now());
    assert_eq!(take(&mut teller, 1), [Action::DaemonStart]);
    assert!(!teller.has_news());
}

#[test]
fn a_disk_that_hangs_holds_up_no_event_and_the_event_is_not_reported_again_when_it_goes_on() {
    let (orders, _waiting) = sync_channel(MOST_NOTES);
    let (sender, found) = sync_channel(MOST_WAITING);
    let mut teller =
        AuditTeller { orders: Some(orders), found, ..AuditTeller::start(Log::new(Path::new("/proc/no"))) };
    let now = Instant::now();
    let own = event(Action::ModeChange);
    teller.note(own.clone(), now);
    assert!(teller.take(now + PATIENCE / 2).is_empty());
    assert_eq!(teller.take(now + PATIENCE), std::slice::from_ref(&own));
    sender.send(Found::Event(Box::new(Event { seq: 7, ..own }))).unwrap();
    assert!(teller.take(now + PATIENCE).is_empty());
    assert_eq!(teller.reported, 7);
}
