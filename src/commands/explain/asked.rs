//! What `explain` is asked, and what it says.

use std::net::IpAddr;

use serde::Serialize;

use crate::abi::Reason;
use crate::compile::Tables;
use crate::gate::{Grant, Verdict};
use crate::net::Probe;
use crate::policy::{Policy, Server};

/// `explain -j`.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) verdict: Verdict,
    pub(super) reason: Option<Reason>,
    /// Name of the server that sends the packet.
    pub(super) server: Option<String>,
    /// The need that permits the packet, or the nearest one.
    pub(super) need: Option<String>,
    /// FILE:LINE
    pub(super) source: Option<String>,
    /// The number of the edit that decides, in place of a line of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edit: Option<u32>,
    /// Where a need with names has a part in it: who was answered which address, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answered: Option<String>,
    /// The grant of that sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<Grant>,
    pub(super) quiet: bool,
    /// The packet is a server's answer.
    pub(super) answer: bool,
    /// Sentences about the question itself: such a packet may never come to the gate.
    pub(super) notes: Vec<String>,
}

/// The packet that the user asks about.
pub(super) struct AskedPacket {
    pub(super) probe: Probe,
    /// A peer opened the flow, and this packet answers.
    pub(super) answer: bool,
    /// Protocol and port as the user wrote them.
    pub(super) protocol: u8,
    pub(super) port: u16,
}

pub(super) fn find_server<'p>(policy: &'p Policy, tables: &Tables, address: IpAddr) -> Option<&'p Server> {
    let row = tables.find_server(address)?;
    policy.servers.get(row.server)
}
