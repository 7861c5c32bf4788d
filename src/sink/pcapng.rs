//! Sampled packets as pcapng, for Wireshark: the beginning of each frame, its time to the nanosecond, and
//! the reason as its comment.

use std::borrow::Cow;
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};

use super::file::{LogFile, Rotation};
use super::{Event, EventFilter, Matter, Sink, Site};
use crate::drops::DropEvent;
use crate::escape::escape;
use crate::host::host_name;
use crate::policy::Alarms;

/// Timestamps count nanoseconds.
const TIMESTAMP_DIGITS: u8 = 9;

/// The file of the policy's key `pcapng`.
pub(super) fn from_policy(alarms: &Alarms, site: Site<'_>) -> Option<Box<dyn Sink>> {
    let path = alarms.pcapng.as_deref()?;
    Some(Box::new(Pcapng::over(path, site.interface, LogFile::from_policy(path, alarms))))
}

/// Appends packets to a file. Each daemon, and each reopening, adds a section of its own. Where daemons of several
/// interfaces share the file, so does each packet that follows another daemon's.
#[derive(Debug)]
pub struct Pcapng {
    name: String,
    interface: String,
    file: LogFile,
}

impl Pcapng {
    /// The file is made when the first sample comes.
    pub fn new(path: &str, interface: &str, rotation: Rotation) -> Pcapng {
        Pcapng::over(path, interface, LogFile::new(path, rotation))
    }

    fn over(path: &str, interface: &str, file: LogFile) -> Pcapng {
        // Writing to memory can't fail. If it did, no packet would be written without a section either.
        let preamble = start_section(interface).map(PcapNgWriter::into_inner).unwrap_or_default();
        Pcapng {
            name: format!("pcapng {path}"),
            interface: interface.to_owned(),
            file: file.with_folder().with_preamble(preamble),
        }
    }
}

impl Sink for Pcapng {
    fn name(&self) -> &str {
        &self.name
    }

    fn filter(&self) -> EventFilter {
        EventFilter::Drops
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        match &event.matter {
            // an event of the ledger has no frame
            Matter::Drop(drop) if !drop.frame.is_empty() => self.file.append(&render(drop, &self.interface)?),
            _ => Ok(()),
        }
    }

    fn try_out(&mut self) -> anyhow::Result<()> {
        self.file.reopen()
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        self.file.reopen()
    }
}

/// The blocks before packets: the host, the program that writes, and the interface.
fn start_section(interface: &str) -> pcap_file::PcapResult<PcapNgWriter<Vec<u8>>> {
    let section = SectionHeaderBlock {
        endianness: Endianness::Little,
        major_version: 1,
        minor_version: 0,
        section_length: -1,
        options: vec![
            SectionHeaderOption::Comment(Cow::Owned(format!("host {}", escape(host_name())))),
            SectionHeaderOption::UserApplication(Cow::Borrowed(concat!(
                "portcullis ",
                env!("CARGO_PKG_VERSION")
            ))),
        ],
    };
    let mut writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
    writer.write_pcapng_block(InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: 0,
        options: vec![
            InterfaceDescriptionOption::IfName(Cow::Owned(escape(interface).into_owned())),
            InterfaceDescriptionOption::IfTsResol(TIMESTAMP_DIGITS),
        ],
    })?;
    Ok(writer)
}

/// The block of one packet.
fn render(drop: &DropEvent, interface: &str) -> anyhow::Result<Vec<u8>> {
    // The writer wants the interface first. The blocks before the packet are cut off again.
    let mut writer = start_section(interface)?;
    let before = writer.get_ref().len();
    let captured = u32::try_from(drop.frame.len())?;
    // any bytes may have been decoded as a sample, with any time
    let time_ns = drop.time.as_nanosecond().clamp(0, u64::MAX.into());
    writer.write_pcapng_block(EnhancedPacketBlock {
        interface_id: 0,
        timestamp: Duration::from_nanos(u64::try_from(time_ns)?),
        original_len: drop.length.unwrap_or(captured).max(captured),
        data: Cow::Borrowed(&drop.frame),
        options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment(drop)))],
    })?;
    Ok(writer.into_inner().split_off(before))
}

