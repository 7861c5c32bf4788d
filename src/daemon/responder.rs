//! Responder: puts the server of an alarm into quarantine, where the policy asks for that. Of a server that
//! is a prefix it is the address alone, with its machine's MAC.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use log::warn;

use super::metrics::snapshot::{Snapshot, increment};
use crate::alarm::{Alarm, Change, Kind, Part, Severity, Step, may_quarantine};
use crate::clock::{Clock, show_duration};
use crate::drops::DropVerdict;
use crate::gate::{Gate, GateError, GatePlace};
use crate::net::show_mac;
use crate::policy::{Mode, Policy, Response, Server};
use crate::stderr::notice;

/// Quarantines that may be pending, while another command is changing the gate.
const MOST_PENDING: usize = 256;

/// So many addresses of one server an alarm cuts off one by one. The next one costs the whole server: its
/// machines act together, or one of them takes address after address.
const MOST_ADDRESSES: usize = 8;

/// A quarantine to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingQuarantine {
    /// Id of the alarm.
    pub alarm: u64,
    server: String,
    /// Of a server that is a prefix: the machine. `None`: the whole server.
    address: Option<IpAddr>,
}

/// The name of a server to cut off; with an address: that machine of it alone.
type Culprit<'c> = (&'c str, Option<IpAddr>);

/// What was done about one kind of an open alarm.
#[derive(Default)]
struct Answered {
    /// The whole server was to be cut off.
    whole: bool,
    /// Addresses that were to be cut off.
    addresses: Vec<IpAddr>,
}

impl Answered {
    /// Notes an answer that is due: to this machine, or to the whole server. `None`: it was answered before.
    fn note(&mut self, machine: Option<IpAddr>) -> Option<Option<IpAddr>> {
        if self.whole {
            return None;
        }
        match machine {
            Some(address) if self.addresses.contains(&address) => None,
            Some(address) if self.addresses.len() < MOST_ADDRESSES => {
                self.addresses.push(address);
                Some(Some(address))
            }
            Some(_) | None => {
                self.whole = true;
                Some(None)
            }
        }
    }
}

/// Decides which alarms are answered with a quarantine, and makes it.
pub(super) struct Responder {
    interface: Arc<str>,
    response: Response,
    /// Servers in observe. They are left alone.
    observing: HashSet<String>,
    /// Servers that are a prefix, or have one.
    prefixes: HashSet<String>,
    /// Open alarms that were answered, and as which kinds.
    answered: HashMap<u64, HashMap<Kind, Answered>>,
    pending: Vec<PendingQuarantine>,
    snapshot: Arc<Snapshot>,
}

impl Responder {
    /// Goes by a policy.
    pub(super) fn new(interface: Arc<str>, policy: &Policy, snapshot: Arc<Snapshot>) -> Responder {
        let (observing, prefixes) = read(policy);
        let response = policy.response.clone();
        let (answered, pending) = (HashMap::new(), Vec::new());
        Responder { interface, response, observing, prefixes, answered, pending, snapshot }
    }

    /// Goes by another policy. An alarm that was answered is not answered again.
    pub(super) fn follow(&mut self, policy: &Policy) {
        (self.observing, self.prefixes) = read(policy);
        self.response = policy.response.clone();
    }

    /// Looks at the alarms that are open, after the policy has changed.
    pub(super) fn consider_open(&mut self, alarms: Vec<Alarm>, now: Clock) {
        for alarm in alarms {
            self.consider(&Change { time: now.wall, step: Step::Updated, news: String::new(), alarm });
        }
    }

    /// Looks at a change of an alarm. If it asks for a quarantine, that becomes pending.
    pub(super) fn consider(&mut self, change: &Change) {
        for (server, address) in self.find_culprits(change) {
            if self.pending.len() < MOST_PENDING {
                let server = server.to_owned();
                self.pending.push(PendingQuarantine { alarm: change.alarm.id, server, address });
            }
        }
    }

