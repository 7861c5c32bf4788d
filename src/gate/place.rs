//! Where the parts of a gate are: the folder of its pins, its locks, its socket and its history.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::GateError;
use super::orphans::hint_at_orphans;
use super::pins::PINS;

/// Folder of locks and sockets.
pub(super) const RUN: &str = "/run/portcullis";
const HISTORY: &str = "/var/lib/portcullis";
/// Only the initial network namespace has this file, in every kernel since 2.6.
const INITIAL_NETNS_ONLY: &str = "/proc/sys/net/core/netdev_budget";

/// The gate of one interface in one network namespace.
#[derive(Clone, Debug)]
pub struct GatePlace {
    /// Name of the interface.
    pub interface: String,
    /// Index of the interface in this network namespace. 0: it is not there.
    pub ifindex: u32,
    /// Folder of maps, programs and links below the bpffs.
    pub pins: PathBuf,
    /// `/run/portcullis/IF`, to which `.lock` and `.sock` are added.
    stem: PathBuf,
}

impl GatePlace {
    /// The place of the gate on `interface`.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn of(interface: &str) -> Result<GatePlace, GateError> {
        let place = GatePlace::of_any(interface)?;
        match place.ifindex {
            0 => Err(GateError::NoInterface {
                interface: interface.to_owned(),
                hint: hint_at_orphans(interface),
            }),
            _ => Ok(place),
        }
    }

    /// As [`GatePlace::of`], for cleaning up after an interface that may be gone.
    ///
    /// In a network namespace other than the initial one its inode number is part of the folder's name,
    /// so that two NICs of one name have two folders. bpffs reserves the dot, so `eth0.7` is `eth0:7`.
    ///
    /// # Errors
    /// When no interface can have this name.
    pub fn of_any(interface: &str) -> Result<GatePlace, GateError> {
        let why = match interface {
            "" => Some("it is empty"),
            "." | ".." => Some("it is a folder"),
            name if name.len() > 15 => Some("it is longer than 15 bytes"),
            name if name.contains(['/', ':']) || name.contains(char::is_whitespace) => {
                Some("it has a slash, a colon or a space")
            }
            name if name.contains("..") => Some("it has two dots in a row"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(GateError::BadInterfaceName {
                interface: interface.escape_default().to_string(),
                why,
            });
        }
        let mut folder = interface.replace('.', ":");
        if !Path::new(INITIAL_NETNS_ONLY).exists() {
            let inode = fs::metadata("/proc/self/ns/net").map_or(0, |ns| ns.ino());
            folder.push_str(&format!("::{inode}"));
        }
        let ifindex = nix::net::if_::if_nametoindex(interface).unwrap_or(0);
        Ok(GatePlace { ifindex, ..GatePlace::of_folder(interface, &folder) })
    }

    /// The place of a gate of another network namespace. Its NIC is out of reach.
    pub(super) fn of_folder(interface: &str, folder: &str) -> GatePlace {
        GatePlace {
            interface: interface.to_owned(),
            ifindex: 0,
            pins: Path::new(PINS).join(folder),
            stem: Path::new(RUN).join(folder),
        }
    }

    /// The folder of pinned maps.
    pub(super) fn maps(&self) -> PathBuf {
        self.pins.join("maps")
    }

    /// The folder of pinned programs.
    pub(super) fn programs(&self) -> PathBuf {
        self.pins.join("programs")
    }

    /// The folder of pinned links.
    pub(super) fn links(&self) -> PathBuf {
        self.pins.join("links")
    }

    /// The folder in which a new gate is pinned before it gets its name.
    pub(super) fn staging(&self) -> PathBuf {
        let mut name = self.pins.clone().into_os_string();
        // two colons: no interface's name becomes that
        name.push("::new");
        name.into()
    }

    /// The socket of the daemon.
    pub fn socket(&self) -> PathBuf {
        self.run_file("sock")
    }

    /// The folder of what must outlive the daemon: `/var/lib/portcullis/IF`.
    pub fn history(&self) -> PathBuf {
        let name = self.stem.file_name().unwrap_or_default();
        Path::new(HISTORY).join(name)
    }

    /// A file in `/run/portcullis` of this gate.
    pub(super) fn run_file(&self, extension: &str) -> PathBuf {
        self.stem.with_added_extension(extension)
    }

    /// Another XDP program is on the interface.
    pub(super) fn other_program(&self) -> GateError {
        GateError::OtherProgram { interface: self.interface.clone() }
    }

    /// The pin of this name is missing.
    pub(super) fn broken_pins(&self, missing: &str) -> GateError {
        GateError::BrokenPins {
            interface: self.interface.clone(),
            path: self.pins.clone(),
            missing: missing.to_owned(),
        }
    }

    /// Whether a command detached the gate last. The daemon then lets it stay detached.
    pub fn is_marked_detached(&self) -> bool {
        self.detach_mark().exists()
    }

    /// Notes whether a command detaches the gate. The caller holds the lock. A note that is lost costs
    /// little: a service would attach the gate again.
    pub fn mark_detached(&self, detached: bool) {
        if let Err(error) = set_mark(&self.detach_mark(), detached) {
            log::debug!("{}: {error}", self.detach_mark().display());
        }
    }

    fn detach_mark(&self) -> PathBuf {
        self.run_file("detached")
    }

    /// Whether the file of quarantines could not be read when the gate was attached, or not be put back as a
    /// whole. Nobody may write it then: it has quarantines that the kernel lacks.
    pub(super) fn is_marked_unread(&self) -> bool {
        self.unread_mark().exists()
    }

    /// Notes whether the file of quarantines waits to be read. The caller holds the lock.
    ///
    /// # Errors
    /// When the note can't be made or removed.
    pub(super) fn mark_unread(&self, unread: bool) -> io::Result<()> {
        set_mark(&self.unread_mark(), unread)
    }

    fn unread_mark(&self) -> PathBuf {
        self.run_file("unread")
    }
}

/// Makes an empty file, or removes it.
fn set_mark(path: &Path, present: bool) -> io::Result<()> {
    let noted = match present {
        true => OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop),
        false => fs::remove_file(path),
    };
    match noted {
        Err(error) if error.kind() == ErrorKind::NotFound && !present => Ok(()),
        noted => noted,
    }
}
