//! Doubts: parts of a valid policy that nobody can have meant. `check` warns of them, and nothing is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::diagnostic::{Diagnostic, Finding, Source};
use super::name_doubts::find_name_doubts;
use crate::net::DomainName;

use super::model::{Direction, Families, Handover, Location, Need, Peer, Policy, PolicyTest, Role, Tracking};

/// The doubts of a policy, sorted by their places.
pub fn find_doubts(policy: &Policy) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    findings.extend(find_roles_of_nobody(policy));
    findings.extend(find_sets_of_nobody(policy));
    for role in &policy.roles {
        for direction in Direction::ALL {
            findings.extend(find_useless_needs(policy, role, direction));
        }
    }
    findings.extend(find_missing_management(policy));
    findings.extend(find_vain_handover(policy));
    findings.extend(find_mute_servers(policy));
    findings.extend(find_name_doubts(policy));
    findings.extend(policy.tests.iter().flat_map(|test| find_void_parts(policy, test)));
    let source = Source::new(&policy.file, &policy.text);
    source.render_all(findings)
}

fn at(place: &Location, message: String) -> Finding {
    Finding::new(place.start..place.end, message)
}

fn find_roles_of_nobody(policy: &Policy) -> impl Iterator<Item = Finding> {
    let taken: BTreeSet<&str> =
        policy.servers.iter().flat_map(|server| &server.roles).map(|(name, _)| name.as_str()).collect();
    policy.roles.iter().filter(move |role| !taken.contains(role.name.as_str())).map(|role| {
        at(&role.place, format!("no server has the role `{}`", role.name))
            .with_help("give it to a server, or leave it out")
    })
}

fn find_sets_of_nobody(policy: &Policy) -> impl Iterator<Item = Finding> {
    let needs = policy.roles.iter().flat_map(Role::needs).chain(&policy.settings.management);
    let tested = policy.tests.iter().flat_map(PolicyTest::needs);
    let mut named: BTreeSet<&str> = needs.chain(tested).flat_map(Need::set_names).collect();
    named.extend(policy.tests.iter().flat_map(|test| &test.from).filter_map(|peer| match peer {
        Peer::Set(name) => Some(name.as_str()),
        Peer::Prefix(_) | Peer::Server(..) | Peer::Name(_) => None,
    }));
    named.extend(policy.names.resolvers.iter().filter_map(|text| text.strip_prefix('@')));
    policy.sets.values().filter(move |set| !named.contains(set.name.as_str())).map(|set| {
        at(&set.place, format!("no need names the set `@{}`", set.name))
            .with_help(format!("write `to @{0}` or `from @{0}` in a need, or leave the set out", set.name))
    })
}

/// The peers of a need: prefixes and names.
type Peers = (Vec<IpNet>, Vec<DomainName>);

/// Needs of a role that permit nothing beyond another need of it.
fn find_useless_needs(policy: &Policy, role: &Role, direction: Direction) -> Vec<Finding> {
    let needs = role.needs_of(direction);
    let resolve = |need: &Need| (need.resolve_peers(&policy.sets), need.resolve_names(&policy.sets));
    let peers: BTreeMap<usize, Peers> =
        needs.iter().enumerate().map(|(index, need)| (index, resolve(need))).collect();
    let covers = |wide: usize, narrow: usize| {
        let (Some(a), Some(b)) = (needs.get(wide), needs.get(narrow)) else {
            return false;
        };
        is_wider(a, b) && has_all(peers.get(&wide), peers.get(&narrow))
    };
    let mut findings = Vec::new();
    for (narrow, need) in needs.iter().enumerate() {
        // of two that say the same, the later one
        let wide = (0..needs.len()).find(|wide| {
            *wide != narrow && covers(*wide, narrow) && (*wide < narrow || !covers(narrow, *wide))
        });
        if let Some(wide) = wide.and_then(|wide| needs.get(wide)) {
            findings.push(
                at(
                    &need.place,
                    format!("`{need}` changes nothing: `{wide}` in line {} has it", wide.place.line),
                )
                .with_help("leave one of the two out"),
            );
        }
    }
    findings
}

