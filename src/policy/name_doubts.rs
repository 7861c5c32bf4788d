//! Doubts about names as destinations: parts of a valid policy that are hardly meant, or that weaken it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostic::Finding;
use super::model::{Direction, Location, Need, Peer, Policy, Questions, Role, Server};
use crate::net::{DomainName, TCP, UDP, name_protocol};

const DNS: u16 = 53;

/// The doubts about `[names]` and what uses it.
pub(super) fn find_name_doubts(policy: &Policy) -> Vec<Finding> {
    let mut findings: Vec<Finding> = find_ambiguous_servers(policy).collect();
    findings.extend(find_ways_around(policy));
    if policy.needed_names().is_empty() {
        return findings;
    }
    findings.extend(find_unreached_resolvers(policy));
    if let Some(place) = policy.names.forgeable.place.filter(|_| policy.names.forgeable.value) {
        findings.push(
            Finding::new(
                place.start..place.end,
                "with forgeable = true an accomplice outside can open any address by a forged answer",
            )
            .with_help("run a resolver on the router, and name it alone"),
        );
    }
    findings
}

/// What weakens `dns = "named"`, or makes it useless.
fn find_ways_around(policy: &Policy) -> Vec<Finding> {
    let strict: Vec<&Server> =
        policy.servers.iter().filter(|server| policy.questions_of(server) == Questions::Named).collect();
    if strict.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let at = |place: &Location, message: String| Finding::new(place.start..place.end, message);
    let is_strict = |role: &&Role| role.dns.is_some_and(|(questions, _)| questions == Questions::Named);
    if let Some((_, place)) = policy.roles.iter().find(is_strict).and_then(|role| role.dns)
        && policy.needed_names().is_empty()
    {
        let message = "no need of this policy has a name, so every question is dropped".to_owned();
        findings.push(
            at(&place, message).with_help("give a need a name, like \"tcp/443 to deb.vendor.example\""),
        );
    }
    let resolvers = policy.resolvers();
    let asks = |need: &&Need| [TCP, UDP].contains(&need.protocol) && need.ports.contains(&DNS);
    let leads_around = |need: &&Need| {
        let peers = need.resolve_peers(&policy.sets);
        let is_resolver = |prefix: &IpNet| {
            prefix.prefix_len() == prefix.max_prefix_len() && resolvers.contains(&prefix.addr())
        };
        !peers.iter().all(is_resolver) || peers.is_empty() || !need.resolve_names(&policy.sets).is_empty()
    };
    let mut reported = BTreeSet::new();
    for server in strict {
        let roles = server.roles.iter().filter_map(|(name, _)| policy.find_role(name));
        let needs = roles.flat_map(|role| role.needs_of(Direction::Out)).filter(asks);
        for need in needs.filter(leads_around).filter(|need| reported.insert(need.place.start)) {
            let message = format!(
                "by this need `{}` may ask others than the resolvers, and that for anything",
                server.name
            );
            findings.push(at(&need.place, message).with_help(format!(
                "write the resolvers behind it: \"{}/53 to ...\"",
                name_protocol(need.protocol)
            )));
        }
    }
    if let Some(need) = policy.settings.link_services.0.iter().find(asks) {
        let message =
            "by this service a server may ask the router's link-local address for anything".to_owned();
        findings.push(
            at(&need.place, message)
                .with_help("leave it out, or give the servers their resolvers' addresses"),
        );
    }
    findings
}

fn find_unreached_resolvers(policy: &Policy) -> impl Iterator<Item = Finding> + '_ {
    let asks = |need: &&Need| need.protocol == UDP && need.ports.contains(&DNS);
    let needs: Vec<&Need> =
        policy.roles.iter().flat_map(|role| role.needs_of(Direction::Out)).filter(asks).collect();
    let is_reached = move |resolver: &IpAddr| {
        needs.iter().any(|need| {
            let peers = need.resolve_peers(&policy.sets);
            peers.iter().any(|prefix| prefix.contains(resolver))
                || peers.is_empty() && need.resolve_names(&policy.sets).is_empty()
        })
    };
    let unreached = policy.placed_resolvers().into_iter().filter(move |(resolver, _)| !is_reached(resolver));
    unreached.map(|(resolver, place)| {
        Finding::new(place.start..place.end, format!("no server may ask the resolver {resolver}"))
            .with_help(format!("give a role the need \"udp/53 to {resolver}\", or leave the resolver out"))
    })
}

/// A server whose name could be a DNS name as well, in a need.
fn find_ambiguous_servers(policy: &Policy) -> impl Iterator<Item = Finding> + '_ {
    let mut reported = BTreeSet::new();
    let needs = policy.roles.iter().flat_map(Role::needs);
    needs.filter_map(move |need| {
        let is_both = |peer: &&Peer| matches!(peer, Peer::Server(name, _) if DomainName::parse(name).is_ok());
        let server = need.peers.iter().find(is_both)?.to_string();
        reported.insert(server.clone()).then(|| {
            let message = format!("`{server}` is a server of this policy, and could be a DNS name too");
            Finding::new(need.place.start..need.place.end, message)
                .with_help("it is taken for the server: give that one a name without dots")
        })
    })
}
