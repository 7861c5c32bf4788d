//! The policy language: from the text of one file, for one DMZ interface, to a checked model.
//!
//! A bad file is refused whole, and every mistake in it is reported at its line and column.

mod diagnostic;
mod difference;
mod enforcement;
mod model;
mod read;
mod summary;
#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS};
pub use difference::{Change, diff, list_changes};
pub use enforcement::Enforcement;
pub use model::{
    Alarms, Direction, Endpoint, Keyword, Limit, Located, Location, MAX_ENTRIES, Mode, Need, Peer, Policy,
    QuarantineTime, Response, Role, Server, Set, Settings, Syslog, TableSizes, Tracking, UnknownSources,
    Value,
};
pub use read::{parse, parse_need};
pub use summary::{Summary, describe, summarize};

pub(crate) use diagnostic::{Finding, Source};

/// What `portcullis init` prints: a commented policy to start from. It is valid as it stands.
pub const STARTER: &str = include_str!("starter.toml");
