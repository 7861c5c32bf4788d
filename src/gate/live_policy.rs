//! The live policy, as the kernel holds it.

use super::Gate;
use super::error::GateError;
use super::link::Hook;
use super::place::GatePlace;
use crate::abi::{read_text, settings};
use crate::compile::Tables;
use crate::policy::{Policy, PolicyChange, diff, parse};

/// How often a snapshot is taken again when another policy takes effect meanwhile.
const SNAPSHOT_ATTEMPTS: usize = 8;

impl Gate {
    /// Settings of the live policy. `None` before the first.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn live_settings(&self) -> Result<Option<settings>, GateError> {
        match self.live_slot()? {
            Some(slot) => self.maps.policies.get(&slot),
            None => Ok(None),
        }
    }

    /// The live policy's text, and the file that it came from.
    ///
    /// # Errors
    /// When it can't be read, or is replaced faster than it can be read.
    pub fn live_source(&self) -> Result<Option<(String, String)>, GateError> {
        for _ in 0..SNAPSHOT_ATTEMPTS {
            let Some(slot) = self.live_slot()? else { return Ok(None) };
            let Some(settings) = self.maps.policies.get(&slot)? else { return Ok(None) };
            let text = self.read_source(slot, &settings);
            // if the slot was taken meanwhile, the text may be of two policies
            let still = self.maps.policies.get(&slot)?;
            if still.is_some_and(|still| still.generation == settings.generation) {
                return text.map(|text| Some((text, read_text(&settings.file))));
            }
        }
        Err(unreadable("it is replaced faster than it can be read; try again".to_owned()))
    }

    fn read_source(&self, slot: u32, settings: &settings) -> Result<String, GateError> {
        let chunks = self.maps.sources.open_inner(slot)?;
        let length = settings.source_bytes as usize;
        let mut text = Vec::with_capacity(length);
        let mut index = 0;
        while text.len() < length {
            let chunk = chunks.get(&index)?.ok_or_else(|| unreadable("its text is cut short".to_owned()))?;
            text.extend_from_slice(&chunk.0);
            index += 1;
        }
        text.truncate(length);
        String::from_utf8(text).map_err(|error| unreadable(error.to_string()))
    }

    /// The live policy, parsed from its text in the kernel. `None` before the first.
    ///
    /// # Errors
    /// When it can't be read, or is of a newer version.
    pub fn live_policy(&self) -> Result<Option<Policy>, GateError> {
        self.live_source()?.map(|(text, file)| parse_live(&text, &file)).transpose()
    }

    /// The generation of the live policy, if it is this very text of the same file and the tracker is as it asks.
    ///
    /// # Errors
    /// As [`Gate::live_source`].
    pub fn find_identical(
        &self,
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<Option<u64>, GateError> {
        let is_tracked = self.find_tracker(place)? != Hook::No;
        let live = self.live_source()?.filter(|(text, file)| *text == policy.text && *file == policy.file);
        match live {
            Some(_) if is_tracked == tables.settings.is_strict() => {
                Ok(self.live_settings()?.map(|settings| settings.generation))
            }
            _ => Ok(None),
        }
    }

    /// The policy of a slot that is not written to.
    pub(super) fn policy_of_slot(&self, slot: u32) -> Result<Option<Policy>, GateError> {
        let Some(settings) = self.maps.policies.get(&slot)? else { return Ok(None) };
        let text = self.read_source(slot, &settings)?;
        parse_live(&text, &read_text(&settings.file)).map(Some)
    }

    /// How the live policy differs from `policy`. Empty when there is none.
    ///
    /// # Errors
    /// As [`Gate::live_policy`].
    pub fn changes_to(&self, policy: &Policy) -> Result<Vec<PolicyChange>, GateError> {
        let Some((text, file)) = self.live_source()? else {
            return Ok(Vec::new());
        };
        // The same text needs no second parse: log rotation reloads the policy as well.
        if text == policy.text {
            return Ok(Vec::new());
        }
        Ok(diff(&parse_live(&text, &file)?, policy))
    }
}

fn unreadable(why: String) -> GateError {
    GateError::Other { what: "could not read the live policy".to_owned(), why }
}

fn parse_live(text: &str, file: &str) -> Result<Policy, GateError> {
    parse(text, file).map_err(|diagnostics| GateError::Other {
        what: "this version does not understand the live policy".to_owned(),
        why: diagnostics.to_string(),
    })
}
