//! Attaches a gate, or replaces the one that is attached.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Gate;
use super::caveats::find_caveats;
use super::detach::detach;
use super::edits::Edit;
use super::error::GateError;
use super::fault;
use super::link::{AttachMode, Hook, refuse_other_program};
use super::nic::refuse_unfit;
use super::open::check_layout;
use super::pins::{check_owners, ensure_bpffs, has_pin, make_folder, pin, remove_empty_parent, remove_tree};
use super::place::GatePlace;
use super::program::OBJECT;
use super::requirements::check_requirements;
use super::resolvers::refuse_forgeable;
use super::trial::refuse_during_trial;
use crate::compile::Tables;
use crate::policy::Policy;

/// For so long the tracker listens before the first filter judges: longer than a name server or a host
/// that is pinged usually takes to answer. Answers to earlier datagrams would be dropped.
pub(super) const LISTEN_FIRST: Duration = Duration::from_secs(1);

/// For how long the tracker listens first. Conntrack has no answered flow of a question that is under way.
pub(super) fn find_listening_time(tables: &Tables) -> Duration {
    match tables.settings.has_handover() {
        true => LISTEN_FIRST,
        false => Duration::from_secs(u64::from(tables.settings.pickup_s)).min(LISTEN_FIRST),
    }
}

/// The result of an attach.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// How the filter is attached.
    pub mode: AttachMode,
    /// Where the tracker is attached.
    pub hook: Hook,
    /// Of the policy that is live now.
    pub generation: u64,
    /// The gate was attached already, and its programs were replaced.
    pub replaced: bool,
    /// Warnings for the user: a fall-back, a size that does not hold yet.
    pub warnings: Vec<String>,
    /// The quarantines that were restored, or that this policy gives to other servers, a sentence each.
    pub quarantines: Vec<String>,
    /// The edits that were restored, a sentence each.
    pub edits: Vec<String>,
    /// How many grants of names were restored.
    pub grants: usize,
}

