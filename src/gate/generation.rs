//! Generations beyond the life of one gate: whoever attaches goes on counting where the gate before has stopped.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use libbpf_rs::{MapCore as _, MapFlags};

use super::Gate;
use super::error::GateError;
use super::pins::open_map;
use super::place::GatePlace;
use super::state_file::{in_time, replace};
use crate::abi::{layout, state};

const FILE: &str = "generation";
const THREAD: &str = "generation";
/// A disk that does not answer holds up an attach for no longer. Numbers then begin anew.
const PATIENCE: Duration = Duration::from_secs(2);

impl Gate {
    /// Of a gate that was just made: goes on counting where the one that is pinned at `place`, or the last one
    /// there, has stopped.
    pub(super) fn continue_generations(&self, place: &GatePlace) -> Result<(), GateError> {
        let path = path_of(place);
        let saved = in_time(THREAD, PATIENCE, move || fs::read_to_string(path));
        let saved = match saved.and_then(|saved| saved) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                log::warn!("generations are counted anew: {}: {error}", path_of(place).display());
                0
            }
        };
        let last = saved.max(read_pinned(place)).max(self.read_state(state::STATE_GENERATION)?);
        self.write_state(state::STATE_GENERATION, last)?;
        self.reserve_generation(place);
        Ok(())
    }

    /// Keeps the next number, before a policy gets it, for the next gate of this place: the power may fail right
    /// after. For this gate the kernel has the number, so a disk that fails is no failure.
    pub(super) fn reserve_generation(&self, place: &GatePlace) {
        let saved = self.read_state(state::STATE_GENERATION).map(|last| {
            let path = path_of(place);
            in_time(THREAD, PATIENCE, move || replace(&path, &[(last + 1).to_string().as_bytes()]))
        });
        if let Ok(Err(error) | Ok(Err(error))) = saved {
            log::debug!("{}: {error}", path_of(place).display());
        }
    }
}

fn path_of(place: &GatePlace) -> PathBuf {
    place.history().join(FILE)
}

/// The highest generation of a gate that is pinned, of any layout: it is the first word of each row of `policies`.
fn read_pinned(place: &GatePlace) -> u64 {
    let Ok(policies) = open_map(&place.maps().join("policies")) else { return 0 };
    let read = |slot: u32| {
        let row = policies.lookup(&slot.to_ne_bytes(), MapFlags::ANY).ok().flatten()?;
        Some(u64::from_ne_bytes(row.get(..8)?.try_into().ok()?))
    };
    (0..layout::SLOTS.0).filter_map(read).max().unwrap_or(0)
}
