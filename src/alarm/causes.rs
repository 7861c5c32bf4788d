//! Who can cause a drop for a reason. What an outsider can cause while a server runs only what its role says is
//! low, and no cause for a quarantine. `docs/alarms.md` has the same table, and a test compares the two.

use super::Kind;
use crate::abi::Reason;

/// Who causes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causer {
    /// The server itself, or an intruder on it.
    Server,
    /// Anybody beyond the router, while the server runs only what its role says.
    Outsider,
    /// Another machine on the link, where the server has no `mac` in the policy.
    Neighbour,
    /// Another machine on the link, where the server has a `mac` that this machine does not use.
    NeighbourOfMac,
}

/// Every causer, in the order of the table.
#[cfg(test)]
const CAUSERS: [Causer; 4] = [Causer::Server, Causer::Outsider, Causer::Neighbour, Causer::NeighbourOfMac];

/// Whether this causer can cause a drop for this reason, in the name of the server.
pub const fn can_cause(reason: Reason, causer: Causer) -> bool {
    match causer {
        Causer::Server | Causer::Neighbour => reason.drops(),
        Causer::NeighbourOfMac => reason.drops() && !reason.is_attributable(),
        Causer::Outsider => match reason {
            Reason::Backscatter
            | Reason::Stranger
            | Reason::NoFlow
            | Reason::Fragment
            | Reason::Rate
            | Reason::Elsewhere => true,
            Reason::LinkLayer
            | Reason::Neighbour
            | Reason::Dhcp
            | Reason::UnknownAllowed
            | Reason::LaterFragment
            | Reason::Reply
            | Reason::Pickup
            | Reason::Need
            | Reason::OwnConnection
            | Reason::FlowError
            | Reason::Router
            | Reason::Ethertype
            | Reason::Malformed
            | Reason::SourceRoute
            | Reason::RogueRouter
            | Reason::UnknownSource
            | Reason::Spoofed
            | Reason::Quarantined
            | Reason::UnlistedService
            | Reason::Protocol
            | Reason::Destination
            | Reason::NewFlow => false,
        },
    }
}

/// Whether a part of this kind, with a packet of this reason, may have its server cut off. Somebody else may
/// have caused it otherwise.
pub(crate) fn may_quarantine(kind: Kind, reason: Reason) -> bool {
    kind.quarantine_refusal().is_none()
        && !can_cause(reason, Causer::Outsider)
        && !can_cause(reason, Causer::NeighbourOfMac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::REASONS;
    use crate::alarm::example::opened_with;
    use crate::alarm::{Engine, KINDS, Severity};
    use crate::drops::DropEvent;
    use crate::drops::example::{after_ms, syn};

    fn dropped() -> impl Iterator<Item = Reason> {
        REASONS.iter().copied().filter(|reason| reason.drops())
    }

    #[test]
    fn an_outsider_raises_nothing_above_low_but_a_burst_and_has_nobody_cut_off() {
        for reason in dropped().filter(|reason| can_cause(*reason, Causer::Outsider)) {
            let drop = DropEvent { reason: reason.into(), ..syn() };
            for change in Engine::default().observe(&drop, after_ms(0)) {
                let is_low = change.alarm.severity() == Severity::Low;
                assert!(is_low || change.alarm.kind() == Kind::Burst, "{reason}: {change:?}");
                assert!(!may_quarantine(change.alarm.kind(), reason), "{reason}");
            }
        }
        assert!(Kind::Burst.quarantine_refusal().is_some());
    }

    #[test]
    fn whoever_borrows_an_address_without_its_mac_has_nobody_cut_off() {
        for reason in dropped().filter(|reason| can_cause(*reason, Causer::NeighbourOfMac)) {
            for kind in KINDS {
                assert!(!may_quarantine(*kind, reason), "{reason} {kind}");
            }
        }
        assert!(may_quarantine(Kind::Attempt, Reason::NewFlow));
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let page = include_str!("../../docs/alarms.md");
        for reason in dropped() {
            let drop = DropEvent { reason: reason.into(), port: 4000, ..syn() };
            let kind = Kind::of(&drop).map_or("never an alarm".to_owned(), |kind| {
                let severity = opened_with(&drop).alarm.severity();
                format!("`{kind}`, {severity}")
            });
            let who = CAUSERS.map(|causer| if can_cause(reason, causer) { "yes" } else { "no" }).join(" | ");
            let row = format!("| `{reason}` | {kind} | {who} |");
            assert!(page.contains(&row), "docs/alarms.md has no line\n{row}");
        }
        for kind in KINDS {
            let may = match kind.quarantine_refusal() {
                Some(refusal) => format!("no: {refusal}"),
                None => "yes".to_owned(),
            };
            let row = format!("| `{kind}` | {may} |");
            assert!(page.contains(&row), "docs/alarms.md has no line\n{row}");
        }
    }
}
