//! Questions to the history, and the records of a report.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AlarmEntry, AlarmState, MinuteCount, RemovedCounts, SampleRow};
use crate::alarm::Severity;
use crate::audit::Event;

/// Which alarms are asked for. The default asks for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlarmFilter {
    /// Only open ones.
    pub open: bool,
    /// Only of these servers; empty: of any.
    pub servers: Vec<String>,
    /// Only of these kinds; empty: of any.
    pub kinds: Vec<String>,
    /// At least of this severity.
    pub severity: Option<String>,
    /// Only those whose last drop came at this time or later.
    pub from: Option<Timestamp>,
    /// Only those whose first drop came at this time or earlier.
    pub to: Option<Timestamp>,
    /// Audit events as well, of a client that follows.
    pub audit: bool,
}

impl AlarmFilter {
    /// Whether audit events are asked for. They have neither a server nor a kind nor a severity.
    pub fn wants_audit(&self) -> bool {
        self.audit && self.servers.is_empty() && self.kinds.is_empty() && self.severity.is_none()
    }

    /// Whether this alarm is asked for.
    pub fn matches(&self, entry: &AlarmEntry) -> bool {
        let one_of =
            |list: &[String], key: &str| list.is_empty() || list.iter().any(|name| name == entry.text(key));
        let severity = |name: &str| Severity::from_name(name).unwrap_or(Severity::Low);
        let severe =
            self.severity.as_deref().is_none_or(|least| severity(entry.text("severity")) >= severity(least));
        (!self.open || entry.state == AlarmState::Open)
            && one_of(&self.servers, "server")
            && one_of(&self.kinds, "kind")
            && severe
            && self.from.is_none_or(|from| entry.time("last").is_none_or(|last| last >= from))
            && self.to.is_none_or(|to| entry.time("since").is_none_or(|since| since <= to))
    }
}

/// The records that a report is made of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReportData {
    /// Alarms with a drop in the time of the report, or around it.
    pub alarms: Vec<AlarmEntry>,
    /// Counts of drops.
    pub counts: Vec<MinuteCount>,
    /// Counts that were removed for lack of room.
    #[serde(default)]
    pub removed: Vec<RemovedCounts>,
    /// Raw samples.
    pub samples: Vec<SampleRow>,
    /// What was done to the gate.
    #[serde(default)]
    pub audit: Vec<Event>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AlarmEntry {
        AlarmEntry {
            id: 3,
            state: AlarmState::Closed,
            changed: "2026-11-22T16:00:00Z".parse().unwrap(),
            alarm: serde_json::json!({
                "server": "web1", "kind": "spread", "severity": "high",
                "since": "2026-11-22T15:00:00Z", "last": "2026-11-22T15:30:00Z",
            }),
        }
    }

    #[test]
    fn every_filter_accepts_and_rejects() {
        let accepts = |change: fn(&mut AlarmFilter)| {
            let mut filter = AlarmFilter::default();
            change(&mut filter);
            filter.matches(&entry())
        };
        assert!(accepts(|_| {}));
        assert!(!accepts(|filter| filter.open = true));
        assert!(accepts(|filter| filter.servers = vec!["mx1".into(), "web1".into()]));
        assert!(!accepts(|filter| filter.servers = vec!["mx1".into()]));
        assert!(accepts(|filter| filter.kinds = vec!["spread".into()]));
        assert!(!accepts(|filter| filter.kinds = vec!["scan".into()]));
        assert!(accepts(|filter| filter.severity = Some("high".into())));
        assert!(accepts(|filter| filter.severity = Some("low".into())));
        assert!(!accepts(|filter| filter.severity = Some("critical".into())));
        assert!(accepts(|filter| filter.from = "2026-11-22T15:30:00Z".parse().ok()));
        assert!(!accepts(|filter| filter.from = "2026-11-22T15:30:01Z".parse().ok()));
        assert!(accepts(|filter| filter.to = "2026-11-22T15:00:00Z".parse().ok()));
        assert!(!accepts(|filter| filter.to = "2026-11-22T14:59:59Z".parse().ok()));
    }
}
