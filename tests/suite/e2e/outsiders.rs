//! What anybody outside can make real servers send: nothing of it is an alarm above low, or cuts a server off.
//! `docs/alarms.md` has the table, and `src/alarm/causes.rs` the rule.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use portcullis::abi::{REASONS, Reason};
use portcullis::alarm::{Causer, can_cause};
use serde_json::Value;

use super::calm::CalmCheck;
use super::evasion::attack::Tool;
use super::legitimate::relay::Relay;
use super::policies::dmz;
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, connect, tcp_talks, udp};
use super::testbed::{Cut, FAMILIES, Testbed, V4, V6, ip, share_machine};
use super::traffic::FORBIDDEN;
use crate::support::patience::eventually;

/// What outsiders type. WEB, NS and WEB6 are servers.
const ATTEMPTS: &[&str] = &[
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sS -p 20-79,81-200 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sA -p 20-120 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sW -p 75-90 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sF -p 75-90 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sN -p 75-90 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sX -p 75-90 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sM -p 75-90 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 --scanflags SYNFIN -sS -p 80,81 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 --badsum -sS -p 80,81 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sU -p 50-60,123,161 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sU -p 50-60 NS",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sY -p 80,443 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sZ -p 80,443 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sO -p 0-255 WEB",
    "nmap -n -Pn --max-retries 0 --min-rate 300 -S PEER -e eth0 -sS -f -p 79-82 WEB",
    "nmap -6 -n -Pn --max-retries 0 --min-rate 300 -S PEER6 -e eth0 -sS -p 20-79,81-120 WEB6",
    "nmap -6 -n -Pn --max-retries 0 --min-rate 300 -S PEER6 -e eth0 -sU -p 50-60 WEB6",
    "nmap -6 -n -Pn --max-retries 0 --min-rate 300 -S PEER6 -e eth0 -sO -p 0-255 WEB6",
    "ping -n -q -c 5 -i 0.2 -s 40000 -I PEER WEB",
    "ping -6 -n -q -c 5 -i 0.2 -s 40000 -I PEER6 WEB6",
    "hping3 -q -c 5 -i u100000 -a PEER --icmp -C 13 WEB",
    "hping3 -q -c 5 -i u100000 -a PEER --icmp -C 17 WEB",
    "hping3 -q -c 5 -i u100000 -a PEER --icmp -C 3 -K 1 WEB",
    // the first half of a datagram: the server says so when it gives up
    "hping3 -q -c 5 -i u100000 -a PEER --udp -p 80 -x -d 64 WEB",
    "hping3 -q -c 5 -i u100000 -a PEER --rawip -H 47 -d 64 WEB",
    // nobody asks anything
    "hping3 -q -c 20 -i u20000 -a PEER -S -A -p 80 WEB",
    "hping3 -q -c 20 -i u20000 -a PEER -R -p 80 WEB",
];

/// Where each reason is played that the table says an outsider can cause.
const PLAYED: &[(Reason, &str, &str)] = &[
    (Reason::Backscatter, include_str!("outsiders.rs"), PLAY),
    (Reason::Stranger, include_str!("outsiders.rs"), PLAY),
    (
        Reason::Denied,
        include_str!("edits.rs"),
        "a_denial_cuts_an_open_connection_at_once_and_lets_it_go_on_afterwards",
    ),
    (
        Reason::Fragment,
        include_str!("outsiders.rs"),
        "big_answers_whose_pieces_overtake_each_other_are_a_low_stray_and_have_nobody_cut_off",
    ),
    (
        Reason::Rate,
        include_str!("outsiders.rs"),
        "visitors_who_make_a_mail_server_bounce_raise_a_burst_and_have_nobody_cut_off",
    ),
    (
        Reason::NoFlow,
        include_str!("late_answers.rs"),
        "answers_that_outlive_their_flows_are_stray_and_those_that_nobody_asked_for_are_a_worm",
    ),
    (
        Reason::Elsewhere,
        include_str!("elsewhere.rs"),
        "what_a_switch_floods_is_no_alarm_and_what_is_for_the_router_is",
    ),
];
const PLAY: &str = "nobody_outside_raises_an_alarm_above_low_or_has_a_server_cut_off";

