//! What a person gets to read: one alarm for what one server does, with everybody who took part, and a word
//! when nothing is dropped any more.

use std::fs;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::evasion::attack::Tool;
use super::policies::{dmz, dmz_with};
use super::quarantines::farm;
use super::testbed::{Testbed, V4, ip, share_machine};
use crate::support::frame::{SYN, from_mac, tcp};
use crate::support::patience::eventually;

/// The ports that nmap tries first.
const TOP_PORTS: &str =
    "80,23,443,21,22,25,3389,110,445,139,143,53,135,3306,8080,1723,111,995,993,5900,1025,587";

/// Alarms about this server that are more than low.
fn severe_alarms(testbed: &Testbed, server: &str) -> Vec<Value> {
    let mut alarms = testbed.alarms(&[]);
    alarms.retain(|alarm| alarm["severity"] != "low" && alarm["server"] == server);
    alarms
}

fn count(list: &Value) -> usize {
    list["first"].as_array().map_or(0, Vec::len)
}

#[test]
fn nmap_of_22_ports_of_one_host_is_one_alarm_and_its_second_line_says_scan() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    let mut command = testbed.dmz.command("nmap");
    command
        .args(["-n", "-Pn", "--max-retries", "0", "--min-rate", "500", "-e", "eth0", "-sS", "-S", V4.web])
        .args(["-p", TOP_PORTS, V4.peer])
        .stdout(Stdio::null());
    Tool::start(command).end_within(Duration::from_secs(10));
    daemon.wait_for_line(&["escalated: critical scan", "web1 tried"]);
    eventually("every drop is in it", || {
        let alarms = severe_alarms(&testbed, "web1");
        alarms.iter().filter_map(|alarm| alarm["packets"].as_u64()).sum::<u64>() >= 22
    });
    let alarms = severe_alarms(&testbed, "web1");
    let kinds: Vec<_> = alarms.iter().map(|alarm| (&alarm["kind"], count(&alarm["ports"]))).collect();
    assert_eq!(kinds.len(), 1, "{alarms:#?}");
    assert_eq!(kinds[0].0, "scan", "{alarms:#?}");
    let lines = daemon.find(&["web1", "alarm #1 "]);
    let pages = lines.iter().filter(|line| !line.contains(" updated: ")).count();
    assert!(pages <= 2, "{lines:#?}");
}

#[test]
fn a_worm_at_31_hosts_within_seconds_is_a_spread_and_the_first_sixteen_are_named() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    for number in 100..131_u8 {
        let to = IpAddr::from([198, 51, 100, number]);
        testbed.dmz.inject("eth0", &tcp((ip(V4.web), 40_000 + u16::from(number)), (to, 22), SYN));
        // as long as a connect scan takes for the next one
        #[expect(clippy::disallowed_methods, reason = "the worm's pace")]
        std::thread::sleep(Duration::from_millis(77));
    }
    daemon.wait_for_line(&["escalated: critical spread", "web1 tried tcp/22"]);
    eventually("sixteen destinations are named", || {
        severe_alarms(&testbed, "web1").iter().any(|alarm| count(&alarm["destinations"]) == 16)
    });
    assert_eq!(severe_alarms(&testbed, "web1").len(), 1);
}

#[test]
fn a_time_server_and_a_resolver_that_the_policy_forgot_are_no_reverse_shell() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    let folder = testbed.folder.display();
    let settings = format!(
        "server 198.51.100.99 iburst\nbindacqaddress {}\nport 0\ncmdport 0\nbindcmdaddress /\n\
         pidfile {folder}/chronyd.pid\ndriftfile {folder}/drift\n",
        V4.web
    );
    let settings = testbed.write("chronyd.conf", &settings);
    let mut command = testbed.dmz.command("chronyd");
    command.args(["-x", "-d", "-u", "root", "-F", "0", "-f", &settings]);
    let clock = Tool::start(command);
    // six attempts, one a second, with EDNS and a cookie
    let mut command = testbed.dmz.command("dig");
    command.args(["-r", "-b", V4.web, "@198.51.100.98", "+time=1", "+tries=6", "deb.vendor.example"]);
    Tool::start(command).end_within(Duration::from_secs(20));
    eventually("both have asked again and again", || {
        testbed.dropped("web1", "udp", 123, "destination") >= 4
            && testbed.dropped("web1", "udp", 53, "new_flow") >= 6
    });
    drop(clock);
    let is_whole = |alarm: &Value| alarm["parts"].as_array().map(Vec::len) == Some(2);
    eventually("the alarm has both", || severe_alarms(&testbed, "web1").iter().any(is_whole));
    let alarms = severe_alarms(&testbed, "web1");
    assert_eq!(alarms.len(), 1, "{alarms:#?}");
    let parts = alarms[0]["parts"].as_array().expect("a list");
    for part in parts {
        assert_eq!((&part["kind"], &part["severity"]), (&json!("attempt"), &json!("medium")), "{alarms:#?}");
        assert!(
            part["seen"].as_str().expect("a text").contains("that the policy does not know"),
            "{part:#?}"
        );
    }
    let next = alarms[0]["next"].as_array().expect("a list");
    assert!(next[0].as_str().expect("a text").starts_with("policy: "), "{next:#?}");
    assert!(!next.iter().any(|step| step.as_str().expect("a text").contains("quarantine")), "{next:#?}");
}

