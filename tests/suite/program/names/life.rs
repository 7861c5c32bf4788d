//! How long a grant lives, and what ends it.

use std::net::IpAddr;

use libbpf_rs::{MapCore as _, MapFlags};
use portcullis::abi::{Reason, grant, name_connection, name_count, own_network, query, share_key, state};

use super::{POLICY, count, v4};
use crate::support::conntrack_table::{self, Entry, in_own_table};
use crate::support::dmz::ip;
use crate::support::dns::{A, Message};
use crate::support::frame::{ACK, ICMP, ethernet, icmp_message, packet, tcp, udp};
use crate::support::test_gate::{SECOND_NS, TestGate};

const ADDRESS: &str = "203.0.113.80";
const HOUR_NS: u64 = 3600 * SECOND_NS;
const DAY_NS: u64 = 24 * HOUR_NS;

fn open(gate: &TestGate) {
    v4().look_up(gate, "deb.vendor.example", &[ADDRESS]);
}

fn the_grant(gate: &TestGate) -> grant {
    let grants = gate.entries::<share_key, grant>("grants");
    let [(_, grant)] = grants.as_slice() else { panic!("{grants:?}") };
    *grant
}

/// A server says that it can't deliver this packet.
fn icmp_error(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    ethernet(&packet(from, to, ICMP, &icmp_message(from, to, (3, 3), [0; 4], quoted)))
}

/// Lets time go by for all grants.
fn age(gate: &TestGate, by_ns: u64) {
    gate.change("grants", |grant: &mut grant| {
        for time in [&mut grant.answered_ns, &mut grant.open_until_ns, &mut grant.used_ns] {
            *time = time.wrapping_sub(by_ns);
        }
    });
}

#[test]
fn an_answer_opens_for_its_time_within_floor_and_cap_and_half_a_minute_more() {
    for (ttl, seconds) in [(0, 330), (1, 330), (301, 331), (4000, 4030), (86_401, 86_430), (u32::MAX, 330)] {
        let gate = TestGate::new(POLICY);
        let query = Message::query(7, "deb.vendor.example", A);
        v4().ask(&gate, &query);
        v4().receive(&gate, &query.addresses(&[ip(ADDRESS)], ttl));
        let grant = the_grant(&gate);
        assert_eq!(grant.open_until_ns - grant.answered_ns, seconds * SECOND_NS, "{ttl}");
    }
}

#[test]
fn a_policy_may_have_another_floor_and_another_cap() {
    let gate = TestGate::new(&POLICY.replace("[names]", "[names]\nttl = [10, 20]"));
    open(&gate);
    let grant = the_grant(&gate);
    assert_eq!(grant.open_until_ns - grant.answered_ns, 50 * SECOND_NS);
}

#[test]
fn a_grant_is_over_after_its_time_and_a_new_answer_opens_it_again() {
    let gate = TestGate::new(POLICY);
    open(&gate);
    age(&gate, 329 * SECOND_NS);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    let gate = TestGate::new(POLICY);
    open(&gate);
    age(&gate, 331 * SECOND_NS);
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
    open(&gate);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    assert_eq!(gate.entries::<share_key, grant>("grants").len(), 1, "one row for server, address and name");
}

#[test]
fn an_opening_keeps_a_grant_open_for_an_hour_and_never_beyond_the_cap() {
    let gate = TestGate::new(POLICY);
    open(&gate);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    age(&gate, HOUR_NS - 10 * SECOND_NS);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    age(&gate, HOUR_NS + SECOND_NS);
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
    // one opening in each hour
    let gate = TestGate::new(POLICY);
    open(&gate);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    for _ in 0..24 {
        age(&gate, HOUR_NS - 10 * SECOND_NS);
        gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    }
    age(&gate, 10 * 60 * SECOND_NS);
    assert!(the_grant(&gate).open_until_ns > portcullis::clock::now_ns());
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
}

#[test]
fn a_connection_outlives_its_grant_by_five_days_of_silence() {
    let gate = TestGate::new(POLICY);
    open(&gate);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    let segment = tcp((v4().server, 50_000), (ip(ADDRESS), 443), ACK);
    age(&gate, 2 * DAY_NS);
    let silence = |by_ns: u64| {
        gate.change("name_connections", |row: &mut name_connection| {
            row.last_ns = row.last_ns.wrapping_sub(by_ns);
        });
    };
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
    silence(5 * DAY_NS - 10 * SECOND_NS);
    gate.passes(&segment, Reason::OwnConnection);
    silence(5 * DAY_NS - 10 * SECOND_NS);
    gate.passes(&segment, Reason::OwnConnection);
    silence(5 * DAY_NS + SECOND_NS);
    gate.drops(&segment, Reason::NoFlow);
}

