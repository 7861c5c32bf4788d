//! What opens nothing, although somebody would like it to.

use libbpf_rs::MapFlags;
use portcullis::abi::{
    Reason, grant, name_count, name_event, name_event_key, name_event_kind, own_network, query, settings,
    share_key, to_prefix_key,
};

use super::{Client, POLICY, RIGHT_WAY, WRONG_WAY, count, make_global, v4, v6};
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, Message, NS, Record, TO_QUESTION, datagram, wire};
use crate::support::frame::{ACK, tcp};
use crate::support::test_gate::{SECOND_NS, TestGate};

const ADDRESS: &str = "203.0.113.80";

fn query() -> Message {
    Message::query(7, "deb.vendor.example", A)
}

fn answer() -> Message {
    query().addresses(&[ip(ADDRESS)], 60)
}

fn is_closed(gate: &TestGate) {
    gate.drops(&v4().syn(ADDRESS, 443), Reason::Destination);
}

#[test]
fn an_answer_that_nobody_asked_for_opens_nothing() {
    let gate = TestGate::new(POLICY);
    v4().receive(&gate, &answer());
    is_closed(&gate);
    v4().ask(&gate, &query());
    let others = [
        // another id, port, resolver, server
        (v4(), Message { id: 8, ..answer() }),
        (Client { port: 40_054, ..v4() }, answer()),
        (Client { resolver: ip("198.51.100.54"), ..v4() }, answer()),
        (Client { server: ip("192.0.2.11"), ..v4() }, answer()),
    ];
    for (client, message) in &others {
        client.receive(&gate, message);
        is_closed(&gate);
    }
    assert_eq!(count(&gate, name_count::NAME_ANSWER_NO_QUERY), 4);
    assert_eq!(count(&gate, name_count::NAME_GRANT_MADE), 0);
    v4().receive(&gate, &answer());
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
}

#[test]
fn a_question_is_answered_once_and_within_half_a_minute() {
    let gate = TestGate::new(POLICY);
    v4().ask(&gate, &query());
    v4().receive(&gate, &query().addresses(&[ip("203.0.113.81")], 60));
    v4().receive(&gate, &answer());
    is_closed(&gate);
    v4().ask(&gate, &query());
    gate.change("queries", |query: &mut query| query.asked_ns -= 31 * SECOND_NS);
    v4().receive(&gate, &answer());
    is_closed(&gate);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_NO_QUERY), 2);
    v4().ask(&gate, &query());
    gate.change("queries", |query: &mut query| query.asked_ns -= 29 * SECOND_NS);
    v4().receive(&gate, &answer());
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
}

#[test]
fn an_answer_to_another_question_opens_nothing_and_leaves_the_question_be() {
    let gate = TestGate::new(POLICY);
    v4().ask(&gate, &query());
    for name in ["evil.example", "deb.vendor.example.evil.example", "other.mirror.example"] {
        v4().receive(&gate, &Message { name: wire(name), ..answer() });
        is_closed(&gate);
    }
    v4().receive(&gate, &Message { kind: AAAA, ..answer() });
    is_closed(&gate);
    // the first two are no names of the policy
    let counted =
        [name_count::NAME_ANSWER_OTHER, name_count::NAME_ANSWER_QUESTION].map(|what| count(&gate, what));
    assert_eq!(counted, [2, 2]);
    v4().receive(&gate, &answer());
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
}

