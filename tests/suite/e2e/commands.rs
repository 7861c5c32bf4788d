//! What the commands say and do, on real traffic.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::command::Running;
use super::policies::{dmz, dmz_with, dmz_with_web, twin};
use super::socket::{ARRIVES, NEVER, TcpServer, tcp_talks};
use super::testbed::{FAMILIES, NIC, Testbed, V4, V6, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::patience::eventually;

/// The keys of an object, all of them.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[track_caller]
fn has_keys(value: &Value, wanted: &[&str]) {
    for key in wanted {
        assert!(value.get(key).is_some(), "no `{key}` among {:?}", keys(value));
    }
}

#[test]
fn gates_on_nics_of_one_name_in_two_namespaces_are_independent() {
    let _machine = share_machine();
    let (one, two) = (Testbed::new(), Testbed::new());
    let observing = dmz_with("mode = \"observe\"");
    one.attach(&dmz());
    two.attach(&observing);
    assert_ne!(one.pins(), two.pins());
    let (tap_one, tap_two) = (one.tap_internet(), two.tap_internet());
    one.prove_drops(&tap_one, 4);
    two.prove_passes(&tap_two, 4);
    assert_eq!(one.run("show", &["policy"]).done().out, dmz());
    assert_eq!(two.run("show", &["policy"]).done().out, observing);
    assert!(one.drops().iter().all(|row| row.0["would_drop"] == false));

    two.detach();
    assert!(!two.pins().exists());
    one.prove_drops(&tap_one, 4);
    one.detach();
    assert!(!one.pins().exists());
}

#[test]
fn detach_removes_the_gate_at_once_and_leaves_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    for _ in 0..10 {
        testbed.attach(&dmz());
        let detached = testbed.run("detach", &["-j"]).done().json();
        assert_eq!(detached, json!({ "interface": NIC, "detached": true, "quarantines": [], "edits": [] }));
        // "nothing is dropped any more" is true from now on
        assert!(!testbed.has_xdp(), "the program is still on the NIC when detach has ended");
        assert!(!testbed.pins().exists(), "pins are left");
        testbed.prove_passes(&tap, 1);
    }
    let again = testbed.run("detach", &["-j"]).done().json();
    assert_eq!(again, json!({ "interface": NIC, "detached": false, "quarantines": [], "edits": [] }));
    assert!(testbed.detach().out.contains("there was no gate"));
    testbed.run("show", &["status"]).refused(&["there is no gate on dmz0", "help: portcullis attach"]);
}

#[test]
fn a_bad_policy_is_refused_whole_with_its_lines_while_the_live_one_stays() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    let bad = dmz().replacen("tcp/443", "tcp/99999", 1).replacen("\"managed\"]", "\"manged\"]", 1);
    let path = testbed.write("bad.toml", &bad);
    let line = |word: &str| bad.lines().position(|line| line.contains(word)).expect("a line") + 1;
    // 1 of `diff` says that the two differ
    for (command, status) in [("apply", 1), ("diff", 2)] {
        let refused = testbed.run(command, &[&path]).failed(
            status,
            &[
                &format!("{path}:{}:", line("tcp/99999")),
                &format!("{path}:{}:", line("manged")),
                "did you mean",
                "2 errors in the policy. Nothing was changed.",
            ],
        );
        assert!(refused.out.is_empty());
    }
    for command in ["attach", "run"] {
        testbed
            .run(command, &["-p", &path])
            .refused(&[&format!("{path}:{}:", line("manged")), "Nothing was changed."]);
    }
    testbed.router.portcullis(&["check", &path]).refused(&[&format!("{path}:{}:", line("tcp/99999"))]);
    assert_eq!(testbed.run("show", &["policy"]).done().out, dmz());
    assert_eq!(testbed.show("status")["generation"], 1);
    testbed.prove_drops(&tap, 2);

    // and a file that is not there
    testbed.run("apply", &["/nonexistent/policy.toml"]).refused(&["/nonexistent/policy.toml"]);
    assert_eq!(testbed.show("status")["generation"], 1);
}

