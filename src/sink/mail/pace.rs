//! How many mails may be sent. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Mails at once.
pub(super) const MAX_AT_ONCE: u32 = 10;
/// Beyond that, one in this time.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { left: MAX_AT_ONCE, since: now }
    }

    /// Whether a mail may be sent now. It counts as sent.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < MAX_AT_ONCE && now.saturating_duration_since(self.since) >= PERIOD {
            self.left += 1;
            self.since += PERIOD;
        }
        if self.left == MAX_AT_ONCE {
            self.since = now;
        }
        let may = self.left > 0;
        self.left -= u32::from(may);
        may
    }

    /// The mail was not sent.
    pub(super) fn give_back(&mut self) {
        self.left = (self.left + 1).min(MAX_AT_ONCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_mails_go_at_once_and_then_one_a_minute() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut count =
            |seconds: u64| (0..100).filter(|_| pace.take(start + Duration::from_secs(seconds))).count();
        assert_eq!([0, 59, 60, 61, 119, 120, 300].map(&mut count), [10, 0, 1, 0, 0, 1, 3]);
        assert_eq!(count(100_000), 10, "a quiet day saves up no more than that");
    }
}
