//! The time and the log: chrony, which asks a clock outside and sets none, and logger(1).

use std::time::Duration;

use super::service::{ENOUGH_S, Service, run_client};
use super::site::Site;
use crate::e2e::socket::udp;
use crate::e2e::testbed::{FAMILIES, Family, Testbed};

fn start_clock(testbed: &Testbed, number: usize, family: &Family) -> Service {
    // -x: the machine's own clock is left alone
    let text = format!(
        "local stratum 1\nallow all\nbindaddress {}\nport 123\ncmdport 0\nbindcmdaddress /\n\
         pidfile {folder}/chronyd-{number}.pid\ndriftfile {folder}/drift-{number}\n",
        family.clock,
        folder = testbed.folder.display(),
    );
    let name = format!("chronyd-{number}");
    let path = testbed.write(&format!("{name}.conf"), &text);
    let command = ["chronyd", "-x", "-d", "-u", "root", "-F", "0", "-f", &path];
    Service::start(testbed, &testbed.internet, &name, &command, &[("udp", family.clock, 123)])
}

/// Asks for the time, and only prints by how much the machine is wrong.
fn has_time(testbed: &Testbed, server: &str, family: &Family, patience_s: u32) -> bool {
    let clock = format!("server {} iburst", family.clock);
    let source = format!("bindacqaddress {server}");
    let pid = format!("pidfile {}/ask-{server}.pid", testbed.folder.display());
    let patience = patience_s.to_string();
    let command = [
        "chronyd",
        "-Q",
        "-u",
        "root",
        "-F",
        "0",
        "-t",
        &patience,
        &clock,
        &source,
        &pid,
        "cmdport 0",
        "bindcmdaddress /",
    ];
    run_client(&testbed.dmz, patience_s + 1, &command).is_some()
}

#[test]
fn every_server_has_the_time_from_the_clock() {
    let site = Site::new();
    let testbed = &site.testbed;
    let _clocks: Vec<Service> =
        FAMILIES.iter().enumerate().map(|(number, family)| start_clock(testbed, number, family)).collect();
    for family in FAMILIES {
        for server in [family.web, family.mail, family.dns] {
            assert!(has_time(testbed, server, &family, ENOUGH_S), "{server}");
        }
    }
    site.assert_quiet();
    for family in FAMILIES {
        site.hangs_on("web1", ("managed", "out", "udp/123 to @clocks"), |patience_s| {
            has_time(testbed, family.web, &family, patience_s)
        });
    }
}

/// Whether a line of the log arrives at the log host.
fn logs(testbed: &Testbed, family: &Family, patience: Duration) -> bool {
    let host = udp(&testbed.internet, family.loghost, 514);
    host.set_read_timeout(Some(patience)).expect("a timeout");
    // longer than one frame, so in fragments
    let text = format!("all is well {}", "and so on ".repeat(250));
    let command = ["logger", "--udp", "--server", family.loghost, "--port", "514", "--size", "4096", &text];
    assert!(run_client(&testbed.dmz, ENOUGH_S, &command).is_some(), "logger");
    let mut bytes = [0; 8192];
    host.recv(&mut bytes).is_ok_and(|length| String::from_utf8_lossy(&bytes[..length]).contains(&text))
}

#[test]
fn the_log_arrives_at_the_log_host() {
    let site = Site::new();
    for family in FAMILIES {
        // logger has the source address from the route: which of the servers, is the kernel's choice
        for _ in 0..3 {
            assert!(logs(&site.testbed, &family, Duration::from_secs(20)), "{}", family.loghost);
        }
    }
    site.assert_quiet();
    for family in FAMILIES {
        let source = source_towards(&site.testbed, family.loghost);
        let server = if source == family.web {
            "web1"
        } else if source == family.mail {
            "mx1"
        } else {
            "ns1"
        };
        site.hangs_on(server, ("managed", "out", "udp/514 to @loghosts"), |patience_s| {
            let patience = if patience_s == ENOUGH_S { 20_000 } else { 300 };
            logs(&site.testbed, &family, Duration::from_millis(patience))
        });
    }
}

fn source_towards(testbed: &Testbed, peer: &str) -> String {
    let said = run_client(&testbed.dmz, ENOUGH_S, &["ip", "-o", "route", "get", peer]).expect("a route");
    let after = said.split("src ").nth(1).expect("a source");
    after.split_whitespace().next().expect("an address").to_owned()
}