#[test]
fn diff_reports_a_difference_by_its_status_and_apply_prints_what_it_changes() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let same = testbed.write("same.toml", &format!("# a remark\n{}", dmz()));
    let outcome = testbed.run("diff", &[&same]).done();
    assert_eq!(outcome.out, "");
    let other = testbed.write("other.toml", &dmz_with_web(r#""tcp/80", "tcp/8443""#));
    let outcome = testbed.run("diff", &[&other]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let changes = ["+ web1 may accept tcp/8443", "- web1 may no longer accept tcp/443"];
    assert!(changes.iter().all(|change| outcome.out.contains(change)), "{outcome:#?}");
    assert_eq!(testbed.show("status")["generation"], 1, "diff changes nothing");

    let applied = testbed.run("apply", &[&other]).done();
    assert!(changes.iter().all(|change| applied.out.contains(change)), "{applied:#?}");
    assert!(applied.out.contains("generation 2 is live on dmz0"));
    testbed.run("diff", &[&other]).done();
    assert_eq!(testbed.run("diff", &[&same, "-j"]).code, Some(1));

    // the very same once more changes nothing, and says so
    let outcome = testbed.run("apply", &[&other]).done();
    assert!(outcome.out.contains("live on dmz0 already, as generation 2: nothing changed"), "{outcome:#?}");
    let outcome = testbed.run("apply", &[&other, "-j"]).done().json();
    assert_eq!((&outcome["unchanged"], &outcome["generation"]), (&json!(true), &json!(2)));
    assert_eq!(testbed.show("status")["generation"], 2);
    // unless the tracker is missing, which an apply puts back
    testbed.remove_tracker();
    eventually("the tracker is off", || testbed.show("status")["tracker"] == "no");
    testbed.run("apply", &[&other]).done();
    assert_ne!(testbed.show("status")["tracker"], "no");

    // a quarantine is in no file, so it is a difference
    testbed.run("quarantine", &["web1"]).done();
    let outcome = testbed.run("diff", &[&other]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.out.contains("web1 is in quarantine"), "{outcome:#?}");
    testbed.run("release", &["web1"]).done();
    testbed.run("diff", &[&other]).done();

    // an empty command line and an unknown subject are wrong usage
    assert_eq!(testbed.router.portcullis(&["apply", "-i", NIC]).code, Some(2));
    assert_eq!(testbed.run("show", &["nothing"]).code, Some(2));
}

#[test]
fn the_live_policy_is_printed_as_a_file_that_can_be_applied() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let printed = testbed.run("show", &["policy"]).done().out;
    assert_eq!(printed, dmz());
    testbed.apply(&twin(0));
    let path = testbed.write("printed.toml", &printed);
    testbed.run("apply", &[&path]).done();
    assert_eq!(testbed.run("show", &["policy"]).done().out, printed);
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/443").0, "pass");
    has_keys(&testbed.show("policy"), &["file", "policy"]);

    // longer than a piece of it in the kernel, and not a multiple of one
    let long = format!("{printed}\n# {}\n", "x".repeat(3 * 4096 - 7));
    testbed.apply(&long);
    assert_eq!(testbed.run("show", &["policy"]).done().out, long);
    let starter = testbed.router.portcullis(&["init"]).done().out;
    testbed.apply(&starter);
    assert_eq!(testbed.run("show", &["policy"]).done().out, starter);
}

#[test]
fn json_output_has_the_documented_keys() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.send_from_web(FORBIDDEN, 1);
    eventually("the drop is counted", || testbed.drops().len() == 1);
    let status = testbed.show("status");
    has_keys(
        &status,
        &[
            "interface",
            "attached",
            "enforcing",
            "tracking",
            "generation",
            "policy_hash",
            "servers",
            "events_lost",
        ],
    );
    assert_eq!(
        (&status["interface"], &status["servers"], &status["events_lost"]),
        (&NIC.into(), &3.into(), &0.into())
    );
    assert_eq!(status["policy_hash"].as_str().map(str::len), Some(64));
    let row = &testbed.drops()[0].0;
    has_keys(
        row,
        &[
            "server",
            "address",
            "proto",
            "port",
            "reason",
            "packets",
            "bytes",
            "first",
            "last",
            "last_destination",
        ],
    );
    assert_eq!((&row["server"], &row["address"]), (&"web1".into(), &V4.web.into()));
    assert_eq!((&row["proto"], &row["port"], &row["packets"]), (&"udp".into(), &FORBIDDEN.into(), &1.into()));
    // Ethernet, IPv4, UDP and three bytes
    assert_eq!((&row["bytes"], &row["last_destination"]), (&45.into(), &V4.peer.into()));

    let line = |word: &str| dmz().lines().position(|line| line.contains(word)).expect("a line") + 1;
    let file = testbed.folder.join("policy.toml").display().to_string();
    let answer = testbed.explain(V4.mail, V4.exchanger, "tcp/25");
    has_keys(&answer, &["verdict", "reason", "server", "need", "source"]);
    assert_eq!((&answer["verdict"], &answer["reason"]), (&"pass".into(), &"need".into()));
    assert_eq!((&answer["server"], &answer["need"]), (&"mx1".into(), &"tcp/25".into()));
    assert_eq!(answer["source"], format!("{file}:{}", line(r#"out = ["tcp/25", "tcp/113"]"#)));
    let answer = testbed.explain(V6.web, V6.peer, "tcp/80");
    assert_eq!((&answer["verdict"], &answer["reason"]), (&"drop".into(), &"new_flow".into()));
    assert_eq!(testbed.verdict(V4.web, V4.peer, "udp/514"), ("drop".into(), "destination".into()));
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/80"), ("pass".into(), "reply".into()));
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/22"), ("drop".into(), "stranger".into()));
    assert_eq!(testbed.drops().len(), 1, "a question is not counted");
    assert_eq!(testbed.show("flows"), json!([]));
    let servers = testbed.show("servers");
    assert!(servers.to_string().contains("web1"), "{servers:#}");
}

#[test]
fn a_quarantined_server_answers_its_management_and_nobody_else() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _servers = [22, 80].map(|port| TcpServer::start(&testbed.dmz, port));
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    let (web, mail) = (ip(V4.web), ip(V4.mail));
    let visit = |wait| {
        FAMILIES.map(|family| {
            let target = SocketAddr::new(ip(family.web), 80);
            tcp_talks(&testbed.internet, ip(family.peer), target, wait)
        })
    };
    let log_in =
        |server, wait| tcp_talks(&testbed.internet, ip(V4.bastion), SocketAddr::new(server, 22), wait);
    let quarantined = || {
        let rows = testbed.drops();
        let ours = rows.iter().filter(|row| row.0["reason"] == "quarantined");
        ours.map(super::command::Row::packets).sum::<u64>()
    };
    assert_eq!(visit(ARRIVES), [true, true]);

    let said = testbed.run("quarantine", &["web1"]).done();
    assert!(said.out.contains("release -i dmz0 web1"), "{said:#?}");
    testbed.catch_up(&tap);
    let before = tap.count(|one| one.source == web && one.source_port == 80);
    assert_eq!(visit(NEVER), [false, false]);
    eventually("its answers are counted", || quarantined() >= 2);
    testbed.send_from_web(FORBIDDEN, 2);
    // what it may else: its own clock
    let sent = testbed.tap_dmz();
    testbed.send_from_web(123, 2);
    eventually("the server has sent", || sent.count_to(web, super::tap::UDP, 123) == 2);
    eventually("they are counted", || quarantined() >= 6);
    testbed.catch_up(&tap);
    assert_eq!(tap.count(|one| one.source == web && one.source_port == 80), before);
    assert!(log_in(web, ARRIVES), "management stays open");
    assert!(log_in(mail, ARRIVES));
    assert_eq!(testbed.show("status")["quarantined"], json!(["web1"]));
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/80"), ("drop".into(), "quarantined".into()));
    assert_eq!(testbed.verdict(V4.exchanger, V4.mail, "tcp/25").0, "pass", "another server");

    // another policy does not end it
    testbed.apply(&dmz_with_web(r#""tcp/80""#));
    assert_eq!(visit(NEVER), [false, false]);
    testbed.run("release", &["web1"]).done();
    assert_eq!(visit(ARRIVES), [true, true]);
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
    assert!(testbed.run("release", &["web1"]).done().out.contains("was not in quarantine"));

    // for a time: it ends by itself, without a daemon
    testbed.run("quarantine", &["web1", "--for", "2s"]).done();
    assert_eq!(testbed.verdict(V4.peer, V4.web, "tcp/80").1, "quarantined");
    eventually("the quarantine is over", || testbed.verdict(V4.peer, V4.web, "tcp/80").0 == "pass");
    assert_eq!(visit(ARRIVES), [true, true]);
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
    testbed.run("quarantine", &["wbe1"]).refused(&["no server is called `wbe1`", "did you mean `web1`"]);
}

#[test]
fn two_writers_wait_for_each_other() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let paths = [testbed.write("0.toml", &twin(0)), testbed.write("1.toml", &twin(1))];
    let mut before = 1;
    for _ in 0..10 {
        let writers = [0, 1]
            .map(|which| Running::start(testbed.router.prepare(&["apply", "-i", NIC, &paths[which], "-j"])));
        let mut generations: Vec<u64> = writers
            .into_iter()
            .map(|writer| writer.outcome().done().json()["generation"].as_u64().expect("a number"))
            .collect();
        let last = usize::from(generations[1] > generations[0]);
        generations.sort_unstable();
        // the first may find its policy live
        assert!(generations[0] == before || generations[0] == before + 1, "{generations:?} after {before}");
        assert_eq!(generations[1], generations[0] + 1, "each has a generation of its own");
        before = generations[1];
        assert_eq!(testbed.run("show", &["policy"]).done().out, twin(last), "the later one is live");
    }
}
