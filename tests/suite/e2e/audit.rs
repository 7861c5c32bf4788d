//! Audit events: who did what to the gate, reported by the daemon that runs or by the next one.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::Outcome;
use super::policies::{dmz, dmz_with};
use super::testbed::{NIC, Testbed, V4, share_machine};
use crate::support::patience::eventually;

impl Testbed {
    /// `show audit -j`.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        self.show("audit").as_array().expect("a list").clone()
    }

    /// Action, result and subject of each event, in words.
    #[track_caller]
    pub fn audited(&self) -> Vec<String> {
        self.audit().iter().map(show).collect()
    }
}

fn show(event: &Value) -> String {
    let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    [word("action"), word("result"), word("subject")].join(" ").trim().to_owned()
}

fn with_eve(testbed: &Testbed) -> (String, String) {
    let eve = testbed.folder.join("eve.json").display().to_string();
    (format!("{}\n[alarms]\neve = \"{eve}\"\n", dmz()), eve)
}

/// The audit events in an EVE file.
fn reported(eve: &str) -> Vec<Value> {
    let text = fs::read_to_string(eve).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines
        .filter(|line| line["event_type"] == "engine")
        .map(|line| line["portcullis"]["audit"].clone())
        .collect()
}

fn reported_words(eve: &str) -> Vec<String> {
    reported(eve).iter().map(show).collect()
}

#[test]
fn each_command_says_who_did_what_with_the_policy_before_and_after() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let bad = testbed.write("bad.toml", "[polcy]\n");
    // nothing is kept of a gate that never was
    testbed.run("attach", &["-p", &bad]).refused(&["error"]);
    assert!(!testbed.history().exists());
    testbed.run("show", &["audit"]).done();
    let mut command = testbed.router.prepare(&["attach", "-i", NIC, "-p", &path]);
    command.env("SUDO_USER", "ali\u{1b}ce\n").env("SSH_CONNECTION", "203.0.113.7 52000 192.0.2.1 22");
    Outcome::of(&mut command).done();
    testbed.run("apply", &[&bad]).refused(&["error"]);
    testbed.apply(&dmz_with("mode = \"observe\""));
    testbed.run("quarantine", &["web1", "--for", "1h"]).done();
    testbed.run("quarantine", &["nobody"]).refused(&["nobody"]);
    testbed.run("release", &["web1"]).done();
    testbed.run("attach", &["--fall-back", "-p", &bad]).refused(&["stays attached"]);
    testbed.detach();
    assert_eq!(
        testbed.audited(),
        [
            "attach done",
            "apply refused",
            "apply done",
            "quarantine done web1",
            "quarantine refused nobody",
            "release done web1",
            "fall_back done",
            "detach done"
        ]
    );
    let events = testbed.audit();
    for (number, event) in (1..).zip(&events) {
        assert_eq!(event["seq"], number, "{event:#}");
        assert_eq!((&event["interface"], &event["who"]["uid"]), (&NIC.into(), &0.into()), "{event:#}");
        assert!(
            event["who"]["pid"].as_u64() > Some(1) && event["who"]["parent"]["pid"].is_u64(),
            "{event:#}"
        );
        assert!(event["who"]["command"].as_str().expect("a text").contains("portcullis"), "{event:#}");
    }
    let generations =
        |event: &Value| (event["before"]["generation"].as_u64(), event["after"]["generation"].as_u64());
    assert_eq!(generations(&events[0]), (None, Some(1)));
    assert_eq!(
        (&events[0]["who"]["sudo_user"], &events[0]["who"]["ssh_client"]),
        (&"ali\u{1b}ce\n".into(), &V4.bastion.into())
    );
    assert_eq!(generations(&events[1]), (Some(1), Some(1)));
    assert!(events[1]["why"].as_str().expect("a reason").contains("errors in the policy"), "{}", events[1]);
    assert_eq!(generations(&events[2]), (Some(1), Some(2)));
    assert_ne!(events[2]["before"]["hash"], events[2]["after"]["hash"]);
    assert_eq!(events[3]["detail"], "for 1h");
    assert!(events[6]["detail"].as_str().expect("a text").contains("stays attached"), "{}", events[6]);
    assert_eq!(generations(&events[7]), (Some(2), None));
    // for people: nothing acts on a terminal, and the newest is last
    let text = testbed.run("show", &["audit"]).done().out;
    assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
    assert!(text.contains("by ali\\u{1b}ce\\u{a} from 203.0.113.7"), "{text}");
    assert!(text.lines().last().expect("a line").contains("audit: detach done"), "{text}");
    assert!(testbed.run("show", &["audit", "-j"]).done().out.lines().count() == 1);
    let none = testbed.run("show", &["audit", "--since", "2999-01-01"]).done().out;
    assert_eq!(none, "no such event\n");
    testbed.run("show", &["gates", "--since", "1h"]).refused(&["--since", "show audit"]);
}

