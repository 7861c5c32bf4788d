//! `[alarms]`: where alarms go.

use super::diagnostic::Place;
use super::document::Table;

/// The sinks of a policy; each is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// File that is appended to, one EVE JSON event a line.
    pub eve: Option<(String, Place)>,
}

const KEYS: &[&str] = &["eve"];

/// Reads `[alarms]`. A new sink takes a field above, its key in `KEYS`, and a line here.
pub(super) fn read_alarms(table: &Table<'_, '_>) -> Alarms {
    table.check_keys(KEYS);
    Alarms { eve: table.path("eve") }
}
