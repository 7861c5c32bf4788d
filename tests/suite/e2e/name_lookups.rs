//! With `resolve = true` the router asks for the exact names itself: before a policy takes effect, and again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::name_resolvers::{is_open, policy};
use super::resolver::Resolver;
use super::socket::{ARRIVES, TcpServer, tcp_talks};
use super::testbed::{Testbed, V4, V6, in_both_families, ip, share_machine};
use crate::support::patience::{Wait, deadline, eventually};

const NAME: &str = "deb.vendor.example";
const RESOLVE: &str = "resolve = true";

#[test]
fn a_name_is_open_for_every_server_from_the_first_packet_on_without_anybodys_question() {
    let _machine = share_machine();
    in_both_families(|family| {
        let testbed = Testbed::new();
        let zone = Resolver::start(&testbed.router, family.router);
        zone.set(NAME, &[family.peer], 60);
        // where apt fetches instead
        zone.set_service(&format!("_http._tcp.{NAME}"), "edge.cdn.example");
        zone.set("edge.cdn.example", &[family.clock], 60);
        let said = testbed.attach(&policy(&[family.router], RESOLVE));
        assert_eq!(said.err, "");
        let _server = TcpServer::start(&testbed.internet, 443);
        for address in [family.peer, family.clock] {
            assert!(is_open(&testbed, &family, address), "{address}");
            assert!(tcp_talks(&testbed.dmz, ip(family.web), SocketAddr::new(ip(address), 443), ARRIVES));
        }
        assert!(!is_open(&testbed, &family, family.loghost));
        assert_eq!(zone.count_asked("*.vendor.example"), 0);

        // another policy knows what is known: it asks for nothing, also when nobody could answer
        let asked = zone.count_asked(NAME);
        drop(zone);
        let zone = Resolver::start(&testbed.router, family.router);
        testbed.apply(&policy(&[family.router], RESOLVE).replace("\"udp/53\"", "\"udp/53\", \"udp/123\""));
        assert_eq!((zone.count_asked(NAME), asked > 0), (0, true));
        assert!(is_open(&testbed, &family, family.peer));
        // without the key the router's own answers open nothing
        testbed.apply(&policy(&[family.router], ""));
        assert!(!is_open(&testbed, &family, family.peer));
    });
}

#[test]
fn a_first_policy_with_names_opens_what_is_known_at_once_and_warns_of_open_connections() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let zone = Resolver::start(&testbed.router, V4.router);
    zone.set(NAME, &[V4.peer], 60);
    // an answer that does not fit
    zone.cut(true);
    let names = policy(&[V4.router], RESOLVE);
    testbed.attach(&names.replace(&format!("tcp/443 to {NAME}"), "tcp/443"));
    assert_eq!(zone.count_asked(NAME), 0);
    let said = testbed.apply(&names);
    assert!(said.err.contains("the first policy with names"), "{said:#?}");
    assert!(is_open(&testbed, &V4, V4.peer) && !is_open(&testbed, &V4, V4.clock));
    assert!(zone.count_over_tcp() > 0);
    let said = testbed.apply(&names.replace("\"udp/53\"", "\"udp/53\", \"udp/123\""));
    assert!(!said.err.contains("the first policy with names"), "{said:#?}");
}

#[test]
fn a_name_that_nobody_knows_or_that_points_inside_opens_nothing_and_says_so() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let names = policy(&[V4.router], RESOLVE);
    let begun = Instant::now();
    let said = testbed.attach(&names);
    assert!(said.err.contains(&format!("can't resolve {NAME}")), "nobody listens: {said:#?}");
    assert!(testbed.has_xdp() && !is_open(&testbed, &V4, V4.peer));
    let warnings = testbed.show("status")["warnings"].to_string();
    assert!(warnings.contains(&format!("knows no address of {NAME}")), "{warnings}");
    testbed.detach();

    let zone = Resolver::start(&testbed.router, V4.router);
    zone.be_silent(true);
    let said = testbed.attach(&names);
    assert!(said.err.contains(&format!("can't resolve {NAME}")) && testbed.has_xdp(), "{said:#?}");
    assert!(begun.elapsed() < deadline(Duration::from_secs(30)), "{:?}", begun.elapsed());
    testbed.detach();

    zone.be_silent(false);
    zone.set(NAME, &[V4.web, V4.router, "10.0.0.1", V6.web, V4.peer], 60);
    let said = testbed.attach(&names);
    for inside in [V4.web, V4.router, "10.0.0.1", V6.web] {
        assert!(
            said.err.contains(&format!("{NAME} has the address {inside}, which no name may have")),
            "{said:#?}"
        );
        if inside.contains('.') {
            assert!(!is_open(&testbed, &V4, inside), "{inside}");
        }
    }
    assert!(is_open(&testbed, &V4, V4.peer));
}

#[test]
fn a_daemon_asks_again_follows_new_addresses_and_tells_of_a_name_that_fails() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let zone = Resolver::start(&testbed.router, V4.router);
    zone.set(NAME, &[V4.peer], 10);
    let mut daemon = testbed.daemon(&policy(&[V4.router], RESOLVE), &[]);
    assert!(is_open(&testbed, &V4, V4.peer));
    zone.set(NAME, &[V4.clock], 10);
    let again = Wait::AtMost(Duration::from_secs(20));
    assert!(crate::support::patience::within(again.duration(), || is_open(&testbed, &V4, V4.clock)));
    assert!(is_open(&testbed, &V4, V4.peer), "for five minutes what was answered stays open");

    zone.set(NAME, &[], 10);
    daemon.wait_for_line(&["warning", "can't resolve", NAME]);
    zone.set(NAME, &[V4.exchanger], 10);
    daemon.wait_for_line(&[NAME, "can be resolved again"]);
    eventually("it is open", || is_open(&testbed, &V4, V4.exchanger));

    // another policy has another name, which is asked for before it is live
    zone.set("deb.other.example", &[V4.loghost], 10);
    let path =
        testbed.write("daemon.toml", &policy(&[V4.router], RESOLVE).replace(NAME, "deb.other.example"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["generation 2 is live"]);
    assert!(is_open(&testbed, &V4, V4.loghost) && !is_open(&testbed, &V4, V4.exchanger), "{path}");

    // a daemon that ends has saved what was answered
    daemon.end(Signal::SIGTERM);
    testbed.reboot();
    zone.be_silent(true);
    let said = testbed.run("attach", &["-p", &path]).done();
    assert!(said.out.contains("as before: an address"), "{said:#?}");
    assert!(is_open(&testbed, &V4, V4.loghost));
}
