//! A perf buffer that nobody reads: the samples are lost, and no drop goes unreported.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::e2e::command::Row;
use crate::e2e::policies::dmz_with_eve;
use crate::e2e::socket::udp;
use crate::e2e::testbed::{Testbed, V4, ip, share_machine};
use crate::support::patience::{PATIENCE, eventually, within};

/// Kinds of drops: more than the buffer holds samples.
const KINDS: u16 = 3_000;
const FIRST: u16 = 20_000;

#[test]
fn what_a_stopped_daemon_does_not_read_it_reports_when_it_goes_on() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.folder.join("eve.json");
    let mut daemon = testbed.daemon(&dmz_with_eve(&path.display().to_string()), &[]);
    daemon.signal(Signal::SIGSTOP);
    let lost = || testbed.show("status")["events"]["samples_lost"].as_u64().expect("a count");
    // a cable whose other end is busy loses datagrams before the gate sees them
    let unsent = || testbed.dmz.count_unsent("eth0");
    let unsent_before = unsent();
    let mut drops = 0;
    let mut rounds = 0;
    // A kind is sampled once a second at most, so it takes time, and not a number of rounds, to fill the buffer.
    let filled = within(3 * PATIENCE, || {
        rounds += 1;
        // of three servers, for one may not have so many rows of the ledger
        for server in [V4.web, V4.mail, V4.dns] {
            let socket = udp(&testbed.dmz, server, 0);
            for port in 0..KINDS / 3 {
                let to = std::net::SocketAddr::new(ip(V4.peer), FIRST + port);
                socket.send_to(b"out", to).expect("a datagram");
                if port % 16 == 0 {
                    std::thread::yield_now();
                }
            }
        }
        eventually("each drop is in the ledger", || {
            drops = testbed.drops().iter().map(Row::packets).sum::<u64>();
            drops + unsent() - unsent_before == u64::from(KINDS) * rounds
        });
        rounds >= 2 && lost() > 0
    });
    assert!(
        filled,
        "the buffer took every sample of {rounds} rounds: {:#}",
        testbed.show("status")["events"]
    );
    testbed.catch_up(&tap);
    assert_eq!(tap.count(|one| one.destination_port >= FIRST && one.destination_port < FIRST + KINDS), 0);
    let events = testbed.show("status")["events"].clone();
    let number = |key: &str| events[key].as_u64().expect("a count");
    assert_eq!(number("samples_no_reader"), 0, "{events:#}");
    assert_eq!(testbed.show("status")["events_lost"], events["samples_lost"]);

    daemon.signal(Signal::SIGCONT);
    // as events one by one as far as they go, and whole in the alarms and in the history
    let alarmed = || {
        let alarms = testbed.show("alarms");
        alarms.as_array().into_iter().flatten().filter_map(|alarm| alarm["packets"].as_u64()).max()
    };
    eventually("the alarms know of them", || alarmed().is_some_and(|drops| drops >= 1_000));
    let reported = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event_type"] == "drop").count()
    };
    eventually("events are reported", || reported() >= 500);
    // counts of so many kinds are reported bit by bit and written every ten seconds
    let written = within(3 * PATIENCE, || testbed.reported() == drops);
    assert!(written, "{} of {drops} drops are in the history", testbed.reported());
    assert!(daemon.end(Signal::SIGTERM).success());
    assert_eq!(testbed.reported(), drops, "each drop is in the history once");
}
