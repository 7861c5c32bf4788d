//! Ratings: severities that the policy gives alarms by server, kind or both. They change what people read. How
//! drops are recognised, and what may lead to a quarantine, goes by the gate's own severity.

use std::collections::BTreeMap;
use std::fmt;

use super::{Alarm, Kind, Part, Severity};
use crate::drops::DropVerdict;

/// What a rating is about. At least one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rated {
    /// `None`: every server.
    pub server: Option<String>,
    /// `None`: every kind.
    pub kind: Option<Kind>,
}

impl fmt::Display for Rated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.server, self.kind) {
            (Some(server), Some(kind)) => write!(f, "{server}/{kind}"),
            (Some(server), None) => f.write_str(server),
            (None, Some(kind)) => f.pad(kind.name()),
            (None, None) => f.write_str("all"),
        }
    }
}

/// `[alarms.severity]` of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ratings(pub BTreeMap<Rated, Severity>);

impl Ratings {
    /// The severity of a kind of a server's drops: that of both, otherwise the more severe one of the server and the kind.
    fn find(&self, server: Option<&str>, kind: Kind) -> Option<Severity> {
        if self.0.is_empty() {
            return None;
        }
        let get = |server: Option<&str>, kind| {
            self.0.get(&Rated { server: server.map(str::to_owned), kind }).copied()
        };
        let of_server = |kind| server.and_then(|server| get(Some(server), kind));
        of_server(Some(kind)).or_else(|| of_server(None).max(get(None, Some(kind))))
    }

    /// Gives the parts of an alarm their severity, the most severe first. The gate's own severity stays in `rated`.
    pub(super) fn rate(&self, alarm: &mut Alarm) {
        if self.0.is_empty() {
            return;
        }
        let own = alarm.severity();
        let server = alarm.server.as_ref().map(|server| server.name.clone());
        for part in &mut alarm.parts {
            if let Some(severity) = self.find(server.as_deref(), part.kind) {
                part.severity = match part.verdict {
                    Some(DropVerdict::WouldDrop) => severity.lower(),
                    Some(DropVerdict::Drop) | None => severity,
                };
            }
        }
        alarm.parts.sort_by_key(|part: &Part| std::cmp::Reverse(part.rank()));
        alarm.rated = (alarm.severity() != own).then_some(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_both_comes_first_and_of_two_the_graver_one_counts() {
        let rated = |server: Option<&str>, kind| Rated { server: server.map(str::to_owned), kind };
        let ratings = Ratings(BTreeMap::from([
            (rated(Some("web1"), Some(Kind::Attempt)), Severity::Low),
            (rated(Some("web1"), None), Severity::Medium),
            (rated(None, Some(Kind::Scan)), Severity::Critical),
            (rated(None, Some(Kind::Attempt)), Severity::High),
        ]));
        let find = |server, kind| ratings.find(server, kind);
        assert_eq!(find(Some("web1"), Kind::Attempt), Some(Severity::Low));
        assert_eq!(find(Some("web1"), Kind::Fetch), Some(Severity::Medium));
        assert_eq!(find(Some("web1"), Kind::Scan), Some(Severity::Critical));
        assert_eq!(find(Some("mx1"), Kind::Attempt), Some(Severity::High));
        assert_eq!(find(Some("mx1"), Kind::Fetch), None);
        assert_eq!(find(None, Kind::Scan), Some(Severity::Critical));
    }
}
