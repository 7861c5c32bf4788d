//! One violation in the middle of a flood, and one while no daemon lives: each is reported once, by
//! every sink, and soon.
//!
//! `PORTCULLIS_FLOOD` says how many packets the flood has; ten million take about a minute.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portcullis::gate::Gate;
use serde_json::Value;

use super::command::Daemon;
use super::policies::dmz;
use super::testbed::{Testbed, V4, exclusive};
use super::traffic::{FORBIDDEN, syn_of};
use crate::support::chance::Chance;
use crate::support::patience::{deadline, eventually};

const FLOOD: u64 = 400_000;
/// Packets of one run: the kernel repeats it by itself.
const REPEAT: u32 = 8;
/// The contract is a second. This machine has two CPUs that the flood has both of, and a program
/// that nobody has optimized. How slow the machine is counts as it is before the flood: the flood's own load
/// is no excuse.
const SOON: Duration = Duration::from_secs(5);
/// Alarms that a flood may open: its attempts before it counts as a scan, and the scan.
const MOST_ALARMS: usize = 8;

/// The mail server, taken over: SYNs to every port of everybody, from every CPU, and as fast as
/// the filter can judge them.
struct Flood<'g> {
    gate: &'g Gate,
    sent: AtomicU64,
    stop: AtomicBool,
}

/// Ends the flood's threads also when a test fails.
struct Stop<'f>(&'f AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flood<'_> {
    fn new(gate: &Gate) -> Flood<'_> {
        Flood { gate, sent: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    fn pour(&self, seed: u64) {
        let mut chance = Chance::new(seed);
        let mut frame = syn_of(V4.mail, 1);
        while !self.stop.load(Ordering::Relaxed) {
            let bytes = chance.next().to_le_bytes();
            // below 256 it has its needs
            frame[36..38].copy_from_slice(&[bytes[0] | 1, bytes[1]]);
            // 198.51.100.0/24 and 203.0.113.0/24
            let network: [u8; 3] = if bytes[2] & 1 == 0 { [198, 51, 100] } else { [203, 0, 113] };
            frame[30..33].copy_from_slice(&network);
            frame[33] = bytes[3];
            self.gate.programs.run_filter(&frame, REPEAT).expect("a run");
            self.sent.fetch_add(u64::from(REPEAT), Ordering::Relaxed);
        }
    }

    #[track_caller]
    fn reaches(&self, count: u64) {
        // as long as it gets on
        while self.sent.load(Ordering::Relaxed) < count {
            let before = self.sent.load(Ordering::Relaxed);
            eventually("the flood goes on", || self.sent.load(Ordering::Relaxed) > before);
        }
    }
}

fn flood_size() -> u64 {
    std::env::var("PORTCULLIS_FLOOD").ok().and_then(|count| count.parse().ok()).unwrap_or(FLOOD)
}

/// Where alarms are reported.
struct Places {
    eve: PathBuf,
    pages: PathBuf,
}

impl Places {
    fn policy(&self) -> String {
        format!(
            "{}\n[alarms]\neve = \"{}\"\ncommand = [\"/bin/sh\", \"-c\", \"cat >>{}\"]\n",
            dmz(),
            self.eve.display(),
            self.pages.display()
        )
    }

    /// What a file says of the web server: the rest is the flood.
    fn lines(path: &PathBuf) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let ours = text.lines().filter(|line| line.contains("web1"));
        ours.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How often each has reported the web server at this port as something new: an alarm that was opened, or
    /// another part of one.
    fn reported(&self, daemon: &Daemon, port: u16) -> [usize; 3] {
        let service = format!("udp/{port}");
        let news = format!("{service} ");
        let is_it = |alarm: &Value| {
            let is_first = alarm["service"] == *service && alarm["change"] == "opened";
            let is_part = alarm["news"].as_str().is_some_and(|text| text.contains(&news));
            alarm["server"] == "web1" && (is_first || is_part)
        };
        let alerts = Places::lines(&self.eve);
        let alerts = alerts.iter().filter(|line| line["event_type"] == "alert");
        let is_new = |line: &&String| match line.split_once(". New: ") {
            Some((_, text)) => text.contains(&news),
            None => line.contains(" opened: "),
        };
        [
            daemon.find(&["alarm #", "web1", &news]).iter().filter(is_new).count(),
            alerts.filter(|line| is_it(&line["portcullis"])).count(),
            Places::lines(&self.pages).iter().filter(|line| is_it(line)).count(),
        ]
    }

