//! The needs of all servers that have the same roles: rows 9 to 18 of docs/verdicts.md.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::ends::{REFUSE, REFUSE_QUIETLY, write_chain};
use super::names::{cite, quote};
use super::needs::{families_of, name_answer, name_flow, name_opening, name_peers};
use super::sets::{Family, Sets};
use crate::net::TCP;
use crate::policy::{Direction, Need, Policy, Server, Tracking};

/// Servers by their roles.
pub(super) struct Groups {
    numbers: BTreeMap<Vec<String>, usize>,
}

fn roles_of(server: &Server) -> Vec<String> {
    let roles: BTreeSet<String> = server.roles.iter().map(|(role, _)| role.clone()).collect();
    roles.into_iter().collect()
}

/// Numbers the sets of roles in the order of the file.
pub(super) fn group_servers(policy: &Policy) -> Groups {
    let mut numbers = BTreeMap::new();
    for server in &policy.servers {
        let next = numbers.len() + 1;
        numbers.entry(roles_of(server)).or_insert(next);
    }
    Groups { numbers }
}

impl Groups {
    /// The chain of a server's needs.
    pub(super) fn chain_of(&self, server: &Server) -> String {
        format!("profile_{}", self.numbers.get(&roles_of(server)).copied().unwrap_or_default())
    }
}

/// Writes the chains of all sets of roles.
pub(super) fn write_profiles(policy: &Policy, sets: &mut Sets<'_>, out: &mut String) {
    let groups = group_servers(policy);
    let mut limits = Limits::new(policy);
    let mut all: Vec<(&Vec<String>, &usize)> = groups.numbers.iter().collect();
    all.sort_by_key(|(_, number)| **number);
    for (roles, number) in all {
        Profile { policy, roles, number: *number }.write(&mut limits, sets, out);
    }
    write_stray(out);
}

/// The limits that were defined so far, by the need's words: a need that two roles have counts once.
struct Limits {
    servers: HashMap<String, BTreeSet<String>>,
    asked: HashMap<String, Vec<(Family, String)>>,
}

impl Limits {
    fn new(policy: &Policy) -> Self {
        let mut servers: HashMap<String, BTreeSet<String>> = HashMap::new();
        for server in &policy.servers {
            let roles = server.roles.iter().filter_map(|(role, _)| policy.find_role(role));
            for need in roles.flat_map(|role| &role.outbound).filter(|need| need.limit.is_some()) {
                servers.entry(need.to_string()).or_default().insert(server.name.clone());
            }
        }
        Self { servers, asked: HashMap::new() }
    }

    fn ask(&mut self, need: &Need, sets: &mut Sets<'_>) -> Vec<(Family, String)> {
        let words = need.to_string();
        if let Some(asks) = self.asked.get(&words) {
            return asks.clone();
        }
        let servers = self.servers.remove(&words).unwrap_or_default();
        let asks = sets.define_limits(self.asked.len() + 1, need, &servers);
        self.asked.insert(words, asks.clone());
        asks
    }
}

struct Profile<'p> {
    policy: &'p Policy,
    roles: &'p [String],
    number: usize,
}

