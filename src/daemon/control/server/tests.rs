//! Clients that ask, follow, are slow or gone.

use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::super::followers::MOST_WAITING;
use super::*;
use crate::alarm::Engine;
use crate::drops::example::{after_ms, syn};

/// A server at a path of its own, and its folder.
fn server() -> (ControlServer, Arc<Snapshot>, Arc<Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Arc::new(Snapshot::default());
    let server = ControlServer::listen(&folder.path().join("test.sock"), Arc::clone(&snapshot)).unwrap();
    let store = Arc::new(Store::new(folder.path()));
    (server, snapshot, store, folder)
}

fn connect(server: &ControlServer, line: &str) -> UnixStream {
    let mut client = UnixStream::connect(&server.path).unwrap();
    client.write_all(line.as_bytes()).unwrap();
    client
}

#[test]
fn a_client_that_never_reads_is_dropped_and_the_daemon_never_waits_for_it() {
    let (server, snapshot, store, _folder) = server();
    let _client = connect(&server, &Request::Follow(AlarmFilter::default()).to_line().unwrap());
    let mut engine = Engine::default();
    let change = engine.observe(&syn(), after_ms(0)).remove(0);
    while server.followers.is_empty() {
        server.answer_clients(|| engine.open_alarms(), &store);
        std::thread::yield_now();
    }
    // far more than the kernel and the queue hold
    for _ in 0..20 * MOST_WAITING {
        server.followers.send(&change);
    }
    assert!(server.followers.is_empty());
    assert!(snapshot.clients_disconnected.load(Ordering::SeqCst) >= 1);
}

#[test]
fn a_client_whose_thread_panics_gives_its_slot_back() {
    let clients = Arc::new(AtomicUsize::new(1));
    let slot = Slot(Arc::clone(&clients));
    let thread = std::thread::Builder::new().spawn(move || {
        let _slot = slot;
        panic!("on purpose");
    });
    assert!(thread.unwrap().join().is_err());
    assert_eq!(clients.load(Ordering::SeqCst), 0);
}

