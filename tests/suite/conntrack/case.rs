//! A packet about which both judges differ, with all that explains it.

use std::net::IpAddr;

use super::play::{Fate, Playing};
use super::policy::{Policy, Server};
use super::story::{Event, Quote, Side, Source, Talk, URG, What};
use crate::support::frame::{ACK, FIN, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, RST, SYN};

/// Who lets a packet through, while the other one holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Gate,
    Conntrack,
}

/// One packet of a story that was played.
pub struct Case<'a> {
    policy: &'a Policy,
    pub playing: &'a Playing,
    fates: &'a [Fate],
    pub at: usize,
}

impl<'a> Case<'a> {
    pub fn new(policy: &'a Policy, playing: &'a Playing, fates: &'a [Fate], at: usize) -> Case<'a> {
        Case { policy, playing, fates, at }
    }

    /// `None`: both agree.
    pub fn who_passes(&self) -> Option<Who> {
        match self.fates[self.at] {
            Fate { gate: true, conntrack: false } => Some(Who::Gate),
            Fate { gate: false, conntrack: true } => Some(Who::Conntrack),
            _ => None,
        }
    }

    pub fn event(&self) -> &Event {
        &self.playing.story.events[self.at]
    }

    /// What the packet is judged by: of a fragment the first one of its datagram.
    pub fn subject(&self) -> &Event {
        let pieces = self.pieces(self.event(), self.playing.story.events.len());
        let first = pieces.into_iter().find(|(_, piece)| piece.offset == 0);
        first.map_or(self.event(), |(event, _)| event)
    }

    pub fn talk(&self) -> &Talk {
        &self.playing.story.talks[self.event().talk]
    }

    /// The one whose address the packet has, if it is a server's.
    fn server(&self) -> &Server {
        let number = match self.event().manner.source {
            Source::Server(number) => number,
            Source::Own | Source::Unknown => self.talk().server,
        };
        &self.policy.servers[number]
    }

    /// Whether a packet has its sender's address.
    pub fn is_own(&self, event: &Event) -> bool {
        match event.manner.source {
            Source::Own => true,
            Source::Server(number) => number == self.talk().server,
            Source::Unknown => false,
        }
    }

    fn peer(&self) -> (IpAddr, u16) {
        self.playing.ends_of(self.event().talk).peer
    }

    fn server_port(&self) -> u16 {
        self.playing.ends_of(self.event().talk).server.1
    }

    /// When conntrack judges the packet: of a fragment when the last one of its datagram has come.
    pub fn judged_at(&self) -> usize {
        self.find_last(self.event()).unwrap_or(self.at)
    }

    /// The place of the last fragment of a datagram, or of a packet that is none.
    fn find_last(&self, event: &Event) -> Option<usize> {
        let datagram = |event: &Event| Some((event.talk, event.manner.piece?.datagram));
        let own = datagram(event);
        let mut events = self.playing.story.events.iter();
        events.rposition(
            |other| if own.is_some() { datagram(other) == own } else { std::ptr::eq(other, event) },
        )
    }

    /// The packet with which conntrack judges it.
    pub fn judged_with(&self) -> &Event {
        &self.playing.story.events[self.judged_at()]
    }

    /// What had been said in the same talk by then.
    pub fn before(&self) -> impl DoubleEndedIterator<Item = &Event> {
        let talk = self.event().talk;
        self.playing.story.events[..self.judged_at()].iter().filter(move |event| event.talk == talk)
    }

    /// The same, of what conntrack reads, in the order in which it does: whole, from its own sender, without
    /// any lie.
    fn seen_before(&self) -> Vec<&Event> {
        let mut seen: Vec<&Event> = self.before().filter(|event| self.is_seen_by_conntrack(event)).collect();
        seen.sort_by_key(|event| self.find_last(event));
        seen
    }

    /// And taken by the router.
    pub fn read_before(&self) -> impl Iterator<Item = &Event> {
        self.seen_before().into_iter().filter(|event| self.is_read_by_conntrack(event))
    }

    // ---- headers -----------------------------------------------------------

    /// An IPv4 source route whose pointer is behind its last address.
    pub fn has_finished_source_route(&self) -> bool {
        let options = &self.event().manner.options;
        self.event().from == Side::Server
            && options.windows(3).any(|option| matches!(option, [131 | 137, 7, 8]))
    }

    /// A chain of extension headers that row 2 refuses.
    pub fn has_bad_chain(&self) -> bool {
        let extensions = &self.event().manner.extensions;
        let kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).collect();
        let fragments = kinds.iter().filter(|kind| **kind == FRAGMENT).count()
            + usize::from(self.event().manner.piece.is_some());
        self.event().from == Side::Server
            && (has_lying_extension(self.event())
                || kinds.len() > 8
                || fragments > 1
                || kinds.iter().skip(1).any(|kind| *kind == HOP_BY_HOP))
    }

