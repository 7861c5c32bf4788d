//! What explains differences about fragments.

use super::case::Case;
use super::story::{Event, Piece, What};
use crate::support::frame::{FRAGMENT, TCP};

impl Case<'_> {
    /// The pieces of one datagram, as they were sent, among the first `end` packets.
    pub fn pieces(&self, event: &Event, end: usize) -> Vec<(&Event, Piece)> {
        let datagram = event.manner.piece.map(|piece| piece.datagram);
        let all = self.playing.story.events[..end].iter().filter(|other| other.talk == event.talk);
        all.filter_map(|other| Some((other, other.manner.piece?)))
            .filter(|(_, piece)| Some(piece.datagram) == datagram)
            .collect()
    }

    /// A fragment of a datagram that no receiver puts together: something lacks, or overlaps, or the first one
    /// is too short.
    pub fn is_ragged(&self) -> bool {
        let all = self.playing.story.events.len();
        self.is_ragged_by(self.event(), all)
    }

    /// The same, of those fragments that had been sent before this packet.
    pub fn is_ragged_before(&self, event: &Event) -> bool {
        self.is_ragged_by(event, self.judged_at())
    }

    fn is_ragged_by(&self, event: &Event, end: usize) -> bool {
        let Some(piece) = event.manner.piece else {
            return false;
        };
        if piece.offset == 0 && !piece.more {
            // no fragment at all
            return matches!(event.what, What::Udp(data, _) if piece.bytes != 8 + usize::from(data));
        }
        let pieces = self.pieces(event, end);
        let spoils = |event: &Event| {
            let manner = &event.manner;
            let timeout_s = if self.talk().v6 { 60 } else { 30 };
            manner.lie.is_some()
                || matches!(event.what, What::Udp(_, Some(_)))
                || manner.ttl == 1
                || event.after_s >= timeout_s
                || !self.is_own(event)
                || manner.extensions.iter().any(|(kind, _)| *kind == FRAGMENT)
        };
        if pieces.iter().any(|(event, _)| spoils(event)) {
            return true;
        }
        let mut pieces: Vec<Piece> = pieces.into_iter().map(|(_, piece)| piece).collect();
        pieces.sort_by_key(|piece| piece.offset);
        // RFC 8200, 4.5: the first one has all headers
        let headers = if matches!(event.what, What::Tcp(_)) { 20 } else { 8 };
        if self.talk().v6 && pieces.iter().any(|piece| piece.offset == 0 && piece.bytes < headers) {
            return true;
        }
        let mut end = 0;
        for piece in &pieces {
            let odd = piece.more && !piece.bytes.is_multiple_of(8);
            // with another header it is anything
            let unreadable = piece.forged && piece.offset < 24;
            if piece.offset != end || unreadable || (odd && self.talk().v6) {
                return true;
            }
            // receivers trim it
            end += if odd { piece.bytes & !7 } else { piece.bytes };
        }
        let cut = matches!(event.what, What::Udp(data, _) if end != 8 + usize::from(data));
        cut || pieces.iter().filter(|piece| !piece.more).count() != 1
            || pieces.last().is_some_and(|last| last.more)
    }

    /// A fragment that was sent before its first one.
    pub fn is_early_fragment(&self) -> bool {
        let Some(piece) = self.event().manner.piece else {
            return false;
        };
        let mut earlier = self.playing.story.events[..self.at].iter();
        let is_first = |other: &Piece| other.datagram == piece.datagram && other.offset == 0;
        let had_first = earlier.any(|other| {
            other.talk == self.event().talk && other.manner.piece.as_ref().is_some_and(is_first)
        });
        piece.offset > 0 && !had_first
    }

    /// A fragment of a datagram whose first one lacks headers, or one that reaches into the header of TCP.
    pub fn is_tiny_fragment(&self) -> bool {
        let needed = match self.subject().what {
            What::Tcp(segment) => 4 * usize::from(segment.words.unwrap_or(5)),
            _ => 8,
        };
        let Some(piece) = self.event().manner.piece else {
            return false;
        };
        let pieces = self.pieces(self.event(), self.playing.story.events.len());
        pieces.iter().any(|(_, other)| other.offset == 0 && other.bytes < needed)
            || (piece.offset == 8 && self.talk().protocol == TCP)
    }

    /// A fragment whose bytes don't fill eights, or one that follows such a first one.
    pub fn is_odd_fragment(&self) -> bool {
        let is_odd = |piece: &Piece| piece.more && !piece.bytes.is_multiple_of(8);
        let pieces = self.pieces(self.event(), self.playing.story.events.len());
        let after_odd = pieces.iter().any(|(_, other)| other.offset == 0 && is_odd(other));
        after_odd || self.event().manner.piece.as_ref().is_some_and(is_odd)
    }

    /// A fragment of a datagram whose first one was sent before the flow was opened, and the last one after it.
    pub fn is_fragment_before_opening(&self) -> bool {
        let mut since = self.before().skip_while(|event| !std::ptr::eq(*event, self.subject()));
        self.event().manner.piece.is_some() && since.any(|event| self.opens_properly(event))
    }

    /// A later fragment after the time for which the gate remembers a first one.
    pub fn is_late_fragment(&self) -> bool {
        self.event().after_s >= 30 && self.event().manner.piece.is_some_and(|piece| piece.offset > 0)
    }
}