impl Gate {
    /// Attaches a gate with `policy` at `place`. If one is attached there, replaces its programs and its
    /// policy without a gap. The caller holds the lock.
    ///
    /// # Errors
    /// Then nothing has changed, unless the error is [`GateError::HalfDone`].
    pub fn attach(
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<(Gate, Attachment), GateError> {
        refuse_forgeable(&tables.destinations.sources)?;
        Gate::attach_anyhow(place, policy, tables)
    }

    /// As [`Gate::attach`], also where the answers of a resolver can be forged from outside. Then they don't count.
    pub(super) fn attach_anyhow(
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<(Gate, Attachment), GateError> {
        check_requirements()?;
        refuse_unfit(place)?;
        ensure_bpffs()?;
        check_owners(&place.pins)?;
        refuse_during_trial(place)?;
        place.mark_detached(false);
        let (gate, attachment) = match has_pin(&place.maps())? {
            true => match check_layout(place) {
                Err(GateError::Layout { found, expected, .. }) if found < u64::from(expected) => {
                    Gate::rebuild(place, policy, tables)?
                }
                checked => checked.and_then(|()| Gate::replace(place, policy, tables))?,
            },
            false => Gate::attach_new(place, policy, tables)?,
        };
        // a rebuild that was killed has left the old gate there, with a tracker that is still attached
        let _ = remove_tree(&place.staging());
        Ok((gate, attachment.with_caveats(place, policy)))
    }

    pub(super) fn attach_new(
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<(Gate, Attachment), GateError> {
        refuse_other_program(place)?;
        let gate = Gate::make(OBJECT, &policy.tables, tables.settings.has_handover())?;
        gate.continue_generations(place)?;
        let generation = gate.install(policy, tables)?;
        // before the first packet comes to the filter
        let mut warnings = Vec::new();
        let quarantines = gate.restore_quarantines(place, &mut warnings);
        let edits = gate.restore_edits(place, &mut warnings);
        let grants = gate.restore_grants(place, &mut warnings);
        gate.pin_all(place)?;
        let attached = gate.attach_programs(place, tables, || {
            if tables.settings.is_strict() {
                let listen = find_listening_time(tables);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a second at most, which nothing needs to cut short"
                )]
                thread::sleep(listen);
            }
        });
        let (hook, mode, more) = attached.inspect_err(|_| {
            let _ = detach(place);
        })?;
        warnings.extend(more);
        warnings.extend(gate.find_handover_doubt()?);
        Ok((
            gate,
            Attachment { mode, hook, generation, replaced: false, warnings, quarantines, edits, grants },
        ))
    }

    /// All that the kernel may refuse comes before the policy takes effect, and is undone if the kernel
    /// refuses it.
    fn replace(place: &GatePlace, policy: &Policy, tables: &Tables) -> Result<(Gate, Attachment), GateError> {
        let (gate, asks) = Gate::make_for(place, &policy.tables, tables.settings.has_handover())?;
        gate.settle_trial(place)?;
        gate.reserve_generation(place);
        let mut warnings = gate.list_unapplied_sizes(&policy.tables);
        let programs = place.programs();
        gate.programs.stage_pins(&programs)?;
        let had_tracker =
            gate.find_tracker(place).inspect_err(|_| gate.programs.unstage_pins(&programs))? != Hook::No;
        let is_off = gate.find_mode(place).map(|mode| mode == AttachMode::No);
        is_off
            .and_then(|is_off| if is_off { gate.end_trial_without_nic(place) } else { Ok(()) })
            .inspect_err(|_| gate.programs.unstage_pins(&programs))?;
        // A gate without a tracker has recorded no flow: as in `apply`.
        let begun = match tables.settings.is_strict() && !had_tracker {
            true => gate.begin_tracking(place, tables.settings.pickup_s),
            false => Ok(()),
        };
        let mut quarantines = Vec::new();
        let installed = begun.and_then(|()| {
            let carried = gate.find_carried_quarantines(tables)?;
            quarantines = carried.iter().map(ToString::to_string).collect();
            warnings.extend(gate.find_homeless_edits(tables)?.iter().map(Edit::describe_end));
            gate.install(policy, tables)
        });
        let generation = installed.inspect_err(|_| {
            gate.programs.unstage_pins(&programs);
            gate.rollback_tracker(place, had_tracker);
        })?;

        if place.is_marked_unread() {
            quarantines.extend(gate.restore_quarantines(place, &mut warnings));
        }
        let edits = match place.has_unread_edits() {
            true => gate.restore_edits(place, &mut warnings),
            false => Vec::new(),
        };

        if !asks {
            gate.note_conntrack(false)?;
        }
        let activated = gate.programs.activate(&programs);
        let attached = activated.and_then(|()| gate.attach_programs(place, tables, || {}));
        let attached = attached.and_then(|attached| gate.note_conntrack(asks).map(|()| attached));
        let (hook, mode, more) = attached.map_err(|error| {
            let state = match gate.find_mode(place) {
                Err(_) => "it could not be found out which programs are attached".to_owned(),
                Ok(AttachMode::No) => {
                    format!("the gate on {} is NOT ATTACHED: nothing is dropped", place.interface)
                }
                Ok(AttachMode::Native | AttachMode::Generic) => {
                    "programs of the earlier version are still attached".to_owned()
                }
            };
            GateError::HalfDone { generation, state, error: Box::new(error) }
        })?;
        warnings.extend(more);
        warnings.extend(gate.find_handover_doubt()?);
        Ok((
            gate,
            Attachment { mode, hook, generation, replaced: true, warnings, quarantines, edits, grants: 0 },
        ))
    }

    /// The tracker first: no flow may begin unseen between the two. `listen` runs between them, so that
    /// the tracker sees what is being asked just now, and the answers are not lost.
    fn attach_programs(
        &self,
        place: &GatePlace,
        tables: &Tables,
        listen: impl FnOnce(),
    ) -> Result<(Hook, AttachMode, Vec<String>), GateError> {
        let mut warnings = Vec::new();
        self.try_to_note_own_links(place, &mut warnings);
        let hook = self.set_tracker(place, tables.settings.is_strict())?;
        listen();
        let mode = self.attach_filter(place, tables.settings.pickup_s, &mut warnings)?;
        Ok((hook, mode, warnings))
    }

    /// A gate that does not know them drops the same packets. Only the reasons of some drops depend on them, and
    /// the safe side is to take each frame for this machine's.
    pub(super) fn try_to_note_own_links(&self, place: &GatePlace, warnings: &mut Vec<String>) {
        if let Err(error) = self.note_own_links(place) {
            warnings.push(format!(
                "the MACs of this machine are not known, so a frame to another host of the link may raise the \
                 alarm of one that is forwarded; the daemon tries again every second: {error}"
            ));
        }
        if let Err(error) = self.note_own_networks(place) {
            warnings.push(format!("{error}; the daemon tries again every second"));
        }
    }

    /// Attaches to an interface that was deleted and made again. The caller holds the lock. Returns how
    /// the filter is attached, and what the user should know.
    ///
    /// # Errors
    /// When the kernel refuses. The tracker may be attached then.
    pub fn reattach(&self, place: &GatePlace) -> Result<(AttachMode, Vec<String>), GateError> {
        let pickup_s = self.live_settings()?.map_or(0, |settings| settings.pickup_s);
        let mut warnings = Vec::new();
        self.try_to_note_own_links(place, &mut warnings);
        // these programs may be older than those that another command has put there since
        self.note_conntrack(false)?;
        self.set_tracker(place, self.needs_tracker()?)?;
        let mode = self.attach_filter(place, pickup_s, &mut warnings)?;
        Ok((mode, warnings))
    }

    /// Pins everything in a staging folder, which then gets the gate's name: there is never half a gate.
    fn pin_all(&self, place: &GatePlace) -> Result<(), GateError> {
        let staging = place.staging();
        // an attach that was killed has left it, and nothing refers to it
        remove_tree(&staging)?;
        let named = self.stage_pins(&staging).and_then(|()| {
            fault::point();
            fs::rename(&staging, &place.pins).map_err(|error| not_made(&staging, &error))
        });
        named.inspect_err(|_| {
            let _ = remove_tree(&staging);
            remove_empty_parent(&place.pins);
        })
    }

    /// Pins maps and programs in a staging folder, and makes the one of links.
    pub(super) fn stage_pins(&self, staging: &Path) -> Result<(), GateError> {
        let failed = |error: std::io::Error| not_made(staging, &error);
        for folder in ["maps", "programs", "links"] {
            fault::inode_point().map_err(|errno| failed(errno.into()))?;
            make_folder(&staging.join(folder)).map_err(failed)?;
        }
        for (name, map) in self.maps.handles() {
            pin(map.as_fd(), &staging.join("maps").join(name))?;
        }
        let programs = staging.join("programs");
        self.programs.stage_pins(&programs)?;
        self.programs.activate(&programs)
    }
}

fn not_made(staging: &Path, error: &std::io::Error) -> GateError {
    GateError::not_pinned(format!("could not make the folder {}", staging.display()), error)
}

impl Attachment {
    /// The grants that were restored, for people. `None`: there are none.
    pub fn describe_grants(&self) -> Option<String> {
        match self.grants {
            0 => None,
            1 => Some("an address that a name was seen to have".to_owned()),
            count => Some(format!("{count} addresses that names were seen to have")),
        }
    }

    fn with_caveats(mut self, place: &GatePlace, policy: &Policy) -> Attachment {
        self.warnings.extend(find_caveats(place, policy));
        self
    }
}
