//! Every frame that comes out at the far side of the router, whatever it is.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::e2e::tap::Tap;
use crate::e2e::testbed::{FAMILIES, Testbed, ip};

/// The sender of what the router forwards to the internet.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The sender of what the servers send.
const DMZ: [u8; 6] = [2, 0, 0, 0, 0, 0x10];

/// The frames of one sender.
pub struct Catch {
    tap: Tap,
    /// Whose frames: what tells which way markers have to come.
    sender: [u8; 6],
    frames: Arc<Mutex<Vec<Frame>>>,
}

/// Its length, and as much of it as shows what it is.
struct Frame(usize, Vec<u8>);

impl Catch {
    /// What has got out.
    pub fn beyond(testbed: &Testbed) -> Catch {
        Catch::new(|look| Tap::watching(&testbed.internet, "eth0", look, |_| false), ROUTER)
    }

    /// What the servers have tried.
    pub fn inside(testbed: &Testbed) -> Catch {
        Catch::new(|look| Tap::watching(&testbed.dmz, "eth0", look, |_| false), DMZ)
    }

    fn new(open: impl FnOnce(Box<dyn Fn(&[u8]) + Send>) -> Tap, sender: [u8; 6]) -> Catch {
        let frames: Arc<Mutex<Vec<Frame>>> = Arc::default();
        let list = Arc::clone(&frames);
        let look = move |frame: &[u8]| {
            if frame.get(6..12) == Some(&sender[..]) && !is_the_routers_own(frame) && !is_probe(frame) {
                list.lock()
                    .expect("the list")
                    .push(Frame(frame.len(), frame[..frame.len().min(80)].to_vec()));
            }
        };
        Catch { tap: open(Box::new(look)), sender, frames }
    }

    /// How many frames there are by now, once the tap has seen all that left before.
    #[track_caller]
    pub fn settle(&self, testbed: &Testbed) -> usize {
        if self.sender == DMZ {
            testbed.catch_up_inside(&self.tap);
        } else {
            testbed.catch_up(&self.tap);
        }
        self.count()
    }

    fn count(&self) -> usize {
        self.frames.lock().expect("the list").len()
    }

    /// The longest frame so far.
    pub fn longest(&self) -> usize {
        self.frames.lock().expect("the list").iter().map(|frame| frame.0).max().unwrap_or(0)
    }

    /// The beginnings of the first few.
    pub fn heads(&self) -> Vec<Vec<u8>> {
        self.frames.lock().expect("the list").iter().take(5).map(|frame| frame.1.clone()).collect()
    }

    pub fn forget(&self) {
        self.frames.lock().expect("the list").clear();
    }
}

/// What the router says itself: markers, by which a tap shows that it is awake, late ICMP errors,
/// listener reports.
fn is_the_routers_own(frame: &[u8]) -> bool {
    const V4: [u8; 4] = [203, 0, 113, 129];
    const V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const ALL_LISTENERS: [u8; 6] = [0x33, 0x33, 0, 0, 0, 0x16];
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(26..30) == Some(&V4),
        _ => {
            frame.get(22..38) == Some(&V6)
                || (frame.get(22..38) == Some(&[0; 16]) && frame.get(..6) == Some(&ALL_LISTENERS))
        }
    }
}

/// To those with whom a stage proves what is permitted, and whom nobody attacks.
fn is_probe(frame: &[u8]) -> bool {
    let destination = match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(30..34),
        _ => frame.get(38..54),
    };
    FAMILIES.iter().flat_map(|family| [family.loghost, family.exchanger]).any(|friend| match ip(friend) {
        IpAddr::V4(friend) => destination == Some(&friend.octets()[..]),
        IpAddr::V6(friend) => destination == Some(&friend.octets()[..]),
    })
}
