//! UDP ports at which no server has a service: the filter takes a datagram from there for no answer.

use std::ops::RangeInclusive;

use super::error::GateError;
use super::{Gate, fault};
use crate::abi::layout;
use crate::compile::Tables;
use crate::net::UDP;
use crate::policy::Direction;

/// A bit for each port.
type PortWords = Vec<u64>;

impl Gate {
    /// Notes the ports of a policy, whose slot is not in use.
    pub(super) fn write_unserved_ports(&self, slot: u32, tables: &Tables) -> Result<(), GateError> {
        let served = tables.needs.iter().filter(|row| row.proto == UDP && row.inbound != Default::default());
        self.write_ports(slot, &leave_out(served.map(|row| row.ports.clone())))
    }

    /// As [`Gate::write_unserved_ports`], of edits.
    pub(super) fn write_unedited_ports(
        &self,
        slot: u32,
        edits: impl Iterator<Item = (Direction, u8, RangeInclusive<u16>)>,
    ) -> Result<(), GateError> {
        let served = edits
            .filter(|(direction, protocol, _)| *direction == Direction::In && *protocol == UDP)
            .map(|(_, _, ports)| ports);
        self.write_ports(layout::SLOTS.0 + slot, &leave_out(served))
    }

    fn write_ports(&self, place: u32, words: &[u64]) -> Result<(), GateError> {
        fault::point();
        let count = layout::PORT_WORDS.0;
        let window = self.maps.datagram_ports.map_for_writing(place * count, count)?;
        for (index, word) in words.iter().enumerate() {
            window.set_word(index, 0, *word);
        }
        Ok(())
    }
}

/// All ports but these.
fn leave_out(served: impl Iterator<Item = RangeInclusive<u16>>) -> PortWords {
    let mut words = vec![u64::MAX; layout::PORT_WORDS.0 as usize];
    for port in served.flatten() {
        if let Some(word) = words.get_mut(usize::from(port / 64)) {
            *word &= !(1 << (port % 64));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::leave_out;

    #[test]
    fn a_port_is_unserved_if_no_range_has_it() {
        let words = leave_out([53..=53, 0..=0, 60_000..=65_535].into_iter());
        let is_unserved = |port: u16| words[usize::from(port / 64)] >> (port % 64) & 1 == 1;
        for port in [0, 53, 60_000, 65_535] {
            assert!(!is_unserved(port), "{port}");
        }
        for port in [1, 52, 54, 59_999] {
            assert!(is_unserved(port), "{port}");
        }
        assert_eq!(words.len() * 64, 65_536);
    }
}
