//! The object file and its programs.

use std::fs;
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapHandle, ObjectBuilder, PrintLevel};
use nix::errno::Errno;

use super::conntrack::is_conntrack_loaded;
use super::error::{GateError, is_shortage};
use super::maps::{Maps, size_of as entries_of};
use super::pins::{open_map, pin};
use super::place::GatePlace;
use super::{fault, system};
use crate::abi::load_constants;
use crate::policy::TableSizes;

/// The object that `build.rs` made of `bpf/portcullis.bpf.c`.
pub const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/portcullis.bpf.o"));

const FILTER: &str = "portcullis_filter";
const EXPLAIN: &str = "portcullis_explain";
pub(super) const TRACK: &str = "portcullis_track";
const SWEEP: &str = "portcullis_sweep";

/// What the programs are loaded for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoadOptions {
    /// They go by a time that is set: see `bpf/private.h`.
    pub is_private: bool,
    /// They can ask conntrack, which has to be there.
    pub asks_conntrack: bool,
}

impl LoadOptions {
    /// The bytes of `struct load_constants`.
    fn to_constants(self) -> [u8; 8] {
        const { assert!(size_of::<load_constants>() == 8 && offset_of!(load_constants, asks_conntrack) == 4) };
        let words = [self.is_private, self.asks_conntrack].map(|is_set| u64::from(u32::from(is_set)));
        // of two words the first one is the lower one, if the machine is so too
        let [first, second] = words;
        match cfg!(target_endian = "little") {
            true => (second << 32 | first).to_ne_bytes(),
            false => (first << 32 | second).to_ne_bytes(),
        }
    }
}

/// The ends of the names that libbpf gives to the maps of the object's variables.
const CONSTANTS: &str = ".rodata";
const VARIABLES: &str = ".bss";

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    /// Judges what servers send: XDP, at the NIC of the DMZ.
    pub filter: OwnedFd,
    /// Says what the filter would do, and does nothing.
    pub explain: OwnedFd,
    /// Records what peers open: at the egress of that NIC.
    pub track: OwnedFd,
    /// Gives rows of the ledger back, in test runs.
    pub sweep: OwnedFd,
}

impl Programs {
    fn list(&self) -> [(&'static str, &OwnedFd); 4] {
        [(FILTER, &self.filter), (EXPLAIN, &self.explain), (TRACK, &self.track), (SWEEP, &self.sweep)]
    }

    /// Opens them where they are pinned.
    pub(super) fn open(place: &GatePlace) -> Result<Programs, GateError> {
        let open = |name: &str| {
            system::open_pin(&place.programs().join(name)).map_err(|errno| match is_shortage(errno) {
                true => GateError::Kernelside {
                    what: format!("could not open the pinned program `{name}`"),
                    errno,
                },
                false => place.broken_pins(name),
            })
        };
        Ok(Programs {
            filter: open(FILTER)?,
            explain: open(EXPLAIN)?,
            track: open(TRACK)?,
            sweep: open(SWEEP)?,
        })
    }

    /// Pins them beside those of an earlier version, which [`Programs::activate`] replaces. So
    /// everything that a bpffs may refuse happens before anything is replaced.
    pub(super) fn stage_pins(&self, folder: &Path) -> Result<(), GateError> {
        for (name, program) in self.list() {
            let staged = staged_path(folder, name);
            let _ = fs::remove_file(&staged);
            if let Err(error) = pin(program.as_fd(), &staged) {
                self.unstage_pins(folder);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Undoes [`Programs::stage_pins`].
    pub(super) fn unstage_pins(&self, folder: &Path) {
        for (name, _) in self.list() {
            let _ = fs::remove_file(staged_path(folder, name));
        }
    }

    /// Gives the staged pins their names, and replaces earlier ones if there are any.
    pub(super) fn activate(&self, folder: &Path) -> Result<(), GateError> {
        for (name, _) in self.list() {
            let path = folder.join(name);
            fault::point();
            // bpffs has no overwriting pin, but it has rename
            fs::rename(staged_path(folder, name), &path).map_err(|error| {
                GateError::not_pinned(format!("could not pin {}", path.display()), &error)
            })?;
        }
        Ok(())
    }

    /// The cost of each for the verifier, in instructions processed.
    ///
    /// # Errors
    /// When the kernel refuses to say it.
    pub fn verifier_work(&self) -> Result<Vec<(&'static str, u32)>, Errno> {
        let ask =
            |(name, program): (_, &OwnedFd)| Ok((name, system::verified_instructions(program.as_fd())?));
        self.list().into_iter().map(ask).collect()
    }

    /// Runs the filter on a frame, with all its consequences.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn run_filter(&self, frame: &[u8], repeat: u32) -> Result<system::TestRun, Errno> {
        system::test_run(self.filter.as_fd(), frame, repeat, None)
    }

    /// Runs the filter on a frame, with all its consequences, and returns `enum xdp_action`. The frame does not
    /// come back, which takes less time.
    pub(super) fn filter_one_way(&self, frame: &[u8]) -> Result<u32, Errno> {
        system::test_run_one_way(self.filter.as_fd(), frame)
    }

    /// Runs the tracker likewise.
    pub(super) fn track_one_way(&self, frame: &[u8]) -> Result<u32, Errno> {
        system::test_run_one_way(self.track.as_fd(), frame)
    }

    /// Runs the sweep on a request, and returns for how many rows it was done: see
    /// [`Gate::give_rows_back`](super::Gate::give_rows_back).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn run_sweep(&self, request: &[u8]) -> Result<u32, Errno> {
        Ok(system::test_run(self.sweep.as_fd(), request, 1, None)?.action)
    }

    /// Runs the tracker on a frame, with all its consequences.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn run_track(&self, frame: &[u8], repeat: u32) -> Result<system::TestRun, Errno> {
        system::test_run(self.track.as_fd(), frame, repeat, None)
    }

    /// The same, of a frame that came in by the interface of this index. It goes out by the loopback device,
    /// whose index is 1.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn run_track_from(&self, frame: &[u8], ifindex: u32) -> Result<system::TestRun, Errno> {
        system::test_run_from(self.track.as_fd(), frame, ifindex, 0)
    }

