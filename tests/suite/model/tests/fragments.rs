//! Step 8.

use std::net::IpAddr;

use portcullis::abi::Reason::{
    Fragment, LaterFragment, Malformed, Need, NewFlow, Quarantined, Reply, UnknownSource,
};

use super::TimedModel;
use crate::model::Verdict;
use crate::support::dmz::{self, Family, V4, V6, in_both_families};
use crate::support::frame::{self, ACK, Ipv6, SYN, TCP, UDP};

fn first(family: &Family, id: u16, port: u16) -> Vec<u8> {
    let datagram = frame::udp_datagram((family.ns, 5000), (family.peer, port), &[0; 16]);
    frame::fragment(family.ns, family.peer, UDP, (id, 0, true), &datagram)
}

fn later(family: &Family, id: u16) -> Vec<u8> {
    frame::fragment(family.ns, family.peer, UDP, (id, 3, false), &[0; 9])
}

#[test]
fn a_later_fragment_goes_as_its_first_one_went() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        assert_eq!(timed.why(&later(&family, 1)), Fragment);
        assert_eq!(timed.why(&first(&family, 1, 53)), Need);
        assert_eq!(timed.why(&later(&family, 1)), LaterFragment);
        assert_eq!(timed.why(&later(&family, 2)), Fragment);
        assert_eq!(timed.why(&first(&family, 2, 54)), NewFlow);
        assert_eq!(timed.why(&later(&family, 2)), NewFlow);
        assert_eq!(timed.model.ledger().len(), 2, "one row for what has no first one, one for the datagram");
        // Of another protocol it is none of its own.
        assert_eq!(timed.why(&frame::fragment(family.ns, family.peer, 47, (2, 3, false), &[0; 9])), Fragment);
    });
}

#[test]
fn a_dropped_ping_is_one_kind_of_drop_however_long_it_is() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let reply = frame::echo_reply(family.ns, family.peer, 9);
        let message = &reply[frame::l4_of(family.ns)..];
        let protocol = frame::icmp_protocol(family.ns);
        let first = [&message[..8], &[0; 16]].concat();
        timed.apply(
            &dmz::POLICY.replace("icmp/echo-request", "icmp/13").replace("icmpv6/echo-request", "icmpv6/7"),
        );
        timed.why(&frame::fragment(family.ns, family.peer, protocol, (1, 0, true), &first));
        for offset in [3, 6] {
            timed.why(&frame::fragment(family.ns, family.peer, protocol, (1, offset, true), &[0; 24]));
        }
        let ledger = timed.model.ledger();
        assert_eq!(ledger.len(), 1, "{ledger:?}");
        assert_eq!(ledger.values().map(|sum| sum.0).collect::<Vec<_>>(), [3]);
    });
}

#[test]
fn a_datagram_has_no_more_data_than_a_datagram_holds() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        assert_eq!(timed.why(&first(&family, 1, 53)), Need);
        let piece = |length| frame::fragment(family.ns, family.peer, UDP, (1, 3, false), &vec![0; length]);
        for _ in 0..8 {
            assert_eq!(timed.why(&piece(8000)), LaterFragment);
        }
        assert_eq!(timed.why(&piece(1536)), Fragment);
        assert_eq!(timed.why(&piece(1535)), LaterFragment);
        assert_eq!(timed.why(&piece(1)), Fragment);
        // The first one again is another datagram, within the `limit` of its need.
        assert_eq!(timed.why(&first(&family, 1, 53)), Need);
        assert_eq!(timed.why(&piece(1)), LaterFragment);
    });
}

#[test]
fn headers_stay_protected_as_long_as_a_receiver_may_keep_them() {
    for (family, seconds) in [(V4, 30), (V6, 60)] {
        for (wait, protected) in [(seconds, true), (seconds + 1, false)] {
            let mut timed = TimedModel::new();
            let mut segment = frame::tcp_header((family.ns, 5000), (family.peer, 53), SYN, (1, 0));
            segment.extend_from_slice(&[0; 4]);
            assert_eq!(
                timed.why(&frame::fragment(family.ns, family.peer, TCP, (1, 0, true), &segment)),
                Need
            );
            timed.wait(wait);
            let udp = frame::udp_datagram((family.ns, 5000), (family.peer, 53), &[0; 16]);
            // IPv6 puts it together with what came before, whatever its protocol
            let protocol = if family.ns.is_ipv4() { TCP } else { UDP };
            let again = if family.ns.is_ipv4() { &segment } else { &udp };
            timed.why(&frame::fragment(family.ns, family.peer, protocol, (1, 0, true), again));
            let piece = frame::fragment(family.ns, family.peer, protocol, (1, 1, false), &[0; 8]);
            let expected = if protected || protocol == TCP { Fragment } else { LaterFragment };
            assert_eq!(timed.why(&piece), expected, "after {wait} s");
        }
    }
}

#[test]
fn addresses_and_protocol_belong_to_the_fragments_name() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        assert_eq!(timed.why(&first(&family, 1, 53)), Need);
        let piece = |to: IpAddr, protocol| frame::fragment(family.ns, to, protocol, (1, 3, false), &[0; 9]);
        assert_eq!(timed.why(&piece(family.other, UDP)), Fragment);
        assert_eq!(timed.why(&piece(family.peer, 47)), Fragment);
        let stranger = frame::fragment(family.unknown, family.peer, UDP, (1, 3, false), &[0; 9]);
        assert_eq!(timed.why(&stranger), UnknownSource);
        assert_eq!(timed.why(&piece(family.peer, UDP)), LaterFragment);
    });
}

