//! Makes a gate anew whose maps this version can't use, and puts it into the place of the old one. The link
//! of the filter stays, and only its program changes: each packet meets either the old gate or the new one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::Gate;
use super::attach::{Attachment, find_listening_time};
use super::detach::detach;
use super::error::GateError;
use super::fault;
use super::link::{Hook, mode_of_program, open_live_link, program_id};
use super::pins::{LINK_FILTER, LINK_TRACK, pin, remove_tree};
use super::place::GatePlace;
use super::program::{OBJECT, Programs};
use super::system::{self, clsact};
use crate::compile::Tables;
use crate::policy::Policy;

/// A tracker that is attached beside the old one, or in its place.
enum NewTracker {
    None,
    Beside(OwnedFd),
    InPlace,
}

impl Gate {
    /// Replaces a gate by a new one with maps of its own. Quarantines, edits and grants come from their files, and open flows pass
    /// through `pickup`. Flows and the ledger of the old gate are lost. The caller holds the lock.
    ///
    /// # Errors
    /// Then the old gate stays attached, unless the error is [`GateError::HalfDone`].
    pub(super) fn rebuild(
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<(Gate, Attachment), GateError> {
        let Some(filter) = open_live_link(place, LINK_FILTER)? else {
            // nothing is attached that could be kept
            detach(place)?;
            return Gate::attach_new(place, policy, tables);
        };
        let gate = Gate::make(OBJECT, &policy.tables, tables.settings.has_handover())?;
        gate.continue_generations(place)?;
        let generation = gate.install(policy, tables)?;
        let mut warnings = vec![
            "the tables of the gate were those of another version or incomplete: the gate was made anew without \
             a gap, open connections go through `pickup`, and drops are counted from 0"
                .to_owned(),
        ];
        let quarantines = gate.restore_quarantines(place, &mut warnings);
        let edits = gate.restore_edits(place, &mut warnings);
        let grants = gate.restore_grants(place, &mut warnings);
        if place.is_marked_unread() || place.has_unread_edits() {
            return Err(GateError::Other {
                what: "the gate was not replaced, because its quarantines or edits would have ended"
                    .to_owned(),
                why: warnings.split_off(1).join("\n"),
            });
        }
        let staging = place.staging();
        remove_tree(&staging)?;
        let old_track = open_live_link(place, LINK_TRACK)?;
        let old_programs = Programs::open(place).ok();
        gate.try_to_note_own_links(place, &mut warnings);

        let mut tracker = NewTracker::None;
        let ready = gate.stage_pins(&staging).and_then(|()| {
            pin(filter.as_fd(), &staging.join("links").join(LINK_FILTER))?;
            if tables.settings.is_strict() {
                tracker = gate.stage_tracker(place, &staging)?;
                let listen = find_listening_time(tables);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a second at most, which nothing needs to cut short"
                )]
                thread::sleep(listen);
            }
            gate.begin_pickup(tables.settings.pickup_s)?;
            system::update_link(filter.as_fd(), gate.programs.filter.as_fd()).map_err(|errno| {
                GateError::Kernelside {
                    what: format!("could not replace the program on {}", place.interface),
                    errno,
                }
            })
        });
        ready.inspect_err(|_| {
            match (&tracker, &old_programs) {
                (NewTracker::Beside(link), _) => drop(system::detach_link(link.as_fd())),
                (NewTracker::InPlace, Some(old)) => drop(clsact::attach(old.track.as_fd(), place.ifindex)),
                (NewTracker::InPlace | NewTracker::None, _) => {}
            }
            let _ = remove_tree(&staging);
        })?;

        exchange(&staging, &place.pins).map_err(|errno| GateError::HalfDone {
            generation,
            state: "its pins have not got their place yet".to_owned(),
            error: Box::new(GateError::NotPinned {
                what: format!("could not exchange {}", place.pins.display()),
                errno,
            }),
        })?;
        if let Some(link) = old_track {
            let _ = system::detach_link(link.as_fd());
        }
        if matches!(tracker, NewTracker::None) {
            clsact::detach(gate.programs.track.as_fd(), place.ifindex);
        }
        if let Err(error) = remove_tree(&staging) {
            warnings.push(format!("the pins of the old gate are left: {error}"));
        }
        let hook = match tracker {
            NewTracker::None => Hook::No,
            NewTracker::Beside(_) => Hook::Tcx,
            NewTracker::InPlace => Hook::Clsact,
        };
        let mode = mode_of_program(place, program_id(gate.programs.filter.as_fd())?)?;
        warnings.extend(gate.find_handover_doubt()?);
        let attachment =
            Attachment { mode, hook, generation, replaced: true, warnings, quarantines, edits, grants };
        Ok((gate, attachment))
    }

    /// Attaches the tracker beside the old one, so that both see what is opened until the filter changes. Before
    /// Linux 6.6 it takes the place of the old one.
    fn stage_tracker(&self, place: &GatePlace, staging: &Path) -> Result<NewTracker, GateError> {
        let program = self.programs.track.as_fd();
        match system::link_tcx_egress(program, place.ifindex) {
            Ok(link) => {
                pin(link.as_fd(), &staging.join("links").join(LINK_TRACK))?;
                Ok(NewTracker::Beside(link))
            }
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {
                let what = format!("could not attach the tracker to {}", place.interface);
                clsact::attach(program, place.ifindex)
                    .map_err(|error| GateError::from_libbpf(what, &error))?;
                Ok(NewTracker::InPlace)
            }
            Err(errno) => Err(GateError::Kernelside {
                what: format!("could not attach the tracker to {}", place.interface),
                errno,
            }),
        }
    }
}

/// Gives two folders each other's names in one step.
fn exchange(one: &Path, other: &Path) -> Result<(), Errno> {
    fault::point();
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
}
