//! A wall clock that is stepped under a running daemon: times of day follow it, and nothing that the
//! daemon decides does. The machine's own clock is left alone: `PORTCULLIS_CLOCK_OFFSET`.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::e2e::command::Daemon;
use crate::e2e::policies::dmz_with_eve;
use crate::e2e::socket::udp;
use crate::e2e::testbed::{NIC, Testbed, V4, ip, share_machine};
use crate::support::patience::eventually;

const DAY_S: i64 = 86_400;
/// More than the history keeps.
const STEP_S: i64 = 400 * DAY_S;
/// Between a time and the moment at which it is looked at: any test takes less.
const NEAR_S: i64 = 3_600;

struct Stage {
    testbed: Testbed,
    eve: PathBuf,
    offset: PathBuf,
    policy: String,
}

impl Stage {
    fn new() -> Stage {
        let testbed = Testbed::new();
        let (eve, offset) = (testbed.folder.join("eve.json"), testbed.folder.join("offset"));
        let policy = testbed.write("policy.toml", &dmz_with_eve(&eve.display().to_string()));
        let stage = Stage { testbed, eve, offset, policy };
        stage.step_to(0);
        stage
    }

    fn daemon(&self) -> Daemon {
        let mut command = self.testbed.router.prepare(&["run", "-i", NIC, "-p", &self.policy]);
        command.env("PORTCULLIS_CLOCK_OFFSET", &self.offset);
        let daemon = Daemon::start(command);
        daemon.wait_for_line(&["attached to dmz0: "]);
        daemon
    }

    /// So many seconds ahead of the machine's clock; in one step, or a reader would see half a file.
    fn step_to(&self, ahead_s: i64) {
        let fresh = self.offset.with_extension("new");
        fs::write(&fresh, ahead_s.to_string()).expect("a file");
        fs::rename(fresh, &self.offset).expect("a file");
    }

    /// A server tries something that is forbidden.
    fn attempt(&self, server: &str, port: u16) {
        let to = std::net::SocketAddr::new(ip(V4.peer), port);
        udp(&self.testbed.dmz, server, 0).send_to(b"out", to).expect("a datagram");
    }

    /// Waits for an event of EVE about this port; how many seconds ahead its time is.
    fn event(&self, event_type: &str, port: u16) -> i64 {
        let mut found = None;
        eventually("the event is written", || {
            let text = fs::read_to_string(&self.eve).unwrap_or_default();
            let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let service = format!("udp/{port}");
            let has_part = |line: &Value| {
                let parts = line["portcullis"]["parts"].as_array().map_or(&[][..], Vec::as_slice);
                parts.iter().any(|part| part["service"] == *service)
            };
            found = lines.rfind(|line| {
                line["event_type"] == event_type && (line["dest_port"] == port || has_part(line))
            });
            found.is_some()
        });
        ahead_s(&found.expect("an event")["timestamp"])
    }

    /// All alarms, open and past.
    fn alarms(&self) -> Vec<Value> {
        let value = self.testbed.run("alarms", &["-j"]).done().json();
        value.as_array().expect("a list").clone()
    }

    /// Waits for the alarm of a service.
    fn alarm(&self, service: &str) -> Value {
        let mut found = None;
        eventually("the alarm is there", || {
            found = self.alarms().into_iter().find(|alarm| alarm.to_string().contains(service));
            found.is_some()
        });
        found.expect("an alarm")
    }

    fn quarantine_left_s(&self) -> u64 {
        let servers = self.testbed.show("servers");
        let list = servers["quarantined"].as_array().expect("a list").clone();
        assert_eq!(list.len(), 1, "{servers:#}");
        list[0].as_array().expect("a server and its time")[1].as_u64().expect("seconds")
    }
}

/// How far a time is ahead of the machine's clock, seconds.
fn ahead_s(time: &Value) -> i64 {
    let time = time.as_str().expect("a time").replace("+0000", "+00:00");
    let time: Timestamp = time.parse().unwrap_or_else(|error| panic!("{error}: {time}"));
    time.as_second() - Timestamp::now().as_second()
}

