//! Responder: puts the server of an alarm into quarantine, where the policy asks for that. Of a server that
//! is a prefix it is the address alone, with its machine's MAC, for each machine that took part.
//!
//! A neighbour on the link may send in the name of a healthy server. So nobody is cut off for a packet unless
//! its MAC is that of the address: by the policy, or as the kernel has resolved the address.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;

use super::metrics::snapshot::{Snapshot, increment};
use crate::alarm::{Alarm, Change, Kind, Part, Severity, Step, may_quarantine};
use crate::audit::{Action, Entry};
use crate::clock::{Clock, show_duration};
use crate::drops::DropVerdict;
use crate::gate::{Gate, GateError, GatePlace, Sender, Whereabouts};
use crate::net::show_mac;
use crate::policy::{Mode, Policy, Response, Server};
use crate::stderr::notice;

/// Quarantines that may be pending, while another command is changing the gate.
const MOST_PENDING: usize = 256;

/// So many addresses of one server an alarm cuts off one by one. The next one costs the whole server: its
/// machines act together, or one of them takes address after address.
const MOST_ADDRESSES: usize = 8;

/// How long the kernel is given to find out the MAC of an address. It asks three times, a second apart.
const RESOLVE: Duration = Duration::from_secs(4);
/// Between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So many addresses may be looked for at a time. A neighbour can forge any number of them.
const MOST_LOOKED_FOR: usize = 16;
/// So many forged packets one alarm reports.
const MOST_REPORTED: usize = 8;

/// The packet for which somebody is to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Evidence {
    source: Option<IpAddr>,
    source_mac: Option<[u8; 6]>,
    destination_mac: Option<[u8; 6]>,
    /// The policy has MACs for the server, so the gate has compared them.
    is_bound: bool,
}

/// A quarantine to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingQuarantine {
    /// Id of the alarm.
    pub alarm: u64,
    /// The kind of its part.
    kind: Kind,
    server: String,
    /// Of a server that is a prefix: the machine. `None`: the whole server.
    address: Option<IpAddr>,
    evidence: Evidence,
    /// Since when the kernel looks for the address, and when it is asked again.
    looked_for: Option<(Instant, Instant)>,
}

/// What was done about one kind of an open alarm.
#[derive(Default)]
struct Answered {
    /// The whole server was to be cut off.
    whole: bool,
    /// Addresses that were to be cut off.
    addresses: Vec<IpAddr>,
    /// Forged packets of which the alarm has reported, by address and MAC.
    reported: Vec<(Option<IpAddr>, Option<[u8; 6]>)>,
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
    /// Servers whose MACs the policy has.
    bound: HashSet<String>,
    /// Open alarms that were answered, and as which kinds.
    answered: HashMap<u64, HashMap<Kind, Answered>>,
    pending: Vec<PendingQuarantine>,
    /// What was done, for the audit.
    audit: Vec<Entry>,
    snapshot: Arc<Snapshot>,
}

impl Responder {
    /// Goes by a policy.
    pub(super) fn new(interface: Arc<str>, policy: &Policy, snapshot: Arc<Snapshot>) -> Responder {
        let [observing, prefixes, bound] = read(policy);
        let response = policy.response.clone();
        let (answered, pending, audit) = (HashMap::new(), Vec::new(), Vec::new());
        Responder { interface, response, observing, prefixes, bound, answered, pending, audit, snapshot }
    }

    /// Goes by another policy. An alarm that was answered is not answered again.
    pub(super) fn follow(&mut self, policy: &Policy) {
        [self.observing, self.prefixes, self.bound] = read(policy);
        self.response = policy.response.clone();
    }

