//! A policy file as tables and values. Reading a value reports what is wrong with it.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::mistake::Mistake;
use super::suggestion::{find_closest, suggest};
use crate::policy::diagnostic::{Finding, FindingOrigin, Source};
use crate::policy::model::{Keyword, Location};

/// The most suggestions for one file. Each compares a name with all others, and a file may have tens of
/// thousands of names.
const SUGGESTIONS: usize = 200;

/// The mistakes found so far in a file.
pub(super) struct Findings<'d> {
    source: Source<'d>,
    text: &'d str,
    findings: RefCell<Vec<Finding>>,
    suggestions: RefCell<usize>,
}

impl<'d> Findings<'d> {
    pub(super) fn new(file: &'d str, text: &'d str) -> Self {
        let source = Source::new(file, text);
        Self { source, text, findings: RefCell::default(), suggestions: RefCell::new(SUGGESTIONS) }
    }

    pub(super) fn add(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Location {
        self.source.place(span)
    }

    pub(super) fn suggest<'c>(
        &self,
        name: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<String> {
        let mut left = self.suggestions.borrow_mut();
        *left = left.checked_sub(1)?;
        suggest(name, candidates)
    }

    pub(super) fn finish(self) -> (Source<'d>, Vec<Finding>) {
        (self.source, self.findings.into_inner())
    }
}

/// A string of the file.
pub(super) struct Text<'d> {
    pub(super) value: &'d str,
    /// What a mistake in the whole string points at: the content, or the string with its quotes if it is
    /// empty or has escapes.
    pub(super) span: Range<usize>,
    /// Whether the file has the content byte for byte. Only then can a part of it be pointed at.
    verbatim: bool,
}

impl<'d> Text<'d> {
    fn new(value: &'d str, span: Range<usize>, file: &str) -> Self {
        let inside = span.start + 1..span.end.saturating_sub(1).max(span.start + 1);
        let verbatim = file.get(inside.clone()) == Some(value) && !value.is_empty();
        Self { value, span: if verbatim { inside } else { span }, verbatim }
    }

    /// A part of the string, by bytes of its content.
    pub(super) fn part(&self, part: Range<usize>) -> Range<usize> {
        if !self.verbatim {
            return self.span.clone();
        }
        let end = self.span.end;
        (self.span.start + part.start).min(end)..(self.span.start + part.end).min(end)
    }
}

/// A table of the file, by its name.
pub(super) struct Section<'d, 'f> {
    table: &'d DeTable<'d>,
    /// Its name as a header has it: `policy`, `servers.web1`.
    pub(super) name: String,
    /// The header; the whole table if it is inline.
    pub(super) span: Range<usize>,
    findings: &'f Findings<'d>,
}

