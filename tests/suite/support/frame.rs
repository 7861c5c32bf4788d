//! Frames, byte by byte, so that a test can break exactly what it is about.

use std::net::IpAddr;

pub use super::layers::octets;
use super::layers::{fix_ipv4_checksum, transport_checksum};

pub type Endpoint = (IpAddr, u16);

/// Where the IP header begins in an untagged frame.
pub const IP: usize = 14;
/// Where the transport header begins in an untagged frame without IP options or extensions.
pub const L4_OF_V4: usize = IP + 20;
pub const L4_OF_V6: usize = IP + 40;

pub const SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x10];
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// An Ethernet frame from a server to the router.
pub fn link_frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(IP + payload.len());
    frame.extend_from_slice(&ROUTER_MAC);
    frame.extend_from_slice(&SERVER_MAC);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The frame of an IP packet, whose version says which EtherType it has.
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    link_frame(if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 }, packet)
}

/// The frame within one more VLAN tag, the outermost.
pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend_from_slice(&tpid.to_be_bytes());
    tagged.extend_from_slice(&tci.to_be_bytes());
    tagged.extend_from_slice(&frame[12..]);
    tagged
}

/// The frame as if another network card had sent it.
pub fn from_mac(frame: &[u8], mac: [u8; 6]) -> Vec<u8> {
    patched(frame, 6, &mac)
}

/// The frame with Ethernet padding up to `length`.
pub fn padded(frame: &[u8], length: usize) -> Vec<u8> {
    let mut padded = frame.to_vec();
    padded.resize(length.max(frame.len()), 0);
    padded
}

/// The frame with other bytes at `at`.
pub fn patched(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut patched = frame.to_vec();
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    patched
}

/// The frame without what follows `length`.
pub fn cut(frame: &[u8], length: usize) -> Vec<u8> {
    frame[..length].to_vec()
}

/// An IP packet of either family, without options or extensions.
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Ipv4::new(from, to, protocol, payload).packet(),
        (IpAddr::V6(_), IpAddr::V6(_)) => Ipv6::new(from, to, protocol, payload).packet(),
        _ => panic!("two families in one packet"),
    }
}

