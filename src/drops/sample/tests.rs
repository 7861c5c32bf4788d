//! Samples that are sane, cut, padded, shifted and spoilt.

use std::net::Ipv6Addr;

use super::*;
use crate::abi::Reason;
use crate::abi::address;
use crate::chance::Chance;
use crate::clock::Clock;

fn mapped(last: u8) -> address {
    let octets = "::ffff:192.0.2.0".parse::<Ipv6Addr>().unwrap().octets();
    let mut address = address::default();
    for (word, bytes) in address.word_be.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    address.word_be[3] = u32::from_ne_bytes([192, 0, 2, last]);
    address
}

fn header() -> abi::sample {
    abi::sample {
        time_ns: 7_000_000_000,
        drops: 3,
        source: mapped(10),
        destination: mapped(99),
        interface: 4,
        server: 1,
        length: 60,
        source_port: 40000,
        destination_port: 445,
        ethertype: 0x0800,
        vlan: 0x6007,
        frame_bytes: 4,
        port: 445,
        verdict: 1,
        reason: Reason::NewFlow.number(),
        protocol: 6,
        tcp_flags: 2,
        ip_version: 4,
        source_mac: [2, 0, 0, 0, 0, 0x10],
        ..Default::default()
    }
}

/// The buffer as perf delivers it: header, frame, padding.
fn bytes(header: &abi::sample, frame: &[u8], padding: usize) -> Vec<u8> {
    let size = size_of::<abi::sample>();
    let mut room = vec![0; size + 8];
    let start = room.as_ptr().align_offset(8);
    let place = &mut room[start..start + size];
    *plain::from_mut_bytes::<abi::sample>(place).unwrap() = *header;
    let mut bytes = place.to_vec();
    bytes.extend_from_slice(frame);
    bytes.resize(bytes.len() + padding, 0xaa);
    bytes
}

fn context() -> Context<'static> {
    Context {
        interface: "dmz0".into(),
        clock: Clock { mono_ns: 10_000_000_000, wall: "2026-11-22T15:00:00Z".parse().unwrap() },
        names: crate::drops::example::names(),
    }
}

#[test]
fn a_sample_comes_out_as_it_went_in() {
    let sample = decode(&bytes(&header(), &[1, 2, 3, 4], 0)).unwrap();
    assert_eq!(sample.source, Some("192.0.2.10".parse().unwrap()));
    assert_eq!(sample.destination, Some("192.0.2.99".parse().unwrap()));
    assert_eq!(sample.reason, ReasonCode::Known(Reason::NewFlow));
    assert_eq!((sample.source_port, sample.destination_port), (40000, 445));
    assert_eq!((sample.drops, sample.server, sample.length), (3, 1, 60));
    assert_eq!(sample.frame, [1, 2, 3, 4]);
}

#[test]
fn padding_is_never_taken_for_the_frame() {
    for padding in 0..16 {
        let sample = decode(&bytes(&header(), &[1, 2, 3, 4], padding)).unwrap();
        assert_eq!(sample.frame, [1, 2, 3, 4]);
    }
}

#[test]
fn every_cut_within_the_fixed_part_is_an_error_and_later_ones_shorten_the_frame() {
    let whole = bytes(&header(), &[1, 2, 3, 4], 0);
    let needed = size_of::<abi::sample>();
    for length in 0..whole.len() {
        let result = decode(&whole[..length]);
        if length < needed {
            assert_eq!(result, Err(DecodeError::TooShort { length, needed }));
        } else {
            assert_eq!(result.unwrap().frame.len(), length - needed);
        }
    }
}

#[test]
fn a_sample_may_begin_at_any_address() {
    let whole = bytes(&header(), &[1, 2, 3, 4], 0);
    let expected = decode(&whole).unwrap();
    for offset in 0..8 {
        let mut shifted = vec![0xff; offset];
        shifted.extend_from_slice(&whole);
        assert_eq!(decode(&shifted[offset..]).unwrap(), expected);
    }
}

#[test]
fn a_frame_is_no_longer_than_a_sample_has_room_for() {
    let mut lying = header();
    lying.frame_bytes = u16::MAX;
    let sample = decode(&bytes(&lying, &[9; 300], 0)).unwrap();
    assert_eq!(sample.frame.len(), 128);
    let sample = decode(&bytes(&lying, &[9; 14], 0)).unwrap();
    assert_eq!(sample.frame.len(), 14);
}

#[test]
fn an_unknown_reason_is_a_value() {
    let mut newer = header();
    newer.reason = 63;
    let sample = decode(&bytes(&newer, &[], 0)).unwrap();
    assert_eq!(sample.reason, ReasonCode::Unknown(63));
    assert_eq!(sample.to_event(1, &context()).reason.to_string(), "unknown_63");
}

#[test]
fn no_bytes_make_it_panic() {
    // a fixed pseudo-random sequence (xorshift), so that a failure can be had again
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 0..400 {
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        if let Ok(sample) = decode(&noise) {
            let drop = sample.to_event(sample.drops, &context());
            assert!(drop.frame.len() <= MAX_FRAME_BYTES);
            assert!(!drop.service().is_empty());
        }
    }
}

