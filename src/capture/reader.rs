//! Reads one capture as a stream.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context as _;

use super::link_type::LinkType;
use super::pcap::PcapHeader;
use super::pcapng::{self, Block, Section};
use super::record::{Flaw, Packet, Timestamp};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 18;
/// The place from which on a capture can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Name of the file.
    pub file: String,
    /// Byte of the file at which the damaged record begins.
    pub offset: u64,
    /// Packets that were read before.
    pub packets: u64,
    /// What is wrong there.
    pub why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, offset, packets, why } = self;
        write!(out, "{file}: damaged at byte {offset}, after packet {packets}: {why}")
    }
}

enum Format {
    Unknown,
    Pcap(PcapHeader),
    PcapNg(Section),
}

/// A capture that is read from the beginning to its end, or to where it is damaged.
pub struct CaptureReader {
    input: Box<dyn Read>,
    name: String,
    /// What was read and not yet used: `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    /// Of `buffer[start]` in the file.
    offset: u64,
    at_end: bool,
    format: Format,
    packets: u64,
    /// The interfaces of earlier sections of pcapng.
    earlier_interfaces: u32,
    is_over: bool,
}

impl CaptureReader {
    /// Opens a file. `-` is standard input.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path) -> anyhow::Result<CaptureReader> {
        if path == Path::new("-") {
            return Ok(CaptureReader::new("<stdin>".to_owned(), Box::new(io::stdin())));
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("could not read the capture {name}"))?;
        Ok(CaptureReader::new(name, Box::new(file)))
    }

    /// Reads from anywhere. `name` is for messages.
    pub fn new(name: String, input: Box<dyn Read>) -> CaptureReader {
        CaptureReader {
            input,
            name,
            buffer: Vec::new(),
            start: 0,
            offset: 0,
            at_end: false,
            format: Format::Unknown,
            packets: 0,
            earlier_interfaces: 0,
            is_over: false,
        }
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next packet. `None`: the capture is over.
    ///
    /// # Errors
    /// When the file can't be read from here on. The next call says that it is over.
    pub fn read(&mut self) -> Result<Option<Packet<'_>>, Damage> {
        if self.is_over {
            return Ok(None);
        }
        match self.find_packet() {
            Ok(Some(found)) => {
                self.packets += 1;
                let data = self.buffer.get(found.data).unwrap_or_default();
                let length = found.length.max(u32::try_from(data.len()).unwrap_or(u32::MAX));
                Ok(Some(Packet {
                    time_ns: found.time_ns,
                    interface: found.interface,
                    interfaces: found.interfaces,
                    link: found.link,
                    data,
                    length,
                    number: self.packets,
                }))
            }
            Ok(None) => {
                self.is_over = true;
                Ok(None)
            }
            Err(flaw) => {
                self.is_over = true;
                let why = match flaw {
                    Flaw::Cut => "the file ends in the middle of it".to_owned(),
                    Flaw::Bad(why) => why,
                };
                let (file, offset, packets) = (self.name.clone(), self.offset, self.packets);
                Err(Damage { file, offset, packets, why })
            }
        }
    }

    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn find_packet(&mut self) -> Result<Option<Found>, Flaw> {
        loop {
            if matches!(self.format, Format::Unknown) {
                self.find_format()?;
            }
            // A record that is used is taken out of the buffer when the next one is asked for.
            match &self.format {
                Format::Unknown => return Ok(None),
                Format::Pcap(header) => {
                    let header = *header;
                    if !self.has_more()? {
                        return Ok(None);
                    }
                    let head = header.read_record(self.need(PcapHeader::RECORD_BYTES)?)?;
                    self.need(PcapHeader::RECORD_BYTES + head.captured)?;
                    let from = self.start + PcapHeader::RECORD_BYTES;
                    self.skip(PcapHeader::RECORD_BYTES + head.captured);
                    return Ok(Some(Found {
                        time_ns: Some(head.time_ns),
                        interface: 0,
                        interfaces: 1,
                        link: header.link,
                        data: from..from + head.captured,
                        length: head.length,
                    }));
                }
                Format::PcapNg(section) => {
                    let big_endian = section.big_endian;
                    if !self.has_more()? {
                        return Ok(None);
                    }
                    if let Some(found) = self.read_block(big_endian)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
    }

    /// Reads one block. `None`: it is no packet.
    fn read_block(&mut self, big_endian: bool) -> Result<Option<Found>, Flaw> {
        let length = pcapng::read_length(self.need(pcapng::HEAD_BYTES)?, big_endian)?;
        let block = self.need(length)?;
        let block = Block::read(block, big_endian)?;
        let body = self.start + pcapng::BODY_AT;
        let found = match block {
            Block::Section(big_endian) => {
                if let Format::PcapNg(section) = &mut self.format {
                    let before = u32::try_from(section.interfaces.len()).unwrap_or(u32::MAX);
                    self.earlier_interfaces = self.earlier_interfaces.saturating_add(before);
                    *section = Section { big_endian, interfaces: Vec::new() };
                }
                None
            }
            Block::Interface(interface) => {
                if let Format::PcapNg(section) = &mut self.format {
                    section.add(interface)?;
                }
                None
            }
            Block::Packet(packet) => {
                let Format::PcapNg(section) = &self.format else { return Ok(None) };
                let interface = section.find(packet.interface)?;
                let captured = packet.captured.unwrap_or_else(|| interface.cut(packet.length, packet.room));
                let from = body + packet.data_at;
                Some(Found {
                    time_ns: packet.units.map(|units| interface.to_time_ns(units)),
                    interface: self.earlier_interfaces.saturating_add(packet.interface),
                    interfaces: u32::try_from(section.interfaces.len()).unwrap_or(u32::MAX),
                    link: interface.link,
                    data: from..from + captured,
                    length: packet.length,
                })
            }
            Block::Other => None,
        };
        self.skip(length);
        Ok(found)
    }

    fn find_format(&mut self) -> Result<(), Flaw> {
        self.fill(PcapHeader::BYTES)?;
        let bytes = self.unread();
        if bytes.is_empty() {
            return Err(Flaw::bad("the file is empty"));
        }
        if let Some(kind) = recognise_compression(bytes) {
            return Err(Flaw::bad(format!("it is compressed by {kind}: decompress it first")));
        }
        if pcapng::is_section(bytes) {
            // The first block is read as any other. It says itself which order of bytes it has.
            self.format = Format::PcapNg(Section { big_endian: false, interfaces: Vec::new() });
            return Ok(());
        }
        match PcapHeader::read(bytes)? {
            Some(header) => {
                self.skip(PcapHeader::BYTES);
                self.format = Format::Pcap(header);
                Ok(())
            }
            None => Err(Flaw::bad("it is neither pcap nor pcapng")),
        }
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Whether there is another byte.
    fn has_more(&mut self) -> Result<bool, Flaw> {
        self.fill(1)?;
        Ok(!self.unread().is_empty())
    }

    /// The next `count` bytes.
    fn need(&mut self, count: usize) -> Result<&[u8], Flaw> {
        self.fill(count)?;
        self.unread().get(..count).ok_or(Flaw::Cut)
    }

    /// Has at least `count` bytes in the buffer, unless the file ends before.
    fn fill(&mut self, count: usize) -> Result<(), Flaw> {
        while self.buffer.len() - self.start < count && !self.at_end {
            self.buffer.drain(..self.start);
            self.start = 0;
            let before = self.buffer.len();
            self.buffer.resize(before + CHUNK_BYTES.max(count - before), 0);
            let room = self.buffer.get_mut(before..).unwrap_or_default();
            let got = match self.input.read(room) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.buffer.truncate(before);
                    continue;
                }
                Err(error) => {
                    self.buffer.truncate(before);
                    return Err(Flaw::bad(format!("it can't be read: {error}")));
                }
            };
            self.buffer.truncate(before + got);
            self.at_end = got == 0;
        }
        Ok(())
    }

    fn skip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
        self.offset += count as u64;
    }
}

/// A packet in the buffer.
struct Found {
    time_ns: Option<Timestamp>,
    interface: u32,
    interfaces: u32,
    link: LinkType,
    data: std::ops::Range<usize>,
    length: u32,
}

fn recognise_compression(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    ];
    kinds.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| kind)
}