    /// As [`Programs::run_track_from`], for a frame that the kernel has made of several datagrams, of so many bytes
    /// each.
    ///
    /// # Errors
    /// When the kernel refuses the run.
    pub fn run_track_of_many(&self, frame: &[u8], ifindex: u32, each: u16) -> Result<system::TestRun, Errno> {
        system::test_run_from(self.track.as_fd(), frame, ifindex, each.into())
    }
}

fn staged_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}:new"))
}

/// Sends what libbpf prints to the log: our own errors say what matters.
pub fn route_messages() {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, text| match level {
        PrintLevel::Warn => log::debug!("libbpf: {}", text.trim_end()),
        _ => log::trace!("libbpf: {}", text.trim_end()),
    })));
}

/// Loads the object, with maps of its own or with those pinned in `reuse`.
pub(super) fn load(
    object: &[u8],
    sizes: &TableSizes,
    reuse: Option<&Path>,
) -> Result<(Maps, Programs), GateError> {
    let (maps, programs, _) = load_as(object, sizes, reuse, LoadOptions::default())?;
    Ok((maps, programs))
}

/// As [`load`]. If they are to ask conntrack and the kernel has none, or none that can be asked, they are loaded
/// without. Returns whether they ask.
pub(super) fn load_asking(
    object: &[u8],
    sizes: &TableSizes,
    reuse: Option<&Path>,
    wanted: bool,
) -> Result<(Maps, Programs, bool), GateError> {
    if wanted && is_conntrack_loaded() {
        let options = LoadOptions { asks_conntrack: true, ..LoadOptions::default() };
        match load_as(object, sizes, reuse, options) {
            Ok((maps, programs, _)) => return Ok((maps, programs, true)),
            // whatever else is wrong shows below
            Err(error) => log::debug!("without conntrack, for: {error}"),
        }
    }
    load(object, sizes, reuse).map(|(maps, programs)| (maps, programs, false))
}

/// Loads the object with maps of its own for a private load: see `bpf/private.h`. Returns its variables too.
pub(super) fn load_private(
    object: &[u8],
    sizes: &TableSizes,
) -> Result<(Maps, Programs, MapHandle), GateError> {
    let options = LoadOptions { is_private: true, ..LoadOptions::default() };
    let (maps, programs, variables) = load_as(object, sizes, None, options)?;
    let variables = variables.ok_or_else(|| GateError::foreign_object("it has variables".to_owned()))?;
    Ok((maps, programs, variables))
}

/// Whether a map is the compiler's, for the object's variables: it is no part of a gate, and has no pin.
pub(super) fn is_for_variables(name: &str) -> bool {
    name.contains('.')
}

fn load_as(
    object: &[u8],
    sizes: &TableSizes,
    reuse: Option<&Path>,
    options: LoadOptions,
) -> Result<(Maps, Programs, Option<MapHandle>), GateError> {
    let failed = |error: &libbpf_rs::Error| {
        GateError::from_libbpf("the kernel refused the programs (-v -v shows why)", error)
    };
    let mut open = ObjectBuilder::default()
        .name("portcullis")
        .map_err(|error| failed(&error))?
        .open_memory(object)
        .map_err(|error| failed(&error))?;
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if is_for_variables(&name) {
            if name.ends_with(CONSTANTS) {
                // the first and only constant
                let value = map.initial_value_mut().and_then(|bytes| bytes.first_chunk_mut());
                let value = value.ok_or_else(|| GateError::foreign_object("it has a constant".to_owned()))?;
                *value = options.to_constants();
            }
            continue;
        }
        let size = entries_of(&name, sizes)?;
        if let Some(folder) = reuse {
            let pinned = open_map(&folder.join(&name)).map_err(|errno| GateError::Kernelside {
                what: format!("could not open the pinned map `{name}`"),
                errno,
            })?;
            map.reuse_fd(pinned.as_fd()).map_err(|error| failed(&error))?;
        } else if let Some(size) = size {
            map.set_max_entries(size).map_err(|error| failed(&error))?;
        }
    }
    let object = open.load().map_err(|error| failed(&error))?;

    let program = |name: &str| {
        object
            .progs()
            .find(|program| program.name() == name)
            .and_then(|program| program.as_fd().try_clone_to_owned().ok())
            .ok_or_else(|| GateError::foreign_object(format!("it has no program `{name}`")))
    };
    let programs = Programs {
        filter: program(FILTER)?,
        explain: program(EXPLAIN)?,
        track: program(TRACK)?,
        sweep: program(SWEEP)?,
    };
    let maps = Maps::collect(|name| {
        let map = object
            .maps()
            .find(|map| map.name() == name)
            .ok_or_else(|| GateError::foreign_object(format!("it has no map `{name}`")))?;
        MapHandle::try_from(&map).map_err(|error| failed(&error))
    })?;
    let variables = object.maps().find(|map| map.name().to_string_lossy().ends_with(VARIABLES));
    let variables = variables.map(|map| MapHandle::try_from(&map).map_err(|error| failed(&error)));
    Ok((maps, programs, variables.transpose()?))
}
