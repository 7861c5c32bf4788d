//! Tagged frames: judged inside where the driver leaves the tag in the frame; where the hardware
//! strips it, the filter sees what is left, and a server's VLAN can't be verified.

use std::process::Stdio;

use crate::e2e::elsewhere::{UPPER_MAC, prove_elsewhere};
use crate::e2e::hub::Hub;
use crate::e2e::policies::dmz;
use crate::e2e::testbed::{NIC, Plug, Testbed, exclusive};
use crate::support::patience::eventually;

use super::prove_gate;

/// The policy with all servers bound to a VLAN.
fn bound_to(vlan: u16) -> String {
    dmz().replace("\"managed\"]\n", &format!("\"managed\"]\nvlan = {vlan}\n"))
}

/// Puts both ends into VLAN 7: the gate's NIC is the one below the VLAN's own.
fn tag_above_the_gate(testbed: &Testbed) {
    testbed.router.ip(&format!("address flush dev {NIC}\nlink add link {NIC} name seven type vlan id 7\n"));
    testbed.wire_router_to_dmz("seven");
    tag_servers(testbed);
}

/// Puts both ends into VLAN 7: the gate's NIC is the VLAN's own.
fn tag_below_the_gate(testbed: &Testbed) {
    testbed.router.ip(&format!(
        "address flush dev {NIC}\nlink set {NIC} down\nlink set {NIC} name trunk\nlink set trunk up\n\
         link add link trunk name {NIC} type vlan id 7\n"
    ));
    testbed.wire_router_to_dmz(NIC);
    tag_servers(testbed);
}

fn tag_servers(testbed: &Testbed) {
    testbed.dmz.ip("address flush dev eth0\nlink set eth0 down\nlink set eth0 up\nlink add link eth0 name seven type vlan id 7\n");
    testbed.wire_dmz("seven");
    testbed.wait_for_carrier();
}

fn strip_tags(testbed: &Testbed, nic: &str, how: &str) {
    let mut ethtool = testbed.router.command("ethtool");
    let status = ethtool.args(["-K", nic, "rxvlan", how]).stdout(Stdio::null()).status().expect("ethtool");
    assert!(status.success(), "ethtool -K {nic} rxvlan {how}");
}

#[test]
fn tagged_frames_are_judged_inside_where_the_driver_leaves_the_tag() {
    let _machine = exclusive();
    let testbed = Testbed::plugged(Plug::Nics("virtio"));
    tag_above_the_gate(&testbed);
    let tap = testbed.tap_internet();
    let said = testbed.attach(&bound_to(7));
    assert_eq!(said.err, "");
    assert_eq!(testbed.show("status")["attached"], "native");
    prove_gate(&testbed, &tap);

    // and the tag is seen: the same servers from another VLAN are impostors
    testbed.apply(&bound_to(8));
    testbed.send_from_web(4000, 4);
    eventually("the spoofing is seen", || testbed.dropped("web1", "udp", 4000, "spoofed") == 4);
}

#[test]
fn a_nic_that_strips_tags_hides_them_from_the_filter_which_then_trusts_nobody() {
    let _machine = exclusive();
    let testbed = Testbed::plugged(Plug::Nics("e1000e"));
    tag_above_the_gate(&testbed);
    strip_tags(&testbed, NIC, "on");
    let tap = testbed.tap_internet();

    // without `vlan` nothing is missed: the packet in the frame is judged
    let said = testbed.attach(&dmz());
    assert!(!said.err.contains("VLAN"), "{said:#?}");
    prove_gate(&testbed, &tap);

    // with it nothing passes, and the reason is counted
    let said = testbed.apply(&bound_to(7));
    assert!(said.err.contains("strips VLAN tags") && said.err.contains("rxvlan off"), "{said:#?}");
    let warnings = testbed.show("status")["warnings"].to_string();
    assert!(warnings.contains("strips VLAN tags"), "{warnings}");
    let finds_it = || testbed.run("doctor", &["-j"]).out.contains("\"tags_stripped\"");
    assert!(finds_it());
    testbed.send_from_web(4000, 4);
    eventually("the frames without their tag are seen", || {
        testbed.dropped("web1", "udp", 4000, "spoofed") == 4
    });

    // what the warning advises
    strip_tags(&testbed, NIC, "off");
    let warnings = testbed.show("status")["warnings"].to_string();
    assert!(!warnings.contains("strips VLAN tags"), "{warnings}");
    assert!(!finds_it());
    prove_gate(&testbed, &tap);
    strip_tags(&testbed, NIC, "on"); // the NIC outlives the test
}

#[test]
fn a_gate_on_a_vlans_own_interface_judges_that_vlan_whether_tags_are_stripped_or_not() {
    let _machine = exclusive();
    for how in ["on", "off"] {
        let testbed = Testbed::plugged(Plug::Nics("e1000e"));
        strip_tags(&testbed, NIC, how);
        tag_below_the_gate(&testbed);
        let tap = testbed.tap_internet();
        let said = testbed.attach(&dmz());
        assert!(said.err.contains("generic mode"), "{said:#?}");
        assert_eq!(testbed.show("status")["attached"], "generic");
        // the trunk takes other frames once it has an address
        let finds_sibling = || testbed.run("doctor", &["-j"]).out.contains("\"vlan_sibling\"");
        assert!(!finds_sibling());
        testbed.router.ip("address add 203.0.113.200/32 dev trunk\n");
        assert!(finds_sibling());
        testbed.router.ip("address delete 203.0.113.200/32 dev trunk\n");
        prove_gate(&testbed, &tap);

        // The tag is gone by then: a server's `vlan` can't be verified, whatever the hardware does.
        let said = testbed.apply(&bound_to(7));
        assert!(said.err.contains("VLAN"), "{said:#?}");
        strip_tags(&testbed, "trunk", "on");
    }
}

#[test]
fn a_cable_between_namespaces_carries_tags_beside_the_frame_unless_it_is_set_otherwise() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    tag_above_the_gate(&testbed);
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    prove_gate(&testbed, &tap);
}

#[test]
fn a_gate_under_a_vlans_interface_knows_its_mac() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let hub = Hub::new(&testbed);
    tag_above_the_gate(&testbed);
    // which forgets its neighbours: it finds them again by the other address
    testbed.router.ip("link set seven address 02:00:00:00:00:aa\naddress add fe80::1/64 dev seven nodad\n");
    prove_elsewhere(&testbed, &hub, UPPER_MAC, Some(("seven", 7)));
}
