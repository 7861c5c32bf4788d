//! The policy as text. It is read and compiled before anybody gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::bail;
use ipnet::IpNet;

use super::evidence::Service;
use super::hosts::Host;
use super::judge::{Outcome, Refusal};
use super::named::Proposal;
use super::record::{Learned, ProposedRecord, RefusedRecord};
use super::roles::{NeedDraft, RoleDraft, draft_roles};
use super::wording::{show_named_need, show_need, show_service};
use crate::compile::{compile, is_special};
use crate::net::{TCP, show_mac, show_prefix};
use crate::policy::{Direction, parse};

/// More peers than this become a set.
const MAX_INLINE_PEERS: usize = 4;
/// What a server of a DMZ never starts, unless it was seen to: logins, file shares, what intruders' tools listen on.
const NEVER: [u16; 7] = [22, 23, 445, 3389, 4444, 5900, 6667];
/// Services of troubles that a test names.
const MAX_DENIED: usize = 16;

/// Fills in the proposals, and the text of the policy.
///
/// # Errors
/// When there is nothing to propose, or the text is no valid policy.
pub(super) fn complete(mut learned: Learned, outcome: Outcome<'_>) -> anyhow::Result<Learned> {
    learned.notes.extend(outcome.notes.iter().cloned());
    let roles = draft_roles(&outcome.proposals, &outcome.hosts, &BTreeSet::new());
    record(&mut learned, &roles, &outcome);
    if roles.is_empty() && outcome.management.is_empty() {
        let notes: Vec<String> = learned.notes.iter().map(|note| format!("\nnote: {note}")).collect();
        if outcome.seen.is_from_gate {
            bail!(
                "the gate has kept nothing that a server needs, {}{}\nhelp: it keeps what passes while the policy observes, \
                 or while `learn --for` runs",
                outcome.seen.show_span(),
                notes.concat()
            );
        }
        bail!(
            "the captures show nothing that a server needs{}\nhelp: were they taken at the DMZ-facing interface, in \
             both directions, and are these the servers?",
            notes.concat()
        );
    }
    if outcome.management.is_empty() {
        learned.notes.push(
            "nobody was seen to administer the servers by ssh, so there is no `management`. Write it yourself, or you \
             lock yourself out"
                .to_owned(),
        );
    }
    learned.text = write_policy(&learned, &roles, &outcome);
    let checked =
        parse(&learned.text, "the policy that was learnt").and_then(|policy| compile(&policy).map(drop));
    if let Err(mistakes) = checked {
        bail!("no valid policy can be made of this, which is a defect of portcullis\n{mistakes}");
    }
    Ok(learned)
}

/// Fills in what JSON has.
pub(super) fn record(learned: &mut Learned, roles: &[RoleDraft], outcome: &Outcome<'_>) {
    let name = |host: &usize| outcome.hosts.get(*host).map(|host| host.name.clone()).unwrap_or_default();
    learned.servers = outcome.hosts.iter().map(|host| host.name.clone()).collect();
    for (service, peers, evidence) in &outcome.management {
        learned.proposed.push(ProposedRecord {
            servers: learned.servers.clone(),
            direction: "management",
            need: show_need(service, peers),
            evidence: evidence.clone(),
        });
    }
    for role in roles {
        for need in &role.needs {
            learned.proposed.push(ProposedRecord {
                servers: role.hosts.iter().map(name).collect(),
                direction: need.service.direction.key(),
                need: show_named_need(&need.service, &need.names, &need.peers),
                evidence: need.comments.join("; "),
            });
        }
    }
    learned.not_proposed = outcome
        .refusals
        .iter()
        .map(|refusal| RefusedRecord {
            server: name(&refusal.host),
            direction: refusal.service.direction.key(),
            need: refusal.need.clone(),
            why: refusal.why.clone(),
            evidence: refusal.evidence.clone(),
        })
        .collect();
}

