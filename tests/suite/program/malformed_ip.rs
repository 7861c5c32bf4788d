//! Row 2: IP headers that can't be understood.

use portcullis::abi::Reason;

use crate::support::dmz::{V4, V6, ip};
use crate::support::frame::{
    DESTINATION_OPTIONS, HOP_BY_HOP, IP, Ipv4, Ipv6, SYN, TCP, UDP, cut, ethernet, l4_of, link_frame, octets,
    padded, patched, tcp_header, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

/// A question of the name server, which may ask.
fn question(family: crate::support::dmz::Family) -> Vec<u8> {
    udp((family.ns, 40_000), (family.peer, 53))
}

/// The same by way of an IPv6 packet still to be broken.
fn question_v6() -> Ipv6 {
    let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, 53), b"datagram");
    Ipv6::new(V6.ns, V6.peer, UDP, &datagram)
}

#[test]
fn a_frame_cut_off_anywhere_is_malformed() {
    with_dmz_in_both_families(|gate, family| {
        let whole = question(family);
        for length in IP..whole.len() {
            gate.drops(&cut(&whole, length), Reason::Malformed);
        }
        gate.passes(&whole, Reason::Need);
    });
}

#[test]
fn a_version_that_the_ethertype_does_not_announce_is_malformed() {
    let gate = TestGate::dmz();
    for (family, own) in [(V4, 4_u8), (V6, 6)] {
        let whole = question(family);
        for version in (0..16).filter(|version| *version != own) {
            let first = version << 4 | whole[IP] & 0x0f;
            gate.drops(&patched(&whole, IP, &[first]), Reason::Malformed);
        }
    }
    let swapped = link_frame(0x86dd, &question(V4)[IP..]);
    gate.drops(&swapped, Reason::Malformed);
    gate.drops(&link_frame(0x0800, &question(V6)[IP..]), Reason::Malformed);
}

#[test]
fn an_ipv4_header_length_below_its_fields_or_past_the_packet_is_malformed() {
    let gate = TestGate::dmz();
    let whole = question(V4); // 20 bytes of header, 16 of UDP: nine words
    for words in (0..16).filter(|words| *words != 5) {
        // six to nine words take the datagram, or a part of it, for options
        let row = gate.drops(&patched(&whole, IP, &[0x40 | words]), Reason::Malformed);
        assert_eq!(row.row.bytes % whole.len() as u64, 0);
    }
    gate.passes(&patched(&whole, IP, &[0x45]), Reason::Need);
}

#[test]
fn an_ipv4_total_length_that_lies_is_malformed() {
    let gate = TestGate::dmz();
    let whole = padded(&question(V4), 60);
    let says = |length: u16| patched(&whole, IP + 2, &length.to_be_bytes());
    for length in (0..36).chain([47, 100, 1500, 65_535]) {
        gate.drops(&says(length), Reason::Malformed);
    }
    gate.passes(&says(36), Reason::Need);
}

#[test]
fn an_ipv6_payload_length_that_lies_is_malformed() {
    let gate = TestGate::dmz();
    let whole = question(V6); // 16 bytes after the header
    let says = |length: u16| patched(&whole, IP + 4, &length.to_be_bytes());
    for length in (0..16).chain([17, 100, 1500, 65_535]) {
        gate.drops(&says(length), Reason::Malformed);
    }
    gate.passes(&says(16), Reason::Need);
}

#[test]
fn a_jumbogram_is_malformed() {
    // length 0 and the option 0xc2 that says more: nothing that a DMZ's link can carry
    let frame = question_v6().extension(HOP_BY_HOP, &[0, 0xc2, 4, 0, 1, 0, 0]).frame();
    let gate = TestGate::dmz();
    gate.drops(&patched(&frame, IP + 4, &[0, 0]), Reason::Malformed);
    gate.passes(&question_v6().options(HOP_BY_HOP, 0).frame(), Reason::Need);
}

#[test]
fn ethernet_padding_is_never_taken_for_a_header() {
    with_dmz_in_both_families(|gate, family| {
        let whole = question(family);
        gate.passes(&padded(&whole, 100), Reason::Need);
        // The whole datagram is in the frame, but the packet ends before it, or within it.
        for left in 0..16_u16 {
            let (at, length) = match family.ns.is_ipv4() {
                true => (IP + 2, 20 + left),
                false => (IP + 4, left),
            };
            gate.drops(&patched(&padded(&whole, 100), at, &length.to_be_bytes()), Reason::Malformed);
        }
    });
}

