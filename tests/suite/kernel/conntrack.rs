//! The kernel's conntrack, where it is a module: the gate does without it until it comes.

use std::path::Path;
use std::process::Command;

use super::prove_gate;
use crate::e2e::policies::dmz_with;
use crate::e2e::testbed::{Testbed, exclusive};

const THERE: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

fn modprobe(args: &[&str]) -> bool {
    Command::new("modprobe").args(args).status().expect("modprobe, of kmod").success()
}

#[test]
fn a_gate_without_conntrack_is_attached_and_the_daemon_turns_the_handover_on_when_the_module_comes() {
    let _machine = exclusive();
    for module in ["nft_ct", "nf_conntrack_netlink", "nf_conntrack"] {
        modprobe(&["-q", "-r", module]);
    }
    assert!(!Path::new(THERE).exists(), "conntrack is in use, or no module of this kernel");
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let policy = dmz_with("handover = \"conntrack\"");
    let daemon = testbed.daemon(&policy, &[]);
    daemon.wait_for_line(&["warning: the policy has `handover`, and this kernel has no conntrack now"]);
    let status = testbed.show("status");
    assert_eq!(status["handover_state"]["active"], false, "{status:#}");
    assert!(status["warnings"].to_string().contains("modprobe nf_conntrack"), "{status:#}");
    prove_gate(&testbed, &tap);

    assert!(modprobe(&["nf_conntrack"]));
    daemon.wait_for_line(&["conntrack is there: open connections of another router are taken over on dmz0"]);
    let status = testbed.show("status");
    assert_eq!(status["handover_state"]["active"], true, "{status:#}");
    prove_gate(&testbed, &tap);
}
