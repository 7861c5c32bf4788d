//! The gates of every network namespace, as their pins say, and those whose namespace is gone.
//!
//! Pins outlive the namespace in which they were made. The name of their folder has the namespace's
//! number, so no command finds them by `-i IF` any more. A gate counts as left behind only by two signs
//! together: its links are on no NIC, which the kernel says of a link for good, and nothing holds its
//! namespace.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use super::error::GateError;
use super::namespaces::Namespaces;
use super::pins::{LINKS, PINS, check_mounts};
use super::requirements::check_requirements;
use super::system;

/// The state of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// Its programs are on a NIC.
    Attached,
    /// They are on none: the NIC was deleted, or an attach was cut short.
    Detached,
    /// Its namespace is gone. Its NIC is in another one now, with the filter on it.
    Moved,
    /// Namespace and NIC are gone: nothing uses the pins.
    Orphaned,
    /// On no NIC, and from here nobody can tell whether its namespace still exists.
    Unknown,
}

impl GateState {
    fn of(namespace: Option<u64>, on_nic: bool, namespaces: &Namespaces) -> GateState {
        let exists = namespace.is_none_or(|inode| namespaces.seen.contains(&inode));
        match (on_nic, exists) {
            (true, true) => GateState::Attached,
            (false, true) => GateState::Detached,
            (true, false) if namespaces.all => GateState::Moved,
            (false, false) if namespaces.all => GateState::Orphaned,
            // whatever holds its namespace, the gate is at work
            (true, false) => GateState::Attached,
            (false, false) => GateState::Unknown,
        }
    }

    /// A few words for people.
    pub const fn describe(self) -> &'static str {
        match self {
            GateState::Attached => "attached",
            GateState::Detached => "on no NIC",
            GateState::Moved => "attached; its namespace is gone, its NIC is in another",
            GateState::Orphaned => "orphaned: namespace and NIC are gone",
            GateState::Unknown => "on no NIC; its namespace can't be seen from here",
        }
    }
}

/// A gate of some network namespace.
#[derive(Clone, Debug, Serialize)]
pub struct PinnedGate {
    /// Name of its folder, which `detach -i` takes.
    pub name: String,
    /// Name of its interface.
    pub interface: String,
    /// Inode number of its network namespace. `None`: the initial one.
    pub namespace: Option<u64>,
    /// Its state.
    pub state: GateState,
}

/// Every gate that has pins, by name.
///
/// # Errors
/// When the pins or a link can't be read.
pub fn list_gates() -> Result<Vec<PinnedGate>, GateError> {
    check_requirements()?;
    check_mounts()?;
    let folders = list_folders()
        .map_err(|error| GateError::from_io(format!("could not read the folder {PINS}"), &error))?;
    if folders.is_empty() {
        return Ok(Vec::new());
    }
    let namespaces = Namespaces::look();
    // other folders in there are not ours
    folders.iter().filter(|name| parse_folder(name).is_some()).map(|name| judge(name, &namespaces)).collect()
}

/// Lines that name the gates which a network namespace left behind on an interface of this name, with
/// the command that removes them. Empty when there is none.
pub fn hint_at_orphans(interface: &str) -> String {
    let mut folders = match list_folders() {
        Ok(folders) => folders,
        Err(error) => return format!("\nnote: could not read the folder {PINS}: {error}"),
    };
    folders.retain(|name| {
        parse_folder(name).is_some_and(|(of, namespace)| of == interface && namespace.is_some())
    });
    if folders.is_empty() {
        return String::new();
    }
    let namespaces = Namespaces::look();
    let left = folders.iter().filter_map(|name| judge(name, &namespaces).ok());
    left.filter_map(|gate| match gate.state {
        GateState::Orphaned => Some(format!(
            "\nnote: the network namespace of the gate {0} is gone; portcullis detach -i {0} removes its pins",
            gate.name
        )),
        GateState::Moved => Some(format!(
            "\nnote: the network namespace of the gate {0} is gone, and its NIC is in another one now, with \
             the gate on it; portcullis detach -i {0} detaches it",
            gate.name
        )),
        GateState::Attached | GateState::Detached | GateState::Unknown => None,
    })
    .collect()
}

/// The state of one gate.
///
/// # Errors
/// When no gate has this name, or a link can't be read.
pub(super) fn judge_gate(name: &str) -> Result<PinnedGate, GateError> {
    judge(name, &Namespaces::look())
}

/// The interface and the namespace in a folder's name.
pub(super) fn parse_folder(name: &str) -> Option<(String, Option<u64>)> {
    let (folder, namespace) = match name.rsplit_once("::") {
        Some((folder, number)) => (folder, Some(number.parse().ok()?)),
        None => (name, None),
    };
    let is_plain = !folder.is_empty() && !folder.contains(['/', '.']);
    is_plain.then(|| (folder.replace(':', "."), namespace))
}

/// The folders' names. A whole gate and half of one that has its name count once.
pub(super) fn list_folders() -> io::Result<Vec<String>> {
    let mut names: Vec<String> = match fs::read_dir(PINS) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    for name in &mut names {
        if let Some(stem) = name.strip_suffix("::new") {
            *name = stem.to_owned();
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn judge(name: &str, namespaces: &Namespaces) -> Result<PinnedGate, GateError> {
    let (interface, namespace) = parse_folder(name).ok_or_else(|| GateError::no_such_pins(name))?;
    let mut on_nic = false;
    for link in LINKS {
        on_nic |= is_on_nic(&Path::new(PINS).join(name).join("links").join(link)).map_err(|errno| {
            GateError::Kernelside { what: format!("could not ask the link `{link}` of {name}"), errno }
        })?;
    }
    let state = GateState::of(namespace, on_nic, namespaces);
    Ok(PinnedGate { name: name.to_owned(), interface, namespace, state })
}

fn is_on_nic(link: &Path) -> Result<bool, Errno> {
    match system::open_pin(link) {
        Ok(link) => system::link_facts(link.as_fd()).map(|facts| facts.ifindex != 0),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn only_a_gate_on_no_nic_of_a_namespace_that_nothing_holds_is_an_orphan() {
        let all = Namespaces { seen: HashSet::from([7]), all: true };
        let some = Namespaces { seen: HashSet::from([7]), all: false };
        let table = [
            // namespace, on a NIC, state when all are seen, state when some are hidden
            (None, true, GateState::Attached, GateState::Attached),
            (None, false, GateState::Detached, GateState::Detached),
            (Some(7), true, GateState::Attached, GateState::Attached),
            (Some(7), false, GateState::Detached, GateState::Detached),
            (Some(8), true, GateState::Moved, GateState::Attached),
            (Some(8), false, GateState::Orphaned, GateState::Unknown),
        ];
        for (namespace, on_nic, when_all, when_some) in table {
            assert_eq!(GateState::of(namespace, on_nic, &all), when_all, "{namespace:?} {on_nic}");
            assert_eq!(GateState::of(namespace, on_nic, &some), when_some, "{namespace:?} {on_nic}");
        }
    }

    #[test]
    fn a_folder_s_name_has_the_interface_and_the_namespace() {
        assert_eq!(parse_folder("eth0"), Some(("eth0".to_owned(), None)));
        assert_eq!(parse_folder("eth0:7"), Some(("eth0.7".to_owned(), None)));
        assert_eq!(parse_folder("eth0:7::4026532285"), Some(("eth0.7".to_owned(), Some(4_026_532_285))));
        for bad in ["", "::7", "eth0::", "eth0::x", "../x::7", "a/b::7", "eth0.7::5"] {
            assert_eq!(parse_folder(bad), None, "{bad}");
        }
    }
}
