//! The events that wait for a sink. The queue is bounded, and drops never push out an alarm.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sink::{Event, Matter};

/// Changes of alarms that wait for a sink at most. Beyond that the oldest are lost, and counted.
pub(super) const MAX_ALARMS: usize = 1024;
/// Drops that wait for a sink at most. There are many of them, and the ledger has their counts.
pub(super) const MAX_DROPS: usize = 4096;

/// An event and its place in the order of all events.
#[derive(Clone)]
pub(super) struct QueuedEvent {
    pub(super) number: u64,
    pub(super) event: Arc<Event>,
}

/// One lane for alarms and one for drops, with one order.
#[derive(Default)]
pub(super) struct Queue {
    alarms: VecDeque<QueuedEvent>,
    drops: VecDeque<QueuedEvent>,
    next: u64,
    lost: u64,
}

impl Queue {
    pub(super) fn push(&mut self, event: Arc<Event>) {
        let queued = QueuedEvent { number: self.next, event };
        self.next += 1;
        let (lane, cap) = self.lane_of(&queued.event);
        let is_full = lane.len() >= cap;
        if is_full {
            lane.pop_front();
        }
        lane.push_back(queued);
        self.lost += u64::from(is_full);
    }

    /// Takes the oldest event.
    pub(super) fn pop(&mut self) -> Option<QueuedEvent> {
        let number = |lane: &VecDeque<QueuedEvent>| lane.front().map_or(u64::MAX, |queued| queued.number);
        if number(&self.alarms) < number(&self.drops) {
            self.alarms.pop_front()
        } else {
            self.drops.pop_front()
        }
    }

    /// Puts back an event that could not be written. If its lane is full by now, the event is the oldest in
    /// it, and lost.
    pub(super) fn put_back(&mut self, queued: QueuedEvent) {
        let (lane, cap) = self.lane_of(&queued.event);
        let is_full = lane.len() >= cap;
        if !is_full {
            lane.push_front(queued);
        }
        self.lost += u64::from(is_full);
    }

    /// Counts an event that is given up.
    pub(super) fn count_lost(&mut self) {
        self.lost += 1;
    }

    /// Counts events that were written and are lost all the same.
    pub(super) fn add_lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// Gives up all events.
    pub(super) fn lose_all(&mut self) {
        self.lost += self.len() as u64;
        self.alarms.clear();
        self.drops.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.alarms.len() + self.drops.len()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn lane_of(&mut self, event: &Event) -> (&mut VecDeque<QueuedEvent>, usize) {
        match event.matter {
            Matter::Alarm(_) | Matter::Audit(_) | Matter::OpenAlarms(_) => (&mut self.alarms, MAX_ALARMS),
            Matter::Drop(_) => (&mut self.drops, MAX_DROPS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::example::opened_by;
    use crate::drops::example::syn;

    fn drop() -> Arc<Event> {
        Arc::new(Event::of_drop(syn()))
    }

    fn alarm() -> Arc<Event> {
        Arc::new(Event::of_alarm(opened_by("web1")))
    }

    fn numbers(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|queued| queued.number).collect()
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
    fn an_event_that_is_put_back_comes_first_again_and_is_lost_when_its_lane_is_full() {
        let mut queue = Queue::default();
        queue.push(drop());
        queue.push(drop());
        let first = queue.pop().unwrap();
        queue.put_back(first.clone());
        assert_eq!(queue.pop().unwrap().number, 0);
        for _ in 0..MAX_DROPS {
            queue.push(drop());
        }
        let lost = queue.lost();
        queue.put_back(first);
        assert_eq!((queue.len(), queue.lost()), (MAX_DROPS, lost + 1));
    }
}
