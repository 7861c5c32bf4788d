//! A resolver that answers what a test says, over UDP and TCP, and servers that ask it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::namespace::Namespace;
use super::socket::udp;
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, ANSWER, Message, Record, SRV, TO_QUESTION, wire};
use crate::support::patience::Wait;

const TICK: Duration = Duration::from_millis(20);
/// NXDOMAIN.
const NO_SUCH_NAME: u16 = 3;
/// TC.
const CUT: u16 = 0x0200;

#[derive(Default)]
struct Zone {
    records: BTreeMap<(String, u16), Vec<Record>>,
    /// Every question, in the order of its arrival.
    asked: Vec<(String, u16)>,
}

struct Shared {
    zone: Mutex<Zone>,
    stop: AtomicBool,
    /// Over UDP nothing is answered but that TCP has it.
    cuts: AtomicBool,
    is_silent: AtomicBool,
    over_tcp: AtomicU32,
}

/// A resolver of one address.
pub struct Resolver {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolver {
    pub fn start(machine: &Namespace, address: &str) -> Resolver {
        let socket = udp(machine, address, 53);
        let listener = machine.enter(|| TcpListener::bind((ip(address), 53))).expect("port 53");
        socket.set_read_timeout(Some(TICK)).expect("a timeout");
        listener.set_nonblocking(true).expect("a listener");
        let shared = Arc::new(Shared {
            zone: Mutex::default(),
            stop: AtomicBool::new(false),
            cuts: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            over_tcp: AtomicU32::new(0),
        });
        let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || one.serve_datagrams(&socket)),
            std::thread::spawn(move || other.serve_streams(&listener)),
        ];
        Resolver { shared, threads }
    }

    /// A name has these addresses from now on.
    pub fn set(&self, name: &str, addresses: &[&str], ttl: u32) {
        let mut zone = self.shared.zone.lock().expect("a zone");
        for kind in [A, AAAA] {
            let of_kind = addresses.iter().map(|text| ip(text)).filter(|ip| ip.is_ipv4() == (kind == A));
            let records: Vec<Record> = of_kind.map(|address| Record::address(address, ttl)).collect();
            zone.records.insert((name.to_owned(), kind), records);
        }
    }

    /// A service is at this target.
    pub fn set_service(&self, name: &str, target: &str) {
        let data = [&[0, 1, 0, 1, 0, 80][..], &wire(target)].concat();
        let record = Record::new(TO_QUESTION, SRV, 300, &data);
        self.shared.zone.lock().expect("a zone").records.insert((name.to_owned(), SRV), vec![record]);
    }

    /// Whether its answers over UDP are cut.
    pub fn cut(&self, cuts: bool) {
        self.shared.cuts.store(cuts, Ordering::SeqCst);
    }

    /// Whether it hears and does not answer.
    pub fn be_silent(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// How often a name was asked for.
    pub fn count_asked(&self, name: &str) -> usize {
        let zone = self.shared.zone.lock().expect("a zone");
        zone.asked.iter().filter(|(asked, _)| asked == name).count()
    }

    /// How many answers went over TCP.
    pub fn count_over_tcp(&self) -> u32 {
        self.shared.over_tcp.load(Ordering::SeqCst)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve_datagrams(&self, socket: &UdpSocket) {
        let mut bytes = [0; 2048];
        while !self.stop.load(Ordering::SeqCst) {
            let Ok((length, sender)) = socket.recv_from(&mut bytes) else { continue };
            let Some(mut answer) = self.answer(&bytes[..length]) else { continue };
            if self.cuts.load(Ordering::SeqCst) {
                answer.answers.clear();
                answer.flags |= CUT;
            }
            let _ = socket.send_to(&answer.bytes(), sender);
        }
    }

    fn serve_streams(&self, listener: &TcpListener) {
        while !self.stop.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((stream, _)) => drop(self.serve_stream(stream)),
                Err(_) => std::thread::sleep(TICK),
            }
        }
    }

    fn serve_stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes)?;
        if let Some(answer) = self.answer(&bytes) {
            self.over_tcp.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&answer.prefixed())?;
        }
        Ok(())
    }

    fn answer(&self, bytes: &[u8]) -> Option<Message> {
        let (name, kind) = read_question(bytes)?;
        let query = Message {
            name: wire(&name),
            ..Message::query(u16::from_be_bytes([bytes[0], bytes[1]]), &name, kind)
        };
        let mut zone = self.zone.lock().expect("a zone");
        zone.asked.push((name.clone(), kind));
        if self.is_silent.load(Ordering::SeqCst) {
            return None;
        }
        let is_known = zone.records.keys().any(|(known, _)| *known == name);
        let records = zone.records.get(&(name, kind)).cloned().unwrap_or_default();
        let flags = if is_known { ANSWER } else { ANSWER | NO_SUCH_NAME };
        Some(Message { flags, ..query.answer(&records) })
    }
}

fn read_question(bytes: &[u8]) -> Option<(String, u16)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(bytes.get(at..at + length)?).to_lowercase());
        at += length;
    }
    Some((labels.join("."), u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])))
}

/// A server asks for the addresses of a name; whether it got an answer.
pub fn look_up(machine: &Namespace, from: &str, resolver: &str, name: &str, kind: u16, wait: Wait) -> bool {
    let socket = udp(machine, from, 0);
    socket.set_read_timeout(Some(wait.duration())).expect("a timeout");
    let query = Message::query(0x4711, name, kind);
    let mut answer = [0; 1024];
    socket.send_to(&query.bytes(), SocketAddr::new(ip(resolver), 53)).is_ok()
        && socket.recv_from(&mut answer).is_ok_and(|(length, sender)| {
            length > 12 && answer[..2] == query.bytes()[..2] && sender.ip() == ip(resolver)
        })
}

/// The address family's type of record.
pub fn kind_of(address: &str) -> u16 {
    let address: IpAddr = ip(address);
    if address.is_ipv4() { A } else { AAAA }
}
