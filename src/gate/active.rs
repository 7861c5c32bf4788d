//! The word `STATE_ACTIVE`: which policy is live, which one was before it, and until when it is on trial. One
//! store changes all of that, and a packet reads it once.

use super::Gate;
use super::error::GateError;
use crate::abi::{active_word, layout, state};
use crate::clock::now_ns;

/// Which policy is live, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Active {
    /// The slot of the policy that was made the live one last. `None`: there is no policy yet.
    pub(super) slot: Option<u32>,
    /// The slot of the one before it. A packet may still be reading that one.
    pub(super) before: Option<u32>,
    /// The policy is on trial, and from this time on the one before is the live one again. 0: no trial.
    pub(super) deadline_ns: u64,
}

impl Active {
    pub(super) fn decode(word: u64) -> Active {
        let slot = |bits: u64| (bits as u32 & active_word::ACTIVE_SLOT_MASK.0).checked_sub(1);
        Active {
            slot: slot(word),
            before: slot(word >> active_word::ACTIVE_SLOT_BITS.0),
            deadline_ns: word >> active_word::ACTIVE_DEADLINE_SHIFT.0 << active_word::ACTIVE_TICK_BITS.0,
        }
    }

    fn encode(self) -> u64 {
        let bits = |slot: Option<u32>| slot.map_or(0, |slot| u64::from(slot) + 1);
        // rounded up: a trial is never shorter than it was asked for
        let deadline = self.deadline_ns.div_ceil(1 << active_word::ACTIVE_TICK_BITS.0);
        bits(self.slot)
            | bits(self.before) << active_word::ACTIVE_SLOT_BITS.0
            | deadline << active_word::ACTIVE_DEADLINE_SHIFT.0
    }

    /// A trial whose time is over: packets take the policy before.
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        self.deadline_ns != 0 && now_ns >= self.deadline_ns
    }

    pub(super) fn is_on_trial(&self, now_ns: u64) -> bool {
        self.deadline_ns != 0 && now_ns < self.deadline_ns
    }

    /// The slot that a packet takes at this time.
    pub(super) fn live_slot(&self, now_ns: u64) -> Option<u32> {
        if self.is_over(now_ns) { self.before } else { self.slot }
    }

    /// The policy before is the live one for good.
    pub(super) fn back(self) -> Active {
        Active { slot: self.before, before: self.slot, deadline_ns: 0 }
    }

    /// The policy on trial is the live one for good.
    pub(super) fn kept(self) -> Active {
        Active { deadline_ns: 0, ..self }
    }

    /// The policy in `slot` is the live one, and the one that is live now is the one before it.
    pub(super) fn followed_by(self, slot: u32, deadline_ns: u64) -> Active {
        Active { slot: Some(slot), before: self.slot, deadline_ns }
    }

    /// The slot for the next policy: neither the live one nor the one that has just gone out of use.
    pub(super) fn free_slot(self) -> u32 {
        (0..layout::SLOTS.0).find(|slot| ![self.slot, self.before].contains(&Some(*slot))).unwrap_or(0)
    }
}

impl Gate {
    pub(super) fn read_active(&self) -> Result<Active, GateError> {
        Ok(Active::decode(self.read_state(state::STATE_ACTIVE)?))
    }

    pub(super) fn write_active(&self, active: Active) -> Result<(), GateError> {
        self.write_state(state::STATE_ACTIVE, active.encode())
    }

    /// The slot of the live policy. `None` before the first.
    pub(super) fn live_slot(&self) -> Result<Option<u32>, GateError> {
        Ok(self.read_active()?.live_slot(now_ns()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_says_the_slots_and_a_deadline_that_is_rounded_up() {
        let none = Active::default();
        assert_eq!((none.encode(), none.live_slot(5), none.free_slot()), (0, None, 0));
        let first = none.followed_by(0, 0);
        assert_eq!((first.encode(), first.free_slot()), (1, 1));
        let trial = first.followed_by(1, 1_000_000_000);
        assert_eq!(trial.encode(), 60 << 8 | 1 << 2 | 2);
        let read = Active::decode(trial.encode());
        assert_eq!(read.deadline_ns, 60 << 24);
        assert_eq!((read.slot, read.before), (Some(1), Some(0)));
        assert!(read.is_on_trial((60 << 24) - 1) && !read.is_over((60 << 24) - 1));
        assert!(!read.is_on_trial(60 << 24) && read.is_over(60 << 24));
        assert_eq!(read.live_slot((60 << 24) - 1), Some(1));
        assert_eq!(read.live_slot(60 << 24), Some(0));
        // for as long as a machine may run
        let late = Active { deadline_ns: 1 << 62, ..read };
        assert_eq!(Active::decode(late.encode()), late);
    }

    #[test]
    fn the_next_policy_gets_neither_of_the_two_slots_however_a_trial_ended() {
        let mut active = Active::default().followed_by(0, 0).followed_by(1, 0);
        for step in 0..30 {
            let slot = active.free_slot();
            assert!(slot < layout::SLOTS.0 && Some(slot) != active.slot && Some(slot) != active.before);
            let next = active.followed_by(slot, u64::from(step % 3 != 0));
            active = match step % 3 {
                0 => next,
                1 => next.back(),
                _ => next.kept(),
            };
            assert_eq!(active.deadline_ns, 0);
        }
    }
}
