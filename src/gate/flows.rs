//! The flows that peers have opened, for `show flows`.

use std::net::IpAddr;

use serde::Serialize;

use super::Gate;
use super::error::GateError;
use crate::abi::{flow_key, from_address};
use crate::clock::now_ns;

/// Tables of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowTable {
    /// TCP after the handshake.
    Established,
    /// TCP before that.
    HalfOpen,
    /// UDP, SCTP and protocols without ports.
    Datagrams,
    /// ICMP requests.
    Icmp,
}

/// One flow that a peer opened.
#[derive(Clone, Debug, Serialize)]
pub struct FlowRow {
    /// The table that holds it.
    pub table: FlowTable,
    /// The server's address.
    pub server: Option<IpAddr>,
    /// The server's port. ICMP: the identifier.
    pub server_port: u16,
    /// The peer's address.
    pub peer: Option<IpAddr>,
    /// The peer's port. ICMP: the type of the request.
    pub peer_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Seconds since its last packet (half-open: since its SYN), at most one off.
    pub idle_s: u64,
}

impl Gate {
    /// Every flow in the tables.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn flows(&self) -> Result<Vec<FlowRow>, GateError> {
        let now = now_ns();
        let to_row = |table: FlowTable, key: &flow_key, since_ns: u64| FlowRow {
            table,
            server: from_address(&key.server),
            server_port: u16::from_be(key.server_port_be),
            peer: from_address(&key.peer),
            peer_port: u16::from_be(key.peer_port_be),
            protocol: key.protocol,
            idle_s: now.saturating_sub(since_ns) / 1_000_000_000,
        };
        let mut rows = Vec::new();
        for (table, map) in [
            (FlowTable::Established, &self.maps.established),
            (FlowTable::Datagrams, &self.maps.datagrams),
            (FlowTable::Icmp, &self.maps.icmp_queries),
        ] {
            map.visit(|key, flow| rows.push(to_row(table, key, flow.last_ns)))?;
        }
        self.maps
            .half_open
            .visit(|key, half_open| rows.push(to_row(FlowTable::HalfOpen, key, half_open.opened_ns)))?;
        Ok(rows)
    }
}
