//! Where clients ask the daemon to read its policy file again, and wait for the outcome.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::audit::Who;

/// What became of a reload, for people.
pub(in crate::daemon) type Reloaded = Result<String, String>;

/// What was asked for since the last reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct ReloadOrder {
    /// Somebody said `--force`.
    pub(in crate::daemon) force: bool,
    /// Who asked, each once.
    pub(in crate::daemon) askers: Vec<Who>,
}

impl ReloadOrder {
    /// Takes another order into this one.
    pub(in crate::daemon) fn join(&mut self, other: ReloadOrder) {
        self.force |= other.force;
        self.askers.extend(other.askers);
    }
}

/// A clone is another handle to the same desk.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct ReloadDesk(Arc<(Mutex<Orders>, Condvar)>);

#[derive(Debug, Default)]
struct Orders {
    /// How many were given, taken and done.
    given: u64,
    taken: u64,
    done: u64,
    order: ReloadOrder,
    outcome: Option<Reloaded>,
}

impl ReloadDesk {
    /// Gives an order, and waits until it is done. `None`: that took too long.
    pub(super) fn ask(&self, force: bool, who: Who, patience: Duration) -> Option<Reloaded> {
        let (orders, done) = &*self.0;
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.given += 1;
        orders.order.join(ReloadOrder { force, askers: vec![who] });
        let mine = orders.given;
        let waited = done.wait_timeout_while(orders, patience, |orders| orders.done < mine);
        let (orders, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() { None } else { orders.outcome.clone() }
    }

    /// The orders that wait.
    pub(in crate::daemon) fn take(&self) -> Option<ReloadOrder> {
        let mut orders = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.given == orders.taken {
            return None;
        }
        orders.taken = orders.given;
        Some(std::mem::take(&mut orders.order))
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

    fn person(pid: u32) -> Who {
        Who { pid, ..Who::default() }
    }

    #[test]
    fn whoever_asks_gets_the_outcome_and_an_order_holds_for_one_reload() {
        let desk = ReloadDesk::default();
        assert_eq!(desk.take(), None);
        let asked = desk.clone();
        let client = std::thread::spawn(move || asked.ask(true, person(7), Duration::from_secs(60)));
        let mut order = None;
        while order.is_none() {
            order = desk.take();
            std::thread::yield_now();
        }
        assert_eq!(order, Some(ReloadOrder { force: true, askers: vec![person(7)] }));
        desk.finish(Ok("done".to_owned()));
        assert_eq!(client.join().unwrap(), Some(Ok("done".to_owned())));
        for pid in [8, 9] {
            assert_eq!(desk.ask(false, person(pid), Duration::ZERO), None, "nobody did it");
        }
        assert_eq!(desk.take(), Some(ReloadOrder { force: false, askers: vec![person(8), person(9)] }));
    }
}
