//! What the interface is part of, where that takes something from the gate.

use std::fs;
use std::path::Path;

use super::place::GatePlace;
use super::system;
use crate::policy::Policy;

/// Of this process's network namespace, unlike /sys, which is that of the mount.
const BONDS: &str = "/proc/net/bonding";
const VLANS: &str = "/proc/net/vlan";

/// What the user should know of the interface with this policy, a sentence each.
pub fn find_caveats(place: &GatePlace, policy: &Policy) -> Vec<String> {
    let interface = &place.interface;
    let mut warnings = Vec::new();
    if let Some(bond) = find_bond(interface) {
        warnings.push(format!(
            "{interface} is a member of {bond}: what comes by its other members does not pass this gate; \
             attach to {bond}"
        ));
    }
    if policy.servers.iter().any(|server| server.vlan.is_some()) {
        if Path::new(VLANS).join(interface).exists() {
            warnings.push(format!(
                "{interface} is a VLAN's own interface, where frames come without its tag: no server's `vlan` \
                 can be verified, and what servers with one send is dropped as spoofed; leave `vlan` out"
            ));
        } else if system::strips_vlan_tags(interface) == Some(true) {
            warnings.push(format!(
                "{interface} strips VLAN tags before the gate sees them: no server's `vlan` can be verified, and \
                 what servers with one send is dropped as spoofed; \
                 switch that off (ethtool -K {interface} rxvlan off), or attach to the VLAN's own interface \
                 and leave `vlan` out"
            ));
        }
    }
    warnings
}

/// The bond of which the interface is a member.
fn find_bond(interface: &str) -> Option<String> {
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
