//! The daemon comes and goes; the gate stays, and no drop goes unreported.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::Daemon;
use super::policies::{dmz, dmz_with_eve, dmz_with_web, twin};
use super::testbed::{NIC, Testbed, V4, exclusive, share_machine};
use super::traffic::{FORBIDDEN, Traffic};
use crate::support::patience::eventually;

/// Lines of the event file that are of this type and about the forbidden datagrams.
fn events(path: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event_type"] == kind && line["dest_port"] == FORBIDDEN).collect()
}

/// How many drops they stand for.
fn count_reported(path: &Path) -> u64 {
    events(path, "drop").iter().map(|line| line["portcullis"]["drops"].as_u64().expect("a count")).sum()
}

fn with_events(testbed: &Testbed) -> (String, PathBuf) {
    let path = testbed.folder.join("eve.json");
    (dmz_with_eve(&path.display().to_string()), path)
}

#[test]
fn the_gate_holds_when_its_daemon_is_killed_and_when_it_is_stopped() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.prove_passes(&tap, 3);
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = testbed.daemon(&dmz(), &[]);
        testbed.prove_drops(&tap, 5);
        let status = daemon.end(signal);
        if signal != Signal::SIGKILL {
            assert!(status.success(), "{status}");
            let last = daemon.said().pop().expect("a last word");
            assert!(
                last.ends_with("the daemon has stopped; the gate on dmz0 stays attached and enforcing"),
                "{last}"
            );
        }
        testbed.prove_drops(&tap, 5);
        let status = testbed.show("status");
        assert_eq!((&status["attached"], &status["enforcing"]), (&"native".into(), &true.into()));
    }
    testbed.detach();
    testbed.wait_for_detach();
    testbed.prove_passes(&tap, 3);
}

#[test]
fn a_daemon_with_detach_on_exit_detaches_the_gate_when_it_stops() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &["--detach-on-exit"]);
    testbed.prove_drops(&tap, 5);
    assert!(daemon.end(Signal::SIGTERM).success());
    assert!(
        daemon
            .said()
            .pop()
            .expect("a last word")
            .ends_with("detached from dmz0: nothing is dropped any more")
    );
    assert!(!testbed.pins().exists());
    testbed.wait_for_detach();
    testbed.prove_passes(&tap, 5);

    // but not when it is killed
    let mut daemon = testbed.daemon(&dmz(), &["--detach-on-exit"]);
    daemon.end(Signal::SIGKILL);
    testbed.prove_drops(&tap, 5);
}

#[test]
fn an_upgrade_under_traffic_lets_nothing_through_and_loses_nothing() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let traffic = Traffic::start(&testbed);
    traffic.flow();
    for which in 1..=8 {
        let path = testbed.write("policy.toml", &twin(which));
        let outcome = testbed.run("attach", &["-p", &path, "-j"]).done().json();
        assert_eq!((&outcome["replaced"], &outcome["attached"]), (&true.into(), &"native".into()));
        traffic.flow();
    }
    let mut daemon = testbed.daemon(&twin(1), &[]);
    traffic.flow();
    daemon.end(Signal::SIGTERM);
    traffic.flow();
    traffic.stop(&testbed);
}

#[test]
fn drops_while_no_daemon_ran_are_reported_once() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let (policy, path) = with_events(&testbed);
    testbed.attach(&policy);
    testbed.prove_drops(&tap, 9);

    let mut daemon = testbed.daemon(&policy, &[]);
    daemon.wait_for_line(&["alarm #", "web1", "udp/4000"]);
    eventually("the drops are in the event file", || count_reported(&path) == 9);
    assert!(events(&path, "drop").iter().all(|line| line["portcullis"]["while_away"] == true));
    eventually("so is their alarm", || !events(&path, "alert").is_empty());
    daemon.end(Signal::SIGTERM);

    // the next daemon reports what came since, and only that
    testbed.prove_drops(&tap, 4);
    let mut daemon = testbed.daemon(&policy, &[]);
    eventually("the new drops are in the event file", || count_reported(&path) >= 13);
    // and what comes while it listens
    testbed.prove_drops(&tap, 2);
    eventually("the newest too", || count_reported(&path) >= 15);
    daemon.end(Signal::SIGTERM);
    assert_eq!(count_reported(&path), 15, "each drop is reported once");

    let mut daemon = testbed.daemon(&policy, &[]);
    daemon.end(Signal::SIGTERM);
    assert!(daemon.find(&["alarm"]).is_empty(), "{:#?}", daemon.said());
    assert_eq!(count_reported(&path), 15, "nothing is reported again");
}

