//! Sets whose members stand in a file of their own: `feeds = { file = "sets/feeds.txt" }`.
//!
//! The members are written into the policy's text, before it is parsed, hashed and stored. So the text that the
//! kernel has means the same wherever it is applied. Each set stays in its line.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::definitions::{Member, read_member};
use super::suggestion::suggest;
use crate::net::show_prefix;
use crate::policy::diagnostic::{Diagnostics, Finding, Source};

/// A file of members, as it was read.
pub struct SetFile {
    /// The name that positions are printed with.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Reads a file by the path that the policy has. The error says why it can't be read.
pub type ReadSetFile<'r> = &'r dyn Fn(&str) -> Result<SetFile, String>;

/// A policy's text with the members of all its set files, and everything that is wrong with these.
pub(super) struct Inlined {
    pub(super) text: String,
    /// In the policy's text.
    pub(super) findings: Vec<Finding>,
    /// In the files.
    pub(super) diagnostics: Vec<Diagnostics>,
}

/// Puts the members of set files into the text. `None`: it names no file.
pub(super) fn inline_set_files(text: &str, read: ReadSetFile<'_>) -> Option<Inlined> {
    let (table, _) = DeTable::parse_recoverable(text);
    let DeValue::Table(sets) = table.get_ref().get("sets")?.get_ref() else {
        return None;
    };
    let mut tables: Vec<(Range<usize>, &DeTable<'_>)> = Vec::new();
    for (_, value) in sets {
        // A table with a header of its own is left to the reader, which refuses it.
        if let DeValue::Table(table) = value.get_ref()
            && text.get(value.span()).is_some_and(|inline| inline.starts_with('{') && inline.ends_with('}'))
        {
            tables.push((value.span(), table));
        }
    }
    if tables.is_empty() {
        return None;
    }
    tables.sort_by_key(|(span, _)| span.start);
    let mut inlined = Inlined { text: String::new(), findings: Vec::new(), diagnostics: Vec::new() };
    let mut copied = 0;
    for (span, table) in tables {
        let members = inlined.read_table(&span, table, read);
        inlined.text.push_str(text.get(copied..span.start).unwrap_or_default());
        inlined.text.push('[');
        inlined.text.push_str(&members.join(", "));
        // Later lines keep their numbers.
        let breaks = text.get(span.clone()).unwrap_or_default().matches('\n').count();
        inlined.text.extend(std::iter::repeat_n('\n', breaks));
        inlined.text.push(']');
        copied = span.end;
    }
    inlined.text.push_str(text.get(copied..).unwrap_or_default());
    Some(inlined)
}

impl Inlined {
    /// The members in quotes. After a mistake there is at least one, so that the set is not called empty as
    /// well: the policy is refused in any case.
    fn read_table(&mut self, span: &Range<usize>, table: &DeTable<'_>, read: ReadSetFile<'_>) -> Vec<String> {
        let known = (self.findings.len(), self.diagnostics.len());
        let mut members = Vec::new();
        for (key, _) in table.iter().filter(|(key, _)| key.get_ref() != "file") {
            let help = suggest(key.get_ref(), ["file"]);
            let message = format!("unknown key `{}` in a set", key.get_ref());
            self.findings.push(
                Finding::new(key.span(), message)
                    .with_help(help.unwrap_or("the only key is file".to_owned())),
            );
        }
        match table.get("file").map(|value| (value.span(), value.get_ref())) {
            Some((place, DeValue::String(path))) => match read(path) {
                Ok(file) => self.read_members(&file, &mut members),
                Err(why) => {
                    let message = format!("could not read the set file `{path}`: {why}");
                    self.findings.push(
                        Finding::new(place, message)
                            .with_help("a path is relative to the folder of the policy file"),
                    );
                }
            },
            Some((place, _)) => {
                self.findings.push(Finding::new(place, "`file` must be text").with_help(EXAMPLE));
            }
            None if known.0 == self.findings.len() => {
                let finding = Finding::new(span.clone(), "this set has no `file`");
                self.findings.push(finding.with_help(EXAMPLE));
            }
            None => (),
        }
        if members.is_empty() && known != (self.findings.len(), self.diagnostics.len()) {
            members.push("\"192.0.2.1\"".to_owned());
        }
        members
    }

    /// Reads one member a line. Blank lines are skipped, and what follows a `#`.
    fn read_members(&mut self, file: &SetFile, members: &mut Vec<String>) {
        let mut findings = Vec::new();
        let mut start = 0;
        for line in file.text.split_inclusive('\n') {
            let content = line.split('#').next().unwrap_or_default();
            let member = content.trim();
            let at = start + content.len() - content.trim_start().len();
            start += line.len();
            if member.is_empty() {
                continue;
            }
            match read_member(member) {
                Ok(Member::Prefix(prefix)) => members.push(format!("\"{}\"", show_prefix(&prefix))),
                Ok(Member::Name(name)) => members.push(format!("\"{name}\"")),
                Err(mistake) => {
                    let mistake = mistake.shifted(at);
                    findings.push(Finding::new(mistake.span, mistake.message).with_hint(mistake.help));
                }
            }
        }
        if !findings.is_empty() {
            self.diagnostics.push(Diagnostics::gather(findings, &Source::new(&file.name, &file.text)));
        }
    }
}

const EXAMPLE: &str = "write { file = \"sets/feeds.txt\" }";
