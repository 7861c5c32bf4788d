//! MITRE ATT&CK (Enterprise) techniques that alarms point to.

use super::{Alarm, Kind};
use crate::abi::Reason;
use crate::net::{TCP, UDP};

/// A technique of MITRE ATT&CK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Technique {
    /// Such as `T1210`.
    pub id: &'static str,
    /// Its name there.
    pub name: &'static str,
}

const fn technique(id: &'static str, name: &'static str) -> Technique {
    Technique { id, name }
}

const APPLICATION_LAYER: Technique = technique("T1071", "Application Layer Protocol");
const WEB: Technique = technique("T1071.001", "Web Protocols");
const MAIL: Technique = technique("T1071.003", "Mail Protocols");
const DNS: Technique = technique("T1071.004", "DNS");
const BELOW_APPLICATIONS: Technique = technique("T1095", "Non-Application Layer Protocol");
const TOOL_TRANSFER: Technique = technique("T1105", "Ingress Tool Transfer");
const EXPLOITATION: Technique = technique("T1210", "Exploitation of Remote Services");
const DISCOVERY: Technique = technique("T1046", "Network Service Discovery");
const SERVER_COMPONENT: Technique = technique("T1505", "Server Software Component");
const IN_THE_MIDDLE: Technique = technique("T1557", "Adversary-in-the-Middle");
const DENIAL_OF_SERVICE: Technique = technique("T1498", "Network Denial of Service");
const BRIDGING: Technique = technique("T1599", "Network Boundary Bridging");
const HIJACKING: Technique = technique("T1496", "Resource Hijacking");

impl Alarm {
    /// The technique that it is most probably a sign of.
    pub fn technique(&self) -> Technique {
        match self.kind {
            Kind::Stray => BELOW_APPLICATIONS,
            Kind::Attempt | Kind::Callback => self.channel(),
            Kind::Burst => HIJACKING,
            Kind::Fetch => TOOL_TRANSFER,
            Kind::Spoof => match self.reason.known() {
                Some(Reason::UnknownSource) => DENIAL_OF_SERVICE,
                Some(Reason::SourceRoute) => BRIDGING,
                _ => IN_THE_MIDDLE,
            },
            Kind::Scan => DISCOVERY,
            Kind::Backdoor => SERVER_COMPONENT,
            Kind::Spread => EXPLOITATION,
        }
    }

    /// The channel that a connection to this port would be.
    fn channel(&self) -> Technique {
        let drop = &self.sample;
        let segment = matches!(drop.protocol, TCP | UDP);
        match self.reason.known() {
            Some(Reason::Malformed | Reason::Fragment | Reason::Ethertype | Reason::Protocol) => {
                return BELOW_APPLICATIONS;
            }
            _ if !segment => return BELOW_APPLICATIONS,
            _ => {}
        }
        match drop.port {
            53 | 853 | 5353 => DNS,
            25 | 110 | 143 | 465 | 587 | 993 | 995 => MAIL,
            80 | 443 | 3128 | 8000 | 8080 | 8443 | 8888 => WEB,
            // A shell on a bare socket speaks nothing that applications know.
            _ if self.kind == Kind::Callback => BELOW_APPLICATIONS,
            _ => APPLICATION_LAYER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Engine;
    use crate::drops::DropEvent;
    use crate::drops::example::{after_ms, syn};

    #[test]
    fn the_channel_of_a_try_goes_by_its_port_and_of_a_shell_on_a_bare_socket_by_none() {
        let cases = [
            (TCP, 53, "T1071.004"),
            (UDP, 5353, "T1071.004"),
            (TCP, 25, "T1071.003"),
            (TCP, 993, "T1071.003"),
            (TCP, 8443, "T1071.001"),
            (TCP, 4444, "T1071"),
            (47, 0, "T1095"),
        ];
        for (protocol, port, id) in cases {
            let drop = DropEvent { protocol, port, destination_port: Some(port), ..syn() };
            let mut alarm = Engine::default().observe(&drop, after_ms(0)).remove(0).alarm;
            alarm.kind = Kind::Attempt;
            assert_eq!(alarm.technique().id, id, "{protocol}/{port}");
            alarm.kind = Kind::Callback;
            let id = if id == "T1071" { "T1095" } else { id };
            assert_eq!(alarm.technique().id, id, "{protocol}/{port}, called again and again");
        }
    }
}
