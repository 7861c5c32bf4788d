//! Edits: needs that somebody has added to a server or taken away from it by hand, for a time.
//!
//! They lie beside the policy. Each change fills a new table and a new text, and one store of
//! `state[STATE_EDITS]` makes both of them the ones in use: a death before it leaves the edits as they were,
//! a death after it the new ones. The kernel knows when each edit ends.

mod keep;
mod saved;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Gate;
use super::error::GateError;
use crate::abi::{edits_word, layout, rule_flag, state};
use crate::clock::{now_ns, show_duration};
use crate::compile::{EditRule, Tables, TooManyEdits, compile_edits, cut_text};
use crate::policy::{Direction, Need, Policy};

pub use self::saved::cancel_saved_edit;

/// The most edits of a gate. Their text is read and written as a whole.
const MOST_EDITS: usize = 16_384;
/// How often the text is read again when another command writes edits meanwhile.
const READ_ATTEMPTS: usize = 8;
const NS_PER_S: u64 = 1_000_000_000;

/// Whether an edit adds a need or takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EditAction {
    /// It permits.
    Allow,
    /// It forbids, and goes before all that permits.
    Deny,
}

impl EditAction {
    /// The command, which is the word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            EditAction::Allow => "allow",
            EditAction::Deny => "deny",
        }
    }
}

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// By which it is cancelled. Never given twice by one gate.
    pub number: u32,
    /// The name of its server.
    pub server: String,
    /// What it does.
    pub action: EditAction,
    /// Which side opens the flows: in or out.
    pub direction: Direction,
    /// The need, as it was written: sets and servers by name.
    pub need: String,
    /// IP protocol number.
    pub protocol: u8,
    /// First and last port, as of a need.
    pub ports: (u16, u16),
    /// The peers that the need had when it was written. Empty: every peer.
    pub peers: Vec<IpNet>,
    /// CLOCK_MONOTONIC.
    pub since_ns: u64,
    /// CLOCK_MONOTONIC.
    pub until_ns: u64,
    /// Who made it.
    pub who: String,
    /// Why.
    pub note: Option<String>,
}

/// An edit that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditAsked {
    /// What it does.
    pub action: EditAction,
    /// The name of a server of the live policy.
    pub server: String,
    /// In or out, without `sport` and `limit`.
    pub need: Need,
    /// How long it lasts.
    pub seconds: u64,
    /// Who asks.
    pub who: String,
    /// Why.
    pub note: Option<String>,
}

impl Edit {
    /// Whether it holds for a flow. `port`: of the server for `in`, of the peer for `out`.
    pub fn covers(&self, server: &str, direction: Direction, protocol: u8, port: u16) -> bool {
        self.server == server
            && self.direction == direction
            && self.protocol == protocol
            && self.ports().contains(&port)
    }

    /// Whether it holds for a peer.
    pub fn has_peer(&self, peer: IpAddr) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|prefix| prefix.contains(&peer))
    }

    /// That it ends with a policy.
    pub(super) fn describe_end(&self) -> String {
        format!("edit {} ends, for this policy has no {}: {self}", self.number, self.server)
    }

    fn ports(&self) -> RangeInclusive<u16> {
        self.ports.0..=self.ports.1
    }

    fn is_over(&self, now_ns: u64) -> bool {
        self.until_ns <= now_ns
    }

    /// Seconds that are left.
    pub fn left_s(&self) -> u64 {
        self.until_ns.saturating_sub(now_ns()).div_ceil(NS_PER_S)
    }
}

/// As `allow web1 out tcp/443 to 198.51.100.80`.
impl fmt::Display for Edit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Edit { action, server, direction, need, .. } = self;
        write!(out, "{} {server} {direction} {need}", action.name())
    }
}

