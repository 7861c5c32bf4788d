//! Suricata's schema of the two event types, reproduced: it is closed, so every
//! key is either listed here or ours.

use serde_json::Value;

use super::*;
use crate::abi::Reason;
use crate::alarm::{About, AnswerReport, Engine, GateTrouble};
use crate::drops::example::{after_ms, syn};
use crate::drops::{Origin, ServerRef};

/// A key, and what its value has to be.
type Allowed = (&'static str, fn(&Value) -> bool);

const TOP: &[Allowed] = &[
    ("timestamp", Value::is_string),
    ("event_type", Value::is_string),
    ("host", Value::is_string),
    ("in_iface", Value::is_string),
    ("vlan", Value::is_array),
    ("src_ip", Value::is_string),
    ("src_port", Value::is_u64),
    ("dest_ip", Value::is_string),
    ("dest_port", Value::is_u64),
    ("proto", Value::is_string),
    ("ip_v", Value::is_u64),
    ("icmp_type", Value::is_u64),
    ("icmp_code", Value::is_u64),
    ("ether", Value::is_object),
    ("drop", Value::is_object),
    ("alert", Value::is_object),
    ("log_level", Value::is_string),
    ("portcullis", Value::is_object),
];
const ETHER: &[Allowed] =
    &[("ether_type", Value::is_u64), ("src_mac", Value::is_string), ("dest_mac", Value::is_string)];
const DROP: &[Allowed] = &[
    ("len", Value::is_u64),
    ("tos", Value::is_u64),
    ("ttl", Value::is_u64),
    ("ipid", Value::is_u64),
    ("tc", Value::is_u64),
    ("hoplimit", Value::is_u64),
    ("flowlbl", Value::is_u64),
    ("tcpseq", Value::is_u64),
    ("tcpack", Value::is_u64),
    ("tcpwin", Value::is_u64),
    ("tcpres", Value::is_u64),
    ("tcpurgp", Value::is_u64),
    ("udplen", Value::is_u64),
    ("icmp_id", Value::is_u64),
    ("icmp_seq", Value::is_u64),
    ("syn", Value::is_boolean),
    ("ack", Value::is_boolean),
    ("psh", Value::is_boolean),
    ("rst", Value::is_boolean),
    ("urg", Value::is_boolean),
    ("fin", Value::is_boolean),
    ("reason", Value::is_string),
    ("verdict", Value::is_object),
];
const VERDICT: &[Allowed] = &[("action", Value::is_string)];
const ALERT: &[Allowed] = &[
    ("action", Value::is_string),
    ("gid", Value::is_u64),
    ("signature_id", Value::is_u64),
    ("rev", Value::is_u64),
    ("signature", Value::is_string),
    ("category", Value::is_string),
    ("severity", Value::is_u64),
    ("metadata", Value::is_object),
];

fn check(value: &Value, allowed: &[Allowed]) {
    for (key, value) in value.as_object().unwrap() {
        let Some((_, is_right)) = allowed.iter().find(|(name, _)| name == key) else {
            panic!("the closed schema has no `{key}` here");
        };
        assert!(is_right(value), "{key}: {value}");
    }
}

/// `^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d+[+\-]\d+$`
fn is_eve_time(text: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddddd+dddd";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, wanted)| match wanted {
            'd' => c.is_ascii_digit(),
            other => c == other,
        })
}

/// Parses a line and holds it against the constraints.
fn checked(line: &str) -> Value {
    assert!(!line.contains('\n'));
    let value: Value = serde_json::from_str(line).unwrap();
    check(&value, TOP);
    assert!(is_eve_time(value["timestamp"].as_str().unwrap()), "{value}");
    assert!(value["in_iface"].is_string());
    if let Some(ether) = value.get("ether") {
        check(ether, ETHER);
    }
    if let Some(vlan) = value.get("vlan") {
        assert!(vlan.as_array().unwrap().iter().all(Value::is_number));
        assert!(!vlan.as_array().unwrap().is_empty());
    }
    match value["event_type"].as_str().unwrap() {
        "drop" => {
            check(&value["drop"], DROP);
            check(&value["drop"]["verdict"], VERDICT);
            assert!(value.get("alert").is_none());
        }
        "alert" => {
            check(&value["alert"], ALERT);
            for list in value["alert"]["metadata"].as_object().unwrap().values() {
                let list = list.as_array().unwrap();
                assert!(!list.is_empty() && list.iter().all(Value::is_string));
            }
            assert!(value.get("drop").is_none());
        }
        "engine" => {
            for absent in ["alert", "drop", "src_ip", "proto"] {
                assert!(value.get(absent).is_none(), "{absent}");
            }
        }
        other => panic!("{other} is no event type of ours"),
    }
    value
}

