//! A drop as an event: what both a sample and a difference of the ledger become, and what
//! alarms and sinks are made of. Pure: names and clocks are arguments.

mod hash;
mod hot_rows;
mod ledger;
mod reconcile;
mod sample;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::abi::Reason;
use crate::abi::drop_flag;
use crate::clock::Clock;
use crate::net::{has_ports, is_icmp, name_icmp_type, name_protocol};

pub use hot_rows::{HotRows, LastPacket};
pub use ledger::{Ledger, LedgerEntry, LedgerKey, LedgerRow};
pub use reconcile::{Baseline, Reconciler};
pub(crate) use sample::read_addresses;
pub use sample::{DecodeError, Sample, decode};

/// Why a packet was dropped: a reason, or the number of one that is newer than this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// A reason of this version.
    Known(Reason),
    /// The number of another one.
    Unknown(u8),
}

impl ReasonCode {
    /// Its number in the ledger.
    pub fn number(self) -> u8 {
        match self {
            ReasonCode::Known(reason) => reason.number(),
            ReasonCode::Unknown(number) => number,
        }
    }

    /// The reason, if this version knows it.
    pub fn known(self) -> Option<Reason> {
        match self {
            ReasonCode::Known(reason) => Some(reason),
            ReasonCode::Unknown(_) => None,
        }
    }
}

impl From<u8> for ReasonCode {
    fn from(number: u8) -> ReasonCode {
        Reason::from_number(number).map_or(ReasonCode::Unknown(number), ReasonCode::Known)
    }
}

impl From<Reason> for ReasonCode {
    fn from(reason: Reason) -> ReasonCode {
        ReasonCode::Known(reason)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReasonCode::Known(reason) => f.pad(reason.name()),
            ReasonCode::Unknown(number) => f.pad(&format!("unknown_{number}")),
        }
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It did not leave.
    Drop,
    /// Mode `observe`: it left, and would not have otherwise.
    WouldDrop,
}

impl Verdict {
    /// From `enum drop_flag`, which ledger and samples share.
    pub fn from_flags(flags: u8) -> Verdict {
        if u32::from(flags) & drop_flag::DROP_WOULD.0 != 0 { Verdict::WouldDrop } else { Verdict::Drop }
    }

    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Drop => "drop",
            Verdict::WouldDrop => "would_drop",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A server of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its id in the maps.
    pub id: u32,
    /// Its name in the policy; `#ID` where the maps have lost it.
    pub name: Arc<str>,
}

/// Where a drop was learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A sample: one packet, with all its fields.
    Sample,
    /// A difference of the ledger: a count, with the addresses of its last packet.
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

/// Names by the servers' ids.
pub type Names = HashMap<u32, Arc<str>>;

/// What the bytes of a sample or a ledger row don't say themselves.
pub struct Context<'a> {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Read when the sample or the ledger was.
    pub clock: Clock,
    /// Names of the servers' ids.
    pub names: &'a Names,
}

impl Context<'_> {
    /// The server with this id; `None` for 0, which is nobody's.
    pub fn server(&self, id: u32) -> Option<Server> {
        (id != 0).then(|| Server {
            id,
            name: self.names.get(&id).cloned().unwrap_or_else(|| format!("#{id}").into()),
        })
    }
}

/// One drop, or several of one kind that were learnt of together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropEvent {
    /// When the packet came; of several the last one.
    pub time: Timestamp,
    /// When the first of them came, as far as known.
    pub since: Timestamp,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: ReasonCode,
    /// Denied without an alarm.
    pub quiet: bool,
    /// `port` is the server's own: it answered.
    pub own_port: bool,
    /// The server that has the source address.
    pub server: Option<Server>,
    /// `None` for a frame without addresses.
    pub source: Option<IpAddr>,
    /// As `source`.
    pub destination: Option<IpAddr>,
    /// `None` where unknown, or where the protocol has none.
    pub source_port: Option<u16>,
    /// As `source_port`.
    pub destination_port: Option<u16>,
    /// As in the ledger's key: the flow's destination port (see `own_port`), an ICMP type,
    /// or, for the reason `ethertype`, the EtherType.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The ledger was full: `protocol` and `port` are 0 and stand for all of them.
    pub any_protocol: bool,
    /// `None` for what is not TCP, and where unknown.
    pub tcp_flags: Option<u8>,
    /// `None` for what is not ICMP, and where unknown.
    pub icmp_type: Option<u8>,
    /// As `icmp_type`.
    pub icmp_code: Option<u8>,
    /// Of the frame, bytes.
    pub length: Option<u32>,
    /// Behind the VLAN tags.
    pub ethertype: Option<u16>,
    /// VLAN id of the outer tag.
    pub vlan: Option<u16>,
    /// `None` where unknown.
    pub source_mac: Option<[u8; 6]>,
    /// As `source_mac`.
    pub destination_mac: Option<[u8; 6]>,
    /// The beginning of the frame; empty where unknown.
    pub frame: Vec<u8>,
    /// How many of this kind it stands for. 0: a sample whose drops the ledger has already
    /// reported; it adds what was in the packet.
    pub drops: u64,
    /// Where it was learnt from.
    pub from: Origin,
    /// It came while no daemon listened.
    pub while_away: bool,
}

