//! A name server whose answers come when their flows are gone, and one that was taken over and sends from
//! the same port to hosts that never asked.

use std::net::SocketAddr;

use super::calm::CalmCheck;
use super::command::Row;
use super::policies::dmz;
use super::socket::udp;
use super::testbed::{FAMILIES, Family, Testbed, V4, in_both_families, ip, share_machine};
use crate::support::frame::{self, patched, udp_datagram};
use crate::support::patience::eventually;

/// The router's MAC towards the internet.
const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// An attempt at this port of many hosts is a worm.
const ASKED_FROM: u16 = 1434;
/// Many enough for a worm.
const PEERS: u8 = 20;
/// More than the table of datagrams of these tests holds.
const FLOOD: u16 = 5000;

/// Peers by their number, from 100 on.
fn peer_of(family: &Family, number: u8) -> String {
    if family.web == V4.web { format!("198.51.100.{number}") } else { format!("2001:db8:2::{number:x}") }
}

fn add_peers(testbed: &Testbed) {
    let lines = FAMILIES.iter().flat_map(|family| {
        let flag = if family.web == V4.web { "" } else { "nodad" };
        (100..100 + PEERS)
            .map(move |number| format!("address add {} dev lo {flag}\n", peer_of(family, number)))
    });
    testbed.internet.ip(&lines.collect::<String>());
}

/// A datagram from a peer to the name server, as long as a name server takes no notice of it.
fn forged(family: &Family, peer: &str, port: u16) -> Vec<u8> {
    let (from, to) = ((ip(peer), port), (ip(family.dns), 53));
    let datagram = udp_datagram(from, to, &[]);
    patched(&frame::ethernet(&frame::packet(from.0, to.0, frame::UDP, &datagram)), 0, &WAN_MAC)
}

/// Whether a flow of the peers that wait for their answers is still there.
fn has_flow(testbed: &Testbed) -> bool {
    let flows = testbed.show("flows");
    flows.as_array().expect("a list").iter().any(|flow| flow["peer_port"] == ASKED_FROM)
}

/// Questions of peers that are answered after their flows were pushed out by `flood`.
#[track_caller]
fn answer_late(testbed: &Testbed, family: &Family, flood: impl Fn()) {
    let name_server = udp(&testbed.dmz, family.dns, 53);
    let peers: Vec<_> = (100..100 + PEERS)
        .map(|number| udp(&testbed.internet, &peer_of(family, number), ASKED_FROM))
        .collect();
    let server = SocketAddr::new(ip(family.dns), 53);
    let mut asked = Vec::new();
    for peer in &peers {
        peer.send_to(b"question", server).expect("a datagram");
        asked.push(name_server.recv_from(&mut [0; 64]).expect("a question").1);
    }
    assert!(has_flow(testbed), "the questions made no flows");
    eventually("the flood has pushed the flows out", || {
        flood();
        !has_flow(testbed)
    });
    for peer in &asked {
        name_server.send_to(b"answer", peer).expect("a datagram");
    }
}

/// Late answers of the name server in the ledger, and whether they are marked `presumed`.
fn late_answers(testbed: &Testbed) -> Vec<Row> {
    let mut rows = testbed.drops();
    rows.retain(|row| row.0["server"] == "ns1" && row.0["reason"] == "no_flow" && row.0["port"] == 53);
    rows
}

#[test]
fn answers_that_outlive_their_flows_are_stray_and_those_that_nobody_asked_for_are_a_worm() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    add_peers(&testbed);
    let check = CalmCheck::start(&testbed, &dmz());
    let counted = || late_answers(&testbed).iter().map(Row::packets).sum::<u64>();
    in_both_families(|family| {
        let before = counted();
        let few = ["198.51.100.99", "2001:db8:2::99"][usize::from(family.web != V4.web)];
        answer_late(&testbed, &family, || {
            let frames = (0..FLOOD).map(|number| forged(&family, few, 20_000 + number));
            testbed.internet.inject_all("eth0", frames);
        });
        eventually("late answers are counted", || counted() == before + u64::from(PEERS));
    });
    assert!(late_answers(&testbed).iter().all(|row| row.0["presumed"] != true), "{:#?}", testbed.drops());
    check.assert_calm();
    let odd: Vec<_> = testbed
        .drops()
        .into_iter()
        .filter(|row| row.0["server"] == "ns1" && row.0["reason"] != "no_flow")
        .collect();
    assert!(odd.is_empty(), "{odd:#?}");

    // the same from the same port, to others
    let name_server = udp(&testbed.dmz, V4.dns, 53);
    for number in 150..150 + PEERS {
        name_server.send_to(b"worm", (ip(&peer_of(&V4, number)), ASKED_FROM)).expect("a datagram");
    }
    check.wait_for_alarm("high", "attempt", "ns1", "udp/1434");
    eventually("it is cut off", || testbed.show("status")["quarantined"] == serde_json::json!(["ns1"]));
}

#[test]
fn late_answers_in_a_flood_of_peers_are_presumed() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    add_peers(&testbed);
    // room for some hundred peers of one server
    let check = CalmCheck::start(&testbed, &dmz().replace("[tables]\n", "[tables]\nheard = 16384\n"));
    let family = FAMILIES[1];
    answer_late(&testbed, &family, || {
        let frames =
            (0..FLOOD).map(|number| forged(&family, &format!("2001:db8:2:1::{number:x}"), 20_000 + number));
        testbed.internet.inject_all("eth0", frames);
    });
    eventually("late answers are counted", || {
        late_answers(&testbed).iter().map(Row::packets).sum::<u64>() == u64::from(PEERS)
    });
    let rows = late_answers(&testbed);
    assert!(rows.iter().all(|row| row.0["presumed"] == true), "{rows:#?}");
    check.assert_calm();
    check.daemon.wait_for_line(&["low stray: ns1", "presumed"]);
}
