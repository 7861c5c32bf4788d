//! A gate as the rest of the tool holds it: its maps and programs, opened where they are pinned or
//! freshly loaded.

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::errno::Errno;

use super::error::{GateError, is_shortage};
use super::maps::Maps;
use super::pins::{check_mounts, check_owners, has_pin, open_map};
use super::place::GatePlace;
use super::program::{OBJECT, Programs, load_asking};
use super::requirements::check_requirements;
use super::sizes::{check_ledger, possible_cpus};
use super::typed_map::TypedMap;
use crate::abi::{layout, state};
use crate::compile::Tables;
use crate::policy::{Policy, TableSizes};

/// An opened gate: all its maps and programs, whether attached or not.
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
        check_requirements()?;
        check_owners(&place.pins)?;
        if !has_pin(&place.maps())? {
            check_mounts()?;
            return Err(GateError::NotAttached { interface: place.interface.clone() });
        }
        check_pins(place)?;
        let programs = Programs::open(place)?;
        let maps = Maps::collect(|name| {
            open_map(&place.maps().join(name)).map_err(|errno| match errno {
                Errno::ENOENT => place.broken_pins(name),
                errno => {
                    GateError::Kernelside { what: format!("could not open the pinned map `{name}`"), errno }
                }
            })
        })?;
        Ok(Gate { maps, programs })
    }

    /// Loads a gate that nothing pins or attaches. It is gone with the value. For tests and
    /// measurements.
    ///
    /// # Errors
    /// When the kernel refuses a program or a map, or when the policy does not fit.
    pub fn load(policy: &Policy, tables: &Tables) -> Result<Gate, GateError> {
        Gate::load_object(OBJECT, policy, tables)
    }

    /// As [`Gate::load`], from an object file of another compiler.
    ///
    /// # Errors
    /// As [`Gate::load`], and when the object is of another version.
    pub fn load_object(object: &[u8], policy: &Policy, tables: &Tables) -> Result<Gate, GateError> {
        Gate::load_as(object, policy, tables, tables.settings.has_handover())
    }

    /// As [`Gate::load_object`]. `handover`: it asks conntrack if the policy says so.
    pub(super) fn load_as(
        object: &[u8],
        policy: &Policy,
        tables: &Tables,
        handover: bool,
    ) -> Result<Gate, GateError> {
        check_requirements()?;
        let gate = Gate::make(object, &policy.tables, handover)?;
        gate.install(policy, tables)?;
        Ok(gate)
    }

    /// Loads a gate with maps of its own, in which there is no policy yet.
    pub(super) fn make(object: &[u8], sizes: &TableSizes, handover: bool) -> Result<Gate, GateError> {
        check_ledger(sizes, possible_cpus())?;
        let (maps, programs, asks) = load_asking(object, sizes, None, handover)?;
        let gate = Gate { maps, programs };
        gate.describe_maps()?;
        gate.note_conntrack(asks)?;
        Ok(gate)
    }

    /// Loads programs for the pinned maps of a gate that is there. Returns whether they can ask conntrack.
    pub(super) fn make_for(
        place: &GatePlace,
        sizes: &TableSizes,
        handover: bool,
    ) -> Result<(Gate, bool), GateError> {
        check_pins(place)?;
        let (maps, programs, asks) = load_asking(OBJECT, sizes, Some(&place.maps()), handover)?;
        Ok((Gate { maps, programs }, asks))
    }

    /// Whether the gate that is pinned at `place` is this one, and not a later one.
    ///
    /// # Errors
    /// When that can't be found out: a lack of descriptors is no sign of a gate that is gone.
    pub fn is_pinned_at(&self, place: &GatePlace) -> Result<bool, GateError> {
        let what = "could not look at the pins of the gate";
        let id = |handle: &MapHandle| match handle.info() {
            Ok(info) => Ok(info.info.id),
            Err(error) => Err(GateError::from_libbpf(what, &error)),
        };
        match open_map(&place.maps().join("state")) {
            Ok(pinned) => Ok(id(&pinned)? == id(self.maps.state.handle())?),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(GateError::Kernelside { what: what.to_owned(), errno }),
        }
    }

    pub(super) fn read_state(&self, index: state) -> Result<u64, GateError> {
        Ok(self.maps.state.get(&index.0)?.unwrap_or(0))
    }

    pub(super) fn write_state(&self, index: state, value: u64) -> Result<(), GateError> {
        self.maps.state.put(&index.0, &value, MapFlags::ANY)
    }

    /// Tells the programs how the maps are made.
    pub(super) fn describe_maps(&self) -> Result<(), GateError> {
        self.divide_verdict_cache(self.maps.verdict_cache.max_entries())?;
        self.begin_bloom()?;
        let cpus = possible_cpus();
        self.write_state(state::STATE_LEDGER_ROWS, u64::from(self.maps.ledger_counts.capacity() / cpus))?;
        self.write_state(state::STATE_CPUS, u64::from(cpus))?;
        let heard = self.maps.heard.capacity() / (2 * layout::HEARD_REGIONS.0);
        self.write_state(state::STATE_HEARD_WORDS, u64::from(heard))?;
        self.write_state(state::STATE_LAYOUT, u64::from(layout::LAYOUT_VERSION.0))
    }
}

/// Refuses pins of another version, and pins of which one is missing.
fn check_pins(place: &GatePlace) -> Result<(), GateError> {
    check_layout(place)?;
    // a detach that was killed has removed them in any order
    let maps = Maps::names().map(|name| (place.maps(), name));
    let folders = ["programs", "links"].map(|name| (place.pins.clone(), name));
    for (folder, name) in maps.chain(folders) {
        if !has_pin(&folder.join(name))? {
            return Err(place.broken_pins(name));
        }
    }
    Ok(())
}

/// Refuses maps that another version made, in which fields have other meanings.
pub(super) fn check_layout(place: &GatePlace) -> Result<(), GateError> {
    let handle = open_map(&place.maps().join("state")).map_err(|errno| match is_shortage(errno) {
        true => GateError::Kernelside { what: "could not open the pinned map `state`".to_owned(), errno },
        false => place.broken_pins("state"),
    })?;
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
