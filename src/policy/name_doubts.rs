//! Doubts about names as destinations: parts of a valid policy that are hardly meant, or that weaken it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::diagnostic::Finding;
use super::model::{Direction, Need, Peer, Policy, Role};
use crate::net::{DomainName, UDP};

const DNS: u16 = 53;

/// The doubts about `[names]` and what uses it.
pub(super) fn find_name_doubts(policy: &Policy) -> Vec<Finding> {
    let mut findings: Vec<Finding> = find_ambiguous_servers(policy).collect();
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
    policy.resolvers().into_iter().filter(move |resolver| !is_reached(resolver)).map(|resolver| {
        Finding::new(0..0, format!("no server may ask the resolver {resolver}"))
            .with_help(format!("give a role the need \"udp/53 to {resolver}\", or leave the resolver out"))
    })
}

/// A server whose name could be a DNS name as well, in a need.
fn find_ambiguous_servers(policy: &Policy) -> impl Iterator<Item = Finding> + '_ {
    let mut told = BTreeSet::new();
    let needs = policy.roles.iter().flat_map(Role::needs);
    needs.filter_map(move |need| {
        let is_both = |peer: &&Peer| matches!(peer, Peer::Server(name, _) if DomainName::parse(name).is_ok());
        let server = need.peers.iter().find(is_both)?.to_string();
        told.insert(server.clone()).then(|| {
            let message = format!("`{server}` is a server of this policy, and could be a DNS name too");
            Finding::new(need.place.start..need.place.end, message)
                .with_help("it is taken for the server: give that one a name without dots")
        })
    })
}
