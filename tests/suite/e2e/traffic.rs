//! What is sent through the gate: single proofs, and traffic that flows while something else
//! happens to the gate.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use portcullis::net::Probe;

use super::socket::{UdpServer, udp};
use super::tap::{TCP, Tap, UDP};
use super::testbed::{FAMILIES, Testbed, V4, ip};
use crate::support::patience::{PATIENCE, eventually, within};

/// No policy of these tests lets the web server send there.
pub const FORBIDDEN: u16 = 4000;
/// An `in` service of the web server by both [`TWINS`](super::policies::TWINS).
const ASKED: u16 = 7000;
/// By both, the mail server may send there and the web server may not.
const POSTED: u16 = 9000;
/// Less than a NIC's queue holds.
const BURST: u64 = 16;
/// Between two bursts, so that what happens to the gate meanwhile gets some of the machine.
const PACE: Duration = Duration::from_micros(500);

impl Testbed {
    /// Sends datagrams from the web server to a port beyond the router.
    pub fn send_from_web(&self, port: u16, count: u64) {
        let socket = udp(&self.dmz, V4.web, 0);
        for _ in 0..count {
            socket.send_to(b"out", SocketAddr::new(ip(V4.peer), port)).expect("a datagram");
        }
    }

    /// Sends datagrams that are forbidden: the ledger has each of them, and none gets out.
    #[track_caller]
    pub fn prove_drops(&self, tap: &Tap, count: u64) {
        let dropped = || self.dropped("web1", "udp", FORBIDDEN, "new_flow");
        let left = || tap.count_to(ip(V4.web), UDP, FORBIDDEN);
        let before = (dropped(), left());
        self.send_from_web(FORBIDDEN, count);
        eventually("each drop is in the ledger", || dropped() >= before.0 + count);
        self.catch_up(tap);
        assert_eq!((dropped(), left()), (before.0 + count, before.1), "the ledger, and what got out");
    }

    /// Sends the same datagrams, and all get out.
    #[track_caller]
    pub fn prove_passes(&self, tap: &Tap, count: u64) {
        let left = || tap.count_to(ip(V4.web), UDP, FORBIDDEN);
        let before = left();
        self.send_from_web(FORBIDDEN, count);
        eventually("each datagram gets out", || left() >= before + count);
        self.catch_up(tap);
        assert_eq!(left(), before + count, "what got out");
    }
}

/// A SYN of the web server to this port.
pub fn syn(port: u16) -> Vec<u8> {
    syn_of(V4.web, port)
}

/// A SYN of a server to a port of a peer.
pub fn syn_of(server: &str, port: u16) -> Vec<u8> {
    let probe = Probe {
        source: ip(server),
        destination: ip(V4.peer),
        protocol: TCP,
        source_port: 50_000,
        destination_port: port,
        tcp_flags: 2,
        source_mac: [2, 0, 0, 0, 0, 0x10],
        vlan: None,
    };
    probe.to_frame().expect("a frame")
}

#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    answered: AtomicU64,
    posted: AtomicU64,
    delivered: AtomicU64,
    forbidden: AtomicU64,
}

/// Permitted and forbidden traffic in both families, until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
    _servers: Vec<UdpServer>,
    leak: Tap,
    dropped_before: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Requests of peers to the web server, and the answers that came back.
    pub asked: u64,
    pub answered: u64,
    /// Datagrams of the mail server, and those that came back from beyond.
    pub posted: u64,
    pub delivered: u64,
    /// Datagrams that the web server may not send.
    pub forbidden: u64,
    /// Of those, in the ledger.
    pub dropped: u64,
    /// Of those, seen beyond the router.
    pub leaked: u64,
}

