//! Talks with pauses, for timeouts: an answer that comes late, a connection that rests after its end.

use super::invent::say;
use super::inventor::Inventor;
use super::policy::ESP;
use super::story::{Event, Manner, PLAIN, Piece, Port, Side, Story, Talk, What, data, segment};
use crate::support::frame::{ACK, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP};

/// Seconds, each beyond a timeout of somebody and well before the next one: 10, 30, 60, 120.
pub const PAUSES: [u64; 4] = [12, 33, 63, 123];

/// A talk with one pause, of those up to `longest_s`.
pub fn invent_late(inventor: &mut Inventor<'_>, longest_s: u64) -> Story {
    let v6 = inventor.chance.percent(45);
    let pauses: Vec<u64> = PAUSES.into_iter().filter(|pause| *pause <= longest_s).collect();
    let pause_s = inventor.chance.pick(&pauses);
    let mut events = Vec::new();
    let protocol = match inventor.chance.below(12) {
        0..3 => {
            exchange_late(inventor, &mut events);
            UDP
        }
        3 => {
            let (request, reply) = if v6 { (128, 129) } else { (8, 0) };
            say(&mut events, Side::Peer, What::Ping(request, 0, 20));
            say(&mut events, Side::Server, What::Ping(reply, 0, 20));
            if v6 { ICMPV6 } else { ICMP }
        }
        4 => {
            say(&mut events, Side::Peer, What::Other(40));
            say(&mut events, Side::Server, What::Other(40));
            ESP
        }
        5 => return late_pieces(inventor, v6, pause_s),
        _ => {
            rest_after(inventor, &mut events);
            TCP
        }
    };
    if let Some(last) = events.last_mut() {
        last.after_s = pause_s;
    }
    if inventor.chance.percent(30)
        && let Some(last) = events.last().cloned()
    {
        events.push(Event { after_s: 0, ..last });
    }
    let (server, peer, port) = inventor.pick_need(protocol, v6, false);
    let has_ports = protocol == TCP || protocol == UDP;
    let (server_port, peer_port) = match protocol {
        ESP => (Port::Fixed(0), Port::Fixed(0)),
        _ if has_ports => (Port::Fixed(port), Port::Fresh),
        _ => (Port::Fresh, Port::Fresh),
    };
    let peer = if protocol == ESP { None } else { peer };
    Story { talks: vec![Talk { v6, server, peer, protocol, server_port, peer_port }], events }
}

/// A question, with answers or not, and a late answer.
fn exchange_late(inventor: &mut Inventor<'_>, events: &mut Vec<Event>) {
    say(events, Side::Peer, What::Udp(20, None));
    for _ in 0..inventor.chance.below(3) {
        say(events, Side::Server, What::Udp(30, None));
    }
    if inventor.chance.percent(30) {
        say(events, Side::Peer, What::Udp(20, None));
    }
    say(events, Side::Server, What::Udp(40, None));
}

/// A datagram that a need permits, or an answer, whose last fragment is late.
fn late_pieces(inventor: &mut Inventor<'_>, v6: bool, pause_s: u64) -> Story {
    let outbound = inventor.chance.percent(60);
    let (server, peer, port) = inventor.pick_need(UDP, v6, outbound);
    let mut events = Vec::new();
    let (server_port, peer_port) = if outbound {
        (Port::Fresh, Port::Fixed(port))
    } else {
        say(&mut events, Side::Peer, What::Udp(20, None));
        (Port::Fixed(port), Port::Fresh)
    };
    for (offset, bytes, more, after_s) in [(0, 40, true, 0), (40, 68, false, pause_s)] {
        let piece = Some(Piece { datagram: 1, offset, bytes, more, forged: false });
        let manner = Manner { piece, ..PLAIN };
        events.push(Event { talk: 0, from: Side::Server, what: What::Udp(100, None), manner, after_s });
    }
    Story { talks: vec![Talk { v6, server, peer, protocol: UDP, server_port, peer_port }], events }
}

/// A connection at some stage of its life, and then what the server says later.
fn rest_after(inventor: &mut Inventor<'_>, events: &mut Vec<Event>) {
    let chance = &mut inventor.chance;
    let stage = chance.below(9);
    say(events, Side::Peer, segment(SYN, 1000, 0));
    if stage > 0 {
        say(events, Side::Server, segment(SYN | ACK, 5000, 1001));
    }
    if stage > 1 {
        say(events, Side::Peer, segment(ACK, 1001, 5001));
        say(events, Side::Server, data(PSH | ACK, 5001, 1001, 20));
        say(events, Side::Peer, segment(ACK, 1001, 5021));
    }
    let wrong = chance.pick(&[0, 0, 70_000, 0x8000_0000]);
    match stage {
        3 => say(events, Side::Server, segment(RST | ACK, 5021, 1001)),
        4 => say(events, Side::Peer, segment(chance.pick(&[RST, RST | ACK]), 1001 + wrong, 5021)),
        5 => say(events, Side::Peer, segment(FIN | ACK, 1001, 5021)),
        6 => say(events, Side::Server, segment(FIN | ACK, 5021, 1001)),
        7 | 8 => {
            let first = chance.pick(&[Side::Server, Side::Peer]);
            for side in [first, first.other()] {
                let (sequence, acknowledgment) =
                    if side == Side::Server { (5021, 1001) } else { (1001, 5021) };
                say(events, side, segment(FIN | ACK, sequence, acknowledgment));
            }
            if stage == 8 {
                say(events, first, segment(ACK, 1002, 5022));
            }
        }
        _ => {}
    }
    let what = match stage {
        0 | 1 => segment(SYN | ACK, 5000, 1001),
        _ => data(PSH | ACK, 5021, 1001, 30),
    };
    say(events, Side::Server, what);
}