#[test]
fn the_next_daemon_reports_what_a_killed_one_may_not_have_reported() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let (policy, path) = with_events(&testbed);
    let mut daemon = testbed.daemon(&policy, &[]);
    daemon.end(Signal::SIGKILL);
    testbed.prove_drops(&tap, 6);
    let mut daemon = testbed.daemon(&policy, &[]);
    eventually("the drops are reported", || count_reported(&path) == 6);
    daemon.wait_for_line(&["alarm #", "web1", "udp/4000"]);
    daemon.end(Signal::SIGKILL);
    // rather twice than never
    let mut daemon = testbed.daemon(&policy, &[]);
    testbed.prove_drops(&tap, 1);
    eventually("the drop is reported", || count_reported(&path) >= 7);
    daemon.end(Signal::SIGTERM);
}

#[test]
fn a_hangup_puts_the_file_into_force_and_a_bad_file_changes_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/443").0, "pass");

    testbed.write("daemon.toml", &dmz_with_web(r#""tcp/80""#));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["- web1 may no longer accept tcp/443"]);
    daemon.wait_for_line(&["generation 2 is live"]);
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/443").0, "drop");
    testbed.prove_drops(&tap, 3);

    let good = testbed.run("show", &["policy"]).done().out;
    testbed.write("daemon.toml", &dmz_with_web(r#""tcp/80", "tpc/443""#));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["daemon.toml:"]);
    daemon.wait_for_line(&["the live policy stays"]);
    assert_eq!(testbed.run("show", &["policy"]).done().out, good);
    assert_eq!(testbed.show("status")["generation"], 2);
    testbed.prove_drops(&tap, 3);

    // it goes on, and the next good file counts again
    testbed.write("daemon.toml", &dmz());
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["+ web1 may accept tcp/443"]);
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/443").0, "pass");
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_command_that_keeps_the_gate_to_itself_holds_up_a_hangup_and_not_the_daemon() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let (policy, path) = with_events(&testbed);
    let mut daemon = testbed.daemon(&policy, &[]);
    let file = fs::File::options().write(true).open(testbed.lock()).expect("the lock");
    let held = Flock::lock(file, FlockArg::LockExclusive).expect("the lock");
    daemon.signal(Signal::SIGHUP);
    testbed.prove_drops(&tap, 3);
    eventually("the drops are reported", || count_reported(&path) == 3);
    assert_eq!(testbed.show("status")["generation"], 1, "the lock was held");
    drop(held);
    daemon.wait_for_line(&["generation 2 is live"]);
    // and one that is never done with it is named
    let file = fs::File::options().write(true).open(testbed.lock()).expect("the lock");
    let _held = Flock::lock(file, FlockArg::LockExclusive).expect("the lock");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["the live policy stays as it was"]);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn there_is_one_daemon_at_a_time_and_none_without_a_gate() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    let path = testbed.write("policy.toml", &dmz());
    let second = testbed.run("run", &["-p", &path]);
    second.refused(&["another daemon", NIC, &format!("process {}", daemon.pid()), "help:"]);
    assert_eq!(testbed.show("alarms"), Value::Array(Vec::new()));

    testbed.detach();
    let status = daemon.wait();
    // a service must not be started again, which would attach the gate again
    assert_eq!(status.code(), Some(0));
    assert!(
        !daemon.find(&["another command has detached the gate from dmz0"]).is_empty(),
        "{:#?}",
        daemon.said()
    );
    assert!(!testbed.pins().exists(), "the daemon put something back");
    testbed.run("show", &["alarms"]).refused(&["no daemon answers", "help:"]);
}

#[test]
fn a_gate_that_is_gone_without_an_order_is_a_failure_of_its_daemon() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.detach();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    fs::remove_dir_all(testbed.pins()).expect("the pins");
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(!daemon.find(&["pins of the gate", "nobody typed"]).is_empty(), "{:#?}", daemon.said());
}

#[test]
fn a_daemon_that_can_not_start_says_why_and_leaves_no_gate() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let policy = dmz_with_web(r#""tcp/80000""#);
    let line = policy.lines().position(|line| line.contains("80000")).expect("the need") + 1;
    let path = testbed.write("policy.toml", &policy);
    let mut daemon = Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &path]));
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(!daemon.find(&[&format!("policy.toml:{line}:")]).is_empty(), "{:#?}", daemon.said());
    assert!(!testbed.pins().exists());
}
