//! A bad cable: every frame that goes through it is delayed by a time of its own, so that frames
//! overtake each other, and some never arrive. For kernels without netem.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::e2e::tap::open_raw;
use crate::e2e::testbed::{Cut, Testbed};
use crate::support::chance::Chance;

/// One frame in so many is lost.
const LOSS: usize = 60;
/// One in so many is late.
const LATE: usize = 12;
const LATENESS: Duration = Duration::from_millis(8);
/// A frame as offloads leave it, with its header.
const MOST_BYTES: usize = 80 << 10;
/// Not in libc for every target (linux/if_packet.h).
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

#[derive(Default)]
struct Counts {
    copied: AtomicU64,
    lost: AtomicU64,
    overtaken: AtomicU64,
}

/// Copies until it is dropped.
pub struct Relay {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    pub fn splice(testbed: &Testbed, into: Cut) -> Relay {
        let between = testbed.splice(into);
        let (stop, counts): (Arc<AtomicBool>, Arc<Counts>) = Default::default();
        let [near, far] = ["near", "far"].map(|nic| between.enter(|| open(nic)));
        let copies = [
            (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"), 0x1234_5678),
            (far, near, 0x9e37_79b9),
        ];
        let threads = copies.map(|(from, to, seed)| {
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            std::thread::spawn(move || copy(&from, &to, Chance::new(seed), &stop, &counts))
        });
        Relay { stop, counts, threads: threads.into() }
    }

    /// It has been as bad as it should be.
    #[track_caller]
    pub fn assert_was_bad(&self) {
        let [copied, lost, overtaken] = [&self.counts.copied, &self.counts.lost, &self.counts.overtaken]
            .map(|count| count.load(Ordering::Relaxed));
        eprintln!("the bad cable: {copied} frames copied, {lost} lost, {overtaken} overtaken");
        assert!(lost >= 10 && overtaken >= 10 && copied > 10 * lost, "{copied} {lost} {overtaken}");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// With the header that says what offloads have left to do (virtio_net_hdr): checksums are not
/// yet there and frames not yet cut.
fn open(nic: &str) -> File {
    let socket = open_raw(nic);
    for option in [PACKET_IGNORE_OUTGOING, libc::PACKET_VNET_HDR] {
        let on: libc::c_int = 1;
        // SAFETY: `on` is as long as we say and outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
    // short, for the frames that wait to be sent
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    crate::e2e::socket::set_option(&socket, libc::SO_RCVTIMEO, timeout).expect("a timeout");
    File::from(socket)
}

fn copy(mut from: &File, to: &File, mut chance: Chance, stop: &AtomicBool, counts: &Counts) {
    let mut bytes = vec![0; MOST_BYTES];
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let (mut number, mut newest) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        if let Ok(length @ 1..) = from.read(&mut bytes) {
            number += 1;
            if chance.below(LOSS) == 0 {
                counts.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                let delay = if chance.below(LATE) == 0 { chance.time(LATENESS) } else { Duration::ZERO };
                waiting.push(Reverse((Instant::now() + delay, number, bytes[..length].to_vec())));
            }
        }
        while waiting.peek().is_some_and(|Reverse((due, ..))| *due <= Instant::now()) {
            let Some(Reverse((_, order, frame))) = waiting.pop() else { break };
            counts.overtaken.fetch_add(u64::from(order < newest), Ordering::Relaxed);
            newest = newest.max(order);
            counts.copied.fetch_add(1, Ordering::Relaxed);
            // a queue that is full loses it, as cables do
            let _ = std::io::Write::write(&mut &*to, &frame);
        }
    }
}