    /// An ICMP answer whose code no request had, or an error that quotes another code.
    pub fn has_new_code(&self) -> bool {
        let code = match self.subject().what {
            What::Ping(_, code, _) => code,
            What::Error(..) if self.talk().is_icmp() => 0,
            _ => return false,
        };
        let requests = self.read_before().filter(|event| self.opens(event));
        !requests.into_iter().any(|event| matches!(event.what, What::Ping(_, asked, _) if asked == code))
    }

    // ---- TCP ---------------------------------------------------------------

    pub fn flags(&self) -> Option<u8> {
        match self.subject().what {
            What::Tcp(segment) => Some(segment.flags),
            _ => None,
        }
    }

    pub fn is_segment(&self) -> bool {
        self.event().from == Side::Server && self.flags().is_some()
    }

    pub fn is_bare_syn(&self) -> bool {
        self.flags().is_some_and(|flags| flags & (SYN | ACK) == SYN)
    }

    pub fn is_syn_ack(&self) -> bool {
        self.is_segment() && self.flags().is_some_and(|flags| flags & (SYN | ACK) == SYN | ACK)
    }

    /// An `out` need permits the server to open the talk.
    pub fn is_needed(&self) -> bool {
        let (peer, port) = self.peer();
        let port = match self.event().what {
            What::Ping(kind, ..) => u16::from(kind),
            _ => port,
        };
        self.event().manner.source != Source::Unknown
            && self.server().may_open(self.talk().protocol, port, peer)
    }

    pub fn has_flags_that_conntrack_refuses(&self) -> bool {
        self.flags().is_some_and(|flags| !are_valid_for_conntrack(flags))
    }

    // ---- answers -----------------------------------------------------------

    /// A server's packet from the port of a service that the peer may use, in a talk that the peer has
    /// opened, as the tracker sees it. No bare SYN.
    pub fn is_answer(&self) -> bool {
        self.event().from == Side::Server
            && self.is_own(self.event())
            && !self.is_bare_syn()
            && self.is_service()
            && self.before().any(|event| self.opens(event))
    }

    fn is_service(&self) -> bool {
        let port = match self.event().what {
            What::Ping(kind, ..) => match (self.talk().v6, kind) {
                (true, _) => 128,
                (false, 14) => 13,
                (false, 18) => 17,
                (false, _) => 8,
            },
            _ => self.server_port(),
        };
        self.server().serves(self.talk().protocol, port, self.peer().0)
    }

    /// In a flow that the peer has opened, and that conntrack has forgotten since: somebody has reset it before
    /// the server had answered.
    pub fn was_reset_early(&self) -> bool {
        let (mut answered, mut syn_ack, mut reset) = (false, false, false);
        // a reset that the router drops counts too
        for event in self.seen_before() {
            match event.what {
                _ if self.opens_properly(event) => (answered, syn_ack, reset) = (false, false, false),
                What::Tcp(segment) if segment.flags & RST != 0 => reset |= !answered,
                What::Tcp(segment) if event.from == Side::Server => {
                    syn_ack |= segment.flags & (SYN | ACK) == SYN | ACK;
                    answered |= syn_ack || segment.flags & FIN == 0;
                }
                _ => {}
            }
        }
        reset
    }

    /// A FIN in a flow in which the server has not sent a SYN+ACK yet.
    pub fn is_early_fin(&self) -> bool {
        let mut answered = false;
        for event in self.read_before() {
            match event.what {
                _ if self.opens_properly(event) => answered = false,
                What::Tcp(segment) if event.from == Side::Server => {
                    answered |= segment.flags & (SYN | ACK) == SYN | ACK;
                }
                _ => {}
            }
        }
        !answered && self.flags().is_some_and(|flags| flags & FIN != 0)
    }

    /// A reset before what the peer has acknowledged: its receiver drops it.
    pub fn is_old_reset(&self) -> bool {
        let What::Tcp(reset) = self.subject().what else {
            return false;
        };
        let acknowledged = self.before().filter_map(|event| match event.what {
            What::Tcp(segment) if event.from == Side::Peer && segment.flags & ACK != 0 => {
                Some(segment.acknowledgment)
            }
            _ => None,
        });
        reset.flags & RST != 0 && acknowledged.into_iter().any(|number| is_before(reset.sequence, number))
    }