    /// The servers to put into quarantine for this change, or addresses of theirs. A part of the alarm must be
    /// of a kind that the policy names, be more than low, show live drops, and not be answered as this kind and
    /// for this address. (It may have been opened by drops from before the start, or in observe.)
    fn find_culprits<'c>(&mut self, change: &'c Change) -> Vec<Culprit<'c>> {
        let alarm = &change.alarm;
        if matches!(change.step, Step::Closed { .. }) {
            self.answered.remove(&alarm.id);
            return Vec::new();
        }
        let Some(server) = alarm.server.as_ref().map(|server| &*server.name) else {
            return Vec::new();
        };
        if self.observing.contains(server) {
            return Vec::new();
        }
        let is_prefix = self.prefixes.contains(server);
        let mut culprits = Vec::new();
        for part in &alarm.parts {
            if !self.asks_for(part) {
                continue;
            }
            let machine = part.sample.as_ref().and_then(|sample| sample.source).filter(|_| is_prefix);
            let answered = self.answered.entry(alarm.id).or_default().entry(part.kind).or_default();
            if let Some(address) = answered.note(machine)
                && !culprits.contains(&(server, address))
            {
                culprits.push((server, address));
            }
        }
        culprits
    }

    /// Whether a part of an alarm asks for a quarantine.
    fn asks_for(&self, part: &Part) -> bool {
        let is_live = !part.is_over
            && part.verdict == Some(DropVerdict::Drop)
            && part.sample.as_ref().is_some_and(|sample| !sample.while_away);
        // Another machine may have borrowed the address to have its owner cut off, or an outsider may have
        // made the server send this. A reason that this version does not know may be about that.
        let reason = part.reason.and_then(|reason| reason.known());
        let is_proved = reason.is_some_and(|reason| may_quarantine(part.kind, reason));
        let is_asked = self.response.quarantine_on.contains(&part.kind) && part.severity > Severity::Low;
        is_live && is_proved && is_asked
    }

    /// The pending quarantines. They are pending no more.
    pub(super) fn take_pending(&mut self) -> Vec<PendingQuarantine> {
        std::mem::take(&mut self.pending)
    }

    /// Makes a quarantine, and returns what the alarm is to say of it. `None` if there is nothing to
    /// say: the server is in quarantine already, or another command is changing the gate and this one
    /// becomes pending again.
    pub(super) fn answer(
        &mut self,
        pending: PendingQuarantine,
        gate: &Gate,
        place: &GatePlace,
    ) -> Option<String> {
        let PendingQuarantine { alarm, server, address } = &pending;
        let seconds = self.response.quarantine_for.seconds();
        match place.try_lock().and_then(|_lock| cut_off(gate, place, server, *address, seconds)) {
            Ok(Some(who)) => {
                increment(&self.snapshot.quarantines);
                let text = match seconds {
                    Some(seconds) => {
                        let time = show_duration(seconds);
                        format!("{who} was put into quarantine for {time} by this alarm")
                    }
                    None => format!("{who} was put into quarantine by this alarm until it is released"),
                };
                let target = address.map_or_else(|| server.clone(), |address| address.to_string());
                notice!(
                    "portcullis: alarm #{alarm}: {text}; next: portcullis release -i {} {target}",
                    self.interface
                );
                Some(text)
            }
            Ok(None) => None,
            Err(GateError::Locked { .. }) => {
                self.pending.push(pending);
                None
            }
            Err(error) => {
                let who = address.map_or_else(|| server.clone(), |address| format!("{address} ({server})"));
                warn!("alarm #{alarm} asks for a quarantine of {who}: {error}");
                Some(format!("{who} could NOT be put into quarantine: {error}"))
            }
        }
    }
}

/// Makes a quarantine, and returns whom it is for. `None`: there is one already. The caller holds the lock.
fn cut_off(
    gate: &Gate,
    place: &GatePlace,
    server: &str,
    address: Option<IpAddr>,
    seconds: Option<u64>,
) -> Result<Option<String>, GateError> {
    if gate.quarantined()?.iter().any(|(name, _)| name == server) {
        return Ok(None);
    }
    let Some(address) = address else {
        return gate.quarantine(server, seconds).map(|()| Some(server.to_owned()));
    };
    if gate.find_release(address, [0; 6])?.is_some() {
        return Ok(None);
    }
    let sender = gate.find_sender(place, address).unwrap_or_else(|error| {
        warn!("{error}");
        None
    });
    let mac = sender.map(|sender| sender.mac);
    gate.quarantine_address(address, mac, seconds)?;
    let with_mac = mac.map_or_else(String::new, |mac| format!(", with its MAC {}", show_mac(&mac)));
    Ok(Some(format!("{address} ({server}{with_mac})")))
}

