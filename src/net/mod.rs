//! The one home of what networks agree on: numbers and names of protocols, ICMP types and
//! services, MAC addresses, and frames to ask the programs about.

mod mac;
mod prefix;
mod probe;
mod protocol;
mod services;

pub use mac::{is_host_mac, parse_mac, show_mac};
pub use prefix::show_prefix;
pub use probe::{Probe, ProbeError, parse_flags};
pub use protocol::{
    ICMP, ICMPV6, SCTP, Selector, TCP, UDP, find_icmp_type, find_protocol, has_ports, icmp_type_names,
    is_icmp, name_icmp_type, name_protocol, protocol_names,
};
pub use services::{find_port, find_protocols, service_names};
