//! What several renderings share: our own object, numbers and names of kinds, the fields of an
//! alarm.

use serde::Serialize;

use super::escape::escape;
use crate::alarm::{Alarm, Change, Kind, Severity, Step};

#[derive(Serialize)]
pub(super) struct OwnAlarm<'a> {
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded_into: Option<u64>,
    #[serde(flatten)]
    alarm: &'a Alarm,
}

pub(super) fn own_alarm(change: &Change) -> OwnAlarm<'_> {
    OwnAlarm {
        change: change.step.name(),
        was: match change.step {
            Step::Escalated { from } => Some(from),
            _ => None,
        },
        folded_into: match change.step {
            Step::Closed { folded_into } => folded_into,
            _ => None,
        },
        alarm: &change.alarm,
    }
}

/// What rules of a SIEM may match as text.
pub(super) fn signature(kind: Kind) -> String {
    format!("portcullis {kind}: {}", kind.describe())
}

/// Never reused: rules of a SIEM rely on them.
pub(super) fn signature_id(kind: Kind) -> u32 {
    match kind {
        Kind::Attempt => 1,
        Kind::Spread => 2,
        Kind::Scan => 3,
        Kind::Callback => 4,
        Kind::Fetch => 5,
        Kind::Backdoor => 6,
        Kind::Spoof => 7,
        Kind::Burst => 8,
        Kind::Stray => 9,
    }
}

/// Descriptions of Suricata's `classification.config`, which SIEMs group by.
pub(super) fn category(kind: Kind) -> &'static str {
    match kind {
        Kind::Attempt | Kind::Spoof => "Potentially Bad Traffic",
        Kind::Spread | Kind::Fetch | Kind::Backdoor => "A Network Trojan was detected",
        Kind::Scan => "Detection of a Network Scan",
        Kind::Callback => "Malware Command and Control Activity Detected",
        Kind::Burst => "Attempted Denial of Service",
        Kind::Stray => "Misc activity",
    }
}

/// The line for people: what happened to which alarm, severity and kind, what was seen, why it
/// matters, what to type next. Nothing in it does anything to a terminal.
pub(super) fn describe(change: &Change) -> String {
    let alarm = &change.alarm;
    let kind = match change.step {
        Step::Escalated { from } if from != alarm.kind => format!("{} (was {from})", alarm.kind),
        _ => alarm.kind.to_string(),
    };
    let head = format!("alarm #{} {}: {} {kind}:", alarm.id, change.step.name(), alarm.severity);
    format!("{head} {}", escape(&alarm.tell(change.step)))
}

/// The level that syslog and the journal sort by; 0 is the gravest.
pub(super) fn level(change: &Change) -> u8 {
    match (change.step, change.alarm.severity) {
        (Step::Closed { .. }, _) | (_, Severity::Low) => 5,
        (_, Severity::Medium) => 4,
        (_, Severity::High) => 2,
        (_, Severity::Critical) => 1,
    }
}

/// The fields of a change, for what has flat ones; values are escaped.
pub(super) fn fields(change: &Change) -> Vec<(&'static str, String)> {
    let alarm: &Alarm = &change.alarm;
    let sample = &alarm.sample;
    let mut fields = vec![
        ("alarm", alarm.id.to_string()),
        ("step", change.step.name().to_owned()),
        ("kind", alarm.kind.to_string()),
        ("severity", alarm.severity.to_string()),
        ("interface", alarm.interface.to_string()),
        ("reason", alarm.reason.to_string()),
        ("verdict", alarm.verdict.name().to_owned()),
        ("service", sample.service()),
        ("packets", alarm.packets.to_string()),
        ("since", alarm.first.to_string()),
        ("last", alarm.last.to_string()),
        ("technique", alarm.technique().id.to_owned()),
    ];
    let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    add("server", alarm.server.as_ref().map(|server| server.name.to_string()));
    add("source", sample.source.map(|address| address.to_string()));
    add("destination", sample.destination.map(|address| address.to_string()));
    add("next", alarm.next_commands().first().cloned());
    for (_, value) in &mut fields {
        *value = escape(value).into_owned();
    }
    fields
}
