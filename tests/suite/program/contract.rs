//! The border between kernel and user space: what the generated types look like on this side.

use std::mem::{offset_of, size_of};

use portcullis::abi::REASONS;
use portcullis::abi::{
    address, counter, decision, flow, flow_key, fragment, fragment_key, half_open, ledger_key, ledger_row,
    limit, limit_key, name, need, need_key, opening, peer_key, peer_match, prefix_key, quarantine, question,
    range_key, row_quota, rule, sample, server, settings,
};

#[test]
fn the_types_have_the_sizes_that_the_header_asserts() {
    let sizes = [
        ("address", size_of::<address>(), 16),
        ("settings", size_of::<settings>(), 72 + 256),
        ("server", size_of::<server>(), 20),
        ("prefix_key", size_of::<prefix_key>(), 20),
        ("need_key", size_of::<need_key>(), 8),
        ("range_key", size_of::<range_key>(), 12),
        ("peer_match", size_of::<peer_match>(), 8),
        ("need", size_of::<need>(), 24),
        ("peer_key", size_of::<peer_key>(), 24),
        ("rule", size_of::<rule>(), 24),
        ("limit_key", size_of::<limit_key>(), 8),
        ("limit", size_of::<limit>(), 8),
        ("name", size_of::<name>(), 64),
        ("quarantine", size_of::<quarantine>(), 16),
        ("flow_key", size_of::<flow_key>(), 40),
        ("flow", size_of::<flow>(), 24),
        ("half_open", size_of::<half_open>(), 32),
        ("opening", size_of::<opening>(), 8),
        ("fragment_key", size_of::<fragment_key>(), 40),
        ("fragment", size_of::<fragment>(), 24),
        ("ledger_key", size_of::<ledger_key>(), 12),
        ("ledger_row", size_of::<ledger_row>(), 128),
        ("row_quota", size_of::<row_quota>(), 8),
        ("counter", size_of::<counter>(), 16),
        ("sample", size_of::<sample>(), 104),
        ("decision", size_of::<decision>(), 40),
        ("question", size_of::<question>(), 8),
    ];
    for (what, found, expected) in sizes {
        assert_eq!(found, expected, "size of struct {what}");
    }
}

/// Names and offsets of fields, in a list that `assert_eq!` compares.
macro_rules! offsets {
    ($type:ident: $($field:ident = $offset:literal),* $(,)?) => {
        assert_eq!(
            [$((stringify!($field), offset_of!($type, $field))),*],
            [$((stringify!($field), $offset)),*],
            "offsets of struct {}", stringify!($type)
        );
    };
}

#[test]
fn the_fields_of_tables_stand_where_the_header_puts_them() {
    offsets!(settings: generation = 0, applied_s = 8, flags = 16, source_bytes = 20, servers = 24, needs = 28,
        peers = 32, pickup_s = 36, hash = 40, file = 72);
    offsets!(server: id = 0, profile = 4, vlan = 8, mac = 10, flags = 16);
    offsets!(prefix_key: prefix_bits = 0, address = 4);
    offsets!(need_key: profile = 0, protocol = 4, zero = 5, port_be = 6);
    offsets!(range_key: prefix_bits = 0, need = 4);
    offsets!(peer_match: any = 0, set = 4);
    offsets!(need: inbound = 0, outbound = 8, quiet = 16);
    offsets!(peer_key: prefix_bits = 0, set = 4, address = 8);
    offsets!(rule: limit_key = 0, zero = 4, interval_ns = 8, tolerance_ns = 16);
    offsets!(limit_key: server = 0, limit_key = 4);
    offsets!(quarantine: until_ns = 0, since_ns = 8);
    offsets!(flow_key: server = 0, peer = 16, server_port_be = 32, peer_port_be = 34, protocol = 36, zero = 37);
    offsets!(flow: last_ns = 0, generation = 8, server = 12, rule = 16, flags = 20);
    offsets!(half_open: opened_ns = 0, generation = 8, rule = 12, sequence = 16, sequence_end = 24,
        syn_acks = 28);
    offsets!(fragment_key: source = 0, destination = 16, id = 32, protocol = 36, zero = 37);
    offsets!(fragment: passed_ns = 0, rule = 8, generation = 12, headers_bytes = 16, protocol = 20);
}

#[test]
fn the_fields_of_what_comes_back_stand_where_the_header_puts_them() {
    offsets!(ledger_key: server = 0, port = 4, protocol = 6, reason = 7, flags = 8, zero = 9);
    offsets!(ledger_row: packets = 0, bytes = 8, last_ns = 16, sampled_ns = 24, last_source = 32,
        last_destination = 48, first_ns = 64, sampled_packets = 72, kind = 80, number = 92, overflow = 96,
        zero = 100);
    offsets!(counter: packets = 0, bytes = 8);
    offsets!(decision: verdict = 0, reason = 1, flags = 2, scope = 3, effects = 4, server = 8, rule = 12,
        generation = 16, port = 20, zero2 = 22, limit_key = 24, zero3 = 28, interval_ns = 32);
    offsets!(question: assume = 0, zero = 4);
    offsets!(sample: time_ns = 0, drops = 8, source = 16, destination = 32, interface = 48, server = 52,
        rule = 56, length = 60, source_port = 64, destination_port = 66, ethertype = 68, vlan = 70,
        frame_bytes = 72, port = 74, verdict = 76, reason = 77, flags = 78, protocol = 79, tcp_flags = 80,
        icmp_type = 81, icmp_code = 82, ip_version = 83, source_mac = 84, destination_mac = 90, zero = 96);
}

/// Numbers that tools and dashboards have seen are never given to anything else.
#[test]
fn reasons_keep_their_numbers() {
    let expected = [
        (1, "link_layer"),
        (2, "neighbour"),
        (3, "dhcp"),
        (4, "unknown_allowed"),
        (5, "later_fragment"),
        (6, "reply"),
        (7, "pickup"),
        (8, "need"),
        (9, "own_connection"),
        (10, "flow_error"),
        (32, "ethertype"),
        (33, "malformed"),
        (34, "source_route"),
        (35, "rogue_router"),
        (36, "unknown_source"),
        (37, "spoofed"),
        (38, "quarantined"),
        (39, "fragment"),
        (40, "rate"),
        (41, "unlisted_service"),
        (42, "backscatter"),
        (43, "stranger"),
        (44, "no_flow"),
        (45, "protocol"),
        (46, "destination"),
        (47, "new_flow"),
    ];
    assert_eq!(REASONS.len(), expected.len(), "a new reason has a line here, which it keeps");
    for (number, word) in expected {
        assert!(
            REASONS.iter().any(|known| (known.number(), known.name()) == (number, word)),
            "{word} is no longer {number}"
        );
    }
    assert!(REASONS.iter().all(|known| known.drops() == (known.number() >= 32)));
}
