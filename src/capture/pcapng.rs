//! The format pcapng: sections of blocks (draft-ietf-opsawg-pcapng).

use super::link_type::LinkType;
use super::record::{Flaw, MAX_RECORD_BYTES, Timestamp, read_u16, read_u32};

/// Type and length stand at the beginning of a block.
pub(super) const BODY_AT: usize = 8;
/// Type, length, and in a section header the order of bytes.
pub(super) const HEAD_BYTES: usize = 12;
/// The length stands once more at the end.
const TRAILER_BYTES: usize = 4;
/// Interfaces of a section at most: each takes memory for as long as the section lasts.
const MAX_INTERFACES: usize = 65_536;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// A section of a file.
pub(super) struct Section {
    pub(super) big_endian: bool,
    pub(super) interfaces: Vec<Interface>,
}

impl Section {
    pub(super) fn add(&mut self, interface: Interface) -> Result<(), Flaw> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(Flaw::bad(format!("a section has more than {MAX_INTERFACES} interfaces")));
        }
        self.interfaces.push(interface);
        Ok(())
    }

    pub(super) fn find(&self, number: u32) -> Result<&Interface, Flaw> {
        let interface = self.interfaces.get(number as usize);
        interface.ok_or_else(|| Flaw::bad(format!("a packet names interface {number}, which does not exist")))
    }
}

/// An interface of a section.
pub(super) struct Interface {
    pub(super) link: LinkType,
    /// 0: no limit.
    snaplen: u32,
    /// Units of time in a second.
    resolution: u64,
    /// Seconds to add to each time.
    offset_s: i64,
}

impl Interface {
    /// The bytes that a simple packet block has of a packet of this length.
    pub(super) fn cut(&self, length: u32, room: usize) -> usize {
        let captured = if self.snaplen == 0 { length } else { length.min(self.snaplen) };
        (captured as usize).min(room)
    }

    pub(super) fn to_time_ns(&self, units: u64) -> Timestamp {
        const NS_PER_S: i128 = 1_000_000_000;
        let ns = i128::from(units) * NS_PER_S / i128::from(self.resolution);
        let ns = ns + i128::from(self.offset_s) * NS_PER_S;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// A packet of a block.
pub(super) struct BlockPacket {
    pub(super) interface: u32,
    /// Its time in units of its interface.
    pub(super) units: Option<u64>,
    /// `None`: what the interface's snaplen leaves.
    pub(super) captured: Option<usize>,
    pub(super) length: u32,
    /// Where its bytes begin in the body, and how many there are at most.
    pub(super) data_at: usize,
    pub(super) room: usize,
}

/// One block.
pub(super) enum Block {
    /// A new section, and whether its numbers are big-endian.
    Section(bool),
    Interface(Interface),
    Packet(BlockPacket),
    /// Statistics, names, secrets, and what later versions have.
    Other,
}

/// Whether a file begins as pcapng.
pub(super) fn is_section(bytes: &[u8]) -> bool {
    read_u32(bytes, 0, false) == Some(SECTION)
}

/// The length of a block, of which these are the first bytes.
pub(super) fn read_length(head: &[u8], big_endian: bool) -> Result<usize, Flaw> {
    let big_endian = if is_section(head) { read_order(head)? } else { big_endian };
    let length = read_u32(head, 4, big_endian).ok_or(Flaw::Cut)? as usize;
    if !length.is_multiple_of(4) || length < HEAD_BYTES {
        return Err(Flaw::bad(format!("a block can't have {length} bytes")));
    }
    if length > MAX_RECORD_BYTES {
        return Err(Flaw::bad(format!("a block of {length} bytes is larger than any that is written")));
    }
    Ok(length)
}

fn read_order(head: &[u8]) -> Result<bool, Flaw> {
    const MAGIC: u32 = 0x1a2b_3c4d;
    match (read_u32(head, 8, false), read_u32(head, 8, true)) {
        (Some(MAGIC), _) => Ok(false),
        (_, Some(MAGIC)) => Ok(true),
        _ => Err(Flaw::bad("a section header does not say its order of bytes")),
    }
}

impl Block {
    /// Reads a whole block.
    pub(super) fn read(block: &[u8], big_endian: bool) -> Result<Block, Flaw> {
        let section = is_section(block);
        let big_endian = if section { read_order(block)? } else { big_endian };
        let word = |at| read_u32(block, at, big_endian).ok_or(Flaw::Cut);
        let end = block.len().saturating_sub(TRAILER_BYTES);
        if word(4)? != word(end)? {
            return Err(Flaw::bad("a block has another length at its end than at its beginning"));
        }
        if section {
            let major = read_u16(block, 12, big_endian);
            return match major {
                Some(1) => Ok(Block::Section(big_endian)),
                Some(major) => Err(Flaw::bad(format!("version {major} of pcapng is not known"))),
                None => Err(Flaw::bad("a section header is too short")),
            };
        }
        let body = block.get(BODY_AT..end).unwrap_or_default();
        let short = || Flaw::bad("a block is too short for its kind");
        let number = |at| read_u32(body, at, big_endian).ok_or_else(short);
        match word(0)? {
            INTERFACE => {
                let link = u32::from(read_u16(body, 0, big_endian).ok_or_else(short)?);
                let options = body.get(8..).ok_or_else(short)?;
                let (resolution, offset_s) = read_times(options, big_endian);
                let link = LinkType::of(link);
                Ok(Block::Interface(Interface { link, snaplen: number(4)?, resolution, offset_s }))
            }
            kind @ (ENHANCED_PACKET | OLD_PACKET) => {
                let interface = match kind {
                    ENHANCED_PACKET => number(0)?,
                    _ => u32::from(read_u16(body, 0, big_endian).ok_or_else(short)?),
                };
                let units = u64::from(number(4)?) << 32 | u64::from(number(8)?);
                let (captured, length) = (number(12)? as usize, number(16)?);
                let room = body.len().saturating_sub(20);
                if captured > room {
                    return Err(Flaw::bad(format!("a packet of {captured} bytes does not fit its block")));
                }
                let captured = Some(captured);
                Ok(Block::Packet(BlockPacket {
                    interface,
                    units: Some(units),
                    captured,
                    length,
                    data_at: 20,
                    room,
                }))
            }
            SIMPLE_PACKET => {
                let (length, room) = (number(0)?, body.len().saturating_sub(4));
                Ok(Block::Packet(BlockPacket {
                    interface: 0,
                    units: None,
                    captured: None,
                    length,
                    data_at: 4,
                    room,
                }))
            }
            _ => Ok(Block::Other),
        }
    }
}

/// The units of time in a second, and the seconds to add. Options that can't be read are left out.
fn read_times(options: &[u8], big_endian: bool) -> (u64, i64) {
    let (mut resolution, mut offset_s) = (1_000_000, 0);
    let mut rest = options;
    while let (Some(code), Some(length)) = (read_u16(rest, 0, big_endian), read_u16(rest, 2, big_endian)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..4 + length) else { break };
        match (code, value) {
            (OPTION_END, _) => break,
            (OPTION_RESOLUTION, [exponent]) => {
                let power = u32::from(exponent & 0x7f);
                let base: u64 = if exponent & 0x80 == 0 { 10 } else { 2 };
                // finer than 2^63 of a second: no clock is
                resolution = base.checked_pow(power).unwrap_or(u64::MAX);
            }
            (OPTION_OFFSET, value) => {
                if let Ok(bytes) = value.try_into() {
                    offset_s = if big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                }
            }
            _ => {}
        }
        rest = rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
    }
    (resolution, offset_s)
}
