//! The tables of overlapping needs, limits and room.

mod agreement;
mod encoding;
mod limits;
mod sports;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::*;
use crate::abi::settings_flag;
use crate::policy::{Direction, parse};

fn policy(text: &str) -> Policy {
    parse(text, "dmz.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn tables(text: &str) -> Tables {
    compile(&policy(text)).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The tables of one server with one role.
fn tables_of_role(role: &str) -> Tables {
    tables(&format!("[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n[roles.r]\n{role}\n"))
}

/// Rows of profile 1 as `PROTO PORTS: needs`, with the needs of `in`, `out` and `quiet`.
fn show(tables: &Tables) -> Vec<String> {
    let rule = |number: u32| tables.rules[number as usize].need.clone();
    let show_match = |peer_match: PeerMatch| {
        let of_set = tables.peers.iter().filter(|row| row.set == peer_match.set && peer_match.set != 0);
        let mut parts: Vec<String> =
            of_set.map(|row| format!("{}: {}", row.prefix, rule(row.rule))).collect();
        parts.extend((peer_match.any != 0).then(|| rule(peer_match.any)));
        parts.join("; ")
    };
    let rows = tables.needs.iter().filter(|row| row.profile == 1);
    rows.map(|row| {
        let (first, last) = (row.ports.start(), row.ports.end());
        format!(
            "{} {first}-{last} | {} | {} | {}",
            row.proto,
            show_match(row.inbound),
            show_match(row.outbound),
            show_match(row.quiet)
        )
    })
    .collect()
}

#[test]
fn one_row_answers_for_every_direction() {
    let tables = tables_of_role("in = [\"tcp/113\"]\nout = [\"tcp/113\"]\nquiet = [\"udp/5353\"]");
    assert_eq!(show(&tables), ["6 113-113 | tcp/113 | tcp/113 | ", "17 5353-5353 |  |  | udp/5353"]);
}

#[test]
fn overlapping_ranges_are_cut_into_disjoint_ones() {
    let tables = tables_of_role("in = [\"tcp/10-20\"]\nout = [\"tcp/15-30\"]");
    assert_eq!(
        show(&tables),
        ["6 10-14 | tcp/10-20 |  | ", "6 15-20 | tcp/10-20 | tcp/15-30 | ", "6 21-30 |  | tcp/15-30 | "]
    );
}

#[test]
fn a_range_inside_a_better_one_leaves_no_trace() {
    assert_eq!(show(&tables_of_role("in = [\"tcp/1-100\", \"tcp/50\"]")), ["6 1-100 | tcp/1-100 |  | "]);
}

#[test]
fn ranges_of_different_needs_are_not_merged_though_they_touch() {
    assert_eq!(
        show(&tables_of_role("in = [\"tcp/1\", \"tcp/2\"]")),
        ["6 1-1 | tcp/1 |  | ", "6 2-2 | tcp/2 |  | "]
    );
}

#[test]
fn the_ends_of_the_port_space_are_ports_as_well() {
    assert_eq!(
        show(&tables_of_role("in = [\"tcp/0\", \"tcp/65535\"]\nout = [\"tcp\"]")),
        ["6 0-0 | tcp/0 | tcp | ", "6 1-65534 |  | tcp | ", "6 65535-65535 | tcp/65535 | tcp | "]
    );
}

#[test]
fn icmp_has_256_types_and_other_protocols_one_row() {
    assert_eq!(
        show(&tables_of_role("in = [\"icmp\", \"gre\"]\nout = [\"icmpv6/echo-request\"]")),
        ["1 0-255 | icmp |  | ", "47 0-0 | gre |  | ", "58 128-128 |  | icmpv6/echo-request | "]
    );
}

#[test]
fn management_comes_before_everything_for_it_stays_open_in_quarantine() {
    let tables = tables(
        "[roles.r]\nin = [\"tcp/22\", \"tcp/20-30\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n[policy]\nmanagement = [\"tcp/22 from 203.0.113.7\"]\n",
    );
    assert_eq!(
        show(&tables),
        [
            "6 20-21 | tcp/20-30 |  | ",
            "6 22-22 | 203.0.113.7/32: tcp/22 from 203.0.113.7; tcp/22 |  | ",
            "6 23-30 | tcp/20-30 |  | "
        ]
    );
    assert_eq!(tables.rules.iter().filter(|rule| rule.management).count(), 1);
}

#[test]
fn a_server_without_roles_has_the_management() {
    let tables = tables("[servers.s]\naddresses = [\"192.0.2.1\"]\n[policy]\nmanagement = [\"tcp/22\"]\n");
    assert_eq!(show(&tables), ["6 22-22 | tcp/22 |  | "]);
}

#[test]
fn no_limit_is_better_than_any_and_a_high_one_better_than_a_low_one() {
    assert_eq!(show(&tables_of_role("out = [\"tcp/25 limit 9/s\", \"tcp/25\"]")), ["6 25-25 |  | tcp/25 | "]);
    assert_eq!(
        show(&tables_of_role("out = [\"tcp/25 limit 100/m\", \"tcp/25 limit 2/s\"]")),
        ["6 25-25 |  | tcp/25 limit 2/s | "]
    );
}

#[test]
fn of_equal_needs_the_first_one_in_the_file_is_named() {
    assert_eq!(
        show(&tables_of_role("out = [\"tcp/25 limit 60/m\", \"tcp/25 limit 1/s\"]")),
        ["6 25-25 |  | tcp/25 limit 60/m | "]
    );
    let tables = tables(
        "[roles.b]\nin = [\"tcp/80\"]\n[roles.a]\nin = [\"tcp/80\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"a\", \"b\"]\n",
    );
    let rule = &tables.rules[tables.needs[0].inbound.any as usize];
    assert_eq!((rule.role.as_deref(), rule.line, rule.column), (Some("b"), 2, 8));
}

#[test]
fn a_prefix_inside_another_with_a_better_rule_is_left_out() {
    assert_eq!(
        show(&tables_of_role("out = [\"tcp/25 to 10.0.0.0/8\", \"tcp/25 to 10.1.0.0/16 limit 5/s\"]")),
        ["6 25-25 |  | 10.0.0.0/8: tcp/25 to 10.0.0.0/8 | "]
    );
}

#[test]
fn a_prefix_inside_another_with_a_worse_rule_is_kept() {
    assert_eq!(
        show(&tables_of_role("out = [\"tcp/25 to 10.0.0.0/8 limit 5/s\", \"tcp/25 to 10.1.0.0/16\"]")),
        ["6 25-25 |  | 10.0.0.0/8: tcp/25 to 10.0.0.0/8 limit 5/s; 10.1.0.0/16: tcp/25 to 10.1.0.0/16 | "]
    );
}

#[test]
fn peers_of_a_worse_rule_than_that_for_all_peers_are_left_out() {
    let tables =
        tables_of_role("out = [\"tcp/25\", \"tcp/25 to 10.0.0.0/8\", \"tcp/25 to 10.0.0.0/8 limit 5/s\"]");
    assert_eq!(show(&tables), ["6 25-25 |  | tcp/25 | "]);
    assert!(tables.peers.is_empty());
}

#[test]
fn peers_of_a_better_rule_than_that_for_all_peers_are_kept() {
    assert_eq!(
        show(&tables_of_role("out = [\"tcp/25 limit 5/s\", \"tcp/25 to 10.0.0.0/8\"]")),
        ["6 25-25 |  | 10.0.0.0/8: tcp/25 to 10.0.0.0/8; tcp/25 limit 5/s | "]
    );
}

#[test]
fn sets_that_say_the_same_are_one() {
    let tables = tables_of_role(
        "out = [\"tcp/1-9 to 10.0.0.0/8, 2001:db8::/32\", \"tcp/5 to 10.0.0.0/8 limit 1/s\", \"tcp/7 to 10.0.0.0/16 limit 1/s\"]",
    );
    assert_eq!(tables.peers.len(), 2);
    assert_eq!(tables.needs.len(), 1, "{:?}", tables.needs);
}

#[test]
fn all_of_ipv6_does_not_cover_ipv4() {
    let tables = tables_of_role("out = [\"tcp/25 to ::/0\", \"tcp/25 to ::/1 limit 5/s\"]");
    let mapped = IpAddr::from("192.0.2.1".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped());
    let rule = |peer: IpAddr| tables.decide(1, Direction::Out, 6, 25, peer);
    assert_eq!(rule(mapped), 0);
    for peer in ["::", "::1", "::fffe:c000:201", "::1:0:0:0", "64:ff9b::1", "2001:db8::1", "ffff::"] {
        assert_eq!(rule(peer.parse().unwrap()), 1, "{peer}");
    }
}

#[test]
fn servers_with_the_same_roles_in_any_order_share_a_profile() {
    let tables = tables(
        "[roles.a]\nin = [\"tcp/1\"]\n[roles.b]\nin = [\"tcp/2\"]\n\
         [servers.x]\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\nroles = [\"a\", \"b\"]\nmac = \"02:00:00:00:00:01\"\n\
         [servers.y]\naddresses = [\"192.0.2.2\"]\nroles = [\"b\", \"a\", \"b\"]\nmode = \"observe\"\nvlan = 7\n\
         [servers.z]\naddresses = [\"192.0.2.0/24\"]\nroles = [\"b\"]\n",
    );
    let profiles: Vec<(usize, u32)> = tables.servers.iter().map(|row| (row.server, row.profile)).collect();
    assert_eq!(profiles, [(0, 1), (0, 1), (1, 1), (2, 2)]);
    assert_eq!(tables.names, ["x", "y", "z"]);
    assert_eq!((&tables.servers[0].macs[..], tables.servers[0].observe), (&[[2, 0, 0, 0, 0, 1]][..], false));
    assert_eq!((tables.servers[2].vlan, tables.servers[2].observe), (Some(7), true));
    let found = |address: &str| tables.find_server(address.parse().unwrap()).map(|row| row.server);
    assert_eq!([found("192.0.2.2"), found("192.0.2.3"), found("2001:db8::2")], [Some(1), Some(2), None]);
}

#[test]
fn nobodys_profile_knows_what_is_quiet_for_any_role_and_nothing_else() {
    let tables = tables(
        "[roles.a]\nin = [\"tcp/1\"]\nout = [\"tcp/2\"]\nquiet = [\"udp/5353\"]\n[roles.unused]\nquiet = [\"udp/1900\", \"igmp\"]\n\
         [servers.x]\naddresses = [\"192.0.2.1\"]\nroles = [\"a\"]\n[policy]\nmanagement = [\"tcp/22\"]\n",
    );
    let nobody: Vec<(u8, u16)> = tables
        .needs
        .iter()
        .filter(|row| row.profile == 0)
        .map(|row| (row.proto, *row.ports.start()))
        .collect();
    assert_eq!(nobody, [(2, 0), (17, 1900), (17, 5353)]);
    let empty = PeerMatch::default();
    assert!(
        tables
            .needs
            .iter()
            .filter(|row| row.profile == 0)
            .all(|row| row.inbound == empty && row.outbound == empty)
    );
}

#[test]
fn settings_are_handed_through() {
    let settings = |lines: &str| {
        tables(&format!("[servers.x]\naddresses = [\"192.0.2.1\"]\n[policy]\n{lines}\n")).settings
    };
    let flags = |flags: &[settings_flag]| flags.iter().fold(0, |all, flag| all | flag.0);
    let default = CompiledSettings { flags: flags(&[settings_flag::SETTINGS_STRICT]), pickup_s: 120 };
    assert_eq!(settings(""), default);
    let all =
        "mode = \"observe\"\ntracking = \"service\"\nunknown_sources = \"allow\"\npickup = 0\ndhcp = true";
    let expected = [
        settings_flag::SETTINGS_OBSERVE,
        settings_flag::SETTINGS_UNKNOWN_ALLOW,
        settings_flag::SETTINGS_DHCP,
    ];
    assert_eq!(settings(all), CompiledSettings { flags: flags(&expected), pickup_s: 0 });
    let quiet = [settings_flag::SETTINGS_STRICT, settings_flag::SETTINGS_UNKNOWN_QUIET];
    assert_eq!(settings("unknown_sources = \"quiet\"").flags, flags(&quiet));
}

#[test]
fn a_limit_key_survives_changes_elsewhere_in_the_policy() {
    let key = |tables: &Tables, need: &str| {
        let rule = tables.rules.iter().find(|rule| rule.need == need).unwrap();
        assert_ne!(rule.limit_key, 0);
        rule.limit_key
    };
    let before = tables_of_role("out = [\"tcp/25 limit 20/s\"]");
    let after = tables_of_role(
        "in = [\"tcp/80\"]\nout = [\"udp/53\", \"tcp/smtp   limit 20/s\"]\nquiet = [\"udp/1\"]",
    );
    assert_eq!(key(&before, "tcp/25 limit 20/s"), key(&after, "tcp/25 limit 20/s"));
    assert_eq!(
        key(&before, "tcp/25 limit 20/s"),
        0x8ef9_0f36,
        "a new version must not forget the buckets of the old one"
    );
}

#[test]
fn limit_keys_are_unique_even_for_equal_needs() {
    let tables = tables_of_role(
        "out = [\"tcp/25 limit 20/s\", \"tcp/25 limit 20/s\", \"tcp/25\"]\nquiet = [\"tcp/25\"]",
    );
    let mut keys: Vec<u32> = tables.rules.iter().map(|rule| rule.limit_key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), tables.rules.len());
}

#[test]
fn a_need_is_known_again_wherever_it_stands_and_copies_of_its_rule_are_the_same() {
    let known = |tables: &Tables, need: &str| {
        let rows = tables.rules.iter().zip(identify_needs(&tables.rules));
        let found: Vec<NeedIdentity> =
            rows.filter(|(row, _)| row.need == need).filter_map(|(_, identity)| identity).collect();
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "copies of {need}");
        found[0]
    };
    let limits = "out = [\"tcp/25 limit 20/s\", \"tcp/25 limit 9/s\", \"tcp/25 to 198.51.100.9 limit 1/s\"]";
    let before = tables_of_role(limits);
    assert!(before.rules.len() > 4, "no rule is copied");
    assert_eq!(identify_needs(&before.rules)[0], None, "the placeholder");
    let after =
        tables_of_role(&format!("in = [\"tcp/80\"]\n{}", limits.replace("tcp/25 limit 9/s", "udp/53")));
    assert_eq!(known(&before, "tcp/25 limit 20/s"), known(&after, "tcp/25 limit 20/s"));
    assert_ne!(known(&before, "tcp/25 limit 20/s"), known(&before, "tcp/25 limit 9/s"));

    // the same words in both directions, and twice in one
    let tables = tables_of_role("in = [\"tcp/25\"]\nout = [\"tcp/25\", \"tcp/25\"]");
    let mut identities: Vec<_> = identify_needs(&tables.rules).into_iter().flatten().collect();
    assert_eq!(identities.len(), 3);
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), 3);
}

