//! Which sinks fail, and which ones are back. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::audit::{Action, Entry};
use crate::sink::SinkStatus;

/// A sink that fails again and again is reported so often at most.
const PERIOD: Duration = Duration::from_secs(300);

/// The sinks as they were last reported.
#[derive(Debug, Default)]
pub(super) struct SinkWatch {
    sinks: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    is_failing: bool,
    reported: Instant,
}

impl SinkWatch {
    /// What has changed.
    pub(super) fn compare(&mut self, now: Instant, status: &[SinkStatus]) -> Vec<Entry> {
        self.sinks.retain(|name, _| status.iter().any(|sink| sink.name == *name));
        let mut entries = Vec::new();
        for sink in status {
            match (&sink.error, self.sinks.get_mut(&sink.name)) {
                (Some(_), Some(seen)) if seen.is_failing => {}
                (Some(_), Some(seen)) if now.duration_since(seen.reported) < PERIOD => {}
                (Some(error), _) => {
                    self.sinks.insert(sink.name.clone(), Seen { is_failing: true, reported: now });
                    entries.push(Entry::done(Action::SinkFailed).about(&sink.name).detail(error));
                }
                (None, Some(seen)) if seen.is_failing => {
                    seen.is_failing = false;
                    let lost = match sink.lost {
                        0 => "it has lost no event".to_owned(),
                        1 => "it has lost 1 event since the daemon began".to_owned(),
                        lost => format!("it has lost {lost} events since the daemon began"),
                    };
                    entries.push(Entry::done(Action::SinkBack).about(&sink.name).detail(lost));
                }
                (None, _) => {}
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(error: Option<&str>) -> [SinkStatus; 1] {
        let error = error.map(str::to_owned);
        [SinkStatus { name: "eve /e".to_owned(), written: 0, failures: 0, lost: 0, pending: 0, error }]
    }

    #[test]
    fn a_sink_that_fails_is_reported_once_and_so_is_its_return_and_one_that_flaps_is_no_flood() {
        let mut watch = SinkWatch::default();
        let start = Instant::now();
        let mut look = |seconds, error| watch.compare(start + Duration::from_secs(seconds), &status(error));
        assert_eq!(look(0, None), []);
        let failed = Entry::done(Action::SinkFailed).about("eve /e").detail("full");
        assert_eq!(look(1, Some("full")), std::slice::from_ref(&failed));
        assert_eq!(look(2, Some("full")), []);
        let back = Entry::done(Action::SinkBack).about("eve /e").detail("it has lost no event");
        assert_eq!(look(3, None), std::slice::from_ref(&back));
        assert_eq!(look(4, Some("full")), []);
        assert_eq!(look(5, None), []);
        assert_eq!(look(301, Some("full")), [failed]);
        assert_eq!(look(302, None), [back]);
    }
}
