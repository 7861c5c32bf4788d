//! Captures that tests make.

use std::path::{Path, PathBuf};

/// A frame and its time since the begin of the capture, milliseconds.
pub type Timed = (u64, Vec<u8>);

/// When captures of tests begin: 2026-11-22 15:00 UTC, nanoseconds.
pub const BEGIN_NS: u64 = 1_795_359_600_000_000_000;

/// The link type of Ethernet.
pub const ETHERNET: u32 = 1;
pub const COOKED: u32 = 113;
pub const COOKED2: u32 = 276;
pub const RAW_IP: u32 = 101;

/// A file of pcap with nanoseconds, little-endian.
pub fn pcap(link: u32, frames: &[Timed]) -> Vec<u8> {
    let mut bytes = [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, link].map(u32::to_le_bytes).concat();
    for (after_ms, frame) in frames {
        let time_ns = BEGIN_NS + after_ms * 1_000_000;
        let length = frame.len() as u32;
        let words = [(time_ns / 1_000_000_000) as u32, (time_ns % 1_000_000_000) as u32, length, length];
        bytes.extend(words.map(u32::to_le_bytes).concat());
        bytes.extend(frame);
    }
    bytes
}

/// A file of pcapng with nanoseconds, big-endian, whose frames each name an interface.
pub fn pcapng(links: &[u16], frames: &[(u64, u32, Vec<u8>)]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
        let length = ((12 + body.len() + padding.len()) as u32).to_be_bytes();
        [&kind.to_be_bytes()[..], &length, body, &padding, &length].concat()
    };
    let magic = 0x1a2b_3c4d_u32.to_be_bytes();
    let mut bytes = block(0x0a0d_0d0a, &[&magic[..], &[0, 1, 0, 0], &[0xff; 8]].concat());
    for link in links {
        let resolution = [0, 9, 0, 1, 9, 0, 0, 0];
        bytes.extend(block(1, &[&link.to_be_bytes()[..], &[0; 6], &resolution].concat()));
    }
    for (after_ms, interface, frame) in frames {
        let time_ns = BEGIN_NS + after_ms * 1_000_000;
        let length = frame.len() as u32;
        let words = [*interface, (time_ns >> 32) as u32, time_ns as u32, length, length];
        bytes.extend(block(6, &[&words.map(u32::to_be_bytes).concat()[..], frame].concat()));
    }
    bytes
}

/// The frame as Linux cooked v1 has it. `packet_type`: 0 to this host, 4 from it.
pub fn cooked(frame: &[u8], packet_type: u8) -> Vec<u8> {
    [&[0, packet_type, 0, 1, 0, 6][..], &frame[6..12], &[0, 0], &frame[12..]].concat()
}

/// The frame as Linux cooked v2 has it, at the interface of this index.
pub fn cooked2(frame: &[u8], packet_type: u8, index: u8) -> Vec<u8> {
    [&frame[12..14], &[0, 0, 0, 0, 0, index, 0, 1, packet_type, 6], &frame[6..12], &[0, 0], &frame[14..]]
        .concat()
}

/// The packet that a router makes of one that it sends on: other MACs and one hop less.
pub fn sent_on(frame: &[u8], from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    let hops = if frame[12..14] == [8, 0] { 22 } else { 21 };
    frame[hops] -= 1;
    frame
}

/// Writes a file.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}