fn drop_line(drop: DropEvent) -> String {
    render(&Event::of_drop(drop)).unwrap()
}

fn alarm_line(change: Change) -> String {
    render(&Event::of_alarm(change)).unwrap()
}

#[test]
fn what_was_done_to_the_gate_is_no_alert_and_stands_in_our_object() {
    let line = |name| render(&Event::of_audit(crate::audit::example::quarantine_by(name))).unwrap();
    let value = checked(&line("web1"));
    assert_eq!((&value["event_type"], &value["log_level"]), (&"engine".into(), &"Notice".into()));
    let audit = &value["portcullis"]["audit"];
    assert_eq!((&audit["action"], &audit["subject"]), (&"quarantine".into(), &"web1".into()));
    assert_eq!((&audit["seq"], &audit["who"]["login"]), (&7.into(), &"alice".into()));
    let hostile = line("w\u{1b}[2J\n\u{9b}1");
    assert!(!hostile.contains(char::is_control), "{hostile:?}");
    assert_eq!(checked(&hostile)["portcullis"]["audit"]["note"], "w\u{1b}[2J\n\u{9b}1");
}

/// A SYN with its frame, behind a VLAN tag.
fn framed_syn() -> DropEvent {
    let mut drop = syn();
    drop.vlan = Some(7);
    drop.frame = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x10, 0x81, 0, 0, 7, 8, 0][..],
        &[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 10, 198, 51, 100, 7][..],
        &[0x9c, 0x40, 1, 0xbd, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0][..],
    ]
    .concat();
    drop
}

/// Drops of every sort that a line may have to be made of.
fn every_sort() -> Vec<DropEvent> {
    let mut icmp = syn();
    (icmp.protocol, icmp.port) = (58, 128);
    (icmp.icmp_type, icmp.icmp_code, icmp.tcp_flags) = (Some(128), Some(0), None);
    (icmp.source_port, icmp.destination_port) = (None, None);
    icmp.source = Some("2001:db8:1::10".parse().unwrap());
    icmp.destination = Some("2001:db8::7".parse().unwrap());

    let mut ethertype = syn();
    ethertype.reason = Reason::Ethertype.into();
    (ethertype.protocol, ethertype.port) = (0, 0x88b5);
    (ethertype.source, ethertype.destination, ethertype.server) = (None, None, None);
    (ethertype.source_port, ethertype.destination_port) = (None, None);
    ethertype.ethertype = Some(0x88b5);

    let mut row = syn();
    row.from = Origin::Ledger;
    row.while_away = true;
    row.any_protocol = true;
    (row.source_mac, row.destination_mac, row.length, row.ethertype) = (None, None, None, None);
    (row.source_port, row.destination_port, row.tcp_flags) = (None, None, None);
    (row.protocol, row.port) = (0, 0);

    let mut other = syn();
    (other.protocol, other.port) = (89, 0);
    other.reason = Reason::Protocol.into();
    (other.source_port, other.destination_port) = (None, None);

    let mut newer = syn();
    newer.reason = ReasonCode::Unknown(63);
    newer.verdict = DropVerdict::WouldDrop;

    let mut backdoor = syn();
    backdoor.reason = Reason::UnlistedService.into();
    backdoor.own_port = true;
    (backdoor.source_port, backdoor.destination_port) = (Some(4444), Some(51000));
    (backdoor.port, backdoor.tcp_flags) = (4444, Some(0x12));

    let mut hostile = syn();
    hostile.server = Some(ServerRef { id: 9, name: "w\u{1b}[0m\n\u{9b}\"1".into() });
    vec![syn(), framed_syn(), icmp, ethertype, row, other, newer, backdoor, hostile]
}

#[test]
fn the_line_of_every_sort_of_drop_is_valid() {
    for drop in every_sort() {
        let line = drop_line(drop.clone());
        checked(&line);
        show(&line);
    }
}

