//! A server in quarantine whose visitors go on to ask.

use std::net::SocketAddr;

use super::calm::CalmCheck;
use super::policies::dmz;
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, tcp_talks, udp_talks};
use super::testbed::{FAMILIES, Testbed, in_both_families, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::patience::eventually;

/// Enough for a scan, were the visitors' ports the server's doing.
const VISITORS: usize = 42;

/// Rows of the ledger as (server, proto, port, quiet), apart from those of the mail server.
fn rows(testbed: &Testbed) -> Vec<(String, String, u64, bool)> {
    let rows = testbed.drops();
    let ours = rows.iter().filter(|row| row.0["server"] != "mx1");
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows: Vec<_> = ours
        .map(|row| {
            assert_eq!(row.0["reason"], "quarantined", "{row:?}");
            let quiet = row.0["quiet"] == true;
            (word(&row.0["server"]), word(&row.0["proto"]), row.0["port"].as_u64().expect("a port"), quiet)
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn visitors_of_a_quarantined_server_raise_no_alarm_and_what_it_starts_does() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let check = CalmCheck::start(&testbed, &dmz());
    let _web = TcpServer::start(&testbed.dmz, 80);
    let _names = FAMILIES.map(|family| UdpServer::start(&testbed.dmz, family.dns, 53));
    let visit = |wait| {
        in_both_families(|family| {
            let (web, names) = (SocketAddr::new(ip(family.web), 80), SocketAddr::new(ip(family.dns), 53));
            std::thread::scope(|scope| {
                for _ in 0..VISITORS / 2 {
                    scope.spawn(|| {
                        let answered = tcp_talks(&testbed.internet, ip(family.peer), web, wait);
                        assert_eq!(answered, wait == ARRIVES, "{web}");
                    });
                    scope.spawn(|| {
                        let answered = udp_talks(&testbed.internet, family.peer, names, wait);
                        assert_eq!(answered, wait == ARRIVES, "{names}");
                    });
                }
            });
        });
    };
    visit(ARRIVES);
    for server in ["web1", "ns1"] {
        testbed.run("quarantine", &[server]).done();
    }
    visit(NEVER);
    let row = |server: &str, proto: &str, port, quiet| (server.to_owned(), proto.to_owned(), port, quiet);
    eventually("their answers are counted", || rows(&testbed).len() == 2);
    assert_eq!(rows(&testbed), [row("ns1", "udp", 53, true), row("web1", "tcp", 80, true)]);
    let severe = check.severe_alarms();
    assert!(severe.is_empty(), "{severe:#?}");

    // what it sends by itself shows what runs on it
    testbed.send_from_web(FORBIDDEN, 3);
    check.daemon.wait_for_line(&["alarm #", "web1 still sends", &format!("udp/{FORBIDDEN}")]);
    let own = row("web1", "udp", u64::from(FORBIDDEN), false);
    assert!(rows(&testbed).contains(&own), "{:#?}", testbed.drops());

    for server in ["web1", "ns1"] {
        testbed.run("release", &[server]).done();
    }
    visit(ARRIVES);
}
