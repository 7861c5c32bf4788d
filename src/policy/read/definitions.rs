//! The named things of a policy: `[sets]`, `[routers.*]`, `[roles.*]` and `[servers.*]`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{find_objection, find_router_objection, parse_mac, parse_prefix};
use super::document::{Entry, Findings, Section};
use super::grammar::read_needs;
use super::mistake::Mistake;
use super::names::{looks_like_name, parse_name};
use super::peer_names::PeerNames;
use crate::net::{DomainName, show_prefix};
use crate::policy::diagnostic::{Finding, FindingOrigin};
use crate::policy::model::{Direction, Location, Policy, Role, Router, Server, Set};

/// The longest name of a server, role or set, in characters.
const MAX_NAME: usize = 63;

/// Checks the name of a server, role or set.
fn check_name(entry: &Entry<'_>, kind: &str, findings: &Findings<'_>) {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if entry.key.is_empty() {
        // An empty bare key is a syntax error, which is reported elsewhere. `""` is not.
        findings.add(Finding::new(entry.key_span.clone(), format!("a {kind} needs a name")));
    } else if !entry.key.chars().all(plain) {
        let message = format!("`{}` can't be the name of a {kind}", entry.key);
        findings.add(
            Finding::new(entry.key_span.clone(), message).with_help("use letters, digits, `_`, `-` and `.`"),
        );
    } else if entry.key.len() > MAX_NAME {
        let message =
            format!("the name of a {kind} has at most {MAX_NAME} characters, not {}", entry.key.len());
        findings.add(Finding::new(entry.key_span.clone(), message));
    }
}

/// Refuses a name with dots that has no quotes: TOML reads each dot as the border of another table. Says
/// whether it did.
fn refuse_dotted_name(
    entry: &Entry<'_>,
    section: &Section<'_, '_>,
    known: &[&str],
    findings: &Findings<'_>,
) -> bool {
    let Some(name) = section.dotted_name(known) else {
        return false;
    };
    let table = section.name.split('.').next().unwrap_or_default();
    let message = format!("`{name}` needs quotes, because it has dots");
    findings
        .add(Finding::new(entry.key_span.clone(), message).with_help(format!("write [{table}.\"{name}\"]")));
    true
}

/// The entries of several sections, each with its section.
fn entries_of<'t, 'd, 'f>(
    sections: &'t [Section<'d, 'f>],
) -> impl Iterator<Item = (&'t Section<'d, 'f>, Entry<'d>)> {
    sections.iter().flat_map(|section| section.entries().into_iter().map(move |entry| (section, entry)))
}

/// Reads all sets.
pub(super) fn read_sets(sections: &[Section<'_, '_>], findings: &Findings<'_>) -> BTreeMap<String, Set> {
    let mut sets = BTreeMap::new();
    for (section, entry) in entries_of(sections) {
        check_name(&entry, "set", findings);
        let name = entry.key.to_owned();
        let mut set = Set {
            name: name.clone(),
            members: Vec::new(),
            names: Vec::new(),
            place: findings.place(&entry.key_span),
            sound: false,
        };
        if let Some((texts, complete)) = section.list_of(&entry) {
            set.sound = complete;
            for text in texts {
                match read_member(text.value) {
                    Ok(Member::Prefix(prefix)) => set.members.push((prefix, findings.place(&text.span))),
                    Ok(Member::Name(name)) => set.names.push((name, findings.place(&text.span))),
                    Err(mistake) => {
                        set.sound = false;
                        section.refuse(&text, mistake);
                    }
                }
            }
        }
        sets.insert(name, set);
    }
    sets
}

/// A member of a set.
pub(super) enum Member {
    /// An address or prefix.
    Prefix(IpNet),
    /// A name.
    Name(DomainName),
}

/// Parses a member of a set.
pub(super) fn read_member(text: &str) -> Result<Member, Mistake> {
    if text.starts_with('@') {
        let mistake = Mistake::new(0..text.len(), "a set can't hold another set");
        return Err(mistake.with_help("name both sets in the need: `to @one, @other`"));
    }
    if looks_like_name(text) {
        return parse_name(text).map(Member::Name);
    }
    parse_prefix(text).map(Member::Prefix)
}

/// The names of all roles.
pub(super) fn list_roles<'d>(sections: &[Section<'d, '_>]) -> HashSet<&'d str> {
    entries_of(sections).map(|(_, entry)| entry.key).collect()
}

