//! Where the parts of a gate are: the folder of its pins, its locks, its socket and its history.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::GateError;
use super::links::{Link, list_links};
use super::orphans::{hint_at_orphans, parse_folder};
use super::pinned_links::{PinnedLinks, name_folder, read_all_links};
use super::pins::PINS;

/// Folder of locks and sockets.
pub(super) const RUN: &str = "/run/portcullis";
const HISTORY: &str = "/var/lib/portcullis";
/// The gate of one interface in one network namespace. It belongs to its NIC: while the NIC lives, its index
/// counts, and afterwards its name.
#[derive(Clone, Debug)]
pub struct GatePlace {
    /// Name of the interface today. While it is not there, the name that was asked for.
    pub interface: String,
    /// Name of the interface when the gate was attached. Pins, locks, history, alarms and metrics keep it.
    pub attached_as: String,
    /// Index of the interface in this network namespace. 0: it is not there.
    pub ifindex: u32,
    /// Folder of maps, programs and links below the bpffs.
    pub pins: PathBuf,
    /// A sentence for the user, if the name that was asked for has another meaning than when the gate was
    /// attached.
    pub note: Option<String>,
    /// `/run/portcullis/IF`, to which `.lock` and `.sock` are added.
    stem: PathBuf,
}

impl GatePlace {
    /// The place of the gate on `interface`.
    ///
    /// # Errors
    /// When there is no such interface, or when a gate on another NIC has its name.
    pub fn of(interface: &str) -> Result<GatePlace, GateError> {
        let place = GatePlace::of_any(interface)?;
        if place.ifindex != 0 {
            return Ok(place);
        }
        let mut hint = hint_at_orphans(interface);
        if place.is_elsewhere() {
            hint.push_str(&format!(
                "\nnote: the NIC of the gate that was attached as {interface} is in another network namespace now, \
                 with the gate on it; portcullis detach -i {interface} detaches it"
            ));
        }
        Err(GateError::NoInterface { interface: interface.to_owned(), hint })
    }

    /// As [`GatePlace::of`], for cleaning up after an interface that may be gone. `interface` is its name of
    /// today or an alternative one. If no interface has this name, it is the one that a gate was attached
    /// under.
    ///
    /// # Errors
    /// When no interface can have this name, or when a gate on another NIC has it.
    pub fn of_any(interface: &str) -> Result<GatePlace, GateError> {
        let links = list_nics(&[interface]);
        let gates = read_all_links();
        let Some(nic) = links.iter().find(|link| link.is_called(interface)) else {
            check_name(interface)?;
            let mut place = GatePlace::of_folder(interface, &name_folder(interface));
            if let Some(nic) = find_nic_of(&place, &links) {
                place.note = Some(format!(
                    "no interface is called {interface}: the NIC that the gate was attached to under this name \
                     is {} now",
                    nic.name
                ));
                place = place.on(nic);
            }
            return Ok(place);
        };
        check_name(&nic.name)?;
        let named = GatePlace::of_folder(&nic.name, &name_folder(&nic.name));
        let Some(gate) = gates.iter().find(|gate| gate.is_on(nic.index)) else {
            named.refuse_taken(&links)?;
            return Ok(named.on(nic));
        };
        let mut place = GatePlace::of_folder(&gate.attached_as, &gate.folder);
        if place.pins != named.pins
            && let Some(other) = find_nic_of(&named, &links)
        {
            place.note = Some(format!(
                "{0} is the name of another NIC since a gate was attached as {0}: that gate is on {1} now, and \
                 this one was attached as {2}",
                nic.name, other.name, place.attached_as
            ));
        }
        Ok(place.on(nic))
    }

    /// Where this gate is now. Its NIC may have got another name or another index, or be gone.
    ///
    /// # Errors
    /// When another gate is on the NIC of its name, or its own NIC is in another network namespace.
    pub fn refresh(&self) -> Result<GatePlace, GateError> {
        let links = list_nics(&[&self.interface, &self.attached_as]);
        if let Some(nic) = find_nic_of(self, &links) {
            return Ok(self.clone().on(nic));
        }
        let named = links.iter().find(|link| link.is_called(&self.attached_as));
        if self.is_elsewhere() {
            if named.is_some() {
                // another NIC has its name
                self.refuse_taken(&links)?;
            }
            return Ok(GatePlace { ifindex: 0, ..self.clone() });
        }
        let same = links.iter().find(|link| self.ifindex != 0 && link.index == self.ifindex);
        let Some(nic) = same.or(named) else {
            return Ok(GatePlace { ifindex: 0, ..self.clone() });
        };
        match read_all_links().iter().find(|gate| gate.is_on(nic.index)) {
            Some(gate) => Err(GateError::OtherGate {
                interface: nic.name.clone(),
                attached_as: gate.attached_as.clone(),
            }),
            None => Ok(self.clone().on(nic)),
        }
    }

