//! Monitor: looks every second how the gate is attached. The user reads every change, the metrics count
//! it, and a program that was removed is attached again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use log::debug;

use super::announcement::describe_rest;
use super::metrics::snapshot::{Snapshot, increment};
use crate::abi::settings_flag;
use crate::alarm::GateTrouble;
use crate::clock::show_duration;
use crate::gate::{AttachMode, Attachment, Gate, GateError, GatePlace, Hook, Trial};
use crate::policy::{Enforcement, Policy, Tracking};
use crate::stderr::notice;

/// After so long the daemon tries again what the kernel has refused.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(60);

/// What a check has found.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// What is wrong with the gate since the check before, in words.
    pub troubles: Vec<(GateTrouble, String)>,
    /// What is right again.
    pub over: Vec<GateTrouble>,
    /// Changes of how the gate is attached, in words.
    pub changes: Vec<String>,
    /// Another policy is live than before.
    pub has_other_policy: bool,
    /// Why the daemon can't go on.
    pub end: Option<anyhow::Error>,
}

impl Check {
    fn report(&mut self, trouble: GateTrouble, text: String) {
        self.troubles.push((trouble, text));
    }
}

/// The gate on its interface.
pub(super) struct Monitor<'gate> {
    gate: &'gate Gate,
    place: GatePlace,
    mode: AttachMode,
    tracker: Hook,
    /// Strict tracking, which needs the tracker.
    is_strict: bool,
    /// Of the policy with this generation, the last one that the daemon has read.
    enforcement: (u64, Enforcement),
    /// Generation of the policy that was live at the last check.
    seen_generation: u64,
    is_detached: bool,
    /// The policy only observes.
    is_observing: bool,
    /// Why the gate could not be attached again, as the user last read it.
    last_refusal: String,
    /// The trial that was under way at the last check.
    trial: Option<Trial>,
    /// When the daemon may try again to turn the handover on.
    handover_due: Instant,
    /// Why the last check failed. Empty if it did not.
    last_failure: String,
    snapshot: Arc<Snapshot>,
}

