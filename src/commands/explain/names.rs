//! What `explain` says of names: who was answered which address, or that nobody was.

use std::net::IpAddr;

use anyhow::bail;
use jiff::Timestamp;

use super::asked::{AskedPacket, Explanation, find_server};
use crate::abi::Reason;
use crate::clock::{show_roughly, wall_now};
use crate::compile::Tables;
use crate::gate::{Grant, GrantOrigin, Verdict};
use crate::net::DomainName;
use crate::policy::{Direction, Need, Policy, Server};

/// A sentence, and the grant that it is about.
pub(super) struct Found {
    pub(super) sentence: String,
    pub(super) grant: Option<Grant>,
}

/// The name that a text stands for. `None`: it is an address, a server, or no name at all.
pub(super) fn read(text: &str, policy: &Policy) -> Option<DomainName> {
    let is_other = text.parse::<IpAddr>().is_ok() || policy.find_server(text).is_some();
    DomainName::parse(text).ok().filter(|_| !is_other)
}

/// The addresses that a name of the policy was seen to have, for a server: those that are open first, then those
/// of the latest answers.
pub(super) fn list_addresses(
    name: &DomainName,
    server: Option<&Server>,
    policy: &Policy,
    grants: &[Grant],
) -> anyhow::Result<Vec<IpAddr>> {
    let names = policy.needed_names();
    if !names.contains(name) {
        match names.iter().find(|wider| name.is_within(wider)) {
            Some(wider) => bail!(
                "the policy has `{name}` only as one of `{wider}`, and a grant does not say which of these it is\n\
                 help: write --to '{wider}', or an address as `portcullis show names` lists it"
            ),
            None => bail!("no need of the policy has the name `{name}`\nhelp: give an address with --to"),
        }
    }
    let Some(server) = server else {
        bail!("a name has addresses for servers, and --from is none\nhelp: give a server with --from");
    };
    let now = wall_now();
    let is_its = |grant: &&Grant| grant.name.is_within(name) && grant.is_for(&server.name);
    let mut found: Vec<&Grant> = grants.iter().filter(is_its).collect();
    found.sort_by_key(|grant| std::cmp::Reverse((grant.is_open(now), grant.answered)));
    if found.is_empty() {
        bail!(
            "nobody answered {} an address of {name}, so there is no packet to ask about\n\
             help: its addresses are open as soon as it has looked the name up; or give one with --to",
            server.name
        );
    }
    Ok(found.iter().map(|grant| grant.address).collect())
}

/// What names have to do with a verdict. `None`: nothing.
pub(super) fn find(
    question: &AskedPacket,
    explanation: &Explanation,
    policy: &Policy,
    tables: &Tables,
    grants: &[Grant],
) -> Option<Found> {
    let server = find_server(policy, tables, question.probe.source).filter(|_| !question.answer)?;
    let needs = list_needs(server, question, policy);
    let names: Vec<DomainName> = needs.iter().flat_map(|need| need.resolve_names(&policy.sets)).collect();
    let address = question.probe.destination;
    let is_listed = || {
        let prefixes = needs.iter().flat_map(|need| need.resolve_peers(&policy.sets));
        prefixes.into_iter().any(|prefix| prefix.contains(&address))
            || needs.iter().any(|need| need.peers.is_empty())
    };
    if names.is_empty() || is_listed() {
        return None;
    }
    let is_its = |grant: &&Grant| grant.address == address && grant.is_for(&server.name);
    let its: Vec<&Grant> = grants.iter().filter(is_its).collect();
    let has_name = |grant: &&&Grant| names.iter().any(|name| grant.name.is_within(name));
    let latest = its.iter().filter(has_name).max_by_key(|grant| grant.until).copied();
    let say = |sentence: String, grant: Option<&Grant>| Some(Found { sentence, grant: grant.cloned() });
    let now = wall_now();
    let what = format!("{}/{}", crate::net::name_protocol(question.protocol), question.port);
    match (explanation.verdict, explanation.reason) {
        (Verdict::Pass, Some(Reason::Need | Reason::OwnConnection)) => {
            let grant = latest?;
            say(describe_grant(grant, &server.name, now), Some(grant))
        }
        (Verdict::Drop | Verdict::WouldDrop, Some(Reason::NoFlow)) => {
            say(format!("{} has no connection to {address} that a name has opened", server.name), latest)
        }
        (Verdict::Drop | Verdict::WouldDrop, Some(Reason::Destination)) => match (latest, its.first()) {
            (Some(grant), _) => say(describe_grant(grant, &server.name, now), Some(grant)),
            (None, Some(other)) => say(
                format!(
                    "{} was answered {address} for {} alone, and no need for {what} has that name",
                    server.name, other.name
                ),
                Some(other),
            ),
            (None, None) => say(format!("nobody answered that address to {}", server.name), None),
        },
        _ => None,
    }
}

