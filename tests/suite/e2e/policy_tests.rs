//! A policy of which a test fails is refused wherever it would become live.

use std::fs;

use nix::sys::signal::Signal;

use super::command::Daemon;
use super::policies::dmz;
use super::testbed::{NIC, Testbed, share_machine};

const GOOD: &str = "[[tests]]\nfrom = \"web1\"\ndeny = [\"tcp/80\"]\n\
                    [[tests]]\nfrom = \"198.51.100.99\"\nto = \"web1\"\naccept = [\"tcp/80\", \"tcp/443\"]\nonly = true\n";

/// The policy of most tests, whose own tests pass.
fn good() -> String {
    format!("{}{GOOD}", dmz())
}

/// The same, with a need that its first test forbids; the line of that need, and of the test's.
fn bad() -> (String, usize, usize) {
    let text = good().replacen(
        "in = [\"tcp/80\", \"tcp/443\"]",
        "in = [\"tcp/80\", \"tcp/443\"]\nout = [\"tcp/80\"]",
        1,
    );
    let line = |words: &str| text.lines().position(|line| line == words).expect("a line") + 1;
    let lines = (line("out = [\"tcp/80\"]"), line("deny = [\"tcp/80\"]"));
    (text, lines.0, lines.1)
}

#[test]
fn a_policy_of_which_a_test_fails_is_refused_everywhere_and_the_live_one_stays() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (text, need, test) = bad();
    let path = testbed.write("bad.toml", &text);
    let words = [
        "1 of 2 tests failed",
        &format!("{path}:{test}:10: the test of web1 failed"),
        "expected drop",
        "got      pass: need",
        &format!("decided  {path}:{need}  tcp/80 of web"),
    ];
    for command in ["attach", "run"] {
        testbed.run(command, &["-p", &path]).refused(&words);
        assert!(!testbed.has_xdp(), "{command}");
    }
    testbed.attach(&good());
    let tap = testbed.tap_internet();
    testbed.run("attach", &["-p", &path]).refused(&words);
    testbed.run("apply", &[&path]).refused(&words).refused(&["Nothing was changed."]);
    let json = testbed.run("apply", &["-j", &path]);
    assert_eq!(json.code, Some(1));
    assert_eq!(json.json()["failed"], 1);
    assert_eq!(testbed.show("status")["generation"], 1);
    assert_eq!(testbed.run("show", &["policy"]).done().out, good());
    testbed.prove_drops(&tap, 2);

    // in observe as well
    testbed.attach(&good().replacen("pickup = 0", "pickup = 0\nmode = \"observe\"", 1));
    assert_eq!(testbed.show("status")["generation"], 2);
}

#[test]
fn a_reload_refuses_a_policy_of_which_a_test_fails_with_an_alarm_and_takes_it_once_it_is_mended() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", &good());
    let mut daemon = Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &path]));
    daemon.wait_for_line(&["attached to"]);
    fs::write(&path, bad().0).expect("a file");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["1 of 2 tests failed"]);
    daemon.wait_for_line(&["the live policy stays as it was"]);
    daemon.wait_for_line(&["critical", "gate"]);
    assert_eq!(testbed.show("status")["generation"], 1);
    fs::write(&path, format!("{}# mended\n", good())).expect("a file");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["generation 2 is live"]);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn with_fall_back_a_failed_test_is_a_refused_policy() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("dmz0.toml", &good());
    testbed.run("attach", &["--fall-back", "-p", &path]).done();
    testbed.reboot();
    fs::write(&path, bad().0).expect("a file");
    testbed.run("attach", &["--fall-back", "-p", &path]).refused(&[
        "tests failed",
        "last confirmed policy",
        &path,
    ]);
    testbed.prove_drops(&tap, 2);
    testbed.reboot();
    let mut daemon = Daemon::start(testbed.router.prepare(&["run", "--fall-back", "-i", NIC, "-p", &path]));
    daemon.wait_for_line(&["1 of 2 tests failed", "last confirmed policy"]);
    testbed.prove_drops(&tap, 2);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn the_command_tells_failures_from_trouble_and_touches_no_gate() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let good = testbed.write("good.toml", &good());
    let bad_path = testbed.write("bad.toml", &bad().0);
    let wrong = testbed.write("wrong.toml", "[polcy]\n");
    let test = |files: &[&str]| testbed.router.portcullis(&[&["test"], files].concat());
    let said = test(&[&good]).done();
    assert!(said.out.contains("good.toml: 2 tests passed"), "{said:#?}");
    assert!(!testbed.pins().exists() && !testbed.has_xdp());
    assert_eq!(test(&[&bad_path]).code, Some(1));
    assert_eq!(test(&[&wrong]).code, Some(2));
    let all = test(&[&wrong, &bad_path, &good]);
    assert_eq!(all.code, Some(2), "{all:#?}");
    assert!(all.out.contains("1 of 2 tests failed") && all.out.contains("2 tests passed"), "{all:#?}");
    let report = test(&["-j", &bad_path]).json();
    assert_eq!((&report["passed"], &report["failed"]), (&1.into(), &1.into()));
    let failure = &report["tests"][0]["failures"][0];
    assert_eq!(
        (&failure["kind"], &failure["verdict"], &failure["reason"]),
        (&"deny".into(), &"pass".into(), &"need".into())
    );
    assert_eq!(failure["packet"]["service"], "tcp/80");
    // the same in a user's hands
    let without = testbed.write("without.toml", &dmz());
    assert!(test(&[&without]).done().err.contains("has no tests"));
}
