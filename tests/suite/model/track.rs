//! What goes to the servers: who opened what. Nothing is judged here.

use std::net::IpAddr;

use portcullis::policy::{Direction, Policy, Server};

use super::Model;
use super::coverage::Rule as Covered;
use super::decide::has_link_scope;
use super::flows::FlowKey;
use super::heard::HeardKey;
use super::needs::{self, Subject};
use super::opening::{Loose, Opening, read_loosely};
use super::packet::{
    Frame, ICMP, ICMPV6, IcmpKind, Packet, Piece, SCTP, TCP, Tcp, Transport, UDP, Way, Word, icmp_kind, parse,
};

/// Where a frame came from that goes to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From beyond, or from the router itself.
    Beyond,
    /// From the link of the servers, by the gate's NIC or a device above it.
    Link,
}

#[expect(clippy::wrong_self_convention, reason = "`to` says which way a frame goes")]
impl Model {
    /// A frame from beyond on its way to a server. What a host may accept opens something, be it broken or not; only
    /// a well-formed segment changes what is open. decided: a source route and the server's `mac` and
    /// `vlan` don't matter here.
    pub fn to_server(&mut self, frame: &[u8], now_ns: u64) {
        self.to_server_from(Origin::Beyond, frame, now_ns);
    }

    /// The same, from there or from the link. decided: what a stranger of the link sends is not even heard.
    pub fn to_server_from(&mut self, origin: Origin, frame: &[u8], now_ns: u64) {
        // Taken out for the time being, for the flows change while it is read.
        let Some(policy) = self.policy.take() else { return };
        // decided: under service tracking nothing is recorded, for there is no second program.
        // decided: but the policy to which a trial goes back may need it.
        if self.tracks {
            self.track(&policy, origin, frame, now_ns);
        }
        self.policy = Some(policy);
    }

    fn track(&mut self, policy: &Policy, origin: Origin, frame: &[u8], now_ns: u64) {
        let seen = match parse(frame, Way::ToServer) {
            Frame::Packet(packet) => {
                read_well_formed(&packet).map(|opening| (loosen(&packet, opening), Some(packet)))
            }
            Frame::Malformed(_) => None,
            Frame::LinkLayer(_) | Frame::Foreign(_) => return,
        };
        let Some((loose, packet)) = seen.or_else(|| read_loosely(frame).map(|loose| (loose, None))) else {
            return;
        };
        let stranger = origin == Origin::Link && needs::find_server(policy, loose.source).is_none();
        if policy.settings.dhcp.value && !stranger && answers_the_link(&loose) {
            self.coverage.meet(Covered::LeaseOfLink);
            self.lessors.entry(None).or_default().insert(loose.source);
            return;
        }
        let Some(server) = needs::find_server(policy, loose.destination) else { return };
        if origin == Origin::Link {
            if needs::find_server(policy, loose.source).is_none() {
                self.coverage.meet(Covered::StrangerOfLink);
                return;
            }
            self.coverage.meet(Covered::ServerOfLink);
        }
        if packet.is_none() && matches!(loose.opening, Opening::Ports { .. }) {
            self.coverage.meet(Covered::BrokenOpening);
        }
        self.open(policy, server, &loose, now_ns);
        if let Some(Transport::Tcp(tcp)) = packet.as_ref().and_then(|packet| packet.transport.as_ref())
            && !tcp.is_bare_syn()
        {
            self.hear_segment(policy, server, &loose, tcp, now_ns);
        }
    }

    fn hear_segment(&mut self, policy: &Policy, server: &Server, loose: &Loose, tcp: &Tcp, now_ns: u64) {
        let key = FlowKey {
            server: loose.destination,
            peer: loose.source,
            protocol: TCP,
            server_port: tcp.destination,
            peer_port: tcp.source,
        };
        let service = Subject::service(TCP, tcp.destination, loose.source);
        let rules = needs::matching(policy, &needs::inbound(policy, server), service);
        // decided: a service that was revoked during the handshake is not used.
        if self.flows.hear_peer(&key, tcp, now_ns) && !rules.is_empty() {
            self.uses.count(rules.iter().map(needs::Rule::line));
        }
    }

