//! The policy language: from the text of one file, for one DMZ interface, to a checked model.
//!
//! A bad file is refused whole, and every mistake in it is reported at its line and column.

mod address;
mod alarms;
mod diagnostic;
mod difference;
mod document;
mod grammar;
mod model;
mod need;
mod parse;
mod response;
mod suggestion;
mod summary;
mod syntax;
mod tables;
#[cfg(test)]
mod tests;

pub use alarms::{Alarms, Endpoint, Syslog};
pub use diagnostic::{Diagnostic, Diagnostics, Located, Location, MAX_DIAGNOSTICS};
pub use difference::{Change, diff, list_changes};
pub use model::{Keyword, Mode, Policy, Role, Server, Set, Settings, Tracking, UnknownSources};
pub use need::{Direction, Limit, Need, Peer, parse_need};
pub use parse::parse;
pub use response::Response;
pub use summary::{Summary, describe, summarize};
pub use tables::{MAX_ENTRIES, TableSizes};

pub(crate) use diagnostic::{Finding, Source};

/// What `portcullis init` prints: a commented policy to start from. It is valid as it stands.
pub const STARTER: &str = include_str!("starter.toml");
