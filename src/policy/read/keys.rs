//! The keys of one table, read from the file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::alarms::{parse_alertmanager, parse_kind, parse_quarantine_time, parse_syslog};
use super::document::{Section, Text};
use super::grammar::read_needs;
use super::mistake::Mistake;
use crate::alarm::Kind;
use crate::policy::model::keys::ReadKeys;
use crate::policy::model::{Direction, Keyword, Located, Need, QuarantineTime, Set, Syslog};

/// Reads the keys of a section.
pub(super) struct KeyReader<'a, 'd, 'f> {
    section: &'a Section<'d, 'f>,
    sets: &'a BTreeMap<String, Set>,
    /// Keys of files that are written, with their paths.
    written: RefCell<Vec<(&'static str, &'d str)>>,
}

impl<'a, 'd, 'f> KeyReader<'a, 'd, 'f> {
    /// A reader for needs that may name `sets`.
    pub(super) fn new(section: &'a Section<'d, 'f>, sets: &'a BTreeMap<String, Set>) -> Self {
        Self { section, sets, written: RefCell::default() }
    }

    /// The value of a text.
    fn parse<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, Mistake>) -> Option<T> {
        let text = self.section.text(key)?;
        parse(text.value).map_err(|mistake| self.section.refuse(&text, mistake)).ok()
    }
}

impl ReadKeys for KeyReader<'_, '_, '_> {
    fn keyword<K: Keyword>(&self, key: &'static str, default: Located<K>) -> Located<K> {
        let read = self.section.keyword(key);
        read.map_or(default, |(value, place)| Located { value, place: Some(place) })
    }

    fn boolean(&self, key: &'static str, default: Located<bool>) -> Located<bool> {
        let read = self.section.boolean(key);
        read.map_or(default, |(value, place)| Located { value, place: Some(place) })
    }

    fn integer(&self, key: &'static str, default: Located<u32>, range: RangeInclusive<u32>) -> Located<u32> {
        let read = self.section.integer(key, range);
        read.map_or(default, |(value, place)| Located { value, place: Some(place) })
    }

    fn needs(&self, key: &'static str, default: Vec<Need>, direction: Direction) -> Vec<Need> {
        read_needs(self.section, key, direction, self.sets).unwrap_or(default)
    }

    fn input_file(&self, key: &'static str, default: Option<String>) -> Option<String> {
        self.section.path(key).or(default)
    }

    fn output_file(&self, key: &'static str, default: Option<String>) -> Option<String> {
        if let Some(text) = self.section.text_if_any(key) {
            // With two formats in one file, no reader of either could parse it.
            let mut written = self.written.borrow_mut();
            if let Some((other, _)) = written.iter().find(|(_, path)| *path == text.value) {
                let message = format!("`{key}` is the same file as `{other}`");
                let mistake = Mistake::new(0..text.value.len(), message);
                self.section.refuse(&text, mistake.with_help("give each its own file"));
            }
            written.push((key, text.value));
        }
        self.section.path(key).or(default)
    }

    fn syslog(&self, key: &'static str, default: Option<Syslog>) -> Option<Syslog> {
        self.parse(key, parse_syslog).or(default)
    }

    fn alertmanager(&self, key: &'static str, default: Option<String>) -> Option<String> {
        self.parse(key, parse_alertmanager).or(default)
    }

    fn command(&self, key: &'static str, default: Vec<String>) -> Vec<String> {
        let Some(words) = self.section.list(key) else {
            return default;
        };
        let Some(program) = words.first() else {
            self.section.refuse_value(key, format!("`{key}` must be a program and its arguments"));
            return default;
        };
        if !program.value.starts_with('/') {
            let mistake = Mistake::new(0..program.value.len(), "the program must have its full path");
            let mistake = mistake
                .with_help("write a path like \"/usr/local/bin/page\": no shell looks for the program");
            self.section.refuse(program, mistake);
        }
        let has_nul = |text: &&Text<'_>| text.value.contains('\0');
        for text in words.iter().filter(has_nul) {
            self.section
                .refuse(text, Mistake::new(0..text.value.len(), "an argument can't have a NUL character"));
        }
        words.iter().map(|text| text.value.to_owned()).collect()
    }

    fn kinds(&self, key: &'static str, default: Vec<Kind>) -> Vec<Kind> {
        let Some(texts) = self.section.list(key) else {
            return default;
        };
        let refuse = |text, mistake| self.section.refuse(text, mistake);
        texts.iter().filter_map(|text| parse_kind(text.value).map_err(|why| refuse(text, why)).ok()).collect()
    }

    fn quarantine_time(&self, key: &'static str, default: QuarantineTime) -> QuarantineTime {
        self.parse(key, parse_quarantine_time).unwrap_or(default)
    }
}
