//! What a peer may have opened with a packet that the filter would call broken: hosts accept more than
//! the filter does, so all is read that can be read, and nothing is judged.

use std::net::IpAddr;

use super::packet::{
    ACK, ICMP, ICMPV6, Piece, RST, SCTP, SYN, TCP, UDP, Word, ipv4_at, ipv6_at, read_word, u16_at,
};
use crate::support::frame::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};

/// A packet of a peer, as far as it could be read.
#[derive(Debug)]
pub struct Loose {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub opening: Opening,
    /// It may ask for a connection of SCTP or DCCP.
    pub asks: bool,
}

#[derive(Debug)]
pub enum Opening {
    /// TCP, UDP, SCTP.
    Ports {
        source: u16,
        destination: u16,
    },
    Icmp {
        kind: u8,
        identifier: u16,
    },
    Portless,
    /// A SYN with a reset: every host looks at the reset first (RFC 9293, 3.10.7.2).
    Reset,
    /// It opens nothing.
    None,
    /// Its ports lie in another fragment, or too far behind.
    Unreadable,
}

/// Reads a frame to a server; none for what no host takes.
pub fn read_loosely(frame: &[u8]) -> Option<Loose> {
    let mut at = 12;
    while matches!(u16_at(frame, at)?, 0x8100 | 0x88a8) {
        // as deep as the filter looks
        if at == 20 {
            return None;
        }
        at += 4;
    }
    let bytes = &frame[at + 2..];
    match u16_at(frame, at)? {
        0x0800 => read_ipv4(bytes),
        0x86dd => read_ipv6(bytes),
        _ => None,
    }
}

fn read_ipv4(bytes: &[u8]) -> Option<Loose> {
    let header_length = usize::from(bytes.first()? & 0x0f) * 4;
    let total = match usize::from(u16_at(bytes, 2)?) {
        0 => bytes.len(),
        total => total,
    };
    let (source, destination) = (ipv4_at(bytes, 12)?, ipv4_at(bytes, 16)?);
    if bytes[0] >> 4 != 4 {
        return None;
    }
    let (fragment, protocol) = (u16_at(bytes, 6)?, bytes[9]);
    let payload =
        bytes.get(..total).filter(|_| header_length >= 20).and_then(|packet| packet.get(header_length..));
    let opening = match payload {
        None => read_nothing(protocol),
        Some(_) if fragment & 0x1fff != 0 => Opening::None,
        Some(payload) => read_opening(payload, protocol, false, fragment & 0x2000 != 0),
    };
    let asks = may_ask(payload.unwrap_or_default(), protocol, fragment & 0x2000 != 0);
    Some(Loose { source, destination, protocol, opening, asks })
}

fn read_ipv6(bytes: &[u8]) -> Option<Loose> {
    if bytes.first()? >> 4 != 6 {
        return None;
    }
    let (source, destination) = (ipv6_at(bytes, 8)?, ipv6_at(bytes, 24)?);
    // decided: no host takes these from the wire.
    if source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
        return None;
    }
    let payload = match usize::from(u16_at(bytes, 4)?) {
        0 => bytes.get(40..),
        length => bytes.get(40..40 + length),
    };
    let mut protocol = bytes[6];
    let Some(payload) = payload else {
        return Some(Loose {
            source: IpAddr::V6(source),
            destination: IpAddr::V6(destination),
            protocol,
            opening: read_nothing(protocol),
            asks: false,
        });
    };
    let mut at = 0;
    let mut pieces = false;
    let opening = loop {
        let header = payload.get(at..).unwrap_or_default();
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let length = header.get(1).map_or(8, |units| (usize::from(*units) + 1) * 8);
                // it goes on in a later fragment; or no host takes it, and it is no harm
                if header.len() < length {
                    break Opening::Unreadable;
                }
                (protocol, at) = (header[0], at + length);
            }
            FRAGMENT => {
                if header.len() < 8 {
                    break Opening::Unreadable;
                }
                let word = u16_at(header, 2)?;
                // decided: the first one has said all that there is to say
                if word >> 3 != 0 {
                    break Opening::None;
                }
                pieces |= word & 1 != 0;
                (protocol, at) = (header[0], at + 8);
            }
            _ => break read_opening(header, protocol, true, pieces),
        }
    };
    let asks = may_ask(payload.get(at..).unwrap_or_default(), protocol, pieces);
    Some(Loose { source: IpAddr::V6(source), destination: IpAddr::V6(destination), protocol, opening, asks })
}

/// decided: the type may stand in a later piece
fn may_ask(payload: &[u8], protocol: u8, pieces: bool) -> bool {
    (pieces && protocol == SCTP) || read_word(payload, protocol, Piece::Whole) == Some(Word::Asks)
}

/// A packet that ends before its headers do. decided: no host takes it, so it is no harm to be heard by it.
fn read_nothing(protocol: u8) -> Opening {
    match protocol {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT => Opening::Unreadable,
        _ => Opening::None,
    }
}

fn read_opening(payload: &[u8], protocol: u8, ipv6: bool, first: bool) -> Opening {
    let ports = u16_at(payload, 0).zip(u16_at(payload, 2));
    // it goes on in a later fragment, or no host takes it
    let cut = if first { Opening::Unreadable } else { Opening::None };
    match (protocol, ports) {
        (TCP, Some((source, destination))) => {
            // flags that are in another fragment may be a SYN's
            // decided: no host takes a header that is shorter than it must be
            let sane = payload.len() >= 20 && payload[12] >> 4 >= 5;
            let flags = payload.get(13).copied().unwrap_or(0);
            if first || (sane && flags & (SYN | ACK | RST) == SYN) {
                Opening::Ports { source, destination }
            } else if sane && flags & (SYN | ACK | RST) == SYN | RST {
                Opening::Reset
            } else {
                Opening::None
            }
        }
        (UDP | SCTP, Some((source, destination))) => Opening::Ports { source, destination },
        // decided: no host takes a header of less than its eight bytes
        (ICMP | ICMPV6, _) if (protocol == ICMPV6) == ipv6 => u16_at(payload, 4)
            .filter(|_| payload.len() >= 8)
            .map_or(cut, |identifier| Opening::Icmp { kind: payload[0], identifier }),
        (TCP | UDP | SCTP, None) => cut,
        _ => Opening::Portless,
    }
}
