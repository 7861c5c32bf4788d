//! Rows as the programs read them.

use super::super::encode::{encode, encode_settings};
use super::*;
use crate::abi::{from_address, server_flag};

fn encoded(text: &str) -> EncodedPolicy {
    let policy = policy(text);
    let tables = compile(&policy).unwrap_or_else(|errors| panic!("{errors}"));
    let ids: Vec<u32> = (100..).take(tables.names.len()).collect();
    encode(&policy, &tables, &ids, &Default::default())
}

/// Rows of `macs`: MAC, server, value.
fn macs(encoded: &EncodedPolicy) -> Vec<(u64, u32, u64)> {
    let mut rows: Vec<_> = encoded.macs.iter().map(|(key, value)| (key.mac, key.server, *value)).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn the_first_mac_is_in_the_servers_row_and_the_others_are_in_a_table() {
    let one = encoded("[servers.s]\naddresses = [\"192.0.2.1\"]\nmac = \"02:00:00:00:00:01\"\n");
    assert_eq!(one.hosts[0].1.mac, [2, 0, 0, 0, 0, 1]);
    assert_eq!(one.hosts[0].1.flags, server_flag::SERVER_MAC.0);
    assert_eq!(macs(&one), [(0x0200_0000_0001, 0, 100)]);
    assert_eq!(one.flags & settings_flag::SETTINGS_BOUND.0, settings_flag::SETTINGS_BOUND.0);

    let bound = encoded("[servers.s]\naddresses = [\"192.0.2.1\"]\nmac = \"02:00:00:00:00:01\"\nvlan = 7\n");
    assert_eq!(macs(&bound), [(0x0200_0000_0001, 0, 8 << 32 | 100)]);

    let several = encoded(
        "[servers.s]\naddresses = [\"192.0.2.1\"]\nmac = [\"02:00:00:00:00:01\", \"00:00:5e:00:01:33\"]\n",
    );
    assert_eq!(several.hosts[0].1.flags, server_flag::SERVER_MAC.0 | server_flag::SERVER_MACS.0);
    assert_eq!(
        macs(&several),
        [(0x0000_5e00_0133, 0, 100), (0x0000_5e00_0133, 100, 1), (0x0200_0000_0001, 0, 100)]
    );

    let none = encoded("[servers.s]\naddresses = [\"192.0.2.1\"]\n");
    assert_eq!((none.hosts[0].1.flags, macs(&none).len()), (0, 0));
    assert_eq!(none.flags & settings_flag::SETTINGS_BOUND.0, 0);
}

#[test]
fn a_router_has_a_row_for_each_address_and_mac() {
    let text = "[servers.s]\naddresses = [\"192.0.2.1\"]\n";
    let flag = settings_flag::SETTINGS_ROUTERS.0;
    let without = encoded(text);
    assert_eq!((without.routers.len(), without.flags & flag), (0, 0));
    let with = encoded(&format!(
        "{text}[routers.r]\naddresses = [\"192.0.2.3\", \"fe80::3\"]\nmac = [\"02:00:00:00:0f:03\", \"00:00:5e:00:01:0a\"]\n"
    ));
    assert_eq!(with.flags & flag, flag);
    let rows: Vec<(String, u64)> = with
        .routers
        .iter()
        .map(|(key, _)| (from_address(&key.address).unwrap().to_string(), key.mac))
        .collect();
    let (own, shared) = (0x0200_0000_0f03, 0x0000_5e00_010a);
    let (v4, v6) = ("192.0.2.3".to_owned(), "fe80::3".to_owned());
    assert_eq!(rows, [(v4.clone(), own), (v4, shared), (v6.clone(), own), (v6, shared)]);
    assert_eq!(macs(&with), [(shared, 0, 0), (own, 0, 0)], "a router's MACs belong to no server");
}

#[test]
fn a_mac_of_a_server_and_of_a_router_is_the_servers() {
    let with = encoded(
        "[servers.s]\naddresses = [\"192.0.2.1\"]\nmac = \"00:00:5e:00:01:0a\"\n\
         [routers.r]\naddresses = \"192.0.2.3\"\nmac = \"00:00:5e:00:01:0a\"\n",
    );
    assert_eq!(macs(&with), [(0x0000_5e00_010a, 0, 100)]);
}

#[test]
fn quiet_ethertypes_fill_the_settings_from_the_front() {
    let policy =
        policy("[policy]\nquiet_ethertypes = [0x8899, 0x88a2]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n");
    let tables = compile(&policy).unwrap();
    let settings = encode_settings(&policy, &tables, 0, 1, 0);
    assert_eq!(settings.quiet_ethertypes[..3], [0x8899, 0x88a2, 0]);
}

#[test]
fn services_of_the_link_are_the_out_needs_of_nobodys_profile() {
    let text = "[roles.r]\nquiet = [\"udp/5353\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\nmac = \"02:00:00:00:00:01\"\nroles = [\"r\"]\n[policy]\n";
    let flag = settings_flag::SETTINGS_LINK_SERVICES.0;
    assert_eq!(encoded(text).flags & flag, 0);
    let text = format!("{text}link_services = [\"udp/53\"]\n");
    assert_eq!(encoded(&text).flags & flag, flag);
    let tables = tables(&text);
    let peer = "fe80::1".parse().unwrap();
    let need = |profile, direction, port| {
        tables.rules[tables.decide(profile, direction, 17, port, peer) as usize].clone()
    };
    assert_eq!(need(0, Direction::Out, 53).need, "udp/53");
    assert!(!need(0, Direction::Out, 53).management, "it ends in quarantine");
    assert_eq!(need(0, Direction::Quiet, 5353).need, "udp/5353");
    assert_eq!(need(0, Direction::Out, 5353).need, "");
    assert_eq!(
        need(1, Direction::Out, 53).need,
        "",
        "from an address of its own the server has its roles alone"
    );
}
