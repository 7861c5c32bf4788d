//! Caveats: the interface is part of something that weakens the gate, such as a bond.

use std::fs;
use std::path::Path;

use super::nic::{find_servers_elsewhere, find_ways_past};
use super::place::GatePlace;
use super::resolvers::find_ways;
use super::system;
use crate::policy::Policy;

/// Of this process's network namespace, unlike /sys, which is that of the mount.
const BONDS: &str = "/proc/net/bonding";
const VLANS: &str = "/proc/net/vlan";

/// The weaknesses of a gate on this interface with this policy, a sentence each.
pub fn find_caveats(place: &GatePlace, policy: &Policy) -> Vec<String> {
    let mut caveats = find_interface_caveats(&place.interface, has_vlans(policy));
    caveats.extend(find_servers_elsewhere(place, policy));
    caveats.extend(find_ways(&policy.name_sources()).describe());
    caveats
}

/// Whether a server may use its addresses in one VLAN only.
pub(super) fn has_vlans(policy: &Policy) -> bool {
    policy.servers.iter().any(|server| server.vlan.is_some())
}

/// As [`find_caveats`], for a policy of which only [`has_vlans`] is known.
pub(super) fn find_interface_caveats(interface: &str, has_vlans: bool) -> Vec<String> {
    let mut caveats = find_ways_past(interface);
    if let Some(bond) = find_bond(interface) {
        caveats.push(format!(
            "{interface} is a member of {bond}: packets that come by the other members do not pass this gate; \
             attach to {bond}"
        ));
    }
    if !has_vlans {
        return caveats;
    }
    if is_vlan_interface(interface) {
        caveats.push(format!(
            "{interface} is the interface of one VLAN, and frames reach it without their tag: no server's `vlan` can be \
             verified, and frames of servers with a `vlan` are dropped as spoofed; leave `vlan` out"
        ));
    } else if system::strips_vlan_tags(interface) == Some(true) {
        caveats.push(format!(
            "{interface} strips VLAN tags before the gate sees them: no server's `vlan` can be verified, and \
             frames of servers with a `vlan` are dropped as spoofed; \
             switch that off (ethtool -K {interface} rxvlan off), or attach to the VLAN's own interface \
             and leave `vlan` out"
        ));
    }
    caveats
}

/// Whether it is the interface of one VLAN.
pub(super) fn is_vlan_interface(interface: &str) -> bool {
    Path::new(VLANS).join(interface).exists()
}

/// The bond of which the interface is a member.
pub(super) fn find_bond(interface: &str) -> Option<String> {
    fs::read_dir(BONDS).ok()?.flatten().find_map(|bond| {
        let text = fs::read_to_string(bond.path()).ok()?;
        names_member(&text, interface).then(|| bond.file_name().to_string_lossy().into_owned())
    })
}

/// Whether the kernel's description of a bond names this member.
fn names_member(text: &str, interface: &str) -> bool {
    text.lines()
        .filter_map(|line| line.strip_prefix("Slave Interface: "))
        .any(|name| name.trim() == interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_its_whole_name() {
        let text = "Ethernet Channel Bonding Driver: v6.1\n\nBonding Mode: fault-tolerance (active-backup)\n\
                    Currently Active Slave: eth10\n\nSlave Interface: eth10\nMII Status: up\n\n\
                    Slave Interface: eth2\nMII Status: up\n";
        assert!(names_member(text, "eth10") && names_member(text, "eth2"));
        assert!(!names_member(text, "eth1") && !names_member(text, "eth20") && !names_member("", ""));
    }
}
