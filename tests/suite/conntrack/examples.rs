//! For each known difference the story that shows it, under one small policy.

use super::story::{
    Event, Lie, Manner, PLAIN, Piece, Port, Quote, Side, Source, Story, Talk, URG, What, data, segment,
};
use crate::support::frame::{ACK, DESTINATION_OPTIONS, FIN, HOP_BY_HOP, ICMP, PSH, RST, SYN, TCP, UDP};

/// The policy of all examples. The server has number 0.
pub const POLICY: &str = r#"
[policy]
management = ["tcp/22 from @bastion"]
pickup = 0

[sets]
bastion = ["203.0.113.7"]

[roles.all]
in = ["tcp/80", "udp/53", "icmp/echo-request"]
out = ["tcp/25", "udp/123"]

[roles.marker]
out = ["udp/9 to 198.51.100.250"]

[servers.a]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["all"]

[servers.b]
addresses = ["192.0.2.11", "2001:db8:1::11"]
roles = ["all"]

[servers.marker]
addresses = ["192.0.2.250"]
roles = ["marker"]
"#;

/// A talk of server `a` with somebody.
fn talk(v6: bool, protocol: u8, server_port: Port, peer_port: Port) -> Story {
    let talk = Talk { v6, server: 0, peer: None, protocol, server_port, peer_port };
    Story { talks: vec![talk], events: Vec::new() }
}

/// A peer comes to the web server.
fn visit() -> Story {
    talk(false, TCP, Port::Fixed(80), Port::Fresh)
}

/// A peer asks the name server.
fn ask() -> Story {
    talk(false, UDP, Port::Fixed(53), Port::Fresh)
}

/// The server calls a mail server.
fn call() -> Story {
    talk(false, TCP, Port::Fresh, Port::Fixed(25))
}

impl Story {
    fn say(mut self, from: Side, what: What, manner: Manner) -> Story {
        self.events.push(Event { talk: 0, from, what, manner, after_s: 0 });
        self
    }

    fn peer(self, what: What) -> Story {
        self.say(Side::Peer, what, PLAIN)
    }

    fn server(self, what: What) -> Story {
        self.say(Side::Server, what, PLAIN)
    }

    /// A fragment of the server, of a UDP datagram or TCP segment.
    fn piece(self, from: Side, what: What, offset: usize, bytes: usize, more: bool) -> Story {
        let piece = Some(Piece { datagram: 1, offset, bytes, more, forged: false });
        self.say(from, what, Manner { piece, ..PLAIN })
    }

    /// Before the next packet so many seconds go by.
    fn then(mut self, after_s: u64, what: What) -> Story {
        self = self.server(what);
        self.events.last_mut().expect("an event").after_s = after_s;
        self
    }

    fn shake_hands(self) -> Story {
        self.peer(segment(SYN, 1000, 0))
            .server(segment(SYN | ACK, 5000, 1001))
            .peer(segment(ACK, 1001, 5001))
            .server(data(PSH | ACK, 5001, 1001, 20))
            .peer(segment(ACK, 1001, 5021))
    }
}

const QUESTION: What = What::Udp(20, None);
const LARGE: What = What::Udp(92, None);

fn later_data() -> What {
    data(PSH | ACK, 5021, 1001, 30)
}

fn error_about(theirs: bool, bytes: usize) -> What {
    What::Error(3, 3, Quote { theirs, port: None, kind: SYN, bytes })
}

pub fn half_a_datagram_arrives() -> Story {
    ask().piece(Side::Peer, LARGE, 0, 40, true)
}

pub fn half_a_datagram_leaves() -> Story {
    ask().peer(QUESTION).piece(Side::Server, LARGE, 0, 40, true)
}

pub fn fragments_are_reversed() -> Story {
    ask().peer(QUESTION).piece(Side::Server, LARGE, 40, 60, false).piece(Side::Server, LARGE, 0, 40, true)
}

pub fn the_first_fragment_is_tiny() -> Story {
    let what = data(PSH | ACK, 5001, 1001, 60);
    visit().peer(segment(SYN, 1000, 0)).piece(Side::Server, what, 0, 16, true).piece(
        Side::Server,
        what,
        16,
        64,
        false,
    )
}

