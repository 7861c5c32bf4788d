//! Devices by which packets go past the NIC.

use super::{Finding, FindingId};
use crate::gate::{Around, Nic, NicKind};

pub(super) fn judge(around: &Around) -> Vec<Finding> {
    let Some(nic) = around.own_nic() else {
        return Vec::new();
    };
    let name = nic.name.as_str();
    let mut found = Vec::new();
    let finding =
        |id, about: &str, text: String, remedy: String| Finding { id, about: about.to_owned(), text, remedy };
    let controller = nic.member_of.and_then(|index| around.find(index));
    if let Some(bridge) = controller.filter(|above| above.kind == NicKind::Bridge) {
        let others = name_all(
            around
                .nics
                .iter()
                .filter(|other| other.member_of == Some(bridge.index) && other.index != nic.index),
        );
        // alone it is the bridge's only way in
        if !others.is_empty() {
            found.push(finding(
                FindingId::BridgePort,
                &bridge.name,
                format!("{name} is a port of the bridge {} beside {others}", bridge.name),
                format!("attach the gate to {}, or take the other ports out of it", bridge.name),
            ));
        }
    }
    let bond = controller.filter(|above| above.kind == NicKind::Bond).map(|bond| bond.name.clone());
    if let Some(bond) = bond.or_else(|| around.bond.clone()) {
        found.push(finding(
            FindingId::BondMember,
            &bond,
            format!("{name} is a member of the bond {bond}"),
            format!("attach the gate to {bond}"),
        ));
    }
    let Some(parent) = nic.below.and_then(|index| around.find(index)) else {
        return found;
    };
    match nic.kind {
        NicKind::Shared => found.push(finding(
            FindingId::SharedNic,
            &parent.name,
            format!("{name} is one of several MACs or addresses on {}", parent.name),
            format!("attach the gate to {}", parent.name),
        )),
        NicKind::Vlan => {
            let is_open = |other: &&Nic| {
                let is_sibling = other.index != nic.index && other.below == Some(parent.index);
                (is_sibling || other.index == parent.index && !other.prefixes.is_empty()) && !other.has_gate
            };
            let siblings = name_all(around.nics.iter().filter(is_open));
            if !siblings.is_empty() && !parent.has_gate {
                found.push(finding(
                    FindingId::VlanSibling,
                    &parent.name,
                    format!("{name} is one VLAN of {}, and {siblings} takes other frames of it without a gate", parent.name),
                    format!("attach the gate to {}, give the others gates of their own, or let the switch bind tags to ports", parent.name),
                ));
            }
        }
        NicKind::Bridge | NicKind::Bond | NicKind::Loopback | NicKind::Other => {}
    }
    found
}

/// Some names, and how many more.
pub(super) fn name_all<'n>(nics: impl Iterator<Item = &'n Nic>) -> String {
    const NAMED: usize = 3;
    let names: Vec<&str> = nics.map(|nic| nic.name.as_str()).collect();
    let first = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
