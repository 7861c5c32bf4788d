//! The verdict on one packet: the steps in their order, the first that applies decides.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis::abi::Reason;
use portcullis::policy::{Limit, Policy, Server, Tracking, UnknownSources};

use super::Model;
use super::coverage::Rule as Covered;
use super::flows::{FlowKey, Table, answered_flow};
use super::limits::BucketKey;
use super::name_tables::GrantKey;
use super::needs::{self, Rule, Subject};
use super::packet::{IcmpKind, Packet, Piece, RST, TCP, Tcp, Transport, UDP, Word, icmp_kind};

const ROUTER_SOLICITATION: u8 = 133;

const LISTENER_QUERY: u8 = 130;
/// Solicitation and advertisement.
const NEIGHBOUR_MESSAGES: [u8; 2] = [135, 136];

/// As in IANA's list of protocols.
const IGMP: u8 = 2;
pub const VRRP: u8 = 112;
/// The groups of all VRRP routers (RFC 9568, 5.1).
const VRRP_GROUPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)), IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12))];

/// What shall happen when a packet passes.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The server answered in this flow.
    Answer(Table, FlowKey),
    /// The flow is taken over.
    PickUp(FlowKey),
    /// Another router had it.
    HandOver(FlowKey),
    /// The server itself begins to open this.
    Open(FlowKey),
    Spend(BucketKey, Limit),
    /// Later fragments follow this one.
    RememberFragment,
    /// A later fragment: its bytes are its first one's.
    CountFragment,
    /// It opens something by a grant; of TCP also the connection.
    UseGrant(GrantKey, Option<FlowKey>),
    /// A segment of a connection whose SYN a grant has let pass.
    TouchConnection(FlowKey),
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
    /// The memory of peers was full, and that alone is the reason.
    pub presumed: bool,
    /// Until when the edit holds that alone permits it.
    pub edit_until: Option<u64>,
    /// Where it is not the server that has the source address.
    pub server: Option<String>,
    /// The protocol that counts, where it is not the packet's.
    pub protocol: Option<u8>,
    pub needs: Vec<u32>,
    pub effects: Vec<Effect>,
    /// It rests on bits of the memory that others have set.
    pub by_chance: bool,
    /// What is as right.
    pub others: Vec<Decision>,
    /// The rules that it met.
    pub met: Vec<Covered>,
}

