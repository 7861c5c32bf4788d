//! Responder: puts the server of an alarm into quarantine, where the policy asks for that. Of a server that
//! is a prefix it is the address alone, with its machine's MAC, for each machine that took part.

#[cfg(test)]
mod tests;

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

/// Forged senders of one alarm that are remembered, so that the kernel is not asked again about each.
const MOST_FORGED: usize = 64;

/// A quarantine to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingQuarantine {
    /// Id of the alarm.
    pub alarm: u64,
    server: String,
    /// Of a server that is a prefix: the machine. `None`: the whole server.
    address: Option<IpAddr>,
}

/// The MAC that the kernel knows of an address of the link.
type FindNeighbour<'f> = &'f dyn Fn(IpAddr) -> Option<[u8; 6]>;

/// The name of a server to cut off; with an address: that machine of it alone.
type Culprit<'c> = (&'c str, Option<IpAddr>);

/// What was done about one kind of an open alarm.
#[derive(Default)]
struct Answered {
    /// The whole server was to be cut off.
    whole: bool,
    /// Addresses that were to be cut off.
    addresses: Vec<IpAddr>,
    /// Addresses that another machine has borrowed, with its MAC.
    forged: Vec<(IpAddr, [u8; 6])>,
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

    /// Whether the address of a sender belongs to another machine, as far as the kernel knows.
    fn is_forged(&mut self, (address, mac): (IpAddr, [u8; 6]), find_neighbour: FindNeighbour<'_>) -> bool {
        if self.forged.contains(&(address, mac)) {
            return true;
        }
        if self.whole || self.addresses.contains(&address) {
            return false;
        }
        let is_forged = find_neighbour(address).is_some_and(|known| known != mac);
        if is_forged {
            if self.forged.len() >= MOST_FORGED {
                self.forged.remove(0);
            }
            self.forged.push((address, mac));
        }
        is_forged
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

    /// Looks at alarms that are open, after the policy has changed or a machine has joined them.
    pub(super) fn consider_open(
        &mut self,
        alarms: Vec<Alarm>,
        now: Clock,
        find_neighbour: FindNeighbour<'_>,
    ) {
        for alarm in alarms {
            let change = Change { time: now.wall, step: Step::Updated, news: String::new(), alarm };
            self.consider(&change, find_neighbour);
        }
    }

    /// Looks at a change of an alarm. If it asks for a quarantine, that becomes pending.
    pub(super) fn consider(&mut self, change: &Change, find_neighbour: FindNeighbour<'_>) {
        for (server, address) in self.find_culprits(change, find_neighbour) {
            if self.pending.len() < MOST_PENDING {
                let server = server.to_owned();
                self.pending.push(PendingQuarantine { alarm: change.alarm.id, server, address });
            }
        }
    }

    /// The servers to put into quarantine for this change, or addresses of theirs. A part of the alarm must be
    /// of a kind that the policy names, be more than low, show live drops, and not be answered as this kind and
    /// for this address. (It may have been opened by drops from before the start, or in observe.) Of a prefix
    /// it is each machine that a sample shows with the MAC that the kernel knows of its address.
    fn find_culprits<'c>(
        &mut self,
        change: &'c Change,
        find_neighbour: FindNeighbour<'_>,
    ) -> Vec<Culprit<'c>> {
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
            let answered = self.answered.entry(alarm.id).or_default().entry(part.kind).or_default();
            for sender in if is_prefix { list_senders(part) } else { vec![None] } {
                if sender.is_some_and(|sender| answered.is_forged(sender, find_neighbour)) {
                    continue;
                }
                if let Some(address) = answered.note(sender.map(|(address, _)| address))
                    && !culprits.contains(&(server, address))
                {
                    culprits.push((server, address));
                }
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

/// The machines of a prefix that took part, as samples show them. `None`: one without an address, which only
/// the quarantine of the whole server reaches.
fn list_senders(part: &Part) -> Vec<Option<(IpAddr, [u8; 6])>> {
    let mut senders: Vec<Option<(IpAddr, [u8; 6])>> = part.senders.iter().copied().map(Some).collect();
    let last = part.sample.as_ref().map(|sample| sample.source.zip(sample.source_mac));
    if let Some(last) = last
        && !senders.contains(&last)
    {
        senders.push(last);
    }
    senders
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
