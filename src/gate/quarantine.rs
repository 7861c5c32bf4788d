//! Quarantine: a server, or an address of one, that may send nothing but what its management asks for.
//!
//! An order by name stands in `quarantines`, and holds for whatever addresses the name has. What the name
//! loses to a later policy goes on in `quarantined_addresses`, so a quarantine follows the addresses that it
//! was given for. That table has single addresses as well, and `quarantined_macs` the MACs of their machines.

mod carry;
mod holders;
mod keep;
mod orders;
mod saved;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use self::carry::find_carried;
use self::holders::Holders;
use self::orders::{AddressOrders, Order};
use super::Gate;
use super::error::GateError;
use super::place::GatePlace;
use crate::abi::{from_mac_number, state, to_mac_number};
use crate::clock::{now_ns, show_duration};
use crate::compile::Tables;
use crate::net::{show_mac, show_prefix, subtract};

pub use self::carry::{CarriedQuarantine, list_carried};
pub(in crate::gate) use self::saved::{Left, Span};
pub use self::saved::{SavedRelease, list_saved_quarantines, release_saved};

const NS_PER_S: u64 = 1_000_000_000;

/// Whom a quarantine is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A server, by its name.
    Server(String),
    /// An address, and the server that has it.
    Address(IpAddr, Option<String>),
    /// A prefix, which can be released only.
    Prefix(IpNet),
}

/// An address in quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct QuarantinedAddress {
    /// The address. A prefix, if a server lost one while it was in quarantine.
    pub address: String,
    /// The server that has it under the live policy.
    pub server: Option<String>,
    /// The MAC that is cut off with it.
    pub mac: Option<String>,
    /// `None`: until it is released.
    pub left_s: Option<u64>,
}

impl QuarantinedAddress {
    /// The address with its server, for people.
    pub fn describe(&self) -> String {
        let QuarantinedAddress { address, server, .. } = self;
        server.as_ref().map_or_else(|| address.clone(), |server| format!("{address} ({server})"))
    }
}

/// What a release has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// There was a quarantine for just this target.
    pub was: bool,
    /// Addresses that were cut off by themselves, or under an earlier name, and are free now.
    pub addresses: Vec<String>,
    /// Addresses that stay cut off, although the quarantine was given for them too: another server has them.
    pub remaining: Vec<QuarantinedAddress>,
    /// Of addresses: the server with which they stay cut off.
    pub with_server: Option<String>,
}

