//! Changes of alarms as entries of systemd's journal, with fields to search by. It speaks the journal's
//! native protocol: one datagram for each entry.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::audit;
use super::fields::{describe, fields, level};
use super::{Event, Matter, Sink, Site};
use crate::alarm::Change;
use crate::audit::Event as AuditEvent;
use crate::policy::Alarms;

/// The socket of the journal.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The identifier of `journalctl -t`.
const IDENTIFIER: &str = "portcullis";
/// All our alarms have it, and no others: `journalctl MESSAGE_ID=…`.
const MESSAGE_ID: &str = "6d1f0b7c5a1e4c0f9d5c3be2a97f4410";
/// All our audit events have it.
const AUDIT_MESSAGE_ID: &str = "b0e4a3d2c8f14f6e9a27d15c60b93e7a";
/// How long the journal may take to accept an entry.
const PATIENCE: Duration = Duration::from_secs(10);

/// The journal, if the policy's key `journald` is true.
pub(super) fn from_policy(alarms: &Alarms, _: Site<'_>) -> Option<Box<dyn Sink>> {
    alarms.journald.then(|| Box::new(Journald::new(JOURNAL)) as Box<dyn Sink>)
}

/// The journal.
#[derive(Debug)]
pub struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journald {
    /// Connects to the socket at this path when the first entry comes.
    pub fn new(path: impl AsRef<Path>) -> Journald {
        Journald { path: path.as_ref().to_owned(), socket: None }
    }

    fn connect(&self) -> std::io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(&self.path)?;
        Ok(socket)
    }
}

impl Sink for Journald {
    fn name(&self) -> &str {
        "journald"
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        let entry = match &event.matter {
            Matter::Alarm(change) => render(change),
            Matter::Audit(event) => render_audit(event),
            Matter::Drop(_) | Matter::OpenAlarms(_) => return Ok(()),
        };
        let context = || format!("cannot reach the journal at {}", self.path.display());
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect().with_context(context)?,
        };
        // a socket that failed stays closed: the journal may have been restarted
        socket.send(&entry).with_context(context)?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// Renders the entry of an alarm.
fn render(change: &Change) -> Vec<u8> {
    render_entry(MESSAGE_ID, level(change), &describe(change), fields(change))
}

/// Renders the entry of an audit event.
fn render_audit(event: &AuditEvent) -> Vec<u8> {
    render_entry(AUDIT_MESSAGE_ID, audit::level(event), &event.describe(), audit::fields(event))
}

fn render_entry(id: &str, level: u8, text: &str, fields: Vec<(&'static str, String)>) -> Vec<u8> {
    let mut entry = Vec::new();
    add(&mut entry, "MESSAGE", text);
    add(&mut entry, "MESSAGE_ID", id);
    add(&mut entry, "PRIORITY", &level.to_string());
    add(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    for (name, value) in fields {
        add(&mut entry, &format!("PORTCULLIS_{}", name.to_ascii_uppercase()), &value);
    }
    entry
}

/// A field with its length before it. No value can end it, whatever is in it.
fn add(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::alarm::example::{opened_by, opened_with};
    use crate::drops::ServerRef;
    use crate::drops::example::syn;

    /// Reads an entry as the journal does.
    fn read(mut entry: &[u8]) -> HashMap<String, String> {
        let mut fields = HashMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
            let name = String::from_utf8(entry[..end].to_vec()).unwrap();
            assert!(name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{name}");
            let length = u64::from_le_bytes(entry[end + 1..end + 9].try_into().unwrap()) as usize;
            let value = &entry[end + 9..end + 9 + length];
            assert_eq!(entry[end + 9 + length], b'\n');
            assert!(fields.insert(name, String::from_utf8(value.to_vec()).unwrap()).is_none());
            entry = &entry[end + 10 + length..];
        }
        fields
    }

    #[test]
    fn an_entry_has_fields_to_search_by() {
        let change = opened_by("web1");
        let fields = read(&render(&change));
        for (name, value) in [
            ("SYSLOG_IDENTIFIER", "portcullis"),
            ("MESSAGE_ID", MESSAGE_ID),
            ("PORTCULLIS_ALARM", "1"),
            ("PORTCULLIS_KIND", "attempt"),
            ("PORTCULLIS_SERVER", "web1"),
            ("PORTCULLIS_SERVICE", "tcp/445"),
            ("PORTCULLIS_DESTINATION", "198.51.100.7"),
            ("PORTCULLIS_NEXT", "portcullis quarantine -i dmz0 web1"),
        ] {
            assert_eq!(fields[name], value, "{name}");
        }
        assert!(fields["MESSAGE"].starts_with("alarm #1 opened: "));
    }

    #[test]
    fn what_was_done_has_fields_of_its_own() {
        let fields = read(&render_audit(&crate::audit::example::quarantine_by("x\nPRIORITY=0")));
        assert_eq!((&*fields["PORTCULLIS_ACTION"], &*fields["PRIORITY"]), ("quarantine", "5"));
        assert_eq!(fields["PORTCULLIS_NOTE"], "x\\u{a}PRIORITY=0");
        assert_eq!((&*fields["PORTCULLIS_LOGIN"], &*fields["PORTCULLIS_GENERATION"]), ("alice", "3"));
        assert_ne!(fields["MESSAGE_ID"], MESSAGE_ID);
    }

    #[test]
    fn a_hostile_name_adds_no_field() {
        let mut drop = syn();
        drop.server = Some(ServerRef { id: 1, name: "w\nPRIORITY=7\n\u{1b}[2J".into() });
        let change = opened_with(&drop);
        let fields = read(&render(&change));
        assert_eq!(fields["PORTCULLIS_SERVER"], r"w\u{a}PRIORITY=7\u{a}\u{1b}[2J");
        assert!(fields.values().all(|value| !value.contains(char::is_control)));
    }

    #[test]
    fn a_journal_that_is_restarted_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let event = Event::of_alarm(opened_by("web1"));
        let mut sink = Journald::new(&path);
        assert!(sink.write(&event).unwrap_err().to_string().contains("cannot reach the journal"));
        for _ in 0..2 {
            let _ = std::fs::remove_file(&path);
            let journal = UnixDatagram::bind(&path).unwrap();
            let _ = sink.write(&event); // to the socket of before
            sink.write(&event).unwrap();
            let mut received = [0; 8192];
            let length = journal.recv(&mut received).unwrap();
            read(&received[..length]);
        }
    }
}