/// The `out` needs of a server for what is asked.
fn list_needs<'p>(server: &Server, question: &AskedPacket, policy: &'p Policy) -> Vec<&'p Need> {
    let roles = server.roles.iter().filter_map(|(name, _)| policy.find_role(name));
    let needs = roles.flat_map(|role| role.needs_of(Direction::Out));
    let covers = |need: &&Need| need.protocol == question.protocol && need.ports.contains(&question.port);
    needs.filter(covers).collect()
}

/// `web1 was answered 203.0.113.80 for deb.vendor.example 40 s ago, open for 4 min more`.
fn describe_grant(grant: &Grant, server: &str, now: Timestamp) -> String {
    let since = |from: Timestamp, to: Timestamp| {
        show_roughly(u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0))
    };
    let who = match grant.from {
        GrantOrigin::Answer | GrantOrigin::Saved => server,
        GrantOrigin::Daemon => "the daemon",
        GrantOrigin::Forwarded => "a server that forwards",
    };
    let state = match grant.is_open(now) {
        true => format!("open for {} more", since(now, grant.until)),
        false => format!("over for {}", since(grant.until, now)),
    };
    format!(
        "{who} was answered {} for {} {} ago, {state}",
        grant.address,
        grant.name,
        since(grant.answered, now)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    fn grant(from: GrantOrigin, answered_s: i64, until_s: i64) -> Grant {
        let at = |seconds: i64| now() + jiff::SignedDuration::from_secs(seconds);
        Grant {
            server: Some("web1".into()),
            name: DomainName::from_printed("deb.vendor.example"),
            address: "203.0.113.80".parse().unwrap(),
            from,
            answered: at(-answered_s),
            until: at(until_s),
            last_used: None,
        }
    }

    #[test]
    fn a_grant_says_who_was_answered_when_and_until_when_it_is_open() {
        for (grant, sentence) in [
            (
                grant(GrantOrigin::Answer, 40, 270),
                "web1 was answered 203.0.113.80 for deb.vendor.example 40 s ago, open for 4 min more",
            ),
            (
                grant(GrantOrigin::Daemon, 40, 270),
                "the daemon was answered 203.0.113.80 for deb.vendor.example 40 s ago, open for 4 min more",
            ),
            (
                grant(GrantOrigin::Answer, 9_000, -600),
                "web1 was answered 203.0.113.80 for deb.vendor.example 2 h ago, over for 10 min",
            ),
        ] {
            assert_eq!(describe_grant(&grant, "web1", now()), sentence);
        }
    }

    #[test]
    fn a_name_is_no_address_and_no_server() {
        let text = "[servers.\"a.b.example\"]\naddresses = [\"192.0.2.1\"]\n";
        let policy = crate::policy::parse(text, "p.toml").unwrap();
        for (text, is_name) in [
            ("a.b.example", false),
            ("c.b.example", true),
            ("*.b.example", true),
            ("192.0.2.1", false),
            ("web", false),
        ] {
            assert_eq!(read(text, &policy).is_some(), is_name, "{text}");
        }
    }
}
