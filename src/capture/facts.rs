//! What a frame says of itself: addresses, ports, flags. Only for its direction and for what is printed: verdicts are the
//! programs' own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::frame::{FIRST_ETHERTYPE_AT, find_ethertype, read_u16};
use crate::net::{ICMP, ICMPV6, TCP, UDP, ethertype, is_icmp};

/// As many as the programs look through.
const MAX_EXTENSIONS: usize = 8;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The whole of it.
    Whole,
    /// Its first fragment.
    First,
    /// A later fragment, which has no ports.
    Later,
}

/// The facts of an IP packet in an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol, behind the extension headers.
    pub protocol: u8,
    /// Source port. 0: none was read. Of ICMP the identifier.
    pub source_port: u16,
    /// Destination port. 0: none was read. Of ICMP the type.
    pub destination_port: u16,
    /// Of TCP; 0 for other protocols.
    pub tcp_flags: u8,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Which part of a datagram it is.
    pub position: Position,
    /// Whether the frame has a VLAN tag.
    pub is_tagged: bool,
    /// Where the IP header begins in the frame.
    pub ip_at: usize,
    /// Where the header behind IP begins in the frame.
    pub transport_at: usize,
}

impl Facts {
    /// Reads a frame. `None`: it is no IP, or too short for its addresses.
    pub fn of(frame: &[u8]) -> Option<Facts> {
        let at = find_ethertype(frame)?;
        let ip_at = at + 2;
        let packet = frame.get(ip_at..)?;
        let facts = match read_u16(frame, at)? {
            ethertype::IPV4 => read_ipv4(packet)?,
            ethertype::IPV6 => read_ipv6(packet)?,
            _ => return None,
        };
        let transport_at = ip_at + facts.transport_at;
        let mut facts = Facts { is_tagged: at > FIRST_ETHERTYPE_AT, ip_at, transport_at, ..facts };
        if facts.position != Position::Later {
            facts.read_transport(frame);
        }
        Some(facts)
    }

    fn read_transport(&mut self, frame: &[u8]) {
        let at = self.transport_at;
        if is_icmp(self.protocol) {
            self.destination_port = frame.get(at).copied().map_or(0, u16::from);
            self.source_port = read_u16(frame, at + 4).unwrap_or(0);
        } else if crate::net::has_ports(self.protocol) {
            self.source_port = read_u16(frame, at).unwrap_or(0);
            self.destination_port = read_u16(frame, at + 2).unwrap_or(0);
        }
        if self.protocol == TCP {
            self.tcp_flags = frame.get(at + 13).copied().unwrap_or(0);
        }
    }

    /// How many bytes of the frame its headers need, as far as the programs read them.
    pub fn header_bytes(&self) -> usize {
        let is_ipv4 = self.source.is_ipv4();
        let transport = match self.protocol {
            _ if self.position == Position::Later => 0,
            TCP => 20,
            UDP => 8,
            ICMP if matches!(self.destination_port, 3 | 4 | 11 | 12) => 8 + IPV4_HEADER_BYTES + 8,
            ICMPV6 if matches!(self.destination_port, 1..=4) => 8 + IPV6_HEADER_BYTES + 8,
            // it is not known what follows extension headers that were not captured
            _ if !is_ipv4 && is_extension(self.protocol) => usize::MAX / 2,
            _ => 8,
        };
        self.transport_at + transport
    }
}

fn read_ipv4(packet: &[u8]) -> Option<Facts> {
    let address = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
    let fragment = read_u16(packet, 6)?;
    let position = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => Position::Whole,
        (0, _) => Position::First,
        _ => Position::Later,
    };
    Some(Facts {
        source: address(12)?.into(),
        destination: address(16)?.into(),
        protocol: *packet.get(9)?,
        source_port: 0,
        destination_port: 0,
        tcp_flags: 0,
        hop_limit: *packet.get(8)?,
        position,
        is_tagged: false,
        ip_at: 0,
        transport_at: usize::from(packet.first()? & 0x0f) * 4,
    })
}

fn read_ipv6(packet: &[u8]) -> Option<Facts> {
    let address = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
    let (source, destination) = (address(8)?, address(24)?);
    let mut protocol = *packet.get(6)?;
    let mut at = IPV6_HEADER_BYTES;
    let mut position = Position::Whole;
    for _ in 0..MAX_EXTENSIONS {
        let Some(header) = packet.get(at..at + 8).filter(|_| is_extension(protocol)) else { break };
        if protocol == FRAGMENT {
            let offset = read_u16(header, 2)?;
            position = match (offset & 0xfff8, offset & 1) {
                (0, 0) => position,
                (0, _) => Position::First,
                _ => Position::Later,
            };
            at += 8;
        } else {
            at += 8 + usize::from(*header.get(1)?) * 8;
        }
        protocol = *header.first()?;
        if position == Position::Later {
            break;
        }
    }
    Some(Facts {
        source: source.into(),
        destination: destination.into(),
        protocol,
        source_port: 0,
        destination_port: 0,
        tcp_flags: 0,
        hop_limit: *packet.get(7)?,
        position,
        is_tagged: false,
        ip_at: 0,
        transport_at: at,
    })
}

fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}
