//! A path that is late, out of order and lossy.

use crate::e2e::policies::dmz;
use crate::e2e::testbed::{Testbed, exclusive};

use super::{prove_gate, prove_service};

fn shape(testbed: &Testbed, on_router: bool, how: &str) {
    let (machine, nic) = if on_router { (&testbed.router, "dmz0") } else { (&testbed.dmz, "eth0") };
    let mut tc = machine.command("tc");
    tc.args(["qdisc", "replace", "dev", nic, "root", "netem"]).args(how.split(' '));
    assert!(tc.status().expect("tc, of iproute2").success(), "netem {how}");
}

#[test]
fn a_late_disordered_and_doubled_path_changes_no_verdict() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    // The tracker sees a packet before the queue has it, the filter after the queue of the other end.
    shape(&testbed, true, "delay 4ms reorder 30% duplicate 20%");
    shape(&testbed, false, "delay 4ms reorder 30%");
    for _ in 0..5 {
        prove_gate(&testbed, &tap);
    }
}

#[test]
fn a_lossy_path_costs_time_and_no_connection() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    shape(&testbed, true, "loss 10%");
    shape(&testbed, false, "loss 10%");
    for _ in 0..5 {
        prove_service(&testbed);
    }
    let wrong = testbed.drops();
    assert!(wrong.is_empty(), "answers of a server were dropped: {wrong:#?}");
}
