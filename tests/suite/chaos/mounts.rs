//! File systems that are full, missing or read-only.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::e2e::command::{Daemon, Running};
use crate::e2e::policies::{dmz, dmz_with, dmz_with_eve};
use crate::e2e::testbed::{NIC, Testbed, share_machine, tracker_hook};
use crate::support::patience::eventually;

use super::fault_points::list_pins;

/// The program, on the router, in a mount namespace of its own that a script has prepared. Its
/// mounts die with it, and nobody else sees them.
pub fn behind(testbed: &Testbed, script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("set -e; {script}\nexec nsenter \"$@\"");
    let netns = format!("--net=/run/netns/{}", testbed.router.name());
    command.args(["--mount", "--propagation", "private", "bash", "-c", &script, "-", &netns, "--"]);
    command.arg(env!("CARGO_BIN_EXE_portcullis")).args(args).env_remove("RUST_LOG");
    command
}

#[test]
fn a_bpffs_that_may_not_be_written_is_refused_in_words_and_leaves_no_gate() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let tap = testbed.tap_internet();
    let script = "mount -o remount,ro,bind /sys/fs/bpf 2>/dev/null || { mount --bind /sys/fs/bpf /sys/fs/bpf; mount -o remount,ro,bind /sys/fs/bpf; }";
    for command in ["attach", "run"] {
        let outcome = Running::start(behind(&testbed, script, &[command, "-i", NIC, "-p", &path])).outcome();
        outcome.refused(&["/sys/fs/bpf", "ead-only file system", "help:", "remount,rw"]);
        assert!(!testbed.pins().exists() && !testbed.has_xdp());
    }
    testbed.prove_passes(&tap, 1);
    testbed.run("attach", &["-p", &path]).done();
    testbed.prove_drops(&tap, 1);

    // what is there is not replaced by half, nor is its tracker left to nobody
    let whole = list_pins(&testbed);
    let before = testbed.show("policy");
    let generation = testbed.show("status")["generation"].clone();
    let other = testbed.write("other.toml", &dmz_with("tracking = \"service\""));
    for args in [vec!["attach", "-i", NIC, "-p", &other], vec!["apply", "-i", NIC, &other]] {
        let outcome = Running::start(behind(&testbed, script, &args)).outcome();
        outcome.refused(&["ead-only file system", "help:", "remount,rw"]);
        assert_eq!(
            (testbed.show("policy"), list_pins(&testbed)),
            (before.clone(), whole.clone()),
            "{args:?}"
        );
        let status = testbed.show("status");
        assert_eq!(
            (&status["generation"], &status["tracker"]),
            (&generation, &tracker_hook().into()),
            "{status:#}"
        );
        testbed.prove_drops(&tap, 1);
    }

    // it can be looked at, is not detached, and says so
    let outcome = Running::start(behind(&testbed, script, &["detach", "-i", NIC])).outcome();
    outcome.refused(&["ead-only file system", "help:", "remount,rw"]);
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"native".into(), &true.into()), "{status:#}");
    testbed.prove_drops(&tap, 1);
    testbed.detach();
    assert!(!testbed.pins().exists() && !testbed.has_xdp());
}

#[test]
fn a_disk_that_is_full_does_not_stop_the_daemon_and_it_says_so() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let disk = testbed.folder.join("disk");
    fs::create_dir_all(&disk).expect("a folder");
    let eve = disk.join("eve.json");
    let policy = testbed.write("policy.toml", &dmz_with_eve(&eve.display().to_string()));
    // the events' disk has a page; the history's has none left
    let script = format!(
        "mount -t tmpfs -o size=4096 none {disk}; dd if=/dev/zero of={disk}/filler bs=4096 count=1 status=none; \
         mkdir -p /var/lib/portcullis; mount -t tmpfs -o size=4096 none /var/lib/portcullis; \
         dd if=/dev/zero of=/var/lib/portcullis/filler bs=4096 count=1 status=none",
        disk = disk.display()
    );
    let mut daemon = Daemon::start(behind(&testbed, &script, &["run", "-i", NIC, "-p", &policy]));
    daemon.wait_for_line(&["attached to dmz0: "]);
    testbed.prove_drops(&tap, 5);
    daemon.wait_for_line(&["sink eve", "fails and is retried", "No space left on device"]);
    daemon.wait_for_line(&["alarm #", "web1", "udp/4000"]);
    // said once, not with each of its drops
    testbed.prove_drops(&tap, 20);
    assert_eq!(daemon.find(&["sink eve", "No space left"]).len(), 1, "{:#?}", daemon.said());

    // room again, as the daemon sees it: what waited is written
    let inside = format!("/proc/{}/root{}", daemon.pid(), disk.join("filler").display());
    fs::write(&inside, b"").expect("the daemon's disk");
    fs::remove_file(&inside).expect("the daemon's disk");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let seen = format!("/proc/{}/root{}", daemon.pid(), eve.display());
    let reported = || {
        let text = fs::read_to_string(&seen).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event_type"] == "drop").count()
    };
    eventually("an event that waited is in the file", || reported() > 0);
    assert!(daemon.end(nix::sys::signal::Signal::SIGTERM).success());
    daemon.wait_for_line(&[
        "could not open the history",
        "history.db",
        "No space left",
        "The records wait, and the write is retried",
    ]);
    assert!(daemon.find(&["damaged"]).is_empty(), "{:#?}", daemon.said());
    testbed.prove_drops(&tap, 2);
}

