//! A second opinion: what the gate shall do, written down once more from its documentation, in plain
//! Rust and without a look at the programs. It knows the policy as it was parsed, not as it is
//! compiled; time is an argument everywhere.
//!
//! Where the documentation is silent, a comment begins with "decided:".

mod decide;
mod flows;
mod fragments;
mod ledger;
mod limits;
mod needs;
mod packet;
mod quote;
mod steps;
mod tests;
mod track;

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis::abi::Reason;
use portcullis::policy::{Mode, Policy};

use decide::{Decision, Effect};
use flows::Flows;
use fragments::{FragmentState, Fragments};
use ledger::Books;
use limits::TokenBuckets;
use packet::{Frame, Known, Packet, Transport, Way};

pub use flows::{FlowKey, FlowState, Table};
pub use fragments::FragmentKey;
pub use ledger::{LedgerKey, Sum};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// Mode observe: counted as a drop, and passed.
    WouldDrop,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub reason: Reason,
    /// No alarm is raised about this drop, for somebody said so.
    pub quiet: bool,
    /// The name of the server that has the source address.
    pub server: Option<String>,
    /// Port and protocol as the ledger keys them.
    pub port: u16,
    pub protocol: u8,
    /// Lines of the needs that may be named as deciding.
    pub needs: Vec<u32>,
}

/// The gate as its documentation has it.
pub struct Model {
    policy: Option<Policy>,
    generation: u32,
    pickup_until_ns: u64,
    link_routes: fn(IpAddr) -> bool,
    /// By server's name; none: until released.
    quarantines: BTreeMap<String, Option<u64>>,
    flows: Flows,
    fragments: Fragments,
    buckets: TokenBuckets,
    books: Books,
}

#[expect(clippy::wrong_self_convention, reason = "`from` and `to` say which way a frame goes")]
impl Model {
    /// A gate without a policy: every server is unknown.
    pub fn new() -> Self {
        Self {
            policy: None,
            generation: 0,
            pickup_until_ns: 0,
            link_routes: |_| false,
            quarantines: BTreeMap::new(),
            flows: Flows::default(),
            fragments: Fragments::default(),
            buckets: TokenBuckets::default(),
            books: Books::default(),
        }
    }

    /// Sets which IPv6 destinations the routing table keeps on the DMZ's link.
    pub fn set_link_routes(&mut self, keeps: fn(IpAddr) -> bool) {
        self.link_routes = keeps;
    }

    /// Makes a policy the live one. The gate is attached with the first, so `pickup` counts from there.
    pub fn apply(&mut self, policy: &Policy, now_ns: u64) {
        if self.policy.is_none() {
            self.pickup_until_ns = now_ns + u64::from(policy.settings.pickup_s.value) * 1_000_000_000;
        }
        self.policy = Some(policy.clone());
        self.generation += 1;
        self.flows.end_revoked(|key| {
            let Some(server) = needs::find_server(policy, key.server) else { return false };
            // of an ICMP flow, the service is the type of the request
            let icmp = key.protocol == packet::ICMP || key.protocol == packet::ICMPV6;
            let port = if icmp { key.peer_port } else { key.server_port };
            let subject = needs::Subject { protocol: key.protocol, port, peer: key.peer };
            !needs::matching(policy, &needs::inbound(policy, server), subject).is_empty()
        });
    }

    pub fn set_pickup_until(&mut self, until_ns: u64) {
        self.pickup_until_ns = until_ns;
    }

    /// Quarantines a server, by name, so across policies; without a time, until it is released.
    pub fn quarantine(&mut self, server: &str, until_ns: Option<u64>) {
        self.quarantines.insert(server.to_owned(), until_ns);
    }

    pub fn release(&mut self, server: &str) {
        self.quarantines.remove(server);
    }

    /// Everything the flow tables hold, dead flows too.
    pub fn flows(&self) -> BTreeMap<(Table, FlowKey), FlowState> {
        self.flows.list()
    }

