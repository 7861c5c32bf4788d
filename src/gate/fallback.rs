//! Falls back to the last confirmed policy where another one was refused, so that the NIC keeps a gate.

use jiff::Timestamp;
use thiserror::Error;

use super::Gate;
use super::attach::Attachment;
use super::confirmed::{ConfirmedPolicy, read_confirmed};
use super::error::GateError;
use super::link::{AttachMode, Hook, is_filter_attached};
use super::place::GatePlace;
use crate::compile::{Tables, compile};
use crate::policy::{Enforcement, Policy, parse};
use crate::policy_file::CompiledPolicy;

/// A gate under the last confirmed policy.
pub struct FallBack {
    /// The gate.
    pub gate: Gate,
    /// How it is attached.
    pub attachment: Attachment,
    /// The policy that is live.
    pub compiled: CompiledPolicy,
    /// Since when that policy is confirmed, if that is known.
    pub since: Option<Timestamp>,
    /// The gate was attached before, and nothing was changed.
    pub was_attached: bool,
    /// The policy that is live is on trial.
    pub on_trial: bool,
}

/// No confirmed policy could be attached. The text says whether the NIC has a gate.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct FallBackFailed {
    /// A gate is attached all the same.
    pub is_attached: bool,
    text: String,
}

impl FallBack {
    /// In one sentence: which policy is live, and since when.
    pub fn describe(&self, place: &GatePlace) -> String {
        let policy = &self.compiled.policy;
        if self.on_trial {
            return format!(
                "the gate on {} stays attached and {} under the policy that is on trial, {}",
                place.interface,
                Enforcement::of(policy).name(),
                policy.file
            );
        }
        let since = self.since.map_or("at an unknown time".to_owned(), |since| format!("{since:.0}"));
        format!(
            "the gate on {} {} attached and {} under the last confirmed policy, {}, which was confirmed {since}",
            place.interface,
            if self.was_attached { "stays" } else { "is" },
            Enforcement::of(policy).name(),
            policy.file,
        )
    }
}

impl Gate {
    /// As [`Gate::attach`]. If pins of the gate are missing, it is made anew without a gap. A resolver whose answers
    /// can be forged is a warning: while a machine starts, the default route leads everywhere, and a NIC without a
    /// gate is worse. Its answers don't count.
    ///
    /// # Errors
    /// As [`Gate::attach`].
    pub fn attach_or_rebuild(
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<(Gate, Attachment), GateError> {
        match Gate::attach_anyhow(place, policy, tables) {
            Err(GateError::BrokenPins { .. }) => Gate::rebuild(place, policy, tables),
            outcome => outcome,
        }
    }

    /// Keeps the gate that is attached, or attaches one with the last confirmed policy that can be attached. The
    /// caller holds the lock.
    ///
    /// # Errors
    /// When there is none.
    pub fn fall_back(place: &GatePlace) -> Result<FallBack, FallBackFailed> {
        let mut obstacles = Vec::new();
        let confirmed = read_confirmed(place).unwrap_or_else(|error| {
            obstacles.push(format!("{} can't be read: {error}", place.history().display()));
            Vec::new()
        });
        if let Some(kept) = Gate::keep_attached(place, &confirmed) {
            return Ok(kept);
        }
        for policy in confirmed {
            let attached = policy.and_then(|policy| {
                let since = policy.facts.since;
                let compiled = compile_confirmed(policy)?;
                Ok((since, compiled))
            });
            let (since, compiled) = match attached {
                Ok(attached) => attached,
                Err(obstacle) => {
                    obstacles.push(obstacle);
                    continue;
                }
            };
            match Gate::attach_or_rebuild(place, &compiled.policy, &compiled.tables) {
                Ok((gate, mut attachment)) => {
                    attachment.warnings.extend(obstacles);
                    return Ok(FallBack {
                        gate,
                        attachment,
                        compiled,
                        since: Some(since),
                        was_attached: false,
                        on_trial: false,
                    });
                }
                Err(error) => {
                    // of another policy the kernel may want less
                    let depends_on_policy =
                        matches!(error, GateError::TableFull { .. } | GateError::Kernelside { .. });
                    obstacles.push(error.to_string());
                    if !depends_on_policy {
                        break;
                    }
                }
            }
        }
        Err(FallBackFailed::new(place, &obstacles))
    }

    /// The gate that is attached, if it enforces a policy that this version understands.
    fn keep_attached(place: &GatePlace, confirmed: &[Result<ConfirmedPolicy, String>]) -> Option<FallBack> {
        let gate = Gate::open(place).ok()?;
        if let Err(error) = gate.settle_trial(place) {
            log::warn!("the trial is over, but not tidied up: {error}");
        }
        let on_trial = gate.trial().ok()?.is_some();
        let mode = gate.find_mode(place).ok()?;
        let policy = gate.live_policy().ok().flatten()?;
        let settings = gate.live_settings().ok().flatten()?;
        let tables = compile(&policy).ok()?;
        let hook = gate.find_tracker(place).ok()?;
        if mode == AttachMode::No || tables.settings.is_strict() && hook == Hook::No {
            return None;
        }
        let known = confirmed.iter().flatten();
        let since = known.filter(|known| known.text == policy.text).map(|known| known.facts.since).next();
        let applied_s = i64::try_from(settings.applied_s).unwrap_or(0);
        let attachment = Attachment {
            mode,
            hook,
            generation: settings.generation,
            replaced: false,
            warnings: Vec::new(),
            quarantines: Vec::new(),
            edits: Vec::new(),
            grants: 0,
        };
        Some(FallBack {
            gate,
            attachment,
            compiled: CompiledPolicy { policy, tables },
            since: since.or_else(|| Timestamp::from_second(applied_s).ok()),
            was_attached: true,
            on_trial,
        })
    }
}

fn compile_confirmed(confirmed: ConfirmedPolicy) -> Result<CompiledPolicy, String> {
    let refused = |errors: crate::policy::Diagnostics| {
        format!("this version refuses the policy that was confirmed {}: {errors}", confirmed.facts.since)
    };
    let policy = parse(&confirmed.text, &confirmed.facts.file).map_err(refused)?;
    let tables = compile(&policy).map_err(refused)?;
    Ok(CompiledPolicy { policy, tables })
}

impl FallBackFailed {
    fn new(place: &GatePlace, obstacles: &[String]) -> FallBackFailed {
        let interface = &place.interface;
        let is_attached = is_filter_attached(place);
        let why = match obstacles {
            [] => "no policy was ever confirmed for it".to_owned(),
            some => some.join("\n"),
        };
        let text = match &is_attached {
            Ok(true) => format!("the gate that is attached to {interface} stays attached, unchanged: {why}"),
            Ok(false) => format!("NO GATE is attached to {interface}, so nothing is dropped: {why}"),
            Err(error) => format!("{error}. If a gate is attached to {interface}, it stays unchanged: {why}"),
        };
        FallBackFailed { is_attached: is_attached.unwrap_or(false), text }
    }
}
