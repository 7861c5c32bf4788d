//! Rows of the drop ledger, for `show drops` and for the [`Reconciler`](super::Reconciler).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::event::{name_service, protocol_name};
use super::{Contacts, Context, DropEvent, DropVerdict, Origin, ReasonCode};
use crate::abi::{address, drop_flag, ledger_key};
use crate::drops::read_addresses;
use crate::net::{has_ports, is_icmp};

/// The ledger as it was read: each key once, in no order.
pub type Ledger = Vec<(LedgerKey, LedgerEntry)>;

/// What tells one row of the ledger from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerKey {
    /// Id of the server; 0: no server has the source address.
    pub server: u32,
    /// As [`DropEvent::port`].
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Number of the reason.
    pub reason: u8,
    /// `enum drop_flag`.
    pub flags: u8,
    /// A row of the overflow, which counts the drops that found the ledger full. Protocol and port are 0
    /// and stand for all of them. (The ledger itself may hold the same key, for packets of protocol 0.)
    pub overflow: bool,
}

impl LedgerKey {
    /// From a key of the map `ledger`, or of the overflow.
    pub fn new(key: &ledger_key, overflow: bool) -> LedgerKey {
        LedgerKey {
            server: key.server,
            port: key.port,
            protocol: key.protocol,
            reason: key.reason,
            flags: key.flags,
            overflow,
        }
    }

    /// As the map `ledger` has it.
    pub(crate) fn to_raw(self) -> ledger_key {
        ledger_key {
            server: self.server,
            port: self.port,
            protocol: self.protocol,
            reason: self.reason,
            flags: self.flags,
            ..ledger_key::default()
        }
    }

    pub(super) fn has(&self, flag: drop_flag) -> bool {
        u32::from(self.flags) & flag.0 != 0
    }
}

impl Hash for LedgerKey {
    /// One word holds nearly all that ever differs: the reconciler hashes each row of the ledger.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let kind = u64::from(self.port) << 16 | u64::from(self.protocol) << 8 | u64::from(self.reason);
        let marks = u64::from(self.flags) << 1 | u64::from(self.overflow);
        state.write_u64((u64::from(self.server) << 32 | kind) ^ marks.rotate_right(8));
    }
}

/// What a row of the ledger counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Number of the row.
    pub number: u32,
    /// Dropped packets, exactly.
    pub packets: u64,
    /// Their frames' bytes, exactly.
    pub bytes: u64,
    /// Time of the first packet: CLOCK_MONOTONIC, nanoseconds.
    pub first_ns: u64,
    /// Time of the last packet: CLOCK_MONOTONIC, nanoseconds.
    pub last_ns: u64,
    /// `packets` when the last sample was sent, even if it was lost on the way.
    pub sampled_packets: u64,
    /// Source of the last packet; `None` for a frame without addresses.
    pub last_source: Option<IpAddr>,
    /// Destination of the last packet; `None` for a frame without addresses.
    pub last_destination: Option<IpAddr>,
    /// Its sources; `None` where unknown.
    pub sources: Option<Arc<Contacts>>,
    /// Its destinations; `None` where unknown.
    pub destinations: Option<Arc<Contacts>>,
}

/// A row as the kernel has it, with the counts of all CPUs added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountedRow {
    /// The kind of drops that it counts.
    pub kind: ledger_key,
    /// Its index in the map `ledger_rows`.
    pub number: u32,
    /// It counts kinds without a row of their own: protocol and port are 0.
    pub overflow: bool,
    /// It stands for rows that were given back. All of their drops were reported.
    pub given_back: bool,
    /// Dropped packets.
    pub packets: u64,
    /// Their frames' bytes.
    pub bytes: u64,
    /// Time of the first packet: CLOCK_MONOTONIC, nanoseconds.
    pub first_ns: u64,
    /// Time of the last packet: CLOCK_MONOTONIC, nanoseconds.
    pub last_ns: u64,
    /// Time of the last sample, or later while the server has many rows: CLOCK_MONOTONIC, nanoseconds.
    pub sampled_ns: u64,
    /// `packets` when the last sample was sent.
    pub sampled_packets: u64,
    /// Source of the last packet.
    pub last_source: address,
    /// Destination of the last packet.
    pub last_destination: address,
}

