//! Packets that say themselves which way they want to go, and sources that are not the sender's.

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, forbidden, passes, question, web};
use crate::support::dmz::{V4, V6, ip};
use crate::support::frame::{
    ACK, DESTINATION_OPTIONS, HOP_BY_HOP, Ipv4, Ipv6, ROUTING, SYN, UDP, fragment, octets, tcp, udp,
    udp_datagram,
};

classes! {
    a_source_route_is_found_wherever_it_hides: "Source routes among IPv4 options", list_source_routes;
    a_routing_header_that_hides_the_destination_is_dropped: "IPv6 routing headers", list_routing_headers;
    an_address_that_is_not_the_senders_does_not_leave: "Borrowed and invented sources", list_sources;
}

const LOOSE: u8 = 131;
const STRICT: u8 = 137;

fn with_options(options: &[u8]) -> Ipv4 {
    let (from, to) = question(V4);
    Ipv4::new(V4.ns, V4.peer, UDP, &udp_datagram(from, to, b"")).options(options)
}

fn list_source_routes() -> Vec<Row> {
    let each = |options: &dyn Fn(u8) -> Vec<u8>| -> Vec<Script> {
        [LOOSE, STRICT].map(|kind| drops(with_options(&options(kind)).frame(), Reason::SourceRoute)).into()
    };
    let route = |kind: u8| vec![kind, 7, 4, 203, 0, 113, 51];
    vec![
        Row::many("LSRR, SSRR: first", "4", each(&|kind| [route(kind), vec![0]].concat())),
        Row::many(
            "behind 1 to 33 NOPs",
            "4",
            (1..=33_usize)
                .filter(|nops| (nops + 7) % 4 == 0)
                .flat_map(|nops| each(&|kind| [vec![1; nops], route(kind)].concat()))
                .collect(),
        ),
        Row::many(
            "behind 37 NOPs, with no room for an address",
            "4",
            each(&|kind| [vec![1; 37], vec![kind, 3, 4]].concat()),
        ),
        Row::many(
            "behind record route and router alert",
            "4",
            each(&|kind| [vec![7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0], route(kind), vec![0, 0]].concat()),
        ),
        Row::many("already used up", "4", each(&|kind| vec![kind, 7, 8, 203, 0, 113, 51, 0])),
        Row::many("a pointer past its end", "4", each(&|kind| vec![kind, 7, 255, 203, 0, 113, 51, 0])),
        Row::many(
            "in a later fragment",
            "4",
            [LOOSE, STRICT]
                .map(|kind| {
                    let later =
                        Ipv4::new(V4.ns, V4.peer, UDP, &[0; 16]).options(&[route(kind), vec![0]].concat());
                    let (from, to) = question(V4);
                    let first =
                        fragment(V4.ns, V4.peer, UDP, (7, 0, true), &udp_datagram(from, to, &[0; 16]));
                    passes(first, Reason::Need)
                        .drops(later.fragment(7, 3, false).frame(), Reason::SourceRoute)
                })
                .into(),
        ),
        Row::many(
            "its number within another option",
            "4",
            [LOOSE, STRICT]
                .map(|kind| passes(with_options(&[148, 8, kind, 7, 4, 203, 0, 113]).frame(), Reason::Need))
                .into(),
        ),
        Row::many(
            "after END, where no router reads",
            "4",
            [LOOSE, STRICT]
                .map(|kind| passes(with_options(&[vec![0], route(kind)].concat()).frame(), Reason::Need))
                .into(),
        ),
    ]
}

fn routing(packet: Ipv6, kind: u8, left: u8) -> Ipv6 {
    let rest = [&[2, kind, left, 0, 0, 0, 0][..], &octets(V6.other)].concat();
    packet.extension(ROUTING, &rest)
}

