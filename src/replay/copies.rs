//! Packets that a capture has twice: as they came in, and as the router sent them on. The second has the same bytes and
//! one hop less.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;

use crate::capture::{Facts, Frame, Source};
use crate::drops::Seeded;

/// How long a router may keep a packet, nanoseconds.
const DWELL_NS: u64 = 1_000_000_000;
/// Packets that are remembered at most.
const MAX_PACKETS: usize = 65_536;
/// Bytes behind the IP header that are compared.
const COMPARED_BYTES: usize = 64;

/// A packet that was seen before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    time_ns: u64,
    pub(super) source: Source,
    hop_limit: u8,
    /// The filter dropped it, so this copy would not have been sent.
    pub(super) is_dropped: bool,
}

/// The packets of the last second.
#[derive(Default)]
pub(super) struct Copies {
    seen: HashMap<u64, Seen, Seeded>,
    order: VecDeque<(u64, u64)>,
    hasher: Seeded,
}

impl Copies {
    /// Remembers a packet.
    pub(super) fn note(&mut self, frame: &Frame, facts: &Facts, is_dropped: bool) {
        let Some(hash) = self.hash(frame, facts) else { return };
        while self.order.len() >= MAX_PACKETS
            || self.order.front().is_some_and(|(time_ns, _)| is_old(*time_ns, frame.time_ns))
        {
            let Some((time_ns, hash)) = self.order.pop_front() else { break };
            if self.seen.get(&hash).is_some_and(|seen| seen.time_ns == time_ns) {
                self.seen.remove(&hash);
            }
        }
        let (time_ns, source, hop_limit) = (frame.time_ns, frame.source, facts.hop_limit);
        self.seen.insert(hash, Seen { time_ns, source, hop_limit, is_dropped });
        self.order.push_back((time_ns, hash));
    }

    /// The packet of which this frame is the copy that a router sent on.
    pub(super) fn find(&self, frame: &Frame, facts: &Facts) -> Option<Seen> {
        let seen = self.seen.get(&self.hash(frame, facts)?)?;
        let is_copy =
            !is_old(seen.time_ns, frame.time_ns) && seen.hop_limit.checked_sub(1) == Some(facts.hop_limit);
        is_copy.then_some(*seen)
    }

    /// Everything that a router leaves as it is: not the hop limit, nor the header's checksum.
    fn hash(&self, frame: &Frame, facts: &Facts) -> Option<u64> {
        let ip = frame.bytes.get(facts.ip_at..)?;
        let end = (facts.transport_at + COMPARED_BYTES).min(frame.bytes.len());
        let rest = frame.bytes.get(facts.transport_at..end)?;
        let head: (&[u8], &[u8]) = match facts.source.is_ipv4() {
            true => (ip.get(2..8)?, ip.get(12..20)?),
            false => (ip.get(1..7)?, ip.get(8..40)?),
        };
        Some(self.hasher.hash_one((head, facts.protocol, rest)))
    }
}

fn is_old(then_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(then_ns) > DWELL_NS
}
