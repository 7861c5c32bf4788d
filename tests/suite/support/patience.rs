//! How long a test waits. No other place decides that.
//!
//! A deadline is written down as the time that is plenty on an idle machine. Here it becomes longer, and
//! never shorter, by the larger of two factors:
//!
//! - `PORTCULLIS_PATIENCE`, a number that you set. `scripts/vm` sets one for each guest.
//! - How slow the machine is at this moment: some thousand system calls are timed. While a condition is
//!   waited for they are timed again each second, so load that comes later counts as well.
//!
//! What must not come is waited for exactly as long as it says. The proof is never that wait alone, but a
//! counter or a tap.
//!
//! Fixed sleeps that remain, and why:
//!
//! - `e2e::kills::kill_after`, `chaos::kills`: a process is killed at a moment by chance. The moment is what
//!   the test is about, and there is no condition to wait for.
//! - `e2e::traffic`, `e2e::swaps`, `e2e::flood` (the worm): the pace of a sender, not a wait.
//! - Read timeouts of servers and taps in threads, from 1 to 100 ms: they look that often whether the test is over.
//! - `legitimate::relay` and `legitimate::takeover`: the lateness of a cable and of a resolver.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take that must happen: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// System calls that are timed, and how long one takes on an idle machine.
const PROBES: u32 = 80_000;
const PROBE: Duration = Duration::from_nanos(125);
/// A machine that is slower than this has other troubles.
const SLOWEST: f64 = 30.0;
/// How long a measurement is believed.
const FRESH: Duration = Duration::from_secs(1);
/// Between two looks at a condition.
const PERIOD: Duration = Duration::from_millis(5);

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For one that must come: so long on an idle machine, longer on a slow one.
    AtMost(Duration),
    /// For one that must not come.
    Exactly(Duration),
}

impl Wait {
    /// The time on this machine, now.
    pub fn duration(self) -> Duration {
        match self {
            Wait::AtMost(idle) => deadline(idle),
            Wait::Exactly(time) => time,
        }
    }
}

/// What takes `idle` at most on an idle machine takes this long at most here.
pub fn deadline(idle: Duration) -> Duration {
    idle.mul_f64(factor())
}

/// Waits until something is so; panics with `what` when it does not become so.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    assert!(within(PATIENCE, condition), "not so after {:.0?}: {what}", begun.elapsed());
}

/// Whether something becomes so within a time, which is that of an idle machine.
pub fn within(idle: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let mut spent = Duration::ZERO;
    loop {
        let begun = Instant::now();
        if condition() {
            return true;
        }
        if spent >= idle {
            return false;
        }
        std::thread::sleep(PERIOD);
        // A machine that stood still, as a virtual one may, has not used up the time.
        spent += begun.elapsed().min(Duration::from_secs(1)).div_f64(factor());
    }
}

/// By how much deadlines are longer: 1 or more.
fn factor() -> f64 {
    static ASKED_FOR: LazyLock<f64> = LazyLock::new(|| {
        let number = std::env::var("PORTCULLIS_PATIENCE").ok();
        number.map_or(1.0, |number| number.parse().expect("PORTCULLIS_PATIENCE is a number"))
    });
    ASKED_FOR.max(slowness()).max(1.0)
}

/// How many times slower than an idle one the machine is.
fn slowness() -> f64 {
    static LAST: Mutex<Option<(Instant, f64)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((measured, slowness)) = *last
        && measured.elapsed() < FRESH
    {
        return slowness;
    }
    let begun = Instant::now();
    for _ in 0..PROBES {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
    let now = begun.elapsed();
    let slowness = (now.as_secs_f64() / (PROBE * PROBES).as_secs_f64()).min(SLOWEST);
    *last = Some((Instant::now(), slowness));
    slowness
}

#[cfg(test)]
mod tests {
    use super::{PATIENCE, Wait, deadline, within};
    use std::time::{Duration, Instant};

    #[test]
    fn a_deadline_is_never_shorter_than_it_says() {
        assert!(deadline(PATIENCE) >= PATIENCE);
        assert!(Wait::AtMost(PATIENCE).duration() >= PATIENCE);
        let begun = Instant::now();
        assert!(!within(Duration::from_millis(50), || false));
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn what_must_not_come_is_waited_for_exactly_as_long_as_it_says() {
        assert_eq!(Wait::Exactly(PATIENCE).duration(), PATIENCE);
    }

    #[test]
    fn a_condition_that_holds_is_not_waited_for() {
        let begun = Instant::now();
        assert!(within(PATIENCE, || true));
        assert!(begun.elapsed() < PATIENCE);
    }
}
