//! What is known of the connections of a capture. Memory is bounded: of two halves the older one is forgotten when the
//! younger one is full.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;

use crate::drops::Seeded;

/// Connections in one half.
const HALF: usize = 1 << 20;

/// Both ends of a connection, the server's first.
pub(super) type Ends = ((IpAddr, u16), (IpAddr, u16), u8);

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its first packet is in the capture, and passed.
    Begun,
    /// Its first packet is in the capture, and was dropped: it is in this row of the counts.
    Refused(usize),
}

/// The connections of a capture.
#[derive(Default)]
pub(super) struct Conversations {
    young: HashMap<u64, State, Seeded>,
    old: HashMap<u64, State, Seeded>,
    hasher: Seeded,
}

impl Conversations {
    pub(super) fn set(&mut self, ends: &Ends, state: State) {
        let key = self.hasher.hash_one(ends);
        if self.young.len() >= HALF && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, state);
    }

    pub(super) fn get(&self, ends: &Ends) -> Option<State> {
        let key = self.hasher.hash_one(ends);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }
}
