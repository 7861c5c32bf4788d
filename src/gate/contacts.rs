//! The addresses that the kernel remembers of a row of the ledger.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use super::Gate;
use super::error::GateError;
use super::mapped_array::Window;
use crate::abi::{address, frequent, frequent_address, from_address, layout};
use crate::drops::Contacts;

/// How often an entry of `frequent` is read anew when its CPU counts a drop meanwhile.
const ATTEMPTS: usize = 8;

/// The addresses of rows, read one row after the other.
pub struct ContactReader<'gate> {
    gate: &'gate Gate,
    /// The whole map: the parts of all CPUs.
    frequent: Window<frequent>,
}

impl Gate {
    /// Begins to read addresses of rows. It takes the memory of the map `frequent` until it ends.
    ///
    /// # Errors
    /// When the kernel refuses to map it.
    pub fn contact_reader(&self) -> Result<ContactReader<'_>, GateError> {
        let frequent = &self.maps.frequent;
        Ok(ContactReader { gate: self, frequent: frequent.map(0, frequent.capacity())? })
    }
}

impl ContactReader<'_> {
    /// The sources and the destinations of the row `number`. `None`: there is no such row.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(&self, number: u32) -> Result<Option<(Contacts, Contacts)>, GateError> {
        let Some(lists) = self.gate.maps.ledger_addresses.get(number)? else { return Ok(None) };
        // first, so that packets which come meanwhile are missing here and not there
        let packets = self.gate.count_packets(number)?;
        let parts = self.read_frequent(number);
        // another row may have had the entry for a while
        let counted: u64 = parts.iter().map(|part| part.packets).sum();
        let is_estimate = counted < packets || parts.iter().any(|part| part.estimated != 0);
        let read = |list: &[address], places, end: fn(&frequent) -> &[frequent_address]| Contacts {
            first: list_once(list),
            frequent: merge(parts.iter().flat_map(end)),
            is_estimate,
            is_full: places > layout::FIRST_ADDRESSES.0,
        };
        Ok(Some((
            read(&lists.source, lists.sources, |part| &part.source),
            read(&lists.destination, lists.destinations, |part| &part.destination),
        )))
    }

    /// What each CPU remembers of the row, where it remembers anything.
    fn read_frequent(&self, number: u32) -> Vec<frequent> {
        let part = layout::FREQUENT_PER_CPU.0 as usize;
        let entries = (number as usize % part..self.frequent.len()).step_by(part);
        let entries = entries.filter_map(|index| read_steadily(&self.frequent, index));
        entries.filter(|entry| entry.row == number).collect()
    }
}

/// One entry, its addresses whole, unless the CPU counts faster than they are read. `None`: it is unused.
fn read_steadily(window: &Window<frequent>, index: usize) -> Option<frequent> {
    let mut entry = window.get(index)?;
    for _ in 0..ATTEMPTS {
        let again = window.get(index)?;
        let is_steady = (again.row, again.packets) == (entry.row, entry.packets);
        entry = again;
        if is_steady {
            break;
        }
    }
    (entry.packets > 0).then_some(entry)
}

/// A list of first addresses. Two CPUs may have listed the same one, and places without an address are
/// being written.
fn list_once(list: &[address]) -> Vec<IpAddr> {
    let mut first = Vec::new();
    for ip in list.iter().filter_map(from_address) {
        if !first.contains(&ip) {
            first.push(ip);
        }
    }
    first
}

/// The most frequent addresses of all CPUs, the most frequent first.
fn merge<'f>(entries: impl Iterator<Item = &'f frequent_address>) -> Vec<(IpAddr, u64)> {
    let mut sums: HashMap<IpAddr, u64> = HashMap::new();
    for entry in entries.filter(|entry| entry.packets > 0) {
        if let Some(ip) = from_address(&entry.address) {
            *sums.entry(ip).or_default() += entry.packets;
        }
    }
    let mut list: Vec<(IpAddr, u64)> = sums.into_iter().collect();
    list.sort_unstable_by_key(|(ip, packets)| (Reverse(*packets), *ip));
    list.truncate(layout::FREQUENT_ADDRESSES.0 as usize);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::to_address;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_that_two_cpus_listed_is_listed_once_and_one_that_is_being_written_is_left_out() {
        let list = [ip(3), ip(1), ip(3), ip(2)].map(to_address);
        assert_eq!(list_once(&list), [ip(3), ip(1), ip(2)]);
        let list = [to_address(ip(3)), address::default(), to_address(ip(2)), address::default()];
        assert_eq!(list_once(&list), [ip(3), ip(2)]);
    }

    #[test]
    fn counts_of_all_cpus_are_added_up_and_the_eight_most_frequent_stay() {
        let count = |last, packets| frequent_address { address: to_address(ip(last)), packets };
        let mut entries: Vec<frequent_address> = (1..=10).map(|last| count(last, u64::from(last))).collect();
        entries.extend([count(1, 100), count(2, 0)]);
        let merged = merge(entries.iter());
        assert_eq!(merged.len(), 8);
        assert_eq!(merged[..3], [(ip(1), 101), (ip(10), 10), (ip(9), 9)]);
        assert_eq!(merged[7], (ip(4), 4));
    }
}
