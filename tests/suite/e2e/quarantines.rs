//! Quarantines of single machines, under other policies, and over a reboot.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use portcullis::abi::Reason;
use serde_json::{Value, json};

use super::command::Outcome;
use super::policies::{TABLES, dmz};
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, tcp_talks, udp, udp_talks};
use super::testbed::{FAMILIES, NIC, Testbed, V4, V6, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::patience::{Wait, eventually};

/// All machines of the testbed's DMZ have it.
pub const MAC: &str = "02:00:00:00:00:10";

/// The mail server and the name server are two machines of `farm`, which is a prefix. The web server is one
/// of its own.
pub fn farm(name: &str) -> String {
    let servers = format!(
        "[servers.{name}]\naddresses = [\"192.0.2.0/26\", \"2001:db8:1::/121\"]\nroles = [\"dns\", \"managed\"]\n\
         [servers.web1]\naddresses = [\"192.0.2.80\", \"2001:db8:1::80\"]\nroles = [\"web\", \"managed\"]\n"
    );
    let head = dmz();
    let head = head.split_once("[servers.ns1]").expect("servers").0;
    format!("{head}{servers}{TABLES}")
}

impl Testbed {
    /// The file that keeps the quarantines.
    pub fn saved_quarantines(&self) -> PathBuf {
        self.history().join("quarantines.json")
    }

    /// What the kernel loses when the router reboots.
    pub fn reboot(&self) {
        self.remove_tracker();
        fs::remove_dir_all(self.pins()).expect("the pins");
        self.wait_for_detach();
    }

    /// Attaches a gate, so many seconds of the wall clock later.
    #[track_caller]
    pub fn attach_later(&self, policy: &str, seconds: i64) -> Outcome {
        let path = self.write("policy.toml", policy);
        let clock = self.write("clock", &seconds.to_string());
        let mut command = self.router.prepare(&["attach", "-i", NIC, "-p", &path]);
        command.env("PORTCULLIS_CLOCK_OFFSET", clock);
        Outcome::of(&mut command).done()
    }

    /// The addresses in quarantine, as `show status` lists them.
    #[track_caller]
    pub fn quarantined_addresses(&self) -> Vec<Value> {
        self.show("status")["quarantined_addresses"].as_array().expect("a list").clone()
    }
}

/// Gives the machines of the DMZ another MAC. Their neighbours are forgotten with the old one.
fn change_mac(testbed: &Testbed, mac: &str) {
    let routers = FAMILIES.map(|family| {
        format!("neighbour replace {} lladdr 02:00:00:00:00:01 dev eth0 nud permanent\n", family.router)
    });
    testbed.dmz.ip(&format!("link set eth0 address {mac}\n{}", routers.concat()));
}

#[test]
fn one_machine_of_a_prefix_is_cut_off_and_its_neighbour_works() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _ssh = TcpServer::start(&testbed.dmz, 22);
    let resolvers = FAMILIES.map(|family| UdpServer::start(&testbed.internet, family.resolver, 53));
    testbed.attach(&farm("farm"));
    let asks = |from: &str, wait: Wait| {
        let resolver = if from.contains(':') { V6.resolver } else { V4.resolver };
        udp_talks(&testbed.dmz, from, SocketAddr::new(ip(resolver), 53), wait)
    };
    for family in FAMILIES {
        assert!(asks(family.mail, ARRIVES) && asks(family.dns, ARRIVES));
    }
    let said = testbed.run("quarantine", &[V4.mail, "--for", "1h", "--address-only"]).done();
    assert!(said.out.contains("192.0.2.25 (farm) is in quarantine for 1h"), "{said:#?}");
    assert!(said.out.contains("next: portcullis release -i dmz0 192.0.2.25"), "{said:#?}");
    assert!(!asks(V4.mail, NEVER));
    assert!(asks(V4.dns, ARRIVES) && asks(V6.mail, ARRIVES) && asks(V6.dns, ARRIVES));
    assert!(testbed.dropped("farm", "udp", 53, "quarantined") >= 1);
    let bastion = ip(V4.bastion);
    let log_in =
        |server: &str, wait| tcp_talks(&testbed.internet, bastion, SocketAddr::new(ip(server), 22), wait);
    assert!(log_in(V4.mail, ARRIVES), "management stays open");

    // every command tells it
    let listed = testbed.quarantined_addresses();
    assert_eq!(
        (listed.len(), &listed[0]["address"], &listed[0]["server"]),
        (1, &json!(V4.mail), &json!("farm"))
    );
    assert!((3_000..=3_600).contains(&listed[0]["left_s"].as_u64().expect("a time")), "{listed:#?}");
    let text = testbed.run("show", &["status"]).done().out;
    assert!(text.lines().any(|line| line.starts_with("in quarantine") && line.contains("192.0.2.25 (farm)")));
    let servers = testbed.run("show", &["servers"]).done().out;
    assert!(servers.contains("192.0.2.25 (farm) is in quarantine, "), "{servers}");
    let why = testbed.run("explain", &["--from", V4.mail, "--to", V4.resolver, "udp/53"]).done().out;
    assert!(why.contains("drop: quarantined") && why.contains("release -i dmz0 192.0.2.25"), "{why}");
    let path = testbed.write("same.toml", &farm("farm"));
    let differs = testbed.run("diff", &[&path]);
    assert_eq!(differs.code, Some(1), "no file says it: {differs:#?}");
    assert!(differs.out.contains("! 192.0.2.25 (farm) is in quarantine"), "{differs:#?}");

    testbed.run("release", &[V4.mail]).done();
    assert!(asks(V4.mail, ARRIVES));
    assert!(!testbed.saved_quarantines().exists(), "nothing to keep");
    assert!(testbed.run("release", &[V4.mail]).done().out.contains("was not in quarantine"));
    testbed.run("quarantine", &["192.0.2.99"]).refused(&["no server has the address 192.0.2.99", "help:"]);
    testbed.run("quarantine", &["192.0.2.0/26"]).refused(&["is a prefix", "help:"]);
    testbed.run("quarantine", &["web1", "--address-only"]).refused(&["goes with an address"]);
    testbed.run("quarantine", &["farm"]).done();
    testbed.run("release", &[V4.dns]).refused(&["in quarantine with its server", "release -i dmz0 farm"]);
    drop(resolvers);
}

