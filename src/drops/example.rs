//! Events for the tests of every part that reads events.

use super::{DropEvent, DropVerdict, Names, Origin, ReasonCode, ServerRef};
use crate::abi::Reason;
use crate::clock::Clock;
use crate::net::TCP;

/// The start of every example.
pub(crate) fn clock() -> Clock {
    Clock { mono_ns: 1_000_000_000_000, wall: "2026-11-22T15:00:00Z".parse().unwrap() }
}

/// `clock` some milliseconds later.
pub(crate) fn after_ms(ms: u64) -> Clock {
    let start = clock();
    let mono_ns = start.mono_ns + ms * 1_000_000;
    Clock { mono_ns, wall: start.to_wall(mono_ns) }
}

/// Only web1 has an id, 1.
pub(crate) fn names() -> &'static Names {
    static NAMES: std::sync::OnceLock<Names> = std::sync::OnceLock::new();
    NAMES.get_or_init(|| [(1, "web1".into())].into())
}

/// A TCP SYN of web1 (id 1, 192.0.2.10) that begins at 198.51.100.7, port 445.
pub(crate) fn syn() -> DropEvent {
    DropEvent {
        time: clock().wall,
        since: clock().wall,
        interface: "dmz0".into(),
        verdict: DropVerdict::Drop,
        reason: ReasonCode::Known(Reason::NewFlow),
        quiet: false,
        own_port: false,
        presumed: false,
        edit: None,
        server: Some(ServerRef { id: 1, name: "web1".into() }),
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
        row: None,
        sources: None,
        destinations: None,
        looked_up: None,
        drops: 1,
        from: Origin::Sample,
        while_away: false,
    }
}
