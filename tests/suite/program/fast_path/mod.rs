//! The fast path: what the filter found before holds until something changes, and not longer. Here is what the
//! tests of its three halves share.

mod answers;
mod openings;
mod quotas;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::{Reason, state};

use crate::support::dmz::{V4, V6};
use crate::support::frame::{SYN, tcp};
use crate::support::test_gate::{Row, TestGate};

/// An opening to a port that no need of web1 knows.
pub fn opening(server: IpAddr, peer: IpAddr, port: u16) -> Vec<u8> {
    tcp((server, 40_000), (peer, port), SYN)
}

/// Bytes of `struct known_opening`: address, MAC and port, epoch, what was found.
const OPENING: usize = 32;

/// The epoch of the calling thread's CPU, as its last opening left it.
fn epoch(gate: &TestGate) -> [u8; 4] {
    let cpu = nix::sched::sched_getcpu().expect("a processor");
    let cpus = gate.maps.cpus.lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    cpus[cpu][24..28].try_into().unwrap()
}

/// A verdict that the filter keeps, and where.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    key: Vec<u8>,
    at: usize,
    bytes: Vec<u8>,
}

/// A word of `state`, by which the tool steers the programs.
fn read_state(gate: &TestGate, word: state) -> u64 {
    let words: HashMap<u32, u64> = gate.entries("state").into_iter().collect();
    words[&word.0]
}

/// The entries of `verdict_cache` that this policy uses of a CPU's part: the first ones.
fn part_of(gate: &TestGate, cpu: usize) -> RangeInclusive<u32> {
    let first = cpu as u32 * read_state(gate, state::STATE_VERDICT_CACHE) as u32;
    first..=first + gate.live_settings().unwrap().unwrap().verdicts_mask
}

/// What the filter keeps of the live policy, where it keeps it.
fn known(gate: &TestGate) -> Vec<Known> {
    let (map, epoch) = (&gate.maps.verdict_cache, epoch(gate));
    let cpu = nix::sched::sched_getcpu().expect("a processor");
    let mut found = Vec::new();
    for key in part_of(gate, cpu).map(|index| index.to_ne_bytes().to_vec()) {
        let places = map.lookup(&key, MapFlags::ANY).unwrap().unwrap();
        let kept = places.chunks(OPENING).enumerate().filter(|(_, bytes)| bytes[24..28] == epoch);
        found.extend(kept.map(|(place, bytes)| Known {
            key: key.clone(),
            at: place * OPENING,
            bytes: bytes.to_vec(),
        }));
    }
    found
}

/// Makes the filter believe something else.
fn put(gate: &TestGate, place: &Known, bytes: &[u8]) {
    let map = &gate.maps.verdict_cache;
    let mut places = map.lookup(&place.key, MapFlags::ANY).unwrap().unwrap();
    places[place.at..place.at + OPENING].copy_from_slice(bytes);
    map.update(&place.key, &places, MapFlags::ANY).unwrap();
}

/// Passes and drops by this reason so far.
fn count(gate: &TestGate, reason: Reason) -> u64 {
    let counters = gate.counters(false).unwrap();
    counters.iter().find(|count| count.0 == reason).map_or(0, |count| count.1)
}

/// Sends it three times: found, known, and known with another destination.
fn thrice(gate: &TestGate, server: IpAddr, port: u16, reason: Reason) -> [Row; 3] {
    let family = if server.is_ipv4() { V4 } else { V6 };
    [family.peer, family.peer, family.other].map(|peer| gate.drops(&opening(server, peer, port), reason))
}
