//! From a policy file's tables to the model.

use std::collections::{BTreeMap, HashMap, HashSet};

use ipnet::IpNet;
use toml::de::DeTable;

use super::address::{Mistake, find_objection, parse_mac, parse_prefix, show_prefix};
use super::alarms::{Alarms, read_alarms};
use super::diagnostic::{Cause, Diagnostics, Finding, Location, Source};
use super::document::{Entry, Report, Table, Text};
use super::grammar::read_need;
use super::model::{Policy, Role, Server, Set, Settings};
use super::need::{Direction, Need};
use super::syntax::Mended;
use super::tables::{TableSizes, read_tables};

const TABLES: &[&str] = &["policy", "sets", "roles", "servers", "alarms", "tables"];
const POLICY_KEYS: &[&str] = &["mode", "tracking", "unknown_sources", "management", "pickup", "dhcp"];
const ROLE_KEYS: &[&str] = &["in", "out", "quiet"];
const SERVER_KEYS: &[&str] = &["addresses", "mac", "vlan", "roles", "mode"];

/// The longest `pickup`, in seconds: a day.
const MAX_PICKUP_S: u32 = 86_400;

/// The longest name of a server, role or set, in characters.
const MAX_NAME: usize = 63;

/// Parses a policy file, reporting every mistake in it. `file` is what positions are printed with.
pub fn parse(text: &str, file: &str) -> Result<Policy, Diagnostics> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let (model, source, findings) = if errors.is_empty() {
        let report = Report::new(file, text);
        let model = read_file(table.get_ref(), &report);
        let (source, findings) = report.finish();
        (model, source, findings)
    } else {
        let mended = Mended::new(text);
        let copy = mended.text.clone();
        let (table, _) = DeTable::parse_recoverable(&copy);
        let report = Report::new(file, &copy);
        let model = read_file(table.get_ref(), &report);
        (model, Source::new(file, text), mended.join(text, report.finish().1))
    };
    if findings.is_empty() && errors.is_empty() {
        return Ok(Policy { file: file.to_owned(), text: text.to_owned(), ..model });
    }
    Err(Diagnostics::gather(findings, &source))
}

fn read_file<'d>(root: &'d DeTable<'d>, report: &Report<'d>) -> Policy {
    let root = Table::root(root, report);
    root.check_keys(TABLES);
    let sets = read_sets(&root.tables_like("sets", TABLES), report);
    let reader = Reader { report, sets };
    let settings = root.table("policy").map(|table| reader.read_settings(&table)).unwrap_or_default();
    let roles = reader.read_roles(&root.tables_like("roles", TABLES));
    let servers = reader.read_servers(&root, &roles);
    let alarms = root.table("alarms").map_or_else(Alarms::default, |table| read_alarms(&table));
    let tables = root.table("tables").map_or_else(TableSizes::default, |table| read_tables(&table));
    let sets = reader.sets;
    Policy { file: String::new(), text: String::new(), settings, sets, roles, servers, alarms, tables }
}

/// Checks the name of a server, role or set.
fn check_name(entry: &Entry<'_>, kind: &str, report: &Report<'_>) {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if entry.key.is_empty() {
        // As a bare key this is a syntax error, and reported; `""` is not.
        report.add(Finding::new(entry.key_span.clone(), format!("a {kind} needs a name")));
    } else if !entry.key.chars().all(plain) {
        let message = format!("`{}` can't be the name of a {kind}", entry.key);
        report.add(
            Finding::new(entry.key_span.clone(), message).with_help("use letters, digits, `_`, `-` and `.`"),
        );
    } else if entry.key.len() > MAX_NAME {
        let message =
            format!("the name of a {kind} has at most {MAX_NAME} characters, not {}", entry.key.len());
        report.add(Finding::new(entry.key_span.clone(), message));
    }
}

/// The entries of several tables, each with its table.
fn entries_of<'t, 'd, 'r>(
    tables: &'t [Table<'d, 'r>],
) -> impl Iterator<Item = (&'t Table<'d, 'r>, Entry<'d>)> {
    tables.iter().flat_map(|table| table.entries().into_iter().map(move |entry| (table, entry)))
}

