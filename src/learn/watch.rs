//! Reads each frame of a capture once: who opened what, and who answered.
//!
//! A TCP connection was opened by whoever sent the SYN, or was sent the SYN+ACK. It is evidence for the opener when the
//! other end agreed, and for the server that offers it when the opener went on. So one direction alone is enough for
//! TCP. A datagram, a query of ICMP and a packet of another protocol open what the first of them began, and they are
//! evidence when the other end sends something. Ports never decide who opened.

use std::net::IpAddr;

use super::evidence::{NameUse, Opening, Service};
use super::flows::{Ends, Flow, Flows, Step};
use super::scope::Servers;
use super::seen::Seen;
use super::suspicion::Suspicion;
use crate::capture::{Facts, Frame, LinkType, Position, Timestamp, Trouble};
use crate::net::tcp_flags::{ACK, FIN, RST, SYN};
use crate::net::{TCP, UDP, find_icmp_answer, is_icmp, read_udp_payload};
use crate::policy::Direction;

/// How long after the begin of a capture a datagram may answer a question from before.
const ANSWER_NS: u64 = 30_000_000_000;
/// After such a silence, seconds, a datagram opens anew.
const SILENCE_S: u32 = 120;
/// Connections from before the capture that are named one by one.
const MAX_BEFORE: usize = 64;
const S: u64 = 1_000_000_000;
const DNS: u16 = 53;
/// Neighbour discovery and the like, which the gate lets through by itself.
const LINK_ICMPV6: std::ops::RangeInclusive<u16> = 130..=143;
const IGMP: u8 = crate::net::IGMP;

/// Reads frames.
pub(super) struct FrameReader<'a> {
    seen: Seen<'a>,
    flows: Flows,
    suspicion: Suspicion,
    /// Only what the policy does not permit is evidence.
    is_increment: bool,
}

