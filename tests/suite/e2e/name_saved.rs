//! Grants of names outlive the daemon, a detach and a reboot, with what is left of their time.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::name_resolvers::{is_open, policy};
use super::resolver::{Resolver, kind_of, look_up};
use super::socket::{ARRIVES, NEVER, TcpServer, connect, echoes, tcp_talks};
use super::testbed::{Family, NIC, Testbed, V4, in_both_families, ip, share_machine};
use crate::support::patience::eventually;

const NAME: &str = "deb.vendor.example";

impl Testbed {
    fn grants_file(&self) -> PathBuf {
        self.history().join("grants.json")
    }
}

fn own_policy() -> String {
    policy(&FAMILY_ROUTERS, "")
}

const FAMILY_ROUTERS: [&str; 2] = ["192.0.2.1", "2001:db8:1::1"];

/// web1 is answered these addresses.
#[track_caller]
fn answer(testbed: &Testbed, family: &Family, addresses: &[&str]) {
    let zone = Resolver::start(&testbed.router, family.router);
    zone.set(NAME, addresses, 60);
    let kind = kind_of(addresses[0]);
    assert!(look_up(&testbed.dmz, family.web, family.router, NAME, kind, ARRIVES), "no answer");
}

fn open(testbed: &Testbed, family: &Family) -> TcpStream {
    let mut stream = connect(&testbed.dmz, ip(family.web), SocketAddr::new(ip(family.peer), 443), ARRIVES)
        .expect("a connection by a grant");
    assert!(echoes(&mut stream));
    stream
}

#[test]
fn grants_and_their_connections_outlive_a_daemon_that_is_killed_and_a_reboot_after_it() {
    let _machine = share_machine();
    in_both_families(|family| {
        let testbed = Testbed::new();
        testbed.attach(&own_policy());
        let _server = TcpServer::start(&testbed.internet, 443);
        answer(&testbed, &family, &[family.peer, family.clock]);
        let mut stream = open(&testbed, &family);
        // a daemon saves at its start what came before
        let mut daemon = testbed.daemon(&own_policy(), &[]);
        eventually("the grants are saved", || {
            std::fs::read_to_string(testbed.grants_file()).is_ok_and(|text| text.contains(family.clock))
        });
        daemon.end(Signal::SIGKILL);
        assert!(is_open(&testbed, &family, family.clock), "without a daemon");
        testbed.reboot();

        let said = testbed.attach(&own_policy());
        assert!(said.out.contains("as before: 2 addresses that names were seen to have"), "{said:#?}");
        assert_eq!(said.err, "");
        assert!(is_open(&testbed, &family, family.clock) && !is_open(&testbed, &family, family.loghost));
        assert!(echoes(&mut stream), "a connection of before has lost its grant");
        open(&testbed, &family);
        // a segment that no SYN came before is none of it
        let before = testbed.dropped("web1", "tcp", 443, "destination");
        let stranger = SocketAddr::new(ip(family.loghost), 443);
        assert!(!tcp_talks(&testbed.dmz, ip(family.web), stranger, NEVER));
        assert!(testbed.dropped("web1", "tcp", 443, "destination") > before);
    });
}

#[test]
fn grants_and_their_connections_go_to_the_other_router_of_a_pair() {
    let _machine = share_machine();
    in_both_families(|family| {
        let testbed = Testbed::new();
        testbed.attach(&own_policy());
        let _server = TcpServer::start(&testbed.internet, 443);
        answer(&testbed, &family, &[family.peer, family.clock]);
        let mut stream = open(&testbed, &family);
        let state = testbed.router.portcullis(&["export", "state", "-i", NIC]).done().out;
        let path = testbed.write("state.json", &state);
        // the other router: a gate that has seen nothing
        testbed.reboot();
        let _ = std::fs::remove_file(testbed.grants_file());
        testbed.attach(&own_policy());
        assert!(!is_open(&testbed, &family, family.clock));
        let import = || testbed.router.portcullis(&["import", "state", "-i", NIC, &path]).done().out;
        assert!(import().contains(", with 2 addresses of names"));
        assert!(is_open(&testbed, &family, family.clock) && !is_open(&testbed, &family, family.loghost));
        assert!(echoes(&mut stream), "a connection of before has lost its grant");
        // once more: nothing changes, and what the gate has let pass itself goes on
        let mut own = open(&testbed, &family);
        import();
        assert!(echoes(&mut stream) && echoes(&mut own));
    });
}

