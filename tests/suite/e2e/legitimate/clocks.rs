//! The time and the log: chrony, which asks a clock outside and sets none, and logger(1).

use std::time::Duration;

use super::service::{ENOUGH, Service, run_client};
use super::site::Site;
use crate::e2e::socket::{NEVER, udp};
use crate::e2e::testbed::{FAMILIES, Family, Testbed, in_both_families};
use crate::support::patience::{PATIENCE, Wait};

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
fn has_time(testbed: &Testbed, server: &str, family: &Family, wait: Wait) -> bool {
    let clock = format!("server {} iburst", family.clock);
    let source = format!("bindacqaddress {server}");
    let pid = format!("pidfile {}/ask-{server}.pid", testbed.folder.display());
    let limit = wait.duration().as_secs_f64().ceil();
    let limit_s = limit.to_string();
    let command = [
        "chronyd",
        "-Q",
        "-u",
        "root",
        "-F",
        "0",
        "-t",
        &limit_s,
        &clock,
        &source,
        &pid,
        "cmdport 0",
        "bindcmdaddress /",
    ];
    run_client(&testbed.dmz, Wait::Exactly(Duration::from_secs_f64(limit + 1.0)), &command).is_some()
}

#[test]
fn every_server_has_the_time_from_the_clock() {
    let site = Site::new();
    let testbed = &site.testbed;
    let _clocks: Vec<Service> =
        FAMILIES.iter().enumerate().map(|(number, family)| start_clock(testbed, number, family)).collect();
    in_both_families(|family| {
        for server in [family.web, family.mail, family.dns] {
            assert!(has_time(testbed, server, &family, ENOUGH), "{server}");
        }
    });
    site.assert_quiet();
    in_both_families(|family| {
        site.hangs_on("web1", ("managed", "out", "udp/123 to @clocks"), |wait| {
            has_time(testbed, family.web, &family, wait)
        });
    });
}

/// Whether a line of the log arrives at the log host.
fn logs(testbed: &Testbed, family: &Family, wait: Wait) -> bool {
    let host = udp(&testbed.internet, family.loghost, 514);
    host.set_read_timeout(Some(wait.duration())).expect("a timeout");
    // longer than one frame, so in fragments
    let text = format!("all is well {}", "and so on ".repeat(250));
    let command = ["logger", "--udp", "--server", family.loghost, "--port", "514", "--size", "4096", &text];
    assert!(run_client(&testbed.dmz, ENOUGH, &command).is_some(), "logger");
    let mut bytes = [0; 8192];
    host.recv(&mut bytes).is_ok_and(|length| String::from_utf8_lossy(&bytes[..length]).contains(&text))
}

#[test]
fn the_log_arrives_at_the_log_host() {
    let site = Site::new();
    in_both_families(|family| {
        // logger has the source address from the route: which of the servers, is the kernel's choice
        for _ in 0..3 {
            assert!(logs(&site.testbed, &family, Wait::AtMost(PATIENCE)), "{}", family.loghost);
        }
    });
    site.assert_quiet();
    in_both_families(|family| {
        let source = source_towards(&site.testbed, family.loghost);
        let server = if source == family.web {
            "web1"
        } else if source == family.mail {
            "mx1"
        } else {
            "ns1"
        };
        site.hangs_on(server, ("managed", "out", "udp/514 to @loghosts"), |wait| {
            logs(&site.testbed, &family, if wait == ENOUGH { Wait::AtMost(PATIENCE) } else { NEVER })
        });
    });
}

fn source_towards(testbed: &Testbed, peer: &str) -> String {
    let said = run_client(&testbed.dmz, ENOUGH, &["ip", "-o", "route", "get", peer]).expect("a route");
    let after = said.split("src ").nth(1).expect("a source");
    after.split_whitespace().next().expect("an address").to_owned()
}
