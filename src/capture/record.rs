//! One packet of a capture, and what both formats need to read it.

use super::link_type::LinkType;

/// A packet or block that claims to be larger is taken for damage. The largest that tcpdump writes has 256 KiB.
pub(super) const MAX_RECORD_BYTES: usize = 1 << 24;

/// Nanoseconds since 1970.
pub type Timestamp = u64;

/// One packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured. `None`: the block has no time (a simple packet block).
    pub time_ns: Option<Timestamp>,
    /// The number of its interface in the capture, from 0.
    pub interface: u32,
    /// How many interfaces the capture has so far.
    pub interfaces: u32,
    /// How its bytes are to be read.
    pub link: LinkType,
    /// The bytes that were captured.
    pub data: &'a [u8],
    /// The bytes that it had on the wire.
    pub length: u32,
    /// Its number in the capture, from 1.
    pub number: u64,
}

/// What is wrong at a place, before the place is known.
pub(super) enum Flaw {
    /// The file ends here.
    Cut,
    /// Anything else.
    Bad(String),
}

impl Flaw {
    pub(super) fn bad(why: impl Into<String>) -> Flaw {
        Flaw::Bad(why.into())
    }
}

/// Two bytes at a place.
pub(super) fn read_u16(bytes: &[u8], at: usize, big_endian: bool) -> Option<u16> {
    let bytes = *bytes.get(at..)?.first_chunk()?;
    Some(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
}

/// Four bytes at a place.
pub(super) fn read_u32(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let bytes = *bytes.get(at..)?.first_chunk()?;
    Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}
