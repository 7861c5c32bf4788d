//! Edits kept over a reboot: from the kernel's text to the file, and back.

use super::saved::{self, Saved, SavedEdit};
use crate::abi::state;
use crate::clock::Clock;
use crate::gate::Gate;
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::gate::saved_file;

impl Gate {
    /// Puts the edits of the file into a gate that no packet passes yet, or into one that was attached without them,
    /// with what is left of their time. Returns the edits that hold now, a sentence each. A failure goes to
    /// `warnings`, and stops nothing else.
    pub(in crate::gate) fn restore_edits(
        &self,
        place: &GatePlace,
        warnings: &mut Vec<String>,
    ) -> Vec<String> {
        let (saved, mut is_kept) =
            saved_file::take("edits", &saved::path_of(place), saved::read_each, warnings);
        let mut lines = Vec::new();
        if !saved.edits.is_empty() {
            let clock = Clock::now();
            warnings.extend(saved::list_doubted(&saved, clock.wall));
            match self.restore_saved(&saved, &clock, warnings) {
                Ok(()) => lines = self.describe_edits().unwrap_or_default(),
                Err(error) => {
                    is_kept = false;
                    warnings.push(format!(
                        "the edits of before could not be put back, and are over now: {error}"
                    ));
                }
            }
        }
        if let Err(error) = place.mark_edits_unread(!is_kept) {
            warnings.push(format!("the next change of an edit writes over the file: {error}"));
        }
        lines
    }

    fn restore_saved(
        &self,
        saved: &Saved,
        clock: &Clock,
        warnings: &mut Vec<String>,
    ) -> Result<(), GateError> {
        let mut edits = saved::list_left(saved, clock);
        let known = self.edits()?;
        let given = u32::try_from(self.read_state(state::STATE_EDIT_NUMBER)?).unwrap_or(u32::MAX);
        let numbers = edits.iter().map(|edit| edit.number);
        let mut last = numbers.max().unwrap_or(0).max(saved.last_number).max(given);
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
        // a gate that was attached without them has given their numbers again
        for edit in edits.iter_mut().filter(|edit| known.iter().any(|other| other.number == edit.number)) {
            last = last.saturating_add(1);
            edit.number = last;
        }
        self.write_state(state::STATE_EDIT_NUMBER, u64::from(last))?;
        if edits.is_empty() {
            return Ok(());
        }
        edits.extend(known);
        edits.sort_by_key(|edit| edit.number);
        self.write_edits(&edits)
    }

    /// Writes the file, as the edits in the kernel are now. Nothing is written for a gate that another command has
    /// detached.
    pub(in crate::gate) fn save_edits(&self, place: &GatePlace) -> Result<(), GateError> {
        let _lock = place.lock_saving()?;
        if !self.is_pinned_at(place)? {
            return Ok(());
        }
        if place.has_unread_edits() {
            return Err(GateError::Other {
                what: format!(
                    "{} has edits that could not be read or put back",
                    saved::path_of(place).display()
                ),
                why: format!(
                    "it stays as it is, so a reboot forgets what is changed now\n\
                     help: portcullis attach -i {} -p POLICY reads it again. If nobody needs it any more, remove it \
                     before that",
                    place.interface
                ),
            });
        }
        let clock = Clock::now();
        let edits = self.edits()?.iter().map(|edit| SavedEdit::of(edit, &clock)).collect();
        let last = u32::try_from(self.read_state(state::STATE_EDIT_NUMBER)?).unwrap_or(u32::MAX);
        saved::write(&saved::path_of(place), &Saved::new(last, edits))
    }
}
