//! A second opinion: what the gate shall do, written down once more from its documentation, in plain
//! Rust and without a look at the programs. It knows the policy as it was parsed, not as it is
//! compiled; time is an argument everywhere.
//!
//! Where the documentation is silent, a comment begins with "decided:".

mod coverage;
mod decide;
mod dns;
mod edits;
mod flows;
mod fragments;
mod heard;
mod ledger;
mod limits;
mod macs;
mod name_tables;
mod names;
mod needs;
mod opening;
mod outcome;
mod packet;
mod questions;
mod quote;
mod state;
mod steps;
mod tests;
mod track;
mod uses;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis::abi::Reason;
use portcullis::policy::{Direction, Handover, Mode, Policy, Tracking};

use decide::{Decision, Effect};
use fragments::{FragmentState, RefusedFragment};
use packet::{Frame, Known, Packet, Transport, Way};

pub use coverage::{Coverage, Rule};
pub use flows::{FlowKey, FlowState, Table};
pub use fragments::FragmentKey;
pub use ledger::{LedgerKey, Sum};
pub use name_tables::Asker;
pub use outcome::{Outcome, Verdict};
pub use state::{Edit, Model};
pub use track::Origin;
pub use uses::Uses;

fn has_handover(policy: &Policy) -> bool {
    is_strict(policy) && policy.settings.handover.value == Handover::Conntrack
}

fn is_strict(policy: &Policy) -> bool {
    policy.settings.tracking.value == Tracking::Strict
}

#[expect(clippy::wrong_self_convention, reason = "`from` and `to` say which way a frame goes")]
impl Model {
    /// Sets which IPv6 destinations the routing table keeps on the DMZ's link.
    pub fn set_link_routes(&mut self, keeps: fn(IpAddr) -> bool) {
        self.link_routes = keeps;
    }

    /// Makes a policy the live one. The gate is attached with the first, so `pickup` counts from there.
    pub fn apply(&mut self, policy: &Policy, now_ns: u64) {
        if self.policy.is_none() {
            self.heard.set_size(policy.tables.heard.value);
            self.pickup_until_ns = now_ns + u64::from(policy.settings.pickup_s.value) * 1_000_000_000;
        }
        self.policy = Some(policy.clone());
        self.tracks = is_strict(policy);
        self.last_generation += 1;
        self.generation = self.last_generation;
        self.end_homeless_edits(policy);
        self.end_revoked(now_ns);
        self.tidy_names(now_ns);
    }

    /// Makes a policy the live one until `go_back` or `confirm`. What it revokes stays for the policy before.
    pub fn begin_trial(&mut self, policy: &Policy) {
        let before = self.policy.replace(policy.clone());
        self.before_trial = before.map(|before| (before, self.generation, self.tracks));
        let needs_before = self.before_trial.as_ref().is_some_and(|(before, ..)| is_strict(before));
        self.tracks = is_strict(policy) || needs_before;
        self.last_generation += 1;
        self.generation = self.last_generation;
    }

    /// The time of the trial is over. No tool does anything.
    pub fn go_back(&mut self) {
        if let Some((policy, generation, tracks)) = self.before_trial.take() {
            (self.policy, self.generation, self.tracks) = (Some(policy), generation, tracks);
        }
    }

    /// The policy on trial stays. The tool has yet to end what it revokes: a swap does so.
    pub fn confirm(&mut self) {
        self.before_trial = None;
    }

    /// Sets the last generation that was given, where policies came before the first one of the model.
    pub fn set_last_generation(&mut self, generation: u32) {
        self.last_generation = generation;
    }