#[test]
fn a_machine_that_takes_another_address_stays_cut_off_by_the_mac_that_the_router_knows() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _resolver = UdpServer::start(&testbed.internet, V4.resolver, 53);
    let _clock = UdpServer::start(&testbed.internet, V4.clock, 123);
    testbed.attach(&farm("farm"));
    let asks =
        |from: &str, wait: Wait| udp_talks(&testbed.dmz, from, SocketAddr::new(ip(V4.resolver), 53), wait);
    assert!(asks(V4.mail, ARRIVES) && asks(V4.dns, ARRIVES));
    let said = testbed.run("quarantine", &[V4.mail, "-j"]).done().json();
    assert_eq!((&said["mac"], &said["server"]), (&json!(MAC), &json!("farm")));
    let others = said["others"].as_array().expect("a list");
    assert!(others.contains(&json!(V4.dns)) && others.contains(&json!(V6.mail)), "{said:#}");
    assert!(!others.contains(&json!(V4.web)), "another server's: {said:#}");
    // the same machine, by another of its addresses
    assert!(!asks(V4.dns, NEVER));
    let clock = SocketAddr::new(ip(V4.clock), 123);
    assert!(udp_talks(&testbed.dmz, V4.web, clock, ARRIVES), "another server is left alone");
    // another machine has that address
    let other = "02:00:00:00:00:20";
    change_mac(&testbed, other);
    testbed.router.ip(&format!("neighbour replace {} lladdr {other} dev {NIC} nud permanent\n", V4.dns));
    assert!(asks(V4.dns, ARRIVES));
    assert!(!asks(V4.mail, NEVER), "the address itself is cut off from any MAC");
    change_mac(&testbed, MAC);
    assert!(!asks(V4.dns, NEVER));
    testbed.run("release", &[V4.mail]).done();
    testbed.router.ip(&format!("neighbour replace {} lladdr {MAC} dev {NIC} nud permanent\n", V4.dns));
    assert!(asks(V4.dns, ARRIVES));
}

