//! Ends the flows whose `in` service a new policy no longer has. The filter refuses their replies from
//! the first packet on. Removing them keeps them from coming back together with their service.

use plain::Plain;

use super::Gate;
use super::error::GateError;
use super::map::Table;
use crate::abi::flow_key;
use crate::compile::{ServiceIndex, Tables};

impl Gate {
    /// To be called once `tables` are live.
    pub(super) fn end_revoked_flows(&self, tables: &Tables) -> Result<(), GateError> {
        let index = ServiceIndex::new(tables);
        end_in(&self.established, &index)?;
        end_in(&self.half_open, &index)?;
        end_in(&self.datagrams, &index)?;
        end_in(&self.icmp_queries, &index)
    }
}

fn end_in<V: Plain + Copy + Default>(
    table: &Table<flow_key, V>,
    index: &ServiceIndex<'_>,
) -> Result<(), GateError> {
    for (key, _) in table.entries()? {
        if !index.permits(&key) {
            table.remove(&key)?;
        }
    }
    Ok(())
}
