//! Two clocks. The kernel stamps drops with CLOCK_MONOTONIC, and people read wall-clock time.
//!
//! Wall-clock time steps (NTP, an operator), so a time of boot that is computed once would be wrong after
//! a step. A [`Clock`] is one reading of both clocks, taken anew for each conversion: a moment is as long
//! before `wall` as it is before `mono_ns`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// Reads a length of time: `90` (seconds), `30s`, `10m`, `1h`, `2d`, or several units as in `1h30m`. It is
/// at least a second and at most a year. Jiff reads all but the plain number. Its units above a day are
/// refused, because a month has no length of its own and the policy language has never had weeks.
///
/// # Errors
/// Says how a length of time is written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const YEAR_S: i64 = 365 * 86_400;
    let refused = || format!("`{text}` is no length of time: write 30s, 10m, 1h, 2d or 1h30m");
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if is_number {
        text.parse().unwrap_or(i64::MAX)
    } else {
        let span: Span = text.parse().map_err(|_| refused())?;
        if (span.get_years(), span.get_months(), span.get_weeks()) != (0, 0, 0) {
            return Err(refused());
        }
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?.as_secs()
    };
    match (1..=YEAR_S).contains(&seconds) {
        true => Ok(Duration::from_secs(seconds.unsigned_abs())),
        false => Err("a length of time is from 1s to 365d".to_owned()),
    }
}

/// A length of time as [`parse_duration`] reads it: `30s`, `1h`, `1h30m`.
pub fn show_duration(seconds: u64) -> String {
    let units =
        [(seconds / 86_400, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let text: String =
        units.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A length of time in one unit, for sentences: `40 s`, `4 min`, `3 h`, `2 d`.
pub fn show_roughly(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Wall-clock time. Everybody asks here, so that a test can step the clock under a daemon: in builds with
/// debug assertions `PORTCULLIS_CLOCK_OFFSET` names a file that says by how many seconds it is ahead.
pub fn wall_now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "everybody else asks here")]
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

/// CLOCK_MONOTONIC in nanoseconds: the clock of timers, and of the programs in the kernel.
pub fn now_ns() -> u64 {
    // This fails for a clock that the kernel does not have, and every kernel has this one.
    let (seconds, nanoseconds) =
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    positive(seconds).saturating_mul(NS_PER_S).saturating_add(positive(nanoseconds))
}

/// One reading of both clocks.
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
        Clock { mono_ns: now_ns(), wall: wall_now() }
    }

    /// The wall-clock time of a moment of CLOCK_MONOTONIC, as seen from this reading. A moment beyond the
    /// calendar (a corrupt sample) becomes the first or the last of it.
    pub fn to_wall(&self, mono_ns: u64) -> Timestamp {
        let offset_ns = i128::from(mono_ns) - i128::from(self.mono_ns);
        let wall_ns = self.wall.as_nanosecond() + offset_ns;
        Timestamp::from_nanosecond(wall_ns).unwrap_or(if offset_ns < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }

    /// CLOCK_MONOTONIC at a wall-clock time, nanoseconds. 0 for times before boot.
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
    fn a_length_of_time_in_a_sentence_has_one_unit() {
        let cases = [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_800, "2 d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(show_roughly(seconds), text);
        }
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
    fn lengths_of_time_have_units_and_bounds() {
        for (text, seconds) in [
            ("90", 90),
            ("30s", 30),
            ("10m", 600),
            ("1h", 3_600),
            ("2d", 172_800),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("365d", 31_536_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in
            ["", "0", "m", "1w", "366d", "-1s", "99999999999999999999", "1mo", "1y", "1 week", "1h ago"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_length_of_time_is_shown_as_it_is_written() {
        for text in ["1s", "30s", "1m30s", "10m", "1h", "1h30m", "2d", "1d23h59m59s", "365d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap().as_secs()), text);
        }
        assert_eq!(show_duration(0), "0s");
    }

    #[test]
    fn an_error_about_a_length_of_time_says_how_it_is_written() {
        for bad in ["", "1x", "1w", "soon"] {
            let error = parse_duration(bad).unwrap_err();
            assert_eq!(error, format!("`{bad}` is no length of time: write 30s, 10m, 1h, 2d or 1h30m"));
        }
        for bad in ["0", "-1s", "366d", "99999999999999999999"] {
            assert_eq!(parse_duration(bad).unwrap_err(), "a length of time is from 1s to 365d", "{bad}");
        }
    }
}
