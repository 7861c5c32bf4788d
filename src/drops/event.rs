//! [`DropEvent`]: samples and ledger rows both become one. Alarms and sinks read nothing else. Pure:
//! names and clocks are arguments.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{Contacts, DropVerdict, LookedUp, ReasonCode};
use crate::abi::Reason;
use crate::clock::Clock;
use crate::host::host_name;
use crate::net::{Question, has_ports, is_icmp, name_icmp_type, name_protocol, read_question};

/// A server of the policy, as maps and events refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRef {
    /// Its id in the maps.
    pub id: u32,
    /// Its name in the policy; `#ID` where the maps have lost it.
    pub name: Arc<str>,
}

/// How the daemon learnt of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A sample: one packet, with all its fields.
    Sample,
    /// A row of the ledger: a count, with the addresses of its last packet.
    Ledger,
}

impl Origin {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Sample => "sample",
            Origin::Ledger => "ledger",
        }
    }
}

/// Names of servers by their ids.
pub type Names = HashMap<u32, Arc<str>>;

/// Facts that an event needs besides the bytes of a sample or a ledger row.
pub struct Context<'a> {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Both clocks, read when the sample or the ledger was.
    pub clock: Clock,
    /// Names of servers by their ids.
    pub names: &'a Names,
}

impl Context<'_> {
    /// The server with this id; `None` for 0, the id of no server.
    pub fn server(&self, id: u32) -> Option<ServerRef> {
        (id != 0).then(|| ServerRef {
            id,
            name: self.names.get(&id).cloned().unwrap_or_else(|| format!("#{id}").into()),
        })
    }
}

/// One drop, or several with the same ledger key that were learnt of together. Its JSON is the object
/// `portcullis` of EVE and ECS lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropEvent {
    /// When the packet came. Of several packets, the last one.
    pub time: Timestamp,
    /// When the first packet came, as far as known.
    pub since: Timestamp,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Whether it was dropped, or would have been.
    pub verdict: DropVerdict,
    /// Why it was dropped.
    pub reason: ReasonCode,
    /// The policy denies it without an alarm.
    pub quiet: bool,
    /// `port` is the server's own: the packet is an answer.
    pub own_port: bool,
    /// Nobody knows whether the peer asked: the memory of peers was full.
    pub presumed: bool,
    /// The number of the edit that decided; `None` where none did, and where unknown.
    pub edit: Option<u32>,
    /// The server that has the source address.
    pub server: Option<ServerRef>,
    /// Source address; `None` for a frame without addresses.
    pub source: Option<IpAddr>,
    /// Destination address; `None` for a frame without addresses.
    pub destination: Option<IpAddr>,
    /// Source port; `None` where unknown, or where the protocol has none.
    pub source_port: Option<u16>,
    /// Destination port; `None` where unknown, or where the protocol has none.
    pub destination_port: Option<u16>,
    /// As in the ledger's key: the flow's destination port (see `own_port`), an ICMP type, or for the
    /// reason `ethertype` the EtherType.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Counted in the ledger's overflow: `protocol` and `port` are 0 and stand for all of them.
    pub any_protocol: bool,
    /// Flags of the TCP header; `None` for another protocol, and where unknown.
    pub tcp_flags: Option<u8>,
    /// `None` for a protocol that is not ICMP, and where unknown.
    pub icmp_type: Option<u8>,
    /// `None` for a protocol that is not ICMP, and where unknown.
    pub icmp_code: Option<u8>,
    /// Length of the frame, bytes; `None` where unknown.
    pub length: Option<u32>,
    /// EtherType behind the VLAN tags; `None` where unknown.
    pub ethertype: Option<u16>,
    /// VLAN id of the outer tag; `None` for an untagged frame, and where unknown.
    pub vlan: Option<u16>,
    /// Source MAC address; `None` where unknown.
    pub source_mac: Option<[u8; 6]>,
    /// Destination MAC address; `None` where unknown.
    pub destination_mac: Option<[u8; 6]>,
    /// The beginning of the frame; empty where unknown.
    pub frame: Vec<u8>,
    /// Number of its ledger row; `None` where unknown, and for a sample.
    pub row: Option<u32>,
    /// The sources of its ledger row; `None` where unknown, and for a sample.
    pub sources: Option<Arc<Contacts>>,
    /// The destinations of its ledger row; `None` where unknown, and for a sample.
    pub destinations: Option<Arc<Contacts>>,
    /// What its server has looked the destination up as; `None` where unknown.
    pub looked_up: Option<LookedUp>,
    /// How many drops it stands for. 0: they were reported before, and the event only adds the packet.
    pub drops: u64,
    /// How the daemon learnt of it.
    pub from: Origin,
    /// It came while no daemon ran.
    pub while_away: bool,
}

