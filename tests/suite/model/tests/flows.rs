//! What the tracker remembers of what goes to the servers.

use portcullis::abi::Reason::Reply;

use super::TimedModel;
use crate::model::{FlowKey, Origin, Table};
use crate::support::dmz::{V4, V6, in_both_families};
use crate::support::frame::{self, ACK, FIN, Ipv6, RST, SYN, TCP, UDP};

fn tables(timed: &TimedModel) -> Vec<Table> {
    timed.model.flows().into_keys().map(|(table, _)| table).collect()
}

fn after(frame: &[u8]) -> Vec<Table> {
    let mut timed = TimedModel::new();
    timed.gets(frame);
    tables(&timed)
}

#[test]
fn an_opening_goes_to_the_table_of_its_kind() {
    in_both_families(|family| {
        let (web, ns, peer) = (family.web, family.ns, family.peer);
        assert_eq!(after(&frame::tcp((peer, 4000), (web, 80), SYN)), [Table::HalfOpen]);
        assert_eq!(after(&frame::tcp((peer, 4000), (web, 8080), SYN)), [Table::Unlisted]);
        assert_eq!(after(&frame::tcp((peer, 4000), (web, 22), SYN)), [Table::Unlisted]);
        assert_eq!(after(&frame::tcp((family.bastion, 4000), (web, 22), SYN)), [Table::HalfOpen]);
        assert_eq!(after(&frame::udp((peer, 4000), (ns, 53))), [Table::Datagrams]);
        assert_eq!(after(&frame::udp((peer, 4000), (web, 53))), [Table::Unlisted]);
        assert_eq!(after(&frame::echo_request(peer, web, 9)), [Table::IcmpQueries]);
        assert_eq!(after(&frame::echo_request(peer, ns, 9)), []);
    });
}

#[test]
fn what_opens_nothing_is_not_remembered() {
    in_both_families(|family| {
        let (web, ns, peer) = (family.web, family.ns, family.peer);
        assert_eq!(after(&frame::tcp((peer, 4000), (web, 80), ACK)), []);
        assert_eq!(after(&frame::tcp((peer, 53), (ns, 4000), SYN | ACK)), []);
        // From where the server may ask, a datagram is an answer.
        assert_eq!(after(&frame::udp((peer, 53), (ns, 4000))), []);
        assert_eq!(after(&frame::udp((peer, 54), (ns, 4000))), [Table::Unlisted]);
        assert_eq!(after(&frame::echo_reply(peer, web, 9)), []);
        assert_eq!(after(&frame::raw_ip(peer, web, 47, &[])), []);
        assert_eq!(after(&frame::tcp((peer, 4000), (family.unknown, 80), SYN)), []);
        assert_eq!(after(&frame::fragment(peer, web, UDP, (1, 2, false), &[0; 9])), []);
    });
}

#[test]
fn what_the_filter_would_call_broken_opens_a_flow_all_the_same() {
    in_both_families(|family| {
        let (web, ns, peer) = (family.web, family.ns, family.peer);
        assert_eq!(after(&frame::tcp((peer, 4000), (web, 80), SYN | FIN)), [Table::HalfOpen]);
        // Ports alone: what flags there are stands in a later fragment, or may be written over by one.
        for flags in [SYN, ACK] {
            let segment = frame::tcp_header((peer, 4000), (web, 80), flags, (1, 0));
            for length in [8, 16, 20] {
                let first = frame::fragment(peer, web, TCP, (1, 0, true), &segment[..length]);
                assert_eq!(after(&first), [Table::HalfOpen], "{length}");
            }
            let segment = frame::tcp_header((peer, 4000), (web, 8080), flags, (1, 0));
            let first = frame::fragment(peer, web, TCP, (1, 0, true), &segment[..8]);
            assert_eq!(after(&first), [Table::Unlisted]);
        }
        // Hosts trim a first fragment of an odd length.
        let datagram = frame::udp_datagram((peer, 4000), (ns, 53), &[0; 37]);
        assert_eq!(after(&frame::fragment(peer, ns, UDP, (1, 0, true), &datagram)), [Table::Datagrams]);
        let mut lying = datagram.clone();
        lying[5] = 200;
        assert_eq!(after(&frame::ethernet(&frame::packet(peer, ns, UDP, &lying))), [Table::Datagrams]);
    });
    let mut question =
        Ipv6::new(V6.peer, V6.ns, UDP, &frame::udp_datagram((V6.peer, 4000), (V6.ns, 53), &[]));
    for _ in 0..9 {
        question = question.extension(60, &[0, 1, 4, 0, 0, 0, 0]);
    }
    assert_eq!(after(&question.frame()), [Table::Datagrams]);
}

