//! The hook at egress: TCX, or clsact before Linux 6.6.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::e2e::policies::{dmz, dmz_with};
use crate::e2e::world::{World, eventually, own_machine, tracker_hook};

use super::{prove_gate, prove_service};

fn tracker(world: &World) -> String {
    world.show("status")["tracker"].as_str().expect("a word").to_owned()
}

/// How many filters are at the NIC's egress by clsact.
fn count_filters(world: &World) -> usize {
    let output =
        world.router.command("tc").args(["filter", "show", "dev", "dmz0", "egress"]).output().expect("tc");
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("handle")).count()
}

fn tc(world: &World, args: &str) -> bool {
    let mut tc = world.router.command("tc");
    tc.args(args.split(' ')).stderr(Stdio::null()).status().expect("tc, of iproute2").success()
}

#[test]
fn strict_tracking_works_by_the_hook_that_the_kernel_has_and_is_reported_so() {
    let _machine = own_machine();
    let world = World::new();
    let tap = world.tap_internet();
    let said = world.attach(&dmz());
    assert_eq!(said.err, "");
    assert_eq!(tracker(&world), tracker_hook());
    prove_gate(&world, &tap);
    let flows = world.show("flows").to_string();
    assert!(flows.contains("established"), "{flows}");

    // again: in the place of the first, not beside it
    let path = world.write("policy.toml", &dmz());
    world.run("attach", &["-p", &path]).done();
    prove_gate(&world, &tap);
    let filters = usize::from(tracker_hook() == "clsact");
    assert_eq!((count_filters(&world), tracker(&world).as_str()), (filters, tracker_hook()));

    // off with service tracking, on again with strict
    world.apply(&dmz_with("tracking = \"service\""));
    assert_eq!((count_filters(&world), tracker(&world).as_str()), (0, "no"));
    world.apply(&dmz());
    prove_gate(&world, &tap);
    assert_eq!((count_filters(&world), tracker(&world).as_str()), (filters, tracker_hook()));

    world.detach();
    assert_eq!(count_filters(&world), 0);
}

#[test]
fn a_tracker_that_was_taken_off_is_a_warning_until_attach_puts_it_back() {
    let _machine = own_machine();
    let world = World::new();
    world.attach(&dmz());
    world.remove_tracker();
    eventually("the tracker is off", || tracker(&world) == "no");
    let warnings = world.show("status")["warnings"].to_string();
    assert!(warnings.contains("strict tracking without its tracker"), "{warnings}");
    let path = world.write("policy.toml", &dmz());
    world.run("attach", &["-p", &path]).done();
    assert_eq!(world.show("status")["warnings"], serde_json::json!([]));
    prove_service(&world);
}

#[test]
fn a_daemon_puts_the_tracker_back_on_a_nic_that_was_made_again() {
    let _machine = own_machine();
    let world = World::new();
    let mut daemon = world.daemon(&dmz(), &[]);
    world.replace_cable();
    daemon.hear(&["is down again: native"]);
    let tap = world.tap_internet();
    assert_eq!(tracker(&world), tracker_hook());
    prove_gate(&world, &tap);
    assert!(daemon.end(Signal::SIGTERM).success());
    // and leaves it there
    assert_eq!(tracker(&world), tracker_hook());
    prove_gate(&world, &tap);
}

#[test]
fn another_filter_at_clsact_is_left_alone() {
    let _machine = own_machine();
    let world = World::new();
    assert!(tc(&world, "qdisc add dev dmz0 clsact"));
    assert!(tc(&world, "filter add dev dmz0 egress prio 1 matchall action continue"));
    let before = count_filters(&world);
    assert!(before > 0, "no filter of another");
    world.attach(&dmz());
    prove_service(&world);
    world.detach();
    assert_eq!(count_filters(&world), before);
}