/// The names of servers in observe, and of servers that have a prefix. Nobody asks where no alarm leads to a
/// quarantine.
fn read(policy: &Policy) -> (HashSet<String>, HashSet<String>) {
    if policy.response.quarantine_on.is_empty() {
        return (HashSet::new(), HashSet::new());
    }
    let select = |is_wanted: &dyn Fn(&Server) -> bool| {
        let wanted = policy.servers.iter().filter(|server| is_wanted(server));
        wanted.map(|server| server.name.clone()).collect()
    };
    let has_prefix = |server: &Server| {
        server.addresses.iter().any(|(prefix, _)| prefix.prefix_len() < prefix.max_prefix_len())
    };
    (select(&|server| policy.mode_of(server) == Mode::Observe), select(&has_prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Reason;
    use crate::alarm::Engine;
    use crate::drops::example::{after_ms, syn};
    use crate::drops::{DropEvent, ReasonCode};
    use crate::policy::parse;

    fn by_policy(policy: &Policy) -> Responder {
        Responder::new("dmz0".into(), policy, Arc::default())
    }

    fn responder(extra: &str) -> Responder {
        let text = format!(
            "[servers.web1]\naddresses = [\"192.0.2.10\"]\n{extra}\n[alarms]\nquarantine_on = [\"attempt\"]\n"
        );
        by_policy(&parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")))
    }

    /// The one culprit of a change of an alarm with one part.
    fn find_culprit<'c>(responder: &mut Responder, change: &'c Change) -> Option<Culprit<'c>> {
        let culprits = responder.find_culprits(change);
        assert!(culprits.len() < 2, "{culprits:?}");
        culprits.first().copied()
    }

    fn opened() -> Change {
        Engine::default().observe(&syn(), after_ms(0)).remove(0)
    }

    #[test]
    fn an_alarm_that_becomes_what_the_policy_names_has_a_culprit_once() {
        let mut responder = responder("");
        let mut change = opened();
        assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
        change.step = Step::Updated;
        assert_eq!(find_culprit(&mut responder, &change), None);
        change.alarm.parts[0].kind = Kind::Scan;
        change.step = Step::Escalated { from: Kind::Attempt };
        assert_eq!(find_culprit(&mut responder, &change), None, "no kind of the policy's");
        change.step = Step::Closed { folded_into: None };
        assert_eq!(find_culprit(&mut responder, &change), None);
        assert!(responder.answered.is_empty());
        assert_eq!(find_culprit(&mut responder, &opened()), Some(("web1", None)), "the next alarm");
    }

    #[test]
    fn an_alarm_of_a_time_without_a_daemon_is_answered_when_it_goes_on() {
        let mut engine = Engine::default();
        let mut responder = responder("");
        let mut drop = syn();
        (drop.while_away, drop.from) = (true, crate::drops::Origin::Ledger);
        assert_eq!(find_culprit(&mut responder, &engine.observe(&drop, after_ms(0))[0]), None);
        let change = engine.observe(&syn(), after_ms(11_000)).remove(0);
        assert_eq!(change.step, Step::Updated);
        assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
    }

    #[test]
    fn an_alarm_that_is_open_is_answered_when_a_policy_asks_for_it_and_not_twice() {
        let policy = |extra: &str| {
            let text = format!("[servers.web1]\naddresses = [\"192.0.2.10\"]\n{extra}");
            parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}"))
        };
        let asks = policy("[alarms]\nquarantine_on = [\"attempt\"]\n");
        let mut responder = by_policy(&policy(""));
        let mut change = opened();
        assert_eq!(find_culprit(&mut responder, &change), None);
        responder.follow(&asks);
        change.step = Step::Updated;
        assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
        responder.follow(&asks);
        assert_eq!(find_culprit(&mut responder, &change), None);
    }

    #[test]
    fn nobody_is_cut_off_for_a_frame_that_may_have_borrowed_its_address() {
        let mut drop = syn();
        let of_a_newer_gate = ReasonCode::Unknown(63);
        for (reason, culprit) in [
            (Reason::Malformed.into(), None),
            (Reason::Protocol.into(), Some(("web1", None))),
            (of_a_newer_gate, None),
        ] {
            drop.reason = reason;
            let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
            assert_eq!(change.alarm.kind(), Kind::Attempt);
            assert_eq!(find_culprit(&mut responder(""), &change), culprit, "{reason:?}");
        }
    }

    #[test]
    fn of_a_server_that_is_a_prefix_each_machine_is_cut_off_once_and_at_last_the_server() {
        let text = "[servers.web1]\naddresses = [\"192.0.2.10\", \"192.0.2.128/26\"]\n\
                    [alarms]\nquarantine_on = [\"attempt\", \"spread\"]\n";
        let mut responder = by_policy(&parse(text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")));
        let sent_by = |last: u8| {
            let mut change = opened();
            let sample = DropEvent { source: Some(IpAddr::from([192, 0, 2, last])), ..syn() };
            change.alarm.parts[0].sample = Some(Arc::new(sample));
            change
        };
        for last in 130..130 + MOST_ADDRESSES as u8 {
            let machine = Some(("web1", Some(IpAddr::from([192, 0, 2, last]))));
            assert_eq!(find_culprit(&mut responder, &sent_by(last)), machine);
            assert_eq!(find_culprit(&mut responder, &sent_by(last)), None, "once");
        }
        assert_eq!(find_culprit(&mut responder, &sent_by(200)), Some(("web1", None)));
        assert_eq!(find_culprit(&mut responder, &sent_by(201)), None, "it is cut off with the server");
        // as a more severe kind the alarm is answered anew
        let mut worse = sent_by(130);
        (worse.alarm.parts[0].kind, worse.step) = (Kind::Spread, Step::Escalated { from: Kind::Attempt });
        let machine = Some(("web1", Some(IpAddr::from([192, 0, 2, 130]))));
        assert_eq!(find_culprit(&mut responder, &worse), machine);
        // without an address it is the server
        let mut change = sent_by(130);
        change.alarm.id = 99;
        change.alarm.parts[0].sample = Some(Arc::new(DropEvent { source: None, ..syn() }));
        assert_eq!(find_culprit(&mut responder, &change), Some(("web1", None)));
    }

    #[test]
    fn a_server_in_observe_is_left_alone() {
        assert_eq!(find_culprit(&mut responder("mode = \"observe\""), &opened()), None);
        let mut change = opened();
        change.alarm.parts[0].verdict = Some(DropVerdict::WouldDrop);
        assert_eq!(find_culprit(&mut responder(""), &change), None);
    }

    #[test]
    fn nobody_is_cut_off_for_what_happened_while_no_daemon_ran_or_for_a_strangers_deed() {
        let mut drop = syn();
        drop.while_away = true;
        let change = Engine::default().observe(&drop, after_ms(0)).remove(0);
        assert_eq!(find_culprit(&mut responder(""), &change), None);
        let mut change = opened();
        change.alarm.server = None;
        assert_eq!(find_culprit(&mut responder(""), &change), None);
    }

    #[test]
    fn pending_quarantines_are_bounded_and_taken_in_their_order() {
        let mut responder = responder("");
        let mut change = opened();
        for id in 1..=MOST_PENDING as u64 + 10 {
            change.alarm.id = id;
            responder.consider(&change);
        }
        let pending = responder.take_pending();
        let ids: Vec<u64> = pending.iter().map(|pending| pending.alarm).collect();
        assert_eq!(ids, (1..=MOST_PENDING as u64).collect::<Vec<_>>());
        assert!(responder.take_pending().is_empty());
    }
}