#[test]
fn no_state_of_a_flow_changes_by_a_broken_segment() {
    let mut timed = TimedModel::new();
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    timed.half_open(server, peer);
    let mut segment = frame::tcp_header(peer, server, ACK, (1, super::SERVER_NUMBER.wrapping_add(1)));
    segment.extend_from_slice(&[0; 5]);
    timed.gets(&frame::fragment(V4.peer, V4.web, TCP, (1, 0, true), &segment));
    assert_eq!(tables(&timed), [Table::HalfOpen]);
    timed.establish(server, peer);
    let flags = |timed: &TimedModel| timed.model.flows()[&(Table::Established, key(server, peer))].flags;
    timed.gets(&frame::tcp(peer, server, FIN));
    assert_eq!(flags(&timed), 0, "FIN without ACK");
    timed.gets(&frame::tcp(peer, server, FIN | ACK));
    assert_eq!(flags(&timed), 2);
}

fn key(server: frame::Endpoint, peer: frame::Endpoint) -> FlowKey {
    FlowKey { server: server.0, peer: peer.0, protocol: TCP, server_port: server.1, peer_port: peer.1 }
}

#[test]
fn a_super_packet_of_the_kernel_reaches_to_the_end_of_its_frame() {
    let v4 = frame::patched(&frame::tcp((V4.peer, 4000), (V4.web, 80), SYN), frame::IP + 2, &[0, 0]);
    let v6 = frame::patched(&frame::tcp((V6.peer, 4000), (V6.web, 80), SYN), frame::IP + 4, &[0, 0]);
    for frame in [v4, v6] {
        assert_eq!(after(&frame), [Table::HalfOpen]);
    }
}

#[test]
fn tags_do_not_hide_an_opening() {
    let frame = frame::tagged(&frame::tcp((V4.peer, 4000), (V4.web, 80), SYN), 0x8100, 7);
    assert_eq!(after(&frame), [Table::HalfOpen]);
}

#[test]
fn each_end_leaves_its_flags() {
    let mut timed = TimedModel::new();
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    timed.establish(server, peer);
    let flags = |timed: &TimedModel| timed.model.flows().values().next().expect("a flow").flags;
    assert_eq!(flags(&timed), 0);
    timed.gets(&frame::tcp(peer, server, FIN | ACK));
    assert_eq!(flags(&timed), 2);
    timed.why(&frame::tcp(server, peer, FIN | ACK));
    assert_eq!(flags(&timed), 3);
    timed.gets(&frame::tcp(peer, server, RST));
    assert_eq!(flags(&timed), 3, "a reset can be forged");
    timed.gets(&frame::tcp(peer, server, ACK));
    assert_eq!(flags(&timed), 3);
    timed.why(&frame::tcp(server, peer, RST));
    assert_eq!(flags(&timed), 7);
}

#[test]
fn icmp_flows_are_named_by_identifier_and_type() {
    let mut timed = TimedModel::new();
    timed.gets(&frame::echo_request(V4.peer, V4.web, 9));
    let key = FlowKey { server: V4.web, peer: V4.peer, protocol: 1, server_port: 9, peer_port: 8 };
    assert!(timed.model.flows().contains_key(&(Table::IcmpQueries, key)));
}

#[test]
fn a_new_handshake_of_the_same_four_numbers_replaces_the_old_flow_only_when_complete() {
    let mut timed = TimedModel::new();
    let (server, peer) = ((V4.web, 80), (V4.peer, 4000));
    timed.establish(server, peer);
    timed.gets(&frame::tcp(peer, server, FIN | ACK));
    timed.gets(&frame::tcp(peer, server, SYN));
    assert_eq!(tables(&timed), [Table::Established, Table::HalfOpen]);
    // The old one goes on, for the SYN may be forged.
    assert_eq!(timed.why(&frame::tcp(server, peer, ACK)), Reply);
    timed.establish(server, peer);
    assert_eq!(tables(&timed), [Table::Established]);
    assert_eq!(timed.model.flows().values().next().expect("a flow").flags, 0);
}

#[test]
fn a_syn_with_a_reset_opens_nothing_and_one_with_a_fin_may() {
    for (flags, expected) in [
        (SYN | RST, vec![]),
        (SYN | RST | FIN, vec![]),
        (SYN | RST | ACK, vec![]),
        (SYN | FIN, vec![Table::HalfOpen]),
    ] {
        assert_eq!(after(&frame::tcp((V4.peer, 4000), (V4.web, 80), flags)), expected, "{flags:#x}");
    }
    // What a first fragment has for flags, a later one may write over.
    let segment = frame::tcp_header((V4.peer, 4000), (V4.web, 80), SYN | RST, (1, 0));
    let first = frame::fragment(V4.peer, V4.web, TCP, (1, 0, true), &[&segment[..], &[0; 4]].concat());
    assert_eq!(after(&first), [Table::HalfOpen]);
}

#[test]
fn what_a_stranger_of_the_link_sends_back_into_it_opens_nothing() {
    in_both_families(|family| {
        for (peer, origin, heard) in [
            (family.peer, Origin::Beyond, true),
            (family.peer, Origin::Link, false),
            (family.unknown, Origin::Link, false),
            (family.ns, Origin::Link, true),
        ] {
            let mut timed = TimedModel::setting("unknown_sources = \"allow\"");
            timed.model.to_server_from(origin, &frame::tcp((peer, 4000), (family.web, 80), SYN), timed.now);
            assert_eq!(!tables(&timed).is_empty(), heard, "{peer} {origin:?}");
        }
    });
}