#[test]
fn the_line_of_every_change_of_an_alarm_is_valid() {
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for drop in every_sort() {
        changes.extend(engine.observe(&drop, after_ms(0)));
    }
    for host in 0..20_u8 {
        let mut drop = syn();
        drop.destination = Some(std::net::Ipv4Addr::new(203, 0, 113, host).into());
        changes.extend(engine.observe(&drop, after_ms(u64::from(host) * 1000)));
    }
    for port in 1000..1030 {
        let mut drop = syn();
        drop.port = port;
        changes.extend(engine.observe(&drop, after_ms(20_000)));
    }
    changes.extend(engine.report_trouble(
        GateTrouble::Detached,
        "it is off",
        &"dmz0".into(),
        after_ms(30_000),
    ));
    for about in [About::Name(1), About::Resolver([198, 51, 100, 53].into())] {
        let report = AnswerReport {
            about,
            subject: "a.b.example".into(),
            answers: 3,
            resolvers: vec![[198, 51, 100, 53].into()],
            addresses: vec![[10, 0, 0, 1].into()],
            servers: vec!["web1".into()],
            interface: "eth2".into(),
            first: after_ms(0).wall,
            last: after_ms(0).wall,
            while_away: true,
        };
        changes.extend(engine.report_answers(&report, &"dmz0".into(), after_ms(30_000)));
    }
    changes.extend(engine.tick(after_ms(1_000_000)));
    let mut steps: Vec<&str> = changes.iter().map(|change| change.step.name()).collect();
    for change in &changes {
        let line = alarm_line(change.clone());
        checked(&line);
        show(&line);
    }
    steps.sort_unstable();
    steps.dedup();
    assert_eq!(steps, ["closed", "escalated", "opened", "updated"]);
}

/// For a validation by other means: `--nocapture`.
fn show(line: &str) {
    println!("EVE {line}");
}

#[test]
fn a_drop_has_suricatas_words_and_ours() {
    let value = checked(&drop_line(framed_syn()));
    assert_eq!(value["timestamp"], "2026-11-22T15:00:00.000000+0000");
    assert_eq!(value["event_type"], "drop");
    assert_eq!((&value["src_ip"], &value["src_port"]), (&"192.0.2.10".into(), &40000.into()));
    assert_eq!((&value["dest_ip"], &value["dest_port"]), (&"198.51.100.7".into(), &445.into()));
    assert_eq!((&value["proto"], &value["in_iface"]), (&"TCP".into(), &"dmz0".into()));
    assert_eq!(value["vlan"], serde_json::json!([7]));
    assert_eq!(value["drop"]["reason"], "new_flow");
    assert_eq!((&value["drop"]["syn"], &value["drop"]["ttl"]), (&true.into(), &64.into()));
    assert_eq!(value["drop"]["verdict"]["action"], "drop");
    let own = &value["portcullis"];
    assert_eq!((&own["server"], &own["verdict"]), (&"web1".into(), &"drop".into()));
    assert!(own["frame"].as_str().unwrap().starts_with("020000000001"));
}

#[test]
fn a_packet_that_passed_in_observe_is_not_called_dropped() {
    let mut drop = syn();
    drop.verdict = DropVerdict::WouldDrop;
    let value = checked(&drop_line(drop.clone()));
    assert_eq!(value["drop"]["verdict"]["action"], "pass");
    assert_eq!(value["portcullis"]["verdict"], "would_drop");
    let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
    let value = checked(&alarm_line(change));
    assert_eq!(value["alert"]["action"], "allowed");
}

#[test]
fn a_frame_without_addresses_has_no_address_fields() {
    let value = checked(&drop_line(every_sort().remove(3)));
    for key in ["src_ip", "dest_ip", "src_port", "dest_port", "proto", "ip_v"] {
        assert!(value.get(key).is_none(), "{key}");
    }
    assert_eq!(value["ether"]["src_mac"], "02:00:00:00:00:10");
    assert_eq!(value["portcullis"]["server"], Value::Null);
}

#[test]
fn an_alert_says_what_to_do() {
    let change = Engine::default().observe(&framed_syn(), after_ms(0)).remove(0);
    let value = checked(&alarm_line(change));
    assert_eq!(value["alert"]["action"], "blocked");
    assert_eq!(value["alert"]["severity"], 1);
    assert_eq!(value["alert"]["metadata"]["mitre_technique_id"][0], "T1071");
    let own = &value["portcullis"];
    assert_eq!((&own["kind"], &own["change"]), (&"attempt".into(), &"opened".into()));
    assert_eq!(own["next"][0], "portcullis quarantine -i dmz0 web1");
    assert_eq!(own["destinations"]["count"], 1);
}

#[test]
fn no_line_has_a_character_that_a_terminal_obeys() {
    for drop in every_sort() {
        let line = drop_line(drop.clone());
        assert!(!line.chars().any(char::is_control), "{line:?}");
        for change in Engine::default().observe(&drop, after_ms(0)) {
            let line = alarm_line(change);
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}
