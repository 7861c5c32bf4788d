//! Captures that pcap-file writes, and blocks that only a hand writes.

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::net::IpAddr;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, Endianness, TsResolution};

use super::*;
use crate::net::{Probe, TCP, UDP};

const TIMES_NS: [u64; 3] = [1_764_493_200_123_456_000, 1_764_493_200_999_999_000, 1_764_493_201_000_001_000];
const ENDS: [Endianness; 2] = [Endianness::Little, Endianness::Big];

fn probe(source: &str, destination: &str) -> Vec<u8> {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let (source_port, destination_port) = (40_000, 80);
    let source_mac = [2, 0, 0, 0, 0, 0x10];
    Probe {
        source,
        destination,
        protocol: TCP,
        source_port,
        destination_port,
        tcp_flags: 2,
        source_mac,
        vlan: None,
    }
    .to_frame()
    .unwrap()
}

fn reader(bytes: &[u8]) -> CaptureReader {
    CaptureReader::new("test".to_owned(), Box::new(Cursor::new(bytes.to_vec())))
}

fn write_pcap(link: DataLink, endianness: Endianness, unit: TsResolution, packets: &[Vec<u8>]) -> Vec<u8> {
    let header = PcapHeader { datalink: link, endianness, ts_resolution: unit, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (data, time_ns) in packets.iter().zip(TIMES_NS.iter().cycle()) {
        let packet = PcapPacket::new(Duration::from_nanos(*time_ns), data.len() as u32, data);
        writer.write_packet(&packet).unwrap();
    }
    writer.into_writer()
}

/// `units`: the times in units of the resolution, a packet each.
fn write_pcapng(endianness: Endianness, resolution: Option<u8>, units: &[u64], data: &[u8]) -> Vec<u8> {
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
    let options = resolution.map(InterfaceDescriptionOption::IfTsResol).into_iter().collect();
    let linktype = DataLink::ETHERNET;
    writer.write_pcapng_block(InterfaceDescriptionBlock { linktype, snaplen: 0, options }).unwrap();
    for units in units {
        writer
            .write_pcapng_block(EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_nanos(*units),
                original_len: data.len() as u32,
                data: Cow::Borrowed(data),
                options: Vec::new(),
            })
            .unwrap();
    }
    writer.into_inner()
}

/// All packets, and the damage if there is one.
fn read_all(bytes: &[u8]) -> (Vec<(u64, Vec<u8>)>, Option<Damage>) {
    let mut reader = reader(bytes);
    let mut packets = Vec::new();
    loop {
        match reader.read() {
            Ok(Some(packet)) => packets.push((packet.time_ns.unwrap_or(0), packet.data.to_vec())),
            Ok(None) => return (packets, None),
            Err(damage) => {
                assert_eq!(reader.read(), Ok(None), "after damage it is over");
                return (packets, Some(damage));
            }
        }
    }
}

#[test]
fn pcap_of_both_orders_of_bytes_and_both_units_comes_back() {
    let data = vec![probe("192.0.2.10", "198.51.100.7"), vec![7; 60], vec![8; 1514]];
    for endianness in ENDS {
        for unit in [TsResolution::MicroSecond, TsResolution::NanoSecond] {
            let (packets, damage) = read_all(&write_pcap(DataLink::ETHERNET, endianness, unit, &data));
            assert_eq!(damage, None);
            let expected: Vec<_> = TIMES_NS.into_iter().zip(data.clone()).collect();
            assert_eq!(packets, expected, "{endianness:?} {unit:?}");
        }
    }
}

#[test]
fn pcapng_of_both_orders_of_bytes_and_any_resolution_comes_back() {
    for endianness in ENDS {
        for (resolution, per_second) in [
            (None, 1_000_000),
            (Some(6), 1_000_000),
            (Some(9), 1_000_000_000),
            (Some(3), 1000),
            (Some(0x8a), 1024),
        ] {
            let seconds = 1_764_493_200_u64;
            let units = [seconds * per_second, seconds * per_second + per_second / 2];
            let (packets, damage) = read_all(&write_pcapng(endianness, resolution, &units, &[9; 61]));
            assert_eq!(damage, None);
            let whole = seconds * 1_000_000_000;
            let expected = vec![(whole, vec![9; 61]), (whole + 500_000_000, vec![9; 61])];
            assert_eq!(packets, expected, "{endianness:?} {resolution:?}");
        }
    }
}