#[test]
fn an_ipv6_packet_with_an_ipv4_mapped_address_is_malformed() {
    let gate = TestGate::dmz();
    let whole = question(V6);
    let mapped = |text: &str| octets(ip(text));
    // ns1 and its peer of the other family
    gate.drops(&patched(&whole, IP + 8, &mapped("::ffff:192.0.2.53")), Reason::Malformed);
    gate.drops(&patched(&whole, IP + 24, &mapped("::ffff:203.0.113.50")), Reason::Malformed);
    // the neighbours of ::ffff:0:0/96 are addresses as any other
    for near in [
        "::fffe:203.0.113.50",
        "::1:ffff:203.0.113.50",
        "::1:0:ffff:203.0.113.50",
        "2001:db8::ffff:203.0.113.50",
    ] {
        let frame = udp((V6.ns, 40_000), (ip(near), 53));
        gate.passes(&frame, Reason::Need);
    }
}

#[test]
fn a_chain_of_eight_extension_headers_is_read_and_one_of_nine_is_malformed() {
    let gate = TestGate::dmz();
    let chain = |length: usize| {
        let mut packet = question_v6();
        for index in 0..length {
            packet = packet.options(if index == 0 { HOP_BY_HOP } else { DESTINATION_OPTIONS }, 0);
        }
        packet
    };
    for length in 0..=8 {
        gate.passes(&chain(length).frame(), Reason::Need);
    }
    gate.drops(&chain(9).frame(), Reason::Malformed);
    gate.drops(&chain(20).frame(), Reason::Malformed);
    // an atomic fragment's header is one of the chain
    gate.passes(&chain(7).fragment(1, 0, false).frame(), Reason::Need);
    gate.drops(&chain(8).fragment(1, 0, false).frame(), Reason::Malformed);
}

#[test]
fn hop_by_hop_options_stand_first_or_are_malformed() {
    let gate = TestGate::dmz();
    let behind = question_v6().options(DESTINATION_OPTIONS, 0).options(HOP_BY_HOP, 0);
    gate.drops(&behind.frame(), Reason::Malformed);
    gate.drops(&question_v6().options(HOP_BY_HOP, 0).options(HOP_BY_HOP, 0).frame(), Reason::Malformed);
    let first = question_v6().options(HOP_BY_HOP, 0).options(DESTINATION_OPTIONS, 0);
    gate.passes(&first.frame(), Reason::Need);
}

#[test]
fn what_lies_behind_a_chain_is_judged_as_without_it() {
    let gate = TestGate::dmz();
    for units in [0, 1, 31] {
        for (port, reason) in [(53, None), (80, Some(Reason::NewFlow))] {
            let header = tcp_header((V6.ns, 40_000), (V6.peer, port), SYN, (1, 0));
            let frame = Ipv6::new(V6.ns, V6.peer, TCP, &header)
                .options(HOP_BY_HOP, units)
                .options(DESTINATION_OPTIONS, units)
                .frame();
            match reason {
                None => gate.passes(&frame, Reason::Need),
                Some(reason) => assert_eq!(gate.drops(&frame, reason).key.port, port),
            }
        }
    }
}

#[test]
fn a_header_past_the_linear_part_of_a_frame_is_found() {
    // Three times 2,048 bytes of options: the rest of the frame is in other buffers.
    let gate = TestGate::dmz();
    for (port, reason) in [(53, None), (80, Some(Reason::NewFlow))] {
        let header = tcp_header((V6.ns, 40_000), (V6.peer, port), SYN, (1, 0));
        let packet = Ipv6::new(V6.ns, V6.peer, TCP, &header)
            .options(HOP_BY_HOP, 255)
            .options(DESTINATION_OPTIONS, 255)
            .options(DESTINATION_OPTIONS, 255);
        let frame = packet.frame();
        assert!(frame.len() > 6_000);
        match reason {
            None => gate.passes(&frame, Reason::Need),
            Some(reason) => assert_eq!(gate.drops(&frame, reason).key.port, port),
        }
        gate.drops(&cut(&frame, frame.len() - 1), Reason::Malformed);
    }
}

#[test]
fn a_long_payload_does_not_hide_the_headers() {
    with_dmz_in_both_families(|gate, family| {
        for (port, reason) in [(53, None), (80, Some(Reason::NewFlow))] {
            let (from, to) = ((family.ns, 40_000), (family.peer, port));
            let payload = vec![0x5a; 8_000];
            let datagram = udp_datagram(from, to, &payload);
            let frame = ethernet(&crate::support::frame::packet(from.0, to.0, UDP, &datagram));
            match reason {
                None => gate.passes(&frame, Reason::Need),
                Some(reason) => assert_eq!(gate.drops(&frame, reason).key.port, port),
            }
        }
    });
}

