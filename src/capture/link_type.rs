//! Link types, by the numbers that captures have for them.

/// How the bytes of a packet are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// Ethernet.
    Ethernet,
    /// Linux cooked v1, as `tcpdump -i any` wrote it for long.
    Cooked,
    /// Linux cooked v2, which has the index of the interface.
    Cooked2,
    /// An IP packet, without anything before it.
    RawIp,
    /// An address family in the order of bytes of the machine, before the IP packet.
    Null,
    /// An address family in network order, before the IP packet.
    Loop,
    /// Any other: none of its packets is read.
    Other(u32),
}

/// The link types that are read, as a sentence names them.
pub const LINK_TYPES: &str = "Ethernet, Linux cooked v1 and v2, raw IP, and BSD loopback";

impl LinkType {
    /// By the number of LINKTYPE_*, or by those of DLT_* that some files have.
    pub(super) fn of(number: u32) -> LinkType {
        match number {
            0 => LinkType::Null,
            1 => LinkType::Ethernet,
            12 | 14 | 101 | 228 | 229 => LinkType::RawIp,
            108 => LinkType::Loop,
            113 => LinkType::Cooked,
            276 => LinkType::Cooked2,
            other => LinkType::Other(other),
        }
    }
}
