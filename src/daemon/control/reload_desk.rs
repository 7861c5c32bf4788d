//! Where clients ask the daemon to read its policy file again, and wait for the outcome.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// What became of a reload, for people.
pub(in crate::daemon) type Reloaded = Result<String, String>;

/// A clone is another handle to the same desk.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct ReloadDesk(Arc<(Mutex<Orders>, Condvar)>);

#[derive(Debug, Default)]
struct Orders {
    /// How many were given, taken and done.
    given: u64,
    taken: u64,
    done: u64,
    force: bool,
    outcome: Option<Reloaded>,
}

impl ReloadDesk {
    /// Gives an order, and waits until it is done. `None`: that took too long.
    pub(super) fn ask(&self, force: bool, patience: Duration) -> Option<Reloaded> {
        let (orders, done) = &*self.0;
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.given += 1;
        orders.force |= force;
        let mine = orders.given;
        let waited = done.wait_timeout_while(orders, patience, |orders| orders.done < mine);
        let (orders, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() { None } else { orders.outcome.clone() }
    }

    /// The orders that wait: whether one of them says `--force`.
    pub(in crate::daemon) fn take(&self) -> Option<bool> {
        let mut orders = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.given == orders.taken {
            return None;
        }
        orders.taken = orders.given;
        Some(std::mem::take(&mut orders.force))
    }

    /// All that were taken are done.
    pub(in crate::daemon) fn finish(&self, outcome: Reloaded) {
        let (orders, done) = &*self.0;
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.done = orders.taken;
        orders.outcome = Some(outcome);
        done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_gets_the_outcome_and_force_holds_for_one_reload() {
        let desk = ReloadDesk::default();
        assert_eq!(desk.take(), None);
        let asked = desk.clone();
        let client = std::thread::spawn(move || asked.ask(true, Duration::from_secs(60)));
        let mut force = None;
        while force.is_none() {
            force = desk.take();
            std::thread::yield_now();
        }
        assert_eq!(force, Some(true));
        desk.finish(Ok("done".to_owned()));
        assert_eq!(client.join().unwrap(), Some(Ok("done".to_owned())));
        assert_eq!(desk.ask(false, Duration::ZERO), None, "nobody did it");
        assert_eq!(desk.take(), Some(false));
    }
}
