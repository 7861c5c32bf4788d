//! Texts and fields of audit events that several sinks share.

use crate::audit::{Action, Event, Outcome};
use crate::escape::escape;

/// The level of syslog and the journal, from 0 (the most severe) to 7: a warning for what was refused, and for what
/// leaves the gate or the alarms weaker.
pub(super) fn level(event: &Event) -> u8 {
    if is_notable(event) { 4 } else { 5 }
}

/// Whether somebody should look at it.
pub(super) fn is_notable(event: &Event) -> bool {
    event.result == Outcome::Refused
        || match event.action {
            Action::Detach
            | Action::FallBack
            | Action::WayBack
            | Action::ModeChange
            | Action::Silence
            | Action::SinkFailed => true,
            Action::Attach
            | Action::Apply
            | Action::Confirm
            | Action::Rollback
            | Action::Pickup
            | Action::Takeover
            | Action::Quarantine
            | Action::Release
            | Action::Allow
            | Action::Deny
            | Action::Ack
            | Action::Unack
            | Action::Unsilence
            | Action::Reload
            | Action::SinkBack
            | Action::DaemonStart
            | Action::DaemonStop
            | Action::Other => false,
        }
}

/// The fields of an event, for sinks without nested fields. The values are escaped.
pub(super) fn fields(event: &Event) -> Vec<(&'static str, String)> {
    let who = &event.who;
    let mut fields = vec![
        ("audit", event.seq.to_string()),
        ("action", event.action.name().to_owned()),
        ("result", event.result.name().to_owned()),
        ("host", event.host.clone()),
        ("interface", event.interface.clone()),
        ("uid", who.uid.to_string()),
        ("pid", who.pid.to_string()),
        ("command", who.command.clone()),
    ];
    let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    add("subject", event.subject.clone());
    add("detail", event.detail.clone());
    add("why", event.why.clone());
    add("note", event.note.clone());
    add("file", event.file.clone());
    let mut add_mark = |generation, hash, mark: &Option<crate::audit::PolicyMark>| {
        add(generation, mark.as_ref().map(|mark| mark.generation.to_string()));
        add(hash, mark.as_ref().map(|mark| mark.hash.clone()));
    };
    add_mark("generation_before", "hash_before", &event.before);
    add_mark("generation", "hash", &event.after);
    add("login_uid", who.login_uid.map(|uid| uid.to_string()));
    add("login", who.login.clone());
    add("sudo_user", who.sudo_user.clone());
    add("parent", who.parent.as_ref().map(|parent| format!("{} ({})", parent.name, parent.pid)));
    add("ssh_client", who.ssh_client.map(|client| client.to_string()));
    for (_, value) in &mut fields {
        *value = escape(value).into_owned();
    }
    fields
}
