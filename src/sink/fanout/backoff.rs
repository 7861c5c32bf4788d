//! When a failing sink is retried. Pure: time is an argument.

use std::time::{Duration, Instant};

/// The delay between two attempts doubles from the first to the last.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    delay: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    pub(super) fn fail(&mut self, now: Instant) {
        let delay = self.delay.map_or(FIRST, |delay| (delay * 2).min(LAST));
        self.delay = Some(delay);
        self.until = Some(now + delay);
    }

    pub(super) fn succeed(&mut self) {
        *self = Backoff::default();
    }

    /// The next attempt may come at once.
    pub(super) fn hurry(&mut self) {
        self.until = None;
    }

    /// How long to wait until the next attempt; `None`: it may come now.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_sink_is_retried_less_and_less_often_and_never_given_up() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            backoff.fail(now);
            let left = backoff.left(now).unwrap();
            now += left;
            assert_eq!(backoff.left(now), None);
            waits.push(left.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.succeed();
        backoff.fail(now);
        assert_eq!(backoff.left(now), Some(FIRST));
        backoff.hurry();
        assert_eq!(backoff.left(now), None);
    }
}
