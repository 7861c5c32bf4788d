//! When records may be removed for their age: only while the wall clock can be trusted.

use std::time::Duration;

use log::warn;

use super::Limits;
use crate::clock::Clock;

/// A wall clock that goes forward by more than this may be wrong. Leap seconds and corrections are smaller.
const STEP_NS: i128 = 3_600_000_000_000;
/// For so long no record is removed for its age then. That is time to correct the clock.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// Watches for steps of the wall clock. A bad time server or an intruder may set it into the future. Without
/// this, one such step would remove the whole history.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// The distance of the two clocks.
    offset_ns: Option<i128>,
    /// CLOCK_MONOTONIC, nanoseconds.
    held_until_ns: u64,
}

impl Retention {
    /// The limits as they hold now. While the clock is not trusted, they have no age.
    pub(super) fn current_limits(&mut self, limits: Limits, now: Clock) -> Limits {
        let offset_ns = now.wall.as_nanosecond() - i128::from(now.mono_ns);
        let step_ns = offset_ns - self.offset_ns.replace(offset_ns).unwrap_or(offset_ns);
        if step_ns > STEP_NS {
            let patience_ns = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
            self.held_until_ns = now.mono_ns.saturating_add(patience_ns);
            warn!(
                "the wall clock went forward to {:.0}: for a day, no record of the history is removed for its age",
                now.wall
            );
        }
        if now.mono_ns < self.held_until_ns { Limits { age_s: i64::MAX, ..limits } } else { limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_forward_removes_nothing_for_a_day() {
        const HOUR_NS: u64 = 3_600_000_000_000;
        let start = Clock { mono_ns: 5, wall: "2026-11-22T15:00:00Z".parse().unwrap() };
        let at = |hours: u64, wrong_h: i64| {
            let mono_ns = start.mono_ns + hours * HOUR_NS;
            let step = jiff::SignedDuration::from_hours(wrong_h);
            Clock { mono_ns, wall: start.to_wall(mono_ns).checked_add(step).unwrap() }
        };
        let limits = Limits::of_days(90);
        let unbounded = Limits { age_s: i64::MAX, ..limits };
        let mut retention = Retention::default();
        assert_eq!(retention.current_limits(limits, at(0, 0)), limits);
        assert_eq!(retention.current_limits(limits, at(1_000, 0)), limits, "time that passes is no step");
        assert_eq!(retention.current_limits(limits, at(1_001, 1)), limits, "nor is a correction");
        assert_eq!(retention.current_limits(limits, at(1_002, 9_000)), unbounded);
        assert_eq!(
            retention.current_limits(limits, at(1_003, 0)),
            unbounded,
            "it is right again, and nothing was lost"
        );
        assert_eq!(retention.current_limits(limits, at(1_025, 0)), unbounded);
        assert_eq!(retention.current_limits(limits, at(1_026, 0)), limits);
        assert_eq!(
            retention.current_limits(limits, at(1_027, -9_000)),
            limits,
            "a step back removes nothing"
        );
    }
}
