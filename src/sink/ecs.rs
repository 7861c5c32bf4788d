//! JSON lines in the Elastic Common Schema. Fields that it does not have stand in one object of our own,
//! `portcullis`, as in EVE.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::{describe, signature};
use super::lines::Lines;
use super::{Event, Matter, Sink, Site};
use crate::alarm::{Change, Severity};
use crate::audit::{Action, Event as AuditEvent, Outcome};
use crate::drops::{DropEvent, DropVerdict};
use crate::escape::escape;
use crate::host::host_name;
use crate::net::{ICMP, ICMPV6, SCTP, TCP, UDP, show_mac_ieee};
use crate::policy::Alarms;

/// Version of the schema.
const VERSION: &str = "8.17.0";

/// The file of the policy's key `ecs`.
pub(super) fn from_policy(alarms: &Alarms, _: Site<'_>) -> Option<Box<dyn Sink>> {
    let path = alarms.ecs.as_deref()?;
    Some(Box::new(Lines::new("ecs", path, alarms, render)))
}

/// The line of an event, without its end: a drop or a change of an alarm.
fn render(event: &Event) -> anyhow::Result<String> {
    let mut line = match &event.matter {
        Matter::Drop(drop) => line_of_drop(drop),
        Matter::Alarm(change) => line_of_alarm(change),
        Matter::Audit(audit) => line_of_audit(audit),
        Matter::OpenAlarms(_) => return Ok(String::new()),
    };
    prune(&mut line);
    event.with_record(serde_json::to_string(&line)?)
}

/// The line of a drop, without the object `portcullis`.
fn line_of_drop(drop: &DropEvent) -> Value {
    let mut line = line_of(drop.time, &drop.interface, Some(drop));
    let server = escape(drop.server_name().unwrap_or("an unknown host")).into_owned();
    line["message"] = format!("{server}: {} {}, {}", drop.service(), drop.verdict.name(), drop.reason).into();
    line["event"] = json!({
        "kind": "event",
        "category": ["network"],
        "type": ["connection", of_verdict(drop.verdict)],
        "action": drop.verdict,
        "module": "portcullis",
        "dataset": "portcullis.drop",
        "provider": "portcullis",
        "reason": drop.reason,
        "start": drop.since.to_string(),
        "end": drop.time.to_string(),
    });
    line["network"]["packets"] = drop.drops.into();
    line
}

/// The line of a change of an alarm, without the object `portcullis`. Its packet is the alarm's sample.
fn line_of_alarm(change: &Change) -> Value {
    let alarm = &change.alarm;
    let (kind, technique) = (alarm.kind(), alarm.technique());
    let mut line = line_of(change.time, &alarm.interface, alarm.sample().map(|sample| &**sample));
    line["message"] = describe(change).into();
    line["event"] = json!({
        "kind": "alert",
        "category": ["network", "intrusion_detection"],
        "type": [alarm.verdict().map_or("change", of_verdict)],
        "action": change.step.name(),
        "module": "portcullis",
        "dataset": "portcullis.alarm",
        "provider": "portcullis",
        "code": kind.signature_id().to_string(),
        "severity": severity(alarm.severity()),
        "reason": alarm.reason(),
        "start": alarm.first.to_string(),
        "end": alarm.last.to_string(),
    });
    line["rule"] = json!({
        "id": kind.signature_id().to_string(),
        "name": signature(kind),
        "category": kind.category(),
        "ruleset": "portcullis",
    });
    line["threat"] = json!({
        "framework": "MITRE ATT&CK",
        "technique": {"id": [technique.id], "name": [technique.name]},
    });
    if alarm.reason().is_some() {
        line["network"]["packets"] = alarm.packets.into();
    }
    line
}

/// The line of an audit event, without the object `portcullis`, which has all of it.
fn line_of_audit(event: &AuditEvent) -> Value {
    let who = &event.who;
    let text = |text: &Option<String>| text.as_deref().map(|text| escape(text).into_owned());
    let mut line = line_of(event.time, &event.interface, None);
    line["message"] = event.describe().into();
    let (category, kind) = classify_audit(event.action);
    line["event"] = json!({
        "kind": "event",
        "category": [category],
        "type": [kind],
        "action": event.action.name(),
        "outcome": match event.result { Outcome::Done => "success", Outcome::Refused => "failure" },
        "module": "portcullis",
        "dataset": "portcullis.audit",
        "provider": "portcullis",
        "sequence": event.seq,
        "reason": text(&event.why),
    });
    let name = who.sudo_user.as_ref().or(who.login.as_ref()).cloned();
    line["user"] = json!({
        "id": who.login_uid.unwrap_or(who.uid).to_string(),
        "name": text(&name),
        "effective": { "id": who.uid.to_string() },
    });
    line["process"] = json!({
        "pid": who.pid,
        "command_line": escape(&who.command),
        "parent": {
            "pid": who.parent.as_ref().map(|parent| parent.pid),
            "name": who.parent.as_ref().map(|parent| escape(&parent.name).into_owned()),
        },
    });
    line["source"] = json!({ "ip": who.ssh_client });
    line["related"] = json!({ "ip": who.ssh_client.into_iter().collect::<Vec<_>>(), "user": text(&name).into_iter().collect::<Vec<_>>() });
    line
}