#[test]
fn a_grant_has_after_a_reboot_what_is_left_of_its_time_and_none_if_the_clock_is_behind() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&own_policy());
    let _server = TcpServer::start(&testbed.internet, 443);
    answer(&testbed, &V4, &[V4.peer, V4.clock]);
    // this one is open for an hour, the other for five minutes and a half
    drop(open(&testbed, &V4));
    testbed.detach();
    testbed.attach_later(&own_policy(), 200);
    assert!(is_open(&testbed, &V4, V4.peer) && is_open(&testbed, &V4, V4.clock));
    testbed.detach();
    // that detach was by the clock of now, 200 seconds before
    let said = testbed.attach_later(&own_policy(), 400);
    assert!(said.out.contains("as before: an address"), "{said:#?}");
    assert!(is_open(&testbed, &V4, V4.peer) && !is_open(&testbed, &V4, V4.clock));

    // saved by a clock that was ahead
    let said = testbed.reboot_and_attach();
    assert!(said.err.contains("grants") && said.err.contains("of the future"), "{said:#?}");
    assert!(!is_open(&testbed, &V4, V4.peer));
    answer(&testbed, &V4, &[V4.peer]);
    assert!(is_open(&testbed, &V4, V4.peer));
}

impl Testbed {
    fn reboot_and_attach(&self) -> super::command::Outcome {
        self.reboot();
        self.attach(&own_policy())
    }
}

#[test]
fn grants_of_names_and_servers_that_the_policy_no_longer_has_stay_away_and_a_wildcard_has_those_below_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let other_name = own_policy().replace(NAME, "deb.other.example");
    let other_server = own_policy().replace("web1", "web2");
    let wildcard = own_policy().replace(NAME, "*.vendor.example");
    for (policy, left) in [(&other_name, false), (&other_server, false), (&wildcard, true)] {
        testbed.attach(&own_policy());
        answer(&testbed, &V4, &[V4.peer]);
        testbed.detach();
        let said = testbed.attach(policy);
        assert_eq!(said.out.contains("as before"), left, "{said:#?}");
        assert_eq!(is_open(&testbed, &V4, V4.peer), left, "{policy}");
        testbed.detach();
        assert_eq!(testbed.grants_file().exists(), left);
        testbed.attach(&own_policy());
        assert!(!is_open(&testbed, &V4, V4.peer), "it came back by the file");
        testbed.detach();
    }
}

#[test]
fn a_damaged_file_of_grants_is_put_aside_and_the_gate_attached() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&own_policy());
    answer(&testbed, &V4, &[V4.peer]);
    testbed.detach();
    let whole = std::fs::read_to_string(testbed.grants_file()).expect("the file");
    for (text, words) in [
        (whole[..whole.len() / 2].to_owned(), "the grants of before are over now"),
        (whole.replace("\"version\": 1", "\"version\": 99"), "its version is 99"),
        (whole.replace(V4.peer, "198.51.100"), "1 of the grants"),
    ] {
        std::fs::write(testbed.grants_file(), text).expect("the file");
        let said = testbed.attach(&own_policy());
        assert!(said.err.contains(words) && said.err.contains("grants.json.damaged now"), "{said:#?}");
        assert!(testbed.has_xdp() && !is_open(&testbed, &V4, V4.peer));
        testbed.detach();
    }
    // an address that names may not have any more
    std::fs::write(testbed.grants_file(), &whole).expect("the file");
    testbed.attach(&own_policy().replace("198.51.100.0/24", "203.0.113.0/24"));
    assert!(!is_open(&testbed, &V4, V4.peer));
}
