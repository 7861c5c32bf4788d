//! What becomes of a good frame when somebody tampers with it.

use super::setting::{PROTOCOLS, ROUTER_MACS, SERVER_MACS, VLANS};
use crate::support::chance::Chance;
use crate::support::frame::{IP, padded, patched, tagged};
use crate::support::layers::fix_ipv4_checksum;

/// The least and the most that a test run takes of a frame.
pub const LEAST: usize = 14;
/// A socket buffer of a test run is linear, and one page with its overheads.
pub const MOST_TO_SERVER: usize = 3200;

const TPIDS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const ETHERTYPES: [u16; 12] =
    [0x0800, 0x86dd, 0x0806, 0x88cc, 0x888e, 0x8809, 0x05ff, 0x0600, 0x0026, 0x8847, 0x8864, 0x8100];
const OPTIONS: [&[u8]; 12] = [
    &[1, 1, 1, 1],
    &[0, 0, 0, 0],
    &[131, 7, 4, 203, 0, 113, 9, 0],
    &[137, 7, 4, 203, 0, 113, 9, 0],
    &[148, 4, 0, 0],
    &[7, 7, 4, 0, 0, 0, 0, 0],
    &[1, 137, 3, 4],
    &[131, 3, 4, 1],
    &[68, 2, 1, 1],
    &[68, 1, 1, 1],
    &[68, 0, 1, 1],
    &[68, 9, 1, 1],
];

/// Changes a frame somewhere, perhaps in several places.
pub fn mutate(chance: &mut Chance, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    loop {
        frame = mutate_once(chance, frame);
        if chance.percent(70) {
            break;
        }
    }
    if frame.len() < LEAST {
        frame.resize(LEAST, 0);
    }
    frame
}

fn mutate_once(chance: &mut Chance, frame: Vec<u8>) -> Vec<u8> {
    let ip = ip_offset(&frame);
    match chance.below(22) {
        0 | 1 => flip_bits(chance, frame, 0),
        2 | 3 => flip_bits(chance, frame, ip),
        4 => {
            let length = chance.within(LEAST..frame.len().max(LEAST) + 1);
            frame.get(..length).map_or_else(|| frame.clone(), <[u8]>::to_vec)
        }
        // close to a header's end
        5 => {
            let length =
                (ip + chance.pick(&[0, 1, 19, 20, 24, 27, 28, 33, 39, 40, 41, 48, 52, 59, 60])).max(LEAST);
            frame.get(..length).map_or_else(|| frame.clone(), <[u8]>::to_vec)
        }
        6 => padded(&frame, chance.pick(&[60, 64, 100, 1514])),
        7 => {
            let extra = chance.within(1..40);
            let mut frame = frame;
            frame.extend(chance.bytes(extra));
            frame
        }
        8 | 9 => tag(chance, frame),
        10 => {
            let macs = [chance.pick(&SERVER_MACS), chance.pick(&ROUTER_MACS)];
            patch(frame, 6, &chance.pick(&macs))
        }
        11 => patch(frame, ip.saturating_sub(2), &chance.pick(&ETHERTYPES).to_be_bytes()),
        12 => lie_about_length(chance, frame),
        13 => change_protocol(chance, frame),
        14 => change_fragment_field(chance, frame),
        15 | 16 => add_options(chance, frame),
        17 | 18 => add_extension(chance, frame),
        19 => patch_transport(chance, frame),
        20 => grow(chance, frame),
        _ => {
            let hop_limit = chance.pick(&[0, 1, 64, 254, 255]);
            let at = if version(&frame) == 6 { ip + 7 } else { ip + 8 };
            patch(frame, at, &[hop_limit])
        }
    }
}

fn flip_bits(chance: &mut Chance, mut frame: Vec<u8>, from: usize) -> Vec<u8> {
    // headers are at the beginning
    let end = frame.len().min(from + 80);
    for _ in 0..chance.within(1..4) {
        if end > from {
            let at = chance.within(from..end);
            match chance.percent(60) {
                true => frame[at] ^= 1 << chance.below(8),
                false => frame[at] = chance.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            }
        }
    }
    frame
}

