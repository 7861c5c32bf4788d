//! The tables of quarantines in the kernel, read and written.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use libbpf_rs::MapFlags;
use nix::errno::Errno;

use super::holders::Holders;
use super::orders::{AddressOrders, Order, later};
use crate::abi::{from_address, from_prefix_key, mac_key, server_flag, state, to_mac_number, to_prefix_key};
use crate::clock::now_ns;
use crate::gate::Gate;
use crate::gate::error::GateError;

/// How often a reading is taken again when another policy takes effect meanwhile.
const READ_ATTEMPTS: usize = 8;

/// Added to a server's id in `quarantined_macs`: this machine was seen with an address of a server that is in
/// quarantine by its name. The filter never asks for such a row. It is the tool's own note, from which the rows
/// of addresses that no server has are made.
const NOTED: u32 = 1 << 31;

impl Gate {
    /// Ids and names of servers in quarantine.
    pub(super) fn named_orders(&self, now_ns: u64) -> Result<Vec<(u32, String, Order)>, GateError> {
        let rows = self.maps.quarantines.entries()?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let names = self.names_by_id()?;
        let name_of = |id: u32| names.get(&id).map_or_else(|| format!("#{id}"), |name| (**name).to_owned());
        let orders = rows.into_iter().map(|(id, row)| (id, Order::from(row)));
        let live = orders.filter(|(_, order)| order.has_effect(now_ns));
        Ok(live.map(|(id, order)| (id, name_of(id), order)).collect())
    }

    /// Orders for addresses whose time is not over.
    pub(super) fn address_orders(&self, now_ns: u64) -> Result<AddressOrders, GateError> {
        let rows = self.maps.quarantined_addresses.entries()?.into_iter();
        let orders = rows.filter_map(|(key, row)| Some((from_prefix_key(&key)?, Order::from(row))));
        Ok(AddressOrders(orders.filter(|(_, order)| order.has_effect(now_ns)).collect()))
    }

    /// Who has which address under the live policy.
    pub(in crate::gate) fn live_holders(&self) -> Result<Holders, GateError> {
        for _ in 0..READ_ATTEMPTS {
            let Some(slot) = self.live_slot()? else { return Ok(Holders::default()) };
            let Some(settings) = self.maps.policies.get(&slot)? else { return Ok(Holders::default()) };
            let rows = self.read_holders(slot);
            // if the slot was taken meanwhile, the rows may be of two policies
            if self.maps.policies.get(&slot)?.is_some_and(|still| still.generation == settings.generation) {
                return rows;
            }
        }
        Err(GateError::Other {
            what: "could not read the servers of the live policy".to_owned(),
            why: "it is replaced faster than it can be read; try again".to_owned(),
        })
    }

    pub(super) fn read_holders(&self, slot: u32) -> Result<Holders, GateError> {
        let names = self.names_by_id()?;
        let name_of = |id: u32| names.get(&id).cloned().unwrap_or_else(|| format!("#{id}").into());
        let hosts = self.maps.hosts.open_inner(slot)?.entries()?.into_iter();
        let hosts = hosts.filter_map(|(key, row)| Some((IpNet::from(from_address(&key)?), row.id)));
        let prefixes = self.maps.prefixes.open_inner(slot)?.entries()?.into_iter();
        let prefixes = prefixes.filter_map(|(key, row)| Some((from_prefix_key(&key)?, row.id)));
        Ok(Holders::new(hosts.chain(prefixes).map(|(prefix, id)| (prefix, name_of(id)))))
    }

    /// Lets the filter look, and find its verdicts anew. Called before and after each change, so that cached
    /// verdicts are outdated even if the change is cut short in between.
    pub(super) fn begin_changes(&self) -> Result<(), GateError> {
        self.write_state(state::STATE_QUARANTINES, 1)?;
        self.outdate_verdict_cache()
    }

    /// Removes what is over, and spares the filter its look if nothing is left.
    pub(super) fn end_changes(&self) -> Result<(), GateError> {
        let now = now_ns();
        for (id, row) in self.maps.quarantines.entries()? {
            if !Order::from(row).has_effect(now) {
                self.maps.quarantines.remove(&id)?;
            }
        }
        if self.maps.quarantines.entries()?.is_empty()
            && self.maps.quarantined_addresses.entries()?.is_empty()
            && self.maps.quarantined_macs.entries()?.is_empty()
        {
            self.write_state(state::STATE_QUARANTINES, 0)?;
        }
        // also when there was none: a release that was cut short may have ended it
        self.outdate_verdict_cache()
    }

    /// Changes the orders for addresses, and the MACs with them. Removes what is over.
    pub(super) fn change_addresses(
        &self,
        holders: &Holders,
        change: impl FnOnce(&mut AddressOrders),
    ) -> Result<(), GateError> {
        let before = self.address_orders(now_ns())?;
        let mut after = before.clone();
        change(&mut after);
        self.write_addresses(&before, &after)?;
        let ids = self.ids_by_name()?;
        self.write_macs(&after, holders, |name| ids.get(name).copied())?;
        self.remove_macs(&after)
    }

    /// Adds first, so that nothing is free in between.
    pub(super) fn write_addresses(
        &self,
        before: &AddressOrders,
        after: &AddressOrders,
    ) -> Result<(), GateError> {
        for (prefix, order) in &after.0 {
            if before.0.get(prefix) != Some(order) {
                self.put_address(prefix, order)?;
            }
        }
        for (key, _) in self.maps.quarantined_addresses.entries()? {
            if from_prefix_key(&key).is_none_or(|prefix| !after.0.contains_key(&prefix)) {
                self.maps.quarantined_addresses.remove(&key)?;
            }
        }
        Ok(())
    }

