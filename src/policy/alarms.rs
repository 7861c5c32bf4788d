//! `[alarms]`: where alarms go.

use super::diagnostic::Place;
use super::document::Table;
use super::response::{self, Response, read_response};

/// The sinks of a policy; each is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// File that is appended to, one EVE JSON event a line.
    pub eve: Option<(String, Place)>,
    /// What the daemon does by itself.
    pub response: Response,
}

const KEYS: &[&str] = &["eve"];

/// Reads `[alarms]`. A new sink takes a field above, its key in `KEYS`, and a line here.
pub(super) fn read_alarms(table: &Table<'_, '_>) -> Alarms {
    table.check_keys(&[KEYS, response::KEYS].concat());
    Alarms { eve: table.path("eve"), response: read_response(table) }
}