/// Category and type, which the schema allows together.
fn classify_audit(action: Action) -> (&'static str, &'static str) {
    match action {
        Action::Attach => ("configuration", "creation"),
        Action::Detach => ("configuration", "deletion"),
        Action::DaemonStart => ("process", "start"),
        Action::DaemonStop => ("process", "end"),
        Action::SinkFailed | Action::SinkBack | Action::ModeChange | Action::Other => {
            ("configuration", "info")
        }
        Action::FallBack
        | Action::Apply
        | Action::Confirm
        | Action::Rollback
        | Action::WayBack
        | Action::Pickup
        | Action::Takeover
        | Action::Quarantine
        | Action::Release
        | Action::Allow
        | Action::Deny
        | Action::Ack
        | Action::Unack
        | Action::Silence
        | Action::Unsilence
        | Action::Reload => ("configuration", "change"),
    }
}

/// A line about a packet; `None`: about the gate.
fn line_of(time: Timestamp, interface: &str, drop: Option<&DropEvent>) -> Value {
    let mut line = json!({
        "@timestamp": time.to_string(),
        "ecs": {"version": VERSION},
        "observer": {
            "vendor": "portcullis",
            "product": "portcullis",
            "type": "firewall",
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": host_name(),
            "ingress": {"interface": {"name": interface}},
        },
    });
    let Some(drop) = drop else {
        return line;
    };
    let related: Vec<IpAddr> = drop.source.into_iter().chain(drop.destination).collect();
    let is_ip = !drop.any_protocol && !drop.is_frame();
    line["source"] = end_of(drop.source, drop.source_port, drop.source_mac);
    line["destination"] = end_of(drop.destination, drop.destination_port, drop.destination_mac);
    if let Some(looked_up) = &drop.looked_up {
        line["destination"]["domain"] = escape(&looked_up.name).into();
    }
    line["network"] = json!({
        "type": drop.source.map(|ip| if ip.is_ipv4() { "ipv4" } else { "ipv6" }),
        "transport": is_ip.then(|| transport(drop.protocol)).flatten(),
        "iana_number": is_ip.then(|| drop.protocol.to_string()),
        "vlan": {"id": drop.vlan.map(|id| id.to_string())},
    });
    line["related"] = json!({"ip": related});
    line
}

/// The schema's words. It has ICMPv6 by its IANA name. Of other protocols there is only the number.
fn transport(protocol: u8) -> Option<&'static str> {
    match protocol {
        ICMP => Some("icmp"),
        TCP => Some("tcp"),
        UDP => Some("udp"),
        SCTP => Some("sctp"),
        ICMPV6 => Some("ipv6-icmp"),
        _ => None,
    }
}

fn end_of(ip: Option<IpAddr>, port: Option<u16>, mac: Option<[u8; 6]>) -> Value {
    json!({
        "address": ip,
        "ip": ip,
        "port": port,
        "mac": mac.map(|mac| show_mac_ieee(&mac)),
    })
}

fn of_verdict(verdict: DropVerdict) -> &'static str {
    match verdict {
        DropVerdict::Drop => "denied",
        DropVerdict::WouldDrop => "allowed",
    }
}

/// The numbers that Elastic's own rules use for these severities.
fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 21,
        Severity::Medium => 47,
        Severity::High => 73,
        Severity::Critical => 99,
    }
}

