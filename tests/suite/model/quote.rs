//! What an ICMP error is about.

use std::net::IpAddr;

use super::packet::{Piece, SCTP, TCP, UDP, icmp_of, ipv4_at, ipv6_at, read_extensions, u16_at};

const MAX_EXTENSIONS: usize = 3;

/// The packet that an ICMP error quotes, as far as it is there.
#[derive(Debug)]
pub struct Quote {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ends: QuotedEnds,
}

#[derive(Debug)]
pub enum QuotedEnds {
    Ports { source: u16, destination: u16 },
    Icmp { kind: u8, identifier: u16 },
    Portless,
}

/// Reads the packet that an ICMP error quotes. It may be cut anywhere behind the first eight bytes of
/// its transport header (RFC 792); decided: its length fields are not judged, and a later fragment
/// tells no flow.
pub fn read_quote(bytes: &[u8], ipv6: bool) -> Option<Quote> {
    let (source, destination, protocol, rest) = if ipv6 {
        if bytes.first()? >> 4 != 6 {
            return None;
        }
        let (source, destination) = (ipv6_at(bytes, 8)?, ipv6_at(bytes, 24)?);
        let chain = read_extensions(bytes.get(40..)?, bytes[6], true, &mut 0, &mut None)?;
        // decided: as many extension headers as a healthy packet has
        if matches!(chain.piece, Piece::Later(_)) || chain.headers > MAX_EXTENSIONS {
            return None;
        }
        (IpAddr::V6(source), IpAddr::V6(destination), chain.protocol, &bytes[40 + chain.length..])
    } else {
        let header_length = usize::from(bytes.first()? & 0x0f) * 4;
        if bytes[0] >> 4 != 4 || header_length < 20 || u16_at(bytes, 6)? & 0x1fff != 0 {
            return None;
        }
        (ipv4_at(bytes, 12)?, ipv4_at(bytes, 16)?, *bytes.get(9)?, bytes.get(header_length..)?)
    };
    let header = rest.get(..8)?;
    let ends = match protocol {
        TCP | UDP | SCTP => QuotedEnds::Ports { source: u16_at(header, 0)?, destination: u16_at(header, 2)? },
        _ if protocol == icmp_of(ipv6) => {
            QuotedEnds::Icmp { kind: header[0], identifier: u16_at(header, 4)? }
        }
        _ => QuotedEnds::Portless,
    };
    Some(Quote { source, destination, protocol, ends })
}