#[test]
fn each_of_seven_machines_of_a_prefix_is_named_and_cut_off_and_whom_they_impersonate_is_not() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let asked = "\n[alarms]\nquarantine_on = [\"attempt\"]\nquarantine_for = \"1h\"\n";
    let daemon = testbed.daemon(&format!("{}{asked}", farm("farm")), &[]);
    testbed.wait_for_consumer();
    let send = |last: u8, mac: u8| {
        let from = (IpAddr::from([192, 0, 2, last]), 40_000);
        let frame = tcp(from, (ip(V4.peer), 31337), SYN);
        testbed.dmz.inject("eth0", &from_mac(&frame, [2, 0, 0, 0, 7, mac]));
    };
    // the router knows them all, and 192.0.2.40 does nothing wrong
    let known =
        |last: u8| format!("neighbour replace 192.0.2.{last} lladdr 02:00:00:00:07:{last:02x} dev dmz0\n");
    testbed.router.ip(&(11..18).chain([40]).map(known).collect::<String>());
    send(40, 11);
    let machines: Vec<String> = (11..18).map(|last| format!("192.0.2.{last}")).collect();
    let cut_off = || {
        let rows = testbed.quarantined_addresses();
        rows.iter().map(|row| row["address"].as_str().expect("an address").to_owned()).collect::<Vec<_>>()
    };
    // a kind is sampled once a second
    for (number, machine) in (11..).zip(&machines) {
        eventually("the machine is cut off", || {
            send(number, number);
            cut_off().contains(machine)
        });
    }
    assert!(!cut_off().contains(&"192.0.2.40".to_owned()), "{:?}", cut_off());
    assert_eq!(testbed.show("status")["quarantined"], json!([]));
    let alarm = severe_alarms(&testbed, "farm").remove(0);
    let seen = alarm["seen"].as_str().expect("a text");
    assert!(machines.iter().all(|machine| seen.contains(machine)), "{seen}");
    daemon.wait_for_line(&["192.0.2.40 (farm) was NOT put into quarantine"]);
}

#[test]
fn a_policy_that_only_observes_is_an_alarm_until_another_one_drops_again() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    // one server that observes is a choice, and no trouble of the gate
    let roles = "roles = [\"web\", \"managed\"]";
    let partly = dmz().replacen(roles, &format!("{roles}\nmode = \"observe\""), 1);
    let daemon = testbed.daemon(&partly, &[]);
    testbed.wait_for_consumer();
    testbed.apply(&dmz_with("mode = \"observe\""));
    daemon.wait_for_line(&["alarm #1 opened: critical gate", "only observes", "NOTHING IS DROPPED"]);
    testbed.apply(&dmz());
    daemon.wait_for_line(&["alarm #1 closed: critical gate"]);
}

#[test]
fn a_gate_that_somebody_detaches_is_reported_by_every_sink_before_the_daemon_ends() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let folder = testbed.folder.display();
    let script = format!("(cat; echo $PORTCULLIS_HOST $PORTCULLIS_INTERFACE) >>{folder}/command");
    let sinks = format!(
        "\n[alarms]\neve = \"{folder}/eve\"\necs = \"{folder}/ecs\"\ncef = \"{folder}/cef\"\n\
         command = [\"/bin/sh\", \"-c\", \"{script}\"]\n"
    );
    let mut daemon = testbed.daemon(&format!("{}{sinks}", dmz()), &[]);
    testbed.wait_for_consumer();
    testbed.detach();
    assert_eq!(daemon.wait().code(), Some(0));
    let host = portcullis::host::host_name();
    let line = daemon.find(&["opened: critical gate", "nothing is dropped"]);
    assert!(line.len() == 1 && line[0].contains(&format!("{host} dmz0 alarm #1")), "{:#?}", daemon.said());
    for sink in ["eve", "ecs", "cef", "command"] {
        let text = fs::read_to_string(testbed.folder.join(sink)).unwrap_or_default();
        for word in ["somebody has detached the gate from dmz0: nothing is dropped", host, "dmz0", "gate"] {
            assert!(text.contains(word), "{sink} does not say {word}: {text}");
        }
    }
    let text = fs::read_to_string(testbed.folder.join("command")).expect("what the command got");
    assert_eq!(text.lines().last(), Some(&*format!("{host} dmz0")));
}