fn list_routing_headers() -> Vec<Row> {
    let packet = || {
        let (from, to) = question(V6);
        Ipv6::new(V6.ns, V6.peer, UDP, &udp_datagram(from, to, b""))
    };
    let dropped = |packet: Ipv6| drops(packet.frame(), Reason::SourceRoute);
    let mut deep = packet().options(HOP_BY_HOP, 0);
    for _ in 0..6 {
        deep = deep.options(DESTINATION_OPTIONS, 0);
    }
    vec![
        Row::many(
            "type 0, whatever is left",
            "6",
            [0, 1, 2, 255].map(|left| dropped(routing(packet(), 0, left))).into(),
        ),
        Row::many(
            "every other type with a segment left",
            "6",
            (1..=255).map(|kind| dropped(routing(packet(), kind, 1))).collect(),
        ),
        Row::many(
            "every other type, used up",
            "6",
            (1..=255).map(|kind| passes(routing(packet(), kind, 0).frame(), Reason::Need)).collect(),
        ),
        Row::v6("as the eighth header of the chain", dropped(routing(deep, 0, 1))),
        Row::v6("behind one that is used up", dropped(routing(routing(packet(), 2, 0), 4, 1))),
        Row::v6("behind an atomic fragment header", dropped(routing(packet().fragment(7, 0, false), 0, 1))),
        Row::v6("in a first fragment", dropped(routing(packet().fragment(7, 0, true), 0, 1))),
        Row::v6("in front of the header of a later fragment", {
            let (from, to) = question(V6);
            let first = fragment(V6.ns, V6.peer, UDP, (7, 0, true), &udp_datagram(from, to, &[0; 16]));
            let later = routing(Ipv6::new(V6.ns, V6.peer, UDP, &[0; 16]), 0, 1).fragment(7, 3, false);
            passes(first, Reason::Need).drops(later.frame(), Reason::SourceRoute)
        }),
    ]
}

fn list_sources() -> Vec<Row> {
    let strange = [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
        "192.0.2.255",
        "203.0.113.50",
        "224.0.0.1",
        "255.255.255.255",
    ];
    let strange6 = [
        "::",
        "::1",
        "fe80::10",
        "ff02::1",
        "2001:db8:1::99",
        "2001:db8:50::50",
        "64:ff9b::c000:235",
        "2002:c000:235::1",
    ];
    let ask = |from: &str, to| drops(udp((ip(from), 40_000), (to, 53)), Reason::UnknownSource);
    vec![
        Row::both("a server's own address", |family| {
            let (from, to) = question(family);
            passes(udp(from, to), Reason::Need)
        }),
        Row::both("another server's address gives that server's needs, and no more", |family| {
            drops(udp((family.web, 40_000), (family.peer, 53)), Reason::NewFlow)
        }),
        Row::many(
            "unspecified, loopback, link-local, broadcast, multicast, the peer's own",
            "4",
            strange.map(|from| ask(from, V4.peer)).into(),
        ),
        Row::many(
            "unspecified, loopback, link-local, multicast, of the subnet, NAT64, 6to4",
            "6",
            strange6.map(|from| ask(from, V6.peer)).into(),
        ),
        Row::many("an IPv4-mapped address: a server's, a peer's", "6", {
            let mapped = |from, to| udp((ip(from), 40_000), (ip(to), 53));
            vec![
                drops(mapped("::ffff:192.0.2.53", "2001:db8:50::50"), Reason::Malformed),
                drops(mapped("2001:db8:1::53", "::ffff:203.0.113.50"), Reason::Malformed),
            ]
        }),
        Row::v6("an IPv4-compatible address of a server", ask("::192.0.2.53", V6.peer)),
        Row::both("another server's address in a connection of that server", |family| {
            let (server, peer) = web(family);
            Script::default().handshake(server, peer).drops(tcp((family.ns, 80), peer, ACK), Reason::NoFlow)
        }),
        Row::both("a SYN from an address that no server has", |family| {
            let (_, to) = forbidden(family);
            drops(tcp((family.unknown, 40_000), to, SYN), Reason::UnknownSource)
        }),
    ]
}
