//! A DMZ with the gate, whose daemon reports every drop; the tests wait for it to say nothing.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLockReadGuard};

use nix::sys::signal::Signal;

use super::policy::{Need, policy};
use super::service::{BRIEF, ENOUGH};
use crate::e2e::command::{Daemon, Row};
use crate::e2e::testbed::{NIC, Testbed, share_machine};
use crate::support::patience::{Wait, eventually};

/// Seconds: every test outlives it.
pub const PICKUP_S: u32 = 1;
/// Enough to say a word in it on a busy machine.
pub const LONG_PICKUP_S: u32 = 6;

pub struct Site {
    pub testbed: Arc<Testbed>,
    daemon: Option<Daemon>,
    events: PathBuf,
    _machine: RwLockReadGuard<'static, ()>,
}

impl Site {
    /// With the gate attached and its pickup over.
    pub fn new() -> Site {
        let mut site = Site::without_gate();
        site.start_daemon();
        site.outlast_pickup();
        site
    }

    pub fn without_gate() -> Site {
        let machine = share_machine();
        let testbed = Testbed::new();
        wire_naturally(&testbed);
        let events = testbed.folder.join("eve.json");
        Site { testbed: Arc::new(testbed), daemon: None, events, _machine: machine }
    }

    pub fn start_daemon(&mut self) {
        self.start_daemon_with(PICKUP_S);
    }

    /// With a pickup of so many seconds.
    pub fn start_daemon_with(&mut self, pickup_s: u32) {
        let text = policy(None, pickup_s);
        self.daemon = Some(self.testbed.daemon(&self.with_events(&text), &[]));
    }

    pub fn outlast_pickup(&self) {
        eventually("the pickup is over", || self.testbed.show("status")["pickup_s"] == 0);
    }

    /// Ends the daemon and starts the next one. What it had said is still checked.
    pub fn restart_daemon(&mut self, signal: Signal) {
        let mut daemon = self.daemon.take().expect("a daemon");
        daemon.end(signal);
        assert_silent(&daemon);
        self.start_daemon();
    }

    fn with_events(&self, text: &str) -> String {
        format!("{text}\n[alarms]\neve = \"{}\"\n", self.events.display())
    }

    /// Makes another policy the live one.
    #[track_caller]
    pub fn apply(&self, text: &str) {
        self.testbed.apply(&self.with_events(text));
    }

    /// Nothing was dropped, so nothing said.
    #[track_caller]
    pub fn assert_quiet(&self) {
        let drops = self.testbed.drops();
        assert!(drops.is_empty(), "legitimate packets were dropped: {drops:#?}");
        assert_eq!(self.count_events("drop"), 0, "the event file has drops");
        self.assert_silent();
        let status = self.testbed.show("status");
        assert_eq!((&status["attached"], &status["enforcing"]), (&"native".into(), &true.into()), "{NIC}");
    }

    /// Nothing was reported.
    #[track_caller]
    pub fn assert_silent(&self) {
        assert_silent(self.daemon.as_ref().expect("a daemon"));
        assert_eq!(self.testbed.show("alarms"), serde_json::json!([]));
        assert_eq!(self.count_events("alert"), 0, "false alarms in {}", self.events.display());
    }

    /// Lines of the event file, which is made for the first one.
    fn count_events(&self, kind: &str) -> usize {
        let kind = format!(r#""event_type":"{kind}""#);
        let text = fs::read_to_string(&self.events).unwrap_or_default();
        text.lines().filter(|line| line.contains(&kind)).count()
    }

    /// Packets of a server in the ledger.
    pub fn count_drops(&self, server: &str) -> u64 {
        let drops = self.testbed.drops();
        drops.iter().filter(|row| row.0["server"] == server).map(Row::packets).sum()
    }

    /// The attempt succeeds, fails without this need, and succeeds again; the server's drops are the
    /// cause. The attempt gets its deadline as an argument.
    #[track_caller]
    pub fn hangs_on(&self, server: &str, need: Need, attempt: impl Fn(Wait) -> bool) {
        assert!(attempt(ENOUGH), "before: {need:?}");
        self.apply(&policy(Some(need), PICKUP_S));
        let before = (self.count_drops(server), self.count_events("drop"));
        assert!(!attempt(BRIEF), "went through without {need:?}");
        eventually(&format!("drops for want of {need:?}"), || self.count_drops(server) > before.0);
        // so silence elsewhere means something
        eventually("the daemon reports them", || self.count_events("drop") > before.1);
        self.apply(&policy(None, PICKUP_S));
        assert!(attempt(ENOUGH), "after: {need:?}");
    }
}

#[track_caller]
fn assert_silent(daemon: &Daemon) {
    let lines = daemon.find(&["alarm #"]);
    assert!(lines.is_empty(), "false alarms: {lines:#?}");
}

/// Neighbours are found as on any link, by ARP and neighbour discovery through the gate, and
/// the NICs have link-local addresses that are made sure of.
pub fn wire_naturally(testbed: &Testbed) {
    for (machine, nic, address) in [(&testbed.dmz, "eth0", "fe80::10"), (&testbed.router, NIC, "fe80::1")] {
        machine.set_sysctl(&format!("ipv6/conf/{nic}/accept_dad"), "1");
        machine.ip(&format!("neighbour flush dev {nic} nud permanent\naddress add {address}/64 dev {nic}\n"));
    }
}

/// Is set when it goes, also by a panic: a scope waits for its threads.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
