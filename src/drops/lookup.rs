//! What the address of a packet was looked up as.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::clock::show_roughly;

/// The name for which a resolver last answered an address to a server. The wire gave it, so it may say anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// In printable ASCII and lower case. Of a long name the end, behind `...`.
    pub name: Arc<str>,
    /// When it was answered.
    pub at: Timestamp,
}

impl LookedUp {
    /// `looked up as evil.example 2 s before`, before this time.
    pub fn describe(&self, time: Timestamp) -> String {
        // an answer may come again after the packet
        let seconds = u64::try_from(time.duration_since(self.at).as_secs()).unwrap_or(0);
        format!("looked up as {} {} before", self.name, show_roughly(seconds))
    }
}

impl fmt::Display for LookedUp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    at: String,
}

impl Serialize for LookedUp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Record { name: &self.name, at: self.at.to_string() }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_says_how_long_ago_it_was_and_never_that_it_is_to_come() {
        let at: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
        let looked_up = LookedUp { name: "evil.example".into(), at };
        let after = |seconds: i64| looked_up.describe(at + jiff::SignedDuration::from_secs(seconds));
        assert_eq!(after(2), "looked up as evil.example 2 s before");
        assert_eq!(after(7_300), "looked up as evil.example 2 h before");
        assert_eq!(after(-5), "looked up as evil.example 0 s before");
    }
}
