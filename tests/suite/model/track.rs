//! What goes to the servers: who opened what. Nothing is judged here.

use portcullis::policy::{Policy, Server, Tracking};

use super::Model;
use super::flows::FlowKey;
use super::needs::{self, Subject};
use super::packet::{Frame, IcmpKind, Packet, Transport, UDP, Way, icmp_kind, parse};

#[expect(clippy::wrong_self_convention, reason = "`to` says which way a frame goes")]
impl Model {
    /// A frame on its way to a server. Later fragments, short first ones and broken packets tell
    /// nothing; decided: a source route and the server's `mac` and `vlan` don't matter here.
    pub fn to_server(&mut self, frame: &[u8], now_ns: u64) {
        // Taken out for the time being, for the flows change while it is read.
        let Some(policy) = self.policy.take() else { return };
        // decided: under service tracking nothing is recorded, for there is no second program.
        if policy.settings.tracking.value == Tracking::Strict
            && let Frame::Packet(packet) = parse(frame, Way::ToServer)
            && let Some(transport) = &packet.transport
            && let Some(server) = needs::find_server(&policy, packet.destination)
        {
            self.track(&policy, server, &packet, transport, now_ns);
        }
        self.policy = Some(policy);
    }

    fn track(
        &mut self,
        policy: &Policy,
        server: &Server,
        packet: &Packet,
        transport: &Transport,
        now_ns: u64,
    ) {
        let inbound = needs::inbound(policy, server);
        let permits = |port| {
            let subject = Subject { protocol: packet.protocol, port, peer: packet.source };
            !needs::matching(policy, &inbound, subject).is_empty()
        };
        let key = |server_port, peer_port| FlowKey {
            server: packet.destination,
            peer: packet.source,
            protocol: packet.protocol,
            server_port,
            peer_port,
        };
        match transport {
            Transport::Tcp(tcp) => {
                let key = key(tcp.destination, tcp.source);
                if !tcp.is_bare_syn() {
                    self.flows.hear_peer(&key, tcp, now_ns);
                } else if permits(tcp.destination) {
                    self.flows.open_half(key, self.generation, now_ns);
                } else {
                    self.flows.open_unlisted(key, now_ns);
                }
            }
            Transport::Ports { source, destination } => {
                let key = key(*destination, *source);
                if permits(*destination) {
                    self.flows.open_datagrams(key, self.generation, now_ns);
                } else if packet.protocol == UDP {
                    // From where the server may ask, it is an answer.
                    let asked = Subject { protocol: UDP, port: *source, peer: packet.source };
                    let outbound = needs::outbound(policy, server);
                    if needs::matching(policy, &outbound, asked).is_empty() {
                        self.flows.open_unlisted(key, now_ns);
                    }
                }
                // decided: SCTP to what is no service is not remembered.
            }
            Transport::Icmp(icmp) => {
                let request = icmp_kind(packet.source.is_ipv6(), icmp.kind) == IcmpKind::Request;
                let kind = u16::from(icmp.kind);
                if request && permits(kind) {
                    self.flows.open_datagrams(key(icmp.identifier, kind), self.generation, now_ns);
                }
            }
            Transport::Portless => {
                if permits(0) {
                    self.flows.open_datagrams(key(0, 0), self.generation, now_ns);
                }
            }
        }
    }
}
