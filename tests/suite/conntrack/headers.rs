//! What explains differences about headers of IP and ICMP.

use super::case::{Case, has_lying_extension, opens, request_of};
use super::story::{Lie, Quote, Side, What};
use crate::support::frame::{FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6};

impl Case<'_> {
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
        let (request, code) = match (self.subject().what, self.quote()) {
            (What::Ping(kind, code, _), _) => (request_of(self.talk().v6, kind), code),
            (_, Some(quote)) if self.talk().is_icmp() => (quote.kind, 0),
            _ => return false,
        };
        let mut requests = self.read_before().filter(|(_, event)| opens(event));
        !requests.any(
            |(_, event)| matches!(event.what, What::Ping(kind, asked, _) if (kind, asked) == (request, code)),
        )
    }

    /// An error that quotes less than eight bytes of a payload.
    pub fn quotes_little(&self) -> bool {
        let cut = match self.event().manner.lie {
            Some(Lie::Length(by)) => isize::from(by),
            _ => 0,
        };
        self.quote().is_some_and(|quote| quote.bytes.checked_add_signed(cut).is_none_or(|bytes| bytes < 8))
    }

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
                && self.before().any(|(_, event)| opens(event))
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
