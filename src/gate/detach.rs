//! Detaches a gate and removes its pins.

use std::os::fd::AsFd;

use super::error::GateError;
use super::link::find_filter_here;
use super::orphans::{GateState, PinnedGate, judge_gate, parse_folder};
use super::pins::{LINKS, check_mounts, check_writable, remove_empty_parent, remove_tree};
use super::place::GatePlace;
use super::program::Programs;
use super::requirements::check_requirements;
use super::system::{self, clsact};

/// Detaches both programs and removes every pin. Also removes what is left of a gate of another layout,
/// or of one half made. Returns whether there was anything. The caller holds the lock.
///
/// # Errors
/// When the pins can't be removed. The gate is still attached then, unless the kernel fails in between.
pub fn detach(place: &GatePlace) -> Result<bool, GateError> {
    check_requirements()?;
    check_mounts()?;
    // before anything is detached: half a gate is no gate
    check_writable(&place.pins)?;
    if let Ok(programs) = Programs::open(&place.programs()) {
        clsact::detach(programs.track.as_fd(), place.ifindex);
    }
    for name in LINKS {
        if let Ok(link) = system::open_pin(&place.links().join(name)) {
            // an error means that the interface is gone
            let _ = system::detach_link(link.as_fd());
        }
    }
    // the links first, so that a death in between leaves no program without the names of its maps
    let links = remove_tree(&place.links())?;
    let others = remove_tree(&place.pins)?;
    let staging = remove_tree(&place.staging())?;
    remove_empty_parent(&place.pins);
    Ok(links || others || staging)
}

/// Whether something of a gate is pinned, whole or not.
pub fn is_pinned(place: &GatePlace) -> bool {
    place.pins.exists() || place.staging().exists()
}

/// Removes the gate of this name, whose network namespace is gone.
///
/// # Errors
/// When there is none, or when its network namespace may still exist. Then nothing is touched.
pub fn detach_by_name(name: &str) -> Result<PinnedGate, GateError> {
    check_requirements()?;
    check_mounts()?;
    let place = parse_folder(name).map(|(interface, _)| GatePlace::of_folder(&interface, name));
    let Some(mut place) = place.filter(is_pinned) else {
        return Err(GateError::no_such_pins(name));
    };
    // first the locks: a gate of a new namespace with the same number waits
    let _lock = place.lock()?;
    let _daemon = place.lock_daemon()?;
    let gate = judge_gate(name)?;
    if let Some(index) = find_filter_here(&place) {
        place.ifindex = index;
    }
    match gate.state {
        GateState::Orphaned | GateState::Moved => detach(&place).map(|_| gate),
        GateState::Unknown => Err(GateError::NamespaceUnknown { name: gate.name }),
        GateState::Attached | GateState::Detached => {
            Err(GateError::NamespaceLives { name: gate.name, interface: gate.interface })
        }
    }
}
