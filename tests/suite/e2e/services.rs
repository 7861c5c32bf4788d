//! What each kind of server needs, and nothing else, with real connections in both families.

use std::net::SocketAddr;

use super::policies::{dmz, dmz_with_eve};
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, tcp_talks, udp, udp_talks};
use super::tap::{TCP, Tap, UDP};
use super::testbed::{FAMILIES, Family, Testbed, in_both_families, ip, share_machine};
use crate::support::patience::eventually;

/// The outcome of one attempt.
#[derive(Clone, Copy)]
enum Expected {
    Passes,
    /// Dropped for this reason.
    Drops(&'static str),
}
use Expected::{Drops, Passes};

/// Who opens it.
#[derive(Clone, Copy, PartialEq)]
enum Opener {
    Server,
    Peer,
}
use Opener::{Peer, Server};

/// One line of the table: a server by its name and address, who opens, what, at or from whom.
struct Line {
    server: &'static str,
    opener: Opener,
    protocol: u8,
    port: u16,
    address: fn(&Family) -> &'static str,
    peer: fn(&Family) -> &'static str,
    expected: Expected,
}

macro_rules! line {
    ($server:literal $address:ident $opener:ident $protocol:ident $port:literal $peer:ident $expected:expr) => {
        Line {
            server: $server,
            opener: $opener,
            protocol: $protocol,
            port: $port,
            address: |family| family.$address,
            peer: |family| family.$peer,
            expected: $expected,
        }
    };
}

fn table() -> Vec<Line> {
    vec![
        // a name server answers and asks
        line!("ns1" dns Peer UDP 53 peer Passes),
        line!("ns1" dns Peer TCP 53 peer Passes),
        line!("ns1" dns Server UDP 53 resolver Passes),
        line!("ns1" dns Server TCP 53 resolver Passes),
        line!("ns1" dns Server TCP 25 exchanger Drops("new_flow")),
        // a mail server receives and sends, and each side asks the other's ident service
        line!("mx1" mail Peer TCP 25 exchanger Passes),
        line!("mx1" mail Peer TCP 113 exchanger Passes),
        line!("mx1" mail Server TCP 25 exchanger Passes),
        line!("mx1" mail Server TCP 113 exchanger Passes),
        line!("mx1" mail Server UDP 53 resolver Drops("new_flow")),
        line!("mx1" mail Server TCP 80 peer Drops("new_flow")),
        // a web server answers, and opens nothing at all
        line!("web1" web Peer TCP 80 peer Passes),
        line!("web1" web Peer TCP 443 peer Passes),
        line!("web1" web Server TCP 80 peer Drops("new_flow")),
        line!("web1" web Server TCP 21 peer Drops("new_flow")),
        line!("web1" web Server TCP 22 peer Drops("new_flow")),
        line!("web1" web Server UDP 53 resolver Drops("new_flow")),
        // something listens on it that should not
        line!("web1" web Peer TCP 4444 peer Drops("unlisted_service")),
        // everyone logs and asks for the time, at the named hosts only
        line!("web1" web Server UDP 514 loghost Passes),
        line!("web1" web Server UDP 514 clock Drops("destination")),
        line!("web1" web Server UDP 123 clock Passes),
        line!("web1" web Server UDP 123 peer Drops("destination")),
        line!("mx1" mail Server UDP 514 loghost Passes),
        line!("ns1" dns Server UDP 123 clock Passes),
        line!("ns1" dns Server UDP 123 resolver Drops("destination")),
        // the bastion alone logs in
        line!("web1" web Peer TCP 22 bastion Passes),
        line!("mx1" mail Peer TCP 22 bastion Passes),
        line!("ns1" dns Peer TCP 22 bastion Passes),
        line!("web1" web Peer TCP 22 peer Drops("stranger")),
    ]
}

/// Servers at every port of the table, in the DMZ and beyond.
pub fn start_servers(testbed: &Testbed) -> (Vec<TcpServer>, Vec<TcpServer>, Vec<UdpServer>) {
    let inside = [22, 25, 53, 80, 113, 443, 4444].map(|port| TcpServer::start(&testbed.dmz, port)).into();
    let outside = [21, 22, 25, 53, 80, 113].map(|port| TcpServer::start(&testbed.internet, port)).into();
    let mut datagrams = Vec::new();
    for family in FAMILIES {
        datagrams.push(UdpServer::start(&testbed.dmz, family.dns, 53));
        let beyond = [
            (family.resolver, 53),
            (family.loghost, 514),
            (family.clock, 514),
            (family.clock, 123),
            (family.peer, 123),
            (family.resolver, 123),
        ];
        datagrams.extend(beyond.map(|(address, port)| UdpServer::start(&testbed.internet, address, port)));
    }
    (inside, outside, datagrams)
}

/// Tries one line and tells whether a word came back.
fn attempt(testbed: &Testbed, line: &Line, family: &Family, dropped: bool) -> bool {
    let (server, peer) = ((line.address)(family), (line.peer)(family));
    let (machine, from, to) = match line.opener {
        Server => (&testbed.dmz, server, peer),
        Peer => (&testbed.internet, peer, server),
    };
    let wait = if dropped { NEVER } else { ARRIVES };
    let target = SocketAddr::new(ip(to), line.port);
    match line.protocol {
        UDP => udp_talks(machine, from, target, wait),
        _ => tcp_talks(machine, ip(from), target, wait),
    }
}

/// Tries every line in both families, all at once.
pub fn attempt_all(testbed: &Testbed, gate: bool) {
    std::thread::scope(|scope| {
        for line in &table() {
            for family in FAMILIES {
                let line = Line { ..*line };
                scope.spawn(move || {
                    let dropped = gate && matches!(line.expected, Drops(_));
                    assert_eq!(
                        attempt(testbed, &line, &family, dropped),
                        !dropped,
                        "{} {}/{} opened by the {} with {}, gate: {gate}",
                        (line.address)(&family),
                        if line.protocol == UDP { "udp" } else { "tcp" },
                        line.port,
                        if line.opener == Server { "server" } else { "peer" },
                        (line.peer)(&family),
                    );
                });
            }
        }
    });
}

/// Frames that the server sent because of a forbidden line, as a tap has them.
fn count_frames(tap: &Tap, line: &Line, family: &Family) -> u64 {
    let (server, peer) = (ip((line.address)(family)), ip((line.peer)(family)));
    tap.count(|one| {
        let port = if line.opener == Server { one.destination_port } else { one.source_port };
        (one.source, one.destination, one.protocol, port) == (server, peer, line.protocol, line.port)
    })
}

#[test]
fn every_server_does_what_it_needs_and_nothing_else_leaves() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _servers = start_servers(&testbed);
    attempt_all(&testbed, false);

