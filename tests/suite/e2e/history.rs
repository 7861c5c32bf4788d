//! What the daemon remembers: through a kill, and through a full disk.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::Daemon;
use super::kills::kill_after;
use super::policies::dmz;
use super::testbed::{NIC, Testbed, V4, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::chance::Chance;
use crate::support::patience::{PATIENCE, eventually, within};

impl Testbed {
    /// `alarms -j` with these arguments.
    #[track_caller]
    pub fn alarms(&self, args: &[&str]) -> Vec<Value> {
        let value = self.run("alarms", &[args, &["-j"]].concat()).done().json();
        value.as_array().expect("a list").clone()
    }

    /// Waits until the daemon's loop runs: what is dropped from then on is seen live.
    #[track_caller]
    pub fn wait_for_consumer(&self) {
        eventually("the daemon answers", || self.run("show", &["alarms"]).code == Some(0));
    }

    /// Packets of the forbidden datagrams that a report counts.
    pub fn reported(&self) -> u64 {
        let page = self.folder.join("count.html").display().to_string();
        let outcome = self.run("report", &["-o", &page, "-j"]);
        if outcome.code == Some(0) { outcome.json()["drops"].as_u64().expect("a count") } else { 0 }
    }
}

fn packets(alarm: &Value) -> u64 {
    alarm["packets"].as_u64().expect("a count")
}

#[test]
fn alarms_and_drops_outlive_the_daemon_and_are_shown_with_and_without_one() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.run("alarms", &[]).refused(&["no history", NIC, "help:"]);
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.prove_drops(&tap, 7);
    eventually("the alarm is reported", || {
        let alarms = testbed.alarms(&[]);
        alarms.len() == 1 && alarms[0]["state"] == "open" && packets(&alarms[0]) == 7
    });
    // and is on disk: a kill right now loses nothing that the next daemon does not report again
    eventually("the drops are written", || testbed.reported() == 7);
    daemon.end(Signal::SIGKILL);
    let alarms = testbed.alarms(&[]);
    assert_eq!((alarms.len(), &alarms[0]["state"]), (1, &"cut_off".into()));
    assert!(testbed.alarms(&["--open"]).is_empty(), "without a daemon nothing is open");
    assert_eq!(alarms[0]["server"], "web1");
    assert_eq!(testbed.reported(), 7);

    // while no daemon runs
    testbed.prove_drops(&tap, 5);
    let mut daemon = testbed.daemon(&dmz(), &[]);
    eventually("what came meanwhile is reported as such", || {
        testbed.alarms(&["--open"]).iter().any(|alarm| alarm["while_away"] == true && packets(alarm) >= 5)
    });
    let alarms = testbed.alarms(&[]);
    let ids: Vec<u64> = alarms.iter().map(|alarm| alarm["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids, [1, 2], "ids go on where the last daemon's ended");
    assert_eq!((&alarms[0]["state"], &alarms[1]["state"]), (&"cut_off".into(), &"open".into()));
    let table = testbed.run("alarms", &[]).done().out;
    assert!(table.contains("cut off") && table.contains("open, while away"), "{table}");
    assert!(table.contains("next for #2: portcullis quarantine -i dmz0 web1"), "{table}");
    assert!(daemon.end(Signal::SIGTERM).success());
    let past = testbed.alarms(&[]);
    assert_eq!(past.len(), 2);
    assert_eq!(testbed.reported(), 12, "each drop is in the history once, kill or no kill");
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_leaves_each_drop_in_the_history_once() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    const ROUNDS: u64 = 8;
    let written = |daemon: &Daemon, round: u64, drops: u64| {
        assert!(
            within(PATIENCE, || testbed.reported() == drops),
            "round {round}: {} of {drops} drops in the history; ledger {:#?}; the daemon said {:#?}",
            testbed.reported(),
            testbed.drops(),
            daemon.said()
        );
    };
    let path = testbed.write("policy.toml", &dmz());
    let mut chance = Chance::new(0x0dd5_eed5);
    for round in 0..ROUNDS {
        // while it comes up, in which it makes, opens and mends the database
        for _ in 0..3 {
            kill_after(&testbed, &["run", "-i", NIC, "-p", &path], chance.time(Duration::from_millis(700)));
        }
        let mut daemon = testbed.daemon(&dmz(), &[]);
        testbed.prove_drops(&tap, 3);
        // at once, when the alarm is reported, when it is written
        match round % 3 {
            0 => {}
            1 => eventually("it is reported", || !testbed.alarms(&["--open"]).is_empty()),
            _ => written(&daemon, round, 3 * (round + 1)),
        }
        daemon.end(Signal::SIGKILL);
    }
    let mut daemon = testbed.daemon(&dmz(), &[]);
    written(&daemon, ROUNDS, 3 * ROUNDS);
    assert!(daemon.end(Signal::SIGTERM).success());
    assert_eq!(testbed.reported(), 3 * ROUNDS);
    let alarms = testbed.alarms(&[]);
    assert!(!alarms.is_empty() && alarms.iter().all(|alarm| alarm["server"] == "web1"), "{alarms:#?}");
    let left = fs::read_dir(testbed.history()).expect("the history's folder");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    // a command that reads without a daemon leaves the log that it finds or makes
    let ours = |name: &std::ffi::OsString| {
        let audit = ["audit.jsonl", "audit.lock", "audit.reported", "generation"];
        ["history.db", "history.db-wal", "policies"].iter().chain(&audit).any(|own| name == own)
    };
    assert!(left.iter().all(ours), "nothing is damaged, and no half of one is left: {left:?}");
}

/// A daemon has reported 3 drops and was killed; 2 came after it, and 4 while the next one waits for a
/// history that somebody reads.
struct Late {
    testbed: Testbed,
    daemon: Daemon,
    reader: Option<rusqlite::Connection>,
}

impl Late {
    const DROPS: u64 = 3 + 2 + 4;

    fn new() -> Late {
        let testbed = Testbed::new();
        let tap = testbed.tap_internet();
        let mut daemon = testbed.daemon(&dmz(), &[]);
        testbed.prove_drops(&tap, 3);
        eventually("the drops are written", || testbed.reported() == 3);
        daemon.end(Signal::SIGKILL);
        testbed.prove_drops(&tap, 2);
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let path = testbed.history().join("history.db");
        let reader = rusqlite::Connection::open_with_flags_and_vfs(path, flags, c"unix-excl").expect("it");
        reader.query_row("SELECT count(*) FROM alarms", [], |_| Ok(())).expect("a lock, as a command has it");
        let reader = Some(reader);
        let daemon = testbed.daemon(&dmz(), &[]);
        daemon.wait_for_line(&["the history", "does not answer", "the daemon goes on"]);
        testbed.prove_drops(&tap, 4);
        // drops of now are reported at once, and earlier ones as soon as it is known which were reported
        daemon.wait_for_line(&["alarm #", "opened", "udp/4000"]);
        assert!(daemon.find(&["while no daemon listened"]).is_empty(), "{:#?}", daemon.said());
        Late { testbed, daemon, reader }
    }

    #[track_caller]
    fn expect_all(&self) {
        eventually("each drop is in the history once", || self.testbed.reported() == Late::DROPS);
        assert!(self.daemon.find(&["once more"]).is_empty(), "{:#?}", self.daemon.said());
    }
}

#[test]
fn a_history_that_somebody_reads_while_the_daemon_starts_still_has_each_drop_once() {
    let _machine = share_machine();
    let mut late = Late::new();
    drop(late.reader.take());
    late.expect_all();
    eventually("the alarm has what came before", || {
        let alarms = late.testbed.alarms(&["--open"]);
        alarms.len() == 1 && alarms[0]["while_away"] == true && packets(&alarms[0]) == 2 + 4
    });
    assert!(late.daemon.end(Signal::SIGTERM).success());
    assert_eq!(late.testbed.reported(), Late::DROPS);
}

#[test]
fn a_daemon_that_ends_before_the_history_answers_leaves_its_drops_to_the_next_one() {
    let _machine = share_machine();
    let mut late = Late::new();
    assert!(late.daemon.end(Signal::SIGTERM).success());
    drop(late.reader.take());
    late.daemon = late.testbed.daemon(&dmz(), &[]);
    late.expect_all();
}

#[test]
fn every_drop_is_reported_when_the_gate_is_detached_before_the_history_answers() {
    let _machine = share_machine();
    let mut late = Late::new();
    late.testbed.detach();
    late.daemon.wait_for_line(&["another command has detached the gate from dmz0"]);
    drop(late.reader.take());
    assert!(late.daemon.wait().success());
    // if the answer came too late, the drops that the earlier daemon reported are there twice, rather than never
    let reported = late.testbed.reported();
    assert!(reported == Late::DROPS || reported == Late::DROPS + 3, "{reported} drops");
}

/// A mount namespace in which the history lies on a small disk.
pub struct SmallDisk {
    holder: Child,
}

impl SmallDisk {
    pub fn new(kilobytes: u32) -> SmallDisk {
        let script = format!(
            "mkdir -p /var/lib/portcullis && mount -t tmpfs -o size={kilobytes}k tmpfs /var/lib/portcullis \
             && echo mounted && exec cat"
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare, of the package util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a word");
        assert_eq!(line, "mounted\n");
        SmallDisk { holder }
    }

    pub fn folder(&self) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root/var/lib/portcullis")
    }

    /// The program on the router, with this disk.
    pub fn prepare(&self, testbed: &Testbed, args: &[&str]) -> Command {
        let mut command = testbed.router.command("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.arg("--").arg(env!("CARGO_BIN_EXE_portcullis")).args(args);
        command.env_remove("RUST_LOG").env_remove("NO_COLOR");
        command
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        let path = self.folder().join("ballast");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
        for size in [4096, 512, 1] {
            while file.write_all(&vec![0_u8; size]).is_ok() {}
        }
    }

    pub fn empty(&self) {
        fs::remove_file(self.folder().join("ballast")).expect("the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_full_disk_holds_up_nobody_and_what_it_refused_is_written_when_there_is_room() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let disk = SmallDisk::new(8192);
    let path = testbed.write("daemon.toml", &dmz());
    let start = || {
        let daemon = Daemon::start(disk.prepare(&testbed, &["run", "-i", NIC, "-p", &path]));
        daemon.wait_for_line(&["attached to dmz0: "]);
        daemon
    };
    let mut daemon = start();
    testbed.prove_drops(&tap, 4);
    eventually("it is written", || testbed.reported() == 4);
    disk.fill();
    testbed.prove_drops(&tap, 6);
    daemon.wait_for_line(&["could not write the history", "the write is retried"]);
    // the alarm itself went out, and the daemon answers
    daemon.wait_for_line(&["alarm #1", "web1", "udp/4000"]);
    eventually("the open alarm is answered from memory", || {
        testbed
            .show("alarms")
            .as_array()
            .is_some_and(|alarms| alarms.iter().any(|alarm| packets(alarm) >= 10))
    });
    disk.empty();
    eventually("what was refused is written, exactly", || testbed.reported() == 10);

    // killed on a full disk: what was written stays, and the next daemon does its work
    disk.fill();
    testbed.prove_drops(&tap, 2);
    daemon.end(Signal::SIGKILL);
    let mut daemon = start();
    testbed.prove_drops(&tap, 3);
    daemon.wait_for_line(&["alarm #", "web1", "udp/4000"]);
    disk.empty();
    eventually("the history has the old and the new", || testbed.reported() == 15);
    let alarms = testbed.alarms(&[]);
    assert!(alarms.iter().any(|alarm| alarm["state"] == "cut_off"), "{alarms:#?}");
    assert!(alarms.iter().any(|alarm| alarm["state"] == "open"), "{alarms:#?}");
    assert!(daemon.end(Signal::SIGTERM).success());
    // no daemon answers any more: of the disk itself
    let page = testbed.folder.join("count.html").display().to_string();
    let output =
        disk.prepare(&testbed, &["report", "-i", NIC, "-o", &page, "-j"]).output().expect("a report");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["drops"], 15, "each drop is in the history once, full disk or not");
}

#[test]
fn followers_see_what_happens_and_their_filters_hold() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.run("alarms", &["--follow"]).refused(&["no daemon answers", "help:"]);
    let mut daemon = testbed.daemon(&dmz(), &[]);
    let follow = |args: &[&str], name: &str| {
        let path = testbed.folder.join(name);
        let mut command = testbed.router.prepare(&[&["alarms", "-i", NIC, "--follow"], args].concat());
        let file = File::create(&path).expect("a file");
        let child = command.stdout(file).stderr(Stdio::null()).spawn().expect("the program");
        (Guard(child), move || fs::read_to_string(&path).expect("a file"))
    };
    let (_all, all) = follow(&["-j"], "all.json");
    let (mut to_mail, mail) = follow(&["--server", "mx1"], "mail.txt");
    // until both are known to the daemon
    eventually("the followers are connected", || count_clients(&testbed, &daemon) >= 2);
    testbed.prove_drops(&tap, 2);
    let first_alarm = || {
        let lines = all();
        let mut whole = lines.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.find(|line| !line.starts_with("{\"audit\":")).map(str::to_owned)
    };
    eventually("the follower of all reads it", || first_alarm().is_some());
    let alarm: Value = serde_json::from_str(&first_alarm().expect("a line")).expect("JSON");
    assert_eq!((&alarm["server"], &alarm["state"]), (&"web1".into(), &"open".into()));
    eventually("it is in the history", || !testbed.alarms(&[]).is_empty());
    for (args, found) in [
        (&["--server", "web1"][..], 1),
        (&["--server", "mx1"], 0),
        (&["--server", "mx1", "--server", "web1"], 1),
        (&["--kind", "attempt"], 1),
        (&["--kind", "spread"], 0),
        (&["--severity", "medium"], 1),
        (&["--severity", "critical"], 0),
        (&["--from", "1h"], 1),
        (&["--to", "1h"], 0),
        (&["--from", "2020-01-01", "--to", "2020-01-02 12:00"], 0),
    ] {
        assert_eq!(testbed.alarms(args).len(), found, "{args:?}");
    }
    let outcome = testbed.run("alarms", &["--kind", "sprad"]);
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    // the mail server's follower is listened to, and what the web server does meanwhile passes it by
    let socket = super::socket::udp(&testbed.dmz, V4.mail, 0);
    let try_mail = |port: u16| {
        socket.send_to(b"out", (V4.peer, port)).expect("a datagram");
        let service = format!("udp/{port} ");
        eventually("the follower of the mail server reads it", || mail().contains(&service));
    };
    try_mail(FORBIDDEN);
    testbed.send_from_web(FORBIDDEN + 1, 1);
    eventually("the follower of all reads it", || all().contains("udp/4001"));
    // its lines come in their order: after this one the web server's would be there
    try_mail(FORBIDDEN + 2);
    daemon.end(Signal::SIGTERM);
    to_mail.0.wait().expect("an end");
    let lines = mail();
    assert!(lines.lines().all(|line| line.contains("mx1") && !line.contains("web1")), "{lines}");
}

/// Ended with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connections to the daemon's socket.
fn count_clients(testbed: &Testbed, daemon: &Daemon) -> usize {
    let path = testbed.socket().display().to_string();
    let table = fs::read_to_string(format!("/proc/{}/net/unix", daemon.pid())).unwrap_or_default();
    // one line is the listener's
    table.lines().filter(|line| line.ends_with(&path)).count().saturating_sub(1)
}

#[test]
fn a_client_that_never_reads_and_one_that_never_asks_hold_up_nobody() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &["--metrics", "127.0.0.1:9464"]);
    let left = || {
        let page = super::metrics::scrape(&testbed);
        super::metrics::value(&page, "portcullis_clients_disconnected_total", &[])
    };
    let connect = || UnixStream::connect(testbed.socket()).expect("the daemon's socket");
    let mute: Vec<UnixStream> = (0..4).map(|_| connect()).collect();
    let deaf: Vec<UnixStream> = (0..4)
        .map(|_| {
            let mut stream = connect();
            let request =
                format!("{{\"version\":{},\"want\":\"follow\"}}\n", portcullis::daemon::control::VERSION);
            stream.write_all(request.as_bytes()).expect("a listener");
            stream
        })
        .collect();
    let mut rude = connect();
    rude.write_all(b"\xff\xfe{{{{\n").expect("a listener");
    let mut answer = String::new();
    rude.read_to_string(&mut answer).expect("an answer or an end");
    // Each part of an incident pages once, with all parts so far. The kernel keeps some 200 KiB for who does
    // not read.
    let sockets = [V4.web, V4.mail, V4.dns].map(|server| super::socket::udp(&testbed.dmz, server, 0));
    for number in 0..14_u16 {
        // one host each, or it would be a scan
        let (host, port) = (format!("203.0.113.{number}"), FORBIDDEN + 10 + number);
        for (socket, name) in sockets.iter().zip(["web1", "mx1", "ns1"]) {
            socket.send_to(b"out", (&*host, port)).expect("a datagram");
            daemon.wait_for_line(&["alarm #", name, &format!("udp/{port} ")]);
        }
    }
    testbed.prove_drops(&tap, 3);
    eventually("whoever reads is answered", || !testbed.alarms(&["--open"]).is_empty());
    eventually("all of them are left, and only they", || left() == Some(8.0));
    drop((mute, deaf));
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn the_alarm_that_the_policy_names_cuts_its_server_off_for_its_time() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let asked = "\n[alarms]\nquarantine_on = [\"attempt\"]\nquarantine_for = \"5m\"\n";
    let observed = dmz().replace(
        "roles = [\"mail\", \"managed\"]\n",
        "roles = [\"mail\", \"managed\"]\nmode = \"observe\"\n",
    );
    let daemon = testbed.daemon(&format!("{observed}{asked}"), &[]);
    testbed.wait_for_consumer();
    // the mail server is only observed: an alarm, and nothing is done
    let socket = super::socket::udp(&testbed.dmz, V4.mail, 0);
    socket.send_to(b"out", (V4.peer, FORBIDDEN)).expect("a datagram");
    daemon.wait_for_line(&["alarm #1", "mx1", "NOT dropped"]);
    testbed.prove_drops(&tap, 1);
    daemon.wait_for_line(&[
        "web1 was put into quarantine for 5m by this alarm",
        "portcullis release -i dmz0 web1",
    ]);
    let status = testbed.show("status");
    assert_eq!(status["quarantined"], serde_json::json!(["web1"]));
    // it is in every sink and in the history
    daemon.wait_for_line(&["alarm #2 updated", "web1 was put into quarantine for 5m"]);
    eventually("the history has it", || {
        testbed
            .alarms(&[])
            .iter()
            .any(|alarm| alarm["response"].as_str().is_some_and(|text| text.contains("put into quarantine")))
    });
    // released by hand, it stays released until another alarm turns up
    testbed.run("release", &["web1"]).done();
    assert_eq!(testbed.show("status")["quarantined"], serde_json::json!([]));
    testbed.prove_drops(&tap, 1);
    // more of the same is no news, and is counted all the same
    eventually("it is counted", || {
        let alarms = testbed.show("alarms");
        let of_web = alarms.as_array().into_iter().flatten().find(|alarm| alarm["id"] == 2);
        of_web.map(packets) == Some(2)
    });
    assert_eq!(testbed.show("status")["quarantined"], serde_json::json!([]));
}
