//! Row 8: the fragments of one datagram share its reason and its row, and no datagram is endless.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, in_both_families};
use crate::support::frame::{TCP, UDP, fragment, icmp_message, icmp_protocol, udp_datagram};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

const QUIET: u8 = 1;
const OWN_PORT: u8 = 4;
const PRESUMED: u8 = 8;
/// Bytes of a fragment, as Ethernet carries them.
const PIECE: usize = 1480;

/// The reply to `ping -s 3000`, in fragments.
fn large_reply(family: Family, id: u16) -> Vec<Vec<u8>> {
    let kind = (if family.ns.is_ipv4() { 0 } else { 129 }, 0);
    let message = icmp_message(family.ns, family.peer, kind, [0, 9, 0, 1], &[0x5a; 3000]);
    let last = message.len().div_ceil(PIECE) - 1;
    let pieces = message.chunks(PIECE).enumerate();
    let place = |at: usize| (id, (at * PIECE / 8) as u16, at < last);
    let protocol = icmp_protocol(family.ns);
    pieces.map(|(at, piece)| fragment(family.ns, family.peer, protocol, place(at), piece)).collect()
}

#[test]
fn a_large_ping_that_must_not_be_answered_is_one_row() {
    with_dmz_in_both_families(|gate, family| {
        let reply = large_reply(family, 7);
        let rows: Vec<_> = reply.iter().map(|piece| gate.drops(piece, Reason::Backscatter)).collect();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.row.number == rows[0].row.number));
        let kind = if family.ns.is_ipv4() { 0 } else { 129 };
        assert_eq!((rows[2].key.port, rows[2].key.flags, rows[2].row.packets), (kind, OWN_PORT, 3));
        assert_eq!(rows[2].key.protocol, icmp_protocol(family.ns));
        assert_eq!(gate.ledger_rows(false).len(), 1);
        // later fragments of another datagram, whose first one was never seen
        let row = gate.drops(&large_reply(family, 8)[1], Reason::Fragment);
        assert_eq!((row.key.port, row.key.flags), (0, PRESUMED));
    });
}

#[test]
fn a_reason_is_shared_as_long_as_a_host_waits_for_the_rest() {
    with_dmz_in_both_families(|gate, family| {
        let reply = large_reply(family, 7);
        let waits = if family.ns.is_ipv4() { 30 } else { 60 };
        for (age, shared) in [(waits - 2, true), (waits + 1, false)] {
            gate.forget_flows();
            gate.drops(&reply[0], Reason::Backscatter);
            gate.age("refused_fragments", age);
            gate.drops(&reply[1], if shared { Reason::Backscatter } else { Reason::Fragment });
        }
    });
}

#[test]
fn a_quiet_datagram_is_quiet_in_all_its_fragments() {
    with_dmz_in_both_families(|gate, family| {
        for (port, flags) in [(5353, QUIET), (5354, 0)] {
            let datagram = udp_datagram((family.web, 5353), (family.peer, port), &[0; 64]);
            let piece = |offset: u16, more| {
                let content = &datagram[usize::from(offset) * 8..][..24];
                fragment(family.web, family.peer, UDP, (port, offset, more), content)
            };
            let first = gate.drops(&piece(0, true), Reason::NewFlow);
            let later = gate.drops(&piece(3, false), Reason::NewFlow);
            assert_eq!((first.key.flags, first.key.port), (flags, port));
            assert_eq!((later.row.number, later.row.packets), (first.row.number, 2));
        }
    });
}

#[test]
fn a_fragment_of_another_protocol_or_to_another_peer_shares_nothing() {
    with_dmz_in_both_families(|gate, family| {
        let datagram = udp_datagram((family.ns, 40_000), (family.peer, 80), &[0; 16]);
        gate.drops(&fragment(family.ns, family.peer, UDP, (7, 0, true), &datagram), Reason::NewFlow);
        let later = |from, to, protocol, id| fragment(from, to, protocol, (id, 3, false), &[0; 16]);
        for frame in [
            later(family.ns, family.peer, UDP, 8),
            later(family.ns, family.peer, 47, 7),
            later(family.ns, family.other, UDP, 7),
            later(family.web, family.peer, UDP, 7),
        ] {
            gate.drops(&frame, Reason::Fragment);
        }
        gate.drops(&later(family.ns, family.peer, UDP, 7), Reason::NewFlow);
    });
}