#[test]
fn an_answer_by_another_interface_is_forged_and_is_reported() {
    let gate = TestGate::new(POLICY);
    v4().ask(&gate, &query());
    let frame = datagram(v4().dns(), v4().end(), &answer().bytes());
    gate.to_server_from(&frame, WRONG_WAY);
    gate.to_server(&frame);
    is_closed(&gate);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_INTERFACE), 2);
    let events = gate.entries::<name_event_key, name_event>("name_events");
    let [(key, event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((key.kind, key.server), (name_event_kind::NAME_EVENT_FORGED.0, gate.id_of("client1")));
    assert_eq!((event.count, event.interface), (2, 0));
    // the true one still counts
    v4().receive(&gate, &answer());
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
}

#[test]
fn a_name_never_has_an_address_that_is_not_global() {
    let gate = TestGate::new(POLICY);
    let refused = [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "224.0.0.1",
        "255.255.255.255",
        // servers
        "192.0.2.10",
        "192.0.2.25",
    ];
    v4().look_up(&gate, "deb.vendor.example", &refused);
    let refused6 = [
        "::",
        "::1",
        "::10.0.0.1",
        "64:ff9b:1::1",
        // NAT64 of 10.0.0.1
        "64:ff9b::a00:1",
        "100::1",
        "2001::1",
        "2001:db8:1::11",
        "2001:db8:2::1",
        "2002:cb00:7150::1",
        "3fff::1",
        "4000::1",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];
    v6().look_up(&gate, "deb.vendor.example", &refused6);
    let all = (refused.len() + refused6.len()) as u64;
    assert_eq!(count(&gate, name_count::NAME_ADDRESS_PRIVATE), all);
    assert_eq!(count(&gate, name_count::NAME_GRANT_MADE), 0);
    let events = gate.entries::<name_event_key, name_event>("name_events");
    let [(key, event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((key.kind, event.count), (name_event_kind::NAME_EVENT_REBINDING.0, all));
    // NAT64 of an address that names may have, and global ones
    make_global(&gate, "198.51.100.0/24");
    make_global(&gate, "2001:db8::/32");
    v6().look_up(&gate, "deb.vendor.example", &["64:ff9b::cb00:7150", "2001:db8:60::1"]);
    gate.passes(&v6().syn("64:ff9b::cb00:7150", 443), Reason::Need);
    gate.passes(&v6().syn("2001:db8:60::1", 443), Reason::Need);
    v4().look_up(&gate, "deb.vendor.example", &["198.51.100.7"]);
    gate.passes(&v4().syn("198.51.100.7", 443), Reason::Need);
}

#[test]
fn an_ipv6_record_never_grants_an_ipv4_address() {
    let gate = TestGate::new(POLICY);
    let query = Message { kind: AAAA, ..query() };
    v4().ask(&gate, &query);
    let mapped = [[0; 10].as_slice(), &[0xff, 0xff, 203, 0, 113, 80]].concat();
    v4().receive(&gate, &query.answer(&[Record::new(TO_QUESTION, AAAA, 60, &mapped)]));
    is_closed(&gate);
    assert_eq!(count(&gate, name_count::NAME_ADDRESS_PRIVATE), 1);
}

#[test]
fn records_of_the_authority_and_of_the_additional_section_open_nothing() {
    let gate = TestGate::new(POLICY);
    v4().ask(&gate, &query());
    let mut message = query().addresses(&[ip("203.0.113.1")], 60);
    message.authorities = vec![
        Record::new(TO_QUESTION, NS, 60, &wire("ns.evil.example")),
        Record::address(ip("203.0.113.2"), 60),
    ];
    message.additionals = vec![Record::address(ip(ADDRESS), 60)];
    v4().receive(&gate, &message);
    gate.passes(&v4().syn("203.0.113.1", 443), Reason::Need);
    gate.drops(&v4().syn("203.0.113.2", 443), Reason::Destination);
    is_closed(&gate);
}

#[test]
fn pointers_are_never_followed_and_loops_of_them_end() {
    let gate = TestGate::new(POLICY);
    // a question whose name is a pointer to itself, and one to what looks like a name
    for name in [&[0xc0, 12][..], &[3, b'd', b'e', b'b', 0xc0, 12]] {
        let bad = Message { name: name.to_vec(), ..query() };
        v4().ask(&gate, &bad);
        v4().receive(&gate, &Message { name: name.to_vec(), ..answer() });
        is_closed(&gate);
    }
    // owners that point to themselves and in circles
    v4().ask(&gate, &query());
    let end = query().bytes().len() as u8;
    let records = [
        Record::new(&[0xc0, end], A, 60, &[203, 0, 113, 1]),
        Record::new(&[1, b'x', 0xc0, end + 16], A, 60, &[203, 0, 113, 2]),
        Record::new(&[0xff, 0xff], A, 60, &[203, 0, 113, 3]),
    ];
    v4().receive(&gate, &query().answer(&records));
    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        gate.passes(&v4().syn(address, 443), Reason::Need);
    }
    // an owner with a length byte that is none
    v4().ask(&gate, &query());
    v4().receive(&gate, &query().answer(&[Record::new(&[0x80, 0], A, 60, &[203, 0, 113, 80])]));
    is_closed(&gate);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_MALFORMED), 3);
}