#[test]
fn what_was_done_while_no_daemon_ran_is_reported_once_by_the_next_one() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (policy, eve) = with_eve(&testbed);
    testbed.attach(&policy);
    testbed.run("quarantine", &["web1"]).done();
    let mut daemon = testbed.daemon(&policy, &[]);
    let wanted = ["attach done", "quarantine done web1", "attach done", "daemon_start done"];
    eventually("they are reported", || reported_words(&eve).len() >= wanted.len());
    assert_eq!(reported_words(&eve), wanted);
    daemon.wait_for_line(&["audit: quarantine web1 done by ", "until it is released"]);
    // and what is done while it runs, at once
    testbed.run("release", &["web1"]).done();
    eventually("it is reported", || {
        reported_words(&eve).last().is_some_and(|last| last == "release done web1")
    });
    daemon.signal(Signal::SIGHUP);
    eventually("the reload is reported", || {
        reported_words(&eve).last().is_some_and(|last| last == "reload done")
    });
    assert!(daemon.end(Signal::SIGTERM).success());
    let seen = reported_words(&eve);
    assert_eq!(seen.last().map(String::as_str), Some("daemon_stop done"), "{seen:#?}");
    let mut daemon = testbed.daemon(&policy, &[]);
    assert!(daemon.end(Signal::SIGTERM).success());
    let all = reported(&eve);
    let numbers: Vec<u64> = all.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "each once, in order: {numbers:?}");
    assert_eq!(testbed.audit(), all, "what is kept is what is reported");
}

#[test]
fn a_daemon_that_is_killed_before_it_notes_what_it_reported_leaves_nothing_unreported() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (policy, eve) = with_eve(&testbed);
    for round in 0..4 {
        testbed.attach(&policy);
        testbed.run("quarantine", &["web1"]).done();
        let mut daemon = testbed.daemon(&policy, &[]);
        if round % 2 == 1 {
            let kept = testbed.audit().len();
            eventually("all is reported", || {
                let seqs: std::collections::BTreeSet<u64> =
                    reported(&eve).iter().filter_map(|event| event["seq"].as_u64()).collect();
                seqs.len() >= kept
            });
        }
        daemon.end(Signal::SIGKILL);
        testbed.run("release", &["web1"]).done();
    }
    let mut daemon = testbed.daemon(&policy, &[]);
    assert!(daemon.end(Signal::SIGTERM).success());
    let mut numbers: Vec<u64> = reported(&eve).iter().filter_map(|event| event["seq"].as_u64()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.iter().copied().eq(1..=testbed.audit().len() as u64), "{numbers:?}");
}

#[test]
fn a_follower_reads_what_is_done_to_the_gate_and_a_filter_for_alarms_leaves_it_out() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    let follow = |args: &[&str], name: &str| {
        let path = testbed.folder.join(name);
        let mut command = testbed.router.prepare(&[&["alarms", "-i", NIC, "--follow"], args].concat());
        command.stdout(fs::File::create(&path).expect("a file")).stderr(std::process::Stdio::null());
        (command.spawn().expect("the program"), path)
    };
    let (mut all, all_path) = follow(&[], "all.txt");
    let (mut json, json_path) = follow(&["-j"], "all.json");
    let (mut web, web_path) = follow(&["--server", "web1"], "web1.txt");
    let read = |path: &std::path::Path| fs::read_to_string(path).expect("a file");
    // until they are known to the daemon
    eventually("the followers read it", || {
        testbed.run("quarantine", &["web1", "--for", "1h"]).done();
        read(&all_path).contains("audit: quarantine web1 done by ") && read(&json_path).contains('\n')
    });
    let text = read(&json_path);
    let line: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&line["audit"]["interface"], line["line"].is_string()), (&NIC.into(), true), "{line:#}");
    testbed.send_from_web(super::traffic::FORBIDDEN, 1);
    assert!(daemon.end(Signal::SIGTERM).success());
    for child in [&mut all, &mut json, &mut web] {
        child.wait().expect("an end");
    }
    assert!(!read(&web_path).contains("audit"), "{}", read(&web_path));
}

