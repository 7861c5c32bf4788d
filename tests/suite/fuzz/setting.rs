//! The few actors that policies and frames are made of: so few addresses and ports that they meet.

use nix::net::if_::if_nametoindex;
use std::net::IpAddr;

use crate::support::chance::Chance;
use crate::support::dmz::{ip, v4, v6};

/// Addresses and prefixes that a policy may give to a server; one address of each.
pub const HOMES: [(&str, IpAddr); 16] = [
    ("192.0.2.10", v4(192, 0, 2, 10)),
    ("192.0.2.11", v4(192, 0, 2, 11)),
    ("192.0.2.25", v4(192, 0, 2, 25)),
    ("192.0.2.53", v4(192, 0, 2, 53)),
    ("192.0.2.128/26", v4(192, 0, 2, 129)),
    ("192.0.2.144/28", v4(192, 0, 2, 145)),
    ("192.0.2.146", v4(192, 0, 2, 146)),
    ("192.0.2.0/24", v4(192, 0, 2, 77)),
    ("2001:db8:1::10", v6(LINK, 0x10)),
    ("2001:db8:1::11", v6(LINK, 0x11)),
    ("2001:db8:1::25", v6(LINK, 0x25)),
    ("2001:db8:1::53", v6(LINK, 0x53)),
    ("2001:db8:1:0:8000::/80", v6(LINK, 0x8000_0000_0000_0129)),
    ("2001:db8:1:0:8000::1:0/112", v6(LINK, 0x8000_0000_0001_0145)),
    ("2001:db8:1:0:8000::1:146", v6(LINK, 0x8000_0000_0001_0146)),
    ("2001:db8:1::/64", v6(LINK, 0x4000_0000_0000_0077)),
];

/// The prefix of the DMZ's link.
const LINK: u64 = 0x2001_0db8_0001_0000;

/// Whoever is no server.
const PEERS: [&str; 16] = [
    "203.0.113.7",
    "203.0.113.50",
    "203.0.113.51",
    "198.51.100.20",
    "198.51.100.21",
    "198.51.100.30",
    "192.0.2.99",
    "2001:db8:f::7",
    "2001:db8:50::50",
    "2001:db8:50::51",
    "2001:db8:2::20",
    "2001:db8:2::21",
    "2001:db8:1::99",
    "2001:db8:1:0:8000::99",
    "2001:db8:f:1::7",
    "2001:db8:2::30",
];

/// What no host has for itself alone.
const ODD: [&str; 20] = [
    "0.0.0.0",
    "255.255.255.255",
    "169.254.7.7",
    "224.0.0.251",
    "239.255.255.250",
    "127.0.0.1",
    "192.0.2.255",
    "::",
    "::1",
    "fe80::10",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff02::16",
    "ff02::1:2",
    "ff01::1",
    "ff05::1",
    "ff0e::fb",
    "fe80::1",
    "::ffff:192.0.2.10",
];

/// Peers as policies name them.
pub const PEER_PREFIXES: [&str; 18] = [
    "203.0.113.7",
    "203.0.113.50",
    "203.0.113.48/30",
    "203.0.113.0/24",
    "198.51.100.20",
    "198.51.100.20/31",
    "198.51.100.0/24",
    "192.0.2.0/24",
    "0.0.0.0/0",
    "2001:db8:f::7",
    "2001:db8:f::/64",
    "2001:db8:f::/48",
    "2001:db8:50::/48",
    "2001:db8:2::20",
    "2001:db8::/32",
    "::/0",
    "2001:db8:1::/64",
    "ff02::/16",
];

pub const PORTS: [u16; 28] = [
    0, 20, 22, 25, 53, 67, 68, 80, 123, 137, 138, 443, 445, 514, 546, 547, 1023, 1024, 5353, 6000, 6015,
    6016, 6063, 8080, 40000, 51000, 51001, 65535,
];

pub const PROTOCOLS: [u8; 16] = [0, 1, 2, 4, 6, 17, 33, 41, 47, 50, 51, 58, 59, 112, 132, 253];

