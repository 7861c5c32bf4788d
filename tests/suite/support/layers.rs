//! Checksums and addresses in their bytes, and the proof that the builders of frames build what others read.

use std::net::IpAddr;

/// RFC 1071.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for word in part.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Fills in the checksum of an IPv4 header.
pub fn fix_ipv4_checksum(header: &mut [u8]) {
    let sum = checksum(&[header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Of a transport header with its payload, its own checksum being zero.
pub fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    // ICMP of IPv4 counts no addresses
    if protocol == 1 {
        return checksum(&[payload]);
    }
    let length = (payload.len() as u32).to_be_bytes();
    checksum(&[&octets(from), &octets(to), &length, &[0, protocol], payload])
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use crate::support::dmz::{FAMILIES, V6};
    use crate::support::frame::{self, HOP_BY_HOP, Ipv6, SYN, TCP};

    /// A test of a packet that must pass means nothing when the packet is broken.
    #[test]
    fn an_independent_reader_finds_the_frames_well_formed() {
        for family in FAMILIES {
            let (from, to) = family.visit();
            let frames = [
                frame::tcp(from, to, SYN),
                frame::udp(from, to),
                frame::tagged(&frame::udp(from, to), 0x8100, 7),
                frame::echo_reply(family.web, family.peer, 9),
            ];
            for bytes in frames {
                let sliced = SlicedPacket::from_ethernet(&bytes).expect("a frame");
                match (sliced.net.expect("a packet"), sliced.transport.expect("a transport header")) {
                    (NetSlice::Ipv4(ip), transport) => {
                        let header = ip.header();
                        assert_eq!(header.source_addr(), family.web);
                        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                        check_transport(&transport, |tcp| {
                            tcp.to_header()
                                .calc_checksum_ipv4_raw(header.source(), header.destination(), tcp.payload())
                                .expect("a checksum")
                        });
                    }
                    (NetSlice::Ipv6(ip), transport) => {
                        let header = ip.header();
                        assert_eq!(header.source_addr(), family.web);
                        check_transport(&transport, |tcp| {
                            tcp.to_header()
                                .calc_checksum_ipv6_raw(header.source(), header.destination(), tcp.payload())
                                .expect("a checksum")
                        });
                    }
                    other => panic!("not IP: {other:?}"),
                }
            }
        }
    }

    fn octets(address: std::net::IpAddr) -> [u8; 16] {
        frame::octets(address).try_into().expect("an IPv6 address")
    }

    fn check_transport(transport: &TransportSlice<'_>, sum_of: impl Fn(&etherparse::TcpSlice<'_>) -> u16) {
        match transport {
            TransportSlice::Tcp(tcp) => assert_eq!(tcp.checksum(), sum_of(tcp)),
            TransportSlice::Udp(udp) => assert_eq!(udp.destination_port(), 51_000),
            TransportSlice::Icmpv4(icmp) => {
                let header = icmp.header();
                assert_eq!(header.checksum, header.icmp_type.calc_checksum(icmp.payload()));
            }
            TransportSlice::Icmpv6(icmp) => {
                assert!(icmp.is_checksum_valid(octets(V6.web), octets(V6.peer)));
            }
            TransportSlice::Igmp(_) => panic!("nobody built IGMP"),
        }
    }

    #[test]
    fn an_independent_reader_finds_the_transport_behind_extension_headers() {
        let (from, to) = V6.visit();
        let header = frame::tcp_header(from, to, SYN, (1, 0));
        for units in [0, 31, 255] {
            let bytes = Ipv6::new(V6.web, V6.peer, TCP, &header).options(HOP_BY_HOP, units).frame();
            let sliced = SlicedPacket::from_ethernet(&bytes).expect("a frame");
            match sliced.transport {
                Some(TransportSlice::Tcp(tcp)) => assert_eq!(tcp.source_port(), 80),
                other => panic!("not TCP: {other:?}"),
            }
        }
    }
}
