//! Which rules a campaign has reached: a rule that no frame meets is compared with nothing.

use std::collections::BTreeMap;

use portcullis::abi::Reason;

macro_rules! rules {
    ($($(#[$comment:meta])* $name:ident,)*) => {
        /// Rules that are no reason of their own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[$comment])* $name,)*
        }

        impl Rule {
            pub const ALL: &[Rule] = &[$(Rule::$name),*];
        }
    };
}

rules! {
    QuietEthertype,
    /// VRRP of a router passes, and what else it says is quiet.
    RouterAdvertisement,
    RouterRest,
    /// From a router's MAC and another address.
    RouterAnnouncement,
    VrrpOfServer,
    VrrpByNeed,
    LinkService,
    LinkServiceQuarantined,
    /// A frame of a server from a MAC other than its first.
    FurtherMac,
    AddressQuarantined,
    MacQuarantined,
    NobodysAddressQuarantined,
    /// From the MAC that the policy gives to a server in quarantine: under no server's address, or another's.
    NobodysAddressOfQuarantinedMac,
    BorrowedAddressQuarantined,
    /// An answer of a server in quarantine: in a flow or from a service, by ICMP, a reset, an error.
    QuarantinedAnswer,
    QuarantinedReply,
    QuarantinedReset,
    QuarantinedError,
    /// .. what IGMP reports.
    QuarantinedReport,
    /// The answer of a service in no flow.
    LateDatagram,
    LateIcmpReply,
    /// .. to a peer that asked an epoch before, that asked too long ago, or by a packet without ports.
    LateByOldMemory,
    Forgotten,
    LateByUnreadOpening,
    /// The memory of peers was full.
    Presumed,
    /// The memory has never heard of the peer, but its bits may be set by others; and were.
    MayBeChance,
    ByChance,
    /// A SYN+ACK to a peer whose opening could not be read.
    UnlistedByUnreadOpening,
    OwnConnectionRefused,
    /// A SYN+ACK after a SYN of the server's own: a need permits it, none does, or the server is in quarantine.
    CrossedSyn,
    CrossedSynDenied,
    CrossedSynQuarantined,
    /// INIT ACK or Response of what a peer opened, ABORT or Reset of nothing.
    UnlistedAssociation,
    ResetAssociation,
    /// An `out` need with a `sport`.
    SportNeed,
    SportOwnConnection,
    SportOtherDestination,
    SportFlowError,
    SportAnswer,
    /// Several limits hold, and the more generous one is used up.
    FurtherLimit,
    /// The peer is a server of the policy, by its name.
    PeerByName,
    /// A frame to a MAC of the policy, or to one heard on the link.
    ElsewhereByPolicy,
    ElsewhereByNeighbour,
    /// .. and what would be, if nothing were known of our own MACs, or if the MAC were not ours too.
    OwnMacsUnknown,
    OwnMacOfNeighbour,
    /// An opening that came in by the gate's own NIC.
    StrangerOfLink,
    ServerOfLink,
    /// A peer's opening that the filter would call broken, and one that no host takes.
    BrokenOpening,
    SynReset,
    UnreadOpening,
    Lease,
    /// Later fragments of a dropped first one, and too many of one that passed.
    LaterOfRefused,
    LaterTooMany,
    LaterOverHeaders,
    LaterUnderOtherPolicy,
    LaterAlone,
    /// DHCP: an answer to the whole link, a renewal where the server has leased, where everybody counts, and elsewhere.
    LeaseOfLink,
    Renewal,
    RenewalPresumed,
    RenewalElsewhere,
    /// An edit alone permits an opening, or an answer; one denies an answer.
    NeedByEdit,
    ReplyByEdit,
    DeniedReply,
    /// Names as destinations: a question that a need has; an answer by the wrong interface, and one that nobody asked
    /// for; an address that no name may have, and one that is granted; a stream whose borders are lost.
    QueryNoted,
    AnswerByWrongWay,
    AnswerToNobody,
    Rebinding,
    Granted,
    StreamLost,
    /// What opens by a grant, by one that all servers have, and what finds no token; a segment of such a connection,
    /// and an error about one of its packets.
    NameNeed,
    CommonGrant,
    NameLimit,
    NameConnection,
    NameFlowError,
    /// A datagram of a peer that has been granted.
    AnswerOfNamed,
    /// An answer that is expected while a router takes over.
    QuietTakeover,
    /// A question that a role with `dns = "named"` permits, and one that is refused quietly.
    QuestionNamed,
    QuestionQuiet,
}

/// How often each reason was given, and each rule met.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    reasons: BTreeMap<Reason, u64>,
    rules: BTreeMap<Rule, u64>,
}

impl Coverage {
    pub fn give(&mut self, reason: Reason) {
        *self.reasons.entry(reason).or_default() += 1;
    }

    pub fn meet(&mut self, rule: Rule) {
        *self.rules.entry(rule).or_default() += 1;
    }

    pub fn given(&self, reason: Reason) -> u64 {
        self.reasons.get(&reason).copied().unwrap_or(0)
    }

    pub fn met(&self, rule: Rule) -> u64 {
        self.rules.get(&rule).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Coverage) {
        for (reason, count) in &other.reasons {
            *self.reasons.entry(*reason).or_default() += count;
        }
        for (rule, count) in &other.rules {
            *self.rules.entry(*rule).or_default() += count;
        }
    }
}
