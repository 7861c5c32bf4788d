//! The way of docs/adopt.md: from a DMZ that nobody has written down to a live policy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::Running;
use super::policies::{SETS_AND_SERVERS, TABLES};
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, tcp_talks, udp_talks};
use super::tap::Tap;
use super::testbed::{FAMILIES, Family, NIC, Testbed, V4, ip, share_machine};
use crate::support::capture::{ETHERNET, Timed, pcap, write};
use crate::support::patience::eventually;

fn start_servers(testbed: &Testbed) -> (Vec<TcpServer>, Vec<UdpServer>) {
    let inside = [22, 25, 53, 80, 443].map(|port| TcpServer::start(&testbed.dmz, port));
    let outside = [21, 25].map(|port| TcpServer::start(&testbed.internet, port));
    let mut datagrams = Vec::new();
    for family in FAMILIES {
        datagrams.push(UdpServer::start(&testbed.dmz, family.dns, 53));
        for (address, port) in [(family.resolver, 53), (family.loghost, 514), (family.clock, 123)] {
            datagrams.push(UdpServer::start(&testbed.internet, address, port));
        }
    }
    (inside.into_iter().chain(outside).collect(), datagrams)
}

/// All that these servers do, once.
#[track_caller]
fn do_the_days_work(testbed: &Testbed) {
    let (inside, outside) = (&testbed.dmz, &testbed.internet);
    let tcp = |machine, from: &str, to: &str, port| {
        let target = SocketAddr::new(ip(to), port);
        assert!(tcp_talks(machine, ip(from), target, ARRIVES), "{from} to {to} tcp/{port}");
    };
    let udp = |machine, from: &str, to: &str, port| {
        let target = SocketAddr::new(ip(to), port);
        assert!(udp_talks(machine, from, target, ARRIVES), "{from} to {to} udp/{port}");
    };
    for Family { web, mail, dns, bastion, peer, resolver, exchanger, loghost, clock, .. } in FAMILIES {
        tcp(outside, peer, web, 80);
        tcp(outside, peer, web, 443);
        tcp(outside, exchanger, mail, 25);
        tcp(outside, peer, dns, 53);
        udp(outside, peer, dns, 53);
        tcp(inside, mail, exchanger, 25);
        udp(inside, dns, resolver, 53);
        for server in [web, mail, dns] {
            udp(inside, server, loghost, 514);
            udp(inside, server, clock, 123);
            tcp(outside, bastion, server, 22);
        }
    }
}

/// A capture of two days. The second takes as long as the first, so that nothing begins at the very end.
fn capture_two_days(testbed: &Testbed) -> Vec<Timed> {
    let frames: Arc<Mutex<Vec<Timed>>> = Arc::default();
    let (kept, began) = (Arc::clone(&frames), Instant::now());
    let keep = move |frame: &[u8]| {
        kept.lock().expect("the frames").push((began.elapsed().as_millis() as u64, frame.to_vec()));
    };
    let tap = Tap::watching(&testbed.dmz, "eth0", keep, |_| true);
    do_the_days_work(testbed);
    let day = began.elapsed();
    while began.elapsed() < 2 * day {
        do_the_days_work(testbed);
    }
    testbed.catch_up_inside(&tap);
    let frames = frames.lock().expect("the frames");
    frames.clone()
}

/// Services that were dropped, or would have been, apart from the noise of closed connections.
fn list_drops(testbed: &Testbed) -> Vec<String> {
    let rows = testbed.drops();
    let loud = rows.iter().filter(|row| row.0["reason"] != "backscatter");
    let mut services: Vec<String> = loud
        .map(|row| format!("{}/{}", row.0["proto"].as_str().unwrap_or_default(), row.0["port"]))
        .collect();
    services.sort();
    services.dedup();
    services
}

#[test]
fn a_dmz_that_nobody_wrote_down_gets_a_policy_and_goes_on_working_when_it_is_enforced() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _servers = start_servers(&testbed);
    let router = &testbed.router;

    // capture, learn
    let frames = capture_two_days(&testbed);
    let capture = write(&testbed.folder, "link.pcap", &pcap(ETHERNET, &frames)).display().to_string();
    router.portcullis(&["learn", &capture]).refused(&["which addresses are servers"]);
    let learned = testbed.folder.join("dmz0.toml").display().to_string();
    router.portcullis(&["learn", "-i", NIC, "-o", &learned, &capture]).done();
    let text = std::fs::read_to_string(&learned).expect("a policy") + TABLES;
    let learned = testbed.write("dmz0.toml", &text);

    // check, test, replay
    router.portcullis(&["check", &learned]).done();
    router.portcullis(&["test", &learned]).done();
    let replayed = router.portcullis(&["replay", "-j", "-p", &learned, &capture]).done().json();
    assert_eq!(replayed["drops"].as_array().map(Vec::len), Some(0), "{}\n{text}", replayed["drops"]);

    // observe
    testbed.attach(&text);
    do_the_days_work(&testbed);
    assert!(list_drops(&testbed).is_empty(), "{:#?}", testbed.show("drops"));
    let target = SocketAddr::new(ip(V4.peer), 21);
    assert!(tcp_talks(&testbed.dmz, ip(V4.web), target, ARRIVES), "observing drops nothing");

    // enforce, on trial
    let enforced = testbed.write("enforced.toml", &text.replace("mode = \"observe\"", "mode = \"enforce\""));
    testbed.run("apply", &[&enforced, "--confirm", "10m"]).done();
    do_the_days_work(&testbed);
    assert!(!tcp_talks(&testbed.dmz, ip(V4.web), target, NEVER), "nobody has seen this");
    testbed.run("confirm", &[]).done();
    assert!(testbed.dropped("web1", "tcp", 21, "new_flow") > 0, "{:#?}", testbed.show("drops"));
    assert_eq!(list_drops(&testbed), ["tcp/21"], "nothing else: {:#?}", testbed.show("drops"));
}