    /// What was done since the last call.
    pub(super) fn take_audit(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.audit)
    }

    /// Whether any alarm leads to a quarantine.
    pub(super) fn is_asked(&self) -> bool {
        !self.response.quarantine_on.is_empty()
    }

    /// Looks at alarms that are open, after the policy has changed or a machine has joined them.
    pub(super) fn consider_open(&mut self, alarms: Vec<Alarm>, now: Clock) {
        for alarm in alarms {
            self.consider(&Change::unnoted(now.wall, alarm));
        }
    }

    /// Looks at a change of an alarm. If it asks for a quarantine, that becomes pending.
    pub(super) fn consider(&mut self, change: &Change) {
        let due = self.find_due(change);
        let room = MOST_PENDING.saturating_sub(self.pending.len());
        self.pending.extend(due.into_iter().take(room));
    }

    /// The quarantines to make for this change. A part of the alarm must be of a kind that the policy names, be
    /// more than low, show live drops, and not be answered as this kind and for this address. (It may have been
    /// opened by drops from before the start, or in observe.) Of a prefix it is each machine that took part.
    fn find_due(&mut self, change: &Change) -> Vec<PendingQuarantine> {
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
        let (is_prefix, is_bound) = (self.prefixes.contains(server), self.bound.contains(server));
        let mut due: Vec<PendingQuarantine> = Vec::new();
        // Senders that were found forged come last. Otherwise they would stand for their victim's own packets.
        for (is_refused, part) in
            [false, true].iter().flat_map(|one| alarm.parts.iter().map(move |part| (*one, part)))
        {
            if !self.asks_for(part) {
                continue;
            }
            let answered = self.answered.entry(alarm.id).or_default().entry(part.kind).or_default();
            for evidence in list_evidence(part, is_prefix, is_bound) {
                if answered.reported.contains(&(evidence.source, evidence.source_mac)) != is_refused {
                    continue;
                }
                let machine = evidence.source.filter(|_| is_prefix);
                if let Some(address) = answered.note(machine)
                    && !due.iter().any(|one| one.address == address)
                {
                    let (alarm, kind, server) = (alarm.id, part.kind, server.to_owned());
                    due.push(PendingQuarantine { alarm, kind, server, address, evidence, looked_for: None });
                }
            }
        }
        due
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

    /// The pending quarantines whose turn it is. They are pending no more.
    pub(super) fn take_pending(&mut self) -> Vec<PendingQuarantine> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let is_due = |one: &PendingQuarantine| one.looked_for.is_none_or(|(_, again)| again <= now);
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(is_due);
        self.pending = later;
        due
    }

    /// Makes a quarantine, and returns what the alarm is to say of it. `None` if there is nothing to
    /// say: the server is in quarantine already, or it becomes pending again, because another command is
    /// changing the gate or the kernel looks for the address.
    pub(super) fn answer(
        &mut self,
        mut pending: PendingQuarantine,
        gate: &Gate,
        place: &GatePlace,
    ) -> Option<String> {
        let alarm = pending.alarm;
        // A server is cut off as a whole when enough of its addresses were. Those that are looked for may be
        // forged, so they come first.
        if pending.address.is_none()
            && self.pending.iter().any(|one| one.alarm == alarm && one.address.is_some())
        {
            pending.looked_for = Some(wait(pending.looked_for));
            self.pending.push(pending);
            return None;
        }
        self.narrow(&mut pending);
        let sender = match judge(gate, place, &pending) {
            Ok(Judgement::Proved(sender)) => sender,
            Ok(Judgement::Forged(why)) => return self.refuse(&pending, &why),
            Ok(Judgement::Unknown) => {
                let looked_for = self.pending.iter().filter(|one| one.looked_for.is_some()).count();
                let is_over = pending.looked_for.is_some_and(|(since, _)| since.elapsed() >= RESOLVE);
                if is_over || looked_for >= MOST_LOOKED_FOR {
                    let why = "no machine answers for the address of its packets".to_owned();
                    return self.refuse(&pending, &why);
                }
                pending.looked_for = Some(wait(pending.looked_for));
                self.pending.push(pending);
                return None;
            }
            Err(error) => {
                let why = format!("its packets can't be compared with the MAC of its address: {error}");
                return self.refuse(&pending, &why);
            }
        };
        let seconds = self.response.quarantine_for.seconds();
        match place.try_lock().and_then(|_lock| cut_off(gate, place, &pending, sender.as_ref(), seconds)) {
            Ok(Some(who)) => {
                increment(&self.snapshot.quarantines);
                let text = match seconds {
                    Some(seconds) => {
                        let time = show_duration(seconds);
                        format!("{who} was put into quarantine for {time} by this alarm")
                    }
                    None => format!("{who} was put into quarantine by this alarm until it is released"),
                };
                let target =
                    pending.address.map_or_else(|| pending.server.clone(), |address| address.to_string());
                notice!(
                    "portcullis: alarm #{alarm}: {text}; next: portcullis release -i {} {target}",
                    self.interface
                );
                self.audit.push(Entry::done(Action::Quarantine).about(target).detail(format_args!(
                    "by alarm #{alarm} ({}), {}",
                    pending.kind,
                    seconds.map_or("until it is released".to_owned(), |seconds| format!(
                        "for {}",
                        show_duration(seconds)
                    ))
                )));
                Some(text)
            }
            Ok(None) => None,
            Err(GateError::Locked { .. }) => {
                self.pending.push(pending);
                None
            }
            Err(error) => {
                let who = pending.describe();
                warn!("alarm #{alarm} asks for a quarantine of {who}: {error}");
                let entry = Entry::refused(Action::Quarantine, &error).about(&who);
                self.audit.push(entry.detail(format_args!("by alarm #{alarm} ({})", pending.kind)));
                Some(format!("{who} could NOT be put into quarantine: {error}"))
            }
        }
    }

    fn find_answered(&mut self, pending: &PendingQuarantine) -> Option<&mut Answered> {
        self.answered.get_mut(&pending.alarm)?.get_mut(&pending.kind)
    }

    /// Forged packets may have filled the list of addresses that were to be cut off. Then it is this one alone.
    fn narrow(&mut self, pending: &mut PendingQuarantine) {
        let source = pending.evidence.source.filter(|_| self.prefixes.contains(&pending.server));
        let Some(answered) = self.find_answered(pending) else { return };
        if let (None, Some(source)) = (pending.address, source)
            && answered.addresses.len() < MOST_ADDRESSES
        {
            answered.whole = false;
            answered.addresses.push(source);
            pending.address = Some(source);
        }
    }

    /// Nobody is cut off for a packet that may be forged. The alarm may be answered by the next one. It tells of
    /// each sender once.
    fn refuse(&mut self, pending: &PendingQuarantine, why: &str) -> Option<String> {
        let answered = self.find_answered(pending)?;
        match pending.address {
            Some(address) => answered.addresses.retain(|known| *known != address),
            None => answered.whole = false,
        }
        let sender = (pending.evidence.source, pending.evidence.source_mac);
        if answered.reported.contains(&sender) || answered.reported.len() >= MOST_REPORTED {
            return None;
        }
        answered.reported.push(sender);
        let text = format!("{} was NOT put into quarantine: {why}", pending.describe());
        notice!("portcullis: alarm #{}: {text}", pending.alarm);
        Some(text)
    }
}