#[test]
fn an_owner_of_labels_without_end_ends_with_the_message() {
    let gate = TestGate::new(POLICY);
    v4().ask(&gate, &query());
    let owner = [1, b'x'].repeat(400);
    v4().receive(&gate, &query().answer(&[Record::new(&owner, A, 60, &[203, 0, 113, 80])]));
    is_closed(&gate);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_CUT), 1);
}

#[test]
fn records_of_another_class_or_of_a_wrong_length_open_nothing() {
    let gate = TestGate::new(POLICY);
    for record in [
        Record { class: 3, ..Record::address(ip(ADDRESS), 60) },
        Record::new(TO_QUESTION, A, 60, &[203, 0, 113, 80, 0]),
        Record::new(TO_QUESTION, A, 60, &[203, 0, 113]),
        Record::new(TO_QUESTION, AAAA, 60, &[203, 0, 113, 80]),
        Record { kind: 0x0101, ..Record::address(ip(ADDRESS), 60) },
    ] {
        v4().ask(&gate, &query());
        v4().receive(&gate, &query().answer(&[record]));
        is_closed(&gate);
    }
}

#[test]
fn a_segment_to_a_granted_address_passes_in_a_connection_alone() {
    let gate = TestGate::new(POLICY);
    v4().look_up(&gate, "deb.vendor.example", &[ADDRESS]);
    let segment = |port| tcp((v4().server, port), (ip(ADDRESS), 443), ACK);
    gate.drops(&segment(50_000), Reason::NoFlow);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.passes(&segment(50_000), Reason::OwnConnection);
    // neither from another port nor by another server
    gate.drops(&segment(50_001), Reason::NoFlow);
    gate.drops(&tcp((ip("192.0.2.11"), 50_000), (ip(ADDRESS), 443), ACK), Reason::NoFlow);
}

#[test]
fn a_question_that_does_not_pass_is_not_noted() {
    let gate = TestGate::new(POLICY);
    // to no resolver of the policy, which this server may ask all the same
    let mail = Client { server: ip("192.0.2.25"), resolver: ip("198.51.100.99"), ..v4() };
    mail.ask(&gate, &Message::query(7, "mx.vendor.example", A));
    // to a resolver, by a server that may not ask it
    let policy = POLICY.replace("\"udp/53 to 198.51.100.53, 2001:db8:53::53\",", "");
    gate.swap(&policy);
    gate.drops(&datagram(v4().end(), v4().dns(), &query().bytes()), Reason::NewFlow);
    assert_eq!(count(&gate, name_count::NAME_QUERY_NOTED), 0);
}

#[test]
fn a_server_that_floods_with_questions_costs_no_other_its_answer() {
    let gate = TestGate::new(POLICY);
    v4().ask(&gate, &query());
    let flooder = Client { server: ip("192.0.2.11"), ..v4() };
    for number in 0..3000_u16 {
        let client = Client { port: 1024 + number, ..flooder };
        let message = Message { id: number, ..query() };
        let frame = datagram(client.end(), client.dns(), &message.bytes());
        gate.programs.run_filter(&frame, 1).expect("a run");
    }
    assert!(count(&gate, name_count::NAME_QUERY_PUSHED) > 2000);
    v4().receive(&gate, &answer());
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
}

#[test]
fn a_server_that_is_answered_without_end_costs_no_other_its_grants_and_keeps_its_used_ones() {
    let gate = TestGate::new(POLICY);
    v4().look_up(&gate, "deb.vendor.example", &[ADDRESS]);
    let flooder = Client { server: ip("192.0.2.11"), ..v4() };
    for third in 0..4 {
        for fourth in 0..250 {
            let message = Message::query(fourth, "x.mirror.example", AAAA);
            let frame = datagram(flooder.end(), flooder.dns(), &message.bytes());
            gate.programs.run_filter(&frame, 1).expect("a run");
            let address = ip(&format!("2001:db8:50::{third}:{fourth}"));
            let frame = datagram(flooder.dns(), flooder.end(), &message.addresses(&[address], 60).bytes());
            gate.programs.run_track_from(&frame, RIGHT_WAY).expect("a run");
        }
    }
    assert!(count(&gate, name_count::NAME_GRANT_PUSHED) > 500);
    assert_eq!(count(&gate, name_count::NAME_GRANT_LOST), 0);
    gate.passes(&v4().syn(ADDRESS, 443), Reason::Need);
    gate.passes(&flooder.syn("2001:db8:50::3:249", 443), Reason::Need);
    gate.drops(&flooder.syn("2001:db8:50::", 443), Reason::Destination);
    let lists = gate.entries::<portcullis::abi::granted_key, portcullis::abi::granted>("granted").len();
    let rows = gate.entries::<share_key, grant>("grants").len();
    assert_eq!(lists, rows, "a list outlived its grants");
}