impl Gate {
    /// Servers in quarantine by their name, with the seconds left. `None`: until released.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn quarantined(&self) -> Result<Vec<(String, Option<u64>)>, GateError> {
        let now = now_ns();
        let mut rows: Vec<_> = self
            .named_orders(now)?
            .into_iter()
            .map(|(_, name, order)| (name, left_s(order.until_ns, now)))
            .collect();
        rows.sort();
        Ok(rows)
    }

    /// False: nothing is in quarantine. It costs next to nothing to ask.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn may_have_quarantines(&self) -> Result<bool, GateError> {
        Ok(self.read_state(state::STATE_QUARANTINES)? != 0)
    }

    /// Addresses in quarantine. A prefix of several servers is listed for each of them.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn quarantined_addresses(&self) -> Result<Vec<QuarantinedAddress>, GateError> {
        let now = now_ns();
        let orders = self.address_orders(now)?;
        if orders.0.is_empty() {
            return Ok(Vec::new());
        }
        let holders = self.live_holders()?;
        Ok(describe_addresses(&orders, &holders, now))
    }

    /// Whom a user means.
    ///
    /// # Errors
    /// When the live policy has no such server, and no server has this address.
    pub fn find_target(&self, text: &str) -> Result<Target, GateError> {
        let holders = self.live_holders()?;
        if holders.names().contains(text) {
            return Ok(Target::Server(text.to_owned()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = address.to_canonical();
            return Ok(Target::Address(address, holders.find(address).map(str::to_owned)));
        }
        if let Ok(prefix) = text.parse::<IpNet>() {
            return Ok(Target::Prefix(prefix.trunc()));
        }
        // the name of an earlier policy's server has an id, and no addresses
        match self.ids_by_name()?.contains_key(text) {
            true => Ok(Target::Server(text.to_owned())),
            false => Err(GateError::no_server(text, holders.names().into_iter())),
        }
    }

    /// Puts a server into quarantine, for some seconds or until it is released. The MACs that the policy gives
    /// to it are cut off under addresses of no server too. The caller holds the lock.
    ///
    /// # Errors
    /// When the live policy has no such server, or the table is full.
    pub fn quarantine(&self, name: &str, seconds: Option<u64>) -> Result<(), GateError> {
        let holders = self.live_holders()?;
        // the name of an earlier policy's server has an id, and no addresses
        if !holders.names().contains(name) {
            return Err(GateError::no_server(name, holders.names().into_iter()));
        }
        let id = self.find_server_id(name)?;
        self.begin_changes()?;
        self.put_named(id, new_order(seconds))?;
        self.put_noted(id, self.policy_macs(id)?)?;
        // also of machines that were noted before: the order may end at another time now
        self.change_addresses(&holders, |_| {})?;
        self.carry_quarantines_back()?;
        self.outdate_verdict_cache()
    }

    /// Cuts off machines of a server in quarantine by their MACs, under addresses that no server has: a machine
    /// could leave its own. The caller holds the lock.
    ///
    /// # Errors
    /// When no policy has had such a server, or the table is full.
    pub fn note_machines(&self, name: &str, macs: &[[u8; 6]]) -> Result<(), GateError> {
        let id = self.find_server_id(name)?;
        self.begin_changes()?;
        self.put_noted(id, macs.iter().copied().map(to_mac_number))?;
        self.change_addresses(&self.live_holders()?, |_| {})?;
        self.outdate_verdict_cache()
    }

    /// Notes the machines of servers in quarantine that were not known before: a silent one shows its MAC when the
    /// router asks for it. Returns whether there was one. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel lists nothing, or refuses to write.
    pub fn note_new_machines(&self, place: &GatePlace) -> Result<bool, GateError> {
        let now = now_ns();
        let named = self.named_orders(now)?;
        if named.is_empty() {
            return Ok(false);
        }
        let noted = self.noted_machines(now)?;
        let mut found = false;
        for (id, name, _) in named {
            let mut macs = self.find_machines(place, &name)?;
            macs.retain(|mac| !noted.contains_key(&(id, to_mac_number(*mac))));
            if !macs.is_empty() {
                self.note_machines(&name, &macs)?;
                found = true;
            }
        }
        Ok(found)
    }

    /// Puts one address of a server into quarantine, with the MAC of its machine if that is known. Returns
    /// the server. The caller holds the lock.
    ///
    /// # Errors
    /// When no server of the live policy has the address, or the table is full.
    pub fn quarantine_address(
        &self,
        address: IpAddr,
        mac: Option<[u8; 6]>,
        seconds: Option<u64>,
    ) -> Result<String, GateError> {
        let holders = self.live_holders()?;
        let server = holders.find(address).ok_or(GateError::NoServerHas { address })?;
        let order = Order { mac: mac.map_or(0, to_mac_number), ..new_order(seconds) };
        self.begin_changes()?;
        self.change_addresses(&holders, |orders| orders.set(address.into(), order))?;
        self.carry_quarantines_back()?;
        self.outdate_verdict_cache()?;
        Ok(server.to_owned())
    }

    /// Those of some addresses that a server has.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn select_addresses(&self, server: &str, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, GateError> {
        let holders = self.live_holders()?;
        let is_held = |address: &&IpAddr| holders.find(**address).is_some_and(|name| name == server);
        Ok(addresses.iter().filter(is_held).copied().collect())
    }

    /// Ends the quarantine of a server, and of all addresses that it has. The caller holds the lock.
    ///
    /// # Errors
    /// When no policy has had such a server, or the kernel refuses to write.
    pub fn release(&self, name: &str) -> Result<Released, GateError> {
        let id = self.find_server_id(name)?;
        let holders = self.live_holders()?;
        let mut released = Released::default();
        self.outdate_verdict_cache()?;
        self.remove_noted(id)?;
        self.change_addresses(&holders, |orders| {
            let mut free = holders.addresses_of(name);
            // what the name has lost, and nobody has now: it would hit whoever gets it next
            let held = holders.prefixes();
            for (prefix, _) in orders.0.iter().filter(|(_, order)| order.server == id) {
                free.extend(subtract(*prefix, &held));
            }
            released.addresses = orders.remove(&free).iter().map(show_prefix).collect();
            let rest = orders.0.iter().filter(|(_, order)| order.server == id);
            let rest = AddressOrders(rest.map(|(prefix, order)| (*prefix, *order)).collect());
            released.remaining = describe_addresses(&rest, &holders, now_ns());
        })?;
        // Last, so that the server is in quarantine until all of it is done.
        let row = self.maps.quarantines.get(&id)?.map(Order::from);
        self.maps.quarantines.remove(&id)?;
        self.end_changes()?;
        released.was = row.is_some_and(|order| order.has_effect(now_ns())) || !released.addresses.is_empty();
        Ok(released)
    }

    /// Ends the quarantines of addresses: of one, or of all in a prefix. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel refuses to write.
    pub fn release_addresses(&self, prefix: IpNet) -> Result<Released, GateError> {
        let holders = self.live_holders()?;
        let mut released = Released::default();
        self.outdate_verdict_cache()?;
        self.change_addresses(&holders, |orders| {
            let removed = orders.remove(&[prefix]);
            released.was = !removed.is_empty();
            if removed != [prefix] {
                released.addresses = removed.iter().map(show_prefix).collect();
            }
        })?;
        self.end_changes()?;
        let named = self.quarantined()?;
        let is_cut_off = |name: &str| named.iter().any(|(other, _)| other == name);
        released.with_server = holders
            .divide(prefix)
            .into_iter()
            .filter_map(|(_, name)| name)
            .find(|name| is_cut_off(name))
            .map(str::to_owned);
        Ok(released)
    }

    /// What to release, so that a frame from this address and MAC is free. `None`: it is.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn find_release(&self, address: IpAddr, mac: [u8; 6]) -> Result<Option<String>, GateError> {
        let now = now_ns();
        let holders = self.live_holders()?;
        let holder = holders.find(address);
        let named = self.named_orders(now)?;
        if let Some(name) = holder
            && named.iter().any(|(_, other, _)| other == name)
        {
            return Ok(Some(name.to_owned()));
        }
        let orders = self.address_orders(now)?;
        if orders.find(address.into()).is_some() {
            return Ok(Some(address.to_string()));
        }
        let mac = to_mac_number(mac);
        let sender = orders.0.iter().find(|(_, order)| order.mac == mac && mac != 0);
        if let Some((prefix, _)) = sender.filter(|_| holder.is_some()) {
            return Ok(Some(show_prefix(prefix)));
        }
        // the MAC of another server
        let owner = self.find_mac_holder(mac)?;
        Ok(named.into_iter().find(|(id, _, _)| Some(*id) == owner).map(|(_, name, _)| name))
    }

    /// What a policy would change about the quarantines.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn find_carried_quarantines(&self, tables: &Tables) -> Result<Vec<CarriedQuarantine>, GateError> {
        let now = now_ns();
        let orders = self.address_orders(now)?;
        let names: Vec<String> = self.named_orders(now)?.into_iter().map(|(_, name, _)| name).collect();
        if names.is_empty() && orders.0.is_empty() {
            return Ok(Vec::new());
        }
        Ok(find_carried(&self.live_holders()?, &Holders::of(tables), &names, &orders))
    }

    /// Keeps cut off what is so under the live policy, before another one takes effect. `ids` are those of
    /// the new policy's servers. What this adds is cut off already, so nothing has to be undone if the new
    /// policy is refused.
    pub(super) fn carry_quarantines(&self, tables: &Tables, ids: &[u32]) -> Result<(), GateError> {
        let now = now_ns();
        let named = self.named_orders(now)?;
        let orders = self.address_orders(now)?;
        if named.is_empty() && orders.0.is_empty() {
            return Ok(());
        }
        self.carry(&self.live_holders()?, tables, ids, &named, &orders)
    }

    /// As [`Gate::carry_quarantines`], for what is cut off under the policy of a slot.
    pub(super) fn carry_quarantines_of(
        &self,
        slot: u32,
        tables: &Tables,
        ids: &[u32],
    ) -> Result<(), GateError> {
        let now = now_ns();
        let named = self.named_orders(now)?;
        let orders = self.address_orders(now)?;
        if named.is_empty() && orders.0.is_empty() {
            return Ok(());
        }
        self.carry(&self.read_holders(slot)?, tables, ids, &named, &orders)
    }

    fn carry(
        &self,
        old: &Holders,
        tables: &Tables,
        ids: &[u32],
        named: &[(u32, String, Order)],
        orders: &AddressOrders,
    ) -> Result<(), GateError> {
        let new = Holders::of(tables);
        let mut after = orders.clone();
        for (id, name, order) in named {
            for prefix in old.lost_by(name, &new) {
                after.carry(prefix, Order { server: *id, ..*order });
            }
        }
        self.write_addresses(orders, &after)?;
        // the machine of an address is cut off under the address's next server too
        let ids: BTreeMap<&str, u32> =
            tables.names.iter().map(String::as_str).zip(ids.iter().copied()).collect();
        self.write_macs(&after, &new, |name| ids.get(name).copied())
    }

    /// Every quarantine in a few words, for people.
    fn describe_quarantines(&self) -> Result<Vec<String>, GateError> {
        let time = |left_s: Option<u64>| match left_s {
            Some(seconds) => format!("for {} more", show_duration(seconds)),
            None => "until it is released".to_owned(),
        };
        let addresses = self.quarantined_addresses()?.into_iter().map(|row| (row.describe(), row.left_s));
        let all = self.quarantined()?.into_iter().chain(addresses);
        Ok(all.map(|(who, left_s)| format!("{who} is in quarantine {}", time(left_s))).collect())
    }
}

/// Of an order that begins now.
fn new_order(seconds: Option<u64>) -> Order {
    let since_ns = now_ns();
    let until_ns = seconds.map_or(0, |seconds| since_ns.saturating_add(seconds.saturating_mul(NS_PER_S)));
    Order { until_ns, since_ns, ..Order::default() }
}

fn left_s(until_ns: u64, now_ns: u64) -> Option<u64> {
    (until_ns != 0).then(|| until_ns.saturating_sub(now_ns).div_ceil(NS_PER_S))
}

fn describe_addresses(orders: &AddressOrders, holders: &Holders, now_ns: u64) -> Vec<QuarantinedAddress> {
    let mut rows = BTreeSet::new();
    for (prefix, order) in &orders.0 {
        for (_, server) in holders.divide(*prefix) {
            rows.insert(QuarantinedAddress {
                address: show_prefix(prefix),
                server: server.map(str::to_owned),
                mac: from_mac_number(order.mac).as_ref().map(show_mac),
                left_s: left_s(order.until_ns, now_ns),
            });
        }
    }
    // the order of addresses, and not of their texts
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|row| row.address.parse::<IpAddr>().ok());
    rows
}
