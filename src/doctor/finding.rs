//! The findings: one table with the id, severity and meaning of each. Monitoring relies on the ids, so none is ever
//! given another meaning.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::alarm::Severity;

/// What holds for every finding of an id.
struct Row {
    id: &'static str,
    part: &'static str,
    severity: Severity,
    why: &'static str,
}

/// Makes the enum, the list and the table of one list of rows.
macro_rules! findings {
    ($($(#[$doc:meta])* $finding:ident: $id:literal, $part:literal, $severity:ident, $why:literal;)*) => {
        /// What may be found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingId {
            $($(#[$doc])* $finding,)*
        }

        /// Everything that may be found.
        pub const FINDINGS: &[FindingId] = &[$(FindingId::$finding),*];

        impl FindingId {
            const fn row(self) -> &'static Row {
                match self {
                    $(FindingId::$finding => {
                        const ROW: Row =
                            Row { id: $id, part: $part, severity: Severity::$severity, why: $why };
                        &ROW
                    })*
                }
            }
        }
    };
}

findings! {
    /// The filter is not on the NIC.
    Detached: "detached", "attachment", Critical, "Without the gate every server reaches everything";
    /// Strict tracking lacks its program.
    TrackerMissing: "tracker_missing", "attachment", High,
        "Strict tracking does not see what peers open, so it drops the servers' answers";
    /// The driver has no XDP of its own.
    GenericMode: "generic_mode", "attachment", Low, "The gate is slower, and sees a packet after the kernel has copied it";
    /// Every server is in observe.
    Observing: "observing", "attachment", Medium, "Nothing is dropped: each server reaches everything";
    /// A packet passes that must be dropped.
    MustDropPasses: "must_drop_passes", "packets", Critical,
        "The programs do not do what the policy says, so what a server sends gets out";
    /// A packet is dropped that must pass.
    MustPassDrops: "must_pass_drops", "packets", High, "The programs drop what the policy permits, so a service is cut off";
    /// The NIC is a member of a bond.
    BondMember: "bond_member", "bypass", High, "Packets that come by the other members pass no gate";
    /// The NIC is one of several ports of a bridge.
    BridgePort: "bridge_port", "bypass", High, "Packets that come by the other ports pass no gate";
    /// The NIC shares another one.
    SharedNic: "macvlan", "bypass", High, "Packets to another MAC of the NIC below pass no gate";
    /// Another VLAN of the same NIC leads to this machine.
    VlanSibling: "vlan_sibling", "bypass", Medium,
        "A server that can send with another tag, or with none, reaches this machine past the gate";
    /// Another NIC is in the DMZ's subnet.
    SecondNic: "second_nic", "subnet", High, "Packets of servers may come by the other NIC, where there is no gate";
    /// Some servers are behind another NIC.
    ServersElsewhere: "servers_elsewhere", "subnet", High, "Their packets do not pass this gate";
    /// All servers are elsewhere.
    WrongNic: "wrong_nic", "subnet", High, "The gate watches a link that has none of the policy's servers";
    /// VLAN tags are gone before the gate sees them.
    TagsStripped: "tags_stripped", "tags", High,
        "No server's VLAN can be verified, so packets of servers with a `vlan` are dropped as spoofed";
    /// Answers of a resolver come as the internet does.
    ForgeableResolver: "forgeable_resolver", "resolvers", Medium,
        "An accomplice outside who knows a question can answer it, and so open any address to a server";
    /// An interface towards outside takes any source address.
    RpFilter: "rp_filter", "resolvers", Medium,
        "A packet from outside may have a resolver's address as its source, and deceive a server";
    /// An XDP program of somebody else.
    OtherXdp: "other_xdp", "programs", Medium, "It has each packet before the gate, and can send it on past the gate";
    /// A TC program or filter of somebody else.
    OtherTc: "other_tc", "programs", Low, "It can redirect packets that the tracker has to see";
    /// The ledger, or a quota of it, was full.
    LedgerFull: "ledger_full", "tables", Low, "Alarms do not know the ports of such drops";
    /// A table that peers fill.
    FlowsFull: "flows_full", "tables", Low, "The longest idle flows make room for new ones, and their answers are dropped";
    /// The clock is behind what was already.
    ClockBehind: "clock_behind", "clock", Medium, "Times in alarms, in the history and of certificates are wrong";
    /// No source of time.
    ClockFree: "clock_unsynchronised", "clock", Low, "Times in alarms drift apart from those of other machines";
    /// Nobody reads the drops.
    NoDaemon: "no_daemon", "sinks", Medium, "The gate drops, but nobody hears of it";
    /// A sink that fails.
    SinkFailing: "sink_failing", "sinks", Medium, "Alarms do not get there";
    /// No unit attaches the gate.
    NotAtBoot: "not_at_boot", "units", Medium, "After a reboot there is no gate until somebody attaches it";
    /// Nothing guards before the gate.
    NoGuard: "boot_order", "units", Low, "At boot packets may pass before the gate is attached";
}

impl FindingId {
    /// The word that monitoring reads.
    pub const fn name(self) -> &'static str {
        self.row().id
    }

    /// How severe it is.
    pub const fn severity(self) -> Severity {
        self.row().severity
    }

    /// The part that finds it.
    pub const fn part(self) -> &'static str {
        self.row().part
    }

    /// Why it matters, without a full stop.
    pub const fn why(self) -> &'static str {
        self.row().why
    }
}

/// Something that is wrong, or a way around the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub id: FindingId,
    /// What it is about, such as an interface or a sink. Two findings of one id differ in it.
    pub about: String,
    /// What was found, a sentence without a full stop.
    pub text: String,
    /// What to do, without a full stop.
    pub remedy: String,
}

impl Finding {
    /// How severe it is.
    pub fn severity(&self) -> Severity {
        self.id.severity()
    }

    /// The part that found it.
    pub fn part(&self) -> &'static str {
        self.id.part()
    }

    /// Whether `doctor` fails for it.
    pub fn is_severe(&self) -> bool {
        self.severity() >= Severity::High
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 7)?;
        object.serialize_field("id", self.id.name())?;
        object.serialize_field("severity", &self.severity())?;
        object.serialize_field("part", self.part())?;
        object.serialize_field("about", &self.about)?;
        object.serialize_field("text", &self.text)?;
        object.serialize_field("why", self.id.why())?;
        object.serialize_field("remedy", &self.remedy)?;
        object.end()
    }
}
