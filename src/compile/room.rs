//! Whether a policy fits into its tables.

use std::ops::Range;

use crate::policy::{Finding, Located, Location, MAX_ENTRIES, Policy};

/// How much of one table is taken.
struct TableRoom {
    key: &'static str,
    what: &'static str,
    size: Located<u32>,
    taken: usize,
    /// The place in the file that took the first row too many.
    culprit: Option<Range<usize>>,
}

impl TableRoom {
    fn new(key: &'static str, what: &'static str, size: Located<u32>) -> Self {
        Self { key, what, size, taken: 0, culprit: None }
    }

    /// Takes rows, and says whether there was room for them.
    fn take(&mut self, rows: usize) -> bool {
        self.taken = self.taken.saturating_add(rows);
        self.taken <= self.size.value as usize
    }

    fn is_full(&self) -> bool {
        self.taken > self.size.value as usize
    }

    fn blame(&mut self, culprit: Range<usize>) {
        if self.is_full() {
            self.culprit.get_or_insert(culprit);
        }
    }

    fn find(&self) -> Option<Finding> {
        if !self.is_full() {
            return None;
        }
        let Self { key, what, size, taken, .. } = self;
        let setting =
            size.place.map_or_else(|| "the default".to_owned(), |place| format!("line {}", place.line));
        let room = format!("table `{key}` has room for {} ({setting})", size.value);
        let (message, help) = if self.taken > MAX_ENTRIES as usize {
            (
                format!("this policy has more than {MAX_ENTRIES} {what}, and {room}"),
                format!("no table can have more than {MAX_ENTRIES}: let servers share roles"),
            )
        } else {
            (
                format!("this policy has {taken} {what}, and {room}"),
                format!("in [tables], write: {key} = {taken}"),
            )
        };
        Some(Finding::new(self.culprit.clone().unwrap_or_default(), message).with_help(help))
    }
}

/// The tables that a policy fills by itself. The others fill with traffic.
pub(super) struct Room {
    servers: TableRoom,
    needs: TableRoom,
    peers: TableRoom,
}

impl Room {
    pub(super) fn new(policy: &Policy) -> Self {
        let sizes = &policy.tables;
        Self {
            servers: TableRoom::new("servers", "addresses and prefixes of servers", sizes.servers),
            needs: TableRoom::new("needs", "port ranges of needs", sizes.needs),
            peers: TableRoom::new("peers", "addresses and prefixes of peers", sizes.peers),
        }
    }

    pub(super) fn take_server(&mut self, place: &Location) {
        if !self.servers.take(1) {
            self.servers.blame(place.start..place.end);
        }
    }

    pub(super) fn take_need(&mut self) -> bool {
        self.needs.take(1)
    }

    /// No setting could make enough room for the needs.
    pub(super) fn exhaust_needs(&mut self) {
        self.needs.taken = usize::MAX;
    }

    pub(super) fn blame_needs(&mut self, culprit: Range<usize>) {
        self.needs.blame(culprit);
    }

    pub(super) fn take_peers(&mut self, rows: usize) -> bool {
        self.peers.take(rows)
    }

    pub(super) fn blame_peers(&mut self, culprit: Range<usize>) {
        self.peers.blame(culprit);
    }

    /// Whether no setting could make enough room, so that counting can stop.
    pub(super) fn is_exhausted(&self) -> bool {
        self.needs.taken.max(self.peers.taken) > MAX_ENTRIES as usize
    }

    /// One finding for each table that is too small.
    pub(super) fn finish(self) -> Vec<Finding> {
        [&self.servers, &self.needs, &self.peers].into_iter().filter_map(TableRoom::find).collect()
    }
}