    pub fn is_read_by_conntrack(&self, event: &Event) -> bool {
        let taken = event.from == Side::Server || self.fate_of(event).conntrack;
        taken && self.is_seen_by_conntrack(event)
    }

    /// The same, whether the router then takes it or not.
    fn is_seen_by_conntrack(&self, event: &Event) -> bool {
        let honest = match event.what {
            What::Tcp(segment) => segment.words.is_none() && are_valid_for_conntrack(segment.flags),
            What::Udp(_, length) => length.is_none(),
            _ => true,
        };
        let whole = event.manner.piece.is_none_or(|piece| piece.offset == 0 && !self.is_ragged_before(event));
        let whole = whole && !has_lying_extension(event);
        honest && whole && self.is_own(event) && event.manner.lie.is_none()
    }

    fn fate_of(&self, event: &Event) -> Fate {
        let at = self.playing.story.events.iter().position(|other| std::ptr::eq(other, event));
        self.fates[at.expect("an event of the story")]
    }

    /// Whether the peer has opened the flow, listed or not.
    pub fn was_used_by_peer(&self) -> bool {
        self.before().any(|event| self.opens(event))
    }

    /// Whether the tracker takes a peer's packet for an opening.
    fn opens(&self, event: &Event) -> bool {
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

    /// Whether some opening is one for everybody.
    pub fn was_opened_properly(&self) -> bool {
        self.read_before().any(|event| self.opens_properly(event))
    }

    pub fn opens_properly(&self, event: &Event) -> bool {
        let syn = !matches!(event.what, What::Tcp(segment) if segment.flags & SYN == 0);
        syn && self.opens(event) && self.is_read_by_conntrack(event)
    }

    /// In a flow that had been closed when one of them sent a SYN, which came to nobody: conntrack saw that SYN
    /// before it was dropped, and has given up the old flow for it.
    pub fn is_after_lost_syn(&self, from: Side) -> bool {
        let (mut reset, mut finished) = (false, [false; 2]);
        for event in self.before() {
            let What::Tcp(segment) = event.what else {
                continue;
            };
            let lost = self.fate_of(event) == Fate { gate: false, conntrack: false };
            let closed = reset || finished == [true; 2];
            if closed && lost && event.from == from && segment.flags & (SYN | ACK) == SYN {
                return true;
            }
            reset |= segment.flags & RST != 0;
            finished[usize::from(event.from == Side::Peer)] |= segment.flags & FIN != 0;
        }
        false
    }

    // ---- ICMP errors -------------------------------------------------------

    pub fn quote(&self) -> Option<Quote> {
        match self.event().what {
            What::Error(_, _, quote) if self.event().from == Side::Server => Some(quote),
            _ => None,
        }
    }

    /// About a peer's packet to a service that it may use, in a talk that it has opened.
    pub fn is_error_about_answer(&self) -> bool {
        self.quote().is_some_and(|quote| {
            let asked = match self.talk().protocol {
                ICMP | ICMPV6 => u16::from(quote.kind),
                _ => quote.port.unwrap_or(self.server_port()),
            };
            quote.theirs
                && quote.bytes >= 8
                && self.server().serves(self.talk().protocol, asked, self.peer().0)
                && self.before().any(|event| self.opens(event))
        })
    }

    /// About a packet of a peer that answers what a need permits.
    pub fn is_error_about_need(&self) -> bool {
        let (peer, port) = self.peer();
        let protocol = self.talk().protocol;
        self.quote().is_some_and(|quote| {
            let asked = match (protocol, quote.kind) {
                (ICMP, 0) => 8,
                (ICMP, 14) => 13,
                (ICMPV6, 129) => 128,
                (ICMP | ICMPV6, _) => return false,
                _ => port,
            };
            quote.theirs && quote.bytes >= 8 && self.server().may_open(protocol, asked, peer)
        })
    }
}

/// The order of sequence numbers.
pub fn is_before(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}

/// An extension header that says it is longer than it is.
fn has_lying_extension(event: &Event) -> bool {
    event
        .manner
        .extensions
        .iter()
        .any(|(kind, rest)| *kind != FRAGMENT && (usize::from(rest[0]) + 1) * 8 != rest.len() + 1)
}

/// As nf_conntrack_proto_tcp.c lists them (Linux 6.1).
fn are_valid_for_conntrack(flags: u8) -> bool {
    let flags = flags & (SYN | ACK | FIN | RST | URG);
    [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG].contains(&flags)
}