    pub(super) fn put_address(&self, prefix: &IpNet, order: &Order) -> Result<(), GateError> {
        let table = &self.maps.quarantined_addresses;
        let row = (*order).into();
        table
            .put(&to_prefix_key(prefix), &row, MapFlags::ANY)
            .map_err(|error| name_full_table(error, table.capacity()))
    }

    pub(super) fn put_named(&self, id: u32, order: Order) -> Result<(), GateError> {
        let table = &self.maps.quarantines;
        table.put(&id, &order.into(), MapFlags::ANY).map_err(|error| name_full_table(error, table.capacity()))
    }

    /// The machines of servers in quarantine by their names, by id and MAC, with the order about the server.
    pub(super) fn noted_machines(&self, now_ns: u64) -> Result<BTreeMap<(u32, u64), Order>, GateError> {
        let mut noted = BTreeMap::new();
        for (key, _) in
            self.maps.quarantined_macs.entries()?.iter().filter(|(key, _)| key.server & NOTED != 0)
        {
            let id = key.server & !NOTED;
            let order = self.maps.quarantines.get(&id)?.map(Order::from);
            if let Some(order) = order.filter(|order| order.has_effect(now_ns)) {
                noted.insert((id, key.mac), order);
            }
        }
        Ok(noted)
    }

    /// Notes machines of a server in quarantine. Their rows for addresses of no server are made by
    /// [`Gate::write_macs`].
    pub(super) fn put_noted(&self, id: u32, macs: impl IntoIterator<Item = u64>) -> Result<(), GateError> {
        let table = &self.maps.quarantined_macs;
        for mac in macs {
            let key = mac_key { mac, server: id | NOTED, zero: 0 };
            table
                .put(&key, &Order::default().into(), MapFlags::ANY)
                .map_err(|error| name_full_table(error, table.capacity()))?;
        }
        Ok(())
    }

    /// Forgets the machines of a server.
    pub(super) fn remove_noted(&self, id: u32) -> Result<(), GateError> {
        for (key, _) in self.maps.quarantined_macs.entries()? {
            if key.server == id | NOTED {
                self.maps.quarantined_macs.remove(&key)?;
            }
        }
        Ok(())
    }

    /// The MACs that the live policy gives to a server.
    pub(super) fn policy_macs(&self, id: u32) -> Result<BTreeSet<u64>, GateError> {
        let Some(slot) = self.live_slot()? else {
            return Ok(BTreeSet::new());
        };
        let hosts = self.maps.hosts.open_inner(slot)?.entries()?.into_iter().map(|(_, row)| row);
        let prefixes = self.maps.prefixes.open_inner(slot)?.entries()?.into_iter().map(|(_, row)| row);
        let bound =
            hosts.chain(prefixes).filter(|row| row.id == id && row.flags & server_flag::SERVER_MAC.0 != 0);
        let further = self.maps.macs.open_inner(slot)?.entries()?.into_iter();
        let further = further.filter(|(key, _)| key.server == id).map(|(key, _)| key.mac);
        Ok(bound.map(|row| to_mac_number(row.mac)).chain(further).collect())
    }

    /// Cuts off the MACs of orders, each within the server that has the order's address, and under addresses
    /// that no server has. There the machines of servers in quarantine are cut off too.
    pub(super) fn write_macs(
        &self,
        orders: &AddressOrders,
        holders: &Holders,
        id_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<(), GateError> {
        let mut wanted: BTreeMap<(u32, u64), Order> = BTreeMap::new();
        for (prefix, order) in orders.0.iter().filter(|(_, order)| order.mac != 0) {
            let server = holders.find(prefix.addr()).and_then(&id_of);
            for server in server.into_iter().chain([0]) {
                let row = wanted.entry((server, order.mac)).or_insert(*order);
                row.until_ns = later(row.until_ns, order.until_ns);
            }
        }
        for ((_, mac), order) in self.noted_machines(now_ns())? {
            let row = wanted.entry((0, mac)).or_insert(order);
            row.until_ns = later(row.until_ns, order.until_ns);
        }
        let table = &self.maps.quarantined_macs;
        for ((server, mac), order) in wanted {
            let key = mac_key { mac, server, zero: 0 };
            let row = Order { server: 0, mac: 0, ..order };
            if table.get(&key)?.map(Order::from) != Some(row) {
                table
                    .put(&key, &row.into(), MapFlags::ANY)
                    .map_err(|error| name_full_table(error, table.capacity()))?;
            }
        }
        Ok(())
    }

    /// Frees the MACs of which no order is left.
    fn remove_macs(&self, orders: &AddressOrders) -> Result<(), GateError> {
        let macs: BTreeSet<u64> = orders.0.values().map(|order| order.mac).collect();
        let noted = self.noted_machines(now_ns())?;
        let noted_macs: BTreeSet<u64> = noted.keys().map(|(_, mac)| *mac).collect();
        for (key, _) in self.maps.quarantined_macs.entries()? {
            let is_wanted = match key.server {
                0 => macs.contains(&key.mac) || noted_macs.contains(&key.mac),
                note if note & NOTED != 0 => noted.contains_key(&(note & !NOTED, key.mac)),
                _ => macs.contains(&key.mac),
            };
            if !is_wanted {
                self.maps.quarantined_macs.remove(&key)?;
            }
        }
        Ok(())
    }
}

/// The tables are as large as that of the servers.
fn name_full_table(error: GateError, capacity: u32) -> GateError {
    match error {
        GateError::Kernelside { errno: Errno::E2BIG | Errno::ENOSPC, .. } => {
            GateError::TableFull { table: "servers", size: capacity, wanted: capacity as usize + 1 }
        }
        error => error,
    }
}
