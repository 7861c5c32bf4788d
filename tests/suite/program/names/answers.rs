//! What an answer opens.

use portcullis::abi::{Reason, name_count};

use super::{POLICY, RIGHT_WAY, count, v4, v6};
use crate::support::dmz::ip;
use crate::support::dns::{A, CNAME, Message, Record, TXT, datagram, udp_of, wire};
use crate::support::frame::{UDP, fragment, udp};
use crate::support::test_gate::TestGate;

#[test]
fn an_address_is_open_once_its_answer_has_passed_and_not_before() {
    let gate = TestGate::new(POLICY);
    for (client, address, other) in
        [(v4(), "203.0.113.80", "203.0.113.81"), (v6(), "2001:db8:50::80", "2001:db8:50::81")]
    {
        gate.drops(&client.syn(address, 443), Reason::Destination);
        client.look_up(&gate, "deb.vendor.example", &[address]);
        gate.passes(&client.syn(address, 443), Reason::Need);
        // neither another port nor another address
        gate.drops(&client.syn(address, 80), Reason::NewFlow);
        gate.drops(&client.syn(other, 443), Reason::Destination);
    }
    assert_eq!(count(&gate, name_count::NAME_QUERY_NOTED), 2);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_READ), 2);
    assert_eq!(count(&gate, name_count::NAME_GRANT_MADE), 2);
}

#[test]
fn every_address_of_an_answer_is_open_and_may_come_over_either_family() {
    let gate = TestGate::new(POLICY);
    let addresses = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];
    v6().look_up(&gate, "deb.vendor.example", &addresses);
    v4().look_up(&gate, "deb.vendor.example", &["2001:db8:50::1"]);
    for address in addresses.iter().chain(&["2001:db8:50::1"]) {
        gate.passes(&v4().syn(address, 443), Reason::Need);
    }
}

#[test]
fn case_and_edns_make_no_difference_and_the_question_is_compared_without_case() {
    let gate = TestGate::new(POLICY);
    let query = Message::query(7, "dEB.VenDor.EXAmple", A).with_edns();
    v4().ask(&gate, &query);
    let mut answer = query.addresses(&[ip("203.0.113.80")], 60);
    answer.name = wire("DEB.vendor.examPLE");
    v4().receive(&gate, &answer);
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
}

#[test]
fn a_chain_of_aliases_leads_to_the_addresses_at_its_end() {
    let gate = TestGate::new(POLICY);
    let query = Message::query(7, "deb.vendor.example", A);
    v4().ask(&gate, &query);
    let alias = wire("a.very.long.alias.of.a.network.that.others.run.example");
    let records = [
        Record::new(&wire("deb.vendor.example"), CNAME, 60, &alias),
        Record::new(&alias, CNAME, 60, &wire("edge.example")),
        Record::new(&wire("edge.example"), TXT, 60, b"\x04text"),
        Record::new(&wire("edge.example"), A, 60, &[203, 0, 113, 80]),
    ];
    v4().receive(&gate, &query.answer(&records));
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
}

#[test]
fn a_wildcard_has_the_names_below_its_domain_and_no_other() {
    let gate = TestGate::new(POLICY);
    let cases: [(&str, bool); 8] = [
        ("a.mirror.example", true),
        ("a.b.c.MIRROR.example", true),
        ("mirror.example", false),
        ("amirror.example", false),
        ("a.mirror.example.org", false),
        // 45 is both `-` and the length of a label
        ("a-mirror.example", false),
        ("deb.vendor.example.mirror.example", true),
        ("x.deb.vendor.example", false),
    ];
    for (number, (name, opens)) in (1..).zip(cases) {
        let address = format!("203.0.113.{number}");
        v4().look_up(&gate, name, &[&address]);
        match opens {
            true => gate.passes(&v4().syn(&address, 443), Reason::Need),
            false => drop(gate.drops(&v4().syn(&address, 443), Reason::Destination)),
        }
    }
}

#[test]
fn a_byte_of_a_label_is_no_border_of_labels_and_a_label_beyond_ascii_is_in_no_name() {
    let gate = TestGate::new(POLICY);
    let labels: [&[u8]; 3] = [b"x\x06mirror\x07example", b"x\x86mirror\x87example", b"\xc3\xbc"];
    for (number, label) in (1..).zip(labels) {
        let mut query = Message::query(7, "", A);
        query.name = [&[label.len() as u8], label, &[0]].concat();
        if label.len() < 4 {
            query.name = [&[label.len() as u8], label, &wire("mirror.example")].concat();
        }
        gate.passes(&datagram(v4().end(), v4().dns(), &query.bytes()), Reason::Need);
        let address = format!("203.0.113.{number}");
        v4().receive(&gate, &query.addresses(&[ip(&address)], 60));
        gate.drops(&v4().syn(&address, 443), Reason::Destination);
    }
    assert_eq!(count(&gate, name_count::NAME_QUERY_NOTED), 0);
}

