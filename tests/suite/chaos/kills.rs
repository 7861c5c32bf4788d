//! `kill -9` of the commands that only read, and of the daemon with every sink, at random moments.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::e2e::command::Daemon;
use crate::e2e::console::Terminal;
use crate::e2e::kills::{kill_after, time_command};
use crate::e2e::policies::{dmz, dmz_with_eve};
use crate::e2e::testbed::{NIC, Testbed, exclusive};
use crate::support::chance::Chance;
use crate::support::patience::eventually;

const KILLS: usize = 8;

#[test]
fn commands_that_only_read_are_killed_at_random_moments_and_nobody_notices() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.prove_drops(&tap, 5);
    daemon.wait_for_line(&["alarm #1", "udp/4000"]);
    let policy = testbed.write("policy.toml", &dmz());
    let page = testbed.folder.join("report.html").display().to_string();
    let state =
        || (testbed.show("status")["generation"].clone(), testbed.show("policy"), testbed.show("servers"));
    let before = state();
    let mut chance = Chance::new(0x5eed_0001);
    let commands: [&[&str]; 11] = [
        &["init"],
        &["check", &policy],
        &["alarms", "-i", NIC],
        &["alarms", "-i", NIC, "-j"],
        &["report", "-i", NIC, "-o", &page],
        &["show", "-i", NIC, "policy"],
        &["show", "-i", NIC, "servers"],
        &["show", "-i", NIC, "flows"],
        &["show", "-i", NIC, "alarms"],
        &["show", "gates"],
        // none is there, and none of another namespace's gates may go
        &["detach", "--orphans"],
    ];
    for args in commands {
        let whole = time_command(&testbed, args);
        for _ in 0..KILLS {
            kill_after(&testbed, args, chance.time(whole));
            if let Ok(text) = fs::read_to_string(&page) {
                assert!(text.trim_end().ends_with("</html>"), "half a page");
            }
        }
        assert_eq!(state(), before, "{args:?}");
        testbed.router.portcullis(args).done();
        testbed.prove_drops(&tap, 1);
    }
    // two that do not end by themselves
    for _ in 0..KILLS {
        kill_after(&testbed, &["alarms", "-i", NIC, "--follow"], chance.time(Duration::from_millis(200)));
        let terminal = Terminal::start(&testbed, &["top", "-i", NIC]);
        // the moment is what this is about
        std::thread::sleep(chance.time(Duration::from_millis(200)));
        let panes = terminal.tmux(&["list-panes", "-F", "#{pane_pid}"]).output().expect("tmux");
        let pid = String::from_utf8_lossy(&panes.stdout).trim().parse().expect("the pid of top");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("top runs");
        eventually("top is gone", || terminal.is_over());
    }
    assert_eq!(state(), before);
    Terminal::start(&testbed, &["top", "-i", NIC]).see(&["web1"]);
    assert_eq!(testbed.run("alarms", &["-j"]).done().json().as_array().expect("a list").len(), 1);
    testbed.prove_drops(&tap, 2);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_daemon_with_every_sink_is_killed_at_random_moments_and_leaves_whole_events() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let file = |name: &str| testbed.folder.join(name);
    // nobody reads what comes; that it is full is a test of the sinks' own
    let syslog = testbed.router.enter(|| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let text = format!(
        "{}ecs = \"{ecs}\"\ncef = \"{cef}\"\npcapng = \"{pcapng}\"\njournald = true\nsyslog = \"udp://{syslog}\"\n\
         alertmanager = \"http://127.0.0.1:9\"\ncommand = [\"/usr/bin/tee\", \"-a\", \"{reported}\"]\n",
        dmz_with_eve(&file("eve.json").display().to_string()),
        ecs = file("ecs.json").display(),
        cef = file("events.cef").display(),
        pcapng = file("frames.pcapng").display(),
        syslog = syslog.local_addr().expect("an address"),
        reported = file("reported.json").display(),
    );
    let policy = testbed.write("policy.toml", &text);
    let start = || {
        let daemon = Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &policy]));
        daemon.wait_for_line(&["attached to dmz0: "]);
        daemon
    };
    let mut chance = Chance::new(0x5eed_0002);
    for round in 0..KILLS {
        let mut daemon = start();
        // a new kind each round, so that alarms open as well
        let port = 4_300 + round as u16;
        testbed.send_from_web(port, 20);
        std::thread::sleep(chance.time(Duration::from_millis(400)));
        daemon.end(Signal::SIGKILL);
        assert!(testbed.has_xdp());
        testbed.prove_drops(&tap, 1);
    }
    let mut daemon = start();
    testbed.prove_drops(&tap, 2);
    // this daemon learnt it from the ledger, for the dead ones reported nothing
    // by the field of the port: times and other numbers have such digits as well
    let has = |name: &str, line: &str, port: u16| {
        let value = || serde_json::from_str::<Value>(line).unwrap_or_default();
        match name {
            "eve.json" => value()["dest_port"] == port,
            "ecs.json" => value()["destination"]["port"] == port,
            _ => line.split(' ').any(|word| word == format!("dpt={port}")),
        }
    };
    let reported = |name: &str, port: u16| {
        let text = fs::read_to_string(file(name)).unwrap_or_default();
        text.lines().any(|line| has(name, line, port))
    };
    for port in 4_300..4_300 + KILLS as u16 {
        for name in ["eve.json", "ecs.json", "events.cef"] {
            eventually("every kind of drop is reported", || reported(name, port));
        }
    }
    assert!(daemon.end(Signal::SIGTERM).success());
    for name in ["eve.json", "ecs.json"] {
        let text = fs::read_to_string(file(name)).expect("a file");
        for line in text.lines() {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error} in {name}: {line}"));
        }
    }
    let text = fs::read_to_string(file("events.cef")).expect("a file");
    assert!(text.lines().all(|line| line.contains("CEF:0|")), "half an event");
    let output = Command::new("capinfos").args(["-c", "-M"]).arg(file("frames.pcapng")).output();
    let output = output.expect("capinfos, of the package wireshark-common");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
