//! A packet about which both judges differ, with what was said before it.

use std::net::IpAddr;

use super::play::{Fate, Playing};
use super::policy::{Policy, Server};
use super::reassembly::{find_wholes, is_readable};
use super::story::{Event, Piece, Side, Source, Talk, URG, What};
use crate::support::frame::{ACK, FIN, FRAGMENT, RST, SYN};

/// Who lets a packet through, while the other one holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Gate,
    Conntrack,
}

/// A story that was played, and what became of each packet.
pub struct Record<'a> {
    policy: &'a Policy,
    playing: &'a Playing,
    fates: Vec<Fate>,
    /// For each packet the one with which conntrack has a whole: see [`find_wholes`].
    wholes: Vec<Option<usize>>,
}

impl<'a> Record<'a> {
    pub fn new(policy: &'a Policy, playing: &'a Playing) -> Record<'a> {
        Record { policy, playing, fates: playing.fates(), wholes: find_wholes(&playing.story) }
    }

    /// Each packet that was played.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        (0..self.fates.len()).map(|at| Case { record: self, at })
    }
}

/// One packet of it.
pub struct Case<'a> {
    record: &'a Record<'a>,
    pub at: usize,
}

/// A packet that was sent before, and its place in the story.
pub type Said<'a> = (usize, &'a Event);

impl Case<'_> {
    pub fn fate(&self) -> Fate {
        self.record.fates[self.at]
    }

    /// `None`: both agree.
    pub fn who_passes(&self) -> Option<Who> {
        match self.fate() {
            Fate { gate: true, conntrack: false } => Some(Who::Gate),
            Fate { gate: false, conntrack: true } => Some(Who::Conntrack),
            _ => None,
        }
    }

    pub fn event(&self) -> &Event {
        &self.all()[self.at]
    }

    fn all(&self) -> &[Event] {
        &self.record.playing.story.events
    }

    pub fn talk(&self) -> &Talk {
        &self.record.playing.story.talks[self.event().talk]
    }

    /// The one whose address the packet has, if it is a server's.
    pub fn server(&self) -> &Server {
        let number = match self.event().manner.source {
            Source::Server(number) => number,
            Source::Own | Source::Unknown => self.talk().server,
        };
        &self.record.policy.servers[number]
    }

    /// Whether a packet has its sender's address.
    pub fn is_own(&self, event: &Event) -> bool {
        match event.manner.source {
            Source::Own => true,
            Source::Server(number) => number == self.talk().server,
            Source::Unknown => false,
        }
    }

    pub fn peer(&self) -> (IpAddr, u16) {
        self.record.playing.ends_of(self.event().talk).peer
    }

    pub fn server_port(&self) -> u16 {
        self.record.playing.ends_of(self.event().talk).server.1
    }

    // ---- fragments ---------------------------------------------------------

    /// The fragments with the packet's id. None if it is no fragment.
    pub fn kin(&self) -> Vec<(usize, Piece)> {
        let Some(own) = self.event().manner.piece else {
            return Vec::new();
        };
        let all = self.all().iter().enumerate().filter(|(_, event)| event.talk == self.event().talk);
        all.filter_map(|(at, event)| Some((at, event.manner.piece?)))
            .filter(|(_, piece)| piece.datagram == own.datagram)
            .collect()
    }

    /// Those of them that conntrack puts together with it, or does not either.
    pub fn pieces(&self) -> Vec<(usize, Piece)> {
        let wholes = &self.record.wholes;
        self.kin().into_iter().filter(|(at, _)| wholes[*at] == wholes[self.at]).collect()
    }

    /// What the packet is judged by: of a fragment the first one of its datagram.
    pub fn subject(&self) -> &Event {
        let first = self.pieces().into_iter().find(|(_, piece)| piece.offset == 0);
        first.map_or(self.event(), |(at, _)| &self.all()[at])
    }

    /// Whether no receiver puts it together, or none makes sense of the whole.
    pub fn is_ragged(&self) -> bool {
        let pieces: Vec<Piece> = self.pieces().into_iter().map(|(_, piece)| piece).collect();
        !pieces.is_empty() && (self.record.wholes[self.at].is_none() || !is_readable(self.subject(), &pieces))
    }

    // ---- what was said before ----------------------------------------------

    /// When conntrack judges the packet: of a fragment when its datagram is whole.
    pub fn judged_at(&self) -> usize {
        self.record.wholes[self.at].unwrap_or(self.at)
    }

    /// The pauses until then.
    pub fn pauses_s(&self) -> impl Iterator<Item = u64> {
        let events = self.all()[..=self.judged_at()].iter();
        events.filter(|event| event.talk == self.event().talk).map(|event| event.after_s)
    }

    /// What had been said in the same talk by then.
    pub fn before(&self) -> impl Iterator<Item = Said<'_>> {
        let events = self.all()[..self.judged_at()].iter().enumerate();
        events.filter(|(_, event)| event.talk == self.event().talk)
    }

    /// The same, of what conntrack reads, in the order in which it does: whole, from its own sender, without
    /// any lie.
    pub fn seen_before(&self) -> Vec<Said<'_>> {
        let mut seen: Vec<Said<'_>> = self.before().filter(|(at, _)| self.is_seen(*at)).collect();
        seen.sort_by_key(|(at, _)| self.record.wholes[*at]);
        seen
    }

    /// And taken by the router.
    pub fn read_before(&self) -> impl Iterator<Item = Said<'_>> {
        let taken = |(at, event): &Said<'_>| event.from == Side::Server || self.record.fates[*at].conntrack;
        self.seen_before().into_iter().filter(taken)
    }

    fn is_seen(&self, at: usize) -> bool {
        let case = Case { record: self.record, at };
        let event = case.event();
        let honest = match event.what {
            What::Tcp(segment) => segment.words.is_none() && are_valid_for_conntrack(segment.flags),
            What::Udp(_, length) => length.is_none(),
            _ => true,
        };
        let first = event.manner.piece.is_none_or(|piece| piece.offset == 0);
        let whole = self.record.wholes[at].is_some_and(|whole| whole < self.judged_at()) && !case.is_ragged();
        honest
            && first
            && whole
            && self.is_own(event)
            && event.manner.lie.is_none()
            && !has_lying_extension(event)
    }

    /// Whether the gate let a packet pass.
    pub fn has_passed_gate(&self, at: usize) -> bool {
        self.record.fates[at].gate
    }

    /// Whether a packet came to nobody.
    pub fn was_lost(&self, at: usize) -> bool {
        self.record.fates[at] == Fate { gate: false, conntrack: false }
    }
}