impl<'gate> Monitor<'gate> {
    /// Of a gate that was just attached.
    pub(super) fn new(
        gate: &'gate Gate,
        place: &GatePlace,
        policy: &Policy,
        attachment: &Attachment,
        snapshot: Arc<Snapshot>,
    ) -> Monitor<'gate> {
        Monitor {
            gate,
            place: place.clone(),
            mode: attachment.mode,
            tracker: attachment.hook,
            is_strict: policy.settings.tracking.value == Tracking::Strict,
            enforcement: (attachment.generation, Enforcement::of(policy)),
            seen_generation: attachment.generation,
            is_detached: false,
            is_observing: Enforcement::of(policy) == Enforcement::Observing,
            last_refusal: String::new(),
            trial: gate.trial().ok().flatten(),
            handover_due: Instant::now(),
            last_failure: String::new(),
            snapshot,
        }
    }

    /// Where the gate is. The interface has another index after it was deleted and made again.
    pub(super) fn place(&self) -> &GatePlace {
        &self.place
    }

    /// Generation of the live policy at the last check.
    pub(super) fn seen_generation(&self) -> u64 {
        self.seen_generation
    }

    /// Whether somebody typed `detach`.
    pub(super) fn is_detached(&self) -> bool {
        self.is_detached
    }

    /// Goes by another policy, which has just become the live one.
    pub(super) fn follow(&mut self, policy: &Policy, generation: u64) {
        self.enforcement = (generation, Enforcement::of(policy));
    }

    /// Compares a policy that has become the live one with the one before. `Some`: it only observes, in words.
    pub(super) fn note_policy(&mut self, policy: &Policy) -> Option<String> {
        let was_observing =
            std::mem::replace(&mut self.is_observing, Enforcement::of(policy) == Enforcement::Observing);
        let interface = &self.place.interface;
        (self.is_observing && !was_observing)
            .then(|| format!("a policy that only observes is live on {interface}: NOTHING IS DROPPED"))
    }

    /// Whether the policy only observes.
    pub(super) fn is_observing(&self) -> bool {
        self.is_observing
    }

    /// Looks how the gate is attached. The mode never changes silently, and without a gate there is
    /// no daemon.
    ///
    /// # Errors
    /// When the gate can't be read.
    pub(super) fn check(&mut self) -> anyhow::Result<Check> {
        self.follow_name();
        let interface = &self.place.interface;
        let mut check = Check::default();
        if !self.gate.is_pinned_at(&self.place)? {
            let help = format!("help: portcullis run -i {interface} -p POLICY attaches it again");
            if !self.place.is_marked_detached() {
                let text = format!("the pins of the gate on {interface} are gone, and nobody typed `detach`");
                check.end = Some(anyhow!("{text}; the daemon stops\n{help}"));
                check.changes.push(text.clone());
                check.report(GateTrouble::Detached, text);
                return Ok(check);
            }
            notice!(
                "portcullis: another command has detached the gate from {interface}; the daemon stops\n{help}"
            );
            let text = format!("somebody has detached the gate from {interface}: nothing is dropped");
            check.report(GateTrouble::Detached, text);
            self.is_detached = true;
            return Ok(check);
        }
        let mode = self.gate.find_mode(&self.place)?;
        if mode != self.mode {
            let text = match mode {
                AttachMode::No if self.place.is_elsewhere() => describe_move(interface),
                mode => describe_mode_change(interface, self.mode, mode),
            };
            check.changes.push(text.clone());
            match mode {
                AttachMode::No => check.report(GateTrouble::Detached, text),
                AttachMode::Generic => check.report(GateTrouble::ModeChanged, text),
                AttachMode::Native => {
                    notice!("portcullis: {text}");
                    check.over.push(GateTrouble::ModeChanged);
                }
            }
            self.mode = mode;
            increment(&self.snapshot.filter_changes);
        }
        if !std::mem::take(&mut self.last_failure).is_empty() {
            notice!("portcullis: the daemon looks at the gate again");
        }
        // From the kernel, because `apply` may have changed it.
        if let Some(settings) = self.gate.live_settings()? {
            self.is_strict = settings.flags & settings_flag::SETTINGS_STRICT.0 != 0;
            check.has_other_policy = self.seen_generation != settings.generation;
            self.seen_generation = settings.generation;
        }
        let tracker = self.gate.find_tracker(&self.place)?;
        if tracker != self.tracker {
            let text = describe_tracker_change(interface, self.tracker, tracker, self.is_strict);
            check.changes.push(text.clone());
            match tracker {
                Hook::No if self.is_strict => check.report(GateTrouble::TrackerMissing, text),
                Hook::No | Hook::Tcx | Hook::Clsact => notice!("portcullis: {text}"),
            }
            self.tracker = tracker;
            increment(&self.snapshot.tracker_changes);
        }
        if mode == AttachMode::No || self.is_strict && tracker == Hook::No {
            check.changes.extend(self.try_to_reattach());
        } else if let Err(error) = self.gate.note_own_links(&self.place) {
            // those of a second ago hold on
            debug!("{error}");
        } else if let Err(error) = self.gate.note_own_networks(&self.place) {
            debug!("{error}");
        }
        check.changes.extend(self.try_to_hand_over());
        if self.mode != AttachMode::No {
            check.over.push(GateTrouble::Detached);
        }
        if self.tracker != Hook::No || !self.is_strict {
            check.over.push(GateTrouble::TrackerMissing);
        }
        Ok(check)
    }

    /// Notices that a trial has begun or ended, and tidies up after it. What can't be read or locked now comes a second
    /// later: packets need none of this.
    pub(super) fn settle_trial(&mut self) {
        let ended = match self.gate.has_ended_trial() {
            Ok(true) => self.place.try_lock().and_then(|_lock| self.gate.settle_trial(&self.place)),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let ended = ended.unwrap_or_else(|error| {
            debug!("{error}");
            None
        });
        let Ok(trial) = self.gate.trial() else { return };
        let before = std::mem::replace(&mut self.trial, trial);
        if let Some(text) = ended.or(before).and_then(|before| self.describe_trial_end(&before)) {
            notice!("portcullis: {text}");
        }
        if let Some(trial) = trial.filter(|trial| before.is_none_or(|before| before != *trial)) {
            notice!(
                "portcullis: generation {} of the policy is on trial on {}: unless somebody confirms it, generation {} \
                 is live again in {}",
                trial.generation,
                self.place.interface,
                trial.before,
                show_duration(trial.left_s())
            );
        }
    }

    /// `None`: the trial goes on.
    fn describe_trial_end(&self, trial: &Trial) -> Option<String> {
        let live = self.gate.live_settings().ok().flatten()?.generation;
        let Trial { generation, before, .. } = trial;
        let interface = &self.place.interface;
        match (self.trial, live) {
            (Some(now), _) if now.generation == *generation => None,
            (None, live) if live == *generation => {
                Some(format!("generation {generation} of the policy is confirmed on {interface}"))
            }
            (_, live) if live == *before => Some(format!(
                "nobody confirmed generation {generation} of the policy: generation {before} is live again on \
                 {interface}"
            )),
            _ => Some(format!("the trial of generation {generation} on {interface} is over")),
        }
    }

    /// Says once why the gate could not be looked at. The daemon looks again every second.
    pub(super) fn note_failed_check(&mut self, error: &anyhow::Error) {
        let failure = format!("{error:#}");
        if failure != self.last_failure {
            notice!(
                "portcullis: warning: the daemon can't look at the gate, and tries again every second: {failure}"
            );
            self.last_failure = failure;
        }
    }

    /// One line for `systemctl status`.
    pub(super) fn describe(&self) -> String {
        let attached = describe_state(&self.place.interface, self.mode, self.is_strict, self.tracker);
        let open = self.snapshot.count_open();
        format!("{attached}; {open} {} open", if open == 1 { "alarm" } else { "alarms" })
    }

    /// The last sentence of a daemon that leaves its gate attached.
    pub(super) fn describe_rest(&self) -> String {
        let mode = self.gate.find_mode(&self.place).unwrap_or(self.mode);
        describe_rest(&self.place.interface, mode, self.find_enforcement())
    }

    /// Reads the live policy only if another command has applied it.
    fn find_enforcement(&self) -> Enforcement {
        let (generation, enforcement) = self.enforcement;
        match self.gate.live_settings() {
            Ok(Some(settings)) if settings.generation != generation => {
                self.gate.live_policy().ok().flatten().map_or(enforcement, |live| Enforcement::of(&live))
            }
            _ => enforcement,
        }
    }

    /// The gate stays on its NIC when that gets another name.
    fn follow_name(&mut self) {
        let Some(name) = self.place.find_name().filter(|name| *name != self.place.interface) else {
            return;
        };
        notice!(
            "portcullis: {} is called {name} now, and the gate stays on it; its alarms, metrics and history keep the name {}",
            self.place.interface,
            self.place.attached_as
        );
        self.place.interface = name;
    }

    /// Says why the gate could not be attached again, once.
    fn note_refusal(&mut self, error: &GateError) {
        let refusal = error.to_string();
        if refusal != self.last_refusal {
            notice!("portcullis: warning: the daemon tries every second to attach again: {refusal}");
            self.last_refusal = refusal;
        }
    }

    /// Turns the handover on that the policy has, once the kernel has conntrack, and says so.
    fn try_to_hand_over(&mut self) -> Option<String> {
        if !self.gate.lacks_conntrack().unwrap_or(false) || Instant::now() < self.handover_due {
            return None;
        }
        let sizes = self.gate.live_sizes().ok().flatten()?;
        let place = &self.place;
        let turned_on = place.try_lock().and_then(|_lock| match self.gate.is_pinned_at(place)? {
            true => self.gate.turn_on_handover(place, &sizes),
            false => Ok(false),
        });
        match turned_on {
            Ok(true) => {
                let text = format!(
                    "conntrack is there: open connections of another router are taken over on {}",
                    place.interface
                );
                notice!("portcullis: {text}");
                return Some(text);
            }
            Ok(false) if self.gate.has_conntrack() => {
                notice!(
                    "portcullis: warning: the kernel's conntrack can't be asked; the daemon tries again every minute"
                );
                self.handover_due = Instant::now() + HANDOVER_PATIENCE;
            }
            Ok(false) => {}
            Err(GateError::Locked { .. }) => {}
            Err(error) => {
                notice!(
                    "portcullis: warning: the daemon tries every minute to turn the handover on: {error}"
                );
                self.handover_due = Instant::now() + HANDOVER_PATIENCE;
            }
        }
        None
    }

    /// Attaches what is missing, and says so. This also brings the gate back to an interface that was deleted and
    /// made again.
    fn try_to_reattach(&mut self) -> Option<String> {
        let place = match self.place.refresh() {
            Ok(place) if place.ifindex != 0 => place,
            // it is gone, or in another network namespace
            Ok(_) => return None,
            Err(error) => {
                self.note_refusal(&error);
                return None;
            }
        };
        let restored = place.try_lock().and_then(|_lock| match self.gate.is_pinned_at(&place)? {
            true => self
                .gate
                .reattach(&place)
                .and_then(|(mode, warnings)| Ok((mode, self.gate.find_tracker(&place)?, warnings))),
            false => Err(GateError::NotAttached { interface: place.interface.clone() }),
        });
        match restored {
            Ok((mode, tracker, warnings)) => {
                for warning in warnings {
                    notice!("portcullis: warning: {warning}");
                }
                let text = format!(
                    "attached to {} again: {}, tracker {}",
                    place.interface,
                    mode.name(),
                    tracker.name()
                );
                notice!("portcullis: {text}");
                if mode != self.mode {
                    increment(&self.snapshot.filter_changes);
                }
                if tracker != self.tracker {
                    increment(&self.snapshot.tracker_changes);
                }
                (self.mode, self.tracker) = (mode, tracker);
                self.place = place;
                self.last_refusal.clear();
                return Some(text);
            }
            // The command that holds the lock is changing just this.
            Err(error @ (GateError::Locked { .. } | GateError::NotAttached { .. })) => debug!("{error}"),
            Err(error) => self.note_refusal(&error),
        }
        None
    }
}

