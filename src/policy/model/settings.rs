//! `[policy]`: what holds for every server.

use super::keys::keys;
use super::location::Located;
use super::need::{Direction, LinkServices, Need};
use super::values::{EtherTypes, Handover, Mode, Tracking, UnknownSources};

/// The longest `pickup`, in seconds: a day.
const MAX_PICKUP_S: u32 = 86_400;

keys! {
    /// `[policy]`: what holds for every server.
    Settings {
        /// Whether what the policy does not allow is dropped.
        "mode" mode: Located<Mode> = Located::default(), keyword();
        /// How the direction of a flow is known.
        "tracking" tracking: Located<Tracking> = Located::default(), keyword();
        /// The treatment of packets whose source address no server has.
        "unknown_sources" unknown_sources: Located<UnknownSources> = Located::default(), keyword();
        /// `in` needs of every server. They stay open in quarantine.
        "management" management: Vec<Need> = Vec::new(), needs(Direction::In);
        /// Services of the link's routers, which servers ask from their link-local addresses.
        "link_services" link_services: LinkServices = LinkServices::default(), link_services();
        /// EtherTypes whose frames are dropped without an alarm.
        "quiet_ethertypes" quiet_ethertypes: EtherTypes = EtherTypes::default(), ethertypes();
        /// Seconds after attach in which flows that are already open are taken over.
        "pickup" pickup_s: Located<u32> = Located::unset(120), integer(0..=MAX_PICKUP_S);
        /// Where flows are looked up that the gate has not seen opened.
        "handover" handover: Located<Handover> = Located::default(), keyword();
        /// Whether DHCP clients of the DMZ may talk to the link.
        "dhcp" dhcp: Located<bool> = Located::default(), boolean();
    }
}
