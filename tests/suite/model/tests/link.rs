//! Steps 1 to 4: what is no IP, what is broken, what hides its way, what the link needs.

use std::net::IpAddr;

use portcullis::abi::Reason::{
    Dhcp, Ethertype, LinkLayer, Malformed, Neighbour, NewFlow, RogueRouter, SourceRoute, UnknownSource,
};

use super::TimedModel;
use crate::support::dmz::{FAMILIES, V4, V6, in_both_families, ip};
use crate::support::frame::{
    self, ACK, DESTINATION_OPTIONS, FIN, HOP_BY_HOP, ICMPV6, Ipv4, Ipv6, PSH, ROUTING, RST, SYN, TCP, UDP,
};

#[test]
fn what_the_link_needs_passes_and_other_ethertypes_do_not() {
    let mut timed = TimedModel::new();
    for ethertype in [0x0806, 0x88cc, 0x888e, 0x8809, 0, 38, 1500] {
        assert_eq!(timed.why(&frame::link_frame(ethertype, &[0; 46])), LinkLayer, "{ethertype:#x}");
    }
    for ethertype in [1501, 1535, 0x8035, 0x88f7, 0x9000, 0x9100, 0xffff] {
        let outcome = timed.sends(&frame::link_frame(ethertype, &[0; 46]));
        assert_eq!((outcome.reason, outcome.port), (Ethertype, ethertype));
    }
}

#[test]
fn two_vlan_tags_are_looked_through_and_a_third_is_malformed() {
    let mut timed = TimedModel::new();
    in_both_families(|family| {
        let plain = frame::udp((family.ns, 5000), (family.peer, 53));
        let once = frame::tagged(&plain, 0x8100, 7);
        let twice = frame::tagged(&once, 0x88a8, 8);
        for good in [&plain, &once, &twice] {
            assert_eq!(timed.why(good), portcullis::abi::Reason::Need);
        }
        assert_eq!(timed.why(&frame::tagged(&twice, 0x8100, 9)), Malformed);
        assert_eq!(timed.why(&frame::cut(&once, 16)), Malformed);
    });
}

#[test]
fn a_packet_cut_anywhere_is_malformed() {
    let mut timed = TimedModel::new();
    in_both_families(|family| {
        let whole = frame::tcp((family.ns, 5000), (family.peer, 53), SYN);
        assert_eq!(timed.why(&whole), portcullis::abi::Reason::Need);
        for length in 0..whole.len() {
            assert_eq!(timed.why(&frame::cut(&whole, length)), Malformed, "{length}");
        }
    });
}

#[test]
fn padding_of_the_frame_is_no_header() {
    let mut timed = TimedModel::new();
    in_both_families(|family| {
        let header = frame::tcp_header((family.ns, 5000), (family.peer, 53), SYN, (1, 0));
        // The frame holds the whole header, the packet only half of it.
        let mut short = frame::ethernet(&frame::packet(family.ns, family.peer, TCP, &header[..10]));
        short.extend_from_slice(&header[10..]);
        assert_eq!(timed.why(&short), Malformed);
    });
}

#[test]
fn tcp_flags_that_no_stack_sends_are_malformed() {
    let mut timed = TimedModel::new();
    let (from, to) = ((V4.ns, 5000), (V4.peer, 53));
    for flags in [0, PSH, 0x20, SYN | FIN, SYN | RST, SYN | FIN | ACK, SYN | RST | ACK, FIN, FIN | PSH] {
        assert_eq!(timed.why(&frame::tcp(from, to, flags)), Malformed, "{flags:#x}");
    }
    for flags in [SYN, SYN | PSH, ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, RST | FIN | ACK] {
        assert!(!timed.why(&frame::tcp(from, to, flags)).drops(), "{flags:#x}");
    }
}

#[test]
fn length_fields_that_lie_are_malformed() {
    let mut timed = TimedModel::new();
    let datagram = frame::udp((V4.ns, 5000), (V4.peer, 53));
    assert_eq!(timed.why(&datagram), portcullis::abi::Reason::Need);
    let lies: [(usize, &[u8]); 6] = [
        (frame::IP, &[0x44]),             // header shorter than can be
        (frame::IP, &[0x4f]),             // options beyond the packet
        (frame::IP, &[0x65]),             // another version
        (frame::IP + 2, &[0, 19]),        // a packet shorter than its header
        (frame::L4_OF_V4 + 4, &[0, 7]),   // a datagram shorter than its header
        (frame::L4_OF_V4 + 4, &[0, 200]), // or longer than the packet
    ];
    for (at, bytes) in lies {
        assert_eq!(timed.why(&frame::patched(&datagram, at, bytes)), Malformed, "{at} {bytes:?}");
    }
    let segment = frame::tcp((V6.ns, 5000), (V6.peer, 53), SYN);
    for offset in [0x40, 0x60] {
        assert_eq!(timed.why(&frame::patched(&segment, frame::L4_OF_V6 + 12, &[offset])), Malformed);
    }
}