impl DropEvent {
    /// The server's name.
    pub fn server_name(&self) -> Option<&str> {
        self.server.as_ref().map(|server| &*server.name)
    }

    /// Id of the server; 0: no server has the source address.
    pub fn server_id(&self) -> u32 {
        self.server.as_ref().map_or(0, |server| server.id)
    }

    /// The protocol by name: `tcp`, `icmpv6`, `89`, `ethernet`, `any`.
    pub fn protocol_name(&self) -> Cow<'static, str> {
        protocol_name(self.reason, self.protocol, self.any_protocol)
    }

    /// What was called, in the words of a need: `tcp/80`, `icmp/echo-request`, `gre`; for
    /// frames that are not IP `ethernet/0x88b5`.
    pub fn service(&self) -> String {
        name_service(self.reason, self.protocol, self.port, self.any_protocol)
    }
}

/// As [`DropEvent::service`].
pub(crate) fn name_service(reason: ReasonCode, protocol: u8, port: u16, any: bool) -> String {
    let name = protocol_name(reason, protocol, any);
    if any {
        name.into_owned()
    } else if reason == ReasonCode::Known(Reason::Ethertype) {
        format!("{name}/{port:#06x}")
    } else if is_icmp(protocol) {
        format!("{name}/{}", name_icmp_type(protocol, port))
    } else if has_ports(protocol) {
        format!("{name}/{port}")
    } else {
        name.into_owned()
    }
}

/// Two digits a byte.
pub(crate) fn show_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn protocol_name(reason: ReasonCode, protocol: u8, any: bool) -> Cow<'static, str> {
    if any {
        Cow::Borrowed("any")
    } else if reason == ReasonCode::Known(Reason::Ethertype) {
        // Not IP, so protocol 0 would name one that it is not.
        Cow::Borrowed("ethernet")
    } else {
        name_protocol(protocol)
    }
}

/// Events for the tests of whatever reads events.
#[cfg(test)]
pub(crate) mod example {
    use super::*;
    use crate::net::TCP;

    /// The start of every example.
    pub fn clock() -> Clock {
        Clock { mono_ns: 1_000_000_000_000, wall: "2026-11-22T15:00:00Z".parse().unwrap() }
    }

    /// `clock` some milliseconds later.
    pub fn after_ms(ms: u64) -> Clock {
        let start = clock();
        let mono_ns = start.mono_ns + ms * 1_000_000;
        Clock { mono_ns, wall: start.to_wall(mono_ns) }
    }

    /// Only web1 has an id, 1.
    pub fn names() -> &'static Names {
        static NAMES: std::sync::OnceLock<Names> = std::sync::OnceLock::new();
        NAMES.get_or_init(|| [(1, "web1".into())].into())
    }

    /// A TCP SYN of web1 (id 1, 192.0.2.10) that begins at 198.51.100.7, port 445.
    pub fn syn() -> DropEvent {
        DropEvent {
            time: clock().wall,
            since: clock().wall,
            interface: "dmz0".into(),
            verdict: Verdict::Drop,
            reason: ReasonCode::Known(Reason::NewFlow),
            quiet: false,
            own_port: false,
            server: Some(Server { id: 1, name: "web1".into() }),
            source: Some("192.0.2.10".parse().unwrap()),
            destination: Some("198.51.100.7".parse().unwrap()),
            source_port: Some(40000),
            destination_port: Some(445),
            port: 445,
            protocol: TCP,
            any_protocol: false,
            tcp_flags: Some(2),
            icmp_type: None,
            icmp_code: None,
            length: Some(54),
            ethertype: Some(0x0800),
            vlan: None,
            source_mac: Some([2, 0, 0, 0, 0, 0x10]),
            destination_mac: Some([2, 0, 0, 0, 0, 1]),
            frame: Vec::new(),
            drops: 1,
            from: Origin::Sample,
            while_away: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ICMP, ICMPV6};

    #[test]
    fn what_was_called_reads_like_a_need() {
        let mut drop = example::syn();
        assert_eq!(drop.service(), "tcp/445");
        (drop.protocol, drop.port) = (ICMP, 8);
        assert_eq!(drop.service(), "icmp/echo-request");
        (drop.protocol, drop.port) = (ICMPV6, 128);
        assert_eq!(drop.service(), "icmpv6/echo-request");
        (drop.protocol, drop.port) = (47, 0);
        assert_eq!(drop.service(), "gre");
        (drop.protocol, drop.port) = (89, 0);
        assert_eq!(drop.service(), "89");
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

    #[test]
    fn every_number_is_a_cause_and_leads_back() {
        for number in 0..=255 {
            assert_eq!(ReasonCode::from(number).number(), number);
        }
        assert_eq!(ReasonCode::from(47).known(), Some(Reason::NewFlow));
    }
}
