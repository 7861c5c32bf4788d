//! The permissions of each server, for people and for tools.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};

use ipnet::IpNet;
use serde::Serialize;

use super::model::{
    Alarms, Direction, Handover, Keyword, Location, Need, Policy, PolicyTest, Questions, Response, Role,
    Router, Server, Set, Settings, Value,
};
use crate::net::{show_mac, show_prefix};

/// A policy in the words of its file, with each server's roles resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The file as the user named it.
    pub file: String,
    /// The keys of `[policy]`.
    #[serde(flatten)]
    pub settings: BTreeMap<&'static str, Value>,
    /// Sets by name.
    pub sets: Vec<SetSummary>,
    /// Routers in the order of the file.
    pub routers: Vec<RouterSummary>,
    /// Servers in the order of the file.
    pub servers: Vec<ServerSummary>,
    /// Tests in the order of the file.
    pub tests: Vec<TestSummary>,
    /// The keys of `[alarms]`.
    pub alarms: BTreeMap<&'static str, Value>,
    /// `[alarms.severity]`: severities by server, kind or `SERVER/KIND`.
    pub severities: Vec<SeveritySummary>,
}

/// One line of `[alarms.severity]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeveritySummary {
    /// A server, a kind, or `SERVER/KIND`.
    pub of: String,
    /// The severity.
    pub severity: &'static str,
}

/// How much [`describe`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Servers with the same permissions together, and the beginnings of long lists.
    Brief,
    /// Each server with its addresses, and each member of a set.
    Full,
}

/// Names and members that a brief description shows of a list.
const BRIEF_ITEMS: usize = 6;

/// A set of peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetSummary {
    /// Its name, without `@`.
    pub name: String,
    /// Addresses and prefixes.
    pub members: Vec<String>,
}

/// A neighbour on the link that routes too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouterSummary {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its MACs.
    pub macs: Vec<String>,
}

/// What the policy must let pass, and what it must not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestSummary {
    /// Servers, addresses or peers that open.
    pub from: Vec<String>,
    /// Servers on which they open.
    pub to: Vec<String>,
    /// What must pass.
    pub accept: Vec<String>,
    /// What must be dropped.
    pub deny: Vec<String>,
    /// The reason for which `deny` must be dropped.
    pub reason: Option<&'static str>,
    /// Nothing else than `accept` may be open.
    pub only: bool,
}

/// The permissions of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerSummary {
    /// Its name.
    pub name: String,
    /// Addresses and prefixes.
    pub addresses: Vec<String>,
    /// The first MAC that may use them.
    pub mac: Option<String>,
    /// All MACs that may use them.
    pub macs: Vec<String>,
    /// The only VLAN in which they may be used.
    pub vlan: Option<u16>,
    /// `enforce` or `observe`, as it holds for this server.
    pub mode: &'static str,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Services that peers may open, without the management needs.
    pub accepts: Vec<String>,
    /// Connections that it may open.
    pub opens: Vec<String>,
    /// Connections that are dropped without an alarm.
    pub quiet: Vec<String>,
    /// Whether all servers may use what it is answered for names.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forwards: bool,
    /// `named`: of the resolvers it may ask names of the policy alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<&'static str>,
}

/// Sums up a policy.
pub fn summarize(policy: &Policy) -> Summary {
    let roles = policy.roles.iter().map(|role| (role.name.as_str(), role)).collect();
    let sets = policy.sets.values();
    Summary {
        file: policy.file.clone(),
        settings: policy.settings.entries().into_iter().collect(),
        sets: sets.map(|set| SetSummary { name: set.name.clone(), members: show_members(set) }).collect(),
        routers: policy.routers.iter().map(summarize_router).collect(),
        servers: policy.servers.iter().map(|server| summarize_server(policy, server, &roles)).collect(),
        tests: policy.tests.iter().map(summarize_test).collect(),
        alarms: policy.alarms.entries().into_iter().chain(policy.response.entries()).collect(),
        severities: policy
            .ratings
            .0
            .iter()
            .map(|(rated, severity)| SeveritySummary { of: rated.to_string(), severity: severity.name() })
            .collect(),
    }
}

/// Addresses and prefixes, and then names.
fn show_members(set: &Set) -> Vec<String> {
    let names = set.names.iter().map(|(name, _)| name.to_string());
    set.prefixes().map(|prefix| show_prefix(&prefix)).chain(names).collect()
}

fn summarize_router(router: &Router) -> RouterSummary {
    // No `..`, so that a new key does not compile until it is described.
    let Router { name, place: _, addresses, macs } = router;
    let addresses = addresses.iter().map(|(address, _)| address.to_string()).collect();
    RouterSummary { name: name.clone(), addresses, macs: show_macs(macs) }
}

