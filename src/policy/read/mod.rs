//! From the text of a policy file to the model, or to every mistake in the text.

mod address;
mod alarms;
mod definitions;
mod document;
mod grammar;
mod keys;
mod mistake;
mod suggestion;
mod syntax;

use std::collections::BTreeMap;

use toml::de::DeTable;

use self::definitions::{read_roles, read_servers, read_sets};
use self::document::{Findings, Section};
use self::grammar::read_need;
use self::keys::KeyReader;
use self::syntax::RepairedCopy;
use super::diagnostic::{Diagnostics, Source};
use super::model::{Alarms, Direction, Need, Policy, Response, Set, Settings, TableSizes};

/// Parses a policy file. `file` is the name that positions are printed with.
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

/// Parses one need outside of a file, as given on a command line. `sets` are those of the live policy.
///
/// # Errors
/// Every mistake in the need. Positions are those in `text`, and the file is called `need`.
pub fn parse_need(
    text: &str,
    direction: Direction,
    sets: &BTreeMap<String, Set>,
) -> Result<Need, Diagnostics> {
    let source = Source::new("need", text);
    let mut findings = Vec::new();
    let need = read_need(text, direction, sets, source.place(&(0..text.len())), &mut |finding| {
        findings.push(finding);
    });
    match need {
        Some(need) if findings.is_empty() => Ok(need),
        _ => Err(Diagnostics::gather(findings, &source)),
    }
}

fn read_file<'d>(root: &'d DeTable<'d>, findings: &Findings<'d>) -> Policy {
    let root = Section::root(root, findings);
    root.check_keys(Policy::TABLES);
    let sets = read_sets(&root.tables_like("sets", Policy::TABLES), findings);
    let settings = root.table("policy").map_or_else(Settings::default, |section| {
        section.check_keys(Settings::KEYS);
        Settings::read(&KeyReader::new(&section, &sets))
    });
    let roles = read_roles(&root.tables_like("roles", Policy::TABLES), &sets, findings);
    let servers = read_servers(&root, &roles, findings);
    let (alarms, response) = root.table("alarms").map_or_else(Default::default, |section| {
        section.check_keys(&[Alarms::KEYS, Response::KEYS].concat());
        let keys = KeyReader::new(&section, &sets);
        (Alarms::read(&keys), Response::read(&keys))
    });
    let tables = root.table("tables").map_or_else(TableSizes::default, |section| {
        section.check_keys(TableSizes::KEYS);
        TableSizes::read(&KeyReader::new(&section, &sets))
    });
    let (file, text) = (String::new(), String::new());
    Policy { file, text, settings, sets, roles, servers, alarms, response, tables }
}
