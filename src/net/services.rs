//! Names of services. They don't come from `/etc/services`, so that a policy means the same on every machine.
//! Ports and transports are IANA's. An alias is listed if people use that name.

use super::protocol;

const T: u8 = 1;
const U: u8 = 2;
const S: u8 = 4;
const TU: u8 = T | U;

/// Name, port, transports; sorted by name.
const SERVICES: &[(&str, u16, u8)] = &[
    ("afpovertcp", 548, T),
    ("amqp", 5672, TU | S),
    ("amqps", 5671, T),
    ("auth", 113, T),
    ("bacula-dir", 9101, T),
    ("bacula-fd", 9102, T),
    ("bacula-sd", 9103, T),
    ("bfd-control", 3784, U),
    ("bgp", 179, T | S),
    ("bootpc", 68, U),
    ("bootps", 67, U),
    ("chargen", 19, TU),
    ("cvspserver", 2401, T),
    ("daytime", 13, TU),
    ("dhcpv6-client", 546, U),
    ("dhcpv6-server", 547, U),
    ("diameter", 3868, T | S),
    ("dict", 2628, T),
    ("discard", 9, TU | S),
    ("distcc", 3632, T),
    ("dns", 53, TU),
    ("domain", 53, TU),
    ("domain-s", 853, TU),
    ("echo", 7, TU),
    ("epmap", 135, TU),
    ("epmd", 4369, T),
    ("exec", 512, T),
    ("finger", 79, T),
    ("ftp", 21, T | S),
    ("ftp-data", 20, T | S),
    ("ftps", 990, T),
    ("ftps-data", 989, T),
    ("git", 9418, T),
    ("gopher", 70, T),
    ("h323hostcall", 1720, T),
    ("hkp", 11371, T),
    ("http", 80, T | S),
    ("http-alt", 8080, T),
    ("https", 443, TU | S),
    ("https-alt", 8443, T),
    ("iax", 4569, U),
    ("icp", 3130, U),
    ("ident", 113, T),
    ("imap", 143, T),
    ("imaps", 993, T),
    ("ipfix", 4739, TU | S),
    ("ipfixs", 4740, TU | S),
    ("ipp", 631, TU),
    ("ipsec-nat-t", 4500, U),
    ("irc", 194, T),
    ("ircd", 6667, T),
    ("ircs-u", 6697, T),
    ("isakmp", 500, U),
    ("iscsi-target", 3260, T),
    ("iso-tsap", 102, T),
    ("kerberos", 88, TU),
    ("kerberos-adm", 749, T),
    ("kpasswd", 464, TU),
    ("l2tp", 1701, U),
    ("ldap", 389, TU),
    ("ldaps", 636, T),
    ("ldp", 646, TU),
    ("llmnr", 5355, TU),
    ("login", 513, T),
    ("m3ua", 2905, S),
    ("mdns", 5353, U),
    ("memcache", 11211, TU),
    ("microsoft-ds", 445, TU),
    ("mqtt", 1883, T),
    ("ms-sql-m", 1434, U),
    ("ms-sql-s", 1433, T),
    ("ms-wbt-server", 3389, TU),
    ("munin", 4949, T),
    ("mysql", 3306, T),
    ("netbios-dgm", 138, U),
    ("netbios-ns", 137, U),
    ("netbios-ssn", 139, T),
    ("netconf-ssh", 830, T),
    ("nfs", 2049, TU | S),
    ("nntp", 119, T),
    ("nntps", 563, T),
    ("nrpe", 5666, T),
    ("ntp", 123, U),
    ("ntske", 4460, T),
    ("openvpn", 1194, TU),
    ("pop2", 109, T),
    ("pop3", 110, T),
    ("pop3s", 995, T),
    ("postgresql", 5432, T),
    ("pptp", 1723, T),
    ("printer", 515, T),
    ("ptp-event", 319, U),
    ("ptp-general", 320, U),
    ("puppet", 8140, T),
    ("qotd", 17, T),
    ("radius", 1812, TU),
    ("radius-acct", 1813, TU),
    ("radsec", 2083, TU),
    ("rdp", 3389, TU),
    ("redis", 6379, T),
    ("rip", 520, U),
    ("ripng", 521, U),
    ("rsync", 873, T),
    ("rtsp", 554, TU),
    ("secure-mqtt", 8883, T),
    ("sflow", 6343, U),
    ("shell", 514, T),
    ("sieve", 4190, T),
    ("sip", 5060, TU | S),
    ("sips", 5061, TU | S),
    ("smtp", 25, T),
    ("smtps", 465, T),
    ("snmp", 161, TU),
    ("snmptls", 10161, T),
    ("snmptrap", 162, TU),
    ("socks", 1080, T),
    ("spamd", 783, T),
    ("ssdp", 1900, U),
    ("ssh", 22, T | S),
    ("stun", 3478, TU),
    ("stuns", 5349, TU),
    ("submission", 587, T),
    ("submissions", 465, T),
    ("sunrpc", 111, TU),
    ("svn", 3690, T),
    ("svrloc", 427, TU),
    ("syslog", 514, U),
    ("syslog-tls", 6514, TU),
    ("systat", 11, T),
    ("tacacs", 49, TU),
    ("talk", 517, U),
    ("tcpmux", 1, T),
    ("telnet", 23, T),
    ("telnets", 992, T),
    ("tftp", 69, U),
    ("time", 37, TU),
    ("uucp", 540, T),
    ("vnc", 5900, T),
    ("vxlan", 4789, U),
    ("webcache", 8080, T),
    ("who", 513, U),
    ("whois", 43, T),
    ("wireguard", 51820, U),
    ("ws-discovery", 3702, U),
    ("x11", 6000, T),
    ("xdmcp", 177, U),
    ("xmpp-client", 5222, T),
    ("xmpp-server", 5269, T),
    ("zabbix-agent", 10050, T),
    ("zabbix-trapper", 10051, T),
];

