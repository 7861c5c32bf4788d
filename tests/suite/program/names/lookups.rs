//! What an address was looked up as: for people, of any name, and never a cause for anything.

use std::net::{IpAddr, Ipv4Addr};

use libbpf_rs::{MapCore as _, MapFlags};
use portcullis::abi::{Reason, lookup, share_key, state};

use super::{Client, POLICY, RIGHT_WAY, WRONG_WAY, v4, v6};
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, ANSWER, CNAME, Message, Record, datagram, segment, wire};
use crate::support::frame::{ACK, SYN, tcp_numbered};
use crate::support::test_gate::{SECOND_NS, TestGate};

fn mail() -> Client {
    Client { server: ip("192.0.2.25"), ..v4() }
}

/// The name by a look at one place, which has to be that of the whole table.
fn name_of(gate: &TestGate, server: &str, address: &str) -> Option<String> {
    let (id, address) = (gate.id_of(server), ip(address));
    let one = gate.find_lookup(id, address).expect("a table");
    let all = gate.lookups().expect("a table");
    assert_eq!(all.find(id, address).map(|found| &found.name), one.as_ref().map(|found| &found.name));
    one.map(|found| found.name.to_string())
}

fn receive(gate: &TestGate, client: Client, answer: &Message) {
    gate.to_server_from(&datagram(client.dns(), client.end(), &answer.bytes()), RIGHT_WAY);
}

fn answer(name: &str, addresses: &[&str]) -> Message {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
    let kind = if addresses.iter().any(IpAddr::is_ipv6) { AAAA } else { A };
    Message::query(7, name, kind).addresses(&addresses, 60)
}

#[test]
fn an_address_has_the_name_that_its_server_was_last_answered_whether_the_policy_has_that_name_or_not() {
    let gate = TestGate::new(POLICY);
    for (client, address) in [(v4(), "203.0.113.9"), (v6(), "2001:db8:66::9")] {
        assert_eq!(name_of(&gate, "client1", address), None);
        receive(&gate, client, &answer("a.Evil.example", &[address]));
        assert_eq!(name_of(&gate, "client1", address).as_deref(), Some("a.evil.example"));
        receive(&gate, client, &answer("b.evil.example", &[address]));
        assert_eq!(name_of(&gate, "client1", address).as_deref(), Some("b.evil.example"));
        // it opens nothing
        gate.drops(&client.syn(address, 443), Reason::Destination);
        assert_eq!(name_of(&gate, "client2", address), None, "of another server");
    }
    v4().look_up(&gate, "deb.vendor.example", &["203.0.113.80", "203.0.113.81"]);
    for address in ["203.0.113.80", "203.0.113.81"] {
        assert_eq!(name_of(&gate, "client1", address).as_deref(), Some("deb.vendor.example"));
        gate.passes(&v4().syn(address, 443), Reason::Need);
    }
}

#[test]
fn an_address_at_the_end_of_a_chain_has_the_name_that_was_asked_for() {
    let gate = TestGate::new(POLICY);
    let query = Message::query(7, "evil.example", A);
    let records = [
        Record::new(&wire("evil.example"), CNAME, 60, &wire("edge.example")),
        Record::new(&wire("edge.example"), A, 60, &[203, 0, 113, 9]),
    ];
    receive(&gate, v4(), &query.answer(&records));
    assert_eq!(name_of(&gate, "client1", "203.0.113.9").as_deref(), Some("evil.example"));
}

#[test]
fn an_answer_over_tcp_counts_as_well() {
    let gate = TestGate::new(POLICY);
    let (server, resolver) = (v4().end(), v4().dns());
    gate.to_server_from(&tcp_numbered(resolver, server, SYN | ACK, (1000, 1)), RIGHT_WAY);
    let bytes = answer("evil.example", &["203.0.113.9"]).prefixed();
    gate.to_server_from(&segment(resolver, server, ACK, 1001, &bytes), RIGHT_WAY);
    assert_eq!(name_of(&gate, "client1", "203.0.113.9").as_deref(), Some("evil.example"));
}

#[test]
fn what_no_resolver_answered_by_the_right_way_leaves_no_name() {
    let gate = TestGate::new(POLICY);
    let good = answer("evil.example", &["203.0.113.9"]);
    gate.to_server_from(&datagram(v4().dns(), v4().end(), &good.bytes()), WRONG_WAY);
    let stranger = Client { resolver: ip("198.51.100.54"), ..v4() };
    receive(&gate, stranger, &good);
    gate.to_server_from(&datagram((v4().resolver, 54), v4().end(), &good.bytes()), RIGHT_WAY);
    receive(&gate, v4(), &Message { flags: ANSWER | 3, ..good.clone() });
    receive(&gate, v4(), &Message { flags: 0x0100, ..good.clone() });
    receive(&gate, v4(), &Message { additionals: good.answers.clone(), answers: Vec::new(), ..good.clone() });
    // IPv4 in a record of IPv6 would be the address of another
    let mapped = [&[0; 10][..], &[0xff, 0xff, 203, 0, 113, 9]].concat();
    let query = Message::query(7, "evil.example", AAAA);
    receive(&gate, v4(), &query.answer(&[Record::new(&wire("evil.example"), AAAA, 60, &mapped)]));
    assert_eq!(gate.entries::<share_key, lookup>("lookups").len(), 0);
    receive(&gate, v4(), &good);
    assert_eq!(gate.entries::<share_key, lookup>("lookups").len(), 1);
}