impl Gate {
    /// The edits that hold, in the order of their numbers. Those of a server that the live policy lacks are among
    /// them until the next `apply`.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn edits(&self) -> Result<Vec<Edit>, GateError> {
        let now = now_ns();
        let mut edits = self.read_edits()?;
        edits.retain(|edit| !edit.is_over(now));
        Ok(edits)
    }

    /// Adds an edit, and returns it with its number. The caller holds the lock.
    ///
    /// # Errors
    /// When the live policy has no such server, or there is no room.
    pub fn add_edit(&self, policy: &Policy, asked: EditAsked) -> Result<Edit, GateError> {
        let EditAsked { action, server, need, seconds, who, note } = asked;
        if policy.find_server(&server).is_none() {
            let names = policy.servers.iter().map(|server| server.name.as_str());
            return Err(GateError::no_server(&server, names));
        }
        let mut edits = self.edits()?;
        if edits.len() >= MOST_EDITS {
            return Err(GateError::TooManyEdits { count: edits.len() });
        }
        let number = self.next_number()?;
        let since_ns = now_ns();
        let edit = Edit {
            number,
            server,
            action,
            direction: need.direction,
            need: need.to_string(),
            protocol: need.protocol,
            ports: (*need.ports.start(), *need.ports.end()),
            peers: need.resolve_peers(&policy.sets),
            since_ns,
            until_ns: since_ns.saturating_add(seconds.saturating_mul(NS_PER_S)),
            who,
            note,
        };
        edits.push(edit.clone());
        // The number first: one that is given twice would cancel the wrong edit.
        self.write_state(state::STATE_EDIT_NUMBER, u64::from(number))?;
        self.write_edits(&edits)?;
        Ok(edit)
    }

    /// Ends an edit, and returns it. `None`: there is no such one. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel refuses to read or write.
    pub fn cancel_edit(&self, number: u32) -> Result<Option<Edit>, GateError> {
        let mut edits = self.edits()?;
        let Some(index) = edits.iter().position(|edit| edit.number == number) else {
            return Ok(None);
        };
        let edit = edits.remove(index);
        self.write_edits(&edits)?;
        Ok(Some(edit))
    }

    /// The edits whose server a policy does not have. They end when it takes effect.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn find_homeless_edits(&self, tables: &Tables) -> Result<Vec<Edit>, GateError> {
        let mut edits = self.edits()?;
        let names: BTreeSet<&str> = tables.names.iter().map(String::as_str).collect();
        edits.retain(|edit| !names.contains(edit.server.as_str()));
        Ok(edits)
    }

    /// Ends the edits whose server the policy that has just taken effect does not have: an edit must not wait for
    /// whoever gets the name next. The caller holds the lock.
    pub(super) fn end_homeless_edits(&self, tables: &Tables) -> Result<(), GateError> {
        let homeless = self.find_homeless_edits(tables)?;
        if homeless.is_empty() {
            return Ok(());
        }
        let mut edits = self.edits()?;
        edits.retain(|edit| homeless.iter().all(|gone| gone.number != edit.number));
        self.write_edits(&edits)
    }

    /// The edit of a rule that a program has named. `None`: the rule is one of the policy.
    pub(super) const fn number_of_edit(rule: u32) -> Option<u32> {
        match rule & rule_flag::RULE_EDIT.0 {
            0 => None,
            _ => Some(rule & rule_flag::RULE_ID_MASK.0),
        }
    }

    fn next_number(&self) -> Result<u32, GateError> {
        let next = self.read_state(state::STATE_EDIT_NUMBER)? + 1;
        let number = u32::try_from(next).ok().filter(|number| *number <= rule_flag::RULE_ID_MASK.0);
        number.ok_or_else(|| GateError::Other {
            what: "there is no number left for an edit".to_owned(),
            why: "detach and attach the gate: it then counts from the edits that are left".to_owned(),
        })
    }

    /// The slot of the edits in use. `None`: there is no edit.
    fn edit_slot(word: u64) -> Option<u32> {
        let slot = u32::try_from(word & u64::from(edits_word::EDITS_SLOT_MASK.0)).unwrap_or(0);
        slot.checked_sub(1)
    }

    fn read_edits(&self) -> Result<Vec<Edit>, GateError> {
        for _ in 0..READ_ATTEMPTS {
            let word = self.read_state(state::STATE_EDITS)?;
            let Some(slot) = Gate::edit_slot(word) else {
                return Ok(Vec::new());
            };
            let text = self.read_edit_text(slot);
            // if the slot was taken meanwhile, the text may be of two changes
            if self.read_state(state::STATE_EDITS)? == word {
                return serde_json::from_slice(&text?).map_err(|error| unreadable(error.to_string()));
            }
        }
        Err(unreadable("they change faster than they can be read; try again".to_owned()))
    }

    fn read_edit_text(&self, slot: u32) -> Result<Vec<u8>, GateError> {
        let chunks = self.maps.edit_texts.open_inner(slot)?;
        let mut text = Vec::new();
        chunks.visit(|_, chunk| text.extend_from_slice(&chunk.0))?;
        // the last chunk is filled up, and JSON has no such byte
        let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        text.truncate(end);
        Ok(text)
    }

    /// Makes these the edits in use, by one store. The caller holds the lock.
    ///
    /// # Errors
    /// When there is no room for all of them. Then the others stay in use.
    pub fn write_edits(&self, edits: &[Edit]) -> Result<(), GateError> {
        let ids = self.ids_by_name()?;
        let rules: Vec<EditRule<'_>> = edits
            .iter()
            .filter_map(|edit| {
                Some(EditRule {
                    number: edit.number,
                    server: *ids.get(&edit.server)?,
                    direction: edit.direction,
                    protocol: edit.protocol,
                    ports: edit.ports(),
                    peers: &edit.peers,
                    allows: edit.action == EditAction::Allow,
                    until_ns: edit.until_ns,
                })
            })
            .collect();
        let rows = compile_edits(&rules)
            .map_err(|TooManyEdits { .. }| GateError::TooManyEdits { count: edits.len() })?;
        let word = self.read_state(state::STATE_EDITS)?;
        let changes = (word >> edits_word::EDITS_CHANGES_SHIFT.0) + 1;
        let mut fresh = changes << edits_word::EDITS_CHANGES_SHIFT.0;
        if !edits.is_empty() {
            // A packet may still be reading the slot in use. The other one was in use before the last change, and
            // putting a table there waits for the packets that read it.
            let slot = Gate::edit_slot(word).map_or(0, |slot| (slot + 1) % layout::EDIT_SLOTS.0);
            let text = serde_json::to_string(edits).map_err(|error| unreadable(error.to_string()))?;
            self.maps.edit_texts.create_inner(&cut_text(&text))?.put(slot)?;
            self.maps.edit_tables.create_inner(&rows)?.put(slot)?;
            let ports = rules.iter().map(|rule| (rule.direction, rule.protocol, rule.ports.clone()));
            self.write_unedited_ports(slot, ports)?;
            fresh |= u64::from(slot) + 1;
        }
        self.write_state(state::STATE_EDITS, fresh)
    }

    /// Every edit in a few words, for people.
    fn describe_edits(&self) -> Result<Vec<String>, GateError> {
        let left = |edit: &Edit| show_duration(edit.left_s());
        Ok(self
            .edits()?
            .iter()
            .map(|edit| format!("edit {}: {edit} for {} more", edit.number, left(edit)))
            .collect())
    }
}

/// The edits that end with a policy, a line each.
pub fn list_ended(edits: &[Edit]) -> String {
    edits.iter().map(|edit| format!("! {}\n", edit.describe_end())).collect()
}

fn unreadable(why: String) -> GateError {
    GateError::Other { what: "could not read or write the edits".to_owned(), why }
}