    /// The first fragments that passed, with the time and the policy's generation.
    pub fn fragments(&self) -> BTreeMap<FragmentKey, (u64, u32)> {
        self.fragments.passed.iter().map(|(key, first)| (*key, (first.passed_ns, first.generation))).collect()
    }

    pub fn ledger(&self) -> BTreeMap<LedgerKey, Sum> {
        self.books.ledger.clone()
    }

    pub fn counters(&self) -> BTreeMap<(Reason, bool), Sum> {
        self.books.counters.clone()
    }

    /// A frame that comes from the DMZ, with all its consequences.
    pub fn from_server(&mut self, frame: &[u8], now_ns: u64) -> Outcome {
        let parsed = packet::parse(frame, Way::FromServer);
        let (known, decision) = match &parsed {
            Frame::LinkLayer => (Known::default(), Decision::pass(Reason::LinkLayer)),
            Frame::Foreign(ethertype) => {
                (Known::default(), Decision::drop(Reason::Ethertype).at_port(*ethertype))
            }
            Frame::Malformed(known) => {
                let decision = Decision::drop(Reason::Malformed).at_port(known.port);
                (known.clone(), decision)
            }
            Frame::Packet(packet) => {
                let known = Known {
                    source_mac: packet.source_mac,
                    vlans: packet.vlans.clone(),
                    source: Some(packet.source),
                    protocol: packet.protocol,
                    port: packet.destination_port(),
                };
                (known, self.decide(packet, now_ns))
            }
        };
        let server = self
            .policy
            .as_ref()
            .zip(known.source)
            .and_then(|(policy, source)| needs::find_server(policy, source))
            .map(|server| server.name.clone());
        let outcome = Outcome {
            verdict: self.find_verdict(&decision, server.as_deref(), &known, now_ns),
            reason: decision.reason,
            quiet: decision.quiet,
            server,
            port: decision.port.unwrap_or(known.port),
            protocol: known.protocol,
            needs: decision.needs.clone(),
        };
        self.books.count(&outcome, &decision, frame.len() as u64);
        // What is only let through for the time being has no consequences.
        if let (Verdict::Pass, Frame::Packet(packet)) = (outcome.verdict, &parsed) {
            self.take_effects(packet, &decision, now_ns);
        }
        outcome
    }

    fn find_verdict(&self, decision: &Decision, server: Option<&str>, known: &Known, now_ns: u64) -> Verdict {
        if !decision.reason.drops() {
            return Verdict::Pass;
        }
        let Some(policy) = &self.policy else { return Verdict::Drop };
        let mode = match server.and_then(|name| policy.find_server(name)) {
            // An order about one server is followed in any mode.
            Some(server) if self.is_quarantined(server, now_ns) => Mode::Enforce,
            // A frame from elsewhere is not the server's, whatever it is dropped for.
            Some(server) if !decide::is_spoofed(server, known.source_mac, &known.vlans) => {
                policy.mode_of(server)
            }
            _ => policy.settings.mode.value,
        };
        match mode {
            Mode::Enforce => Verdict::Drop,
            Mode::Observe => Verdict::WouldDrop,
        }
    }

    fn take_effects(&mut self, packet: &Packet, decision: &Decision, now_ns: u64) {
        let tcp = match &packet.transport {
            Some(Transport::Tcp(tcp)) => Some(tcp),
            _ => None,
        };
        for effect in &decision.effects {
            match effect {
                Effect::Answer(table, key) => self.flows.answer(*table, key, tcp, self.generation, now_ns),
                Effect::PickUp(key) => {
                    if let Some(tcp) = tcp {
                        self.flows.pick_up(key, tcp, self.generation, now_ns);
                    }
                }
                Effect::Spend(key, limit) => self.buckets.spend(key.clone(), *limit, now_ns),
                Effect::RememberFragment => {
                    let state = FragmentState {
                        passed_ns: now_ns,
                        protocol: packet.fragment.1,
                        generation: self.generation,
                        headers: packet.extensions as u32 + if tcp.is_some() { 16 } else { 8 },
                        management: decision.management,
                        needs: decision.needs.clone(),
                    };
                    self.fragments.remember(packet, state);
                }
            }
        }
    }
}
