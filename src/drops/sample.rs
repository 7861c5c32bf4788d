//! Decodes the samples of the perf buffer. Pure: any bytes give a value or an error.

use std::net::{IpAddr, Ipv6Addr};

use plain::Plain;
use thiserror::Error;

use super::{Context, DropEvent, DropVerdict, LedgerKey, Origin, ReasonCode};
use crate::abi::{self, address, drop_flag, layout, rule_flag};
use crate::net::{TCP, has_ports, is_icmp};

// SAFETY: `repr(C)` of integers and arrays of integers, without padding (the contract header
// asserts its size): any bytes will do.
unsafe impl Plain for abi::sample {}

/// How much of a frame a sample carries at most, bytes.
const MAX_FRAME_BYTES: usize = layout::SAMPLE_FRAME_BYTES.0 as usize;

/// Why bytes are not a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// They are shorter than the fixed part.
    #[error(
        "a sample of {length} bytes is shorter than its fixed part of {needed}: \
         was the gate attached by another version?"
    )]
    TooShort {
        /// How many arrived, bytes.
        length: usize,
        /// The fixed part, bytes.
        needed: usize,
    },
}

/// One sampled drop, as the kernel saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Drops with this ledger key since its last sample, this one included.
    pub drops: u64,
    /// `None` for a frame without addresses.
    pub source: Option<IpAddr>,
    /// `None` for a frame without addresses.
    pub destination: Option<IpAddr>,
    /// Index of the interface.
    pub interface: u32,
    /// Id of the server; 0: no server has the source address.
    pub server: u32,
    /// Id of the nearest rule; 0: none.
    pub rule: u32,
    /// Length of the frame, bytes.
    pub length: u32,
    /// 0 where the protocol has no ports or the packet did not show them.
    pub source_port: u16,
    /// As `source_port`.
    pub destination_port: u16,
    /// EtherType behind the VLAN tags.
    pub ethertype: u16,
    /// Tag control information of the outer VLAN tag; 0: none.
    pub vlan: u16,
    /// As in the ledger's key: the flow's destination port (the server's own with
    /// `DROP_OWN_PORT`), an ICMP type, or the EtherType.
    pub port: u16,
    /// `enum verdict`.
    pub verdict: u8,
    /// Why it was dropped. A number that this version does not know is kept.
    pub reason: ReasonCode,
    /// `enum drop_flag`.
    pub flags: u8,
    /// IP protocol number, behind the extension headers.
    pub protocol: u8,
    /// As in the TCP header.
    pub tcp_flags: u8,
    /// Valid for ICMP and ICMPv6.
    pub icmp_type: u8,
    /// Valid for ICMP and ICMPv6.
    pub icmp_code: u8,
    /// 4 or 6; 0: not IP.
    pub ip_version: u8,
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// The beginning of the frame.
    pub frame: Vec<u8>,
}

/// Decodes what the perf buffer delivered: a `struct sample`, the beginning of a frame, and padding.
///
/// # Errors
/// When there are fewer bytes than the fixed part has.
pub fn decode(bytes: &[u8]) -> Result<Sample, DecodeError> {
    let needed = size_of::<abi::sample>();
    let too_short = DecodeError::TooShort { length: bytes.len(), needed };
    // A copy: perf puts a 32-bit length before its data, so 64-bit fields are seldom aligned.
    let mut header = abi::sample::default();
    header.copy_from_bytes(bytes).map_err(|_| too_short)?;
    let rest = bytes.get(needed..).ok_or(too_short)?;

    // Neither the length field nor the length of the bytes is enough alone: perf pads at the end.
    let frame_bytes = usize::from(header.frame_bytes).min(rest.len()).min(MAX_FRAME_BYTES);
    let (source, destination) = read_addresses(&header.source, &header.destination, header.ip_version);
    Ok(Sample {
        time_ns: header.time_ns,
        drops: header.drops,
        source,
        destination,
        interface: header.interface,
        server: header.server,
        rule: header.rule & rule_flag::RULE_ID_MASK.0,
        length: header.length,
        source_port: header.source_port,
        destination_port: header.destination_port,
        ethertype: header.ethertype,
        vlan: header.vlan,
        port: header.port,
        verdict: header.verdict,
        reason: ReasonCode::from(header.reason),
        flags: header.flags,
        protocol: header.protocol,
        tcp_flags: header.tcp_flags,
        icmp_type: header.icmp_type,
        icmp_code: header.icmp_code,
        ip_version: header.ip_version,
        source_mac: header.source_mac,
        destination_mac: header.destination_mac,
        frame: rest[..frame_bytes].to_vec(),
    })
}

