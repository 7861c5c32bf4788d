//! Tagged frames: judged inside where the driver leaves the tag in the frame; where the hardware
//! strips it, the filter sees what is left, and a server's VLAN can't be verified.

use std::process::Stdio;

use crate::e2e::policies::dmz;
use crate::e2e::world::{NIC, Plug, World, eventually, own_machine};

use super::prove_gate;

/// The policy with all servers bound to a VLAN.
fn bound_to(vlan: u16) -> String {
    dmz().replace("\"managed\"]\n", &format!("\"managed\"]\nvlan = {vlan}\n"))
}

/// Puts both ends into VLAN 7: the gate's NIC is the one below the VLAN's own.
fn tag_above_the_gate(world: &World) {
    world.router.ip(&format!("address flush dev {NIC}\nlink add link {NIC} name seven type vlan id 7\n"));
    world.wire_router_to_dmz("seven");
    tag_servers(world);
}

/// Puts both ends into VLAN 7: the gate's NIC is the VLAN's own.
fn tag_below_the_gate(world: &World) {
    world.router.ip(&format!(
        "address flush dev {NIC}\nlink set {NIC} down\nlink set {NIC} name trunk\nlink set trunk up\n\
         link add link trunk name {NIC} type vlan id 7\n"
    ));
    world.wire_router_to_dmz(NIC);
    tag_servers(world);
}

fn tag_servers(world: &World) {
    world.dmz.ip("address flush dev eth0\nlink set eth0 down\nlink set eth0 up\nlink add link eth0 name seven type vlan id 7\n");
    world.wire_dmz("seven");
    world.wait_for_carrier();
}

fn strip_tags(world: &World, nic: &str, how: &str) {
    let mut ethtool = world.router.command("ethtool");
    let status = ethtool.args(["-K", nic, "rxvlan", how]).stdout(Stdio::null()).status().expect("ethtool");
    assert!(status.success(), "ethtool -K {nic} rxvlan {how}");
}

#[test]
fn tagged_frames_are_judged_inside_where_the_driver_leaves_the_tag() {
    let _machine = own_machine();
    let world = World::plugged(Plug::Nics("virtio"));
    tag_above_the_gate(&world);
    let tap = world.tap_internet();
    let said = world.attach(&bound_to(7));
    assert_eq!(said.err, "");
    assert_eq!(world.show("status")["attached"], "native");
    prove_gate(&world, &tap);

    // and the tag is seen: the same servers from another VLAN are impostors
    world.apply(&bound_to(8));
    world.send_from_web(4000, 4);
    eventually("the spoofing is seen", || world.dropped("web1", "udp", 4000, "spoofed") == 4);
}

#[test]
fn a_nic_that_strips_tags_hides_them_from_the_filter_which_then_trusts_nobody() {
    let _machine = own_machine();
    let world = World::plugged(Plug::Nics("e1000e"));
    tag_above_the_gate(&world);
    strip_tags(&world, NIC, "on");
    let tap = world.tap_internet();

    // without `vlan` nothing is missed: the packet in the frame is judged
    let said = world.attach(&dmz());
    assert!(!said.err.contains("VLAN"), "{said:#?}");
    prove_gate(&world, &tap);

    // with it nothing passes, and the reason is told
    let said = world.apply(&bound_to(7));
    assert!(said.err.contains("strips VLAN tags") && said.err.contains("rxvlan off"), "{said:#?}");
    let warnings = world.show("status")["warnings"].to_string();
    assert!(warnings.contains("strips VLAN tags"), "{warnings}");
    world.send_from_web(4000, 4);
    eventually("the frames without their tag are seen", || {
        world.dropped("web1", "udp", 4000, "spoofed") == 4
    });

    // what the warning advises
    strip_tags(&world, NIC, "off");
    let warnings = world.show("status")["warnings"].to_string();
    assert!(!warnings.contains("strips VLAN tags"), "{warnings}");
    prove_gate(&world, &tap);
    strip_tags(&world, NIC, "on"); // the NIC outlives the test
}

#[test]
fn a_gate_on_a_vlans_own_interface_judges_that_vlan_whether_tags_are_stripped_or_not() {
    let _machine = own_machine();
    for how in ["on", "off"] {
        let world = World::plugged(Plug::Nics("e1000e"));
        strip_tags(&world, NIC, how);
        tag_below_the_gate(&world);
        let tap = world.tap_internet();
        let said = world.attach(&dmz());
        assert!(said.err.contains("generic mode"), "{said:#?}");
        assert_eq!(world.show("status")["attached"], "generic");
        prove_gate(&world, &tap);

        // The tag is gone by then: a server's `vlan` can't be verified, whatever the hardware does.
        let said = world.apply(&bound_to(7));
        assert!(said.err.contains("VLAN"), "{said:#?}");
        strip_tags(&world, "trunk", "on");
    }
}

#[test]
fn a_cable_between_namespaces_carries_tags_beside_the_frame_unless_told_otherwise() {
    let _machine = own_machine();
    let world = World::new();
    tag_above_the_gate(&world);
    let tap = world.tap_internet();
    world.attach(&dmz());
    prove_gate(&world, &tap);
}
