//! The verdict on one packet: the steps in their order, the first that applies decides.

use std::net::{IpAddr, Ipv6Addr};

use portcullis::abi::Reason;
use portcullis::policy::{Limit, Policy, Server, Tracking, UnknownSources};

use super::Model;
use super::flows::{FlowKey, Table, answered_flow};
use super::limits::BucketKey;
use super::needs::{self, Rule, Subject};
use super::packet::{IcmpKind, Packet, Piece, TCP, Tcp, Transport, UDP, icmp_kind};

const ROUTER_SOLICITATION: u8 = 133;

/// What shall happen when a packet passes.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The server answered in this flow.
    Answer(Table, FlowKey),
    /// The flow is taken over.
    PickUp(FlowKey),
    Spend(BucketKey, Limit),
    /// Later fragments follow this one.
    RememberFragment,
    /// A later fragment: its bytes are its first one's.
    CountFragment,
}

/// What is found about a packet.
#[derive(Clone, Debug)]
pub struct Decision {
    pub reason: Reason,
    pub quiet: bool,
    /// The port that counts, where it is not the destination's.
    pub port: Option<u16>,
    pub own_port: bool,
    /// An answer to `management`: it stays in quarantine.
    pub management: bool,
    /// The protocol that counts, where it is not the packet's.
    pub protocol: Option<u8>,
    pub needs: Vec<u32>,
    pub effects: Vec<Effect>,
    /// What is as right.
    pub perhaps: Option<Box<Decision>>,
}

impl Decision {
    pub fn pass(reason: Reason) -> Self {
        Self {
            reason,
            quiet: false,
            port: None,
            own_port: false,
            management: false,
            protocol: None,
            needs: Vec::new(),
            effects: Vec::new(),
            perhaps: None,
        }
    }

    pub fn drop(reason: Reason) -> Self {
        Self::pass(reason)
    }

    pub fn at_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The server answered: its own port says what.
    pub fn at_own_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self.own_port = true;
        self
    }

    /// An answer of which the port is not the server's own number: a reset's, or an ICMP type.
    pub fn answering(mut self) -> Self {
        self.own_port = true;
        self
    }

    pub fn by(mut self, rules: &[Rule<'_>]) -> Self {
        self.needs = rules.iter().map(Rule::line).collect();
        self
    }

    pub fn with(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Or that.
    pub fn or_perhaps(mut self, other: Decision) -> Self {
        self.perhaps = Some(Box::new(other));
        self
    }

    pub fn quiet_if(mut self, quiet: bool) -> Self {
        self.quiet |= quiet;
        self
    }
}

/// A server's packet, what the policy says of the server, and the time.
pub struct Case<'a> {
    pub packet: &'a Packet,
    pub policy: &'a Policy,
    pub server: &'a Server,
    pub inbound: Vec<Rule<'a>>,
    pub outbound: Vec<Rule<'a>>,
    pub now_ns: u64,
}

impl<'a> Case<'a> {
    pub fn is_strict(&self) -> bool {
        self.policy.settings.tracking.value == Tracking::Strict
    }

    pub fn tcp(&self) -> Option<&'a Tcp> {
        match &self.packet.transport {
            Some(Transport::Tcp(tcp)) => Some(tcp),
            _ => None,
        }
    }

    pub fn icmp_kind(&self) -> Option<IcmpKind> {
        match &self.packet.transport {
            Some(Transport::Icmp(icmp)) => Some(icmp_kind(self.packet.source.is_ipv6(), icmp.kind)),
            _ => None,
        }
    }

    /// Whether it is an answer by its nature, from the port of an `in` service (ICMP: to a request's type).
    pub fn comes_from_service(&self) -> bool {
        let Some((key, service)) = answered_flow(self.packet) else { return false };
        let subject = Subject { protocol: key.protocol, port: service, peer: key.peer };
        !self.tcp().is_some_and(Tcp::is_bare_syn) && !needs::having_port(&self.inbound, subject).is_empty()
    }

    fn refuse_quarantined(&self, answers: bool) -> Decision {
        let decision = Decision::drop(Reason::Quarantined);
        match answered_flow(self.packet) {
            Some(_) if answers && self.icmp_kind().is_some() => decision.answering().quiet_if(true),
            Some((_, service)) if answers => decision.at_own_port(service).quiet_if(true),
            _ => decision,
        }
    }

    /// The packet as something that the server opens.
    pub fn opening(&self) -> Subject {
        let Packet { protocol, destination, .. } = *self.packet;
        Subject { protocol, port: self.packet.destination_port(), peer: destination }
    }
}

