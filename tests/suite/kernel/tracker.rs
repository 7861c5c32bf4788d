//! The hook at egress: TCX, or clsact before Linux 6.6.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::e2e::policies::{dmz, dmz_with};
use crate::e2e::testbed::{Testbed, exclusive, tracker_hook};
use crate::support::patience::eventually;

use super::{prove_gate, prove_service};

fn tracker(testbed: &Testbed) -> String {
    testbed.show("status")["tracker"].as_str().expect("a word").to_owned()
}

/// How many filters are at the NIC's egress by clsact.
fn count_filters(testbed: &Testbed) -> usize {
    let output =
        testbed.router.command("tc").args(["filter", "show", "dev", "dmz0", "egress"]).output().expect("tc");
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("handle")).count()
}

fn tc(testbed: &Testbed, args: &str) -> bool {
    let mut tc = testbed.router.command("tc");
    tc.args(args.split(' ')).stderr(Stdio::null()).status().expect("tc, of iproute2").success()
}

#[test]
fn strict_tracking_works_by_the_hook_that_the_kernel_has_and_is_reported_so() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let said = testbed.attach(&dmz());
    assert_eq!(said.err, "");
    assert_eq!(tracker(&testbed), tracker_hook());
    prove_gate(&testbed, &tap);
    let flows = testbed.show("flows").to_string();
    assert!(flows.contains("established"), "{flows}");

    // again: in the place of the first, not beside it
    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    prove_gate(&testbed, &tap);
    let filters = usize::from(tracker_hook() == "clsact");
    assert_eq!((count_filters(&testbed), tracker(&testbed).as_str()), (filters, tracker_hook()));

    // off with service tracking, on again with strict
    testbed.apply(&dmz_with("tracking = \"service\""));
    assert_eq!((count_filters(&testbed), tracker(&testbed).as_str()), (0, "no"));
    testbed.apply(&dmz());
    prove_gate(&testbed, &tap);
    assert_eq!((count_filters(&testbed), tracker(&testbed).as_str()), (filters, tracker_hook()));

    testbed.detach();
    assert_eq!(count_filters(&testbed), 0);
}

#[test]
fn a_removed_tracker_is_a_warning_until_attach_restores_it() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.remove_tracker();
    eventually("the tracker is off", || tracker(&testbed) == "no");
    let warnings = testbed.show("status")["warnings"].to_string();
    assert!(warnings.contains("strict tracking without its tracker"), "{warnings}");
    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    assert_eq!(testbed.show("status")["warnings"], serde_json::json!([]));
    prove_service(&testbed);
}

#[test]
fn a_daemon_puts_the_tracker_back_on_a_nic_that_was_made_again() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.replace_cable();
    daemon.wait_for_line(&["attached to dmz0 again: native"]);
    let tap = testbed.tap_internet();
    assert_eq!(tracker(&testbed), tracker_hook());
    prove_gate(&testbed, &tap);
    assert!(daemon.end(Signal::SIGTERM).success());
    // and leaves it there
    assert_eq!(tracker(&testbed), tracker_hook());
    prove_gate(&testbed, &tap);
}

#[test]
fn another_filter_at_clsact_is_left_alone() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    assert!(tc(&testbed, "qdisc add dev dmz0 clsact"));
    assert!(tc(&testbed, "filter add dev dmz0 egress prio 1 matchall action continue"));
    let before = count_filters(&testbed);
    assert!(before > 0, "no filter of another");
    testbed.attach(&dmz());
    prove_service(&testbed);
    testbed.detach();
    assert_eq!(count_filters(&testbed), before);
}
