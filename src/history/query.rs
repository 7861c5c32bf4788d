//! Which alarms are asked for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AlarmEntry, CountRow, SampleRow, State};

/// How grave, the least grave first: as [`crate::alarm::Severity`] is ordered.
const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];

/// How grave a word is; `None` for one that is none of them.
pub fn severity_from_name(name: &str) -> Option<usize> {
    SEVERITIES.iter().position(|known| *known == name)
}

/// What an alarm must be to be shown. Empty: all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only those that are open.
    pub open: bool,
    /// Only of these servers.
    pub servers: Vec<String>,
    /// Only of these kinds.
    pub kinds: Vec<String>,
    /// At least as grave as this.
    pub severity: Option<String>,
    /// Not over before this.
    pub from: Option<Timestamp>,
    /// Not begun after this.
    pub to: Option<Timestamp>,
}

impl Filter {
    /// Whether an alarm is asked for.
    pub fn takes(&self, entry: &AlarmEntry) -> bool {
        let one_of =
            |list: &[String], key: &str| list.is_empty() || list.iter().any(|name| name == entry.text(key));
        let grave = |name: &str| severity_from_name(name).unwrap_or(0);
        let severe =
            self.severity.as_deref().is_none_or(|least| grave(entry.text("severity")) >= grave(least));
        (!self.open || entry.state == State::Open)
            && one_of(&self.servers, "server")
            && one_of(&self.kinds, "kind")
            && severe
            && self.from.is_none_or(|from| entry.time("last").is_none_or(|last| last >= from))
            && self.to.is_none_or(|to| entry.time("since").is_none_or(|since| since <= to))
    }
}

/// Everything that a report is made of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// Alarms that touch the time.
    pub alarms: Vec<AlarmEntry>,
    /// Counts of drops.
    pub counts: Vec<CountRow>,
    /// Raw samples.
    pub samples: Vec<SampleRow>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Severity;

    fn entry() -> AlarmEntry {
        AlarmEntry {
            id: 3,
            state: State::Closed,
            changed: "2026-11-22T16:00:00Z".parse().unwrap(),
            alarm: serde_json::json!({
                "server": "web1", "kind": "spread", "severity": "high",
                "since": "2026-11-22T15:00:00Z", "last": "2026-11-22T15:30:00Z",
            }),
        }
    }

    #[test]
    fn every_filter_takes_and_refuses() {
        let takes = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.takes(&entry())
        };
        assert!(takes(|_| {}));
        assert!(!takes(|filter| filter.open = true));
        assert!(takes(|filter| filter.servers = vec!["mx1".into(), "web1".into()]));
        assert!(!takes(|filter| filter.servers = vec!["mx1".into()]));
        assert!(takes(|filter| filter.kinds = vec!["spread".into()]));
        assert!(!takes(|filter| filter.kinds = vec!["scan".into()]));
        assert!(takes(|filter| filter.severity = Some("high".into())));
        assert!(takes(|filter| filter.severity = Some("low".into())));
        assert!(!takes(|filter| filter.severity = Some("critical".into())));
        assert!(takes(|filter| filter.from = "2026-11-22T15:30:00Z".parse().ok()));
        assert!(!takes(|filter| filter.from = "2026-11-22T15:30:01Z".parse().ok()));
        assert!(takes(|filter| filter.to = "2026-11-22T15:00:00Z".parse().ok()));
        assert!(!takes(|filter| filter.to = "2026-11-22T14:59:59Z".parse().ok()));
    }

    #[test]
    fn severities_are_ordered_as_alarms_order_them() {
        let all = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
        assert!(all.is_sorted());
        assert_eq!(all.map(Severity::name), SEVERITIES);
    }
}
