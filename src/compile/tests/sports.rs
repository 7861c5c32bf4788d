//! Needs with a `sport`.

use super::*;

/// The needs by which profile 1 may open from a port of its own to a port of a peer, beside those of the profile.
fn needs_from(tables: &Tables, proto: u8, sport: u16, port: u16) -> String {
    let Some(profile) = tables.find_sport(1, proto, sport) else {
        return String::new();
    };
    let peer = "203.0.113.1".parse().unwrap();
    tables.rules[tables.decide(profile, Direction::Out, proto, port, peer) as usize].need.clone()
}

#[test]
fn a_need_with_a_sport_holds_from_that_port_alone() {
    let tables = tables_of_role("out = [\"tcp/1024-65535 sport 20\", \"tcp/25\"]");
    assert_eq!(show(&tables), ["6 25-25 |  | tcp/25 | "], "the profile itself has only the other need");
    assert_eq!(needs_from(&tables, 6, 20, 1024), "tcp/1024-65535 sport 20");
    for (proto, sport, port) in [(6, 21, 1024), (6, 19, 1024), (6, 20, 1023), (17, 20, 1024)] {
        assert_eq!(needs_from(&tables, proto, sport, port), "", "{proto} {sport} {port}");
    }
    assert!(tables.servers.iter().all(|row| row.profile == 1), "no server has the new profile");
}

#[test]
fn overlapping_sports_are_cut_into_disjoint_ranges() {
    let tables =
        tables_of_role("out = [\"tcp/1 sport 10-20\", \"tcp/2 sport 15-30\", \"udp/3 sport 10-20\"]");
    let ranges: Vec<(u8, RangeInclusive<u16>)> =
        tables.sports.iter().map(|row| (row.proto, row.ports.clone())).collect();
    assert_eq!(ranges, [(6, 10..=14), (6, 15..=20), (6, 21..=30), (17, 10..=20)]);
    for sport in 0..=40 {
        let [first, second] = [1, 2].map(|port| !needs_from(&tables, 6, sport, port).is_empty());
        assert_eq!((first, second), ((10..=20).contains(&sport), (15..=30).contains(&sport)), "{sport}");
    }
}

#[test]
fn the_last_port_is_a_sport_as_well() {
    let tables = tables_of_role("out = [\"tcp/1 sport 65535\", \"tcp/2 sport 0\"]");
    assert_eq!(needs_from(&tables, 6, 65535, 1), "tcp/1 sport 65535");
    assert_eq!(needs_from(&tables, 6, 0, 2), "tcp/2 sport 0");
    assert_eq!(needs_from(&tables, 6, 0, 1), "");
}

#[test]
fn roles_that_share_needs_share_their_profile() {
    let tables = tables(
        "[roles.a]\nout = [\"tcp/1 sport 20\"]\n[roles.b]\nin = [\"tcp/80\"]\n\
         [servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"a\"]\n\
         [servers.t]\naddresses = [\"192.0.2.2\"]\nroles = [\"a\", \"b\"]\n\
         [servers.u]\naddresses = [\"192.0.2.3\"]\nroles = [\"b\"]\n",
    );
    let rows: Vec<(u32, u32)> = tables.sports.iter().map(|row| (row.profile, row.needs)).collect();
    assert_eq!(rows, [(1, 4), (2, 4)]);
}

#[test]
fn rows_of_sports_are_blocks_and_mark_their_servers() {
    let text = "[roles.a]\nout = [\"tcp/1 sport 20-23 limit 5/s\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"a\"]\n[servers.t]\naddresses = [\"192.0.2.2\"]\n";
    let policy = policy(text);
    let tables = compile(&policy).unwrap();
    let encoded = encode(&policy, &tables, &[7, 8], &Default::default());
    let rows: Vec<_> = encoded
        .sports
        .iter()
        .map(|(key, needs)| (key.prefix_bits, key.need.profile, u16::from_be(key.need.port_be), *needs))
        .collect();
    assert_eq!(rows, [(48 + 14, 1, 20, 3)]);
    let flags: Vec<u32> = encoded.hosts.iter().map(|(_, row)| row.flags).collect();
    assert_eq!(flags, [crate::abi::server_flag::SERVER_SPORTS.0, 0]);
    let buckets: Vec<u32> = encoded.token_buckets.iter().map(|key| key.server).collect();
    assert_eq!(buckets, [7], "a limit of such a need has its bucket");
}
