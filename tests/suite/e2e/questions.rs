//! `dns = "named"` with real resolvers: a tunnel through the permitted resolver ends in an alarm, and whoever sends
//! packets in a resolver's name raises none.

use std::net::SocketAddr;

use serde_json::Value;

use super::namespace::Namespace;
use super::resolver::{Resolver, kind_of, look_up};
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, connect, connect_from, udp};
use super::testbed::{Family, Testbed, V4, V6, in_both_families, ip, share_machine};
use crate::support::dns::{A, Message, TXT};
use crate::support::patience::eventually;

const NAME: &str = "deb.vendor.example";

fn policy(resolvers: [&str; 2]) -> String {
    format!(
        "[policy]\npickup = 0\n\n[names]\nresolvers = {resolvers:?}\nforgeable = true\n\
         private = [\"198.51.100.0/24\", \"2001:db8:2::/48\"]\n\n\
         [roles.updated]\nin = [\"tcp/80\", \"udp/123\"]\n\
         out = [\"udp/53 to {0}, {1}\", \"tcp/53 to {0}, {1}\", \"tcp/443 to {NAME}\"]\ndns = \"named\"\n\n\
         [servers.web1]\naddresses = [\"{2}\", \"{3}\"]\nroles = [\"updated\"]\n",
        resolvers[0], resolvers[1], V4.web, V6.web
    )
}

/// A piece of a file in the name of a question, as dns2tcp and iodine send it.
fn smuggle(number: u8) -> String {
    let piece: String = (0..40)
        .map(|place| char::from(b'a' + (number.wrapping_mul(7).wrapping_add(place * 3)) % 26))
        .collect();
    format!("{piece}.0{number}.t.evil.example")
}

fn send(machine: &Namespace, family: &Family, to: &str, message: &Message) {
    let socket = udp(machine, family.web, 0);
    socket.send_to(&message.bytes(), SocketAddr::new(ip(to), 53)).expect("a question");
}

#[test]
fn a_tunnel_through_the_permitted_resolver_ends_in_an_alarm_with_the_name_that_it_asked_for() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _daemon = testbed.daemon(&policy([V4.router, V6.router]), &[]);
    testbed.wait_for_consumer();
    in_both_families(|family| {
        let zone = Resolver::start(&testbed.router, family.router);
        zone.set(NAME, &[family.peer], 60);
        assert!(look_up(&testbed.dmz, family.web, family.router, NAME, kind_of(family.peer), ARRIVES));
        let before = testbed.dropped("web1", "udp", 53, "question");
        assert_eq!(testbed.verdict("web1", family.router, "udp/53").0, "pass", "a plain question");
        let answer = testbed.explain("web1", family.router, "tcp/53");
        assert_eq!(answer["reason"], "question");
        assert!(answer["source"].as_str().expect("a line").ends_with(".toml:12"), "{answer}");
        for number in 0..20 {
            send(&testbed.dmz, &family, family.router, &Message::query(7, &smuggle(number), TXT));
        }
        let named = look_up(&testbed.dmz, family.web, family.router, "evil.example", A, NEVER);
        assert!(!named && zone.count_asked("evil.example") == 0, "it was answered");
        assert_eq!(testbed.dropped("web1", "udp", 53, "question") - before, 21);
        for number in 0..20 {
            assert_eq!(zone.count_asked(&smuggle(number)), 0, "the resolver was asked");
        }
        let to = SocketAddr::new(ip(family.router), 53);
        assert!(connect(&testbed.dmz, ip(family.web), to, NEVER).is_err(), "TCP reached the resolver");
        assert!(look_up(&testbed.dmz, family.web, family.router, NAME, kind_of(family.peer), ARRIVES));
    });
    let find = || {
        let alarms = testbed.alarms(&[]);
        alarms.iter().find(|alarm| alarm["kind"] == "question").cloned()
    };
    eventually("the alarm counts all of it", || {
        find().is_some_and(|alarm| alarm["packets"].as_u64() >= Some(44))
    });
    let alarm = find().expect("an alarm");
    assert_eq!((&alarm["severity"], &alarm["server"]), (&"medium".into(), &"web1".into()));
    assert_eq!(alarm["technique"]["id"], "T1071.004");
    let parts = alarm["parts"].as_array().expect("parts");
    let asked = |part: &Value| part["question"].as_str().unwrap_or_default().contains(".t.evil");
    assert!(parts.iter().any(asked), "{alarm:#}");
    assert!(parts.iter().any(|part| part["seen"].as_str().expect("text").contains("over TCP")), "{alarm:#}");
}