#[test]
fn a_server_that_apply_gives_another_name_stays_cut_off_at_every_moment() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("quarantine", &["web1"]).done();
    let tap = testbed.tap_internet();
    let renamed = dmz().replace("[servers.web1]", "[servers.shop]");
    let (before, web) = (testbed.show("status")["generation"].clone(), ip(V4.web));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (socket, done) = (udp(&testbed.dmz, V4.web, 0), &done);
        let sender = scope.spawn(move || {
            let mut sent = 0_u64;
            while !done.load(Ordering::Relaxed) {
                // a need of the role
                let _ = socket.send_to(b"time", SocketAddr::new(ip(V4.clock), 123));
                sent += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            sent
        });
        for round in 0..5 {
            let said = testbed.apply(&if round % 2 == 0 { renamed.clone() } else { dmz() });
            if round == 0 {
                let words = "! 192.0.2.80 stays in quarantine: it was web1's, and shop has it now";
                assert!(said.out.contains(words), "{said:#?}");
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(sender.join().expect("a sender") > 0);
    });
    assert_ne!(testbed.show("status")["generation"], before);
    testbed.catch_up(&tap);
    assert_eq!(tap.count(|one| one.source == web && one.destination_port == 123), 0);
    let status = testbed.show("status");
    let listed = testbed.quarantined_addresses();
    assert_eq!(status["quarantined"], json!(["web1"]));
    assert_eq!(listed.iter().map(|row| &row["server"]).collect::<Vec<_>>(), [&json!("shop"), &json!("shop")]);

    // the same by a daemon's reload
    let mut daemon = testbed.daemon(&renamed, &[]);
    testbed.write("daemon.toml", &dmz().replace("[servers.web1]", "[servers.store]"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["192.0.2.80 stays in quarantine: it was shop's, and store has it now"]);
    assert_eq!(testbed.verdict(V4.web, V4.clock, "udp/123").1, "quarantined");
    let said = testbed.run("release", &["store"]).done();
    assert!(said.out.contains("store is released"), "{said:#?}");
    assert_eq!(testbed.verdict(V4.web, V4.clock, "udp/123").0, "pass");
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_reboot_ends_no_quarantine_and_takes_its_time_from_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&farm("farm"));
    testbed.run("quarantine", &["web1", "--for", "1h"]).done();
    testbed.run("quarantine", &[V4.mail]).done();
    testbed.run("quarantine", &[V4.dns, "--for", "5m", "--address-only"]).done();
    let file = testbed.saved_quarantines();
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&testbed.history()), mode(&file)), (0o700, 0o600));
    testbed.reboot();

    // while a need of each asks all the time
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        for server in [V4.web, V4.mail] {
            let (socket, done) = (udp(&testbed.dmz, server, 0), &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let _ = socket.send_to(b"time", SocketAddr::new(ip(V4.clock), 123));
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
        }
        let said = testbed.attach_later(&farm("farm"), 600);
        eventually("the gate judges", || testbed.dropped("web1", "udp", 123, "quarantined") > 10);
        eventually("the gate judges", || testbed.dropped("farm", "udp", 123, "quarantined") > 10);
        done.store(true, Ordering::Relaxed);
        said
    });
    // not one packet came before the quarantines
    let gate = testbed.open_gate();
    let needs =
        gate.counters(false).expect("counters").into_iter().find(|(reason, ..)| *reason == Reason::Need);
    assert!(needs.is_none_or(|(_, packets, _)| packets == 0), "{needs:?}");

    assert!(
        said.out.contains("as before: web1 is in quarantine for 49m") || said.out.contains("for 50m"),
        "{said:#?}"
    );
    assert!(
        said.out.contains("as before: 192.0.2.25 (farm) is in quarantine until it is released"),
        "{said:#?}"
    );
    assert!(!said.out.contains(V4.dns), "its time is over: {said:#?}");
    let left: Vec<Value> = testbed.quarantined_addresses();
    assert_eq!((left.len(), &left[0]["left_s"], &left[0]["mac"]), (1, &json!(null), &json!(MAC)));
    let servers = testbed.show("servers");
    let web = servers["quarantined"][0][1].as_u64().expect("seconds");
    assert!((2_700..=3_000).contains(&web), "{web}");
    // the MAC as well
    let answer =
        testbed.run("explain", &["--from", V4.dns, "--to", V4.resolver, "udp/53", "--mac", MAC, "-j"]);
    assert_eq!(answer.done().json()["reason"], "quarantined");
    testbed.run("release", &["web1"]).done();
    assert_eq!(testbed.verdict(V4.web, V4.clock, "udp/123").0, "pass");
    // released, it does not come back
    testbed.reboot();
    testbed.attach(&farm("farm"));
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
    assert_eq!(testbed.quarantined_addresses().len(), 1);
    // under another name it does
    testbed.reboot();
    testbed.attach(&farm("pool"));
    assert_eq!(testbed.quarantined_addresses()[0]["server"], "pool");
    testbed.run("quarantine", &["pool"]).done();
    testbed.run("release", &[V4.mail]).done();
    testbed.reboot();
    testbed.attach(&farm("farm"));
    assert_eq!(testbed.verdict(V4.dns, V4.resolver, "udp/53").1, "quarantined");
    assert_eq!(testbed.show("status")["quarantined"], json!(["pool"]));
}

