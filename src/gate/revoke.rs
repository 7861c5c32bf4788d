//! Ends the flows whose `in` service a new policy no longer has. The filter refuses their replies from
//! the first packet on. Removing them keeps them from coming back together with their service.

use libbpf_rs::MapFlags;
use plain::Plain;

use super::Gate;
use super::edits::{Edit, EditAction};
use super::error::GateError;
use super::typed_map::TypedMap;
use crate::abi::{flow, flow_flag, flow_key, from_address};
use crate::clock::{NS_PER_S, now_ns};
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
        end_in(&self.maps.half_open, permits)?;
        end_in(&self.maps.icmp_queries, permits)?;
        for table in [&self.maps.established, &self.maps.datagrams] {
            match tables.settings.has_handover() {
                true => revoke_in(table, permits)?,
                false => end_in(table, permits)?,
            }
        }
        Ok(())
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

/// Leaves the flows as known to be over, for conntrack does not know that they are. A packet that still found one
/// alive may have refreshed it meanwhile, so they are looked at twice.
fn revoke_in(table: &TypedMap<flow_key, flow>, permits: impl Fn(&flow_key) -> bool) -> Result<(), GateError> {
    const LIFE_NS: u64 = 432_000 * NS_PER_S;
    for _ in 0..2 {
        let now = now_ns();
        for (key, mut flow) in table.entries()? {
            let is_revoked = flow.flags & flow_flag::FLOW_REVOKED.0 != 0;
            // signed: a router may have booted a minute ago
            let is_set_back = now.wrapping_sub(flow.last_ns).cast_signed() >= LIFE_NS.cast_signed();
            if (is_revoked && is_set_back) || permits(&key) {
                continue;
            }
            flow.flags |= flow_flag::FLOW_REVOKED.0;
            flow.last_ns = flow.last_ns.wrapping_sub(LIFE_NS);
            table.put(&key, &flow, MapFlags::EXIST).or_else(|error| match table.get(&key)? {
                None => Ok(()),
                Some(_) => Err(error),
            })?;
        }
    }
    Ok(())
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