#[test]
fn a_damaged_history_is_reported_and_begun_anew() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    testbed.prove_drops(&tap, 3);
    let folder = testbed.history();
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("history.db"), b"this is no database, and was never one").expect("a file");
    let mut daemon = testbed.daemon(&dmz(), &[]);
    daemon.wait_for_line(&["history.db", "damaged", "A new one begins"]);
    daemon.wait_for_line(&["alarm #", "gate", "history.db is damaged"]);
    daemon.wait_for_line(&["alarm #", "web1", "udp/4000"]);
    eventually("the new one has the drops", || testbed.reported() == 3);
    let status = testbed.show("status");
    assert!(status["warnings"].to_string().contains("history.damaged-"), "{status:#}");
    assert!(daemon.end(nix::sys::signal::Signal::SIGTERM).success());

    // without a daemon: an error, and no list that is empty
    let path = folder.join("history.db");
    let mut bytes = fs::read(&path).expect("the new one");
    let end = bytes.len();
    bytes[4096..end].fill(0);
    fs::write(&path, &bytes).expect("a file");
    testbed.run("alarms", &[]).refused(&["history.db is damaged", "help:", "puts it aside"]);
    let page = testbed.folder.join("page.html").display().to_string();
    testbed.run("report", &["-o", &page]).refused(&["history.db is damaged", "help:"]);
}

#[test]
fn pins_below_a_folder_of_another_user_are_refused_and_a_gate_that_was_renamed_away_is_detached() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let open = "mount -t bpf bpf /sys/fs/bpf -o mode=1777";
    let script = format!("{open}; setpriv --reuid 65534 --clear-groups mkdir /sys/fs/bpf/portcullis");
    for args in [vec!["attach", "-i", NIC, "-p", &path], vec!["detach", "-i", NIC]] {
        let outcome = Running::start(behind(&testbed, &script, &args)).outcome();
        outcome.refused(&["/sys/fs/bpf/portcullis can't be trusted", "belongs to user 65534", "help:"]);
        assert!(!testbed.has_xdp());
    }
    testbed.attach(&dmz());
    // not beside the other gates: a gate there would be found by its link
    let away =
        fs::canonicalize("/sys/fs/bpf").expect("a bpffs").join(format!("away-{}", testbed.router.inode()));
    fs::rename(testbed.pins(), &away).expect("a rename");
    let outcome = testbed.run("detach", &[]).done();
    assert!(outcome.out.contains("its filter was still attached; it is detached now"), "{outcome:#?}");
    testbed.wait_for_detach();
    fs::remove_dir_all(&away).expect("the pins");
}

#[test]
fn commands_on_a_read_only_disk_read_the_history_and_do_what_needs_no_disk_or_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let other = testbed.write("other.toml", &dmz_with("mode = \"observe\""));
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.prove_drops(&tap, 3);
    daemon.wait_for_line(&["alarm #", "web1", "udp/4000"]);
    eventually("the history has it", || testbed.reported() >= 3);
    // it leaves its log behind
    daemon.end(nix::sys::signal::Signal::SIGKILL);
    let script = "mount --bind /var/lib/portcullis /var/lib/portcullis; \
                  mount -o remount,ro,bind /var/lib/portcullis";
    let run = |args: &[&str]| Running::start(behind(&testbed, script, args)).outcome();
    let state = || {
        let mut names: Vec<_> = fs::read_dir(testbed.history())
            .expect("the folder")
            .map(|entry| {
                let entry = entry.expect("an entry");
                (entry.file_name(), entry.metadata().expect("a file").len())
            })
            .collect();
        names.sort();
        names
    };
    let before = state();
    // to read needs no disk that takes anything
    let alarms = run(&["alarms", "-i", NIC, "-j"]).done();
    assert!(alarms.json().as_array().is_some_and(|list| list.len() == 1), "{alarms:#?}");
    let page = run(&["report", "-i", NIC, "-o", "-"]).done().out;
    assert!(page.contains("udp/4000") && page.ends_with("</html>\n"), "{page}");
    for args in
        [&["show", "-i", NIC, "audit"][..], &["rollback", "-i", NIC, "--list"], &["diff", "-i", NIC, &path]]
    {
        let outcome = run(args).done();
        assert!(!outcome.out.is_empty() || args[0] == "diff", "{outcome:#?}");
    }
    // a trial must be noted before it begins
    let outcome = run(&["apply", "-i", NIC, &other, "--confirm", "1h"]);
    outcome.refused(&["the trial was not begun, and the live policy stays", "ead-only file system"]);
    assert_eq!(testbed.show("status")["generation"], 1);
    // what the kernel keeps holds, and says that the next boot forgets it
    for args in [
        &["quarantine", "-i", NIC, "mx1"][..],
        &["allow", "-i", NIC, "web1", "out", "tcp/443", "--for", "1h"],
        &["apply", "-i", NIC, &other],
    ] {
        let outcome = run(args).done();
        assert!(outcome.err.contains("ead-only file system"), "{outcome:#?}");
        assert!(!outcome.err.contains("panicked"), "{outcome:#?}");
    }
    let status = testbed.show("status");
    assert_eq!((&status["generation"], &status["quarantined"]), (&2.into(), &serde_json::json!(["mx1"])));
    assert_eq!(testbed.verdict("192.0.2.80", "198.51.100.99", "tcp/443").0, "pass");
    assert_eq!(state(), before, "nothing is half-written");
    eventually("no copy is left", || {
        let mut left = fs::read_dir("/run/portcullis").expect("the folder").filter_map(Result::ok);
        !left.any(|entry| entry.file_name().to_string_lossy().starts_with("copy-"))
    });
}
