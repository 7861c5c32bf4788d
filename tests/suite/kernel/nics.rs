//! Drivers with XDP of their own, and drivers without.

use crate::e2e::policies::dmz;
use crate::e2e::testbed::{Plug, Testbed, exclusive, kernel};

use super::{prove_cycle, prove_gate};

#[test]
fn a_cable_has_the_gate_in_its_driver() {
    let _machine = exclusive();
    let (mode, said) = prove_cycle(&Testbed::new());
    assert_eq!((mode.as_str(), said.as_str()), ("native", ""));
}

#[test]
fn a_virtio_nic_has_the_gate_in_its_driver() {
    let _machine = exclusive();
    let (mode, said) = prove_cycle(&Testbed::plugged(Plug::Nics("virtio")));
    assert_eq!((mode.as_str(), said.as_str()), ("native", ""));
}

#[test]
fn a_vmxnet3_nic_has_a_generic_gate_until_its_driver_knows_xdp() {
    let _machine = exclusive();
    let (mode, said) = prove_cycle(&Testbed::plugged(Plug::Nics("vmxnet3")));
    if kernel() >= (6, 6) {
        assert_eq!((mode.as_str(), said.as_str()), ("native", ""));
    } else {
        assert_eq!(mode, "generic");
        says_why_generic(&said);
    }
}

#[test]
fn a_nic_whose_driver_has_no_xdp_gets_a_generic_gate_and_says_so_everywhere() {
    let _machine = exclusive();
    let testbed = Testbed::plugged(Plug::Nics("e1000e"));
    let (mode, said) = prove_cycle(&testbed);
    assert_eq!(mode, "generic");
    says_why_generic(&said);

    let tap = testbed.tap_internet();
    let daemon = testbed.daemon(&dmz(), &[]);
    daemon.wait_for_line(&["warning", "native XDP", "generic mode"]);
    prove_gate(&testbed, &tap);
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"generic".into(), &true.into()), "{status:#}");
    assert!(status["warnings"].to_string().contains("generic mode"), "{status:#}");
    assert!(testbed.run("show", &["status"]).done().out.contains("warning: generic"));
    assert_eq!(testbed.xdp_of(), "xdpgeneric");
}

#[test]
fn devices_without_an_ethernet_header_are_refused() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    for (name, line) in [
        ("gre1", "type gre local 192.0.2.1 remote 192.0.2.2"),
        ("ipip1", "type ipip local 192.0.2.1 remote 192.0.2.2"),
        ("sit1", "type sit local 192.0.2.1 remote 192.0.2.2"),
        ("wg1", "type wireguard"),
        ("ipv1", "link wan0 type ipvlan mode l3"),
    ] {
        testbed.router.ip(&format!("link add {name} {line}\nlink set {name} up\n"));
        let outcome = testbed.router.portcullis(&["attach", "-i", name, "-p", &path]);
        outcome.refused(&["have no Ethernet header", name, "help:"]);
        let output =
            testbed.router.command("ip").args(["-d", "link", "show", "dev", name]).output().expect("ip");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("xdp"), "{name} has a program");
        testbed.router.ip(&format!("link delete {name}\n"));
    }
}

/// In words, without a bare number or name of an errno.
#[track_caller]
fn says_why_generic(said: &str) {
    for words in ["warning", "dmz0", "has no native XDP", "generic mode"] {
        assert!(said.contains(words), "no `{words}` in `{said}`");
    }
    assert!(!said.contains("EOPNOTSUPP") && !said.contains("os error"), "{said}");
}
