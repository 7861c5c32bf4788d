//! MITRE ATT&CK (Enterprise) techniques that alarms point to.

/// A technique of MITRE ATT&CK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Technique {
    /// Its id, such as `T1210`.
    pub id: &'static str,
    /// Its name there.
    pub name: &'static str,
}

const fn technique(id: &'static str, name: &'static str) -> Technique {
    Technique { id, name }
}

pub(super) const APPLICATION_LAYER: Technique = technique("T1071", "Application Layer Protocol");
pub(super) const WEB: Technique = technique("T1071.001", "Web Protocols");
pub(super) const MAIL: Technique = technique("T1071.003", "Mail Protocols");
pub(super) const DNS: Technique = technique("T1071.004", "DNS");
pub(super) const BELOW_APPLICATIONS: Technique = technique("T1095", "Non-Application Layer Protocol");
pub(super) const TOOL_TRANSFER: Technique = technique("T1105", "Ingress Tool Transfer");
pub(super) const EXPLOITATION: Technique = technique("T1210", "Exploitation of Remote Services");
pub(super) const DISCOVERY: Technique = technique("T1046", "Network Service Discovery");
pub(super) const SERVER_COMPONENT: Technique = technique("T1505", "Server Software Component");
pub(super) const IN_THE_MIDDLE: Technique = technique("T1557", "Adversary-in-the-Middle");
pub(super) const RESOLUTION: Technique = technique("T1568", "Dynamic Resolution");
pub(super) const DENIAL_OF_SERVICE: Technique = technique("T1498", "Network Denial of Service");
pub(super) const BRIDGING: Technique = technique("T1599", "Network Boundary Bridging");
pub(super) const HIJACKING: Technique = technique("T1496", "Resource Hijacking");
pub(super) const IMPAIRED: Technique = technique("T1562.004", "Disable or Modify System Firewall");
