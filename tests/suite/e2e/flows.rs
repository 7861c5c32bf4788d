//! Connections that outlive something: a policy, or the time before the gate.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::policies::{dmz, dmz_with, dmz_with_web};
use super::socket::{ARRIVES, NEVER, TcpServer, connect, echoes, tcp_talks};
use super::tap::{TCP, Tap};
use super::testbed::{Family, Testbed, V4, in_both_families, ip, share_machine, tracker_hook};
use crate::support::patience::{deadline, eventually};

/// Opens a connection to the web server.
fn open(testbed: &Testbed, family: &Family, port: u16) -> TcpStream {
    let web = SocketAddr::new(ip(family.web), port);
    connect(&testbed.internet, ip(family.peer), web, ARRIVES).expect("a connection")
}

/// Payload from this port of the web server that has left the router.
fn count_data(tap: &Tap, family: &Family, port: u16) -> u64 {
    tap.count(|one| {
        (one.source, one.protocol, one.source_port) == (ip(family.web), TCP, port) && one.payload_bytes > 0
    })
}

fn dropped(testbed: &Testbed, port: u16) -> u64 {
    testbed.dropped("web1", "tcp", port, "no_flow")
}

#[test]
fn a_revoked_service_ends_its_connections_at_once_and_a_kept_one_keeps_its_own() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (plain, secure) = (TcpServer::start(&testbed.dmz, 80), TcpServer::start(&testbed.dmz, 443));
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    in_both_families(|family| {
        testbed.apply(&dmz());
        let (mut revoked, mut kept) = (open(&testbed, &family, 80), open(&testbed, &family, 443));
        assert!(echoes(&mut revoked) && echoes(&mut kept));
        testbed.catch_up(&tap);
        let before = (count_data(&tap, &family, 80), count_data(&tap, &family, 443));

        testbed.apply(&dmz_with_web(r#""tcp/443""#));
        plain.last().write_all(b"late").expect("room in the server's buffer");
        // no service any more, so the port in the ledger is the one it was sent to
        let port = revoked.local_addr().expect("an address").port();
        eventually("the server's data is dropped", || dropped(&testbed, port) > 0);
        revoked.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
        assert!(revoked.read(&mut [0; 4]).is_err(), "data of a revoked service came through");
        testbed.catch_up(&tap);
        assert_eq!(count_data(&tap, &family, 80), before.0, "data of a revoked service got out");

        assert!(echoes(&mut kept), "the kept service");
        secure.last().write_all(b"push").expect("room");
        let mut word = [0; 4];
        kept.read_exact(&mut word).expect("data of the kept service");
        assert_eq!(&word, b"push");
        eventually("the tap has seen both", || count_data(&tap, &family, 443) >= before.1 + 2);
        assert_eq!(dropped(&testbed, 443), 0);

        // a new one does not come about, and does once the service is back
        assert!(!tcp_talks(&testbed.internet, ip(family.peer), SocketAddr::new(ip(family.web), 80), NEVER));
        testbed.apply(&dmz());
        assert!(tcp_talks(&testbed.internet, ip(family.peer), SocketAddr::new(ip(family.web), 80), ARRIVES));
    });
}

#[test]
fn connections_that_were_open_before_the_gate_are_taken_over_while_it_is_new() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let server = TcpServer::start(&testbed.dmz, 80);
    let tap = testbed.tap_internet();
    in_both_families(|family| {
        let mut early = open(&testbed, &family, 80);
        assert!(echoes(&mut early));
        let count = server.accepted();
        testbed.attach(&dmz().replacen("pickup = 0", "pickup = 60", 1));
        assert!(testbed.show("status")["pickup_s"].as_u64().is_some_and(|left| (50..=60).contains(&left)));
        assert!(echoes(&mut early), "the connection survives");
        server.last().write_all(b"push").expect("room");
        early.read_exact(&mut [0; 4]).expect("what the server sends by itself");
        assert_eq!(server.accepted(), count, "it is the same connection");
        let flows = testbed.show("flows");
        let ours = early.local_addr().expect("an address").port();
        assert!(
            flows.as_array().expect("a list").iter().any(|flow| flow["peer_port"] == ours
                && flow["server_port"] == 80
                && flow["table"] == "established"),
            "{flows:#}"
        );
        // once it is taken over, it stays when the time is over
        testbed.apply(&dmz());
        assert!(echoes(&mut early));
        testbed.detach();
        testbed.wait_for_detach();

        // without the time, it is cut
        testbed.attach(&dmz());
        testbed.catch_up(&tap);
        let before = count_data(&tap, &family, 80);
        server.last().write_all(b"late").expect("room");
        eventually("its data is dropped", || dropped(&testbed, 80) > 0);
        early.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
        assert!(early.read(&mut [0; 4]).is_err());
        testbed.catch_up(&tap);
        assert_eq!(count_data(&tap, &family, 80), before, "it got out");
        testbed.detach();
        testbed.wait_for_detach();
        early.set_read_timeout(Some(ARRIVES.duration())).expect("a timeout");
        early.read_exact(&mut [0; 4]).expect("the data, sent again now that the gate is detached");
    });
}

#[test]
fn taking_over_ends_with_its_time_and_is_for_services_only() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (_web, _other) = (TcpServer::start(&testbed.dmz, 80), TcpServer::start(&testbed.dmz, 4444));
    let (mut late, mut backdoor) = (open(&testbed, &V4, 80), open(&testbed, &V4, 4444));
    assert!(echoes(&mut late) && echoes(&mut backdoor));
    testbed.attach(&dmz().replacen("pickup = 0", "pickup = 2", 1));
    let ask = || {
        let args = ["--from", V4.web, "--to", V4.peer, "tcp/50000", "--sport", "80", "--flags", "A", "-j"];
        testbed.run("explain", &args).done().json()["reason"].clone()
    };
    assert_eq!(ask(), "pickup");
    for stream in [&backdoor, &late] {
        stream.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
    }
    assert!(!echoes(&mut backdoor), "what is no service is not taken over");
    eventually("the time is over", || ask() == "no_flow");
    assert!(!echoes(&mut late), "it is too late");
    eventually("its segments are counted", || dropped(&testbed, 80) > 0);
}

#[test]
fn a_peer_that_opens_in_service_tracking_is_answered_without_a_tracker() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _server = TcpServer::start(&testbed.dmz, 80);
    let mut early = open(&testbed, &V4, 80);
    assert!(echoes(&mut early));
    testbed.attach(&dmz_with("tracking = \"service\""));
    assert_eq!(testbed.show("status")["tracker"], "no");
    assert!(echoes(&mut early), "no flow needs to be known");
    in_both_families(|family| {
        let web = SocketAddr::new(ip(family.web), 80);
        assert!(tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES));
        let outside = SocketAddr::new(ip(family.peer), 80);
        assert!(!tcp_talks(&testbed.dmz, ip(family.web), outside, NEVER));
    });
    eventually("both tries are counted", || testbed.dropped("web1", "tcp", 80, "new_flow") == 2);

    // a connection of now lives on when the tracking becomes strict, for it is taken over
    let strict = dmz().replacen("pickup = 0", "pickup = 60", 1);
    testbed.apply(&strict);
    assert_eq!(testbed.show("status")["tracker"], tracker_hook());
    assert!(echoes(&mut early));
    early.set_read_timeout(Some(deadline(Duration::from_secs(1)))).expect("a timeout");
    testbed.apply(&dmz_with("tracking = \"service\""));
    assert_eq!(testbed.show("status")["tracker"], "no");
    assert!(echoes(&mut early));
}