/// Leaves out unknown fields: a field in the line has a value.
fn prune(value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    object.values_mut().for_each(prune);
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        Value::Array(array) => array.is_empty(),
        _ => false,
    };
    object.retain(|_, value| !is_empty(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Reason;
    use crate::alarm::example::{opened_by, opened_with};
    use crate::audit::example::quarantine_by;
    use crate::drops::example::syn;
    use crate::drops::{LookedUp, ServerRef};

    fn line_of_event(drop: DropEvent) -> String {
        render(&Event::of_drop(drop)).unwrap()
    }

    fn parsed(line: &str) -> Value {
        assert!(!line.contains(char::is_control), "{line:?}");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_drop_is_a_denied_connection_in_the_words_of_the_schema() {
        let value = parsed(&line_of_event(syn()));
        assert_eq!(value["@timestamp"], "2026-11-22T15:00:00Z");
        assert_eq!(value["event"]["kind"], "event");
        assert_eq!(value["event"]["type"], json!(["connection", "denied"]));
        assert_eq!(value["event"]["reason"], "new_flow");
        assert_eq!(value["source"]["ip"], "192.0.2.10");
        assert_eq!(value["source"]["mac"], "02-00-00-00-00-10");
        assert_eq!(value["destination"]["port"], 445);
        assert_eq!(
            value["network"],
            json!({"type": "ipv4", "transport": "tcp", "iana_number": "6", "packets": 1})
        );
        assert_eq!(value["related"]["ip"], json!(["192.0.2.10", "198.51.100.7"]));
        assert_eq!(value["observer"]["ingress"]["interface"]["name"], "dmz0");
        assert_eq!(value["observer"]["hostname"], "gate.example");
        assert_eq!(value["portcullis"]["server"], "web1");
    }

    #[test]
    fn a_destination_has_the_name_that_it_was_looked_up_as() {
        let looked_up = Some(LookedUp { name: "evil.example".into(), at: syn().time });
        let value = parsed(&line_of_event(DropEvent { looked_up, ..syn() }));
        assert_eq!(value["destination"]["domain"], "evil.example");
        assert_eq!(value["portcullis"]["looked_up"]["name"], "evil.example");
        assert!(parsed(&line_of_event(syn()))["destination"]["domain"].is_null());
    }

    #[test]
    fn an_alarm_is_an_alert_with_its_rule_and_technique() {
        let change = opened_by("web1");
        let value = parsed(&render(&Event::of_alarm(change)).unwrap());
        assert_eq!(value["event"]["kind"], "alert");
        assert_eq!(value["event"]["category"], json!(["network", "intrusion_detection"]));
        assert_eq!((&value["event"]["action"], &value["event"]["code"]), (&json!("opened"), &json!("1")));
        assert_eq!(value["rule"]["category"], "Potentially Bad Traffic");
        assert_eq!(value["threat"]["technique"]["id"][0], "T1071");
        assert!(value["message"].as_str().unwrap().contains("portcullis quarantine -i dmz0 web1"));
        assert_eq!(value["portcullis"]["kind"], "attempt");
    }

    #[test]
    fn what_was_done_is_a_change_of_the_configuration_with_its_user_and_process() {
        let value = parsed(&render(&Event::of_audit(quarantine_by("x\u{1b}y"))).unwrap());
        assert_eq!(value["event"]["kind"], "event");
        assert_eq!(value["event"]["category"], json!(["configuration"]));
        assert_eq!(
            (&value["event"]["action"], &value["event"]["outcome"]),
            (&json!("quarantine"), &json!("success"))
        );
        assert_eq!(value["user"], json!({"id": "1000", "name": "x\\u{1b}y", "effective": {"id": "0"}}));
        assert_eq!(
            (&value["process"]["pid"], &value["process"]["parent"]["name"]),
            (&json!(4711), &json!("sudo"))
        );
        assert_eq!(value["source"]["ip"], "203.0.113.7");
        assert_eq!(value["portcullis"]["audit"]["seq"], 7);
    }

    #[test]
    fn a_packet_that_passed_is_not_called_denied_and_unknown_fields_are_left_out() {
        let mut drop = syn();
        drop.verdict = DropVerdict::WouldDrop;
        (drop.source, drop.destination, drop.server) = (None, None, None);
        (drop.source_port, drop.destination_port) = (None, None);
        (drop.source_mac, drop.destination_mac) = (None, None);
        drop.reason = Reason::Ethertype.into();
        let value = parsed(&line_of_event(drop));
        assert_eq!(value["event"]["type"][1], "allowed");
        for key in ["source", "destination", "related"] {
            assert!(value.get(key).is_none(), "{key}");
        }
        assert_eq!(value["network"], json!({"packets": 1}));
    }

    #[test]
    fn a_hostile_name_stays_in_its_value() {
        let mut drop = syn();
        drop.server = Some(ServerRef { id: 1, name: "w\u{1b}[2J\n\",\"a\":\"\u{9b}".into() });
        let value = parsed(&line_of_event(drop.clone()));
        assert_eq!(value["portcullis"]["server"], "w\u{1b}[2J\n\",\"a\":\"\u{9b}");
        let change = opened_with(&drop);
        parsed(&render(&Event::of_alarm(change)).unwrap());
    }
}
