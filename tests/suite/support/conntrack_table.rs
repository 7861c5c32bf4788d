//! Entries of the kernel's conntrack, made by netlink in a network namespace of their own.

use std::net::IpAddr;
use std::thread;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sched::{CloneFlags, unshare};

use super::frame::Endpoint;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// `enum ip_conntrack_status`.
pub const SEEN_REPLY: u32 = 2;
pub const ASSURED: u32 = 4;
const CONFIRMED: u32 = 8;

/// `enum tcp_conntrack`.
pub const SYN_RECV: u8 = 2;
pub const ESTABLISHED: u8 = 3;
pub const FIN_WAIT: u8 = 4;
pub const CLOSE: u8 = 8;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const CT_NEW: u16 = 0x100;
const CT_DELETE: u16 = 0x102;

/// One entry, as conntrackd puts it there.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub protocol: u8,
    /// Who opened it, and to whom.
    pub original: (Endpoint, Endpoint),
    /// Who answers, and to whom: with NAT others than above.
    pub reply: (Endpoint, Endpoint),
    pub status: u32,
    pub tcp_state: u8,
    pub zone: u16,
}

impl Entry {
    /// A peer's flow that its server has answered.
    pub fn of_peer(protocol: u8, server: Endpoint, peer: Endpoint) -> Entry {
        let status = SEEN_REPLY | ASSURED;
        Entry {
            protocol,
            original: (peer, server),
            reply: (server, peer),
            status,
            tcp_state: ESTABLISHED,
            zone: 0,
        }
    }
}

/// Runs in a network namespace that has its own conntrack.
pub fn in_own_table(test: impl FnOnce(&Table) + Send) {
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (the test needs root)");
            test(&Table::open());
        });
        if let Err(panic) = running.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The conntrack of this thread's network namespace.
pub struct Table(Socket);

impl Table {
    pub fn open() -> Table {
        Table(Socket::new(NETLINK_NETFILTER).expect("netlink"))
    }

    #[track_caller]
    pub fn add(&self, entry: Entry) {
        let mut body = attribute(1 | NESTED, &tuple(entry.protocol, entry.original));
        body.extend(attribute(2 | NESTED, &tuple(entry.protocol, entry.reply)));
        body.extend(attribute(3, &(entry.status | CONFIRMED).to_be_bytes()));
        if entry.protocol == TCP {
            let state = attribute(1, &[entry.tcp_state]);
            body.extend(attribute(4 | NESTED, &attribute(1 | NESTED, &state)));
        }
        body.extend(attribute(7, &600_u32.to_be_bytes()));
        if entry.zone != 0 {
            body.extend(attribute(18, &entry.zone.to_be_bytes()));
        }
        self.ask(CT_NEW, CREATE | EXCL, entry.original.0.0, &body);
    }

    /// Forgets everything.
    #[track_caller]
    pub fn clear(&self) {
        self.ask(CT_DELETE, 0, IpAddr::from([0; 4]), &[]);
        self.ask(CT_DELETE, 0, IpAddr::from([0; 16]), &[]);
    }

    #[track_caller]
    fn ask(&self, kind: u16, flags: u16, family: IpAddr, body: &[u8]) {
        let family = if family.is_ipv4() { 2 } else { 10 };
        let length = (20 + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | ACK | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend([family, 0, 0, 0]);
        message.extend(body);
        self.0.send(&message, 0).expect("a question to conntrack");
        let mut answer = Vec::with_capacity(4096);
        self.0.recv(&mut answer, 0).expect("an answer of conntrack");
        let code = i32::from_ne_bytes(answer[16..20].try_into().expect("a code"));
        assert_eq!(code, 0, "conntrack refused: {}", std::io::Error::from_raw_os_error(-code));
    }
}

fn tuple(protocol: u8, (from, to): (Endpoint, Endpoint)) -> Vec<u8> {
    let (of_source, of_destination) = if from.0.is_ipv4() { (1, 2) } else { (3, 4) };
    let mut addresses = attribute(of_source, &octets(from.0));
    addresses.extend(attribute(of_destination, &octets(to.0)));
    let mut ports = attribute(1, &[protocol]);
    ports.extend(attribute(2, &from.1.to_be_bytes()));
    ports.extend(attribute(3, &to.1.to_be_bytes()));
    let mut tuple = attribute(1 | NESTED, &addresses);
    tuple.extend(attribute(2 | NESTED, &ports));
    tuple
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