#[test]
fn a_sink_that_fails_and_comes_back_and_a_filter_that_is_taken_off_are_reported() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let folder = testbed.folder.join("sinks");
    let ecs = folder.join("ecs.json");
    // a folder stands where the file should be
    fs::create_dir_all(&ecs).expect("a folder");
    let policy = format!("{}\n[alarms]\necs = \"{}\"\n", dmz(), ecs.display());
    let mut daemon = testbed.daemon(&policy, &[]);
    let has = |word: &str| testbed.audited().iter().any(|event| event.starts_with(word));
    eventually("the sink fails", || has("sink_failed done ecs "));
    fs::remove_dir(&ecs).expect("the folder");
    eventually("it is back", || has("sink_back done ecs "));
    testbed.remove_tracker();
    eventually("the change is reported", || {
        !daemon.find(&["audit: mode_change done", "no longer attached"]).is_empty()
    });
    assert!(daemon.end(Signal::SIGTERM).success());
    let text = fs::read_to_string(&ecs).expect("the file");
    assert!(text.contains("\"action\":\"sink_failed\"") && text.contains("portcullis.audit"), "{text}");
}

#[test]
fn the_report_has_what_was_done_beside_the_drops() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.prove_drops(&tap, 2);
    testbed.run("quarantine", &["web1", "--for", "1h"]).done();
    eventually("the drops are written", || testbed.reported() == 2);
    assert!(daemon.end(Signal::SIGTERM).success());
    let page = testbed.folder.join("page.html").display().to_string();
    let report = testbed.run("report", &["-o", &page, "-j"]).done().json();
    assert_eq!(report["audit"], testbed.audit().len(), "{report:#}");
    let page = fs::read_to_string(page).expect("the page");
    for words in ["Done to the gate", "quarantine web1", "class=\"done\"", "daemon_start"] {
        assert!(page.contains(words), "no `{words}`");
    }
}

#[test]
fn a_reload_that_somebody_types_is_theirs_and_one_of_a_signal_is_the_daemons() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    let mut command = testbed.router.prepare(&["reload", "-i", NIC]);
    command.env("SUDO_USER", "alice").env("SSH_CONNECTION", "203.0.113.7 52000 192.0.2.1 22");
    Outcome::of(&mut command).done();
    testbed.write("daemon.toml", "[polcy]\n");
    testbed.run("reload", &[]).refused(&["the policy is bad"]);
    let reloads = || {
        let mut events = testbed.audit();
        events.retain(|event| event["action"] == "reload");
        events
    };
    eventually("both are kept", || reloads().len() == 2);
    daemon.signal(Signal::SIGHUP);
    eventually("the one of the signal is kept", || reloads().len() == 3);
    let events = reloads();
    let who = |number: usize, key: &str| events[number]["who"][key].clone();
    assert_eq!(
        [who(0, "sudo_user"), who(0, "ssh_client")],
        [Value::from("alice"), V4.bastion.into()],
        "{events:#?}"
    );
    let of_daemon = Value::from(daemon.process());
    for (number, result) in [(0, "done"), (1, "refused")] {
        assert_eq!((&events[number]["result"], who(number, "uid")), (&result.into(), 0.into()));
        assert!(who(number, "pid").as_u64() > Some(1) && who(number, "pid") != of_daemon, "{events:#?}");
        assert!(who(number, "command").as_str().expect("a text").contains(" reload "), "{events:#?}");
    }
    assert_eq!(who(2, "pid"), of_daemon);
    assert!(who(2, "command").as_str().expect("a text").contains(" run "), "{events:#?}");
}
