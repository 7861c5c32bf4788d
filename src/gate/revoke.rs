//! Ends the flows whose `in` service a new policy no longer has. The filter refuses their replies from
//! the first packet on. Removing them keeps them from coming back together with their service.

use plain::Plain;

use super::Gate;
use super::error::GateError;
use super::typed_map::TypedMap;
use crate::abi::flow_key;
use crate::compile::{ServiceIndex, Tables};

impl Gate {
    /// To be called once `tables` are live.
    pub(super) fn end_revoked_flows(&self, tables: &Tables) -> Result<(), GateError> {
        let index = ServiceIndex::new(tables);
        end_in(&self.maps.established, &index)?;
        end_in(&self.maps.half_open, &index)?;
        end_in(&self.maps.datagrams, &index)?;
        end_in(&self.maps.icmp_queries, &index)
    }
}

fn end_in<V: Plain + Copy + Default>(
    table: &TypedMap<flow_key, V>,
    index: &ServiceIndex<'_>,
) -> Result<(), GateError> {
    for (key, _) in table.entries()? {
        if !index.permits(&key) {
            table.remove(&key)?;
        }
    }
    Ok(())
}