#[test]
fn what_a_name_lets_the_server_open_is_its_own_whatever_conntrack_has() {
    in_own_table(|table| {
        let serving = POLICY.replace("[roles.client]\n", "[roles.client]\nin = [\"tcp/80\"]\n");
        let gate = TestGate::new(&format!("[policy]\nhandover = \"conntrack\"\npickup = 0\n{serving}"));
        gate.set_pickup(-1);
        open(&gate);
        let from = (v4().server, 80);
        let segments = [ADDRESS, "203.0.113.81"].map(|to| {
            table.add(Entry::of_peer(conntrack_table::TCP, from, (ip(to), 443)));
            tcp(from, (ip(to), 443), ACK)
        });
        gate.drops(&segments[0], Reason::NoFlow);
        // also when the grant is over
        age(&gate, DAY_NS);
        gate.drops(&segments[0], Reason::NoFlow);
        gate.passes(&segments[1], Reason::Handover);
        assert_eq!(gate.program_statistics().unwrap().handover_asked, 1);
    });
}

#[test]
fn a_name_that_the_policy_no_longer_has_opens_nothing_and_carries_nothing_at_once() {
    let gate = TestGate::new(POLICY);
    open(&gate);
    let segment = tcp((v4().server, 50_000), (ip(ADDRESS), 443), ACK);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.passes(&segment, Reason::OwnConnection);
    gate.swap(&POLICY.replace("\"deb.vendor.example\", ", ""));
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
    gate.drops(&segment, Reason::NoFlow);
    // no swap forgets a grant
    gate.swap(POLICY);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.passes(&segment, Reason::OwnConnection);
}

#[test]
fn a_name_that_another_need_has_opens_nothing_for_this_one() {
    let gate = TestGate::new(POLICY);
    open(&gate);
    let moved = POLICY.replace("\"deb.vendor.example\", ", "").replace("to ntp.vendor", "to deb.vendor");
    gate.swap(&moved);
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
    gate.passes(&udp((v4().server, 40_000), (ip(ADDRESS), 123)), Reason::Need);
}

#[test]
fn a_grant_of_a_name_stays_when_a_wildcard_takes_its_place() {
    let named = POLICY.replace("\"deb.vendor.example\", ", "\"a.mirror.example\", ");
    let gate = TestGate::new(&named);
    v4().look_up(&gate, "a.mirror.example", &[ADDRESS]);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.swap(POLICY);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.swap(&POLICY.replace(", \"*.mirror.example\"", ""));
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
}

#[test]
fn the_most_specific_name_is_granted_and_those_around_it_have_it_too() {
    // one role has the name, the other the wildcard
    let policy = POLICY.replace("to mx.vendor.example", "to a.mirror.example");
    let gate = TestGate::new(&policy);
    v4().look_up(&gate, "a.mirror.example", &[ADDRESS]);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    let mail = super::Client { server: ip("192.0.2.25"), ..v4() };
    mail.look_up(&gate, "a.mirror.example", &[ADDRESS]);
    gate.passes(&mail.syn(ADDRESS, 25), Reason::Need);
    mail.look_up(&gate, "b.mirror.example", &["203.0.113.81"]);
    gate.drops(&mail.syn("203.0.113.81", 25), Reason::Destination);
}

#[test]
fn a_server_that_has_gone_gives_back_its_rows_but_for_open_grants() {
    let rows = |gate: &TestGate| {
        let grants = gate.entries::<share_key, grant>("grants").len();
        (grants, gate.entries::<share_key, query>("queries").len())
    };
    let gate = TestGate::new(POLICY);
    open(&gate);
    let without = POLICY.replace("servers.client1", "servers.client3");
    gate.swap(&without);
    assert_eq!(rows(&gate), (1, 0));
    gate.swap(POLICY);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    age(&gate, 2 * HOUR_NS);
    gate.swap(&without);
    assert_eq!(rows(&gate), (0, 0));
    gate.swap(POLICY);
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
}

#[test]
fn a_connection_is_the_servers_that_opened_it_and_not_its_addresss() {
    let gate = TestGate::new(POLICY);
    open(&gate);
    let segment = tcp((v4().server, 50_000), (ip(ADDRESS), 443), ACK);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.passes(&segment, Reason::OwnConnection);
    gate.swap(&POLICY.replace("servers.client1", "servers.client3"));
    gate.drops(&segment, Reason::NoFlow);
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
}