impl PendingQuarantine {
    fn describe(&self) -> String {
        let PendingQuarantine { server, address, .. } = self;
        address.map_or_else(|| server.clone(), |address| format!("{address} ({server})"))
    }
}

/// The packets for which a part of an alarm asks for a quarantine: of a prefix the last one of each machine that
/// samples show, otherwise the last one. A count of the ledger has no MAC, so it proves nothing unless the policy
/// has MACs: a sample follows.
fn list_evidence(part: &Part, is_prefix: bool, is_bound: bool) -> Vec<Evidence> {
    let Some(sample) = &part.sample else {
        return Vec::new();
    };
    let (source, source_mac) = (sample.source, sample.source_mac);
    let last = Evidence { source, source_mac, destination_mac: sample.destination_mac, is_bound };
    let senders = part.senders.iter().filter(|_| is_prefix).map(|(address, mac)| Evidence {
        source: Some(*address),
        source_mac: Some(*mac),
        destination_mac: None,
        is_bound,
    });
    let is_last = |one: &Evidence| (one.source, one.source_mac) == (last.source, last.source_mac);
    let mut evidence: Vec<Evidence> = senders.filter(|one| !is_last(one)).collect();
    if last.source_mac.is_some() || is_bound {
        evidence.push(last);
    }
    evidence
}

/// Since when the kernel looks for an address, and when to look again.
fn wait(before: Option<(Instant, Instant)>) -> (Instant, Instant) {
    let now = Instant::now();
    (before.map_or(now, |(since, _)| since), now + LOOK_AGAIN)
}

/// Whether somebody may be cut off for a packet.
enum Judgement {
    /// Its MAC is that of its address. With the machine, if the kernel knows it.
    Proved(Option<Sender>),
    /// It may be another machine's. With a sentence for people.
    Forged(String),
    /// The kernel does not know yet.
    Unknown,
}