#[test]
fn a_detach_keeps_the_quarantines_for_the_next_attach_and_says_so() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("quarantine", &["web1"]).done();
    testbed.run("quarantine", &[V4.mail, "--for", "1h"]).done();
    let said = testbed.detach();
    assert!(said.out.contains("the next attach puts back into quarantine: web1, 192.0.2.25"), "{said:#?}");
    testbed.run("release", &["ns1"]).refused(&["there is no gate on dmz0"]);
    testbed
        .run("release", &[V4.web])
        .refused(&["192.0.2.80 waits with its server", "portcullis release -i dmz0 web1"]);
    let said = testbed.run("release", &["web1"]).done();
    assert!(said.out.contains("the next attach does not put it back"), "{said:#?}");
    let said = testbed.attach(&dmz());
    assert!(
        said.out.contains("192.0.2.25 (mx1) is in quarantine for ") && !said.out.contains("web1"),
        "{said:#?}"
    );
    testbed.run("release", &[V4.mail]).done();
    assert!(!testbed.detach().out.contains("quarantine"));
}

#[test]
fn a_damaged_file_of_quarantines_is_put_aside_and_the_gate_is_attached() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    testbed.run("quarantine", &["mx1"]).done();
    testbed.reboot();
    let file = testbed.saved_quarantines();
    fs::write(&file, "{\"version\": 1, \"servers\": [").expect("a file");
    let said = testbed.attach(&dmz());
    let aside = file.with_added_extension("damaged");
    assert!(said.err.contains("what was in quarantine before is free now"), "{said:#?}");
    assert!(said.err.contains(&aside.display().to_string()) && aside.exists() && !file.exists(), "{said:#?}");
    testbed.prove_drops(&tap, 1);
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
}

#[test]
fn a_file_that_can_not_be_read_just_now_is_kept_for_the_next_attach() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("quarantine", &["mx1"]).done();
    testbed.reboot();
    // as if its disk did not answer
    let (file, elsewhere) = (testbed.saved_quarantines(), testbed.history().join("elsewhere"));
    fs::rename(&file, &elsewhere).expect("a file");
    fs::create_dir(&file).expect("a folder");
    let said = testbed.attach(&dmz());
    assert!(said.err.contains("can't be read") && said.err.contains("it stays as it is"), "{said:#?}");
    let said = testbed.run("quarantine", &["web1"]).done();
    assert!(said.err.contains("has quarantines that could not be read"), "{said:#?}");
    assert!(file.is_dir(), "nobody writes over it");
    fs::remove_dir(&file).expect("the folder");
    fs::rename(&elsewhere, &file).expect("a file");
    let said = testbed.attach(&dmz());
    assert!(said.out.contains("as before: mx1 is in quarantine"), "{said:#?}");
    assert_eq!(testbed.show("status")["quarantined"], json!(["mx1", "web1"]));
    testbed.run("release", &["mx1"]).done();
    testbed.reboot();
    testbed.attach(&dmz());
    assert_eq!(testbed.show("status")["quarantined"], json!(["web1"]));
}

#[test]
fn a_quarantine_that_can_not_be_saved_holds_and_says_so() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let _ = fs::remove_dir_all(testbed.history());
    fs::create_dir_all(testbed.history().parent().expect("a folder")).expect("a folder");
    fs::write(testbed.history(), "no folder").expect("a file");
    let said = testbed.run("quarantine", &["web1"]).done();
    assert!(said.err.contains("it is not saved"), "{said:#?}");
    assert_eq!(testbed.verdict(V4.web, V4.clock, "udp/123").1, "quarantined");
    testbed.run("release", &["web1"]).done();
    assert_eq!(testbed.verdict(V4.web, V4.clock, "udp/123").0, "pass");
    fs::remove_file(testbed.history()).expect("the file");
}

