//! The kinds of alarms: one table, with all that holds for every alarm of a kind. A kind's number and
//! words are nowhere else. This file is vocabulary: policy and command line read it too, so it imports
//! no other part of the program.

use std::fmt;

use serde::{Serialize, Serializer};

use super::severity::Severity;
use super::technique::{
    BELOW_APPLICATIONS, DISCOVERY, DNS, EXPLOITATION, HIJACKING, IMPAIRED, IN_THE_MIDDLE, RESOLUTION,
    SERVER_COMPONENT, TOOL_TRANSFER, Technique,
};

/// What holds for every alarm of a kind.
struct Row {
    /// The word in policies, commands and events.
    name: &'static str,
    /// A sentence without a full stop, for titles and for rules of a SIEM.
    title: &'static str,
    /// What the server did, to follow its name. The placeholders are those of `describe.rs`. `None`: the
    /// reason of the drop says it.
    action: Option<&'static str>,
    /// Why it matters, without a full stop. `None`: the reason of the drop says it.
    why: Option<&'static str>,
    /// `None`: each drop has its own.
    severity: Option<Severity>,
    /// `None`: it depends on the port.
    technique: Option<Technique>,
    /// Number of the signature. Rules of a SIEM rely on it, so it is never given to another kind.
    signature_id: u32,
    /// A description of Suricata's `classification.config`, by which SIEMs group.
    category: &'static str,
    /// Why it may not lead to a quarantine. `None`: it may.
    quarantine_refusal: Option<&'static str>,
}

/// Makes the enum, the list and the table of one list of rows.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $row:expr,)*) => {
        /// What an alarm is taken for, the least telling first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        /// Every kind, the least telling first.
        pub const KINDS: &[Kind] = &[$(Kind::$kind),*];

        impl Kind {
            const fn row(self) -> &'static Row {
                match self {
                    $(Kind::$kind => {
                        const ROW: Row = $row;
                        &ROW
                    })*
                }
            }
        }
    };
}

kinds! {
    /// Segments in no flow. Idle connections end this way too.
    Stray: Row {
        name: "stray",
        title: "packets outside every flow",
        action: None,
        why: None,
        severity: Some(Severity::Low),
        technique: Some(BELOW_APPLICATIONS),
        signature_id: 9,
        category: "Misc activity",
        quarantine_refusal: Some("idle connections of healthy servers end this way"),
    },
    /// An answer in the name of a resolver that came by the wrong interface.
    ForgedAnswer: Row {
        name: "forged_answer",
        title: "an answer in the name of a resolver came by the wrong interface",
        action: Some("was impersonated: answers in its name{asked} came by {way}, which does not lead to it"),
        why: Some(
            "They opened nothing. Somebody outside forges the resolver's address, or its answers take another way \
             than the routing table says",
        ),
        severity: Some(Severity::Low),
        technique: Some(IN_THE_MIDDLE),
        signature_id: 12,
        category: "Misc activity",
        quarantine_refusal: Some("it is about a resolver, whose address anybody outside can forge"),
    },
    /// An answer that gives a name of the policy an address that no name may have.
    Rebinding: Row {
        name: "rebinding",
        title: "a name of the policy points to an address that no name may have",
        action: Some("points to {destinations}, which no name may have: {sources} answered so{asked}"),
        why: Some(
            "They opened nothing. Whoever owns the name, or the resolver, leads a server into your own networks",
        ),
        severity: Some(Severity::Low),
        technique: Some(RESOLUTION),
        signature_id: 13,
        category: "Misc activity",
        quarantine_refusal: Some("it is about a name, whose addresses its owner decides"),
    },
    /// Single attempts.
    Attempt: Row {
        name: "attempt",
        title: "a server tried something outside its roles",
        action: None,
        why: None,
        severity: None,
        technique: None,
        signature_id: 1,
        category: "Potentially Bad Traffic",
        quarantine_refusal: None,
    },
    /// An `out` need beyond its limit.
    Burst: Row {
        name: "burst",
        title: "a server opens more flows than its limit",
        action: Some("opened more {service} flows than its limit allows{to}"),
        why: Some("A server that suddenly opens far more flows than usual probably sends spam or a flood"),
        severity: Some(Severity::High),
        technique: Some(HIJACKING),
        signature_id: 8,
        category: "Attempted Denial of Service",
        quarantine_refusal: Some("anybody outside who makes a mail server bounce could cut that server off"),
    },
    /// Web, FTP, TFTP and the like from a server without such a need: a rootkit on its way.
    Fetch: Row {
        name: "fetch",
        title: "a server tries to download",
        action: Some("tried to download over {service}{from}"),
        why: Some("A server without a need to download is probably fetching an intruder's tools"),
        severity: Some(Severity::High),
        technique: Some(TOOL_TRANSFER),
        signature_id: 5,
        category: "A Network Trojan was detected",
        quarantine_refusal: None,
    },
    /// A question to a resolver for what the policy has no name for.
    Question: Row {
        name: "question",
        title: "a server asks a resolver for what no name of the policy is",
        action: Some("asked {destinations} for {question}, outside the names of the policy"),
        why: Some("Its role lets it ask for names of the policy alone, so something else asks, perhaps a tunnel"),
        severity: Some(Severity::Medium),
        technique: Some(DNS),
        signature_id: 11,
        category: "Potentially Bad Traffic",
        quarantine_refusal: None,
    },
    /// An address that is not the sender's.
    Spoof: Row {
        name: "spoof",
        title: "an address that is not the sender's",
        action: None,
        why: None,
        severity: None,
        technique: None,
        signature_id: 7,
        category: "Potentially Bad Traffic",
        quarantine_refusal: Some("an intruder who forges a server's address could cut that server off"),
    },
    /// One destination again and again: a reverse shell.
    Callback: Row {
        name: "callback",
        title: "a server contacts one destination again and again",
        action: Some("contacted {service}{contacted} again and again"),
        why: Some("A program that contacts one place again and again waits for orders: a reverse shell"),
        severity: Some(Severity::High),
        technique: None,
        signature_id: 4,
        category: "Malware Command and Control Activity Detected",
        quarantine_refusal: None,
    },
    /// Many ports.
    Scan: Row {
        name: "scan",
        title: "a server tries many ports",
        action: Some("tried {services} at {destinations}"),
        why: Some("A server that tries service after service looks for its next victim"),
        severity: Some(Severity::High),
        technique: Some(DISCOVERY),
        signature_id: 3,
        category: "Detection of a Network Scan",
        quarantine_refusal: None,
    },
    /// Something listens that no role has.
    Backdoor: Row {
        name: "backdoor",
        title: "a server answers on a port that no role has",
        action: Some("sent answers{to} from {service}, which none of its roles has"),
        why: Some("Something listens that no role has: a bind shell"),
        severity: Some(Severity::Critical),
        technique: Some(SERVER_COMPONENT),
        signature_id: 6,
        category: "A Network Trojan was detected",
        quarantine_refusal: None,
    },
    /// One port, many destinations: a worm.
    Spread: Row {
        name: "spread",
        title: "a server tries one port at many destinations",
        action: Some("tried {service} at one destination after another: {destinations}"),
        why: Some("One port at destination after destination is a worm that looks for its next host"),
        severity: Some(Severity::Critical),
        technique: Some(EXPLOITATION),
        signature_id: 2,
        category: "A Network Trojan was detected",
        quarantine_refusal: None,
    },
    /// What `doctor --watch` finds: a way around the gate, or something that weakens it.
    Doctor: Row {
        name: "doctor",
        title: "doctor has found something",
        action: None,
        why: None,
        severity: None,
        technique: Some(IMPAIRED),
        signature_id: 14,
        category: "Misc activity",
        quarantine_refusal: Some("it is about no server"),
    },
    /// A packet that must be dropped passes.
    Canary: Row {
        name: "canary",
        title: "a packet that must be dropped passes",
        action: None,
        why: None,
        severity: Some(Severity::Critical),
        technique: Some(IMPAIRED),
        signature_id: 15,
        category: "Misc Attack",
        quarantine_refusal: Some("it is about no server"),
    },
    /// The gate itself: detached, changed, or with another policy than it was given.
    Gate: Row {
        name: "gate",
        title: "the gate is not as it was left",
        action: None,
        why: None,
        severity: Some(Severity::Critical),
        technique: Some(IMPAIRED),
        signature_id: 10,
        category: "Misc Attack",
        quarantine_refusal: Some("it is about no server"),
    },
}

