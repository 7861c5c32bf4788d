//! Name watch: what a daemon does for names as destinations. The gate learns them without it.

use crate::gate::{Gate, GateError};
use crate::policy::{NameSources, Policy};
use crate::stderr::notice;

/// The names of the live policy.
pub(super) struct NameWatch<'gate> {
    gate: &'gate Gate,
    sources: NameSources,
    /// Of the policy that has them.
    generation: u64,
    /// What was wrong with the ways of the resolvers, as the user last read it.
    troubles: Vec<String>,
}

impl<'gate> NameWatch<'gate> {
    /// Of a policy and its generation.
    pub(super) fn new(gate: &'gate Gate, policy: &Policy, generation: u64) -> NameWatch<'gate> {
        // what is wrong now stands among the warnings of attach
        let troubles = gate.list_name_troubles().unwrap_or_default();
        NameWatch { gate, sources: policy.name_sources(), generation, troubles }
    }

    /// Goes by another policy, which is the live one now.
    pub(super) fn follow(&mut self, policy: &Policy, generation: u64) {
        self.sources = policy.name_sources();
        self.generation = generation;
    }

    /// What is done once a second.
    ///
    /// # Errors
    /// When the gate can't be read or written.
    pub(super) fn run_round(&mut self) -> Result<(), GateError> {
        if self.sources.resolvers.is_empty() {
            self.troubles.clear();
            return Ok(());
        }
        let troubles = self.gate.follow_routes(&self.sources, self.generation)?;
        for trouble in troubles.iter().filter(|trouble| !self.troubles.contains(trouble)) {
            notice!("portcullis: warning: {trouble}");
        }
        if troubles.is_empty() && !self.troubles.is_empty() {
            notice!("portcullis: the answers of all resolvers count again");
        }
        self.troubles = troubles;
        Ok(())
    }
}
