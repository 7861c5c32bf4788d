//! The one home of what networks agree on: numbers and names of protocols, ICMP types, services, EtherTypes
//! and TCP flags, how addresses and MACs are written, and frames to ask the programs about.

pub(crate) mod datagram;
mod domain;
pub mod ethertype;
pub(crate) mod frame;
mod mac;
mod prefix;
mod probe;
mod protocol;
mod question;
mod services;
pub mod tcp_flags;

pub use datagram::{Payload, read_sctp_chunk, read_udp_payload};
pub use domain::{DomainError, DomainName};
pub use mac::{is_host_mac, parse_mac, show_mac, show_mac_ieee};
pub use prefix::{list_around, range_of, show_prefix, subtract};
pub use probe::{Probe, ProbeError};
pub use protocol::{
    AH, ESP, GRE, ICMP, ICMPV6, IGMP, IPIP, L2TP, OSPF, SCTP, SIT, Selector, TCP, UDP, VRRP,
    find_icmp_answer, find_icmp_type, find_protocol, has_ports, icmp_type_names, is_icmp, name_icmp_type,
    name_protocol, protocol_names,
};
pub use question::{Question, read_question, show_wire_name};
pub use services::{find_port, find_protocols, service_names};