#[test]
fn an_extension_chain_of_eight_headers_passes_and_of_nine_does_not() {
    let mut timed = TimedModel::new();
    let datagram = frame::udp_datagram((V6.ns, 5000), (V6.peer, 53), b"");
    let mut packet = Ipv6::new(V6.ns, V6.peer, UDP, &datagram).options(HOP_BY_HOP, 0);
    for _ in 0..7 {
        packet = packet.options(DESTINATION_OPTIONS, 1);
    }
    assert_eq!(timed.why(&packet.frame()), portcullis::abi::Reason::Need);
    assert_eq!(timed.why(&packet.options(DESTINATION_OPTIONS, 0).frame()), Malformed);
}

#[test]
fn hop_by_hop_options_elsewhere_than_first_and_chains_out_of_bounds_are_malformed() {
    let mut timed = TimedModel::new();
    let datagram = frame::udp_datagram((V6.ns, 5000), (V6.peer, 53), b"");
    let packet = Ipv6::new(V6.ns, V6.peer, UDP, &datagram);
    let late = packet.clone().options(DESTINATION_OPTIONS, 0).options(HOP_BY_HOP, 0);
    assert_eq!(timed.why(&late.frame()), Malformed);
    let outside = packet.clone().extension(DESTINATION_OPTIONS, &[200, 1, 4, 0, 0, 0, 0]);
    assert_eq!(timed.why(&outside.frame()), Malformed);
    let jumbogram = frame::patched(&packet.options(HOP_BY_HOP, 0).frame(), frame::IP + 4, &[0, 0]);
    assert_eq!(timed.why(&jumbogram), Malformed);
}

#[test]
fn an_ipv4_mapped_address_in_an_ipv6_header_is_malformed_and_no_servers() {
    let mut timed = TimedModel::new();
    let mapped = ip("::ffff:192.0.2.53");
    let outcome = timed.sends(&frame::udp((mapped, 5000), (V6.peer, 53)));
    assert_eq!((outcome.reason, outcome.server), (Malformed, None));
    let outcome = timed.sends(&frame::udp((V6.ns, 5000), (mapped, 53)));
    assert_eq!((outcome.reason, outcome.server.as_deref()), (Malformed, None));
}

#[test]
fn source_routes_are_dropped_and_other_options_are_not() {
    let mut timed = TimedModel::new();
    let datagram = frame::udp_datagram((V4.ns, 5000), (V4.peer, 53), b"");
    let with = |options: &[u8]| Ipv4::new(V4.ns, V4.peer, UDP, &datagram).options(options).frame();
    for kind in [131, 137] {
        assert_eq!(timed.why(&with(&[1, kind, 7, 4, 198, 51, 100, 1])), SourceRoute);
        // Behind the end of the list there is nothing.
        assert!(!timed.why(&with(&[0, kind, 7, 4, 198, 51, 100, 1])).drops());
        assert_eq!(timed.why(&with(&[1, kind, 8, 4, 198, 51, 100, 1])), Malformed);
        assert_eq!(timed.why(&with(&[1, 1, 1, kind])), Malformed);
    }
    assert!(!timed.why(&with(&[7, 7, 4, 0, 0, 0, 0, 0])).drops());
}

#[test]
fn a_routing_header_of_type_0_or_with_segments_left_is_a_source_route() {
    let mut timed = TimedModel::new();
    let datagram = frame::udp_datagram((V6.ns, 5000), (V6.peer, 53), b"");
    let with = |kind: u8, left: u8| {
        Ipv6::new(V6.ns, V6.peer, UDP, &datagram).extension(ROUTING, &[0, kind, left, 0, 0, 0, 0]).frame()
    };
    assert_eq!(timed.why(&with(0, 0)), SourceRoute);
    assert_eq!(timed.why(&with(0, 1)), SourceRoute);
    assert_eq!(timed.why(&with(4, 1)), SourceRoute);
    assert!(!timed.why(&with(4, 0)).drops());
}

#[test]
fn a_packet_both_malformed_and_source_routed_is_malformed() {
    let mut timed = TimedModel::new();
    let header = frame::tcp_header((V4.ns, 5000), (V4.peer, 53), SYN | FIN, (1, 0));
    let packet = Ipv4::new(V4.ns, V4.peer, TCP, &header).options(&[1, 131, 7, 4, 198, 51, 100, 1]);
    assert_eq!(timed.why(&packet.frame()), Malformed);
}

fn message(kind: u8, from: IpAddr, to: IpAddr, hop_limit: u8) -> Vec<u8> {
    let body = frame::icmp_message(from, to, (kind, 0), [0; 4], &[0; 16]);
    Ipv6::new(from, to, ICMPV6, &body).hop_limit(hop_limit).frame()
}

#[test]
fn neighbour_discovery_and_mld_pass_with_the_right_hop_limit_only() {
    let mut timed = TimedModel::new();
    let (link_local, group) = (ip("fe80::10"), ip("ff02::1:ff00:1"));
    for source in [link_local, ip("::"), V6.web] {
        for kind in [133, 135, 136] {
            assert_eq!(timed.why(&message(kind, source, group, 255)), Neighbour);
        }
        for kind in [131, 143] {
            assert_eq!(timed.why(&message(kind, source, group, 1)), Neighbour);
        }
    }
    assert_eq!(timed.why(&message(135, link_local, group, 254)), UnknownSource);
    assert_eq!(timed.why(&message(135, V6.web, group, 254)), NewFlow);
    assert_eq!(timed.why(&message(143, V6.web, group, 255)), NewFlow);
    assert_eq!(timed.why(&message(130, V6.web, group, 1)), NewFlow);
    assert_eq!(timed.why(&message(135, V6.unknown, group, 255)), UnknownSource);
}