fn tag(chance: &mut Chance, frame: Vec<u8>) -> Vec<u8> {
    let tpid = chance.pick(&TPIDS);
    let id = if chance.percent(30) { 0 } else { chance.pick(&VLANS) };
    let priority = if chance.percent(30) { (chance.below(16) as u16) << 12 } else { 0 };
    tagged(&frame, tpid, priority | id)
}

fn lie_about_length(chance: &mut Chance, frame: Vec<u8>) -> Vec<u8> {
    let ip = ip_offset(&frame);
    let at = if version(&frame) == 6 { ip + 4 } else { ip + 2 };
    let Some(field) = frame.get(at..at + 2) else { return frame };
    let length = u16::from_be_bytes([field[0], field[1]]);
    let lie = match chance.below(5) {
        0 => 0,
        1 => 0xffff,
        2 => length.wrapping_add(chance.within(1..9) as u16),
        3 => length.wrapping_sub(chance.within(1..25) as u16),
        _ => chance.below(100) as u16,
    };
    patch(frame, at, &lie.to_be_bytes())
}

fn change_protocol(chance: &mut Chance, frame: Vec<u8>) -> Vec<u8> {
    let at = ip_offset(&frame) + if version(&frame) == 6 { 6 } else { 9 };
    let protocol = match chance.below(4) {
        0 => chance.byte(),
        1 => chance.pick(&[0, 43, 44, 60, 135]),
        _ => chance.pick(&PROTOCOLS),
    };
    patch(frame, at, &[protocol])
}

fn change_fragment_field(chance: &mut Chance, frame: Vec<u8>) -> Vec<u8> {
    if version(&frame) != 4 {
        return frame;
    }
    let field =
        chance.pick(&[0x2000_u16, 0x2001, 0x0001, 0x0002, 0x4000, 0x6000, 0x1fff, 0x3fff, 0x8000, 0xa000]);
    let at = ip_offset(&frame) + 6;
    patch(frame, at, &field.to_be_bytes())
}

