//! Trials, edits, quarantines, tests and audit events together: what one of them leaves to the next.

use nix::sys::signal::Signal;
use portcullis::abi::layout;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::fallbacks::set_layout;
use super::policies::{dmz, dmz_with};
use super::testbed::{Testbed, V4, share_machine};

/// The policy without its web server.
fn without_web() -> String {
    let text = dmz();
    let begin = text.find("[servers.web1]").expect("the server");
    let end = text[begin + 1..].find("\n[").expect("another table") + begin + 1;
    format!("{}{}", &text[..begin], &text[end..])
}

/// The numbers of the policies before and after an event.
fn generations(event: &Value) -> [&Value; 2] {
    [&event["before"]["generation"], &event["after"]["generation"]]
}

#[test]
fn each_command_after_a_trial_tells_of_the_way_back_first() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let commands: [&[&str]; 6] = [
        &["quarantine", "mx1"],
        &["release", "mx1"],
        &["allow", "web1", "out", "tcp/443", "--for", "1h"],
        &["deny", "web1", "in", "tcp/80", "--for", "1h"],
        &["pickup", "--for", "10s"],
        &["detach"],
    ];
    for (number, command) in commands.iter().enumerate() {
        testbed.try_policy(&dmz_with(&format!("# trial {number}\n")), "1h").done();
        testbed.let_trial_pass();
        testbed.run(command[0], &command[1..]).done();
        let events = testbed.audit();
        let [back, last] = &events[events.len() - 2..] else { panic!("{events:#?}") };
        assert_eq!((&back["action"], &last["action"]), (&"way_back".into(), &command[0].into()), "{back:#}");
        assert_eq!(generations(back), [&Value::from(number + 2), &Value::from(1)]);
        assert_eq!(last["before"]["generation"], 1, "{last:#}");
    }
}

#[test]
fn whoever_reads_the_audit_events_after_a_trial_reads_of_the_way_back_once() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.try_policy(&without_web(), "1h").done();
    testbed.let_trial_pass();
    for _ in 0..2 {
        assert_eq!(testbed.audited(), ["attach done", "apply done", "way_back done"]);
    }
    let said = testbed.run("show", &["audit"]).done().out;
    let line = said.lines().find(|line| line.contains("way_back")).expect("a line");
    assert!(line.contains("way_back done, noticed by root") && line.contains("generation 2 to 1"), "{line}");
}

#[test]
fn an_edit_that_is_refused_or_can_t_be_cancelled_leaves_an_event_that_says_what_was_asked_for() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let note = ["--for", "1h", "--note", "a slip"];
    testbed
        .run("allow", &[&["nobody", "out", "tcp/443 to 198.51.100.80"], &note[..]].concat())
        .refused(&["nobody"]);
    testbed.run("allow", &["--cancel", "7"]).refused(&["there is no edit 7"]);
    assert_eq!(testbed.audited(), ["attach done", "allow refused nobody", "allow refused"]);
    let events = testbed.audit();
    let word = |index: usize, key: &str| events[index][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (word(1, "detail"), word(1, "note")),
        ("out tcp/443 to 198.51.100.80".to_owned(), note[3].to_owned())
    );
    assert_eq!(word(2, "detail"), "cancel edit 7");
    for event in &events[1..] {
        assert_eq!(generations(event), [&Value::from(1), &Value::from(1)], "nothing was changed");
    }
}

#[test]
fn no_deny_during_a_trial_locks_the_management_out_after_the_way_back() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let locked = dmz().replacen("management = [\"tcp/22 from @bastion\"]\n", "", 1);
    testbed.try_policy(&locked, "1h").done();
    let denial = ["web1", "in", "tcp/22", "--for", "1h"];
    testbed.run("deny", &denial).refused(&["denies what the management needs", "tcp/22 from @bastion"]);
    testbed.run("deny", &[&denial[..], &["--force"]].concat()).done();
    testbed.run("confirm", &[]).done();
    // nothing goes back any more
    testbed.run("deny", &["mx1", "in", "tcp/22", "--for", "1h"]).done();
}

#[test]
fn edits_whose_server_goes_live_through_a_trial_and_end_aloud_with_its_confirmation() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).done();
    let count = || testbed.show("edits").as_array().expect("a list").len();
    testbed.try_policy(&without_web(), "1h").done();
    testbed.let_trial_pass();
    assert_eq!(testbed.verdict(V4.web, V4.peer, "tcp/443").0, "pass", "it lives again");
    testbed.run("pickup", &["--for", "1s"]).done();
    assert_eq!(count(), 1);
    testbed.try_policy(&without_web(), "1h").done();
    let said = testbed.run("confirm", &[]).done().out;
    assert!(said.contains("! edit 1 ends, for this policy has no web1"), "{said}");
    assert_eq!(count(), 0);
    testbed.apply(&dmz());
    assert_eq!(testbed.verdict(V4.web, V4.peer, "tcp/443").0, "drop", "it does not come back with the name");
}

