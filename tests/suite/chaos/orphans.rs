//! Namespaces that are deleted under their gates: what is pinned stays, and is found and removed.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::e2e::command::{Daemon, Outcome};
use crate::e2e::namespace::HISTORY;
use crate::e2e::policies::dmz;
use crate::e2e::testbed::{NIC, Testbed, exclusive};
use crate::support::patience::eventually;

/// The program outside of any testbed, as on a machine without a NIC of that name.
fn outside(args: &[&str]) -> Outcome {
    Outcome::of(Command::new(env!("CARGO_BIN_EXE_portcullis")).args(args))
}

fn name(testbed: &Testbed) -> String {
    testbed.pins().file_name().expect("a name").to_string_lossy().into_owned()
}

/// What `show gates` says of a gate.
fn state_of(name: &str) -> Option<String> {
    let gates = outside(&["show", "gates", "-j"]).done().json();
    let row: Option<Value> =
        gates.as_array().expect("a list").iter().find(|row| row["name"] == name).cloned();
    row.map(|row| row["state"].as_str().expect("a word").to_owned())
}

/// Deletes the names of a testbed's namespaces and leaves its pins; what else holds them is the test's.
fn delete_namespaces(testbed: &Testbed) {
    for machine in [&testbed.internet, &testbed.router, &testbed.dmz] {
        let status = Command::new("ip").args(["netns", "delete", machine.name()]).status().expect("ip");
        assert!(status.success());
    }
}

/// The gate of a testbed that is no more, its own files closed.
fn abandon(testbed: Testbed) -> String {
    let (name, pins) = (name(&testbed), testbed.pins());
    delete_namespaces(&testbed);
    drop(testbed);
    assert!(pins.exists(), "nothing is left to be found");
    name
}

#[test]
fn the_pins_of_a_namespace_that_is_gone_are_named_and_removed_and_no_other_gate_is_touched() {
    let _machine = exclusive();
    let stays = Testbed::new();
    let tap = stays.tap_internet();
    stays.attach(&dmz());
    let (first, second) = (Testbed::new(), Testbed::new());
    first.attach(&dmz());
    second.attach(&dmz());
    let alive = name(&stays);
    assert_eq!(state_of(&name(&first)).as_deref(), Some("attached"));
    outside(&["detach", "-i", &name(&first)]).refused(&[
        "is not an orphan",
        "namespace still exists",
        "help:",
        "nsenter",
    ]);
    let (first, second) = (abandon(first), abandon(second));
    eventually("their NICs are gone", || {
        [&first, &second].iter().all(|name| state_of(name).as_deref() == Some("orphaned"))
    });

    // whoever looks for it reads it in words, with the way out
    let remedy = format!("portcullis detach -i {first}");
    outside(&["show", "-i", NIC, "status"]).refused(&["no interface `dmz0`", "is gone", &remedy]);
    outside(&["detach", "-i", NIC]).refused(&["no interface `dmz0`", "is gone", &remedy]);
    let listed = outside(&["show", "gates"]).done();
    assert!(listed.out.contains(&first) && listed.out.contains("namespace and NIC are gone"), "{listed:#?}");
    assert!(listed.err.contains("portcullis detach --orphans"), "{listed:#?}");

    // one by its name
    let done = outside(&["detach", "-i", &first]).done();
    assert!(done.out.contains(&first), "{done:#?}");
    assert_eq!((state_of(&first), state_of(&second).as_deref()), (None, Some("orphaned")));
    outside(&["detach", "-i", &first]).refused(&["no gate is pinned", "show gates"]);
    // and who removed it is known
    let events = outside(&["show", "-i", &first, "audit", "-j"]).done().json();
    let detached =
        events.as_array().and_then(|events| events.iter().rfind(|event| event["result"] == "done"));
    let detached = detached.expect("an event");
    assert_eq!(
        (&detached["action"], &detached["interface"], &detached["before"]["generation"]),
        (&"detach".into(), &NIC.into(), &1.into()),
        "{events:#}"
    );
    // the others at once
    let done = outside(&["detach", "--orphans", "-j"]).done().json();
    assert!(done["detached"].as_array().expect("a list").contains(&second.as_str().into()), "{done:#}");
    assert_eq!(state_of(&second), None);
    let said = outside(&["show", "-i", &second, "audit"]).done().out;
    assert!(said.contains("audit: detach done"), "{said}");
    let done = outside(&["detach", "--orphans"]).done();
    assert!(done.out.contains("there is no orphaned gate"), "{done:#?}");
    for name in [&first, &second] {
        std::fs::remove_dir_all(Path::new(HISTORY).join(name)).expect("the state folder");
    }

    assert_eq!(state_of(&alive).as_deref(), Some("attached"));
    stays.prove_drops(&tap, 3);
    assert_eq!(stays.show("status")["attached"], "native");
}