/// Longer than any of them takes.
const DEADLINE: Duration = Duration::from_secs(10);

fn run(testbed: &Testbed, line: &str) {
    let names = [("WEB6", V6.web), ("PEER6", V6.peer), ("WEB", V4.web), ("PEER", V4.peer), ("NS", V4.dns)];
    let mut words = line.split(' ').map(|word| {
        names.iter().find(|(name, _)| *name == word).map_or(word, |(_, address)| *address).to_owned()
    });
    let mut command = testbed.internet.command(words.next().expect("a program"));
    command.args(words).current_dir(&testbed.folder).stdout(Stdio::null());
    Tool::start(command).end_within(DEADLINE);
}

fn count(testbed: &Testbed, reason: &str) -> u64 {
    testbed.drops().iter().filter(|row| row.0["reason"] == reason).map(super::command::Row::packets).sum()
}

#[track_caller]
fn prove_harmless(testbed: &Testbed, what: &str) {
    let alarms = testbed.alarms(&[]);
    let is_low = |alarm: &&Value| alarm["severity"] == "low";
    let severe: Vec<&Value> = alarms.iter().filter(|alarm| !is_low(alarm)).collect();
    assert!(severe.is_empty(), "{what}: {severe:#?}");
}

/// What the servers' answers were dropped for is what the table says an outsider can cause. Answers over SCTP
/// are the one exception.
#[track_caller]
fn prove_reasons(testbed: &Testbed) {
    let is_known = |row: &super::command::Row| {
        let reason = REASONS.iter().find(|reason| row.0["reason"] == reason.to_string());
        reason.is_some_and(|reason| can_cause(*reason, Causer::Outsider)) || row.0["proto"] == "sctp"
    };
    let rows = testbed.drops();
    let others: Vec<_> = rows.iter().filter(|row| !is_known(row)).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn every_reason_that_an_outsider_can_cause_is_played() {
    let outside = REASONS.iter().filter(|reason| can_cause(**reason, Causer::Outsider));
    let outside: BTreeSet<String> = outside.map(ToString::to_string).collect();
    let played: BTreeSet<String> = PLAYED.iter().map(|(reason, ..)| reason.to_string()).collect();
    assert_eq!(outside, played);
    for (reason, file, test) in PLAYED {
        assert!(file.contains(&format!("#[test]\nfn {test}()")), "{reason}: no test {test}");
    }
}

#[test]
fn visitors_who_make_a_mail_server_bounce_raise_a_burst_and_have_nobody_cut_off() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (_mail, _exchanger) = (TcpServer::start(&testbed.dmz, 25), TcpServer::start(&testbed.internet, 25));
    let check =
        CalmCheck::start(&testbed, &dmz().replacen("out = [\"tcp/25\"", "out = [\"tcp/25 limit 3/m\"", 1));
    let mut bounced = 0;
    for number in 0..12 {
        let family = FAMILIES[number % 2];
        let (server, visitor) = (ip(family.mail), ip(family.peer));
        assert!(
            tcp_talks(&testbed.internet, visitor, SocketAddr::new(server, 25), ARRIVES),
            "no mail came in"
        );
        // nobody of that name here
        bounced += usize::from(connect(&testbed.dmz, server, SocketAddr::new(visitor, 25), NEVER).is_ok());
    }
    assert!((1..12).contains(&bounced), "{bounced} bounces went out");
    check.daemon.wait_for_line(&["opened: high burst: mx1"]);
    let alarms = check.severe_alarms();
    let kinds: Vec<_> = alarms.iter().flat_map(|alarm| alarm["parts"].as_array().expect("a list")).collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|part| part["kind"] == "burst"), "{alarms:#?}");
    assert_eq!(testbed.show("status")["quarantined"], serde_json::json!([]));
}