/// Reads all roles. Their needs may use `names` for their peers.
pub(super) fn read_roles(
    sections: &[Section<'_, '_>],
    names: &PeerNames<'_>,
    findings: &Findings<'_>,
) -> Vec<Role> {
    let mut roles = Vec::new();
    for (section, entry) in entries_of(sections) {
        check_name(&entry, "role", findings);
        let place = findings.place(&entry.key_span);
        let name = entry.key.to_owned();
        let mut role =
            Role { name, place, inbound: Vec::new(), outbound: Vec::new(), quiet: Vec::new(), dns: None };
        if let Some(section) = section.table_of(&entry)
            && !refuse_dotted_name(&entry, &section, Role::KEYS, findings)
        {
            section.check_keys(Role::KEYS);
            let needs = |direction: Direction| {
                read_needs(&section, direction.key(), direction, names).unwrap_or_default()
            };
            role.inbound = needs(Direction::In);
            role.outbound = needs(Direction::Out);
            role.quiet = needs(Direction::Quiet);
            role.dns = section.keyword("dns");
        }
        roles.push(role);
    }
    roles
}

/// Which server holds a prefix, and where the file says so.
type Holders<'d> = HashMap<IpNet, (&'d str, Location)>;

/// Reads all servers. They may have `roles`.
pub(super) fn read_servers<'d>(
    root: &Section<'d, '_>,
    roles: HashSet<&'d str>,
    findings: &Findings<'d>,
) -> Vec<Server> {
    let sections = root.tables_like("servers", Policy::TABLES);
    let mut reader = ServerReader { roles, holders: HashMap::new(), findings };
    let mut servers = Vec::new();
    for (section, entry) in entries_of(&sections) {
        check_name(&entry, "server", findings);
        if let Some(section) = section.table_of(&entry)
            && !refuse_dotted_name(&entry, &section, Server::KEYS, findings)
        {
            servers.push(reader.read_server(&entry, &section));
        }
    }
    if entries_of(&sections).next().is_none() {
        let header = root.entry("servers").map(|entry| entry.key_span);
        let finding = Finding::new(header.unwrap_or_default(), "this policy has no server")
            .with_help("add one: [servers.NAME] with `addresses` and `roles`");
        let (table, name) = ("servers", "servers".to_owned());
        findings.add(finding.with_origin(FindingOrigin::Undefined { table, name }));
    }
    servers
}

struct ServerReader<'a, 'd> {
    roles: HashSet<&'d str>,
    holders: Holders<'d>,
    findings: &'a Findings<'d>,
}

impl<'d> ServerReader<'_, 'd> {
    fn read_server(&mut self, entry: &Entry<'d>, section: &Section<'d, '_>) -> Server {
        section.check_keys(Server::KEYS);
        let place = self.findings.place(&entry.key_span);
        let (assigned, roles_place) = self.read_assigned(section);
        Server {
            name: entry.key.to_owned(),
            place,
            addresses: self.read_addresses(section, entry.key),
            macs: read_macs(section, self.findings).unwrap_or_default(),
            // At most 4094, so it fits.
            vlan: section.integer("vlan", 1..=4094).map(|(vlan, place)| (vlan as u16, place)),
            roles: assigned,
            roles_place: roles_place.unwrap_or(place),
            mode: section.keyword("mode"),
            forwards: section.boolean("forwards").is_some_and(|(forwards, _)| forwards),
        }
    }

    fn read_addresses(&mut self, section: &Section<'d, '_>, name: &'d str) -> Vec<(IpNet, Location)> {
        let Some(entry) = section.entry("addresses") else {
            section.miss("addresses", "add at least one: addresses = [\"192.0.2.10\"]");
            return Vec::new();
        };
        let Some((texts, complete)) = section.list_of(&entry) else {
            return Vec::new();
        };
        if texts.is_empty() && complete {
            let finding = Finding::new(entry.key_span, format!("server `{name}` has no address"));
            self.findings.add(finding.with_help("add an address, or remove the server"));
        }
        let mut addresses = Vec::with_capacity(texts.len());
        for text in texts {
            let whole = 0..text.value.len();
            if text.value.starts_with('@') {
                let mistake = Mistake::new(whole, "a set can't be the address of a server");
                section
                    .refuse(&text, mistake.with_help("list the addresses themselves: sets stand for peers"));
                continue;
            }
            let prefix = match parse_prefix(text.value) {
                Ok(prefix) => prefix,
                Err(mistake) => {
                    section.refuse(&text, mistake);
                    continue;
                }
            };
            if let Some(objection) = find_objection(&prefix) {
                section.refuse(&text, Mistake::new(whole, format!("`{}` {objection}", text.value)));
                continue;
            }
            let place = self.findings.place(&text.span);
            if let Some((holder, first)) = self.holders.get(&prefix) {
                let owner =
                    if *holder == name { "this server".to_owned() } else { format!("server `{holder}`") };
                let message = format!("{owner} already has `{}`", show_prefix(&prefix));
                let help = format!("see line {}, column {}", first.line, first.column);
                section.refuse(&text, Mistake::new(whole, message).with_help(help));
                continue;
            }
            self.holders.insert(prefix, (name, place));
            addresses.push((prefix, place));
        }
        addresses
    }

    /// The roles of a server, and where its `roles` is.
    fn read_assigned(&self, section: &Section<'d, '_>) -> (Vec<(String, Location)>, Option<Location>) {
        let Some(entry) = section.entry("roles") else {
            return (Vec::new(), None);
        };
        let place = self.findings.place(&entry.key_span);
        let mut assigned = Vec::new();
        for text in section.list("roles").unwrap_or_default() {
            if self.roles.contains(text.value) {
                assigned.push((text.value.to_owned(), self.findings.place(&text.span)));
                continue;
            }
            let help = self.findings.suggest(text.value, self.roles.iter().copied());
            let origin = FindingOrigin::Undefined { table: "roles", name: text.value.to_owned() };
            let finding = Finding::new(text.span, format!("no role is called `{}`", text.value));
            self.findings.add(finding.with_hint(help).with_origin(origin));
        }
        (assigned, Some(place))
    }
}

