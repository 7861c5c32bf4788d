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
    /// Of IPv4 alone: IPv6 is put together without it (RFC 8200, 4.5).
    pub protocol: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentState {
    pub passed_ns: u64,
    /// Of IPv6: what the fragment header names.
    pub protocol: u8,
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
        let protocol = packet.source.is_ipv4().then_some(protocol);
        Self { source: packet.source, destination: packet.destination, id, protocol }
    }
}

#[derive(Default)]
pub struct Fragments {
    pub passed: BTreeMap<FragmentKey, FragmentState>,
}

impl Fragments {
    /// The first fragment of what this is a later fragment of, under whatever policy it passed.
    /// decided: a later one of another protocol is none of its own, though IPv6 would take it.
    pub fn find_first(&self, packet: &Packet, now_ns: u64) -> Option<&FragmentState> {
        self.find_earlier(packet, now_ns).filter(|first| first.protocol == packet.fragment.1)
    }

    fn find_earlier(&self, packet: &Packet, now_ns: u64) -> Option<&FragmentState> {
        self.passed.get(&FragmentKey::of(packet)).filter(|first| now_ns - first.passed_ns <= TIMEOUT_NS)
    }

    /// decided: a first fragment that passes again counts from then, and never lays open headers that
    /// an earlier one had.
    pub fn remember(&mut self, packet: &Packet, mut state: FragmentState) {
        if let Some(earlier) = self.find_earlier(packet, state.passed_ns) {
            state.headers = state.headers.max(earlier.headers);
        }
        self.passed.insert(FragmentKey::of(packet), state);
    }
}
