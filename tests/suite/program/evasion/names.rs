//! A server that may reach others by name, and wants to reach whom it likes, or to tell them something in questions.

use std::net::IpAddr;

use portcullis::abi::Reason;

use super::table::{Row, Script, classes};
use crate::program::names::{Client, POLICY, RIGHT_WAY, WRONG_WAY, v4, v6};
use crate::support::dmz::{Family, ip};
use crate::support::dns::{A, AAAA, CNAME, Message, Record, TO_QUESTION, TXT, datagram, segment, wire};
use crate::support::frame::{ACK, PSH, SYN, octets, tcp};

classes! {
    an_address_is_open_that_an_answer_gave_and_no_other: "Addresses that no answer gave", list_answers;
    a_message_over_tcp_begins_where_the_one_before_it_ended: "Messages within messages", list_streams;
    no_segment_leaves_but_in_a_connection_whose_syn_passed: "Segments to a granted address", list_segments;
    a_question_carries_a_name_of_the_policy_and_nothing_else: "Data in questions", list_questions;
}

/// A server of one family that asks for a name, and an address that no other row has.
struct Asking {
    client: Client,
    address: IpAddr,
    query: Message,
}

impl Asking {
    fn new(family: Family, number: u8) -> Asking {
        let (client, address, kind) = match family.web.is_ipv4() {
            true => (v4(), ip(&format!("203.0.113.{number}")), A),
            false => (v6(), ip(&format!("2001:db8:50::{number:x}")), AAAA),
        };
        Asking { client, address, query: Message::query(number.into(), "deb.vendor.example", kind) }
    }

    fn asks(&self) -> Script {
        Script::default().under(POLICY.to_owned()).passes(self.question(&self.query), Reason::Need)
    }

    fn question(&self, query: &Message) -> Vec<u8> {
        datagram(self.client.end(), self.client.dns(), &query.bytes())
    }

    fn answer(&self) -> Message {
        self.query.addresses(&[self.address], 60)
    }

    fn frame(&self, answer: &Message) -> Vec<u8> {
        datagram(self.client.dns(), self.client.end(), &answer.bytes())
    }

    fn syn(&self, port: u16) -> Vec<u8> {
        self.client.syn(&self.address.to_string(), port)
    }

    /// The server asked, and gets this answer.
    fn answered(&self, answer: &Message) -> Script {
        self.asks().comes_by(self.frame(answer), RIGHT_WAY)
    }

    fn granted(&self) -> Script {
        self.answered(&self.answer())
    }
}