#[test]
fn a_datagram_passes_by_a_name_as_an_opening_does() {
    let gate = TestGate::new(POLICY);
    let datagram = udp((v4().server, 40_000), (ip("203.0.113.123"), 123));
    gate.drops(&datagram, Reason::Destination);
    v4().look_up(&gate, "ntp.vendor.example", &["203.0.113.123"]);
    gate.passes(&datagram, Reason::Need);
    // the same address, by the need of another name
    gate.drops(&v4().syn("203.0.113.123", 443), Reason::Destination);
}

#[test]
fn an_answer_is_for_the_server_that_was_answered_and_for_the_needs_that_have_its_name() {
    let gate = TestGate::new(POLICY);
    v4().look_up(&gate, "deb.vendor.example", &["203.0.113.80"]);
    let other = super::Client { server: ip("192.0.2.11"), ..v4() };
    gate.drops(&other.syn("203.0.113.80", 443), Reason::Destination);
    let mail = super::Client { server: ip("192.0.2.25"), ..v4() };
    mail.look_up(&gate, "deb.vendor.example", &["203.0.113.80"]);
    gate.drops(&mail.syn("203.0.113.80", 25), Reason::Destination);
    mail.look_up(&gate, "mx.vendor.example", &["203.0.113.80"]);
    gate.passes(&mail.syn("203.0.113.80", 25), Reason::Need);
    assert_eq!(count(&gate, name_count::NAME_QUERY_NOTED), 2, "a name without a need takes no room");
}

#[test]
fn more_names_of_an_address_than_four_are_open_at_once() {
    let names: Vec<String> = (0..12).map(|number| format!("n{number}.vendor.example")).collect();
    let needs: Vec<String> =
        (0..12).map(|number| format!("\"tcp/{} to n{number}.vendor.example\"", 8000 + number)).collect();
    let policy = POLICY
        .replace("\"tcp/443 to @mirrors\",", &format!("\"tcp/443 to @mirrors\", {},", needs.join(", ")));
    let gate = TestGate::new(&policy);
    for name in &names {
        v4().look_up(&gate, name, &["203.0.113.80"]);
    }
    for number in 0..12 {
        gate.passes(&v4().syn("203.0.113.80", 8000 + number), Reason::Need);
    }
}

#[test]
fn what_a_server_that_forwards_is_answered_is_for_all_whose_needs_have_the_name() {
    let policy = format!(
        "{POLICY}\n[servers.forwarder]\naddresses = [\"192.0.2.53\"]\nroles = [\"other\"]\nforwards = true\n"
    );
    let gate = TestGate::new(&policy);
    let forwarder = super::Client { server: ip("192.0.2.53"), ..v4() };
    forwarder.look_up(&gate, "deb.vendor.example", &["203.0.113.80"]);
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
    // its own needs have another name
    let to = (ip("203.0.113.80"), 25);
    gate.drops(
        &crate::support::frame::tcp((ip("192.0.2.53"), 50_000), to, crate::support::frame::SYN),
        Reason::Destination,
    );
}

#[test]
fn of_an_answer_that_is_cut_the_whole_records_are_open() {
    let gate = TestGate::new(POLICY);
    let query = Message::query(7, "deb.vendor.example", A);
    v4().ask(&gate, &query);
    let mut bytes = query.addresses(&[ip("203.0.113.1"), ip("203.0.113.2")], 60).bytes();
    bytes.truncate(bytes.len() - 1);
    gate.to_server_from(&datagram(v4().dns(), v4().end(), &bytes), RIGHT_WAY);
    gate.passes(&v4().syn("203.0.113.1", 443), Reason::Need);
    gate.drops(&v4().syn("203.0.113.2", 443), Reason::Destination);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_CUT), 1);
    // the resolver says so itself
    v4().ask(&gate, &query);
    let mut answer = query.addresses(&[ip("203.0.113.3")], 60);
    answer.flags |= 0x0200;
    v4().receive(&gate, &answer);
    gate.passes(&v4().syn("203.0.113.3", 443), Reason::Need);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_CUT), 2);
}