    fn end_revoked(&mut self, now_ns: u64) {
        let Some(policy) = &self.policy else { return };
        let mut flows = std::mem::take(&mut self.flows);
        flows.end_revoked(has_handover(policy), |key| {
            let Some(server) = needs::find_server(policy, key.server) else { return false };
            // of an ICMP flow, the service is the type of the request
            let icmp = key.protocol == packet::ICMP || key.protocol == packet::ICMPV6;
            let port = if icmp { key.peer_port } else { key.server_port };
            let subject = needs::Subject::service(key.protocol, port, key.peer);
            let edited = self.find_edits(&server.name, Direction::In, subject, now_ns);
            !needs::matching(policy, &needs::inbound(policy, server), subject).is_empty()
                || edited.allowed_until.is_some()
        });
        self.flows = flows;
    }

    pub fn set_pickup_until(&mut self, until_ns: u64) {
        self.pickup_until_ns = until_ns;
    }

    /// From `now_ns` on the router takes over, until then.
    pub fn begin_takeover(&mut self, now_ns: u64, until_ns: u64) {
        (self.takeover_ns, self.takeover_until_ns) = (Some(now_ns), until_ns);
    }

    /// Conntrack has this flow. `answered`: it is one of a peer, which its server has answered, and which lives.
    pub fn note_conntrack(&mut self, key: FlowKey, answered: bool) {
        self.conntrack.insert(key, answered);
    }

