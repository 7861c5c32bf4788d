//! The format pcap: a header, and records with a header each.

use super::link_type::LinkType;
use super::record::{Flaw, MAX_RECORD_BYTES, Timestamp, read_u32};

/// The most that a record may have where the header names a smaller snaplen, as in libpcap.
const MAX_SNAPLEN: u32 = 262_144;
/// The bits of the link type's word that name the link type. Those above tell of a frame check sequence.
const LINK_BITS: u32 = 0x03ff_ffff;

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// The header of a file.
#[derive(Clone, Copy)]
pub(super) struct PcapHeader {
    big_endian: bool,
    /// Nanoseconds of one unit of time below a second.
    unit_ns: u64,
    snaplen: u32,
    pub(super) link: LinkType,
}

/// The header of a record.
pub(super) struct Record {
    pub(super) time_ns: Timestamp,
    pub(super) captured: usize,
    pub(super) length: u32,
}

impl PcapHeader {
    pub(super) const BYTES: usize = 24;
    pub(super) const RECORD_BYTES: usize = 16;

    /// The header at the beginning of a file. `None`: it is another format.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<PcapHeader>, Flaw> {
        let magic = |big_endian| match read_u32(bytes, 0, big_endian)? {
            MICROSECONDS => Some((big_endian, 1000)),
            NANOSECONDS => Some((big_endian, 1)),
            _ => None,
        };
        let Some((big_endian, unit_ns)) = magic(false).or_else(|| magic(true)) else {
            return match bytes.len() {
                0..4 => Err(Flaw::Cut),
                _ => Ok(None),
            };
        };
        let snaplen = read_u32(bytes, 16, big_endian).ok_or(Flaw::Cut)?;
        let link = read_u32(bytes, 20, big_endian).ok_or(Flaw::Cut)? & LINK_BITS;
        Ok(Some(PcapHeader { big_endian, unit_ns, snaplen, link: LinkType::of(link) }))
    }

    /// Reads the header of a record, whose bytes these are.
    pub(super) fn read_record(&self, bytes: &[u8]) -> Result<Record, Flaw> {
        let word = |at| read_u32(bytes, at, self.big_endian).ok_or(Flaw::Cut);
        let (seconds, fraction) = (word(0)?, word(4)?);
        let (captured, length) = (word(8)?, word(12)?);
        if captured > self.snaplen.max(MAX_SNAPLEN) || captured as usize > MAX_RECORD_BYTES {
            return Err(Flaw::bad(format!(
                "a packet of {captured} bytes is larger than the capture's limit"
            )));
        }
        let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.unit_ns;
        Ok(Record { time_ns, captured: captured as usize, length })
    }
}
