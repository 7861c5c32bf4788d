//! What servers began to open, as the filter notes it: tags and times in buckets, see `bpf/own_openings.h`. A
//! second opinion on where each entry lies.

use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::{layout, opening_bucket};
use portcullis::gate::Gate;

const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// An entry that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub bucket: u32,
    pub place: usize,
    pub tag: u32,
    /// In ticks of the programs' clock.
    pub tick: u32,
}

fn hash_address(address: IpAddr) -> u64 {
    let bytes = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    // words in network byte order, as the CPU reads them
    let word = |at: usize| u64::from(u32::from_ne_bytes([0, 1, 2, 3].map(|byte| bytes[4 * at + byte])));
    let hash = (word(0) << 32 | word(1)).wrapping_mul(GOLDEN_RATIO);
    let hash = (hash ^ (word(2) << 32 | word(3))).wrapping_mul(GOLDEN_RATIO);
    hash ^ hash >> 32
}

/// The bucket of an opening, and its tag there.
pub fn locate(server: u32, ends: [(IpAddr, u16); 2], protocol: u8) -> (u32, u32) {
    let [(address, port), (peer, peer_port)] = ends;
    let ports = u64::from(port.to_be()) << 16 | u64::from(peer_port.to_be());
    let hash = (hash_address(address) ^ u64::from(protocol)).wrapping_mul(GOLDEN_RATIO);
    let hash = (hash ^ hash_address(peer)).wrapping_mul(GOLDEN_RATIO);
    let hash = (hash ^ ports).wrapping_mul(GOLDEN_RATIO);
    let hash = hash ^ hash >> 32;
    let buckets = layout::OPENING_BUCKETS.0;
    let region = server % layout::OPENING_REGIONS.0;
    (region * buckets + hash as u32 % buckets, (hash >> 32) as u32)
}

/// All entries of the servers that have an id, in the order of the map.
pub fn read(gate: &Gate) -> Vec<Entry> {
    let buckets = layout::OPENING_BUCKETS.0;
    let ids = gate.names_by_id().expect("names");
    let mut regions: Vec<u32> = ids.keys().map(|id| id % layout::OPENING_REGIONS.0).collect();
    regions.sort_unstable();
    regions.dedup();
    let mut found = Vec::new();
    for region in regions {
        let window = gate.maps.own_openings.map(region * buckets, buckets).expect("a mapping");
        for index in 0..buckets {
            let bucket = window.get(index as usize).expect("a bucket");
            let entries = bucket.entries.into_iter().enumerate().filter(|(_, entry)| *entry != 0);
            found.extend(entries.map(|(place, entry)| Entry {
                bucket: region * buckets + index,
                place,
                tag: (entry >> 32) as u32,
                tick: entry as u32,
            }));
        }
    }
    found
}

fn change(gate: &Gate, changed: impl Fn(u64) -> u64) {
    let map = &gate.maps.own_openings;
    let mut buckets: Vec<u32> = read(gate).iter().map(|entry| entry.bucket).collect();
    buckets.dedup();
    for index in buckets {
        let mut bucket: opening_bucket = map.get(index).expect("a bucket").expect("a bucket");
        bucket.entries.iter_mut().filter(|entry| **entry != 0).for_each(|entry| *entry = changed(*entry));
        let bytes: Vec<u8> = bucket.entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        map.handle().update(&index.to_ne_bytes(), &bytes, MapFlags::EXIST).expect("an update");
    }
}

/// Forgets all of them.
pub fn clear(gate: &Gate) {
    change(gate, |_| 0);
}

/// Makes all of them this much older.
pub fn age(gate: &Gate, by_ns: u64) {
    let ticks = ((by_ns as i64) >> layout::OPENING_TICK_SHIFT.0) as u32;
    change(gate, |entry| entry >> 32 << 32 | u64::from((entry as u32).wrapping_sub(ticks)));
}
