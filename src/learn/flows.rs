//! The connections of a capture. Memory is bounded: of two halves the older one is forgotten when the younger one is
//! full. A connection that goes on moves to the younger half.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;

use crate::drops::Seeded;

/// Connections in one half.
const HALF: usize = 1 << 16;

/// One end of a connection.
pub(super) type End = (IpAddr, u16);

/// Both ends of a connection, by who opened it.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) opener: (IpAddr, u16),
    pub(super) answerer: (IpAddr, u16),
    pub(super) protocol: u8,
    /// The port or the type that was opened.
    pub(super) port: u16,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody opened it.
    Asked,
    /// The other end agreed.
    Answered,
    /// Both ends have agreed.
    Open,
    /// The other end refused.
    Refused,
    /// It began before the capture.
    Before,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Whether its lower end opened it.
    pub(super) by_lower: bool,
    pub(super) step: Step,
    /// Of the SYN that opened it.
    pub(super) sequence: u32,
    /// When it was last seen, seconds since the begin of the capture.
    pub(super) last_s: u32,
    /// It began so early that its first packet may be an answer.
    pub(super) is_early: bool,
}

/// The connections of a capture.
#[derive(Default)]
pub(super) struct Flows {
    young: HashMap<u64, Flow, Seeded>,
    old: HashMap<u64, Flow, Seeded>,
    hasher: Seeded,
    /// Connections that were forgotten for want of room.
    pub(super) forgotten: u64,
}

impl Flows {
    /// The key of a connection, and whether `from` is its lower end.
    pub(super) fn key(&self, from: End, to: End, protocol: u8) -> (u64, bool) {
        let is_lower = from <= to;
        let ends = if is_lower { (from, to) } else { (to, from) };
        (self.hasher.hash_one((ends, protocol)), is_lower)
    }

    pub(super) fn get(&self, key: u64) -> Option<Flow> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    pub(super) fn set(&mut self, key: u64, flow: Flow) {
        if self.young.len() >= HALF && !self.young.contains_key(&key) {
            self.forgotten += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, flow);
    }
}
