//! Sinks against the real thing: rsyslog, systemd's journal, an Alertmanager, Wireshark's tools;
//! and against what hangs, never ends and is full. All of it in the test's own namespaces.

mod alertmanager;
mod disk;
mod files;
mod hostile;
mod journal;
mod mail;
mod stuck;
mod syslog;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use portcullis::alarm::{Change, Engine};
use portcullis::clock::Clock;
use portcullis::drops::{DropEvent, DropVerdict, Origin, ReasonCode, ServerRef};
use portcullis::sink::Event;
use serde_json::Value;

use super::policies::dmz;
use super::testbed::ip;

/// A name that would be a line, a field, markup and an order to a terminal of its own.
const HOSTILE: &str = "w1\"]'=|\\\n<0>1 - - - - - - fake\nPRIORITY=0\n\u{1b}[2J\u{9b}31m\u{202e}$(id)`id`";

/// [`dmz`] with lines in `[alarms]`.
fn dmz_with_alarms(lines: &str) -> String {
    format!("{}\n[alarms]\n{lines}\n", dmz())
}

/// The JSON lines of a file that somebody writes to: the last one may be under way.
#[track_caller]
fn json_lines(path: impl AsRef<Path>) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// How many drops they report.
#[track_caller]
fn count_reported(path: impl AsRef<Path>) -> u64 {
    json_lines(path).iter().map(|line| line["portcullis"]["drops"].as_u64().unwrap_or(0)).sum()
}

/// A server of the test's own, ended with it.
struct Process {
    child: Child,
    log: String,
}

impl Process {
    /// What it says goes into a file.
    #[track_caller]
    fn start(mut command: Command, log: &str) -> Process {
        let file = fs::File::create(log).expect("a file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, log: log.to_owned() }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a tool that has to succeed.
#[track_caller]
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An authority, its server, and an authority that nobody asked.
fn make_certificates(folder: &Path) {
    let path = |name: &str| folder.join(name).display().to_string();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    for name in ["ca", "other"] {
        let (key_file, file, subject) =
            (path(&format!("{name}.key")), path(&format!("{name}.pem")), format!("/CN={name}"));
        let files = ["-keyout", &key_file, "-out", &file, "-subj", &subject];
        output_of("openssl", &[&["req", "-x509"], &key[..], &files].concat());
    }
    let (ca, ca_key, file, key_file) =
        (path("ca.pem"), path("ca.key"), path("server.pem"), path("server.key"));
    let files = ["-keyout", &key_file, "-out", &file, "-subj", "/CN=loghost", "-CA", &ca, "-CAkey", &ca_key];
    let more = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    output_of("openssl", &[&["req", "-x509"], &key[..], &files, &more].concat());
}

/// A SYN of a server with this name.
fn drop_of(name: &str) -> DropEvent {
    let now = Clock::now();
    DropEvent {
        time: now.wall,
        since: now.wall,
        interface: "dmz0".into(),
        verdict: DropVerdict::Drop,
        reason: ReasonCode::from(47), // new_flow
        quiet: false,
        own_port: false,
        presumed: false,
        edit: None,
        server: Some(ServerRef { id: 1, name: Arc::from(name) }),
        source: Some(ip("192.0.2.80")),
        destination: Some(ip("198.51.100.7")),
        source_port: Some(40000),
        destination_port: Some(8291),
        port: 8291,
        protocol: 6,
        any_protocol: false,
        tcp_flags: Some(2),
        icmp_type: None,
        icmp_code: None,
        length: Some(54),
        ethertype: Some(0x0800),
        vlan: None,
        source_mac: None,
        destination_mac: None,
        frame: Vec::new(),
        row: None,
        sources: None,
        destinations: None,
        looked_up: None,
        drops: 1,
        from: Origin::Sample,
        while_away: false,
    }
}

/// The first alarm of a server with this name.
fn opened(name: &str) -> Event {
    Event::of_alarm(Engine::default().observe(&drop_of(name), Clock::now()).remove(0))
}

/// What becomes of a worm: opened, escalated, updated, closed.
fn life_of_a_worm() -> Vec<Change> {
    let now = Clock::now();
    // It has been over for a while.
    let start_ns = now.mono_ns + 3_600_000_000_000;
    let later = |seconds: u64| Clock {
        mono_ns: start_ns + seconds * 1_000_000_000,
        wall: now.wall - std::time::Duration::from_secs(2000 - seconds),
    };
    let mut engine = Engine::default();
    let mut changes = Vec::new();
    for host in 1..=20_u8 {
        let now = later(u64::from(host));
        let mut drop = drop_of("web1");
        drop.destination = Some(ip(&format!("203.0.113.{host}")));
        (drop.time, drop.since) = (now.wall, now.wall);
        changes.extend(engine.observe(&drop, now));
    }
    changes.extend(engine.tick(later(1000)));
    changes
}
