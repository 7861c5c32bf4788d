//! What is behind the headers of UDP and SCTP in the beginning of a frame.

use super::frame::{find_ethertype, read_u16};
use super::{SCTP, UDP, ethertype};

const UDP_HEADER_BYTES: usize = 8;
const SCTP_HEADER_BYTES: usize = 12;
/// More fragments, or an offset: the rest of the datagram is elsewhere.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// The payload of a UDP datagram, as far as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'frame> {
    /// Its beginning.
    pub captured: &'frame [u8],
    /// Its whole length by the header of UDP, bytes.
    pub length: usize,
}

/// The payload of the UDP datagram in an Ethernet frame. `None` for another protocol, a fragment, IPv6 with
/// extension headers, and lengths that disagree.
pub fn read_udp_payload(frame: &[u8]) -> Option<Payload<'_>> {
    let (udp, ip_payload_bytes) = read_ip_payload(frame, UDP)?;
    let length = usize::from(read_u16(udp, 4)?);
    if length != ip_payload_bytes {
        return None;
    }
    let length = length.checked_sub(UDP_HEADER_BYTES)?;
    let captured = udp.get(UDP_HEADER_BYTES..)?;
    // A short frame is padded.
    Some(Payload { captured: captured.get(..length).unwrap_or(captured), length })
}

/// The bytes behind the header of UDP in an Ethernet frame, whatever the lengths say; `None` for another protocol, a
/// fragment, and IPv6 with extension headers.
pub(super) fn read_udp_bytes(frame: &[u8]) -> Option<&[u8]> {
    read_ip_payload(frame, UDP)?.0.get(UDP_HEADER_BYTES..)
}

/// The type of the first chunk of the SCTP packet in an Ethernet frame; `None` as for UDP.
pub fn read_sctp_chunk(frame: &[u8]) -> Option<u8> {
    let (sctp, _) = read_ip_payload(frame, SCTP)?;
    sctp.get(SCTP_HEADER_BYTES).copied()
}

/// The payload of an IP packet of this protocol, as far as it was captured, and its length by the IP header.
fn read_ip_payload(frame: &[u8], protocol: u8) -> Option<(&[u8], usize)> {
    let at = find_ethertype(frame)?;
    let packet = frame.get(at + 2..)?;
    let (header_bytes, length) = match read_u16(frame, at)? {
        ethertype::IPV4 => {
            let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
            let is_fragment = read_u16(packet, 6)? & IPV4_FRAGMENT != 0;
            if is_fragment || header_bytes < 20 || *packet.get(9)? != protocol {
                return None;
            }
            (header_bytes, usize::from(read_u16(packet, 2)?).checked_sub(header_bytes)?)
        }
        ethertype::IPV6 if *packet.get(6)? == protocol => (40, usize::from(read_u16(packet, 4)?)),
        _ => return None,
    };
    Some((packet.get(header_bytes..)?, length))
}

/// A frame with a UDP datagram from 192.0.2.10, for tests of those who read payloads.
#[cfg(test)]
pub(crate) fn udp_frame(destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = 40000_u16.to_be_bytes().to_vec();
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend(((UDP_HEADER_BYTES + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ipv4_frame(UDP, &datagram)
}

/// A frame with an IPv4 packet from 192.0.2.10.
#[cfg(test)]
pub(crate) fn ipv4_frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x10, 0x08, 0x00];
    frame.extend([0x45, 0]);
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 10, 198, 51, 100, 7]);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_what_the_headers_say_and_padding_is_none_of_it() {
        let mut frame = udp_frame(123, &[7; 5]);
        frame.extend([0; 40]);
        assert_eq!(read_udp_payload(&frame), Some(Payload { captured: &[7; 5], length: 5 }));
        // a sample has the beginning of a frame
        let frame = udp_frame(53, &[7; 400]);
        let cut = read_udp_payload(&frame[..128]).unwrap();
        assert_eq!((cut.captured.len(), cut.length), (128 - 42, 400));
    }

    #[test]
    fn tags_and_ipv6_are_read_through() {
        let plain = udp_frame(123, &[7; 5]);
        let mut tagged = plain[..12].to_vec();
        tagged.extend([0x81, 0, 0, 7]);
        tagged.extend(&plain[12..]);
        assert_eq!(read_udp_payload(&tagged), read_udp_payload(&plain));
        let mut six = plain[..12].to_vec();
        six.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 13, UDP, 64]);
        six.extend([0; 32]);
        six.extend(&plain[34..]);
        assert_eq!(read_udp_payload(&six), read_udp_payload(&plain));
    }

    #[test]
    fn the_first_chunk_of_sctp_is_behind_its_header() {
        let frame = ipv4_frame(SCTP, &[0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 4]);
        assert_eq!(read_sctp_chunk(&frame), Some(6));
        assert_eq!(read_sctp_chunk(&frame[..46]), None);
        assert_eq!(read_sctp_chunk(&udp_frame(80, &[6; 40])), None);
    }

    #[test]
    fn whatever_is_no_whole_datagram_has_no_payload() {
        let frame = udp_frame(123, &[7; 5]);
        for length in 0..42 {
            assert_eq!(read_udp_payload(&frame[..length]), None, "{length}");
        }
        for (at, value) in [(12, 0x88), (14, 0x44), (20, 0x20), (21, 1), (23, 6), (39, 9), (17, 20)] {
            let mut odd = frame.clone();
            odd[at] = value;
            assert_eq!(read_udp_payload(&odd), None, "byte {at}");
        }
    }
}