pub fn a_fragment_is_odd() -> Story {
    ask().peer(QUESTION).piece(Side::Server, LARGE, 0, 45, true).piece(Side::Server, LARGE, 40, 60, false)
}

pub fn a_fragment_comes_before_the_question() -> Story {
    ask().piece(Side::Server, LARGE, 0, 40, true).peer(QUESTION).piece(Side::Server, LARGE, 40, 60, false)
}

pub fn a_ragged_opening_is_answered() -> Story {
    let opening = data(SYN, 1000, 0, 24);
    call().piece(Side::Peer, opening, 0, 32, true).server(segment(SYN | ACK, 5000, 1001))
}

pub fn two_syns_cross() -> Story {
    call().peer(segment(SYN, 1000, 0)).server(segment(SYN, 5000, 0)).server(segment(SYN | ACK, 5000, 1001))
}

pub fn a_syn_ack_is_urgent() -> Story {
    call().server(segment(SYN | ACK | URG, 5000, 1001))
}

pub fn an_error_about_nothing() -> Story {
    talk(false, UDP, Port::Fresh, Port::Fixed(123)).server(error_about(true, 28))
}

pub fn an_error_quotes_too_little() -> Story {
    visit().peer(segment(SYN, 1000, 0)).server(error_about(true, 4))
}

pub fn an_error_of_another_server() -> Story {
    let manner = Manner { source: Source::Server(1), ..PLAIN };
    visit().peer(segment(SYN, 1000, 0)).say(Side::Server, error_about(true, 28), manner)
}

pub fn odd_flags() -> Story {
    visit().shake_hands().server(data(RST | FIN | ACK | URG, 5021, 1001, 0))
}

pub fn a_crooked_opening() -> Story {
    let manner = Manner { lie: Some(Lie::Length(-1)), ..PLAIN };
    ask().say(Side::Peer, QUESTION, manner).server(QUESTION)
}

pub fn a_reset_before_an_answer() -> Story {
    visit().peer(segment(SYN, 1000, 0)).peer(segment(RST, 1001, 0)).server(segment(SYN | ACK, 5000, 1001))
}

fn closed() -> Story {
    visit()
        .shake_hands()
        .server(segment(FIN | ACK, 5021, 1001))
        .peer(segment(FIN | ACK, 1001, 5022))
        .server(segment(ACK, 5022, 1002))
}

pub fn a_new_syn_is_lost() -> Story {
    let manner = Manner { ttl: 1, ..PLAIN };
    closed().say(Side::Peer, segment(SYN, 200_000, 0), manner).server(segment(SYN | ACK, 300_000, 200_001))
}

pub fn a_server_turns_a_connection_round() -> Story {
    closed().server(segment(SYN, 300_000, 0)).server(segment(ACK, 5022, 1002))
}

pub fn a_peer_resets() -> Story {
    visit().shake_hands().peer(segment(RST, 1001, 0)).then(12, later_data())
}

pub fn a_server_resets_wrongly() -> Story {
    visit().shake_hands().server(segment(RST, 4000, 0)).then(12, later_data())
}

pub fn a_fin_before_the_handshake() -> Story {
    visit().peer(segment(SYN, 1000, 0)).server(segment(FIN | ACK, 5000, 1001))
}

pub fn an_old_reset() -> Story {
    visit().shake_hands().server(segment(RST, 4000, 0))
}

pub fn a_reply_with_another_code() -> Story {
    let story = talk(false, ICMP, Port::Fresh, Port::Fresh);
    story.peer(What::Ping(8, 0, 20)).server(What::Ping(0, 7, 20))
}

pub fn options_in_the_wrong_place() -> Story {
    let options = |kind: u8| (kind, vec![0, 0x3e, 4, 0, 0, 0, 0]);
    let extensions = vec![options(DESTINATION_OPTIONS), options(HOP_BY_HOP)];
    let story = talk(true, UDP, Port::Fixed(53), Port::Fresh).peer(QUESTION);
    story.say(Side::Server, QUESTION, Manner { extensions, ..PLAIN })
}

pub fn a_finished_source_route() -> Story {
    let options = vec![131, 7, 8, 198, 51, 100, 9, 0];
    ask().peer(QUESTION).say(Side::Server, QUESTION, Manner { options, ..PLAIN })
}