fn summarize_test(test: &PolicyTest) -> TestSummary {
    // No `..`, so that a new key does not compile until it is described.
    let PolicyTest { place: _, from, to, accept, deny, reason, only } = test;
    let needs = |needs: &[Need]| needs.iter().map(ToString::to_string).collect();
    TestSummary {
        from: from.iter().map(ToString::to_string).collect(),
        to: to.iter().map(ToString::to_string).collect(),
        accept: needs(accept),
        deny: needs(deny),
        reason: reason.map(|reason| reason.name()),
        only: *only,
    }
}

fn show_macs(macs: &[([u8; 6], Location)]) -> Vec<String> {
    macs.iter().map(|(mac, _)| show_mac(mac)).collect()
}

fn summarize_server(policy: &Policy, server: &Server, roles: &HashMap<&str, &Role>) -> ServerSummary {
    // No `..`, so that a new key does not compile until it is described.
    let Server { name, place: _, addresses, macs, vlan, roles: assigned, roles_place: _, mode: _, forwards } =
        server;
    let needs = |direction| {
        let roles = assigned.iter().filter_map(|(name, _)| roles.get(name.as_str()));
        list_needs(roles.flat_map(|role| role.needs_of(direction)))
    };
    ServerSummary {
        name: name.clone(),
        addresses: show_prefixes(addresses.iter().map(|(prefix, _)| *prefix)),
        mac: macs.first().map(|(mac, _)| show_mac(mac)),
        macs: show_macs(macs),
        vlan: vlan.map(|(vlan, _)| vlan),
        mode: policy.mode_of(server).word(),
        roles: assigned.iter().map(|(name, _)| name.clone()).collect(),
        accepts: needs(Direction::In),
        opens: needs(Direction::Out),
        quiet: needs(Direction::Quiet),
        forwards: *forwards,
        dns: Some(policy.questions_of(server)).filter(|dns| *dns != Questions::Any).map(Keyword::word),
    }
}

fn show_prefixes(prefixes: impl Iterator<Item = IpNet>) -> Vec<String> {
    prefixes.map(|prefix| show_prefix(&prefix)).collect()
}

/// The needs in canonical form, each once.
fn list_needs<'p>(needs: impl Iterator<Item = &'p Need>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for need in needs.map(Need::to_string) {
        if !list.contains(&need) {
            list.push(need);
        }
    }
    list
}

/// Says in plain lines what each server may do.
pub fn describe(policy: &Policy, detail: Detail) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write_policy(&mut out, policy, detail);
    out
}

fn write_policy(out: &mut String, policy: &Policy, detail: Detail) -> fmt::Result {
    // No `..`, so that a new key does not compile until it is described.
    let Settings {
        mode,
        tracking,
        unknown_sources,
        management,
        link_services,
        quiet_ethertypes,
        pickup_s,
        handover,
        dhcp,
    } = &policy.settings;
    let (mode, summary) = (mode.value, summarize(policy));
    writeln!(out, "mode {mode}, tracking {}, unknown sources {}", tracking.value, unknown_sources.value)?;
    let dhcp = if dhcp.value { "allowed" } else { "not allowed" };
    writeln!(out, "open flows are taken over for {} s, DHCP is {dhcp}", pickup_s.value)?;
    if handover.value == Handover::Conntrack {
        writeln!(out, "open flows of another router are taken over from conntrack")?;
    }
    if management.is_empty() {
        writeln!(out, "no management: in quarantine a server answers nobody")?;
    } else {
        write_list(out, "every server accepts", &list_needs(management.iter()))?;
    }
    if !link_services.0.is_empty() {
        write_list(out, "every server asks its link", &list_needs(link_services.0.iter()))?;
    }
    if !quiet_ethertypes.0.is_empty() {
        writeln!(out, "no alarm for EtherType {quiet_ethertypes}")?;
    }
    match detail {
        Detail::Full => {
            for server in &summary.servers {
                write_server(out, &[server], mode.word())?;
            }
        }
        Detail::Brief => {
            for group in group_servers(&summary.servers) {
                write_server(out, &group, mode.word())?;
            }
        }
    }
    if !summary.routers.is_empty() {
        writeln!(out, "\nrouters")?;
        for router in &summary.routers {
            writeln!(
                out,
                "  {}  {}  mac {}",
                router.name,
                router.addresses.join(", "),
                router.macs.join(", ")
            )?;
        }
    }
    if !summary.sets.is_empty() {
        writeln!(out, "\nsets")?;
        for set in &summary.sets {
            writeln!(out, "  @{}  {}", set.name, show_list(&set.members, detail))?;
        }
    }
    write_tests(out, &policy.tests, detail)?;
    Ok(())
}