#[test]
fn a_first_fragment_counts_for_thirty_seconds_and_one_policy() {
    let mut timed = TimedModel::new();
    timed.why(&first(&V4, 1, 53));
    timed.wait(30);
    assert_eq!(timed.why(&later(&V4, 1)), LaterFragment);
    timed.wait(1);
    assert_eq!(timed.why(&later(&V4, 1)), Fragment);
    timed.why(&first(&V4, 1, 53));
    timed.apply(dmz::POLICY);
    assert_eq!(timed.why(&later(&V4, 1)), Fragment);
}

#[test]
fn a_first_fragment_without_its_whole_header_is_dropped() {
    let mut timed = TimedModel::new();
    in_both_families(|family| {
        let (from, to) = (family.ns, family.peer);
        let mut segment = frame::tcp_header((from, 5000), (to, 53), SYN, (1, 0));
        segment.extend_from_slice(&[0; 4]);
        for (protocol, length) in [(TCP, 8), (TCP, 16), (132, 8)] {
            let short = frame::fragment(from, to, protocol, (1, 0, true), &segment[..length]);
            assert_eq!(timed.why(&short), Fragment, "{protocol} {length}");
        }
        assert_eq!(timed.why(&frame::fragment(from, to, TCP, (1, 0, true), &segment)), Need);
        // Its options are part of the header.
        segment[12] = 8 << 4;
        assert_eq!(timed.why(&frame::fragment(from, to, TCP, (2, 0, true), &segment)), Fragment);
    });
}

#[test]
fn a_tcp_fragment_that_would_rewrite_the_flags_is_dropped() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let (from, to) = (family.ns, family.peer);
        let mut segment = frame::tcp_header((from, 5000), (to, 53), SYN, (1, 0));
        segment.extend_from_slice(&[0; 4]);
        assert_eq!(timed.why(&frame::fragment(from, to, TCP, (1, 0, true), &segment)), Need);
        assert_eq!(timed.why(&frame::fragment(from, to, TCP, (1, 1, false), &[0; 8])), Fragment);
        assert_eq!(timed.why(&frame::fragment(from, to, TCP, (1, 3, false), &[0; 8])), LaterFragment);
        // Of UDP, the header ends there.
        assert_eq!(timed.why(&first(&family, 2, 53)), Need);
        assert_eq!(timed.why(&frame::fragment(from, to, UDP, (2, 1, false), &[0; 8])), LaterFragment);
    });
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let mut timed = TimedModel::new();
    let datagram = frame::udp_datagram((V6.ns, 5000), (V6.peer, 53), b"");
    let atomic = Ipv6::new(V6.ns, V6.peer, UDP, &datagram).fragment(1, 0, false);
    assert_eq!(timed.why(&atomic.frame()), Need);
    assert_eq!(timed.why(&later(&V6, 1)), Fragment);
    // Whole means that its header can't be short.
    let short = Ipv6::new(V6.ns, V6.peer, UDP, &datagram[..7]).fragment(1, 0, false);
    assert_eq!(timed.why(&short.frame()), Malformed);
    assert_eq!(timed.why(&atomic.fragment(1, 0, false).frame()), Malformed);
}

#[test]
fn fragments_that_contradict_themselves_are_malformed() {
    let mut timed = TimedModel::new();
    in_both_families(|family| {
        let piece =
            |place, length: usize| frame::fragment(family.ns, family.peer, UDP, place, &vec![0; length]);
        assert_eq!(timed.why(&piece((1, 8191, false), 7)), Fragment);
        assert_eq!(timed.why(&piece((1, 8191, false), 8)), Malformed);
        assert_eq!(timed.why(&piece((1, 4, true), 9)), Malformed);
    });
}

#[test]
fn what_would_be_dropped_in_observe_lets_no_later_fragment_pass() {
    let mut timed = TimedModel::setting("mode = \"observe\"");
    assert_eq!(timed.sends(&first(&V4, 1, 54)).verdict, Verdict::WouldDrop);
    let outcome = timed.sends(&later(&V4, 1));
    assert_eq!((outcome.reason, outcome.verdict), (NewFlow, Verdict::WouldDrop));
    assert!(timed.model.fragments().is_empty());
}

#[test]
fn in_quarantine_the_fragments_of_management_answers_stay() {
    in_both_families(|family| {
        let mut timed = TimedModel::new();
        let (web, bastion, peer) = (family.web, family.bastion, family.peer);
        timed.establish((web, 22), (bastion, 4000));
        timed.establish((web, 80), (peer, 4000));
        let open = |timed: &mut TimedModel, from, to| {
            let mut segment = frame::tcp_header(from, to, ACK, (1, 1));
            segment.extend_from_slice(&[0; 4]);
            timed.why(&frame::fragment(from.0, to.0, TCP, (1, 0, true), &segment))
        };
        assert_eq!(open(&mut timed, (web, 80), (peer, 4000)), Reply);
        timed.model.quarantine("web1", None);
        assert_eq!(open(&mut timed, (web, 22), (bastion, 4000)), Reply);
        let piece = |to, offset| frame::fragment(web, to, TCP, (1, offset, false), &[0; 9]);
        assert_eq!(timed.why(&piece(bastion, 3)), LaterFragment);
        assert_eq!(timed.why(&piece(bastion, 1)), Quarantined);
        assert_eq!(timed.why(&piece(peer, 3)), Quarantined);
    });
}
