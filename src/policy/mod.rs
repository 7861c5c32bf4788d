//! The policy language: from the text of one file, for one DMZ interface, to a checked model.
//!
//! `read` parses the text into the `model`, which is pure data. `diagnostic` shows mistakes at their lines
//! and columns, `doubts` warns of what nobody can have meant, `summary` says what each server may do, and
//! `difference` compares two policies. A file with
//! a mistake is refused whole, and every mistake in it is reported.

mod diagnostic;
mod difference;
mod doubts;
mod enforcement;
mod model;
mod name_doubts;
mod read;
mod summary;
#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS};
pub use difference::{PolicyChange, diff, list_changes};
pub use doubts::find_doubts;
pub use enforcement::Enforcement;
pub use model::{
    Alarms, Direction, Endpoint, EtherTypes, Families, Handover, Keyword, Limit, LinkServices, Located,
    Location, MAX_ENTRIES, MailSecurity, MailServer, Mode, NameSettings, NameSources, Need, Peer, Policy,
    PolicyTest, Prefixes, QuarantineTime, Questions, Resolvers, Response, Role, Router, Server, Set,
    Settings, SyslogTarget, TableSizes, Texts, TimeToLive, Tracking, UnknownSources, Value,
};
pub use read::{ReadSetFile, SetFile, parse, parse_need, parse_with_files};
pub use summary::{Detail, Summary, describe, describe_alarms, summarize};

pub(crate) use diagnostic::{Finding, Source};
pub(crate) use read::find_objection;

/// A commented policy to start from, as `portcullis init` prints it. It is valid as it stands.
pub const STARTER: &str = include_str!("starter.toml");