/// The tests, one on each line.
fn write_tests(out: &mut String, tests: &[PolicyTest], detail: Detail) -> fmt::Result {
    if tests.is_empty() {
        return Ok(());
    }
    writeln!(out, "\ntests")?;
    let shown = match detail {
        Detail::Brief if tests.len() > BRIEF_ITEMS + 1 => BRIEF_ITEMS,
        Detail::Brief | Detail::Full => tests.len(),
    };
    for test in tests.iter().take(shown) {
        writeln!(out, "  {test}")?;
    }
    match tests.len() - shown {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

/// Says where alarms go.
pub fn describe_alarms(policy: &Policy) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write_alarms(&mut out, policy);
    out
}

/// The keys of `[alarms]` that the file changes.
fn write_alarms(out: &mut String, policy: &Policy) -> fmt::Result {
    let defaults = Alarms::default().entries().into_iter().chain(Response::default().entries());
    let entries = policy.alarms.entries().into_iter().chain(policy.response.entries());
    let changed: Vec<_> = entries.zip(defaults).filter(|(entry, default)| entry != default).collect();
    writeln!(
        out,
        "\nalarms  on standard error while the daemon runs, and for {} days in its history",
        policy.response.history_days
    )?;
    let width = changed.iter().map(|((key, _), _)| key.len()).max().unwrap_or(0);
    for ((key, value), _) in changed {
        writeln!(out, "  {key:width$}  {value}")?;
    }
    for (rated, severity) in &policy.ratings.0 {
        writeln!(out, "  severity of {rated}: {severity}")?;
    }
    Ok(())
}

/// Servers that differ in name and addresses alone, in the order of the file.
fn group_servers(servers: &[ServerSummary]) -> Vec<Vec<&ServerSummary>> {
    let mut groups: Vec<Vec<&ServerSummary>> = Vec::new();
    let mut places = HashMap::new();
    for server in servers {
        // A server with a MAC or a VLAN stands alone, as these are its own.
        let own = (!server.macs.is_empty() || server.vlan.is_some()).then_some(&server.name);
        let place = *places.entry((&server.roles, server.mode, own)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.push(server);
        }
    }
    groups
}

fn show_list(items: &[String], detail: Detail) -> String {
    match detail {
        Detail::Brief if items.len() > BRIEF_ITEMS + 1 => {
            let first = items.get(..BRIEF_ITEMS).unwrap_or_default();
            format!("{} and {} more", first.join(", "), items.len() - BRIEF_ITEMS)
        }
        Detail::Brief | Detail::Full => items.join(", "),
    }
}

/// One server, or several with the same permissions.
fn write_server(out: &mut String, group: &[&ServerSummary], mode: &str) -> fmt::Result {
    let Some(server) = group.first() else {
        return Ok(());
    };
    if group.len() == 1 {
        write!(out, "\n{}  {}", server.name, server.addresses.join(", "))?;
    } else {
        let names: Vec<String> = group.iter().map(|server| server.name.clone()).collect();
        write!(out, "\n{}", show_list(&names, Detail::Brief))?;
    }
    if !server.macs.is_empty() {
        write!(out, "  mac {}", server.macs.join(", "))?;
    }
    if let Some(vlan) = server.vlan {
        write!(out, "  vlan {vlan}")?;
    }
    if server.mode != mode {
        write!(out, "  mode {}", server.mode)?;
    }
    let roles = if server.roles.is_empty() { "none".to_owned() } else { server.roles.join(", ") };
    writeln!(out, "\n  roles    {roles}")?;
    write_list(out, "  accepts ", &server.accepts)?;
    write_list(out, "  opens   ", &server.opens)?;
    if server.dns.is_some() {
        writeln!(out, "  asks     names of the policy alone")?;
    }
    if !server.quiet.is_empty() {
        write_list(out, "  quiet   ", &server.quiet)?;
    }
    Ok(())
}

/// A label, and beside it the needs, one on each line.
fn write_list(out: &mut String, label: &str, needs: &[String]) -> fmt::Result {
    let Some((first, rest)) = needs.split_first() else {
        return writeln!(out, "{label} nothing");
    };
    writeln!(out, "{label} {first}")?;
    for need in rest {
        writeln!(out, "{:width$} {need}", "", width = label.len())?;
    }
    Ok(())
}