fn describe_move(interface: &str) -> String {
    format!(
        "the NIC {interface} is in another network namespace now: the gate no longer protects what this one \
         forwards. Its filter is still on the NIC there, but this daemon can't watch it"
    )
}

fn describe_mode_change(interface: &str, before: AttachMode, now: AttachMode) -> String {
    let before = match before {
        AttachMode::No => "was not attached",
        AttachMode::Generic => "was generic",
        AttachMode::Native => "was native",
    };
    match now {
        AttachMode::No => format!(
            "the gate on {interface} is no longer attached ({before}): NOTHING IS DROPPED. \
             Was the interface deleted, or the program removed?"
        ),
        AttachMode::Generic => format!(
            "the gate on {interface} is now generic ({before}): slower, because the kernel first makes a \
             buffer of each packet"
        ),
        AttachMode::Native => {
            format!("the gate on {interface} is now native ({before}): it runs in the driver")
        }
    }
}

fn describe_tracker_change(interface: &str, before: Hook, now: Hook, is_strict: bool) -> String {
    let before = match before {
        Hook::No => "was not attached".to_owned(),
        Hook::Tcx | Hook::Clsact => format!("was {}", before.name()),
    };
    match (now, is_strict) {
        (Hook::No, true) => format!(
            "the tracker on {interface} is no longer attached ({before}): NEW FLOWS OF PEERS ARE NOT SEEN, and \
             the answers of servers are dropped. Was the program removed?"
        ),
        (Hook::No, false) => {
            format!(
                "the tracker on {interface} is no longer attached ({before}): service tracking needs none"
            )
        }
        (Hook::Tcx | Hook::Clsact, _) => {
            format!("the tracker on {interface} is now {} ({before}): it sees the flows of peers", now.name())
        }
    }
}

