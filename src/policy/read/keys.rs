//! The keys of one table, read from the file.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use super::alarms::{
    parse_alertmanager, parse_kind, parse_mail_address, parse_mail_server, parse_quarantine_time,
    parse_syslog, parse_user,
};
use super::document::{Section, Text};
use super::grammar::read_needs;
use super::log_files::check_output_file;
use super::mistake::Mistake;
use super::names::{find_nat64_objection, parse_interface, parse_resolver, read_prefixes};
use super::peer_names::PeerNames;
use crate::abi::layout;
use crate::alarm::Kind;
use crate::policy::diagnostic::Finding;
use crate::policy::model::keys::ReadKeys;
use crate::policy::model::{
    Direction, EtherTypes, Keyword, LinkServices, Located, Location, MailServer, Need, Prefixes,
    QuarantineTime, Resolvers, SyslogTarget, Texts, TimeToLive,
};

/// A week, in seconds: the longest time for which an answer may count.
const LONGEST_TTL_S: u32 = 604_800;

/// From here on the number of a frame is an EtherType, and no length (IEEE 802.3).
const LEAST_ETHERTYPE: u16 = 0x0600;

/// Reads the keys of a section.
pub(super) struct KeyReader<'a, 'd, 'f> {
    section: &'a Section<'d, 'f>,
    names: &'a PeerNames<'a>,
    /// Keys of files that are written, with their paths.
    written: RefCell<Vec<(&'static str, String)>>,
}

impl<'a, 'd, 'f> KeyReader<'a, 'd, 'f> {
    /// A reader for needs whose peers may have these names.
    pub(super) fn new(section: &'a Section<'d, 'f>, names: &'a PeerNames<'a>) -> Self {
        Self { section, names, written: RefCell::default() }
    }

