//! Orders: which addresses are cut off, and until when. Pure: time is an argument.
//!
//! In the kernel a longer prefix hides a shorter one, even after its own time is over. So no order ends
//! before one whose prefix holds its own.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::abi::quarantine;
use crate::net::{list_around, range_of, subtract};

/// One order, as a table of the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// CLOCK_MONOTONIC, nanoseconds. 0: until it is released.
    pub until_ns: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub since_ns: u64,
    /// Cut off with the address; 0: none.
    pub mac: u64,
    /// Id of the name under which it was cut off; 0: by the address itself.
    pub server: u32,
}

impl Order {
    /// Whether it holds at a time.
    pub(super) fn has_effect(&self, now_ns: u64) -> bool {
        self.until_ns == 0 || self.until_ns > now_ns
    }

    fn extend(&mut self, until_ns: u64) {
        self.until_ns = later(self.until_ns, until_ns);
    }
}

/// The later of two ends.
pub(super) fn later(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { 0 } else { a.max(b) }
}

impl From<quarantine> for Order {
    fn from(row: quarantine) -> Order {
        Order { until_ns: row.until_ns, since_ns: row.since_ns, mac: row.mac, server: row.server }
    }
}

impl From<Order> for quarantine {
    fn from(order: Order) -> quarantine {
        let Order { until_ns, since_ns, mac, server } = order;
        quarantine { until_ns, since_ns, mac, server, zero: 0 }
    }
}

/// Orders by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressOrders(pub(super) BTreeMap<IpNet, Order>);

impl AddressOrders {
    /// Makes an order for an address. It replaces an earlier one for just this address.
    pub(super) fn set(&mut self, prefix: IpNet, mut order: Order) {
        if order.mac == 0 {
            // seen then, and perhaps not any more
            order.mac = self.0.get(&prefix).map_or(0, |before| before.mac);
        }
        self.put(prefix, order);
    }

    /// Keeps addresses cut off that a server in quarantine loses. An order that they have already stays,
    /// and ends no earlier than this one.
    pub(super) fn carry(&mut self, prefix: IpNet, order: Order) {
        let mut kept = self.0.get(&prefix).copied().unwrap_or(order);
        kept.extend(order.until_ns);
        self.put(prefix, kept);
    }

    fn put(&mut self, prefix: IpNet, mut order: Order) {
        for around in list_around(prefix).filter_map(|around| self.0.get(&around)) {
            order.extend(around.until_ns);
        }
        for (_, inside) in self.0.range_mut(range_of(prefix)) {
            inside.extend(order.until_ns);
        }
        self.0.insert(prefix, order);
    }

    /// Takes prefixes out, and returns what was cut off of them.
    pub(super) fn remove(&mut self, prefixes: &[IpNet]) -> Vec<IpNet> {
        let mut removed = Vec::new();
        for (row, order) in std::mem::take(&mut self.0) {
            let rest = subtract(row, prefixes);
            removed.extend(subtract(row, &rest));
            self.0.extend(rest.into_iter().map(|part| (part, order)));
        }
        removed
    }

    /// The order that holds for an address, or for the whole of a prefix.
    pub(super) fn find(&self, prefix: IpNet) -> Option<(&IpNet, &Order)> {
        [prefix].into_iter().chain(list_around(prefix)).find_map(|row| self.0.get_key_value(&row))
    }
}
