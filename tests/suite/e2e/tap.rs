//! A raw socket on a machine's NIC that sees every frame of it, in both directions. What it has
//! not seen was not there: it counts what it lost, and a marker shows that it is awake.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::socket::{open, set_option, udp};
use super::testbed::{NIC, Namespace, Testbed, ip};
use crate::support::frame::{Ipv4, udp_datagram};
use crate::support::patience::eventually;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const BUFFER_BYTES: libc::c_int = 64 << 20;
/// Nobody listens there: the discard service.
const MARKER_PORT: u16 = 9;

/// A frame that went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// 0 where the protocol has none.
    pub source_port: u16,
    pub destination_port: u16,
    pub payload_bytes: usize,
}

impl Seen {
    fn read(frame: &[u8]) -> Option<Seen> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (source, destination, protocol) = match packet.net? {
            NetSlice::Ipv4(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload_ip_number().0,
            ),
            NetSlice::Ipv6(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().ip_number.0,
            ),
            NetSlice::Arp(_) => return None,
        };
        let (source_port, destination_port, payload_bytes) = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                (tcp.source_port(), tcp.destination_port(), tcp.payload().len())
            }
            Some(TransportSlice::Udp(udp)) => {
                (udp.source_port(), udp.destination_port(), udp.payload().len())
            }
            _ => (0, 0, 0),
        };
        Some(Seen { source, destination, protocol, source_port, destination_port, payload_bytes })
    }

    /// From this address to that port?
    pub fn is(&self, source: IpAddr, protocol: u8, destination_port: u16) -> bool {
        (self.source, self.protocol, self.destination_port) == (source, protocol, destination_port)
    }
}

/// What goes by at a NIC.
pub struct Tap {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    socket: File,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Keeps everything that is IP.
    pub fn new(machine: &Namespace, nic: &str) -> Tap {
        Tap::keeping(machine, nic, |_| true)
    }

    /// Keeps what `keep` picks, and markers: for long runs.
    pub fn keeping(machine: &Namespace, nic: &str, keep: impl Fn(&Seen) -> bool + Send + 'static) -> Tap {
        Tap::watching(machine, nic, |_| (), keep)
    }

    /// Shows every frame, whatever it is, to `look` besides.
    pub fn watching(
        machine: &Namespace,
        nic: &str,
        look: impl Fn(&[u8]) + Send + 'static,
        keep: impl Fn(&Seen) -> bool + Send + 'static,
    ) -> Tap {
        let socket = File::from(machine.enter(|| open_raw(nic)));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (list, asked) = (Arc::clone(&seen), Arc::clone(&stop));
        let mut reader = socket.try_clone().expect("a socket");
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; 1 << 16];
            while !asked.load(Ordering::Relaxed) {
                let Ok(length) = reader.read(&mut frame) else {
                    continue; // the timeout
                };
                look(&frame[..length]);
                if let Some(one) = Seen::read(&frame[..length])
                    && (keep(&one) || is_marker(&one))
                {
                    list.lock().expect("the list").push(one);
                }
            }
        });
        Tap { seen, stop, socket, thread: Some(thread) }
    }

    /// How many frames so far are like this.
    pub fn count(&self, like: impl Fn(&Seen) -> bool) -> u64 {
        self.seen.lock().expect("the list").iter().filter(|one| like(one)).count() as u64
    }

    /// Frames so far from this address to that port.
    pub fn count_to(&self, source: IpAddr, protocol: u8, port: u16) -> u64 {
        self.count(|one| one.is(source, protocol, port))
    }

    /// Frames that came while its buffer was full.
    pub fn lost(&self) -> u32 {
        #[repr(C)]
        #[derive(Default)]
        struct Statistics {
            packets: libc::c_uint,
            drops: libc::c_uint,
        }
        let mut statistics = Statistics::default();
        let mut length = size_of::<Statistics>() as libc::socklen_t;
        // SAFETY: `statistics` is as long as we say (struct tpacket_stats of linux/if_packet.h).
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "the tap's statistics");
        statistics.drops
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn is_marker(seen: &Seen) -> bool {
    seen.protocol == UDP && seen.destination_port == MARKER_PORT && seen.payload_bytes == 0
}

/// A raw socket on a NIC of this thread's namespace.
pub fn open_raw(nic: &str) -> std::os::fd::OwnedFd {
    // Protocol 0 until it is bound, so that it sees nothing of other NICs.
    let socket = open(libc::AF_PACKET, libc::SOCK_RAW, 0).expect("a raw socket");
    set_option(&socket, libc::SO_RCVBUFFORCE, BUFFER_BYTES).expect("a large buffer");
    set_option(&socket, libc::SO_RCVTIMEO, libc::timeval { tv_sec: 0, tv_usec: 20_000 }).expect("a timeout");
    let index = nix::net::if_::if_nametoindex(nic).expect("a NIC");
    // SAFETY: all its members are integers.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the address is as long as we say and outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "binding the tap: {}", std::io::Error::last_os_error());
    socket
}

impl Namespace {
    /// Sends a frame as it stands.
    pub fn inject(&self, nic: &str, frame: &[u8]) {
        self.inject_all(nic, std::iter::once(frame));
    }

    /// Sends frames as they stand, one after the other.
    pub fn inject_all<F: AsRef<[u8]>>(&self, nic: &str, frames: impl IntoIterator<Item = F>) {
        let mut socket = File::from(self.enter(|| open_raw(nic)));
        for frame in frames {
            socket.write_all(frame.as_ref()).expect("a frame that goes out");
        }
    }
}

/// The source port of the next marker.
fn next_marker() -> u16 {
    static NUMBER: AtomicU16 = AtomicU16::new(20_000);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

#[track_caller]
fn wait_for_marker(tap: &Tap, number: u16) {
    eventually("the tap has seen the marker", || {
        tap.count(|one| is_marker(one) && one.source_port == number) == 1
    });
    assert_eq!(tap.lost(), 0, "the tap has lost frames");
}

impl Testbed {
    /// A tap at the far end: what has left the router.
    pub fn tap_internet(&self) -> Tap {
        Tap::new(&self.internet, "eth0")
    }

    /// A tap at the servers' NIC: what they have sent, dropped or not.
    pub fn tap_dmz(&self) -> Tap {
        Tap::new(&self.dmz, "eth0")
    }

    /// Waits until a tap in the internet has seen a datagram that the router sends now: so it is
    /// awake, has lost nothing, and has seen all that left before.
    #[track_caller]
    pub fn catch_up(&self, tap: &Tap) {
        let number = next_marker();
        let socket = udp(&self.router, "203.0.113.129", number);
        let sink: SocketAddr = "203.0.113.130:9".parse().expect("an address");
        socket.send_to(&[], sink).expect("a marker");
        wait_for_marker(tap, number);
    }

    /// As [`Testbed::catch_up`], for a tap at the servers' NIC. The marker is a frame for a MAC that nobody
    /// has, so that no server answers it and the gate counts nothing.
    #[track_caller]
    pub fn catch_up_inside(&self, tap: &Tap) {
        let number = next_marker();
        let (source, destination) = (ip("203.0.113.129"), ip("203.0.113.130"));
        let datagram = udp_datagram((source, number), (destination, MARKER_PORT), &[]);
        let mut frame = Ipv4::new(source, destination, UDP, &datagram).frame();
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        self.router.inject(NIC, &frame);
        wait_for_marker(tap, number);
    }
}