impl Traffic {
    /// Starts it; the gate must be attached with one of the twins.
    pub fn start(testbed: &Testbed) -> Traffic {
        let dropped_before = count_dropped(testbed);
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let leak = Tap::keeping(&testbed.internet, "eth0", |one| {
            one.destination_port == POSTED && FAMILIES.iter().any(|family| one.source == ip(family.web))
        });
        let mut servers = Vec::new();
        let mut threads = Vec::new();
        for family in FAMILIES {
            servers.push(UdpServer::start(&testbed.dmz, family.web, ASKED));
            servers.push(UdpServer::start(&testbed.internet, family.peer, POSTED));

            let peer = udp(&testbed.internet, family.peer, 0);
            let web = SocketAddr::new(ip(family.web), ASKED);
            let (asked, count) = (Arc::clone(&stop), Arc::clone(&counts));
            threads.push(std::thread::spawn(move || {
                while !asked.load(Ordering::Relaxed) {
                    let number = count.asked.fetch_add(1, Ordering::Relaxed);
                    count.answered.fetch_add(u64::from(is_echoed(&peer, web, number)), Ordering::Relaxed);
                    sleep(PACE);
                }
            }));

            let (web, mail) = (udp(&testbed.dmz, family.web, 0), udp(&testbed.dmz, family.mail, 0));
            let beyond = SocketAddr::new(ip(family.peer), POSTED);
            let (asked, count) = (Arc::clone(&stop), Arc::clone(&counts));
            threads.push(std::thread::spawn(move || {
                while !asked.load(Ordering::Relaxed) {
                    for _ in 0..BURST {
                        web.send_to(b"out", beyond).expect("a datagram");
                        count.forbidden.fetch_add(1, Ordering::Relaxed);
                    }
                    // waits for its echo, and so for the queue to be empty
                    let number = count.posted.fetch_add(1, Ordering::Relaxed);
                    count.delivered.fetch_add(u64::from(is_echoed(&mail, beyond, number)), Ordering::Relaxed);
                    sleep(PACE);
                }
            }));
        }
        Traffic { stop, counts, threads, _servers: servers, leak, dropped_before }
    }

    /// Waits until some more of each kind has gone through.
    #[track_caller]
    pub fn flow(&self) {
        let now =
            || [&self.counts.answered, &self.counts.delivered].map(|count| count.load(Ordering::Relaxed));
        let before = now();
        eventually("permitted traffic flows", || {
            now().iter().zip(before).all(|(now, before)| *now >= before + 20)
        });
    }

    /// Stops it. Every permitted datagram must have arrived, and of the forbidden ones none;
    /// each of those must be in the ledger.
    #[track_caller]
    pub fn stop(mut self, testbed: &Testbed) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread of the traffic");
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let forbidden = count(&self.counts.forbidden);
        let counted = within(PATIENCE, || count_dropped(testbed) >= self.dropped_before + forbidden);
        assert!(counted, "of {forbidden} drops {:#?}", testbed.drops());
        testbed.catch_up(&self.leak);
        let report = Report {
            asked: count(&self.counts.asked),
            answered: count(&self.counts.answered),
            posted: count(&self.counts.posted),
            delivered: count(&self.counts.delivered),
            forbidden,
            dropped: count_dropped(testbed) - self.dropped_before,
            leaked: self.leak.count(|one| one.destination_port == POSTED),
        };
        assert!(report.asked > 0 && report.posted > 0 && report.forbidden > 0, "{report:?}");
        assert_eq!(report.asked, report.answered, "permitted answers were lost: {report:?}");
        assert_eq!(report.posted, report.delivered, "permitted datagrams were lost: {report:?}");
        assert_eq!(report.leaked, 0, "forbidden datagrams got out: {report:?}");
        assert_eq!(report.dropped, report.forbidden, "the ledger is not exact: {report:?}");
        report
    }
}

/// By all reasons: a wrong one would show as a row too many or too few.
fn count_dropped(testbed: &Testbed) -> u64 {
    testbed.dropped("web1", "udp", POSTED, "new_flow")
}

/// Sends a number and waits until it comes back.
fn is_echoed(socket: &UdpSocket, to: SocketAddr, number: u64) -> bool {
    let mut answer = [0; 16];
    socket.send_to(&number.to_ne_bytes(), to).is_ok()
        && socket
            .recv_from(&mut answer)
            .is_ok_and(|(length, sender)| sender == to && answer[..length] == number.to_ne_bytes())
}
