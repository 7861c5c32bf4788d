//! Frames to ask the programs about.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, SingleVlanHeader, TcpHeader,
    UdpHeader, VlanId,
};
use thiserror::Error;

use super::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use super::tcp_flags;

/// Payload bytes: enough for the parser to read the header of any protocol.
const PAYLOAD_BYTES: usize = 20;
const HOP_LIMIT: u8 = 64;
const DNS: u16 = 53;
/// A question that every role permits, also one with `dns = "named"`: for the name servers of the root.
const QUESTION: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
/// Where the type of the first chunk stands in SCTP, and two of these types.
const SCTP_CHUNK: usize = 12;
const SCTP_INIT: u8 = 1;
const SCTP_INIT_ACK: u8 = 2;

/// The facts of a packet.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port, or ICMP identifier.
    pub source_port: u16,
    /// Port, or ICMP type.
    pub destination_port: u16,
    /// As in the header's 14th byte: see [`tcp_flags`]. SCTP with ACK accepts an association.
    pub tcp_flags: u8,
    /// MAC of the sender.
    pub source_mac: [u8; 6],
    /// VLAN, 1 to 4094; `None` for a frame without a tag.
    pub vlan: Option<u16>,
}

/// Why no frame can be made of a probe.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProbeError {
    /// The addresses are of two families.
    #[error("one address is IPv4 and the other IPv6\nhelp: give both of one family")]
    Families,
}

impl Probe {
    /// The Ethernet frame. Its checksums are not computed, for the programs don't check them.
    pub fn to_frame(&self) -> Result<Vec<u8>, ProbeError> {
        let transport = self.transport();
        let length = transport.len() as u16;
        let protocol = IpNumber(self.protocol);
        let (ether_type, mut packet) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // Fails only for lengths beyond 65,535, and these are below 100.
                let header =
                    Ipv4Header::new(length, HOP_LIMIT, protocol, source.octets(), destination.octets())
                        .unwrap_or_default();
                (EtherType::IPV4, header.to_bytes().to_vec())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: length,
                    next_header: protocol,
                    hop_limit: HOP_LIMIT,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                (EtherType::IPV6, header.to_bytes().to_vec())
            }
            _ => return Err(ProbeError::Families),
        };
        packet.extend_from_slice(&transport);

        let vlan = self.vlan.and_then(|id| VlanId::try_new(id).ok());
        let ethernet = Ethernet2Header {
            source: self.source_mac,
            destination: [0x02, 0, 0, 0, 0, 0xfe],
            ether_type: if vlan.is_some() { EtherType::VLAN_TAGGED_FRAME } else { ether_type },
        };
        let mut frame = ethernet.to_bytes().to_vec();
        if let Some(vlan_id) = vlan {
            let tag = SingleVlanHeader { vlan_id, ether_type, ..Default::default() };
            frame.extend_from_slice(&tag.to_bytes());
        }
        frame.extend_from_slice(&packet);
        Ok(frame)
    }

    fn transport(&self) -> Vec<u8> {
        match self.protocol {
            TCP => {
                let mut header =
                    TcpHeader::new(self.source_port, self.destination_port, 1, 65_535).to_bytes();
                header[13] = self.tcp_flags;
                header.to_vec()
            }
            UDP => {
                let payload = if self.destination_port == DNS { &QUESTION[..] } else { &[0; PAYLOAD_BYTES] };
                let length = (UdpHeader::LEN + payload.len()) as u16;
                let header = UdpHeader {
                    source_port: self.source_port,
                    destination_port: self.destination_port,
                    length,
                    checksum: 0,
                };
                [&header.to_bytes()[..], payload].concat()
            }
            ICMP | ICMPV6 => {
                let mut message = vec![0; UdpHeader::LEN + PAYLOAD_BYTES];
                message[0] = self.destination_port as u8;
                message[4..6].copy_from_slice(&self.source_port.to_be_bytes());
                message
            }
            _ => {
                let mut header = vec![0; PAYLOAD_BYTES];
                header[..2].copy_from_slice(&self.source_port.to_be_bytes());
                header[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
                if self.protocol == SCTP {
                    let accepts = self.tcp_flags & tcp_flags::ACK != 0;
                    header[SCTP_CHUNK] = if accepts { SCTP_INIT_ACK } else { SCTP_INIT };
                }
                header
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tcp_flags::SYN;
    use crate::net::{GRE, read_question, read_udp_payload};

    fn probe(source: &str, destination: &str) -> Probe {
        Probe {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: TCP,
            source_port: 40000,
            destination_port: 80,
            tcp_flags: SYN,
            source_mac: [2, 0, 0, 0, 0, 1],
            vlan: None,
        }
    }

    #[test]
    fn a_probe_becomes_a_frame_that_parses_back() {
        for (a, b) in [("192.0.2.10", "198.51.100.1"), ("2001:db8::1", "2001:db8::2")] {
            for protocol in [ICMP, TCP, UDP, GRE, ICMPV6, SCTP] {
                let frame = Probe { protocol, vlan: Some(7), ..probe(a, b) }.to_frame().unwrap();
                etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            }
        }
        let frame = probe("192.0.2.10", "198.51.100.1").to_frame().unwrap();
        assert_eq!(&frame[34..38], &[0x9c, 0x40, 0, 80]);
        assert_eq!(frame[47], SYN);
    }

    #[test]
    fn a_datagram_to_a_resolver_is_one_whole_question() {
        let frame = Probe { protocol: UDP, destination_port: 53, ..probe("192.0.2.10", "198.51.100.1") };
        let frame = frame.to_frame().unwrap();
        assert_eq!(read_udp_payload(&frame).map(|payload| payload.length), Some(QUESTION.len()));
        assert_eq!(read_question(&frame).map(|question| question.to_string()).as_deref(), Some(". (NS)"));
    }

    #[test]
    fn two_families_make_no_packet() {
        assert_eq!(probe("192.0.2.10", "2001:db8::2").to_frame(), Err(ProbeError::Families));
    }
}
