//! Reload: SIGHUP makes the daemon read its policy file again. A bad file changes nothing. Log rotation
//! sends SIGHUP as well, so the same file again must cost little.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::compile::compile;
use crate::gate::{Gate, GateError, GatePlace, list_carried};
use crate::memory::return_memory;
use crate::policy::{Policy, list_changes};
use crate::policy_file::read_policy;

/// The first line of a refusal. The mistakes follow it.
pub(super) const BAD_POLICY: &str = "the policy is bad";

/// How long a reload waits for another command that is changing the gate.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The policy file, and the reload that was asked for.
#[derive(Debug)]
pub(super) struct Reload {
    policy_file: PathBuf,
    /// When SIGHUP came that was not obeyed yet.
    asked_at: Option<Instant>,
}

/// A policy that is live now.
#[derive(Debug)]
pub(super) struct Reloaded {
    pub policy: Policy,
    pub generation: u64,
    /// The changes, for people.
    pub text: String,
}

impl Reload {
    /// Of a policy file.
    pub(super) fn new(policy_file: &Path) -> Reload {
        Reload { policy_file: policy_file.to_owned(), asked_at: None }
    }

    /// Notes that SIGHUP came.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// Takes the lock for a reload that was asked for. `None` if none was, or if another command has the
    /// lock. The next call tries again then, until its patience ends.
    pub(super) fn take_turn<L>(
        &mut self,
        now: Instant,
        try_lock: impl FnOnce() -> Result<L, GateError>,
    ) -> Option<Result<L, GateError>> {
        let waited = now.duration_since(self.asked_at?);
        match try_lock() {
            Err(GateError::Locked { .. }) if waited < LOCK_PATIENCE => None,
            lock => {
                self.asked_at = None;
                Some(lock)
            }
        }
    }

    /// Makes the policy of the file the live one. The caller holds the lock.
    ///
    /// # Errors
    /// When the file is bad or the gate is not the daemon's any more. The live policy stays then.
    pub(super) fn apply(&self, gate: &Gate, place: &GatePlace) -> anyhow::Result<Reloaded> {
        let bad = |diagnostics| anyhow::anyhow!("{BAD_POLICY}\n{diagnostics}");
        let policy = read_policy(&self.policy_file)?.map_err(bad)?;
        if !gate.is_pinned_at(place) {
            bail!("another command has detached the gate from {}", place.interface);
        }
        // Each step needs much memory for a moment, so each gives back what it had.
        return_memory();
        let changes = gate.changes_to(&policy)?;
        return_memory();
        let tables = compile(&policy).map_err(bad)?;
        let carried = gate.find_carried_quarantines(&tables)?;
        let generation = gate.apply(place, &policy, &tables)?;
        let text = format!(
            "{}{}portcullis: generation {generation} is live on {}",
            list_changes(&changes),
            list_carried(&carried),
            place.interface
        );
        Ok(Reloaded { policy, generation, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked() -> Result<(), GateError> {
        Err(GateError::Locked { interface: "dmz0".to_owned(), holder: "7".to_owned() })
    }

    #[test]
    fn nothing_is_locked_before_a_reload_was_asked_for() {
        let mut reload = Reload::new(Path::new("p.toml"));
        assert!(reload.take_turn(Instant::now(), || -> Result<(), _> { panic!("locked") }).is_none());
    }

    #[test]
    fn a_reload_waits_for_another_command_but_not_for_ever() {
        let start = Instant::now();
        let mut reload = Reload::new(Path::new("p.toml"));
        reload.ask(start);
        assert!(reload.take_turn(start, locked).is_none());
        assert!(reload.take_turn(start + LOCK_PATIENCE / 2, locked).is_none());
        assert!(matches!(
            reload.take_turn(start + LOCK_PATIENCE, locked),
            Some(Err(GateError::Locked { .. }))
        ));
        assert!(reload.take_turn(start + LOCK_PATIENCE, || Ok(())).is_none(), "it was given up");
    }

    #[test]
    fn a_reload_that_has_its_turn_is_done_once() {
        let now = Instant::now();
        let mut reload = Reload::new(Path::new("p.toml"));
        reload.ask(now);
        reload.ask(now);
        assert!(matches!(reload.take_turn(now, || Ok(7)), Some(Ok(7))));
        assert!(reload.take_turn(now, || Ok(7)).is_none());
    }
}