/// A block as it stands in a file, little-endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let length = (12 + body.len() + padding.len()) as u32;
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), body, &padding, &length.to_le_bytes()].concat()
}

fn section() -> Vec<u8> {
    let magic = 0x1a2b_3c4d_u32.to_le_bytes();
    block(0x0a0d_0d0a, &[&magic[..], &[1, 0, 0, 0], &[0xff; 8]].concat())
}

fn interface(link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
    block(1, &[&link.to_le_bytes()[..], &[0, 0], &snaplen.to_le_bytes(), options].concat())
}

fn enhanced(interface: u32, captured: u32, data: &[u8]) -> Vec<u8> {
    let words = [interface, 0, 1_000_000, captured, data.len() as u32].map(u32::to_le_bytes).concat();
    block(6, &[&words[..], data].concat())
}

#[test]
fn a_time_has_the_offset_of_its_interface() {
    let offset = [14, 0, 8, 0, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]; // -10 s
    let words = [0, 0, 20_000_000, 4, 4].map(u32::to_le_bytes).concat();
    let packet = block(6, &[&words[..], &[1, 2, 3, 4]].concat());
    let (packets, damage) = read_all(&[section(), interface(1, 0, &offset), packet].concat());
    assert_eq!((packets, damage), (vec![(10_000_000_000, vec![1, 2, 3, 4])], None));
}

#[test]
fn simple_and_old_packet_blocks_and_unknown_blocks_are_read() {
    let simple = block(3, &[&8_u32.to_le_bytes()[..], &[5; 6], &[0, 0]].concat());
    let old =
        [&[0, 0, 0, 0][..], &[0, 0, 0, 0, 0x40, 0x42, 0x0f, 0], &[3, 0, 0, 0, 3, 0, 0, 0], &[6; 3]].concat();
    let bytes = [section(), interface(1, 6, &[]), simple, block(0xbad, &[1; 7]), block(2, &old)].concat();
    let (packets, damage) = read_all(&bytes);
    assert_eq!((packets, damage), (vec![(0, vec![5; 6]), (1_000_000_000, vec![6; 3])], None));
}

#[test]
fn each_section_has_interfaces_of_its_own() {
    let one = [section(), interface(1, 0, &[]), interface(113, 0, &[]), enhanced(1, 4, &[1; 4])].concat();
    let other = [section(), interface(101, 0, &[]), enhanced(0, 4, &[2; 4])].concat();
    let bytes = [one, other].concat();
    let mut reader = reader(&bytes);
    let first = reader.read().unwrap().map(|packet| (packet.link, packet.interface, packet.interfaces));
    assert_eq!(first, Some((LinkType::Cooked, 1, 2)));
    let second = reader.read().unwrap().map(|packet| (packet.link, packet.interface, packet.number));
    assert_eq!(second, Some((LinkType::RawIp, 2, 2)));
}

/// The ends of the records of a file: there a cut is no damage that anybody could see.
fn check_truncation(bytes: &[u8], packets: usize) {
    let mut clean = Vec::new();
    for length in 0..=bytes.len() {
        let (read, damage) = read_all(&bytes[..length]);
        assert!(read.len() <= packets);
        match damage {
            None => clean.push((length, read.len())),
            Some(damage) => {
                assert!(damage.offset as usize <= length, "{damage} of {length}");
                assert_eq!(damage.packets as usize, read.len());
                // the place is the end of what was read whole
                let (again, whole) = read_all(&bytes[..damage.offset as usize]);
                assert_eq!(again, read);
                assert!(whole.is_none() || damage.offset == 0, "{damage}");
            }
        }
    }
    assert_eq!(clean.last(), Some(&(bytes.len(), packets)));
}

#[test]
fn a_file_that_is_cut_at_any_byte_gives_what_is_whole_and_the_place() {
    let data = vec![vec![1; 60], vec![2; 61], vec![3; 5]];
    for endianness in ENDS {
        check_truncation(&write_pcap(DataLink::ETHERNET, endianness, TsResolution::MicroSecond, &data), 3);
        check_truncation(&write_pcapng(endianness, Some(9), &[1, 2, 3], &[4; 62]), 3);
    }
}

