//! Bonds: the gate belongs on the bond, not on a member.

use crate::e2e::elsewhere::{UPPER_MAC, prove_elsewhere};
use crate::e2e::hub::Hub;
use crate::e2e::policies::dmz;
use crate::e2e::testbed::{NIC, Testbed, exclusive};

use super::prove_gate;

/// Makes the router's NIC a member of a bond, under other names.
fn bond(testbed: &Testbed, member: &str, bond: &str) {
    testbed.router.ip(&format!(
        "address flush dev {NIC}\nlink set {NIC} down\n{}\
         link add {bond} address 02:00:00:00:00:01 type bond mode active-backup miimon 20\n\
         link set {member} master {bond}\nlink set {member} up\n",
        if member == NIC { String::new() } else { format!("link set {NIC} name {member}\n") }
    ));
    testbed.wire_router_to_dmz(bond);
    testbed.wait_for_carrier();
}

#[test]
fn a_gate_on_a_bond_is_in_the_driver_of_its_members() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    bond(&testbed, "port0", NIC);
    let tap = testbed.tap_internet();
    let said = testbed.attach(&dmz());
    assert_eq!(said.err, "");
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"native".into(), &true.into()), "{status:#}");
    prove_gate(&testbed, &tap);
    testbed.detach();
    testbed.prove_passes(&tap, 2);
}

#[test]
fn a_gate_on_a_member_of_a_bond_warns_of_the_others() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    bond(&testbed, NIC, "bond0");
    let tap = testbed.tap_internet();
    let said = testbed.attach(&dmz());
    assert!(said.err.contains("member of bond0"), "{said:#?}");
    let warnings = testbed.show("status")["warnings"].to_string();
    assert!(warnings.contains("member of bond0"), "{warnings}");
    assert!(testbed.run("doctor", &["-j"]).out.contains("\"bond_member\""));
    // what comes by this member is judged
    prove_gate(&testbed, &tap);
}

#[test]
fn a_member_of_a_bond_that_has_a_gate_takes_no_second_one_and_says_why() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    bond(&testbed, "port0", NIC);
    testbed.attach(&dmz());
    let path = testbed.write("policy.toml", &dmz());
    testbed
        .router
        .portcullis(&["attach", "-i", "port0", "-p", &path])
        .refused(&["port0", "another XDP program"]);
    assert_eq!(testbed.show("status")["attached"], "native");
}

#[test]
fn a_gate_on_a_member_of_a_bond_knows_the_mac_of_the_bond() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let hub = Hub::new(&testbed);
    bond(&testbed, NIC, "bond0");
    // which forgets its neighbours: it finds them again by the other address
    testbed.router.ip("link set bond0 address 02:00:00:00:00:aa\naddress add fe80::1/64 dev bond0 nodad\n");
    prove_elsewhere(&testbed, &hub, UPPER_MAC, None);
}
