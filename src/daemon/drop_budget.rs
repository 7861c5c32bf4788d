//! How many drops are emitted one by one. The others are in the ledger and in their alarms: a server
//! that calls every port must fill neither the disk nor a core.

use std::collections::HashMap;

/// Drops that may be emitted at once.
const BURST: u32 = 1024;
/// Drops that may be emitted in each second after a burst.
const DROPS_A_SECOND: u32 = 128;
/// Drops of one server in a second that still count against the reserve when the burst is used up. A
/// server that calls every port does not hide the drops of the others.
const RESERVE_BY_SERVER: u32 = 8;

/// The drops that may still be emitted in this second.
#[derive(Debug)]
pub(super) struct DropBudget {
    /// Drops in this second by the id of their server.
    by_server: HashMap<u32, u32>,
    burst: u32,
    reserve: u32,
    suppressed: u32,
}

impl Default for DropBudget {
    fn default() -> DropBudget {
        DropBudget { by_server: HashMap::new(), burst: BURST, reserve: DROPS_A_SECOND, suppressed: 0 }
    }
}

impl DropBudget {
    /// Whether a drop of this server may be emitted. It is counted either way.
    pub(super) fn admit(&mut self, server: u32) -> bool {
        let drops = self.by_server.entry(server).or_default();
        *drops = drops.saturating_add(1);
        let left = match self.burst {
            0 if *drops <= RESERVE_BY_SERVER => &mut self.reserve,
            _ => &mut self.burst,
        };
        let is_admitted = *left > 0;
        if is_admitted {
            *left -= 1;
        } else {
            self.suppressed += 1;
        }
        is_admitted
    }

    /// Begins the next second, and returns how many drops were suppressed in this one.
    pub(super) fn refill(&mut self) -> u32 {
        self.by_server.clear();
        self.reserve = DROPS_A_SECOND;
        self.burst = (self.burst + DROPS_A_SECOND).min(BURST);
        std::mem::take(&mut self.suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(budget: &mut DropBudget, server: u32, drops: u32) -> u32 {
        (0..drops).filter(|_| budget.admit(server)).count() as u32
    }

    #[test]
    fn a_burst_is_emitted_at_once_and_then_so_many_a_second() {
        let mut budget = DropBudget::default();
        assert_eq!(admitted(&mut budget, 1, 10_000), BURST);
        assert_eq!(budget.refill(), 10_000 - BURST);
        assert_eq!(admitted(&mut budget, 1, 10_000), DROPS_A_SECOND);
        budget.refill();
        assert_eq!(budget.refill(), 0, "nothing was suppressed in a second without drops");
        assert_eq!(admitted(&mut budget, 1, 10_000), 2 * DROPS_A_SECOND);
    }

    #[test]
    fn servers_with_few_drops_are_heard_beside_one_that_calls_every_port() {
        let mut budget = DropBudget::default();
        admitted(&mut budget, 1, 10_000);
        assert_eq!(admitted(&mut budget, 2, 100), RESERVE_BY_SERVER);
        assert_eq!(admitted(&mut budget, 3, 3), 3);
        assert_eq!(admitted(&mut budget, 1, 100), 0);
    }

    #[test]
    fn the_reserve_is_bounded_too() {
        let mut budget = DropBudget::default();
        admitted(&mut budget, 0, 10_000);
        let sum: u32 = (1..1_000).map(|server| admitted(&mut budget, server, 1)).sum();
        assert_eq!(sum, DROPS_A_SECOND);
    }

    #[test]
    fn a_quiet_night_saves_up_no_more_than_one_burst() {
        let mut budget = DropBudget::default();
        for _ in 0..1_000 {
            budget.refill();
        }
        assert_eq!(admitted(&mut budget, 1, 10_000), BURST);
    }
}
