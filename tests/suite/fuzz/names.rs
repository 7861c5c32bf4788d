//! Answers by chance, whole and broken: the programs against a parser that others keep.
//!
//! What that parser reads as one whole message grants exactly the addresses of its answer section. Of what it
//! refuses, our programs may have read the beginning: then each grant must be the data of a record's form.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libbpf_rs::MapCore;
use portcullis::abi::{from_address, grant, share_key};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Packet};

use super::{SEED, read_variable};
use crate::support::chance::Chance;
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, CNAME, Message, NS, Record, TO_QUESTION, TXT, datagram, wire};
use crate::support::test_gate::TestGate;

const MESSAGES: u64 = 20_000;

/// An address in a broken message may be any.
const POLICY: &str = r#"
[names]
resolvers = ["198.51.100.53"]
from = ["lo"]
private = ["0.0.0.0/0", "::/0"]

[roles.client]
out = ["udp/53 to 198.51.100.53", "tcp/443 to deb.vendor.example, *.mirror.example"]

[servers.client]
addresses = ["192.0.2.10"]
roles = ["client"]
"#;

const NAMES: [&str; 4] =
    ["deb.vendor.example", "a.mirror.example", "DEB.Vendor.Example", "a.b.c.d.e.mirror.example"];

fn make_owner(chance: &mut Chance) -> Vec<u8> {
    match chance.below(4) {
        0 => wire("cdn.other.example"),
        1 => [&[3][..], b"www", TO_QUESTION].concat(),
        _ => TO_QUESTION.to_vec(),
    }
}

fn make_record(chance: &mut Chance) -> Record {
    let owner = make_owner(chance);
    let (kind, data) = match chance.below(8) {
        0..3 => (A, vec![203, 0, 113, chance.byte()]),
        3..5 => (AAAA, [&[0x20, 1, 0xd, 0xb8, 0, 0x50][..], &chance.bytes(10)].concat()),
        5 => (CNAME, wire("edge.other.example")),
        6 => (NS, TO_QUESTION.to_vec()),
        _ => {
            let text = chance.within(0..60);
            (TXT, [vec![text as u8], chance.bytes(text)].concat())
        }
    };
    Record::new(&owner, kind, chance.next() as u32, &data)
}

fn make_records(chance: &mut Chance, most: usize) -> Vec<Record> {
    let count = chance.below(most + 1);
    (0..count).map(|_| make_record(chance)).collect()
}

fn make_answer(chance: &mut Chance, query: &Message) -> Message {
    let mut answer = query.answer(&make_records(chance, 8));
    answer.authorities = make_records(chance, 2);
    answer.additionals = make_records(chance, 2);
    if chance.percent(30) {
        answer = answer.with_edns();
    }
    if chance.percent(5) {
        answer.flags ^= 1 << chance.below(16);
    }
    answer
}

fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>) {
    for _ in 0..chance.within(1..4) {
        let at = chance.below(bytes.len());
        match chance.below(6) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = chance.byte(),
            2 => bytes[at] = chance.pick(&[0, 0xc0, 0xff, 63, 64, 4, 16]),
            3 => bytes.truncate(at.max(13)),
            4 => bytes.insert(at, chance.byte()),
            _ => drop(bytes.remove(at)),
        }
        if bytes.len() < 13 {
            return;
        }
    }
}

/// The addresses of the answer section, if it is an answer to this query that can be read whole.
fn read_addresses(bytes: &[u8], query: &[u8]) -> Option<BTreeSet<IpAddr>> {
    let flags = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let question = bytes.get(12..query.len())?;
    let is_answer = bytes[..2] == query[..2]
        && flags & 0xf80f == 0x8000
        && bytes[4..6] == [0, 1]
        && question.eq_ignore_ascii_case(&query[12..]);
    let packet = Packet::parse(bytes).ok()?;
    if !is_answer {
        return Some(BTreeSet::new());
    }
    let in_class = packet.answers.iter().filter(|record| record.class == CLASS::IN && !record.cache_flush);
    let addresses = in_class.filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
        RData::AAAA(a) => Some(IpAddr::V6(Ipv6Addr::from(a.address))),
        _ => None,
    });
    // an IPv4 address in one of IPv6 is refused
    Some(
        addresses
            .filter(|address| !matches!(address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some()))
            .collect(),
    )
}

/// Whether a message has a record's length and these bytes.
fn has_record(bytes: &[u8], address: IpAddr) -> bool {
    let data = match address {
        IpAddr::V4(a) => [&[0, 4][..], &a.octets()].concat(),
        IpAddr::V6(a) => [&[0, 16][..], &a.octets()].concat(),
    };
    bytes.windows(data.len()).any(|window| window == data)
}

/// The granted addresses, which are then forgotten.
fn take_grants(gate: &TestGate) -> BTreeSet<IpAddr> {
    let rows = gate.entries::<share_key, grant>("grants");
    for name in ["grants", "granted", "name_shares"] {
        let map = gate.maps.find(name).expect("a map");
        map.keys().collect::<Vec<_>>().iter().for_each(|key| map.delete(key).expect("a deletion"));
    }
    rows.iter().map(|(_, row)| from_address(&row.address).expect("an address")).collect()
}

#[test]
fn answers_grant_what_another_parser_reads_in_their_answer_section() {
    let messages = read_variable("PORTCULLIS_MESSAGES").unwrap_or(MESSAGES);
    let seed = read_variable("PORTCULLIS_SEED").unwrap_or(SEED);
    let gate = TestGate::new(POLICY);
    let (server, resolver) = ((ip("192.0.2.10"), 40_000), (ip("198.51.100.53"), 53));
    let (mut whole, mut broken, mut granted) = (0, 0, 0);
    for index in 0..messages {
        let mut chance = Chance::part(seed, index);
        let kind = chance.pick(&[A, AAAA]);
        let query = Message::query(chance.next() as u16, chance.pick(&NAMES), kind);
        gate.programs.run_filter(&datagram(server, resolver, &query.bytes()), 1).expect("a run");
        let mut bytes = make_answer(&mut chance, &query).bytes();
        if chance.percent(60) {
            mutate(&mut chance, &mut bytes);
        }
        gate.programs.run_track_from(&datagram(resolver, server, &bytes), 1).expect("a run");
        let found = take_grants(&gate);
        granted += found.len();
        match read_addresses(&bytes, &query.bytes()) {
            Some(expected) => {
                whole += 1;
                assert_eq!(found, expected, "message {index} of seed {seed}: {bytes:02x?}");
            }
            None => {
                broken += 1;
                for address in found {
                    assert!(has_record(&bytes, address), "{address} in message {index}: {bytes:02x?}");
                }
            }
        }
        gate.maps.queries.handle().keys().collect::<Vec<_>>().iter().for_each(|key| {
            gate.maps.queries.handle().delete(key).expect("a deletion");
        });
    }
    assert!(whole > messages / 4 && broken > messages / 20, "{whole} whole, {broken} broken");
    assert!(granted as u64 > messages / 2, "{granted} addresses");
}