fn comment(drop: &DropEvent) -> String {
    let server = escape(drop.server_name().unwrap_or("an unknown host")).into_owned();
    let more = match drop.drops {
        0 | 1 => String::new(),
        drops => format!(", {drops} such drops since the last sample"),
    };
    format!("{} {}: {server} {}{more}", drop.verdict.name(), drop.reason, drop.service())
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::drops::ServerRef;
    use crate::drops::example::syn;

    #[test]
    fn packets_of_two_sections_are_read_back_with_interface_time_and_reason() {
        let mut drop = syn();
        drop.frame = vec![0xab; 61];
        drop.length = Some(1500);
        drop.time = "2026-11-22T15:00:00.123456789Z".parse().unwrap();
        drop.drops = 7;
        drop.server = Some(ServerRef { id: 1, name: "w\n\u{1b}1".into() });
        let section = start_section("dmz0").unwrap().into_inner();
        let packet = render(&drop, "dmz0").unwrap();
        let file = [&section[..], &packet, &packet, &section, &packet].concat();

        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let host = SectionHeaderOption::Comment(format!("host {}", host_name()).into());
        assert!(reader.section().options.contains(&host), "{:?}", reader.section());
        let mut packets = 0;
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(interface) => {
                    assert!(interface.options.contains(&InterfaceDescriptionOption::IfName("dmz0".into())));
                }
                Block::EnhancedPacket(found) => {
                    packets += 1;
                    assert_eq!(found.timestamp, Duration::new(1_795_359_600, 123_456_789));
                    assert_eq!((found.original_len, &*found.data), (1500, &drop.frame[..]));
                    let comment = r"drop new_flow: w\u{a}\u{1b}1 tcp/445, 7 such drops since the last sample";
                    assert_eq!(found.options, [EnhancedPacketOption::Comment(comment.into())]);
                }
                _ => {}
            }
        }
        assert_eq!(packets, 3);
    }

    #[test]
    fn two_daemons_that_share_a_file_label_each_packet_with_their_own_interface() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drops.pcapng");
        let rotation = Rotation { size: 0, keep: 0 };
        let mut sinks =
            ["dmz0", "dmz1"].map(|interface| Pcapng::new(&path.display().to_string(), interface, rotation));
        let order = [0, 0, 1, 0, 1, 1, 1, 0];
        for (length, which) in order.into_iter().enumerate() {
            let mut drop = syn();
            drop.frame = vec![0xab; 60 + length];
            sinks[which].write(&Event::of_drop(drop)).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let (mut interface, mut found) = (String::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(description) => {
                    for option in &description.options {
                        if let InterfaceDescriptionOption::IfName(name) = option {
                            interface = name.to_string();
                        }
                    }
                }
                Block::EnhancedPacket(packet) => found.push((packet.data.len(), interface.clone())),
                _ => {}
            }
        }
        let expected: Vec<_> = order
            .into_iter()
            .enumerate()
            .map(|(length, which)| (60 + length, format!("dmz{which}")))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_time_beyond_the_format_and_a_wrong_length_do_no_harm() {
        for (time, written) in
            [(jiff::Timestamp::MIN, Duration::ZERO), (jiff::Timestamp::MAX, Duration::from_nanos(u64::MAX))]
        {
            let mut drop = syn();
            drop.frame = vec![0; 128];
            drop.length = Some(1);
            drop.time = time;
            let packet = render(&drop, "dmz0").unwrap();
            let file = [start_section("dmz0").unwrap().into_inner(), packet].concat();
            let mut reader = PcapNgReader::new(&file[..]).unwrap();
            reader.next_block().unwrap().unwrap();
            let Block::EnhancedPacket(found) = reader.next_block().unwrap().unwrap() else {
                panic!("a packet")
            };
            assert_eq!((found.timestamp, found.original_len), (written, 128));
        }
    }
}
