//! Fragments: ports read where there are none, and headers rewritten by what overlaps them.

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, forbidden, passes, question, web};
use crate::support::dmz::{Family, V4, V6};
use crate::support::frame::{
    ACK, DESTINATION_OPTIONS, Endpoint, HOP_BY_HOP, Ipv4, Ipv6, SYN, TCP, UDP, echo_request, ethernet,
    fragment, icmp_message, icmp_protocol, packet, padded, tcp_header, udp_datagram,
};

classes! {
    the_content_of_a_later_fragment_is_no_header: "Ports read from later fragments", list_later;
    a_first_fragment_without_its_header_takes_all_others_with_it: "Tiny fragments", list_tiny;
    what_overlaps_a_header_is_dropped: "Overlapping fragments", list_overlaps;
    a_second_first_fragment_is_judged_as_the_first_one: "Duplicate first fragments", list_duplicates;
    a_fragment_follows_only_its_own_packet: "IP-ID reuse", list_ids;
    a_fragment_of_no_possible_place_is_malformed: "Impossible places", list_places;
}

type FragmentPosition = (u16, u16, bool);

fn datagram((from, to): (Endpoint, Endpoint)) -> Vec<u8> {
    udp_datagram(from, to, &[0; 16])
}

fn segment((from, to): (Endpoint, Endpoint), flags: u8) -> Vec<u8> {
    [tcp_header(from, to, flags, (1, 1)), vec![0; 4]].concat()
}

/// A fragment of the name server's to a peer.
fn piece(family: Family, protocol: u8, position: FragmentPosition, content: &[u8]) -> Vec<u8> {
    fragment(family.ns, family.peer, protocol, position, content)
}

/// The first fragment of a question that is permitted: 24 bytes.
fn first(family: Family) -> Vec<u8> {
    piece(family, UDP, (7, 0, true), &datagram(question(family)))
}

fn begun(family: Family) -> Script {
    passes(first(family), Reason::Need)
}

fn list_later() -> Vec<Row> {
    vec![
        Row::both("the rest of a permitted datagram", |family| {
            begun(family).passes(piece(family, UDP, (7, 3, false), &[0; 16]), Reason::LaterFragment)
        }),
        Row::both("a later fragment alone, beginning like a permitted datagram", |family| {
            drops(piece(family, UDP, (7, 3, false), &datagram(question(family))), Reason::Fragment)
        }),
        Row::both("a later fragment alone, beginning like a reply in an open connection", |family| {
            let (server, peer) = web(family);
            let later = fragment(server.0, peer.0, TCP, (7, 3, false), &segment((server, peer), ACK));
            Script::default().handshake(server, peer).drops(later, Reason::Fragment)
        }),
        Row::both("the rest of a datagram whose first fragment was dropped", |family| {
            drops(piece(family, UDP, (7, 0, true), &datagram(forbidden(family))), Reason::NewFlow)
                .drops(piece(family, UDP, (7, 3, false), &[0; 16]), Reason::NewFlow)
        }),
        Row::both("the later fragment before the first one", |family| {
            begun(family).drops(piece(family, UDP, (8, 3, false), &[0; 16]), Reason::Fragment)
        }),
        Row::both("the first fragment of a forbidden datagram", |family| {
            drops(piece(family, UDP, (7, 0, true), &datagram(forbidden(family))), Reason::NewFlow)
        }),
        Row::both("the first fragment of a ping that is not needed", |family| {
            let kind = (if family.ns.is_ipv4() { 8 } else { 128 }, 0);
            let message = icmp_message(family.ns, family.peer, kind, [0, 1, 0, 1], &[0; 16]);
            drops(echo_request(family.ns, family.peer, 1), Reason::NewFlow)
                .drops(piece(family, icmp_protocol(family.ns), (7, 0, true), &message), Reason::NewFlow)
        }),
    ]
}

