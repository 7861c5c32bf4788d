//! The border between kernel and user space: what the generated types look like on this side.

use std::mem::offset_of;

use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::btf::{Btf, HasSize};
use portcullis::abi::{PLAIN_TYPES, REASONS};
use portcullis::abi::{
    address, class_limits, counted_need, counter, decision, domain, edit_cell, edit_key, evidence,
    evidence_key, exchange, flow, flow_key, fragment, fragment_key, frequent, frequent_address, given_back,
    grant, granted, granted_key, half_open, ledger_key, ledger_row, lessors, limit, limit_key,
    load_constants, lookup, mac_key, name, name_connection, name_event, name_event_key, name_key,
    name_need_key, name_pattern, name_peer_key, name_share, need, need_key, need_use, opening,
    opening_bucket, peer_key, peer_match, prefix_key, private_run, quarantine, query, question, range_key,
    refused_fragment, resolver, router_key, row_addresses, row_counts, row_quota, rule, sample, server,
    settings, share_key, stream, sweep_request, sweep_row,
};

/// The members of a struct in the object, by their names, with their offsets in bytes.
fn read_members(name: &str) -> (usize, Vec<(String, usize)>) {
    let btf = Btf::from_path(concat!(env!("OUT_DIR"), "/portcullis.bpf.o")).expect("the object's BTF");
    let found = btf.type_by_name::<Struct<'_>>(name).unwrap_or_else(|| panic!("no struct {name} in BTF"));
    let members = found.iter().map(|member| {
        let MemberAttr::Normal { offset } = member.attr else { panic!("a bit field in struct {name}") };
        let name = member.name.expect("a name").to_str().expect("UTF-8").to_owned();
        (name, offset as usize / 8)
    });
    (found.size(), members.collect())
}

/// Compares a type with its size and the offsets of all its fields, as they are written here and as the
/// object has them. There is no padding between the fields.
macro_rules! assert_layout {
    ($type:ident $size:literal: $($field:ident = $offset:literal),* $(,)?) => {{
        let name = stringify!($type);
        let value = $type::default();
        let fields = [$((stringify!($field).to_owned(), offset_of!($type, $field))),*];
        assert_eq!(size_of::<$type>(), $size, "size of struct {name}");
        assert_eq!(fields.each_ref().map(|(_, offset)| *offset), [$($offset),*], "offsets of struct {name}");
        assert_eq!((size_of::<$type>(), fields.to_vec()), read_members(name), "struct {name} in BTF");
        let mut end = 0;
        $(
            assert_eq!(offset_of!($type, $field), end, "padding in struct {name}");
            end += size_of_val(&value.$field);
        )*
        assert_eq!(end, size_of::<$type>(), "padding at the end of struct {name}");
        name
    }};
}

