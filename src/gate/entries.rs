//! The audit entries of an attach and of a fall-back.

use std::fmt::Display;
use std::path::Path;

use super::Gate;
use super::attach::Attachment;
use super::fallback::FallBack;
use super::place::GatePlace;
use crate::audit::{Action, Entry, PolicyMark};

impl Attachment {
    /// The record of this, with the policy that was live before and the file of the one that is live now.
    pub fn to_entry(&self, gate: &Gate, before: Option<PolicyMark>, file: &Path) -> Entry {
        let replaced = if self.replaced { ", replaced without a gap" } else { "" };
        Entry::done(Action::Attach).file(file).change(before, gate.policy_mark()).detail(format_args!(
            "{}, tracker {}{replaced}",
            self.mode.name(),
            self.hook.name()
        ))
    }
}

impl FallBack {
    /// The record of this. `refusal` is why the policy of `file` is not the live one.
    pub fn to_entry(
        &self,
        place: &GatePlace,
        refusal: &dyn Display,
        file: &Path,
        before: Option<PolicyMark>,
    ) -> Entry {
        let refusal = refusal.to_string();
        let reason = refusal.lines().next().unwrap_or_default();
        Entry::done(Action::FallBack)
            .file(file)
            .change(before, self.gate.policy_mark())
            .detail(format_args!("it was refused ({reason}), and {}", self.describe(place)))
    }
}