#[test]
fn a_servers_neighbour_discovery_stays_on_the_link() {
    let mut timed = TimedModel::new();
    let (near, far) = (ip("2001:db8:1::1"), ip("2001:db8:9::1"));
    assert_eq!(timed.why(&message(136, V6.web, near, 255)), NewFlow);
    timed.model.set_link_routes(|_| true);
    assert_eq!(timed.why(&message(136, V6.web, near, 255)), Neighbour);
    assert_eq!(timed.why(&message(136, V6.web, far, 255)), NewFlow);
    assert_eq!(timed.why(&message(136, V6.web, ip("fe80::1"), 255)), Neighbour);
    assert_eq!(timed.why(&message(136, V6.web, ip("ff0e::1"), 255)), NewFlow);
}

#[test]
fn router_advertisements_and_redirects_are_rogue_whoever_sends_them() {
    let mut timed = TimedModel::new();
    for (from, to) in [(ip("fe80::10"), ip("ff02::1")), (V6.web, V6.peer), (V6.unknown, V6.peer)] {
        for kind in [134, 137] {
            assert_eq!(timed.why(&message(kind, from, to, 255)), RogueRouter);
        }
    }
    for kind in [5, 9] {
        assert_eq!(timed.why(&frame::icmp(V4.web, V4.peer, (kind, 0), [0; 4], &[])), RogueRouter);
    }
}

#[test]
fn dhcp_clients_talk_to_the_link_where_the_policy_lets_them() {
    let discover = frame::udp((ip("0.0.0.0"), 68), (ip("255.255.255.255"), 67));
    let solicit = frame::udp((ip("fe80::10"), 546), (ip("ff02::1:2"), 547));
    let mut closed = TimedModel::new();
    let mut open = TimedModel::setting("dhcp = true");
    for frame in [&discover, &solicit] {
        assert_eq!(closed.why(frame), UnknownSource);
        assert_eq!(open.why(frame), Dhcp);
    }
    let renewal = frame::udp((V4.web, 68), (ip("192.0.2.1"), 67));
    let outcome = open.sends(&renewal);
    assert_eq!((outcome.reason, outcome.quiet), (NewFlow, false));
    open.gets(&frame::udp((ip("192.0.2.1"), 67), (V4.web, 68)));
    let outcome = open.sends(&renewal);
    assert_eq!((outcome.reason, outcome.quiet), (NewFlow, true));
    let outcome = closed.sends(&renewal);
    assert_eq!((outcome.reason, outcome.quiet), (NewFlow, false));
    // From another port it is no client's.
    assert_eq!(open.why(&frame::udp((ip("0.0.0.0"), 69), (ip("255.255.255.255"), 67))), UnknownSource);
}

#[test]
fn no_bytes_make_the_model_panic() {
    let mut timed = TimedModel::new();
    let quoted = frame::udp((V4.peer, 4000), (V4.ns, 53));
    let seeds = FAMILIES.map(|family| {
        [
            frame::tcp((family.ns, 5000), (family.peer, 53), SYN),
            frame::udp((family.ns, 5000), (family.peer, 53)),
            frame::unreachable(family.ns, family.peer, &quoted[frame::IP..]),
            frame::fragment(family.ns, family.peer, UDP, (1, 3, false), &[0; 9]),
        ]
    });
    for frame in seeds.as_flattened() {
        for at in 12..frame.len() {
            for byte in [0, 1, 0x2f, 0x2c, 0x3c, 0x80, 0xff] {
                let broken = frame::patched(frame, at, &[byte]);
                timed.sends(&broken);
                timed.gets(&broken);
                timed.sends(&frame::cut(&broken, at));
                timed.gets(&frame::cut(&broken, at));
            }
        }
    }
}

#[test]
fn a_lease_by_unicast_is_no_opening_and_its_renewal_no_listener() {
    for (family, client, server) in [(V4, 68, 67), (V6, 546, 547)] {
        let lease = frame::udp((family.peer, server), (family.web, client));
        let renewal = frame::udp((family.web, client), (family.peer, server));
        let mut timed = TimedModel::setting("dhcp = true");
        timed.gets(&lease);
        assert!(timed.model.flows().is_empty());
        let outcome = timed.sends(&renewal);
        assert_eq!((outcome.reason, outcome.quiet), (NewFlow, true));
        // From another port, and without `dhcp`, it is an opening as any.
        timed.gets(&frame::udp((family.peer, 4000), (family.web, client)));
        assert_eq!(timed.model.flows().len(), 1);
        let mut timed = TimedModel::new();
        timed.gets(&lease);
        assert_eq!(timed.why(&renewal), portcullis::abi::Reason::UnlistedService);
    }
}