    testbed.attach(&dmz());
    let (sent, left) = (testbed.tap_dmz(), testbed.tap_internet());
    attempt_all(&testbed, true);
    let table = table();
    let forbidden = table.iter().filter_map(|line| match line.expected {
        Drops(reason) => Some((line, reason)),
        Passes => None,
    });
    for (line, reason) in forbidden.clone() {
        let proto = if line.protocol == UDP { "udp" } else { "tcp" };
        // Lines may share a row: all that have its server, protocol, port and reason.
        let shared = || {
            forbidden.clone().filter(move |(other, why)| {
                (other.server, other.protocol, other.port, *why)
                    == (line.server, line.protocol, line.port, reason)
            })
        };
        eventually(&format!("{} {proto}/{} {reason} is in the ledger", line.server, line.port), || {
            let frames = shared()
                .flat_map(|(line, _)| FAMILIES.map(|family| count_frames(&sent, line, &family)))
                .sum::<u64>();
            frames >= 2 && testbed.dropped(line.server, proto, line.port, reason) == frames
        });
    }
    testbed.catch_up(&left);
    for (line, _) in forbidden {
        for family in FAMILIES {
            assert_eq!(count_frames(&left, line, &family), 0, "{} got out", line.port);
        }
    }
    let expected = ["new_flow", "unlisted_service", "destination", "stranger"];
    let odd: Vec<_> = testbed
        .drops()
        .into_iter()
        .filter(|row| !expected.iter().any(|reason| row.0["reason"] == *reason))
        .collect();
    // a refused client resets what it no longer waits for; a server may answer that with a reset
    assert!(odd.iter().all(|row| row.0["reason"] == "backscatter"), "other drops: {odd:#?}");

