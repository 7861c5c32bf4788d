//! What waits for a sink: bounded, and drops never push out an alarm.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sink::Event;

/// Changes of alarms that are kept for a sink; beyond it the oldest are lost, and counted.
pub(super) const MAX_ALARMS: usize = 1024;
/// Drops, likewise: there are many of them, and the ledger has their counts.
pub(super) const MAX_DROPS: usize = 4096;

/// An event and its place in the order of all.
pub(super) type QueuedEvent = (u64, Arc<Event>);

/// Two lines with one order.
#[derive(Default)]
pub(super) struct Queue {
    alarms: VecDeque<QueuedEvent>,
    drops: VecDeque<QueuedEvent>,
    next: u64,
    lost: u64,
}

impl Queue {
    pub fn push(&mut self, event: Arc<Event>) {
        let ticket = (self.next, event);
        self.next += 1;
        let (line, cap) = self.line_of(&ticket.1);
        let full = line.len() >= cap;
        if full {
            line.pop_front();
        }
        line.push_back(ticket);
        self.lost += u64::from(full);
    }

    /// The oldest of all.
    pub fn pop(&mut self) -> Option<QueuedEvent> {
        let number = |line: &VecDeque<QueuedEvent>| line.front().map_or(u64::MAX, |(number, _)| *number);
        if number(&self.alarms) < number(&self.drops) {
            self.alarms.pop_front()
        } else {
            self.drops.pop_front()
        }
    }

    /// EventFilter back what could not be written. If its line is full by now, it is the oldest in it,
    /// and lost.
    pub fn put_back(&mut self, ticket: QueuedEvent) {
        let (line, cap) = self.line_of(&ticket.1);
        let full = line.len() >= cap;
        if !full {
            line.push_front(ticket);
        }
        self.lost += u64::from(full);
    }

    /// Counts one that is given up.
    pub fn lose(&mut self) {
        self.lost += 1;
    }

    /// Gives up everything.
    pub fn lose_all(&mut self) {
        self.lost += self.len() as u64;
        self.alarms.clear();
        self.drops.clear();
    }

    pub fn len(&self) -> usize {
        self.alarms.len() + self.drops.len()
    }

    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn line_of(&mut self, event: &Event) -> (&mut VecDeque<QueuedEvent>, usize) {
        match event {
            Event::Alarm(_) => (&mut self.alarms, MAX_ALARMS),
            Event::Drop(_) => (&mut self.drops, MAX_DROPS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Engine;
    use crate::drops::example::{after_ms, syn};

    fn drop() -> Arc<Event> {
        Arc::new(Event::Drop(syn()))
    }

    fn alarm() -> Arc<Event> {
        Arc::new(Event::Alarm(Engine::default().observe(&syn(), after_ms(0)).remove(0)))
    }

    fn numbers(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|(number, _)| number).collect()
    }

    #[test]
    fn alarms_and_drops_come_out_in_the_order_in_which_they_came() {
        let mut queue = Queue::default();
        for event in [drop(), alarm(), alarm(), drop()] {
            queue.push(event);
        }
        assert_eq!(numbers(&mut queue), [0, 1, 2, 3]);
    }

    #[test]
    fn a_flood_of_drops_pushes_out_drops_and_no_alarm() {
        let mut queue = Queue::default();
        queue.push(alarm());
        for _ in 0..MAX_DROPS + 100 {
            queue.push(drop());
        }
        assert_eq!((queue.len(), queue.lost()), (MAX_DROPS + 1, 100));
        let order = numbers(&mut queue);
        assert_eq!(order[..2], [0, 101], "the alarm, and the oldest drop that is left");
    }

    #[test]
    fn what_is_put_back_comes_first_again_and_is_lost_when_its_line_is_full() {
        let mut queue = Queue::default();
        queue.push(drop());
        queue.push(drop());
        let first = queue.pop().unwrap();
        queue.put_back(first.clone());
        assert_eq!(queue.pop().unwrap().0, 0);
        for _ in 0..MAX_DROPS {
            queue.push(drop());
        }
        let lost = queue.lost();
        queue.put_back(first);
        assert_eq!((queue.len(), queue.lost()), (MAX_DROPS, lost + 1));
    }
}