#[test]
fn a_client_of_another_version_reads_which_one_the_daemon_speaks() {
    let (server, _, store, _folder) = server();
    let mut client = connect(&server, "{\"version\":99,\"want\":\"open\"}\n");
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    server.answer_clients(Vec::new, &store);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let failure: Failure = serde_json::from_str(&answer).unwrap();
    assert!(failure.error.starts_with("this daemon speaks version 2 of"), "{answer}");
    assert!(failure.error.contains("the request has version 99"), "{answer}");
}
#[test]
fn followers_that_have_gone_give_their_slots_back_while_alarms_keep_moving() {
    let (server, _, store, _folder) = server();
    let mut engine = Engine::default();
    let change = engine.observe(&syn(), after_ms(0)).remove(0);
    // a kind that does not come
    let filter = AlarmFilter { servers: vec!["nobody".to_owned()], ..AlarmFilter::default() };
    let request = Request::Follow(filter).to_line().unwrap();
    let followed = || server.following.taken.load(Ordering::SeqCst);
    for _ in 0..3 {
        let clients: Vec<_> = (0..MOST_FOLLOWERS).map(|_| connect(&server, &request)).collect();
        while followed() < MOST_FOLLOWERS {
            server.answer_clients(|| engine.open_alarms(), &store);
            server.followers.send(&change);
            std::thread::yield_now();
        }
        // those who only ask have slots of their own
        let mut asker = connect(&server, &Request::Open.to_line().unwrap());
        server.answer_clients(|| engine.open_alarms(), &store);
        let mut answer = String::new();
        asker.read_to_string(&mut answer).unwrap();
        assert!(!answer.contains("too many"), "{answer}");
        drop(clients);
        // Faster than the server looks when there is no news.
        let begun = Instant::now();
        while followed() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} slots are kept", followed());
            server.followers.send(&change);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_client_beyond_the_slots_reads_that_there_are_too_many() {
    let (server, _, store, _folder) = server();
    // they never ask
    let _silent: Vec<_> = (0..MOST_CLIENTS).map(|_| connect(&server, "")).collect();
    server.answer_clients(Vec::new, &store);
    let mut one_more = connect(&server, &Request::Open.to_line().unwrap());
    server.answer_clients(Vec::new, &store);
    let mut answer = String::new();
    // the end may be a reset, because nobody has read the request
    let _ = one_more.read_to_string(&mut answer);
    assert!(answer.contains("too many clients: 16 ask already"), "{answer}");
}

#[test]
fn a_client_that_asks_byte_by_byte_does_not_get_more_time() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sender = std::thread::spawn(move || {
        while theirs.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let mut asking = Deadline::new(&ours, Duration::from_millis(50));
    let error = asking.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
    drop(ours);
    sender.join().unwrap();
}

#[test]
fn a_client_that_reads_byte_by_byte_does_not_get_more_time() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_over);
    let reader = std::thread::spawn(move || {
        while !asked.load(Ordering::SeqCst) && theirs.read(&mut [0]).is_ok_and(|length| length > 0) {
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    // more than the kernel holds, and than is read in the time
    let mut answer = Deadline::new(&ours, Duration::from_millis(50));
    let error = answer.write_all(&vec![0; 16 << 20]).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
    is_over.store(true, Ordering::SeqCst);
    reader.join().unwrap();
}

#[test]
fn a_follower_that_reads_nothing_is_ended_though_nothing_more_is_sent_to_it() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.write_all(&GREETING).unwrap();
    let (sender, changes) = std::sync::mpsc::sync_channel::<Arc<str>>(1);
    let (filter, patience) = (AlarmFilter::default(), Duration::from_millis(200));
    let error = forward_changes(&ours, &changes, &filter, patience).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    // what it reads counts at once
    assert!(count_unread(ours.as_fd()).unwrap() > 0);
    theirs.read_exact(&mut [0]).unwrap();
    assert_eq!(count_unread(ours.as_fd()).unwrap(), 0);
    let ending = std::thread::spawn(move || {
        std::thread::sleep(4 * patience);
        drop(sender);
    });
    forward_changes(&ours, &changes, &filter, patience).expect("whoever has read all may wait for ever");
    ending.join().unwrap();
}

#[test]
fn a_follower_that_reads_slowly_has_time_as_long_as_it_goes_on() {
    let (begun, patience) = (Instant::now(), Duration::from_secs(60));
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    let mut attention = Attention::new(500, begun);
    assert!(attention.lasts(500, at(59), patience) && !attention.lasts(500, at(60), patience));
    let mut attention = Attention::new(500, begun);
    for (number, unread) in (1..=9).zip((1..=9).rev()) {
        assert!(attention.lasts(unread * 50, at(number * 50), patience), "it reads on");
    }
    // more that is sent to it is no sign of it
    assert!(attention.lasts(900, at(500), patience) && !attention.lasts(1_000, at(510), patience));
    assert!(attention.lasts(0, at(700), patience) && attention.lasts(10, at(759), patience));
}

#[test]
fn forty_followers_that_read_nothing_keep_nobody_from_asking_and_their_slots_come_back() {
    let (mut server, snapshot, store, _folder) = server();
    server.follower_patience = Duration::from_secs(1);
    let engine = Engine::default();
    let request = Request::Follow(AlarmFilter::default()).to_line().unwrap();
    let ask = |line: &str| {
        let mut asker = connect(&server, line);
        asker.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        server.answer_clients(|| engine.open_alarms(), &store);
        let mut answer = String::new();
        // the end may be a reset
        let _ = asker.read_to_string(&mut answer);
        answer
    };
    let following = |server: &ControlServer| server.following.taken.load(Ordering::SeqCst);
    let begun = Instant::now();
    let mut silent = Vec::new();
    while silent.len() < 40 {
        // fewer than there are slots for who asks: each gives its own back once it follows
        silent.extend((0..10).map(|_| connect(&server, &request)));
        while ask(&Request::Open.to_line().unwrap()).contains("too many") {
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody may ask");
            std::thread::yield_now();
        }
    }
    while following(&server) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(120), "{} slots are kept", following(&server));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(snapshot.clients_disconnected.load(Ordering::SeqCst) > 0);
    let mut next = connect(&server, &request);
    server.answer_clients(|| engine.open_alarms(), &store);
    next.read_exact(&mut [0]).unwrap();
    while following(&server) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(180), "nobody may follow");
        std::thread::yield_now();
    }
    drop(silent);
}
