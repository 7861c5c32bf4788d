//! Answers that opened nothing: alarms about a name or a resolver, whoever causes them and however often.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::Daemon;
use super::name_console::{Lookup, with_names};
use super::testbed::{NIC, Testbed, V4, V6, ip, share_machine};
use crate::support::dns::{A, AAAA, Message};
use crate::support::patience::eventually;

/// Every kind that may lead to a quarantine does.
const CUT_OFF: &str = "\n[alarms]\n\
    quarantine_on = [\"attempt\", \"fetch\", \"callback\", \"scan\", \"backdoor\", \"spread\"]\n";

fn alarms_of(testbed: &Testbed, kind: &str) -> Vec<Value> {
    testbed.alarms(&[]).into_iter().filter(|alarm| alarm["kind"] == kind).collect()
}

#[track_caller]
fn is_harmless(testbed: &Testbed) {
    for alarm in testbed.alarms(&[]) {
        assert_eq!((&alarm["severity"], &alarm["server"]), (&"low".into(), &Value::Null), "{alarm:#}");
    }
    assert_eq!(testbed.show("status")["quarantined"], serde_json::json!([]));
}

fn start(testbed: &Testbed, policy: &str) -> Daemon {
    let daemon = testbed.daemon(&format!("{policy}{CUT_OFF}"), &[]);
    testbed.wait_for_consumer();
    daemon
}

/// The owner of a name lets it point into networks of the router, when a server asks.
#[test]
fn a_name_that_points_to_what_no_name_may_have_is_a_low_rebinding_about_the_name() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut daemon = start(&testbed, &with_names());
    let lookup = Lookup::new(&testbed, V4);
    for address in ["10.0.0.1", "192.0.2.25", "127.0.0.1"] {
        lookup.answer("a.mirror.example", address);
    }
    Lookup::new(&testbed, V6).answer("deb.vendor.example", "::ffff:198.51.100.99");
    eventually("both names have their alarm", || alarms_of(&testbed, "rebinding").len() == 2);
    eventually("every answer is counted", || {
        alarms_of(&testbed, "rebinding").iter().filter_map(|alarm| alarm["packets"].as_u64()).sum::<u64>()
            == 4
    });
    let lines = daemon.find(&["rebinding"]);
    let has = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(has("*.mirror.example points to "), "{lines:#?}");
    assert!(has("deb.vendor.example points to ::ffff:198.51.100.99, which no name may have"), "{lines:#?}");
    assert!(has("198.51.100.53 answered so to web1"), "{lines:#?}");
    is_harmless(&testbed);
    assert_eq!(testbed.show("names"), serde_json::json!([]));
    assert!(daemon.end(Signal::SIGTERM).success());
}

/// Anybody outside answers in the resolver's name, which is elsewhere: one answer, and then a flood to every server.
#[test]
fn answers_by_the_wrong_interface_are_one_low_alarm_about_the_resolver_however_many_come() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let policy = with_names().replace("forgeable = true", "from = [\"lo\"]");
    let mut daemon = start(&testbed, &policy);
    for (family, kind) in [(V4, A), (V6, AAAA)] {
        let lookup = Lookup::new(&testbed, family);
        let forged = Message::query(7, "deb.vendor.example", kind).addresses(&[ip(family.peer)], 60).bytes();
        lookup.resolver.send_to(&forged, (ip(family.web), 40_053)).expect("an answer");
        let is_its =
            |alarm: &Value| alarm["seen"].as_str().is_some_and(|seen| seen.starts_with(family.resolver));
        eventually("the alarm", || alarms_of(&testbed, "forged_answer").iter().any(is_its));
        for number in 0..3000_u16 {
            for server in [family.web, family.mail, family.dns] {
                let _ = lookup.resolver.send_to(&forged, (ip(server), 40_000 + number));
            }
        }
        eventually("the flood is counted", || {
            let packets = |alarm: &Value| alarm["packets"].as_u64().is_some_and(|packets| packets > 8000);
            alarms_of(&testbed, "forged_answer").iter().any(|alarm| is_its(alarm) && packets(alarm))
        });
        let seen: Vec<Value> = alarms_of(&testbed, "forged_answer").into_iter().filter(is_its).collect();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        assert!(seen[0]["seen"].to_string().contains("came by wan0, which does not lead to it"), "{seen:#?}");
    }
    is_harmless(&testbed);
    // one line each, and a few updates
    let lines = daemon.find(&["forged_answer"]);
    assert!(lines.len() <= 8, "{lines:#?}");
    assert_eq!(testbed.show("names"), serde_json::json!([]));
    let verdict = testbed.verdict(V4.web, V4.peer, "tcp/443");
    assert_eq!(verdict, ("drop".into(), "destination".into()), "{NIC}");
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn what_came_while_no_daemon_ran_is_reported_by_the_next_one_once() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&with_names());
    Lookup::new(&testbed, V4).answer("deb.vendor.example", "10.0.0.1");
    let mut daemon = start(&testbed, &with_names());
    eventually("the alarm", || alarms_of(&testbed, "rebinding").len() == 1);
    let alarm = alarms_of(&testbed, "rebinding").remove(0);
    assert_eq!((&alarm["while_away"], &alarm["packets"]), (&true.into(), &1.into()), "{alarm:#}");
    assert!(daemon.end(Signal::SIGTERM).success());
    let mut daemon = start(&testbed, &with_names());
    Lookup::new(&testbed, V4).answer("deb.vendor.example", "10.0.0.2");
    let is_new = |alarm: &Value| !alarm["while_away"].as_bool().unwrap_or(true);
    eventually("another one", || alarms_of(&testbed, "rebinding").iter().any(is_new));
    let packets: Vec<u64> =
        alarms_of(&testbed, "rebinding").iter().filter_map(|alarm| alarm["packets"].as_u64()).collect();
    assert_eq!(packets, [1, 1]);
    assert!(daemon.end(Signal::SIGTERM).success());
}