#[test]
fn a_policy_that_observes_lets_all_fragments_pass_and_one_that_enforces_drops_the_rest() {
    let observe = POLICY.replace("[policy]", "[policy]\nmode = \"observe\"");
    let gate = TestGate::new(&observe);
    in_both_families(|family| {
        let reply = large_reply(family, 7);
        gate.swap(&observe);
        gate.would_drop(&reply[0], Reason::Backscatter);
        gate.would_drop(&reply[1], Reason::Backscatter);
        gate.swap(POLICY);
        gate.drops(&reply[2], Reason::Backscatter);
    });
}

#[test]
fn a_datagram_ends_after_the_bytes_that_one_can_hold() {
    with_dmz_in_both_families(|gate, family| {
        let datagram = udp_datagram((family.ns, 40_000), (family.peer, 53), &[0; 16]);
        let first = fragment(family.ns, family.peer, UDP, (7, 0, true), &datagram);
        let later = |bytes: usize| {
            fragment(family.ns, family.peer, UDP, (7, 3, bytes.is_multiple_of(8)), &vec![0x5a; bytes])
        };
        gate.passes(&first, Reason::Need);
        for _ in 0..65_535 / PIECE {
            gate.passes(&later(PIECE), Reason::LaterFragment);
        }
        let left = 65_535 % PIECE;
        gate.drops(&later(left + 1), Reason::Fragment);
        gate.passes(&later(left), Reason::LaterFragment);
        for bytes in [1, 8, PIECE] {
            let row = gate.drops(&later(bytes), Reason::Fragment);
            assert_eq!((row.key.port, row.key.flags), (0, 0));
        }
        // another datagram has bytes of its own, and so has the next one of this number
        let other =
            |id, offset, content: &[u8]| fragment(family.ns, family.peer, UDP, (id, offset, true), content);
        gate.passes(&other(8, 0, &datagram), Reason::Need);
        gate.passes(&other(8, 3, &[0; PIECE]), Reason::LaterFragment);
        gate.passes(&first, Reason::Need);
        gate.passes(&later(PIECE), Reason::LaterFragment);
    });
}

#[test]
fn a_fragment_that_overtakes_its_first_one_is_presumed_harmless_and_others_are_not() {
    with_dmz_in_both_families(|gate, family| {
        let to = (family.peer, 53);
        let datagram = udp_datagram((family.ns, 40_000), to, &[5; 56]);
        let piece = |id, at, more, bytes: &[u8]| fragment(family.ns, to.0, UDP, (id, at, more), bytes);
        // before the first one, and after it
        let row = gate.drops(&piece(7, 2, false, &datagram[16..]), Reason::Fragment);
        assert_eq!((row.key.port, row.key.flags), (0, PRESUMED));
        gate.passes(&piece(7, 0, true, &datagram[..16]), Reason::Need);
        gate.passes(&piece(7, 2, false, &datagram[16..]), Reason::LaterFragment);
        // over the header of the first one, and more than a datagram holds
        let row = gate.drops(&fragment(family.ns, to.0, TCP, (8, 1, false), &[0; 16]), Reason::Fragment);
        assert_eq!(row.key.flags, 0, "a fragment with TCP's flags");
        for _ in 0..7 {
            gate.passes(&piece(7, 2, true, &[3; 8736]), Reason::LaterFragment);
        }
        let row = gate.drops(&piece(7, 2, true, &[3; 8736]), Reason::Fragment);
        assert_eq!(row.key.flags, 0, "too many bytes");
        // in quarantine it is as loud as anything else
        gate.quarantine("ns1", None).unwrap();
        assert_eq!(gate.drops(&piece(9, 2, false, &[3; 16]), Reason::Quarantined).key.flags, 0);
    });
}