#[test]
fn damage_is_said_with_its_byte_and_what_is_wrong() {
    let good = [section(), interface(1, 0, &[]), enhanced(0, 4, &[1; 4])].concat();
    let mut trailer = enhanced(0, 4, &[1; 4]);
    *trailer.last_mut().unwrap() = 1;
    let mut length = enhanced(0, 4, &[1; 4]);
    length[4] = 13;
    let mut huge = enhanced(0, 4, &[1; 4]);
    huge[7] = 0x7f;
    for (bad, words) in [
        (trailer, "another length at its end"),
        (length, "a block can't have 13 bytes"),
        (huge, "larger than any"),
        (enhanced(3, 4, &[1; 4]), "interface 3, which does not exist"),
        (enhanced(0, 40, &[1; 4]), "a packet of 40 bytes does not fit its block"),
        (block(6, &[0; 8]), "too short for its kind"),
        (block(0x0a0d_0d0a, &[0; 16]), "order of bytes"),
    ] {
        let (packets, damage) = read_all(&[good.clone(), bad, good.clone()].concat());
        let damage = damage.expect(words);
        assert_eq!((packets.len(), damage.offset, damage.packets), (1, good.len() as u64, 1), "{words}");
        assert!(damage.why.contains(words), "{damage}");
    }
    let mut pcap =
        write_pcap(DataLink::ETHERNET, Endianness::Little, TsResolution::MicroSecond, &[vec![1; 60]]);
    let at = pcap.len() as u64;
    pcap.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0]);
    let damage = read_all(&pcap).1.unwrap();
    assert_eq!((damage.offset, damage.packets), (at, 1));
    assert_eq!(
        damage.to_string(),
        format!(
            "test: damaged at byte {at}, after packet 1: a packet of 2130706432 bytes is larger than the capture's limit"
        )
    );
}

#[test]
fn what_is_no_capture_is_refused_with_a_reason() {
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"\x1f\x8b\x08\x00rest", "gzip: decompress"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"GIF89a and so on", "neither pcap nor pcapng"),
    ] {
        let (packets, damage) = read_all(bytes);
        assert!(packets.is_empty());
        assert!(damage.unwrap().why.contains(words), "{words}");
    }
}

#[test]
fn whatever_bytes_a_file_has_reading_ends_and_takes_bounded_memory() {
    let data = vec![probe("192.0.2.10", "198.51.100.7"); 4];
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let files = [
        write_pcap(DataLink::ETHERNET, Endianness::Little, TsResolution::MicroSecond, &data),
        write_pcapng(Endianness::Big, Some(6), &[1, 2, 3, 4], &data[0]),
    ];
    for _ in 0..4000 {
        let mut bytes = files[draw(2)].clone();
        for _ in 0..=draw(4) {
            let at = draw(bytes.len());
            bytes[at] = draw(256) as u8;
        }
        let mut reader = reader(&bytes);
        let mut frame = Frame::default();
        let mut packets = 0;
        while let Ok(Some(packet)) = reader.read() {
            frame.take(&packet, 0, 0);
            packets += 1;
            assert!(packets <= bytes.len());
        }
    }
}

/// An input that never ends, and that counts what was read of it.
struct Endless(usize);

impl Read for Endless {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        const RECORD: [u8; 76] = {
            let mut record = [0; 76];
            (record[8], record[12]) = (60, 60);
            record
        };
        for byte in room.iter_mut() {
            let at = self.0;
            let header = write_header();
            *byte = if at < 24 { header[at] } else { RECORD[(at - 24) % 76] };
            self.0 += 1;
        }
        Ok(room.len())
    }
}

const fn write_header() -> [u8; 24] {
    [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]
}

#[test]
fn a_long_capture_takes_no_more_memory_than_its_packets() {
    let mut reader = CaptureReader::new("endless".to_owned(), Box::new(Endless(0)));
    for _ in 0..20_000 {
        assert_eq!(reader.read().unwrap().unwrap().data.len(), 60);
    }
    assert!(reader.buffered_bytes() < 1 << 20);
}