#[test]
fn without_resolvers_nothing_is_remembered() {
    let policy =
        "[roles.r]\nout = [\"udp/53\"]\n[servers.client1]\naddresses = [\"192.0.2.10\"]\nroles = [\"r\"]\n";
    let gate = TestGate::new(policy);
    receive(&gate, v4(), &answer("evil.example", &["203.0.113.9"]));
    assert_eq!(gate.entries::<share_key, lookup>("lookups").len(), 0);
    // with a section alone, and no name: a later policy may want them
    gate.swap(&format!("[names]\nresolvers = [\"198.51.100.53\"]\nfrom = [\"lo\"]\n{policy}"));
    receive(&gate, v4(), &answer("evil.example", &["203.0.113.9"]));
    assert_eq!(name_of(&gate, "client1", "203.0.113.9").as_deref(), Some("evil.example"));
}

#[test]
fn whatever_a_name_holds_is_shown_in_printable_ascii_and_of_a_long_one_its_end() {
    let gate = TestGate::new(POLICY);
    let named = |labels: &[&[u8]], address: &str| {
        let mut query = Message::query(7, "", A);
        query.name = labels.iter().flat_map(|label| [&[label.len() as u8][..], label].concat()).collect();
        query.name.push(0);
        receive(&gate, v4(), &query.addresses(&[ip(address)], 60));
        name_of(&gate, "client1", address)
    };
    let hostile = named(&[b"\x1b[2J\r\n", b"a.b", b"\xc3\xbc\x86evil", b"example"], "203.0.113.1");
    assert_eq!(hostile.as_deref(), Some(r"\027[2j\013\010.a\.b.\195\188\134evil.example"));
    let long =
        named(&[&[b'x'; 63], &[b'y'; 60], b"tunnel", b"evil", b"example"], "203.0.113.2").expect("a name");
    let y = "y".repeat(60);
    assert_eq!(long, format!("...{y}.tunnel.evil.example"));
    // the root has an address
    assert_eq!(named(&[], "203.0.113.3"), None);
}

#[test]
fn one_servers_flood_costs_no_other_its_names_and_its_own_oldest_go_first() {
    let gate = TestGate::new(POLICY);
    let room: u64 = 16;
    let words = gate.maps.find("state").expect("a map");
    words
        .update(&state::STATE_LOOKUP_ROOM.0.to_ne_bytes(), &room.to_ne_bytes(), MapFlags::ANY)
        .expect("a word");
    receive(&gate, mail(), &answer("mx.other.example", &["203.0.113.25"]));
    for number in 0..200_u32 {
        let address = Ipv4Addr::from_bits(0x0b00_0000 + number);
        receive(&gate, v4(), &answer(&format!("n{number}.evil.example"), &[&address.to_string()]));
    }
    assert_eq!(name_of(&gate, "mail", "203.0.113.25").as_deref(), Some("mx.other.example"));
    assert_eq!(name_of(&gate, "client1", "11.0.0.199").as_deref(), Some("n199.evil.example"));
    assert_eq!(name_of(&gate, "client1", "11.0.0.0"), None, "the oldest of its places");
    let rows = gate.entries::<share_key, lookup>("lookups");
    assert_eq!(rows.iter().filter(|(key, _)| key.server == gate.id_of("client1")).count(), 16);
}

#[test]
fn neighbouring_addresses_stand_at_places_of_their_own() {
    let gate = TestGate::new(POLICY);
    for number in 0..100_u32 {
        let address = Ipv4Addr::from_bits(0xcb00_7100 + number);
        receive(&gate, v4(), &answer(&format!("n{number}.evil.example"), &[&address.to_string()]));
    }
    assert_eq!(gate.entries::<share_key, lookup>("lookups").len(), 100);
}

#[test]
fn an_answer_with_more_addresses_than_sixteen_leaves_names_for_the_first_ones() {
    let gate = TestGate::new(POLICY);
    let many: Vec<String> = (1..=40).map(|number| format!("203.0.113.{number}")).collect();
    receive(&gate, v4(), &answer("many.evil.example", &many.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(gate.entries::<share_key, lookup>("lookups").len(), 16);
    assert!(
        name_of(&gate, "client1", "203.0.113.16").is_some()
            && name_of(&gate, "client1", "203.0.113.17").is_none()
    );
}

#[test]
fn a_server_that_has_gone_gives_its_names_back_and_one_that_stays_keeps_them() {
    let gate = TestGate::new(POLICY);
    receive(&gate, v4(), &answer("evil.example", &["203.0.113.9"]));
    receive(&gate, mail(), &answer("mx.other.example", &["203.0.113.25"]));
    let gone = POLICY.split("[servers.mail]").next().expect("a policy").to_owned();
    gate.swap(&gone);
    assert_eq!(name_of(&gate, "client1", "203.0.113.9").as_deref(), Some("evil.example"));
    assert_eq!(gate.entries::<share_key, lookup>("lookups").len(), 1);
}

#[test]
fn the_time_of_an_answer_is_kept_with_its_name() {
    let gate = TestGate::new(POLICY);
    receive(&gate, v4(), &answer("evil.example", &["203.0.113.9"]));
    let at = |gate: &TestGate| {
        gate.find_lookup(gate.id_of("client1"), ip("203.0.113.9")).expect("a table").expect("a row").at
    };
    let now = at(&gate);
    gate.change("lookups", |row: &mut lookup| row.answered_ns -= 100 * SECOND_NS);
    let passed_s = now.as_second() - at(&gate).as_second();
    assert!((99..=101).contains(&passed_s), "{passed_s} s");
    // a row that is being written is of no time
    gate.change("lookups", |row: &mut lookup| row.answered_ns = 0);
    assert_eq!(name_of(&gate, "client1", "203.0.113.9"), None);
}
