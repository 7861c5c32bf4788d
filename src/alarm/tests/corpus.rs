//! A corpus of event sequences, each with the alarms that a person would want to get. `docs/alarms.md` shows
//! some of them.
//!
//! An expected line is `SECONDS #ID STEP SEVERITY KIND`, and the number of other parts.

mod decoys;
mod faults;
mod intruders;
mod names;
mod tenants;

use std::sync::Arc;

use super::*;
use crate::alarm::likely::tests::datagram;
use crate::drops::Contacts;

/// An engine, and a clock that runs as the daemon's does.
struct Play {
    engine: Engine,
    now_ms: u64,
    changes: Vec<Change>,
}

impl Play {
    fn new() -> Play {
        Play { engine: Engine::default(), now_ms: 0, changes: Vec::new() }
    }

    /// Lets time pass: what waits is looked at ten times a second, and everything once a second.
    fn until(&mut self, ms: u64) {
        while self.now_ms < ms {
            let step_ms = 100 - self.now_ms % 100;
            self.now_ms = (self.now_ms + step_ms).min(ms);
            let now = after_ms(self.now_ms);
            self.changes.extend(match self.now_ms % 1000 {
                0 => self.engine.tick(now),
                _ => self.engine.flush(now),
            });
        }
    }

    /// A drop at this time.
    fn at(&mut self, ms: u64, drop: &DropEvent) {
        self.until(ms);
        let now = after_ms(ms);
        let drop = DropEvent { time: now.wall, since: now.wall, ..drop.clone() };
        self.changes.extend(self.engine.observe(&drop, now));
    }

    /// A poll of a ledger row at this time, which finds its last packet and its lists.
    fn poll(&mut self, ms: u64, drop: &DropEvent, new_packets: u64) {
        self.until(ms);
        let now = after_ms(ms);
        let last = DropEvent {
            time: now.wall,
            since: now.wall,
            drops: 0,
            from: Origin::Ledger,
            source_port: None,
            tcp_flags: None,
            source_mac: None,
            frame: Vec::new(),
            ..drop.clone()
        };
        let counted = DropEvent { drops: new_packets, ..last.clone() };
        self.changes.extend(self.engine.observe_hot_row(&last, new_packets, || Some(counted), now));
    }

    /// What was reported.
    fn reported(&self) -> Vec<String> {
        self.changes.iter().map(tell).collect()
    }

    /// What was reported but for updates: whatever pages somebody, and the ends.
    fn paged(&self) -> Vec<String> {
        self.changes.iter().filter(|change| change.step != Step::Updated).map(tell).collect()
    }

    fn updates(&self) -> usize {
        self.changes.len() - self.paged().len()
    }

    /// The alarm with this id, as it was last reported or stands now.
    fn alarm(&self, id: u64) -> Alarm {
        let open = self.engine.open_alarms().into_iter().find(|alarm| alarm.id == id);
        let reported = || self.changes.iter().rev().find(|change| change.alarm.id == id);
        open.or_else(|| reported().map(|change| change.alarm.clone())).expect("no such alarm")
    }

    /// The line for people of the last change that paged.
    fn last_page(&self) -> String {
        let is_page = |change: &&Change| matches!(change.step, Step::Opened | Step::Escalated { .. });
        self.changes.iter().rev().find(is_page).expect("a page").message()
    }
}

fn tell(change: &Change) -> String {
    let alarm = &change.alarm;
    let seconds = change.time.duration_since(after_ms(0).wall).as_millis() as f64 / 1000.0;
    let others = match alarm.parts.len() {
        1 => String::new(),
        parts => format!(" +{}", parts - 1),
    };
    let (step, severity, kind) = (change.step.name(), alarm.severity(), alarm.kind());
    format!("{seconds:.1} #{} {step} {severity} {kind}{others}", alarm.id)
}

/// A SYN to a port of a host, from a source port that makes it an attempt of its own.
fn tcp(port: u16, destination: u32, source_port: u16) -> DropEvent {
    attempt_at(port, destination, source_port, at(0))
}

/// A datagram to a port of a host.
fn udp(port: u16, destination: u32, payload: &[u8]) -> DropEvent {
    DropEvent { destination: host(destination), ..datagram(port, payload) }
}

/// Of a port that a role permits elsewhere.
fn elsewhere(drop: DropEvent) -> DropEvent {
    DropEvent { reason: Reason::Destination.into(), ..drop }
}

/// Of a machine of the server `farm`, which is a prefix.
fn machine(number: u8, drop: DropEvent) -> DropEvent {
    DropEvent {
        server: Some(ServerRef { id: 5, name: "farm".into() }),
        source: Some([192, 0, 2, number].into()),
        source_mac: Some([2, 0, 0, 0, 0, number]),
        ..drop
    }
}

/// The first addresses of a row.
fn contacts(addresses: impl Iterator<Item = IpAddr>) -> Option<Arc<Contacts>> {
    let mut first: Vec<IpAddr> = addresses.collect();
    let is_full = first.len() > 16;
    first.truncate(16);
    Some(Arc::new(Contacts { first, is_full, ..Contacts::default() }))
}
