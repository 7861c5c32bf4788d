//! Ends the flows whose `in` service a new policy no longer has. The filter refuses their replies from
//! the first packet on. Removing them keeps them from coming back together with their service.

use plain::Plain;

use super::Gate;
use super::edits::{Edit, EditAction};
use super::error::GateError;
use super::typed_map::TypedMap;
use crate::abi::{flow_key, from_address};
use crate::compile::{ServiceIndex, Tables};
use crate::net::is_icmp;
use crate::policy::Direction;

impl Gate {
    /// To be called once `tables` are live.
    pub(super) fn end_revoked_flows(&self, tables: &Tables) -> Result<(), GateError> {
        let index = ServiceIndex::new(tables);
        let mut edits = self.edits()?;
        edits.retain(|edit| edit.action == EditAction::Allow && edit.direction == Direction::In);
        let permits = |key: &flow_key| index.permits(key) || is_allowed(key, &edits, tables);
        end_in(&self.maps.established, permits)?;
        end_in(&self.maps.half_open, permits)?;
        end_in(&self.maps.datagrams, permits)?;
        end_in(&self.maps.icmp_queries, permits)
    }
}

/// Whether one of these edits allows a flow.
fn is_allowed(key: &flow_key, edits: &[Edit], tables: &Tables) -> bool {
    let find = || {
        let row = tables.find_server(from_address(&key.server)?)?;
        Some((tables.names.get(row.server)?, from_address(&key.peer)?))
    };
    // of ICMP the peer's port is the type of its request
    let port_be = if is_icmp(key.protocol) { key.peer_port_be } else { key.server_port_be };
    !edits.is_empty()
        && find().is_some_and(|(name, peer)| {
            edits.iter().any(|edit| {
                edit.covers(name, Direction::In, key.protocol, u16::from_be(port_be)) && edit.has_peer(peer)
            })
        })
}

fn end_in<V: Plain + Copy + Default>(
    table: &TypedMap<flow_key, V>,
    permits: impl Fn(&flow_key) -> bool,
) -> Result<(), GateError> {
    for (key, _) in table.entries()? {
        if !permits(&key) {
            table.remove(&key)?;
        }
    }
    Ok(())
}
