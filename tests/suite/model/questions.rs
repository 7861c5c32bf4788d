//! Roles with `dns = "named"`: what their servers may ask resolvers (SPEC 2.2).

use portcullis::abi::Reason;
use portcullis::net::DomainName;
use portcullis::policy::{Policy, Questions};

use super::coverage::Rule as Covered;
use super::decide::{Case, Decision};
use super::dns::{Question, read_whole_query};
use super::packet::{Piece, TCP, Transport, UDP};

const DNS: u16 = 53;
const INTERNET: u16 = 1;
/// NS, SOA, DS, DNSKEY.
const WAY: [u16; 4] = [2, 6, 43, 48];
const PTR: u16 = 12;

enum Asked {
    Named,
    /// Clients ask so by habit.
    Expected,
    Else,
}

/// What comes of a packet that some rule lets pass: itself, a quiet drop, or nothing, for the rule is not for it.
pub fn judge(case: &Case<'_>, decision: Decision) -> Option<Decision> {
    if decision.reason.drops() || !asks_resolver(case) {
        return Some(decision);
    }
    let replies = matches!(decision.reason, Reason::Reply | Reason::Pickup);
    // decided: an answer of a service to a peer that has the resolver's address
    if replies && (case.packet.protocol == TCP || is_answer(case)) {
        return Some(decision);
    }
    match classify(case) {
        Asked::Named => Some(decision.meeting(Covered::QuestionNamed)),
        Asked::Else if !replies => None,
        Asked::Expected | Asked::Else => {
            Some(Decision::drop(Reason::Question).at_port(DNS).quiet_if(true).meeting(Covered::QuestionQuiet))
        }
    }
}

/// What nothing else explains is a question.
pub fn name_reason(case: &Case<'_>, mut decision: Decision) -> Decision {
    if asks_resolver(case) && is_permitted_else(&decision) {
        decision.reason = Reason::Question;
    }
    for other in &mut decision.others {
        if asks_resolver(case) && is_permitted_else(other) {
            other.reason = Reason::Question;
        }
    }
    decision
}

fn is_permitted_else(decision: &Decision) -> bool {
    matches!(decision.reason, Reason::Destination | Reason::NewFlow)
}

fn asks_resolver(case: &Case<'_>) -> bool {
    let packet = case.packet;
    let port = match &packet.transport {
        Some(Transport::Tcp(tcp)) => Some(tcp.destination),
        Some(Transport::Ports { destination, .. }) if packet.protocol == UDP => Some(*destination),
        _ => None,
    };
    case.policy.questions_of(case.server) == Questions::Named
        && port == Some(DNS)
        && case.policy.resolvers().contains(&packet.destination)
}

/// QR, as far as it is there.
fn is_answer(case: &Case<'_>) -> bool {
    let payload = &case.packet.payload;
    payload.len() >= 8 + 12 && payload[8 + 2] & 0x80 != 0
}

fn classify(case: &Case<'_>) -> Asked {
    let packet = case.packet;
    if packet.protocol != UDP || packet.piece != Piece::Whole {
        return Asked::Else;
    }
    // decided: bytes behind the datagram would leave as well
    let length = packet.payload.get(4..6).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    if length != Some(packet.payload.len()) {
        return Asked::Else;
    }
    let question = packet.payload.get(8..).and_then(read_whole_query).filter(|asked| asked.class == INTERNET);
    question.map_or(Asked::Else, |question| classify_name(case.policy, &question))
}

fn labels_of(name: &DomainName) -> Vec<Vec<u8>> {
    name.domain().split('.').map(|label| label.as_bytes().to_vec()).collect()
}

fn classify_name(policy: &Policy, question: &Question) -> Asked {
    let asked = &question.labels;
    let is_way = WAY.contains(&question.kind);
    if asked.is_empty() {
        return if is_way { Asked::Named } else { Asked::Else };
    }
    if !asked.iter().all(|label| label.is_ascii()) {
        return Asked::Else;
    }
    let names: Vec<(bool, Vec<Vec<u8>>)> =
        policy.needed_names().iter().map(|name| (name.is_wildcard(), labels_of(name))).collect();
    let is_named = |(wildcard, own): &(bool, Vec<Vec<u8>>)| match wildcard {
        true => asked.len() > own.len() && asked.ends_with(own),
        false => {
            let is_service = asked.len() == own.len() + 2
                && asked.ends_with(own)
                && asked[..2].iter().all(|label| label.starts_with(b"_"));
            own == asked || is_service
        }
    };
    let is_parent = |(_, own): &(bool, Vec<Vec<u8>>)| own.ends_with(asked);
    let is_front = |(wildcard, own): &(bool, Vec<Vec<u8>>)| match wildcard {
        true => asked[1..].starts_with(own),
        false => asked.starts_with(own),
    };
    let reverse = [&[&b"in-addr"[..], b"arpa"], &[&b"ip6"[..], b"arpa"]];
    let is_below =
        |domain: &&[&[u8]; 2]| asked.len() > 2 && asked[asked.len() - 2..].iter().eq(domain.iter().copied());
    if names.iter().any(is_named) || is_way && names.iter().any(is_parent) {
        Asked::Named
    } else if names.iter().any(is_front) || question.kind == PTR && reverse.iter().any(is_below) {
        Asked::Expected
    } else {
        Asked::Else
    }
}