/// One entry of a table.
pub(super) struct Entry<'d> {
    pub(super) key: &'d str,
    pub(super) key_span: Range<usize>,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d, 'f> Section<'d, 'f> {
    /// The whole file.
    pub(super) fn root(table: &'d DeTable<'d>, findings: &'f Findings<'d>) -> Self {
        Self { table, name: String::new(), span: 0..0, findings }
    }

    /// The entries in the order of the file.
    pub(super) fn entries(&self) -> Vec<Entry<'d>> {
        let mut entries: Vec<Entry<'d>> = self.table.iter().map(|(key, value)| entry(key, value)).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        entries
    }

    /// Refuses the keys that aren't known.
    pub(super) fn check_keys(&self, known: &[&str]) {
        for entry in self.entries() {
            if known.contains(&entry.key) || entry.key.is_empty() {
                continue; // an empty key is a syntax error already
            }
            let message = match self.name.as_str() {
                "" => format!("unknown table `{}`", entry.key),
                name => format!("unknown key `{}` in [{name}]", entry.key),
            };
            let help = self.findings.suggest(entry.key, known.iter().copied());
            let known_as = if self.name.is_empty() { "tables" } else { "keys" };
            let help = help.unwrap_or_else(|| format!("the {known_as} are {}", known.join(", ")));
            self.findings.add(Finding::new(entry.key_span, message).with_help(help));
        }
    }

    /// The name with dots that somebody gave this table without quotes: its only entry is a table that is no
    /// key of it. `None` if that did not happen.
    pub(super) fn dotted_name(&self, known: &[&str]) -> Option<String> {
        let (_, own) = self.name.split_once('.')?;
        let mut name = own.to_owned();
        let mut table = self.table;
        let mut keys = known;
        while table.len() == 1 {
            let (key, value) = table.iter().next()?;
            let DeValue::Table(inner) = value.get_ref() else { break };
            if keys.contains(&key.get_ref().as_ref()) {
                break;
            }
            name = format!("{name}.{}", key.get_ref());
            (table, keys) = (inner, known);
        }
        (name != own).then_some(name)
    }

    pub(super) fn entry(&self, key: &str) -> Option<Entry<'d>> {
        self.table.get_key_value(key).map(|(key, value)| entry(key, value))
    }

    /// The table under a key, and tables whose names are misspellings of it. [`Section::check_keys`] refuses
    /// those, but what they define must not be reported as missing as well.
    pub(super) fn tables_like(&self, key: &str, known: &[&str]) -> Vec<Section<'d, 'f>> {
        let is_meant = |entry: &Entry<'d>| {
            let closest = || find_closest(entry.key, known.iter().copied());
            let slipped = entry.value.get_ref().is_table() && !known.contains(&entry.key);
            entry.key == key || slipped && closest() == Some(key)
        };
        let entries = self.entries().into_iter().filter(is_meant);
        entries.filter_map(|entry| self.table_of(&entry)).collect()
    }

    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Reports that `what` has a value of another type than it must have.
    fn refuse_type(&self, value: &Spanned<DeValue<'_>>, what: &str, wanted: &str, help: Option<String>) {
        let found = match value.get_ref() {
            DeValue::String(_) => "text",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
            DeValue::Boolean(_) => "true or false",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Datetime(_) => "a date",
        };
        let message = format!("{what} must be {wanted}, not {found}");
        self.findings.add(Finding::new(value.span(), message).with_hint(help));
    }

    /// The same for a value that a file has without quotes.
    fn refuse_quoted(&self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str) {
        let is_quoted = matches!(value.get_ref(), DeValue::String(_));
        let help = is_quoted.then(|| format!("write {wanted} without quotes"));
        self.refuse_type(value, &format!("`{key}`"), wanted, help);
    }

    pub(super) fn text_of(&self, value: &'d Spanned<DeValue<'d>>) -> Option<Text<'d>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Text::new(text, value.span(), self.findings.text)),
            _ => None,
        }
    }

    /// The table under a key.
    pub(super) fn table(&self, key: &str) -> Option<Section<'d, 'f>> {
        self.table_of(&self.entry(key)?)
    }

    pub(super) fn table_of(&self, entry: &Entry<'d>) -> Option<Section<'d, 'f>> {
        let name = self.path_of(entry.key);
        match entry.value.get_ref() {
            DeValue::Table(table) => {
                Some(Section { table, name, span: entry.value.span(), findings: self.findings })
            }
            DeValue::Array(array) if array.iter().any(|element| element.get_ref().is_table()) => {
                let message = format!("`{name}` must be a table, not a list of tables");
                self.findings.add(
                    Finding::new(entry.key_span.clone(), message).with_help(format!("write `[{name}]`")),
                );
                None
            }
            _ => {
                self.refuse_type(
                    entry.value,
                    &format!("`{}`", entry.key),
                    "a table",
                    Some(format!("write `[{name}]`")),
                );
                None
            }
        }
    }

    /// The tables of a list of tables. Anything else is reported.
    pub(super) fn list_of_tables(&self, key: &str) -> Vec<Section<'d, 'f>> {
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let name = format!("[{}]", self.path_of(key));
        let help = || Some(format!("write `[{name}]` before each"));
        let DeValue::Array(array) = entry.value.get_ref() else {
            self.refuse_type(entry.value, &format!("`{key}`"), "a list of tables", help());
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(array.len());
        for element in array {
            match element.get_ref() {
                DeValue::Table(table) => {
                    let (name, span) = (name.clone(), element.span());
                    sections.push(Section { table, name, span, findings: self.findings });
                }
                _ => self.refuse_type(element, &format!("each element of `{key}`"), "a table", help()),
            }
        }
        sections
    }

    /// The text under a key.
    pub(super) fn text(&self, key: &str) -> Option<Text<'d>> {
        let entry = self.entry(key)?;
        let text = self.text_of(entry.value);
        if text.is_none() {
            self.refuse_type(entry.value, &format!("`{key}`"), "text", None);
        }
        text
    }

    /// The text under a key. Anything else is left to another method to report.
    pub(super) fn text_if_any(&self, key: &str) -> Option<Text<'d>> {
        self.text_of(self.entry(key)?.value)
    }

    /// Reports a mistake in the value of a key.
    pub(super) fn refuse_value(&self, key: &str, message: String) {
        if let Some(entry) = self.entry(key) {
            self.findings.add(Finding::new(entry.value.span(), message));
        }
    }

    /// The list of texts under a key. Other elements are reported and left out.
    pub(super) fn list(&self, key: &str) -> Option<Vec<Text<'d>>> {
        Some(self.list_of(&self.entry(key)?)?.0)
    }

    /// The texts of a list, and whether it has nothing else. `None` if the value is not a list.
    pub(super) fn list_of(&self, entry: &Entry<'d>) -> Option<(Vec<Text<'d>>, bool)> {
        let DeValue::Array(array) = entry.value.get_ref() else {
            let lone = self.text_of(entry.value);
            let finding = Finding::new(entry.value.span(), format!("`{}` must be a list", entry.key));
            self.findings.add(match lone {
                Some(text) => finding.with_help(format!("write [{}]", quote_elements(text.value))),
                None => finding,
            });
            return None;
        };
        let mut texts = Vec::with_capacity(array.len());
        for element in array {
            match self.text_of(element) {
                Some(text) => texts.push(text),
                None => self.refuse_type(element, &format!("each element of `{}`", entry.key), "text", None),
            }
        }
        let complete = texts.len() == array.len();
        Some((texts, complete))
    }

    /// The value of a keyword.
    pub(super) fn keyword<K: Keyword>(&self, key: &str) -> Option<(K, Location)> {
        let text = self.text(key)?;
        if let Some((_, value)) = K::WORDS.iter().find(|(word, _)| *word == text.value) {
            return Some((*value, self.findings.place(&text.span)));
        }
        let words: Vec<&str> = K::WORDS.iter().map(|(word, _)| *word).collect();
        let help = self.findings.suggest(text.value, words.iter().copied());
        let help = help.unwrap_or_else(|| format!("the values are {}", words.join(", ")));
        let message = format!("`{key}` can't be `{}`", text.value);
        self.findings.add(Finding::new(text.span, message).with_help(help));
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str) -> Option<(bool, Location)> {
        let entry = self.entry(key)?;
        match entry.value.get_ref() {
            DeValue::Boolean(value) => Some((*value, self.findings.place(&entry.value.span()))),
            _ => {
                self.refuse_quoted(entry.value, key, "true or false");
                None
            }
        }
    }

    /// A whole number within a range.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Option<(u32, Location)> {
        let entry = self.entry(key)?;
        let span = entry.value.span();
        let Some(integer) = entry.value.get_ref().as_integer() else {
            self.refuse_quoted(entry.value, key, "a whole number");
            return None;
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if range.contains(&value) => Some((value, self.findings.place(&span))),
            _ => {
                let message = format!("`{key}` must be from {} to {}", range.start(), range.end());
                self.findings.add(Finding::new(span, message));
                None
            }
        }
    }

    /// The whole numbers of a list, within a range. Other elements are reported and left out.
    pub(super) fn integers(
        &self,
        key: &str,
        what: &str,
        range: RangeInclusive<u32>,
        range_in_words: &str,
    ) -> Option<Vec<u32>> {
        let entry = self.entry(key)?;
        let DeValue::Array(array) = entry.value.get_ref() else {
            self.refuse_type(entry.value, &format!("`{key}`"), "a list of whole numbers", None);
            return None;
        };
        let mut numbers = Vec::with_capacity(array.len());
        for element in array {
            let Some(integer) = element.get_ref().as_integer() else {
                self.refuse_type(element, what, "a whole number", None);
                continue;
            };
            match u32::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) if range.contains(&number) => numbers.push(number),
                _ => {
                    let message = format!("{what} must be {range_in_words}");
                    self.findings.add(Finding::new(element.span(), message));
                }
            }
        }
        Some(numbers)
    }

    /// The texts under a key, which has one text or a list of them, and whether it has nothing else.
    pub(super) fn one_or_more(&self, entry: &Entry<'d>) -> Option<(Vec<Text<'d>>, bool)> {
        match entry.value.get_ref() {
            DeValue::Array(_) => self.list_of(entry),
            DeValue::String(_) => Some((self.text_of(entry.value).into_iter().collect(), true)),
            _ => {
                self.refuse_type(entry.value, &format!("`{}`", entry.key), "text or a list", None);
                None
            }
        }
    }

    /// The path of a file under a key.
    pub(super) fn path(&self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if text.value.is_empty() || text.value.contains('\0') {
            self.findings.add(Finding::new(text.span, format!("`{key}` must be the path of a file")));
            return None;
        }
        Some(text.value.to_owned())
    }

    /// The place of a span.
    pub(super) fn place(&self, span: &Range<usize>) -> Location {
        self.findings.place(span)
    }

    /// Reports a finding.
    pub(super) fn add(&self, finding: Finding) {
        self.findings.add(finding);
    }

    /// The closest of several words, as help.
    pub(super) fn suggest<'c>(
        &self,
        name: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<String> {
        self.findings.suggest(name, candidates)
    }

    /// Reports a mistake in a string.
    pub(super) fn refuse(&self, text: &Text<'_>, mistake: Mistake) {
        self.findings.add(Finding::new(text.part(mistake.span), mistake.message).with_hint(mistake.help));
    }

    /// Reports a key that should be there.
    pub(super) fn miss(&self, key: &str, help: &str) {
        let finding = Finding::new(self.span.clone(), format!("[{}] has no `{key}`", self.name));
        self.findings.add(finding.with_help(help).with_origin(FindingOrigin::Absent));
    }
}

/// A text as the elements of a list: a list that somebody wrote into one text has several.
fn quote_elements(text: &str) -> String {
    let is_command = text.starts_with('/');
    let parts = text.split(|letter: char| letter == ',' || is_command && letter.is_whitespace());
    let parts: Vec<String> =
        parts.map(str::trim).filter(|part| !part.is_empty()).map(|part| format!("\"{part}\"")).collect();
    if parts.is_empty() { "\"\"".to_owned() } else { parts.join(", ") }
}

fn entry<'d>(key: &'d Spanned<DeString<'d>>, value: &'d Spanned<DeValue<'d>>) -> Entry<'d> {
    Entry { key: key.get_ref(), key_span: key.span(), value }
}