/// Into an IPv4 header; its length is put right, and sometimes the packet's.
fn add_options(chance: &mut Chance, mut frame: Vec<u8>) -> Vec<u8> {
    let ip = ip_offset(&frame);
    if version(&frame) != 4 || frame.len() < ip + 20 {
        return frame;
    }
    let mut options = Vec::new();
    for _ in 0..chance.within(1..4) {
        options.extend_from_slice(chance.pick(&OPTIONS));
    }
    if chance.percent(20) {
        let count = chance.within(1..11) * 4;
        options = chance.bytes(count);
    }
    options.truncate(40);
    let words = usize::from(frame[ip] & 0x0f) + options.len() / 4;
    if words > 15 {
        return frame;
    }
    frame[ip] = 0x40 | words as u8;
    let total = u16::from_be_bytes([frame[ip + 2], frame[ip + 3]]).wrapping_add(options.len() as u16);
    frame[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
    frame.splice(ip + 20..ip + 20, options);
    frame
}

/// Into an IPv6 packet, first of all; its length is put right.
fn add_extension(chance: &mut Chance, mut frame: Vec<u8>) -> Vec<u8> {
    let ip = ip_offset(&frame);
    if version(&frame) != 6 || frame.len() < ip + 40 {
        return frame;
    }
    for _ in 0..chance.pick(&[1, 1, 1, 2, 3, 7, 8, 9]) {
        let kind = chance.pick(&[60_u8, 60, 60, 0, 43, 44, 51, 135]);
        let next = frame[ip + 6];
        let units = if chance.percent(85) { 0 } else { chance.below(40) };
        let mut header = vec![0; 8 * (units + 1)];
        header[0] = next;
        match kind {
            43 => {
                header[1] = units as u8;
                header[2] = chance.pick(&[0, 2, 3, 4]);
                header[3] = chance.pick(&[0, 0, 1, 255]);
            }
            44 => {
                header.truncate(8);
                header[3] = chance.pick(&[0, 0, 1, 8, 9, 6]);
                header[7] = chance.pick(&[1, 2, 3]);
            }
            _ => header[1] = units as u8,
        }
        let length = u16::from_be_bytes([frame[ip + 4], frame[ip + 5]]).wrapping_add(header.len() as u16);
        frame[ip + 4..ip + 6].copy_from_slice(&length.to_be_bytes());
        frame[ip + 6] = kind;
        frame.splice(ip + 40..ip + 40, header);
    }
    frame
}

/// A byte of the transport header that matters.
fn patch_transport(chance: &mut Chance, frame: Vec<u8>) -> Vec<u8> {
    let ip = ip_offset(&frame);
    let l4 = ip + if version(&frame) == 6 { 40 } else { 20 };
    match chance.below(5) {
        0 => patch(frame, l4 + 13, &[chance.byte()]),
        1 => patch(frame, l4 + 12, &[(chance.below(16) as u8) << 4]),
        2 => patch(frame, l4 + 4, &[0, chance.pick(&[0, 7, 8, 9, 200])]),
        3 => {
            let kind = chance.byte() % 20;
            patch(frame, l4, &[kind])
        }
        _ => patch(frame, l4, &[chance.pick(&[128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143, 1, 4])]),
    }
}

/// Larger than a page, so that a test run has it in several buffers; often with its length put right.
fn grow(chance: &mut Chance, mut frame: Vec<u8>) -> Vec<u8> {
    let ip = ip_offset(&frame);
    let length = chance.pick(&[1514, 2000, 3500, 3600, 4000, 4096, 4200, 9014, 9200]);
    if frame.len() >= length || frame.len() < ip + 20 {
        return frame;
    }
    frame.resize(length, 0x55);
    if chance.percent(70) {
        match version(&frame) {
            4 => frame = patch(frame, ip + 2, &((length - ip) as u16).to_be_bytes()),
            6 if length > ip + 40 => frame = patch(frame, ip + 4, &((length - ip - 40) as u16).to_be_bytes()),
            _ => {}
        }
    }
    frame
}

/// Where the IP header begins, behind the tags.
pub fn ip_offset(frame: &[u8]) -> usize {
    let mut at = 12;
    while let Some(&[high, low]) = frame.get(at..at + 2).and_then(|bytes| bytes.first_chunk::<2>()) {
        if !matches!(u16::from_be_bytes([high, low]), 0x8100 | 0x88a8) {
            break;
        }
        at += 4;
    }
    at + 2
}

/// The IP version that the packet itself claims; 0 without one.
pub fn version(frame: &[u8]) -> u8 {
    frame.get(ip_offset(frame)).map_or(0, |byte| byte >> 4)
}

/// With other bytes at `at`, where the frame has so many; an IPv4 checksum is nobody's concern.
fn patch(frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    if at + bytes.len() > frame.len() { frame } else { patched(&frame, at, bytes) }
}

/// A frame of nothing but noise, perhaps behind a good beginning.
pub fn noise(chance: &mut Chance) -> Vec<u8> {
    let count = chance.within(LEAST..120);
    let mut frame = chance.bytes(count);
    if chance.percent(80) {
        let kind = chance.pick(&ETHERTYPES);
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        if frame.len() > IP && chance.percent(70) {
            frame[IP] = chance.pick(&[0x45, 0x60, 0x46, 0x4f]);
        }
        if frame.len() > IP + 20 && kind == 0x0800 {
            let total = (frame.len() - IP) as u16;
            frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
            frame[IP + 10..IP + 12].fill(0);
            fix_ipv4_checksum(&mut frame[IP..IP + 20]);
        }
    }
    frame
}
