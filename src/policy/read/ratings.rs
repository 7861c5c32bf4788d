//! `[alarms.severity]`: severities by server, kind or both.

use super::document::{Entry, Section};
use crate::alarm::{KINDS, Rated, Ratings, SEVERITIES, Severity};
use crate::policy::diagnostic::Finding;
use crate::policy::model::Server;

const FORMS: &str = "write a server, a kind, or both: \"web1\", \"scan\", \"web1/attempt\"";

/// Reads the table. What names no server or kind is refused, for it would silently do nothing.
pub(super) fn read_ratings(section: &Section<'_, '_>, servers: &[Server]) -> Ratings {
    let mut ratings = Ratings::default();
    for entry in section.entries() {
        let rated = read_rated(section, &entry, servers);
        let severity = read_severity(section, &entry);
        if let (Some(rated), Some(severity)) = (rated, severity) {
            ratings.0.insert(rated, severity);
        }
    }
    ratings
}

fn read_rated(section: &Section<'_, '_>, entry: &Entry<'_>, servers: &[Server]) -> Option<Rated> {
    let is_server = |word: &str| servers.iter().any(|server| server.name == word);
    let find_kind = |word: &str| KINDS.iter().find(|kind| kind.name() == word).copied();
    let refuse = |message: String, help: Option<String>| {
        let help = help.unwrap_or_else(|| FORMS.to_owned());
        section.add(Finding::new(entry.key_span.clone(), message).with_help(help));
    };
    let names = || servers.iter().map(|server| server.name.as_str());
    let kinds = || KINDS.iter().map(|kind| kind.name());
    if let Some((server, kind)) = entry.key.split_once('/') {
        let found = find_kind(kind);
        if found.is_none() {
            refuse(format!("there is no kind of alarm `{kind}`"), section.suggest(kind, kinds()));
        }
        if !is_server(server) {
            refuse(format!("there is no server `{server}`"), section.suggest(server, names()));
            return None;
        }
        return found.map(|kind| Rated { server: Some(server.to_owned()), kind: Some(kind) });
    }
    match (is_server(entry.key), find_kind(entry.key)) {
        (true, Some(kind)) => {
            let help = format!("write \"{}/KIND\" for the server; it does not say the kind", entry.key);
            refuse(format!("`{kind}` is a server and a kind of alarm"), Some(help));
            None
        }
        (true, None) => Some(Rated { server: Some(entry.key.to_owned()), kind: None }),
        (false, Some(kind)) => Some(Rated { server: None, kind: Some(kind) }),
        (false, None) => {
            let help = section.suggest(entry.key, names().chain(kinds()));
            refuse(format!("`{}` is no server and no kind of alarm", entry.key), help);
            None
        }
    }
}

fn read_severity(section: &Section<'_, '_>, entry: &Entry<'_>) -> Option<Severity> {
    let text = section.text(entry.key)?;
    let severity = Severity::from_name(text.value);
    if severity.is_none() {
        let words = SEVERITIES.map(Severity::name);
        let help = section.suggest(text.value, words);
        let help = help.unwrap_or_else(|| format!("the severities are {}", words.join(", ")));
        let message = format!("there is no severity `{}`", text.value);
        section.add(Finding::new(text.span, message).with_help(help));
    }
    severity
}