/// What is not proposed, and what the captures can't tell, as comments.
pub(super) fn write_doubts(learned: &Learned) -> String {
    let mut text = String::new();
    if !learned.notes.is_empty() {
        text.push_str("# What this evidence can't tell, and what it shows beside needs:\n");
        learned.notes.iter().for_each(|note| push_comment(&mut text, "", &format!("- {note}")));
        text.push_str("#\n");
    }
    if learned.not_proposed.is_empty() {
        return text;
    }
    text.push_str("# NOT PROPOSED. Look at each line. What a server really needs, copy into its role.\n");
    let mut by_server: BTreeMap<&str, Vec<&RefusedRecord>> = BTreeMap::new();
    for refused in &learned.not_proposed {
        by_server.entry(&refused.server).or_default().push(refused);
    }
    for (server, refused) in by_server {
        let _ = writeln!(text, "#\n# {server}:");
        for RefusedRecord { direction, need, why, evidence, .. } in refused {
            let _ = writeln!(text, "#   {direction}: \"{need}\"\n#       {why}\n#       {evidence}");
        }
    }
    text
}

fn write_policy(learned: &Learned, roles: &[RoleDraft], outcome: &Outcome<'_>) -> String {
    let mut text = String::new();
    let span = match (&learned.from, &learned.to) {
        (Some(from), Some(to)) => format!(", from {from} to {to}"),
        _ => String::new(),
    };
    let sources = learned.files.join(", ");
    let head = match learned.openings {
        Some(openings) => {
            format!("Learnt by portcullis from the gate on {sources}: {openings} answered openings{span}.")
        }
        None => format!("Learnt by portcullis from {sources}: {} packets{span}.", learned.packets),
    };
    push_comment(&mut text, "", &head);
    text.push_str(
        "#\n# Each need has its evidence above it: first and last time (UTC), how often, and with whom. Take out what\n# \
         nobody needs, then sign the rest. It drops nothing before you write \"enforce\":\n#   portcullis check FILE    \
         portcullis test FILE    portcullis replay -p FILE CAPTURE\n#\n",
    );
    text.push_str(&write_doubts(learned));
    text.push_str("\n[policy]\nmode = \"observe\"             # count and raise alarms, drop nothing\n");
    if outcome.management.is_empty() {
        text.push_str("# management = [\"tcp/22 from ADDRESS\"]    # who administers: open on every server, also in quarantine\n");
    } else {
        text.push_str("management = [                # open on every server, also in quarantine\n");
        for (service, peers, evidence) in &outcome.management {
            push_comment(&mut text, "    ", evidence);
            let _ = writeln!(text, "    \"{}\",", show_need(service, peers));
        }
        text.push_str("]\n");
    }
    let sets = draft_sets(roles);
    if !sets.is_empty() {
        text.push_str("\n[sets]\n");
        for (peers, name) in &sets {
            let _ = writeln!(text, "{name} = [");
            for peer in peers {
                let word = outcome.seen.names.find(peer.addr());
                let word = word.map(|word| format!("    # {word}")).unwrap_or_default();
                let _ = writeln!(text, "    \"{}\",{word}", show_prefix(peer));
            }
            text.push_str("]\n");
        }
    }
    write_names(&mut text, outcome);
    for role in roles {
        write_role(&mut text, role, &sets);
    }
    for (number, host) in outcome.hosts.iter().enumerate() {
        write_server(&mut text, number, host, roles);
    }
    write_tests(&mut text, outcome);
    text
}

/// Long lists of peers, each with its name.
fn draft_sets(roles: &[RoleDraft]) -> BTreeMap<Vec<IpNet>, String> {
    let mut sets = BTreeMap::new();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for need in roles.iter().flat_map(|role| &role.needs) {
        if need.peers.len() <= MAX_INLINE_PEERS || !need.names.is_empty() || sets.contains_key(&need.peers) {
            continue;
        }
        let word = show_service(&need.service).replace('/', "-");
        let count = counts.entry(word.clone()).or_default();
        *count += 1;
        sets.insert(need.peers.clone(), if *count == 1 { word } else { format!("{word}-{count}") });
    }
    sets
}

