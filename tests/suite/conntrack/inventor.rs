//! The source of all chance in a story: its generator, and the policy whose servers act.

use super::policy::Policy;
use crate::support::chance::Chance;

/// Invents stories about the servers of a policy.
pub struct Inventor<'p> {
    pub chance: Chance,
    pub policy: &'p Policy,
    pub actors: Vec<usize>,
}

impl<'p> Inventor<'p> {
    pub fn new(chance: Chance, policy: &'p Policy) -> Inventor<'p> {
        Inventor { chance, policy, actors: policy.actors() }
    }

    pub fn pick_server(&mut self) -> usize {
        self.chance.pick(&self.actors)
    }

    pub fn pick_bytes(&mut self) -> u16 {
        self.chance.pick(&[0, 1, 8, 40, 100, 400, 1200])
    }
}
