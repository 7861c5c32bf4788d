//! What may go wrong with a talk.

use super::inventor::Inventor;
use super::pieces::cut_into_pieces;
use super::story::{Event, Lie, PLAIN, Quote, Segment, Side, Source, Talk, URG, What, has_ports};
use crate::support::frame::{
    ACK, DESTINATION_OPTIONS, FIN, FRAGMENT, HOP_BY_HOP, PSH, ROUTING, RST, SYN, TCP, UDP,
};

/// Flags that some sender has thought of.
const FLAGS: [u8; 18] = [
    0,
    SYN,
    ACK,
    SYN | ACK,
    FIN,
    FIN | ACK,
    RST,
    RST | ACK,
    RST | FIN | ACK,
    RST | URG,
    SYN | FIN,
    SYN | RST,
    SYN | URG,
    SYN | ACK | URG,
    FIN | PSH | URG,
    PSH,
    ACK | URG,
    PSH | ACK,
];

/// Changes one thing.
pub fn mutate(inventor: &mut Inventor<'_>, talk: &Talk, events: &mut Vec<Event>) {
    if events.is_empty() {
        return;
    }
    let at = inventor.chance.below(events.len());
    // the fragments of a datagram are all of the same one
    let whole = events[at].manner.piece.is_none();
    match inventor.chance.below(24) {
        0..3 => drop(events.remove(at)),
        3..5 => {
            let again = events[at].clone();
            let later = inventor.chance.within(at..events.len()) + 1;
            events.insert(later, again);
        }
        5 | 6 => {
            if at + 1 < events.len() {
                events.swap(at, at + 1);
            }
        }
        7..9 if whole => change_flags(inventor, &mut events[at]),
        9 | 10 if whole => change_numbers(inventor, &mut events[at]),
        11..14 => interject(inventor, talk, events, at),
        14 if whole => events[at].manner.source = pick_source(inventor, events[at].from),
        15 | 16 => change_manner(inventor, talk, &mut events[at]),
        17 if whole => tell_a_lie(inventor, talk.v6, &mut events[at]),
        18..20 => complain(inventor, talk, events, at),
        20..23 => cut_into_pieces(inventor, events, at),
        23 if whole => change_shape(inventor, &mut events[at]),
        _ => interject(inventor, talk, events, at),
    }
}

fn change_flags(inventor: &mut Inventor<'_>, event: &mut Event) {
    if let What::Tcp(segment) = &mut event.what {
        segment.flags = inventor.chance.pick(&FLAGS);
    }
}

fn change_numbers(inventor: &mut Inventor<'_>, event: &mut Event) {
    let by = inventor.chance.pick(&[1, u32::MAX, 1000, 70_000, 0x8000_0000, 12_345_678]);
    if let What::Tcp(segment) = &mut event.what {
        if inventor.chance.percent(50) {
            segment.sequence = segment.sequence.wrapping_add(by);
        } else {
            segment.acknowledgment = segment.acknowledgment.wrapping_add(by);
        }
    }
}

/// Somebody says something in between.
fn interject(inventor: &mut Inventor<'_>, talk: &Talk, events: &mut Vec<Event>, at: usize) {
    let from = inventor.chance.pick(&[Side::Server, Side::Peer]);
    let what = match talk.protocol {
        TCP => {
            let numbers = inventor.chance.pick(&[(1001, 5001), (5001, 1001), (0, 0), (123_456, 654_321)]);
            let flags = inventor.chance.pick(&FLAGS);
            let bytes = if inventor.chance.percent(20) { 12 } else { 0 };
            let (sequence, acknowledgment) = numbers;
            What::Tcp(Segment { flags, sequence, acknowledgment, data: bytes, words: None })
        }
        UDP => What::Udp(inventor.pick_bytes(), None),
        _ if talk.is_icmp() => {
            let kinds = if talk.v6 { [128, 129, 128, 129] } else { [8, 0, 13, 14] };
            What::Ping(inventor.chance.pick(&kinds), 0, 20)
        }
        _ => What::Other(30),
    };
    events.insert(at, Event { talk: 0, from, what, manner: PLAIN, after_s: 0 });
}

fn pick_source(inventor: &mut Inventor<'_>, from: Side) -> Source {
    match from {
        Side::Server if inventor.chance.percent(50) => Source::Unknown,
        Side::Server => Source::Server(inventor.pick_server()),
        // of a peer it would be another talk
        Side::Peer => Source::Own,
    }
}

/// That a port is closed.
pub fn refuse(talk: &Talk) -> What {
    let (kind, code) = if talk.v6 { (1, 4) } else { (3, 3) };
    let quoted = match talk.protocol {
        TCP => SYN,
        _ if talk.v6 => 128,
        _ => 8,
    };
    What::Error(kind, code, Quote { theirs: true, port: None, kind: quoted, bytes: 28 })
}

/// An ICMP error of one of them.
fn complain(inventor: &mut Inventor<'_>, talk: &Talk, events: &mut Vec<Event>, at: usize) {
    let chance = &mut inventor.chance;
    let kinds: &[(u8, u8)] = if talk.v6 {
        &[(1, 4), (1, 1), (2, 0), (3, 0), (4, 1)]
    } else {
        &[(3, 3), (3, 1), (3, 4), (11, 0), (12, 0), (4, 0), (5, 1)]
    };
    let (kind, code) = chance.pick(kinds);
    let quote = Quote {
        theirs: chance.percent(80),
        port: chance.percent(12).then(|| chance.pick(&[7, 53, 80, 9999])),
        kind: match talk.protocol {
            TCP => chance.pick(&[SYN, ACK, ACK | SYN]),
            _ if talk.v6 => chance.pick(&[128, 128, 129]),
            _ => chance.pick(&[8, 8, 0, 13]),
        },
        bytes: chance.pick(&[28, 28, 20, 8, 4, 0]),
    };
    let from = if chance.percent(75) { Side::Server } else { Side::Peer };
    let what = What::Error(kind, code, quote);
    let mut event = Event { talk: 0, from, what, manner: PLAIN, after_s: 0 };
    if chance.percent(8) {
        event.manner.source = pick_source(inventor, from);
    }
    events.insert(at + 1, event);
}