    /// The value of a text.
    fn parse<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, Mistake>) -> Option<T> {
        let text = self.section.text(key)?;
        parse(text.value).map_err(|mistake| self.section.refuse(&text, mistake)).ok()
    }

    /// One text or a list of texts, each once.
    fn parse_list(&self, key: &str, parse: impl Fn(&str) -> Result<String, Mistake>) -> Option<Texts> {
        let placed = self.parse_placed_list(key, parse)?;
        Some(Texts(placed.into_iter().map(|(text, _)| text).collect()))
    }

    fn parse_placed_list(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<String, Mistake>,
    ) -> Option<Vec<(String, Location)>> {
        let texts = match self.section.text_if_any(key) {
            Some(text) => vec![text],
            None => self.section.list(key)?,
        };
        let mut values: Vec<(String, Location)> = Vec::with_capacity(texts.len());
        for text in &texts {
            match parse(text.value) {
                Ok(value) if values.iter().any(|(known, _)| *known == value) => {
                    let message = format!("`{key}` has {value} twice");
                    self.section.refuse(text, Mistake::new(0..text.value.len(), message));
                }
                Ok(value) => values.push((value, self.section.place(&text.span))),
                Err(mistake) => self.section.refuse(text, mistake),
            }
        }
        Some(values)
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
        read_needs(self.section, key, direction, self.names).unwrap_or(default)
    }

    fn link_services(&self, key: &'static str, default: LinkServices) -> LinkServices {
        let Some(needs) = read_needs(self.section, key, Direction::Out, self.names) else {
            return default;
        };
        for need in &needs {
            let clauses = [
                ("to", !need.peers.is_empty()),
                ("sport", need.sport.is_some()),
                ("limit", need.limit.is_some()),
            ];
            for (clause, _) in clauses.into_iter().filter(|(_, has)| *has) {
                let message = format!("a need of `{key}` has no `{clause}`");
                self.section.add(
                    Finding::new(need.place.start..need.place.end, message)
                        .with_help("write a protocol and a port alone: they hold for the link"),
                );
            }
        }
        LinkServices(needs)
    }

    fn ethertypes(&self, key: &'static str, default: EtherTypes) -> EtherTypes {
        const MOST: usize = layout::QUIET_ETHERTYPES_MAX.0 as usize;
        let what = format!("each element of `{key}`");
        let range = LEAST_ETHERTYPE.into()..=u16::MAX.into();
        let Some(numbers) = self.section.integers(key, &what, range, "from 0x0600 to 0xffff") else {
            return default;
        };
        let mut list = Vec::with_capacity(numbers.len());
        // They are at most 0xffff, so they fit.
        numbers.iter().map(|number| *number as u16).for_each(|number| {
            if !list.contains(&number) {
                list.push(number);
            }
        });
        if list.len() > MOST {
            self.section.refuse_value(key, format!("`{key}` has {}, and at most {MOST} fit", list.len()));
        }
        EtherTypes(list)
    }

    fn input_file(&self, key: &'static str, default: Option<String>) -> Option<String> {
        self.section.path(key).or(default)
    }

    fn output_file(&self, key: &'static str, default: Option<String>) -> Option<String> {
        let Some(text) = self.section.text_if_any(key).filter(|text| !text.value.is_empty()) else {
            return self.section.path(key).or(default);
        };
        let mut written = self.written.borrow_mut();
        match check_output_file(key, text.value, &written) {
            Ok(path) => written.push((key, path)),
            Err(mistake) => self.section.refuse(&text, mistake),
        }
        self.section.path(key).or(default)
    }

    fn syslog(&self, key: &'static str, default: Option<SyslogTarget>) -> Option<SyslogTarget> {
        self.parse(key, parse_syslog).or(default)
    }

    fn alertmanagers(&self, key: &'static str, default: Texts) -> Texts {
        self.parse_list(key, parse_alertmanager).unwrap_or(default)
    }

    fn user(&self, key: &'static str, default: Option<String>) -> Option<String> {
        self.parse(key, parse_user).or(default)
    }

    fn mail_server(&self, key: &'static str, default: Option<MailServer>) -> Option<MailServer> {
        self.parse(key, parse_mail_server).or(default)
    }

    fn mail_address(&self, key: &'static str, default: Option<String>) -> Option<String> {
        self.parse(key, parse_mail_address).or(default)
    }

    fn mail_addresses(&self, key: &'static str, default: Texts) -> Texts {
        self.parse_list(key, parse_mail_address).unwrap_or(default)
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

    fn resolvers(&self, key: &'static str, default: Resolvers) -> Resolvers {
        let parse = |text: &str| parse_resolver(text, self.names);
        self.parse_placed_list(key, parse).map_or(default, Resolvers)
    }

    fn interfaces(&self, key: &'static str, default: Texts) -> Texts {
        self.parse_list(key, parse_interface).unwrap_or(default)
    }

    fn prefixes(&self, key: &'static str, default: Prefixes) -> Prefixes {
        read_prefixes(self.section, key, |_| None).unwrap_or(default)
    }

    fn nat64_prefixes(&self, key: &'static str, default: Prefixes) -> Prefixes {
        read_prefixes(self.section, key, find_nat64_objection).unwrap_or(default)
    }

    fn time_to_live(&self, key: &'static str, default: TimeToLive) -> TimeToLive {
        let what = format!("each element of `{key}`");
        let range = 0..=LONGEST_TTL_S;
        let Some(seconds) = self.section.integers(key, &what, range, "from 0 to 604800 (a week)") else {
            return default;
        };
        match seconds.as_slice() {
            [floor_s, cap_s] if floor_s <= cap_s && *cap_s > 0 => {
                TimeToLive { floor_s: *floor_s, cap_s: *cap_s }
            }
            _ => {
                let message = format!("`{key}` must be two numbers: the seconds at least, and at most");
                self.section.refuse_value(key, message);
                default
            }
        }
    }

    fn quarantine_time(&self, key: &'static str, default: QuarantineTime) -> QuarantineTime {
        self.parse(key, parse_quarantine_time).unwrap_or(default)
    }
}
