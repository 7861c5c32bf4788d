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
            | Reason::Denied
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
            | Reason::Handover
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
            | Reason::Question
            | Reason::NewFlow => false,
        },
    }
}

/// The kinds that drops for this reason may be part of. None: they are never an alarm.
pub const fn kinds_of(reason: Reason) -> &'static [Kind] {
    match reason {
        Reason::NewFlow => &[Kind::Attempt, Kind::Fetch, Kind::Callback, Kind::Scan, Kind::Spread],
        Reason::Destination => &[Kind::Attempt, Kind::Callback, Kind::Scan, Kind::Spread],
        Reason::Protocol => &[Kind::Stray, Kind::Attempt, Kind::Scan],
        Reason::Rate => &[Kind::Burst],
        Reason::UnlistedService => &[Kind::Backdoor],
        Reason::Question => &[Kind::Question],
        Reason::NoFlow | Reason::Fragment | Reason::Elsewhere => &[Kind::Stray],
        Reason::UnknownSource | Reason::Spoofed | Reason::RogueRouter | Reason::SourceRoute => &[Kind::Spoof],
        Reason::Quarantined | Reason::Malformed | Reason::Ethertype => &[Kind::Attempt],
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
        | Reason::Handover
        | Reason::Backscatter
        | Reason::Stranger
        | Reason::Denied => &[],
    }
}

/// Whether this causer can cause an alarm of a kind to which no drop leads, about a name or a resolver.
pub const fn can_cause_answers(kind: Kind, causer: Causer) -> bool {
    match kind {
        // The owner of the name, when a server asks. An intruder asks for a name of his own below a wildcard. The
        // question of a machine with another MAC is dropped, so no answer to it counts.
        Kind::Rebinding => match causer {
            Causer::Server | Causer::Outsider | Causer::Neighbour => true,
            Causer::NeighbourOfMac => false,
        },
        // On the link no address of a resolver is a server's, so such a packet is dropped as `unknown_source`.
        Kind::ForgedAnswer => match causer {
            Causer::Outsider => true,
            Causer::Server | Causer::Neighbour | Causer::NeighbourOfMac => false,
        },
        Kind::Stray
        | Kind::Attempt
        | Kind::Burst
        | Kind::Fetch
        | Kind::Question
        | Kind::Spoof
        | Kind::Callback
        | Kind::Scan
        | Kind::Backdoor
        | Kind::Spread
        | Kind::Doctor
        | Kind::Canary
        | Kind::Gate => false,
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::abi::REASONS;
    use crate::alarm::example::opened_with;
    use crate::alarm::{Change, Engine, KINDS, Severity};
    use crate::drops::DropEvent;
    use crate::drops::example::{after_ms, syn};
    use crate::net::{SCTP, TCP, UDP};

    fn dropped() -> impl Iterator<Item = Reason> {
        REASONS.iter().copied().filter(|reason| reason.drops())
    }

    fn can_cause_kind(kind: Kind, causer: Causer) -> bool {
        can_cause_answers(kind, causer)
            || dropped().any(|reason| kinds_of(reason).contains(&kind) && can_cause(reason, causer))
    }

    /// The kinds that an alarm has become when a server did all that it can for this reason.
    fn play(reason: Reason) -> BTreeSet<Kind> {
        let mut kinds = BTreeSet::new();
        let mut note = |changes: Vec<Change>| {
            kinds.extend(changes.iter().flat_map(|change| &change.alarm.parts).map(|part| part.kind));
        };
        let drop = |protocol, port, destination: u8| DropEvent {
            reason: reason.into(),
            protocol,
            port,
            destination: Some([198, 51, 100, destination].into()),
            ..syn()
        };
        for protocol in [TCP, UDP, SCTP] {
            for port in [25, 53, 69, 80, 445, 4000] {
                let (mut one, mut many) = (Engine::default(), Engine::default());
                for number in 0..30_u64 {
                    let again = DropEvent { source_port: None, ..drop(protocol, port, 9) };
                    note(one.observe(&again, after_ms(number * 30_000)));
                    note(many.observe(&drop(protocol, port, number as u8), after_ms(number * 1000)));
                }
            }
        }
        let mut scan = Engine::default();
        for number in 0..30_u16 {
            let now = after_ms(u64::from(number) * 600);
            note(scan.observe(&drop(TCP, 3000 + number, 9), now));
            note(scan.observe(&drop(100 + number as u8, 0, 9), now));
        }
        kinds
    }

    #[test]
    fn each_reason_leads_to_the_kinds_that_it_is_said_to_and_to_no_other() {
        for reason in dropped() {
            assert_eq!(play(reason), kinds_of(reason).iter().copied().collect(), "{reason}");
        }
    }

    #[test]
    fn what_the_programs_put_aside_as_caused_outside_is_so_here_too_or_never_an_alarm() {
        for reason in dropped() {
            let is_so = can_cause(reason, Causer::Outsider) || reason == Reason::Quarantined;
            assert!(is_so || !reason.is_caused_outside(true), "{reason}");
        }
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
    fn an_outsider_who_asks_many_ports_over_sctp_makes_no_scan_of_the_next_packet() {
        let mut engine = Engine::default();
        for port in 0..40 {
            let answer = DropEvent { reason: Reason::Protocol.into(), protocol: SCTP, port, ..syn() };
            engine.observe(&answer, after_ms(u64::from(port) * 100));
        }
        engine.observe(&DropEvent { port: 389, ..syn() }, after_ms(5_000));
        let kinds: Vec<_> =
            engine.open_alarms().iter().map(|alarm| (alarm.kind(), alarm.severity())).collect();
        assert_eq!(kinds, [(Kind::Stray, Severity::Low), (Kind::Attempt, Severity::Medium)]);
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
        let show = |who: &dyn Fn(Causer) -> bool| {
            CAUSERS.map(|causer| if who(causer) { "yes" } else { "no" }).join(" | ")
        };
        for reason in dropped() {
            let drop = DropEvent { reason: reason.into(), port: 4000, ..syn() };
            let kind = Kind::of(&drop).map_or("never an alarm".to_owned(), |kind| {
                let severity = opened_with(&drop).alarm.severity();
                format!("`{kind}`, {severity}")
            });
            let who = show(&|causer| can_cause(reason, causer));
            let row = format!("| `{reason}` | {kind} | {who} |");
            assert!(page.contains(&row), "docs/alarms.md has no line\n{row}");
        }
        for kind in KINDS {
            let may = match kind.quarantine_refusal() {
                Some(refusal) => format!("no: {refusal}"),
                None => "yes".to_owned(),
            };
            let who = show(&|causer| can_cause_kind(*kind, causer));
            let row = format!("| `{kind}` | {who} | {may} |");
            assert!(page.contains(&row), "docs/alarms.md has no line\n{row}");
        }
    }
}