#[track_caller]
fn assert_near(found_s: i64, wanted_s: i64) {
    assert!((found_s - wanted_s).abs() < NEAR_S, "{found_s} s ahead, not {wanted_s}");
}

#[test]
fn a_wall_clock_that_is_stepped_under_a_daemon_moves_times_of_day_and_nothing_else() {
    let _machine = share_machine();
    let stage = Stage::new();
    let mut daemon = stage.daemon();
    stage.testbed.run("quarantine", &["mx1", "--for", "2h"]).done();

    let mut ids = Vec::new();
    // one server each, and the first one again: what it does now is another part of its alarm
    let steps = [
        (0, V4.web, 4_100),
        (-STEP_S, V4.dns, 4_101),
        (STEP_S, V4.mail, 4_102),
        (0, "2001:db8:1::80", 4_103),
    ];
    for (offset_s, server, port) in steps {
        stage.step_to(offset_s);
        if server.contains(':') {
            let to = std::net::SocketAddr::new(ip("2001:db8:2::99"), port);
            udp(&stage.testbed.dmz, server, 0).send_to(b"out", to).expect("a datagram");
        } else {
            stage.attempt(server, port);
        }
        assert_near(stage.event("drop", port), offset_s);
        assert_near(stage.event("alert", port), offset_s);
        let alarm = stage.alarm(&format!("udp/{port}"));
        assert_near(ahead_s(&alarm["since"]), offset_s);
        ids.push(alarm["id"].as_u64().expect("a number"));
        // what is open goes with the clock, and ends after it began
        for alarm in stage.alarms() {
            assert_eq!(alarm["state"], "open", "{alarm:#}");
            assert_near(ahead_s(&alarm["since"]), offset_s);
            assert_near(ahead_s(&alarm["last"]), offset_s);
            let order = ["since", "last"].map(|key| alarm[key].as_str().expect("a time").to_owned());
            assert!(order[0] <= order[1], "{alarm:#}");
        }
        // CLOCK_MONOTONIC decides
        assert!((3_600..=7_200).contains(&stage.quarantine_left_s()));
        assert_eq!(stage.testbed.verdict(V4.mail, V4.peer, "udp/9000").1, "quarantined");
    }
    assert_eq!(ids, [1, 2, 3, 1]);
    let listed: Vec<u64> =
        stage.alarms().iter().map(|alarm| alarm["id"].as_u64().expect("a number")).collect();
    assert_eq!(listed, [1, 2, 3], "in the order in which they were raised");
    assert!(daemon.end(Signal::SIGTERM).success());
    // each drop is in the history once
    let mut daemon = stage.daemon();
    daemon.wait_for_line(&["attached to dmz0: "]);
    assert_eq!(stage.alarms().len(), 3);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_clock_that_leaps_beyond_the_history_s_age_ends_no_history() {
    let _machine = share_machine();
    let stage = Stage::new();
    let mut daemon = stage.daemon();
    stage.attempt(V4.web, 4_200);
    let id = stage.alarm("udp/4200")["id"].clone();
    assert!(daemon.end(Signal::SIGTERM).success());

    let mut daemon = stage.daemon();
    stage.attempt(V4.dns, 4_201);
    stage.alarm("udp/4201");
    stage.step_to(STEP_S);
    stage.attempt(V4.mail, 4_202);
    assert_near(ahead_s(&stage.alarm("udp/4202")["since"]), STEP_S);
    daemon.wait_for_line(&["wall clock went forward", "no record of the history is removed for its age"]);
    // the end writes what waits, by the wrong clock
    assert!(daemon.end(Signal::SIGTERM).success());
    stage.step_to(0);
    let alarms = stage.alarms();
    assert_eq!(alarms.iter().find(|alarm| alarm["id"] == id).expect("the first alarm")["state"], "cut_off");
    assert_eq!(alarms.len(), 3, "{alarms:#?}");
}
