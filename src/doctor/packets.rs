//! Packets that must pass and packets that must not, asked of the loaded programs and their live tables. Nothing is
//! counted, and no packet is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Finding, FindingId};
use crate::abi::Reason;
use crate::gate::{Answer, Gate, GateError, GatePlace, Verdict};
use crate::net::tcp_flags::{ACK, FIN, SYN};
use crate::net::{Probe, TCP};
use crate::policy::{Direction, Mode, Policy, Server};

/// Peers that nobody has: of the ranges for documentation.
const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254));
const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe));
/// Ports that servers hardly need: one is taken that no `out` need of the policy has.
const FORBIDDEN_PORTS: [u16; 6] = [4444, 31_337, 6667, 23, 9, 1];
/// Of the peer, first of the dynamic ports.
const EPHEMERAL: u16 = 49_152;
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// What a packet has to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Pass,
    Drop,
}

/// A packet that was asked about, and the answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The packet in words.
    what: String,
    expected: Expected,
    verdict: Verdict,
    reason: Option<Reason>,
}

/// A packet to ask about.
struct Question {
    what: String,
    probe: Probe,
    /// As if a peer had opened the flow.
    opened: bool,
    expected: Expected,
}

/// Asks the programs.
pub(super) fn gather(gate: &Gate, place: &GatePlace, policy: &Policy) -> Result<Vec<Asked>, GateError> {
    let Some(generation) = gate.live_settings()?.map(|live| live.generation) else {
        return Ok(Vec::new());
    };
    let edited: Vec<String> = gate.edits()?.into_iter().map(|edit| edit.server).collect();
    let quarantined = gate.quarantined()?.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let has_addresses = !gate.quarantined_addresses()?.is_empty();
    let mut asked = Vec::new();
    for question in list_questions(policy, &edited, &quarantined, has_addresses) {
        let answer = ask(gate, place, &question)?;
        // another policy is live by now, so this one says nothing about the answer
        if answer.generation != generation as u32 {
            return Ok(Vec::new());
        }
        let Question { what, expected, .. } = question;
        asked.push(Asked { what, expected, verdict: answer.verdict, reason: answer.reason });
    }
    Ok(asked)
}

fn ask(gate: &Gate, place: &GatePlace, question: &Question) -> Result<Answer, GateError> {
    let frame = question.probe.to_frame().map_err(|error| GateError::Other {
        what: format!("could not make {}", question.what),
        why: error.to_string(),
    })?;
    // The kernel refuses a frame from an interface that is down. Then it comes from nowhere.
    gate.explain(&frame, question.opened, Some(place.ifindex))
        .or_else(|_| gate.explain(&frame, question.opened, None))
}

fn list_questions(
    policy: &Policy,
    edited: &[String],
    quarantined: &[String],
    has_quarantined_addresses: bool,
) -> Vec<Question> {
    let mut questions = Vec::new();
    let is_enforced = |server: &&Server| policy.mode_of(server) == Mode::Enforce;
    let is_plain = |server: &&Server| !edited.contains(&server.name);
    if let Some(server) = policy.servers.iter().filter(is_enforced).find(is_plain) {
        questions.extend(forbid_opening(policy, server));
        questions.extend(forbid_nonsense(server));
    }
    let is_free = |server: &&Server| !quarantined.contains(&server.name) && !has_quarantined_addresses;
    let mut open = policy.servers.iter().filter(is_plain).filter(is_free);
    questions.extend(open.find_map(|server| permit_service(policy, server)));
    questions
}

fn probe_of(server: &Server) -> Option<Probe> {
    let source = server.addresses.first()?.0.addr();
    Some(Probe {
        source,
        destination: if source.is_ipv4() { PEER_V4 } else { PEER_V6 },
        protocol: TCP,
        source_port: EPHEMERAL,
        destination_port: 80,
        tcp_flags: SYN,
        source_mac: server.macs.first().map_or(NOBODY, |(mac, _)| *mac),
        vlan: server.vlan.map(|(vlan, _)| vlan),
    })
}

/// An opening that no need of the policy has.
fn forbid_opening(policy: &Policy, server: &Server) -> Option<Question> {
    let needs = || policy.roles.iter().flat_map(|role| role.needs_of(Direction::Out));
    let is_needed = |port: u16| needs().any(|need| need.protocol == TCP && need.ports.contains(&port));
    let port = FORBIDDEN_PORTS.into_iter().find(|port| !is_needed(*port))?;
    let probe = Probe { destination_port: port, ..probe_of(server)? };
    let what = format!("a connection of {} to tcp/{port} at {}", server.name, probe.destination);
    Some(Question { what, probe, opened: false, expected: Expected::Drop })
}

