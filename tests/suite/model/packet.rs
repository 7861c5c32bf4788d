//! From the bytes of a frame to what can be known of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use crate::support::frame::{ACK, DCCP, FIN, ICMP, ICMPV6, IGMP, RST, SCTP, SYN, TCP, UDP};
use crate::support::frame::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};

const NO_NEXT_HEADER: u8 = 59;
const MAX_EXTENSIONS: usize = 8;

/// Which way a frame goes: what leaves the router through the kernel may be a super-packet, whose
/// length field is 0 for "to the end of the frame".
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    FromServer,
    ToServer,
}

/// What a frame is.
#[derive(Debug)]
pub enum Frame {
    /// Not IP, and of an EtherType that the link needs; whether it is ARP.
    LinkLayer(bool),
    /// Not IP, and of another.
    Foreign(u16),
    /// Broken; what was read before the flaw.
    Malformed(Known),
    Packet(Box<Packet>),
}

/// What of a broken packet is known: all that comes before its first flaw.
/// decided: the addresses and the protocol, once the fixed IP header lies within the frame; the
/// destination port (ICMP: type), once the fixed transport header does; otherwise 0.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub source_mac: [u8; 6],
    /// VLAN ids, outermost first.
    pub vlans: Vec<u16>,
    pub source: Option<IpAddr>,
    pub protocol: u8,
    pub port: u16,
    /// Of a first fragment: its destination, and id and protocol of its datagram.
    pub first: Option<(IpAddr, (u32, u8))>,
}

/// An IP packet that contradicts nothing.
#[derive(Debug)]
pub struct Packet {
    pub source_mac: [u8; 6],
    /// VLAN ids, outermost first.
    pub vlans: Vec<u16>,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv6: the last next header.
    pub protocol: u8,
    pub source_routed: bool,
    pub piece: Piece,
    /// What the fragments of one datagram have in common, besides the addresses: id and protocol.
    pub fragment: (u32, u8),
    /// Bytes of extension headers behind the fragment header.
    pub extensions: usize,
    /// Bytes behind the IP header, or behind the fragment header.
    pub data: u32,
    /// The transport header and what is behind it, or what of them is here.
    pub payload: Vec<u8>,
    /// None for a later fragment, and for a first one that is too short for it.
    pub transport: Option<Transport>,
    /// The destination port as far as it could be read, even so.
    pub port: u16,
    /// What an end of a connection says by it, beside TCP.
    pub word: Option<Word>,
}

/// What the first bytes of SCTP, DCCP and IGMP say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// INIT, Request.
    Asks,
    /// INIT ACK, Response.
    Accepts,
    /// ABORT, SHUTDOWN COMPLETE, Reset: also of what belongs to no connection.
    Resets,
    /// IGMP: a host is in a group, or leaves it.
    Reports,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Whole,
    First,
    /// With its offset in bytes.
    Later(u32),
}

#[derive(Clone, Debug)]
pub enum Transport {
    Tcp(Tcp),
    /// UDP and SCTP.
    Ports {
        source: u16,
        destination: u16,
    },
    Icmp(Icmp),
    /// Any other protocol. decided: also ICMP in IPv6 and ICMPv6 in IPv4, which no need matches.
    Portless,
}

#[derive(Clone, Debug)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// Bytes of data in this packet.
    pub data: u32,
}

impl Tcp {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn is_bare_syn(&self) -> bool {
        self.has(SYN) && !self.has(ACK)
    }

    pub fn is_syn_ack(&self) -> bool {
        self.has(SYN) && self.has(ACK)
    }
}

#[derive(Clone, Debug)]
pub struct Icmp {
    pub kind: u8,
    pub identifier: u16,
    /// What follows the eight bytes of the header.
    pub body: Vec<u8>,
}

impl Packet {
    /// The source port, of a protocol that has ports.
    pub fn source_port(&self) -> Option<u16> {
        match &self.transport {
            Some(Transport::Tcp(tcp)) => Some(tcp.source),
            Some(Transport::Ports { source, .. }) => Some(*source),
            Some(Transport::Icmp(_) | Transport::Portless) | None => None,
        }
    }

    /// The destination port, an ICMP message's type, or 0 where there is none to be seen.
    pub fn destination_port(&self) -> u16 {
        match &self.transport {
            Some(Transport::Tcp(tcp)) => tcp.destination,
            Some(Transport::Ports { destination, .. }) => *destination,
            Some(Transport::Icmp(icmp)) => u16::from(icmp.kind),
            Some(Transport::Portless) | None => self.port,
        }
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16_at(bytes, at)?) << 16 | u32::from(u16_at(bytes, at + 2)?))
}

