//! EVE JSON lines, as Suricata writes them: `drop` and `alert` events, and `engine` for what was done to the gate.
//! They are valid under its closed
//! schema once our one object, `portcullis`, is taken away. Fields that Suricata does not have stand in that
//! object.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::audit::is_notable;
use super::fields::signature;
use super::headers::Headers;
use super::lines::Lines;
use super::{Event, Matter, Sink, Site};
use crate::alarm::{Alarm, Change, Severity};
use crate::audit::Event as AuditEvent;
use crate::drops::{DropEvent, DropVerdict, ReasonCode};
use crate::host::host_name;
use crate::net::{self, show_mac};
use crate::policy::Alarms;

/// `gid` of our alerts. It is not 1, the one of Suricata's rules, so no rule has our numbers.
const GENERATOR_ID: u32 = 9200;
/// `rev` of our alerts. Raise it when a kind changes its meaning.
const REVISION: u32 = 2;

/// The file of the policy's key `eve`.
pub(super) fn from_policy(alarms: &Alarms, _: Site<'_>) -> Option<Box<dyn Sink>> {
    let path = alarms.eve.as_deref()?;
    Some(Box::new(Lines::new("eve", path, alarms, render)))
}

/// The line of an event, without its end: a drop or a change of an alarm.
fn render(event: &Event) -> anyhow::Result<String> {
    let line = match &event.matter {
        Matter::Drop(drop) => line_of_drop(drop),
        Matter::Alarm(change) => line_of_alarm(change),
        Matter::Audit(audit) => line_of_audit(audit),
        Matter::OpenAlarms(_) => return Ok(String::new()),
    };
    event.with_record(serde_json::to_string(&line)?)
}

/// One line. Field names and types are those of Suricata's schema.
#[derive(Serialize)]
struct EveLine<'a> {
    timestamp: String,
    event_type: &'static str,
    host: &'a str,
    in_iface: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<[u16; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_v: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ether: Option<Ether>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop: Option<DropPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<AlertPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_level: Option<&'static str>,
}

#[derive(Serialize)]
struct Ether {
    #[serde(skip_serializing_if = "Option::is_none")]
    ether_type: Option<u16>,
    src_mac: String,
    dest_mac: String,
}

#[derive(Serialize)]
struct DropPart {
    #[serde(flatten)]
    headers: Headers,
    reason: ReasonCode,
    verdict: VerdictPart,
}

#[derive(Serialize)]
struct VerdictPart {
    action: &'static str,
}

#[derive(Serialize)]
struct AlertPart {
    action: &'static str,
    gid: u32,
    signature_id: u32,
    rev: u32,
    signature: String,
    category: &'static str,
    severity: u8,
    metadata: Metadata,
}

/// Lists of strings, by the names that rule writers use.
#[derive(Serialize)]
struct Metadata {
    mitre_technique_id: [&'static str; 1],
    mitre_technique_name: [&'static str; 1],
    signature_severity: [&'static str; 1],
}

/// The line of a drop, without the object `portcullis`.
fn line_of_drop(drop: &DropEvent) -> EveLine<'_> {
    let mut line = line_of("drop", drop.time, &drop.interface, Some(drop));
    line.drop = Some(DropPart {
        headers: Headers::read(&drop.frame),
        reason: drop.reason,
        verdict: VerdictPart {
            action: match drop.verdict {
                DropVerdict::Drop => "drop",
                DropVerdict::WouldDrop => "pass",
            },
        },
    });
    line
}

/// The line of a change of an alarm, without the object `portcullis`. Its packet is the alarm's sample.
fn line_of_alarm(change: &Change) -> EveLine<'_> {
    let alarm = &change.alarm;
    let sample = alarm.sample().map(|sample| &**sample);
    let mut line = line_of("alert", change.time, &alarm.interface, sample);
    line.alert = Some(alert(alarm));
    line
}

/// The line of an audit event, without the object `portcullis`, which has all of it. `engine` is Suricata's word for
/// events of the sensor itself, so no rule or dashboard about traffic takes them for an alert. The schema's type of
/// the key is any string, and it has `log_level`.
fn line_of_audit(event: &AuditEvent) -> EveLine<'_> {
    let mut line = line_of("engine", event.time, &event.interface, None);
    line.log_level = Some(if is_notable(event) { "Warning" } else { "Notice" });
    line
}

/// A line about a packet; `None`: about the gate.
fn line_of<'a>(
    event_type: &'static str,
    time: Timestamp,
    interface: &'a str,
    drop: Option<&DropEvent>,
) -> EveLine<'a> {
    EveLine {
        timestamp: show_time(time),
        event_type,
        host: host_name(),
        in_iface: interface,
        vlan: drop.and_then(|drop| drop.vlan).map(|id| [id]),
        src_ip: drop.and_then(|drop| drop.source),
        src_port: drop.and_then(|drop| drop.source_port),
        dest_ip: drop.and_then(|drop| drop.destination),
        dest_port: drop.and_then(|drop| drop.destination_port),
        proto: drop.and_then(name_protocol),
        ip_v: drop.and_then(|drop| drop.source).map(|ip| if ip.is_ipv4() { 4 } else { 6 }),
        icmp_type: drop.and_then(|drop| drop.icmp_type),
        icmp_code: drop.and_then(|drop| drop.icmp_code),
        ether: drop.and_then(ether),
        drop: None,
        alert: None,
        log_level: None,
    }
}

fn ether(drop: &DropEvent) -> Option<Ether> {
    Some(Ether {
        ether_type: drop.ethertype,
        src_mac: show_mac(&drop.source_mac?),
        dest_mac: show_mac(&drop.destination_mac?),
    })
}

fn alert(alarm: &Alarm) -> AlertPart {
    let technique = alarm.technique();
    AlertPart {
        action: match alarm.verdict() {
            Some(DropVerdict::Drop) => "blocked",
            Some(DropVerdict::WouldDrop) | None => "allowed",
        },
        gid: GENERATOR_ID,
        signature_id: alarm.kind().signature_id(),
        rev: REVISION,
        signature: signature(alarm.kind()),
        category: alarm.kind().category(),
        severity: priority(alarm.severity()),
        metadata: Metadata {
            mitre_technique_id: [technique.id],
            mitre_technique_name: [technique.name],
            signature_severity: [match alarm.severity() {
                Severity::Low => "Informational",
                Severity::Medium => "Minor",
                Severity::High => "Major",
                Severity::Critical => "Critical",
            }],
        },
    }
}

/// Suricata counts from 1, the most severe.
fn priority(severity: Severity) -> u8 {
    match severity {
        Severity::Critical | Severity::High => 1,
        Severity::Medium => 2,
        Severity::Low => 3,
    }
}

/// Suricata's name of the protocol; `None` for a frame that is not IP, and for the ledger's overflow.
fn name_protocol(drop: &DropEvent) -> Option<Cow<'static, str>> {
    if drop.any_protocol || !drop.reason.is_about_ip() {
        return None;
    }
    let name = match drop.protocol {
        net::ICMP => "ICMP",
        net::IGMP => "IGMP",
        net::TCP => "TCP",
        net::UDP => "UDP",
        net::GRE => "GRE",
        net::ESP => "ESP",
        net::AH => "AH",
        net::ICMPV6 => "IPv6-ICMP",
        net::SCTP => "SCTP",
        other => return Some(Cow::Owned(format!("{other:03}"))),
    };
    Some(Cow::Borrowed(name))
}

/// Microseconds, and the offset without a colon.
fn show_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6f+0000").to_string()
}
