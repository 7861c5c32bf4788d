//! The DMZ that most tests play in: a policy and the addresses of its actors, in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frame::Endpoint;

/// A web server and a name server, as most DMZs have them.
pub const POLICY: &str = r#"
[policy]
management = ["tcp/22 from @bastion"]

[sets]
bastion  = ["203.0.113.7", "2001:db8:f::/64"]
loghosts = ["198.51.100.20", "198.51.100.21", "2001:db8:2::20"]

[roles.web]
in = ["tcp/80", "tcp/443", "icmp/echo-request", "icmpv6/echo-request"]

[roles.dns]
in  = ["udp/53", "tcp/53"]
out = ["udp/53", "tcp/53"]

[roles.managed]
out   = ["udp/514 to @loghosts", "tcp/6514 to @loghosts"]
quiet = ["udp/137-138", "udp/5353"]

[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["web", "managed"]

[servers.ns1]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = ["dns"]
"#;

/// The actors of [`POLICY`] in one address family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `in` tcp/80, tcp/443, ping; `out` to the log hosts; `quiet` NetBIOS and mDNS.
    pub web: IpAddr,
    /// `in` and `out` udp/53 and tcp/53.
    pub ns: IpAddr,
    /// Somebody on the internet.
    pub peer: IpAddr,
    /// Somebody else there.
    pub other: IpAddr,
    /// The management's host.
    pub bastion: IpAddr,
    /// In the set `loghosts`.
    pub loghost: IpAddr,
    /// In the DMZ's subnet, and no server.
    pub unknown: IpAddr,
}

impl Family {
    /// A peer's connection to the web server: the ends of server and peer.
    pub fn visit(&self) -> (Endpoint, Endpoint) {
        ((self.web, 80), (self.peer, 51_000))
    }

    /// A peer's question to the name server: the ends of server and peer.
    pub fn question(&self) -> (Endpoint, Endpoint) {
        ((self.ns, 53), (self.peer, 51_000))
    }
}

pub const V4: Family = Family {
    web: v4(192, 0, 2, 10),
    ns: v4(192, 0, 2, 53),
    peer: v4(203, 0, 113, 50),
    other: v4(203, 0, 113, 51),
    bastion: v4(203, 0, 113, 7),
    loghost: v4(198, 51, 100, 20),
    unknown: v4(192, 0, 2, 99),
};

pub const V6: Family = Family {
    web: v6(0x2001_0db8_0001_0000, 0x10),
    ns: v6(0x2001_0db8_0001_0000, 0x53),
    peer: v6(0x2001_0db8_0050_0000, 0x50),
    other: v6(0x2001_0db8_0050_0000, 0x51),
    bastion: v6(0x2001_0db8_000f_0000, 0x7),
    loghost: v6(0x2001_0db8_0002_0000, 0x20),
    unknown: v6(0x2001_0db8_0001_0000, 0x99),
};

pub const FAMILIES: [Family; 2] = [V4, V6];

/// Does the same in both families, and says in which one it failed.
pub fn in_both_families(test: impl FnMut(Family)) {
    in_each(FAMILIES, |family| family.web, test);
}

/// Does the same with both of two families' actors; `address` is one of theirs.
pub fn in_each<F: Copy>(families: [F; 2], address: impl Fn(F) -> IpAddr, mut test: impl FnMut(F)) {
    struct Reminder(&'static str);
    impl Drop for Reminder {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this was in {}", self.0);
            }
        }
    }
    for family in families {
        let _reminder = Reminder(if address(family).is_ipv4() { "IPv4" } else { "IPv6" });
        test(family);
    }
}

/// An IPv4 address.
pub const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// An IPv6 address by its two halves.
pub const fn v6(network: u64, host: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits((network as u128) << 64 | host as u128))
}

/// The address that `text` spells.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
