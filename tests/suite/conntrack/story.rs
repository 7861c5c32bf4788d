//! What servers and peers say, as a test writes it down: without the addresses and ports that only a
//! play gives out, so that one story can be played often, each time in flows that nobody has used.

use std::fmt::{Display, Formatter, Result};

use crate::support::frame::{ACK, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP};

pub const URG: u8 = 0x20;

/// Who sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Peer,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Server => Side::Peer,
            Side::Peer => Side::Server,
        }
    }
}

/// A port of one end, or the identifier of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Fixed(u16),
    /// Each play takes another one.
    Fresh,
}

/// Two ends and a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    pub v6: bool,
    /// By its number in the policy.
    pub server: usize,
    /// By its number among those whom policies name. `None`: somebody else, another one in each play.
    pub peer: Option<usize>,
    pub protocol: u8,
    pub server_port: Port,
    pub peer_port: Port,
}

impl Talk {
    pub fn is_icmp(&self) -> bool {
        self.protocol == if self.v6 { ICMPV6 } else { ICMP }
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub data: u16,
    /// Words of the header, where it lies about them.
    pub words: Option<u8>,
}

/// What an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// A packet of the one to whom the error goes, as most are, or one of the sender's own.
    pub theirs: bool,
    /// Instead of the port of the sender of the error.
    pub port: Option<u16>,
    /// TCP flags, or the type of an ICMP query.
    pub kind: u8,
    /// Bytes of the payload that it has.
    pub bytes: usize,
}

/// The payload of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Tcp(Segment),
    /// Data, and the length where it lies about it.
    Udp(u16, Option<u16>),
    /// Type, code and data of a query or an answer.
    Ping(u8, u8, u16),
    /// Type and code.
    Error(u8, u8, Quote),
    /// Of another protocol: data.
    Other(u16),
}

/// A part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which datagram of its talk.
    pub datagram: usize,
    pub offset: usize,
    pub bytes: usize,
    pub more: bool,
    /// Its content is not what the datagram has there.
    pub forged: bool,
}

/// How an IP header lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// By so much.
    Length(i16),
    HeaderWords(u8),
    Version(u8),
    /// Of the IPv4 header. In IPv6 nothing.
    Checksum,
}

/// An extension header of IPv6: its kind, and all of it but its first byte.
pub type Extension = (u8, Vec<u8>);

/// Whose source address the packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Own,
    /// The server with this number.
    Server(usize),
    /// One of the DMZ that no server has.
    Unknown,
}

/// All that is odd about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Of IPv4.
    pub options: Vec<u8>,
    /// Of IPv6, before a fragment header.
    pub extensions: Vec<Extension>,
    pub ttl: u8,
    pub bad_checksum: bool,
    pub piece: Option<Piece>,
    pub lie: Option<Lie>,
    pub source: Source,
    /// Ethernet padding behind it.
    pub padding: usize,
}

pub const PLAIN: Manner = Manner {
    options: Vec::new(),
    extensions: Vec::new(),
    ttl: 64,
    bad_checksum: false,
    piece: None,
    lie: None,
    source: Source::Own,
    padding: 0,
};

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub talk: usize,
    pub from: Side,
    pub what: What,
    pub manner: Manner,
    /// Seconds that have gone by since the packet before.
    pub after_s: u64,
}

/// Packets, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub talks: Vec<Talk>,
    pub events: Vec<Event>,
}

impl Display for Side {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(match self {
            Side::Server => "server",
            Side::Peer => "peer",
        })
    }
}

impl Display for Port {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            Port::Fixed(port) => write!(formatter, "{port}"),
            Port::Fresh => formatter.write_str("fresh"),
        }
    }
}

impl Display for Talk {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let peer = self.peer.map_or("somebody".to_owned(), |peer| format!("peer {peer}"));
        write!(
            formatter,
            "{family} protocol {}: server {} port {}, {peer} port {}",
            self.protocol, self.server, self.server_port, self.peer_port
        )
    }
}

fn spell_flags(flags: u8) -> String {
    let names =
        [(SYN, "SYN"), (ACK, "ACK"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (URG, "URG")].into_iter();
    let set: Vec<&str> = names.filter(|(flag, _)| flags & flag != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "no flags".to_owned() } else { set.join("+") }
}

impl Display for What {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            What::Tcp(segment) => {
                write!(
                    formatter,
                    "{} seq {} ack {}, {} bytes",
                    spell_flags(segment.flags),
                    segment.sequence,
                    segment.acknowledgment,
                    segment.data
                )?;
                segment.words.map_or(Ok(()), |words| write!(formatter, ", header of {words} words"))
            }
            What::Udp(data, length) => {
                write!(formatter, "datagram of {data} bytes")?;
                length.map_or(Ok(()), |length| write!(formatter, " that says {length}"))
            }
            What::Ping(kind, code, data) => write!(formatter, "ICMP {kind}/{code}, {data} bytes"),
            What::Error(kind, code, quote) => write!(formatter, "ICMP error {kind}/{code} about {quote:?}"),
            What::Other(data) => write!(formatter, "{data} bytes"),
        }
    }
}

impl Display for Event {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        if self.after_s > 0 {
            write!(formatter, "after {} s: ", self.after_s)?;
        }
        write!(formatter, "talk {}, {}: {}", self.talk, self.from, self.what)?;
        let manner = &self.manner;
        if !manner.options.is_empty() {
            write!(formatter, ", options {:02x?}", manner.options)?;
        }
        for (kind, rest) in &manner.extensions {
            write!(formatter, ", extension {kind} ??{:02x?}", &rest[..rest.len().min(8)])?;
        }
        if manner.ttl != PLAIN.ttl {
            write!(formatter, ", TTL {}", manner.ttl)?;
        }
        if manner.bad_checksum {
            formatter.write_str(", wrong checksum")?;
        }
        if let Some(piece) = &manner.piece {
            let (from, to) = (piece.offset, piece.offset + piece.bytes);
            let end = if piece.more { ", more" } else { ", last" };
            let forged = if piece.forged { ", forged" } else { "" };
            write!(formatter, ", bytes {from}..{to} of datagram {}{end}{forged}", piece.datagram)?;
        }
        if let Some(lie) = &manner.lie {
            write!(formatter, ", lies: {lie:?}")?;
        }
        if manner.source != Source::Own {
            write!(formatter, ", from {:?}", manner.source)?;
        }
        if manner.padding > 0 {
            write!(formatter, ", {} bytes of padding", manner.padding)?;
        }
        Ok(())
    }
}

impl Display for Story {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        for (number, talk) in self.talks.iter().enumerate() {
            writeln!(formatter, "talk {number}: {talk}")?;
        }
        self.events.iter().try_for_each(|event| writeln!(formatter, "{event}"))
    }
}

/// A segment without data.
pub fn segment(flags: u8, sequence: u32, acknowledgment: u32) -> What {
    What::Tcp(Segment { flags, sequence, acknowledgment, data: 0, words: None })
}

/// A segment with data.
pub fn data(flags: u8, sequence: u32, acknowledgment: u32, data: u16) -> What {
    What::Tcp(Segment { flags, sequence, acknowledgment, data, words: None })
}

/// Whether a protocol has ports.
pub fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP || protocol == crate::support::frame::SCTP
}
