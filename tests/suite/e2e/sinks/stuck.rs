//! A standard error that nobody reads, or that nobody reads any more: the daemon goes on.

use std::io::{self, PipeReader, PipeWriter};
use std::process::{Child, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{count_reported, dmz_with_alarms};
use crate::e2e::metrics::{scrape, value};
use crate::e2e::testbed::{NIC, Testbed, share_machine};
use crate::support::patience::eventually;

/// A pipe that has room for nothing.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a flag");
    while nix::unistd::write(&writer, &[b'\n'; 4096]).is_ok() {}
    while nix::unistd::write(&writer, b"\n").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("a flag");
    (reader, writer)
}

struct Mute(Child);

impl Mute {
    /// The most talkative daemon, and wherever it may serve its metrics.
    fn start(testbed: &Testbed, lines: &str, stderr: PipeWriter) -> Mute {
        let path = testbed.write("daemon.toml", &dmz_with_alarms(lines));
        let args = ["run", "-v", "-v", "-i", NIC, "-p", &path, "--metrics", "127.0.0.1:9464"];
        let mut command = testbed.router.prepare(&args);
        let child = command.stderr(Stdio::from(stderr)).stdout(Stdio::null()).spawn().expect("the program");
        let listens = || testbed.run("show", &["alarms"]).code == Some(0);
        eventually("the daemon answers", listens);
        Mute(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("a daemon");
    }

    fn ends_well(&mut self) -> bool {
        self.signal(Signal::SIGTERM);
        let mut status = None;
        eventually("it ends when it is asked to", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.is_some_and(|status| status.success())
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_standard_error_that_nobody_reads_holds_up_nothing_and_catches_up_when_it_is_read_again() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let (mut reader, writer) = full_pipe();
    let ecs = testbed.folder.join("ecs.json");
    // the second sink fails, and says so with its lock held
    let lines = format!("ecs = \"{}\"\nsyslog = \"unix:/nowhere/log\"", ecs.display());
    let mut daemon = Mute::start(&testbed, &lines, writer);
    for round in 1..=3 {
        testbed.prove_drops(&tap, 2);
        eventually("the sink that works has all", || count_reported(&ecs) == round * 2);
        daemon.signal(Signal::SIGHUP);
        eventually("the policy goes live", || testbed.show("status")["generation"] == 1 + round);
    }
    assert_eq!(testbed.show("alarms").as_array().map(Vec::len), Some(1));
    let number = |name: &str, sink: &str| value(&scrape(&testbed), name, &[&format!("sink=\"{sink}\"")]);
    eventually("the metrics say so", || {
        number("portcullis_sink_failures_total", "stderr").is_some_and(|count| count > 0.0)
    });
    assert_eq!(value(&scrape(&testbed), "portcullis_consumer_up", &[]), Some(1.0));

    let heard = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let ear = std::sync::Arc::clone(&heard);
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = io::Read::read(&mut reader, &mut bytes) {
            ear.lock().expect("a text").push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    });
    let has_read = |words: &str| heard.lock().expect("a text").contains(words);
    eventually("what waited is reported", || {
        has_read("alarm #1 opened: ") && has_read("generation 4 is live")
    });
    assert!(daemon.ends_well());
    thread.join().expect("a reader");
    assert!(has_read("the daemon has stopped; the gate on dmz0 stays attached and enforcing"));
}

#[test]
fn a_daemon_whose_standard_error_stays_full_ends_when_asked_to() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let (_reader, writer) = full_pipe();
    let mut daemon = Mute::start(&testbed, "", writer);
    testbed.prove_drops(&tap, 2);
    assert!(daemon.ends_well());
}

#[test]
fn a_daemon_outlives_the_reader_of_its_standard_error() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let ecs = testbed.folder.join("ecs.json");
    let mut daemon = Mute::start(&testbed, &format!("ecs = \"{}\"", ecs.display()), writer);
    daemon.signal(Signal::SIGHUP);
    eventually("the policy goes live", || testbed.show("status")["generation"] == 2);
    testbed.prove_drops(&tap, 2);
    eventually("the sink that works has all", || count_reported(&ecs) == 2);
    assert!(daemon.ends_well());
}