fn change_manner(inventor: &mut Inventor<'_>, talk: &Talk, event: &mut Event) {
    let chance = &mut inventor.chance;
    match chance.below(6) {
        // the router looks at each fragment's, but conntrack puts them together before
        0 if event.manner.piece.is_none() => event.manner.ttl = chance.pick(&[1, 2, 255]),
        0 | 1 => event.manner.bad_checksum = true,
        2 => event.manner.padding = chance.pick(&[1, 6, 40]),
        _ if event.manner.piece.is_some() => {}
        _ if talk.v6 => {
            event.manner.extensions = pick_extensions(inventor, talk.is_icmp() || has_ports(talk.protocol));
        }
        _ => event.manner.options = pick_options(inventor),
    }
}

fn pick_options(inventor: &mut Inventor<'_>) -> Vec<u8> {
    let options: [&[u8]; 13] = [
        &[1, 1, 1, 0],
        &[7, 7, 4, 0, 0, 0, 0, 0],
        &[68, 8, 5, 0, 0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[131, 7, 4, 198, 51, 100, 9, 0],
        &[137, 7, 4, 198, 51, 100, 9, 0],
        // source routes that have come to their end
        &[131, 7, 8, 198, 51, 100, 9, 0],
        &[137, 7, 8, 198, 51, 100, 9, 0],
        &[1, 131, 7, 8, 198, 51, 100, 9],
        &[158, 4, 1, 2],
        // lengths that lie
        &[158, 1, 0, 0],
        &[158, 40, 0, 0],
        &[134, 0, 0, 0],
    ];
    let mut options = inventor.chance.pick(&options).to_vec();
    if inventor.chance.percent(10) {
        options.resize(40, 1);
    }
    options
}

/// Options of so many bytes: one that nobody knows and that everybody skips. Linux drops long padding.
fn fill_options(bytes: usize) -> Vec<u8> {
    let mut rest = vec![(bytes / 8 - 1) as u8, 0x3e, (bytes - 4) as u8];
    rest.resize(bytes - 1, 0);
    rest
}

fn pick_extensions(inventor: &mut Inventor<'_>, has_header: bool) -> Vec<(u8, Vec<u8>)> {
    let chance = &mut inventor.chance;
    let options = || (DESTINATION_OPTIONS, fill_options(8));
    let atomic = || (FRAGMENT, vec![0, 0, 0, 1, 2, 3, 4]);
    let route = |kind: u8, left: u8| {
        let mut rest = vec![2, kind, left];
        rest.resize(23, 0);
        (ROUTING, rest)
    };
    match chance.below(14) {
        0 => vec![options()],
        1 => vec![(HOP_BY_HOP, fill_options(8))],
        2 => vec![(HOP_BY_HOP, fill_options(16)), (DESTINATION_OPTIONS, fill_options(24))],
        // hop-by-hop options where they may not be
        3 => vec![options(), (HOP_BY_HOP, fill_options(8))],
        4 => vec![route(0, 0)],
        5 => vec![route(0, 1)],
        6 => vec![route(2, 0)],
        7 => vec![route(2, 1)],
        8 => vec![atomic()],
        9 => vec![atomic(), options()],
        10 => vec![atomic(), atomic()],
        11 => std::iter::repeat_with(options).take(chance.pick(&[7, 8, 9, 12])).collect(),
        // an option that nobody knows, to be skipped or not
        12 => vec![(DESTINATION_OPTIONS, vec![0, chance.pick(&[0x3e, 0x7e, 0xbe]), 4, 0, 0, 0, 0])],
        // longer than the packet, whose header nobody finds
        13 if has_header => vec![(DESTINATION_OPTIONS, vec![200, 1, 4, 0, 0, 0, 0])],
        _ => vec![options(), options()],
    }
}

fn tell_a_lie(inventor: &mut Inventor<'_>, v6: bool, event: &mut Event) {
    let chance = &mut inventor.chance;
    event.manner.lie = Some(match chance.below(8) {
        0..3 => Lie::Length(chance.pick(&[-1, -4, -12, -30])),
        3 => Lie::Length(chance.pick(&[1, 8, 600])),
        4 | 5 if !v6 => Lie::HeaderWords(chance.pick(&[0, 4, 6, 15])),
        6 if !v6 => Lie::Checksum,
        _ => Lie::Version(chance.pick(&[0, 5, 7, 15])),
    });
}

fn change_shape(inventor: &mut Inventor<'_>, event: &mut Event) {
    let chance = &mut inventor.chance;
    match &mut event.what {
        What::Tcp(segment) => segment.words = Some(chance.pick(&[0, 4, 6, 8, 15])),
        What::Udp(data, length) => *length = Some(chance.pick(&[0, 7, 8, *data + 4, *data + 9, 2000])),
        What::Ping(_, code, _) => *code = chance.pick(&[1, 7]),
        What::Error(..) | What::Other(_) => {}
    }
}