    /// The name that the NIC has now, if it is there.
    pub fn find_name(&self) -> Option<String> {
        let name = nix::net::if_::if_indextoname(self.ifindex).ok()?.into_string().ok()?;
        // nix takes an interface that is gone for one without a name
        (!name.is_empty()).then_some(name)
    }

    /// Whether a NIC of another network namespace has the gate's programs.
    pub fn is_elsewhere(&self) -> bool {
        let Some(gate) = self.read_links().filter(PinnedLinks::is_on_nic) else {
            return false;
        };
        !list_nics(&[&self.interface, &self.attached_as]).iter().any(|link| gate.is_on(link.index))
    }

    /// Another NIC has this gate's programs. They would be taken from it, and let everything pass there.
    fn refuse_taken(&self, links: &[Link]) -> Result<(), GateError> {
        if !self.read_links().is_some_and(|gate| gate.is_on_nic()) {
            return Ok(());
        }
        let interface = self.attached_as.clone();
        Err(match find_nic_of(self, links) {
            Some(nic) => GateError::NameTaken { interface, now: nic.name.clone() },
            None => GateError::MovedAway { interface },
        })
    }

    fn read_links(&self) -> Option<PinnedLinks> {
        PinnedLinks::read(&self.pins.file_name()?.to_string_lossy())
    }

    fn on(self, nic: &Link) -> GatePlace {
        GatePlace { interface: nic.name.clone(), ifindex: nic.index, ..self }
    }

    /// The place of a gate by its name, which `show gates` prints. `None`: no gate can have this name.
    pub fn of_gate(name: &str) -> Option<GatePlace> {
        parse_folder(name).map(|(interface, _)| GatePlace::of_folder(&interface, name))
    }

    /// The place of a gate of another network namespace. Its NIC is out of reach.
    pub(super) fn of_folder(interface: &str, folder: &str) -> GatePlace {
        GatePlace {
            interface: interface.to_owned(),
            attached_as: interface.to_owned(),
            ifindex: 0,
            pins: Path::new(PINS).join(folder),
            note: None,
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

    /// An XDP program that is not this gate's is on the interface: another gate's, or somebody else's.
    pub(super) fn other_program(&self) -> GateError {
        let interface = self.interface.clone();
        match read_all_links().into_iter().find(|gate| gate.has_filter_on(self.ifindex)) {
            Some(gate) => GateError::OtherGate { interface, attached_as: gate.attached_as },
            None => GateError::OtherProgram { interface },
        }
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
        // where nobody can say, the file stays as it is
        self.unread_mark().try_exists().unwrap_or(true)
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

    /// As [`GatePlace::is_marked_unread`], of the file of edits.
    pub(super) fn has_unread_edits(&self) -> bool {
        self.unread_edits_mark().try_exists().unwrap_or(true)
    }

    /// As [`GatePlace::mark_unread`], of the file of edits.
    ///
    /// # Errors
    /// When the note can't be made or removed.
    pub(super) fn mark_edits_unread(&self, unread: bool) -> io::Result<()> {
        set_mark(&self.unread_edits_mark(), unread)
    }

    fn unread_edits_mark(&self) -> PathBuf {
        self.run_file("unread-edits")
    }
}

/// All interfaces, or those of these names where the kernel does not list them: that is no reason to leave
/// a NIC without its gate.
fn list_nics(names: &[&str]) -> Vec<Link> {
    list_links().unwrap_or_else(|error| {
        log::debug!("could not list the interfaces of this machine: {error}");
        let find = |name: &&str| {
            let index = nix::net::if_::if_nametoindex(*name).ok()?;
            Some(Link { index, name: (*name).to_owned(), ..Link::default() })
        };
        names.iter().filter_map(find).collect()
    })
}

/// The NIC of this network namespace that has the gate's programs.
fn find_nic_of<'links>(place: &GatePlace, links: &'links [Link]) -> Option<&'links Link> {
    let gate = place.read_links()?;
    links.iter().find(|link| gate.is_on(link.index))
}

fn check_name(interface: &str) -> Result<(), GateError> {
    let why = match interface {
        "" => "it is empty",
        "." | ".." => "it is a folder",
        name if name.len() > 15 => "it is longer than 15 bytes",
        name if name.contains(['/', ':']) || name.contains(char::is_whitespace) => {
            "it has a slash, a colon or a space"
        }
        name if name.contains("..") => "it has two dots in a row",
        _ => return Ok(()),
    };
    Err(GateError::BadInterfaceName { interface: interface.escape_default().to_string(), why })
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
