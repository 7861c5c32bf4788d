//! Learns from what a gate has kept: openings that were answered, counted by service and peer. The alarm engine sees their
//! beginnings, and what it has said to people meanwhile counts as well.

use std::net::IpAddr;

use jiff::Timestamp as Moment;
use serde_json::Value;

use super::evidence::{NameUse, PeerEvidence, Service};
use super::seen::Seen;
use super::suspicion::Suspicion;
use crate::alarm::Kind;
use crate::capture::Timestamp;
use crate::history::{KeptOpening, OpenedService};
use crate::net::find_protocol;
use crate::policy::{Direction, find_objection};
use crate::policy_file::CompiledPolicy;

/// In its first seconds a datagram may answer a question from before.
const EARLY_NS: u64 = 30_000_000_000;

/// What a gate has kept, and what it has reported in the same time.
#[derive(Debug)]
pub struct Kept {
    /// Name of the interface.
    pub interface: String,
    /// The openings.
    pub openings: Vec<KeptOpening>,
    /// The time that was asked for.
    pub from: Moment,
    /// As `from`.
    pub to: Moment,
    /// Alarms of that time, as JSON.
    pub alarms: Vec<Value>,
    /// What a reader should know of it.
    pub notes: Vec<String>,
}

/// Adds what a gate has kept. Returns how many openings were answered, and notes for the reader.
pub(super) fn add_kept(
    seen: &mut Seen<'_>,
    kept: Kept,
    compiled: &CompiledPolicy,
    is_increment: bool,
) -> (u64, Vec<String>) {
    seen.first_ns = Some(to_ns(kept.from));
    seen.last_ns = to_ns(kept.to).max(to_ns(kept.from));
    seen.is_from_gate = true;
    let mut notes = kept.notes;
    let counted = kept.openings.iter().map(|opening| opening.answered).sum();
    let strangers = add_openings(seen, kept.openings, compiled, is_increment);
    if strangers > 0 {
        notes.push(format!("{strangers} openings are of servers that this policy does not have"));
    }
    add_alarms(seen, &kept.alarms, compiled);
    (counted, notes)
}

fn to_ns(time: Moment) -> Timestamp {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

/// Returns how many openings are of servers that the policy lacks.
fn add_openings(
    seen: &mut Seen<'_>,
    mut openings: Vec<KeptOpening>,
    compiled: &CompiledPolicy,
    is_increment: bool,
) -> u64 {
    let mut strangers = 0;
    let mut suspicion = Suspicion::new();
    let start_ns = seen.first_ns.unwrap_or(0);
    openings.sort_by_key(|opening| opening.first);
    for opening in openings {
        let Some(address) = find_address(compiled, &opening.server) else {
            strangers += opening.answered;
            continue;
        };
        let Some(server) = seen.scope.number(address) else { continue };
        let Some(OpenedService { direction, protocol, port }) = opening.service else {
            seen.evidence.fold(server, opening.answered);
            continue;
        };
        let (first_ns, last_ns) = (to_ns(opening.first), to_ns(opening.last));
        // a peer that found no room is any, as far as the policy can know
        let peer = opening.peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let counts = PeerEvidence {
            asked: opening.answered.saturating_add(opening.asked),
            answered: opening.answered,
            first_ns,
            last_ns,
            name: NameUse::Without,
        };
        if is_increment && seen.note_kept_use(address, direction, (protocol, port), peer, &counts) {
            continue;
        }
        let service = Service { direction, protocol, port };
        let is_early = last_ns.saturating_sub(start_ns) < EARLY_NS;
        seen.evidence.add(server, service, opening.peer, counts, is_early);
        let Some(peer) = opening.peer else { continue };
        if let Some(name) = &opening.name {
            seen.names.note_name(peer, || name.as_str().into());
        }
        if direction == Direction::Out && !seen.scope.is_for_all(peer) {
            suspicion.note_opening(server, first_ns, (address, peer), (protocol, port));
        }
    }
    seen.troubles = suspicion.finish();
    strangers
}

/// An address that stands for a server of the policy.
fn find_address(compiled: &CompiledPolicy, name: &str) -> Option<IpAddr> {
    let server = compiled.policy.servers.iter().find(|server| server.name == name)?;
    let nets = server.addresses.iter().map(|(net, _)| *net);
    nets.map(|net| net.addr()).find(|address| find_objection(&ipnet::IpNet::from(*address)).is_none())
}

/// Alarms count by the services of their parts. Those whose kind follows from the policy alone don't count: a policy
/// that has nothing yet would make a backdoor of each service.
fn add_alarms(seen: &mut Seen<'_>, alarms: &[Value], compiled: &CompiledPolicy) {
    for alarm in alarms {
        let Some(address) = alarm["server"].as_str().and_then(|name| find_address(compiled, name)) else {
            continue;
        };
        let Some(server) = seen.scope.number(address) else { continue };
        let parts = alarm["parts"].as_array().map_or(&[][..], Vec::as_slice);
        for part in parts {
            let kinds = [Kind::Spread, Kind::Scan, Kind::Callback, Kind::Fetch];
            let kind = kinds.into_iter().find(|kind| part["kind"].as_str() == Some(kind.name()));
            let Some(kind) = kind else { continue };
            let since = part["since"].as_str().and_then(|text| text.parse::<Moment>().ok());
            let Some((protocol, port)) = part["service"].as_str().and_then(read_service) else { continue };
            let ports = part["ports"]["first"].as_array().map_or(&[][..], Vec::as_slice);
            let ports = ports.iter().filter_map(|port| u16::try_from(port.as_u64()?).ok());
            let services = port.into_iter().chain(ports).map(|port| (protocol, port)).collect();
            let contacted = part["contacted"].as_str().and_then(|text| text.parse().ok());
            let troubles = seen.troubles.entry(server).or_default();
            troubles.note_kind(kind, since.map_or(0, to_ns), services, contacted);
        }
    }
}

/// As in "tcp/445", or "tcp" of several ports.
fn read_service(text: &str) -> Option<(u8, Option<u16>)> {
    let (protocol, port) = text.split_once('/').map_or((text, None), |(name, port)| (name, Some(port)));
    Some((find_protocol(protocol)?, port.and_then(|port| port.parse().ok())))
}
