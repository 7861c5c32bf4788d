//! A `limit` counts whole datagrams, in however many fragments they leave.

use std::net::SocketAddr;

use super::command::Row;
use super::policies::dmz;
use super::socket::udp;
use super::tap::UDP;
use super::testbed::{FAMILIES, Testbed, V4, V6, ip, share_machine};
use crate::support::frame::{self, udp_datagram};
use crate::support::patience::eventually;

/// Bytes of a datagram that takes three fragments.
const BYTES: usize = 3000;
const FRAGMENTS: u64 = 3;
/// Datagrams that the policy permits.
const PERMITTED: u64 = 4;

#[test]
fn a_limit_counts_datagrams_and_not_fragments() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let limit = format!("udp/514 to @loghosts limit {PERMITTED}/m");
    testbed.attach(&dmz().replace("udp/514 to @loghosts", &limit));
    let tap = testbed.tap_internet();
    for (family, name, server) in [(V4, "web1", V4.web), (V6, "mx1", V6.mail)] {
        let (log, own) = (udp(&testbed.internet, family.loghost, 514), udp(&testbed.dmz, server, 0));
        let to = SocketAddr::new(ip(family.loghost), 514);
        for _ in 0..PERMITTED + 3 {
            own.send_to(&[b'x'; BYTES], to).expect("a datagram");
        }
        let mut bytes = [0; 2 * BYTES];
        for _ in 0..PERMITTED {
            assert_eq!(log.recv_from(&mut bytes).expect("a whole datagram").0, BYTES);
        }
        // the later fragments of a dropped one are in its row
        eventually("each fragment beyond the limit is counted", || {
            testbed.dropped(name, "udp", 514, "rate") == 3 * FRAGMENTS
        });
        testbed.catch_up(&tap);
        let left = tap.count(|one| one.source == ip(server) && one.protocol == UDP);
        assert_eq!(left, PERMITTED * FRAGMENTS, "fragments of {name} that left");
    }
    let rows = testbed.drops();
    assert!(rows.iter().all(|row| row.0["reason"] == "rate"), "{rows:#?}");
}

#[test]
fn a_datagram_is_never_more_than_one_can_be_however_often_its_fragments_are_sent() {
    const COPIES: u64 = 2000;
    const PIECE: usize = 1000;
    /// Less than a NIC's queue holds.
    const BURST: usize = 100;
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    for family in FAMILIES {
        let (web, clock) = (ip(family.web), ip(family.clock));
        let datagram = udp_datagram((web, 40_000), (clock, 123), &[0; PIECE - 8]);
        let first = frame::fragment(web, clock, frame::UDP, (7, 0, true), &datagram);
        let later = frame::fragment(web, clock, frame::UDP, (7, 125, true), &[0; PIECE]);
        let most = (65_535 / PIECE) as u64;
        let refused = || testbed.drops().iter().map(Row::packets).sum::<u64>();
        let before = refused();
        testbed.dmz.inject("eth0", &first);
        eventually("all that a datagram cannot hold is counted", || {
            testbed.dmz.inject_all("eth0", std::iter::repeat_n(&later, BURST));
            refused() - before >= COPIES
        });
        testbed.catch_up(&tap);
        let left = tap.count(|one| one.source == web && one.protocol == UDP);
        assert_eq!(left, 1 + most, "fragments that left in the name of {web}");
    }
    let rows = testbed.drops();
    assert!(rows.iter().all(|row| row.0["reason"] == "fragment"), "{rows:#?}");
}