fn list_answers() -> Vec<Row> {
    let row = |words: &str, number: u8, play: fn(&Asking) -> Script| {
        Row::both(words, move |family| play(&Asking::new(family, number)))
    };
    vec![
        row("to the address of an answer", 1, |asking| {
            asking.granted().passes(asking.syn(443), Reason::Need)
        }),
        row("to another port of it", 2, |asking| asking.granted().drops(asking.syn(80), Reason::NewFlow)),
        row("to it, from another server", 3, |asking| {
            let other = ip(if asking.address.is_ipv4() { "192.0.2.11" } else { "2001:db8:1::11" });
            asking.granted().drops(tcp((other, 50_000), (asking.address, 443), SYN), Reason::Destination)
        }),
        row("after an answer that nobody asked for", 4, |asking| {
            Script::default()
                .under(POLICY.to_owned())
                .comes_by(asking.frame(&asking.answer()), RIGHT_WAY)
                .drops(asking.syn(443), Reason::Destination)
        }),
        row("after an answer with another id", 5, |asking| {
            let answer = Message { id: 1000, ..asking.answer() };
            asking.answered(&answer).drops(asking.syn(443), Reason::Destination)
        }),
        row("after an answer to another port", 6, |asking| {
            let end = (asking.client.server, asking.client.port + 1);
            let frame = datagram(asking.client.dns(), end, &asking.answer().bytes());
            asking.asks().comes_by(frame, RIGHT_WAY).drops(asking.syn(443), Reason::Destination)
        }),
        row("after an answer to another question", 7, |asking| {
            let answer = Message { name: wire("x.mirror.example"), ..asking.answer() };
            asking.answered(&answer).drops(asking.syn(443), Reason::Destination)
        }),
        row("after an answer by another interface, in the resolver's name", 8, |asking| {
            asking
                .asks()
                .comes_by(asking.frame(&asking.answer()), WRONG_WAY)
                .drops(asking.syn(443), Reason::Destination)
        }),
        row("after a second answer to the same question", 9, |asking| {
            let first = ip(if asking.address.is_ipv4() { "203.0.113.99" } else { "2001:db8:50::99" });
            asking
                .answered(&asking.query.addresses(&[first], 60))
                .comes_by(asking.frame(&asking.answer()), RIGHT_WAY)
                .drops(asking.syn(443), Reason::Destination)
        }),
        row("to an address of the authority or the additional section", 10, |asking| {
            let alias = Record::new(TO_QUESTION, CNAME, 60, &wire("edge.example"));
            let record = Record::address(asking.address, 60);
            let answer = Message {
                authorities: vec![record.clone()],
                additionals: vec![record],
                ..asking.query.answer(&[alias])
            };
            asking.answered(&answer).drops(asking.syn(443), Reason::Destination)
        }),
        row("to an address that names may not have", 11, |asking| {
            let address = ip(if asking.address.is_ipv4() { "198.51.100.11" } else { "2001:db8:99::11" });
            asking
                .answered(&asking.query.addresses(&[address], 60))
                .drops(asking.client.syn(&address.to_string(), 443), Reason::Destination)
        }),
        row("to an address of a server, which a name points to", 12, |asking| {
            let address = ip(if asking.address.is_ipv4() { "192.0.2.11" } else { "2001:db8:1::11" });
            asking
                .answered(&asking.query.addresses(&[address], 60))
                .drops(asking.client.syn(&address.to_string(), 443), Reason::Destination)
        }),
        row("to the address of an answer, when the policy has lost the name", 13, |asking| {
            asking
                .granted()
                .passes(asking.syn(443), Reason::Need)
                .under(POLICY.replace("\"deb.vendor.example\", ", ""))
                .drops(asking.syn(443), Reason::Destination)
        }),
        Row::v4("to the IPv4 address in an AAAA record, `::ffff:a.b.c.d`", {
            let asking = Asking::new(crate::support::dmz::V4, 14);
            let query = Message { kind: AAAA, ..asking.query.clone() };
            let mapped = [&[0; 10][..], &[0xff; 2], &octets(asking.address)].concat();
            let answer = query.answer(&[Record::new(TO_QUESTION, AAAA, 60, &mapped)]);
            Script::default()
                .under(POLICY.to_owned())
                .passes(asking.question(&query), Reason::Need)
                .comes_by(asking.frame(&answer), RIGHT_WAY)
                .drops(asking.syn(443), Reason::Destination)
        }),
    ]
}

/// A connection to the resolver, over which one question has gone.
fn connected(asking: &Asking, query: &Message) -> Script {
    let (server, resolver) = (asking.client.end(), asking.client.dns());
    Script::default()
        .under(POLICY.to_owned())
        .passes(tcp(server, resolver, SYN), Reason::Need)
        .comes_by(segment(resolver, server, SYN | ACK, 999, &[]), RIGHT_WAY)
        .passes(segment(server, resolver, PSH | ACK, 1, &query.prefixed()), Reason::OwnConnection)
}

fn list_streams() -> Vec<Row> {
    let answers = |asking: &Asking, at: u32, bytes: &[u8]| {
        segment(asking.client.dns(), asking.client.end(), PSH | ACK, at, bytes)
    };
    // an answer of a zone of the intruder's, whose text is an answer about another name
    let text = |asking: &Asking| {
        let query = Message::query(77, "x.mirror.example", TXT);
        let fake = asking.answer().prefixed();
        let data = [&[fake.len() as u8][..], &fake].concat();
        let whole = query.answer(&[Record::new(TO_QUESTION, TXT, 60, &data)]).prefixed();
        (query, whole.len() - fake.len(), whole)
    };
    vec![
        Row::both("to the address of an answer over TCP", |family| {
            let asking = Asking::new(family, 21);
            connected(&asking, &asking.query)
                .comes_by(answers(&asking, 1000, &asking.answer().prefixed()), RIGHT_WAY)
                .passes(asking.syn(443), Reason::Need)
        }),
        Row::both("after a text that is an answer, in a segment of its own", |family| {
            let asking = Asking::new(family, 22);
            let (query, at, whole) = text(&asking);
            let question = segment(
                asking.client.end(),
                asking.client.dns(),
                PSH | ACK,
                1 + query.prefixed().len() as u32,
                &asking.query.prefixed(),
            );
            connected(&asking, &query)
                .passes(question, Reason::OwnConnection)
                .comes_by(answers(&asking, 1000, &whole[..at]), RIGHT_WAY)
                .comes_by(answers(&asking, 1000 + at as u32, &whole[at..]), RIGHT_WAY)
                .drops(asking.syn(443), Reason::Destination)
        }),
        Row::both("after a segment of a connection whose SYN+ACK did not come by", |family| {
            let asking = Asking::new(family, 23);
            let (server, resolver) = ((asking.client.server, 41_000), asking.client.dns());
            Script::default()
                .under(POLICY.to_owned())
                .passes(tcp(server, resolver, SYN), Reason::Need)
                .passes(
                    segment(server, resolver, PSH | ACK, 1, &asking.query.prefixed()),
                    Reason::OwnConnection,
                )
                .comes_by(segment(resolver, server, PSH | ACK, 1000, &asking.answer().prefixed()), RIGHT_WAY)
                .drops(asking.syn(443), Reason::Destination)
        }),
    ]
}

