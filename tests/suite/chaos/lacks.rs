//! What the kernel lacks: room in the bpffs, a bpffs at all, TCX.
//!
//! A bpffs has no size that could be used up; its inodes are the kernel's memory, and a full one is
//! a lack of that. Which pin meets it is chosen by `PORTCULLIS_NO_ROOM_AT`.

use std::process::Command;

use crate::e2e::command::{Daemon, Outcome, Running};
use crate::e2e::kills::find_twin;
use crate::e2e::policies::{dmz, dmz_with};
use crate::e2e::testbed::{NIC, Testbed, share_machine};

use super::fault_points::{MOST_POINTS, died, list_pins, load_step, prove_status, stage};

const NO_ROOM: [&str; 4] = ["could not", "No space left on device", "help:", "no room for another pin"];

/// Runs a command with settings of its environment.
fn run_with(testbed: &Testbed, settings: &[(&str, &str)], args: &[&str]) -> Outcome {
    let mut command = testbed.router.prepare(args);
    command.envs(settings.iter().copied());
    Running::start(command).outcome()
}

/// Runs a command for which the bpffs is full from the Nth pin or folder on.
fn without_room(testbed: &Testbed, number: usize, args: &[&str]) -> Outcome {
    run_with(testbed, &[("PORTCULLIS_NO_ROOM_AT", &number.to_string())], args)
}

#[test]
fn an_upgrade_without_room_for_a_pin_is_refused_and_the_old_policy_is_whole() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    let place = testbed.place();
    let whole = list_pins(&testbed);
    for number in 1..MOST_POINTS {
        let outcome = without_room(&testbed, number, &["attach", "-i", NIC, "-p", &paths[1]]);
        if outcome.code == Some(0) {
            eprintln!("attach on a gate: {} pins", number - 1);
            assert!(number > 3);
            assert_eq!(find_twin(&testbed, &place), 1);
            return;
        }
        outcome.refused(&NO_ROOM);
        assert_eq!(find_twin(&testbed, &place), 0, "pin {number}");
        assert_eq!(list_pins(&testbed), whole, "pin {number}");
        assert_eq!(testbed.show("status")["generation"], 1, "pin {number}");
        testbed.prove_drops(&tap, 1);
    }
    panic!("it never ran through");
}

#[test]
fn a_first_attach_or_a_daemon_without_room_for_a_pin_leaves_nothing_behind() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let tap = testbed.tap_internet();
    let nothing = |number: usize| {
        assert!(!testbed.pins().exists() && !testbed.has_xdp(), "pin {number}");
        assert!(list_pins(&testbed).is_empty(), "pin {number}");
        testbed.run("show", &["status"]).refused(&["no gate on dmz0", "help:"]);
    };
    without_room(&testbed, 1, &["run", "-i", NIC, "-p", &path]).refused(&NO_ROOM);
    nothing(1);
    // the last ones are the links'
    for number in (1..MOST_POINTS).step_by(load_step().min(4)) {
        let outcome = without_room(&testbed, number, &["attach", "-i", NIC, "-p", &path]);
        if outcome.code == Some(0) {
            eprintln!("first attach: at most {} pins and folders", number - 1);
            assert!(number > 30);
            testbed.prove_drops(&tap, 1);
            return;
        }
        outcome.refused(&NO_ROOM);
        nothing(number);
    }
    panic!("it never ran through");
}

#[test]
fn an_apply_that_needs_a_tracker_and_has_no_room_for_it_changes_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz_with("tracking = \"service\""));
    let (whole, before) = (list_pins(&testbed), testbed.show("policy"));
    let strict = testbed.write("strict.toml", &dmz());
    without_room(&testbed, 1, &["apply", "-i", NIC, &strict]).refused(&NO_ROOM);
    assert_eq!((list_pins(&testbed), testbed.show("policy")), (whole, before));
    let status = testbed.show("status");
    assert_eq!((&status["tracking"], &status["tracker"]), (&"service".into(), &"no".into()), "{status:#}");
    // one that fails for another reason removes what it attached
    let crowd: String = (0..90)
        .map(|number| format!("\n[servers.s{number}]\naddresses = [\"2001:db8:5::{number}\"]\n"))
        .collect();
    let crowd = testbed.write("crowd.toml", &format!("{}{crowd}", dmz()));
    testbed.run("apply", &[&crowd]).refused(&["help:"]);
    assert_eq!(testbed.show("status")["tracker"], "no");
    testbed.prove_drops(&tap, 1);
    testbed.run("apply", &[&strict]).done();
    testbed.prove_drops(&tap, 1);
}

#[test]
fn an_attach_that_cannot_pin_the_link_to_a_new_nic_names_the_programs_that_are_attached() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("policy.toml", &dmz());
    testbed.attach(&dmz());
    testbed.replace_cable();
    let generation = || testbed.show("status")["generation"].clone();
    // four programs, the tracker's link, then the filter's
    without_room(&testbed, 5, &["attach", "-i", NIC, "-p", &path]).refused(&NO_ROOM);
    assert_eq!(generation(), 1);
    let outcome = without_room(&testbed, 6, &["attach", "-i", NIC, "-p", &path]);
    outcome.refused(&[
        "generation 2 of the policy is live, but",
        "NOT ATTACHED: nothing is dropped",
        NO_ROOM[1],
        NO_ROOM[3],
    ]);
    assert_eq!(generation(), 2);
    assert!(!testbed.has_xdp());
    prove_status(&testbed, &tap);
    testbed.run("attach", &["-p", &path]).done();
    testbed.prove_drops(&tap, 1);
}

