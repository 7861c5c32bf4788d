//! DNS messages, byte by byte (RFC 1035, 4).

use std::net::IpAddr;

pub use super::frame::udp_datagram as udp_of;
use super::frame::{self, Endpoint, TCP, UDP, ethernet, octets, tcp_header, udp_datagram};

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const OPT: u16 = 41;

/// QR, RD and RA.
pub const ANSWER: u16 = 0x8180;
const QUERY: u16 = 0x0100;
const INTERNET: u16 = 1;

/// A pointer to the question's name.
pub const TO_QUESTION: &[u8] = &[0xc0, 12];

/// A name on the wire, with its root. Its case is kept.
pub fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A resource record.
#[derive(Clone, Debug)]
pub struct Record {
    pub owner: Vec<u8>,
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    pub data: Vec<u8>,
}

impl Record {
    pub fn new(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Record {
        Record { owner: owner.to_vec(), kind, class: INTERNET, ttl, data: data.to_vec() }
    }

    /// An address of the question's name.
    pub fn address(address: IpAddr, ttl: u32) -> Record {
        Record::new(TO_QUESTION, if address.is_ipv4() { A } else { AAAA }, ttl, &octets(address))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.owner.clone();
        bytes.extend_from_slice(&self.kind.to_be_bytes());
        bytes.extend_from_slice(&self.class.to_be_bytes());
        bytes.extend_from_slice(&self.ttl.to_be_bytes());
        bytes.extend_from_slice(&u16::try_from(self.data.len()).expect("short data").to_be_bytes());
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

/// A message with one question.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    pub name: Vec<u8>,
    pub kind: u16,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

impl Message {
    pub fn query(id: u16, name: &str, kind: u16) -> Message {
        Message {
            id,
            flags: QUERY,
            name: wire(name),
            kind,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    /// The answer with these records.
    pub fn answer(&self, answers: &[Record]) -> Message {
        Message { flags: ANSWER, answers: answers.to_vec(), ..self.clone() }
    }

    /// The answer with these addresses.
    pub fn addresses(&self, addresses: &[IpAddr], ttl: u32) -> Message {
        let records: Vec<Record> = addresses.iter().map(|address| Record::address(*address, ttl)).collect();
        self.answer(&records)
    }

    /// With EDNS (RFC 6891).
    pub fn with_edns(mut self) -> Message {
        self.additionals.push(Record { owner: vec![0], kind: OPT, class: 1232, ttl: 0, data: Vec::new() });
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let counts = [1, self.answers.len(), self.authorities.len(), self.additionals.len()];
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        for count in counts {
            bytes.extend_from_slice(&u16::try_from(count).expect("few records").to_be_bytes());
        }
        bytes.extend_from_slice(&self.name);
        bytes.extend_from_slice(&self.kind.to_be_bytes());
        bytes.extend_from_slice(&INTERNET.to_be_bytes());
        for record in self.answers.iter().chain(&self.authorities).chain(&self.additionals) {
            bytes.extend_from_slice(&record.bytes());
        }
        bytes
    }

    /// Behind its length, as over TCP.
    pub fn prefixed(&self) -> Vec<u8> {
        let bytes = self.bytes();
        [u16::try_from(bytes.len()).expect("a short message").to_be_bytes().as_slice(), &bytes].concat()
    }
}

/// A frame with a UDP datagram of this payload.
pub fn datagram(from: Endpoint, to: Endpoint, payload: &[u8]) -> Vec<u8> {
    ethernet(&frame::packet(from.0, to.0, UDP, &udp_datagram(from, to, payload)))
}

/// A frame with a TCP segment of this payload, whose sequence number is given.
pub fn segment(from: Endpoint, to: Endpoint, flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = tcp_header(from, to, flags, (sequence, 0x2000));
    bytes.extend_from_slice(payload);
    ethernet(&frame::packet(from.0, to.0, TCP, &bytes))
}
