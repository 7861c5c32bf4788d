//! What the daemon does by itself: it puts the server of a grave alarm into quarantine.

use std::collections::{HashMap, HashSet};

use log::warn;

use crate::abi::Reason;
use crate::alarm::{Change, Kind, Step};
use crate::drops::DropVerdict;
use crate::gate::{Gate, GateError, GatePlace};
use crate::policy::{Mode, Policy, Response};

/// What became of a quarantine.
pub enum Outcome {
    /// In words.
    Done(String),
    /// The server was in quarantine.
    Already,
    /// Somebody else is at the gate.
    Later,
    /// In words.
    Failed(String),
}

/// When to respond, and how.
pub struct Responder {
    response: Response,
    /// Servers that are only observed: nothing is done to them.
    observing: HashSet<String>,
    /// Open alarms that have had their answer, and what they were then.
    answered: HashMap<u64, Kind>,
}

impl Responder {
    /// As the policy says.
    pub fn new(policy: &Policy) -> Responder {
        let (response, observing) = read(policy);
        Responder { response, observing, answered: HashMap::new() }
    }

    /// Another policy. What has had its answer is not answered again.
    pub fn follow(&mut self, policy: &Policy) {
        (self.response, self.observing) = read(policy);
    }

    /// The server to be put into quarantine for this change, if any: an alarm is one of the kinds
    /// that the policy names, by what was seen live, and has not been answered as such. (It may
    /// have been opened by what happened while no daemon ran, or in another mode.)
    pub fn find_culprit<'c>(&mut self, change: &'c Change) -> Option<&'c str> {
        let alarm = &change.alarm;
        if matches!(change.step, Step::Closed { .. }) {
            self.answered.remove(&alarm.id);
            return None;
        }
        let live = alarm.verdict == DropVerdict::Drop && !alarm.sample.while_away;
        // Before that step nobody knows whose frame it is: it may be borrowed to cut its owner off.
        let owned = alarm.reason.number() > Reason::Spoofed.number();
        let server = &*alarm.server.as_ref()?.name;
        let asked = self.response.quarantine_on.contains(&alarm.kind);
        if !(live && owned && asked) || self.observing.contains(server) {
            return None;
        }
        let before = self.answered.insert(alarm.id, alarm.kind);
        (before != Some(alarm.kind)).then_some(server)
    }

    /// Does it. It does not wait for another command that is at the gate.
    pub fn quarantine(&self, gate: &Gate, place: &GatePlace, alarm: u64, server: &str) -> Outcome {
        let done = place.try_lock().and_then(|_lock| {
            if gate.quarantined()?.iter().any(|(name, _)| name == server) {
                return Ok(false);
            }
            gate.quarantine(server, self.response.quarantine_for.seconds()).map(|()| true)
        });
        match done {
            Ok(true) => Outcome::Done(match self.response.quarantine_for.seconds() {
                Some(seconds) => format!("{server} was put into quarantine for {seconds} s by this alarm"),
                None => format!("{server} was put into quarantine by this alarm until it is released"),
            }),
            Ok(false) => Outcome::Already,
            Err(GateError::Locked { .. }) => Outcome::Later,
            Err(error) => {
                warn!("alarm #{alarm} asks for a quarantine of {server}: {error}");
                Outcome::Failed(format!("{server} could NOT be put into quarantine: {error}"))
            }
        }
    }
}

fn read(policy: &Policy) -> (Response, HashSet<String>) {
    let is_observing = |name: &&crate::policy::Server| policy.mode_of(name) == Mode::Observe;
    let observing = match policy.response.quarantine_on.is_empty() {
        true => HashSet::new(),
        false => policy.servers.iter().filter(is_observing).map(|server| server.name.clone()).collect(),
    };
    (policy.response.clone(), observing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Engine;
    use crate::drops::example::{after_ms, syn};
    use crate::policy::parse;

    fn responder(extra: &str) -> Responder {
        let text = format!(
            "[servers.web1]\naddresses = [\"192.0.2.10\"]\n{extra}\n[alarms]\nquarantine_on = [\"attempt\"]\n"
        );
        Responder::new(&parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")))
    }

    fn opened() -> Change {
        Engine::default().observe(&syn(), after_ms(0)).remove(0)
    }

    #[test]
    fn an_alarm_that_becomes_what_the_policy_names_has_a_culprit_once() {
        let mut responder = responder("");
        let mut change = opened();
        assert_eq!(responder.find_culprit(&change), Some("web1"));
        change.step = Step::Updated;
        assert_eq!(responder.find_culprit(&change), None);
        change.alarm.kind = Kind::Scan;
        change.step = Step::Escalated { from: Kind::Attempt };
        assert_eq!(responder.find_culprit(&change), None, "no kind of the policy's");
        change.step = Step::Closed { folded_into: None };
        assert_eq!(responder.find_culprit(&change), None);
        assert!(responder.answered.is_empty());
        assert_eq!(responder.find_culprit(&opened()), Some("web1"), "the next alarm");
    }

    #[test]
    fn an_alarm_of_a_time_without_a_daemon_is_answered_when_it_goes_on() {
        let mut engine = Engine::default();
        let mut responder = responder("");
        let mut drop = syn();
        (drop.while_away, drop.from) = (true, crate::drops::Origin::Ledger);
        assert_eq!(responder.find_culprit(&engine.observe(&drop, after_ms(0))[0]), None);
        let change = engine.observe(&syn(), after_ms(11_000)).remove(0);
        assert_eq!(change.step, Step::Updated);
        assert_eq!(responder.find_culprit(&change), Some("web1"));
    }

    #[test]
    fn an_alarm_that_is_open_is_answered_when_a_policy_asks_for_it_and_not_twice() {
        let policy = |extra: &str| {
            let text = format!("[servers.web1]\naddresses = [\"192.0.2.10\"]\n{extra}");
            parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}"))
        };
        let asks = policy("[alarms]\nquarantine_on = [\"attempt\"]\n");
        let mut responder = Responder::new(&policy(""));
        let mut change = opened();
        assert_eq!(responder.find_culprit(&change), None);
        responder.follow(&asks);
        change.step = Step::Updated;
        assert_eq!(responder.find_culprit(&change), Some("web1"));
        responder.follow(&asks);
        assert_eq!(responder.find_culprit(&change), None);
    }

    #[test]
    fn nobody_is_cut_off_for_a_frame_that_may_have_borrowed_its_address() {
        let mut drop = syn();
        for (reason, culprit) in [(Reason::Malformed, None), (Reason::Protocol, Some("web1"))] {
            drop.reason = reason.into();
            let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
            assert_eq!(change.alarm.kind, Kind::Attempt);
            assert_eq!(responder("").find_culprit(&change), culprit, "{reason:?}");
        }
    }

    #[test]
    fn a_server_in_observe_is_left_alone() {
        assert_eq!(responder("mode = \"observe\"").find_culprit(&opened()), None);
        let mut change = opened();
        change.alarm.verdict = DropVerdict::WouldDrop;
        assert_eq!(responder("").find_culprit(&change), None);
    }

    #[test]
    fn nobody_is_cut_off_for_what_happened_while_no_daemon_ran_or_for_a_strangers_deed() {
        let mut drop = syn();
        drop.while_away = true;
        let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
        assert_eq!(responder("").find_culprit(&change), None);
        let mut change = opened();
        change.alarm.server = None;
        assert_eq!(responder("").find_culprit(&change), None);
    }
}