#[test]
fn a_daemon_that_cannot_attach_the_gate_again_says_why_once() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("policy.toml", &dmz());
    testbed.attach(&dmz());
    let mut command = testbed.router.prepare(&["run", "-i", NIC, "-p", &path]);
    command.env("PORTCULLIS_NO_ROOM_AT", "5");
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line(&["attached to dmz0: "]);
    testbed.replace_cable();
    daemon.wait_for_line(&["no longer attached (was"]);
    daemon.wait_for_line(&["warning", NO_ROOM[0], NO_ROOM[1]]);
    // another command has room
    testbed.run("attach", &["-p", &path]).done();
    daemon.wait_for_line(&["attached to dmz0 again: native"]);
    testbed.prove_drops(&tap, 1);
    assert_eq!(daemon.find(&[NO_ROOM[0]]).len(), 1, "{:#?}", daemon.said());
    assert!(daemon.end(nix::sys::signal::Signal::SIGTERM).success());
}

// ---- no bpffs ------------------------------------------------------------------------------

#[test]
fn an_attach_that_dies_before_or_after_it_mounts_a_bpffs_does_not_block_the_next() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    // a machine of its own as far as mounts and processes go, without a bpffs
    let script = r#"
        set -eu
        while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf; done
        die() { PORTCULLIS_DIE_AT=$1 nsenter "$NETNS" -- "$PROGRAM" attach -i dmz0 -p "$POLICY" && exit 9 || true; }
        die 1; mountpoint -q /sys/fs/bpf && exit 8
        die 2; mountpoint -q /sys/fs/bpf || exit 7
        nsenter "$NETNS" -- "$PROGRAM" attach -i dmz0 -p "$POLICY"
        nsenter "$NETNS" -- "$PROGRAM" show -i dmz0 status -j
        nsenter "$NETNS" -- "$PROGRAM" detach -i dmz0
        [ -z "$(find /sys/fs/bpf -mindepth 1 ! -name "*.debug")" ] || exit 6
    "#;
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--propagation",
        "private",
        "bash",
        "-c",
        script,
    ]);
    command.env("NETNS", format!("--net=/run/netns/{}", testbed.router.name()));
    command.env("PROGRAM", env!("CARGO_BIN_EXE_portcullis")).env("POLICY", &path);
    let outcome = Running::start(command).outcome().done();
    assert!(
        outcome.out.contains(r#""attached":"native""#) || outcome.out.contains(r#""attached": "native""#),
        "{outcome:#?}"
    );
    assert!(!testbed.has_xdp() && !testbed.pins().exists());
}

// ---- no TCX --------------------------------------------------------------------------------

const OLD: (&str, &str) = ("PORTCULLIS_NO_TCX", "1");

/// Filters at clsact egress that are ours.
fn has_filter(testbed: &Testbed) -> bool {
    let output =
        testbed.router.command("tc").args(["filter", "show", "dev", NIC, "egress"]).output().expect("tc");
    String::from_utf8_lossy(&output.stdout).contains("bpf")
}

#[test]
fn commands_that_die_around_clsact_leave_a_gate_or_none_and_the_next_works() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let (strict, service) = (dmz(), dmz_with("tracking = \"service\""));
    let paths = [testbed.write("strict.toml", &strict), testbed.write("service.toml", &service)];
    let old = |args: &[&str]| run_with(&testbed, &[OLD], args);
    let die = |point: usize, args: &[&str]| {
        run_with(&testbed, &[OLD, ("PORTCULLIS_DIE_AT", &point.to_string())], args)
    };

    let mut through = 0;
    for point in (1..MOST_POINTS).step_by(load_step()) {
        if !died(&die(point, &["attach", "-i", NIC, "-p", &paths[0]]), point) {
            through = point;
            break;
        }
        prove_status(&testbed, &tap);
        old(&["attach", "-i", NIC, "-p", &paths[0]]).done();
        assert_eq!(testbed.show("status")["tracker"], "clsact", "point {point}");
        testbed.prove_drops(&tap, 1);
        testbed.detach();
        assert!(!testbed.pins().exists() && !testbed.has_xdp() && !has_filter(&testbed), "point {point}");
    }
    eprintln!("first attach with clsact: at most {} points", through - 1);
    assert!(through > 50);

    // there and back, by policies that need the tracker and that do not
    for (from, to) in [(1, 0), (0, 1)] {
        let mut through = 0;
        for point in 1..MOST_POINTS {
            old(&["apply", "-i", NIC, &paths[from]]).done();
            assert_eq!(has_filter(&testbed), from == 0, "point {point}");
            if !died(&die(point, &["apply", "-i", NIC, &paths[to]]), point) {
                through = point;
                break;
            }
            let status = testbed.show("status");
            // strict tracking is never without its tracker
            assert!(
                status["tracking"] == "service" || status["tracker"] == "clsact",
                "point {point}: {status:#}"
            );
            if point % 4 == 0 {
                testbed.prove_drops(&tap, 1);
            }
        }
        assert_eq!(has_filter(&testbed), to == 0);
        eprintln!("apply with clsact: {} points", through - 1);
        assert!(through > 15);
    }

    old(&["apply", "-i", NIC, &paths[0]]).done();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        if !died(&die(point, &["detach", "-i", NIC]), point) {
            eprintln!("detach with clsact: at most {} points", point - 1);
            assert!(point > 20 && !has_filter(&testbed));
            return;
        }
        prove_status(&testbed, &tap);
        testbed.detach();
        assert!(!testbed.pins().exists() && !testbed.has_xdp() && !has_filter(&testbed), "point {point}");
        old(&["attach", "-i", NIC, "-p", &paths[0]]).done();
        testbed.prove_drops(&tap, 1);
    }
    panic!("it never ran through");
}
