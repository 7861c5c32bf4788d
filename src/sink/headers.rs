//! Reads the header fields of EVE's `drop` object from the beginning of a frame. Fields that were cut off
//! are left out, and so is everything behind a header that makes no sense.
//!
//! This is no work for etherparse's lax slices (0.21). They reject a header as a whole if its length field is
//! wrong, if it is cut, or if TCP options reach beyond the sampled bytes, and they have no transport header of
//! a first fragment. Such frames are what a gate drops, so their fields matter most. Besides, the iterator
//! over IPv6 extensions reads beyond the frame where a chain is broken: it relies on checks that the lax slice
//! has not finished.

use serde::Serialize;

use crate::net::frame::{find_ethertype, read_u16};
use crate::net::tcp_flags::{ACK, FIN, PSH, RST, SYN, URG};
use crate::net::{ICMP, ICMPV6, TCP, UDP, ethertype};

const MAX_EXTENSIONS: usize = 8;

/// Header fields by their names in EVE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Headers {
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipid: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tc: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hoplimit: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flowlbl: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udplen: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_id: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_seq: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Tcp {
    tcpseq: u32,
    tcpack: u32,
    tcpwin: u16,
    syn: bool,
    ack: bool,
    psh: bool,
    rst: bool,
    urg: bool,
    fin: bool,
    tcpres: u8,
    tcpurgp: u16,
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

impl Headers {
    /// The fields of an Ethernet frame, or of its beginning.
    pub(super) fn read(frame: &[u8]) -> Headers {
        let mut headers = Headers::default();
        // `None` only ends the reading. The fields that were read until then stay.
        let _ = headers.read_ethernet(frame);
        headers
    }

    fn read_ethernet(&mut self, frame: &[u8]) -> Option<()> {
        let at = find_ethertype(frame)?;
        let packet = frame.get(at + 2..)?;
        match (read_u16(frame, at)?, byte(packet, 0)? >> 4) {
            (ethertype::IPV4, 4) => self.read_ipv4(packet),
            (ethertype::IPV6, 6) => self.read_ipv6(packet),
            _ => None,
        }
    }

    fn read_ipv4(&mut self, packet: &[u8]) -> Option<()> {
        let header_bytes = usize::from(byte(packet, 0)? & 0x0f) * 4;
        self.tos = Some(byte(packet, 1)?);
        self.len = Some(read_u16(packet, 2)?);
        self.ipid = Some(read_u16(packet, 4)?);
        self.ttl = Some(byte(packet, 8)?);
        let later_fragment = read_u16(packet, 6)? & 0x1fff != 0;
        if header_bytes < 20 || later_fragment {
            return None;
        }
        self.read_transport(byte(packet, 9)?, packet.get(header_bytes..)?)
    }

    fn read_ipv6(&mut self, packet: &[u8]) -> Option<()> {
        let start = long(packet, 0)?;
        self.tc = u8::try_from(start >> 20 & 0xff).ok();
        self.flowlbl = Some(start & 0x000f_ffff);
        self.len = Some(read_u16(packet, 4)?);
        self.hoplimit = Some(byte(packet, 7)?);
        let mut protocol = byte(packet, 6)?;
        let mut at = 40_usize;
        for _ in 0..=MAX_EXTENSIONS {
            let length_bytes = match protocol {
                0 | 43 | 60 => usize::from(byte(packet, at + 1)?) * 8 + 8,
                44 if read_u16(packet, at + 2)? & 0xfff8 != 0 => return None,
                44 => 8,
                51 => usize::from(byte(packet, at + 1)?) * 4 + 8,
                _ => return self.read_transport(protocol, packet.get(at..)?),
            };
            protocol = byte(packet, at)?;
            at += length_bytes;
        }
        None
    }

    fn read_transport(&mut self, protocol: u8, segment: &[u8]) -> Option<()> {
        match protocol {
            TCP => self.read_tcp(segment),
            UDP => {
                self.udplen = Some(read_u16(segment, 4)?);
                Some(())
            }
            ICMP | ICMPV6 => self.read_icmp(protocol, segment),
            _ => None,
        }
    }

    fn read_tcp(&mut self, segment: &[u8]) -> Option<()> {
        let flags = byte(segment, 13)?;
        let is_set = |bit: u8| flags & bit != 0;
        self.tcp = Some(Tcp {
            tcpseq: long(segment, 4)?,
            tcpack: long(segment, 8)?,
            tcpwin: read_u16(segment, 14)?,
            syn: is_set(SYN),
            ack: is_set(ACK),
            psh: is_set(PSH),
            rst: is_set(RST),
            urg: is_set(URG),
            fin: is_set(FIN),
            tcpres: byte(segment, 12)? & 0x0f,
            tcpurgp: read_u16(segment, 18)?,
        });
        Some(())
    }

    /// Only requests and replies have an identifier there.
    fn read_icmp(&mut self, protocol: u8, message: &[u8]) -> Option<()> {
        let kind = byte(message, 0)?;
        let has_identifier = match protocol {
            ICMP => matches!(kind, 0 | 8 | 13..=18),
            _ => matches!(kind, 128 | 129),
        };
        if has_identifier {
            self.icmp_id = Some(read_u16(message, 4)?);
            self.icmp_seq = Some(read_u16(message, 6)?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4, a TCP SYN.
    const SYN: &[u8] = &[
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x10, 0x08, 0x00, // Ethernet
        0x45, 0x10, 0, 40, 0x12, 0x34, 0x40, 0, 63, 6, 0, 0, // IPv4
        192, 0, 2, 10, 198, 51, 100, 7, //
        0x9c, 0x40, 0x01, 0xbd, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0, 0, 0, 0,
    ];

    fn json(frame: &[u8]) -> serde_json::Value {
        serde_json::to_value(Headers::read(frame)).unwrap()
    }

    #[test]
    fn a_syn_has_the_fields_of_ipv4_and_tcp() {
        assert_eq!(
            json(SYN),
            serde_json::json!({
                "len": 40, "tos": 16, "ttl": 63, "ipid": 0x1234,
                "tcpseq": 9, "tcpack": 0, "tcpwin": 64240, "syn": true, "ack": false,
                "psh": false, "rst": false, "urg": false, "fin": false, "tcpres": 0, "tcpurgp": 0,
            })
        );
    }

    #[test]
    fn vlan_tags_are_looked_through() {
        let mut tagged = SYN[..12].to_vec();
        tagged.extend_from_slice(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7]);
        tagged.extend_from_slice(&SYN[12..]);
        assert_eq!(json(&tagged), json(SYN));
    }

    #[test]
    fn ipv6_extension_headers_are_looked_through() {
        let mut frame = SYN[..12].to_vec();
        frame.extend_from_slice(&[0x86, 0xdd, 0x6a, 0xb1, 0x23, 0x45, 0, 24, 0, 64]);
        frame.extend_from_slice(&[0; 32]);
        frame.extend_from_slice(&[60, 0, 0, 0, 0, 0, 0, 0]); // hop-by-hop
        frame.extend_from_slice(&[17, 0, 0, 0, 0, 0, 0, 0]); // destination options
        frame.extend_from_slice(&[0, 53, 0, 53, 0, 8, 0, 0]);
        assert_eq!(
            json(&frame),
            serde_json::json!({
                "len": 24, "tc": 0xab, "flowlbl": 0x12345, "hoplimit": 64, "udplen": 8,
            })
        );
    }

    #[test]
    fn an_echo_request_has_an_identifier_and_an_error_has_none() {
        let mut frame = SYN[..34].to_vec();
        frame[23] = 1;
        frame.extend_from_slice(&[8, 0, 0, 0, 0, 7, 0, 9]);
        let value = json(&frame);
        assert_eq!((&value["icmp_id"], &value["icmp_seq"]), (&7.into(), &9.into()));
        frame[34] = 3;
        assert_eq!(json(&frame)["icmp_id"], serde_json::Value::Null);
    }

    #[test]
    fn every_cut_and_every_corrupt_byte_is_survived() {
        for length in 0..=SYN.len() {
            Headers::read(&SYN[..length]);
        }
        for at in 0..SYN.len() {
            for value in 0..=255 {
                let mut corrupt = SYN.to_vec();
                corrupt[at] = value;
                Headers::read(&corrupt);
            }
        }
        let mut long_chain = SYN[..12].to_vec();
        long_chain.extend_from_slice(&[0x86, 0xdd, 0x60]);
        long_chain.resize(128, 0);
        Headers::read(&long_chain);
    }
}
