//! From a story's packet to bytes, and back: which of what was sent has come out.

use std::net::IpAddr;

use super::policy::GRE;
use super::story::{Event, Lie, Quote, Side, Source, Talk, What};
use super::world::frame_from;
use crate::support::frame::{
    DESTINATION_OPTIONS, Endpoint, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, Ipv4, Ipv6, ROUTING, TCP, UDP,
    icmp_message, icmp_protocol, tcp_header, udp_datagram,
};
use crate::support::layers::{fix_ipv4_checksum, transport_checksum};

/// What a play has given a talk.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub server: Endpoint,
    pub peer: Endpoint,
}

impl Ends {
    fn from(&self, side: Side) -> (Endpoint, Endpoint) {
        match side {
            Side::Server => (self.server, self.peer),
            Side::Peer => (self.peer, self.server),
        }
    }
}

/// A packet as it went out.
#[derive(Clone, Debug)]
pub struct Sent {
    pub frame: Vec<u8>,
    source: IpAddr,
    destination: IpAddr,
    identity: u16,
    /// Bytes of extension headers before a fragment header.
    extensions: usize,
    offset: usize,
    payload: Vec<u8>,
    is_piece: bool,
}

/// Other addresses that a packet may claim to come from, by family.
pub struct Addresses<'a> {
    pub servers: &'a dyn Fn(usize, bool) -> IpAddr,
    pub unknown: [IpAddr; 2],
}

impl Sent {
    /// `identity` is that of the packet, or of the datagram that it is a part of.
    pub fn build(event: &Event, talk: &Talk, ends: &Ends, identity: u16, addresses: &Addresses<'_>) -> Sent {
        let (mut from, to) = ends.from(event.from);
        match event.manner.source {
            Source::Own => {}
            Source::Server(number) => from.0 = (addresses.servers)(number, talk.v6),
            Source::Unknown => from.0 = addresses.unknown[usize::from(talk.v6)],
        }
        let mut payload = build_payload(event, talk, ends, (from, to), identity);
        let offset = event.manner.piece.map_or(0, |piece| piece.offset);
        if let Some(piece) = event.manner.piece {
            let end = (piece.offset + piece.bytes).min(payload.len());
            payload = payload.get(piece.offset..end).unwrap_or_default().to_vec();
            if piece.forged {
                payload.iter_mut().for_each(|byte| *byte ^= 0x5a);
            }
        }
        let (mut packet, extensions) = if talk.v6 {
            build_ipv6(event, talk, (from.0, to.0), identity, &payload)
        } else {
            (build_ipv4(event, talk, (from.0, to.0), identity, &payload), 0)
        };
        if let Some(lie) = event.manner.lie {
            tell(lie, talk.v6, &mut packet);
        }
        let mut frame = frame_from(event.from, talk.v6, &packet);
        frame.resize(frame.len() + event.manner.padding, 0);
        Sent {
            frame,
            source: from.0,
            destination: to.0,
            identity,
            extensions,
            offset,
            payload,
            is_piece: event.manner.piece.is_some(),
        }
    }

    /// Whether all of it is among what has come out.
    pub fn is_among(&self, arrivals: &[Arrival]) -> bool {
        let mine = arrivals.iter().filter(|arrival| {
            (arrival.source, arrival.destination, arrival.identity)
                == (self.source, self.destination, self.identity)
        });
        if !self.is_piece {
            // a length that lies cuts it
            return mine
                .map(Arrival::read_payload)
                .any(|payload| payload.is_none_or(|bytes| self.payload.starts_with(bytes)));
        }
        let mut seen = vec![false; self.payload.len()];
        for (offset, bytes) in mine.filter_map(|arrival| arrival.place(self.extensions)) {
            for (at, byte) in bytes.iter().enumerate() {
                let Some(at) = (offset + at).checked_sub(self.offset) else {
                    continue;
                };
                if self.payload.get(at) == Some(byte) {
                    seen[at] = true;
                }
            }
        }
        !seen.is_empty() && seen.into_iter().all(|seen| seen)
    }
}

fn fill(identity: u16, bytes: u16) -> Vec<u8> {
    (0..bytes).map(|at| (identity ^ at.wrapping_mul(0x2f)) as u8).collect()
}

