//! The object file and its three programs.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapHandle, ObjectBuilder, PrintLevel};
use nix::errno::Errno;

use super::error::GateError;
use super::fault;
use super::map::open_pinned;
use super::system;
use super::{Gate, OUTER_MAPS};
use crate::abi::layout;
use crate::policy::TableSizes;

/// What `build.rs` made of `bpf/portcullis.bpf.c`.
pub const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/portcullis.bpf.o"));

const FILTER: &str = "portcullis_filter";
const EXPLAIN: &str = "portcullis_explain";
const TRACK: &str = "portcullis_track";

/// Entries of `ledger_overflow`, as `bpf/maps.h` has it.
const REST_ROWS: u32 = 16_384;
/// Bits of `ledger_bloom` for each row of the ledger: when it is full, one kind in 60 that has no row is
/// looked for.
const MARKS_PER_ROW: u32 = 16;
/// Entries of `verdict_cache`, 128 bytes each: for all CPUs, and for one of them.
const KNOWN_OPENINGS_MOST: u32 = 1 << 17;
const KNOWN_OPENINGS_LEAST: u32 = 256;

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    pub filter: OwnedFd,
    pub explain: OwnedFd,
    pub track: OwnedFd,
}

impl Programs {
    fn list(&self) -> [(&'static str, &OwnedFd); 3] {
        [(FILTER, &self.filter), (EXPLAIN, &self.explain), (TRACK, &self.track)]
    }

    /// Opens them in the folder of pins; the error is the name of the missing one.
    pub(super) fn open(folder: &Path) -> Result<Programs, String> {
        let open = |name: &str| system::open_pin(&folder.join(name)).map_err(|_| name.to_owned());
        Ok(Programs { filter: open(FILTER)?, explain: open(EXPLAIN)?, track: open(TRACK)? })
    }

    /// Pins them beside those of before; [`Programs::activate`] takes those away. Whatever a bpffs
    /// may refuse is done now.
    pub(super) fn stage_pins(&self, folder: &Path) -> Result<(), GateError> {
        for (name, program) in self.list() {
            let fresh = fresh_path(folder, name);
            let _ = fs::remove_file(&fresh);
            if let Err(error) = pin(program.as_fd(), &fresh) {
                self.unstage_pins(folder);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Undoes [`Programs::stage_pins`].
    pub(super) fn unstage_pins(&self, folder: &Path) {
        for (name, _) in self.list() {
            let _ = fs::remove_file(fresh_path(folder, name));
        }
    }

    /// Puts what was pinned beside into the place of earlier ones, if there are any.
    pub(super) fn activate(&self, folder: &Path) -> Result<(), GateError> {
        for (name, _) in self.list() {
            let path = folder.join(name);
            fault::point();
            // bpffs has no overwriting pin, but it has rename
            fs::rename(fresh_path(folder, name), &path).map_err(|error| {
                GateError::not_pinned(format!("could not pin {}", path.display()), &error)
            })?;
        }
        Ok(())
    }

    /// What each cost the verifier, in instructions processed.
    pub fn verifier_work(&self) -> Result<Vec<(&'static str, u32)>, Errno> {
        let ask =
            |(name, program): (_, &OwnedFd)| Ok((name, system::verified_instructions(program.as_fd())?));
        self.list().into_iter().map(ask).collect()
    }

    /// Runs the filter on a frame, with all its consequences.
    pub fn run_filter(&self, frame: &[u8], repeat: u32) -> Result<system::TestRun, Errno> {
        system::test_run(self.filter.as_fd(), frame, repeat, None)
    }

    /// Runs the tracker on a frame, with all its consequences.
    pub fn run_track(&self, frame: &[u8], repeat: u32) -> Result<system::TestRun, Errno> {
        system::test_run(self.track.as_fd(), frame, repeat, None)
    }
}

/// Pins anything at `path`.
pub(super) fn pin(fd: std::os::fd::BorrowedFd<'_>, path: &Path) -> Result<(), GateError> {
    system::pin(fd, path)
        .map_err(|errno| GateError::NotPinned { what: format!("could not pin {}", path.display()), errno })
}

fn fresh_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}:new"))
}

/// Every map of the object, by the name of its pin.
pub(super) fn map_names() -> impl Iterator<Item = &'static str> {
    OUTER_MAPS.into_iter().chain([
        "state",
        "policies",
        "names",
        "quarantines",
        "limits",
        "established",
        "half_open",
        "datagrams",
        "icmp_queries",
        "unlisted",
        "fragments",
        "ledger",
        "ledger_overflow",
        "ledger_rows",
        "ledger_quotas",
        "counters",
        "statistics",
        "samples",
        "verdict_cache",
        "ledger_bloom",
        "quota_cache",
        "cpus",
    ])
}

/// Entries that each CPU has in `verdict_cache`: a power of two.
///
/// As many as there may be addresses, for each has four places: so a worm on all of them finds one free
/// nearly always. But no more than 16 MiB for all CPUs, unless there are so many that 256 entries each
/// are more.
fn verdict_cache_of_cpu(sizes: &TableSizes) -> u32 {
    let most = (KNOWN_OPENINGS_MOST / possible_cpus()).max(KNOWN_OPENINGS_LEAST);
    let wanted = sizes.servers.value.clamp(KNOWN_OPENINGS_LEAST, most);
    1 << wanted.ilog2()
}

/// The word `STATE_VERDICT_CACHE`: entries of a CPU's part, and the last index of those in use.
pub(super) fn describe_verdict_cache(part: u32, used: u32) -> u64 {
    u64::from(part) << 32 | u64::from(used.saturating_sub(1))
}

/// How many of `part` entries of a CPU a policy takes that has so many single `addresses`, and perhaps
/// `prefixes`: a power of two, as `part` is. The fewer, the nearer to the CPU they stay; four for an
/// address, so that most openings stand in their first place, where the CPU expects them.
pub(super) fn verdict_cache_in_use(part: u32, addresses: usize, prefixes: bool) -> u32 {
    let wanted = u32::try_from(addresses).unwrap_or(u32::MAX).saturating_mul(4).max(KNOWN_OPENINGS_LEAST);
    match wanted.checked_next_power_of_two() {
        Some(wanted) if !prefixes => wanted.min(part),
        _ => part,
    }
}

/// CPUs that the kernel may ever have. When it does not say, one: then only the first keeps verdicts.
pub(super) fn possible_cpus() -> u32 {
    libbpf_rs::num_possible_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1).max(1)
}

