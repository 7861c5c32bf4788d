//! A set in a file of its own.

use std::net::SocketAddr;
use std::{fs, thread};

use nix::sys::signal::Signal;

use super::policies::dmz;
use super::socket::{ARRIVES, NEVER, UdpServer, udp_talks};
use super::testbed::{FAMILIES, Family, NIC, Testbed, V4, V6, ip, share_machine};
use crate::support::patience::eventually;

fn policy() -> String {
    dmz().replace(
        "loghosts = [\"198.51.100.20\", \"2001:db8:2::20\"]",
        "loghosts = { file = \"sets/loghosts.txt\" }",
    )
}

fn write_set(testbed: &Testbed, text: &str) {
    fs::create_dir_all(testbed.folder.join("sets")).expect("a folder");
    testbed.write("sets/loghosts.txt", text);
}

/// Which peers a server may send its log to, by their addresses.
fn logs_to(testbed: &Testbed) -> Vec<&'static str> {
    let hosts = FAMILIES.iter().flat_map(|family| [(*family, family.loghost), (*family, family.clock)]);
    let tries = hosts.map(|(family, host): (Family, _)| {
        move |testbed: &Testbed| {
            let _log = UdpServer::start(&testbed.internet, host, 514);
            let to = SocketAddr::new(ip(host), 514);
            let wait = if testbed.verdict(family.web, host, "udp/514").0 == "pass" { ARRIVES } else { NEVER };
            udp_talks(&testbed.dmz, family.web, to, wait).then_some(host)
        }
    });
    thread::scope(|scope| {
        let tries: Vec<_> = tries.map(|attempt| scope.spawn(move || attempt(testbed))).collect();
        tries.into_iter().filter_map(|attempt| attempt.join().expect("an attempt")).collect()
    })
}

#[test]
fn a_set_in_a_file_holds_until_it_is_read_again_and_a_mistake_in_it_changes_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    write_set(&testbed, &format!("# where logs go\n{}\n\n{}   # the second\n", V4.loghost, V6.loghost));
    let daemon = testbed.daemon(&policy(), &[]);
    assert_eq!(logs_to(&testbed), [V4.loghost, V6.loghost]);

    write_set(&testbed, &format!("{}/32\n{}\n{}\n", V4.clock, V6.clock, V4.loghost));
    assert_eq!(logs_to(&testbed), [V4.loghost, V6.loghost], "nobody has read the file again");
    let path = testbed.folder.join("daemon.toml").display().to_string();
    let outcome = testbed.run("diff", &[&path]);
    assert!(outcome.code == Some(1) && outcome.out.contains(V4.clock), "{outcome:#?}");
    daemon.signal(Signal::SIGHUP);
    eventually("the daemon has read the file", || testbed.verdict(V4.web, V4.clock, "udp/514").0 == "pass");
    assert_eq!(logs_to(&testbed), [V4.loghost, V4.clock, V6.clock]);

    // a mistake is shown where it stands
    write_set(&testbed, &format!("{}\n198.51.100.300\n", V4.loghost));
    testbed.run("apply", &[&path]).refused(&["sets/loghosts.txt:2:1", "198.51.100.300"]);
    fs::remove_file(testbed.folder.join("sets/loghosts.txt")).expect("the file");
    testbed.run("apply", &[&path]).refused(&["sets/loghosts.txt", "daemon.toml:"]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["sets/loghosts.txt"]);
    assert_eq!(logs_to(&testbed), [V4.loghost, V4.clock, V6.clock], "the live policy stays");

    // what is shown needs no file
    let shown = testbed.run("show", &["policy"]).done().out;
    let elsewhere = testbed.write("shown.toml", &shown);
    testbed.run("diff", &[&elsewhere]).done();
    testbed.run("apply", &[&elsewhere]).done();
    assert_eq!(logs_to(&testbed), [V4.loghost, V4.clock, V6.clock], "{NIC}");
}
