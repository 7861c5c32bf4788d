//! Answers that come before a takeover begins. The other router's address has moved, and the first line of the notify
//! script has not run yet: it takes a moment, and answers come at once. So where flows are handed over, the alarm
//! about answers in no flow waits for a moment, and is never raised if a takeover begins meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::abi::Reason;
use crate::drops::DropEvent;

/// How long such an alarm waits: far longer than a notify script takes to begin.
const HOLD: Duration = Duration::from_secs(5);
/// Drops that wait at a time. Beyond that nothing waits any longer.
const MOST: usize = 1024;

/// Drops that the alarm engine has not seen yet.
#[derive(Debug, Default)]
pub(super) struct EarlyAnswers {
    /// The live policy has `handover`.
    is_pair: bool,
    /// With the moment at which each has waited for long enough, by CLOCK_MONOTONIC in nanoseconds. The oldest first.
    held: VecDeque<(u64, DropEvent)>,
}

impl EarlyAnswers {
    /// Goes by another policy. What waits goes on to wait.
    pub(super) fn set_pair(&mut self, is_pair: bool) {
        self.is_pair = is_pair;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether a drop has to wait.
    pub(super) fn may_be_early(&self, drop: &DropEvent) -> bool {
        self.is_pair && drop.own_port && !drop.quiet && drop.reason.known() == Some(Reason::NoFlow)
    }

    pub(super) fn hold(&mut self, drop: DropEvent, now_ns: u64) {
        let hold_ns = u64::try_from(HOLD.as_nanos()).unwrap_or(u64::MAX);
        self.held.push_back((now_ns.saturating_add(hold_ns), drop));
    }

    /// The drops that are no longer held. `takeover`: when the last one began. Those that came before it, and were still
    /// held then, are expected and are gone.
    pub(super) fn release(&mut self, takeover: Option<Timestamp>, now_ns: u64) -> Vec<DropEvent> {
        if let Some(takeover) = takeover {
            self.held.retain(|(_, drop)| drop.time > takeover);
        }
        let waiting = self.held.iter().filter(|(due_ns, _)| *due_ns > now_ns).count().min(MOST);
        let due = self.held.len() - waiting;
        self.held.drain(..due).map(|(_, drop)| drop).collect()
    }

    /// All that wait, when there will be no other moment.
    pub(super) fn release_all(&mut self) -> Vec<DropEvent> {
        self.held.drain(..).map(|(_, drop)| drop).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Reason;
    use crate::drops::ReasonCode;
    use crate::drops::example::{after_ms, syn};

    /// An answer of web1's port 443 in no flow.
    fn answer(ms: u64) -> DropEvent {
        let reason = ReasonCode::Known(Reason::NoFlow);
        DropEvent { time: after_ms(ms).wall, own_port: true, port: 443, reason, ..syn() }
    }

    fn of_pair(drops: impl IntoIterator<Item = u64>) -> EarlyAnswers {
        let mut early = EarlyAnswers::default();
        early.set_pair(true);
        for ms in drops {
            assert!(early.may_be_early(&answer(ms)));
            early.hold(answer(ms), after_ms(ms).mono_ns);
        }
        early
    }

    #[test]
    fn an_answer_before_a_takeover_is_expected_and_one_after_it_is_not() {
        let mut early = of_pair([0, 200]);
        assert!(early.release(None, after_ms(300).mono_ns).is_empty());
        assert!(early.release(Some(after_ms(100).wall), after_ms(300).mono_ns).is_empty());
        assert_eq!(early.release(Some(after_ms(100).wall), after_ms(5_200).mono_ns), [answer(200)]);
        assert!(early.is_empty());
    }

    #[test]
    fn without_a_takeover_each_is_observed_after_five_seconds() {
        let mut early = of_pair([0, 200]);
        let before = Some(after_ms(0).wall - HOLD);
        assert!(early.release(before, after_ms(4_999).mono_ns).is_empty());
        assert_eq!(early.release(before, after_ms(5_000).mono_ns), [answer(0)]);
        assert_eq!(early.release_all(), [answer(200)]);
    }

    #[test]
    fn a_flood_does_not_wait() {
        let mut early = of_pair((0..1_500).map(|_| 7));
        assert_eq!(early.release(None, after_ms(8).mono_ns).len(), 1_500 - MOST);
    }

    #[test]
    fn only_answers_in_no_flow_wait_and_only_where_flows_are_handed_over() {
        let early = of_pair([]);
        assert!(!early.may_be_early(&DropEvent { quiet: true, ..answer(0) }));
        assert!(!early.may_be_early(&DropEvent { own_port: false, ..answer(0) }));
        assert!(!early.may_be_early(&DropEvent { reason: ReasonCode::Known(Reason::NewFlow), ..answer(0) }));
        assert!(!EarlyAnswers::default().may_be_early(&answer(0)));
    }
}