/// The size that the policy asks for, for the maps that have one.
fn size_of_map(name: &str, sizes: &TableSizes) -> Option<u32> {
    let size = match name {
        "names" | "quarantines" => &sizes.servers,
        // one for each server, and those of enum quota_key
        "ledger_quotas" => return Some(sizes.servers.value.saturating_add(3)),
        // one for each kind, and some to spare for those that two CPUs make at once
        "ledger_rows" => {
            let ledger = sizes.ledger.value;
            return Some(ledger.saturating_add(REST_ROWS).saturating_add(ledger / 8 + 64));
        }
        "verdict_cache" => return Some(verdict_cache_of_cpu(sizes).saturating_mul(possible_cpus())),
        "quota_cache" => return Some(layout::QUOTA_CACHE_PER_CPU.0.saturating_mul(possible_cpus())),
        // words of 64 bits; the mask that a hash is cut by wants a power of two
        "ledger_bloom" => {
            let bits = u64::from(sizes.ledger.value) * u64::from(MARKS_PER_ROW);
            return Some(u32::try_from(bits.next_power_of_two() / 64).unwrap_or(u32::MAX).max(1));
        }
        "limits" => &sizes.limits,
        "established" => &sizes.established,
        "half_open" => &sizes.half_open,
        "datagrams" => &sizes.datagrams,
        "icmp_queries" => &sizes.icmp,
        "unlisted" => &sizes.unlisted,
        "fragments" => &sizes.fragments,
        "ledger" => &sizes.ledger,
        _ => return None,
    };
    Some(size.value)
}