fn show_drafted(need: &NeedDraft, sets: &BTreeMap<Vec<IpNet>, String>) -> String {
    match sets.get(&need.peers).filter(|_| need.names.is_empty()) {
        Some(set) => {
            format!("{} {} @{set}", show_service(&need.service), need.service.direction.preposition())
        }
        None => show_named_need(&need.service, &need.names, &need.peers),
    }
}

/// The resolvers whose answers name destinations, and the addresses among these that a name may point to only if the
/// policy says so.
fn write_names(text: &mut String, outcome: &Outcome<'_>) {
    let named = || outcome.proposals.iter().flat_map(|proposal| &proposal.named);
    let resolvers: BTreeSet<IpAddr> =
        named().filter_map(|(name, _)| outcome.seen.names.resolvers_of(name)).flatten().copied().collect();
    if resolvers.is_empty() {
        return;
    }
    let private: BTreeSet<IpNet> =
        named().map(|(_, peer)| *peer).filter(|peer| is_special(peer.addr())).collect();
    text.push_str("\n[names]\n");
    push_comment(
        text,
        "",
        "Their answers open addresses. Where the default route leads to one, a gate is attached only with forgeable = true, \
         for its answers could be forged: better ask a resolver on the router.",
    );
    let _ = writeln!(text, "resolvers = {}", list(resolvers.iter().map(ToString::to_string)));
    if !private.is_empty() {
        push_comment(text, "", "Names pointed there, although these are no global addresses.");
        let _ = writeln!(text, "private = {}", list(private.iter().map(show_prefix)));
    }
}

