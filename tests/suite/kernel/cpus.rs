//! A CPU that is switched off and on again: its counts stay, and what it drops afterwards is reported too.

use std::fs;

use crate::e2e::policies::dmz;
use crate::e2e::testbed::{Testbed, exclusive};
use crate::support::cpu::on_cpu;
use crate::support::patience::eventually;

/// The CPU that is switched off. The first one of a machine often can't be.
const CPU: usize = 1;

/// A CPU that is off, and on again when this is dropped.
struct Offline;

impl Offline {
    fn new() -> Offline {
        switch(false);
        Offline
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        switch(true);
    }
}

fn switch(on: bool) {
    let path = format!("/sys/devices/system/cpu/cpu{CPU}/online");
    fs::write(&path, if on { "1" } else { "0" }).unwrap_or_else(|error| panic!("{path}: {error}"));
    let online = || fs::read_to_string(&path).is_ok_and(|text| text.trim() == if on { "1" } else { "0" });
    eventually("the CPU is switched", online);
}

#[test]
fn the_counts_of_a_cpu_that_is_off_stay_and_one_that_comes_later_is_reported() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let dropped = |port: u16| testbed.dropped("web1", "udp", port, "new_flow");
    let send = |cpu: usize, port: u16, count: u64| on_cpu(cpu, || testbed.send_from_web(port, count));
    let reported = |port: u16, count: u64| {
        let alarms = testbed.show("alarms");
        let text = alarms.to_string();
        dropped(port) == count && testbed.reported() > 0 && text.contains(&format!("udp/{port}"))
    };
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    send(CPU, 4_001, 7);
    send(0, 4_001, 5);
    eventually("each drop is in the ledger", || dropped(4_001) == 12);
    let offline = Offline::new();
    assert_eq!(dropped(4_001), 12, "the counts of the CPU that is off");
    send(0, 4_001, 3);
    eventually("and those of the other one", || dropped(4_001) == 15);
    drop(daemon);

    // a daemon that has no perf buffer on that CPU
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    drop(offline);
    send(CPU, 4_002, 9);
    eventually("it is reported", || reported(4_002, 9));
    assert_eq!(dropped(4_001), 15);
    eventually("the history has each drop once", || testbed.reported() == 24);
    assert!(daemon.is_running());
}
