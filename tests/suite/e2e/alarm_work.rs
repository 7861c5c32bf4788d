//! What people say about alarms: acknowledged, silenced, and what of it outlives the daemon.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::Daemon;
use super::policies::dmz;
use super::socket::{NEVER, connect};
use super::testbed::{NIC, Testbed, V4, ip, share_machine};
use crate::support::chance::Chance;
use crate::support::patience::eventually;

fn start(testbed: &Testbed, more: &str) -> Daemon {
    let policy = testbed.write("policy.toml", &format!("{}{more}", dmz()));
    let daemon = Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &policy]));
    daemon.wait_for_line(&["attached to dmz0: "]);
    testbed.wait_for_consumer();
    daemon
}

fn audit_words(testbed: &Testbed) -> Vec<String> {
    let word = |event: &Value| {
        format!(
            "{} {} {}",
            event["action"].as_str().unwrap_or("-"),
            event["result"].as_str().unwrap_or("-"),
            event["subject"].as_str().unwrap_or("-")
        )
    };
    testbed.audit().iter().map(word).filter(|word| !word.starts_with("daemon")).collect()
}

#[test]
fn an_alarm_is_acknowledged_and_silenced_shown_by_every_command_and_a_kill_forgets_none_of_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let no_daemon = "no daemon runs, so nothing is acknowledged";
    testbed.attach(&dmz());
    testbed.run("alarms", &["ack", "1"]).refused(&[no_daemon, "no daemon answers at", "help:"]);
    testbed
        .run("alarms", &["silence", "web1", "--for", "1h", "--note", "x"])
        .refused(&["no daemon runs, so nothing is silenced"]);
    let mut daemon = start(&testbed, "");
    testbed.send_from_web(4000, 1);
    daemon.wait_for_line(&["alarm #1 opened: high attempt"]);

    testbed.run("alarms", &["ack", "7"]).refused(&["alarm #7 is not open", "alarms -i dmz0 --open"]);
    let said = testbed.run("alarms", &["ack", "1", "--note", "it is \u{1b}[2J me"]).done().out;
    assert!(said.starts_with("alarm #1 (high attempt of web1) is acknowledged: "), "{said}");
    daemon.wait_for_line(&["alarm #1 updated", "acknowledged by ", ": it is \\u{1b}[2J me"]);
    testbed.run("alarms", &["unack", "1"]).done();
    testbed.run("alarms", &["unack", "1"]).refused(&["nobody has acknowledged alarm #1"]);
    testbed.run("alarms", &["ack", "1", "--note", "on it"]).done();
    let alarm = testbed.alarms(&[])[0].clone();
    assert_eq!(alarm["acknowledged"]["note"], "on it", "{alarm}");
    let table = testbed.run("alarms", &[]).done().out;
    assert!(table.contains("open, acknowledged") && table.contains("#1: acknowledged by "), "{table}");
    let shown = testbed.run("show", &["alarms"]).done().out;
    assert!(shown.contains("Acknowledged by ") && shown.contains(": on it"), "{shown}");

    for (args, words) in [
        (&["silence", "nobody", "--for", "1h", "--note", "x"][..], "is no server of the live policy"),
        (&["silence", "web1", "--for", "8d", "--note", "x"], "7 days at most"),
        (&["silence", "web1", "--for", "1h", "--note", " "], "needs a note"),
        (&["unsilence", "web1"], "nothing is silenced"),
    ] {
        testbed.run("alarms", args).refused(&[words]);
    }
    let silence = ["silence", "mx1", "--for", "2h", "--note", "it moves"];
    let said = testbed.run("alarms", &silence).done().out;
    assert!(said.contains("alarms of the server mx1 call nobody until "), "{said}");
    let listed = testbed.run("alarms", &["silences"]).done().out;
    assert!(listed.starts_with("silenced: server mx1 until ") && listed.contains(": it moves"), "{listed}");
    assert!(testbed.run("show", &["alarms"]).done().out.contains(&listed), "every list shows them");
    let kept = fs::metadata(testbed.history().join("handling.json")).expect("the file");
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);

    daemon.end(Signal::SIGKILL);
    let mut daemon = start(&testbed, "");
    assert_eq!(testbed.run("alarms", &["silences"]).done().out, listed, "a kill forgets no silence");
    testbed.send_from_web(4000, 1);
    daemon.wait_for_line(&["opened: high attempt", "Acknowledged by ", ": on it"]);
    // something more severe ends it
    let smb = SocketAddr::new(ip(V4.peer), 445);
    connect(&testbed.dmz, ip(V4.web), smb, NEVER).expect_err("nothing answers");
    daemon.wait_for_line(&["escalated: critical attempt", "it is more than what was acknowledged"]);
    let open = testbed.alarms(&["--open"]);
    assert!(open.iter().all(|alarm| alarm["acknowledged"].is_null()), "{open:#?}");
    testbed
        .run("alarms", &["silence", "web1", "--for", "1h", "--note", "x"])
        .refused(&["is critical", "--force"]);
    testbed.run("alarms", &["silence", "web1", "--for", "1h", "--note", "x", "--force"]).done();
    eventually("it is shown as silenced", || {
        testbed.alarms(&["--open"]).iter().all(|alarm| alarm["silenced"]["note"] == "x")
    });
    testbed.run("alarms", &["unsilence", "web1"]).done();
    eventually("it is heard again", || {
        testbed.alarms(&["--open"]).iter().all(|alarm| alarm["silenced"].is_null())
    });
    let words = audit_words(&testbed);
    for word in [
        "ack refused #7",
        "ack done #1",
        "unack done #1",
        "silence refused nobody",
        "silence done mx1",
        "silence refused web1",
        "silence done web1",
        "unsilence done web1",
    ] {
        assert!(words.iter().any(|known| known == word), "{word} in {words:?}");
    }
    let page = testbed.folder.join("report.html").display().to_string();
    testbed.run("report", &["-o", &page]).done();
    let page = fs::read_to_string(&page).expect("the page");
    assert!(page.contains("it moves") && page.contains("on it"), "the report has both");
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn somebody_who_is_not_root_acknowledges_and_silences_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = start(&testbed, "");
    testbed.send_from_web(4000, 1);
    daemon.wait_for_line(&["alarm #1 opened"]);
    // as if the socket were open to a group
    for path in [testbed.socket(), testbed.socket().parent().expect("a folder").to_owned()] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("a mode");
    }
    let request = serde_json::json!({
        "version": portcullis::daemon::control::VERSION, "want": "handle", "order": {"do": "ack", "id": 1, "note": null},
    });
    let path = testbed.socket();
    let asking = std::thread::spawn(move || {
        // SAFETY: no pointers. The raw call changes this thread alone, which ends with the question.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, 65_534, -1) };
        assert_eq!(changed, 0);
        let mut stream = UnixStream::connect(path).expect("the socket");
        stream.write_all(format!("{request}\n").as_bytes()).expect("a request");
        std::io::read_to_string(stream).expect("an answer")
    });
    let text = asking.join().expect("an answer");
    assert!(text.contains("only root may acknowledge or silence alarms"), "{text}");
    assert!(testbed.alarms(&[])[0]["acknowledged"].is_null());
}

