//! Edits kept over a reboot: from the kernel's text to the file, and back.

use super::saved::{self, Saved, SavedEdit};
use crate::abi::state;
use crate::clock::Clock;
use crate::gate::Gate;
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::gate::saved_file;

impl Gate {
    /// Puts the edits of the file into a gate that no packet passes yet, with what is left of their time. Returns
    /// the edits that hold now, a sentence each. A failure goes to `warnings`, and stops nothing else.
    pub(in crate::gate) fn restore_edits(
        &self,
        place: &GatePlace,
        warnings: &mut Vec<String>,
    ) -> Vec<String> {
        let saved = saved_file::take("edits", &saved::path_of(place), saved::read_each, warnings);
        if saved.edits.is_empty() {
            return Vec::new();
        }
        let clock = Clock::now();
        warnings.extend(saved::list_doubted(&saved, clock.wall));
        match self.restore_saved(&saved, &clock, warnings) {
            Ok(()) => self.describe_edits().unwrap_or_default(),
            Err(error) => {
                warnings
                    .push(format!("the edits of before could not be put back, and are over now: {error}"));
                Vec::new()
            }
        }
    }

    fn restore_saved(
        &self,
        saved: &Saved,
        clock: &Clock,
        warnings: &mut Vec<String>,
    ) -> Result<(), GateError> {
        let mut edits = saved::list_left(saved, clock);
        let last = edits.iter().map(|edit| edit.number).max().unwrap_or(0).max(saved.last_number);
        self.write_state(state::STATE_EDIT_NUMBER, u64::from(last))?;
        let servers = self.live_holders()?;
        let names = servers.names();
        edits.retain(|edit| {
            let has_server = names.contains(edit.server.as_str());
            if !has_server {
                warnings.push(format!(
                    "edit {} is over, for the policy has no server `{}` any more: {edit}",
                    edit.number,
                    edit.server.escape_default()
                ));
            }
            has_server
        });
        edits.sort_by_key(|edit| edit.number);
        edits.dedup_by_key(|edit| edit.number);
        match edits.is_empty() {
            true => Ok(()),
            false => self.write_edits(&edits),
        }
    }

    /// Writes the file, as the edits in the kernel are now. Nothing is written for a gate that another command has
    /// detached.
    pub(in crate::gate) fn save_edits(&self, place: &GatePlace) -> Result<(), GateError> {
        let _lock = place.lock_saving()?;
        if !self.is_pinned_at(place)? {
            return Ok(());
        }
        let clock = Clock::now();
        let edits = self.edits()?.iter().map(|edit| SavedEdit::of(edit, &clock)).collect();
        let last = u32::try_from(self.read_state(state::STATE_EDIT_NUMBER)?).unwrap_or(u32::MAX);
        saved::write(&saved::path_of(place), &Saved::new(last, edits))
    }
}
