//! The one module that touches libbpf: the maps, programs and links of a gate.

mod attach;
mod caveats;
mod detach;
mod error;
mod explain;
mod fault;
mod install;
mod maps;
mod names;
mod orphans;
mod outer_map;
mod place;
mod program;
mod read;
mod revoke;
mod samples;
mod sizes;
mod statistics;
mod system;
mod token_buckets;
mod typed_map;
mod verdict_cache;

use std::fs;
use std::path::Path;

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::errno::Errno;

use crate::abi::{layout, state};
use crate::compile::Tables;
use crate::policy::Policy;
pub use attach::{AttachMode, Attachment, Hook, now_ns};
pub use caveats::find_caveats;
pub use detach::{detach, is_pinned};
pub use error::GateError;
pub use explain::{Answer, Verdict};
pub use maps::{Maps, TableUsage};
pub use orphans::{GateState, PinnedGate, detach_by_name, hint_at_orphans, list_gates};
pub use outer_map::OuterMap;
pub use place::{GatePlace, Lock};
use program::open_pinned;
pub use program::{OBJECT, Programs, route_messages};
pub use read::{FlowRow, FlowTable, ProgramStatistics, Status};
pub use samples::{Consumer, Received};
pub use statistics::{DropKey, GateStatistics, PolicyFacts};
pub use system::{TestRun, return_memory};
pub use typed_map::TypedMap;

/// An opened gate: every map and program of it, whether attached or not.
pub struct Gate {
    /// Its maps.
    pub maps: Maps,
    /// Its programs.
    pub programs: Programs,
}

impl Gate {
    /// Opens the gate whose pins are at `place`.
    ///
    /// # Errors
    /// When there is none, when its maps have another layout, or when it may not be read.
    pub fn open(place: &GatePlace) -> Result<Gate, GateError> {
        let folder = place.pins.join("maps");
        check_privilege()?;
        if !folder.exists() {
            place::check_mounts()?;
            return Err(GateError::NotAttached { interface: place.interface.clone() });
        }
        check_layout(place, &folder)?;
        check_complete(place, &folder)?;
        let broken = |name: &str| GateError::BrokenPins {
            interface: place.interface.clone(),
            path: place.pins.clone(),
            missing: name.to_owned(),
        };
        let programs = Programs::open(&place.pins.join("programs")).map_err(|name| broken(&name))?;
        let maps = Maps::collect(|name| {
            open_pinned(&folder.join(name)).map_err(|errno| match errno {
                Errno::ENOENT => broken(name),
                errno => {
                    GateError::Kernelside { what: format!("could not open the pinned map `{name}`"), errno }
                }
            })
        })?;
        Ok(Gate { maps, programs })
    }

    /// Loads a gate that nothing pins or attaches: it is gone with the value.
    /// For tests and measurements.
    pub fn load(policy: &Policy, tables: &Tables) -> Result<Gate, GateError> {
        Gate::load_object(OBJECT, policy, tables)
    }

    /// As [`Gate::load`], from an object file of another compiler.
    pub fn load_object(object: &[u8], policy: &Policy, tables: &Tables) -> Result<Gate, GateError> {
        check_privilege()?;
        let gate = program::load(object, &policy.tables, None)?;
        gate.describe_maps()?;
        gate.install(policy, tables)?;
        Ok(gate)
    }

    /// Whether what is pinned at `place` is this gate, and no later one that was put up in its stead.
    pub fn is_pinned_at(&self, place: &GatePlace) -> bool {
        let id = |handle: &MapHandle| handle.info().map(|info| info.info.id).ok();
        let pinned = open_pinned(&place.pins.join("maps/state")).ok();
        pinned.is_some_and(|pinned| id(&pinned).is_some() && id(&pinned) == id(self.maps.state.handle()))
    }

    pub(crate) fn read_state(&self, index: state) -> Result<u64, GateError> {
        Ok(self.maps.state.get(&index.0)?.unwrap_or(0))
    }

    /// What maps that were just made say of themselves.
    fn describe_maps(&self) -> Result<(), GateError> {
        self.divide_verdict_cache(self.maps.verdict_cache.max_entries())?;
        let words = self.maps.ledger_bloom.capacity();
        self.write_state(state::STATE_LEDGER_BLOOM_MASK, u64::from(words - 1))?;
        self.write_state(state::STATE_LAYOUT, u64::from(layout::LAYOUT_VERSION.0))
    }

    pub(crate) fn write_state(&self, index: state, value: u64) -> Result<(), GateError> {
        self.maps.state.put(&index.0, &value, MapFlags::ANY)
    }
}

/// Refuses a gate of which a pin is missing.
fn check_complete(place: &GatePlace, folder: &Path) -> Result<(), GateError> {
    let maps = Maps::names().find(|name| !folder.join(name).exists());
    // a detach that was killed takes them in any order
    let missing =
        maps.or_else(|| ["programs", "links"].into_iter().find(|name| !place.pins.join(name).exists()));
    match missing {
        None => Ok(()),
        Some(missing) => Err(GateError::BrokenPins {
            interface: place.interface.clone(),
            path: place.pins.clone(),
            missing: missing.to_owned(),
        }),
    }
}

/// Refuses maps that another version made with other meanings.
fn check_layout(place: &GatePlace, folder: &Path) -> Result<(), GateError> {
    let broken = |missing: &str| GateError::BrokenPins {
        interface: place.interface.clone(),
        path: place.pins.clone(),
        missing: missing.to_owned(),
    };
    let handle = open_pinned(&folder.join("state")).map_err(|_| broken("state"))?;
    let words: TypedMap<u32, u64> = TypedMap::new("state", handle)?;
    let found = words.get(&state::STATE_LAYOUT.0)?.unwrap_or(0);
    if found == u64::from(layout::LAYOUT_VERSION.0) {
        return Ok(());
    }
    Err(GateError::Layout {
        interface: place.interface.clone(),
        path: place.pins.clone(),
        found,
        expected: layout::LAYOUT_VERSION.0,
    })
}

/// Says plainly what is missing before a system call says EPERM.
pub fn check_privilege() -> Result<(), GateError> {
    /// linux/capability.h
    const CAPABILITIES: [(u32, &str); 2] = [
        (12, "the capability CAP_NET_ADMIN"),
        // CAP_BPF and CAP_PERFMON don't do: tables are opened by id
        (21, "the capability CAP_SYS_ADMIN"),
    ];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    for (bit, missing) in CAPABILITIES {
        if effective & (1 << bit) == 0 {
            let missing = if nix::unistd::geteuid().is_root() { missing } else { "root" };
            return Err(GateError::Privilege { missing });
        }
    }
    check_kernel(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

/// The floor: `bpf_loop`, multi-buffer XDP and all helpers in use are in 6.1.
fn check_kernel(release: &str) -> Result<(), GateError> {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 1) => {
            Err(GateError::Kernel { release: release.trim().to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_1_are_refused() {
        assert!(check_kernel("5.15.0-91-generic\n").is_err());
        assert!(check_kernel("6.0.12").is_err());
        assert!(check_kernel("6.1.0-18-amd64").is_ok());
        assert!(check_kernel("6.18.44").is_ok());
        assert!(check_kernel("7.0").is_ok());
        assert!(check_kernel("unreadable").is_ok());
    }
}
