//! `doctor` once a minute: what it finds is an alarm until it is gone. It looks in a thread of its own, because a disk
//! may hang, and the daemon waits for none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use log::debug;

use super::metrics::snapshot::Snapshot;
use crate::alarm::GateTrouble;
use crate::doctor::{Diagnosis, FindingId, SinkFacts, SinkState, examine};
use crate::gate::{Gate, GatePlace};
use crate::sink::SinkStatus;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(60);
/// Before the first look: the sinks are tried meanwhile.
const FIRST: Duration = Duration::from_secs(5);

/// What has appeared and what is over since the look before.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    pub(super) appeared: Vec<(GateTrouble, String)>,
    pub(super) over: Vec<GateTrouble>,
}

/// The watch. Its thread ends with it.
pub(super) struct DoctorWatch {
    looks: Receiver<Diagnosis>,
    seen: BTreeMap<GateTrouble, String>,
    _stop: SyncSender<()>,
}

impl DoctorWatch {
    /// Begins to look.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn start(place: GatePlace, snapshot: Arc<Snapshot>) -> anyhow::Result<DoctorWatch> {
        let (first, period) = find_times();
        let (stop, stopped) = sync_channel(1);
        let (sender, looks) = sync_channel(1);
        let work = move || {
            let mut wait = first;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = period;
                if let Some(diagnosis) = look(&place, &snapshot)
                    && sender.send(diagnosis).is_err()
                {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("doctor".to_owned()).spawn(work).context("no thread for doctor")?;
        Ok(DoctorWatch { looks, seen: BTreeMap::new(), _stop: stop })
    }

    /// What the last look has found that was not so before. Waits for nothing.
    pub(super) fn take_news(&mut self) -> News {
        let mut news = News::default();
        loop {
            match self.looks.try_recv() {
                Ok(diagnosis) => compare(&mut self.seen, &diagnosis, &mut news),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return news,
            }
        }
    }
}

/// A test may shorten the minute, in a build with debug assertions: milliseconds.
fn find_times() -> (Duration, Duration) {
    if cfg!(debug_assertions)
        && let Some(period) = std::env::var("PORTCULLIS_DOCTOR_MS").ok().and_then(|text| text.parse().ok())
    {
        let period = Duration::from_millis(period);
        return (period, period);
    }
    (FIRST, PERIOD)
}

fn look(place: &GatePlace, snapshot: &Snapshot) -> Option<Diagnosis> {
    // renamed, or made again
    let place = place.refresh().ok()?;
    // A gate that can't be opened now is opened a minute later. That it is gone is the monitor's to say.
    let gate = Gate::open(&place).inspect_err(|error| debug!("doctor: {error}")).ok()?;
    let sinks = SinkFacts::Known(snapshot.state().sinks.iter().map(to_state).collect());
    Some(examine(&place, Some(&gate), &sinks, Path::new("/")))
}

/// How a sink does, as `doctor` wants it.
pub(super) fn to_state(sink: &SinkStatus) -> SinkState {
    SinkState { name: sink.name.clone(), error: sink.error.clone() }
}

/// `None`: the daemon has an alarm of its own for it.
fn to_trouble(id: FindingId) -> Option<GateTrouble> {
    match id {
        FindingId::Detached | FindingId::TrackerMissing | FindingId::Observing => None,
        FindingId::MustDropPasses => Some(GateTrouble::Canary),
        id => Some(GateTrouble::Found { id: id.name(), severity: id.severity(), why: id.why() }),
    }
}

/// Findings of one id are one part of the alarm. A part that could not look says nothing, so its findings stay.
fn compare(seen: &mut BTreeMap<GateTrouble, String>, diagnosis: &Diagnosis, news: &mut News) {
    let mut found: BTreeMap<GateTrouble, String> = BTreeMap::new();
    for finding in &diagnosis.findings {
        if let Some(trouble) = to_trouble(finding.id) {
            let text = found.entry(trouble).or_default();
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&finding.text);
        }
    }
    let skipped: Vec<GateTrouble> = crate::doctor::FINDINGS
        .iter()
        .filter(|id| diagnosis.skipped.iter().any(|skipped| skipped.part == id.part()))
        .filter_map(|id| to_trouble(*id))
        .collect();
    for trouble in seen.keys().filter(|trouble| !found.contains_key(trouble) && !skipped.contains(trouble)) {
        news.over.push(*trouble);
    }
    for (trouble, text) in &found {
        // numbers in a text may change each minute
        if !seen.contains_key(trouble) {
            news.appeared.push((*trouble, text.clone()));
        }
    }
    seen.retain(|trouble, _| skipped.contains(trouble));
    seen.append(&mut found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Finding, Skipped};

    fn diagnosis(ids: &[FindingId], skipped: &[&'static str]) -> Diagnosis {
        let finding = |id: &FindingId| Finding {
            id: *id,
            about: String::new(),
            text: "it".to_owned(),
            remedy: String::new(),
        };
        Diagnosis {
            interface: "dmz0".to_owned(),
            severe: false,
            findings: ids.iter().map(finding).collect(),
            clear: Vec::new(),
            skipped: skipped.iter().map(|part| Skipped { part, why: String::new() }).collect(),
        }
    }

    #[test]
    fn what_appears_is_reported_once_and_so_is_its_end() {
        let mut seen = BTreeMap::new();
        let mut look = |ids: &[FindingId], skipped: &[&'static str]| {
            let mut news = News::default();
            compare(&mut seen, &diagnosis(ids, skipped), &mut news);
            let names =
                news.appeared.iter().map(|(trouble, text)| format!("{trouble}: {text}")).collect::<Vec<_>>();
            (names, news.over.iter().map(|trouble| trouble.name()).collect::<Vec<_>>())
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(look(&[FindingId::Detached], &[]), (none.clone(), vec![]), "the monitor says it");
        let both = [FindingId::SinkFailing, FindingId::SinkFailing];
        assert_eq!(look(&both, &[]), (vec!["sink_failing: it; it".to_owned()], vec![]));
        assert_eq!(look(&both[..1], &[]), (none.clone(), vec![]));
        assert_eq!(look(&[], &["sinks"]), (none.clone(), vec![]), "nobody looked");
        assert_eq!(
            look(&[FindingId::MustDropPasses], &[]),
            (vec!["canary: it".to_owned()], vec!["sink_failing"])
        );
        assert_eq!(look(&[], &[]), (none, vec!["canary"]));
    }
}