impl Model {
    /// Steps 3 to 18. What is no packet has its verdict before.
    pub fn decide(&self, packet: &Packet, now_ns: u64) -> Decision {
        if packet.source_routed {
            return Decision::drop(Reason::SourceRoute);
        }
        if let Some(decision) = self.decide_link(packet) {
            return decision;
        }
        let known = self
            .policy
            .as_ref()
            .and_then(|policy| needs::find_server(policy, packet.source).map(|server| (policy, server)));
        let Some((policy, server)) = known else { return self.decide_unknown(packet) };
        if is_spoofed(server, packet.source_mac, &packet.vlans) {
            return Decision::drop(Reason::Spoofed);
        }
        let (inbound, outbound) = (needs::inbound(policy, server), needs::outbound(policy, server));
        let case = Case { packet, policy, server, inbound, outbound, now_ns };
        let decision = if self.is_quarantined(server, now_ns) {
            self.decide_quarantined(&case)
        } else {
            self.decide_server(&case)
        };
        remember_fragment(&case, decision)
    }

    /// Step 4: what the link needs, and what nobody there may say.
    fn decide_link(&self, packet: &Packet) -> Option<Decision> {
        match packet.transport.as_ref()? {
            Transport::Icmp(icmp) => {
                let kind = icmp_kind(packet.source.is_ipv6(), icmp.kind);
                let hop_limit = match kind {
                    IcmpKind::RogueRouter => return Some(Decision::drop(Reason::RogueRouter)),
                    IcmpKind::Neighbour => 255,
                    IcmpKind::MulticastReport => 1,
                    _ => return None,
                };
                // decided: a fragment is none (RFC 6980); codes and what the message holds don't matter.
                let good = packet.piece == Piece::Whole
                    && packet.hop_limit == hop_limit
                    && self.is_of_link(packet.source)
                    // with a hop limit of 1 no router forwards it, wherever it goes
                    && (kind == IcmpKind::MulticastReport
                        || self.stays_on_link(packet.source, packet.destination, icmp.kind));
                good.then(|| Decision::pass(Reason::Neighbour))
            }
            Transport::Ports { source, destination } => {
                let dhcp = self.policy.as_ref().is_some_and(|policy| policy.settings.dhcp.value);
                // decided: fragments of it are none.
                let good = dhcp
                    && self.is_of_link(packet.source)
                    && packet.protocol == UDP
                    && packet.piece == Piece::Whole
                    && is_dhcp(packet, *source, *destination)
                    && match packet.destination {
                        IpAddr::V4(destination) => destination.is_broadcast(),
                        IpAddr::V6(destination) => has_link_scope(destination),
                    };
                good.then(|| Decision::pass(Reason::Dhcp))
            }
            _ => None,
        }
    }

    /// Whether neighbour discovery from here to there is what no router forwards.
    /// decided: a solicitation for routers has no business with one address of the link.
    fn stays_on_link(&self, source: IpAddr, destination: IpAddr, kind: u8) -> bool {
        let (IpAddr::V6(from), IpAddr::V6(to)) = (source, destination) else { return false };
        if from.is_unspecified() || from.is_unicast_link_local() {
            return true;
        }
        let own_network = from.octets()[..8] == to.octets()[..8] && (self.link_routes)(destination);
        has_link_scope(to) || (kind != ROUTER_SOLICITATION && own_network)
    }

    /// Whether the source is link-local, unspecified or a server's.
    fn is_of_link(&self, source: IpAddr) -> bool {
        is_unroutable(source)
            || self.policy.as_ref().is_some_and(|policy| needs::find_server(policy, source).is_some())
    }

    /// Step 5.
    fn decide_unknown(&self, packet: &Packet) -> Decision {
        let Some(policy) = &self.policy else { return Decision::drop(Reason::UnknownSource) };
        let unknown_sources = policy.settings.unknown_sources.value;
        if unknown_sources == UnknownSources::Allow {
            return Decision::pass(Reason::UnknownAllowed);
        }
        // decided: of a later fragment nothing tells that it is quiet.
        let later = matches!(packet.piece, Piece::Later(_));
        let lines = if is_unroutable(packet.source) && !later {
            let port = packet.destination_port();
            let subject = Subject { protocol: packet.protocol, port, peer: packet.destination };
            needs::any_role_quiet(policy, subject)
        } else {
            Vec::new()
        };
        let mut decision = Decision::drop(Reason::UnknownSource)
            .quiet_if(unknown_sources == UnknownSources::Quiet || !lines.is_empty());
        decision.needs = lines;
        decision
    }

