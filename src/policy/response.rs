//! `[alarms]`: what the daemon does by itself when an alarm goes off, and how long it remembers.

use super::address::Mistake;
use super::document::Table;
use super::suggestion::suggest;
use crate::alarm::{KINDS, Kind};
use crate::clock::parse_time;

/// Keys of `[alarms]` that are read here.
pub(super) const KEYS: &[&str] = &["quarantine_on", "quarantine_for", "history_days"];

/// An hour: long enough for somebody to come, short enough for a false alarm.
const QUARANTINE_S: u64 = 3_600;
const HISTORY_DAYS: u32 = 90;
/// Ten years.
const MAX_HISTORY_DAYS: u32 = 3_650;

/// What the daemon does by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Kinds of alarms that put their server into quarantine; none unless asked for.
    pub quarantine_on: Vec<Kind>,
    /// For so many seconds; `None` is until somebody releases it.
    pub quarantine_s: Option<u64>,
    /// Alarms and drops are kept for so many days.
    pub history_days: u32,
}

impl Default for Response {
    fn default() -> Self {
        Self { quarantine_on: Vec::new(), quarantine_s: Some(QUARANTINE_S), history_days: HISTORY_DAYS }
    }
}

/// Reads these keys of `[alarms]`.
pub(super) fn read_response(table: &Table<'_, '_>) -> Response {
    let mut response = Response::default();
    for text in table.list("quarantine_on").unwrap_or_default() {
        match read_kind(text.value) {
            Ok(kind) => response.quarantine_on.push(kind),
            Err(mistake) => table.refuse(&text, mistake),
        }
    }
    if let Some(text) = table.text("quarantine_for") {
        match (text.value, parse_time(text.value)) {
            ("released", _) => response.quarantine_s = None,
            (_, Ok(time)) => response.quarantine_s = Some(time.as_secs()),
            (_, Err(why)) => {
                let mistake = Mistake::new(0..text.value.len(), format!("`quarantine_for`: {why}"));
                table.refuse(&text, mistake.with_help("or \"released\": until `portcullis release`"));
            }
        }
    }
    let days = table.integer("history_days", 1..=MAX_HISTORY_DAYS, HISTORY_DAYS);
    response.history_days = days.value;
    response
}

fn read_kind(word: &str) -> Result<Kind, Mistake> {
    let refuse = |message: String| Mistake::new(0..word.len(), message);
    match KINDS.iter().find(|kind| kind.name() == word) {
        Some(Kind::Spoof) => Err(refuse("`spoof` can't lead to a quarantine".to_owned())
            .with_help("whoever forges a server's address could cut that server off")),
        Some(Kind::Stray) => Err(refuse("`stray` can't lead to a quarantine".to_owned())
            .with_help("idle connections of healthy servers end this way")),
        Some(kind) => Ok(*kind),
        None => {
            let usable =
                KINDS.iter().map(|kind| kind.name()).filter(|name| !["spoof", "stray"].contains(name));
            let usable: Vec<&str> = usable.collect();
            let help = suggest(word, usable.iter().copied());
            let help = help.unwrap_or_else(|| format!("it is one of {}", usable.join(", ")));
            Err(refuse(format!("there is no kind of alarm `{word}`")).with_help(help))
        }
    }
}
