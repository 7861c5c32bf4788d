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
    /// How far the headers reach that it was judged by, bytes from its start.
    pub headers: u32,
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
    /// The first fragment of what this is a later fragment of, under whatever policy it passed.
    pub fn find_first(&self, packet: &Packet, now_ns: u64) -> Option<&FragmentState> {
        self.passed.get(&FragmentKey::of(packet)).filter(|first| now_ns - first.passed_ns <= TIMEOUT_NS)
    }

    /// decided: a first fragment that passes again counts from then, and never lays open headers that
    /// an earlier one had.
    pub fn remember(&mut self, packet: &Packet, mut state: FragmentState) {
        if let Some(earlier) = self.find_first(packet, state.passed_ns) {
            state.headers = state.headers.max(earlier.headers);
        }
        self.passed.insert(FragmentKey::of(packet), state);
    }
}
