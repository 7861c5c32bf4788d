//! A path that is late, out of order and lossy.

use crate::e2e::policies::dmz;
use crate::e2e::world::{World, own_machine};

use super::{prove_gate, prove_service};

fn shape(world: &World, on_router: bool, how: &str) {
    let (machine, nic) = if on_router { (&world.router, "dmz0") } else { (&world.dmz, "eth0") };
    let mut tc = machine.command("tc");
    tc.args(["qdisc", "replace", "dev", nic, "root", "netem"]).args(how.split(' '));
    assert!(tc.status().expect("tc, of iproute2").success(), "netem {how}");
}

#[test]
fn a_late_disordered_and_doubled_path_changes_no_verdict() {
    let _machine = own_machine();
    let world = World::new();
    let tap = world.tap_internet();
    world.attach(&dmz());
    // The tracker sees a packet before the queue has it, the filter after the queue of the other end.
    shape(&world, true, "delay 4ms reorder 30% duplicate 20%");
    shape(&world, false, "delay 4ms reorder 30%");
    for _ in 0..5 {
        prove_gate(&world, &tap);
    }
}

#[test]
fn a_lossy_path_costs_time_and_no_connection() {
    let _machine = own_machine();
    let world = World::new();
    world.attach(&dmz());
    shape(&world, true, "loss 10%");
    shape(&world, false, "loss 10%");
    for _ in 0..5 {
        prove_service(&world);
    }
    let wrong = world.drops();
    assert!(wrong.is_empty(), "answers of a server were dropped: {wrong:#?}");
}