#[test]
fn every_type_has_the_fields_of_the_object_where_the_header_puts_them() {
    let mut tested = vec![
        // the policy
        assert_layout!(address 16: word_be = 0),
        assert_layout!(settings 440: generation = 0, applied_s = 8, flags = 16, source_bytes = 20, servers = 24,
            needs = 28, peers = 32, pickup_s = 36, hash = 40, file = 72,
            quiet_ethertypes = 328, limits = 360, verdicts_mask = 424, zero = 428, name_floor_s = 432, name_cap_s = 436),
        assert_layout!(class_limits 16: guaranteed = 0, max = 4, shared = 8, zero = 12),
        // names as destinations
        assert_layout!(domain 256: text = 0),
        assert_layout!(name_key 260: prefix_bits = 0, bytes = 4),
        assert_layout!(name_pattern 16: exact = 0, below = 4, bytes = 8, flags = 12),
        assert_layout!(name_need_key 8: profile = 0, name = 4),
        assert_layout!(name_peer_key 8: set = 0, name = 4),
        assert_layout!(resolver 36: flags = 0, interface = 4),
        assert_layout!(share_key 8: server = 0, place = 4),
        assert_layout!(name_share 8: grants = 0, connections = 4),
        assert_layout!(grant 64: answered_ns = 0, open_until_ns = 8, used_ns = 16, address = 24, server = 40,
            name = 44, origin = 48, claimed = 52, checked = 56),
        assert_layout!(granted_key 20: address = 0, server = 16),
        assert_layout!(granted 64: place_plus_one = 0),
        assert_layout!(name_connection 24: last_ns = 0, server = 8, name = 12, place = 16, ended = 20),
        assert_layout!(lookup 128: answered_ns = 0, address = 8, server = 24, bytes = 28, name = 32),
        assert_layout!(query 40: asked_ns = 0, hash = 8, resolver = 16, server = 32, port = 36, id = 38),
        assert_layout!(stream 40: opened_ns = 0, resolver = 8, server = 24, first = 28, next = 32, port = 36,
            lost = 38, ended = 39),
        assert_layout!(name_event_key 12: kind = 0, server = 4, name = 8),
        assert_layout!(name_event 64: first_ns = 0, last_ns = 8, count = 16, resolver = 24, address = 40,
            interface = 56, mapped = 60),
        assert_layout!(server 20: id = 0, profile = 4, vlan = 8, mac = 10, flags = 16),
        assert_layout!(prefix_key 20: prefix_bits = 0, address = 4),
        assert_layout!(need_key 8: profile = 0, protocol = 4, zero = 5, port_be = 6),
        assert_layout!(range_key 12: prefix_bits = 0, need = 4),
        assert_layout!(peer_match 8: any = 0, set = 4),
        assert_layout!(need 24: inbound = 0, outbound = 8, quiet = 16),
        assert_layout!(peer_key 24: prefix_bits = 0, set = 4, address = 8),
        assert_layout!(rule 24: limit_key = 0, next = 4, interval_ns = 8, tolerance_ns = 16),
        assert_layout!(limit_key 8: server = 0, limit_key = 4),
        assert_layout!(limit 8: arrival_ns = 0),
        assert_layout!(name 64: text = 0),
        assert_layout!(quarantine 32: until_ns = 0, since_ns = 8, mac = 16, server = 24, zero = 28),
        assert_layout!(edit_key 24: prefix_bits = 0, scope = 4, place = 8),
        assert_layout!(edit_cell 32: allow_until_ns = 0, deny_until_ns = 8, allow = 16, deny = 20, set = 24, zero = 28),
        assert_layout!(mac_key 16: mac = 0, server = 8, zero = 12),
        assert_layout!(router_key 24: address = 0, mac = 16),
        // flows
        assert_layout!(flow_key 40: server = 0, peer = 16, server_port_be = 32, peer_port_be = 34,
            protocol = 36, zero = 37),
        assert_layout!(flow 24: last_ns = 0, generation = 8, server = 12, rule = 16, flags = 20),
        assert_layout!(half_open 32: opened_ns = 0, generation = 8, rule = 12, sequence = 16,
            sequence_end = 24, syn_acks = 28),
        assert_layout!(opening 8: opened_ns = 0),
        assert_layout!(opening_bucket 32: entries = 0),
        assert_layout!(need_use 16: openings = 0, last_ns = 8),
        assert_layout!(counted_need 40: identity = 0, since_s = 24, live_since_s = 32),
        assert_layout!(lessors 72: known = 0, count = 64, zero = 68),
        assert_layout!(evidence_key 24: peer = 0, server = 16, port = 20, protocol = 22, direction = 23),
        assert_layout!(evidence 40: answered = 0, asked = 8, first_ns = 16, last_ns = 24, nonce = 32, rows = 36),
        assert_layout!(exchange 24: last_ns = 0, sequence = 8, step = 12, by_server = 16, zero = 20),
        assert_layout!(fragment_key 40: source = 0, destination = 16, id = 32, protocol = 36, zero = 37),
        assert_layout!(fragment 32: passed_ns = 0, rule = 8, generation = 12, headers_bytes = 16,
            protocol = 20, zero = 21, later_bytes = 24, edits = 28),
        assert_layout!(refused_fragment 16: refused_ns = 0, port = 8, protocol = 10, fragment_protocol = 11,
            reason = 12, flags = 13, zero = 14),
        // drops
        assert_layout!(ledger_key 12: server = 0, port = 4, protocol = 6, reason = 7, flags = 8, zero = 9),
        assert_layout!(ledger_row 64: first_ns = 0, sampled_ns = 8, sampled_packets = 16, kind = 24,
            number = 36, class = 40, hot_destinations = 41, zero = 42, quota = 44,
            retired_packets = 48, retired_bytes = 56),
        assert_layout!(given_back 64: packets = 0, bytes = 8, first_ns = 16, last_ns = 24,
            last_source = 32, last_destination = 48),
        assert_layout!(sweep_request 16: step = 0, rows = 4, zero = 8),
        assert_layout!(sweep_row 24: first_ns = 0, packets = 8, number = 16, zero = 20),
        assert_layout!(row_addresses 520: sources = 0, destinations = 4, source = 8, destination = 264),
        assert_layout!(frequent_address 24: address = 0, packets = 16),
        assert_layout!(frequent 400: row = 0, estimated = 4, packets = 8, source = 16, destination = 208),
        assert_layout!(row_counts 64: packets = 0, bytes = 8, last_ns = 16, due_ns = 24,
            last_source = 32, last_destination = 48),
        assert_layout!(row_quota 8: rows = 0),
        assert_layout!(counter 16: packets = 0, bytes = 8),
        // test runs
        assert_layout!(decision 28: verdict = 0, reason = 1, flags = 2, scope = 3, effects = 4, server = 8,
            rule = 12, generation = 16, edits = 20, port = 24, protocol = 26, observed = 27),
        assert_layout!(question 8: assume = 0, zero = 4),
        assert_layout!(load_constants 8: is_private = 0, asks_conntrack = 4),
        assert_layout!(private_run 40: now_ns = 0, decision = 8, reserved = 36),
    ];
    assert_layout!(sample 104: time_ns = 0, drops = 8, source = 16, destination = 32, interface = 48,
        server = 52, rule = 56, length = 60, source_port = 64, destination_port = 66, ethertype = 68,
        vlan = 70, frame_bytes = 72, port = 74, verdict = 76, reason = 77, flags = 78, protocol = 79,
        tcp_flags = 80, icmp_type = 81, icmp_code = 82, ip_version = 83, source_mac = 84,
        destination_mac = 90, rest = 96, zero = 97);
    let mut plain = PLAIN_TYPES.to_vec();
    plain.sort_unstable();
    tested.sort_unstable();
    assert_eq!(tested, plain, "a type that is read as bytes has a line here");
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
        (11, "router"),
        (12, "handover"),
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
        (48, "elsewhere"),
        (49, "denied"),
        (50, "question"),
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