impl Decision {
    pub fn pass(reason: Reason) -> Self {
        Self {
            reason,
            quiet: false,
            port: None,
            own_port: false,
            management: false,
            presumed: false,
            edit_until: None,
            server: None,
            protocol: None,
            needs: Vec::new(),
            effects: Vec::new(),
            by_chance: false,
            others: Vec::new(),
            met: Vec::new(),
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

    /// An answer of which the port is not the server's own number: an ICMP type.
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

    /// The first of some that may be right, and the others with it.
    pub fn one_of(decisions: impl IntoIterator<Item = Decision>) -> Option<Self> {
        let mut decisions = decisions.into_iter();
        let mut first = decisions.next()?;
        let rest: Vec<Decision> = decisions
            .map(|mut decision| {
                decision.others.clear();
                decision
            })
            .collect();
        first.others = rest;
        Some(first)
    }

    pub fn meeting(mut self, rule: Covered) -> Self {
        self.met.push(rule);
        self
    }

    pub fn meeting_if(self, condition: bool, rule: Covered) -> Self {
        if condition { self.meeting(rule) } else { self }
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
    /// DHCP servers that have answered it, and those that have answered the link.
    pub lessors: [Option<&'a BTreeSet<IpAddr>>; 2],
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

    /// Whether it asks for a connection, accepts one, ends one at once.
    pub fn asks(&self) -> bool {
        self.tcp().is_some_and(Tcp::is_bare_syn) || self.packet.word == Some(Word::Asks)
    }

    pub fn accepts(&self) -> bool {
        self.tcp().is_some_and(Tcp::is_syn_ack) || self.packet.word == Some(Word::Accepts)
    }

    /// Every host sends it to what belongs to no connection.
    pub fn resets(&self) -> bool {
        self.tcp().is_some_and(|tcp| tcp.has(RST)) || self.packet.word == Some(Word::Resets)
    }

    /// It says which group the server is in, which no router forwards, and a querier may have asked.
    fn reports(&self) -> bool {
        let group = matches!(self.packet.destination, IpAddr::V4(group) if group.is_multicast());
        self.packet.word == Some(Word::Reports) && self.packet.hop_limit == 1 && group
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
        let subject = Subject::service(key.protocol, service, key.peer);
        !self.tcp().is_some_and(Tcp::is_bare_syn) && !needs::having_port(&self.inbound, subject).is_empty()
    }

    /// Step 7. Answers are what its visitors asked for: no sign of anything, and counted under the server's
    /// own port. decided: an ICMP message counts under its type; and a reset or an error is an answer whatever
    /// it is about.
    /// decided: a SYN+ACK after its own SYN is quiet too, and counted where it goes, for its own port is any.
    fn refuse_quarantined(&self, replies: bool, crossed: bool) -> Decision {
        let decision = Decision::drop(Reason::Quarantined);
        let answering = |decision: Decision| decision.answering().quiet_if(true);
        let service = answered_flow(self.packet).map(|(_, service)| service);
        match (self.icmp_kind(), service) {
            (Some(IcmpKind::Error), _) => answering(decision).meeting(Covered::QuarantinedError),
            (Some(IcmpKind::Reply(_)), _) => answering(decision).meeting(Covered::QuarantinedReply),
            (None, Some(service)) if replies || self.comes_from_service() => {
                decision.at_own_port(service).quiet_if(true).meeting(Covered::QuarantinedAnswer)
            }
            (None, _) if self.resets() || self.reports() => {
                let met = if self.reports() { Covered::QuarantinedReport } else { Covered::QuarantinedReset };
                decision.at_own_port(service.unwrap_or(0)).quiet_if(true).meeting(met)
            }
            (None, _) if crossed => decision.quiet_if(true).meeting(Covered::CrossedSynQuarantined),
            _ => decision,
        }
    }

    /// The packet as something that the server opens.
    pub fn opening(&self) -> Subject {
        let Packet { protocol, destination, .. } = *self.packet;
        let own_port = self.packet.source_port();
        Subject { protocol, port: self.packet.destination_port(), peer: destination, own_port }
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
        let Some((policy, server)) = known else { return self.decide_unknown(packet, now_ns) };
        if is_spoofed(server, packet.source_mac, &packet.vlans) {
            return Decision::drop(Reason::Spoofed);
        }
        let (inbound, outbound) = (needs::inbound(policy, server), needs::outbound(policy, server));
        let name = server.name.as_str();
        let lessors = [Some(server.name.clone()), None].map(|of| self.lessors.get(&of));
        let case = Case { packet, policy, server, inbound, outbound, lessors, now_ns };
        let decision = if self.is_quarantined(Some(name), packet.source, packet.source_mac, now_ns) {
            let by_address = self.is_address_cut_off(packet.source, now_ns);
            let by_name = self.is_cut_off(name, now_ns);
            self.decide_quarantined(&case)
                .meeting_if(!by_name && by_address, Covered::AddressQuarantined)
                .meeting_if(!by_name && !by_address, Covered::MacQuarantined)
        } else if let Some(borrower) = self.find_borrower(policy, server, packet.source_mac, now_ns) {
            let mut decision = self.decide_quarantined(&case);
            if decision.reason.drops() {
                decision.server = Some(borrower.to_owned());
            }
            decision.meeting(Covered::BorrowedAddressQuarantined)
        } else {
            self.decide_server(&case)
        };
        let further = server.macs.first().is_some_and(|(mac, _)| *mac != packet.source_mac);
        remember_fragment(&case, decision).meeting_if(further, Covered::FurtherMac)
    }

    /// Whether a router of the policy sent it, by address and MAC.
    fn comes_from_router(&self, packet: &Packet) -> bool {
        self.policy.iter().flat_map(|policy| &policy.routers).any(|router| {
            router.addresses.iter().any(|(address, _)| *address == packet.source)
                && router.macs.iter().any(|(mac, _)| *mac == packet.source_mac)
        })
    }

    /// Step 4: what the link needs, and what nobody there may say.
    fn decide_link(&self, packet: &Packet) -> Option<Decision> {
        match packet.transport.as_ref()? {
            Transport::Icmp(icmp) => {
                let kind = icmp_kind(packet.source.is_ipv6(), icmp.kind);
                let hop_limit = match kind {
                    IcmpKind::RogueRouter => {
                        let router = self.comes_from_router(packet);
                        let decision = Decision::drop(Reason::RogueRouter).quiet_if(router);
                        return Some(decision.meeting_if(router, Covered::RouterRest));
                    }
                    IcmpKind::Neighbour => 255,
                    IcmpKind::MulticastReport => 1,
                    _ => return None,
                };
                // decided: a fragment is none (RFC 6980); codes and what the message holds don't matter.
                let good = packet.piece == Piece::Whole
                    && packet.hop_limit == hop_limit
                    && (self.is_of_link(packet.source) || self.comes_from_router(packet))
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
            Transport::Portless if packet.protocol == VRRP => {
                // decided: what it says is not read
                let good = packet.piece == Piece::Whole
                    && packet.hop_limit == 255
                    && VRRP_GROUPS.contains(&packet.destination)
                    && self.comes_from_router(packet);
                good.then(|| Decision::pass(Reason::Router).meeting(Covered::RouterAdvertisement))
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
    fn decide_unknown(&self, packet: &Packet, now_ns: u64) -> Decision {
        let Some(policy) = &self.policy else { return Decision::drop(Reason::UnknownSource) };
        if let Some(decision) = self.find_link_service(policy, packet, now_ns) {
            return decision;
        }
        let unknown_sources = policy.settings.unknown_sources.value;
        // an order about an address outlives the server that had it
        let by_address = self.is_quarantined(None, packet.source, packet.source_mac, now_ns);
        let by_order = by_address || self.is_machine_cut_off(packet.source_mac, now_ns);
        if unknown_sources == UnknownSources::Allow && !by_order {
            return Decision::pass(Reason::UnknownAllowed);
        }
        // decided: of a later fragment nothing tells that it is quiet.
        let later = matches!(packet.piece, Piece::Later(_));
        let lines = if is_unroutable(packet.source) && !later {
            let port = packet.destination_port();
            needs::any_role_quiet(policy, Subject::service(packet.protocol, port, packet.destination))
        } else {
            Vec::new()
        };
        let router = self.comes_from_router(packet);
        let announces = tells_the_link(policy, packet);
        let mut decision = Decision::drop(Reason::UnknownSource)
            .quiet_if(unknown_sources == UnknownSources::Quiet || !lines.is_empty() || router || announces)
            .meeting_if(router, Covered::RouterRest)
            .meeting_if(by_order, Covered::NobodysAddressQuarantined)
            .meeting_if(by_order && !by_address, Covered::NobodysAddressOfQuarantinedMac)
            .meeting_if(announces && !router, Covered::RouterAnnouncement);
        decision.needs = lines;
        decision
    }

    /// Step 5: what a server asks the link itself, from an address that every host has. Its MAC tells who it
    /// is. decided: of a TCP connection every segment towards the port is the service's; the first server of
    /// the policy has a MAC that several have.
    fn find_link_service(&self, policy: &Policy, packet: &Packet, now_ns: u64) -> Option<Decision> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
            return None;
        };
        if !source.is_unicast_link_local() || packet.piece != Piece::Whole || !has_link_scope(destination) {
            return None;
        }
        let has_mac = |server: &&Server| server.macs.iter().any(|(mac, _)| *mac == packet.source_mac);
        let server = policy.servers.iter().find(has_mac)?;
        let of_vlan = server.vlan.is_none_or(|(vlan, _)| packet.vlans == [vlan]);
        let subject = Subject::service(packet.protocol, packet.destination_port(), packet.destination);
        let rules = needs::matching(policy, &needs::link_services(policy), subject);
        if rules.is_empty() {
            return None;
        }
        if !of_vlan {
            return None;
        }
        let name = server.name.as_str();
        let cut_off = self.is_quarantined(Some(name), packet.source, packet.source_mac, now_ns)
            || self.is_machine_cut_off(packet.source_mac, now_ns);
        let mut decision = if cut_off {
            Decision::drop(Reason::Quarantined).meeting(Covered::LinkServiceQuarantined)
        } else {
            Decision::pass(Reason::Need).by(&rules).meeting(Covered::LinkService)
        };
        decision.server = Some(server.name.clone());
        Some(decision)
    }

    /// Whether the server is cut off, or this address of it, or the machine with this MAC. Under an address of
    /// no server a machine of any server is.
    pub fn is_quarantined(&self, server: Option<&str>, address: IpAddr, mac: [u8; 6], now_ns: u64) -> bool {
        let of_machine = self.quarantined_machines.iter().any(|((of, known), until)| {
            *known == mac && server.is_none_or(|name| name == of) && holds(*until, now_ns)
        });
        let of_server = server.is_some_and(|name| self.is_cut_off(name, now_ns));
        of_machine || of_server || self.is_address_cut_off(address, now_ns)
    }

    /// The server in quarantine to which the policy gives the MAC. decided: the first server of the policy has
    /// a MAC that several have.
    fn find_cut_off_holder<'p>(&self, policy: &'p Policy, mac: [u8; 6], now_ns: u64) -> Option<&'p str> {
        let has_mac = |server: &&Server| server.macs.iter().any(|(known, _)| *known == mac);
        let holder = policy.servers.iter().find(has_mac)?;
        self.is_cut_off(&holder.name, now_ns).then_some(holder.name.as_str())
    }

    /// The server in quarantine from whose MAC a frame of another server comes. decided: a server with MACs of
    /// its own goes by these.
    pub fn find_borrower<'p>(
        &self,
        policy: &'p Policy,
        server: &Server,
        mac: [u8; 6],
        now_ns: u64,
    ) -> Option<&'p str> {
        let holder = self.find_cut_off_holder(policy, mac, now_ns);
        holder.filter(|_| server.macs.is_empty())
    }

    /// Whether the machine is cut off under an address that is not its own.
    pub fn is_machine_cut_off(&self, mac: [u8; 6], now_ns: u64) -> bool {
        let mut machines = self.quarantined_machines.iter();
        machines.any(|((_, known), until)| *known == mac && holds(*until, now_ns))
            || self
                .policy
                .as_ref()
                .is_some_and(|policy| self.find_cut_off_holder(policy, mac, now_ns).is_some())
    }

    fn is_cut_off(&self, server: &str, now_ns: u64) -> bool {
        self.quarantines.get(server).is_some_and(|until| holds(*until, now_ns))
    }

    fn is_address_cut_off(&self, address: IpAddr, now_ns: u64) -> bool {
        let holding = self.quarantined_addresses.iter().filter(|(prefix, _)| prefix.contains(&address));
        let longest = holding.max_by_key(|(prefix, _)| prefix.prefix_len());
        longest.is_some_and(|(_, until)| holds(*until, now_ns))
    }

    /// Step 7: answers in management flows stay, and their later fragments.
    /// decided: ICMP errors about management don't stay.
    fn decide_quarantined(&self, case: &Case<'_>) -> Decision {
        let fragment = self.decide_fragment(case);
        let handed_over = self.find_handover(case).filter(|found| fragment.is_none() && found.management);
        let reply = match fragment {
            None => handed_over.or_else(|| self.find_reply(case)),
            Some(_) => None,
        };
        let replies = reply.is_some();
        let stays = |decision: &Decision| decision.management && !decision.reason.drops();
        match fragment {
            // the rest of an answer is as quiet as its beginning
            Some(decision) if stays(&decision) || decision.reason == Reason::Quarantined => decision,
            // decided: of two first ones with one id, one that passed and one that was dropped as well, the
            // one that was dropped counts
            Some(_) => self
                .follow_refused(case)
                .filter(|decision| decision.reason == Reason::Quarantined)
                .unwrap_or_else(|| Decision::drop(Reason::Quarantined)),
            None => reply
                .filter(stays)
                .and_then(|reply| Self::judge_question(case, reply))
                .unwrap_or_else(|| case.refuse_quarantined(replies, self.has_crossed(case))),
        }
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
        let known = self.fragments.find_first(packet, case.now_ns);
        let over_headers = known.is_some_and(|first| position < first.headers);
        let too_many = known.is_some_and(|first| !first.has_room_for(packet.data));
        // decided: one that names another protocol is no part of it either
        let foreign = known.is_some_and(|first| first.protocol != packet.fragment.1);
        let overtakes = known.is_none();
        let decision = match known.filter(|_| !over_headers && !too_many && !foreign) {
            // The datagram was under way when the policy changed: no sign of anything.
            Some(first)
                if first.generation != self.generation
                    || first.edit_changes != self.edit_changes
                    || first.edit_until.is_some_and(|until| case.now_ns >= until) =>
            {
                Decision::drop(Reason::Fragment).quiet_if(true).meeting(Covered::LaterUnderOtherPolicy)
            }
            Some(first) => {
                let mut decision = Decision::pass(Reason::LaterFragment).with(Effect::CountFragment);
                decision.needs = first.needs.clone();
                decision.management = first.management;
                decision.edit_until = first.edit_until;
                decision
            }
            None => match self.follow_refused(case) {
                Some(decision) => decision,
                // The first one may still come.
                None if overtakes => Decision { presumed: true, ..Decision::drop(Reason::Fragment) }
                    .meeting(Covered::LaterAlone),
                None => Decision::drop(Reason::Fragment),
            },
        };
        decision
            .meeting_if(over_headers, Covered::LaterOverHeaders)
            .meeting_if(too_many, Covered::LaterTooMany)
    }
}

impl Model {
    /// A later fragment goes as its first one, if that was dropped.
    fn follow_refused(&self, case: &Case<'_>) -> Option<Decision> {
        let packet = case.packet;
        match packet.piece {
            Piece::Later(8) if packet.protocol == TCP => return None,
            Piece::Later(_) => {}
            Piece::First | Piece::Whole => return None,
        }
        let first = self.fragments.find_refused(packet, case.now_ns)?;
        let mut decision = Decision::drop(first.reason).at_port(first.port).quiet_if(first.quiet);
        decision.own_port = first.own_port;
        decision.presumed = first.presumed;
        decision.protocol = Some(first.protocol);
        decision.needs = first.needs.clone();
        Some(decision.meeting(Covered::LaterOfRefused))
    }
}

/// Whether a router of the policy, by its MAC alone, tells the link something other than VRRP. decided: a MAC
/// that a server has as well is the server's.
fn tells_the_link(policy: &Policy, packet: &Packet) -> bool {
    let of_router = policy.routers.iter().flat_map(|router| &router.macs);
    let mut of_server = policy.servers.iter().flat_map(|server| &server.macs);
    let to_the_link = match packet.destination {
        IpAddr::V4(group) => group.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(group) => group.is_multicast() && has_link_scope(group),
    };
    // decided: of a question for members the TTL alone tells that it is one, in IPv4
    let asks_for_members = packet.destination.is_multicast()
        && packet.hop_limit == 1
        && match &packet.transport {
            Some(Transport::Icmp(icmp)) => packet.source.is_ipv6() && icmp.kind == LISTENER_QUERY,
            _ => packet.protocol == IGMP,
        };
    let finds_neighbours = packet.hop_limit == 255
        && match (packet.source, packet.destination, &packet.transport) {
            (IpAddr::V6(from), IpAddr::V6(to), Some(Transport::Icmp(icmp))) => {
                from.octets()[..8] == to.octets()[..8] && NEIGHBOUR_MESSAGES.contains(&icmp.kind)
            }
            _ => false,
        };
    (to_the_link || asks_for_members || finds_neighbours)
        && packet.protocol != VRRP
        && of_router.into_iter().any(|(mac, _)| *mac == packet.source_mac)
        && !of_server.any(|(mac, _)| *mac == packet.source_mac)
}

fn holds(until_ns: Option<u64>, now_ns: u64) -> bool {
    until_ns.is_none_or(|until_ns| now_ns < until_ns)
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
pub fn has_link_scope(destination: Ipv6Addr) -> bool {
    destination.is_unicast_link_local() || (destination.is_multicast() && destination.octets()[1] & 0x0f <= 2)
}