    testbed.detach();
    testbed.wait_for_detach();
    attempt_all(&testbed, false);
}

#[test]
fn people_and_the_siem_read_of_what_a_web_server_opens_and_not_of_strangers() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _servers = start_servers(&testbed);
    let events = testbed.folder.join("eve.json");
    let daemon = testbed.daemon(&dmz_with_eve(&events.display().to_string()), &[]);
    let (sent, left) = (testbed.tap_dmz(), testbed.tap_internet());

    in_both_families(|family| {
        assert!(tcp_talks(&testbed.internet, ip(family.peer), SocketAddr::new(ip(family.web), 80), ARRIVES));
        // the stranger first, so that its alarm would come before the others
        assert!(!tcp_talks(&testbed.internet, ip(family.peer), SocketAddr::new(ip(family.web), 22), NEVER));
        for port in [80, 21, 22] {
            let target = SocketAddr::new(ip(family.peer), port);
            assert!(!tcp_talks(&testbed.dmz, ip(family.web), target, NEVER));
        }
        let socket = udp(&testbed.dmz, family.web, 0);
        socket.send_to(b"log", SocketAddr::new(ip(family.clock), 514)).expect("a datagram");
    });

    // one incident, whose parts are named as they come
    for (port, kind) in [(80, "fetch"), (21, "fetch"), (22, "attempt")] {
        let line = daemon.wait_for_line(&["alarm #1 ", "web1", kind, &format!("tcp/{port} ")]);
        assert!(line.contains("quarantine -i dmz0 web1"), "no next step in {line}");
    }
    daemon.wait_for_line(&["alarm #1 ", "web1", "udp/514"]);
    eventually("every part of the alarm is in the event file", || {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        let lines: Vec<serde_json::Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |kind: &str, service: &str| {
            lines.iter().any(|line| {
                let own = &line["portcullis"];
                let parts = own["parts"].as_array().map_or(&[][..], Vec::as_slice);
                line["event_type"] == kind
                    && own["server"] == "web1"
                    && line["in_iface"] == "dmz0"
                    && line["host"] == own["host"]
                    && (own["service"] == service || parts.iter().any(|part| part["service"] == service))
            })
        };
        let services = ["tcp/80", "tcp/21", "tcp/22", "udp/514"];
        services.iter().all(|service| of("alert", service) && of("drop", service))
    });
    in_both_families(|family| {
        for port in [80, 21, 22] {
            assert!(sent.count_to(ip(family.web), TCP, port) > 0);
        }
    });
    testbed.catch_up(&left);
    let got_out = |one: &super::tap::Seen| {
        FAMILIES.iter().any(|family| one.source == ip(family.web))
            && (one.protocol == UDP || one.source_port != 80)
    };
    assert_eq!(left.count(got_out), 0, "something of the web server got out");
    assert!(testbed.drops().iter().any(|row| row.0["reason"] == "stranger"), "the stranger was counted");
    let strangers = daemon.find(&["stranger"]);
    assert!(strangers.is_empty(), "an alarm for a stranger: {strangers:?}");
    let alarms = testbed.show("alarms");
    let alarms = alarms.as_array().expect("a list");
    assert_eq!(alarms.len(), 1, "{alarms:#?}");
    let parts = alarms[0]["parts"].as_array().expect("a list");
    assert_eq!(parts.len(), 4, "{alarms:#?}");
    assert!(parts.iter().all(|part| part["reason"] != "stranger"), "{alarms:#?}");
}
