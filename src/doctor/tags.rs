//! VLAN tags that are gone before the gate sees them.

use super::{Finding, FindingId};
use crate::gate::TagFacts;

pub(super) fn judge(facts: TagFacts, interface: &str) -> Vec<Finding> {
    let finding = |text, remedy| {
        vec![Finding { id: FindingId::TagsStripped, about: interface.to_owned(), text, remedy }]
    };
    match facts {
        TagFacts { has_vlans: false, .. } => Vec::new(),
        TagFacts { is_vlan: true, .. } => finding(
            format!("{interface} is the interface of one VLAN: frames reach it without their tag"),
            "leave `vlan` out of the policy, or attach the gate to the interface below".to_owned(),
        ),
        TagFacts { strips: Some(true), .. } => finding(
            format!("{interface} strips VLAN tags before the gate sees them"),
            format!(
                "ethtool -K {interface} rxvlan off, or attach to the VLAN's own interface and leave `vlan` out"
            ),
        ),
        TagFacts { strips: Some(false) | None, .. } => Vec::new(),
    }
}
