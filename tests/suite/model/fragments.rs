//! First fragments that passed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::packet::Packet;

const TIMEOUT_NS: u64 = 30 * 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FragmentKey {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub id: u32,
    /// Of IPv6: what the fragment header names.
    pub protocol: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentState {
    pub passed_ns: u64,
    pub generation: u32,
    /// Whether it was an answer to `management`.
    pub management: bool,
    /// Lines of the needs that let it pass.
    pub needs: Vec<u32>,
}

impl FragmentKey {
    pub fn of(packet: &Packet) -> Self {
        let (id, protocol) = packet.fragment;
        Self { source: packet.source, destination: packet.destination, id, protocol }
    }
}

#[derive(Default)]
pub struct Fragments {
    pub passed: BTreeMap<FragmentKey, FragmentState>,
}

impl Fragments {
    /// The first fragment of what this is a later fragment of, if it still counts.
    pub fn find_first(&self, packet: &Packet, generation: u32, now_ns: u64) -> Option<&FragmentState> {
        self.passed
            .get(&FragmentKey::of(packet))
            .filter(|first| first.generation == generation && now_ns - first.passed_ns <= TIMEOUT_NS)
    }

    /// decided: a first fragment that passes again counts from then.
    pub fn remember(&mut self, packet: &Packet, state: FragmentState) {
        self.passed.insert(FragmentKey::of(packet), state);
    }
}
