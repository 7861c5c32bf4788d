//! The gates of every network namespace, as their pins say, and those whose namespace is gone.
//!
//! Pins outlive the namespace that they were made in, and their folder's name has its number: no
//! command finds them by `-i IF` any more. They are told from a gate that is alive by two signs,
//! and both must say so: its links are on no NIC, which the kernel says of a link for good, and
//! nothing holds its namespace.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use super::attach::{LINK_FILTER, LINKS};
use super::detach::detach;
use super::error::GateError;
use super::place::{GatePlace, PINS, check_mounts};
use super::{check_privilege, system};

/// `PROC_PID_INIT_INO` of the kernel: from any other PID namespace some processes can't be seen.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// What became of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// Its programs are on a NIC.
    Attached,
    /// They are on none: it was deleted, or an attach did not come to its end.
    Detached,
    /// Its namespace is gone, and its NIC is in another one now, with the filter on it.
    Moved,
    /// Namespace and NIC are gone: nothing uses the pins.
    Orphaned,
    /// On no NIC, and whether its namespace lives can't be seen from here.
    Unknown,
}

impl GateState {
    fn of(namespace: Option<u64>, on_nic: bool, namespaces: &Namespaces) -> GateState {
        let lives = namespace.is_none_or(|inode| namespaces.seen.contains(&inode));
        match (on_nic, lives) {
            (true, true) => GateState::Attached,
            (false, true) => GateState::Detached,
            (true, false) if namespaces.all => GateState::Moved,
            (false, false) if namespaces.all => GateState::Orphaned,
            // whatever holds its namespace, it is at work
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
    /// Of its folder: what `detach -i` takes.
    pub name: String,
    pub interface: String,
    /// Inode number of its network namespace; none is the initial one.
    pub namespace: Option<u64>,
    pub state: GateState,
}

/// Every gate that has pins, by name.
///
/// # Errors
/// When the pins or a link can't be read.
pub fn list_gates() -> Result<Vec<PinnedGate>, GateError> {
    check_privilege()?;
    check_mounts()?;
    let folders = list_folders()
        .map_err(|error| GateError::from_io(format!("could not read the folder {PINS}"), &error))?;
    if folders.is_empty() {
        return Ok(Vec::new());
    }
    let namespaces = Namespaces::look();
    // whatever else is in there is not ours
    folders.iter().filter(|name| split(name).is_some()).map(|name| judge(name, &namespaces)).collect()
}

/// Says of an interface which of its gates a namespace left behind, and what to do; empty when none did.
pub fn hint_at_orphans(interface: &str) -> String {
    let mut folders = list_folders().unwrap_or_default();
    folders.retain(|name| split(name).is_some_and(|(of, namespace)| of == interface && namespace.is_some()));
    if folders.is_empty() {
        return String::new();
    }
    let namespaces = Namespaces::look();
    let left = folders.iter().filter_map(|name| judge(name, &namespaces).ok());
    left.filter_map(|gate| match gate.state {
        GateState::Orphaned => Some(format!(
            "\nnote: the gate {0} is left of a network namespace that is gone; portcullis detach -i {0} removes it",
            gate.name
        )),
        GateState::Moved => Some(format!(
            "\nnote: the gate {0} is left of a network namespace that is gone, and still on its NIC, which is in \
             another one now; portcullis detach -i {0} lifts it",
            gate.name
        )),
        _ => None,
    })
    .collect()
}

/// Removes the gate of this name, whose namespace is gone.
///
/// # Errors
/// When there is none, or when it may be alive; then nothing is touched.
pub fn detach_by_name(name: &str) -> Result<PinnedGate, GateError> {
    check_privilege()?;
    check_mounts()?;
    let place = split(name).map(|(interface, _)| GatePlace::of_folder(&interface, name));
    let there = |place: &GatePlace| place.pins.exists() || place.staging().exists();
    let Some(mut place) = place.filter(there) else {
        return Err(GateError::NoSuchPins { name: name.escape_default().to_string() });
    };
    // first the locks: whoever comes with a namespace of the same number waits
    let _lock = place.lock()?;
    let _daemon = place.lock_daemon()?;
    let gate = judge(name, &Namespaces::look())?;
    if let Some(index) = find_nic_here(&place) {
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

/// The names, without those of half a gate where the whole one is there.
fn list_folders() -> io::Result<Vec<String>> {
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

/// The interface and the namespace in a folder's name.
fn split(name: &str) -> Option<(String, Option<u64>)> {
    let (folder, namespace) = match name.rsplit_once("::") {
        Some((folder, number)) => (folder, Some(number.parse().ok()?)),
        None => (name, None),
    };
    let is_plain = !folder.is_empty() && !folder.contains(['/', '.']);
    is_plain.then(|| (folder.replace(':', "."), namespace))
}

fn judge(name: &str, namespaces: &Namespaces) -> Result<PinnedGate, GateError> {
    let (interface, namespace) =
        split(name).ok_or_else(|| GateError::NoSuchPins { name: name.escape_default().to_string() })?;
    let mut on_nic = false;
    for link in LINKS {
        on_nic |= is_on_nic(&Path::new(PINS).join(name).join("links").join(link)).map_err(|errno| {
            GateError::Kernelside { what: format!("could not ask the link `{link}` of {name}"), errno }
        })?;
    }
    let state = GateState::of(namespace, on_nic, namespaces);
    Ok(PinnedGate { name: name.to_owned(), interface, namespace, state })
}

/// The index of the gate's NIC, if that is in this namespace: an index says little, for each has its own.
fn find_nic_here(place: &GatePlace) -> Option<u32> {
    let link = system::open_pin(&place.pins.join("links").join(LINK_FILTER)).ok()?;
    let facts = system::link_facts(link.as_fd()).ok()?;
    let (program, _) = system::query_xdp(facts.ifindex).ok()??;
    (program == facts.program_id).then_some(facts.ifindex)
}

fn is_on_nic(link: &Path) -> Result<bool, Errno> {
    match system::open_pin(link) {
        Ok(link) => system::link_facts(link.as_fd()).map(|facts| facts.ifindex != 0),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Network namespaces that something holds: a process or a thread that lives in it, an open file,
/// or a mount, as `ip netns` makes them.
struct Namespaces {
    seen: HashSet<u64>,
    /// Nothing was hidden from us.
    all: bool,
}

impl Namespaces {
    fn look() -> Namespaces {
        let mut found = Namespaces { seen: HashSet::new(), all: true };
        let own = fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
        found.all = own.is_ok_and(|inode| inode == INITIAL_PID_NAMESPACE);
        let mut mounts = HashSet::new();
        let processes = found.read_folder(Path::new("/proc"));
        for process in processes.iter().filter(|entry| is_number(entry)) {
            let process = process.path();
            // not even root may look at init everywhere; it lives in the initial namespace
            let all_before = found.all;
            found.look_at(&process, &mut mounts);
            found.all |= all_before && process.ends_with("1");
        }
        found
    }

    fn look_at(&mut self, process: &Path, mounts: &mut HashSet<u64>) {
        for thread in self.read_folder(&process.join("task")) {
            let namespace = self.ask(fs::metadata(thread.path().join("ns/net")));
            self.seen.extend(namespace.map(|namespace| namespace.ino()));
        }
        for file in self.read_folder(&process.join("fd")) {
            let target = self.ask(fs::read_link(file.path()));
            self.seen.extend(target.and_then(|target| parse_namespace(&target.to_string_lossy())));
        }
        let mount = self.ask(fs::metadata(process.join("ns/mnt")));
        if mount.is_some_and(|mount| mounts.insert(mount.ino())) {
            let table = self.ask(fs::read_to_string(process.join("mountinfo"))).unwrap_or_default();
            // the fourth field: what of the file system is mounted
            let roots = table.lines().filter_map(|line| line.split(' ').nth(3));
            self.seen.extend(roots.filter_map(parse_namespace));
        }
    }

    fn read_folder(&mut self, path: &Path) -> Vec<DirEntry> {
        let entries = self.ask(fs::read_dir(path)).into_iter().flatten();
        entries.filter_map(|entry| self.ask(entry)).collect()
    }

    /// What is gone meanwhile holds nothing; anything else may have.
    fn ask<T>(&mut self, answer: io::Result<T>) -> Option<T> {
        let gone = [Some(Errno::ENOENT as i32), Some(Errno::ESRCH as i32)];
        self.all &= answer.as_ref().err().is_none_or(|error| gone.contains(&error.raw_os_error()));
        answer.ok()
    }
}

fn is_number(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// The number in `net:[4026531840]`.
fn parse_namespace(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gate_on_no_nic_of_a_namespace_that_nothing_holds_is_an_orphan() {
        let all = Namespaces { seen: HashSet::from([7]), all: true };
        let some = Namespaces { seen: HashSet::from([7]), all: false };
        let table = [
            // namespace, on a NIC, fate when all are seen, fate when some are hidden
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
        assert_eq!(split("eth0"), Some(("eth0".to_owned(), None)));
        assert_eq!(split("eth0:7"), Some(("eth0.7".to_owned(), None)));
        assert_eq!(split("eth0:7::4026532285"), Some(("eth0.7".to_owned(), Some(4_026_532_285))));
        for bad in ["", "::7", "eth0::", "eth0::x", "../x::7", "a/b::7", "eth0.7::5"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_namespace_that_something_holds_is_seen_and_no_other() {
        assert_eq!(parse_namespace("net:[4026531840]"), Some(4_026_531_840));
        for other in ["mnt:[4026531841]", "/", "net:[x]", "socket:[12]", "net:[7"] {
            assert_eq!(parse_namespace(other), None, "{other}");
        }
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert!(Namespaces::look().seen.contains(&own));
    }
}