impl DropEvent {
    /// The server's name.
    pub fn server_name(&self) -> Option<&str> {
        self.server.as_ref().map(|server| &*server.name)
    }

    /// What it asks a resolver for, if it was dropped for that and its sample shows it.
    pub fn question(&self) -> Option<Question> {
        let is_question = self.reason.known() == Some(Reason::Question);
        is_question.then(|| read_question(&self.frame)).flatten()
    }

    /// Id of the server; 0: no server has the source address.
    pub fn server_id(&self) -> u32 {
        self.server.as_ref().map_or(0, |server| server.id)
    }

    /// The protocol by name: `tcp`, `icmpv6`, `89`, `ethernet`, `any`.
    pub fn protocol_name(&self) -> Cow<'static, str> {
        protocol_name(self.reason, self.protocol, self.any_protocol)
    }

    /// Whether it is a frame that is not IP.
    pub fn is_frame(&self) -> bool {
        !self.reason.is_about_ip()
    }

    /// The service in the words of a need: `tcp/80`, `icmp/echo-request`, `gre`. For frames that are not
    /// IP it is `ethernet/0x88b5`.
    pub fn service(&self) -> String {
        name_service(self.reason, self.protocol, self.port, self.any_protocol)
    }
}

/// The JSON of a [`DropEvent`].
#[derive(Serialize)]
struct DropRecord<'a> {
    host: &'a str,
    interface: &'a str,
    server: Option<&'a str>,
    reason: ReasonCode,
    verdict: DropVerdict,
    service: String,
    drops: u64,
    since: String,
    from: &'static str,
    own_port: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    presumed: bool,
    while_away: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    edit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_up: Option<&'a LookedUp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    frame: String,
}

impl Serialize for DropEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = DropRecord {
            host: host_name(),
            interface: &self.interface,
            server: self.server_name(),
            reason: self.reason,
            verdict: self.verdict,
            service: self.service(),
            drops: self.drops,
            since: self.since.to_string(),
            from: self.from.name(),
            own_port: self.own_port,
            presumed: self.presumed,
            while_away: self.while_away,
            edit: self.edit,
            question: self.question().map(|question| question.to_string()),
            looked_up: self.looked_up.as_ref(),
            length: self.length,
            frame: show_hex(&self.frame),
        };
        record.serialize(serializer)
    }
}

/// As [`DropEvent::service`].
pub(crate) fn name_service(reason: ReasonCode, protocol: u8, port: u16, any: bool) -> String {
    let name = protocol_name(reason, protocol, any);
    if any {
        name.into_owned()
    } else if !reason.is_about_ip() {
        format!("{name}/{port:#06x}")
    } else if is_icmp(protocol) {
        format!("{name}/{}", name_icmp_type(protocol, port))
    } else if has_ports(protocol) {
        format!("{name}/{port}")
    } else {
        name.into_owned()
    }
}

/// Bytes as hex digits, two for each byte.
pub(crate) fn show_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn protocol_name(reason: ReasonCode, protocol: u8, any: bool) -> Cow<'static, str> {
    if any {
        Cow::Borrowed("any")
    } else if !reason.is_about_ip() {
        // Not IP, so protocol 0 would name one that it is not.
        Cow::Borrowed("ethernet")
    } else {
        name_protocol(protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::example;
    use crate::net::{ICMP, ICMPV6};

    #[test]
    fn a_service_reads_like_a_need() {
        let mut drop = example::syn();
        assert_eq!(drop.service(), "tcp/445");
        (drop.protocol, drop.port) = (ICMP, 8);
        assert_eq!(drop.service(), "icmp/echo-request");
        (drop.protocol, drop.port) = (ICMPV6, 128);
        assert_eq!(drop.service(), "icmpv6/echo-request");
        (drop.protocol, drop.port) = (47, 0);
        assert_eq!(drop.service(), "gre");
        (drop.protocol, drop.port) = (88, 0);
        assert_eq!(drop.service(), "88");
        drop.any_protocol = true;
        assert_eq!(drop.service(), "any");
    }

    #[test]
    fn a_frame_that_is_not_ip_is_called_by_its_ethertype() {
        let mut drop = example::syn();
        drop.reason = Reason::Ethertype.into();
        (drop.protocol, drop.port) = (0, 0x88b5);
        assert_eq!(drop.service(), "ethernet/0x88b5");
    }

    #[test]
    fn a_server_whose_name_is_lost_is_called_by_its_id() {
        let context = Context { interface: "dmz0".into(), clock: example::clock(), names: &Names::new() };
        assert_eq!(context.server(0), None);
        assert_eq!(&*context.server(7).unwrap().name, "#7");
    }

    #[test]
    fn bytes_are_shown_by_two_digits_each() {
        assert_eq!(show_hex(&[0x00, 0x0f, 0xa0]), "000fa0");
    }
}