/// Whether the first need permits all that the second does, peers aside.
fn is_wider(wide: &Need, narrow: &Need) -> bool {
    // No `..`, so that a new clause does not compile until it is compared.
    let Need { direction: _, protocol, ports, peers: _, sport, limit, place: _ } = wide;
    let spans = |outer: &RangeInclusive<u16>, inner: &RangeInclusive<u16>| {
        outer.start() <= inner.start() && inner.end() <= outer.end()
    };
    let has_sport = match (sport, &narrow.sport) {
        (None, _) => true,
        (Some(outer), Some(inner)) => spans(outer, inner),
        (Some(_), None) => false,
    };
    // two limits count apart, so only the same need said twice is useless beside one with a limit
    let has_room = match limit {
        None => true,
        Some(_) => *limit == narrow.limit && *ports == narrow.ports && *sport == narrow.sport,
    };
    *protocol == narrow.protocol && spans(ports, &narrow.ports) && has_sport && has_room
}

/// Whether each of the second's peers is one of the first's. No list at all is everybody.
fn has_all(wide: Option<&Peers>, narrow: Option<&Peers>) -> bool {
    let is_everybody = |peers: &Peers| peers.0.is_empty() && peers.1.is_empty();
    match (wide, narrow) {
        (Some(wide), _) if is_everybody(wide) => true,
        (Some(wide), Some(narrow)) => {
            !is_everybody(narrow)
                && narrow.0.iter().all(|inner| wide.0.iter().any(|outer| outer.contains(inner)))
                && narrow.1.iter().all(|inner| wide.1.iter().any(|outer| inner.is_within(outer)))
        }
        _ => false,
    }
}

fn find_missing_management(policy: &Policy) -> Option<Finding> {
    policy.settings.management.is_empty().then(|| {
        Finding::new(0..0, "there is no `management`: nobody can reach a server that is in quarantine").with_help(
            "write the services by which you manage the servers, as management = [\"tcp/22 from 203.0.113.7\"] in \
             [policy]",
        )
    })
}

/// A handover that does nothing, or that `pickup` makes less exact than it is.
fn find_vain_handover(policy: &Policy) -> Option<Finding> {
    let settings = &policy.settings;
    let place = settings.handover.place?;
    if settings.handover.value == Handover::None {
        return None;
    }
    if settings.tracking.value == Tracking::Service {
        let message = "`handover` does nothing with tracking = \"service\"".to_owned();
        return Some(
            at(&place, message).with_help("leave it out: every answer of an `in` service passes anyway"),
        );
    }
    let pickup = settings.pickup_s.place.filter(|_| settings.pickup_s.value > 0)?;
    let message = format!(
        "for {} s after attach, `pickup` takes over flows that conntrack does not know",
        settings.pickup_s.value
    );
    Some(
        at(&pickup, message).with_help("with `handover` it is not needed where conntrack tracks: pickup = 0"),
    )
}

fn find_mute_servers(policy: &Policy) -> impl Iterator<Item = Finding> {
    let is_managed = !policy.settings.management.is_empty();
    policy
        .servers
        .iter()
        .filter(move |server| {
            let mut roles = server.roles.iter().filter_map(|(name, _)| policy.find_role(name));
            !is_managed && roles.all(|role| role.inbound.is_empty() && role.outbound.is_empty())
        })
        .map(|server| {
            at(
                &server.place,
                format!("`{}` can talk to nobody: it has no role with `in` or `out`", server.name),
            )
            .with_help("give it a role, or leave the server out: an address of no server is dropped as well")
        })
}

/// Parts of a test for which there is no packet.
fn find_void_parts(policy: &Policy, test: &PolicyTest) -> Vec<Finding> {
    if test.needs().next().is_none() && !test.only {
        let finding = at(&test.place, "this test tests nothing".to_owned());
        return vec![finding.with_help("add `accept`, `deny` or `only = true`, or leave it out")];
    }
    let families = |peers: &[Peer]| match peers {
        [] => Families::BOTH,
        peers => Families::of(&peers.iter().flat_map(|peer| policy.resolve_peer(peer)).collect::<Vec<_>>()),
    };
    let both = families(&test.from).and(families(&test.to));
    let mut findings = Vec::new();
    for need in test.needs() {
        // a name may have addresses of both
        let is_open = need.peers.is_empty() || !need.resolve_names(&policy.sets).is_empty();
        let peers = if is_open { Families::BOTH } else { families(&need.peers) };
        if both.and(peers).and(Families::of_protocol(need.protocol)).is_none() {
            let message = format!("`{need}` tests nothing: there is no such packet of {}", test.subject());
            let help = "the addresses at both ends need a family in common, and icmp is IPv4, icmpv6 is IPv6";
            findings.push(at(&need.place, message).with_help(help));
        }
    }
    findings
}