    /// Sends one violation, waits until each has reported it, and says how long that took.
    #[track_caller]
    fn time_violation(&self, testbed: &Testbed, daemon: &Daemon, port: u16) -> [Duration; 3] {
        let sent = Instant::now();
        testbed.send_from_web(port, 1);
        let mut times = [None; 3];
        eventually("each sink has reported it", || {
            for (time, reported) in times.iter_mut().zip(self.reported(daemon, port)) {
                if reported > 0 && time.is_none() {
                    *time = Some(sent.elapsed());
                }
            }
            times.iter().all(Option::is_some)
        });
        times.map(|time| time.expect("a time"))
    }
}

#[test]
fn each_sink_reports_a_violation_in_a_flood_once_and_soon_and_also_one_without_a_daemon() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let places = Places { eve: testbed.folder.join("eve.json"), pages: testbed.folder.join("pages") };
    let mut daemon = testbed.daemon(&places.policy(), &[]);
    let size = flood_size();
    let gate = testbed.open_gate();
    let soon = deadline(SOON);
    let flood = Flood::new(&gate);
    std::thread::scope(|scope| {
        let _stop = Stop(&flood.stop);
        for seed in [0x9e37_79b9_7f4a_7c15, 0x2545_f491_4f6c_dd1d] {
            let flood = &flood;
            scope.spawn(move || flood.pour(seed));
        }
        flood.reaches(size / 2);
        let times = places.time_violation(&testbed, &daemon, FORBIDDEN);
        eprintln!(
            "{} drops into the flood: reported on stderr, in EVE and to the command after {times:?}",
            flood.sent.load(Ordering::Relaxed)
        );
        assert!(times.iter().all(|time| *time < soon), "{times:?}");
        flood.reaches(size);
        daemon.end(Signal::SIGKILL);
        // and the flood goes on
        testbed.send_from_web(FORBIDDEN + 1, 1);
        eventually("the ledger has it", || testbed.dropped("web1", "udp", FORBIDDEN + 1, "new_flow") == 1);
        let sent = flood.sent.load(Ordering::Relaxed);
        flood.reaches(sent + size / 10);
    });
    let sent = flood.sent.load(Ordering::Relaxed);
    let counted: u64 =
        testbed.drops().iter().filter(|row| row.0["server"] == "mx1").map(super::command::Row::packets).sum();
    assert_eq!(counted, sent, "the ledger is not exact");
    assert_eq!(places.reported(&daemon, FORBIDDEN), [1, 1, 1], "not once");
    let opened = daemon.find(&["alarm #", " opened: "]).len();
    assert!(opened <= MOST_ALARMS, "{opened} alarms bury the reader");

    let mut next = testbed.daemon(&places.policy(), &[]);
    eventually("each sink of the next daemon has reported it", || {
        places.reported(&next, FORBIDDEN + 1).iter().all(|reported| *reported > 0)
    });
    let away = Places::lines(&places.pages);
    let service = format!("udp/{}", FORBIDDEN + 1);
    let is_page = |line: &&Value| {
        let mut parts = line["parts"].as_array().into_iter().flatten();
        line["while_away"] == true && parts.any(|part| part["service"] == *service)
    };
    assert!(away.iter().any(|line| is_page(&line)), "{away:#?}");
    // one more round of the reconciler, and what it could report twice is reported
    places.time_violation(&testbed, &next, FORBIDDEN + 2);
    assert!(next.end(Signal::SIGTERM).success());
    assert_eq!(places.reported(&next, FORBIDDEN + 1), [1, 1, 1], "not once");
}

#[test]
fn a_worm_is_called_a_spread_soon_after_its_first_packet() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    let gate = testbed.open_gate();
    let mut frame = syn_of(V4.mail, 445);
    let start = Instant::now();
    let mut reported = None;
    let mut hosts = 0_u16;
    let soon = deadline(SOON);
    while reported.is_none() && start.elapsed() < soon {
        hosts += 1;
        frame[32..34].copy_from_slice(&hosts.to_be_bytes());
        gate.programs.run_filter(&frame, 1).expect("a run");
        // a worm that is in no hurry
        std::thread::sleep(Duration::from_millis(2));
        reported = daemon.find(&["spread", "mx1", "tcp/445"]).pop();
    }
    eprintln!("a worm was called one after {:?} and {hosts} destinations", start.elapsed());
    let reported = reported.expect("a spread, and soon");
    assert!(reported.contains("alarm #1 escalated") || reported.contains("alarm #1 opened"), "{reported}");
}