#[test]
fn big_answers_whose_pieces_overtake_each_other_are_a_low_stray_and_have_nobody_cut_off() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _relay = Relay::splice(&testbed, Cut::Dmz);
    // they say what they hear
    let _names = FAMILIES.map(|family| UdpServer::start(&testbed.dmz, family.dns, 53));
    let asked = "\n[alarms]\nquarantine_on = [\"attempt\", \"scan\", \"backdoor\", \"spread\"]\n";
    let _daemon = testbed.daemon(&format!("{}{asked}", dmz()), &[]);
    testbed.wait_for_consumer();
    eventually("a later piece comes before its first one", || {
        for family in FAMILIES {
            let socket = udp(&testbed.internet, family.peer, 0);
            socket.send_to(&[b'?'; 8_000], (ip(family.dns), 53)).expect("a datagram");
        }
        count(&testbed, "fragment") > 0
    });
    eventually("it is reported", || !testbed.alarms(&[]).is_empty());
    prove_reasons(&testbed);
    prove_harmless(&testbed, "answers in pieces");
    assert_eq!(testbed.show("status")["quarantined"], serde_json::json!([]));
}

#[test]
fn nobody_outside_raises_an_alarm_above_low_or_has_a_server_cut_off() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    for key in ["ipv4/ipfrag_time", "ipv6/ip6frag_time"] {
        testbed.dmz.set_sysctl(key, "1");
    }
    // whatever may be asked for
    testbed.dmz.set_sysctl("ipv4/icmp_ratelimit", "0");
    let _web = TcpServer::start(&testbed.dmz, 80);
    // for the management alone
    let _login = TcpServer::start(&testbed.dmz, 22);
    let _names = FAMILIES.map(|family| UdpServer::start(&testbed.dmz, family.dns, 53));
    let asked = "\n[alarms]\nquarantine_on = [\"attempt\", \"fetch\", \"callback\", \"scan\", \"backdoor\", \
                 \"spread\"]\n";
    let mut daemon = testbed.daemon(&format!("{}{asked}", dmz()), &[]);
    testbed.wait_for_consumer();
    let play = || {
        std::thread::scope(|scope| {
            let attempts: Vec<_> = ATTEMPTS.iter().map(|line| scope.spawn(|| run(&testbed, line))).collect();
            attempts.into_iter().for_each(|attempt| attempt.join().expect("an attempt"));
        });
        for family in FAMILIES {
            // a visitor that goes away in the midst of it, and one that asks and never listens
            let web = SocketAddr::new(ip(family.web), 80);
            assert!(tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES) || is_cut_off(&testbed));
            let socket = udp(&testbed.internet, family.peer, 0);
            socket.send_to(b"what is my name", (ip(family.dns), 53)).expect("a datagram");
        }
    };
    play();
    eventually("the servers' answers were dropped", || count(&testbed, "backscatter") > 100);
    assert!(count(&testbed, "stranger") > 0, "the login was open to everybody");
    prove_reasons(&testbed);
    prove_harmless(&testbed, "by the roles");
    assert_eq!(testbed.show("status")["quarantined"], serde_json::json!([]));

    // nor about a server that somebody has put into quarantine
    for server in ["web1", "ns1"] {
        testbed.run("quarantine", &[server]).done();
    }
    let before = count(&testbed, "quarantined");
    play();
    eventually("the servers' answers were dropped", || count(&testbed, "quarantined") > before + 100);
    prove_harmless(&testbed, "in quarantine");

    // the same daemon tells of what a server does by itself
    testbed.run("release", &["web1"]).done();
    testbed.send_from_web(FORBIDDEN, 1);
    daemon.wait_for_line(&["opened: high attempt", "web1", "udp/4000"]);
    eventually("and cuts it off", || is_cut_off(&testbed));
    daemon.end(Signal::SIGTERM);
}

fn is_cut_off(testbed: &Testbed) -> bool {
    testbed.show("status")["quarantined"]
        .as_array()
        .is_some_and(|list| list.iter().any(|name| name == "web1"))
}