#[test]
fn a_namespace_that_a_process_a_file_or_a_mount_holds_is_no_orphan_though_its_nic_is_gone() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let (name, pins) = (name(&testbed), testbed.pins());
    testbed.router.ip(&format!("link delete {NIC}\n"));
    let held = || {
        assert_eq!(state_of(&name).as_deref(), Some("detached"));
        outside(&["detach", "--orphans"]).done();
        outside(&["detach", "-i", &name]).refused(&["is not an orphan"]);
        assert!(pins.exists());
    };
    // by its name, which is a mount
    held();
    // by a mount that only a mount namespace of its own has
    let path = format!("/run/netns/{}", testbed.router.name());
    let script =
        format!("mount -t tmpfs none /mnt; touch /mnt/n; mount --bind {path} /mnt/n; echo; read -r _");
    let mut mounted = Command::new("unshare");
    mounted.args(["--mount", "--propagation", "private", "bash", "-c", &script]);
    let mounted = hold(mounted);
    let mut inside = testbed.router.command("bash");
    inside.args(["-c", "echo; read -r _"]);
    let inside = hold(inside);
    let file = File::open(&path).expect("the namespace");
    delete_namespaces(&testbed);
    drop(testbed);
    held();
    drop(file);
    held();
    end(mounted);
    held();
    // the last one
    end(inside);
    eventually("nothing holds it", || state_of(&name).as_deref() == Some("orphaned"));
    outside(&["detach", "--orphans"]).done();
    assert!(!pins.exists());
}

#[test]
fn a_daemon_in_a_namespace_without_a_name_keeps_its_gate_and_the_pins_can_go_after_it() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let mut daemon: Daemon = testbed.daemon(&dmz(), &[]);
    let (name, pins) = (name(&testbed), testbed.pins());
    delete_namespaces(&testbed);
    drop(testbed);
    // its peer is gone with the DMZ, so its NIC is as well; the daemon is at work
    eventually("its NIC is gone", || state_of(&name).as_deref() == Some("detached"));
    outside(&["detach", "-i", &name]).refused(&["another daemon", "help:"]);
    outside(&["detach", "--orphans"]).done();
    assert!(pins.exists());
    assert!(daemon.end(nix::sys::signal::Signal::SIGTERM).success());
    eventually("nothing holds it", || state_of(&name).as_deref() == Some("orphaned"));
    outside(&["detach", "-i", &name]).done();
    assert!(!pins.exists());
}

#[test]
fn half_a_gate_of_a_namespace_that_is_gone_is_removed_as_well() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let (name, pins) = (name(&testbed), testbed.pins());
    let staging = pins.with_file_name(format!("{name}::new"));
    let mut point = 20;
    while !staging.exists() {
        point += 1;
        assert!(point < 200, "no death leaves half a gate");
        let mut attach = testbed.router.prepare(&["attach", "-i", NIC, "-p", &path]);
        attach.env("PORTCULLIS_DIE_AT", point.to_string()).output().expect("the program");
    }
    delete_namespaces(&testbed);
    drop(testbed);
    eventually("it is known for what it is", || state_of(&name).as_deref() == Some("orphaned"));
    outside(&["detach", "--orphans"]).done();
    assert!(!staging.exists() && !pins.exists());
}

/// Starts a command that says a line when it is ready, and waits until it is to end.
fn hold(mut command: Command) -> std::process::Child {
    use std::io::Read as _;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
    child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it is ready");
    child
}

fn end(mut child: std::process::Child) {
    drop(child.stdin.take());
    child.wait().expect("an end");
}