fn read_sets(tables: &[Table<'_, '_>], report: &Report<'_>) -> BTreeMap<String, Set> {
    let mut sets = BTreeMap::new();
    for (table, entry) in entries_of(tables) {
        check_name(&entry, "set", report);
        let name = entry.key.to_owned();
        let mut set = Set {
            name: name.clone(),
            members: Vec::new(),
            place: report.place(&entry.key_span),
            sound: false,
        };
        if let Some((texts, complete)) = table.list_of(&entry) {
            set.sound = complete;
            for text in texts {
                match read_member(&text) {
                    Ok(prefix) => set.members.push((prefix, report.place(&text.span))),
                    Err(mistake) => {
                        set.sound = false;
                        table.refuse(&text, mistake);
                    }
                }
            }
        }
        sets.insert(name, set);
    }
    sets
}

fn read_member(text: &Text<'_>) -> Result<IpNet, Mistake> {
    if text.value.starts_with('@') {
        let mistake = Mistake::new(0..text.value.len(), "a set can't hold another set");
        return Err(mistake.with_help("a need may name both: `to @one, @other`"));
    }
    parse_prefix(text.value)
}

/// Who holds a prefix, and where that is written.
type Holders<'d> = HashMap<IpNet, (&'d str, Location)>;

struct Reader<'d, 'r> {
    report: &'r Report<'d>,
    sets: BTreeMap<String, Set>,
}