impl LedgerEntry {
    /// Adds what another row of the same key counts.
    fn join(&mut self, other: LedgerEntry) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.first_ns = self.first_ns.min(other.first_ns);
        if other.last_ns > self.last_ns {
            self.last_ns = other.last_ns;
            self.last_source = other.last_source;
            self.last_destination = other.last_destination;
        }
    }
}

impl From<&CountedRow> for LedgerEntry {
    fn from(row: &CountedRow) -> LedgerEntry {
        let (last_source, last_destination) = read_addresses(&row.last_source, &row.last_destination, 0);
        LedgerEntry {
            number: row.number,
            packets: row.packets,
            bytes: row.bytes,
            first_ns: row.first_ns,
            last_ns: row.last_ns,
            sampled_packets: row.sampled_packets,
            last_source,
            last_destination,
            sources: None,
            destinations: None,
        }
    }
}

/// Adds a row to a ledger of which drops are reported: `gate.fold_ledger(Ledger::new, add_reportable)`. Those
/// that were given back have been.
pub fn add_reportable(ledger: &mut Ledger, row: &CountedRow) {
    if !row.given_back {
        ledger.push((LedgerKey::new(&row.kind, row.overflow), LedgerEntry::from(row)));
    }
}

/// Every drop that the ledger counts, by key: `gate.fold_ledger(WholeLedger::new, add_whole)`.
pub type WholeLedger = BTreeMap<LedgerKey, LedgerEntry>;

/// Adds a row to all drops. What was given back joins the overflow of its server and reason.
pub fn add_whole(ledger: &mut WholeLedger, row: &CountedRow) {
    let entry = LedgerEntry::from(row);
    match ledger.entry(LedgerKey::new(&row.kind, row.overflow)) {
        Entry::Vacant(vacant) => _ = vacant.insert(entry),
        Entry::Occupied(mut known) => known.get_mut().join(entry),
    }
}

/// A row of the ledger as people and programs read it. Its JSON is an element of
/// `show drops -j`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The row's key.
    pub key: LedgerKey,
    /// Name of the server; `None`: no server has the source address.
    pub server: Option<Arc<str>>,
    /// Dropped packets.
    pub packets: u64,
    /// Their frames' bytes.
    pub bytes: u64,
    /// Time of the first packet.
    pub first: Timestamp,
    /// Time of the last packet.
    pub last: Timestamp,
    /// Source of the last packet.
    pub last_source: Option<IpAddr>,
    /// Destination of the last packet.
    pub last_destination: Option<IpAddr>,
}

impl LedgerRow {
    /// The row of a key, with names and wall-clock times.
    pub fn new(key: LedgerKey, entry: &LedgerEntry, context: &Context<'_>) -> LedgerRow {
        LedgerRow {
            key,
            server: context.server(key.server).map(|server| server.name),
            packets: entry.packets,
            bytes: entry.bytes,
            first: context.clock.to_wall(entry.first_ns),
            last: context.clock.to_wall(entry.last_ns),
            last_source: entry.last_source,
            last_destination: entry.last_destination,
        }
    }

    /// Why the packets were dropped.
    pub fn reason(&self) -> ReasonCode {
        ReasonCode::from(self.key.reason)
    }

    /// Whether they were dropped, or would have been.
    pub fn verdict(&self) -> DropVerdict {
        DropVerdict::from_flags(self.key.flags)
    }

    /// Whether nobody knows that the peers asked, for the memory of peers was full.
    pub fn presumed(&self) -> bool {
        self.key.has(drop_flag::DROP_PRESUMED)
    }

    /// Whether the port is the server's own, for it answered.
    pub fn own_port(&self) -> bool {
        self.key.has(drop_flag::DROP_OWN_PORT)
    }

    /// Whether the policy denies them without an alarm.
    pub fn quiet(&self) -> bool {
        self.key.has(drop_flag::DROP_QUIET)
    }

    /// The protocol by name: `tcp`, `89`, `ethernet`; `any` in the overflow.
    pub fn protocol_name(&self) -> std::borrow::Cow<'static, str> {
        protocol_name(self.reason(), self.key.protocol, self.key.overflow)
    }

    /// As [`DropEvent::service`].
    pub fn service(&self) -> String {
        name_service(self.reason(), self.key.protocol, self.key.port, self.key.overflow)
    }

    /// As [`DropEvent::port`]; `None` in the overflow.
    pub fn port(&self) -> Option<u16> {
        (!self.key.overflow).then_some(self.key.port)
    }
}

