//! Grants kept over a reboot: from the kernel's tables to the file, and back.

use std::collections::{BTreeMap, HashMap};

use libbpf_rs::MapFlags;

use super::saved::{self, Saved, SavedConnection, SavedGrant, to_wall_s};
use super::{find_age_ns, find_end_ns, is_open};
use crate::abi::{
    flow_key, from_address, grant, grant_origin, name_connection, name_share, read_text, share_key, state,
    to_address,
};
use crate::clock::Clock;
use crate::gate::Gate;
use crate::gate::error::GateError;
use crate::gate::management::TIMEOUT_ESTABLISHED_S;
use crate::gate::place::GatePlace;
use crate::gate::saved_file;
use crate::net::{DomainName, TCP};

impl Gate {
    /// The names of policies, by their ids.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn domains_by_id(&self) -> Result<HashMap<u32, DomainName>, GateError> {
        let read = |text: &[u8]| DomainName::from_printed(&read_text(text));
        Ok(self.maps.domains.entries()?.iter().map(|(id, domain)| (*id, read(&domain.text))).collect())
    }

    /// Puts the grants of the file into a gate that no packet passes yet, with what is left of their time, and
    /// returns how many. A failure goes to `warnings`, and stops nothing else: servers ask again.
    pub(in crate::gate) fn restore_grants(&self, place: &GatePlace, warnings: &mut Vec<String>) -> usize {
        // written over within a minute if it can't be read: servers ask again
        let (saved, _) = saved_file::take("grants", &saved::path_of(place), saved::read_each, warnings);
        let clock = Clock::now();
        if saved.is_of_the_future(&clock) {
            warnings.push(format!(
                "by the clock ({:.0}) the grants of names in {} are of the future, so they are over now: a name opens \
                 its addresses again when a server asks for it",
                clock.wall,
                saved::path_of(place).display()
            ));
            return 0;
        }
        self.put_back(&saved, &clock).unwrap_or_else(|error| {
            warnings.push(format!("the grants of names of before could not be put back: {error}"));
            0
        })
    }

    /// The grants and their connections, for the other router of a pair. `None`: there are none.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn export_grants(&self) -> Result<Option<serde_json::Value>, GateError> {
        let saved = self.list_saved_grants()?;
        Ok(if saved.is_empty() { None } else { serde_json::to_value(saved).ok() })
    }

    /// Takes over what [`Gate::export_grants`] gave on the other router, as far as the live policy has it, and returns
    /// how many grants hold by it. Those that are there already keep the later end. The tracker may take a place at the
    /// same moment: then one grant is lost, and its server asks again. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn import_grants(
        &self,
        value: serde_json::Value,
        warnings: &mut Vec<String>,
    ) -> Result<usize, GateError> {
        let saved = saved::from_value(value, warnings);
        let clock = Clock::now();
        if saved.is_of_the_future(&clock) {
            warnings.push(
                "the clock of the other router is ahead of this one, so its grants of names are not taken over"
                    .to_owned(),
            );
            return Ok(0);
        }
        self.put_back(&saved, &clock)
    }

    /// Those of servers and names that the live policy has.
    fn put_back(&self, saved: &Saved, clock: &Clock) -> Result<usize, GateError> {
        let Some(slot) = self.live_slot()?.filter(|_| !saved.is_empty()) else { return Ok(0) };
        let servers = self.ids_by_name()?;
        let names = NameIds::new(self.domains_by_id()?);
        let rules = self.grant_rules(slot)?;
        let cap_ns = self.find_cap_ns(slot)?;
        let mut rows = Vec::new();
        for row in &saved.grants {
            let server = row.server.as_ref().map_or(Some(0), |name| servers.get(name).copied());
            let (Some(server), Some(name), Some(times)) =
                (server, names.find(&row.name), saved.find_times(row, clock))
            else {
                continue;
            };
            // the policy may be another one than when it was saved
            if !rules.may_have(row.address)? {
                continue;
            }
            rows.push(grant {
                answered_ns: times.answered_ns,
                open_until_ns: times.until_ns,
                used_ns: times.used_ns,
                address: to_address(row.address),
                server,
                name,
                origin: grant_origin::GRANT_SAVED.0,
                claimed: 0,
                checked: 0,
            });
        }
        rows.retain(|row| is_open(row, clock.mono_ns, cap_ns));
        // if there is less room than before, the oldest ones find none
        rows.sort_by_key(|row| find_age_ns(row, clock.mono_ns));
        let lost = self.write_grants(&rows, clock.mono_ns, cap_ns)?;
        self.put_connections_back(saved, clock, &servers, &names)?;
        Ok(rows.len() - lost)
    }

    fn put_connections_back(
        &self,
        saved: &Saved,
        clock: &Clock,
        servers: &HashMap<String, u32>,
        names: &NameIds,
    ) -> Result<(), GateError> {
        let room = u32::try_from(self.read_state(state::STATE_CONNECTION_ROOM)?).unwrap_or(0);
        // the place that is next, and how many were given
        let mut used: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        let mut rows: Vec<&SavedConnection> = saved.connections.iter().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.last_s));
        for row in rows {
            let (Some(server), Some(name), Some(last_ns)) = (
                servers.get(&row.server).copied(),
                names.find(&row.name),
                saved.find_last_ns(row, TIMEOUT_ESTABLISHED_S, clock),
            ) else {
                continue;
            };
            let key = flow_key {
                server: to_address(row.address),
                peer: to_address(row.peer),
                server_port_be: row.port.to_be(),
                peer_port_be: row.peer_port.to_be(),
                protocol: TCP,
                ..flow_key::default()
            };
            if self.maps.name_connections.get(&key)?.is_some() {
                continue;
            }
            let first = self.maps.name_shares.get(&server)?.unwrap_or_default().connections;
            let (next, given) = used.entry(server).or_insert((first, 0));
            if *given >= room {
                continue;
            }
            let place = *next % room;
            *next = next.wrapping_add(1);
            *given += 1;
            // a connection of this gate's own is of more use
            if self.has_connection_at(server, place)? {
                continue;
            }
            let connection = name_connection { last_ns, server, name, place, ended: 0 };
            self.maps.connection_places.put(&share_key { server, place }, &key, MapFlags::ANY)?;
            self.maps.name_connections.put(&key, &connection, MapFlags::ANY)?;
        }
        for (server, (connections, _)) in used {
            let share = self.maps.name_shares.get(&server)?.unwrap_or_default();
            self.maps.name_shares.put(&server, &name_share { connections, ..share }, MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Whether a place of a server's share has a connection that goes on.
    fn has_connection_at(&self, server: u32, place: u32) -> Result<bool, GateError> {
        let Some(key) = self.maps.connection_places.get(&share_key { server, place })? else {
            return Ok(false);
        };
        let known = self.maps.name_connections.get(&key)?;
        Ok(known.is_some_and(|row| row.server == server && row.place == place && row.ended == 0))
    }

    /// Writes the file, as the grants in the kernel are now. Nothing is written for a gate that another command has
    /// detached.
    pub(in crate::gate) fn save_grants(&self, place: &GatePlace) -> Result<(), GateError> {
        let _lock = place.lock_saving()?;
        if !self.is_pinned_at(place)? {
            return Ok(());
        }
        saved::write(&saved::path_of(place), &self.list_saved_grants()?)
    }

    fn list_saved_grants(&self) -> Result<Saved, GateError> {
        let clock = Clock::now();
        let Some(slot) = self.live_slot()? else { return Ok(Saved::default()) };
        let (servers, names) = (self.names_by_id()?, self.domains_by_id()?);
        let cap_ns = self.find_cap_ns(slot)?;
        let (mut grants, mut connections) = (Vec::new(), Vec::new());
        self.maps.grants.visit(|_, row| {
            let server = servers.get(&row.server).map(|name| name.to_string());
            let (Some(name), Some(address)) = (names.get(&row.name), from_address(&row.address)) else {
                return;
            };
            if !is_open(row, clock.mono_ns, cap_ns) || server.is_none() && row.server != 0 {
                return;
            }
            grants.push(SavedGrant {
                server,
                name: name.to_string(),
                address,
                answered_s: to_wall_s(row.answered_ns, &clock),
                until_s: to_wall_s(find_end_ns(row, cap_ns), &clock),
                used_s: (row.used_ns != 0).then(|| to_wall_s(row.used_ns, &clock)),
            });
        })?;
        self.maps.name_connections.visit(|key, row| {
            let (Some(server), Some(name)) = (servers.get(&row.server), names.get(&row.name)) else { return };
            let (Some(address), Some(peer)) = (from_address(&key.server), from_address(&key.peer)) else {
                return;
            };
            if row.ended == 0 {
                connections.push(SavedConnection {
                    server: server.to_string(),
                    name: name.to_string(),
                    address,
                    port: u16::from_be(key.server_port_be),
                    peer,
                    peer_port: u16::from_be(key.peer_port_be),
                    last_s: to_wall_s(row.last_ns, &clock),
                });
            }
        })?;
        // in the order of a hash they would be in another one each time
        grants.sort_by(|a, b| (&a.server, &a.name, a.address).cmp(&(&b.server, &b.name, b.address)));
        connections.sort_by_key(|row| (row.address, row.port, row.peer, row.peer_port));
        Ok(Saved::new(&clock, grants, connections))
    }
}

/// The ids of the names that a policy has.
struct NameIds {
    ids: HashMap<DomainName, u32>,
}

impl NameIds {
    fn new(names: HashMap<u32, DomainName>) -> NameIds {
        NameIds { ids: names.into_iter().map(|(id, name)| (name, id)).collect() }
    }

    /// The id of a name, or of the nearest wildcard that has it.
    fn find(&self, text: &str) -> Option<u32> {
        let name = DomainName::from_printed(text);
        if let Some(id) = self.ids.get(&name) {
            return Some(*id);
        }
        let around = self.ids.iter().filter(|(other, _)| name.is_within(other));
        around.max_by_key(|(other, _)| other.domain().len()).map(|(_, id)| *id)
    }
}