/// Reads a frame; whatever it can't make sense of is malformed.
pub fn parse(frame: &[u8], way: Way) -> Frame {
    let mut known = Known::default();
    match read_link(frame, way, &mut known) {
        Some(parsed) => parsed,
        None => Frame::Malformed(known),
    }
}

fn read_link(frame: &[u8], way: Way, known: &mut Known) -> Option<Frame> {
    let mut source_mac = [0; 6];
    source_mac.copy_from_slice(frame.get(6..12)?);
    known.source_mac = source_mac;
    let mut vlans = Vec::new();
    let mut tags = 0;
    let mut at = 12;
    let mut ethertype = u16_at(frame, at)?;
    while ethertype == 0x8100 || ethertype == 0x88a8 {
        if tags == 2 {
            return None;
        }
        tags += 1;
        // a priority tag names no VLAN
        vlans.extend(Some(u16_at(frame, at + 2)? & 0x0fff).filter(|id| *id != 0));
        at += 4;
        ethertype = u16_at(frame, at)?;
    }
    let rest = &frame[at + 2..];
    known.vlans = vlans.clone();
    let mut packet = match ethertype {
        0x0800 => read_ipv4(rest, way, known)?,
        0x86dd => read_ipv6(rest, way, known)?,
        // ARP, LLDP, 802.1X, slow protocols
        0x0806 | 0x88cc | 0x888e | 0x8809 => return Some(Frame::LinkLayer(ethertype == 0x0806)),
        // 802.3 has a length here, of at most 1500. decided: 1501 to 1535 are neither and don't pass.
        0..=1500 => return Some(Frame::LinkLayer(false)),
        _ => return Some(Frame::Foreign(ethertype)),
    };
    packet.source_mac = source_mac;
    packet.vlans = vlans;
    Some(Frame::Packet(Box::new(packet)))
}

fn read_ipv4(bytes: &[u8], way: Way, known: &mut Known) -> Option<Packet> {
    if bytes.first()? >> 4 != 4 {
        return None;
    }
    let header_length = usize::from(bytes[0] & 0x0f) * 4;
    let source = ipv4_at(bytes, 12)?;
    let destination = ipv4_at(bytes, 16)?;
    let protocol = bytes[9];
    known.source = Some(source);
    known.protocol = protocol;
    let mut total = usize::from(u16_at(bytes, 2)?);
    if total == 0 && way == Way::ToServer {
        total = bytes.len();
    }
    if header_length < 20 || total < header_length {
        return None;
    }
    let packet = bytes.get(..total)?;
    // decided: what goes to a server is not judged by its options.
    let source_routed = way == Way::FromServer && read_ipv4_options(&packet[20..header_length])?;
    let word = u16_at(packet, 6)?;
    let piece = piece_of(u32::from(word & 0x1fff) * 8, word & 0x2000 != 0);
    let payload = &packet[header_length..];
    let fragment = (u32::from(u16_at(packet, 4)?), protocol);
    known.first = (piece == Piece::First).then_some((destination, fragment));
    check_fragment(piece, word & 0x2000 != 0, payload.len())?;
    Some(Packet {
        source_mac: [0; 6],
        vlans: Vec::new(),
        source,
        destination,
        hop_limit: packet[8],
        protocol,
        source_routed,
        piece,
        fragment,
        extensions: 0,
        data: payload.len() as u32,
        payload: payload.to_vec(),
        transport: read_transport(payload, protocol, false, piece, known)?,
        port: known.port,
        word: read_word(payload, protocol, piece),
    })
}

/// Whether there is a loose or strict source route among the options; none when they are broken.
fn read_ipv4_options(options: &[u8]) -> Option<bool> {
    let mut source_routed = false;
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => break,
            1 => at += 1,
            kind => {
                let length = usize::from(*options.get(at + 1)?);
                if length < 2 || at + length > options.len() {
                    return None;
                }
                source_routed |= kind == 131 || kind == 137;
                at += length;
            }
        }
    }
    Some(source_routed)
}

