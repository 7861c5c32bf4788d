//! A policy on trial: the kernel goes back to the one before by itself, unless somebody confirms it in time.
//!
//! The way back is in the word that each packet reads, so it needs no process. All that the policy before needs
//! stays meanwhile: its slot, the tracker, the flows. Whoever takes the lock next tidies up.

use std::time::Duration;

use super::Gate;
use super::active::Active;
use super::audited::to_mark;
use super::error::GateError;
use super::install::find_deadline;
use super::link::is_filter_attached;
use super::pins::open_map;
use super::place::GatePlace;
use super::typed_map::TypedMap;
use crate::abi::{layout, settings, settings_flag, state};
use crate::audit::{Action, Entry};
use crate::clock::{Clock, NS_PER_S, now_ns, show_duration};
use crate::compile::{Tables, compile};
use crate::policy::Policy;

/// A trial can't be confirmed any more when so little of its time is left: the word would be written when packets
/// take the policy before already.
const CLOSE: Duration = Duration::from_millis(100);

/// A trial that is under way, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Generation of the policy on trial.
    pub generation: u64,
    /// Generation of the one before, which the way back makes the live one.
    pub before: u64,
    /// When the trial is over, by CLOCK_MONOTONIC.
    pub deadline_ns: u64,
}

impl Trial {
    /// When it is over, by the clock on the wall.
    pub fn ended_at(&self) -> jiff::Timestamp {
        Clock::now().to_wall(self.deadline_ns)
    }

    /// Seconds until the way back, rounded up.
    pub fn left_s(&self) -> u64 {
        self.deadline_ns.saturating_sub(now_ns()).div_ceil(NS_PER_S)
    }
}