/// Sends what libbpf prints to the log: our own errors say what matters.
pub fn route_messages() {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, text| match level {
        PrintLevel::Warn => log::debug!("libbpf: {}", text.trim_end()),
        _ => log::trace!("libbpf: {}", text.trim_end()),
    })));
}

/// Loads the object, with maps of its own or with those pinned in `reuse`.
pub(super) fn load(object: &[u8], sizes: &TableSizes, reuse: Option<&Path>) -> Result<Gate, GateError> {
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
        if let Some(folder) = reuse {
            let pinned = open_pinned(&folder.join(&name)).map_err(|errno| GateError::Kernelside {
                what: format!("could not open the pinned map `{name}`"),
                errno,
            })?;
            map.reuse_fd(pinned.as_fd()).map_err(|error| failed(&error))?;
        } else if let Some(size) = size_of_map(&name, sizes) {
            map.set_max_entries(size).map_err(|error| failed(&error))?;
        }
    }
    let object = open.load().map_err(|error| failed(&error))?;

    let program = |name: &str| {
        object
            .progs()
            .find(|program| program.name() == name)
            .and_then(|program| program.as_fd().try_clone_to_owned().ok())
            .ok_or_else(|| GateError::Other {
                what: "the object file is not ours".to_owned(),
                why: format!("it has no program `{name}`"),
            })
    };
    let programs = Programs { filter: program(FILTER)?, explain: program(EXPLAIN)?, track: program(TRACK)? };
    Gate::collect(programs, |name| {
        let map = object.maps().find(|map| map.name() == name).ok_or_else(|| GateError::Other {
            what: "the object file is not ours".to_owned(),
            why: format!("it has no map `{name}`"),
        })?;
        MapHandle::try_from(&map).map_err(|error| failed(&error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_uses_of_the_verdict_cache_is_a_power_of_two_and_no_more_than_there_is() {
        for part in [256, 1024, 65_536] {
            for addresses in [0, 1, 63, 64, 65, 4096, 65_536, usize::MAX] {
                let used = verdict_cache_in_use(part, addresses, false);
                assert!(used.is_power_of_two() && used <= part, "{addresses} of {part}: {used}");
                assert!(used == part || used as usize >= 4 * addresses.max(64), "{addresses}: {used}");
            }
            assert_eq!(verdict_cache_in_use(part, 1, true), part, "a prefix may have any number");
        }
        assert_eq!(verdict_cache_in_use(65_536, 64, false), 256);
        assert_eq!(verdict_cache_in_use(65_536, 65, false), 512);
    }

    #[test]
    fn the_word_of_the_verdict_cache_has_the_part_and_the_last_index() {
        assert_eq!(describe_verdict_cache(65_536, 256), 65_536 << 32 | 255);
        assert_eq!(describe_verdict_cache(0, 0), 0);
    }

    #[test]
    fn tables_that_follow_from_others_have_sizes_that_a_mask_can_cut() {
        let mut sizes = TableSizes::default();
        for ledger in [1, 2, 64, 65_536, 16_777_216] {
            sizes.ledger.value = ledger;
            let marks = size_of_map("ledger_bloom", &sizes).unwrap();
            assert!(marks.is_power_of_two() && u64::from(marks) * 64 >= u64::from(ledger) * 16, "{ledger}");
            let rows = size_of_map("ledger_rows", &sizes).unwrap();
            assert!(rows > ledger + REST_ROWS);
        }
        for servers in [1, 64, 65_536, 16_777_216] {
            sizes.servers.value = servers;
            let all = size_of_map("verdict_cache", &sizes).unwrap();
            let part = all / possible_cpus();
            assert_eq!(all % possible_cpus(), 0);
            assert!(part.is_power_of_two() && part >= KNOWN_OPENINGS_LEAST, "{servers}");
            assert!(all <= KNOWN_OPENINGS_MOST.max(KNOWN_OPENINGS_LEAST * possible_cpus()));
        }
    }
}
