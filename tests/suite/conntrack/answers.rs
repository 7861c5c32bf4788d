//! What explains differences about segments and answers.

use super::case::{Case, are_valid_for_conntrack, opens, opens_for_all, request_of};
use super::story::{Side, Source, What};
use crate::support::frame::{ACK, FIN, RST, SYN};

impl Case<'_> {
    pub fn flags(&self) -> Option<u8> {
        match self.subject().what {
            What::Tcp(segment) => Some(segment.flags),
            _ => None,
        }
    }

    pub fn is_bare_syn(&self) -> bool {
        self.flags().is_some_and(|flags| flags & (SYN | ACK) == SYN)
    }

    pub fn is_syn_ack(&self) -> bool {
        self.event().from == Side::Server
            && self.flags().is_some_and(|flags| flags & (SYN | ACK | RST) == SYN | ACK)
    }

    /// The server has sent a bare SYN of its own.
    pub fn has_sent_syn(&self) -> bool {
        self.before().any(|(_, event)| {
            event.from == Side::Server
                && matches!(event.what, What::Tcp(segment) if segment.flags & (SYN | ACK) == SYN)
        })
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

    /// A server's packet from the port of a service that the peer may use, in a talk that the peer has
    /// opened, as the tracker sees it. No bare SYN.
    pub fn is_answer(&self) -> bool {
        self.event().from == Side::Server
            && self.is_own(self.event())
            && !self.is_bare_syn()
            && self.is_service()
            && self.before().any(|(_, event)| opens(event))
    }

    fn is_service(&self) -> bool {
        let port = match self.event().what {
            What::Ping(kind, ..) => u16::from(request_of(self.talk().v6, kind)),
            _ => self.server_port(),
        };
        self.server().serves(self.talk().protocol, port, self.peer().0)
    }

    /// In a flow that the peer has opened, and that conntrack has forgotten since: somebody has reset it before
    /// the server had answered.
    pub fn was_reset_early(&self) -> bool {
        let (mut answered, mut syn_ack, mut reset) = (false, false, false);
        // a reset that the router drops counts too
        for (_, event) in self.seen_before() {
            match event.what {
                _ if opens_for_all(event) => (answered, syn_ack, reset) = (false, false, false),
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
        for (_, event) in self.read_before() {
            match event.what {
                _ if opens_for_all(event) => answered = false,
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
        let acknowledged = self.before().filter_map(|(_, event)| match event.what {
            What::Tcp(segment) if event.from == Side::Peer && segment.flags & ACK != 0 => {
                Some(segment.acknowledgment)
            }
            _ => None,
        });
        reset.flags & RST != 0 && acknowledged.into_iter().any(|number| is_before(reset.sequence, number))
    }

    /// Whether some opening is one for everybody.
    pub fn was_opened_properly(&self) -> bool {
        self.read_before().any(|(_, event)| opens_for_all(event))
    }

    /// In a flow that had been closed when one of them sent a SYN, which came to nobody: conntrack saw that SYN
    /// before it was dropped, and has given up the old flow for it.
    pub fn is_after_lost_syn(&self, from: Side) -> bool {
        let (mut reset, mut finished) = (false, [false; 2]);
        for (at, event) in self.before() {
            let What::Tcp(segment) = event.what else {
                continue;
            };
            let lost = self.was_lost(at);
            let closed = reset || finished == [true; 2];
            if closed && lost && event.from == from && segment.flags & (SYN | ACK) == SYN {
                return true;
            }
            reset |= segment.flags & RST != 0;
            finished[usize::from(event.from == Side::Peer)] |= segment.flags & FIN != 0;
        }
        false
    }
}

/// The order of sequence numbers.
pub fn is_before(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}