    pub fn is_quarantined(&self, server: &Server, now_ns: u64) -> bool {
        match self.quarantines.get(&server.name) {
            None => false,
            Some(None) => true,
            Some(Some(until_ns)) => now_ns < *until_ns,
        }
    }

    /// Step 7: answers in management flows stay, and their later fragments. Other answers are what its
    /// visitors asked for: no sign of anything, and counted under the server's own port.
    /// decided: ICMP errors about management don't stay.
    fn decide_quarantined(&self, case: &Case<'_>) -> Decision {
        let fragment = self.decide_fragment(case);
        let reply = if fragment.is_none() { self.find_reply(case) } else { None };
        // decided: an ICMP reply is an answer by its nature, as in step 14.
        let replies = matches!(case.icmp_kind(), Some(IcmpKind::Reply(_)));
        let answers = fragment.is_none() && (reply.is_some() || replies || case.comes_from_service());
        fragment
            .or(reply)
            .filter(|decision| decision.management && !decision.reason.drops())
            .unwrap_or_else(|| case.refuse_quarantined(answers))
    }

    /// Step 8; none for a packet that is whole or has its transport header.
    pub fn decide_fragment(&self, case: &Case<'_>) -> Option<Decision> {
        match case.packet.piece {
            // A TCP header begins within any first fragment, so its flags would be rewritten here.
            Piece::Later(8) if case.packet.protocol == TCP => Some(Decision::drop(Reason::Fragment)),
            Piece::Later(position) => Some(self.decide_later_fragment(case, position)),
            Piece::First | Piece::Whole => {
                case.packet.transport.is_none().then(|| Decision::drop(Reason::Fragment))
            }
        }
    }

    fn decide_later_fragment(&self, case: &Case<'_>, position: u32) -> Decision {
        let packet = case.packet;
        // It would write over what the first one was judged by, or no datagram holds so much: not its own.
        let first = self
            .fragments
            .find_first(packet, case.now_ns)
            .filter(|first| position >= first.headers && first.has_room_for(packet.data));
        match first {
            // The datagram was under way when the policy changed: no sign of anything.
            Some(first) if first.generation != self.generation => {
                Decision::drop(Reason::Fragment).quiet_if(true)
            }
            Some(first) => {
                let mut decision = Decision::pass(Reason::LaterFragment).with(Effect::CountFragment);
                decision.needs = first.needs.clone();
                decision.management = first.management;
                decision
            }
            None => match self.fragments.find_refused(packet, case.now_ns) {
                Some(first) => {
                    let mut decision = Decision::drop(first.reason).at_port(first.port).quiet_if(first.quiet);
                    decision.own_port = first.own_port;
                    decision.protocol = Some(first.protocol);
                    decision.needs = first.needs.clone();
                    decision
                }
                None => Decision::drop(Reason::Fragment),
            },
        }
    }
}

/// Step 6. decided: the VLAN's id counts, not which kind of tag carries it.
pub fn is_spoofed(server: &Server, source_mac: [u8; 6], vlans: &[u16]) -> bool {
    let other_mac = !server.macs.is_empty() && server.macs.iter().all(|(mac, _)| *mac != source_mac);
    let other_vlan = server.vlan.is_some_and(|(vlan, _)| vlans != [vlan]);
    other_mac || other_vlan
}

/// Whether the ports are those of a DHCP client that asks.
pub fn is_dhcp(packet: &Packet, source: u16, destination: u16) -> bool {
    match packet.destination {
        IpAddr::V4(_) => (source, destination) == (68, 67),
        IpAddr::V6(_) => (source, destination) == (546, 547),
    }
}

/// A first fragment of a server that passes lets the later ones pass.
fn remember_fragment(case: &Case<'_>, decision: Decision) -> Decision {
    if case.packet.piece == Piece::First && !decision.reason.drops() {
        return decision.with(Effect::RememberFragment);
    }
    decision
}

/// Link-local or unspecified.
fn is_unroutable(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => source.is_unspecified() || source.is_link_local(),
        IpAddr::V6(source) => source.is_unspecified() || source.is_unicast_link_local(),
    }
}

/// decided: multicast of a smaller scope than the link's is forwarded as little.
fn has_link_scope(destination: Ipv6Addr) -> bool {
    destination.is_unicast_link_local() || (destination.is_multicast() && destination.octets()[1] & 0x0f <= 2)
}