#[test]
fn whoever_sends_in_the_name_of_a_resolver_raises_no_alarm_above_low() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _daemon = testbed.daemon(&policy([V4.resolver, V6.resolver]), &[]);
    testbed.wait_for_consumer();
    in_both_families(|family| {
        // an accomplice outside has the resolver's address, for the default route leads there
        let forger = udp(&testbed.internet, family.resolver, 53);
        let clock = UdpServer::start(&testbed.dmz, family.web, 123);
        let web = TcpServer::start(&testbed.dmz, 80);
        for port in [9, 53, 80, 123, 4500] {
            let query = Message::query(7, NAME, A);
            let answer = query.addresses(&[ip(family.peer)], 60);
            for bytes in [&b"datagram"[..], &query.bytes(), &answer.bytes()] {
                forger.send_to(bytes, SocketAddr::new(ip(family.web), port)).expect("a datagram");
            }
        }
        for port in [80, 81, 443] {
            let to = SocketAddr::new(ip(family.web), port);
            let reached = connect_from(
                &testbed.internet,
                SocketAddr::new(ip(family.resolver), 53),
                to,
                if port == 80 { ARRIVES } else { NEVER },
            );
            assert_eq!(reached.is_ok(), port == 80);
        }
        drop((clock, web));
    });
    eventually("what was sent back is counted", || {
        testbed.drops().iter().any(|row| row.0["reason"] == "question" && row.0["port"] == 53)
    });
    let severe: Vec<Value> =
        testbed.alarms(&[]).into_iter().filter(|alarm| alarm["severity"] != "low").collect();
    assert!(severe.is_empty(), "{severe:#?}");
}

#[test]
fn an_alarm_and_the_list_of_drops_say_what_an_address_was_looked_up_as() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let eve = testbed.folder.join("eve.json");
    let text = format!(
        "{}\n[alarms]\neve = {:?}\n",
        policy([V4.router, V6.router]).replace("dns = \"named\"\n", ""),
        eve.display()
    );
    let _daemon = testbed.daemon(&text, &[]);
    testbed.wait_for_consumer();
    in_both_families(|family| {
        let zone = Resolver::start(&testbed.router, family.router);
        zone.set("cdn.evil.example", &[family.exchanger], 60);
        let kind = kind_of(family.exchanger);
        assert!(look_up(&testbed.dmz, family.web, family.router, "CDN.evil.example", kind, ARRIVES));
        let to = SocketAddr::new(ip(family.exchanger), 443);
        assert!(connect(&testbed.dmz, ip(family.web), to, NEVER).is_err());
        let row = testbed
            .drops()
            .into_iter()
            .find(|row| row.0["last_destination"] == family.exchanger && row.0["port"] == 443)
            .expect("a row");
        assert_eq!(row.0["looked_up"]["name"], "cdn.evil.example");
        let shown = testbed.run("show", &["drops"]).done().out;
        assert!(shown.contains(&format!("{} (cdn.evil.example)", family.exchanger)), "{shown}");
    });
    let words = "looked up as cdn.evil.example";
    eventually("the alarm says so", || {
        testbed.alarms(&[]).iter().any(|alarm| alarm["seen"].as_str().expect("text").contains(words))
    });
    let alarm =
        testbed.alarms(&[]).into_iter().find(|alarm| alarm["service"] == "tcp/443").expect("an alarm");
    assert_eq!(alarm["looked_up"]["name"], "cdn.evil.example");
    eventually("the sinks have it", || {
        let lines = std::fs::read_to_string(&eve).unwrap_or_default();
        let values: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let has = |kind: &str| {
            values.iter().any(|value| {
                value["event_type"] == kind && value["portcullis"]["looked_up"]["name"] == "cdn.evil.example"
            })
        };
        has("drop") && has("alert")
    });
    let page = testbed.folder.join("report.html");
    testbed.run("report", &["-o", page.to_str().expect("a path")]).done();
    let page = std::fs::read_to_string(page).expect("a report");
    assert!(page.contains(words), "the report lacks the name");
}
