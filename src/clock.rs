//! Two clocks. The kernel stamps drops with CLOCK_MONOTONIC, people read wall-clock time.
//!
//! Wall-clock time steps (NTP, an operator), so a time of boot that was computed once would be
//! wrong from then on. A [`Clock`] is one reading of both clocks, taken anew whenever something
//! is converted: a moment is as long before `wall` as it is before `mono_ns`.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;

/// A time as `90`, `30s`, `10m`, `1h` or `2d`; at least a second, at most a year.
///
/// # Errors
/// Says what a time looks like.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    const YEAR_S: u64 = 365 * 86_400;
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("`{unit}` is no unit of time: write 30s, 10m, 1h or 2d")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .filter(|total| (1..=YEAR_S).contains(total))
        .map(Duration::from_secs)
        .ok_or_else(|| "a time is from 1s to 365d".to_owned())
}

/// Wall-clock time. All of it comes in here, so that a test can step the clock under a daemon:
/// in builds with debug assertions `PORTCULLIS_CLOCK_OFFSET` names a file with the seconds that it is ahead.
pub fn wall_now() -> Timestamp {
    let now = Timestamp::now();
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os("PORTCULLIS_CLOCK_OFFSET")
        && let Ok(text) = std::fs::read_to_string(path)
        && let Ok(ahead_s) = text.trim().parse()
    {
        return now.saturating_add(jiff::SignedDuration::from_secs(ahead_s)).unwrap_or(now);
    }
    now
}

/// What both clocks said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// CLOCK_MONOTONIC, nanoseconds. Timers run on this one.
    pub mono_ns: u64,
    /// Wall-clock time at that moment.
    pub wall: Timestamp,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> Clock {
        // The kernel refuses clocks that it does not have, and every kernel has this one.
        let (seconds, nanoseconds) =
            clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
        let positive = |number: i64| u64::try_from(number).unwrap_or(0);
        Clock {
            mono_ns: positive(seconds).saturating_mul(NS_PER_S).saturating_add(positive(nanoseconds)),
            wall: wall_now(),
        }
    }

    /// The wall-clock time of a moment of CLOCK_MONOTONIC, as seen from this reading. A moment
    /// that no calendar has (a corrupt sample) becomes the nearest that it does.
    pub fn to_wall(&self, mono_ns: u64) -> Timestamp {
        let offset_ns = i128::from(mono_ns) - i128::from(self.mono_ns);
        let wall_ns = self.wall.as_nanosecond() + offset_ns;
        Timestamp::from_nanosecond(wall_ns).unwrap_or(if offset_ns < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }

    /// CLOCK_MONOTONIC at a wall-clock time, nanoseconds; 0 for times before boot.
    pub fn to_mono_ns(&self, wall: Timestamp) -> u64 {
        let offset_ns = wall.as_nanosecond() - self.wall.as_nanosecond();
        let mono_ns = (i128::from(self.mono_ns) + offset_ns).max(0);
        u64::try_from(mono_ns).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(mono_ns: u64, wall: &str) -> Clock {
        Clock { mono_ns, wall: wall.parse().unwrap() }
    }

    #[test]
    fn a_moment_is_as_far_from_one_clock_as_from_the_other() {
        let now = clock(100 * NS_PER_S, "2026-11-22T15:00:00Z");
        let then = now.to_wall(40 * NS_PER_S + 1_000);
        assert_eq!(then, "2026-11-22T14:59:00.000001Z".parse().unwrap());
        assert_eq!(now.to_mono_ns(then), 40 * NS_PER_S + 1_000);
        assert_eq!(now.to_wall(101 * NS_PER_S), "2026-11-22T15:00:01Z".parse().unwrap());
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_every_later_conversion_and_no_age() {
        let before = clock(100 * NS_PER_S, "2026-11-22T15:00:00Z");
        // ten seconds pass, and the wall clock is put back by an hour
        let after = clock(110 * NS_PER_S, "2026-11-22T14:00:10Z");
        let dropped_ns = 95 * NS_PER_S;
        for now in [before, after] {
            let age = now.wall.duration_since(now.to_wall(dropped_ns));
            assert_eq!(age.as_nanos(), i128::from(now.mono_ns - dropped_ns));
        }
    }

    #[test]
    fn moments_beyond_the_calendar_end_at_its_edges() {
        let now = clock(u64::MAX, "0001-01-01T00:00:00Z");
        assert!(now.to_wall(0) < now.wall);
        let late = Clock { mono_ns: 0, wall: Timestamp::MAX };
        assert_eq!(late.to_wall(u64::MAX), Timestamp::MAX);
        let early = Clock { mono_ns: u64::MAX, wall: Timestamp::MIN };
        assert_eq!(early.to_wall(0), Timestamp::MIN);
        assert_eq!(clock(5, "2026-11-22T15:00:00Z").to_mono_ns(Timestamp::MIN), 0);
    }

    #[test]
    fn the_monotonic_clock_does_not_run_backwards() {
        let first = Clock::now();
        let second = Clock::now();
        assert!(second.mono_ns >= first.mono_ns);
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(parse_time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_time("2d"), Ok(Duration::from_secs(172_800)));
        for bad in ["", "0", "m", "1w", "366d", "-1s", "99999999999999999999"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
