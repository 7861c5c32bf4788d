//! IPv6 extension headers: chains of every length, in every order.

use portcullis::abi::Reason;

use super::table::{Row, classes, drops, forbidden, passes, question};
use crate::support::dmz::V6;
use crate::support::frame::{
    DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, IP, Ipv6, ROUTING, SYN, TCP, UDP, patched, tcp_header,
    udp_datagram,
};

classes! {
    a_chain_is_read_to_its_end_or_does_not_leave: "Extension header chains", list_chains;
    an_order_that_no_host_may_send_is_malformed: "Extension headers out of order", list_orders;
    a_jumbogram_does_not_leave: "Jumbograms", list_jumbograms;
}

fn asks() -> Ipv6 {
    let (from, to) = question(V6);
    Ipv6::new(V6.ns, V6.peer, UDP, &udp_datagram(from, to, b""))
}

fn attacks() -> Ipv6 {
    let (from, to) = forbidden(V6);
    Ipv6::new(V6.ns, V6.peer, TCP, &tcp_header(from, to, SYN, (1, 0)))
}

fn behind(packet: Ipv6, kind: u8, headers: usize, units: u8) -> Ipv6 {
    (0..headers).fold(packet, |packet, _| match kind {
        ROUTING => {
            let rest = [&[units, 2, 0, 0, 0, 0, 0][..], &vec![0; 8 * usize::from(units)]].concat();
            packet.extension(ROUTING, &rest)
        }
        FRAGMENT => packet.fragment(7, 0, false),
        _ => packet.options(kind, units),
    })
}

fn list_chains() -> Vec<Row> {
    let mut rows = Vec::new();
    for (kind, name) in [(DESTINATION_OPTIONS, "destination options"), (ROUTING, "routing headers, used up")]
    {
        rows.push(Row::many(
            format!("0 to 8 {name}, then a SYN to a port that nobody needs"),
            "6",
            (0..=8)
                .map(|headers| drops(behind(attacks(), kind, headers, 0).frame(), Reason::NewFlow))
                .collect(),
        ));
        rows.push(Row::many(
            format!("0 to 8 {name}, then a question that is needed"),
            "6",
            (0..=8).map(|headers| passes(behind(asks(), kind, headers, 0).frame(), Reason::Need)).collect(),
        ));
        rows.push(Row::many(
            format!("9 to 32 {name}"),
            "6",
            (9..=32)
                .map(|headers| drops(behind(asks(), kind, headers, 0).frame(), Reason::Malformed))
                .collect(),
        ));
    }
    for (headers, outcome) in [
        (1, passes(behind(asks(), FRAGMENT, 1, 0).frame(), Reason::Need)),
        (2, drops(behind(asks(), FRAGMENT, 2, 0).frame(), Reason::Malformed)),
    ] {
        rows.push(Row::v6(
            format!("{headers} atomic fragment headers, then a question that is needed"),
            outcome,
        ));
    }
    rows.push(Row::many(
        "hop-by-hop options of every length from 8 to 2,048 bytes, then the SYN",
        "6",
        (0..=255).map(|units| drops(attacks().options(HOP_BY_HOP, units).frame(), Reason::NewFlow)).collect(),
    ));
    rows
}

fn list_orders() -> Vec<Row> {
    let twice = asks().options(HOP_BY_HOP, 0).options(HOP_BY_HOP, 0);
    vec![
        Row::v6("hop-by-hop options, destination options", {
            passes(asks().options(HOP_BY_HOP, 0).options(DESTINATION_OPTIONS, 0).frame(), Reason::Need)
        }),
        Row::v6("hop-by-hop options second", {
            drops(asks().options(DESTINATION_OPTIONS, 0).options(HOP_BY_HOP, 0).frame(), Reason::Malformed)
        }),
        Row::v6("hop-by-hop options twice", drops(twice.frame(), Reason::Malformed)),
        Row::v6("hop-by-hop options behind an atomic fragment header", {
            drops(asks().fragment(7, 0, false).options(HOP_BY_HOP, 0).frame(), Reason::Malformed)
        }),
        Row::many("a transport header that is announced as one more extension header", "6", {
            [0, 43, 44, 60]
                .map(|kind| {
                    let packet = Ipv6::new(V6.ns, V6.peer, kind, &[]).options(HOP_BY_HOP, 0);
                    drops(packet.frame(), Reason::Malformed)
                })
                .into()
        }),
        Row::many("mobility, HIP, Shim6, AH, ESP, experiments: protocols that hide what follows", "6", {
            [135, 139, 140, 51, 50, 253, 254]
                .map(|kind| {
                    let inner =
                        [&[UDP, 0, 0, 0, 0, 0, 0, 0][..], &udp_datagram(question(V6).0, question(V6).1, b"")];
                    drops(Ipv6::new(V6.ns, V6.peer, kind, &inner.concat()).frame(), Reason::Protocol)
                })
                .into()
        }),
        Row::v6("no next header, with a payload all the same", {
            drops(Ipv6::new(V6.ns, V6.peer, 59, &[0; 32]).frame(), Reason::Protocol)
        }),
    ]
}

fn list_jumbograms() -> Vec<Row> {
    let option = |packet: Ipv6| packet.extension(HOP_BY_HOP, &[0, 0xc2, 4, 0, 1, 0, 0]).frame();
    vec![
        Row::v6(
            "no option, and the length that is true",
            passes(asks().options(HOP_BY_HOP, 0).frame(), Reason::Need),
        ),
        Row::v6(
            "length 0 and the option",
            drops(patched(&option(asks()), IP + 4, &[0, 0]), Reason::Malformed),
        ),
        Row::v6("length 0 without the option", {
            drops(patched(&asks().options(HOP_BY_HOP, 0).frame(), IP + 4, &[0, 0]), Reason::Malformed)
        }),
        Row::v6(
            "the option with another length: judged by that length",
            drops(option(attacks()), Reason::NewFlow),
        ),
        Row::v6("length 0, and the frame ends there", {
            drops(Ipv6::new(V6.ns, V6.peer, UDP, &[]).frame(), Reason::Malformed)
        }),
    ]
}
