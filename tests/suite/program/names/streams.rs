//! Answers over TCP, whose messages have borders.

use portcullis::abi::{Reason, name_count};

use super::{Client, POLICY, RIGHT_WAY, count, v4, v6};
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, Message, Record, TO_QUESTION, TXT, segment};
use crate::support::frame::{ACK, FIN, PSH, RST, SYN, tcp};
use crate::support::test_gate::TestGate;

const FIRST: u32 = 0xffff_ff00;
const DATA: u8 = PSH | ACK;

/// A connection to a resolver. Sequence numbers pass zero on their way.
struct Connection<'g> {
    gate: &'g TestGate,
    client: Client,
    asked: u32,
    answered: u32,
}

impl<'g> Connection<'g> {
    fn open(gate: &'g TestGate, client: Client) -> Connection<'g> {
        gate.passes(&tcp(client.end(), client.dns(), SYN), Reason::Need);
        gate.to_server_from(&segment(client.dns(), client.end(), SYN | ACK, FIRST, &[]), RIGHT_WAY);
        Connection { gate, client, asked: 1, answered: FIRST.wrapping_add(1) }
    }

    fn ask(&mut self, bytes: &[u8]) {
        let frame = segment(self.client.end(), self.client.dns(), DATA, self.asked, bytes);
        self.gate.passes(&frame, Reason::OwnConnection);
        self.asked += bytes.len() as u32;
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.receive_at(self.answered, bytes);
        self.answered = self.answered.wrapping_add(bytes.len() as u32);
    }

    fn receive_at(&self, sequence: u32, bytes: &[u8]) {
        let frame = segment(self.client.dns(), self.client.end(), DATA, sequence, bytes);
        self.gate.to_server_from(&frame, RIGHT_WAY);
    }
}

fn query() -> Message {
    Message::query(7, "deb.vendor.example", A)
}

#[test]
fn an_answer_over_tcp_opens_its_addresses() {
    for client in [v4(), v6()] {
        let gate = TestGate::new(POLICY);
        let mut connection = Connection::open(&gate, client);
        connection.ask(&query().prefixed());
        connection.receive(&query().addresses(&[ip("203.0.113.80")], 60).prefixed());
        gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
    }
}

#[test]
fn a_length_may_come_before_its_question_and_two_questions_in_one_segment() {
    let gate = TestGate::new(POLICY);
    let mut connection = Connection::open(&gate, v4());
    let second = Message { id: 8, kind: AAAA, ..query() };
    let bytes = query().prefixed();
    connection.ask(&bytes[..2]);
    connection.ask(&bytes[2..]);
    connection.receive(&query().addresses(&[ip("203.0.113.1")], 60).prefixed());
    gate.passes(&v4().syn("203.0.113.1", 443), Reason::Need);
    connection.ask(&[query().prefixed(), second.prefixed()].concat());
    let answers = [
        query().addresses(&[ip("203.0.113.2")], 60).prefixed(),
        second.addresses(&[ip("2001:db8:50::2")], 60).prefixed(),
    ];
    connection.receive(&answers.concat());
    gate.passes(&v4().syn("203.0.113.2", 443), Reason::Need);
    gate.passes(&v4().syn("2001:db8:50::2", 443), Reason::Need);
}

#[test]
fn an_answer_that_goes_on_in_later_segments_opens_what_its_first_one_has() {
    let gate = TestGate::new(POLICY);
    let mut connection = Connection::open(&gate, v4());
    connection.ask(&query().prefixed());
    let addresses: Vec<_> = (1..=9).map(|number| ip(&format!("203.0.113.{number}"))).collect();
    let bytes = query().addresses(&addresses, 60).prefixed();
    let cut = bytes.len() - 40;
    connection.receive(&bytes[..cut]);
    connection.receive(&bytes[cut..]);
    gate.passes(&v4().syn("203.0.113.6", 443), Reason::Need);
    gate.drops(&v4().syn("203.0.113.9", 443), Reason::Destination);
    // the next one begins where it ended
    connection.ask(&query().prefixed());
    connection.receive(&query().addresses(&[ip("203.0.113.9")], 60).prefixed());
    gate.passes(&v4().syn("203.0.113.9", 443), Reason::Need);
}

/// A server asks its own zone for a text full of messages, with segments so small that each of them begins one.
#[test]
fn a_segment_that_looks_like_a_message_is_none_in_the_middle_of_another() {
    let gate = TestGate::new(POLICY);
    let mut connection = Connection::open(&gate, v4());
    let text = Message::query(9, "x.mirror.example", TXT);
    connection.ask(&[text.prefixed(), query().prefixed()].concat());
    let fake = query().addresses(&[ip("203.0.113.80")], 60).prefixed();
    let mut data = vec![fake.len() as u8];
    data.extend_from_slice(&fake);
    let whole = text.answer(&[Record::new(TO_QUESTION, TXT, 60, &data.repeat(3))]).prefixed();
    let start = whole.len() - 3 * data.len();
    connection.receive(&whole[..=start]);
    for part in 0..3 {
        let from = start + 1 + part * data.len();
        connection.receive(&whole[from..(from + data.len()).min(whole.len())]);
        gate.drops(&v4().syn("203.0.113.80", 443), Reason::Destination);
    }
    // sent again, or from the future
    connection.receive_at(FIRST.wrapping_add(1 + start as u32 + 1), &fake);
    connection.receive_at(connection.answered.wrapping_add(1000), &fake);
    gate.drops(&v4().syn("203.0.113.80", 443), Reason::Destination);
    assert_eq!(count(&gate, name_count::NAME_GRANT_MADE), 0);
    // where a message really begins it counts
    connection.receive(&fake);
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
}

#[test]
fn without_the_resolvers_syn_no_segment_is_read() {
    let gate = TestGate::new(POLICY);
    gate.passes(&tcp(v4().end(), v4().dns(), SYN), Reason::Need);
    let mut connection = Connection { gate: &gate, client: v4(), asked: 1, answered: 1 };
    connection.ask(&query().prefixed());
    connection.receive(&query().addresses(&[ip("203.0.113.80")], 60).prefixed());
    gate.drops(&v4().syn("203.0.113.80", 443), Reason::Destination);
    assert_eq!(count(&gate, name_count::NAME_ANSWER_READ), 0);
}

#[test]
fn a_segment_that_is_missed_opens_nothing_until_it_is_sent_again() {
    let gate = TestGate::new(POLICY);
    let mut connection = Connection::open(&gate, v4());
    let second = Message { id: 8, ..query() };
    connection.ask(&[query().prefixed(), second.prefixed()].concat());
    let first = query().addresses(&[ip("203.0.113.1")], 60).prefixed();
    let later = second.addresses(&[ip("203.0.113.2")], 60).prefixed();
    let at = connection.answered;
    connection.receive_at(at.wrapping_add(first.len() as u32), &later);
    gate.drops(&v4().syn("203.0.113.2", 443), Reason::Destination);
    connection.receive_at(at, &first);
    connection.receive_at(at.wrapping_add(first.len() as u32), &later);
    gate.passes(&v4().syn("203.0.113.1", 443), Reason::Need);
    gate.passes(&v4().syn("203.0.113.2", 443), Reason::Need);
}

#[test]
fn a_length_in_two_segments_ends_what_is_known_of_a_connection() {
    let gate = TestGate::new(POLICY);
    let mut connection = Connection::open(&gate, v4());
    connection.ask(&query().prefixed());
    let bytes = query().addresses(&[ip("203.0.113.80")], 60).prefixed();
    connection.receive(&bytes[..1]);
    connection.receive(&bytes[1..]);
    gate.drops(&v4().syn("203.0.113.80", 443), Reason::Destination);
    assert_eq!(count(&gate, name_count::NAME_STREAM_LOST), 1);
    // a new connection from the same port
    gate.to_server_from(&segment(v4().dns(), v4().end(), SYN | ACK, 77, &[]), RIGHT_WAY);
    connection.answered = 78;
    connection.receive(&bytes);
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
}

#[test]
fn a_syn_that_is_sent_again_late_changes_no_border() {
    let gate = TestGate::new(POLICY);
    let mut connection = Connection::open(&gate, v4());
    let second = Message { id: 8, ..query() };
    connection.ask(&[query().prefixed(), second.prefixed()].concat());
    connection.receive(&query().addresses(&[ip("203.0.113.1")], 60).prefixed());
    gate.to_server_from(&segment(v4().dns(), v4().end(), SYN | ACK, FIRST, &[]), RIGHT_WAY);
    connection.receive(&second.addresses(&[ip("203.0.113.2")], 60).prefixed());
    gate.passes(&v4().syn("203.0.113.2", 443), Reason::Need);
}

#[test]
fn streams_that_have_ended_make_room_for_new_ones_before_any_that_is_open() {
    let gate = TestGate::new(POLICY);
    let mut open = Connection::open(&gate, v4());
    for number in 0..200 {
        let end = (v4().server, 41_000 + number);
        let last = [FIN, RST][usize::from(number % 2)] | ACK;
        for (flags, sequence) in [(SYN | ACK, 7), (last, 8)] {
            let frame = segment(v4().dns(), end, flags, sequence, &[]);
            gate.programs.run_track_from(&frame, RIGHT_WAY).expect("a run");
        }
    }
    open.ask(&query().prefixed());
    open.receive(&query().addresses(&[ip("203.0.113.80")], 60).prefixed());
    gate.passes(&v4().syn("203.0.113.80", 443), Reason::Need);
}

#[test]
fn an_answer_in_the_segment_that_ends_a_stream_and_one_behind_it_count() {
    let gate = TestGate::new(POLICY);
    let mut connection = Connection::open(&gate, v4());
    let second = Message { id: 8, ..query() };
    connection.ask(&[query().prefixed(), second.prefixed()].concat());
    let first = query().addresses(&[ip("203.0.113.1")], 60).prefixed();
    let last = second.addresses(&[ip("203.0.113.2")], 60).prefixed();
    // the last one overtakes the first, and comes again
    let behind = connection.answered.wrapping_add(first.len() as u32);
    let end = segment(v4().dns(), v4().end(), DATA | FIN, behind, &last);
    gate.to_server_from(&end, RIGHT_WAY);
    connection.receive(&first);
    gate.to_server_from(&end, RIGHT_WAY);
    for address in ["203.0.113.1", "203.0.113.2"] {
        gate.passes(&v4().syn(address, 443), Reason::Need);
    }
}
