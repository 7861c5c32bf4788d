//! A test of the policy: packets that must pass, and packets that must not.

use std::fmt;

use ipnet::IpNet;

use super::Policy;
use super::location::Location;
use super::need::{Need, Peer};
use crate::abi::Reason;
use crate::net::{ICMP, ICMPV6};

/// One `[[tests]]`. Its `Display` is one line: equal tests print alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTest {
    /// Where it begins.
    pub place: Location,
    /// Servers and addresses that open; with `to`, the peers. Empty only with `to`: every peer.
    pub from: Vec<Peer>,
    /// Servers on which peers open. Empty: the test is about what `from` opens.
    pub to: Vec<Peer>,
    /// What must pass. `in` needs without peers if there is a `to`, otherwise `out` needs.
    pub accept: Vec<Need>,
    /// What must be dropped.
    pub deny: Vec<Need>,
    /// The reason for which `deny` must be dropped. `None`: any.
    pub reason: Option<Reason>,
    /// Nothing else than `accept` may be open.
    pub only: bool,
}

impl PolicyTest {
    /// The keys that a test may have in a file.
    pub const KEYS: &[&str] = &["from", "to", "accept", "deny", "reason", "only"];

    /// Whether it is about services, and not about what servers open.
    pub fn is_about_services(&self) -> bool {
        !self.to.is_empty()
    }

    /// Its needs: `accept`, then `deny`.
    pub fn needs(&self) -> impl Iterator<Item = &Need> {
        self.accept.iter().chain(&self.deny)
    }

    /// Whom it is about.
    pub fn subject(&self) -> String {
        let list = |peers: &[Peer]| peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match (self.from.as_slice(), self.to.as_slice()) {
            (from, []) => list(from),
            ([], to) => format!("every peer to {}", list(to)),
            (from, to) => format!("{} to {}", list(from), list(to)),
        }
    }
}

impl fmt::Display for PolicyTest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No `..`, so that a new key does not compile until it is printed.
        let Self { place: _, from: _, to: _, accept, deny, reason, only } = self;
        write!(out, "{}:", self.subject())?;
        let list =
            |needs: &[Need]| needs.iter().map(|need| format!("`{need}`")).collect::<Vec<_>>().join(", ");
        let mut parts = Vec::new();
        if !accept.is_empty() {
            parts.push(format!("accept {}", list(accept)));
        }
        if !deny.is_empty() {
            let reason = reason.map_or_else(String::new, |reason| format!(" as {reason}"));
            parts.push(format!("deny {}{reason}", list(deny)));
        }
        if *only {
            parts.push("nothing else".to_owned());
        }
        write!(out, " {}", if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") })
    }
}

impl Policy {
    /// The addresses and prefixes of one end of a test.
    pub fn resolve_peer(&self, peer: &Peer) -> Vec<IpNet> {
        match peer {
            Peer::Prefix(prefix) => vec![*prefix],
            Peer::Server(_, addresses) => addresses.to_vec(),
            Peer::Name(_) => Vec::new(),
            Peer::Set(name) => self.sets.get(name).into_iter().flat_map(|set| set.prefixes()).collect(),
        }
    }
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Both.
    pub const BOTH: Families = Families { v4: true, v6: true };

    /// Those that some prefixes have.
    pub fn of(prefixes: &[IpNet]) -> Families {
        let is_v4 = |prefix: &IpNet| matches!(prefix, IpNet::V4(_));
        Families { v4: prefixes.iter().any(is_v4), v6: !prefixes.iter().all(is_v4) }
    }

    /// Those that carry a protocol: each ICMP has its own.
    pub fn of_protocol(protocol: u8) -> Families {
        Families { v4: protocol != ICMPV6, v6: protocol != ICMP }
    }

    /// Those that both have.
    pub fn and(self, other: Families) -> Families {
        Families { v4: self.v4 && other.v4, v6: self.v6 && other.v6 }
    }

    /// Whether it is none.
    pub fn is_none(self) -> bool {
        !self.v4 && !self.v6
    }
}