#[test]
fn the_policy_says_how_grave_an_alarm_is_and_a_reload_changes_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = start(&testbed, "[alarms.severity]\n\"web1/attempt\" = \"low\"\n");
    testbed.send_from_web(4000, 1);
    daemon.wait_for_line(&["alarm #1 opened: low attempt"]);
    assert_eq!(testbed.alarms(&[])[0]["rated"], "high");
    assert!(testbed.run("alarms", &[]).done().out.contains("low by the policy; the gate itself says high"));
    let plain = testbed.write("plain.toml", &dmz());
    let said = testbed.run("apply", &[&plain]).done().out;
    assert!(said.contains("~ alarms.severity.web1/attempt low -> the gate's own"), "{said}");
    eventually("it is high again", || testbed.alarms(&[])[0]["severity"] == "high");
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_has_each_silence_that_it_said_it_has() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut chance = Chance::new(0x5eed_0003);
    let mut said: Vec<String> = Vec::new();
    for round in 0..6 {
        let mut daemon = start(&testbed, "");
        for word in &said {
            let listed = testbed.run("alarms", &["silences"]).done().out;
            assert!(listed.contains(&format!("service {word} ")), "{word} is not in {listed}");
        }
        let pid = daemon.pid();
        let time = chance.time(Duration::from_millis(60));
        let killer = std::thread::spawn(move || {
            // the moment is what this is about
            std::thread::sleep(time);
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        });
        for number in 0..40 {
            let word = format!("udp/{}", 1000 + 100 * round + number);
            let outcome = testbed.run("alarms", &["silence", &word, "--for", "1h", "--note", "a test"]);
            if outcome.code != Some(0) {
                break;
            }
            said.push(word);
        }
        killer.join().expect("it ends");
        daemon.end(Signal::SIGKILL);
    }
    let _daemon = start(&testbed, "");
    let listed = testbed.run("alarms", &["-j", "silences"]).done().json();
    assert!(listed.as_array().expect("a list").len() >= said.len());
}