fn judge(gate: &Gate, place: &GatePlace, pending: &PendingQuarantine) -> Result<Judgement, GateError> {
    let Evidence { source, source_mac, destination_mac, is_bound } = pending.evidence;
    if let Some(mac) = destination_mac
        && !gate.takes_frames_to(mac)?
    {
        let why = format!("its packets went to the MAC {}, which is not this router's", show_mac(&mac));
        return Ok(Judgement::Forged(why));
    }
    let (Some(address), Some(mac)) = (source, source_mac) else {
        return Ok(if is_bound { Judgement::Proved(None) } else { Judgement::Unknown });
    };
    let whereabouts = gate.locate(place, address);
    if is_bound {
        // the policy knows best
        let here = whereabouts.ok().and_then(|whereabouts| match whereabouts {
            Whereabouts::Here(sender) => Some(sender).filter(|sender| sender.mac == mac),
            Whereabouts::Behind(_) | Whereabouts::Asked | Whereabouts::NotOnLink => None,
        });
        return Ok(Judgement::Proved(here));
    }
    let (known, sender) = match whereabouts? {
        Whereabouts::Here(sender) => (sender.mac, Some(sender)),
        Whereabouts::Behind(router) => (router, None),
        Whereabouts::Asked => return Ok(Judgement::Unknown),
        Whereabouts::NotOnLink => {
            return Ok(Judgement::Forged(format!("this router has no route to {address} by its link")));
        }
    };
    if known == mac {
        return Ok(Judgement::Proved(sender));
    }
    Ok(Judgement::Forged(format!(
        "the packet came from the MAC {}, and {address} has {}",
        show_mac(&mac),
        show_mac(&known)
    )))
}

/// Makes a quarantine, and returns whom it is for. `None`: there is one already. The caller holds the lock.
fn cut_off(
    gate: &Gate,
    place: &GatePlace,
    pending: &PendingQuarantine,
    sender: Option<&Sender>,
    seconds: Option<u64>,
) -> Result<Option<String>, GateError> {
    let PendingQuarantine { server, address, .. } = pending;
    if gate.quarantined()?.iter().any(|(name, _)| name == server) {
        return Ok(None);
    }
    let Some(address) = *address else {
        gate.quarantine(server, seconds)?;
        let found = gate.find_machines(place, server);
        if let Err(error) = found.and_then(|macs| gate.note_machines(server, &macs)) {
            warn!("{server} is in quarantine, but its MACs are not noted: {error}");
        }
        return Ok(Some(server.clone()));
    };
    if gate.find_release(address, [0; 6])?.is_some() {
        return Ok(None);
    }
    let mac = match sender {
        Some(sender) if is_mac_of_one(gate, server, address, sender)? => gate.without_routers(sender.mac)?,
        _ => None,
    };
    gate.quarantine_address(address, mac, seconds)?;
    let with_mac = mac.map_or_else(String::new, |mac| format!(", with its MAC {}", show_mac(&mac)));
    Ok(Some(format!("{address} ({server}{with_mac})")))
}

/// Whether the MAC may be cut off with an address. A hostile machine can say on the link that its address is at
/// the MAC of another one of its server. That MAC then has two addresses of one family.
fn is_mac_of_one(gate: &Gate, server: &str, address: IpAddr, sender: &Sender) -> Result<bool, GateError> {
    let of_family = sender.others.iter().filter(|other| other.is_ipv4() == address.is_ipv4());
    let others: Vec<IpAddr> = of_family.copied().filter(|other| !is_link_local(*other)).collect();
    Ok(sender.is_static || gate.select_addresses(server, &others)?.is_empty())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The names of servers in observe, of servers that have a prefix, and of those with MACs. Nobody asks where
/// no alarm leads to a quarantine.
fn read(policy: &Policy) -> [HashSet<String>; 3] {
    if policy.response.quarantine_on.is_empty() {
        return std::array::from_fn(|_| HashSet::new());
    }
    let select = |is_wanted: &dyn Fn(&Server) -> bool| {
        let wanted = policy.servers.iter().filter(|server| is_wanted(server));
        wanted.map(|server| server.name.clone()).collect()
    };
    let has_prefix = |server: &Server| {
        server.addresses.iter().any(|(prefix, _)| prefix.prefix_len() < prefix.max_prefix_len())
    };
    let has_mac = |server: &Server| !server.macs.is_empty();
    [select(&|server| policy.mode_of(server) == Mode::Observe), select(&has_prefix), select(&has_mac)]
}
