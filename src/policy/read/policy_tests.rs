//! `[[tests]]`: what the policy must let pass, and what it must not.

use super::document::{Entry, Findings, Section, Text};
use super::grammar::{read_needs, read_peer_name};
use super::mistake::Mistake;
use super::peer_names::PeerNames;
use crate::abi::{REASONS, Reason};
use crate::net::{find_icmp_answer, is_icmp};
use crate::policy::diagnostic::{Finding, FindingOrigin};
use crate::policy::model::{Direction, Need, Peer, PolicyTest};

/// Reads all tests. They may use `names`.
pub(super) fn read_tests(
    root: &Section<'_, '_>,
    names: &PeerNames<'_>,
    findings: &Findings<'_>,
) -> Vec<PolicyTest> {
    let sections = root.list_of_tables("tests");
    sections.iter().map(|section| read_test(section, names, findings)).collect()
}

fn read_test(section: &Section<'_, '_>, names: &PeerNames<'_>, findings: &Findings<'_>) -> PolicyTest {
    section.check_keys(PolicyTest::KEYS);
    let to = read_servers(section, names, findings);
    let about_services = section.entry("to").is_some();
    let from = read_from(section, names, about_services);
    let direction = if about_services { Direction::In } else { Direction::Out };
    let needs = |key| read_tested_needs(section, key, direction, names);
    let (accept, deny) = (needs("accept"), needs("deny"));
    PolicyTest {
        place: section.place(&section.span),
        from,
        to,
        accept,
        deny,
        reason: read_reason(section, findings),
        only: section.boolean("only").is_some_and(|(only, _)| only),
    }
}

/// The texts of a key that has one or several, each once.
fn read_list<'d>(section: &Section<'d, '_>, entry: &Entry<'d>) -> Vec<Text<'d>> {
    let (texts, complete) = section.one_or_more(entry).unwrap_or_default();
    if texts.is_empty() && complete {
        let message = format!("`{}` names nobody", entry.key);
        section
            .add(Finding::new(entry.key_span.clone(), message).with_help("name somebody, or remove the key"));
    }
    texts
}

/// `to`: servers.
fn read_servers(section: &Section<'_, '_>, names: &PeerNames<'_>, findings: &Findings<'_>) -> Vec<Peer> {
    let Some(entry) = section.entry("to") else {
        return Vec::new();
    };
    let mut servers = Vec::new();
    for text in read_list(section, &entry) {
        if let Some(addresses) = names.servers.get(text.value) {
            servers.push(Peer::Server(text.value.to_owned(), addresses.clone()));
            continue;
        }
        let help = findings.suggest(text.value, names.servers.keys().copied());
        let help = help.unwrap_or_else(|| {
            "`to` names the server whose services the test is about; without `to`, write the peer into the need: \
             \"tcp/443 to 198.51.100.1\""
                .to_owned()
        });
        let origin = FindingOrigin::Undefined { table: "servers", name: text.value.to_owned() };
        let finding = Finding::new(text.span, format!("no server is called `{}`", text.value));
        section.add(finding.with_help(help).with_origin(origin));
    }
    servers
}

/// `from`: servers and addresses, or the peers of a test about services.
fn read_from(section: &Section<'_, '_>, names: &PeerNames<'_>, about_services: bool) -> Vec<Peer> {
    let Some(entry) = section.entry("from") else {
        if !about_services {
            section.miss("from", "name a server, as in: from = \"web1\"");
        }
        return Vec::new();
    };
    let mut peers: Vec<Peer> = Vec::new();
    for text in read_list(section, &entry) {
        let peer = read_peer_name(text.value, names, &mut |finding| {
            section.add(Finding { span: text.part(finding.span.clone()), ..finding });
        });
        let Some(peer) = peer else {
            continue;
        };
        let is_many = match &peer {
            Peer::Prefix(prefix) => prefix.prefix_len() < prefix.max_prefix_len(),
            Peer::Set(_) => true,
            Peer::Server(..) | Peer::Name(_) => false,
        };
        if is_many && !about_services {
            let message = format!("`{}` is no server and no single address", text.value);
            let help =
                "a prefix or a set can be the peers of a test about services: with `to`, name a server";
            section.refuse(&text, Mistake::new(0..text.value.len(), message).with_help(help));
        } else if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers
}

/// `accept` or `deny`.
fn read_tested_needs(
    section: &Section<'_, '_>,
    key: &str,
    direction: Direction,
    names: &PeerNames<'_>,
) -> Vec<Need> {
    let needs = read_needs(section, key, direction, names).unwrap_or_default();
    needs.into_iter().filter(|need| is_testable(section, need)).collect()
}

/// Refuses what no single packet can have.
fn is_testable(section: &Section<'_, '_>, need: &Need) -> bool {
    let mut is_testable = true;
    let mut refuse = |message: String, help: &str| {
        is_testable = false;
        section.add(Finding::new(need.place.start..need.place.end, message).with_help(help));
    };
    if need.limit.is_some() {
        refuse(format!("`{need}` has a limit, and a test is about one packet"), "remove `limit`");
    }
    if need.direction == Direction::In && !need.peers.is_empty() {
        refuse(
            format!("`{need}` names a peer, which is the `from` of its test"),
            "write the peer as `from`, and the need without it",
        );
    }
    let asks = || need.ports.clone().any(|kind| find_icmp_answer(need.protocol, kind).is_some());
    if need.direction == Direction::In && is_icmp(need.protocol) && !asks() {
        refuse(
            format!("`{need}` asks nothing, so a server does not answer it"),
            "test a request, as in icmp/echo-request",
        );
    }
    is_testable
}

fn read_reason(section: &Section<'_, '_>, findings: &Findings<'_>) -> Option<Reason> {
    let text = section.text("reason")?;
    let words = || REASONS.iter().filter(|reason| reason.drops()).map(|reason| reason.name());
    let refuse = |message: String, help: String| {
        section.refuse(&text, Mistake::new(0..text.value.len(), message).with_help(help));
        None
    };
    match Reason::from_name(text.value) {
        Some(reason) if reason.drops() => {
            if section.entry("deny").is_none() {
                let help = "add what must be dropped for it: deny = [\"tcp/80\"]";
                return refuse(
                    "`reason` is that of `deny`, and this test has none".to_owned(),
                    help.to_owned(),
                );
            }
            Some(reason)
        }
        Some(reason) => refuse(
            format!("`reason` can't be `{reason}`: packets pass for it"),
            "write the reason for which `deny` is dropped, or remove the key".to_owned(),
        ),
        None => {
            let help = findings.suggest(text.value, words());
            let help =
                help.unwrap_or_else(|| format!("the reasons are {}", words().collect::<Vec<_>>().join(", ")));
            refuse(format!("`reason` can't be `{}`", text.value), help)
        }
    }
}
