//! By which ways the answers of resolvers count: none for one on the router, that of the routing table for another.
//! A way that leads to the internet is none.

use super::namespace::{Namespace, feed_ip};
use super::resolver::{Resolver, kind_of, look_up};
use super::socket::ARRIVES;
use super::testbed::{Family, Testbed, V4, V6, in_both_families, share_machine};
use crate::support::patience::eventually;

const NAME: &str = "deb.vendor.example";
/// Of a resolver behind the router, by one of two cables.
const INNER: &str = "198.51.100.140";

/// web1 may fetch from one name, whose addresses are of documentation.
pub fn policy(resolvers: &[&str], more: &str) -> String {
    let resolvers = resolvers.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "[names]\nresolvers = [{resolvers}]\nprivate = [\"198.51.100.0/24\", \"2001:db8:2::/48\"]\n{more}\n\n\
         [roles.updated]\nout = [\"udp/53\", \"tcp/443 to {NAME}\"]\n\n\
         [servers.web1]\naddresses = [\"{}\", \"{}\"]\nroles = [\"updated\"]\n",
        V4.web, V6.web
    )
}

pub fn is_open(testbed: &Testbed, family: &Family, address: &str) -> bool {
    testbed.verdict(family.web, address, "tcp/443").0 == "pass"
}

/// web1 asks for the name, which has this address now.
#[track_caller]
fn ask(testbed: &Testbed, family: &Family, resolver: &str, zone: &Resolver, address: &str) {
    zone.set(NAME, &[address], 60);
    let answered = look_up(&testbed.dmz, family.web, resolver, NAME, kind_of(address), ARRIVES);
    assert!(answered, "{resolver} does not answer");
}

#[test]
fn answers_of_a_resolver_on_the_router_open_what_they_name() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let said = testbed.attach(&policy(&[V4.router, V6.router], ""));
    assert_eq!(said.err, "", "nothing to warn of");
    in_both_families(|family| {
        let zone = Resolver::start(&testbed.router, family.router);
        assert!(!is_open(&testbed, &family, family.peer));
        ask(&testbed, &family, family.router, &zone, family.peer);
        assert!(is_open(&testbed, &family, family.peer) && !is_open(&testbed, &family, family.clock));
    });
}

/// Another machine that runs a resolver, with two cables to the router: `inn0` and `inn1`.
fn add_resolver(testbed: &Testbed) -> Namespace {
    let machine = testbed.add_machine("n");
    for end in 0..2 {
        feed_ip(&format!(
            "link add inn{end} netns {} type veth peer name eth{end} netns {}\n",
            testbed.router.name(),
            machine.name()
        ));
        testbed
            .router
            .ip(&format!("link set inn{end} up\naddress add 203.0.113.{}/30 dev inn{end}\n", 9 + 4 * end));
        machine
            .ip(&format!("link set eth{end} up\naddress add 203.0.113.{}/30 dev eth{end}\n", 10 + 4 * end));
    }
    machine.ip(&format!("address add {INNER} dev lo\n"));
    for (inside, outside) in [("inn0", "eth0"), ("inn1", "eth1")] {
        eventually("the cables are up", || testbed.router.is_up(inside) && machine.is_up(outside));
        for (who, nic) in [(&testbed.router, inside), (&machine, outside)] {
            who.set_sysctl(&format!("ipv4/conf/{nic}/rp_filter"), "0");
        }
    }
    testbed.router.set_sysctl("ipv4/conf/all/rp_filter", "0");
    machine.set_sysctl("ipv4/conf/all/rp_filter", "0");
    machine
}

/// Packets between the router and the resolver go by this cable, each way by its own.
fn route(testbed: &Testbed, machine: &Namespace, there: u8, back: u8) {
    testbed.router.ip(&format!("route replace {INNER}/32 via 203.0.113.{}\n", 10 + 4 * there));
    machine.ip(&format!("route replace default via 203.0.113.{}\n", 9 + 4 * back));
}