fn frame_of(link: DataLink, data: &[u8], length: u32) -> Frame {
    let mut bytes = write_pcap(link, Endianness::Little, TsResolution::MicroSecond, &[data.to_vec()]);
    bytes[36..40].copy_from_slice(&length.to_le_bytes());
    let mut reader = reader(&bytes);
    let mut frame = Frame::default();
    frame.take(&reader.read().unwrap().unwrap(), 0, 0);
    frame
}

fn frame_in(link: DataLink, data: &[u8]) -> Frame {
    frame_of(link, data, data.len() as u32)
}

#[test]
fn a_packet_of_any_link_type_becomes_the_same_frame() {
    for (source, destination) in [("192.0.2.10", "198.51.100.7"), ("2001:db8:1::10", "2001:db8:2::7")] {
        let ethernet = probe(source, destination);
        let packet = &ethernet[14..];
        let is_v4 = source.contains('.');
        let kind = &ethernet[12..14];
        let mac = [2, 0, 0, 0, 0, 0x10];
        let cooked =
            |packet_type: u8| [&[0, packet_type, 0, 1, 0, 6][..], &mac, &[0, 0], kind, packet].concat();
        let cooked2 = |packet_type: u8| {
            [kind, &[0, 0, 0, 0, 0, 7, 0, 1, packet_type, 6], &mac, &[0, 0], packet].concat()
        };
        let family = if is_v4 { 2_u32 } else { 30 };
        let cases = [
            (DataLink::ETHERNET, ethernet.clone(), Travel::Unknown, Some(mac)),
            (DataLink::LINUX_SLL, cooked(0), Travel::In, Some(mac)),
            (DataLink::LINUX_SLL, cooked(4), Travel::Out, Some(mac)),
            (DataLink::from(276), cooked2(0), Travel::In, Some(mac)),
            (DataLink::from(276), cooked2(4), Travel::Out, Some(mac)),
            (DataLink::from(101), packet.to_vec(), Travel::Unknown, None),
            (DataLink::from(12), packet.to_vec(), Travel::Unknown, None),
            (DataLink::from(if is_v4 { 228 } else { 229 }), packet.to_vec(), Travel::Unknown, None),
            (DataLink::NULL, [&family.to_le_bytes()[..], packet].concat(), Travel::Unknown, None),
            (DataLink::NULL, [&family.to_be_bytes()[..], packet].concat(), Travel::Unknown, None),
            (DataLink::from(108), [&family.to_be_bytes()[..], packet].concat(), Travel::Unknown, None),
        ];
        for (link, data, travel, source_mac) in cases {
            let frame = frame_in(link, &data);
            assert_eq!(frame.trouble, None, "{link:?}");
            assert_eq!(&frame.bytes[12..], &ethernet[12..], "{link:?}");
            assert_eq!((frame.travel, frame.source_mac), (travel, source_mac), "{link:?}");
            let facts = frame.facts.unwrap();
            assert_eq!(
                (facts.source, facts.destination),
                (source.parse().unwrap(), destination.parse().unwrap())
            );
            assert_eq!((facts.source_port, facts.destination_port, facts.tcp_flags), (40_000, 80, 2));
            assert_eq!(frame.source.index, if link == DataLink::from(276) { 7 } else { 0 });
        }
    }
    assert_eq!(frame_in(DataLink::from(105), &[0; 60]).trouble, Some(Trouble::LinkType(105)));
    assert_eq!(frame_in(DataLink::from(101), &[0; 60]).trouble, Some(Trouble::NoFrame));
    assert_eq!(frame_in(DataLink::ETHERNET, &[0; 13]).trouble, Some(Trouble::NoFrame));
}

#[test]
fn what_a_snaplen_left_out_is_filled_in_and_headers_that_are_cut_are_said() {
    let whole = probe("192.0.2.10", "198.51.100.7");
    let mut long = whole.clone();
    long.resize(800, 9);
    long[16..18].copy_from_slice(&786_u16.to_be_bytes());
    for captured in [14 + 20 + 20, 100, 799] {
        let frame = frame_of(DataLink::ETHERNET, &long[..captured], 800);
        assert_eq!(frame.trouble, None, "{captured}");
        assert_eq!((frame.bytes.len(), frame.length), (800, 800));
        assert!(frame.bytes[captured..].iter().all(|byte| *byte == 0));
    }
    for captured in [14, 33, 53] {
        assert_eq!(
            frame_of(DataLink::ETHERNET, &long[..captured], 800).trouble,
            Some(Trouble::Cut),
            "{captured}"
        );
    }
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x08, 0x06], &[0; 4]].concat();
    assert_eq!(frame_of(DataLink::ETHERNET, &arp, 42).trouble, None, "it has no header to judge");
}

