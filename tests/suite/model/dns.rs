//! DNS messages (RFC 1035, 4), as far as names as destinations need them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{u16_at, u32_at};

const HEADER_BYTES: usize = 12;
/// decided: of a message so much is read, and so many records and labels of their owners.
const MESSAGE_BYTES: usize = 4096;
const RECORD_STEPS: usize = 256;
/// decided: of a query so much.
const QUERY_BYTES: usize = 512;
const LONGEST_NAME: usize = 255;
const INTERNET: u16 = 1;
const A: u16 = 1;
const AAAA: u16 = 28;

/// A question: its name in lower case, label by label, its type and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub labels: Vec<Vec<u8>>,
    pub kind: u16,
    pub class: u16,
}

/// An address of an answer section, and for how many seconds it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRecord {
    pub address: IpAddr,
    pub ttl: u32,
}

/// A query: its id and its question.
pub fn read_query(bytes: &[u8]) -> Option<(u16, Question)> {
    let bytes = &bytes[..bytes.len().min(QUERY_BYTES)];
    let (id, flags) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
    // QR and opcode
    if flags & 0xf800 != 0 || u16_at(bytes, 4)? != 1 {
        return None;
    }
    read_question(bytes).map(|(question, _)| (id, question))
}

/// The question of a message that is one whole query, with nothing behind it but EDNS (RFC 6891, 6.1.2). Of the flags
/// it may have RD, AD and CD.
pub fn read_whole_query(bytes: &[u8]) -> Option<Question> {
    const OPT_BYTES: usize = 11;
    const OPT: u16 = 41;
    let flags = u16_at(bytes, 2)?;
    let counts = [u16_at(bytes, 4)?, u16_at(bytes, 6)?, u16_at(bytes, 8)?, u16_at(bytes, 10)?];
    if bytes.len() > QUERY_BYTES || flags & !0x0130 != 0 || counts[..3] != [1, 0, 0] || counts[3] > 1 {
        return None;
    }
    let (question, end) = read_question(bytes)?;
    let whole = match counts[3] {
        0 => end,
        _ if bytes.get(end) == Some(&0) && u16_at(bytes, end + 1)? == OPT => {
            end + OPT_BYTES + usize::from(u16_at(bytes, end + 9)?)
        }
        _ => return None,
    };
    (whole == bytes.len()).then_some(question)
}

/// A response without an error, to one question, with an answer section.
pub struct Response<'m> {
    pub id: u16,
    pub question: Option<Question>,
    message: &'m [u8],
    answers: usize,
    at: usize,
}

pub fn read_response(bytes: &[u8]) -> Option<Response<'_>> {
    let message = &bytes[..bytes.len().min(MESSAGE_BYTES)];
    // decided: what has no room for a question is none
    if message.len() < HEADER_BYTES + 5 {
        return None;
    }
    let flags = u16_at(message, 2)?;
    // QR, opcode and rcode; decided: one that says it is cut is read all the same
    if flags & 0xf80f != 0x8000 || u16_at(message, 4)? != 1 {
        return None;
    }
    let answers = usize::from(u16_at(message, 6)?);
    if answers == 0 {
        return None;
    }
    let (question, at) = read_question(message).unzip();
    Some(Response { id: u16_at(message, 0)?, question, message, answers, at: at.unwrap_or(0) })
}

impl Response<'_> {
    /// The addresses of the answer section, up to where it can't be read.
    pub fn addresses(&self) -> Vec<AddressRecord> {
        let mut found = Vec::new();
        let (mut at, mut steps) = (self.at, 0);
        for _ in 0..self.answers {
            let Some(next) = read_record(self.message, at, &mut steps, &mut found) else { break };
            at = next;
        }
        found
    }
}

/// The offset behind a record.
fn read_record(
    message: &[u8],
    mut at: usize,
    steps: &mut usize,
    found: &mut Vec<AddressRecord>,
) -> Option<usize> {
    loop {
        *steps += 1;
        if *steps > RECORD_STEPS {
            return None;
        }
        match *message.get(at)? {
            0 => {
                at += 1;
                break;
            }
            // never followed
            0xc0.. => {
                at += 2;
                break;
            }
            length @ 1..64 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
    let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
    let (ttl, length) = (u32_at(message, at + 4)?, usize::from(u16_at(message, at + 8)?));
    let data = message.get(at + 10..at + 10 + length)?;
    if class == INTERNET && (kind == A || kind == AAAA) {
        let address = match (kind, data) {
            (A, &[a, b, c, d]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            (AAAA, data) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => return None,
        };
        found.push(AddressRecord { address, ttl });
    }
    Some(at + 10 + length)
}

/// The question, and the offset behind it. Its name is not compressed.
fn read_question(message: &[u8]) -> Option<(Question, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER_BYTES;
    loop {
        match usize::from(*message.get(at)?) {
            0 => {
                at += 1;
                break;
            }
            length @ 1..64 => {
                labels.push(message.get(at + 1..at + 1 + length)?.to_ascii_lowercase());
                at += length + 1;
            }
            _ => return None,
        }
    }
    if at - HEADER_BYTES > LONGEST_NAME {
        return None;
    }
    let question = Question { labels, kind: u16_at(message, at)?, class: u16_at(message, at + 2)? };
    Some((question, at + 4))
}