/// A packet's addresses. No packet goes from `::` to `::`, so two empty ones mean a frame without
/// addresses. `::` as the source alone is an IPv6 host that has no address yet. `ip_version` is 0 where
/// only the addresses are known. In an IPv6 header an address that looks like a mapped IPv4 one stays
/// IPv6, because a reader has to see that a server sent it.
pub(crate) fn read_addresses(
    source: &address,
    destination: &address,
    ip_version: u8,
) -> (Option<IpAddr>, Option<IpAddr>) {
    let source = to_ipv6(source);
    let destination = to_ipv6(destination);
    if source.is_unspecified() && destination.is_unspecified() {
        return (None, None);
    }
    let read = |ip: Ipv6Addr| match ip.to_ipv4_mapped() {
        Some(ip) if ip_version != 6 => IpAddr::V4(ip),
        _ => IpAddr::V6(ip),
    };
    (Some(read(source)), Some(read(destination)))
}

fn to_ipv6(address: &address) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(address.word_be) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets)
}

impl Sample {
    /// The ledger key of the drop. (A full ledger counts it in the overflow, as the
    /// [`Reconciler`](super::Reconciler) finds out.)
    pub fn key(&self) -> LedgerKey {
        LedgerKey {
            server: self.server,
            port: self.port,
            protocol: self.protocol,
            reason: self.reason.number(),
            flags: self.flags,
            overflow: false,
        }
    }

    /// The event of this sample. `drops` is how many of its drops have not been reported yet, as
    /// [`Reconciler::note_sample`](super::Reconciler::note_sample) says.
    pub fn to_event(&self, drops: u64, context: &Context<'_>) -> DropEvent {
        let time = context.clock.to_wall(self.time_ns);
        let flagged = |flag: drop_flag| u32::from(self.flags) & flag.0 != 0;
        // Port 0 at both ends: a later fragment, which has no ports to show.
        let ports = has_ports(self.protocol) && (self.source_port, self.destination_port) != (0, 0);
        let icmp = is_icmp(self.protocol);
        DropEvent {
            time,
            since: time,
            interface: context.interface.clone(),
            verdict: DropVerdict::from_flags(self.flags),
            reason: self.reason,
            quiet: flagged(drop_flag::DROP_QUIET),
            own_port: flagged(drop_flag::DROP_OWN_PORT),
            server: context.server(self.server),
            source: self.source,
            destination: self.destination,
            source_port: ports.then_some(self.source_port),
            destination_port: ports.then_some(self.destination_port),
            port: self.port,
            protocol: self.protocol,
            any_protocol: false,
            tcp_flags: (self.protocol == TCP).then_some(self.tcp_flags),
            icmp_type: icmp.then_some(self.icmp_type),
            icmp_code: icmp.then_some(self.icmp_code),
            length: Some(self.length),
            ethertype: Some(self.ethertype),
            vlan: (self.vlan != 0).then_some(self.vlan & 0x0fff),
            source_mac: Some(self.source_mac),
            destination_mac: Some(self.destination_mac),
            frame: self.frame.clone(),
            drops,
            from: Origin::Sample,
            while_away: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Reason;
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
        let place = room.get_mut(start..start + size).unwrap();
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
            let mut wanted = crate::abi::sample::default();
            wanted.copy_from_bytes(&chance.bytes(needed)).unwrap();
            wanted.frame_bytes = frame_bytes as u16;
            let mut whole = bytes(&wanted, &frame, chance.below(16));
            let sample = decode(&whole).unwrap();
            assert_eq!(sample.frame, frame, "seed {seed}");
            assert_eq!((sample.time_ns, sample.drops), (wanted.time_ns, wanted.drops), "seed {seed}");
            assert_eq!(
                (sample.interface, sample.server, sample.rule, sample.length, sample.port),
                (wanted.interface, wanted.server, wanted.rule & 0x1fff_ffff, wanted.length, wanted.port)
            );
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
            assert_eq!(
                (sample.source_mac, sample.destination_mac),
                (wanted.source_mac, wanted.destination_mac)
            );

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
}