/// An IPv4 packet with whatever the simple ones don't have.
#[derive(Clone)]
pub struct Ipv4 {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    id: u16,
    fragment: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Ipv4 {
    pub fn new(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Ipv4 {
        let (options, payload) = (Vec::new(), payload.to_vec());
        Ipv4 { from, to, protocol, id: 0, fragment: 0x4000, options, payload }
    }

    /// Options as they stand; they must fill 32-bit words.
    pub fn options(mut self, options: &[u8]) -> Ipv4 {
        assert_eq!(options.len() % 4, 0);
        self.options = options.to_vec();
        self
    }

    /// A fragment: `offset` in units of eight bytes.
    pub fn fragment(mut self, id: u16, offset: u16, more: bool) -> Ipv4 {
        self.id = id;
        self.fragment = offset | if more { 0x2000 } else { 0 };
        self
    }

    pub fn packet(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = u16::try_from(header + self.payload.len()).expect("a length of 16 bits");
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend_from_slice(&total.to_be_bytes());
        packet.extend_from_slice(&self.id.to_be_bytes());
        packet.extend_from_slice(&self.fragment.to_be_bytes());
        packet.extend_from_slice(&[64, self.protocol, 0, 0]);
        packet.extend_from_slice(&octets(self.from));
        packet.extend_from_slice(&octets(self.to));
        packet.extend_from_slice(&self.options);
        fix_ipv4_checksum(&mut packet);
        packet.extend_from_slice(&self.payload);
        packet
    }

    pub fn frame(&self) -> Vec<u8> {
        ethernet(&self.packet())
    }
}

/// An IPv6 packet with whatever the simple ones don't have.
#[derive(Clone)]
pub struct Ipv6 {
    from: IpAddr,
    to: IpAddr,
    hop_limit: u8,
    /// Kind and content; the first byte of the content is filled in: the next header.
    extensions: Vec<(u8, Vec<u8>)>,
    protocol: u8,
    payload: Vec<u8>,
}

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION_OPTIONS: u8 = 60;

impl Ipv6 {
    pub fn new(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Ipv6 {
        let (extensions, payload) = (Vec::new(), payload.to_vec());
        Ipv6 { from, to, hop_limit: 64, extensions, protocol, payload }
    }

    pub fn hop_limit(mut self, hop_limit: u8) -> Ipv6 {
        self.hop_limit = hop_limit;
        self
    }

    /// One more extension header, after those it has already: all of its bytes but the first.
    pub fn extension(mut self, kind: u8, rest: &[u8]) -> Ipv6 {
        let mut content = vec![0];
        content.extend_from_slice(rest);
        self.extensions.push((kind, content));
        self
    }

    /// Options of nothing but padding, `8 * (units + 1)` bytes of them.
    pub fn options(self, kind: u8, units: u8) -> Ipv6 {
        let mut rest = vec![units];
        let mut left = 8 * (usize::from(units) + 1) - 2;
        while left > 0 {
            // PadN holds at most 255 bytes; Pad1 where only one is left
            let take = left.min(257);
            match take {
                1 => rest.push(0),
                _ => {
                    rest.extend_from_slice(&[1, (take - 2) as u8]);
                    rest.resize(rest.len() + take - 2, 0);
                }
            }
            left -= take;
        }
        self.extension(kind, &rest)
    }

    /// A fragment header: `offset` in units of eight bytes.
    pub fn fragment(self, id: u32, offset: u16, more: bool) -> Ipv6 {
        let word = offset << 3 | u16::from(more);
        let mut rest = vec![0];
        rest.extend_from_slice(&word.to_be_bytes());
        rest.extend_from_slice(&id.to_be_bytes());
        self.extension(FRAGMENT, &rest)
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (index, (_, content)) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(index + 1).map_or(self.protocol, |(kind, _)| *kind);
            body.push(next);
            body.extend_from_slice(&content[1..]);
        }
        body.extend_from_slice(&self.payload);
        let length = u16::try_from(body.len()).expect("a length of 16 bits");
        let first = self.extensions.first().map_or(self.protocol, |(kind, _)| *kind);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[first, self.hop_limit]);
        packet.extend_from_slice(&octets(self.from));
        packet.extend_from_slice(&octets(self.to));
        packet.extend_from_slice(&body);
        packet
    }

    pub fn frame(&self) -> Vec<u8> {
        ethernet(&self.packet())
    }
}

/// One fragment of a packet, of either family; `offset` in units of eight bytes.
pub fn fragment(from: IpAddr, to: IpAddr, protocol: u8, place: (u16, u16, bool), payload: &[u8]) -> Vec<u8> {
    let (id, offset, more) = place;
    match from {
        IpAddr::V4(_) => Ipv4::new(from, to, protocol, payload).fragment(id, offset, more).frame(),
        IpAddr::V6(_) => Ipv6::new(from, to, protocol, payload).fragment(u32::from(id), offset, more).frame(),
    }
}

/// A TCP header; `numbers` are sequence and acknowledgment.
pub fn tcp_header(from: Endpoint, to: Endpoint, flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    let mut header = Vec::with_capacity(20);
    header.extend_from_slice(&from.1.to_be_bytes());
    header.extend_from_slice(&to.1.to_be_bytes());
    header.extend_from_slice(&numbers.0.to_be_bytes());
    header.extend_from_slice(&numbers.1.to_be_bytes());
    header.extend_from_slice(&[5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = transport_checksum(from.0, to.0, TCP, &header);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    header
}

/// A whole UDP datagram.
pub fn udp_datagram(from: Endpoint, to: Endpoint, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a length of 16 bits");
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend_from_slice(&from.1.to_be_bytes());
    datagram.extend_from_slice(&to.1.to_be_bytes());
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let sum = transport_checksum(from.0, to.0, UDP, &datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// A whole ICMP message of the addresses' family.
pub fn icmp_message(from: IpAddr, to: IpAddr, kind: (u8, u8), rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(body);
    let sum = transport_checksum(from, to, icmp_protocol(from), &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A frame with a TCP segment.
pub fn tcp(from: Endpoint, to: Endpoint, flags: u8) -> Vec<u8> {
    tcp_numbered(from, to, flags, (0x1000, 0x2000))
}

/// A frame with a TCP segment of which the sequence and acknowledgment numbers matter.
pub fn tcp_numbered(from: Endpoint, to: Endpoint, flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    ethernet(&packet(from.0, to.0, TCP, &tcp_header(from, to, flags, numbers)))
}

/// A frame with a UDP datagram.
pub fn udp(from: Endpoint, to: Endpoint) -> Vec<u8> {
    ethernet(&packet(from.0, to.0, UDP, &udp_datagram(from, to, b"datagram")))
}

/// A frame with an ICMP message; `kind` is type and code.
pub fn icmp(from: IpAddr, to: IpAddr, kind: (u8, u8), rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    ethernet(&packet(from, to, icmp_protocol(from), &icmp_message(from, to, kind, rest, body)))
}

pub fn echo_request(from: IpAddr, to: IpAddr, identifier: u16) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    icmp(from, to, (if from.is_ipv4() { 8 } else { 128 }, 0), [high, low, 0, 1], b"ping")
}

pub fn echo_reply(from: IpAddr, to: IpAddr, identifier: u16) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    icmp(from, to, (if from.is_ipv4() { 0 } else { 129 }, 0), [high, low, 0, 1], b"ping")
}

/// "Port unreachable", about the IP packet `quoted`.
pub fn unreachable(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    icmp(from, to, if from.is_ipv4() { (3, 3) } else { (1, 4) }, [0; 4], quoted)
}

/// A frame with any other protocol.
pub fn raw_ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&packet(from, to, protocol, payload))
}

pub fn icmp_protocol(address: IpAddr) -> u8 {
    if address.is_ipv4() { ICMP } else { ICMPV6 }
}

/// Where the transport header begins in an untagged frame of the address's family.
pub fn l4_of(address: IpAddr) -> usize {
    if address.is_ipv4() { L4_OF_V4 } else { L4_OF_V6 }
}
