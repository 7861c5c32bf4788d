//! `dns = "named"`: what a server may ask of a resolver, and what it may not.

use portcullis::abi::{Reason, drop_flag};

use super::{Client, RIGHT_WAY, v4, v6};
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, ANSWER, Message, NS, OPT, Record, TXT, datagram, segment, udp_of, wire};
use crate::support::frame::{ACK, FIN, Ipv4, Ipv6, RST, SYN, UDP, fragment, padded, tcp, udp, unreachable};
use crate::support::test_gate::TestGate;

const SOA: u16 = 6;
const PTR: u16 = 12;
const NULL: u16 = 10;
const SRV: u16 = 33;
const DS: u16 = 43;
const DNSKEY: u16 = 48;
const HTTPS: u16 = 65;

const POLICY: &str = r#"
[names]
resolvers = ["198.51.100.53", "2001:db8:53::53"]
from = ["lo"]

[roles.client]
in = ["udp/161", "tcp/80"]
out = ["udp/53", "tcp/53", "tcp/443 to deb.vendor.example, *.mirror.example"]

[roles.strict]
dns = "named"

[roles.lenient]
dns = "any"

[roles.other]
out = ["udp/53", "tcp/25 to mx.other.example"]

[servers.client1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["client", "strict", "lenient"]

[servers.free]
addresses = ["192.0.2.11", "2001:db8:1::11"]
roles = ["client"]

[servers.mail]
addresses = ["192.0.2.25", "2001:db8:1::25"]
roles = ["other"]
"#;

const CLIENTS: [fn() -> Client; 2] = [v4, v6];

fn frame(client: Client, message: &Message) -> Vec<u8> {
    datagram(client.end(), client.dns(), &message.bytes())
}

#[track_caller]
fn asks(gate: &TestGate, client: Client, name: &str, kind: u16) {
    gate.passes(&frame(client, &Message::query(7, name, kind)), Reason::Need);
}

/// Drops a question. Returns whether quietly.
#[track_caller]
fn refuses(gate: &TestGate, frame: &[u8]) -> bool {
    let row = gate.drops(frame, Reason::Question);
    assert_eq!((row.key.port, row.key.server), (53, gate.id_of("client1")));
    u32::from(row.key.flags) & drop_flag::DROP_QUIET.0 != 0
}

#[track_caller]
fn refuses_loudly(gate: &TestGate, frame: &[u8]) {
    assert!(!refuses(gate, frame), "a drop that raises no alarm");
}

#[track_caller]
fn refuses_name(gate: &TestGate, name: &str, kind: u16) {
    for client in CLIENTS {
        refuses_loudly(gate, &frame(client(), &Message::query(7, name, kind)));
    }
}

#[test]
fn names_of_the_policy_may_be_asked_for_by_any_type_and_in_any_case_and_no_other_name() {
    let gate = TestGate::new(POLICY);
    for client in CLIENTS {
        for kind in [A, AAAA, TXT, NULL, HTTPS, PTR, 255] {
            asks(&gate, client(), "deb.vendor.example", kind);
            asks(&gate, client(), "DEB.vendoR.Example", kind);
            asks(&gate, client(), "a.b.mirror.example", kind);
            // a name that only another server needs
            asks(&gate, client(), "mx.other.example", kind);
        }
    }
    for name in [
        "evil.example",
        "debivendor.example",
        "x.deb.vendor.example",
        "mirror.example",
        "amirror.example",
        "xdeb.vendor.example",
        "eb.vendor.example",
        "vendor.example",
        "example",
        "localhost",
        "",
    ] {
        refuses_name(&gate, name, A);
        refuses_name(&gate, name, TXT);
    }
}

#[test]
fn a_server_without_the_role_asks_what_it_likes_and_of_several_roles_the_strictest_wins() {
    let gate = TestGate::new(POLICY);
    let free = Client { server: ip("192.0.2.11"), ..v4() };
    asks(&gate, free, "evil.example", TXT);
    let dns = (v4().resolver, 53);
    gate.passes(&tcp((ip("192.0.2.11"), 40_000), dns, SYN), Reason::Need);
    // by a swap alone
    gate.swap(&POLICY.replace("dns = \"named\"", "dns = \"any\""));
    asks(&gate, v4(), "evil.example", TXT);
    gate.swap(POLICY);
    refuses_name(&gate, "evil.example", TXT);
}

#[test]
fn a_service_of_a_name_may_be_looked_up_and_other_labels_in_front_may_not() {
    let gate = TestGate::new(POLICY);
    for client in CLIENTS {
        for name in ["_http._tcp.deb.vendor.example", "_443._TCP.mx.other.example", "_x._y.z.mirror.example"]
        {
            asks(&gate, client(), name, SRV);
            asks(&gate, client(), name, TXT);
        }
    }
    for name in [
        "_tcp.deb.vendor.example",
        "_a._b._c.deb.vendor.example",
        "a._tcp.deb.vendor.example",
        "_http.tcp.deb.vendor.example",
        "_http._tcp.evil.example",
        "_http._tcp.vendor.example",
    ] {
        refuses_name(&gate, name, SRV);
    }
}

#[test]
fn the_way_to_a_name_may_be_asked_for_by_the_types_of_a_resolver_that_validates() {
    let gate = TestGate::new(POLICY);
    for kind in [DS, DNSKEY, NS, SOA] {
        for name in ["deb.vendor.example", "vendor.example", "EXAMPLE", "mirror.example", "other.example", ""]
        {
            asks(&gate, v4(), name, kind);
            asks(&gate, v6(), name, kind);
        }
        for name in ["evil.example", "example.org", "x.vendor.example", "arpa", "in-addr.arpa"] {
            refuses_name(&gate, name, kind);
        }
    }
}

#[test]
fn what_clients_ask_by_habit_is_dropped_quietly() {
    let gate = TestGate::new(POLICY);
    let is_quiet = |name: &str, kind| {
        CLIENTS.map(|client| refuses(&gate, &frame(client(), &Message::query(7, name, kind)))) == [true, true]
    };
    assert!(is_quiet("10.2.0.192.in-addr.arpa", PTR));
    assert!(is_quiet("1.0.0.0.8.b.d.0.1.0.0.2.IP6.arpa", PTR));
    // what a client searches
    assert!(is_quiet("deb.vendor.example.corp.example", A));
    assert!(is_quiet("DEB.vendor.example.corp", AAAA));
    assert!(is_quiet("x.mirror.example.corp.example", A));
    for (name, kind) in [
        ("data.in-addr.arpa", TXT),
        ("data.evil.example", PTR),
        ("in-addr.arpa", PTR),
        ("in-addr.arpa.evil.example", PTR),
        ("mirror.example.corp.example", A),
        ("x.y.mirror.example.corp.example", A),
        ("vendor.example.corp.example", A),
        ("deb.vendor.examples.corp", A),
    ] {
        refuses_name(&gate, name, kind);
    }
}

#[test]
fn edns_may_stand_behind_a_question_and_nothing_else() {
    let gate = TestGate::new(POLICY);
    let query = Message::query(7, "deb.vendor.example", A);
    let cookie =
        Record { owner: vec![0], kind: OPT, class: 1232, ttl: 0x8000, data: vec![0, 10, 0, 2, 1, 2] };
    let with = |additionals: &[Record]| Message { additionals: additionals.to_vec(), ..query.clone() };
    let txt = Record::new(&[0], TXT, 0, b"\x03abc");
    for client in CLIENTS.map(|client| client()) {
        gate.passes(&frame(client, &query.clone().with_edns()), Reason::Need);
        gate.passes(&frame(client, &with(std::slice::from_ref(&cookie))), Reason::Need);
        for bad in [
            with(&[cookie.clone(), cookie.clone()]),
            with(std::slice::from_ref(&txt)),
            with(&[Record { owner: wire("data.evil"), ..cookie.clone() }]),
            Message { answers: vec![txt.clone()], ..query.clone() },
            Message { authorities: vec![Record { kind: NS, ..txt.clone() }], ..query.clone() },
        ] {
            refuses_loudly(&gate, &frame(client, &bad));
        }
        // the record says less, or more, than there is
        let mut bytes = with(std::slice::from_ref(&cookie)).bytes();
        let place = bytes.len() - cookie.data.len() - 1;
        for length in [0, 5, 7, 255] {
            bytes[place] = length;
            refuses_loudly(&gate, &datagram(client.end(), client.dns(), &bytes));
        }
    }
}

#[test]
fn what_is_not_one_whole_question_is_dropped() {
    let gate = TestGate::new(POLICY);
    let query = Message::query(7, "deb.vendor.example", A);
    let bytes = query.bytes();
    for client in CLIENTS.map(|client| client()) {
        let send = |bytes: &[u8]| refuses_loudly(&gate, &datagram(client.end(), client.dns(), bytes));
        gate.passes(&datagram(client.end(), client.dns(), &bytes), Reason::Need);
        // cut off anywhere, and something behind it
        for length in [0, 1, 2, 11, 12, 13, bytes.len() - 5, bytes.len() - 4, bytes.len() - 1] {
            send(&bytes[..length]);
        }
        send(&[&bytes[..], &[0]].concat());
        send(&[&bytes[..], b"data"].concat());
        send(&[&bytes[..], &vec![7; 600]].concat());
        // questions: none, two, all of 65535
        for questions in [[0, 0], [0, 2], [255, 255]] {
            let mut odd = bytes.clone();
            odd[4..6].copy_from_slice(&questions);
            send(&odd);
        }
        let mut two = bytes.clone();
        two[5] = 2;
        two.extend_from_slice(&bytes[12..]);
        send(&two);
        // every flag of the header but RD, AD and CD
        for bit in 0..16 {
            let flagged = Message { flags: 1 << bit, ..query.clone() };
            match bit {
                4 | 5 | 8 => gate.passes(&frame(client, &flagged), Reason::Need),
                _ => refuses_loudly(&gate, &frame(client, &flagged)),
            }
        }
        refuses_loudly(&gate, &frame(client, &Message { flags: ANSWER, ..query.clone() }));
        // another class
        for class in [0_u16, 3, 255, 0x8001] {
            let mut odd = bytes.clone();
            let end = odd.len();
            odd[end - 2..].copy_from_slice(&class.to_be_bytes());
            send(&odd);
        }
        // a name that points, or has no end, or is longer than names are; and such a label with as many bytes behind
        // it as its length would be, which lead to a name of the policy
        for name in [
            &[&[0xc0][..], &[b'a'; 0xc0], &wire("mirror.example")].concat(),
            &[&[0x80][..], &[b'a'; 0x80], &wire("mirror.example")].concat(),
            &[&[0x40][..], &[b'a'; 0x40], &wire("mirror.example")].concat(),
            &[0xc0, 12][..],
            &[&[3][..], b"deb", &[0xc0, 12]].concat(),
            &[&[0x43][..], b"deb", &[0]].concat(),
            &[[&[9][..], b"aaaaaaaaa"].concat().repeat(26), wire("deb.vendor.example")].concat(),
        ] {
            refuses_loudly(&gate, &frame(client, &Message { name: name.to_vec(), ..query.clone() }));
        }
    }
}

#[test]
fn the_longest_name_that_there_is_may_be_asked_for() {
    let gate = TestGate::new(POLICY);
    let label = [&[9][..], b"aaaaaaaaa"].concat();
    // 240, and 16 of the domain: one too long
    let mut query = Message::query(7, "", A);
    let domain = wire("mirror.example");
    query.name = [label.repeat(23), vec![7], b"bbbbbbb".to_vec(), domain.clone()].concat();
    assert!(query.name.len() <= 255, "{}", query.name.len());
    gate.passes(&frame(v4(), &query), Reason::Need);
    query.name = [label.repeat(23), vec![8], b"bbbbbbbb".to_vec(), domain.clone()].concat();
    assert_eq!(query.name.len(), 255);
    gate.passes(&frame(v4(), &query), Reason::Need);
    query.name = [label.repeat(23), vec![9], b"bbbbbbbbb".to_vec(), domain].concat();
    refuses_loudly(&gate, &frame(v4(), &query));
}

#[test]
fn bytes_beyond_the_datagram_are_no_part_of_a_question_and_do_not_leave_with_it() {
    let gate = TestGate::new(POLICY);
    let bytes = Message::query(7, "deb.vendor.example", A).bytes();
    for client in CLIENTS.map(|client| client()) {
        let udp = udp_of(client.end(), client.dns(), &bytes);
        let longer = [&udp[..], b"data"].concat();
        let build = |payload: &[u8]| match client.server.is_ipv4() {
            true => Ipv4::new(client.server, client.resolver, UDP, payload).frame(),
            false => Ipv6::new(client.server, client.resolver, UDP, payload).frame(),
        };
        gate.passes(&build(&udp), Reason::Need);
        refuses_loudly(&gate, &build(&longer));
        // a switch pads short frames
        gate.passes(&padded(&build(&udp), 150), Reason::Need);
    }
}

#[test]
fn a_fragment_is_no_question_and_what_follows_it_goes_the_same_way() {
    let gate = TestGate::new(POLICY);
    let bytes = Message::query(7, "deb.vendor.example", A).bytes();
    for client in CLIENTS.map(|client| client()) {
        let udp = udp_of(client.end(), client.dns(), &bytes);
        let (first, rest) = udp.split_at(32);
        refuses_loudly(&gate, &fragment(client.server, client.resolver, UDP, (7, 0, true), first));
        gate.drops(&fragment(client.server, client.resolver, UDP, (7, 4, false), rest), Reason::Question);
        // the whole message stands in the first one
        refuses_loudly(
            &gate,
            &fragment(
                client.server,
                client.resolver,
                UDP,
                (8, 0, true),
                &[&udp[..], &[0; 6]].concat()[..udp.len() / 8 * 8],
            ),
        );
    }
}

#[test]
fn tcp_to_a_resolver_is_dropped_and_what_answers_it_is_no_question() {
    let gate = TestGate::new(POLICY);
    for client in CLIENTS.map(|client| client()) {
        refuses_loudly(&gate, &tcp(client.end(), client.dns(), SYN));
        let query = Message::query(7, "deb.vendor.example", A).prefixed();
        gate.drops(&segment(client.end(), client.dns(), ACK, 1, &query), Reason::NoFlow);
        gate.drops(&tcp(client.end(), client.dns(), ACK | FIN), Reason::NoFlow);
        gate.drops(&tcp(client.end(), client.dns(), ACK | RST), Reason::Backscatter);
    }
}

#[test]
fn a_syn_to_another_server_does_not_open_the_way_to_a_resolver_and_the_other_way_round() {
    let gate = TestGate::new(POLICY);
    let other = (ip("198.51.100.99"), 53);
    for _ in 0..4 {
        gate.passes(&tcp(v4().end(), other, SYN), Reason::Need);
        refuses_loudly(&gate, &tcp(v4().end(), v4().dns(), SYN));
    }
    // only the resolvers are watched: what else may be asked is the policy's business
    gate.passes(&datagram(v4().end(), other, &Message::query(7, "evil.example", TXT).bytes()), Reason::Need);
    gate.drops(&udp(v4().end(), (v4().resolver, 123)), Reason::NewFlow);
}

#[test]
fn what_a_visitor_makes_a_server_send_to_a_resolver_raises_no_alarm() {
    let gate = TestGate::new(POLICY);
    for client in CLIENTS.map(|client| client()) {
        let (server, resolver) = (client.server, client.dns());
        // in the resolver's name: to a service, to a closed port, and a SYN
        gate.to_server(&udp(resolver, (server, 161)));
        assert!(refuses(&gate, &udp((server, 161), resolver)), "an answer of a service");
        let mut answer = Message::query(7, "deb.vendor.example", A);
        answer.flags = ANSWER;
        gate.passes(&datagram((server, 161), resolver, &answer.bytes()), Reason::Reply);
        let closed = udp(resolver, (server, 9));
        gate.to_server(&closed);
        gate.passes(&unreachable(server, client.resolver, &closed[14..]), Reason::FlowError);
        gate.to_server(&tcp(resolver, (server, 81), SYN));
        gate.drops(&tcp((server, 81), resolver, RST | ACK), Reason::Backscatter);
        gate.to_server(&tcp(resolver, (server, 80), SYN));
        gate.passes(&tcp((server, 80), resolver, SYN | ACK), Reason::Reply);
        // a late one, whose flow is over
        gate.to_server(&udp(resolver, (server, 161)));
        gate.age("datagrams", 300);
        gate.drops(&udp((server, 161), resolver), Reason::NoFlow);
    }
}

#[test]
fn a_question_in_an_answers_clothes_does_not_pass_as_an_answer() {
    let gate = TestGate::new(&POLICY.replace("udp/161", "udp/53"));
    let (server, resolver) = ((v4().server, 53), v4().dns());
    // an accomplice opens the flow in the resolver's name
    gate.to_server(&udp(resolver, server));
    for _ in 0..3 {
        assert!(refuses(&gate, &datagram(server, resolver, &Message::query(7, "evil.example", TXT).bytes())));
        gate.passes(
            &datagram(server, resolver, &Message::query(7, "deb.vendor.example", A).bytes()),
            Reason::Reply,
        );
    }
}

#[test]
fn a_server_in_quarantine_sends_a_resolver_nothing_whatever_it_may_ask() {
    let gate = TestGate::new(&POLICY.replace("udp/161", "udp/53"));
    for client in CLIENTS.map(|client| client()) {
        let (server, resolver) = ((client.server, 53), client.dns());
        gate.to_server(&udp(resolver, server));
        let query = Message::query(7, "deb.vendor.example", A);
        let answer = Message { flags: ANSWER, ..query.clone() };
        let frames = [
            (datagram(server, resolver, &query.bytes()), Reason::Reply),
            (datagram(server, resolver, &answer.bytes()), Reason::Reply),
            (frame(client, &query), Reason::Need),
        ];
        for (frame, reason) in &frames {
            gate.passes(frame, *reason);
        }
        gate.quarantine("client1", None).unwrap();
        for (frame, _) in &frames {
            gate.drops(frame, Reason::Quarantined);
        }
        gate.drops(&datagram(server, resolver, b"what is no message"), Reason::Quarantined);
        assert!(gate.release("client1").unwrap().was);
    }
}

#[test]
fn a_permitted_question_is_noted_and_its_answer_opens_what_it_names() {
    let gate = TestGate::new(&POLICY.replace("[names]", "[names]\nprivate = [\"203.0.113.0/24\"]"));
    gate.drops(&v4().syn("203.0.113.80", 443), Reason::Destination);
    let query = Message::query(7, "deb.vendor.example", A);
    v4().ask(&gate, &query);
    gate.to_server_from(
        &datagram(v4().dns(), v4().end(), &query.addresses(&[ip("203.0.113.80")], 60).bytes()),
        RIGHT_WAY,
    );
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
}

#[test]
fn an_edit_that_lets_a_server_ask_a_resolver_does_not_let_it_ask_for_anything() {
    let policy = POLICY.replace("\"udp/53\", \"tcp/53\", \"tcp/443", "\"tcp/443");
    let gate = TestGate::new(&policy);
    let evil = frame(v4(), &Message::query(7, "evil.example", TXT));
    gate.drops(&evil, Reason::NewFlow);
    gate.allow("client1", "out", "udp/53 to 198.51.100.53");
    asks(&gate, v4(), "deb.vendor.example", A);
    refuses_loudly(&gate, &evil);
}

#[test]
fn in_observe_a_question_is_counted_and_passes() {
    let gate = TestGate::new(&format!("[policy]\nmode = \"observe\"\n{POLICY}"));
    gate.would_drop(&frame(v4(), &Message::query(7, "evil.example", TXT)), Reason::Question);
    gate.would_drop(&tcp(v6().end(), v6().dns(), SYN), Reason::Question);
    asks(&gate, v4(), "deb.vendor.example", A);
}

#[test]
fn without_any_name_in_the_policy_nothing_but_the_root_may_be_asked_for() {
    let policy = POLICY
        .replace(", \"tcp/443 to deb.vendor.example, *.mirror.example\"", "")
        .replace(", \"tcp/25 to mx.other.example\"", "");
    let gate = TestGate::new(&policy);
    refuses_name(&gate, "deb.vendor.example", A);
    asks(&gate, v4(), "", NS);
}