fn list_tiny() -> Vec<Row> {
    let header = |family| segment(question(family), ACK);
    vec![
        Row::both("24 bytes of TCP, the whole header", |family| {
            passes(piece(family, TCP, (7, 0, true), &header(family)), Reason::OwnConnection)
        }),
        Row::both_many("8 or 16 bytes of TCP", |family| {
            let tiny = |length: usize| {
                drops(piece(family, TCP, (7, 0, true), &header(family)[..length]), Reason::Fragment)
            };
            [8, 16].map(tiny).into()
        }),
        Row::both_many("8 or 16 bytes of TCP, the rest of the header in the padding", |family| {
            let tiny = |length: usize| {
                drops(
                    padded(&piece(family, TCP, (7, 0, true), &header(family)[..length]), 120),
                    Reason::Fragment,
                )
            };
            [8, 16].map(tiny).into()
        }),
        Row::both("what follows a tiny one", |family| {
            drops(piece(family, TCP, (7, 0, true), &header(family)[..16]), Reason::Fragment)
                .drops(piece(family, TCP, (7, 2, false), &header(family)[16..]), Reason::Fragment)
        }),
        Row::both("a TCP header with options that end in the next fragment", |family| {
            let mut long = header(family);
            long[12] = 15 << 4;
            drops(piece(family, TCP, (7, 0, true), &long), Reason::Fragment)
        }),
        Row::v6("a chain that goes on in the next fragment", {
            let packet = Ipv6::new(V6.ns, V6.peer, UDP, &[]).fragment(7, 0, true);
            drops(packet.extension(DESTINATION_OPTIONS, &[1, 1, 4, 0, 0, 0, 0]).frame(), Reason::Fragment)
        }),
    ]
}

/// A chain of two: options of `units` and a transport, behind the fragment header.
fn first_with_options(protocol: u8, units: u8, content: &[u8]) -> Vec<u8> {
    Ipv6::new(V6.ns, V6.peer, protocol, content)
        .fragment(7, 0, true)
        .options(DESTINATION_OPTIONS, units)
        .frame()
}

fn later_behind_options(offset: u16) -> Vec<u8> {
    piece(V6, DESTINATION_OPTIONS, (7, offset, false), &[0; 16])
}

fn list_overlaps() -> Vec<Row> {
    let tcp_begun = || passes(first_with_options(TCP, 0, &segment(question(V6), ACK)), Reason::OwnConnection);
    let udp_begun = |units| passes(first_with_options(UDP, units, &datagram(question(V6))), Reason::Need);
    vec![
        Row::both("TCP at offset 8, over flags and window (RFC 1858)", |family| {
            passes(piece(family, TCP, (7, 0, true), &segment(question(family), ACK)), Reason::OwnConnection)
                .drops(piece(family, TCP, (7, 1, false), &[0; 16]), Reason::Fragment)
        }),
        Row::both("UDP at offset 8: only data is rewritten", |family| {
            begun(family).passes(piece(family, UDP, (7, 1, false), &[0; 16]), Reason::LaterFragment)
        }),
        Row::both("TCP at offset 24, behind the header", |family| {
            passes(piece(family, TCP, (7, 0, true), &segment(question(family), ACK)), Reason::OwnConnection)
                .passes(piece(family, TCP, (7, 3, false), &[0; 16]), Reason::LaterFragment)
        }),
        Row::many(
            "over options and TCP header that stand behind the fragment header",
            "6",
            [1, 2].map(|offset| tcp_begun().drops(later_behind_options(offset), Reason::Fragment)).into(),
        ),
        Row::v6(
            "over the UDP header behind 8 bytes of options",
            udp_begun(0).drops(later_behind_options(1), Reason::Fragment),
        ),
        Row::many(
            "over 64 bytes of options and the UDP header behind them",
            "6",
            (1..9).map(|offset| udp_begun(7).drops(later_behind_options(offset), Reason::Fragment)).collect(),
        ),
        Row::v6("over a header, after a first fragment with a shorter chain", {
            udp_begun(7)
                .passes(first_with_options(UDP, 0, &datagram(question(V6))), Reason::Need)
                .drops(later_behind_options(8), Reason::Fragment)
        }),
        Row::v6(
            "right behind the UDP header",
            udp_begun(7).passes(later_behind_options(9), Reason::LaterFragment),
        ),
    ]
}

fn list_duplicates() -> Vec<Row> {
    vec![
        Row::both("the same first fragment again", |family| {
            begun(family).passes(first(family), Reason::Need)
        }),
        Row::both("a second one to a forbidden port", |family| {
            begun(family)
                .drops(piece(family, UDP, (7, 0, true), &datagram(forbidden(family))), Reason::NewFlow)
        }),
        Row::both("a second one of TCP with SYN to a forbidden port", |family| {
            passes(piece(family, TCP, (7, 0, true), &segment(question(family), ACK)), Reason::OwnConnection)
                .drops(piece(family, TCP, (7, 0, true), &segment(forbidden(family), SYN)), Reason::NewFlow)
        }),
        Row::both("a second one too short for its header", |family| {
            passes(piece(family, TCP, (7, 0, true), &segment(question(family), ACK)), Reason::OwnConnection)
                .drops(
                    piece(family, TCP, (7, 0, true), &segment(question(family), ACK)[..8]),
                    Reason::Fragment,
                )
        }),
    ]
}

