//! What strangers send to healthy servers: resets in a peer's name, and openings in shapes that a host
//! accepts and the filter would not.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use super::calm::CalmCheck;
use super::policies::dmz;
use super::socket::{ARRIVES, TcpServer, UdpServer, connect, echoes};
use super::tap::{TCP, UDP};
use super::testbed::{Testbed, V4, V6, in_both_families, ip, share_machine};
use crate::support::frame::{
    self, ACK, DESTINATION_OPTIONS, FIN, Ipv4, Ipv6, RST, SYN, patched, tcp_header, udp_datagram,
};
use crate::support::patience::eventually;

/// The router's MAC towards the internet.
const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// An attempt at this port of many hosts is a worm.
const ASKED_FROM: u16 = 1434;
const PEERS: u16 = 20;

/// Sends frames of the internet to the router.
fn send<F: AsRef<[u8]>>(testbed: &Testbed, frames: impl IntoIterator<Item = F>) {
    testbed.internet.inject_all("eth0", frames.into_iter().map(|frame| patched(frame.as_ref(), 0, &WAN_MAC)));
}

#[test]
fn an_idle_connection_outlives_what_strangers_send_in_its_peers_name() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let check = CalmCheck::start(&testbed, &dmz());
    let web = TcpServer::start(&testbed.dmz, 80);
    let arrived = testbed.tap_dmz();
    in_both_families(|family| {
        let server = SocketAddr::new(ip(family.web), 80);
        let accepted = web.accepted();
        let mut client = connect(&testbed.internet, ip(family.peer), server, ARRIVES).expect("a connection");
        assert!(echoes(&mut client));
        eventually("the server has its end", || web.accepted() == accepted + 1);
        let mut inside = web.last();

        let port = client.local_addr().expect("an address").port();
        let (from, to) = ((ip(family.peer), port), (server.ip(), 80));
        let segments = [RST, RST | ACK, FIN | ACK, SYN, ACK];
        let count = || arrived.count(|one| (one.source, one.source_port) == from);
        let before = count();
        send(&testbed, segments.map(|flags| frame::tcp(from, to, flags)));
        eventually("the forged segments have arrived", || count() >= before + 5);

        let mut word = [0; 5];
        inside.write_all(b"later").expect("a server that writes");
        client.read_exact(&mut word).expect("what the server has said later");
        assert_eq!(&word, b"later");
        assert!(echoes(&mut client));
    });
    assert!(testbed.drops().is_empty(), "{:#?}", testbed.drops());
    check.assert_calm();
}

#[test]
fn questions_behind_nine_extension_headers_and_in_odd_fragments_are_answered_without_an_alarm() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let check = CalmCheck::start(&testbed, &dmz());
    let tap = testbed.tap_internet();
    let _name_servers = [V4, V6].map(|family| UdpServer::start(&testbed.dmz, family.dns, 53));

    let (server, peers) = (ip(V6.dns), (1..=PEERS).map(|number| ip(&format!("2001:db8:2::b:{number:x}"))));
    send(
        &testbed,
        peers.map(|peer| {
            let datagram = udp_datagram((peer, ASKED_FROM), (server, 53), b"question");
            let packet = Ipv6::new(peer, server, frame::UDP, &datagram);
            (0..9).fold(packet, |packet, _| packet.options(DESTINATION_OPTIONS, 0)).frame()
        }),
    );
    eventually("answers to questions behind many headers", || {
        tap.count_to(server, UDP, ASKED_FROM) == u64::from(PEERS)
    });

    // Linux cuts the first fragment to 40 bytes, where the second one begins
    let server = ip(V4.dns);
    let peers = (1..=PEERS).map(|number| ip(&format!("198.51.100.{number}")));
    send(
        &testbed,
        peers.flat_map(|peer| {
            let datagram = udp_datagram((peer, ASKED_FROM), (server, 53), &[b'?'; 64]);
            let piece = |bytes: &[u8], offset, more| {
                Ipv4::new(peer, server, frame::UDP, bytes).fragment(7, offset, more).frame()
            };
            [piece(&datagram[..45], 0, true), piece(&datagram[40..], 5, false)]
        }),
    );
    eventually("answers to questions in odd fragments", || {
        tap.count_to(server, UDP, ASKED_FROM) == u64::from(PEERS)
    });
    assert!(testbed.drops().is_empty(), "{:#?}", testbed.drops());
    check.assert_calm();
}

#[test]
fn a_back_door_that_is_asked_in_tiny_fragments_is_found() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let check = CalmCheck::start(&testbed, &dmz());
    let tap = testbed.tap_internet();
    let _listening = [80, 4444].map(|port| TcpServer::start(&testbed.dmz, port));
    // a peer of no machine, which so sends no resets
    let (peer, web) = (ip("198.51.100.200"), ip(V4.web));
    for (id, port) in [(7, 80), (8, 4444)] {
        let syn = tcp_header((peer, 40_000), (web, port), SYN, (1, 0));
        let piece = |from: usize, to: usize, more| {
            Ipv4::new(peer, web, frame::TCP, &syn[from..to]).fragment(id, (from / 8) as u16, more).frame()
        };
        send(&testbed, [piece(0, 8, true), piece(8, 16, true), piece(16, 20, false)]);
    }
    check.wait_for_alarm("critical", "backdoor", "web1", "tcp/4444");
    eventually("the web server has answered", || tap.count_to(web, TCP, 40_000) > 0);
    testbed.catch_up(&tap);
    let ports = |port| tap.count(|one| one.source == web && one.source_port == port);
    assert!(ports(80) > 0 && ports(4444) == 0, "{} of tcp/80, {} of tcp/4444", ports(80), ports(4444));
    eventually("it is cut off", || testbed.show("status")["quarantined"] == serde_json::json!(["web1"]));
}
