//! Which peers asked a service, so that a late answer to them is expected.

use std::collections::BTreeMap;
use std::net::IpAddr;

const SURELY_NS: u64 = 600 * 1_000_000_000;
const PERHAPS_NS: u64 = 1200 * 1_000_000_000;

/// Whom a peer asked for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeardKey {
    pub server: IpAddr,
    pub peer: IpAddr,
    /// Protocol and port of the service; ICMP: the type of the request. None: the ports could not be read.
    pub service: Option<(u8, u16)>,
}

/// How well a peer is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    Never,
    /// Between ten and twenty minutes ago: either is right.
    Perhaps,
    Surely,
}

#[derive(Default)]
pub struct Heard {
    last_ns: BTreeMap<HeardKey, u64>,
}

impl Heard {
    pub fn remember(&mut self, key: HeardKey, now_ns: u64) {
        self.last_ns.insert(key, now_ns);
    }

    pub fn recall(&self, key: &HeardKey, now_ns: u64) -> Memory {
        match self.last_ns.get(key).map(|last_ns| now_ns - last_ns) {
            Some(age) if age <= SURELY_NS => Memory::Surely,
            Some(age) if age <= PERHAPS_NS => Memory::Perhaps,
            _ => Memory::Never,
        }
    }

    pub fn count(&self) -> usize {
        self.last_ns.len()
    }
}