    fn open(&mut self, policy: &Policy, server: &Server, loose: &Loose, now_ns: u64) {
        let Loose { source: peer, destination, protocol, .. } = *loose;
        let inbound = needs::inbound(policy, server);
        let service_of = |port| Subject::service(protocol, port, peer);
        let port = match loose.opening {
            Opening::Ports { destination, .. } => destination,
            Opening::Icmp { kind, .. } => u16::from(kind),
            Opening::None | Opening::Reset | Opening::Unreadable | Opening::Portless => 0,
        };
        let by_policy = !needs::matching(policy, &inbound, service_of(port)).is_empty();
        // decided: what is denied is recorded all the same
        let edited = self.find_edits(&server.name, Direction::In, service_of(port), now_ns);
        let permitted = by_policy || edited.allowed_until.is_some();
        let generation = if by_policy { self.generation } else { 0 };
        let key =
            |server_port, peer_port| FlowKey { server: destination, peer, protocol, server_port, peer_port };
        let heard = |service| HeardKey { server: server.name.clone(), peer, service };
        match loose.opening {
            Opening::None => {}
            Opening::Reset => self.coverage.meet(Covered::SynReset),
            Opening::Unreadable => {
                self.coverage.meet(Covered::UnreadOpening);
                self.heard.remember(heard(None), now_ns);
            }
            Opening::Ports { source, destination: service } if protocol == TCP => {
                let key = key(service, source);
                if permitted {
                    self.flows.open_half(key, generation, now_ns);
                } else {
                    self.flows.open_unlisted(key, now_ns);
                }
            }
            Opening::Ports { source, destination: service } => {
                let key = key(service, source);
                if permitted {
                    // A flow that is busy is not written again, and so is this.
                    if self.flows.open_datagrams(key, generation, now_ns) {
                        self.heard.remember(heard(Some((protocol, service))), now_ns);
                    }
                    return;
                }
                // decided: also who may not use the service expects its answer
                if !needs::having_port(&inbound, service_of(service)).is_empty() {
                    self.heard.remember(heard(Some((protocol, service))), now_ns);
                }
                // decided: where its first chunk may stand in a later piece, it may be an INIT
                if protocol == SCTP && loose.asks {
                    self.flows.open_unlisted(key, now_ns);
                }
                if protocol != UDP {
                    return;
                }
                // A DHCP server answers a client, whatever the client asked by.
                if policy.settings.dhcp.value && is_dhcp_answer(peer.is_ipv6(), source, service) {
                    self.coverage.meet(Covered::Lease);
                    self.lessors.entry(Some(server.name.clone())).or_default().insert(peer);
                    return;
                }
                // From where the server may ask, it is an answer.
                let asked = Subject { protocol, port: source, peer, own_port: Some(service) };
                let asks = needs::matching(policy, &needs::outbound(policy, server), asked);
                let edited = self.find_edits(&server.name, Direction::Out, asked, now_ns);
                if edited.allowed_until.is_some() {
                    return;
                }
                if asks.is_empty() && self.comes_from_named(policy, server, asked) {
                    self.coverage.meet(Covered::AnswerOfNamed);
                } else if asks.is_empty() {
                    self.flows.open_unlisted(key, now_ns);
                } else if asks.iter().all(|rule| rule.need.sport.is_some()) {
                    self.coverage.meet(Covered::SportAnswer);
                }
            }
            Opening::Icmp { kind, identifier } => {
                let request = icmp_kind(peer.is_ipv6(), kind) == IcmpKind::Request;
                let kind = u16::from(kind);
                if request
                    && permitted
                    && self.flows.open_datagrams(key(identifier, kind), generation, now_ns)
                {
                    self.heard.remember(heard(Some((protocol, kind))), now_ns);
                }
            }
            Opening::Portless => {
                // decided: the ICMP of the other family is nothing
                let services = needs::having_port(&inbound, service_of(0));
                if [ICMP, ICMPV6].contains(&protocol) {
                    return;
                }
                if loose.asks && !permitted {
                    self.flows.open_unlisted(key(0, 0), now_ns);
                }
                if services.is_empty() && !permitted {
                    return;
                }
                if !permitted || self.flows.open_datagrams(key(0, 0), generation, now_ns) {
                    self.heard.remember(heard(Some((protocol, 0))), now_ns);
                }
            }
        }
    }
}

/// What a packet that contradicts nothing opens; none where its transport header is not all there.
fn read_well_formed(packet: &Packet) -> Option<Opening> {
    Some(match packet.transport.as_ref()? {
        // decided: what a first fragment has for flags, a later one may write over
        Transport::Tcp(tcp) if !tcp.is_bare_syn() && packet.piece != Piece::First => Opening::None,
        Transport::Tcp(tcp) => Opening::Ports { source: tcp.source, destination: tcp.destination },
        Transport::Ports { source, destination } => {
            Opening::Ports { source: *source, destination: *destination }
        }
        Transport::Icmp(icmp) => Opening::Icmp { kind: icmp.kind, identifier: icmp.identifier },
        Transport::Portless => Opening::Portless,
    })
}

fn loosen(packet: &Packet, opening: Opening) -> Loose {
    let Packet { source, destination, protocol, .. } = *packet;
    let asks = packet.word == Some(Word::Asks) || (protocol == SCTP && packet.piece == Piece::First);
    Loose { source, destination, protocol, opening, asks }
}

/// Whether a DHCP server answers who has no address of his own yet.
fn answers_the_link(loose: &Loose) -> bool {
    let to_the_link = match loose.destination {
        IpAddr::V4(destination) => destination.is_broadcast(),
        IpAddr::V6(destination) => has_link_scope(destination),
    };
    to_the_link
        && loose.protocol == UDP
        && matches!(loose.opening, Opening::Ports { source, destination }
            if is_dhcp_answer(loose.source.is_ipv6(), source, destination))
}

fn is_dhcp_answer(ipv6: bool, source: u16, destination: u16) -> bool {
    (source, destination) == if ipv6 { (547, 546) } else { (67, 68) }
}
