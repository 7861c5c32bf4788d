//! Any samples make a valid capture. Each sample with a frame is one whole packet in it. The reader below
//! follows the draft of the format alone (draft-ietf-opsawg-pcapng, sections 3.1, 4.1 to 4.3).

#![no_main]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use portcullis::clock::Clock;
use portcullis::drops::{Context, DropEvent};
use portcullis::drops::decode;
use portcullis::sink::{Event, Pcapng, Rotation, Sink as _};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const COMMENT: u16 = 1;

/// In memory, because it is written for each input.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| PathBuf::from(format!("/dev/shm/portcullis-fuzz-{}.pcapng", std::process::id())));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (interface, server) = (take_text(&mut data), take_text(&mut data));
    let names = HashMap::from([(1, server.into())]);
    let clock = Clock { mono_ns: 10_000_000_000, wall: "2026-11-22T15:00:00Z".parse().expect("a time") };
    let context = Context { interface: interface.as_str().into(), clock, names: &names };
    let mut drops = Vec::new();
    while data.len() > 1 {
        let (length, rest) = data.split_at(2);
        let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(rest.len());
        let (sample, rest) = rest.split_at(length);
        data = rest;
        if let Ok(sample) = decode(sample) {
            drops.push(sample.to_event(sample.drops, &context));
        }
    }

    let _ = fs::remove_file(&*FILE);
    let path = FILE.to_str().expect("a path of letters");
    let mut sink = Pcapng::new(path, &interface, Rotation { size: 0, keep: 0 });
    for drop in &drops {
        sink.write(&Event::of_drop(drop.clone())).expect("room in memory");
    }
    let kept: Vec<&DropEvent> = drops.iter().filter(|drop| !drop.frame.is_empty()).collect();
    if kept.is_empty() {
        assert!(!FILE.exists(), "a capture of nothing");
        return;
    }
    read(&fs::read(&*FILE).expect("a capture"), &kept);
});

/// Takes a length, and as many bytes.
fn take_text(data: &mut &[u8]) -> String {
    let Some((length, rest)) = data.split_first() else {
        return String::new();
    };
    let (text, rest) = rest.split_at(usize::from(*length).min(rest.len()));
    *data = rest;
    String::from_utf8_lossy(text).into_owned()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

fn half(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(bytes[..2].try_into().expect("two bytes"))
}

/// Checks that every byte of the capture belongs to a block, and that the packets are those of the drops.
fn read(mut capture: &[u8], drops: &[&DropEvent]) {
    let (mut sections, mut interfaces, mut packets) = (0, 0, drops.iter());
    while !capture.is_empty() {
        let length = word(&capture[4..]) as usize;
        assert!(length.is_multiple_of(4) && length >= 12, "a block of {length} bytes");
        let (block, rest) = capture.split_at(length);
        assert_eq!(word(&block[length - 4..]) as usize, length, "both ends say how long it is");
        let body = &block[8..length - 4];
        match word(block) {
            SECTION => {
                assert_eq!((word(body), sections), (0x1a2b_3c4d, 0), "one section, of this byte order");
                sections += 1;
                read_options(&body[16..]);
            }
            INTERFACE => {
                assert_eq!((half(body), sections, interfaces), (1, 1, 0), "Ethernet");
                interfaces += 1;
                read_options(&body[8..]);
            }
            PACKET => {
                let drop = packets.next().expect("no more packets than drops");
                assert_eq!((word(body), interfaces), (0, 1));
                let time_ns = u128::from(word(&body[4..])) << 32 | u128::from(word(&body[8..]));
                assert_eq!(time_ns, drop.time.as_nanosecond().clamp(0, u64::MAX.into()) as u128);
                let captured = word(&body[12..]) as usize;
                assert!(word(&body[16..]) as usize >= captured, "more than there was");
                assert_eq!(&body[20..20 + captured], &drop.frame[..]);
                let padded = captured.next_multiple_of(4);
                assert!(body[20 + captured..20 + padded].iter().all(|byte| *byte == 0));
                let options = read_options(&body[20 + padded..]);
                let [(COMMENT, comment)] = options[..] else { panic!("one comment, not {options:?}") };
                let comment = std::str::from_utf8(comment).expect("a comment in UTF-8");
                assert!(!comment.contains(char::is_control), "{comment:?}");
                assert!(comment.contains(&drop.reason.to_string()) && comment.contains(&drop.service()));
            }
            kind => panic!("a block of type {kind}"),
        }
        capture = rest;
    }
    assert!(packets.next().is_none(), "fewer packets than drops");
}

/// Reads options up to the end marker, which may be missing if there are no options.
fn read_options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let (code, length) = (half(bytes), usize::from(half(&bytes[2..])));
        if code == 0 {
            assert_eq!((length, bytes.len()), (0, 4), "nothing follows the end");
            return options;
        }
        options.push((code, &bytes[4..4 + length]));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    assert!(options.is_empty(), "options without an end");
    options
}