fn refusal(text: &str) -> String {
    let errors = compile(&policy(text)).unwrap_err();
    errors
        .iter()
        .map(|error| {
            format!(
                "{}:{}: {} ({})",
                error.line,
                error.column,
                error.message,
                error.help.as_deref().unwrap_or("")
            )
        })
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn more_addresses_than_there_is_room_for_are_refused_at_the_first_too_many() {
    assert_eq!(
        refusal(
            "[servers.x]\naddresses = [\"192.0.2.1\", \"192.0.2.2\", \"192.0.2.3\"]\n[tables]\nservers = 1\n"
        ),
        "2:28: this policy has 3 addresses and prefixes of servers, and table `servers` has room for 1 (line 4) (in [tables], write: servers = 3)"
    );
}

#[test]
fn more_port_ranges_than_there_is_room_for_are_refused_at_the_roles_of_the_server() {
    assert_eq!(
        refusal(
            "[tables]\nneeds = 2\n[roles.r]\nin = [\"tcp/1\", \"tcp/3\", \"udp/5\"]\n[servers.x]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n"
        ),
        "7:1: this policy has 3 port ranges of needs, and table `needs` has room for 2 (line 2) (in [tables], write: needs = 3)"
    );
}

#[test]
fn more_peers_than_there_is_room_for_are_refused_at_the_need() {
    let text = "[tables]\npeers = 2\n[roles.r]\nout = [\"tcp/1 to 10.0.0.1, 10.0.0.3\", \"tcp/2 to 10.0.0.5\"]\n[servers.x]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n";
    assert_eq!(
        refusal(text),
        "4:40: this policy has 3 addresses and prefixes of peers, and table `peers` has room for 2 (line 2) (in [tables], write: peers = 3)"
    );
    assert!(compile(&policy(&text.replace("peers = 2", "peers = 3"))).is_ok());
}

#[test]
fn a_policy_always_gives_the_same_tables() {
    let text = crate::policy::STARTER;
    assert_eq!(tables(text), tables(text));
}

#[test]
fn counting_ends_beyond_the_largest_setting_and_not_at_it() {
    let text = "[servers.x]\naddresses = [\"192.0.2.1\"]\nroles = []\n[tables]\npeers = 16777216\n";
    let mut room = Room::new(&policy(text));
    assert!(room.take_peers(crate::policy::MAX_ENTRIES as usize));
    assert!(!room.is_exhausted());
    assert!(!room.take_peers(1));
    assert!(room.is_exhausted());
}