fn describe_state(interface: &str, mode: AttachMode, is_strict: bool, tracker: Hook) -> String {
    match (mode, is_strict && tracker == Hook::No) {
        (AttachMode::No, _) => format!("NOT ATTACHED to {interface}, nothing is dropped"),
        (mode, true) => format!("attached to {interface}: {}, WITHOUT ITS TRACKER", mode.name()),
        (mode, false) => format!("attached to {interface}: {}", mode.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_is_off_its_interface_is_said_to_drop_nothing() {
        let change = describe_mode_change("dmz0", AttachMode::Native, AttachMode::No);
        assert!(
            change.starts_with("the gate on dmz0 is no longer attached (was native): NOTHING IS DROPPED"),
            "{change}"
        );
        let change = describe_mode_change("dmz0", AttachMode::No, AttachMode::Generic);
        assert!(change.starts_with("the gate on dmz0 is now generic (was not attached): slower"), "{change}");
    }

    #[test]
    fn a_missing_tracker_is_a_danger_in_strict_tracking_alone() {
        let strict = describe_tracker_change("dmz0", Hook::Tcx, Hook::No, true);
        assert!(strict.contains("no longer attached (was tcx): NEW FLOWS OF PEERS ARE NOT SEEN"), "{strict}");
        let service = describe_tracker_change("dmz0", Hook::Tcx, Hook::No, false);
        assert_eq!(
            service,
            "the tracker on dmz0 is no longer attached (was tcx): service tracking needs none"
        );
    }

    #[test]
    fn the_state_names_what_is_missing() {
        let state = |mode, strict, tracker| describe_state("dmz0", mode, strict, tracker);
        assert_eq!(state(AttachMode::Native, true, Hook::Tcx), "attached to dmz0: native");
        assert_eq!(
            state(AttachMode::Native, true, Hook::No),
            "attached to dmz0: native, WITHOUT ITS TRACKER"
        );
        assert_eq!(state(AttachMode::Generic, false, Hook::No), "attached to dmz0: generic");
        assert_eq!(state(AttachMode::No, true, Hook::No), "NOT ATTACHED to dmz0, nothing is dropped");
    }
}