#[test]
fn an_extension_header_that_runs_out_of_the_packet_is_malformed() {
    let gate = TestGate::dmz();
    for kind in [HOP_BY_HOP, DESTINATION_OPTIONS] {
        let frame = question_v6().options(kind, 0).frame();
        gate.passes(&frame, Reason::Need);
        // one unit more takes half of the datagram, two take all, three are more than there is
        for units in [1, 2, 3, 255] {
            gate.drops(&patched(&frame, l4_of(V6.ns) + 1, &[units]), Reason::Malformed);
        }
        // and padding does not make it any longer
        let long = padded(&patched(&frame, l4_of(V6.ns) + 1, &[3]), 200);
        gate.drops(&long, Reason::Malformed);
        // the chain ends within a header
        let bare = Ipv6::new(V6.ns, V6.peer, UDP, &[]).options(kind, 0).frame();
        for left in 0..8_u16 {
            let short = patched(&bare, IP + 4, &left.to_be_bytes());
            gate.drops(&cut(&short, l4_of(V6.ns) + usize::from(left)), Reason::Malformed);
            gate.drops(&short, Reason::Malformed);
        }
        gate.drops(&bare, Reason::Malformed); // whole, and nothing behind it
    }
}

#[test]
fn a_fragment_header_that_is_cut_off_is_malformed() {
    let gate = TestGate::dmz();
    let bare = Ipv6::new(V6.ns, V6.peer, UDP, &[]).fragment(1, 4, false).frame();
    for left in 0..8_u16 {
        let short = patched(&bare, IP + 4, &left.to_be_bytes());
        gate.drops(&cut(&short, l4_of(V6.ns) + usize::from(left)), Reason::Malformed);
        gate.drops(&short, Reason::Malformed);
    }
    let whole = Ipv6::new(V6.ns, V6.peer, UDP, &[0; 8]).fragment(1, 4, false).frame();
    gate.drops(&whole, Reason::Fragment);
}

#[test]
fn ipv4_options_that_are_whole_are_looked_through() {
    let gate = TestGate::dmz();
    let datagram = udp_datagram((V4.ns, 40_000), (V4.peer, 53), b"");
    let with = |options: &[u8]| Ipv4::new(V4.ns, V4.peer, UDP, &datagram).options(options).frame();
    let mut record_route = vec![7, 39, 4];
    record_route.resize(40, 0);
    let whole: [&[u8]; 7] = [
        &[0, 0, 0, 0],                          // the end
        &[1, 1, 1, 1],                          // nothing, four times
        &[148, 4, 0, 0],                        // router alert
        &[1, 68, 8, 5, 0, 0, 0, 0, 0, 0, 0, 0], // timestamp
        &[1, 1, 30, 2],                         // an experiment without content
        &[0, 131, 0, 99],                       // the end, and whatever is there
        &record_route,
    ];
    for options in whole {
        gate.passes(&with(options), Reason::Need);
    }
}

#[test]
fn an_ipv4_option_whose_length_lies_is_malformed() {
    let gate = TestGate::dmz();
    let datagram = udp_datagram((V4.ns, 40_000), (V4.peer, 53), b"");
    let with = |options: &[u8]| Ipv4::new(V4.ns, V4.peer, UDP, &datagram).options(options).frame();
    let lies: [&[u8]; 8] = [
        &[148, 0, 0, 0], // no room for its own two bytes
        &[148, 1, 0, 0],
        &[148, 5, 0, 0], // a byte more than the header has
        &[148, 255, 0, 0],
        &[1, 1, 1, 148], // its length is not in the header
        &[1, 1, 30, 3],
        &[148, 4, 0, 0, 7, 5, 4, 0], // the second one
        &[131, 0, 4, 0],             // of a source route: not even that is known
    ];
    for options in lies {
        gate.drops(&with(options), Reason::Malformed);
    }
}

#[test]
fn a_packet_has_one_fragment_header_also_where_it_is_atomic() {
    let gate = TestGate::dmz();
    let datagram = udp_datagram((V6.ns, 40_000), (V6.peer, 53), b"");
    let packet = Ipv6::new(V6.ns, V6.peer, UDP, &datagram).fragment(7, 0, false);
    gate.passes(&packet.clone().frame(), Reason::Need);
    gate.drops(&packet.fragment(7, 0, false).frame(), Reason::Malformed);
}
