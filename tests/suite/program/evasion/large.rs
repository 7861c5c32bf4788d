//! Frames of more than one buffer: what a test run gives in pieces when they are larger than a page.

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, forbidden, passes, question, web};
use crate::support::dmz::V6;
use crate::support::frame::{
    ACK, DESTINATION_OPTIONS, Endpoint, HOP_BY_HOP, Ipv6, SYN, TCP, UDP, ethernet, packet, padded, tagged,
    tcp_header, udp_datagram,
};

classes! {
    a_frame_of_many_buffers_is_judged_as_any_other: "Jumbo frames", list_jumbos;
    a_header_in_another_buffer_is_found: "Headers beyond the linear part", list_far_headers;
}

const LENGTHS: [usize; 8] = [1500, 3000, 3500, 4096, 8972, 16_000, 32_768, 60_000];

fn segment(ends: (Endpoint, Endpoint), flags: u8, bytes: usize) -> Vec<u8> {
    let content = [tcp_header(ends.0, ends.1, flags, (1, 1)), vec![0; bytes]].concat();
    ethernet(&packet(ends.0.0, ends.1.0, TCP, &content))
}

fn datagram(ends: (Endpoint, Endpoint), bytes: usize) -> Vec<u8> {
    ethernet(&packet(ends.0.0, ends.1.0, UDP, &udp_datagram(ends.0, ends.1, &vec![0; bytes])))
}

fn list_jumbos() -> Vec<Row> {
    let each = |script: &dyn Fn(usize) -> Script| -> Vec<Script> { LENGTHS.map(script).into() };
    vec![
        Row::both_many("a reply of 1,500 to 60,000 bytes", |family| {
            let (server, peer) = web(family);
            each(&|bytes| {
                Script::default()
                    .handshake(server, peer)
                    .passes(segment((server, peer), ACK, bytes), Reason::Reply)
            })
        }),
        Row::both_many("a segment in no flow of 1,500 to 60,000 bytes", |family| {
            each(&|bytes| drops(segment(web(family), ACK, bytes), Reason::NoFlow))
        }),
        Row::both_many("a SYN with as much data", |family| {
            each(&|bytes| drops(segment(forbidden(family), SYN, bytes), Reason::NewFlow))
        }),
        Row::both_many("a datagram with as much data, under two tags", |family| {
            each(&|bytes| {
                drops(
                    tagged(&tagged(&datagram(forbidden(family), bytes), 0x8100, 7), 0x88a8, 8),
                    Reason::NewFlow,
                )
            })
        }),
        Row::both_many("a SYN with as much padding behind the packet", |family| {
            let frame = segment(forbidden(family), SYN, 0);
            each(&|bytes| drops(padded(&frame, bytes), Reason::NewFlow))
        }),
        Row::both_many("a length that ends one byte past the last buffer", |family| {
            each(&|bytes| {
                let mut frame = datagram(question(family), bytes);
                frame.pop();
                drops(frame, Reason::Malformed)
            })
        }),
    ]
}

/// A chain of this many headers of 2,048 bytes.
fn far(packet: Ipv6, headers: usize) -> Vec<u8> {
    (0..headers)
        .fold(packet, |packet, index| {
            packet.options(if index == 0 { HOP_BY_HOP } else { DESTINATION_OPTIONS }, 255)
        })
        .frame()
}

fn list_far_headers() -> Vec<Row> {
    let asks = || {
        let (from, to) = question(V6);
        Ipv6::new(V6.ns, V6.peer, UDP, &udp_datagram(from, to, b""))
    };
    let attacks = || {
        let (from, to) = forbidden(V6);
        Ipv6::new(V6.ns, V6.peer, TCP, &tcp_header(from, to, SYN, (1, 0)))
    };
    let routed = |headers| {
        let packet = (0..headers).fold(asks(), |packet, _| packet.options(DESTINATION_OPTIONS, 255));
        packet.extension(43, &[0, 4, 1, 0, 0, 0, 0]).frame()
    };
    vec![
        Row::many("a question behind 2 to 16 KiB of options", "6", {
            (1..=8).map(|headers| passes(far(asks(), headers), Reason::Need)).collect()
        }),
        Row::many("a SYN behind 2 to 16 KiB of options", "6", {
            (1..=8).map(|headers| drops(far(attacks(), headers), Reason::NewFlow)).collect()
        }),
        Row::many("a routing header behind 2 to 14 KiB of options", "6", {
            (1..=7).map(|headers| drops(routed(headers), Reason::SourceRoute)).collect()
        }),
        Row::many("a header that ends with the frame, at every place around the end of a buffer", "6", {
            (3200..4400_usize)
                .step_by(8)
                .map(|bytes| {
                    let units = |bytes: usize| (bytes / 8 - 1) as u8;
                    let packet =
                        attacks().options(HOP_BY_HOP, 255).options(DESTINATION_OPTIONS, units(bytes - 2400));
                    drops(packet.frame(), Reason::NewFlow)
                })
                .collect()
        }),
        Row::many("the fragment header of a later fragment behind 2 to 14 KiB of options", "6", {
            (1..=7)
                .map(|headers| {
                    let packet = (0..headers).fold(Ipv6::new(V6.ns, V6.peer, UDP, &[0; 16]), |packet, _| {
                        packet.options(DESTINATION_OPTIONS, 255)
                    });
                    drops(packet.fragment(7, 3, false).frame(), Reason::Fragment)
                })
                .collect()
        }),
    ]
}
