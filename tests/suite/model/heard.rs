//! Which peers asked a service, so that a late answer to them is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How long an epoch is. What a peer asked is remembered in its epoch and in the next.
const EPOCH_NS: u64 = 600 * 1_000_000_000;

/// A word of the memory takes eight bytes, and has so many bits for peers.
const WORD_BYTES: u32 = 8;
const WORD_BITS: usize = 48;
/// Bits that a peer sets, at most: they may be set already.
const PEER_BITS: usize = 4;
/// Parts of the memory. A server uses one of them, and nothing tells which.
const REGIONS: u32 = 16;
/// With so many peers for each word more than half of the bits are set, but for one time in many billions.
const SURELY_FULL: usize = 30;

/// Whom a peer asked for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeardKey {
    /// By its name, for it may answer from another of its addresses.
    pub server: String,
    pub peer: IpAddr,
    /// Protocol and port of the service; ICMP: the type of the request. None: the ports could not be read.
    pub service: Option<(u8, u16)>,
}

/// What the memory says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    Never,
    Heard,
    /// Its bits are set by others.
    ByChance,
    /// The memory is full, so everybody counts as heard.
    Presumed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fullness {
    Not,
    Perhaps,
    Surely,
}

#[derive(Default)]
pub struct Heard {
    epochs: BTreeMap<u64, BTreeSet<HeardKey>>,
    /// Words of one region, in each of the two halves.
    words: usize,
    /// The epoch, where another clock than the gate's tells it.
    epoch: Option<u64>,
}

impl Heard {
    /// Sets for how many peers there is room. Each of them takes a byte in each half.
    pub fn set_size(&mut self, peers: u32) {
        let words = (peers / REGIONS / WORD_BYTES).max(1).next_power_of_two();
        self.words = words as usize;
    }

    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = Some(epoch);
    }

    fn epoch(&self, now_ns: u64) -> u64 {
        self.epoch.unwrap_or(now_ns / EPOCH_NS)
    }

    pub fn remember(&mut self, key: HeardKey, now_ns: u64) {
        let epoch = self.epoch(now_ns);
        self.epochs.retain(|of, _| of + 3 >= epoch);
        self.epochs.entry(epoch).or_default().insert(key);
    }

    /// What may be right about a peer that is sent an answer of this service: the likeliest first.
    pub fn recall(&self, key: &HeardKey, now_ns: u64) -> Vec<Memory> {
        let any = HeardKey { service: None, ..key.clone() };
        let halves = || self.halves(now_ns).map(|half| (half, self.fullness(half, &key.server)));
        let has = |half: &BTreeSet<HeardKey>| half.contains(key) || half.contains(&any);
        if halves().any(|(half, full)| has(half) && full == Fullness::Not) {
            return vec![Memory::Heard];
        }
        let presumed = halves().any(|(_, full)| full == Fullness::Surely);
        let mut memories = Vec::new();
        let mut add = |memory, condition| memories.extend(Some(memory).filter(|_| condition));
        add(Memory::Presumed, presumed);
        add(Memory::Heard, halves().any(|(half, full)| has(half) && full != Fullness::Surely));
        add(Memory::Never, !presumed && !halves().any(|(half, _)| has(half)));
        add(Memory::Presumed, !presumed && halves().any(|(_, full)| full == Fullness::Perhaps));
        let may_match = |(half, full): (&BTreeSet<HeardKey>, Fullness)| {
            !has(half) && !half.is_empty() && full != Fullness::Surely
        };
        add(Memory::ByChance, halves().any(may_match));
        memories
    }

    /// Whether a peer may have opened something whose ports could not be read. A full memory is no reason
    /// to think so, but bits that are set are.
    pub fn recall_unread(&self, server: &str, peer: IpAddr, now_ns: u64) -> Vec<Memory> {
        let key = HeardKey { server: server.to_owned(), peer, service: None };
        if self.halves(now_ns).any(|half| half.contains(&key)) {
            vec![Memory::Heard]
        } else if self.halves(now_ns).any(|half| !half.is_empty()) {
            vec![Memory::Never, Memory::ByChance]
        } else {
            vec![Memory::Never]
        }
    }

    /// Whether the peer was heard to ask this.
    pub fn has(&self, key: &HeardKey, now_ns: u64) -> bool {
        self.halves(now_ns).any(|half| half.contains(key))
    }

    /// Whether the peer was heard, but too long ago.
    pub fn has_forgotten(&self, key: &HeardKey, now_ns: u64) -> bool {
        let epoch = self.epoch(now_ns);
        self.epochs.iter().any(|(of, keys)| of + 1 < epoch && keys.contains(key)) && !self.has(key, now_ns)
    }

    /// Whether the peer was heard in the epoch before this one, and not since.
    pub fn is_old(&self, key: &HeardKey, now_ns: u64) -> bool {
        let now = self.epochs.get(&self.epoch(now_ns));
        self.has(key, now_ns) && !now.is_some_and(|half| half.contains(key))
    }

    pub fn count(&self) -> usize {
        self.epochs.values().map(BTreeSet::len).sum()
    }

    /// What was heard in this epoch and in the one before.
    fn halves(&self, now_ns: u64) -> impl Iterator<Item = &BTreeSet<HeardKey>> {
        let epoch = self.epoch(now_ns);
        [epoch, epoch.wrapping_sub(1)].into_iter().filter_map(|epoch| self.epochs.get(&epoch))
    }

    /// Whether more than half of the bits of this server's region are set. Others may share the region.
    fn fullness(&self, half: &BTreeSet<HeardKey>, server: &str) -> Fullness {
        let own = half.iter().filter(|key| key.server == server).count();
        if half.len() * PEER_BITS * 2 <= self.words * WORD_BITS {
            Fullness::Not
        } else if own >= SURELY_FULL * self.words {
            Fullness::Surely
        } else {
            Fullness::Perhaps
        }
    }
}