fn read_ipv6(bytes: &[u8], way: Way, known: &mut Known) -> Option<Packet> {
    if bytes.first()? >> 4 != 6 {
        return None;
    }
    let source = ipv6_at(bytes, 8)?;
    let destination = ipv6_at(bytes, 24)?;
    known.protocol = bytes[6];
    // decided: then neither is believed
    if source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
        return None;
    }
    known.source = Some(IpAddr::V6(source));
    let mut payload_length = usize::from(u16_at(bytes, 4)?);
    if payload_length == 0 && way == Way::ToServer {
        payload_length = bytes.len() - 40;
    }
    // A jumbogram. decided: or nothing behind the header, though it names something.
    if payload_length == 0 && bytes[6] != NO_NEXT_HEADER {
        return None;
    }
    let payload = bytes.get(40..40 + payload_length)?;
    let mut first = None;
    let chain = read_extensions(payload, bytes[6], false, &mut known.protocol, &mut first);
    known.first = first.map(|fragment| (IpAddr::V6(destination), fragment));
    let chain = chain?;
    Some(Packet {
        source_mac: [0; 6],
        vlans: Vec::new(),
        source: IpAddr::V6(source),
        destination: IpAddr::V6(destination),
        hop_limit: bytes[7],
        protocol: chain.protocol,
        source_routed: chain.source_routed,
        piece: chain.piece,
        fragment: chain.fragment,
        extensions: chain.length - chain.fragment_end,
        data: (payload.len() - chain.fragment_end) as u32,
        payload: payload[chain.length..].to_vec(),
        transport: if chain.cut {
            None
        } else {
            read_transport(&payload[chain.length..], chain.protocol, true, chain.piece, known)?
        },
        port: known.port,
        word: if chain.cut { None } else { read_word(&payload[chain.length..], chain.protocol, chain.piece) },
    })
}

/// The extension headers of an IPv6 packet.
pub struct Chain {
    pub length: usize,
    pub protocol: u8,
    source_routed: bool,
    pub piece: Piece,
    fragment: (u32, u8),
    /// Where the fragment header ends.
    fragment_end: usize,
    /// It goes on where the packet ends.
    pub cut: bool,
    pub headers: usize,
}

/// Walks the extension headers, of a packet whose end may be cut off; `reached` is the kind of the header it
/// stopped at, and `first_fragment` what a first fragment among them has, be the rest broken.
/// decided: AH, mobility, HIP and shim6 are protocols of their own and not looked through; options
/// are not read one by one (a jumbogram is out of bounds by its payload length of 0).
pub fn read_extensions(
    payload: &[u8],
    first: u8,
    cut_off: bool,
    reached: &mut u8,
    first_fragment: &mut Option<(u32, u8)>,
) -> Option<Chain> {
    let mut chain = Chain {
        length: 0,
        protocol: first,
        source_routed: false,
        piece: Piece::Whole,
        fragment: (0, 0),
        fragment_end: 0,
        cut: false,
        headers: 0,
    };
    let mut headers = 0;
    let mut fragments = 0;
    loop {
        *reached = chain.protocol;
        let header = &payload[chain.length..];
        match chain.protocol {
            HOP_BY_HOP if headers > 0 => return None,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT if headers == MAX_EXTENSIONS => {
                return None;
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let length = header.get(1).map_or(8, |units| (usize::from(*units) + 1) * 8);
                if header.len() < length {
                    // The first fragment holds the whole chain (RFC 7112).
                    chain.cut = true;
                    return (chain.piece == Piece::First).then_some(chain);
                }
                // type 0, or segments left
                chain.source_routed |= chain.protocol == ROUTING && (header[2] == 0 || header[3] != 0);
                chain.protocol = header[0];
                chain.length += length;
            }
            FRAGMENT => {
                let word = u16_at(header.get(..8)?, 2)?;
                // decided: fragments of fragments are malformed, even if one of them is atomic.
                fragments += 1;
                if fragments > 1 {
                    return None;
                }
                let more = word & 1 != 0;
                chain.piece = piece_of(u32::from(word >> 3) * 8, more);
                chain.fragment = (u32_at(header, 4)?, header[0]);
                chain.protocol = header[0];
                chain.length += 8;
                chain.fragment_end = chain.length;
                *reached = chain.protocol;
                *first_fragment = (chain.piece == Piece::First).then_some(chain.fragment);
                if !cut_off {
                    check_fragment(chain.piece, more, payload.len() - chain.length)?;
                }
                if matches!(chain.piece, Piece::Later(_)) {
                    *reached = chain.protocol;
                    return Some(chain);
                }
            }
            _ => return Some(chain),
        }
        headers += 1;
        chain.headers = headers;
    }
}

fn piece_of(offset: u32, more: bool) -> Piece {
    match (offset, more) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later(offset),
    }
}

/// decided: a fragment that reaches beyond the largest datagram contradicts its own header, and so
/// does one with more to follow whose length is no multiple of eight (RFC 8200, 4.5).
fn check_fragment(piece: Piece, more: bool, length: usize) -> Option<()> {
    let offset = match piece {
        Piece::Whole => return Some(()),
        Piece::First => 0,
        Piece::Later(offset) => offset as usize,
    };
    (length > 0 && offset + length <= 65_535 && (!more || length.is_multiple_of(8))).then_some(())
}