fn list_ids() -> Vec<Row> {
    let later =
        |family: Family, to, protocol, id| fragment(family.ns, to, protocol, (id, 3, false), &[0; 16]);
    vec![
        Row::both("the same id, addresses and protocol", |family| {
            begun(family).passes(later(family, family.peer, UDP, 7), Reason::LaterFragment)
        }),
        Row::both_many("the same id of every other protocol", |family| {
            let skipped = |protocol: &u8| {
                !(*protocol == UDP || family.ns.is_ipv6() && [0, 43, 44, 60].contains(protocol))
            };
            let dropped =
                |protocol| begun(family).drops(later(family, family.peer, protocol, 7), Reason::Fragment);
            (0..=255).filter(skipped).map(dropped).collect()
        }),
        Row::both("the same id to another destination", |family| {
            begun(family).drops(later(family, family.other, UDP, 7), Reason::Fragment)
        }),
        Row::both("the same id from another server", |family| {
            let frame = fragment(family.web, family.peer, UDP, (7, 3, false), &[0; 16]);
            begun(family).drops(frame, Reason::Fragment)
        }),
        Row::both_many("another id, by one bit", |family| {
            (0..16)
                .map(|bit| {
                    begun(family).drops(later(family, family.peer, UDP, 7 ^ 1 << bit), Reason::Fragment)
                })
                .collect()
        }),
        Row::many("another id, by one of the upper 16 bits", "6", {
            let frame =
                |bit: u32| Ipv6::new(V6.ns, V6.peer, UDP, &[0; 16]).fragment(7 ^ 1 << bit, 3, false).frame();
            (16..32).map(|bit| begun(V6).drops(frame(bit), Reason::Fragment)).collect()
        }),
    ]
}

fn list_places() -> Vec<Row> {
    let content = [0_u8; 40];
    vec![
        Row::both("the last place in the largest packet", |family| {
            begun(family).passes(piece(family, UDP, (7, 8187, false), &content[..16]), Reason::LaterFragment)
        }),
        Row::both("beyond it: the ping of death", |family| {
            begun(family).drops(piece(family, UDP, (7, 8191, false), &content[..16]), Reason::Malformed)
        }),
        Row::both_many("more to follow, and no multiple of eight bytes", |family| {
            [1, 7, 9, 12, 20]
                .map(|length: usize| {
                    begun(family)
                        .drops(piece(family, UDP, (7, 3, true), &content[..length]), Reason::Malformed)
                })
                .into()
        }),
        Row::both("a later fragment of no bytes", |family| {
            begun(family).drops(piece(family, UDP, (7, 3, false), &[]), Reason::Malformed)
        }),
        Row::v6("a fragment header within a fragment", {
            let nested = Ipv6::new(V6.ns, V6.peer, UDP, &datagram(question(V6))).fragment(7, 0, true);
            drops(nested.fragment(8, 0, true).frame(), Reason::Malformed)
        }),
        Row::v6("an atomic fragment header within a fragment", {
            let nested = Ipv6::new(V6.ns, V6.peer, UDP, &datagram(question(V6))).fragment(7, 0, true);
            drops(nested.fragment(8, 0, false).frame(), Reason::Malformed)
        }),
        Row::v6("a fragment within an atomic fragment", {
            let nested = Ipv6::new(V6.ns, V6.peer, UDP, &datagram(question(V6))).fragment(9, 0, false);
            drops(nested.fragment(7, 0, true).frame(), Reason::Malformed)
        }),
        Row::v6("hop-by-hop options behind the fragment header", {
            let packet = Ipv6::new(V6.ns, V6.peer, UDP, &datagram(question(V6))).fragment(7, 0, true);
            drops(packet.options(HOP_BY_HOP, 0).frame(), Reason::Malformed)
        }),
        Row::v4("the reserved bit set: a whole packet", {
            let mut bytes = packet(V4.ns, V4.peer, UDP, &datagram(question(V4)));
            bytes[6] |= 0x80;
            passes(ethernet(&bytes), Reason::Need)
        }),
        Row::v4("DF and MF at once", {
            let mut bytes =
                Ipv4::new(V4.ns, V4.peer, UDP, &datagram(forbidden(V4))).fragment(7, 0, true).packet();
            bytes[6] |= 0x40;
            drops(ethernet(&bytes), Reason::NewFlow)
        }),
    ]
}
