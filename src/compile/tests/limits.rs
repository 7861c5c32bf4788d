//! Limits that hold for the same flow.

use super::*;

/// The needs that are asked for a flow to this port and peer, in their order.
fn asked(tables: &Tables, port: u16, peer: &str) -> Vec<String> {
    let find = |rule: u32| Some(&tables.rules[rule as usize]).filter(|row| row.line != 0);
    let first = find(tables.decide(1, Direction::Out, 6, port, peer.parse().unwrap()));
    std::iter::successors(first, |row| find(row.next)).map(|row| row.need.clone()).collect()
}

#[test]
fn limits_are_asked_from_the_most_generous_one_on_wherever_they_stand() {
    let needs = [
        "tcp/25 limit 3/m",
        "tcp/20-30 to 203.0.113.0/24 limit 1/s",
        "tcp/25 to 203.0.113.1 limit 60/m",
        "tcp limit 2/m",
    ];
    for turn in 0..needs.len() {
        let mut turned = needs.map(|need| format!("\"{need}\""));
        turned.rotate_left(turn);
        let tables = tables_of_role(&format!("out = [{}]", turned.join(", ")));
        assert_eq!(asked(&tables, 25, "203.0.113.1"), [needs[2], needs[1], needs[0], needs[3]]);
        assert_eq!(asked(&tables, 25, "203.0.113.2"), [needs[1], needs[0], needs[3]]);
        assert_eq!(asked(&tables, 25, "198.51.100.1"), [needs[0], needs[3]]);
        assert_eq!(asked(&tables, 26, "203.0.113.1"), [needs[1], needs[3]]);
        assert_eq!(asked(&tables, 26, "2001:db8::1"), [needs[3]]);
    }
}

#[test]
fn a_need_without_a_limit_is_asked_alone() {
    let tables = tables_of_role("out = [\"tcp/25 limit 3/m\", \"tcp/20-25 to 203.0.113.0/24\"]");
    assert_eq!(asked(&tables, 25, "203.0.113.1"), ["tcp/20-25 to 203.0.113.0/24"]);
    assert_eq!(asked(&tables, 25, "198.51.100.1"), ["tcp/25 limit 3/m"]);
    let tables = tables_of_role("out = [\"tcp/25 to 203.0.113.0/24 limit 3/m\", \"tcp/25\"]");
    assert_eq!(asked(&tables, 25, "203.0.113.1"), ["tcp/25"]);
    assert!(tables.peers.is_empty(), "the peers of the other one never matter");
}

#[test]
fn the_same_need_of_two_roles_is_asked_once() {
    let tables = tables(
        "[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"a\", \"b\"]\n\
         [roles.a]\nout = [\"tcp/25 limit 3/m\"]\n[roles.b]\nout = [\"tcp/25 limit 3/m\", \"tcp/25 limit 2/m\"]\n",
    );
    assert_eq!(asked(&tables, 25, "203.0.113.1"), ["tcp/25 limit 3/m", "tcp/25 limit 2/m"]);
}

#[test]
fn every_limit_that_may_be_asked_has_its_bucket() {
    let policy = policy(
        "[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n\
         [roles.r]\nout = [\"tcp/25 limit 3/m\", \"tcp limit 2/m\", \"tcp/25 to 203.0.113.1 limit 1/m\", \
         \"tcp/25 sport 20 limit 9/m\"]\n",
    );
    let tables = compile(&policy).unwrap();
    let encoded = encode(&policy, &tables, &[7], &Default::default());
    let mut keys: Vec<u32> = encoded.token_buckets.iter().map(|key| key.limit_key).collect();
    let mut expected: Vec<u32> = tables.rules[1..=4].iter().map(|row| row.limit_key).collect();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    // what a rule names as the next one has a row too
    for (id, row) in &encoded.rules {
        assert_eq!(tables.rules[*id as usize].limit_key, row.limit_key);
        let next = row.next & crate::abi::rule_flag::RULE_ID_MASK.0;
        assert_eq!(next, tables.rules[*id as usize].next);
        assert!(next == 0 || encoded.rules.iter().any(|(other, _)| *other == next), "{id} names {next}");
    }
}

#[test]
fn from_an_own_port_the_needs_with_and_without_one_are_asked_together() {
    let tables = tables_of_role(
        "out = [\"tcp/25 limit 3/m\", \"tcp/25 sport 20 limit 4/m\", \"tcp/26 sport 20\", \"tcp/26 limit 1/m\", \
         \"tcp/27\"]",
    );
    let profile = tables.find_sport(1, 6, 20).unwrap();
    let find = |rule: u32| Some(&tables.rules[rule as usize]).filter(|row| row.line != 0);
    let asked = |port| {
        let peer = "203.0.113.1".parse().unwrap();
        let first = find(tables.decide(profile, Direction::Out, 6, port, peer));
        let rows = std::iter::successors(first, |row| find(row.next));
        rows.map(|row| row.need.clone()).collect::<Vec<_>>()
    };
    assert_eq!(asked(25), ["tcp/25 sport 20 limit 4/m", "tcp/25 limit 3/m"]);
    assert_eq!(asked(26), ["tcp/26 sport 20"]);
    assert!(asked(27).is_empty(), "without a limit it is asked before");
}

#[test]
fn thousands_of_limits_that_overlap_are_soon_compiled() {
    let needs: Vec<String> = (0..3000)
        .map(|port| match port % 2 {
            0 => format!("\"tcp/{port}-60000 limit {}/m\"", port + 1),
            _ => format!("\"tcp/{port}-60000 to 10.0.0.0/8 limit {}/m\"", port + 1),
        })
        .collect();
    let tables = tables_of_role(&format!("out = [{}]", needs.join(", ")));
    assert_eq!(asked(&tables, 60_000, "10.1.2.3").len(), 8);
    assert_eq!(asked(&tables, 60_000, "10.1.2.3")[0], "tcp/2999-60000 to 10.0.0.0/8 limit 3000/m");
    assert_eq!(asked(&tables, 3, "10.1.2.3").len(), 4);
}