/// Resolvers that policies name: three beyond the router, and one on it.
pub const RESOLVERS: [&str; 4] = ["198.51.100.20", "198.51.100.21", "2001:db8:2::20", "198.51.100.54"];
/// The one that runs on the router, as `network.rs` has it.
pub const LOCAL_RESOLVER: IpAddr = v4(198, 51, 100, 54);
/// The interface by which the others' answers may come, and its index in a namespace of `network.rs`.
pub const WAY: &str = "fuzz0";
pub const WAY_IFINDEX: u32 = 3;
/// Names as policies have them, and as servers ask.
pub const NAMES: [&str; 6] = [
    "deb.vendor.example",
    "ntp.vendor.example",
    "*.mirror.example",
    "a.mirror.example",
    "*.b.mirror.example",
    "*.vendor.example",
];
/// Each is one of [`NAMES`], or below one.
pub const NEEDED: [&str; 4] =
    ["deb.vendor.example", "ntp.vendor.example", "a.mirror.example", "a.b.mirror.example"];
pub const ASKED: [&str; 14] = [
    "_http._tcp.deb.vendor.example",
    "vendor.example",
    "example",
    "10.2.0.192.in-addr.arpa",
    "",
    "deb.vendor.example",
    "ntp.vendor.example",
    "a.mirror.example",
    "x.mirror.example",
    "a.b.mirror.example",
    "mirror.example",
    "x.deb.vendor.example",
    "deb.vendor.example.mirror.example",
    "evil.example",
];

/// The last one is a virtual one of VRRP.
pub const SERVER_MACS: [[u8; 6]; 4] =
    [[0x02, 0, 0, 0, 0, 0x10], [0x02, 0, 0, 0, 0, 0x11], [0x02, 0, 0, 0, 0, 0x12], [0, 0, 0x5e, 0, 1, 0x33]];

/// Addresses and MACs that a policy may give to a router.
pub const ROUTERS: [&str; 4] = ["198.51.100.3", "169.254.7.7", "fe80::2:3", "2001:db8:2::3"];
pub const ROUTER_MACS: [[u8; 6]; 3] =
    [[0x02, 0, 0, 0, 0x0f, 0x03], [0, 0, 0x5e, 0, 1, 0x0a], [0x02, 0, 0, 0, 0, 0x11]];
pub const VLANS: [u16; 2] = [7, 8];

/// The routing table of the fuzzer's network namespace, which `network.rs` lays out: the upper half
/// of the link's prefix lies behind another interface.
pub fn stays_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => address.to_bits() >> 63 != ((u128::from(LINK) << 64) | (1 << 63)) >> 63,
        IpAddr::V4(_) => true,
    }
}

/// An address that a server may have, or one of a prefix that a server may have.
pub fn pick_server(chance: &mut Chance, v6: bool) -> IpAddr {
    let half = HOMES.len() / 2;
    let home = HOMES[if v6 { half } else { 0 } + chance.below(half)].1;
    if chance.percent(90) { home } else { jiggle(chance, home) }
}

pub fn pick_peer(chance: &mut Chance, v6: bool) -> IpAddr {
    if chance.percent(12) {
        return pick_server(chance, v6);
    }
    let peers: &[&str] = if v6 { &PEERS[7..] } else { &PEERS[..7] };
    let peer = ip(chance.pick(peers));
    if chance.percent(96) { peer } else { jiggle(chance, peer) }
}

pub fn pick_odd(chance: &mut Chance, v6: bool) -> IpAddr {
    ip(chance.pick(if v6 { &ODD[7..] } else { &ODD[..7] }))
}

/// Nearly the same address.
fn jiggle(chance: &mut Chance, address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() ^ 1 << chance.below(9)).into()),
        IpAddr::V6(address) => {
            let bit = if chance.percent(80) { chance.below(17) } else { chance.below(128) };
            IpAddr::V6((address.to_bits() ^ 1 << bit).into())
        }
    }
}

pub fn pick_port(chance: &mut Chance) -> u16 {
    match chance.below(40) {
        0 => chance.next() as u16,
        1 => 6000 + chance.below(70) as u16,
        _ => chance.pick(&PORTS),
    }
}

/// One of the ports that services are on, more often than not.
pub fn pick_service(chance: &mut Chance) -> u16 {
    if chance.percent(70) { chance.pick(&[22, 25, 53, 80, 443, 514, 6015]) } else { pick_port(chance) }
}

pub fn pick_client_port(chance: &mut Chance) -> u16 {
    if chance.percent(80) { chance.pick(&[40000, 51000, 51001, 53]) } else { pick_port(chance) }
}

/// The index of an interface of this thread's namespace; 0: there is none.
pub fn index_of(name: &str) -> u32 {
    if_nametoindex(name).unwrap_or(0)
}
