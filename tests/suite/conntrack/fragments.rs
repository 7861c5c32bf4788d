//! What explains differences about fragments.

use super::case::{Case, opens_for_all};
use super::reassembly::is_odd;
use super::story::{Piece, What};
use crate::support::frame::TCP;

impl Case<'_> {
    /// A later fragment whose first one has passed the gate, or a first one that may pass.
    pub fn follows_first(&self) -> bool {
        let mut earlier = self.kin().into_iter().filter(|(at, _)| *at < self.at);
        match self.event().manner.piece {
            Some(piece) if piece.offset > 0 => {
                earlier.any(|(at, other)| other.offset == 0 && self.has_passed_gate(at))
            }
            _ => self.is_answer() || self.is_needed(),
        }
    }

    /// A fragment that was sent before its first one.
    pub fn is_early_fragment(&self) -> bool {
        let Some(piece) = self.event().manner.piece else {
            return false;
        };
        // the gate does not care whether a datagram was whole in between
        let is_first = |other: &Piece| other.datagram == piece.datagram && other.offset == 0;
        let mut earlier = self.before().filter(|(at, _)| *at < self.at);
        let had_first = earlier.any(|(_, other)| other.manner.piece.as_ref().is_some_and(is_first));
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
        self.kin().iter().any(|(_, other)| other.offset == 0 && other.bytes < needed)
            || (piece.offset == 8 && self.talk().protocol == TCP)
    }

    /// A fragment whose bytes don't fill eights, or one that follows such a first one.
    pub fn is_odd_fragment(&self) -> bool {
        let after_odd = self.kin().iter().any(|(_, other)| other.offset == 0 && is_odd(other));
        after_odd || self.event().manner.piece.as_ref().is_some_and(is_odd)
    }

    /// A fragment of a datagram whose first one was sent before the flow was opened, and the last one after it.
    pub fn is_fragment_before_opening(&self) -> bool {
        let first = self.kin().into_iter().find(|(_, piece)| piece.offset == 0);
        first.is_some_and(|(first, _)| {
            self.read_before().any(|(at, event)| at > first && opens_for_all(event))
        })
    }
}
