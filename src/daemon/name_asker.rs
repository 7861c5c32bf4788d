//! Name asker: asks for the policy's names at half the time of each answer, in a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::gate::describe_failures;
use crate::net::DomainName;
use crate::policy::NameSources;
use crate::resolve::{Lookup, PATIENCE, look_up};

/// However short the time of an answer is: its floor of five minutes lets the addresses of before stay open.
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(12 * 3_600);
/// The delay after a failure doubles up to this one.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// So many names are asked for together, so that all of them are within the patience.
const MOST_AT_ONCE: usize = 500;

/// When a name is asked for again.
#[derive(Clone, Copy, Debug)]
struct Turn {
    at: Instant,
    failures: u32,
}

/// The names, and the answers that are on their way.
#[derive(Debug, Default)]
pub(super) struct NameAsker {
    turns: BTreeMap<DomainName, Turn>,
    pending: Option<Receiver<Vec<Lookup>>>,
    /// What the user has to know since the last time.
    news: Vec<String>,
}

impl NameAsker {
    /// Forgets names that a policy does not have. New ones are asked for at once.
    pub(super) fn follow(&mut self, sources: &NameSources) {
        let names = sources.list_asked();
        self.turns.retain(|name, _| names.contains(name));
    }

    /// What was answered since the last call. Asks for the names whose time has come.
    pub(super) fn poll(&mut self, sources: &NameSources, now: Instant) -> Option<Vec<Lookup>> {
        let answers = match self.pending.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Ok(answers)) => Some(answers),
            // its thread has died, which asks again
            Some(Err(TryRecvError::Disconnected)) | None => None,
        };
        self.pending = None;
        if let Some(answers) = &answers {
            self.note(answers, now);
        }
        let due = self.list_due(sources, now);
        if !due.is_empty() {
            self.begin(due, sources);
        }
        answers
    }

    /// What the user has to know since the last time, a sentence each.
    pub(super) fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    fn list_due(&self, sources: &NameSources, now: Instant) -> Vec<DomainName> {
        let is_due = |name: &DomainName| self.turns.get(name).is_none_or(|turn| turn.at <= now);
        sources.list_asked().into_iter().filter(is_due).take(MOST_AT_ONCE).collect()
    }

    fn begin(&mut self, names: Vec<DomainName>, sources: &NameSources) {
        let (answer, pending) = sync_channel(1);
        let resolvers = sources.resolvers.clone();
        let work = move || {
            // nobody waits for it when the daemon has ended
            let _ = answer.send(look_up(&names, &resolvers, PATIENCE));
        };
        // without a thread a second later
        if thread::Builder::new().name("resolve".to_owned()).spawn(work).is_ok() {
            self.pending = Some(pending);
        }
    }

    fn note(&mut self, answers: &[Lookup], now: Instant) {
        let mut failed = Vec::new();
        for lookup in answers {
            let before = self.turns.get(&lookup.name).map_or(0, |turn| turn.failures);
            let ttl = lookup.addresses.iter().map(|(_, seconds)| *seconds).min();
            let (delay, failures) = match ttl {
                Some(seconds) => (Duration::from_secs(u64::from(seconds) / 2).clamp(SOONEST, LATEST), 0),
                None => (find_delay(before), before.saturating_add(1)),
            };
            if failures == 1 {
                failed.push(lookup.clone());
            }
            if failures == 0 && before > 0 {
                self.news.push(format!("{} can be resolved again", lookup.name));
            }
            self.turns.insert(lookup.name.clone(), Turn { at: now + delay, failures });
        }
        self.news.extend(describe_failures(&failed));
    }
}

fn find_delay(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(16)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> DomainName {
        DomainName::parse("deb.vendor.example").unwrap()
    }

    fn answered(ttl: Option<u32>) -> Vec<Lookup> {
        let addresses = ttl.map(|ttl| ("203.0.113.80".parse().unwrap(), ttl)).into_iter().collect();
        vec![Lookup { name: name(), addresses, failure: None }]
    }

    fn sources(resolve: bool) -> NameSources {
        let names = vec![DomainName::parse("*.mirror.example").unwrap(), name()];
        NameSources { names, resolve, ..NameSources::default() }
    }

    #[test]
    fn a_name_is_asked_for_at_half_the_time_of_its_answer() {
        let now = Instant::now();
        for (ttl, seconds) in [(300, 150), (1, 5), (0, 5), (u32::MAX, 43_200)] {
            let mut asker = NameAsker::default();
            assert_eq!(asker.list_due(&sources(true), now), [name()]);
            assert!(asker.list_due(&sources(false), now).is_empty());
            asker.note(&answered(Some(ttl)), now);
            let is_due =
                |after: u64| !asker.list_due(&sources(true), now + Duration::from_secs(after)).is_empty();
            assert!(!is_due(seconds - 1) && is_due(seconds), "{ttl}");
        }
    }

    #[test]
    fn a_name_that_fails_is_asked_for_less_and_less_often_and_the_user_reads_it_once() {
        let now = Instant::now();
        let mut asker = NameAsker::default();
        let mut delays = Vec::new();
        for _ in 0..11 {
            asker.note(&answered(None), now);
            delays.push(asker.turns[&name()].at.duration_since(now).as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let news = asker.take_news();
        assert!(news.len() == 1 && news[0].contains("can't resolve deb.vendor.example"), "{news:?}");
        asker.note(&answered(Some(60)), now);
        assert_eq!(asker.take_news(), ["deb.vendor.example can be resolved again"]);
        asker.note(&answered(None), now);
        assert_eq!(asker.take_news().len(), 1);
    }

    #[test]
    fn a_name_that_comes_back_with_a_policy_is_asked_for_at_once() {
        let now = Instant::now();
        let mut asker = NameAsker::default();
        asker.note(&answered(Some(3_600)), now);
        asker.follow(&sources(true));
        assert!(asker.list_due(&sources(true), now).is_empty());
        asker.follow(&NameSources::default());
        assert_eq!(asker.list_due(&sources(true), now), [name()]);
    }
}