/// Reads `mac`: one MAC or a list of them, each once. `None` without that key.
fn read_macs(section: &Section<'_, '_>, findings: &Findings<'_>) -> Option<Vec<([u8; 6], Location)>> {
    let entry = section.entry("mac")?;
    let mut macs: Vec<([u8; 6], Location)> = Vec::new();
    let (texts, complete) = section.one_or_more(&entry).unwrap_or_default();
    if texts.is_empty() && complete {
        let finding = Finding::new(entry.key_span, "`mac` has no MAC");
        findings.add(finding.with_help("add a MAC, or remove the key"));
    }
    for text in texts {
        match parse_mac(text.value) {
            Ok(mac) if macs.iter().any(|(known, _)| *known == mac) => {
                let message = format!("`{}` is in this list already", text.value);
                section.refuse(&text, Mistake::new(0..text.value.len(), message));
            }
            Ok(mac) => macs.push((mac, findings.place(&text.span))),
            Err(mistake) => section.refuse(&text, mistake),
        }
    }
    Some(macs)
}

/// Reads all routers. Their addresses may not be those of `servers`.
pub(super) fn read_routers(
    sections: &[Section<'_, '_>],
    servers: &[Server],
    findings: &Findings<'_>,
) -> Vec<Router> {
    let mut holders = HashMap::new();
    let mut routers = Vec::new();
    for (section, entry) in entries_of(sections) {
        check_name(&entry, "router", findings);
        let Some(section) = section.table_of(&entry) else {
            continue;
        };
        if refuse_dotted_name(&entry, &section, Router::KEYS, findings) {
            continue;
        }
        section.check_keys(Router::KEYS);
        let addresses = read_router_addresses(&section, entry.key, servers, &mut holders, findings);
        let macs = read_macs(&section, findings).unwrap_or_else(|| {
            section.miss("mac", "add its MAC: mac = \"02:00:00:00:0f:03\"");
            Vec::new()
        });
        routers.push(Router {
            name: entry.key.to_owned(),
            place: findings.place(&entry.key_span),
            addresses,
            macs,
        });
    }
    routers
}

fn read_router_addresses<'d>(
    section: &Section<'d, '_>,
    name: &'d str,
    servers: &[Server],
    holders: &mut HashMap<IpAddr, &'d str>,
    findings: &Findings<'d>,
) -> Vec<(IpAddr, Location)> {
    let Some(entry) = section.entry("addresses") else {
        section.miss("addresses", "add at least one: addresses = [\"192.0.2.3\"]");
        return Vec::new();
    };
    let mut addresses = Vec::new();
    let (texts, complete) = section.one_or_more(&entry).unwrap_or_default();
    if texts.is_empty() && complete {
        let finding = Finding::new(entry.key_span, format!("router `{name}` has no address"));
        findings.add(finding.with_help("add an address, or remove the router"));
    }
    for text in texts {
        let refuse = |message: String| {
            section.refuse(&text, Mistake::new(0..text.value.len(), message));
        };
        let prefix = match parse_prefix(text.value) {
            Ok(prefix) => prefix,
            Err(mistake) => {
                section.refuse(&text, mistake);
                continue;
            }
        };
        let address = prefix.addr();
        let holds = |server: &&Server| server.addresses.iter().any(|(held, _)| held.contains(&address));
        if prefix.prefix_len() != prefix.max_prefix_len() {
            refuse(format!("a router has addresses, and `{}` is a prefix", text.value));
        } else if let Some(objection) = find_router_objection(&prefix) {
            refuse(format!("`{}` {objection}", text.value));
        } else if let Some(server) = servers.iter().find(holds) {
            refuse(format!("server `{}` already has `{address}`", server.name));
        } else if let Some(holder) = holders.insert(address, name) {
            let owner = if holder == name { "this router".to_owned() } else { format!("router `{holder}`") };
            refuse(format!("{owner} already has `{address}`"));
        } else {
            addresses.push((address, findings.place(&text.span)));
        }
    }
    addresses
}
