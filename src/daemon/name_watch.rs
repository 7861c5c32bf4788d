//! Name watch: what a daemon does for names as destinations. The gate learns them without it.

use std::time::{Duration, Instant};

use log::debug;

use super::name_asker::NameAsker;
use crate::gate::{Gate, GateError, GatePlace};
use crate::policy::{NameSources, Policy};
use crate::resolve::Lookup;
use crate::stderr::notice;

/// Between two times in which what is long over is removed.
const TIDY: Duration = Duration::from_secs(60);

/// The names of the live policy.
pub(super) struct NameWatch<'gate> {
    gate: &'gate Gate,
    sources: NameSources,
    /// Of the policy that has them.
    generation: u64,
    /// What was wrong with the ways of the resolvers, as the user last read it.
    troubles: Vec<String>,
    /// When what is long over was last removed.
    tidied: Instant,
    asker: NameAsker,
    /// Answers that wait for the lock, with the generation of the policy that they are for.
    answers: Option<(u64, Vec<Lookup>)>,
}

impl<'gate> NameWatch<'gate> {
    /// Of a policy and its generation.
    pub(super) fn new(gate: &'gate Gate, policy: &Policy, generation: u64) -> NameWatch<'gate> {
        // what is wrong now stands among the warnings of attach
        let troubles = gate.list_name_troubles().unwrap_or_default();
        NameWatch {
            gate,
            sources: policy.name_sources(),
            generation,
            troubles,
            tidied: Instant::now(),
            asker: NameAsker::default(),
            answers: None,
        }
    }

    /// Goes by another policy, which is the live one now.
    pub(super) fn follow(&mut self, policy: &Policy, generation: u64) {
        self.sources = policy.name_sources();
        self.generation = generation;
        self.asker.follow(&self.sources);
    }

    /// Whether a need of the policy has a name.
    pub(super) fn has_names(&self) -> bool {
        !self.sources.names.is_empty()
    }

    /// What is done once a second.
    ///
    /// # Errors
    /// When the gate can't be read or written.
    pub(super) fn run_round(&mut self, place: &GatePlace) -> Result<(), GateError> {
        // also when the names have gone: their grants end one by one
        if self.tidied.elapsed() >= TIDY {
            self.tidied = Instant::now();
            // where another command is changing the gate, a minute later
            match place.try_lock().and_then(|_lock| self.gate.tidy_grants()) {
                Ok(tidied) => debug!("{tidied:?}"),
                Err(error) => debug!("{error}"),
            }
        }
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
        self.resolve(place)
    }

    /// Asks for the names whose time has come, and makes grants of what was answered.
    fn resolve(&mut self, place: &GatePlace) -> Result<(), GateError> {
        if self.answers.is_none() {
            self.answers =
                self.asker.poll(&self.sources, Instant::now()).map(|answers| (self.generation, answers));
        }
        let Some((generation, answers)) = self.answers.take() else { return Ok(()) };
        let _lock = match place.try_lock() {
            Ok(lock) => lock,
            // the command that holds it is changing the gate; a second later
            Err(GateError::Locked { .. }) => {
                self.answers = Some((generation, answers));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut troubles = self.gate.grant_to_all(&answers, generation)?;
        troubles.extend(self.asker.take_news());
        for trouble in troubles {
            notice!("portcullis: warning: {trouble}");
        }
        Ok(())
    }
}