#[test]
fn a_frame_that_an_offload_made_is_cut_and_its_lengths_agree() {
    for (source, destination) in [("192.0.2.10", "198.51.100.7"), ("2001:db8:1::10", "2001:db8:2::7")] {
        for protocol in [TCP, UDP] {
            let mut data = probe(source, destination);
            data.resize(40_000, 1);
            let is_v4 = source.contains('.');
            let (length_at, header, protocol_at) = if is_v4 { (16, 14, 23) } else { (18, 54, 20) };
            data[protocol_at] = protocol;
            data[length_at..length_at + 2].copy_from_slice(&((40_000 - header) as u16).to_be_bytes());
            let frame = frame_in(DataLink::ETHERNET, &data);
            assert_eq!((frame.trouble, frame.length), (None, 40_000));
            let length = u16::from_be_bytes([frame.bytes[length_at], frame.bytes[length_at + 1]]);
            assert_eq!(usize::from(length) + header, frame.bytes.len());
            assert!(frame.bytes.len() < 4000);
            if protocol == UDP {
                let at = frame.facts.unwrap().transport_at;
                let length = u16::from_be_bytes([frame.bytes[at + 4], frame.bytes[at + 5]]);
                assert_eq!(usize::from(length) + at, frame.bytes.len());
            }
        }
    }
}

#[test]
fn tags_fragments_and_extension_headers_are_looked_through() {
    let plain = probe("2001:db8:1::10", "2001:db8:2::7");
    let fragment = |offset: u16| {
        let mut frame = plain[..54].to_vec();
        frame[20] = 44;
        frame.extend([TCP, 0]);
        frame.extend(offset.to_be_bytes());
        frame.extend([0, 0, 0, 1]);
        frame.extend(&plain[54..]);
        Facts::of(&frame).unwrap()
    };
    let first = fragment(1);
    assert_eq!((first.position, first.protocol, first.destination_port), (Position::First, TCP, 80));
    assert_eq!(fragment(0x00a8).position, Position::Later);
    assert_eq!(fragment(0).position, Position::Whole, "an atomic fragment");
    let tagged = [&plain[..12], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7], &plain[12..]].concat();
    let facts = Facts::of(&tagged).unwrap();
    assert!(facts.is_tagged && facts.destination_port == 80);
    let source: IpAddr = "2001:db8:1::10".parse().unwrap();
    assert_eq!(facts.source, source);
}

#[test]
fn files_are_read_together_in_the_order_of_their_times() {
    let file = |times: &[u64], mark: u8| {
        let mut data = vec![mark; 60];
        data[12..14].copy_from_slice(&[8, 6]);
        reader(&write_pcapng(Endianness::Little, Some(9), times, &data))
    };
    // within a file its own order counts, also where a clock was stepped
    let mut merge = Merge::new(vec![file(&[10, 40, 30, 60], 1), file(&[5, 35, 50], 2)]);
    let mut order = Vec::new();
    while let Some(frame) = merge.read() {
        assert!(frame.has_siblings);
        order.push((frame.bytes[0], frame.time_ns));
    }
    assert_eq!(order, [(2, 5), (1, 10), (2, 35), (1, 40), (1, 30), (2, 50), (1, 60)]);
    assert!(merge.damages().is_empty());
}

#[test]
fn a_damaged_file_does_not_keep_the_others_from_being_read() {
    let good = write_pcapng(Endianness::Little, Some(9), &[10, 20], &[1; 60]);
    let cut = good[..good.len() - 1].to_vec();
    let mut merge = Merge::new(vec![reader(&cut), reader(&good)]);
    let mut frames = 0;
    while merge.read().is_some() {
        frames += 1;
    }
    assert_eq!((frames, merge.damages().len()), (3, 1));
    assert_eq!(merge.damages()[0].packets, 1);
}
