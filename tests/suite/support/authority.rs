//! An authority for names below `example`, over UDP and TCP, whose addresses change with each answer.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::dns::{A, AAAA, CNAME, Message, OPT, Record, SRV, wire};

/// Seconds that an answer may be kept.
pub const TTL: u32 = 5;
/// Addresses of each family that names share, and how many of them an answer has.
pub const POOL: u32 = 200;
pub const EACH: u32 = 8;
/// Addresses of each family of a name whose answer is too long for a datagram.
pub const MANY: u32 = 100;
/// What names point to, as `private` of a policy needs it.
pub const PRIVATE: &str = r#"["198.51.100.0/24", "2001:db8:50::/47"]"#;

/// The most that a client without EDNS takes in a datagram (RFC 1035, 4.2.1).
const PLAIN_BYTES: usize = 512;
const CUT: u16 = 0x0200;
const NO_SUCH_NAME: u16 = 3;
const HEADER_BYTES: usize = 12;

/// One of the addresses that names share. Of IPv4 198.51.100.53 stays free, for the authority itself.
pub fn pooled(kind: u16, number: u32) -> IpAddr {
    let number = number % POOL;
    if kind == A {
        Ipv4Addr::new(198, 51, 100, u8::try_from(55 + number).expect("less than 255")).into()
    } else {
        Ipv6Addr::from(0x2001_0db8_0050_0000_0000_0000_0000_0001 + u128::from(number)).into()
    }
}

/// An IPv6 address that no answer has had before.
fn fresh(number: u32) -> IpAddr {
    Ipv6Addr::from(0x2001_0db8_0051_0000_0000_0000_0000_0001 + u128::from(number)).into()
}

/// A question as it came.
struct Question {
    message: Message,
    /// In lower case, without the last dot.
    name: String,
    /// The longest answer that the client takes in a datagram.
    bytes: usize,
}

impl Question {
    /// `None`: not one whole question.
    fn read(bytes: &[u8]) -> Option<Question> {
        let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        if word(4)? != 1 {
            return None;
        }
        let mut at = HEADER_BYTES;
        let mut name = String::new();
        while let length @ 1..=63 = usize::from(*bytes.get(at)?) {
            let label = bytes.get(at + 1..at + 1 + length)?;
            name += if name.is_empty() { "" } else { "." };
            name += &String::from_utf8_lossy(label).to_lowercase();
            at += 1 + length;
        }
        let wire = bytes.get(HEADER_BYTES..=at)?.to_vec();
        let kind = word(at + 1)?;
        let mut message = Message::query(word(0)?, "", kind);
        message.name = wire;
        // the one record of EDNS: the root, its type, and as its class the room of the client
        let edns = word(10)? > 0 && bytes.get(at + 5) == Some(&0) && word(at + 6) == Some(OPT);
        let room = if edns { usize::from(word(at + 8)?) } else { PLAIN_BYTES };
        if edns {
            message = message.with_edns();
        }
        Some(Question { message, name, bytes: room.max(PLAIN_BYTES) })
    }
}

/// What the authority knows.
#[derive(Default)]
struct Zone {
    turn: AtomicU32,
    asked: Mutex<HashMap<String, u32>>,
}

impl Zone {
    fn answer(&self, bytes: &[u8], over_udp: bool) -> Option<Vec<u8>> {
        let question = Question::read(bytes)?;
        *self.asked.lock().expect("the counts").entry(question.name.clone()).or_default() += 1;
        let query = &question.message;
        let answer = match self.find(&question.name, query.kind) {
            Some(records) => query.answer(&records),
            None => {
                let empty = query.answer(&[]);
                Message { flags: empty.flags | NO_SUCH_NAME, ..empty }
            }
        };
        let whole = answer.bytes();
        if over_udp && whole.len() > question.bytes {
            let empty = Message { answers: Vec::new(), ..answer };
            return Some(Message { flags: empty.flags | CUT, ..empty }.bytes());
        }
        Some(whole)
    }