#[test]
fn an_alarm_about_a_prefix_cuts_off_its_machine_and_the_next_attach_knows() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let asked = "\n[alarms]\nquarantine_on = [\"attempt\"]\nquarantine_for = \"1h\"\n";
    let policy = format!("{}{asked}", farm("farm"));
    let mut daemon = testbed.daemon(&policy, &[]);
    testbed.wait_for_consumer();
    let send = |from: &str| {
        let socket = udp(&testbed.dmz, from, 0);
        socket.send_to(b"out", (V4.peer, FORBIDDEN)).expect("a datagram");
    };
    send(V4.mail);
    daemon.wait_for_line(&[
        "192.0.2.25 (farm, with its MAC 02:00:00:00:00:10) was put into quarantine for 1h by this alarm",
        "portcullis release -i dmz0 192.0.2.25",
    ]);
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
    assert_eq!(testbed.quarantined_addresses()[0]["mac"], MAC);
    assert_eq!(testbed.verdict(V4.dns, V4.resolver, "udp/53").0, "pass", "from another MAC");
    eventually("it is saved", || testbed.saved_quarantines().exists());
    daemon.end(Signal::SIGKILL);
    testbed.reboot();
    let daemon = testbed.daemon(&policy, &[]);
    daemon.wait_for_line(&["as before: 192.0.2.25 (farm) is in quarantine for "]);
    assert_eq!(testbed.verdict(V4.mail, V4.resolver, "udp/53").1, "quarantined");
}

#[test]
fn a_clock_that_is_far_ahead_frees_nobody_and_a_later_one_ends_no_more_than_was_to_end() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&farm("farm"));
    testbed.run("quarantine", &["web1", "--for", "1h"]).done();
    testbed.run("quarantine", &[V4.mail, "--for", "2h"]).done();
    testbed.reboot();
    // 2106, as a clock without a battery may begin
    let said = testbed.attach_later(&farm("farm"), 80 * 365 * 86_400);
    assert!(said.err.contains("these quarantines ended long ago: web1, 192.0.2.25"), "{said:#?}");
    let left = |what: &str| {
        testbed.show("servers")["quarantined"][0][1].as_u64().unwrap_or_else(|| panic!("no time of {what}"))
    };
    assert!((3_500..=3_600).contains(&left("web1")));
    assert_eq!(testbed.quarantined_addresses()[0]["address"], V4.mail);
    // and the clock is set
    testbed.reboot();
    testbed.attach(&farm("farm"));
    assert!((3_400..=3_600).contains(&left("web1")));
    // an hour by a clock that may be right
    testbed.reboot();
    let said = testbed.attach_later(&farm("farm"), 4_000);
    assert_eq!((&testbed.show("status")["quarantined"], said.err.contains("long ago")), (&json!([]), false));
    assert_eq!(testbed.quarantined_addresses()[0]["address"], V4.mail);
}

#[test]
fn quarantines_that_could_not_be_put_back_are_not_written_over() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("quarantine", &["mx1"]).done();
    testbed.reboot();
    let file = testbed.saved_quarantines();
    // more than the tables of this policy hold
    let mut saved: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
    let since = saved["servers"][0]["since"].clone();
    let rows =
        (0..300).map(|number| json!({ "address": format!("198.51.100.{}", number % 256), "since": since }));
    let more =
        (0..300).map(|number| json!({ "address": format!("203.0.113.{}", number % 256), "since": since }));
    saved["addresses"] = rows.chain(more).collect();
    let text = saved.to_string();
    fs::write(&file, &text).expect("a file");
    let said = testbed.attach(&dmz());
    assert!(said.err.contains("could not be put back"), "{said:#?}");
    assert_eq!(testbed.show("status")["quarantined"], json!(["mx1"]), "what can be is");
    let said = testbed.run("quarantine", &["web1"]);
    assert!(said.err.contains("could not be read or put back"), "{said:#?}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), text);
}

#[test]
fn a_detach_says_that_the_file_of_quarantines_can_not_be_read() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("quarantine", &["mx1"]).done();
    testbed.reboot();
    fs::write(testbed.saved_quarantines(), "{\"version\": 1, \"servers\": [{}]}").expect("a file");
    let said = testbed.detach();
    assert!(said.err.contains("not all of what is in quarantine is known"), "{said:#?}");
}
