//! `portcullis explain`: asks the loaded program for its verdict, and names the line of the policy
//! that decides.

mod asked;
mod names;

use std::net::IpAddr;

use anyhow::{Context as _, bail};

use self::asked::{AskedPacket, Explanation, find_server};
use super::edits::describe_edit;
use super::shared::{find_place, live_policy};
use crate::abi::Reason;
use crate::cli::ExplainArgs;
use crate::compile::{Tables, Unpermitted, compile, find_nearest};
use crate::exit::Exit;
use crate::gate::{Answer, Edit, Gate, GateError, GatePlace, Grant, Verdict, find_on_link};
use crate::net::tcp_flags::{ACK, SYN, parse_flags};
use crate::net::{Probe, TCP, find_icmp_answer, is_icmp, parse_mac};
use crate::output::Output;
use crate::policy::{Direction, Policy, Server, parse_need};

/// First of the dynamic ports (RFC 6335).
const EPHEMERAL: u16 = 49_152;

/// Asks the loaded program about one packet, in a test run without side effects.
///
/// # Errors
/// When there is no gate, or the question is not one packet.
pub fn run(asked: &ExplainArgs, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(&asked.interface.name)?;
    let gate = Gate::open(&place)?;
    let policy = live_policy(&gate, &place.interface)?;
    let tables = compile(&policy).map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
    let grants = if policy.needed_names().is_empty() { Vec::new() } else { gate.grants()? };
    let question = ask(asked, &policy, &tables, &grants)?;
    let frame = question.probe.to_frame()?;
    // The frame counts as received on the interface. The kernel refuses that while the interface is
    // down, so then the frame comes from nowhere.
    let answer = gate
        .explain(&frame, question.answer, Some(place.ifindex))
        .or_else(|_| gate.explain(&frame, question.answer, None))?;
    let mut explanation = explain(&question, &answer, &policy, &tables);
    if let Some(number) = answer.edit {
        name_edit(&mut explanation, number, &gate.edits()?);
    } else if let Some(found) = names::find(&question, &explanation, &policy, &tables, &grants) {
        (explanation.answered, explanation.grant) = (Some(found.sentence), found.grant);
    }
    explanation.notes = find_notes(&question, &place, &policy, &tables);
    let next = match explanation.reason {
        Some(Reason::Quarantined) => gate.find_release(question.probe.source, question.probe.source_mac)?,
        _ => None,
    };
    output.either(&explanation, || {
        let mut text = describe(&explanation, &question);
        if let Some(target) = next {
            text.push_str(&format!("  next     portcullis release -i {} {target}\n", place.interface));
        }
        text
    })?;
    Ok(Exit::Done)
}

/// Turns the command line into a frame.
fn ask(
    asked: &ExplainArgs,
    policy: &Policy,
    tables: &Tables,
    grants: &[Grant],
) -> anyhow::Result<AskedPacket> {
    let need = parse_need(&asked.what, Direction::Out, policy)
        .map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
    if !need.peers.is_empty() || need.sport.is_some() || need.limit.is_some() {
        bail!(
            "`{}` says more than a protocol and a port\nhelp: give the addresses with --from and --to",
            asked.what
        );
    }
    let (first, last) = (*need.ports.start(), *need.ports.end());
    if first != last {
        bail!(
            "`{}` is not one packet\nhelp: name one port or type, as in tcp/80 or icmp/echo-request",
            asked.what
        );
    }
    let protocol = need.protocol;
    let sources = list_addresses(&asked.from, policy)?;
    let destinations = match names::read(&asked.to, policy) {
        Some(name) => {
            let server = sources.iter().find_map(|from| find_server(policy, tables, *from));
            names::list_addresses(&name, server, policy, grants)?
        }
        None => list_addresses(&asked.to, policy)?,
    };
    let (from, to) = find_addresses(&asked.from, &asked.to, &sources, &destinations)?;
    let sender = find_server(policy, tables, from);
    // The gate does not filter packets towards a server. It decides about the answer.
    let answer = sender.is_none() && find_server(policy, tables, to).is_some();
    let (source, destination) = if answer { (to, from) } else { (from, to) };
    let server = if answer { find_server(policy, tables, to) } else { sender };
    let ephemeral = asked.sport.unwrap_or(EPHEMERAL);
    let tcp_flags = match &asked.flags {
        Some(_) if protocol != TCP => bail!("--flags goes with tcp"),
        Some(letters) => parse_flags(letters)?,
        None if answer => SYN | ACK,
        None => SYN,
    };
    let (source_port, destination_port) = match (answer, is_icmp(protocol)) {
        (false, _) => (ephemeral, first),
        (true, false) => (first, ephemeral),
        (true, true) => {
            let answer = find_icmp_answer(protocol, first)
                .context("a server answers requests only\nhelp: ask about echo-request")?;
            (ephemeral, answer)
        }
    };
    Ok(AskedPacket {
        probe: Probe {
            source,
            destination,
            protocol,
            source_port,
            destination_port,
            tcp_flags,
            source_mac: source_mac(asked, server)?,
            vlan: asked.vlan.or_else(|| server.and_then(|server| server.vlan.map(|(vlan, _)| vlan))),
        },
        answer,
        protocol,
        port: first,
    })
}