#[test]
fn what_a_granted_peer_answers_is_no_opening_of_its_own() {
    let gate = TestGate::new(POLICY);
    let (own, peer) = ((v4().server, 40_000), (ip("203.0.113.123"), 123));
    v4().look_up(&gate, "ntp.vendor.example", &["203.0.113.123"]);
    gate.passes(&udp(own, peer), Reason::Need);
    gate.to_server(&udp(peer, own));
    age(&gate, 2 * DAY_NS);
    // a backdoor is what it would be else
    gate.drops(&udp(own, peer), Reason::Destination);
    gate.to_server(&udp(peer, own));
    gate.drops(&udp(own, peer), Reason::Destination);
}

#[test]
fn an_error_about_a_connection_passes_as_long_as_its_name_is_in_the_policy() {
    let gate = TestGate::new(POLICY);
    open(&gate);
    let (own, peer) = ((v4().server, 50_000), (ip(ADDRESS), 443));
    let error = icmp_error(own.0, peer.0, &tcp(peer, own, ACK)[14..]);
    gate.drops(&error, Reason::Backscatter);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.passes(&error, Reason::FlowError);
    gate.swap(&POLICY.replace("\"deb.vendor.example\", ", ""));
    gate.drops(&error, Reason::Backscatter);
}

#[test]
fn a_limit_of_a_name_that_is_used_up_leaves_what_other_needs_permit() {
    let needs = "\"udp/123 to ntp.vendor.example limit 1/m\", \"udp/123 to 203.0.113.0/24 limit 2/m\"";
    let gate = TestGate::new(&POLICY.replace("\"udp/123 to ntp.vendor.example\"", needs));
    v4().look_up(&gate, "ntp.vendor.example", &["203.0.113.123"]);
    let datagram = udp((v4().server, 40_000), (ip("203.0.113.123"), 123));
    for _ in 0..3 {
        gate.passes(&datagram, Reason::Need);
    }
    gate.drops(&datagram, Reason::Rate);
}

/// Once an address was granted it is not looked at for each answer, but as soon as anything has changed.
#[test]
fn an_answer_renews_no_grant_of_an_address_that_no_name_may_have_any_more() {
    let renewed = |gate: &TestGate| count(gate, name_count::NAME_GRANT_RENEWED);
    let refused = |gate: &TestGate| count(gate, name_count::NAME_ADDRESS_PRIVATE);
    // a policy without the prefix, and one that gives the address to a server
    for other in [
        POLICY.replace("\"203.0.113.0/24\", ", ""),
        POLICY.replace("private = [\"203.0.113.0/24\", ", "private = [\"203.0.113.81/32\", ")
            + "[servers.new]\naddresses = [\"203.0.113.80\"]\nroles = [\"other\"]\n",
    ] {
        let gate = TestGate::new(POLICY);
        open(&gate);
        open(&gate);
        assert_eq!((renewed(&gate), refused(&gate)), (1, 0));
        gate.swap(&other);
        let before = the_grant(&gate);
        open(&gate);
        assert_eq!((renewed(&gate), refused(&gate)), (1, 1));
        assert_eq!(the_grant(&gate).answered_ns, before.answered_ns);
        // the policy of before has it again
        gate.swap(POLICY);
        open(&gate);
        assert_eq!((renewed(&gate), refused(&gate)), (2, 1));
    }

    // an address that this machine gets
    let gate = TestGate::new(&POLICY.replace("\"203.0.113.0/24\", ", ""));
    let answer = |address: &str| v4().look_up(&gate, "deb.vendor.example", &[address]);
    answer("8.8.8.8");
    answer("8.8.8.8");
    assert_eq!((renewed(&gate), refused(&gate)), (1, 0));
    let key = portcullis::abi::to_prefix_key(&"8.8.8.8/32".parse().expect("a prefix"));
    gate.maps.own_networks.put(&key, &own_network::OWN_NETWORK_ADDRESS.0, MapFlags::ANY).expect("a row");
    let words = gate.maps.find("state").expect("a map");
    words
        .update(&state::STATE_OWN_NETWORKS.0.to_ne_bytes(), &7_u64.to_ne_bytes(), MapFlags::ANY)
        .expect("a word");
    answer("8.8.8.8");
    assert_eq!((renewed(&gate), refused(&gate)), (1, 1));
}
