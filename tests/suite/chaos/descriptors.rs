//! Too few descriptors: a command works, or fails by a sentence that is true, and nothing is half-done.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::e2e::command::{Daemon, Outcome};
use crate::e2e::name_resolvers::{is_open, policy};
use crate::e2e::policies::dmz;
use crate::e2e::resolver::{Resolver, look_up};
use crate::e2e::socket::ARRIVES;
use crate::e2e::testbed::{NIC, Testbed, V4, share_machine};
use crate::support::dns::A;
use crate::support::patience::eventually;

/// The program on the router, with so many descriptors at most.
fn run_with(testbed: &Testbed, limit: u32, args: &[&str]) -> Outcome {
    let mut command = testbed.router.command("prlimit");
    command.arg(format!("--nofile={limit}")).arg(env!("CARGO_BIN_EXE_portcullis")).args(args);
    Outcome::of(command.env_remove("RUST_LOG"))
}

#[test]
fn a_command_with_few_descriptors_works_or_says_why_and_does_nothing_by_halves() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    testbed.attach(&dmz());
    let page = testbed.write("report.html", "");
    let commands: [&[&str]; 11] = [
        &["show", "-i", NIC, "status"],
        &["show", "-i", NIC, "drops"],
        &["explain", "-i", NIC, "--from", "web1", "--to", "198.51.100.9", "tcp/80"],
        &["diff", "-i", NIC, &path],
        &["alarms", "-i", NIC],
        &["report", "-i", NIC, "-o", &page],
        &["apply", "-i", NIC, &path],
        &["quarantine", "-i", NIC, "web1", "--for", "1h"],
        &["release", "-i", NIC, "web1"],
        &["attach", "-i", NIC, "-p", &path],
        &["detach", "-i", NIC],
    ];
    for args in commands {
        let mut refused = 0;
        for limit in 3..=40 {
            let outcome = run_with(&testbed, limit, args);
            // the loader of shared libraries needs a few as well
            if outcome.code == Some(127) {
                continue;
            }
            if outcome.code == Some(0) {
                if args[0] == "detach" {
                    assert!(!testbed.has_xdp() && !testbed.pins().exists(), "{outcome:#?}");
                    testbed.attach(&dmz());
                }
                if args[0] == "release" {
                    testbed.run("quarantine", &["web1"]).done();
                }
                continue;
            }
            refused += 1;
            // where 1 has a meaning of its own, trouble is 2
            let trouble = if args[0] == "diff" { 2 } else { 1 };
            let outcome = outcome.failed(trouble, &["portcullis: "]);
            for lie in ["there is no gate", "NOT ATTACHED", "incomplete", "is missing"] {
                assert!(!outcome.err.contains(lie), "{args:?} with {limit}: `{lie}` in {outcome:#?}");
            }
            assert!(testbed.has_xdp(), "{args:?} with {limit}: {outcome:#?}");
            let status = testbed.show("status");
            assert_eq!(status["attached"], "native", "{args:?} with {limit}: {status:#}");
        }
        assert!(refused > 0, "{args:?} never lacked a descriptor");
    }
}

/// Lets a daemon have no descriptor from this number on. Those that it has stay open.
fn limit(daemon: &Daemon, number: usize) {
    let pid = daemon.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={number}:4096")]).status();
    assert!(status.expect("prlimit, of util-linux").success());
}

#[test]
fn while_a_daemon_lacks_descriptors_the_answers_of_resolvers_count_as_before() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let zone = Resolver::start(&testbed.router, V4.router);
    let daemon = testbed.daemon(&policy(&[V4.router], ""), &[]);
    let look_up = |address: &str| {
        zone.set("deb.vendor.example", &[address], 60);
        look_up(&testbed.dmz, V4.web, V4.router, "deb.vendor.example", A, ARRIVES)
    };
    assert!(look_up(V4.peer) && is_open(&testbed, &V4, V4.peer));
    limit(&daemon, 4);
    daemon.wait_for_line(&["the ways to the resolvers could not be looked up"]);
    assert!(look_up(V4.clock) && is_open(&testbed, &V4, V4.clock));
    limit(&daemon, 1024);
    daemon.wait_for_line(&["the answers of all resolvers count again"]);
    assert!(look_up(V4.loghost) && is_open(&testbed, &V4, V4.loghost));
    assert!(daemon.find(&["alarm #"]).is_empty(), "{:#?}", daemon.said());
}

#[test]
fn a_daemon_that_lacks_descriptors_for_a_while_stays_and_raises_no_alarm_of_a_gate_that_is_gone() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    limit(&daemon, 4);
    daemon.wait_for_line(&["the daemon can't look at the gate, and tries again"]);
    // a server whose name the daemon has not read yet
    let renamed = testbed.write("renamed.toml", &dmz().replace("web1", "shop"));
    assert_eq!(testbed.run("apply", &[&renamed]).code, Some(0));
    testbed.send_from_web(4_000, 2);
    eventually("each drop is in the ledger", || testbed.dropped("shop", "udp", 4_000, "new_flow") >= 2);
    limit(&daemon, 1024);
    daemon.wait_for_line(&["the daemon looks at the gate again"]);
    assert!(daemon.is_running());
    assert!(daemon.find(&["NOTHING IS DROPPED"]).is_empty(), "{:#?}", daemon.said());
    assert!(daemon.find(&["are gone"]).is_empty(), "{:#?}", daemon.said());
    eventually("it answers", || testbed.run("show", &["alarms"]).code == Some(0));
    eventually("the drops are reported under the name of today", || {
        let alarms = testbed.show("alarms");
        alarms.as_array().into_iter().flatten().any(|alarm| alarm["server"] == "shop")
    });
    assert!(daemon.end(Signal::SIGTERM).success());
}
