//! From the text of a policy file to the model, or to every mistake in the text.

mod address;
mod alarms;
mod definitions;
mod document;
mod foreign;
mod grammar;
mod keys;
mod log_files;
mod mistake;
mod names;
mod peer_names;
mod policy_tests;
mod ratings;
mod set_files;
mod suggestion;
mod syntax;
mod words;

use toml::de::DeTable;

pub(crate) use self::address::find_objection;
use self::definitions::{list_roles, read_roles, read_routers, read_servers, read_sets};
use self::document::{Findings, Section};
use self::grammar::read_need;
use self::keys::KeyReader;
use self::names::check_names;
use self::peer_names::PeerNames;
use self::policy_tests::read_tests;
use self::ratings::read_ratings;
use self::set_files::inline_set_files;
pub use self::set_files::{ReadSetFile, SetFile};
use self::syntax::RepairedCopy;
use super::diagnostic::{Diagnostics, Finding, Source};
use super::model::{Alarms, Direction, NameSettings, Need, Policy, Response, Server, Settings, TableSizes};

/// Parses a policy file whose sets may stand in other files, which `read` reads. The text of the policy then has
/// their members.
///
/// # Errors
/// Every mistake in the file, and then those in the set files.
pub fn parse_with_files(text: &str, file: &str, read: ReadSetFile<'_>) -> Result<Policy, Diagnostics> {
    let Some(inlined) = inline_set_files(text, read) else {
        return parse(text, file);
    };
    let parsed = parse(&inlined.text, file);
    let in_policy = (!inlined.findings.is_empty())
        .then(|| Diagnostics::gather(inlined.findings, &Source::new(file, text)));
    let mut all: Option<Diagnostics> = in_policy;
    if let Err(errors) = &parsed {
        let errors = errors.clone();
        all = Some(match all {
            Some(known) => known.merge(errors),
            None => errors,
        });
    }
    for errors in inlined.diagnostics {
        all = Some(match all {
            Some(known) => known.append(errors),
            None => errors,
        });
    }
    all.map_or(parsed, Err)
}

/// Parses a policy file without access to other files. `file` is the name that positions are printed with.
///
/// # Errors
/// Every mistake in the file, not only the first one.
pub fn parse(text: &str, file: &str) -> Result<Policy, Diagnostics> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let (model, source, findings) = if errors.is_empty() {
        let findings = Findings::new(file, text);
        let model = read_file(table.get_ref(), &findings);
        let (source, findings) = findings.finish();
        (model, source, findings)
    } else {
        let copy = RepairedCopy::new(text);
        let repaired = copy.text.clone();
        let (table, _) = DeTable::parse_recoverable(&repaired);
        let findings = Findings::new(file, &repaired);
        let model = read_file(table.get_ref(), &findings);
        (model, Source::new(file, text), copy.join(text, findings.finish().1))
    };
    if findings.is_empty() && errors.is_empty() {
        return Ok(Policy { file: file.to_owned(), text: text.to_owned(), ..model });
    }
    Err(Diagnostics::gather(findings, &source))
}

/// Parses one need outside of a file, as given on a command line. It may name sets and servers of
/// `policy`.
///
/// # Errors
/// Every mistake in the need. Positions are those in `text`, and the file is called `need`.
pub fn parse_need(text: &str, direction: Direction, policy: &Policy) -> Result<Need, Diagnostics> {
    let names = PeerNames::new(&policy.sets, &policy.servers);
    let source = Source::new("need", text);
    let mut findings = Vec::new();
    let need = read_need(text, direction, &names, source.place(&(0..text.len())), &mut |finding| {
        findings.push(finding);
    });
    if let Some(need) = &need
        && !need.resolve_names(&policy.sets).is_empty()
    {
        let message = "a need that is not in the policy can't have a name";
        findings.push(Finding::new(0..text.len(), message).with_help("write addresses"));
    }
    match need {
        Some(need) if findings.is_empty() => Ok(need),
        _ => Err(Diagnostics::gather(findings, &source)),
    }
}

/// A server on the link is known by its MAC alone: its link-local address is in no policy.
fn check_link_services(settings: &Settings, servers: &[Server], findings: &Findings<'_>) {
    if let Some(need) = settings.link_services.0.first()
        && !servers.is_empty()
        && servers.iter().all(|server| server.macs.is_empty())
    {
        let message = "`link_services` knows servers by their MACs, and no server has a `mac`";
        findings.add(
            Finding::new(need.place.start..need.place.end, message)
                .with_help("give the servers that need these services a `mac`"),
        );
    }
}

fn read_file<'d>(root: &'d DeTable<'d>, findings: &Findings<'d>) -> Policy {
    let root = Section::root(root, findings);
    root.check_keys(Policy::TABLES);
    let sets = read_sets(&root.tables_like("sets", Policy::TABLES), findings);
    let role_sections = root.tables_like("roles", Policy::TABLES);
    let servers = read_servers(&root, list_roles(&role_sections), findings);
    let names = PeerNames::new(&sets, &servers);
    let settings = root.table("policy").map_or_else(Settings::default, |section| {
        section.check_keys(Settings::KEYS);
        Settings::read(&KeyReader::new(&section, &names))
    });
    let roles = read_roles(&role_sections, &names, findings);
    let routers = read_routers(&root.tables_like("routers", Policy::TABLES), &servers, findings);
    let tests = read_tests(&root, &names, findings);
    check_link_services(&settings, &servers, findings);
    let name_settings = root.table("names").map_or_else(NameSettings::default, |section| {
        section.check_keys(NameSettings::KEYS);
        NameSettings::read(&KeyReader::new(&section, &names))
    });
    check_names(&settings, &name_settings, &roles, &sets, findings);
    let (alarms, response, ratings) = root.table("alarms").map_or_else(Default::default, |section| {
        section.check_keys(&[Alarms::KEYS, Response::KEYS, &["severity"]].concat());
        let ratings = section.table("severity").map(|section| read_ratings(&section, &servers));
        let keys = KeyReader::new(&section, &names);
        (Alarms::read(&keys), Response::read(&keys), ratings.unwrap_or_default())
    });
    let tables = root.table("tables").map_or_else(TableSizes::default, |section| {
        section.check_keys(TableSizes::KEYS);
        TableSizes::read(&KeyReader::new(&section, &names))
    });
    let (file, text) = (String::new(), String::new());
    Policy {
        file,
        text,
        settings,
        names: name_settings,
        sets,
        routers,
        roles,
        servers,
        tests,
        alarms,
        response,
        ratings,
        tables,
    }
}