fn write_role(text: &mut String, role: &RoleDraft, sets: &BTreeMap<Vec<IpNet>, String>) {
    let _ = writeln!(text, "\n[roles.{}]", role.name);
    for direction in Direction::ALL {
        let needs = role.needs.iter().filter(|need| need.service.direction == direction);
        let needs: Vec<&NeedDraft> = needs.collect();
        if needs.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{direction} = [");
        for need in needs {
            need.comments.iter().for_each(|line| push_comment(text, "    ", line));
            let _ = writeln!(text, "    \"{}\",", show_drafted(need, sets));
        }
        text.push_str("]\n");
    }
}

fn write_server(text: &mut String, number: usize, host: &Host, roles: &[RoleDraft]) {
    let quote =
        |words: Vec<String>| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let roles = roles.iter().filter(|role| role.hosts.contains(&number)).map(|role| role.name.clone());
    let roles: Vec<String> = roles.collect();
    let name = match host.name.contains('.') {
        true => format!("\"{}\"", host.name),
        false => host.name.clone(),
    };
    let _ = writeln!(text, "\n[servers.{name}]");
    let _ = writeln!(text, "addresses = [{}]", quote(host.addresses.iter().map(show_prefix).collect()));
    if let Some(mac) = host.mac {
        let _ = writeln!(
            text,
            "# mac = \"{}\"    # its MAC in the capture: from another one it is a spoof",
            show_mac(&mac)
        );
    }
    let _ = writeln!(text, "roles = [{}]", quote(roles));
}

/// What was seen must pass. What must never be is denied.
fn write_tests(text: &mut String, outcome: &Outcome<'_>) {
    for (number, host) in outcome.hosts.iter().enumerate() {
        let of_host: Vec<&Proposal> =
            outcome.proposals.iter().filter(|proposal| proposal.host == number).collect();
        let troubles: Vec<&Refusal> =
            outcome.refusals.iter().filter(|refusal| refusal.host == number && refusal.is_trouble).collect();
        write_calls_test(text, host, &of_host, &troubles);
        write_services_tests(text, (host, &outcome.hosts), &of_host, &troubles);
    }
    for (service, peers, _) in &outcome.management {
        let peers: Vec<&IpNet> = peers.iter().filter(|peer| !is_of_server(peer, &outcome.hosts)).collect();
        if peers.is_empty() {
            continue;
        }
        let is_reached = |host: &&Host| {
            host.addresses
                .iter()
                .any(|net| peers.iter().any(|peer| peer.addr().is_ipv4() == net.addr().is_ipv4()))
        };
        let names = outcome.hosts.iter().filter(is_reached).map(|host| host.name.clone());
        let _ = writeln!(
            text,
            "\n[[tests]]\nfrom = {}\nto = {}\naccept = {}",
            list(peers.iter().copied().map(show_prefix)),
            list(names),
            list([show_service(service)])
        );
    }
}

fn write_calls_test(text: &mut String, host: &Host, proposals: &[&Proposal], troubles: &[&Refusal]) {
    let calls: Vec<&&Proposal> =
        proposals.iter().filter(|proposal| proposal.service.direction == Direction::Out).collect();
    let has = |protocol: u8, port: u16| {
        calls.iter().any(|proposal| (proposal.service.protocol, proposal.service.port) == (protocol, port))
    };
    let never = NEVER.iter().filter(|port| !has(TCP, **port)).map(|port| format!("tcp/{port}"));
    let of_troubles: BTreeSet<String> = troubles
        .iter()
        .filter(|refusal| refusal.service.direction == Direction::Out)
        .filter(|refusal| !has(refusal.service.protocol, refusal.service.port))
        .map(|refusal| show_service(&refusal.service))
        .take(MAX_DENIED)
        .collect();
    let denied: BTreeSet<String> = never.chain(of_troubles).collect();
    let _ = writeln!(text, "\n[[tests]]\nfrom = \"{}\"", host.name);
    if !calls.is_empty() {
        let accept = calls
            .iter()
            .map(|proposal| show_named_need(&proposal.service, &proposal.names(), &proposal.peers));
        let _ = writeln!(text, "accept = {}", list(accept));
    }
    let _ = writeln!(text, "deny = {}\nonly = true", list(denied));
}

fn write_services_tests(
    text: &mut String,
    (host, hosts): (&Host, &[Host]),
    proposals: &[&Proposal],
    troubles: &[&Refusal],
) {
    let mut by_peers: BTreeMap<&[IpNet], BTreeSet<Service>> = BTreeMap::new();
    for proposal in proposals.iter().filter(|proposal| proposal.service.direction == Direction::In) {
        by_peers.entry(&proposal.peers).or_default().insert(proposal.service);
    }
    for (peers, services) in &by_peers {
        let outside: Vec<&IpNet> = peers.iter().filter(|peer| !is_of_server(peer, hosts)).collect();
        if outside.is_empty() && !peers.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n[[tests]]");
        if !outside.is_empty() {
            let _ = writeln!(text, "from = {}", list(outside.into_iter().map(show_prefix)));
        }
        let _ =
            writeln!(text, "to = \"{}\"\naccept = {}", host.name, list(services.iter().map(show_service)));
    }
    let offered: BTreeSet<Service> = by_peers.into_values().flatten().collect();
    let denied: BTreeSet<String> = troubles
        .iter()
        .map(|refusal| &refusal.service)
        .filter(|service| service.direction == Direction::In && !offered.contains(service))
        .map(show_service)
        .take(MAX_DENIED)
        .collect();
    if !denied.is_empty() {
        let _ = writeln!(text, "\n[[tests]]\nto = \"{}\"\ndeny = {}", host.name, list(denied));
    }
}

/// Whether a peer is a server too. What it may open is said by its own needs.
fn is_of_server(peer: &IpNet, hosts: &[Host]) -> bool {
    hosts.iter().flat_map(|host| &host.addresses).any(|own| own.contains(peer) || peer.contains(own))
}

fn list(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    format!("[{}]", words.join(", "))
}

/// A comment on as many lines as it needs, and nothing in it that ends a line.
fn push_comment(text: &mut String, indent: &str, comment: &str) {
    const WIDTH: usize = 116;
    let mut line = format!("{indent}#");
    for word in crate::escape::escape(comment).split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > indent.len() + 2 {
            let _ = writeln!(text, "{line}");
            line = format!("{indent}#  ");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