#[test]
fn a_sample_by_chance_comes_out_as_it_went_in_and_spoilt_it_is_still_a_value() {
    let needed = size_of::<abi::sample>();
    for seed in 0..20_000 {
        let mut chance = Chance::part(0x73_616d, seed);
        let frame_bytes = chance.below(MAX_FRAME_BYTES + 1);
        let frame = chance.bytes(frame_bytes);
        // Any bytes at all, but for what it says of its frame.
        let mut wanted = abi::sample::default();
        wanted.copy_from_bytes(&chance.bytes(needed)).unwrap();
        wanted.frame_bytes = frame_bytes as u16;
        let mut whole = bytes(&wanted, &frame, chance.below(16));
        let sample = decode(&whole).unwrap();
        assert_eq!(sample.frame, frame, "seed {seed}");
        assert_eq!((sample.time_ns, sample.drops), (wanted.time_ns, wanted.drops), "seed {seed}");
        assert_eq!(
            (sample.interface, sample.server, sample.rule | sample.edit, sample.length, sample.port),
            (wanted.interface, wanted.server, wanted.rule & 0x0fff_ffff, wanted.length, wanted.port)
        );
        // an edit or a rule, and never both
        let is_edit = wanted.rule & 0x1000_0000 != 0;
        assert!(if is_edit { sample.rule == 0 } else { sample.edit == 0 }, "seed {seed}");
        assert_eq!(
            (sample.source_port, sample.destination_port, sample.ethertype, sample.vlan),
            (wanted.source_port, wanted.destination_port, wanted.ethertype, wanted.vlan)
        );
        assert_eq!(
            (sample.verdict, sample.reason.number(), sample.flags, sample.protocol),
            (wanted.verdict, wanted.reason, wanted.flags, wanted.protocol)
        );
        assert_eq!(
            (sample.tcp_flags, sample.icmp_type, sample.icmp_code, sample.ip_version),
            (wanted.tcp_flags, wanted.icmp_type, wanted.icmp_code, wanted.ip_version)
        );
        assert_eq!((sample.source_mac, sample.destination_mac), (wanted.source_mac, wanted.destination_mac));

        let at = chance.below(whole.len());
        whole[at] ^= 1 << chance.below(8);
        whole.truncate(chance.below(whole.len() + 1));
        match decode(&whole) {
            Err(error) => assert_eq!(error, DecodeError::TooShort { length: whole.len(), needed }),
            Ok(sample) => {
                assert!(sample.frame.len() <= (whole.len() - needed).min(MAX_FRAME_BYTES));
                assert!(whole[needed..].starts_with(&sample.frame), "seed {seed}");
                assert!(!sample.to_event(sample.drops, &context()).service().is_empty());
            }
        }
    }
}

#[test]
fn a_frame_without_addresses_has_none_and_an_unspecified_source_is_one() {
    let mut frame = header();
    frame.ip_version = 0;
    frame.source = address::default();
    frame.destination = address::default();
    let sample = decode(&bytes(&frame, &[], 0)).unwrap();
    assert_eq!((sample.source, sample.destination), (None, None));

    frame.ip_version = 6;
    frame.destination.word_be[0] = 0xff02_u32.to_be();
    let sample = decode(&bytes(&frame, &[], 0)).unwrap();
    assert_eq!(sample.source, Some("::".parse().unwrap()));
}

#[test]
fn a_mapped_address_in_an_ipv6_header_stays_ipv6() {
    let mut frame = header();
    frame.ip_version = 6;
    let sample = decode(&bytes(&frame, &[], 0)).unwrap();
    assert_eq!(sample.source, Some("::ffff:192.0.2.10".parse().unwrap()));
}

#[test]
fn a_sample_becomes_an_event() {
    let sample = decode(&bytes(&header(), &[1, 2, 3, 4], 2)).unwrap();
    let drop = sample.to_event(2, &context());
    assert_eq!(drop.time, "2026-11-22T14:59:57Z".parse().unwrap());
    assert_eq!(drop.server_name(), Some("web1"));
    assert_eq!(drop.service(), "tcp/445");
    assert_eq!((drop.source_port, drop.destination_port), (Some(40000), Some(445)));
    assert_eq!(drop.vlan, Some(7));
    assert_eq!((drop.tcp_flags, drop.icmp_type), (Some(2), None));
    assert_eq!((drop.drops, drop.from), (2, Origin::Sample));
    assert_eq!(drop.verdict, DropVerdict::Drop);
}

#[test]
fn each_flag_of_a_sample_says_one_thing_of_its_event() {
    for flags in 0..8_u32 {
        let mut flagged = header();
        flagged.flags = flags as u8;
        let drop = decode(&bytes(&flagged, &[], 0)).unwrap().to_event(1, &context());
        let has = |flag: drop_flag| flags & flag.0 != 0;
        assert_eq!(drop.quiet, has(drop_flag::DROP_QUIET), "{flags}");
        assert_eq!(drop.own_port, has(drop_flag::DROP_OWN_PORT), "{flags}");
        assert_eq!(drop.verdict == DropVerdict::WouldDrop, has(drop_flag::DROP_WOULD), "{flags}");
    }
}

#[test]
fn a_later_fragment_has_no_ports_to_show() {
    let mut fragment = header();
    fragment.source_port = 0;
    fragment.destination_port = 0;
    let drop = decode(&bytes(&fragment, &[], 0)).unwrap().to_event(1, &context());
    assert_eq!((drop.source_port, drop.destination_port), (None, None));
}
