//! The gate is attached to a router that is at work.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::policy::policy;
use super::service::ENOUGH;
use super::site::{LONG_PICKUP_S, Site, Stop};
use super::website::{Website, every_way};
use crate::e2e::socket::{ARRIVES, connect, udp};
use crate::e2e::testbed::{FAMILIES, Family, Testbed, ip};
use crate::support::patience::eventually;

const BYTES: usize = 8 << 20;

/// One request and its answer on a connection that stays.
fn asks(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    stream.write_all(b"HEAD /large HTTP/1.1\r\nHost: www.dmz.example\r\n\r\n").is_ok()
        && stream.read(&mut bytes).is_ok_and(|length| bytes[..length].starts_with(b"HTTP/1.1 200"))
}

#[test]
fn transfers_and_idle_connections_outlive_the_pickup() {
    let mut site = Site::without_gate();
    let web = Website::start(&site.testbed, BYTES);
    let testbed = Arc::clone(&site.testbed);
    let mut idle = FAMILIES.map(|family| {
        let to = SocketAddr::new(ip(family.web), 80);
        connect(&testbed.internet, ip(family.peer), to, ARRIVES).expect("a connection")
    });
    assert!(idle.iter_mut().all(asks));
    std::thread::scope(|scope| {
        let transfers: Vec<_> = every_way()
            .map(|(family, protocol)| {
                let (web, testbed) = (&web, &testbed);
                scope.spawn(move || web.download_slowly(testbed, &family, protocol, ENOUGH, "2M"))
            })
            .collect();
        eventually("transfers are under way", || web.count_scratch() >= 4);
        site.start_daemon_with(LONG_PICKUP_S);
        assert!(idle.iter_mut().all(asks), "within the pickup");
        site.outlast_pickup();
        assert!(transfers.into_iter().all(|transfer| transfer.join().expect("a transfer")));
    });
    assert!(idle.iter_mut().all(asks), "after the pickup");
    drop(idle);
    site.assert_quiet();
}

/// How long the name server has to ask around for an answer.
const RECURSION: Duration = Duration::from_millis(300);
/// The tracker listens for a second before the filter judges. What is answered later than that is lost, as
/// `docs/policy.md` says of datagrams, so no answer may take longer.
const TOO_LATE: Duration = Duration::from_millis(900);
/// On a busy machine the name server's thread may stand still for longer.
const ATTEMPTS: u32 = 10;

/// Answers each question after a while, in its turn. Returns how long the slowest answer took.
fn answer_slowly(socket: &UdpSocket, stop: &AtomicBool) -> Duration {
    let mut waiting = VecDeque::new();
    let mut bytes = [0; 16];
    let mut slowest = Duration::ZERO;
    // a thread that stood still has not seen the questions of that time
    let mut looked = Instant::now();
    socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut bytes) {
            waiting.push_back((looked, peer));
        }
        while waiting.front().is_some_and(|(since, _)| since.elapsed() >= RECURSION) {
            let Some((since, peer)) = waiting.pop_front() else { break };
            socket.send_to(b"answer", peer).expect("a datagram");
            slowest = slowest.max(since.elapsed());
        }
        looked = Instant::now();
    }
    slowest
}

/// Asks again and again, each time from a new port. Returns how many questions were not answered.
fn ask_often(testbed: &Testbed, family: &Family, stop: &AtomicBool, answered: &AtomicU32) -> u32 {
    let to = SocketAddr::new(ip(family.dns), 53);
    let mut unanswered = 0;
    while !stop.load(Ordering::Relaxed) {
        let socket = udp(&testbed.internet, family.peer, 0);
        socket.send_to(b"question", to).expect("a datagram");
        match socket.recv_from(&mut [0; 16]) {
            Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
            Err(_) => {
                unanswered += 1;
                unanswered
            }
        };
    }
    unanswered
}

/// `false`: an answer took so long that it may be lost.
fn attach_while_asked() -> bool {
    let mut site = Site::without_gate();
    let testbed = Arc::clone(&site.testbed);
    let (stop, over, answered) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU32::new(0));
    let (unanswered, slowest) = std::thread::scope(|scope| {
        let (stop, over, answered, testbed) = (&stop, &over, &answered, &testbed);
        let at_end = (Stop(stop), Stop(over));
        let (mut servers, mut askers) = (Vec::new(), Vec::new());
        for family in FAMILIES {
            let socket = udp(&testbed.dmz, family.dns, 53);
            servers.push(scope.spawn(move || answer_slowly(&socket, over)));
            // some question is always under way
            askers.extend((0..8).map(|_| scope.spawn(move || ask_often(testbed, &family, stop, answered))));
        }
        let goes_on = || {
            let before = answered.load(Ordering::Relaxed);
            eventually("questions are answered", || answered.load(Ordering::Relaxed) > before + 100);
        };
        goes_on();
        site.start_daemon_with(LONG_PICKUP_S);
        goes_on();
        stop.store(true, Ordering::Relaxed);
        let unanswered: u32 = askers.into_iter().map(|asker| asker.join().expect("an asker")).sum();
        drop(at_end);
        let slowest = servers.into_iter().map(|server| server.join().expect("a name server")).max();
        (unanswered, slowest.unwrap_or_default())
    });
    if slowest >= TOO_LATE {
        println!("an answer took {slowest:.1?}, so the questions are asked again");
        return false;
    }
    assert_eq!(unanswered, 0, "the slowest answer took {slowest:.1?}; {:#?}", testbed.drops());
    site.assert_quiet();
    true
}

#[test]
fn questions_under_way_when_the_gate_is_attached_are_answered_without_an_alarm() {
    let held = (0..ATTEMPTS).any(|_| attach_while_asked());
    assert!(held, "the machine stood still in each attempt");
}

#[test]
fn connections_outlive_an_upgrade_that_begins_to_track_strictly() {
    let site = Site::without_gate();
    let testbed = &site.testbed;
    let _web = Website::start(testbed, 4096);
    let strict = policy(None, LONG_PICKUP_S);
    testbed.attach(&strict.replacen("[policy]", "[policy]\ntracking = \"service\"", 1));
    let mut open = FAMILIES.map(|family| {
        let to = SocketAddr::new(ip(family.web), 80);
        connect(&testbed.internet, ip(family.peer), to, ARRIVES).expect("a connection")
    });
    assert!(open.iter_mut().all(asks));
    assert_eq!(testbed.show("status")["tracker"], "no");
    // so that it is the upgrade's own pickup that helps
    site.outlast_pickup();
    testbed.attach(&strict);
    assert_eq!(testbed.show("status")["tracker"], "tcx");
    assert!(open.iter_mut().all(asks), "{:#?}", testbed.drops());
    site.outlast_pickup();
    assert!(open.iter_mut().all(asks), "{:#?}", testbed.drops());
    assert!(testbed.drops().is_empty(), "{:#?}", testbed.drops());
}