/// From and to: as the packet has them, which may not be its sender's.
fn build_payload(
    event: &Event,
    talk: &Talk,
    ends: &Ends,
    (from, to): (Endpoint, Endpoint),
    identity: u16,
) -> Vec<u8> {
    let protocol = talk.protocol;
    let (mut payload, sum_at) = match event.what {
        What::Tcp(segment) => {
            let mut bytes = tcp_header(from, to, segment.flags, (segment.sequence, segment.acknowledgment));
            if let Some(words) = segment.words {
                bytes[12] = words << 4;
            }
            bytes.extend(fill(identity, segment.data));
            (bytes, Some(16))
        }
        What::Udp(data, length) => {
            let mut bytes = udp_datagram(from, to, &fill(identity, data));
            if let Some(length) = length {
                bytes[4..6].copy_from_slice(&length.to_be_bytes());
            }
            (bytes, Some(6))
        }
        What::Ping(kind, code, data) => {
            let id = if event.from == Side::Server { from.1 } else { to.1 };
            let [high, low] = id.to_be_bytes();
            let bytes = icmp_message(from.0, to.0, (kind, code), [high, low, 0, 1], &fill(identity, data));
            (bytes, Some(2))
        }
        What::Error(kind, code, quote) => {
            let quoted = build_quote(&quote, talk, event.from, ends.from(event.from));
            (icmp_message(from.0, to.0, (kind, code), [0; 4], &quoted), Some(2))
        }
        What::Other(data) => {
            let mut bytes = fill(identity, data);
            // a plain header, for conntrack reads calls of PPTP in others
            if protocol == GRE {
                bytes[..4].copy_from_slice(&[0, 0, 0x08, 0]);
            }
            (bytes, None)
        }
    };
    if let Some(at) = sum_at {
        let protocol = if matches!(event.what, What::Error(..) | What::Ping(..)) {
            icmp_protocol(from.0)
        } else {
            protocol
        };
        payload[at..at + 2].fill(0);
        let sum = transport_checksum(from.0, to.0, protocol, &payload) ^ u16::from(event.manner.bad_checksum);
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    payload
}

/// The packet that an ICMP error is about.
fn build_quote(quote: &Quote, talk: &Talk, by: Side, (from, to): (Endpoint, Endpoint)) -> Vec<u8> {
    let own = (from.0, quote.port.unwrap_or(from.1));
    let (source, destination) = if quote.theirs { (to, own) } else { (own, to) };
    let payload = match talk.protocol {
        TCP => tcp_header(source, destination, quote.kind, (1001, 5001)),
        UDP => udp_datagram(source, destination, &[0x71; 12]),
        ICMP | ICMPV6 => {
            let id = if by == Side::Server { from.1 } else { to.1 };
            let [high, low] = id.to_be_bytes();
            icmp_message(source.0, destination.0, (quote.kind, 0), [high, low, 0, 1], &[0x71; 12])
        }
        _ => vec![0x71; 20],
    };
    let mut packet = if talk.v6 {
        Ipv6::new(source.0, destination.0, talk.protocol, &payload).packet()
    } else {
        Ipv4::new(source.0, destination.0, talk.protocol, &payload).packet()
    };
    packet.truncate(if talk.v6 { 40 } else { 20 } + quote.bytes);
    packet
}

fn protocol_of(event: &Event, talk: &Talk, from: IpAddr) -> u8 {
    if matches!(event.what, What::Error(..)) { icmp_protocol(from) } else { talk.protocol }
}

fn build_ipv4(event: &Event, talk: &Talk, ends: (IpAddr, IpAddr), identity: u16, payload: &[u8]) -> Vec<u8> {
    let (offset, more) = event.manner.piece.map_or((0, false), |piece| (piece.offset / 8, piece.more));
    let mut packet = Ipv4::new(ends.0, ends.1, protocol_of(event, talk, ends.0), payload)
        .options(&event.manner.options)
        .fragment(identity, offset as u16, more)
        .packet();
    packet[8] = event.manner.ttl;
    let header = 20 + event.manner.options.len();
    packet[10..12].fill(0);
    fix_ipv4_checksum(&mut packet[..header]);
    packet
}

/// The packet, and the bytes of its extension headers before a fragment header.
fn build_ipv6(
    event: &Event,
    talk: &Talk,
    ends: (IpAddr, IpAddr),
    identity: u16,
    payload: &[u8],
) -> (Vec<u8>, usize) {
    let mut builder = Ipv6::new(ends.0, ends.1, protocol_of(event, talk, ends.0), payload);
    let mut extensions = 0;
    for (kind, rest) in &event.manner.extensions {
        builder = builder.extension(*kind, rest);
        extensions += 1 + rest.len();
    }
    if let Some(piece) = event.manner.piece {
        builder = builder.fragment(0x5000_0000 | u32::from(identity), (piece.offset / 8) as u16, piece.more);
    }
    let mut packet = builder.hop_limit(event.manner.ttl).packet();
    // the flow label
    packet[2..4].copy_from_slice(&identity.to_be_bytes());
    (packet, extensions)
}

fn tell(lie: Lie, v6: bool, packet: &mut [u8]) {
    match lie {
        Lie::Length(by) => {
            let at = if v6 { 4 } else { 2 };
            let length = u16::from_be_bytes([packet[at], packet[at + 1]]).wrapping_add_signed(by);
            packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        Lie::Version(version) => packet[0] = packet[0] & 0x0f | version << 4,
        Lie::HeaderWords(words) if !v6 => packet[0] = packet[0] & 0xf0 | words,
        Lie::Checksum if !v6 => {
            packet[10] ^= 1;
            return;
        }
        Lie::HeaderWords(_) | Lie::Checksum => return,
    }
    if !v6 {
        let header = (usize::from(packet[0] & 0x0f) * 4).clamp(20, packet.len());
        packet[10..12].fill(0);
        fix_ipv4_checksum(&mut packet[..header]);
    }
}

/// A packet that has come out.
#[derive(Clone, Debug)]
pub struct Arrival {
    source: IpAddr,
    destination: IpAddr,
    identity: u16,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// Offset and payload.
    V4(usize, Vec<u8>),
    /// The first next header, and all behind the IPv6 header.
    V6(u8, Vec<u8>),
}

impl Arrival {
    pub fn read(frame: &[u8]) -> Option<Arrival> {
        let packet = frame.get(14..)?;
        let word =
            |at: usize| -> Option<u16> { Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])) };
        match frame.get(12..14)? {
            [0x08, 0x00] => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let payload = packet.get(header..usize::from(word(2)?))?;
                let address = |at: usize| -> Option<IpAddr> {
                    Some(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into())
                };
                let offset = usize::from(word(6)? & 0x1fff) * 8;
                Some(Arrival {
                    source: address(12)?,
                    destination: address(16)?,
                    identity: word(4)?,
                    body: Body::V4(offset, payload.to_vec()),
                })
            }
            [0x86, 0xdd] => {
                let address = |at: usize| -> Option<IpAddr> {
                    Some(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?.into())
                };
                let body = packet.get(40..40 + usize::from(word(4)?))?;
                Some(Arrival {
                    source: address(8)?,
                    destination: address(24)?,
                    identity: word(2)?,
                    body: Body::V6(*packet.get(6)?, body.to_vec()),
                })
            }
            _ => None,
        }
    }

    /// What is behind all headers of IP. `None`: they are too odd to tell.
    fn read_payload(&self) -> Option<&[u8]> {
        match &self.body {
            Body::V4(_, payload) => Some(payload),
            Body::V6(first, body) => {
                let (mut next, mut at) = (*first, 0);
                while [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS].contains(&next) {
                    let words = if next == FRAGMENT { 0 } else { usize::from(*body.get(at + 1)?) };
                    next = *body.get(at)?;
                    at += (words + 1) * 8;
                }
                body.get(at..)
            }
        }
    }

    /// Where in its datagram its payload begins, and that payload. `extensions`: bytes of extension headers
    /// before a fragment header, if there is one.
    fn place(&self, extensions: usize) -> Option<(usize, &[u8])> {
        match &self.body {
            Body::V4(offset, payload) => Some((*offset, payload)),
            Body::V6(first, body) => {
                let (mut next, mut at) = (*first, 0);
                while at < extensions {
                    next = *body.get(at)?;
                    at += (usize::from(*body.get(at + 1)?) + 1) * 8;
                }
                if next != FRAGMENT {
                    return Some((0, body.get(extensions..)?));
                }
                let offset =
                    usize::from(u16::from_be_bytes([*body.get(at + 2)?, *body.get(at + 3)?]) & 0xfff8);
                Some((offset, body.get(at + 8..)?))
            }
        }
    }
}
