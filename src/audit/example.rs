//! Events for the tests of every room that tells them.

use super::{Action, Event, Outcome, PolicyMark, Process, Who};

/// A quarantine by a person, with this text wherever one may come from outside.
pub(crate) fn quarantine_by(name: &str) -> Event {
    let text = || Some(name.to_owned());
    let mark = |generation| Some(PolicyMark { generation, hash: "ab".repeat(32) });
    Event {
        seq: 7,
        time: "2026-11-22T15:00:00Z".parse().unwrap_or_default(),
        host: "gate.example".to_owned(),
        interface: "dmz0".to_owned(),
        action: Action::Quarantine,
        result: Outcome::Done,
        subject: text(),
        detail: Some("for 1h".to_owned()),
        why: None,
        note: text(),
        file: None,
        before: mark(3),
        after: mark(3),
        who: Who {
            uid: 0,
            login_uid: Some(1000),
            login: Some("alice".to_owned()),
            sudo_user: text(),
            pid: 4711,
            command: format!("portcullis quarantine -i dmz0 {name}"),
            parent: Some(Process { pid: 4710, name: "sudo".to_owned() }),
            ssh_client: Some([203, 0, 113, 7].into()),
        },
    }
}
