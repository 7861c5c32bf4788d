//! What conntrack puts together from fragments, as net/ipv4/ip_fragment.c, net/ipv6/netfilter/nf_conntrack_reasm.c
//! and net/ipv4/inet_fragment.c (Linux 6.1) do.

use super::story::{Event, Piece, Story, What};

/// Datagrams that are being put together.
struct Queue {
    datagram: (usize, usize),
    /// Places of the fragments in the story, with their beginnings and ends.
    pieces: Vec<(usize, usize, usize)>,
    length: usize,
    has_last: bool,
}

/// For each packet of a story the packet with which its datagram was whole. `None`: it never was. A packet that is
/// no fragment is whole by itself.
pub fn find_wholes(story: &Story) -> Vec<Option<usize>> {
    let mut whole: Vec<Option<usize>> = vec![None; story.events.len()];
    let mut queues: Vec<Queue> = Vec::new();
    for (at, event) in story.events.iter().enumerate() {
        let v6 = story.talks[event.talk].v6;
        let timeout_s = if v6 { 60 } else { 30 };
        if event.after_s >= timeout_s {
            queues.retain(|queue| queue.datagram.0 != event.talk);
        }
        let Some(piece) = event.manner.piece else {
            whole[at] = Some(at);
            continue;
        };
        if !v6 && piece.offset == 0 && !piece.more {
            whole[at] = Some(at);
            continue;
        }
        // RFC 8200, 4.5: the first one has all headers, or goes on alone
        let headers = if matches!(event.what, What::Tcp(_)) { 20 } else { 8 };
        if v6 && piece.offset == 0 && piece.bytes < headers {
            continue;
        }
        let datagram = (event.talk, piece.datagram);
        let mut queue = match queues.iter().position(|queue| queue.datagram == datagram) {
            Some(found) => queues.swap_remove(found),
            None => Queue { datagram, pieces: Vec::new(), length: 0, has_last: false },
        };
        match queue.add(at, piece, v6) {
            Added::Kept if queue.is_whole() => {
                queue.pieces.iter().for_each(|(place, ..)| whole[*place] = Some(at));
            }
            Added::Kept | Added::Refused => queues.push(queue),
            // IPv6 lets a first one of odd length go on alone
            Added::Spoilt if v6 && piece.offset == 0 && is_odd(&piece) => whole[at] = Some(at),
            Added::Spoilt => {}
        }
    }
    whole
}

enum Added {
    Kept,
    /// It alone is dropped.
    Refused,
    /// All of the datagram is.
    Spoilt,
}

impl Queue {
    fn add(&mut self, at: usize, piece: Piece, v6: bool) -> Added {
        let odd = is_odd(&piece);
        if odd && v6 {
            return Added::Spoilt;
        }
        // what does not fill eights is trimmed
        let end = piece.offset + if odd { piece.bytes & !7 } else { piece.bytes };
        let wrong = if piece.more {
            end > self.length && self.has_last
        } else {
            end < self.length || (self.has_last && end != self.length)
        };
        if wrong || end == piece.offset {
            return if v6 { Added::Refused } else { Added::Spoilt };
        }
        // IPv6 has noted the end by now, whatever comes
        self.has_last |= !piece.more;
        self.length = self.length.max(end);
        let runs = self.find_runs();
        if runs.iter().any(|(from, to)| *from <= piece.offset && end <= *to) {
            return Added::Refused;
        }
        if runs.iter().any(|(from, to)| piece.offset < *to && end > *from) {
            return Added::Spoilt;
        }
        self.pieces.push((at, piece.offset, end));
        Added::Kept
    }

    /// Stretches without a gap.
    fn find_runs(&self) -> Vec<(usize, usize)> {
        let mut spans: Vec<(usize, usize)> = self.pieces.iter().map(|(_, from, to)| (*from, *to)).collect();
        spans.sort_unstable();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (from, to) in spans {
            match runs.last_mut() {
                Some(run) if run.1 == from => run.1 = to,
                _ => runs.push((from, to)),
            }
        }
        runs
    }

    fn is_whole(&self) -> bool {
        self.has_last && self.find_runs() == [(0, self.length)]
    }
}

/// Whether its bytes don't fill eights, as those of all but the last fragment do.
pub fn is_odd(piece: &Piece) -> bool {
    piece.more && !piece.bytes.is_multiple_of(8)
}

/// Whether a whole datagram is what its sender had in mind, so that a reader finds its header and its length right.
pub fn is_readable(event: &Event, pieces: &[Piece]) -> bool {
    // with another header it is anything
    let header = pieces.iter().any(|piece| piece.forged && piece.offset < 24);
    let total = pieces.iter().map(|piece| piece.offset + piece.bytes).max().unwrap_or(0);
    let lies = match event.what {
        What::Udp(_, Some(length)) => length < 8 || usize::from(length) > total,
        What::Udp(data, None) => total != 8 + usize::from(data),
        What::Tcp(segment) => total < 4 * usize::from(segment.words.unwrap_or(5)),
        _ => total < 8,
    };
    !header && !lies
}
