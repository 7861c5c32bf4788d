//! What the daemon does by itself: it puts the server of a grave alarm into quarantine.

use std::collections::HashSet;

use log::warn;

use crate::alarm::{Change, Step};
use crate::drops::Verdict;
use crate::gate::{Gate, GateError, Place};
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
}

impl Responder {
    /// As the policy says.
    pub fn new(policy: &Policy) -> Responder {
        let is_observing = |name: &&crate::policy::Server| policy.mode_of(name) == Mode::Observe;
        let observing = match policy.alarms.response.quarantine_on.is_empty() {
            true => HashSet::new(),
            false => policy.servers.iter().filter(is_observing).map(|server| server.name.clone()).collect(),
        };
        Responder { response: policy.alarms.response.clone(), observing }
    }

    /// The server to be put into quarantine for this change, if any: an alarm has just become one
    /// of the kinds that the policy names, by what was seen live.
    pub fn find_culprit<'c>(&self, change: &'c Change) -> Option<&'c str> {
        let alarm = &change.alarm;
        let turned = match change.step {
            Step::Opened => true,
            Step::Escalated { from } => from != alarm.kind,
            Step::Updated | Step::Closed { .. } => false,
        };
        let live = alarm.verdict == Verdict::Drop && !alarm.sample.while_away;
        let server = &*alarm.server.as_ref()?.name;
        let asked = self.response.quarantine_on.contains(&alarm.kind);
        (turned && live && asked && !self.observing.contains(server)).then_some(server)
    }

    /// Does it. It does not wait for another command that is at the gate.
    pub fn quarantine(&self, gate: &Gate, place: &Place, alarm: u64, server: &str) -> Outcome {
        let done = place.try_lock().and_then(|_lock| {
            if gate.quarantined()?.iter().any(|(name, _)| name == server) {
                return Ok(false);
            }
            gate.quarantine(server, self.response.quarantine_s).map(|()| true)
        });
        match done {
            Ok(true) => Outcome::Done(match self.response.quarantine_s {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::{Engine, Kind};
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
        let mut change = opened();
        assert_eq!(responder("").find_culprit(&change), Some("web1"));
        change.step = Step::Updated;
        assert_eq!(responder("").find_culprit(&change), None);
        change.step = Step::Escalated { from: Kind::Stray };
        assert_eq!(responder("").find_culprit(&change), Some("web1"));
        change.alarm.kind = Kind::Scan;
        assert_eq!(responder("").find_culprit(&change), None);
    }

    #[test]
    fn a_server_in_observe_is_left_alone() {
        assert_eq!(responder("mode = \"observe\"").find_culprit(&opened()), None);
        let mut change = opened();
        change.alarm.verdict = Verdict::WouldDrop;
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