impl<'a> FrameReader<'a> {
    pub(super) fn new(servers: &'a Servers<'a>, is_increment: bool) -> FrameReader<'a> {
        FrameReader {
            seen: Seen::new(servers),
            flows: Flows::default(),
            suspicion: Suspicion::new(),
            is_increment,
        }
    }

    /// Reads a frame.
    pub(super) fn note(&mut self, frame: &Frame) {
        let seen = &mut self.seen;
        seen.packets += 1;
        seen.first_ns.get_or_insert(frame.time_ns);
        seen.last_ns = seen.last_ns.max(frame.time_ns);
        match frame.trouble {
            Some(Trouble::LinkType(_) | Trouble::Cut) => {
                seen.unread += 1;
                return;
            }
            Some(Trouble::NoFrame) => return,
            None => {}
        }
        let Some(facts) = frame.facts.filter(|facts| facts.position != Position::Later) else { return };
        // no packet has them, and no policy may name them
        if [facts.source, facts.destination].iter().any(is_mapped) {
            return;
        }
        let is_from_server = seen.scope.holds(facts.source);
        let is_to_server = seen.scope.holds(facts.destination);
        seen.has_dhcp |= facts.protocol == UDP && (facts.source_port, facts.destination_port) == (68, 67);
        if !is_from_server && !is_to_server {
            return;
        }
        seen.from_servers += u64::from(is_from_server);
        seen.to_servers += u64::from(is_to_server);
        if frame.link == LinkType::Ethernet
            && let Some(mac) = frame.source_mac
        {
            seen.has_macs = true;
            seen.macs.note(mac, facts.source, is_from_server);
            if is_from_server && let Some(forger) = seen.macs.find_forger(mac, facts.source) {
                if seen.forged.len() < MAX_BEFORE || seen.forged.contains_key(&(forger, facts.source)) {
                    *seen.forged.entry((forger, facts.source)).or_default() += 1;
                }
                self.forget_forged(&facts, frame.time_ns);
                return;
            }
        }
        match facts.protocol {
            TCP => self.note_segment(frame, &facts),
            protocol if is_icmp(protocol) => self.note_icmp(frame, &facts),
            _ => self.note_datagram(frame, &facts, (facts.source_port, facts.destination_port)),
        }
    }

    /// What answers a forged packet is no evidence either.
    fn forget_forged(&mut self, facts: &Facts, time_ns: Timestamp) {
        let ports = match is_icmp(facts.protocol) {
            true => (facts.source_port, facts.source_port),
            false => (facts.source_port, facts.destination_port),
        };
        let (from, to) = ((facts.source, ports.0), (facts.destination, ports.1));
        let (key, by_lower) = self.flows.key(from, to, facts.protocol);
        let last_s = self.seconds(time_ns);
        if self.flows.get(key).is_none() {
            let flow = Flow { by_lower, step: Step::Refused, sequence: 0, last_s, is_early: false };
            self.flows.set(key, flow);
        }
    }

    fn note_segment(&mut self, frame: &Frame, facts: &Facts) {
        let flags = facts.tcp_flags;
        let (from, to) = ((facts.source, facts.source_port), (facts.destination, facts.destination_port));
        let (key, is_lower) = self.flows.key(from, to, TCP);
        let known = self.flows.get(key);
        let last_s = self.seconds(frame.time_ns);
        let forward = Ends { opener: from, answerer: to, protocol: TCP, port: facts.destination_port };
        let backward = Ends { opener: to, answerer: from, protocol: TCP, port: facts.source_port };
        if flags & SYN != 0 {
            if flags & (FIN | RST) != 0 {
                return;
            }
            let sequence = read_sequence(frame, facts);
            if flags & ACK == 0 {
                let is_again =
                    known.is_some_and(|flow| flow.by_lower == is_lower && flow.sequence == sequence);
                if is_again {
                    return;
                }
                let flow = Flow { by_lower: is_lower, step: Step::Asked, sequence, last_s, is_early: false };
                self.flows.set(key, flow);
                self.note_asked(&forward, frame, Some(facts), false);
                return;
            }
            // the answer to a SYN of the other end, whether it was captured or not
            match known {
                Some(flow) if flow.by_lower != is_lower && flow.step == Step::Asked => {
                    self.flows.set(key, Flow { step: Step::Answered, last_s, ..flow });
                    self.note_answered(&backward, frame.time_ns, (true, false));
                }
                Some(flow) if flow.step != Step::Before => {}
                Some(_) | None => {
                    let flow = Flow {
                        by_lower: !is_lower,
                        step: Step::Answered,
                        sequence: 0,
                        last_s,
                        is_early: false,
                    };
                    self.flows.set(key, flow);
                    self.note_answered(&backward, frame.time_ns, (false, false));
                }
            }
            return;
        }
        let Some(flow) = known else {
            if flags & RST == 0 {
                let flow =
                    Flow { by_lower: is_lower, step: Step::Before, sequence: 0, last_s, is_early: false };
                self.flows.set(key, flow);
                self.note_before(from, to, TCP);
            }
            return;
        };
        let is_opener = flow.by_lower == is_lower;
        let ends = if is_opener { forward } else { backward };
        let step = match (flow.step, is_opener) {
            (Step::Asked, false) if flags & RST != 0 => Step::Refused,
            (Step::Answered, _) if flags & RST != 0 => Step::Refused,
            // it goes on after its SYN, so the answer was not captured
            (Step::Asked, true) if flags & (ACK | RST) == ACK => {
                self.note_answered(&ends, frame.time_ns, (true, false));
                self.note_open(&ends, frame.time_ns, false);
                Step::Open
            }
            (Step::Answered, _) if flags & ACK != 0 => {
                self.note_open(&ends, frame.time_ns, false);
                Step::Open
            }
            (step, _) => step,
        };
        self.flows.set(key, Flow { step, last_s, ..flow });
    }

    fn note_icmp(&mut self, frame: &Frame, facts: &Facts) {
        let kind = facts.destination_port;
        if facts.protocol == crate::net::ICMPV6 && LINK_ICMPV6.contains(&kind) {
            return;
        }
        // the identifier stands for both ports
        let id = facts.source_port;
        if find_icmp_answer(facts.protocol, kind).is_some() {
            self.note_exchange(frame, facts, (id, id), kind, true);
        } else if let Some(request) =
            (0..=u16::from(u8::MAX)).find(|request| find_icmp_answer(facts.protocol, *request) == Some(kind))
        {
            self.note_exchange(frame, facts, (id, id), request, false);
        }
    }

    fn note_datagram(&mut self, frame: &Frame, facts: &Facts, ports: (u16, u16)) {
        self.note_exchange(frame, facts, ports, facts.destination_port, true);
        let is_answer = facts.protocol == UDP && facts.source_port == DNS;
        if is_answer
            && self.is_answer_to_server(facts)
            && let Some(payload) = read_udp_payload(&frame.bytes)
        {
            let seen = &mut self.seen;
            // what asks a server of the DMZ is never seen by a gate, and what it answers neither
            let asked_by = match seen.scope.holds(facts.source) {
                true => None,
                false => seen.scope.number(facts.destination),
            };
            seen.names.note(payload.captured, asked_by, facts.source, frame.time_ns);
        }
    }

    /// Whether a datagram answers what a server asked.
    fn is_answer_to_server(&self, facts: &Facts) -> bool {
        let (from, to) = ((facts.source, facts.source_port), (facts.destination, facts.destination_port));
        let (key, is_lower) = self.flows.key(from, to, UDP);
        self.flows.get(key).is_some_and(|flow| flow.by_lower != is_lower && flow.step == Step::Answered)
    }

    /// A packet of a protocol without connections. `port` is what it opens if it opens anything.
    fn note_exchange(
        &mut self,
        frame: &Frame,
        facts: &Facts,
        (from_port, to_port): (u16, u16),
        port: u16,
        may_open: bool,
    ) {
        let (from, to) = ((facts.source, from_port), (facts.destination, to_port));
        let (key, is_lower) = self.flows.key(from, to, facts.protocol);
        let last_s = self.seconds(frame.time_ns);
        let known = self.flows.get(key).filter(|flow| last_s.saturating_sub(flow.last_s) < SILENCE_S);
        let forward = Ends { opener: from, answerer: to, protocol: facts.protocol, port };
        let Some(flow) = known else {
            if may_open {
                let began_ns = self.seen.first_ns.unwrap_or(0);
                let is_early = frame.time_ns.saturating_sub(began_ns) < ANSWER_NS;
                let flow = Flow { by_lower: is_lower, step: Step::Asked, sequence: 0, last_s, is_early };
                self.flows.set(key, flow);
                self.note_asked(&forward, frame, Some(facts), is_early);
            }
            return;
        };
        let is_opener = flow.by_lower == is_lower;
        let mut step = flow.step;
        if !is_opener && flow.step == Step::Asked {
            let opened = if is_icmp(facts.protocol) { port } else { from_port };
            let ends = Ends { opener: to, answerer: from, protocol: facts.protocol, port: opened };
            self.note_answered(&ends, frame.time_ns, (true, flow.is_early));
            self.note_open(&ends, frame.time_ns, flow.is_early);
            step = Step::Answered;
        }
        self.flows.set(key, Flow { step, last_s, ..flow });
    }

    /// Somebody opened something. It counts for the opener if that is a server.
    fn note_asked(&mut self, ends: &Ends, frame: &Frame, facts: Option<&Facts>, is_early: bool) {
        let seen = &mut self.seen;
        let (opener, peer) = (ends.opener.0, ends.answerer.0);
        if !seen.scope.holds(opener) {
            return;
        }
        if self.is_increment {
            let is_permitted = seen.note_use(opener, Direction::Out, ends, frame.time_ns);
            if is_permitted {
                return;
            }
        }
        let Some(server) = seen.scope.number(opener) else { return };
        let service = Service { direction: Direction::Out, protocol: ends.protocol, port: ends.port };
        let name = NameUse::of(seen.find_name(server, peer, frame.time_ns));
        let opening =
            Opening { service, peer, from_port: ends.opener.1, time_ns: frame.time_ns, is_early, name };
        seen.evidence.note_asked(server, &opening);
        let is_chatter = seen.scope.is_for_all(peer) || ends.protocol == IGMP;
        if let Some(facts) = facts.filter(|_| !is_chatter) {
            self.suspicion.note(server, frame, facts);
        }
    }

    /// The other end agreed. It counts for the opener if that is a server.
    fn note_answered(&mut self, ends: &Ends, time_ns: Timestamp, (was_asked, is_early): (bool, bool)) {
        let seen = &mut self.seen;
        let (opener, peer) = (ends.opener.0, ends.answerer.0);
        if !seen.scope.holds(opener)
            || (self.is_increment && seen.find_rule(opener, Direction::Out, ends).is_some())
        {
            return;
        }
        let Some(server) = seen.scope.number(opener) else { return };
        let service = Service { direction: Direction::Out, protocol: ends.protocol, port: ends.port };
        let name = match was_asked {
            true => NameUse::Unused,
            false => NameUse::of(seen.find_name(server, peer, time_ns)),
        };
        let opening = Opening { service, peer, from_port: ends.opener.1, time_ns, is_early, name };
        seen.evidence.note_answered(server, &opening, was_asked);
    }

    /// Both ends agreed. It counts for the other end if that is a server.
    fn note_open(&mut self, ends: &Ends, time_ns: Timestamp, is_early: bool) {
        let seen = &mut self.seen;
        let (server, peer) = (ends.answerer.0, ends.opener.0);
        if !seen.scope.holds(server) {
            return;
        }
        if self.is_increment && seen.note_use(server, Direction::In, ends, time_ns) {
            return;
        }
        let Some(server) = seen.scope.number(server) else { return };
        let service = Service { direction: Direction::In, protocol: ends.protocol, port: ends.port };
        let name = NameUse::Unused;
        let opening = Opening { service, peer, from_port: ends.opener.1, time_ns, is_early, name };
        seen.evidence.note_answered(server, &opening, false);
    }

    fn note_before(&mut self, from: (IpAddr, u16), to: (IpAddr, u16), protocol: u8) {
        let seen = &mut self.seen;
        let (server, peer) = if seen.scope.holds(from.0) { (from, to) } else { (to, from) };
        let key = (server.0, server.1, peer.0, peer.1, protocol);
        if seen.before.len() < MAX_BEFORE {
            *seen.before.entry(key).or_default() += 1;
        } else {
            seen.more_before += 1;
        }
    }

    fn seconds(&self, time_ns: Timestamp) -> u32 {
        let passed_ns = time_ns.saturating_sub(self.seen.first_ns.unwrap_or(time_ns));
        u32::try_from(passed_ns / S).unwrap_or(u32::MAX)
    }

    pub(super) fn finish(self) -> Seen<'a> {
        let mut seen = self.seen;
        seen.troubles = self.suspicion.finish();
        seen.forgotten = self.flows.forgotten;
        seen
    }
}

fn read_sequence(frame: &Frame, facts: &Facts) -> u32 {
    let bytes = frame.bytes.get(facts.transport_at + 4..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// An IPv4 address that is written as IPv6.
fn is_mapped(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}
