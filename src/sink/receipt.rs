//! The receipt of a test: which sink took it, and which one did not.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What became of a test at one sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkAnswer {
    /// The sink.
    pub sink: String,
    /// Whether it took the test.
    pub took: bool,
    /// Why not. It is not called `error`, for that is how a daemon refuses a request.
    pub why: Option<String>,
}

/// Where the sinks say it. A clone is another handle to the same receipt.
#[derive(Clone, Debug, Default)]
pub struct Receipt(Arc<(Mutex<Answers>, Condvar)>);

#[derive(Debug, Default)]
struct Answers {
    /// In the order of the sinks. `None`: it has not answered yet.
    sinks: Vec<(String, Option<Result<(), String>>)>,
    /// Nobody waits any more.
    is_over: bool,
}

impl Receipt {
    /// Notes that a sink will answer. It is called for each before the test is sent.
    pub(super) fn expect(&self, sink: &str) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).sinks.push((sink.to_owned(), None));
    }

    /// Notes a sink's first answer.
    pub(super) fn note(&self, sink: &str, outcome: Result<(), String>) {
        let (answers, changed) = &*self.0;
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) =
            answers.sinks.iter_mut().find(|(name, answer)| name == sink && answer.is_none())
        {
            *answer = Some(outcome);
        }
        changed.notify_all();
    }

    /// Whether nobody wants an event of the test from this sink any more: it did not take the first one in time.
    pub(super) fn is_stale(&self, sink: &str) -> bool {
        let answers = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let took = answers.sinks.iter().any(|(name, answer)| name == sink && matches!(answer, Some(Ok(()))));
        answers.is_over && !took
    }

    /// What each sink says within `patience`. `errors` knows why a sink without an answer fails.
    pub fn wait(
        &self,
        patience: Duration,
        errors: impl FnOnce() -> BTreeMap<String, String>,
    ) -> Vec<SinkAnswer> {
        let (answers, changed) = &*self.0;
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |answers: &mut Answers| answers.sinks.iter().any(|(_, answer)| answer.is_none());
        let waited = changed.wait_timeout_while(answers, patience, waits);
        let (mut answers, _) = waited.unwrap_or_else(PoisonError::into_inner);
        answers.is_over = true;
        let errors = errors();
        let describe = |(sink, answer): &(String, Option<Result<(), String>>)| {
            let why = match answer {
                Some(Ok(())) => None,
                Some(Err(error)) => Some(error.clone()),
                None => Some(match errors.get(sink) {
                    Some(error) => error.clone(),
                    None => format!("it has not answered within {} s", patience.as_secs()),
                }),
            };
            SinkAnswer { sink: sink.clone(), took: why.is_none(), why }
        };
        answers.sinks.iter().map(describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_of_each_sink_counts_and_one_without_an_answer_did_not_take_it() {
        let receipt = Receipt::default();
        ["a", "b", "c"].iter().for_each(|sink| receipt.expect(sink));
        receipt.note("a", Ok(()));
        receipt.note("a", Err("later".to_owned()));
        receipt.note("b", Err("no room".to_owned()));
        let errors = BTreeMap::new;
        let answers = receipt.wait(Duration::ZERO, errors);
        let took: Vec<(bool, Option<&str>)> =
            answers.iter().map(|answer| (answer.took, answer.why.as_deref())).collect();
        assert_eq!(
            took,
            [(true, None), (false, Some("no room")), (false, Some("it has not answered within 0 s"))]
        );
        receipt.note("c", Ok(()));
        assert_eq!(["a", "b"].map(|sink| receipt.is_stale(sink)), [false, true]);
        let start = std::time::Instant::now();
        assert!(receipt.wait(Duration::from_secs(600), errors)[2].took);
        assert!(start.elapsed() < Duration::from_secs(60), "nobody waits for what is there");
    }
}
