//! Detaches a gate and removes its pins.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::audited::read_mark;
use super::error::GateError;
use super::link::{find_filter_here, unless_short};
use super::orphans::{GateState, PinnedGate, judge_gate};
use super::pins::{
    LINKS, check_mounts, check_owners, check_writable, has_pin, list_tree, remove_empty_parent, remove_listed,
};
use super::place::GatePlace;
use super::program::TRACK;
use super::requirements::check_requirements;
use super::system::{self, clsact};
use crate::audit::PolicyMark;

/// The kernel's name of the filter: the first 15 bytes of it.
const FILTER_NAME: &str = "portcullis_filt";

/// What there was to detach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// Nothing.
    Nothing,
    /// A gate, or something of one, that was pinned.
    Gate,
    /// A filter without pins: somebody has removed them or moved them away.
    Unpinned,
}

/// Detaches both programs and removes every pin. Also removes what is left of a gate of another layout,
/// or of one half made. Asks the kernel whether a filter is left that has no pins, and detaches it too. The
/// caller holds the lock.
///
/// # Errors
/// Then the gate is still attached, unless the error is [`GateError::PinsLeft`].
pub fn detach(place: &GatePlace) -> Result<Detached, GateError> {
    check_requirements()?;
    check_mounts()?;
    check_owners(&place.pins)?;
    // before anything is detached: half a gate is no gate
    check_writable(&place.pins)?;
    // Whatever takes a descriptor comes before the first change.
    let track = unless_short(system::open_pin(&place.programs().join(TRACK)))?;
    let hooked = match &track {
        Some(track) => unless_short(clsact::query(track.as_fd(), place.ifindex))?,
        None => None,
    };
    let mut links = Vec::new();
    for name in LINKS {
        links.extend(unless_short(system::open_pin(&place.links().join(name)))?);
    }
    // the links first, so that a death in between leaves no program without the names of its maps
    let mut pins = list_tree(&place.links())?;
    for pin in list_tree(&place.pins)? {
        if !pins.contains(&pin) {
            pins.push(pin);
        }
    }
    pins.extend(list_tree(&place.staging())?);
    unless_short(system::query_xdp(place.ifindex))?;

    if let (Some(track), Some(_)) = (&track, hooked) {
        clsact::detach(track.as_fd(), place.ifindex);
    }
    for link in &links {
        // an error means that the interface is gone
        let _ = system::detach_link(link.as_fd());
    }
    drop((track, links));
    let left = |error| GateError::PinsLeft { interface: place.interface.clone(), error: Box::new(error) };
    remove_listed(&pins).map_err(left)?;
    remove_empty_parent(&place.pins);
    match (detach_unpinned(place)?, pins.is_empty()) {
        (true, _) => Ok(Detached::Unpinned),
        (false, false) => Ok(Detached::Gate),
        (false, true) => Ok(Detached::Nothing),
    }
}

/// Detaches a filter of ours that is on the interface although nothing is pinned. Returns whether there was one.
fn detach_unpinned(place: &GatePlace) -> Result<bool, GateError> {
    let failed = |errno| GateError::Kernelside {
        what: format!("could not detach the filter on {}, whose pins are gone", place.interface),
        errno,
    };
    let Some(Some((id, _))) = unless_short(system::query_xdp(place.ifindex))? else {
        return Ok(false);
    };
    if system::name_program(id).map_err(failed)?.as_deref() != Some(FILTER_NAME) {
        return Ok(false);
    }
    for link in system::find_links_of(id).map_err(failed)? {
        system::detach_link(link.as_fd()).map_err(failed)?;
    }
    match unless_short(system::query_xdp(place.ifindex))? {
        Some(Some((still, _))) if still == id => Err(failed(Errno::EBUSY)),
        _ => Ok(true),
    }
}

/// Whether something of a gate is pinned, whole or not.
///
/// # Errors
/// When the kernel can't say.
pub fn is_pinned(place: &GatePlace) -> Result<bool, GateError> {
    Ok(has_pin(&place.pins)? || has_pin(&place.staging())?)
}

/// A gate of another network namespace that was removed by its name.
#[derive(Clone, Debug)]
pub struct RemovedGate {
    /// The gate.
    pub gate: PinnedGate,
    /// Its place.
    pub place: GatePlace,
    /// The policy that was live.
    pub before: Option<PolicyMark>,
}

/// Removes the gate of this name, whose network namespace is gone.
///
/// # Errors
/// When there is none, or when its network namespace may still exist. Then nothing is touched.
pub fn detach_by_name(name: &str) -> Result<RemovedGate, GateError> {
    check_requirements()?;
    check_mounts()?;
    let Some(mut place) = GatePlace::of_gate(name) else {
        return Err(GateError::no_such_pins(name));
    };
    if !is_pinned(&place)? {
        return Err(GateError::no_such_pins(name));
    }
    // first the locks: a gate of a new namespace with the same number waits
    let _lock = place.lock()?;
    let _daemon = place.lock_daemon()?;
    let gate = judge_gate(name)?;
    if let Some(index) = find_filter_here(&place)? {
        place.ifindex = index;
    }
    match gate.state {
        GateState::Orphaned | GateState::Moved => {
            let before = read_mark(&place);
            detach(&place)?;
            Ok(RemovedGate { gate, place, before })
        }
        GateState::Unknown => Err(GateError::NamespaceUnknown { name: gate.name }),
        GateState::Attached | GateState::Detached => {
            Err(GateError::NamespaceLives { name: gate.name, interface: gate.interface })
        }
    }
}
