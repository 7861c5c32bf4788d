//! Decodes the samples of the perf buffer. Pure: any bytes give a value or an error.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use plain::Plain;
use thiserror::Error;

use super::{Context, DropEvent, DropVerdict, LedgerKey, Origin, ReasonCode, read_addresses};
use crate::abi::{self, drop_flag, layout, rule_flag};
use crate::net::{TCP, has_ports, is_icmp};

// SAFETY: `repr(C)` of integers and arrays of integers, without padding (the contract header
// asserts its size): any bytes will do.
unsafe impl Plain for abi::sample {}

/// How much of a frame a sample carries at most, bytes.
const MAX_FRAME_BYTES: usize = layout::SAMPLE_FRAME_BYTES.0 as usize;

/// Why bytes are not a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// They are shorter than the fixed part.
    #[error(
        "a sample of {length} bytes is shorter than its fixed part of {needed}: \
         was the gate attached by another version?"
    )]
    TooShort {
        /// How many arrived, bytes.
        length: usize,
        /// The fixed part, bytes.
        needed: usize,
    },
}

/// One sampled drop, as the kernel saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Drops with this ledger key since its last sample, this one included.
    pub drops: u64,
    /// `None` for a frame without addresses.
    pub source: Option<IpAddr>,
    /// `None` for a frame without addresses.
    pub destination: Option<IpAddr>,
    /// Index of the interface.
    pub interface: u32,
    /// Id of the server; 0: no server has the source address.
    pub server: u32,
    /// Id of the nearest rule; 0: none.
    pub rule: u32,
    /// Number of the edit that decided, in place of a rule; 0: none did.
    pub edit: u32,
    /// Length of the frame, bytes.
    pub length: u32,
    /// 0 where the protocol has no ports or the packet did not show them.
    pub source_port: u16,
    /// As `source_port`.
    pub destination_port: u16,
    /// EtherType behind the VLAN tags.
    pub ethertype: u16,
    /// Tag control information of the outer VLAN tag; 0: none.
    pub vlan: u16,
    /// As in the ledger's key: the flow's destination port (the server's own with
    /// `DROP_OWN_PORT`), an ICMP type, or the EtherType.
    pub port: u16,
    /// `enum verdict`.
    pub verdict: u8,
    /// Why it was dropped. A number that this version does not know is kept.
    pub reason: ReasonCode,
    /// `enum drop_flag`.
    pub flags: u8,
    /// IP protocol number, behind the extension headers.
    pub protocol: u8,
    /// As in the TCP header.
    pub tcp_flags: u8,
    /// Valid for ICMP and ICMPv6.
    pub icmp_type: u8,
    /// Valid for ICMP and ICMPv6.
    pub icmp_code: u8,
    /// 4 or 6; 0: not IP.
    pub ip_version: u8,
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Its kind has no row of its own: the overflow counts it, and `drops` are those of the overflow.
    pub in_rest: bool,
    /// The beginning of the frame.
    pub frame: Vec<u8>,
}

/// Decodes what the perf buffer delivered: a `struct sample`, the beginning of a frame, and padding.
///
/// # Errors
/// When there are fewer bytes than the fixed part has.
pub fn decode(bytes: &[u8]) -> Result<Sample, DecodeError> {
    let needed = size_of::<abi::sample>();
    let too_short = DecodeError::TooShort { length: bytes.len(), needed };
    // A copy: perf puts a 32-bit length before its data, so 64-bit fields are seldom aligned.
    let mut header = abi::sample::default();
    header.copy_from_bytes(bytes).map_err(|_| too_short)?;
    let rest = bytes.get(needed..).ok_or(too_short)?;

    // Neither the length field nor the length of the bytes is enough alone: perf pads at the end.
    let frame_bytes = usize::from(header.frame_bytes).min(rest.len()).min(MAX_FRAME_BYTES);
    let (source, destination) = read_addresses(&header.source, &header.destination, header.ip_version);
    let (is_edit, id) = (header.rule & rule_flag::RULE_EDIT.0 != 0, header.rule & rule_flag::RULE_ID_MASK.0);
    Ok(Sample {
        time_ns: header.time_ns,
        drops: header.drops,
        source,
        destination,
        interface: header.interface,
        server: header.server,
        rule: if is_edit { 0 } else { id },
        edit: if is_edit { id } else { 0 },
        length: header.length,
        source_port: header.source_port,
        destination_port: header.destination_port,
        ethertype: header.ethertype,
        vlan: header.vlan,
        port: header.port,
        verdict: header.verdict,
        reason: ReasonCode::from(header.reason),
        flags: header.flags,
        protocol: header.protocol,
        tcp_flags: header.tcp_flags,
        icmp_type: header.icmp_type,
        icmp_code: header.icmp_code,
        ip_version: header.ip_version,
        source_mac: header.source_mac,
        destination_mac: header.destination_mac,
        in_rest: header.rest != 0,
        frame: rest[..frame_bytes].to_vec(),
    })
}

impl Sample {
    /// The key of the row that counts the drop.
    pub fn key(&self) -> LedgerKey {
        let (port, protocol) = if self.in_rest { (0, 0) } else { (self.port, self.protocol) };
        LedgerKey {
            server: self.server,
            port,
            protocol,
            reason: self.reason.number(),
            flags: self.flags,
            overflow: self.in_rest,
        }
    }

    /// The event of this sample. `drops` is how many of its drops have not been reported yet, as
    /// [`Reconciler::note_sample`](super::Reconciler::note_sample) says.
    pub fn to_event(&self, drops: u64, context: &Context<'_>) -> DropEvent {
        let time = context.clock.to_wall(self.time_ns);
        let flagged = |flag: drop_flag| u32::from(self.flags) & flag.0 != 0;
        // Port 0 at both ends: a later fragment, which has no ports to show.
        let ports = has_ports(self.protocol) && (self.source_port, self.destination_port) != (0, 0);
        let icmp = is_icmp(self.protocol);
        DropEvent {
            time,
            since: time,
            interface: context.interface.clone(),
            verdict: DropVerdict::from_flags(self.flags),
            reason: self.reason,
            quiet: flagged(drop_flag::DROP_QUIET),
            own_port: flagged(drop_flag::DROP_OWN_PORT),
            presumed: flagged(drop_flag::DROP_PRESUMED),
            edit: (self.edit != 0).then_some(self.edit),
            server: context.server(self.server),
            source: self.source,
            destination: self.destination,
            source_port: ports.then_some(self.source_port),
            destination_port: ports.then_some(self.destination_port),
            port: self.port,
            protocol: self.protocol,
            any_protocol: false,
            tcp_flags: (self.protocol == TCP).then_some(self.tcp_flags),
            icmp_type: icmp.then_some(self.icmp_type),
            icmp_code: icmp.then_some(self.icmp_code),
            length: Some(self.length),
            ethertype: Some(self.ethertype),
            vlan: (self.vlan != 0).then_some(self.vlan & 0x0fff),
            source_mac: Some(self.source_mac),
            destination_mac: Some(self.destination_mac),
            frame: self.frame.clone(),
            row: None,
            sources: None,
            destinations: None,
            looked_up: None,
            drops,
            from: Origin::Sample,
            while_away: false,
        }
    }
}
