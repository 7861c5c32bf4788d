//! The daemon as a service: what it tells the service manager, the units, and what it makes of
//! somebody who removes its programs.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::command::Daemon;
use super::policies::{dmz, dmz_with};
use super::tap::UDP;
use super::testbed::{NIC, Testbed, V4, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::patience::eventually;

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: String,
    heard: Vec<String>,
}

impl Manager {
    fn new(testbed: &Testbed) -> Manager {
        let path = testbed.folder.join("notify.sock").display().to_string();
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        Manager { socket, path, heard: Vec::new() }
    }

    /// Waits for a message with these words.
    #[track_caller]
    fn wait_for_line(&mut self, words: &str) {
        let mut bytes = [0; 4096];
        eventually(&format!("the service manager reads {words}"), || {
            if let Ok(length) = self.socket.recv(&mut bytes) {
                self.heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            self.heard.iter().any(|message| message.contains(words))
        });
    }
}

#[test]
fn a_service_manager_reads_that_it_is_ready_alive_and_how_it_stands() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut manager = Manager::new(&testbed);
    let path = testbed.write("daemon.toml", &dmz());
    let mut command = testbed.router.prepare(&["run", "-i", NIC, "-p", &path]);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "400000");
    let mut daemon = Daemon::start(command);
    manager.wait_for_line("READY=1\nSTATUS=attached to dmz0: native; 0 alarms open");
    assert!(testbed.has_xdp(), "ready means that the gate is attached");
    manager.heard.clear();
    manager.wait_for_line("WATCHDOG=1");
    manager.heard.clear();
    manager.wait_for_line("WATCHDOG=1");
    testbed.prove_drops(&tap, 1);
    manager.wait_for_line("STATUS=attached to dmz0: native; 1 alarm open");
    // one that hangs is not called alive
    daemon.signal(Signal::SIGSTOP);
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    let mut word = [0; 64];
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    assert!(manager.socket.recv(&mut word).is_err(), "a stopped daemon said something");
    daemon.signal(Signal::SIGCONT);
    manager.wait_for_line("WATCHDOG=1");
    daemon.signal(Signal::SIGTERM);
    manager.wait_for_line("STOPPING=1");
    assert!(daemon.wait().success());
}

#[test]
fn a_removed_tracker_is_reported_counted_and_restored() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut daemon = testbed.daemon(&dmz(), &["--metrics", "127.0.0.1:9464"]);
    assert_eq!(testbed.show("status")["tracker"], "tcx");
    // the only thing that holds it
    fs::remove_file(testbed.pins().join("links/track")).expect("the tracker's link");
    daemon.wait_for_line(&[
        "critical gate",
        "the tracker on dmz0 is no longer attached (was tcx)",
        "NEW FLOWS OF PEERS ARE NOT SEEN",
    ]);
    daemon.wait_for_line(&["attached to dmz0 again: native, tracker tcx"]);
    assert_eq!(testbed.show("status")["tracker"], "tcx");
    let changes = || {
        let page = super::metrics::scrape(&testbed);
        super::metrics::value(&page, "portcullis_mode_changes_total", &["part=\"tracker\""])
    };
    assert_eq!(changes(), Some(2.0));
    // another command that asks for service tracking is no loss
    testbed.apply(&dmz_with("tracking = \"service\""));
    daemon
        .wait_for_line(&["the tracker on dmz0 is no longer attached (was tcx): service tracking needs none"]);
    eventually("it stays off", || changes() == Some(3.0));
    assert_eq!(testbed.show("status")["tracker"], "no");
    assert!(daemon.end(Signal::SIGTERM).success());
}

/// Units of packaging/ with the program where the test has it.
fn units(testbed: &Testbed) -> Vec<String> {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    ["portcullis@.service", "portcullis-gate@.service", "portcullis-guard@.service"]
        .iter()
        .map(|name| {
            let unit = fs::read_to_string(packaging.join(name)).expect("a unit");
            assert!(unit.contains("\nExecStart=portcullis"), "{unit}");
            let guard = packaging.join("portcullis-guard");
            let unit = ["=portcullis-guard ", "=-portcullis-guard "].iter().fold(unit, |unit, call| {
                unit.replace(call, &call.replace("portcullis-guard", &guard.display().to_string()))
            });
            testbed.write(
                name,
                &unit.replace("=portcullis ", &format!("={} ", env!("CARGO_BIN_EXE_portcullis"))),
            )
        })
        .collect()
}

#[test]
fn the_units_are_sound_and_what_they_leave_the_daemon_is_enough() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    for path in units(&testbed) {
        let instance = path.replace("@.", "@dmz0.");
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", &instance])
            .env("SYSTEMD_UNIT_PATH", format!("{}:", testbed.folder.display()))
            .output()
            .expect("systemd-analyze, of the package systemd");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("portcullis")).collect();
        assert!(output.status.success() && ours.is_empty(), "{said}");
    }

    // the same privileges, by hand: there is no systemd in a test
    let unit = fs::read_to_string(units(&testbed)[0].as_str()).expect("a unit");
    let line =
        unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("capabilities");
    let mut bounds = "-all".to_owned();
    for capability in line.split(' ') {
        bounds.push_str(&format!(",+{}", capability.trim_start_matches("CAP_").to_lowercase()));
    }
    let path = testbed.write("daemon.toml", &dmz());
    let mut command = testbed.router.command("setpriv");
    command.args(["--bounding-set", &bounds, "--no-new-privs", "--", env!("CARGO_BIN_EXE_portcullis")]);
    command.args(["run", "-i", NIC, "-p", &path, "--metrics", "127.0.0.1:9464"]);
    let tap = testbed.tap_internet();
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line(&["attached to dmz0: "]);
    testbed.prove_drops(&tap, 3);
    daemon.wait_for_line(&["alarm #1", "web1"]);
    eventually("the history is written", || testbed.reported() == 3);
    assert!(super::metrics::scrape(&testbed).contains("portcullis_enforcing{interface=\"dmz0\"} 1\n"));
    assert!(daemon.end(Signal::SIGTERM).success());
    assert_eq!(tap.count_to(ip(V4.web), UDP, FORBIDDEN), 0);
}