/// A segment that no stack sends.
fn forbid_nonsense(server: &Server) -> Option<Question> {
    let probe = Probe { tcp_flags: SYN | FIN, ..probe_of(server)? };
    let what = format!("a TCP segment of {} with SYN and FIN", server.name);
    Some(Question { what, probe, opened: false, expected: Expected::Drop })
}

/// The answer of a service that is open to everybody.
fn permit_service(policy: &Policy, server: &Server) -> Option<Question> {
    let roles = server.roles.iter().filter_map(|(name, _)| policy.find_role(name));
    let mut needs = roles.flat_map(|role| role.needs_of(Direction::In));
    let need = needs.find(|need| need.protocol == TCP && need.peers.is_empty())?;
    let port = *need.ports.start();
    let probe =
        Probe { source_port: port, destination_port: EPHEMERAL, tcp_flags: SYN | ACK, ..probe_of(server)? };
    let what = format!("the answer of {} from its service tcp/{port}", server.name);
    Some(Question { what, probe, opened: true, expected: Expected::Pass })
}

pub(super) fn judge(asked: &[Asked], interface: &str) -> Vec<Finding> {
    asked.iter().filter_map(|asked| judge_one(asked, interface)).collect()
}

fn judge_one(asked: &Asked, interface: &str) -> Option<Finding> {
    let Asked { what, expected, verdict, reason } = asked;
    let reason = reason.map_or("a reason that this version does not know", Reason::name);
    let finding = |id, text, remedy| Some(Finding { id, about: interface.to_owned(), text, remedy });
    let again = format!("portcullis attach -i {interface} -p POLICY writes the tables anew");
    match (expected, verdict) {
        (Expected::Drop, Verdict::Drop) | (Expected::Pass, Verdict::Pass | Verdict::WouldDrop) => None,
        (Expected::Drop, Verdict::Pass | Verdict::WouldDrop) => finding(
            FindingId::MustDropPasses,
            format!("{what} would pass ({reason}), and the policy drops it"),
            again,
        ),
        (Expected::Pass, Verdict::Drop) => finding(
            FindingId::MustPassDrops,
            format!("{what} would be dropped ({reason}), and the policy permits it"),
            again,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    const POLICY: &str = "[roles.web]\nin = [\"tcp/80\"]\nout = [\"tcp/4444\"]\n[roles.quiet]\nin = [\"tcp/22 from 203.0.113.7\"]\n\
        [servers.db]\naddresses = [\"192.0.2.9\"]\nroles = [\"quiet\"]\nmode = \"observe\"\n\
        [servers.web1]\naddresses = [\"192.0.2.10\"]\nroles = [\"web\"]\n";

    fn questions(edited: &[&str], quarantined: &[&str]) -> Vec<(String, Expected)> {
        let policy = parse(POLICY, "p.toml").unwrap();
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let questions = list_questions(&policy, &own(edited), &own(quarantined), false);
        questions.into_iter().map(|question| (question.what, question.expected)).collect()
    }

    #[test]
    fn the_packets_are_those_that_the_policy_surely_drops_or_permits() {
        let all = questions(&[], &[]);
        assert_eq!(
            all,
            [
                ("a connection of web1 to tcp/31337 at 198.51.100.254".to_owned(), Expected::Drop),
                ("a TCP segment of web1 with SYN and FIN".to_owned(), Expected::Drop),
                ("the answer of web1 from its service tcp/80".to_owned(), Expected::Pass),
            ]
        );
        assert_eq!(questions(&["web1"], &[]), [], "an edit may say otherwise");
        assert_eq!(
            questions(&[], &["web1"]).len(),
            2,
            "a quarantine drops answers, and openings all the more"
        );
    }

    #[test]
    fn a_drop_that_is_none_is_critical_and_a_pass_that_is_none_is_severe() {
        let asked = |expected, verdict| Asked {
            what: "it".to_owned(),
            expected,
            verdict,
            reason: Some(Reason::Need),
        };
        let judge =
            |expected, verdict| judge_one(&asked(expected, verdict), "dmz0").map(|finding| finding.id);
        assert_eq!(judge(Expected::Drop, Verdict::Drop), None);
        assert_eq!(judge(Expected::Pass, Verdict::Pass), None);
        assert_eq!(judge(Expected::Drop, Verdict::Pass), Some(FindingId::MustDropPasses));
        assert_eq!(judge(Expected::Drop, Verdict::WouldDrop), Some(FindingId::MustDropPasses));
        assert_eq!(judge(Expected::Pass, Verdict::Drop), Some(FindingId::MustPassDrops));
    }
}
