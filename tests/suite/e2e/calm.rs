//! A daemon that cuts a server off for every kind of alarm that may do so, and the proof that it found no
//! reason to.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use super::command::Daemon;
use super::testbed::{Testbed, V4, ip};
use crate::support::frame::{ACK, patched, tcp};
use crate::support::patience::eventually;

/// Every router takes frames to the MACs of VRRP for its own.
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 0xfe];

pub struct CalmCheck<'t> {
    testbed: &'t Testbed,
    pub daemon: Daemon,
    events: PathBuf,
}

impl CalmCheck<'_> {
    /// Starts the daemon with a policy that has the servers of [`dmz`](super::policies::dmz) and says nothing
    /// of alarms.
    #[track_caller]
    pub fn start<'t>(testbed: &'t Testbed, policy: &str) -> CalmCheck<'t> {
        let events = testbed.folder.join("check.json");
        let daemon = testbed.daemon(&with_alarms(testbed, policy), &[]);
        testbed.wait_for_consumer();
        CalmCheck { testbed, daemon, events }
    }

    /// Makes another policy the live one.
    #[track_caller]
    pub fn apply(&self, policy: &str) {
        self.testbed.apply(&with_alarms(self.testbed, policy));
    }

    /// Waits until the daemon has read all drops so far: a stray segment comes after them, at a port that
    /// no other drop has.
    #[track_caller]
    fn settle(&self) {
        static PORT: AtomicU16 = AtomicU16::new(30_000);
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let segment = tcp((ip(V4.mail), 40_000), (ip(V4.peer), port), ACK);
        self.testbed.dmz.inject("eth0", &patched(&segment, 0, &VIRTUAL_MAC));
        eventually("the daemon reports the stray segment", || {
            let text = fs::read_to_string(&self.events).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).any(|line: Value| {
                line["event_type"] == "drop"
                    && line["dest_port"] == port
                    && line["portcullis"]["reason"] == "no_flow"
            })
        });
    }

    /// Alarms that somebody would have to look at.
    #[track_caller]
    pub fn severe_alarms(&self) -> Vec<Value> {
        self.settle();
        let mut alarms = self.testbed.alarms(&[]);
        alarms.retain(|alarm| alarm["severity"] != "low");
        alarms
    }

    /// Nothing so far has raised an alarm above low, and nobody is in quarantine.
    #[track_caller]
    pub fn assert_calm(&self) {
        let severe = self.severe_alarms();
        assert!(severe.is_empty(), "alarms above low: {severe:#?} for {:#?}", self.testbed.drops());
        assert_eq!(self.testbed.show("status")["quarantined"], serde_json::json!([]));
    }

    /// Waits for an alarm about this server and service of this kind and severity.
    #[track_caller]
    pub fn wait_for_alarm(&self, severity: &str, kind: &str, server: &str, service: &str) -> String {
        let heading = format!("{severity} {kind}: {server}");
        self.daemon.wait_for_line(&["alarm #", &heading, service])
    }
}

fn with_alarms(testbed: &Testbed, policy: &str) -> String {
    format!(
        "{policy}\n[alarms]\neve = \"{}/check.json\"\nquarantine_for = \"1h\"\n\
         quarantine_on = [\"attempt\", \"fetch\", \"callback\", \"scan\", \"backdoor\", \"spread\"]\n",
        testbed.folder.display()
    )
}