/// The transport header: `Some(None)` where a fragment has none to be read, none where it is broken.
fn read_transport(
    payload: &[u8],
    protocol: u8,
    ipv6: bool,
    piece: Piece,
    known: &mut Known,
) -> Option<Option<Transport>> {
    if matches!(piece, Piece::Later(_)) {
        return Some(None);
    }
    let fixed = match protocol {
        TCP => 20,
        UDP => 8,
        SCTP => 12,
        ICMP if !ipv6 => 8,
        ICMPV6 if ipv6 => 8,
        _ => return Some(Some(Transport::Portless)),
    };
    if payload.len() < fixed {
        return if piece == Piece::First { Some(None) } else { None };
    }
    let (first, second) = (u16_at(payload, 0)?, u16_at(payload, 2)?);
    match protocol {
        TCP => {
            known.port = second;
            let header_length = usize::from(payload[12] >> 4) * 4;
            let flags = payload[13];
            if header_length < 20 {
                return None;
            }
            let has = |flag| flags & flag != 0;
            let sane = flags & (SYN | ACK | RST | FIN) != 0
                && !(has(SYN) && has(FIN))
                && !(has(SYN) && has(RST))
                && (!has(FIN) || has(ACK));
            sane.then_some(())?;
            if header_length > payload.len() {
                return if piece == Piece::First { Some(None) } else { None };
            }
            Some(Some(Transport::Tcp(Tcp {
                source: first,
                destination: second,
                flags,
                sequence: u32_at(payload, 4)?,
                acknowledgment: u32_at(payload, 8)?,
                data: (payload.len() - header_length) as u32,
            })))
        }
        UDP => {
            known.port = second;
            let length = usize::from(u16_at(payload, 4)?);
            // decided: bytes of the packet behind the datagram's end are not judged.
            if length < 8 || (piece == Piece::Whole && length > payload.len()) {
                return None;
            }
            Some(Some(Transport::Ports { source: first, destination: second }))
        }
        SCTP => {
            known.port = second;
            Some(Some(Transport::Ports { source: first, destination: second }))
        }
        _ => {
            known.port = u16::from(payload[0]);
            let body = payload[8..].to_vec();
            Some(Some(Transport::Icmp(Icmp { kind: payload[0], identifier: u16_at(payload, 4)?, body })))
        }
    }
}

/// The type of SCTP's first chunk, of a DCCP packet (RFC 4340, 5.1), of IGMP. decided: a DCCP packet that ends
/// before its type may be a Request.
pub fn read_word(payload: &[u8], protocol: u8, piece: Piece) -> Option<Word> {
    if matches!(piece, Piece::Later(_)) {
        return None;
    }
    match (protocol, payload.get(if protocol == DCCP { 8 } else { 12 })) {
        (SCTP, Some(1)) => Some(Word::Asks),
        (SCTP, Some(2)) => Some(Word::Accepts),
        (SCTP, Some(6 | 14)) => Some(Word::Resets),
        (DCCP, byte) => match byte.map_or(0, |byte| byte >> 1 & 0xf) {
            0 => Some(Word::Asks),
            1 => Some(Word::Accepts),
            7 => Some(Word::Resets),
            _ => None,
        },
        (IGMP, _) if matches!(payload.first(), Some(0x12 | 0x16 | 0x17 | 0x22)) => Some(Word::Reports),
        _ => None,
    }
}

pub fn ipv4_at(bytes: &[u8], at: usize) -> Option<IpAddr> {
    u32_at(bytes, at).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
}

pub fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes.get(at..at + 16)?);
    Some(Ipv6Addr::from(octets))
}

/// The ICMP of a family.
pub fn icmp_of(ipv6: bool) -> u8 {
    if ipv6 { ICMPV6 } else { ICMP }
}

/// What an ICMP type is to the gate.
/// decided: an ICMPv6 type that RFC 4443 does not define is no error, and counts as something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    Request,
    /// With the type of the request it answers.
    Reply(u8),
    Error,
    RogueRouter,
    /// Router and neighbour solicitations, neighbour advertisements.
    Neighbour,
    /// MLD reports. decided: and MLDv1's "done", which a host sends on leaving a group.
    MulticastReport,
    Other,
}

pub fn icmp_kind(ipv6: bool, kind: u8) -> IcmpKind {
    match (ipv6, kind) {
        (false, 8 | 13 | 15 | 17 | 42) | (true, 128 | 139 | 160) => IcmpKind::Request,
        (false, 0) => IcmpKind::Reply(8),
        // timestamp, information, mask; extended echo (RFC 8335), node information (RFC 4620)
        (false, 14 | 16 | 18 | 43) | (true, 129 | 140 | 161) => IcmpKind::Reply(kind - 1),
        (false, 3 | 4 | 11 | 12) | (true, 1..=4) => IcmpKind::Error,
        (false, 5 | 9) | (true, 134 | 137) => IcmpKind::RogueRouter,
        (true, 133 | 135 | 136) => IcmpKind::Neighbour,
        (true, 131 | 132 | 143) => IcmpKind::MulticastReport,
        _ => IcmpKind::Other,
    }
}
