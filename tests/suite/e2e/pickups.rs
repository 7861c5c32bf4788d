//! `portcullis pickup`: connections that a failover or an accident has cut live again, and nothing new passes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::policies::{dmz, dmz_with};
use super::socket::{ARRIVES, NEVER, TcpServer, connect, echoes, tcp_talks};
use super::testbed::{FAMILIES, NIC, Testbed, V4, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::patience::eventually;

/// A port of the web server that is no service.
const BACKDOOR: u16 = 4444;

fn open(testbed: &Testbed, server: &str, peer: &str, port: u16) -> TcpStream {
    let mut stream = connect(&testbed.internet, ip(peer), SocketAddr::new(ip(server), port), ARRIVES)
        .expect("a connection");
    assert!(echoes(&mut stream), "before");
    stream
}

/// Sends a word. What comes back comes when it may.
fn ask(stream: &mut TcpStream) {
    stream.write_all(b"ping").expect("a segment");
}

/// The answer to [`ask`], which TCP has sent again and again.
fn is_answered(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).is_ok() && &answer == b"ping"
}

/// A gate that knows no flow, as after a failover or when the tables were emptied.
fn forget_flows(testbed: &Testbed) {
    testbed.detach();
    testbed.attach(&dmz());
    assert_eq!(testbed.show("status")["pickup_s"], 0);
}

#[test]
fn connections_that_were_cut_live_again_within_a_pickup_and_nothing_else_does() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (_web, _mail) = (TcpServer::start(&testbed.dmz, 80), TcpServer::start(&testbed.dmz, 25));
    let _backdoor = TcpServer::start(&testbed.dmz, BACKDOOR);
    let mut visits = FAMILIES.map(|family| open(&testbed, family.web, family.peer, 80));
    let mut unlisted = open(&testbed, V4.web, V4.peer, BACKDOOR);
    let mut cut_off = open(&testbed, V4.mail, V4.peer, 25);
    forget_flows(&testbed);
    testbed.run("quarantine", &["mx1"]).done();
    let tap = testbed.tap_internet();

    for stream in visits.iter_mut().chain([&mut unlisted, &mut cut_off]) {
        ask(stream);
    }
    eventually("the answers are dropped", || {
        testbed.dropped("web1", "tcp", 80, "no_flow") >= 2
            && testbed.dropped("mx1", "tcp", 25, "quarantined") >= 1
            && testbed.drops().iter().any(|row| row.0["reason"] == "no_flow" && row.0["port"] != 80)
    });

    let picked = testbed.run("pickup", &["--for", "60s", "-j"]).done().json();
    assert_eq!((&picked["interface"], picked["until"].is_string()), (&NIC.into(), true), "{picked}");
    let left = |value: &serde_json::Value| value.as_u64().is_some_and(|seconds| (1..=60).contains(&seconds));
    assert!(left(&picked["seconds"]) && left(&testbed.show("status")["pickup_s"]), "{picked}");
    assert!(visits.iter_mut().all(is_answered), "{:#?}", testbed.drops());
    // the flow is one of ours from now on
    assert!(visits.iter_mut().all(echoes));
    assert_eq!(testbed.show("flows").as_array().expect("a list").len(), 2, "{:#}", testbed.show("flows"));

    // what a pickup does not take over: what the policy does not list, and what is cut off
    for stream in [&mut unlisted, &mut cut_off] {
        stream.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
        assert!(!is_answered(stream));
    }
    // and no opening is of a new kind
    testbed.prove_drops(&tap, 2);
    let backdoor = SocketAddr::new(ip(V4.web), BACKDOOR);
    assert!(!tcp_talks(&testbed.internet, ip(V4.peer), backdoor, NEVER));
    assert!(testbed.dropped("web1", "tcp", BACKDOOR, "unlisted_service") >= 1);
    assert_eq!(
        testbed.verdict(V4.web, V4.peer, &format!("tcp/{FORBIDDEN}")),
        ("drop".into(), "new_flow".into())
    );
}

#[test]
fn a_pickup_says_until_when_and_is_never_cut_short_by_another() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz_with("").replacen("pickup = 0", "pickup = 300", 1));
    let said = testbed.run("pickup", &["--for", "1s"]).done().out;
    assert!(said.starts_with("connections that are open already are taken over on dmz0 until "), "{said}");
    let left = || testbed.show("status")["pickup_s"].as_u64().expect("seconds");
    assert!(left() > 200, "{}", left());
    testbed.run("pickup", &["--for", "10m"]).done();
    assert!((500..=600).contains(&left()), "{}", left());
    let status = testbed.run("show", &["status"]).done().out;
    assert!(status.lines().any(|line| line.starts_with("pickup ") && line.ends_with(" s more")), "{status}");
}

#[test]
fn a_pickup_without_a_gate_or_without_strict_tracking_is_refused() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed
        .run("pickup", &["--for", "60s"])
        .refused(&["there is no gate on dmz0", "help: portcullis attach"]);
    for (time, words) in [("11m", "10m at most"), ("0s", "from 1s"), ("soon", "no length of time")] {
        testbed.run("pickup", &["--for", time]).failed(2, &[words]);
    }
    testbed.run("pickup", &[]).failed(2, &["--for"]);
    testbed.attach(&dmz_with("tracking = \"service\""));
    testbed.run("pickup", &["--for", "60s"]).refused(&["tracking = \"service\"", "go on without a pickup"]);
    assert_eq!(testbed.show("status")["pickup_s"], 0);

    testbed.apply(&dmz());
    testbed.run("pickup", &["--for", "1s"]).done();
    // the pins outlive the NIC
    testbed.replace_cable();
    testbed.run("pickup", &["--for", "60s"]).refused(&["NOT ATTACHED", "help: portcullis attach"]);
}
