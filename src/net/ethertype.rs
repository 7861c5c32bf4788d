//! EtherTypes: what an Ethernet frame or a VLAN tag says of what follows.

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// A VLAN tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// The outer of two VLAN tags (802.1ad).
pub const QINQ: u16 = 0x88a8;
