//! Row 2: TCP, UDP and ICMP headers that can't be understood.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, in_both_families};
use crate::support::frame::{
    ACK, FIN, IP, RST, SYN, TCP, UDP, icmp_message, icmp_protocol, l4_of, padded, patched, raw_ip, tcp,
    tcp_header, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

/// `out`: everything of TCP, UDP and ICMP. What is dropped here is dropped for its form.
const OPEN: &str = r#"
[roles.open]
out = ["tcp", "udp", "icmp", "icmpv6"]
[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["open"]
"#;

/// A packet that carries only the first `length` bytes of a transport header.
fn carry(family: Family, protocol: u8, header: &[u8], length: usize) -> Vec<u8> {
    raw_ip(family.web, family.peer, protocol, &header[..length])
}

/// The same bytes, all of them in the frame, but for the packet's length in the Ethernet padding.
fn carry_in_padding(family: Family, protocol: u8, header: &[u8], length: usize) -> Vec<u8> {
    let whole = padded(&raw_ip(family.web, family.peer, protocol, header), 120);
    let (at, length) = if family.web.is_ipv4() { (IP + 2, 20 + length) } else { (IP + 4, length) };
    patched(&whole, at, &(length as u16).to_be_bytes())
}

#[test]
fn a_truncated_transport_header_is_malformed() {
    let gate = TestGate::new(OPEN);
    in_both_families(|family| {
        let (from, to) = ((family.web, 40_000), (family.peer, 80));
        let headers = [
            (TCP, tcp_header(from, to, SYN, (1, 0))),
            (UDP, udp_datagram(from, to, b"")),
            (
                icmp_protocol(family.web),
                icmp_message(
                    family.web,
                    family.peer,
                    (if family.web.is_ipv4() { 8 } else { 128 }, 0),
                    [0; 4],
                    b"",
                ),
            ),
        ];
        for (protocol, header) in headers {
            for length in 0..header.len() {
                gate.drops(&carry(family, protocol, &header, length), Reason::Malformed);
                gate.drops(&carry_in_padding(family, protocol, &header, length), Reason::Malformed);
            }
            gate.passes(&carry(family, protocol, &header, header.len()), Reason::Need);
            gate.passes(&carry_in_padding(family, protocol, &header, header.len()), Reason::Need);
        }
    });
}

#[test]
fn a_tcp_data_offset_below_the_header_or_past_the_packet_is_malformed() {
    let gate = TestGate::new(OPEN);
    in_both_families(|family| {
        let mut header = tcp_header((family.web, 40_000), (family.peer, 80), SYN, (1, 0));
        header.extend_from_slice(&[2, 4, 5, 0xb4]); // maximum segment size
        for words in 0..16_u8 {
            header[12] = words << 4;
            let frame = raw_ip(family.web, family.peer, TCP, &header);
            match words {
                5 | 6 => gate.passes(&frame, Reason::Need),
                _ => {
                    gate.drops(&frame, Reason::Malformed);
                    gate.drops(&padded(&frame, 200), Reason::Malformed);
                }
            }
        }
    });
}

#[test]
fn a_udp_length_below_the_header_or_past_the_packet_is_malformed() {
    let gate = TestGate::new(OPEN);
    in_both_families(|family| {
        let frame = udp((family.web, 40_000), (family.peer, 80)); // 16 bytes
        for length in (0..8_u16).chain([17, 24, 1500, 65_535]) {
            let lie = patched(&frame, l4_of(family.web) + 4, &length.to_be_bytes());
            gate.drops(&lie, Reason::Malformed);
            gate.drops(&padded(&lie, 200), Reason::Malformed);
        }
        gate.passes(&frame, Reason::Need);
    });
}

#[test]
fn every_combination_of_tcp_flags_is_taken_for_what_it_is() {
    let gate = TestGate::new(OPEN);
    in_both_families(|family| {
        for flags in 0..=u8::MAX {
            let frame = tcp((family.web, 40_000), (family.peer, 80), flags);
            let has = |flag: u8| flags & flag != 0;
            let nothing = !has(SYN) && !has(ACK) && !has(RST) && !has(FIN);
            let contradiction = has(SYN) && (has(FIN) || has(RST));
            let lone_fin = has(FIN) && !has(ACK);
            if nothing || contradiction || lone_fin {
                gate.drops(&frame, Reason::Malformed);
            } else if has(SYN) && !has(ACK) {
                gate.passes(&frame, Reason::Need);
            } else {
                gate.passes(&frame, Reason::OwnConnection);
            }
        }
    });
}

#[test]
fn a_malformed_packet_is_dropped_even_where_it_is_permitted() {
    // what may be said to nobody, malformed: the form is named
    with_dmz_in_both_families(|gate, family| {
        let frame = tcp((family.web, 40_000), (family.peer, 80), 0);
        gate.drops(&frame, Reason::Malformed);
        let fine = tcp((family.web, 40_000), (family.peer, 80), SYN);
        gate.drops(&fine, Reason::NewFlow);
        let unknown = tcp((family.unknown, 40_000), (family.peer, 80), SYN | FIN);
        gate.drops(&unknown, Reason::Malformed);
    });
}

#[test]
fn a_malformed_packet_counts_for_the_server_that_sent_it() {
    with_dmz_in_both_families(|gate, family| {
        let row = gate.drops(&tcp((family.web, 40_000), (family.peer, 80), 0), Reason::Malformed);
        assert_eq!(row.key.server, gate.id_of("web1"));
        assert_eq!(row.key.protocol, TCP);
        let row = gate.drops(&tcp((family.unknown, 40_000), (family.peer, 80), 0), Reason::Malformed);
        assert_eq!(row.key.server, 0);
    });
}
