//! Row 1: Ethernet frames that are not IP, and what lies under VLAN tags.

use portcullis::abi::Reason;

use crate::support::dmz::{V4, in_both_families};
use crate::support::frame::{SYN, cut, link_frame, tagged, tcp, udp};
use crate::support::test_gate::TestGate;

/// Who has 192.0.2.1? Tell 192.0.2.10.
const ARP: [u8; 28] =
    [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x10, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];

const LINK_PROTOCOLS: [u16; 4] = [0x0806, 0x88cc, 0x888e, 0x8809];

#[test]
fn the_protocols_that_a_link_needs_pass() {
    let gate = TestGate::dmz();
    for ethertype in LINK_PROTOCOLS {
        gate.passes(&link_frame(ethertype, &ARP), Reason::LinkLayer);
    }
}

#[test]
fn a_frame_of_802_3_passes_up_to_the_largest_length() {
    let gate = TestGate::dmz();
    // a bridge's hello: length 38, LLC 42 42 03
    let hello = [&[0x42, 0x42, 0x03][..], &[0; 35]].concat();
    gate.passes(&link_frame(38, &hello), Reason::LinkLayer);
    gate.passes(&link_frame(1500, &[0x42; 1500]), Reason::LinkLayer);
    // from 1501 it is neither a length nor an EtherType
    gate.drops(&link_frame(1501, &[0x42; 1501]), Reason::Ethertype);
    gate.drops(&link_frame(0x05ff, &[0x42; 1501]), Reason::Ethertype);
    // 0x0600 is the first EtherType and no length
    gate.drops(&link_frame(0x0600, &[0x42; 46]), Reason::Ethertype);
}

#[test]
fn any_other_ethertype_is_dropped_and_named_in_the_ledger() {
    let gate = TestGate::dmz();
    // next to the permitted ones, and what smuggles: IPX, PPPoE, MPLS, MACsec, PTP, loopback test
    let others = [
        0x0805, 0x0807, 0x88cb, 0x88cd, 0x888d, 0x888f, 0x8808, 0x880a, 0x8137, 0x8863, 0x8864, 0x8847,
        0x8848, 0x88e5, 0x88f7, 0x9000, 0x0801, 0x86dc, 0x86de, 0xffff,
    ];
    for ethertype in others {
        let row = gate.drops(&link_frame(ethertype, &[0; 46]), Reason::Ethertype);
        assert_eq!((row.key.server, row.key.port, row.key.protocol), (0, ethertype, 0));
    }
    let rows = gate.ledger().unwrap().len();
    assert_eq!(rows, others.len(), "a row for each EtherType");
}

#[test]
fn up_to_two_tags_are_looked_through() {
    let gate = TestGate::dmz();
    let arp = link_frame(0x0806, &ARP);
    let ipx = link_frame(0x8137, &[0; 46]);
    in_both_families(|family| {
        let query = udp((family.ns, 40_000), (family.peer, 53));
        let syn = tcp((family.ns, 40_000), (family.peer, 80), SYN);
        for inner in [0x8100, 0x88a8] {
            for frame in [tagged(&query, inner, 7), tagged(&query, inner, 0xe007)] {
                gate.passes(&frame, Reason::Need);
            }
            gate.drops(&tagged(&syn, inner, 7), Reason::NewFlow);
            for outer in [0x8100, 0x88a8] {
                let twice = |frame: &[u8]| tagged(&tagged(frame, inner, 7), outer, 100);
                gate.passes(&twice(&query), Reason::Need);
                gate.passes(&twice(&arp), Reason::LinkLayer);
                gate.drops(&twice(&syn), Reason::NewFlow);
                let row = gate.drops(&twice(&ipx), Reason::Ethertype);
                assert_eq!(row.key.port, 0x8137, "the EtherType under the tags");
            }
        }
    });
}

#[test]
fn a_third_tag_is_malformed_whatever_it_hides() {
    let gate = TestGate::dmz();
    let frames =
        [udp((V4.ns, 40_000), (V4.peer, 53)), link_frame(0x0806, &ARP), link_frame(0x8137, &[0; 46])];
    for frame in frames {
        for tags in [[0x8100; 3], [0x88a8; 3], [0x8100, 0x8100, 0x88a8], [0x88a8, 0x8100, 0x8100]] {
            let deep = tags.iter().fold(frame.clone(), |frame, tpid| tagged(&frame, *tpid, 7));
            gate.drops(&deep, Reason::Malformed);
        }
    }
}

#[test]
fn a_tag_of_any_other_kind_is_an_ethertype_that_nobody_needs() {
    let gate = TestGate::dmz();
    let query = udp((V4.ns, 40_000), (V4.peer, 53));
    for tpid in [0x9100, 0x9200, 0x88a9, 0x8101] {
        let row = gate.drops(&tagged(&query, tpid, 7), Reason::Ethertype);
        assert_eq!(row.key.port, tpid);
    }
}

#[test]
fn a_frame_that_ends_within_a_tag_is_malformed() {
    let gate = TestGate::dmz();
    let once = tagged(&udp((V4.ns, 40_000), (V4.peer, 53)), 0x8100, 7);
    for length in 14..18 {
        gate.drops(&cut(&once, length), Reason::Malformed);
    }
    let twice = tagged(&once, 0x88a8, 7);
    for length in 18..22 {
        gate.drops(&cut(&twice, length), Reason::Malformed);
    }
}
