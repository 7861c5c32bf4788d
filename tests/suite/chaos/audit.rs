//! The file of audit events: a command that dies at each point, a disk that is full, read-only or damaged, and
//! commands at once.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;

use crate::e2e::command::{Outcome, Running};
use crate::e2e::history::SmallDisk;
use crate::e2e::policies::dmz;
use crate::e2e::testbed::{NIC, Testbed, share_machine};

use super::fault_points::{MOST_POINTS, died, stage};
use super::mounts::behind;

#[test]
fn a_quarantine_that_dies_at_any_point_leaves_a_whole_file_and_is_kept_if_it_was_said_to_be_done() {
    let _machine = share_machine();
    let (testbed, _, _tap) = stage();
    let numbers = || -> Vec<u64> {
        testbed.audit().iter().map(|event| event["seq"].as_u64().expect("a number")).collect()
    };
    let mut kept_by_the_dead = 0;
    for point in 1..MOST_POINTS {
        let before = numbers().len();
        let mut command = testbed.router.prepare(&["quarantine", "-i", NIC, "mx1"]);
        command.env("PORTCULLIS_DIE_AT", point.to_string());
        let outcome = Outcome::of(&mut command);
        let through = !died(&outcome, point);
        let after = testbed.run("show", &["audit", "-j"]).done();
        assert_eq!(after.err, "", "point {point}: nothing is damaged or missing");
        let now = numbers();
        assert!(now.len() - before <= 1, "point {point}");
        if through {
            assert_eq!(now.len(), before + 1);
            assert!(kept_by_the_dead > 0, "some died after they had kept it");
            break;
        }
        kept_by_the_dead += now.len() - before;
        testbed.run("release", &["mx1"]);
        assert!(numbers().iter().copied().eq(1..=numbers().len() as u64), "point {point}");
    }
    assert!(kept_by_the_dead > 0);
}

#[test]
fn a_disk_that_is_full_or_read_only_costs_the_event_and_not_the_command() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let disk = SmallDisk::new(256);
    let run = |args: &[&str]| Outcome::of(&mut disk.prepare(&testbed, args));
    run(&["attach", "-i", NIC, "-p", &path]).done();
    disk.fill();
    // the last block of the file has room for some
    let mut outcome = run(&["quarantine", "-i", NIC, "web1"]).done();
    for _ in 0..20 {
        if !outcome.err.contains("is not kept") {
            outcome = run(&["quarantine", "-i", NIC, "web1"]).done();
        }
    }
    assert!(outcome.err.contains("the audit event of this (quarantine) is not kept in "), "{outcome:#?}");
    assert!(outcome.err.contains("No space left on device"), "{outcome:#?}");
    assert_eq!(testbed.verdict("192.0.2.80", "198.51.100.99", "tcp/9").1, "quarantined");
    disk.empty();
    run(&["release", "-i", NIC, "web1"]).done();
    let said = run(&["show", "-i", NIC, "audit", "-j"]).done();
    assert_eq!(said.err, "", "half a line would be damaged");
    let words: Vec<_> =
        said.json().as_array().expect("a list").iter().map(|event| event["action"].clone()).collect();
    assert_eq!((&words[0], &words[words.len() - 1]), (&"attach".into(), &"release".into()));
    assert!(
        words[1..words.len() - 1].iter().all(|word| word == "quarantine") && words.len() < 22,
        "{words:?}"
    );

    let script = "mkdir -p /var/lib/portcullis && mount -t tmpfs -o ro tmpfs /var/lib/portcullis";
    let outcome =
        Running::start(behind(&testbed, script, &["quarantine", "-i", NIC, "web1"])).outcome().done();
    assert!(
        outcome.err.contains("is not kept in") && outcome.err.contains("ead-only file system"),
        "{outcome:#?}"
    );
    assert_eq!(testbed.verdict("192.0.2.80", "198.51.100.99", "tcp/9").1, "quarantined");
}

#[test]
fn a_daemon_whose_disk_takes_nothing_tells_what_it_does_all_the_same() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let script = "mkdir -p /var/lib/portcullis && mount -t tmpfs -o ro tmpfs /var/lib/portcullis";
    let mut daemon =
        crate::e2e::command::Daemon::start(behind(&testbed, script, &["run", "-i", NIC, "-p", &path]));
    daemon.wait_for_line(&["audit: daemon_start", "done by "]);
    daemon.wait_for_line(&["audit: attach", "done by "]);
    daemon.wait_for_line(&["warning", "is not kept"]);
    assert!(daemon.end(Signal::SIGTERM).success());
    assert_eq!(daemon.find(&["audit: daemon_stop"]).len(), 1, "{:#?}", daemon.said());
}

#[test]
fn a_file_that_is_damaged_in_the_middle_costs_the_events_that_it_hit() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    for _ in 0..3 {
        testbed.run("quarantine", &["web1"]).done();
    }
    let path = testbed.history().join("audit.jsonl");
    let mut bytes = fs::read(&path).expect("the file");
    let middle = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 20;
    bytes[middle..middle + 8].fill(0);
    fs::write(&path, &bytes).expect("the file");
    let said = testbed.run("show", &["audit", "-j"]).done();
    assert!(said.err.contains("1 line is damaged") && said.err.contains("1 event between"), "{said:#?}");
    let seqs: Vec<_> =
        said.json().as_array().expect("a list").iter().map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(1), Some(3), Some(4)]);
    let mut daemon = testbed.daemon(&dmz(), &[]);
    daemon.wait_for_line(&["1 of the lines in", "are damaged"]);
    daemon.wait_for_line(&["audit: daemon_start"]);
    assert_eq!(daemon.find(&["audit: quarantine web1"]).len(), 2, "{:#?}", daemon.said());
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn commands_at_once_each_keep_their_event() {
    let _machine = share_machine();
    let (testbed, paths, _tap) = stage();
    let before = testbed.audit().len();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (testbed, paths) = (&testbed, &paths);
            scope.spawn(move || match number % 4 {
                0 => testbed.run("quarantine", &["mx1"]).done(),
                1 => testbed.run("quarantine", &["192.0.2.25"]).done(),
                2 => testbed.run("quarantine", &["192.0.2.80"]).done(),
                _ => testbed.run("attach", &["-p", &paths[0]]).done(),
            });
        }
    });
    let events = testbed.audit();
    assert_eq!(events.len(), before + 8);
    let numbers: BTreeSet<_> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(numbers.iter().copied().eq(1..=events.len() as u64), "{numbers:?}");
}