fn transport(protocol: u8) -> u8 {
    match protocol {
        protocol::TCP => T,
        protocol::UDP => U,
        protocol::SCTP => S,
        _ => 0,
    }
}

/// The port of a named service, for one protocol.
pub fn find_port(protocol: u8, name: &str) -> Option<u16> {
    let index = SERVICES.binary_search_by(|(known, ..)| (*known).cmp(name)).ok()?;
    let (_, port, transports) = SERVICES.get(index)?;
    (transports & transport(protocol) != 0).then_some(*port)
}

/// The protocols that have a service of this name, for a help line.
pub fn find_protocols(name: &str) -> Vec<u8> {
    [protocol::TCP, protocol::UDP, protocol::SCTP]
        .into_iter()
        .filter(|number| find_port(*number, name).is_some())
        .collect()
}

/// All service names of one protocol.
pub fn service_names(protocol: u8) -> impl Iterator<Item = &'static str> {
    let wanted = transport(protocol);
    SERVICES.iter().filter(move |(.., transports)| transports & wanted != 0).map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{SCTP, TCP, UDP};

    #[test]
    fn the_table_is_sorted_and_names_nothing_twice() {
        for pair in SERVICES.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn the_services_that_every_dmz_has_are_known() {
        for (protocol, name, port) in [
            (TCP, "ftp", 21),
            (TCP, "ssh", 22),
            (TCP, "telnet", 23),
            (TCP, "smtp", 25),
            (TCP, "domain", 53),
            (UDP, "dns", 53),
            (UDP, "tftp", 69),
            (TCP, "http", 80),
            (TCP, "auth", 113),
            (TCP, "ident", 113),
            (UDP, "ntp", 123),
            (UDP, "netbios-ns", 137),
            (UDP, "snmp", 161),
            (TCP, "https", 443),
            (UDP, "syslog", 514),
            (TCP, "submission", 587),
            (UDP, "ssdp", 1900),
            (UDP, "mdns", 5353),
            (UDP, "llmnr", 5355),
            (SCTP, "diameter", 3868),
        ] {
            assert_eq!(find_port(protocol, name), Some(port), "{name}");
        }
        assert!(SERVICES.len() >= 120);
    }

    #[test]
    fn a_service_of_another_protocol_is_not_found_but_its_protocol_is() {
        assert_eq!(find_port(TCP, "tftp"), None);
        assert_eq!(find_protocols("tftp"), [UDP]);
        assert_eq!(find_protocols("domain"), [TCP, UDP]);
        assert!(find_protocols("nonsense").is_empty());
    }
}
