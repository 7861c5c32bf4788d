//! Names of addresses, from the DNS answers in the same traffic. A name is only ever a comment.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::drops::Seeded;
use crate::net::frame::read_u16;

/// Addresses whose names are remembered.
const MAX_NAMES: usize = 16_384;
/// The longest name that is printed.
const MAX_NAME_BYTES: usize = 253;
const HEADER_BYTES: usize = 12;
const IS_ANSWER: u16 = 0x8000;
const RCODE: u16 = 0x000f;
const A: u16 = 1;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;

/// The first name of each address.
#[derive(Default)]
pub(super) struct Names(HashMap<IpAddr, Arc<str>, Seeded>);

impl Names {
    /// Notes what an answer says.
    pub(super) fn note(&mut self, payload: &[u8]) {
        let Some((name, addresses)) = read_answer(payload) else { return };
        let name: Arc<str> = name.into();
        for address in addresses {
            if self.0.len() < MAX_NAMES || self.0.contains_key(&address) {
                self.0.entry(address).or_insert_with(|| Arc::clone(&name));
            }
        }
    }

    /// Notes a name that somebody else has read.
    pub(super) fn note_name(&mut self, address: IpAddr, name: &str) {
        if self.0.len() < MAX_NAMES || self.0.contains_key(&address) {
            self.0.entry(address).or_insert_with(|| name.into());
        }
    }

    /// The name of an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.0.get(&address)
    }
}

/// The question of a DNS answer and the addresses in it, as far as it was captured. `None`: it is none, or its name has
/// other letters than those of host names.
pub fn read_answer(payload: &[u8]) -> Option<(String, Vec<IpAddr>)> {
    let flags = read_u16(payload, 2)?;
    let (questions, answers) = (read_u16(payload, 4)?, read_u16(payload, 6)?);
    if flags & IS_ANSWER == 0 || flags & RCODE != 0 || questions != 1 {
        return None;
    }
    let (name, end) = read_name(payload, HEADER_BYTES)?;
    let mut at = end + 4;
    let mut addresses = Vec::new();
    for _ in 0..answers {
        let Some((address, next)) = read_record(payload, at) else { break };
        addresses.extend(address);
        at = next;
    }
    (!addresses.is_empty()).then_some((name, addresses))
}

/// The address of a record, if it has one, and where the next record begins.
fn read_record(payload: &[u8], at: usize) -> Option<(Option<IpAddr>, usize)> {
    let at = skip_name(payload, at)?;
    let (kind, class) = (read_u16(payload, at)?, read_u16(payload, at + 2)?);
    let length = usize::from(read_u16(payload, at + 8)?);
    let data = payload.get(at + 10..at + 10 + length)?;
    let address = match (kind, class, data.len()) {
        (A, INTERNET, 4) => data.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        (AAAA, INTERNET, 16) => data.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    };
    Some((address, at + 10 + length))
}

/// A name without pointers, as a question has it, and where it ends.
fn read_name(payload: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*payload.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 || name.len() + length + 1 > MAX_NAME_BYTES {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in payload.get(at..at + length)? {
            let letter = char::from(byte.to_ascii_lowercase());
            if !(letter.is_ascii_alphanumeric() || letter == '-' || letter == '_') {
                return None;
            }
            name.push(letter);
        }
        at += length;
    }
    (!name.is_empty()).then_some((name, at))
}

/// Where a name ends. A pointer ends it, and is not followed.
fn skip_name(payload: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *payload.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            192..=255 => return payload.get(at + 1).map(|_| at + 2),
            64..=191 => return None,
        }
    }
}