impl<'p> Profile<'p> {
    /// The needs of one direction, each once, the best one first: without a limit, then by the rate and the burst.
    fn list_needs(&self, direction: Direction) -> Vec<&'p Need> {
        let roles = self.roles.iter().filter_map(|role| self.policy.find_role(role));
        let mut needs: Vec<&Need> = roles.flat_map(|role| role.needs_of(direction)).collect();
        if direction == Direction::In {
            needs.extend(&self.policy.settings.management);
        }
        needs.sort_by_key(|need| {
            let rate = need.limit.map_or((u64::MAX, u32::MAX), |limit| (limit.per_minute(), limit.count));
            (std::cmp::Reverse(rate), need.place.start)
        });
        let mut known = HashSet::new();
        needs.retain(|need| known.insert(need.to_string()));
        needs
    }

    fn cite(&self, need: &Need) -> String {
        cite(self.policy, &need.place, &need.to_string())
    }

    fn write(&self, limits: &mut Limits, sets: &mut Sets<'_>, out: &mut String) {
        let [services, needs, quiet] = Direction::ALL.map(|direction| self.list_needs(direction));
        let strict = self.policy.settings.tracking.value == Tracking::Strict;
        let number = self.number;
        let mut rules = Vec::new();

        let answers = self.list_answers(&services, sets);
        if !answers.is_empty() {
            let flow = if strict { "ct state established ct direction reply " } else { "" };
            rules.push(format!("{flow}jump answers_{number}"));
            let all = [vec!["tcp flags & (syn | ack) == syn return".to_owned()], answers].concat();
            write_chain(&format!("answers_{number}"), "9: reply", &all, out);
        }
        if strict && needs.iter().any(|need| need.protocol == TCP) {
            // to conntrack a SYN+ACK with URG is in no flow, so it could be one of these
            for what in [
                "tcp flags & (syn | ack) == syn | ack ct direction reply",
                "tcp flags & (syn | ack | urg) == syn | ack | urg",
            ] {
                rules.push(format!("{what} counter goto {REFUSE}{}", quote("13: unlisted_service")));
            }
        }
        for need in &needs {
            rules.extend(self.list_opening(need, limits, sets));
        }
        let errors = self.list_errors(&services, &needs, sets);
        if !errors.is_empty() {
            rules.push(format!("meta l4proto {{ 1, 58 }} ct state related jump errors_{number}"));
            write_chain(&format!("errors_{number}"), "12: flow_error", &errors, out);
        }
        for need in &quiet {
            for peers in name_peers(need, "daddr", sets) {
                let what = name_opening(need);
                rules.push(format!("{what}{peers} counter goto {REFUSE_QUIETLY}{}", self.cite(need)));
            }
        }
        rules.push("goto stray".to_owned());
        let roles = match self.roles {
            [] => "no role".to_owned(),
            roles => roles.join(", "),
        };
        write_chain(&format!("profile_{number}"), &roles, &rules, out);
    }

    /// Row 9: answers of services. A bare SYN is never one.
    fn list_answers(&self, services: &[&Need], sets: &mut Sets<'_>) -> Vec<String> {
        let mut rules = Vec::new();
        for need in services {
            let Some(answer) = name_answer(need) else {
                continue;
            };
            for peers in name_peers(need, "daddr", sets) {
                rules.push(format!("{answer}{peers} accept{}", self.cite(need)));
            }
        }
        rules
    }

    /// Rows 10 and 11: what an `out` need permits. A limit counts openings alone.
    fn list_opening(&self, need: &Need, limits: &mut Limits, sets: &mut Sets<'_>) -> Vec<String> {
        let (what, cited) = (name_opening(need), self.cite(need));
        let mut rules = Vec::new();
        for peers in name_peers(need, "daddr", sets) {
            if need.limit.is_none() {
                rules.push(format!("{what}{peers} accept{cited}"));
                continue;
            }
            if need.protocol == TCP {
                rules.push(format!("{what}{peers} tcp flags & (syn | ack) != syn accept{cited}"));
            }
            for (family, ask) in limits.ask(need, sets) {
                let is_of = |other: &Family| peers.starts_with(&format!(" {} ", other.header()));
                let others = || Family::ALL.iter().filter(|other| **other != family);
                if !families_of(need).contains(&family) || others().any(is_of) {
                    continue;
                }
                rules.push(format!("{what}{peers} {ask} accept{cited}"));
            }
        }
        rules
    }

    /// Row 12: errors about flows of both. conntrack knows the flow by its first packet.
    fn list_errors(&self, services: &[&Need], needs: &[&Need], sets: &mut Sets<'_>) -> Vec<String> {
        let mut rules = BTreeSet::new();
        for need in services.iter().filter(|need| name_answer(need).is_some()) {
            for flow in name_flow(need, "saddr", sets) {
                rules.insert(format!("ct direction reply {flow} accept"));
            }
        }
        for need in needs {
            for flow in name_flow(need, "daddr", sets) {
                rules.insert(format!("ct direction original {flow} accept"));
            }
        }
        rules.into_iter().collect()
    }
}

/// Rows 13 to 18. What a healthy server answers to noise is not logged.
fn write_stray(out: &mut String) {
    let quietly = |what: &str| format!("{what} counter goto {REFUSE_QUIETLY}{}", quote("14: backscatter"));
    let rules = [
        quietly("tcp flags & rst == rst"),
        quietly("icmp type { 0, 3, 4, 11, 12, 14, 16, 18 }"),
        quietly("icmpv6 type { 1-4, 129 }"),
        format!("counter goto {REFUSE}{}", quote("13 to 18: outside the needs")),
    ];
    write_chain("stray", "13 to 18", &rules, out);
}