impl Serialize for LedgerRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("LedgerRow", 14)?;
        row.serialize_field("server", &self.server.as_deref())?;
        row.serialize_field("address", &self.last_source)?;
        row.serialize_field("proto", &self.protocol_name())?;
        row.serialize_field("port", &self.port())?;
        row.serialize_field("reason", &self.reason())?;
        row.serialize_field("packets", &self.packets)?;
        row.serialize_field("bytes", &self.bytes)?;
        row.serialize_field("first", &self.first.to_string())?;
        row.serialize_field("last", &self.last.to_string())?;
        row.serialize_field("last_destination", &self.last_destination)?;
        row.serialize_field("quiet", &self.quiet())?;
        row.serialize_field("presumed", &self.presumed())?;
        row.serialize_field("would_drop", &self.key.has(drop_flag::DROP_WOULD))?;
        row.serialize_field("service", &self.service())?;
        row.end()
    }
}

/// The event of `drops` packets of a row.
pub(super) fn to_event(
    key: &LedgerKey,
    entry: &LedgerEntry,
    drops: u64,
    since_ns: u64,
    context: &Context<'_>,
) -> DropEvent {
    let own_port = key.has(drop_flag::DROP_OWN_PORT);
    let port = (has_ports(key.protocol) && key.port != 0).then_some(key.port);
    DropEvent {
        time: context.clock.to_wall(entry.last_ns),
        since: context.clock.to_wall(since_ns),
        interface: context.interface.clone(),
        verdict: DropVerdict::from_flags(key.flags),
        reason: ReasonCode::from(key.reason),
        quiet: key.has(drop_flag::DROP_QUIET),
        own_port,
        presumed: key.has(drop_flag::DROP_PRESUMED),
        edit: None,
        server: context.server(key.server),
        source: entry.last_source,
        destination: entry.last_destination,
        source_port: port.filter(|_| own_port),
        destination_port: port.filter(|_| !own_port),
        port: key.port,
        protocol: key.protocol,
        any_protocol: key.overflow,
        tcp_flags: None,
        icmp_type: is_icmp(key.protocol).then(|| u8::try_from(key.port).ok()).flatten(),
        icmp_code: None,
        length: None,
        ethertype: None,
        vlan: None,
        source_mac: None,
        destination_mac: None,
        frame: Vec::new(),
        row: Some(entry.number),
        sources: entry.sources.clone(),
        destinations: entry.destinations.clone(),
        looked_up: None,
        drops,
        from: Origin::Ledger,
        while_away: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Reason;
    use crate::drops::example;

    fn context() -> Context<'static> {
        Context { interface: "dmz0".into(), clock: example::clock(), names: example::names() }
    }

    fn key() -> LedgerKey {
        LedgerKey {
            server: 1,
            port: 445,
            protocol: 6,
            reason: Reason::NewFlow.number(),
            flags: 0,
            overflow: false,
        }
    }

    fn entry() -> LedgerEntry {
        LedgerEntry {
            packets: 12,
            bytes: 720,
            first_ns: example::clock().mono_ns - 60_000_000_000,
            last_ns: example::clock().mono_ns - 1_500_000,
            sampled_packets: 12,
            last_source: Some("192.0.2.10".parse().unwrap()),
            last_destination: Some("2001:db8::7".parse().unwrap()),
            ..LedgerEntry::default()
        }
    }

    fn json(row: &LedgerRow) -> serde_json::Value {
        serde_json::to_value(row).unwrap()
    }

    #[test]
    fn a_row_has_the_json_that_tools_rely_on() {
        let row = LedgerRow::new(key(), &entry(), &context());
        assert_eq!(
            json(&row),
            serde_json::json!({
                "server": "web1", "address": "192.0.2.10", "proto": "tcp", "port": 445,
                "reason": "new_flow", "packets": 12, "bytes": 720,
                "first": "2026-11-22T14:59:00Z", "last": "2026-11-22T14:59:59.9985Z",
                "last_destination": "2001:db8::7", "quiet": false, "presumed": false,
                "would_drop": false, "service": "tcp/445",
            })
        );
    }

    #[test]
    fn a_row_of_the_overflow_without_a_server_says_any_and_no_port() {
        let key = LedgerKey { server: 0, port: 0, protocol: 0, flags: 11, overflow: true, ..key() };
        let entry = LedgerEntry { last_source: None, last_destination: None, ..entry() };
        let value = json(&LedgerRow::new(key, &entry, &context()));
        assert_eq!(value["server"], serde_json::Value::Null);
        assert_eq!(value["address"], serde_json::Value::Null);
        assert_eq!(value["proto"], "any");
        assert_eq!(value["port"], serde_json::Value::Null);
        for flag in ["quiet", "presumed", "would_drop"] {
            assert_eq!(value[flag], true, "{flag}");
        }
    }

    #[test]
    fn a_row_is_called_by_its_service_and_a_frame_by_its_ethertype_in_hex() {
        assert_eq!(LedgerRow::new(key(), &entry(), &context()).service(), "tcp/445");
        let frame = LedgerKey { port: 0x88b5, protocol: 0, reason: Reason::Ethertype.number(), ..key() };
        let row = LedgerRow::new(frame, &entry(), &context());
        assert_eq!((&*row.service(), &json(&row)["service"]), ("ethernet/0x88b5", &"ethernet/0x88b5".into()));
    }

    #[test]
    fn protocol_0_outside_the_overflow_is_protocol_0() {
        let key = LedgerKey { port: 0, protocol: 0, ..key() };
        let value = json(&LedgerRow::new(key, &entry(), &context()));
        assert_eq!((&value["proto"], &value["port"]), (&"0".into(), &0.into()));
    }

    #[test]
    fn an_own_port_is_the_source_port_of_the_event() {
        let drop = to_event(&key(), &entry(), 4, entry().first_ns, &context());
        assert_eq!((drop.source_port, drop.destination_port), (None, Some(445)));
        let own = LedgerKey { flags: 4, ..key() };
        let drop = to_event(&own, &entry(), 4, entry().first_ns, &context());
        assert_eq!((drop.source_port, drop.destination_port), (Some(445), None));
        assert_eq!((drop.drops, drop.from), (4, Origin::Ledger));
    }

    #[test]
    fn what_was_given_back_joins_the_overflow_and_is_not_reported_again() {
        let kind = ledger_key { server: 1, reason: Reason::NewFlow.number(), ..ledger_key::default() };
        let row = |packets, first_ns, last_ns, given_back| CountedRow {
            kind,
            overflow: true,
            given_back,
            packets,
            bytes: packets * 60,
            first_ns,
            last_ns,
            last_source: crate::abi::to_address(IpAddr::from([192, 0, 2, packets as u8])),
            ..CountedRow::default()
        };
        let (mut reportable, mut whole) = (Ledger::new(), WholeLedger::new());
        for row in [row(5, 10, 20, false), row(7, 4, 30, true), row(3, 12, 15, true)] {
            add_reportable(&mut reportable, &row);
            add_whole(&mut whole, &row);
        }
        assert_eq!(reportable.iter().map(|(_, entry)| entry.packets).collect::<Vec<_>>(), [5]);
        let entries: Vec<&LedgerEntry> = whole.values().collect();
        let [entry] = entries[..] else { panic!("one key: {whole:?}") };
        assert_eq!((entry.packets, entry.bytes, entry.first_ns, entry.last_ns), (15, 900, 4, 30));
        assert_eq!(entry.last_source, Some(IpAddr::from([192, 0, 2, 7])));
    }

    #[test]
    fn a_key_is_that_of_the_map_and_back() {
        let key = LedgerKey { port: 0x1234, protocol: 17, flags: 5, ..key() };
        assert_eq!(LedgerKey::new(&key.to_raw(), false), key);
    }

    #[test]
    fn rows_of_the_map_lose_nothing_on_the_way() {
        let raw = CountedRow {
            packets: 5,
            bytes: 300,
            first_ns: 1,
            last_ns: 2,
            sampled_packets: 4,
            ..Default::default()
        };
        let entry = LedgerEntry::from(&raw);
        assert_eq!((entry.packets, entry.bytes), (5, 300));
        assert_eq!((entry.first_ns, entry.last_ns, entry.sampled_packets), (1, 2, 4));
        assert_eq!((entry.last_source, entry.last_destination), (None, None));
    }
}
