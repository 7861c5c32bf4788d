//! Names of addresses, from the DNS answers in the same traffic. A name stands in a need where the gate would have let
//! every opening pass by it: its server was answered the address for that name, and not too long before. Elsewhere it is a
//! comment.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::scope::ServerId;
use crate::abi::layout;
use crate::capture::Timestamp;
use crate::drops::Seeded;
use crate::net::DomainName;
use crate::net::frame::read_u16;
use crate::policy::TimeToLive;

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

/// How long an opening keeps its address open, at most as long after the last answer as that may open it.
const KEPT_OPEN_S: u64 = 3_600;
const S: u64 = 1_000_000_000;

/// How long an answer opens an address that may be open for so many seconds, as the gate does it.
fn with_grace(seconds: u32) -> u64 {
    (u64::from(seconds) + u64::from(layout::GRANT_GRACE_S.0)) * S
}

/// What an answer says: a name, and the seconds for which it has an address.
pub type Answer = (String, Vec<(IpAddr, u32)>);

/// An address that a server was answered, as the gate would grant it.
struct Grant {
    name: NameId,
    answered_ns: Timestamp,
    until_ns: Timestamp,
}

/// A name, and who answered it to servers.
struct Known {
    text: Arc<str>,
    resolvers: BTreeSet<IpAddr>,
}

/// A number of a name.
pub(super) type NameId = u32;

/// The names of addresses.
#[derive(Default)]
pub(super) struct Names {
    /// The first name of each address, for comments.
    first: HashMap<IpAddr, Arc<str>, Seeded>,
    /// By the server that asked, for needs.
    grants: HashMap<(ServerId, IpAddr), Grant, Seeded>,
    known: Vec<Known>,
    ids: HashMap<Arc<str>, NameId, Seeded>,
}

impl Names {
    /// Notes what an answer says. `asked_by`: the server that it answers.
    pub(super) fn note(
        &mut self,
        payload: &[u8],
        asked_by: Option<ServerId>,
        resolver: IpAddr,
        time_ns: Timestamp,
    ) {
        let Some((name, addresses)) = read_answer(payload) else { return };
        let name: Arc<str> = name.into();
        for (address, ttl_s) in addresses {
            self.note_name(address, || Arc::clone(&name));
            if let Some(server) = asked_by {
                self.grant((server, address), &name, ttl_s, resolver, time_ns);
            }
        }
    }

    /// Of several names that a server was answered an address for, the first one counts.
    fn grant(
        &mut self,
        key: (ServerId, IpAddr),
        name: &Arc<str>,
        ttl_s: u32,
        resolver: IpAddr,
        time_ns: Timestamp,
    ) {
        let is_full = self.grants.len() >= MAX_NAMES && !self.grants.contains_key(&key);
        let Some(id) = self.number(name).filter(|_| !is_full) else { return };
        let ttl = TimeToLive::default();
        let open_ns = with_grace(ttl_s.clamp(ttl.floor_s, ttl.cap_s));
        let grant = self.grants.entry(key).or_insert(Grant { name: id, answered_ns: time_ns, until_ns: 0 });
        if grant.name == id {
            grant.answered_ns = grant.answered_ns.max(time_ns);
            grant.until_ns = grant.until_ns.max(time_ns.saturating_add(open_ns));
            if let Some(known) = self.known.get_mut(id as usize) {
                known.resolvers.insert(resolver);
            }
        }
    }

    /// `None`: no policy may have it, or there are too many.
    fn number(&mut self, name: &Arc<str>) -> Option<NameId> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        // in a policy, what ends in a number is an address
        let is_name = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.contains(|letter: char| !letter.is_ascii_digit()));
        if self.known.len() >= MAX_NAMES || !is_name || DomainName::parse(name).is_err() {
            return None;
        }
        let id = NameId::try_from(self.known.len()).ok()?;
        self.known.push(Known { text: Arc::clone(name), resolvers: BTreeSet::new() });
        self.ids.insert(Arc::clone(name), id);
        Some(id)
    }

    /// A server opens something. The name by which the gate would let it pass: one that the server was answered, and
    /// whose time is not over.
    pub(super) fn use_grant(&mut self, server: ServerId, peer: IpAddr, time_ns: Timestamp) -> Option<NameId> {
        let grant = self.grants.get_mut(&(server, peer)).filter(|grant| time_ns < grant.until_ns)?;
        let cap_ns = grant.answered_ns.saturating_add(with_grace(TimeToLive::default().cap_s));
        grant.until_ns = grant.until_ns.max(time_ns.saturating_add(KEPT_OPEN_S * S).min(cap_ns));
        Some(grant.name)
    }

    /// Notes the name of an address, unless it has one.
    pub(super) fn note_name(&mut self, address: IpAddr, name: impl FnOnce() -> Arc<str>) {
        if self.first.len() < MAX_NAMES || self.first.contains_key(&address) {
            self.first.entry(address).or_insert_with(name);
        }
    }

    /// The name of an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.first.get(&address)
    }

    /// The text of a name.
    pub(super) fn text_of(&self, name: NameId) -> Option<&Arc<str>> {
        self.known.get(name as usize).map(|known| &known.text)
    }

    /// Who has answered a name.
    pub(super) fn resolvers_of(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        let id = self.ids.get(name)?;
        self.known.get(*id as usize).map(|known| &known.resolvers)
    }
}

/// The question of a DNS answer and the addresses in it, as far as it was captured. `None`: it is none, or its name has
/// other letters than those of host names.
pub fn read_answer(payload: &[u8]) -> Option<Answer> {
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

/// The address of a record with its time, if it has one, and where the next record begins.
fn read_record(payload: &[u8], at: usize) -> Option<(Option<(IpAddr, u32)>, usize)> {
    let at = skip_name(payload, at)?;
    let (kind, class) = (read_u16(payload, at)?, read_u16(payload, at + 2)?);
    let ttl_s = u32::from(read_u16(payload, at + 4)?) << 16 | u32::from(read_u16(payload, at + 6)?);
    let length = usize::from(read_u16(payload, at + 8)?);
    let data = payload.get(at + 10..at + 10 + length)?;
    let address: Option<IpAddr> = match (kind, class, data.len()) {
        (A, INTERNET, 4) => data.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        (AAAA, INTERNET, 16) => data.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    };
    Some((address.map(|address| (address, ttl_s)), at + 10 + length))
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