#[test]
fn the_first_fragment_of_an_answer_is_read_and_no_later_one() {
    for client in [v4(), v6()] {
        let gate = TestGate::new(POLICY);
        let query = Message::query(7, "deb.vendor.example", A);
        client.ask(&gate, &query);
        let addresses: Vec<_> = (1..=40).map(|number| ip(&format!("203.0.113.{number}"))).collect();
        let bytes = udp_of(client.dns(), client.end(), &query.addresses(&addresses, 60).bytes());
        let cut = 320;
        let piece = |offset: usize, more: bool, bytes: &[u8]| {
            fragment(client.resolver, client.server, UDP, (9, offset as u16 / 8, more), bytes)
        };
        gate.to_server_from(&piece(cut, false, &bytes[cut..]), RIGHT_WAY);
        gate.to_server_from(&piece(0, true, &bytes[..cut]), RIGHT_WAY);
        gate.passes(&v4().syn("203.0.113.1", 443), Reason::Need);
        gate.passes(&v4().syn("203.0.113.16", 443), Reason::Need);
        gate.drops(&v4().syn("203.0.113.40", 443), Reason::Destination);
        assert_eq!(count(&gate, name_count::NAME_ANSWER_CUT), 1);
    }
}

#[test]
fn an_error_and_an_answer_without_records_open_nothing() {
    let gate = TestGate::new(POLICY);
    let query = Message::query(7, "deb.vendor.example", A);
    v4().ask(&gate, &query);
    let mut answer = query.addresses(&[ip("203.0.113.1")], 60);
    answer.flags |= 3;
    v4().receive(&gate, &answer);
    v4().receive(&gate, &query.answer(&[]));
    gate.drops(&v4().syn("203.0.113.1", 443), Reason::Destination);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_NEGATIVE), 2);
}

#[test]
fn a_limit_counts_the_openings_by_a_name() {
    let policy = POLICY.replace("to ntp.vendor.example\"", "to ntp.vendor.example limit 2/m\"");
    let gate = TestGate::new(&policy);
    v4().look_up(&gate, "ntp.vendor.example", &["203.0.113.123"]);
    let datagram = udp((v4().server, 40_000), (ip("203.0.113.123"), 123));
    gate.passes(&datagram, Reason::Need);
    gate.passes(&datagram, Reason::Need);
    gate.drops(&datagram, Reason::Rate);
}

#[test]
fn of_two_names_of_an_address_the_one_without_a_limit_counts() {
    let needs = "\"udp/123 to a.vendor.example limit 1/m\", \"udp/123 to b.vendor.example\"";
    let policy = POLICY.replace("\"udp/123 to ntp.vendor.example\"", needs);
    for names in [["a.vendor.example", "b.vendor.example"], ["b.vendor.example", "a.vendor.example"]] {
        let gate = TestGate::new(&policy);
        names.iter().for_each(|name| v4().look_up(&gate, name, &["203.0.113.123"]));
        for _ in 0..3 {
            gate.passes(&udp((v4().server, 40_000), (ip("203.0.113.123"), 123)), Reason::Need);
        }
    }
}

#[test]
fn two_answers_that_the_kernel_has_put_together_are_both_read() {
    let gate = TestGate::new(POLICY);
    let first = Message::query(7, "deb.vendor.example", A);
    let second = Message { id: 8, ..first.clone() };
    v4().ask(&gate, &first);
    v4().ask(&gate, &second);
    let answers = [(&first, "203.0.113.1"), (&second, "203.0.113.2")]
        .map(|(query, address)| query.addresses(&[ip(address)], 60).bytes());
    let frame = datagram(v4().dns(), v4().end(), &answers.concat());
    gate.programs.run_track_of_many(&frame, RIGHT_WAY, answers[0].len() as u16).expect("a run");
    gate.passes(&v4().syn("203.0.113.1", 443), Reason::Need);
    gate.passes(&v4().syn("203.0.113.2", 443), Reason::Need);
}

#[test]
fn questions_that_were_answered_make_room_for_new_ones_before_any_that_is_open() {
    let gate = TestGate::new(POLICY);
    let open = Message::query(1, "deb.vendor.example", A);
    v4().ask(&gate, &open);
    // more than the share has room for
    for number in 0..600 {
        let end = (v4().server, 41_000 + number);
        let query = Message::query(number, "deb.vendor.example", A);
        let answer = query.addresses(&[ip("203.0.113.81")], 60).bytes();
        gate.programs.run_filter(&datagram(end, v4().dns(), &query.bytes()), 1).expect("a run");
        gate.programs.run_track_from(&datagram(v4().dns(), end, &answer), RIGHT_WAY).expect("a run");
    }
    assert_eq!(count(&gate, name_count::NAME_ANSWER_READ), 600);
    v4().receive(&gate, &open.addresses(&[ip("203.0.113.80")], 60));
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
}