#[test]
fn an_attach_and_a_reload_say_which_edits_end() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let path = testbed.write("less.toml", &without_web());
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).done();
    let said = testbed.run("attach", &["-p", &path]).done().err;
    assert!(said.contains("edit 1 ends, for this policy has no web1"), "{said}");
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).done();
    testbed.write("daemon.toml", &without_web());
    let said = testbed.run("reload", &[]).done().out;
    assert!(said.contains("edit 2 ends, for this policy has no web1"), "{said}");
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_trial_whose_time_is_set_anew_keeps_its_connections_and_its_note() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let strict = dmz().replacen("pickup = 0\n", "pickup = 30\n", 1);
    testbed.attach(&strict);
    let service = strict.replacen("pickup = 30\n", "pickup = 30\ntracking = \"service\"\n", 1);
    let service = testbed.write("trial.toml", &service);
    let left = || testbed.show("status")["pickup_s"].as_u64().expect("seconds");
    testbed.run("apply", &[&service, "--confirm", "1m", "--force"]).done();
    assert!((61..=91).contains(&left()), "{}", left());
    testbed.run("apply", &[&service, "--confirm", "1h", "--note", "longer"]).done();
    assert!((3_601..=3_631).contains(&left()), "{}", left());
    let events = testbed.audit();
    assert_eq!(events.last().expect("an event")["note"], "longer");
}

#[test]
fn a_rollback_to_a_policy_whose_tests_fail_is_done_and_warns() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let failing = format!("{}\n[[tests]]\nfrom = \"web1\"\naccept = [\"tcp/4711 to 198.51.100.9\"]\n", dmz());
    testbed.attach(&dmz());
    // as an earlier version, or other programs, may have left it
    let policies = testbed.history().join("policies");
    let kept = std::fs::read_to_string(policies.join("1.toml")).expect("a policy");
    let (head, _) = kept.split_once('\n').expect("a head");
    let hash: String = Sha256::digest(&failing).iter().map(|byte| format!("{byte:02x}")).collect();
    let begin = head.find("\"hash\":\"").expect("a hash") + 8;
    let head = format!("{}{}{}", &head[..begin], hash, &head[begin + 64..]);
    std::fs::write(policies.join("1.toml"), format!("{head}\n{failing}")).expect("a file");
    testbed.apply(&format!("# another\n{}", dmz()));
    let said = testbed.run("rollback", &[]).done();
    assert!(said.err.contains("it is live again, although an apply would refuse it"), "{said:#?}");
    assert_eq!(testbed.run("show", &["policy"]).done().out, failing);
}

#[test]
fn an_attach_of_the_units_during_a_trial_is_refused_and_nobody_falls_back() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", &dmz());
    testbed.attach(&dmz());
    testbed.try_policy(&without_web(), "1h").done();
    let refused =
        testbed.run("attach", &["--fall-back", "-p", &path]).refused(&["on trial", "stays attached"]);
    assert!(!refused.err.contains("repair"), "{refused:#?}");
    assert_eq!(testbed.audited(), ["attach done", "apply done", "attach refused"]);
}

#[test]
fn a_detach_says_which_edits_come_back_and_explain_names_an_edit_as_why() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).done();
    let said = testbed.run("explain", &["--from", "web1", "--to", V4.peer, "tcp/443"]).done().out;
    assert!(said.contains("somebody has allowed it by hand"), "{said}");
    let said = testbed.run("detach", &[]).done().out;
    assert!(said.contains("the next attach puts back edit 1: allow web1 out tcp/443 for "), "{said}");
    assert!(testbed.attach(&dmz()).out.contains("as before: edit 1"));
    let said = testbed.run("detach", &["-j"]).done().json();
    assert_eq!(said["edits"], serde_json::json!(["allow web1 out tcp/443"]));
    assert_eq!(testbed.run("detach", &["-j"]).done().json()["edits"], serde_json::json!([]));
}

#[test]
fn edits_live_on_in_a_gate_that_is_made_anew_for_its_layout() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", &dmz());
    testbed.attach(&dmz());
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).done();
    set_layout(&testbed, u64::from(layout::LAYOUT_VERSION.0) - 1);
    let said = testbed.run("attach", &["-p", &path]).done();
    assert!(said.out.contains("as before: edit 1") && said.err.contains("made anew"), "{said:#?}");
    assert_eq!(testbed.verdict(V4.web, V4.peer, "tcp/443").0, "pass");
    let next = testbed.run("deny", &["web1", "in", "tcp/80", "--for", "1h"]).done().out;
    assert!(next.contains("edit 2: deny web1"), "{next}");
}

#[test]
fn a_daemon_whose_policy_is_refused_leaves_one_event() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.detach();
    let bad = testbed.write("bad.toml", "[polcy]\n");
    testbed.run("run", &["-p", &bad]).refused(&["error"]);
    assert_eq!(testbed.audited(), ["attach done", "detach done", "attach refused"]);
}
