//! Packets of tests: how a frame is made of one, and what the programs say about it.

use std::net::IpAddr;

use crate::abi::Reason;
use crate::compile::{ServerRow, ServiceIndex, Tables};
use crate::gate::{Answer, GateError, PrivateGate, Verdict};
use crate::net::tcp_flags::{ACK, SYN};
use crate::net::{Probe, find_icmp_answer, is_icmp};

/// Ports of clients: one of the dynamic ports, and another for a service that is itself at this one, so that no
/// packet of one test is an answer in a flow of another.
const CLIENT_PORT: u16 = 49_152;
const OTHER_CLIENT_PORT: u16 = 49_153;
/// The MAC of a sender that the policy binds to none.
const NOBODYS_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A host of the DMZ that sends.
#[derive(Clone, Copy)]
pub(super) struct Sender<'t> {
    pub(super) address: IpAddr,
    /// `None`: no server has the address.
    pub(super) row: Option<&'t ServerRow>,
}

impl Sender<'_> {
    pub(super) fn mac(&self) -> [u8; 6] {
        self.row.and_then(|row| row.macs.first().copied()).unwrap_or(NOBODYS_MAC)
    }

    fn vlan(&self) -> Option<u16> {
        self.row.and_then(|row| row.vlan)
    }
}

/// A packet that somebody opens a flow with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// Port, or type of ICMP.
    pub(super) port: u16,
    /// The port that it comes from, or the identifier of ICMP.
    pub(super) client_port: u16,
}

impl Packet {
    /// With the usual port of a client.
    pub(super) fn new(source: IpAddr, destination: IpAddr, protocol: u8, port: u16) -> Packet {
        Packet { source, destination, protocol, port, client_port: choose_client_port(port) }
    }
}

/// A port of a client of this service.
pub(super) fn choose_client_port(port: u16) -> u16 {
    if port == CLIENT_PORT { OTHER_CLIENT_PORT } else { CLIENT_PORT }
}

/// What the programs say about a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) packet: Packet,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<Reason>,
    /// Number of the rule that permits it. 0: none does.
    pub(super) rule: u32,
    /// It was dropped on its way from a server that is the peer.
    pub(super) of_peer: bool,
}

impl Judged {
    fn new(packet: Packet, answer: &Answer) -> Judged {
        let Answer { verdict, reason, rule, .. } = *answer;
        Judged { packet, verdict, reason, rule, of_peer: false }
    }

    pub(super) fn passes(&self) -> bool {
        self.verdict == Verdict::Pass
    }
}

/// Asks the programs.
pub(super) struct Judge<'t> {
    gate: &'t PrivateGate,
    index: ServiceIndex<'t>,
    is_strict: bool,
}

impl<'t> Judge<'t> {
    pub(super) fn new(gate: &'t PrivateGate, tables: &'t Tables) -> Judge<'t> {
        Judge { gate, index: ServiceIndex::new(tables), is_strict: tables.settings.is_strict() }
    }

    pub(super) fn gate(&self) -> &'t PrivateGate {
        self.gate
    }

    /// The host that has an address, with its server if there is one.
    pub(super) fn find_sender(&self, address: IpAddr) -> Sender<'t> {
        Sender { address, row: self.index.find_server(address) }
    }

    /// Asks about a packet by which a host of the DMZ opens.
    pub(super) fn judge_opening(&self, packet: Packet) -> Result<Judged, GateError> {
        let frame = make_frame(&packet, &self.find_sender(packet.source))?;
        Ok(Judged::new(packet, &self.gate.explain(&frame)?))
    }

    /// Shows the tracker a packet by which a peer opens on a server, and asks about the server's answer. A peer that
    /// is itself a server has to be allowed to open.
    pub(super) fn judge_service(&self, packet: Packet) -> Result<Judged, GateError> {
        let peer = self.find_sender(packet.source);
        if peer.row.is_some() {
            let opening = self.judge_opening(packet)?;
            if !opening.passes() {
                return Ok(Judged { of_peer: true, ..opening });
            }
        }
        if self.is_strict {
            self.gate.track(&make_frame(&packet, &peer)?)?;
        }
        let server = self.find_sender(packet.destination);
        let answer = make_probe(&packet, &server).map(|probe| answer_to(&packet, probe));
        let answer = answer.and_then(|probe| probe.to_frame().ok()).ok_or_else(no_frame)?;
        Ok(Judged::new(packet, &self.gate.explain(&answer)?))
    }
}

fn make_probe(packet: &Packet, sender: &Sender<'_>) -> Option<Probe> {
    let same_family = packet.source.is_ipv4() == packet.destination.is_ipv4();
    same_family.then(|| Probe {
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol,
        source_port: packet.client_port,
        destination_port: packet.port,
        tcp_flags: SYN,
        source_mac: sender.mac(),
        vlan: sender.vlan(),
    })
}

fn make_frame(packet: &Packet, sender: &Sender<'_>) -> Result<Vec<u8>, GateError> {
    make_probe(packet, sender).and_then(|probe| probe.to_frame().ok()).ok_or_else(no_frame)
}

fn no_frame() -> GateError {
    GateError::Other {
        what: "could not make the packet of a test".to_owned(),
        why: "its addresses are of two families".to_owned(),
    }
}

/// The answer of a server, whose MAC and VLAN `probe` has.
fn answer_to(packet: &Packet, probe: Probe) -> Probe {
    let (source_port, destination_port) = match is_icmp(packet.protocol) {
        true => (packet.client_port, find_icmp_answer(packet.protocol, packet.port).unwrap_or(packet.port)),
        false => (packet.port, packet.client_port),
    };
    Probe {
        source: packet.destination,
        destination: packet.source,
        source_port,
        destination_port,
        tcp_flags: SYN | ACK,
        ..probe
    }
}