/// Whether the tracker takes a peer's packet for an opening.
pub fn opens(event: &Event) -> bool {
    if event.from != Side::Peer || event.manner.piece.is_some_and(|piece| piece.offset > 0) {
        return false;
    }
    match event.what {
        What::Tcp(segment) => {
            segment.flags & (SYN | ACK) == SYN || event.manner.piece.is_some_and(|piece| piece.more)
        }
        What::Udp(..) | What::Other(_) => true,
        What::Ping(kind, ..) => [8, 13, 15, 17, 128].contains(&kind),
        What::Error(..) => false,
    }
}

/// Whether everybody does, who reads it.
pub fn opens_for_all(event: &Event) -> bool {
    let other_segment = matches!(event.what, What::Tcp(segment) if segment.flags & (SYN | ACK) != SYN);
    opens(event) && !other_segment
}

/// The ICMP type of the request that one of this type answers.
pub fn request_of(v6: bool, kind: u8) -> u8 {
    match (v6, kind) {
        (true, _) => 128,
        (false, 14) => 13,
        (false, 16) => 15,
        (false, 18) => 17,
        (false, _) => 8,
    }
}

/// An extension header that says it is longer than it is.
pub fn has_lying_extension(event: &Event) -> bool {
    event
        .manner
        .extensions
        .iter()
        .any(|(kind, rest)| *kind != FRAGMENT && (usize::from(rest[0]) + 1) * 8 != rest.len() + 1)
}

/// As nf_conntrack_proto_tcp.c lists them (Linux 6.1).
pub fn are_valid_for_conntrack(flags: u8) -> bool {
    let flags = flags & (SYN | ACK | FIN | RST | URG);
    [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG].contains(&flags)
}