impl Gate {
    /// The trial that is under way.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn trial(&self) -> Result<Option<Trial>, GateError> {
        let active = self.read_active()?;
        if !active.is_on_trial(now_ns()) {
            return Ok(None);
        }
        self.describe_trial(active).map(Some)
    }

    fn describe_trial(&self, active: Active) -> Result<Trial, GateError> {
        let generation = |settings: settings| settings.generation;
        Ok(Trial {
            generation: self.settings_of(active.slot)?.map_or(0, generation),
            before: self.settings_of(active.before)?.map_or(0, generation),
            deadline_ns: active.deadline_ns,
        })
    }

    pub(super) fn settings_of(&self, slot: Option<u32>) -> Result<Option<settings>, GateError> {
        slot.map_or(Ok(None), |slot| self.maps.policies.get(&slot))
    }

    /// Refuses what would take away the policy that a trial may have to go back to.
    ///
    /// # Errors
    /// While a trial is under way.
    pub fn refuse_during_trial(&self, place: &GatePlace) -> Result<(), GateError> {
        self.trial()?.map_or(Ok(()), |trial| Err(trial_runs(place, trial.left_s())))
    }

    /// Makes `policy` the live one for so long, and returns its generation. The caller holds the lock.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn begin_trial(
        &self,
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
        time: Duration,
    ) -> Result<u64, GateError> {
        self.settle_trial(place)?;
        self.refuse_during_trial(place)?;
        if self.live_slot()?.is_none() {
            let interface = &place.interface;
            return Err(GateError::Other {
                what: format!("the gate on {interface} has no policy yet, so no trial can go back to one"),
                why: format!("an attach was cut short\nhelp: portcullis attach -i {interface} -p POLICY"),
            });
        }
        let generation = self.install_and_track(place, policy, tables, Some(time))?;
        self.plan_pickup();
        Ok(generation)
    }

    /// The handshakes of a trial that does not track are not watched, so its connections are taken over after it.
    /// Meanwhile nothing asks for this time. The trial is under way, so a failure does not undo it.
    fn plan_pickup(&self) {
        let plan = || {
            let active = self.read_active()?;
            let (trial, before) = (self.settings_of(active.slot)?, self.settings_of(active.before)?);
            match (trial, before) {
                (Some(trial), Some(before))
                    if !is_strict(&trial) && is_strict(&before) && before.pickup_s != 0 =>
                {
                    let until = active.deadline_ns + u64::from(before.pickup_s) * NS_PER_S;
                    self.set_pickup_until(until)
                }
                _ => Ok(()),
            }
        };
        if let Err(error) = plan() {
            log::warn!("connections of the trial are not taken over after it: {error}");
        }
    }

    /// Sets the time of the trial that is under way anew. The caller holds the lock.
    ///
    /// # Errors
    /// When none is, or when it is all but over.
    pub fn extend_trial(&self, place: &GatePlace, time: Duration) -> Result<Trial, GateError> {
        self.settle_trial(place)?;
        let (active, trial) = self.find_open_trial(place)?;
        let extended = Active { deadline_ns: find_deadline(time), ..active };
        self.write_in_time(place, active, extended)?;
        self.plan_pickup();
        Ok(Trial { deadline_ns: extended.deadline_ns, ..trial })
    }

    /// Makes the policy on trial the live one for good. The caller holds the lock. Flows that it revokes end now.
    ///
    /// # Errors
    /// When no trial is under way, or when it is all but over. The policy before is the live one then, or will be.
    pub fn confirm_trial(&self, place: &GatePlace) -> Result<Trial, GateError> {
        self.settle_trial(place)?;
        let (active, trial) = self.find_open_trial(place)?;
        self.write_in_time(place, active, active.kept())?;
        if let Err(error) = self.tidy(place, None) {
            log::warn!("the policy is confirmed, but not all of the trial is tidied up: {error}");
        }
        Ok(trial)
    }

    /// Ends the trial that is under way, as its deadline would. The caller holds the lock.
    ///
    /// # Errors
    /// When none is.
    pub fn end_trial(&self, place: &GatePlace) -> Result<Trial, GateError> {
        self.settle_trial(place)?;
        let active = self.read_active()?;
        if !active.is_on_trial(now_ns()) {
            return Err(GateError::NoTrial { interface: place.interface.clone() });
        }
        let trial = self.describe_trial(active)?;
        self.write_active(active.back())?;
        let before = self.live_settings()?.unwrap_or_default();
        if is_strict(&before) && self.settings_of(active.slot)?.is_some_and(|settings| !is_strict(&settings))
        {
            self.begin_pickup(before.pickup_s)?;
        }
        if let Err(error) = self.tidy(place, active.slot) {
            log::warn!("the policy before is live, but not all of the trial is tidied up: {error}");
        }
        Ok(trial)
    }

    /// Tidies up after a trial whose time is over, and returns it. The caller holds the lock.
    ///
    /// # Errors
    /// Packets take the policy before all the same.
    pub fn settle_trial(&self, place: &GatePlace) -> Result<Option<Trial>, GateError> {
        let active = self.read_active()?;
        if !active.is_over(now_ns()) {
            return Ok(None);
        }
        let trial = self.describe_trial(active)?;
        // first, so that whoever dies in between leaves the word by which the next one sees what is to do
        self.tidy(place, active.slot)?;
        self.record_way_back(place, active, &trial);
        self.write_active(active.back())?;
        Ok(Some(trial))
    }

    /// Ends the trial of a gate that went with its NIC, before it is attached to another one. No packet meets either
    /// of its policies, and a new one must not wait for its deadline. The caller holds the lock.
    pub(super) fn end_trial_without_nic(&self, place: &GatePlace) -> Result<(), GateError> {
        let active = self.read_active()?;
        if !active.is_on_trial(now_ns()) {
            return Ok(());
        }
        self.write_active(active.back())?;
        self.record_end(place, active, "nobody confirmed the trial, which ended with the interface");
        let Some(tables) = self.compile_live()? else { return Ok(()) };
        self.tidy_tables(&tables, active.slot)
    }

    fn record_way_back(&self, place: &GatePlace, active: Active, trial: &Trial) {
        let ended = format!("nobody confirmed the trial, which was over {:.0}", trial.ended_at());
        self.record_end(place, active, &ended);
    }

    fn record_end(&self, place: &GatePlace, active: Active, how: &str) {
        let mark = |slot| self.settings_of(slot).ok().flatten().as_ref().map(to_mark);
        let entry = Entry::done(Action::WayBack).change(mark(active.slot), mark(active.before)).detail(how);
        if let Some(warning) = place.record(entry) {
            log::warn!("{warning}");
        }
    }

    /// The policy that the way back makes the live one. `None`: no trial is under way.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn policy_before_trial(&self) -> Result<Option<Policy>, GateError> {
        let active = self.read_active()?;
        match active.before.filter(|_| active.is_on_trial(now_ns())) {
            Some(slot) => self.policy_of_slot(slot),
            None => Ok(None),
        }
    }

    /// Whether the live policy needs the tracker, or the one before while it is on trial.
    pub(super) fn needs_tracker(&self) -> Result<bool, GateError> {
        let active = self.read_active()?;
        let live = self.settings_of(active.live_slot(now_ns()))?;
        let before = if active.is_on_trial(now_ns()) { self.settings_of(active.before)? } else { None };
        Ok(live.iter().chain(&before).any(is_strict))
    }

    /// Whether a trial is over that nobody has tidied up yet.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn has_ended_trial(&self) -> Result<bool, GateError> {
        Ok(self.read_active()?.is_over(now_ns()))
    }

    fn find_open_trial(&self, place: &GatePlace) -> Result<(Active, Trial), GateError> {
        let active = self.read_active()?;
        let now = now_ns();
        if !active.is_on_trial(now) {
            return Err(GateError::NoTrial { interface: place.interface.clone() });
        }
        if u128::from(active.deadline_ns - now) < CLOSE.as_nanos() {
            return Err(GateError::TrialTooLate { interface: place.interface.clone() });
        }
        Ok((active, self.describe_trial(active)?))
    }

    /// Writes the word while the trial that it follows is under way. A process that was stopped in between may
    /// have come too late: packets went back already, and stay there.
    fn write_in_time(&self, place: &GatePlace, before: Active, after: Active) -> Result<(), GateError> {
        self.write_active(after)?;
        if !before.is_over(now_ns()) {
            return Ok(());
        }
        self.write_active(before.back())?;
        let _ = self.tidy(place, before.slot);
        if let Ok(trial) = self.describe_trial(before) {
            self.record_way_back(place, before, &trial);
        }
        Err(GateError::TrialTooLate { interface: place.interface.clone() })
    }

    /// Leaves the tracker and the flows that the live policy needs, for no other one needs any now. `ended`: the
    /// slot of the policy whose trial has ended. What was cut off under it stays cut off.
    fn tidy(&self, place: &GatePlace, ended: Option<u32>) -> Result<(), GateError> {
        let Some(tables) = self.compile_live()? else { return Ok(()) };
        if place.ifindex != 0 {
            self.set_tracker(place, tables.settings.is_strict())?;
        }
        self.tidy_tables(&tables, ended)
    }

    fn compile_live(&self) -> Result<Option<Tables>, GateError> {
        let Some(policy) = self.live_policy()? else { return Ok(None) };
        let tables = compile(&policy).map_err(|diagnostics| GateError::Other {
            what: "this version does not understand the live policy".to_owned(),
            why: diagnostics.to_string(),
        })?;
        Ok(Some(tables))
    }

    fn tidy_tables(&self, tables: &Tables, ended: Option<u32>) -> Result<(), GateError> {
        if let Some(slot) = ended {
            self.carry_quarantines_of(slot, tables, &self.known_ids(&tables.names)?)?;
        }
        self.end_homeless_edits(tables)?;
        self.end_revoked_flows(tables)
    }

    /// While a policy is on trial: keeps cut off under the policy before what is cut off under this one.
    pub(super) fn carry_quarantines_back(&self) -> Result<(), GateError> {
        let active = self.read_active()?;
        let (Some(slot), Some(before)) = (active.slot, active.before) else { return Ok(()) };
        if !active.is_on_trial(now_ns()) {
            return Ok(());
        }
        let Some(policy) = self.policy_of_slot(before)? else { return Ok(()) };
        let Ok(tables) = compile(&policy) else { return Ok(()) };
        self.carry_quarantines_of(slot, &tables, &self.known_ids(&tables.names)?)
    }

    fn known_ids(&self, names: &[String]) -> Result<Vec<u32>, GateError> {
        let ids = self.ids_by_name()?;
        Ok(names.iter().map(|name| ids.get(name).copied().unwrap_or(0)).collect())
    }
}