impl Kind {
    /// The word in policies, commands and events.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// A sentence without a full stop, for titles and for rules of a SIEM.
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// Number of its signature: rules of a SIEM rely on it.
    pub const fn signature_id(self) -> u32 {
        self.row().signature_id
    }

    /// A description of Suricata's `classification.config`, by which SIEMs group.
    pub const fn category(self) -> &'static str {
        self.row().category
    }

    /// Why it may not lead to a quarantine; `None` if it may.
    pub const fn quarantine_refusal(self) -> Option<&'static str> {
        self.row().quarantine_refusal
    }

    pub(super) const fn action(self) -> Option<&'static str> {
        self.row().action
    }

    pub(super) const fn why(self) -> Option<&'static str> {
        self.row().why
    }

    pub(super) const fn severity(self) -> Option<Severity> {
        self.row().severity
    }

    pub(super) const fn technique(self) -> Option<Technique> {
        self.row().technique
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_are_listed_once_each_and_in_order() {
        assert!(KINDS.is_sorted_by(|a, b| a < b));
        assert_eq!(KINDS.len(), Kind::Gate as usize + 1);
    }

    #[test]
    fn every_kind_has_a_name_a_title_and_a_signature_of_its_own() {
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        let titles: BTreeSet<&str> = KINDS.iter().map(|kind| kind.title()).collect();
        let ids: BTreeSet<u32> = KINDS.iter().map(|kind| kind.signature_id()).collect();
        assert_eq!([names.len(), titles.len(), ids.len()], [KINDS.len(); 3]);
        assert!(!ids.contains(&0), "0 is no signature");
    }

    #[test]
    fn no_kind_loses_the_number_that_rules_know_it_by() {
        let numbers: Vec<(u32, &str)> = KINDS.iter().map(|kind| (kind.signature_id(), kind.name())).collect();
        for known in [
            (1, "attempt"),
            (2, "spread"),
            (3, "scan"),
            (4, "callback"),
            (5, "fetch"),
            (6, "backdoor"),
            (7, "spoof"),
            (8, "burst"),
            (9, "stray"),
            (10, "gate"),
            (11, "question"),
            (12, "forged_answer"),
            (13, "rebinding"),
            (14, "doctor"),
            (15, "canary"),
        ] {
            assert!(numbers.contains(&known), "{known:?}");
        }
    }

    #[test]
    fn every_kind_stands_in_the_documentation() {
        let page = include_str!("../../docs/alarms.md");
        for kind in KINDS {
            assert!(page.contains(&format!("| `{kind}` |")), "docs/alarms.md has no line for `{kind}`");
        }
    }
}
