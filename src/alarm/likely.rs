//! What a forgotten need looks like. A time server or a resolver that a policy forgot makes drops as regular
//! as those of a reverse shell, so the payload of the sample decides.

use crate::drops::DropEvent;
use crate::drops::Origin;
use crate::net::{TCP, UDP, read_udp_payload};

const NTP: u16 = 123;
const DNS: u16 = 53;
/// Submission and relay of mail.
const MAIL: [u16; 3] = [25, 465, 587];

/// An NTP packet without extensions, bytes.
const NTP_BYTES: usize = 48;
const NTP_CLIENT: u8 = 3;

const DNS_HEADER_BYTES: usize = 12;
/// A longer name carries data, bytes.
const MAX_NAME_BYTES: usize = 64;
/// An empty OPT record, and one with a cookie, bytes.
const OPT_BYTES: std::ops::RangeInclusive<usize> = 11..=31;
/// A, NS, SOA, PTR, MX, AAAA, SRV, HTTPS. Tunnels prefer TXT and NULL.
const PLAIN_TYPES: [u16; 8] = [1, 2, 6, 12, 15, 28, 33, 65];

/// What an attempt is probably part of, other than an intrusion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Likely {
    /// Nothing that is known to be harmless.
    #[default]
    Unknown,
    /// A client of a time server that the policy forgot.
    TimeServer,
    /// A client of a resolver that the policy forgot.
    Resolver,
    /// A mail queue that does without its smart host, or spam.
    MailQueue,
}

/// What the payload of a datagram says about the service that it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// No sample, or a service that is not looked into.
    Unknown,
    /// What a client of this service sends.
    Plain,
    /// Something else.
    Odd,
}

/// The service that these datagrams are probably meant for, if their payload agrees.
pub(super) fn service_of(protocol: u8, port: u16) -> Likely {
    match (protocol, port) {
        (UDP, NTP) => Likely::TimeServer,
        (UDP, DNS) => Likely::Resolver,
        _ => Likely::Unknown,
    }
}

/// Whether this is mail.
pub(super) fn is_mail(drop: &DropEvent) -> bool {
    drop.protocol == TCP && MAIL.contains(&drop.port)
}

/// Looks into the payload of a sample.
pub(super) fn read_payload(drop: &DropEvent) -> Payload {
    let likely = service_of(drop.protocol, drop.port);
    if drop.own_port || drop.from == Origin::Ledger || drop.frame.is_empty() {
        return Payload::Unknown;
    }
    let is_plain = |looks: fn(&[u8], usize) -> bool| {
        read_udp_payload(&drop.frame).is_some_and(|payload| looks(payload.captured, payload.length))
    };
    let is_plain = match likely {
        Likely::TimeServer => is_plain(is_ntp_query),
        Likely::Resolver => is_plain(|bytes, length| is_plain_question(bytes, length).is_some()),
        Likely::MailQueue | Likely::Unknown => return Payload::Unknown,
    };
    if is_plain { Payload::Plain } else { Payload::Odd }
}

/// Version 1 to 4, mode client, and nothing behind it.
fn is_ntp_query(bytes: &[u8], length: usize) -> bool {
    let is_client =
        bytes.first().is_some_and(|first| first & 7 == NTP_CLIENT && (1..=4).contains(&(first >> 3 & 7)));
    length == NTP_BYTES && is_client
}

/// One question with a short name and an ordinary type, and nothing behind it but EDNS.
fn is_plain_question(bytes: &[u8], length: usize) -> Option<()> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let is_query = word(2)? & 0xf800 == 0;
    let [questions, answers, authorities, more] = [word(4)?, word(6)?, word(8)?, word(10)?];
    if !is_query || (questions, answers, authorities) != (1, 0, 0) || more > 1 {
        return None;
    }
    let mut at = DNS_HEADER_BYTES;
    loop {
        let label = usize::from(*bytes.get(at)?);
        at += 1 + label;
        if label > 63 || at - DNS_HEADER_BYTES > MAX_NAME_BYTES {
            return None;
        }
        if label == 0 {
            break;
        }
    }
    let end = at + 4;
    let is_whole = match more {
        0 => length == end,
        _ => OPT_BYTES.contains(&length.checked_sub(end)?),
    };
    (PLAIN_TYPES.contains(&word(at)?) && word(at + 2)? == 1 && is_whole).then_some(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::drops::example::syn;
    use crate::net::datagram::udp_frame;

    /// The datagram of a client with this payload.
    pub(in crate::alarm) fn datagram(port: u16, payload: &[u8]) -> DropEvent {
        DropEvent {
            protocol: UDP,
            port,
            destination_port: Some(port),
            tcp_flags: None,
            frame: udp_frame(port, payload),
            ..syn()
        }
    }

    /// The packet of an NTP client.
    pub(in crate::alarm) fn ntp_query() -> Vec<u8> {
        let mut payload = vec![0; NTP_BYTES];
        payload[0] = 0x23;
        payload
    }

    /// A question for a name.
    pub(in crate::alarm) fn question(name: &str, kind: u16, edns: bool) -> Vec<u8> {
        let mut payload = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, edns.into()];
        for label in name.split('.') {
            payload.push(label.len() as u8);
            payload.extend(label.bytes());
        }
        payload.push(0);
        payload.extend(kind.to_be_bytes());
        payload.extend([0, 1]);
        if edns {
            payload.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        }
        payload
    }

    #[test]
    fn the_packet_of_an_ntp_client_is_plain_and_anything_else_on_its_port_is_odd() {
        assert_eq!(read_payload(&datagram(123, &ntp_query())), Payload::Plain);
        let mut server = ntp_query();
        server[0] = 0x24;
        let longer = [ntp_query(), vec![1; 20]].concat();
        for payload in [server, longer, ntp_query()[..40].to_vec(), b"GET / HTTP/1.1".to_vec(), Vec::new()] {
            assert_eq!(read_payload(&datagram(123, &payload)), Payload::Odd, "{payload:?}");
        }
        assert_eq!(read_payload(&datagram(124, &ntp_query())), Payload::Unknown);
    }

    #[test]
    fn one_short_question_is_plain_and_a_tunnel_is_odd() {
        for (name, kind, edns) in [
            ("deb.vendor.example", 1, false),
            ("deb.vendor.example", 28, true),
            ("7.2.0.192.in-addr.arpa", 12, true),
        ] {
            assert_eq!(read_payload(&datagram(53, &question(name, kind, edns))), Payload::Plain, "{name}");
        }
        let long = ["a".repeat(60), "b".repeat(60)].join(".");
        let mut answer = question("deb.vendor.example", 1, false);
        answer[2] = 0x81;
        let mut two = question("deb.vendor.example", 1, false);
        two[5] = 2;
        let behind = [question("deb.vendor.example", 1, false), vec![7; 30]].concat();
        for payload in [
            question(&long, 1, false),
            question("deb.vendor.example", 16, false),
            question("deb.vendor.example", 10, false),
            answer,
            two,
            behind,
            vec![0; 12],
            Vec::new(),
        ] {
            assert_eq!(read_payload(&datagram(53, &payload)), Payload::Odd, "{payload:?}");
        }
    }

    #[test]
    fn without_a_sample_nothing_is_known() {
        let mut drop = datagram(123, &ntp_query());
        drop.frame.clear();
        assert_eq!(read_payload(&drop), Payload::Unknown);
        drop = datagram(123, &ntp_query());
        drop.from = Origin::Ledger;
        assert_eq!(read_payload(&drop), Payload::Unknown);
    }
}