fn list_segments() -> Vec<Row> {
    let ack = |asking: &Asking, port: u16| tcp((asking.client.server, port), (asking.address, 443), ACK);
    vec![
        Row::both("of a connection whose SYN has passed", |family| {
            let asking = Asking::new(family, 31);
            asking
                .granted()
                .passes(asking.syn(443), Reason::Need)
                .passes(ack(&asking, 50_000), Reason::OwnConnection)
        }),
        Row::both("without a SYN", |family| {
            let asking = Asking::new(family, 32);
            asking.granted().drops(ack(&asking, 50_000), Reason::NoFlow)
        }),
        Row::both("from another port than the SYN", |family| {
            let asking = Asking::new(family, 33);
            asking.granted().passes(asking.syn(443), Reason::Need).drops(ack(&asking, 50_001), Reason::NoFlow)
        }),
        Row::both("of a connection whose SYN has passed, when the policy has lost the name", |family| {
            let asking = Asking::new(family, 34);
            asking
                .granted()
                .passes(asking.syn(443), Reason::Need)
                .under(POLICY.replace("\"deb.vendor.example\", ", ""))
                .drops(ack(&asking, 50_000), Reason::NoFlow)
        }),
    ]
}

/// Under the policy whose clients may ask for its names alone.
fn strictly() -> Script {
    Script::default().under(POLICY.replace("[roles.client]", "[roles.client]\ndns = \"named\""))
}

fn list_questions() -> Vec<Row> {
    let row = |words: &str, reason: Reason, change: fn(Message) -> Vec<u8>| {
        Row::both(words, move |family| {
            let asking = Asking::new(family, 41);
            let frame = datagram(asking.client.end(), asking.client.dns(), &change(asking.query));
            match reason {
                Reason::Need => strictly().passes(frame, reason),
                _ => strictly().drops(frame, reason),
            }
        })
    };
    vec![
        row("a name of the policy", Reason::Need, |query| query.bytes()),
        row("its TXT", Reason::Need, |query| Message { kind: TXT, ..query }.bytes()),
        row("a name below a wildcard: its owner reads it", Reason::Need, |query| {
            Message { name: wire("aGVsbG8.mirror.example"), ..query }.bytes()
        }),
        row("another name", Reason::Question, |query| {
            Message { name: wire("aGVsbG8.t.example"), ..query }.bytes()
        }),
        row("labels in front of a name", Reason::Question, |query| {
            Message { name: wire("aGVsbG8.deb.vendor.example"), ..query }.bytes()
        }),
        row("bytes behind the question", Reason::Question, |query| [&query.bytes()[..], b"data"].concat()),
        row("a second question", Reason::Question, |query| {
            let mut bytes = query.bytes();
            bytes[5] = 2;
            bytes.extend_from_slice(&query.bytes()[12..]);
            bytes
        }),
        row("a record behind the question", Reason::Question, |query| {
            let record = Record::new(TO_QUESTION, TXT, 0, b"\x04data");
            Message { additionals: vec![record], ..query }.bytes()
        }),
        row("an answer in place of a question", Reason::Question, |query| query.answer(&[]).bytes()),
        Row::both("TCP to the resolver", |family| {
            let client = Asking::new(family, 41).client;
            strictly().drops(tcp(client.end(), client.dns(), SYN), Reason::Question)
        }),
    ]
}
