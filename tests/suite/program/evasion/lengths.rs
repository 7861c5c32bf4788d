//! Lengths that lie, and padding that is no header.

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, forbidden, passes, question, web};
use crate::support::dmz::{Family, V4, V6};
use crate::support::frame::{
    ACK, HOP_BY_HOP, IP, Ipv4, Ipv6, SYN, TCP, UDP, cut, ethernet, l4_of, packet, padded, patched, tcp,
    tcp_header, udp, udp_datagram,
};

classes! {
    what_lies_in_the_padding_is_no_header: "Padding taken for headers", list_padding;
    a_length_of_ip_that_lies_is_malformed: "IP lengths", list_ip_lengths;
    a_length_of_the_transport_that_lies_is_malformed: "Transport lengths", list_transport_lengths;
    a_length_of_an_option_that_lies_is_malformed: "Option lengths", list_option_lengths;
    a_frame_that_ends_early_is_malformed: "Frames cut off", list_cuts;
}

fn asks(family: Family) -> Vec<u8> {
    let (from, to) = question(family);
    udp(from, to)
}

/// The IP length that leaves so many bytes for the transport.
fn with_room(family: Family, frame: &[u8], room: u16) -> Vec<u8> {
    match family.ns.is_ipv4() {
        true => patched(frame, IP + 2, &(20 + room).to_be_bytes()),
        false => patched(frame, IP + 4, &room.to_be_bytes()),
    }
}

fn list_padding() -> Vec<Row> {
    vec![
        Row::both("a question, padded to 60, 128 and 1,514 bytes", |family| {
            let frame = asks(family);
            [60, 128, 1514].iter().fold(Script::default(), |script, length| {
                script.passes(padded(&frame, *length), Reason::Need)
            })
        }),
        Row::both_many("the UDP header lies behind the end of the packet, or partly", |family| {
            let frame = padded(&asks(family), 128);
            let rooms = if family.ns.is_ipv4() { 0..8 } else { 1..8 };
            rooms.map(|room| drops(with_room(family, &frame, room), Reason::Malformed)).collect()
        }),
        Row::both_many("the TCP header lies behind the end of the packet, or partly", |family| {
            let (from, to) = question(family);
            let frame = padded(&tcp(from, to, SYN), 128);
            (1..20).map(|room| drops(with_room(family, &frame, room), Reason::Malformed)).collect()
        }),
        Row::both("a forbidden datagram, a permitted one behind the end of the packet", |family| {
            let ((from, to), (_, fake)) = (forbidden(family), question(family));
            let mut frame = udp(from, to);
            frame.extend_from_slice(&udp_datagram(from, fake, b"padding"));
            drops(frame, Reason::NewFlow)
        }),
        Row::v6("an extension header that goes on in the padding", {
            let (from, to) = question(V6);
            let inner = Ipv6::new(V6.ns, V6.peer, UDP, &udp_datagram(from, to, b"")).options(HOP_BY_HOP, 3);
            drops(patched(&inner.frame(), IP + 4, &16_u16.to_be_bytes()), Reason::Malformed)
        }),
        Row::v4("options that go on in the padding", {
            let (from, to) = question(V4);
            let whole = Ipv4::new(V4.ns, V4.peer, UDP, &udp_datagram(from, to, b"")).options(&[1; 40]);
            drops(patched(&whole.frame(), IP + 2, &40_u16.to_be_bytes()), Reason::Malformed)
        }),
    ]
}

fn list_ip_lengths() -> Vec<Row> {
    let frame = padded(&asks(V4), 128);
    let ihl = |words: u8| patched(&frame, IP, &[0x40 | words]);
    let total = |length: u16| patched(&frame, IP + 2, &length.to_be_bytes());
    let payload = |length: u16| patched(&asks(V6), IP + 4, &length.to_be_bytes());
    vec![
        Row::v4("IHL 5 and the length that is true", passes(ihl(5), Reason::Need)),
        Row::many("IHL below 5", "4", (0..5).map(|words| drops(ihl(words), Reason::Malformed)).collect()),
        Row::many(
            "IHL past the end of the packet",
            "4",
            (10..16).map(|words| drops(ihl(words), Reason::Malformed)).collect(),
        ),
        Row::many(
            "total length below the header's",
            "4",
            (0..20).map(|length| drops(total(length), Reason::Malformed)).collect(),
        ),
        Row::many(
            "total length past the frame",
            "4",
            [115, 116, 500, 1500, 9000, 32_768, 65_535]
                .map(|length| drops(total(length), Reason::Malformed))
                .into(),
        ),
        Row::many(
            "payload length past the frame",
            "6",
            [17, 18, 100, 1500, 9000, 32_768, 65_535]
                .map(|length| drops(payload(length), Reason::Malformed))
                .into(),
        ),
        Row::v6("payload length 0 with a payload", drops(payload(0), Reason::Malformed)),
        Row::both("a packet of nothing but its header", |family| {
            let empty = |protocol| ethernet(&packet(family.ns, family.peer, protocol, &[]));
            drops(empty(TCP), Reason::Malformed).drops(empty(UDP), Reason::Malformed)
        }),
    ]
}

