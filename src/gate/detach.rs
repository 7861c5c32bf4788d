//! Lifts the gate, and removes what is pinned.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;

use super::attach::{LINKS, link_path};
use super::check_privilege;
use super::error::GateError;
use super::fault;
use super::place::{GatePlace, check_mounts};
use super::system::{self, clsact};

/// Lifts the gate: takes both programs off and removes every pin. Also removes
/// what is left of a gate of another layout or of one half made. Returns
/// whether there was anything.
pub fn detach(place: &GatePlace) -> Result<bool, GateError> {
    check_privilege()?;
    check_mounts()?;
    // before anything is taken off: a gate that is lifted by half is no gate
    check_writable(&place.pins)?;
    if let Ok(programs) = super::Programs::open(&place.pins.join("programs")) {
        clsact::detach(programs.track.as_fd(), place.ifindex);
    }
    for name in LINKS {
        if let Ok(link) = system::open_pin(&link_path(place, name)) {
            // of an interface that is gone there is nothing to take off
            let _ = system::detach_link(link.as_fd());
        }
    }
    // the links first, so that a death in between leaves no program without its maps' names
    let links = remove_tree(&place.pins.join("links"))?;
    let rest = remove_tree(&place.pins)?;
    let staging = remove_tree(&place.staging())?;
    remove_empty_parent(place);
    Ok(links || rest || staging)
}

pub(super) fn remove_empty_parent(place: &GatePlace) {
    if let Some(parent) = place.pins.parent() {
        // only when empty
        let _ = fs::remove_dir(parent);
    }
}

/// Whether pins in there can be removed, if it is there at all.
pub(super) fn check_writable(folder: &Path) -> Result<(), GateError> {
    match nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => {
            Err(GateError::NotPinned { what: format!("could not change {}", folder.display()), errno })
        }
    }
}

/// Whether something of a gate is pinned, whole or not.
pub fn is_pinned(place: &GatePlace) -> bool {
    place.pins.exists() || place.staging().exists()
}

/// One pin after the other, for each is a moment of its own.
fn remove_all(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        } else {
            fault::point();
            fs::remove_file(entry.path())?;
        }
    }
    fault::point();
    fs::remove_dir(path)
}

pub(super) fn remove_tree(path: &Path) -> Result<bool, GateError> {
    match remove_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(GateError::from_io(format!("could not remove {}", path.display()), &error)),
    }
}