/// The servers, and none of their needs.
fn skeleton() -> String {
    let servers = SETS_AND_SERVERS.replace(r#"roles = ["dns", "managed"]"#, "roles = []");
    let servers = servers.replace(r#"roles = ["mail", "managed"]"#, "roles = []");
    let servers = servers.replace(r#"roles = ["web", "managed"]"#, "roles = []");
    format!("[policy]\nmode = \"observe\"\npickup = 0\n{servers}{TABLES}")
}

/// Needs with the servers that get them.
fn list_needs(learned: &serde_json::Value) -> Vec<String> {
    let rows = learned["proposed"].as_array().expect("a list").iter();
    let mut needs: Vec<String> =
        rows.map(|row| format!("{} {} {}", row["servers"], row["direction"], row["need"])).collect();
    needs.sort();
    needs
}

#[test]
fn a_gate_that_observes_remembers_what_its_servers_need_and_no_death_costs_any_of_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _servers = start_servers(&testbed);
    let mut daemon = testbed.daemon(&skeleton(), &[]);
    let began = Instant::now();
    do_the_days_work(&testbed);
    let day = began.elapsed();
    daemon.end(Signal::SIGKILL);
    // a day without a daemon, and one with the next
    do_the_days_work(&testbed);
    let mut daemon = testbed.daemon(&skeleton(), &[]);
    while began.elapsed() < 3 * day {
        do_the_days_work(&testbed);
    }
    let learn = |more: &[&str]| testbed.run("learn", &[&["--from", "7d"], more].concat());
    let kept = learn(&["-j"]).done().json();
    let counted = kept["openings"].as_u64().expect("a number");
    assert!(counted > 0, "{kept:#}");

    // the file has it too, once the daemon has ended, and nothing is counted twice
    daemon.end(Signal::SIGTERM);
    assert!(testbed.history().join("evidence.json").exists());
    let again = learn(&["-j"]).done().json();
    assert_eq!((&again["openings"], list_needs(&again)), (&kept["openings"], list_needs(&kept)));
    testbed.detach();
    testbed.attach(&skeleton());
    let after = learn(&["-j"]).done().json();
    assert_eq!(after["openings"], kept["openings"], "a gate of before");

    // it is a policy, by which nothing would be dropped
    let text =
        kept["text"].as_str().expect("a policy").replacen("[policy]\n", "[policy]\npickup = 0\n", 1) + TABLES;
    let learned = testbed.write("learned.toml", &text);
    testbed.router.portcullis(&["check", &learned]).done();
    testbed.router.portcullis(&["test", &learned]).done();
    testbed.detach();
    testbed.attach(&text);
    do_the_days_work(&testbed);
    assert!(list_drops(&testbed).is_empty(), "{:#?}\n{text}", testbed.show("drops"));

    // what the policy has is no news, and what it lacks is a patch
    let target = SocketAddr::new(ip(V4.peer), 21);
    let pause = Instant::now();
    assert!(tcp_talks(&testbed.dmz, ip(V4.mail), target, ARRIVES));
    while pause.elapsed() < day {
        do_the_days_work(&testbed);
    }
    let patch = learn(&["--against", &learned]).done().out;
    let added: Vec<&str> =
        patch.lines().filter(|line| line.starts_with('+') && line.contains("tcp/")).collect();
    assert!(added.iter().all(|line| line.contains("tcp/21")), "{patch}");
    assert!(patch.contains("tcp/21"), "{patch}");
}

#[test]
fn a_gate_that_enforces_is_learnt_from_for_a_while_and_keeps_nothing_before_and_after() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _servers = start_servers(&testbed);
    testbed.attach(&super::policies::dmz());
    do_the_days_work(&testbed);
    testbed.run("learn", &["--from", "1h"]).refused(&["has kept nothing yet", "--for"]);
    let learner = Running::start(testbed.router.prepare(&["learn", "-i", NIC, "--for", "1h", "-j"]));
    let gate = testbed.open_gate();
    eventually("the gate keeps evidence", || {
        do_the_days_work(&testbed);
        gate.has_evidence().expect("the table")
    });
    do_the_days_work(&testbed);
    let pid = Pid::from_raw(learner.pid().cast_signed());
    kill(pid, Signal::SIGINT).expect("a signal");
    let learned = learner.outcome().done().json();
    assert!(
        list_needs(&learned).iter().any(|need| need.contains("ns1") && need.contains("udp/53")),
        "{learned:#}"
    );
    let notes = learned["notes"].to_string();
    assert!(notes.contains("the gate enforces"), "{notes}");
    // it has ended, and what was kept goes on for nobody
    let before = gate.evidence().expect("the table");
    eventually("nothing more is kept", || {
        let before = gate.evidence().expect("the table");
        do_the_days_work(&testbed);
        gate.evidence().expect("the table") == before
    });
    assert!(!before.is_empty());
}