    /// Sets the number of the current epoch of the memory of peers, where it is not that of the model's time.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.heard.set_epoch(epoch);
    }

    /// Sets which MACs are the router's own; none: nothing is known of them.
    pub fn set_own_macs(&mut self, macs: impl IntoIterator<Item = [u8; 6]>) {
        self.macs.set_own(macs);
    }

    /// Sets whether the gate's NIC is one of several ports of a bridge.
    pub fn set_bridged(&mut self, bridged: bool) {
        self.macs.set_bridged(bridged);
    }

    /// Quarantines a server, by name, so across policies; without a time, until it is released.
    pub fn quarantine(&mut self, server: &str, until_ns: Option<u64>) {
        self.quarantines.insert(server.to_owned(), until_ns);
    }

    pub fn release(&mut self, server: &str) {
        self.quarantines.remove(server);
    }

    /// Quarantines addresses, whatever server has them. Of two that hold one address, the longer one counts.
    pub fn quarantine_addresses(&mut self, prefix: IpNet, until_ns: Option<u64>) {
        self.quarantined_addresses.insert(prefix, until_ns);
    }

    pub fn release_addresses(&mut self, prefix: IpNet) {
        self.quarantined_addresses.remove(&prefix);
    }

    /// Quarantines a machine of a server, by its MAC: under addresses of the server, and under those that no
    /// server has.
    pub fn quarantine_machine(&mut self, server: &str, mac: [u8; 6], until_ns: Option<u64>) {
        self.quarantined_machines.insert((server.to_owned(), mac), until_ns);
    }

    pub fn release_machine(&mut self, server: &str, mac: [u8; 6]) {
        self.quarantined_machines.remove(&(server.to_owned(), mac));
    }

    /// How often each rule was met.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    pub fn take_coverage(&mut self) -> Coverage {
        std::mem::take(&mut self.coverage)
    }

    /// Everything the flow tables hold, dead flows too.
    pub fn flows(&self) -> BTreeMap<(Table, FlowKey), FlowState> {
        self.flows.list()
    }

    /// The first fragments that passed, with the time and the policy's generation.
    pub fn fragments(&self) -> BTreeMap<FragmentKey, (u64, u32)> {
        self.fragments.passed.iter().map(|(key, first)| (*key, (first.passed_ns, first.generation))).collect()
    }

    /// The first fragments that were dropped.
    pub fn refused_fragments(&self) -> BTreeMap<FragmentKey, (u64, Reason)> {
        let refused = &self.fragments.refused;
        refused.iter().map(|(key, first)| (*key, (first.refused_ns, first.reason))).collect()
    }

    /// How many peers are remembered.
    pub fn heard(&self) -> usize {
        self.heard.count()
    }

    /// What servers began to open, by the server's name.
    pub fn own_openings(&self) -> &BTreeMap<(String, FlowKey), u64> {
        &self.flows.own_openings
    }

    /// How often each need was used since this was asked last, or since the policy is live.
    pub fn take_uses(&mut self) -> Uses {
        std::mem::take(&mut self.uses)
    }

    pub fn ledger(&self) -> BTreeMap<LedgerKey, Sum> {
        self.books.ledger.clone()
    }

    pub fn counters(&self) -> BTreeMap<(Reason, bool), Sum> {
        self.books.counters.clone()
    }

    /// A frame that comes from the DMZ, with all its consequences.
    pub fn from_server(&mut self, frame: &[u8], now_ns: u64) -> Outcome {
        self.from_server_seen(frame, now_ns, |_| false)
    }

    /// The same; where several outcomes are right, `was` tells whether it was this one.
    pub fn from_server_seen(&mut self, frame: &[u8], now_ns: u64, was: impl Fn(&Outcome) -> bool) -> Outcome {
        let parsed = packet::parse(frame, Way::FromServer);
        let (known, mut decision) = match &parsed {
            Frame::LinkLayer(_) => (Known::default(), Decision::pass(Reason::LinkLayer)),
            Frame::Foreign(ethertype) => {
                let listed = |policy: &Policy| policy.settings.quiet_ethertypes.0.contains(ethertype);
                let quiet = self.policy.as_ref().is_some_and(listed);
                let decision = Decision::drop(Reason::Ethertype).at_port(*ethertype).quiet_if(quiet);
                let mac = frame.get(6..12).and_then(|bytes| bytes.first_chunk::<6>());
                let known = Known { source_mac: mac.copied().unwrap_or_default(), ..Known::default() };
                (known, decision.meeting_if(quiet, Rule::QuietEthertype))
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
                    first: (packet.piece == packet::Piece::First)
                        .then_some((packet.destination, packet.fragment)),
                };
                (known, self.decide(packet, now_ns))
            }
        };
        let owner = self
            .policy
            .as_ref()
            .zip(known.source)
            .and_then(|(policy, source)| needs::find_server(policy, source))
            .map(|server| server.name.clone());
        let others = std::mem::take(&mut decision.others);
        if !decision.presumed && others.iter().any(|other| other.by_chance) {
            self.coverage.meet(Rule::MayBeChance);
        }
        let mut outcome = self.conclude(frame, &mut decision, owner.as_deref(), &known, now_ns);
        if !others.is_empty() && !was(&outcome) {
            for mut other in others {
                let perhaps = self.conclude(frame, &mut other, owner.as_deref(), &known, now_ns);
                if was(&perhaps) {
                    if other.by_chance {
                        self.coverage.meet(Rule::ByChance);
                    }
                    (outcome, decision) = (perhaps, other);
                    break;
                }
            }
        }
        self.coverage.give(outcome.reason);
        decision.met.iter().for_each(|rule| self.coverage.meet(*rule));
        self.books.count(&outcome, decision.own_port, frame.len() as u64);
        if let Frame::LinkLayer(true) = &parsed {
            self.learn_mac(frame);
        }
        // What is only let through for the time being has no consequences but this.
        if outcome.verdict != Verdict::Pass {
            self.refuse_fragment(&known, &outcome, &decision, now_ns);
            if let Frame::Packet(packet) = &parsed {
                self.note_dropped_opening(packet, &outcome, now_ns);
            }
        } else if let Frame::Packet(packet) = &parsed {
            self.take_effects(packet, owner.as_deref(), &decision, now_ns);
        }
        if outcome.reason == Reason::Neighbour {
            self.learn_mac(frame);
        }
        outcome
    }

    /// What a decision about a frame comes to: a drop of what goes to another host is no sign of anything.
    fn conclude(
        &self,
        frame: &[u8],
        decision: &mut Decision,
        owner: Option<&str>,
        known: &Known,
        now_ns: u64,
    ) -> Outcome {
        let server = decision.server.as_deref().or(owner);
        let mut outcome = Outcome {
            verdict: self.find_verdict(decision, server, known, now_ns),
            reason: decision.reason,
            quiet: decision.quiet,
            server: server.map(str::to_owned),
            port: decision.port.unwrap_or(known.port),
            protocol: decision.protocol.unwrap_or(known.protocol),
            presumed: decision.presumed,
            needs: decision.needs.clone(),
        };
        if outcome.verdict == Verdict::Pass {
            return outcome;
        }
        let Some(mac) = frame.first_chunk::<6>() else { return outcome };
        let whose = self.macs.find(self.policy.as_ref(), *mac);
        decision.met.extend(whose.rule());
        if whose.is_elsewhere() {
            outcome.reason = Reason::Elsewhere;
            outcome.port = 0;
            outcome.quiet = false;
            outcome.presumed = false;
            decision.own_port = false;
        }
        outcome
    }

    fn learn_mac(&mut self, frame: &[u8]) {
        if let Some(mac) = frame.get(6..12).and_then(|bytes| bytes.first_chunk::<6>()) {
            self.macs.learn(*mac);
        }
    }

    /// A first fragment that is dropped: later ones are counted as it was. decided: also what is malformed,
    /// and nothing of what goes to another host, for a later one may go to this one.
    fn refuse_fragment(&mut self, known: &Known, outcome: &Outcome, decision: &Decision, now_ns: u64) {
        let Some((source, (destination, fragment))) = known.source.zip(known.first) else { return };
        if outcome.server.is_none() || outcome.reason == Reason::Elsewhere {
            return;
        }
        let refused = RefusedFragment {
            refused_ns: now_ns,
            fragment_protocol: fragment.1,
            reason: outcome.reason,
            port: outcome.port,
            protocol: outcome.protocol,
            quiet: outcome.quiet,
            own_port: decision.own_port,
            presumed: outcome.presumed,
            needs: decision.needs.clone(),
        };
        self.fragments.refuse(FragmentKey::new(source, destination, fragment), refused);
    }

    /// A peer's SYN may cross a server's own although that was dropped. decided: a drop that has raised its
    /// alarm is not remembered, for then the SYN+ACK says nothing new; one of observe is, for it leaves.
    fn note_dropped_opening(&mut self, packet: &Packet, outcome: &Outcome, now_ns: u64) {
        let silent = match outcome.reason {
            Reason::Rate | Reason::Denied => true,
            Reason::NewFlow | Reason::Destination | Reason::Protocol | Reason::Question => {
                outcome.quiet || outcome.verdict == Verdict::WouldDrop
            }
            _ => false,
        };
        let bare_syn = matches!(&packet.transport, Some(Transport::Tcp(tcp)) if tcp.is_bare_syn());
        let asks = bare_syn || packet.word == Some(packet::Word::Asks);
        if let Some((key, _)) = flows::answered_flow(packet).filter(|_| silent && asks)
            && let Some(server) = &outcome.server
        {
            self.flows.open_own(server, key, now_ns);
        }
    }

    fn find_verdict(&self, decision: &Decision, server: Option<&str>, known: &Known, now_ns: u64) -> Verdict {
        if !decision.reason.drops() {
            return Verdict::Pass;
        }
        let Some(policy) = &self.policy else { return Verdict::Drop };
        let (mac, vlans) = (known.source_mac, &known.vlans);
        // An order about one server or address is followed in any mode.
        let by_order = known.source.is_some_and(|source| self.is_quarantined(server, source, mac, now_ns));
        let mode = match server.and_then(|name| policy.find_server(name)) {
            // so is one that a MAC of the link shows
            _ if by_order || decision.met.contains(&Rule::LinkServiceQuarantined) => Mode::Enforce,
            // A frame from elsewhere is not the server's, whatever it is dropped for.
            Some(server) if !decide::is_spoofed(server, mac, vlans) => {
                let borrowed = self.find_borrower(policy, server, mac, now_ns).is_some();
                if borrowed { Mode::Enforce } else { policy.mode_of(server) }
            }
            // nor is it anybody else's than the machine's that has the MAC
            _ if self.is_machine_cut_off(mac, now_ns) => Mode::Enforce,
            _ => policy.settings.mode.value,
        };
        match mode {
            Mode::Enforce => Verdict::Drop,
            Mode::Observe => Verdict::WouldDrop,
        }
    }

    fn take_effects(&mut self, packet: &Packet, server: Option<&str>, decision: &Decision, now_ns: u64) {
        let tcp = match &packet.transport {
            Some(Transport::Tcp(tcp)) => Some(tcp),
            _ => None,
        };
        // what an edit permits is asked anew for each packet, so it is of no policy
        let generation = if decision.edit_until.is_some() { 0 } else { self.generation };
        // decided: in service tracking a SYN+ACK shows that something opens, and of all else each answer.
        let strict = self.policy.as_ref().is_some_and(is_strict);
        let opens = match decision.reason {
            Reason::Need => true,
            Reason::Reply if !strict => tcp.is_none_or(packet::Tcp::is_syn_ack),
            _ => false,
        };
        let by_need = decision.edit_until.is_none();
        if opens && by_need {
            self.uses.count(decision.needs.iter().copied());
        }
        for effect in &decision.effects {
            match effect {
                Effect::Answer(table, key) => {
                    let answered = self.flows.answer(*table, key, tcp, generation, now_ns);
                    // A peer's datagrams have opened something once they are answered.
                    if answered.first && by_need {
                        self.uses.count(decision.needs.iter().copied());
                    }
                    // decided: a flow that its server keeps is a peer that asked. Of ICMP the peer's port is
                    // the type of the request.
                    let icmp = *table == Table::IcmpQueries;
                    let service = if icmp { key.peer_port } else { key.server_port };
                    let service = Some((key.protocol, service));
                    if let Some(server) = server.filter(|_| answered.written) {
                        let server = server.to_owned();
                        self.heard.remember(heard::HeardKey { server, peer: key.peer, service }, now_ns);
                    }
                }
                Effect::PickUp(key) => {
                    if let Some(tcp) = tcp {
                        self.flows.pick_up(key, tcp, generation, now_ns);
                    }
                }
                Effect::HandOver(key) => {
                    self.flows.hand_over(key, tcp, generation, now_ns);
                    let service = Some((key.protocol, key.server_port));
                    if let (Some(server), None) = (server, tcp) {
                        let server = server.to_owned();
                        self.heard.remember(heard::HeardKey { server, peer: key.peer, service }, now_ns);
                    }
                }
                Effect::Open(key) => self.flows.open_own(server.unwrap_or_default(), *key, now_ns),
                Effect::Spend(key, limit) => self.buckets.spend(key.clone(), *limit, now_ns),
                Effect::CountFragment => self.fragments.count(packet),
                Effect::RememberFragment => {
                    let state = FragmentState {
                        passed_ns: now_ns,
                        protocol: packet.fragment.1,
                        generation: self.generation,
                        headers: packet.extensions as u32 + if tcp.is_some() { 16 } else { 8 },
                        management: decision.management,
                        needs: decision.needs.clone(),
                        later_bytes: 0,
                        edit_changes: self.edit_changes,
                        edit_until: decision.edit_until,
                    };
                    self.fragments.remember(packet, state);
                }
                Effect::UseGrant(grant, flow) => {
                    self.use_grant(grant, server.unwrap_or_default(), flow.as_ref(), now_ns);
                }
                Effect::TouchConnection(flow) => self.touch_connection(flow, now_ns),
            }
        }
        if matches!(decision.reason, Reason::Need | Reason::OwnConnection) {
            self.note_queries(packet, now_ns);
        }
    }
}
