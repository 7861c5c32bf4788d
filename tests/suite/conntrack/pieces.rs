//! Datagrams in fragments: in order and not, whole and not, with overlaps, tiny ones, and forged ones.

use super::inventor::Inventor;
use super::story::{Event, PLAIN, Piece, What};

/// Sends a packet in pieces, and makes it larger for that.
pub fn cut_into_pieces(inventor: &mut Inventor<'_>, events: &mut Vec<Event>, at: usize) {
    if events[at].manner.piece.is_some() || !events[at].manner.options.is_empty() {
        return;
    }
    let chance = &mut inventor.chance;
    let datagram =
        1 + events.iter().filter_map(|event| Some(event.manner.piece?.datagram)).max().unwrap_or(0);
    let mut whole = events.remove(at);
    // conntrack has the manner of the first one, and the router looks at each
    whole.manner = PLAIN;
    let more = chance.pick(&[24, 60, 200, 700, 1300]);
    let total = match &mut whole.what {
        What::Tcp(segment) => {
            segment.data = segment.data.max(more);
            20 + usize::from(segment.data)
        }
        What::Udp(data, _) => {
            *data = (*data).max(more);
            8 + usize::from(*data)
        }
        What::Ping(_, _, data) => {
            *data = (*data).max(more);
            8 + usize::from(*data)
        }
        What::Other(data) => {
            *data = (*data).max(more);
            usize::from(*data)
        }
        What::Error(..) => {
            events.insert(at, whole);
            return;
        }
    };
    let mut pieces = cut(inventor, total, datagram);
    disturb(inventor, total, &mut pieces);
    let tail = events.split_off(at);
    events.extend(pieces.into_iter().map(|piece| {
        let mut event = whole.clone();
        event.manner.piece = Some(piece);
        event
    }));
    events.extend(tail);
}

/// As a sender would, in order.
fn cut(inventor: &mut Inventor<'_>, total: usize, datagram: usize) -> Vec<Piece> {
    let chance = &mut inventor.chance;
    let mut borders = vec![0];
    // a header in the first piece, or less of it
    let first = chance.pick(&[8, 16, 24, 24, 32, 32, 40, 48, 64]);
    let mut border = first;
    while border < total && borders.len() < 4 {
        borders.push(border);
        border += 8 * chance.within(1..12);
    }
    let ends: Vec<usize> = borders[1..].iter().copied().chain([total]).collect();
    let spans = borders.into_iter().zip(ends);
    spans
        .map(|(offset, end)| Piece {
            datagram,
            offset,
            bytes: end - offset,
            more: end < total,
            forged: false,
        })
        .collect()
}

fn disturb(inventor: &mut Inventor<'_>, total: usize, pieces: &mut Vec<Piece>) {
    let chance = &mut inventor.chance;
    let at = chance.below(pieces.len());
    match chance.below(20) {
        0..3 => pieces.reverse(),
        3 | 4 => {
            let other = chance.below(pieces.len());
            pieces.swap(at, other);
        }
        5 | 6 => drop(pieces.remove(at)),
        7 => {
            let again = pieces[at];
            pieces.push(again);
        }
        8..11 => {
            // overlaps the one before, as it should be or not
            let piece = &mut pieces[at];
            let by = chance.pick(&[8, 16, 24]).min(piece.offset);
            piece.offset -= by;
            piece.bytes += by;
            piece.forged = chance.percent(60);
        }
        11 => {
            // once more, with another content
            let again = Piece { forged: true, ..pieces[at] };
            let place = chance.below(pieces.len() + 1);
            pieces.insert(place, again);
        }
        12 => {
            // more bytes than fill eights, which receivers trim
            let piece = &mut pieces[at];
            if piece.more && piece.offset + piece.bytes + 5 < total {
                piece.bytes += 5;
            }
        }
        13 => pieces[at].more = !pieces[at].more,
        _ => {}
    }
}