/// Refuses a change of the gate that is pinned at `place` while a trial is under way. A gate of another layout has
/// its own words, and one that is not there has none. One whose NIC is gone judges nothing, so nothing can go back.
///
/// # Errors
/// While a trial is under way.
pub fn refuse_during_trial(place: &GatePlace) -> Result<(), GateError> {
    let Ok(handle) = open_map(&place.maps().join("state")) else { return Ok(()) };
    let words: TypedMap<u32, u64> = TypedMap::new("state", handle)?;
    let word = |index: state| words.get(&index.0).map(Option::unwrap_or_default);
    if word(state::STATE_LAYOUT)? != u64::from(layout::LAYOUT_VERSION.0) {
        return Ok(());
    }
    let active = Active::decode(word(state::STATE_ACTIVE)?);
    match active.is_on_trial(now_ns()) && is_filter_attached(place)? {
        true => {
            Err(trial_runs(place, (active.deadline_ns - now_ns().min(active.deadline_ns)).div_ceil(NS_PER_S)))
        }
        false => Ok(()),
    }
}

fn trial_runs(place: &GatePlace, left_s: u64) -> GateError {
    GateError::TrialRuns { interface: place.interface.clone(), left: show_duration(left_s) }
}

fn is_strict(settings: &settings) -> bool {
    settings.flags & settings_flag::SETTINGS_STRICT.0 != 0
}
