//! First fragments: those that passed, and those that were dropped.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis::abi::Reason;

use super::packet::Packet;

/// As long as a receiver may keep a first fragment.
const TIMEOUT_NS: u64 = 30 * 1_000_000_000;
/// .. of IPv6 (RFC 8200, 4.5).
const TIMEOUT_V6_NS: u64 = 60 * 1_000_000_000;
/// What all later fragments of one datagram may carry together.
const LATER_BYTES_MAX: u32 = 65_535;

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
    /// Data of the later ones that followed it.
    pub later_bytes: u32,
    /// How often the edits had changed when it passed.
    pub edit_changes: u32,
    /// Until when the edit holds that let it pass; none: the policy did.
    pub edit_until: Option<u64>,
}

impl FragmentState {
    /// Whether one more later fragment can belong to the datagram.
    pub fn has_room_for(&self, bytes: u32) -> bool {
        self.later_bytes + bytes <= LATER_BYTES_MAX
    }
}

/// A first fragment that was dropped: later ones are counted under the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFragment {
    pub refused_ns: u64,
    /// As in [`FragmentState`].
    pub fragment_protocol: u8,
    pub reason: Reason,
    pub port: u16,
    pub protocol: u8,
    pub quiet: bool,
    pub own_port: bool,
    pub presumed: bool,
    pub needs: Vec<u32>,
}

impl FragmentKey {
    pub fn of(packet: &Packet) -> Self {
        Self::new(packet.source, packet.destination, packet.fragment)
    }

    pub fn new(source: IpAddr, destination: IpAddr, fragment: (u32, u8)) -> Self {
        let (id, protocol) = fragment;
        Self { source, destination, id, protocol: source.is_ipv4().then_some(protocol) }
    }
}

#[derive(Default)]
pub struct Fragments {
    pub passed: BTreeMap<FragmentKey, FragmentState>,
    pub refused: BTreeMap<FragmentKey, RefusedFragment>,
}

impl Fragments {
    /// The first fragment of what this is a later fragment of, under whatever policy it passed.
    /// decided: a later one of another protocol is none of its own, though IPv6 would take it.
    pub fn find_first(&self, packet: &Packet, now_ns: u64) -> Option<&FragmentState> {
        self.passed
            .get(&FragmentKey::of(packet))
            .filter(|first| now_ns - first.passed_ns <= reassembly_ns(packet))
    }

    /// The same, of what was dropped. decided: as long as a receiver may wait for the rest.
    pub fn find_refused(&self, packet: &Packet, now_ns: u64) -> Option<&RefusedFragment> {
        self.refused
            .get(&FragmentKey::of(packet))
            .filter(|first| now_ns - first.refused_ns <= reassembly_ns(packet))
            .filter(|first| first.fragment_protocol == packet.fragment.1)
    }

    /// decided: a first fragment that passes again counts from then, and never lays open headers that
    /// an earlier one had.
    pub fn remember(&mut self, packet: &Packet, mut state: FragmentState) {
        let key = FragmentKey::of(packet);
        let protection = reassembly_ns(packet);
        if let Some(earlier) =
            self.passed.get(&key).filter(|first| state.passed_ns - first.passed_ns <= protection)
        {
            state.headers = state.headers.max(earlier.headers);
        }
        self.passed.insert(key, state);
    }

    pub fn refuse(&mut self, key: FragmentKey, state: RefusedFragment) {
        self.refused.insert(key, state);
    }

    /// A later fragment passes.
    pub fn count(&mut self, packet: &Packet) {
        if let Some(first) = self.passed.get_mut(&FragmentKey::of(packet)) {
            first.later_bytes += packet.data;
        }
    }
}

fn reassembly_ns(packet: &Packet) -> u64 {
    if packet.source.is_ipv6() { TIMEOUT_V6_NS } else { TIMEOUT_NS }
}
