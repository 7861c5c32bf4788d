//! `show needs` and `check --unused`, on real traffic.

use std::net::SocketAddr;

use serde_json::Value;

use super::policies::{dmz, dmz_with_web};
use super::socket::{ARRIVES, TcpServer, UdpServer, tcp_talks, udp_talks};
use super::testbed::{FAMILIES, Testbed, in_both_families, ip, share_machine};
use crate::support::patience::eventually;

/// The row of a need of the live policy.
fn find(testbed: &Testbed, role: &str, need: &str) -> Value {
    let rows = testbed.show("needs");
    let rows = rows.as_array().expect("a list");
    let is_it = |row: &&Value| row["role"] == role && row["need"] == need;
    rows.iter().find(is_it).unwrap_or_else(|| panic!("no {need} of {role} in {rows:#?}")).clone()
}

#[test]
fn each_connection_and_each_datagram_counts_for_its_need_and_survives_apply() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let _web = TcpServer::start(&testbed.dmz, 80);
    let _exchanger = TcpServer::start(&testbed.internet, 25);
    for row in testbed.show("needs").as_array().expect("a list") {
        assert_eq!((&row["uses"], &row["last_used"]), (&0.into(), &Value::Null), "{row:#}");
    }
    let mut expected = 0;
    in_both_families(|family| {
        let _log = UdpServer::start(&testbed.internet, family.loghost, 514);
        for _ in 0..3 {
            let web = SocketAddr::new(ip(family.web), 80);
            assert!(tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES));
            let exchanger = SocketAddr::new(ip(family.exchanger), 25);
            assert!(tcp_talks(&testbed.dmz, ip(family.mail), exchanger, ARRIVES));
        }
        let loghost = SocketAddr::new(ip(family.loghost), 514);
        assert!(udp_talks(&testbed.dmz, family.web, loghost, ARRIVES));
        expected += 3;
    });
    // a SYN may be sent twice on a busy machine, and a handshake ends once
    eventually("the handshakes are counted", || find(&testbed, "web", "tcp/80")["uses"] == expected);
    let mail = find(&testbed, "mail", "tcp/25");
    let row = testbed.show("needs");
    let out = row
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["role"] == "mail" && row["need"] == "tcp/25" && row["direction"] == "out");
    let out = out.expect("a need").clone();
    assert!(out["uses"].as_u64() >= Some(expected), "{out:#}");
    assert_eq!(mail["direction"], "in");
    assert_eq!(mail["uses"], 0);
    assert_eq!(mail["servers"], serde_json::json!(["mx1"]));
    assert!(out["last_used"].is_string() && out["counted_since"].is_string(), "{out:#}");
    let logs = find(&testbed, "managed", "udp/514 to @loghosts");
    assert!(logs["uses"].as_u64() >= Some(FAMILIES.len() as u64), "{logs:#}");
    let source = logs["source"].as_str().expect("a place");
    let (_, line) = source.rsplit_once(':').expect("a line");
    let line: usize = line.parse().expect("a number");
    assert!(dmz().lines().nth(line - 1).is_some_and(|line| line.contains("udp/514")), "{source}");

    // another policy: what stays keeps its count, and what is new has none
    testbed.apply(&dmz_with_web("\"tcp/8080\", \"tcp/80\""));
    assert_eq!(find(&testbed, "web", "tcp/80")["uses"], expected);
    assert_eq!(find(&testbed, "web", "tcp/8080")["uses"], 0);
    let text = testbed.run("show", &["needs"]).done().out;
    assert!(text.lines().any(|line| line.contains("in tcp/8080") && line.contains("never")), "{text}");
}

#[test]
fn check_names_unused_needs_and_claims_no_more_than_it_knows() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let _web = TcpServer::start(&testbed.dmz, 80);
    let path = testbed.write("unused.toml", &dmz().replacen("\"tcp/443\"", "\"tcp/444\"", 1));
    let unused = |time: &str, more: &[&str]| {
        let args = [&["--unused", time, path.as_str()], more].concat();
        testbed.run("check", &args).done()
    };
    // the gate is younger than that
    let text = unused("30d", &[]).out;
    assert!(text.contains("`tcp/53` (in of dns), but it is counted only since"), "{text}");
    assert!(text.contains("`tcp/444` (in of web) is not counted"), "{text}");
    assert!(!text.contains("nothing has used `tcp/80` (in of web) for"), "{text}");

    in_both_families(|family| {
        let web = SocketAddr::new(ip(family.web), 80);
        assert!(tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES));
    });
    eventually("a second has passed", || {
        let findings = unused("1s", &["-j"]).json();
        let findings = findings.as_array().expect("a list").clone();
        let judgement = |role: &str, need: &str| {
            findings
                .iter()
                .find(|row| row["role"] == role && row["need"] == need)
                .map(|row| row["judgement"].as_str().expect("a word").to_owned())
        };
        assert_eq!(judgement("web", "tcp/444").as_deref(), Some("not_counted"));
        judgement("dns", "udp/53").as_deref() == Some("unused")
    });
    assert!(!unused("1h", &["-j"]).out.contains("\"tcp/80\""), "it was used within the hour");
    let refused = testbed.router.portcullis(&["check", "--unused", "1h", &path]);
    refused.failed(2, &["--interface <IF>"]);
}