impl<'d> Reader<'d, '_> {
    fn read_settings(&self, table: &Table<'d, '_>) -> Settings {
        table.check_keys(POLICY_KEYS);
        let default = Settings::default();
        Settings {
            mode: table.keyword("mode"),
            tracking: table.keyword("tracking"),
            unknown_sources: table.keyword("unknown_sources"),
            management: self.read_needs(table, "management", Direction::In),
            pickup_s: table.integer("pickup", 0..=MAX_PICKUP_S, default.pickup_s.value),
            dhcp: table.boolean("dhcp"),
        }
    }

    fn read_needs(&self, table: &Table<'d, '_>, key: &str, direction: Direction) -> Vec<Need> {
        let texts = table.list(key).unwrap_or_default();
        let read = |text: Text<'d>| {
            let place = self.report.place(&text.span);
            read_need(text.value, direction, &self.sets, place, &mut |finding| {
                let span = text.part(finding.span.clone());
                self.report.add(Finding { span, ..finding });
            })
        };
        texts.into_iter().filter_map(read).collect()
    }

    fn read_roles(&self, tables: &[Table<'d, '_>]) -> Vec<Role> {
        let mut roles = Vec::new();
        for (table, entry) in entries_of(tables) {
            check_name(&entry, "role", self.report);
            let place = self.report.place(&entry.key_span);
            let name = entry.key.to_owned();
            let mut role = Role { name, place, inbound: Vec::new(), outbound: Vec::new(), quiet: Vec::new() };
            if let Some(table) = table.table_of(&entry) {
                table.check_keys(ROLE_KEYS);
                role.inbound = self.read_needs(&table, "in", Direction::In);
                role.outbound = self.read_needs(&table, "out", Direction::Out);
                role.quiet = self.read_needs(&table, "quiet", Direction::Quiet);
            }
            roles.push(role);
        }
        roles
    }

    fn read_servers(&self, root: &Table<'d, '_>, roles: &[Role]) -> Vec<Server> {
        let known: HashSet<&str> = roles.iter().map(|role| role.name.as_str()).collect();
        let tables = root.tables_like("servers", TABLES);
        let mut holders = HashMap::new();
        let mut servers = Vec::new();
        for (table, entry) in entries_of(&tables) {
            check_name(&entry, "server", self.report);
            if let Some(table) = table.table_of(&entry) {
                servers.push(self.read_server(&entry, &table, &known, &mut holders));
            }
        }
        if entries_of(&tables).next().is_none() {
            let header = root.entry("servers").map(|entry| entry.key_span);
            let finding = Finding::new(header.unwrap_or_default(), "this policy has no server")
                .with_help("add one: [servers.NAME] with addresses and roles");
            let (table, name) = ("servers", "servers".to_owned());
            self.report.add(finding.with_cause(Cause::Undefined { table, name }));
        }
        servers
    }

    fn read_server(
        &self,
        entry: &Entry<'d>,
        table: &Table<'d, '_>,
        known: &HashSet<&str>,
        holders: &mut Holders<'d>,
    ) -> Server {
        table.check_keys(SERVER_KEYS);
        let place = self.report.place(&entry.key_span);
        let (assigned, roles_place) = self.read_assigned(table, known);
        Server {
            name: entry.key.to_owned(),
            place,
            addresses: self.read_addresses(table, entry.key, holders),
            mac: self.read_mac(table),
            // 4094 fits.
            vlan: table.optional_integer("vlan", 1..=4094).map(|(vlan, place)| (vlan as u16, place)),
            roles: assigned,
            roles_place: roles_place.unwrap_or(place),
            mode: table.optional_keyword("mode"),
        }
    }

    fn read_addresses(
        &self,
        table: &Table<'d, '_>,
        name: &'d str,
        holders: &mut Holders<'d>,
    ) -> Vec<(IpNet, Location)> {
        let Some(entry) = table.entry("addresses") else {
            table.miss("addresses", "a server has at least one address: addresses = [\"192.0.2.10\"]");
            return Vec::new();
        };
        let Some((texts, complete)) = table.list_of(&entry) else {
            return Vec::new();
        };
        if texts.is_empty() && complete {
            let finding = Finding::new(entry.key_span, format!("server `{name}` has no address"));
            self.report.add(finding.with_help("write at least one, or leave out the server"));
        }
        let mut addresses = Vec::with_capacity(texts.len());
        for text in texts {
            let whole = 0..text.value.len();
            let prefix = match parse_prefix(text.value) {
                Ok(prefix) => prefix,
                Err(mistake) => {
                    table.refuse(&text, mistake);
                    continue;
                }
            };
            if let Some(objection) = find_objection(&prefix) {
                table.refuse(&text, Mistake::new(whole, format!("`{}` {objection}", text.value)));
                continue;
            }
            let place = self.report.place(&text.span);
            if let Some((holder, first)) = holders.get(&prefix) {
                let owner =
                    if *holder == name { "this server".to_owned() } else { format!("server `{holder}`") };
                let message = format!("{owner} already holds `{}`", show_prefix(&prefix));
                let help = format!("the first one is in line {}, column {}", first.line, first.column);
                table.refuse(&text, Mistake::new(whole, message).with_help(help));
                continue;
            }
            holders.insert(prefix, (name, place));
            addresses.push((prefix, place));
        }
        addresses
    }

    fn read_mac(&self, table: &Table<'d, '_>) -> Option<([u8; 6], Location)> {
        let text = table.text("mac")?;
        match parse_mac(text.value) {
            Ok(mac) => Some((mac, self.report.place(&text.span))),
            Err(mistake) => {
                table.refuse(&text, mistake);
                None
            }
        }
    }

    /// The roles of a server, and where its `roles` is.
    fn read_assigned(
        &self,
        table: &Table<'d, '_>,
        known: &HashSet<&str>,
    ) -> (Vec<(String, Location)>, Option<Location>) {
        let Some(entry) = table.entry("roles") else {
            return (Vec::new(), None);
        };
        let place = self.report.place(&entry.key_span);
        let mut assigned = Vec::new();
        for text in table.list("roles").unwrap_or_default() {
            if known.contains(text.value) {
                assigned.push((text.value.to_owned(), self.report.place(&text.span)));
                continue;
            }
            let help = self.report.suggest(text.value, known.iter().copied());
            let cause = Cause::Undefined { table: "roles", name: text.value.to_owned() };
            let finding = Finding::new(text.span, format!("no role is called `{}`", text.value));
            self.report.add(finding.with_hint(help).with_cause(cause));
        }
        (assigned, Some(place))
    }
}
