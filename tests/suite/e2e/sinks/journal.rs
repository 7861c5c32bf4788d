//! systemd's real journal daemon, an instance of the test's own: in a mount namespace with a
//! /run and a /var/log that nobody else sees.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use portcullis::sink::{Journald, Sink as _};
use serde_json::Value;

use super::{HOSTILE, Process, dmz_with_alarms, opened, output_of};
use crate::e2e::command::Daemon;
use crate::e2e::testbed::{NIC, Testbed, share_machine};
use crate::support::patience::eventually;

/// Where Debian keeps it; it is no command.
const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";
/// An instance that neither reads the kernel's log nor touches the audit.
const NAME: &str = "portcullistest";

struct Journal(Process);

impl Journal {
    fn start(testbed: &Testbed) -> Journal {
        let script = format!(
            "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && \
             mkdir -p /run/systemd /var/log/journal && ln -s journal.{NAME} /run/systemd/journal && exec {JOURNALD} {NAME}"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let log = testbed.folder.join("journald.out").display().to_string();
        let journal = Journal(Process::start(command, &log));
        eventually("the journal listens", || journal.socket().exists());
        journal
    }

    /// A path of its own namespace, from ours.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.0.pid()))
    }

    fn socket(&self) -> PathBuf {
        self.path(&format!("/run/systemd/journal.{NAME}/socket"))
    }

    /// Entries that match.
    fn find(&self, query: &str) -> Vec<Value> {
        let folders = fs::read_dir(self.path("/var/log/journal")).expect("a folder");
        let mut entries = Vec::new();
        for folder in folders {
            let folder = folder.expect("a folder").path().display().to_string();
            let text = output_of("journalctl", &["-q", "-D", &folder, "-o", "json", "--all", query]);
            entries.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
        entries
    }
}

#[test]
fn a_daemon_whose_policy_names_the_journal_writes_its_alarms_there() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let journal = Journal::start(&testbed);
    let policy = testbed.write("daemon.toml", &dmz_with_alarms("journald = true"));
    // it has to see the journal's /run
    let mut command = Command::new("nsenter");
    command.args([
        &format!("--net=/run/netns/{}", testbed.router.name()),
        &format!("--mount=/proc/{}/ns/mnt", journal.0.pid()),
        "--",
        env!("CARGO_BIN_EXE_portcullis"),
    ]);
    let mut daemon = Daemon::start({
        command.args(["run", "-i", NIC, "-p", &policy]);
        command
    });
    daemon.wait_for_line(&["attached to dmz0: "]);
    testbed.prove_drops(&tap, 2);
    let query = "PORTCULLIS_SERVICE=udp/4000";
    eventually("the alarm is in the journal", || !journal.find(query).is_empty());
    let entry = journal.find(query).remove(0);
    for (field, value) in [
        ("SYSLOG_IDENTIFIER", "portcullis"),
        ("_COMM", "portcullis"),
        ("PORTCULLIS_SERVER", "web1"),
        ("PORTCULLIS_STEP", "opened"),
        ("PORTCULLIS_INTERFACE", "dmz0"),
    ] {
        assert_eq!(entry[field], value, "{field}: {entry:#?}");
    }
    daemon.end(Signal::SIGTERM);
}

#[test]
fn the_journal_finds_alarms_by_their_fields_and_a_hostile_name_adds_none() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let journal = Journal::start(&testbed);
    let mut sink = Journald::new(journal.socket());
    for name in ["web1", HOSTILE] {
        sink.write(&opened(name)).expect("an entry");
    }
    eventually("both are there", || journal.find("SYSLOG_IDENTIFIER=portcullis").len() == 2);

    let entries = journal.find("PORTCULLIS_SERVER=web1");
    assert_eq!(entries.len(), 1, "{entries:#?}");
    for (field, value) in [
        ("PRIORITY", "2"),
        ("PORTCULLIS_KIND", "attempt"),
        ("PORTCULLIS_SEVERITY", "high"),
        ("PORTCULLIS_STEP", "opened"),
        ("PORTCULLIS_SERVICE", "tcp/8291"),
        ("PORTCULLIS_NEXT", "portcullis quarantine -i dmz0 web1"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(entries[0][field], value, "{field}: {entries:#?}");
    }
    let message = entries[0]["MESSAGE"].as_str().expect("text");
    assert!(message.starts_with("alarm #1 opened: high attempt: web1 tried tcp/8291"), "{message}");

    // the other one has what it has, and neither a field nor a priority of its own making
    assert_eq!(journal.find("PRIORITY=2").len(), 2);
    assert!(journal.find("PRIORITY=0").is_empty());
    let entries = journal.find("SYSLOG_IDENTIFIER=portcullis");
    for entry in &entries {
        for (field, value) in entry.as_object().expect("an object") {
            let text = value.as_str().unwrap_or_else(|| panic!("{field} is no text: {value}"));
            assert!(!text.contains(char::is_control), "{field}: {text:?}");
        }
    }
}
