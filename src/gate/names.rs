//! Names of servers and the ids by which the programs know them. A name keeps its id across policies,
//! because rows of the ledger outlive policies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Gate;
use super::error::GateError;
use crate::abi::{name, read_text, state, write_text};

impl Gate {
    /// Ids of all names that have one.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn ids_by_name(&self) -> Result<HashMap<String, u32>, GateError> {
        Ok(self.maps.names.entries()?.iter().map(|(id, name)| (read_text(&name.text), *id)).collect())
    }

    /// Names by id, also of servers that the live policy no longer has.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn names_by_id(&self) -> Result<HashMap<u32, Arc<str>>, GateError> {
        Ok(self.maps.names.entries()?.iter().map(|(id, name)| (*id, read_text(&name.text).into())).collect())
    }

    /// The ids of these names, in their order. A new name gets a new id.
    ///
    /// # Errors
    /// When there is no room for all names.
    pub(super) fn assign_ids(&self, names: &[String]) -> Result<Vec<u32>, GateError> {
        // counted by id: two entries of one name take the room of two
        let mut known = self.names_by_id()?;
        let mut ids = invert(&known);
        let fresh = names.iter().filter(|name| !ids.contains_key(name.as_str())).count();
        if known.len() + fresh > self.maps.names.capacity() as usize {
            self.forget_names(&known, names)?;
            known = self.names_by_id()?;
            ids = invert(&known);
            if known.len() + fresh > self.maps.names.capacity() as usize {
                return Err(GateError::TableFull {
                    table: "servers",
                    size: self.maps.names.capacity(),
                    wanted: known.len() + fresh,
                });
            }
        }
        let mut last = self.read_state(state::STATE_SERVER_ID)?;
        let mut entries = Vec::new();
        let mut result = Vec::with_capacity(names.len());
        for text in names {
            let id = *ids.entry(text).or_insert_with(|| {
                last += 1;
                let id = last as u32;
                entries.push((id, name { text: write_text(text) }));
                id
            });
            result.push(id);
        }
        if !entries.is_empty() {
            // The number first: an id that is assigned twice would mix the drops of two servers.
            self.write_state(state::STATE_SERVER_ID, last)?;
            self.maps.names.put_all(&entries)?;
        }
        Ok(result)
    }

    /// Frees the names that no policy, no quarantine, no edit and no row of the ledger uses.
    fn forget_names(&self, known: &HashMap<u32, Arc<str>>, wanted: &[String]) -> Result<(), GateError> {
        let wanted: HashSet<&str> = wanted.iter().map(String::as_str).collect();
        let mut used = HashSet::new();
        self.maps.ledger.visit(|kind, _| used.extend([kind.server]))?;
        self.maps.ledger_overflow.visit(|kind, _| used.extend([kind.server]))?;
        self.maps.quarantines.visit(|id, _| used.extend([*id]))?;
        self.maps.quarantined_addresses.visit(|_, row| used.extend([row.server]))?;
        self.maps.ledger_given_back.visit(|kind, _| used.extend([kind.server]))?;
        let edits = self.edits()?;
        let live = self.live_policy()?;
        let live: HashSet<&str> =
            live.iter().flat_map(|policy| &policy.servers).map(|server| server.name.as_str()).collect();
        let edited: HashSet<&str> = edits.iter().map(|edit| edit.server.as_str()).collect();
        #[expect(clippy::iter_over_hash_type, reason = "removed in any order")]
        for (id, name) in known {
            if !used.contains(id)
                && !live.contains(&**name)
                && !edited.contains(&**name)
                && !wanted.contains(&**name)
            {
                self.maps.names.remove(id)?;
            }
        }
        Ok(())
    }

    /// The id of the server of this name.
    ///
    /// # Errors
    /// When no policy has had such a server.
    pub(super) fn find_server_id(&self, name: &str) -> Result<u32, GateError> {
        let ids = self.ids_by_name()?;
        ids.get(name).copied().ok_or_else(|| GateError::no_server(name, ids.keys().map(String::as_str)))
    }
}

fn invert(names: &HashMap<u32, Arc<str>>) -> HashMap<&str, u32> {
    names.iter().map(|(id, name)| (&**name, *id)).collect()
}
