use std::net::IpAddr;

use super::*;
use crate::abi::from_address;

const ANY: &[IpNet] = &[];

fn rule(number: u32, direction: Direction, ports: RangeInclusive<u16>, until_ns: u64) -> EditRule<'static> {
    EditRule { number, server: 1, direction, protocol: 6, ports, peers: ANY, allows: true, until_ns }
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    let parse = |text: &&str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).unwrap();
    texts.iter().map(parse).collect()
}

/// The same look-ups as `find_edit()` in `bpf/edits.h`.
fn look_up(
    rows: &[(edit_key, edit_cell)],
    server: u32,
    direction: Direction,
    port: u16,
    peer: &str,
) -> Option<((u64, u32), (u64, u32))> {
    let mut place = address::default();
    place.word_be[0] = (number_of(direction) << 24 | 6 << 16 | u32::from(port)).to_be();
    let cell = longest(rows, server, &place)?;
    let of_peer = (cell.set != 0)
        .then(|| longest(rows, edit_scope::EDIT_SCOPE_SET.0 | cell.set, &to_address(peer.parse().unwrap())));
    let cell = of_peer.flatten().unwrap_or(cell);
    Some(((cell.allow_until_ns, cell.allow), (cell.deny_until_ns, cell.deny)))
}

fn longest(rows: &[(edit_key, edit_cell)], scope: u32, place: &address) -> Option<edit_cell> {
    let bits = |place: &address| {
        place.word_be.iter().fold(0_u128, |bits, word| bits << 32 | u128::from(u32::from_be(*word)))
    };
    let matches = |key: &edit_key| {
        let length = key.prefix_bits - 32;
        key.scope == scope && (length == 0 || (bits(&key.place) ^ bits(place)) >> (128 - length) == 0)
    };
    rows.iter().filter(|(key, _)| matches(key)).max_by_key(|(key, _)| key.prefix_bits).map(|(_, cell)| *cell)
}

#[test]
fn no_edits_make_no_rows() {
    assert_eq!(compile_edits(&[]).unwrap().len(), 0);
}

#[test]
fn an_edit_holds_for_its_ports_its_peers_and_its_direction_alone() {
    let peers = prefixes(&["198.51.100.80", "2001:db8:f::/64"]);
    let edit = EditRule { peers: &peers, ..rule(7, Direction::Out, 443..=444, 50) };
    let rows = compile_edits(&[edit]).unwrap();
    let allowed = Some(((50, 7), (0, 0)));
    let nothing = Some(((0, 0), (0, 0)));
    for (port, peer, wanted) in [
        (443, "198.51.100.80", allowed),
        (444, "2001:db8:f::9", allowed),
        (443, "198.51.100.81", nothing),
        (443, "2001:db8:e::9", nothing),
        (442, "198.51.100.80", None),
        (445, "198.51.100.80", None),
    ] {
        assert_eq!(look_up(&rows, 1, Direction::Out, port, peer), wanted, "{port} {peer}");
    }
    assert_eq!(look_up(&rows, 1, Direction::In, 443, "198.51.100.80"), None);
    assert_eq!(look_up(&rows, 2, Direction::Out, 443, "198.51.100.80"), None);
}

#[test]
fn where_edits_overlap_each_answer_has_the_latest_end_of_both_kinds() {
    let (wide, narrow) = (prefixes(&["198.51.100.0/24"]), prefixes(&["198.51.100.80"]));
    let edits = [
        rule(1, Direction::Out, 0..=65535, 10),
        EditRule { peers: &wide, allows: false, ..rule(2, Direction::Out, 80..=90, 30) },
        EditRule { peers: &narrow, ..rule(3, Direction::Out, 85..=85, 20) },
        EditRule { peers: &narrow, allows: false, ..rule(4, Direction::Out, 85..=95, 5) },
    ];
    let rows = compile_edits(&edits).unwrap();
    for port in [0, 1, 79, 80, 84, 85, 86, 90, 91, 95, 96, 65535] {
        for peer in ["198.51.100.80", "198.51.100.81", "203.0.113.1", "2001:db8::1"] {
            let address: IpAddr = peer.parse().unwrap();
            let holds = |edit: &&EditRule<'_>| {
                edit.ports.contains(&port)
                    && (edit.peers.is_empty() || edit.peers.iter().any(|prefix| prefix.contains(&address)))
            };
            let of = |allows: bool| {
                let ends = edits.iter().filter(holds).filter(|edit| edit.allows == allows);
                ends.map(|edit| (edit.until_ns, edit.number)).max().unwrap_or_default()
            };
            let wanted = Some((of(true), of(false)));
            assert_eq!(look_up(&rows, 1, Direction::Out, port, peer), wanted, "{port} {peer}");
        }
    }
}

#[test]
fn a_prefix_of_all_ipv6_does_not_hold_for_ipv4() {
    let peers = prefixes(&["::/0"]);
    let rows = compile_edits(&[EditRule { peers: &peers, ..rule(1, Direction::In, 80..=80, 9) }]).unwrap();
    assert_eq!(look_up(&rows, 1, Direction::In, 80, "2001:db8::1"), Some(((9, 1), (0, 0))));
    assert_eq!(look_up(&rows, 1, Direction::In, 80, "192.0.2.1"), Some(((0, 0), (0, 0))));
}

#[test]
fn every_edit_has_a_row_of_its_number() {
    let rows =
        compile_edits(&[rule(5, Direction::In, 80..=80, 9), rule(6, Direction::In, 80..=80, 8)]).unwrap();
    for (number, until_ns) in [(5, 9), (6, 8)] {
        let cell = longest(&rows, edit_scope::EDIT_SCOPE_NUMBER.0 | number, &address::default()).unwrap();
        assert_eq!((cell.allow_until_ns, cell.allow), (until_ns, number));
    }
    assert_eq!(from_address(&address::default()), None);
}

#[test]
fn thousands_of_edits_take_thousands_of_rows() {
    let peers: Vec<Vec<IpNet>> =
        (0..4096_u32).map(|n| prefixes(&[&format!("198.51.{}.{}", n >> 8 & 255, n & 255)])).collect();
    let edits: Vec<_> = (1..)
        .zip(&peers)
        .map(|(n, peers)| EditRule { server: n % 50 + 1, peers, ..rule(n, Direction::Out, 443..=443, 9) })
        .collect();
    assert_eq!(compile_edits(&edits).unwrap().len(), 2 * 4096 + 50);
}

#[test]
fn edits_that_overlap_too_often_are_refused() {
    let edits: Vec<_> =
        (1..).take(3000).map(|n: u16| rule(u32::from(n), Direction::Out, n..=u16::MAX - n, 9)).collect();
    let peers: Vec<Vec<IpNet>> =
        (0..3000_u32).map(|n| prefixes(&[&format!("198.51.{}.{}", n >> 8, n & 255)])).collect();
    let edits: Vec<_> =
        edits.into_iter().zip(&peers).map(|(edit, peers)| EditRule { peers, ..edit }).collect();
    assert_eq!(compile_edits(&edits).err(), Some(TooManyEdits { most: MOST_ROWS }));
}