/// The first addresses of the two ends in one family.
fn find_addresses(
    from: &str,
    to: &str,
    sources: &[IpAddr],
    destinations: &[IpAddr],
) -> anyhow::Result<(IpAddr, IpAddr)> {
    let mut pairs = sources.iter().flat_map(|from| destinations.iter().map(move |to| (*from, *to)));
    pairs.find(|(from, to)| from.is_ipv4() == to.is_ipv4()).with_context(|| {
        format!(
            "{from} and {to} have no address of the same family\nhelp: give two IPv4 or two IPv6 addresses"
        )
    })
}

/// An address itself, or the addresses of the server of this name; of a prefix its first one.
fn list_addresses(text: &str, policy: &Policy) -> anyhow::Result<Vec<IpAddr>> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    match policy.find_server(text) {
        Some(server) => Ok(server.addresses.iter().map(|(prefix, _)| prefix.addr()).collect()),
        None => {
            let names = policy.servers.iter().map(|server| server.name.as_str());
            Err(anyhow::Error::from(GateError::no_server(text, names))
                .context(format!("`{}` is neither an address nor a server", text.escape_default())))
        }
    }
}

fn source_mac(asked: &ExplainArgs, server: Option<&Server>) -> anyhow::Result<[u8; 6]> {
    const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
    let Some(text) = &asked.mac else {
        return Ok(server.and_then(|server| server.macs.first()).map_or(NOBODY, |(mac, _)| *mac));
    };
    parse_mac(text)
        .with_context(|| format!("`{}` is no MAC\nhelp: write 02:00:00:00:00:10", text.escape_default()))
}

/// Adds to the program's answer the need and the line of the policy that decide.
fn explain(question: &AskedPacket, answer: &Answer, policy: &Policy, tables: &Tables) -> Explanation {
    let server = find_server(policy, tables, question.probe.source);
    let rule = (answer.rule != 0).then(|| tables.rules.get(answer.rule as usize)).flatten();
    let (need, line) = match rule {
        Some(rule) => (Some(rule.need.clone()), Some(rule.line)),
        None => find_nearest(
            &Unpermitted {
                server,
                reason: answer.reason,
                protocol: question.protocol,
                port: question.port,
                source_mac: question.probe.source_mac,
            },
            policy,
        ),
    };
    Explanation {
        verdict: answer.verdict,
        reason: answer.reason,
        server: server.map(|server| server.name.clone()),
        need,
        source: line.map(|line| format!("{}:{line}", policy.file)),
        edit: answer.edit,
        answered: None,
        grant: None,
        quiet: answer.quiet,
        answer: question.answer,
        notes: Vec::new(),
    }
}

/// Names the edit that decides.
fn name_edit(explanation: &mut Explanation, number: u32, edits: &[Edit]) {
    // it may have ended just now
    let edit = edits.iter().find(|edit| edit.number == number);
    explanation.need = edit.map(|edit| format!("{} {} {}", edit.action.name(), edit.direction, edit.need));
    explanation.source = Some(edit.map_or_else(|| format!("edit {number}"), describe_edit));
}

/// Sentences about a question that may not be the one that was meant.
fn find_notes(question: &AskedPacket, place: &GatePlace, policy: &Policy, tables: &Tables) -> Vec<String> {
    let Probe { source, destination, .. } = question.probe;
    let mut notes = Vec::new();
    if find_server(policy, tables, source).is_none() && find_server(policy, tables, destination).is_none() {
        notes.push(format!(
            "neither {source} nor {destination} is a server's address; with DNAT the gate sees the address that the \
             server itself has, as `portcullis show -i {} servers` lists it",
            place.interface
        ));
    } else if source == destination {
        notes.push("both addresses are the same: such a packet never leaves its host".to_owned());
    } else if find_on_link(place, destination) == Some(true) {
        notes.push(format!(
            "{destination} is on the link of {} itself: the two reach each other past this router, and the gate sees \
             only packets that are sent to the router all the same",
            place.interface
        ));
    }
    notes
}

fn describe(explanation: &Explanation, question: &AskedPacket) -> String {
    let probe = &question.probe;
    let reason = explanation.reason.map_or("a reason that this version does not know", Reason::name);
    let quiet = if explanation.quiet { ", quietly" } else { "" };
    let verdict = explanation.verdict.name();
    let mut text = match &explanation.answered {
        Some(answered) => format!("{verdict}: {answered}\n  reason   {reason}{quiet}\n"),
        None => format!("{verdict}: {reason}{quiet}\n"),
    };
    let who = explanation.server.as_deref().unwrap_or("no server of the policy");
    text.push_str(&format!("  packet   {} ({who}) to {}", probe.source, probe.destination));
    if explanation.answer {
        text.push_str(" (an answer: the gate does not filter packets towards a server)");
    }
    text.push('\n');
    if let Some(need) = &explanation.need {
        text.push_str(&format!("  need     {need}\n"));
    }
    if let Some(source) = &explanation.source {
        text.push_str(&format!("  decided  {source}\n"));
    }
    if let Some(reason) = explanation.reason {
        let why = match (explanation.edit, explanation.verdict) {
            (Some(_), Verdict::Pass) => "somebody has allowed it by hand, for a time",
            _ => reason.sentence(),
        };
        text.push_str(&format!("  why      {why}\n"));
    }
    for note in &explanation.notes {
        text.push_str(&format!("  note     {note}\n"));
    }
    text
}