    /// The records of a name; `None`: there is no such name.
    fn find(&self, name: &str, kind: u16) -> Option<Vec<Record>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let rotated = |count: u32| -> Vec<Record> {
            if kind != A && kind != AAAA {
                return Vec::new();
            }
            let addresses = (0..count).map(|number| pooled(kind, turn * EACH + number));
            addresses.map(|address| Record::address(address, TTL)).collect()
        };
        match name {
            "cdn.vendor.example" | "m1.mirror.example" => Some(rotated(EACH)),
            "many.vendor.example" => Some(rotated(MANY)),
            "four.vendor.example" => Some(if kind == A { rotated(EACH) } else { Vec::new() }),
            // the name that apt is given has no address, only a place where the service is
            "deb.vendor.example" => Some(Vec::new()),
            "_http._tcp.deb.vendor.example" => Some(if kind == SRV {
                let data = [&[0, 1, 0, 1][..], &SRV_PORT.to_be_bytes(), &wire("m1.mirror.example")].concat();
                vec![Record::new(super::dns::TO_QUESTION, SRV, TTL, &data)]
            } else {
                Vec::new()
            }),
            "alias.vendor.example" => {
                let edge = wire("edge.network.example");
                let mut records = vec![Record::new(super::dns::TO_QUESTION, CNAME, TTL, &edge)];
                records
                    .extend(rotated(EACH).into_iter().map(|record| Record { owner: edge.clone(), ..record }));
                Some(records)
            }
            "edge.network.example" => Some(rotated(EACH)),
            _ if name.ends_with(".mirror.example") => {
                let mut records = rotated(EACH);
                if kind == AAAA {
                    records = vec![Record::address(fresh(turn), TTL)];
                }
                Some(records)
            }
            _ => None,
        }
    }
}

/// The port that the authority names for the mirror of apt.
pub const SRV_PORT: u16 = 8080;

/// Answers until it is dropped.
pub struct Authority {
    zone: Arc<Zone>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Authority {
    pub fn start(datagrams: Vec<UdpSocket>, listeners: Vec<TcpListener>) -> Authority {
        let (zone, stop): (Arc<Zone>, Arc<AtomicBool>) = Default::default();
        let mut threads = Vec::new();
        for socket in datagrams {
            let (zone, stop) = (Arc::clone(&zone), Arc::clone(&stop));
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            threads.push(std::thread::spawn(move || serve_datagrams(&zone, &socket, &stop)));
        }
        for listener in listeners {
            let (zone, stop) = (Arc::clone(&zone), Arc::clone(&stop));
            listener.set_nonblocking(true).expect("a listener");
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let zone = Arc::clone(&zone);
                    std::thread::spawn(move || serve_stream(&zone, stream));
                }
            }));
        }
        Authority { zone, stop, threads }
    }

    /// How often a name was asked for.
    pub fn asked(&self, name: &str) -> u32 {
        self.zone.asked.lock().expect("the counts").get(name).copied().unwrap_or(0)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_datagrams(zone: &Zone, socket: &UdpSocket, stop: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut bytes)
            && let Some(answer) = zone.answer(&bytes[..length], true)
        {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Until the client closes the connection, or is silent for a while.
fn serve_stream(zone: &Zone, mut stream: TcpStream) {
    let mut length = [0; 2];
    let _ = (stream.set_nonblocking(false), stream.set_read_timeout(Some(Duration::from_secs(10))));
    while stream.read_exact(&mut length).is_ok() {
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        let Some(answer) = stream.read_exact(&mut bytes).ok().and_then(|()| zone.answer(&bytes, false))
        else {
            return;
        };
        let length = u16::try_from(answer.len()).expect("a short answer");
        if stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(zone: &Zone, name: &str, kind: u16, edns: bool, over_udp: bool) -> Vec<u8> {
        let query = Message::query(7, name, kind);
        let query = if edns { query.with_edns() } else { query };
        zone.answer(&query.bytes(), over_udp).expect("an answer")
    }

    fn count(answer: &[u8]) -> u16 {
        u16::from_be_bytes([answer[6], answer[7]])
    }

    #[test]
    fn each_answer_has_other_addresses_and_a_long_one_is_cut_over_udp_alone() {
        let zone = Zone::default();
        let first = ask(&zone, "cdn.VENDOR.example", A, false, true);
        assert_eq!(count(&first), 8);
        assert_ne!(first, ask(&zone, "cdn.VENDOR.example", A, false, true));
        let cut = ask(&zone, "many.vendor.example", A, true, true);
        assert_eq!((count(&cut), cut[2] & 2), (0, 2));
        assert_eq!(count(&ask(&zone, "many.vendor.example", A, true, false)), 100);
        assert_eq!(ask(&zone, "nowhere.example", A, false, true)[3] & 15, 3);
        assert_eq!(zone.asked.lock().expect("counts")["cdn.vendor.example"], 2);
    }
}