fn list_transport_lengths() -> Vec<Row> {
    let answer = |family: Family, words: u8| {
        let (server, peer) = web(family);
        patched(&tcp(server, peer, ACK), l4_of(family.web) + 12, &[words << 4])
    };
    let says =
        |family: Family, length: u16| patched(&asks(family), l4_of(family.ns) + 4, &length.to_be_bytes());
    vec![
        Row::both("TCP data offset 5 within a connection", |family| {
            let (server, peer) = web(family);
            Script::default().handshake(server, peer).passes(answer(family, 5), Reason::Reply)
        }),
        Row::both_many("TCP data offset below 5", |family| {
            let (server, peer) = web(family);
            let open = Script::default().handshake(server, peer);
            (0..5).map(|words| open.clone().drops(answer(family, words), Reason::Malformed)).collect()
        }),
        Row::both_many("TCP data offset past the packet", |family| {
            let (server, peer) = web(family);
            let open = Script::default().handshake(server, peer);
            (6..16).map(|words| open.clone().drops(answer(family, words), Reason::Malformed)).collect()
        }),
        Row::both_many("UDP length below 8", |family| {
            (0..8).map(|length| drops(says(family, length), Reason::Malformed)).collect()
        }),
        Row::both_many("UDP length past the packet", |family| {
            [17, 24, 1500, 65_535].map(|length| drops(says(family, length), Reason::Malformed)).into()
        }),
        Row::both("UDP length below the packet's: the rest is not the datagram's", |family| {
            passes(says(family, 8), Reason::Need)
        }),
    ]
}

fn with_options(options: &[u8]) -> Vec<u8> {
    let (from, to) = question(V4);
    Ipv4::new(V4.ns, V4.peer, UDP, &udp_datagram(from, to, b"")).options(options).frame()
}

fn list_option_lengths() -> Vec<Row> {
    let chain = |rest: &[u8]| {
        let (from, to) = question(V6);
        Ipv6::new(V6.ns, V6.peer, UDP, &udp_datagram(from, to, b"")).extension(HOP_BY_HOP, rest).frame()
    };
    vec![
        Row::v4("every option whole", passes(with_options(&[7, 7, 4, 0, 0, 0, 0, 0]), Reason::Need)),
        Row::many(
            "length 0 or 1: a walk that would never end",
            "4",
            [0, 1].map(|length| drops(with_options(&[7, length, 4, 0]), Reason::Malformed)).into(),
        ),
        Row::many(
            "length past the header",
            "4",
            [5, 8, 40, 127, 128, 255]
                .map(|length| drops(with_options(&[7, length, 4, 0]), Reason::Malformed))
                .into(),
        ),
        Row::v4(
            "an option without a length at the end",
            drops(with_options(&[1, 1, 1, 7]), Reason::Malformed),
        ),
        Row::many(
            "IPv6 options announced longer than the packet",
            "6",
            [2, 3, 31, 255].map(|units| drops(chain(&[units, 1, 4, 0, 0, 0, 0]), Reason::Malformed)).into(),
        ),
    ]
}

fn list_cuts() -> Vec<Row> {
    vec![
        Row::both("the whole frame", |family| passes(asks(family), Reason::Need)),
        Row::both_many("UDP: cut off at every byte", |family| {
            let frame = asks(family);
            (15..frame.len()).map(|length| drops(cut(&frame, length), Reason::Malformed)).collect()
        }),
        Row::both_many("TCP: cut off at every byte", |family| {
            let ((from, to), (ns, peer)) = (question(family), (family.ns, family.peer));
            let frame = ethernet(&packet(ns, peer, TCP, &tcp_header(from, to, SYN, (1, 0))));
            (15..frame.len()).map(|length| drops(cut(&frame, length), Reason::Malformed)).collect()
        }),
    ]
}