#[test]
fn a_daemon_follows_the_way_to_a_resolver_and_answers_by_another_way_open_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let machine = add_resolver(&testbed);
    let zone = Resolver::start(&machine, INNER);
    route(&testbed, &machine, 0, 0);
    let daemon = testbed.daemon(&policy(&[INNER], ""), &[]);
    ask(&testbed, &V4, INNER, &zone, V4.peer);
    assert!(is_open(&testbed, &V4, V4.peer));

    // an answer by the other cable, where the resolver is not
    route(&testbed, &machine, 0, 1);
    ask(&testbed, &V4, INNER, &zone, V4.clock);
    assert!(!is_open(&testbed, &V4, V4.clock), "an answer by the wrong way counted");

    route(&testbed, &machine, 1, 1);
    eventually("the daemon has followed the route", || {
        ask(&testbed, &V4, INNER, &zone, V4.clock);
        is_open(&testbed, &V4, V4.clock)
    });
    // and the way of before is none any more
    route(&testbed, &machine, 1, 0);
    ask(&testbed, &V4, INNER, &zone, V4.exchanger);
    assert!(!is_open(&testbed, &V4, V4.exchanger), "the earlier way still counts");

    // the route goes, and with it the default route leads there
    testbed.router.ip(&format!("route delete {INNER}/32\n"));
    daemon.wait_for_line(&["warning", INNER, "can be forged from outside", "wan0"]);
    let warnings = testbed.show("status")["warnings"].to_string();
    assert!(warnings.contains("can be forged from outside"), "{warnings}");
    route(&testbed, &machine, 1, 1);
    daemon.wait_for_line(&["the answers of all resolvers count again"]);
    eventually("they do", || {
        ask(&testbed, &V4, INNER, &zone, V4.exchanger);
        is_open(&testbed, &V4, V4.exchanger)
    });
}

#[test]
fn a_resolver_to_which_the_default_route_leads_is_refused_unless_the_policy_takes_the_risk() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    in_both_families(|family| {
        let forgeable = policy(&[family.resolver], "");
        let path = testbed.write("forgeable.toml", &forgeable);
        let words =
            ["can forge the answers of the resolver", family.resolver, "wan0", "help:", "forgeable = true"];
        testbed.run("attach", &["-p", &path]).refused(&words);
        assert!(!testbed.has_xdp());

        // a resolver with a route of its own is as near to everybody outside, if that leads the same way
        let near = if family.web == V4.web { "203.0.113.130" } else { "2001:db8:ffff::2" };
        let near = testbed.write("near.toml", &policy(&[near], ""));
        testbed.run("attach", &["-p", &near]).refused(&["wan0", "forgeable = true"]);

        testbed.attach(&policy(&[family.router], ""));
        let before = testbed.show("status")["generation"].clone();
        testbed.run("apply", &[&path]).refused(&words);
        testbed.run("apply", &["--confirm", "10s", &path]).refused(&words);
        assert_eq!(testbed.show("status")["generation"], before);

        let zone = Resolver::start(&testbed.internet, family.resolver);
        let said = testbed.apply(&policy(&[family.resolver], "forgeable = true"));
        assert!(said.err.contains("can be forged from outside"), "{said:#?}");
        assert!(testbed.show("status")["warnings"].to_string().contains("forgeable = true"));
        ask(&testbed, &family, family.resolver, &zone, family.peer);
        assert!(is_open(&testbed, &family, family.peer));
        testbed.detach();
    });
}

#[test]
fn at_boot_a_gate_is_attached_although_the_default_route_leads_to_its_resolver_and_its_answers_open_nothing()
{
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("forgeable.toml", &policy(&[V4.resolver], ""));
    let said = testbed.run("attach", &["--fall-back", "-p", &path]).done();
    assert!(said.err.contains("can be forged from outside") && testbed.has_xdp(), "{said:#?}");
    let zone = Resolver::start(&testbed.internet, V4.resolver);
    ask(&testbed, &V4, V4.resolver, &zone, V4.peer);
    assert!(!is_open(&testbed, &V4, V4.peer));
}
