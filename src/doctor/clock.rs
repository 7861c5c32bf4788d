//! The clock: alarms, grants and certificates go by it.

use jiff::Timestamp;

use super::{Finding, FindingId};
use crate::clock::wall_now;
use crate::gate::{Gate, is_clock_synchronised};

/// So far behind, the clock was stepped back or has begun anew, seconds.
const BEHIND_S: i64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockFacts {
    now: Timestamp,
    /// When the live policy was applied.
    applied: Option<Timestamp>,
    is_synchronised: Option<bool>,
}

pub(super) fn gather(gate: Option<&Gate>) -> ClockFacts {
    let live = gate.and_then(|gate| gate.live_settings().ok().flatten());
    let applied = live.and_then(|live| Timestamp::from_second(i64::try_from(live.applied_s).ok()?).ok());
    ClockFacts { now: wall_now(), applied, is_synchronised: is_clock_synchronised() }
}

pub(super) fn judge(facts: &ClockFacts) -> Vec<Finding> {
    let finding =
        |id, text, remedy: &str| Finding { id, about: "clock".to_owned(), text, remedy: remedy.to_owned() };
    let is_behind = |applied: &Timestamp| facts.now.as_second() + BEHIND_S < applied.as_second();
    if let Some(applied) = facts.applied.filter(is_behind) {
        return vec![finding(
            FindingId::ClockBehind,
            format!("the clock says {:.0}, before the live policy was applied ({applied:.0})", facts.now),
            "set the clock, and let chrony or systemd-timesyncd keep it",
        )];
    }
    match facts.is_synchronised {
        Some(false) => vec![finding(
            FindingId::ClockFree,
            "nothing keeps the clock with a source of time".to_owned(),
            "let chrony or systemd-timesyncd keep it; where the host of a virtual machine does, this is no trouble",
        )],
        Some(true) | None => Vec::new(),
    }
}