#[test]
fn a_name_has_no_address_of_a_server_of_the_link_or_of_the_router_wherever_these_are() {
    let policy = POLICY.replace("\"203.0.113.0/24\", ", "");
    let farm = "[servers.farm]\naddresses = [\"203.0.113.64/28\"]\nroles = [\"other\"]";
    let gate = TestGate::new(&format!("{policy}\n{farm}\n"));
    make_global(&gate, "203.0.113.0/24");
    let own = |prefix: &str, kind: own_network| {
        let key = to_prefix_key(&prefix.parse().expect("a prefix"));
        gate.maps.own_networks.put(&key, &kind.0, MapFlags::ANY).expect("an entry");
    };
    own("203.0.113.128/28", own_network::OWN_NETWORK_LINK);
    own("203.0.113.200/32", own_network::OWN_NETWORK_ADDRESS);
    let refused = ["203.0.113.66", "203.0.113.129", "203.0.113.200"];
    v4().look_up(&gate, "deb.vendor.example", &[&refused[..], &["203.0.113.201"]].concat());
    for address in refused {
        gate.drops(&v4().syn(address, 443), Reason::Destination);
    }
    gate.passes(&v4().syn("203.0.113.201", 443), Reason::Need);
    assert_eq!(count(&gate, name_count::NAME_ADDRESS_PRIVATE), 3);
}

#[test]
fn of_a_full_share_a_grant_that_is_used_outlives_those_that_are_not() {
    let gate = TestGate::new(POLICY);
    let learn = |first: usize, count: usize| {
        for number in first..first + count {
            let message = Message::query(number as u16, "x.mirror.example", AAAA);
            v4().ask(&gate, &message);
            let address = ip(&format!("2001:db8:50::{number:x}"));
            v4().receive(&gate, &message.addresses(&[address], 60));
        }
    };
    let room = gate.maps.grants.capacity() as usize / 8;
    learn(0, room);
    gate.passes(&v4().syn("2001:db8:50::28", 443), Reason::Need);
    learn(room, room / 2);
    gate.passes(&v4().syn("2001:db8:50::28", 443), Reason::Need);
    gate.drops(&v4().syn("2001:db8:50::27", 443), Reason::Destination);
    assert!(count(&gate, name_count::NAME_GRANT_PUSHED) >= room as u64 / 2 - 1);
}

#[test]
fn of_a_full_share_grants_from_before_a_reboot_go_before_younger_ones() {
    let gate = TestGate::new(POLICY);
    let learn = |first: usize, count: usize| {
        for number in first..first + count {
            let message = Message::query(number as u16, "x.mirror.example", AAAA);
            v4().ask(&gate, &message);
            let address = ip(&format!("2001:db8:50::{number:x}"));
            v4().receive(&gate, &message.addresses(&[address], 60));
        }
    };
    let room = gate.maps.grants.capacity() as usize / 8;
    learn(0, room);
    // for as long as a machine may have been up
    gate.change("policies", |settings: &mut settings| settings.name_cap_s = 3_000_000_000);
    let now_ns = portcullis::clock::now_ns();
    gate.change("grants", |grant: &mut grant| {
        (grant.answered_ns, grant.open_until_ns) = (1_u64.wrapping_sub(SECOND_NS), now_ns + 1000 * SECOND_NS);
    });
    let count_old = || {
        let grants = gate.entries::<share_key, grant>("grants");
        grants.iter().filter(|(_, grant)| grant.answered_ns > 1 << 63).count()
    };
    assert_eq!(count_old(), room);
    learn(room, room / 2);
    learn(room + room / 2, room - room / 2);
    assert_eq!(count_old(), 0, "younger ones went instead");
}
