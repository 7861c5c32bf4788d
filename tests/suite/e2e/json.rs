//! The shapes of `-j`: each command prints what docs/json.md says, key by key, and the page says nothing else.

mod page;

use std::fs;
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use serde_json::Value;

use self::page::Page;
use super::command::Outcome;
use super::name_console::{Lookup, with_names};
use super::policies::{SETS_AND_SERVERS, TABLES, dmz, dmz_with};
use super::socket::{TcpServer, connect, udp};
use super::testbed::{NIC, Testbed, V4, ip, share_machine};
use crate::support::capture::{ETHERNET, Timed, pcap, write};
use crate::support::frame::{ACK, SYN, tcp};
use crate::support::patience::{PATIENCE, Wait, eventually};

/// A policy whose summary has everything that a summary can have.
fn rich() -> String {
    let more = r#"
[policy]
management = ["tcp/22 from @bastion"]
pickup = 0
handover = "conntrack"

[roles.dns]
in  = ["udp/53", "tcp/53"]
out = ["udp/53", "tcp/53 limit 20/s"]

[roles.mail]
in  = ["tcp/25"]
out = ["tcp/25"]

[roles.web]
in = ["tcp/80", "tcp/443"]

[roles.managed]
out   = ["udp/514 to @loghosts"]
quiet = ["udp/5353"]

[servers.farm]
addresses = ["192.0.2.128/26"]
roles = ["web"]
mode = "observe"
mac = ["02:00:00:00:00:44"]
vlan = 7
"#;
    let severities = "[alarms.severity]\n\"web1/attempt\" = \"low\"\n";
    format!("{more}{SETS_AND_SERVERS}{TABLES}{severities}")
}

/// Compares the output of a command with the page.
#[track_caller]
fn compare(page: &mut Page, command: &str, outcome: &Outcome) {
    for line in outcome.out.lines() {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {outcome:#?}"));
        page.compare(command, &value);
    }
    if outcome.out.is_empty() {
        page.note(format!("{command}: it printed nothing, and said: {}", outcome.err));
    }
}

/// A capture with a worm and a connection from before, the same cut short, and a policy that permits the worm.
fn write_capture(testbed: &Testbed) -> ([String; 2], String) {
    let to = |number: u8| (ip(&format!("198.51.100.{number}")), 445);
    let web = |port| (ip(V4.web), port);
    let mut frames: Vec<Timed> =
        (1..40).map(|number| (1000 + 50 * u64::from(number), tcp(web(40_000), to(number), SYN))).collect();
    frames.insert(0, (0, tcp(web(80), (ip(V4.peer), 51_000), ACK)));
    let bytes = pcap(ETHERNET, &frames);
    let folder = testbed.folder.as_path();
    let files = [("worm.pcap", &bytes[..]), ("cut.pcap", &bytes[..bytes.len() - 1])];
    let files = files.map(|(name, bytes)| write(folder, name, bytes).display().to_string());
    let wider = dmz().replace("out = [\"udp/514", "out = [\"tcp/445\", \"udp/514");
    (files, testbed.write("wider.toml", &wider))
}

/// A capture with a connection that was answered, one that was not, and one from before.
fn write_lesson(testbed: &Testbed) -> String {
    let (web, other) = ((ip(V4.web), 40_000), (ip("198.51.100.60"), 5432));
    let refused = (ip("198.51.100.61"), 5432);
    let frames = [
        (0, tcp((ip(V4.web), 80), (ip(V4.peer), 51_000), ACK)),
        (100, tcp(web, other, SYN)),
        (110, tcp(other, web, SYN | ACK)),
        (200, tcp(web, refused, SYN)),
        (9000, tcp(web, refused, SYN)),
    ];
    write(&testbed.folder, "lesson.pcap", &pcap(ETHERNET, &frames)).display().to_string()
}

#[test]
fn every_command_prints_the_shape_that_the_page_describes_and_the_page_describes_no_other() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut page = Page::read();
    let run = |args: &[&str]| testbed.router.portcullis(args);
    let policy = testbed.write("policy.toml", &dmz());
    let other = testbed.write("other.toml", &dmz_with("mode = \"observe\""));
    let richer = testbed.write("rich.toml", &rich());
    let bad = testbed.write("bad.toml", "[polcy]\nmode = \"enforce\"\n[roles.x]\nin = [\"80/tcp\"]\n");

    // without a gate
    compare(&mut page, "init", &run(&["init", "-j"]));
    for file in [&policy, &richer] {
        compare(&mut page, "check", &run(&["check", "-j", file]));
    }
    let tested = "[[tests]]\nfrom = \"web1\"\ndeny = [\"tcp/80 to 198.51.100.9\"]\n\n";
    let right = testbed.write("tested.toml", &format!("{}\n{tested}", dmz()));
    let wrong = testbed.write("wrong.toml", &format!("{}\n{}", dmz(), tested.replace("deny", "accept")));
    for file in [&right, &wrong] {
        compare(&mut page, "test", &run(&["test", "-j", file]));
        compare(&mut page, "check", &run(&["check", "-j", file]));
    }
    compare(&mut page, "check of a bad policy", &run(&["check", "-j", &bad]));
    compare(&mut page, "export nft", &run(&["export", "nft", "-j", "-i", NIC, &policy]));
    compare(&mut page, "attach", &run(&["attach", "-j", "-i", NIC, "-p", &richer]));
    compare(&mut page, "show servers", &testbed.run("show", &["servers", "-j"]));
    compare(&mut page, "detach", &run(&["detach", "-j", "-i", NIC]));
    compare(&mut page, "doctor", &run(&["doctor", "-j", "-i", NIC]));
    compare(&mut page, "detach --orphans", &run(&["detach", "-j", "--orphans"]));

    let (captures, wider) = write_capture(&testbed);
    for capture in &captures {
        compare(&mut page, "replay", &run(&["replay", "-j", "-p", &policy, capture]));
        let against = run(&["replay", "-j", "-p", &policy, "--against", &wider, capture]);
        compare(&mut page, "replay --against", &against);
    }

    let learnt = write_lesson(&testbed);
    compare(&mut page, "learn", &run(&["learn", "-j", "--servers", "192.0.2.0/24", &learnt]));
    let against = ["learn", "-j", "--against", &policy, "--unused", "1s", &learnt];
    compare(&mut page, "learn", &run(&against));

    testbed.attach(&dmz_with("mode = \"observe\""));
    let web = TcpServer::start(&testbed.dmz, 80);
    let (gate, target) = (testbed.open_gate(), SocketAddr::new(ip(V4.web), 80));
    eventually("the gate has kept something", || {
        let stream = connect(&testbed.internet, ip(V4.peer), target, Wait::AtMost(PATIENCE));
        stream.is_ok() && gate.has_evidence().expect("a table")
    });
    drop((web, gate));
    compare(&mut page, "learn", &run(&["learn", "-j", "-i", NIC, "--from", "1h"]));
    testbed.detach();

    // with a daemon, and traffic
    let rated = format!("{}\n[alarms.severity]\nweb1 = \"low\"\n", dmz());
    let mut daemon = testbed.daemon(&rated, &[]);
    testbed.wait_for_consumer();
    let follow = testbed.folder.join("follow.json");
    let mut follower = testbed.router.prepare(&["alarms", "-i", NIC, "--follow", "-j"]);
    let mut follower = follower
        .stdout(fs::File::create(&follow).expect("a file"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let followed = || fs::read_to_string(&follow).expect("a file");
    eventually("the follower is connected", || {
        testbed.run("quarantine", &["ns1", "--for", "1h"]).done();
        followed().contains('\n')
    });
    testbed.run("release", &["ns1"]).done();
    let _web = TcpServer::start(&testbed.dmz, 80);
    let stream =
        connect(&testbed.internet, ip(V4.peer), SocketAddr::new(ip(V4.web), 80), Wait::AtMost(PATIENCE));
    for port in 4000..4008 {
        testbed.send_from_web(port, 2);
    }
    let mail = udp(&testbed.dmz, V4.mail, 0);
    mail.send_to(b"x", (V4.peer, 9)).expect("a datagram");
    eventually("there are alarms", || testbed.alarms(&[]).len() >= 2);
    let id = testbed.alarms(&[])[0]["id"].to_string();
    compare(&mut page, "alarms ack", &testbed.run("alarms", &["-j", "ack", &id, "--note", "a test"]));
    for target in ["udp/9", "mx1"] {
        let args = ["-j", "silence", target, "--for", "1h", "--note", "a test"];
        compare(&mut page, "alarms silence", &testbed.run("alarms", &args));
    }
    compare(&mut page, "alarms silences", &testbed.run("alarms", &["-j", "silences"]));
    compare(&mut page, "alarms unsilence", &testbed.run("alarms", &["-j", "unsilence", "udp/9"]));
    compare(&mut page, "quarantine", &run(&["quarantine", "-j", "-i", NIC, "web1", "--for", "1h"]));
    compare(&mut page, "quarantine", &run(&["quarantine", "-j", "-i", NIC, "ns1"]));
    compare(&mut page, "quarantine", &run(&["quarantine", "-j", "-i", NIC, V4.mail]));
    let refused = run(&["quarantine", "-j", "-i", NIC, "nobody"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    for subject in ["status", "policy", "servers", "flows", "drops", "alarms", "needs", "audit", "gates"] {
        compare(&mut page, &format!("show {subject}"), &testbed.run("show", &[subject, "-j"]));
    }
    compare(&mut page, "doctor", &run(&["doctor", "-j", "-i", NIC]));
    compare(&mut page, "test-alarm", &run(&["test-alarm", "-j", "-i", NIC]));
    for (from, to, what) in
        [(V4.web, V4.peer, "tcp/80"), (V4.dns, V4.resolver, "udp/53"), (V4.peer, V4.web, "tcp/80")]
    {
        compare(&mut page, "explain", &run(&["explain", "-j", "-i", NIC, "--from", from, "--to", to, what]));
    }
    for time in ["1s", "30d"] {
        compare(&mut page, "check --unused", &run(&["check", "-j", "--unused", time, "-i", NIC, &policy]));
    }
    compare(&mut page, "diff", &run(&["diff", "-j", "-i", NIC, &other]));
    compare(&mut page, "diff", &run(&["diff", "-j", "-i", NIC, &richer]));
    let need = "tcp/9443 to 198.51.100.80";
    let allowed = run(&["allow", "-j", "-i", NIC, "web1", "out", need, "--for", "10m", "--note", "a test"]);
    compare(&mut page, "allow", &allowed);
    compare(&mut page, "deny", &run(&["deny", "-j", "-i", NIC, "mx1", "out", "tcp/25", "--for", "10m"]));
    compare(&mut page, "show edits", &testbed.run("show", &["edits", "-j"]));
    let exported = run(&["export", "state", "-j", "-i", NIC]);
    compare(&mut page, "export state", &exported);
    compare(&mut page, "allow --cancel", &run(&["allow", "-j", "-i", NIC, "--cancel", "1"]));
    compare(&mut page, "apply", &run(&["apply", "-j", "-i", NIC, &richer, "--confirm", "10m"]));
    compare(&mut page, "diff", &run(&["diff", "-j", "-i", NIC, &richer]));
    compare(&mut page, "show status", &testbed.run("show", &["status", "-j"]));
    compare(&mut page, "confirm", &run(&["confirm", "-j", "-i", NIC]));
    run(&["apply", "-i", NIC, &other, "--confirm", "10m"]).done();
    compare(&mut page, "rollback of a trial", &run(&["rollback", "-j", "-i", NIC]));
    compare(&mut page, "rollback --list", &run(&["rollback", "-j", "-i", NIC, "--list"]));
    compare(&mut page, "rollback", &run(&["rollback", "-j", "-i", NIC, "1"]));
    compare(&mut page, "reload", &run(&["reload", "-j", "-i", NIC, "--force"]));
    compare(&mut page, "pickup", &run(&["pickup", "-j", "-i", NIC, "--for", "60s"]));
    compare(&mut page, "apply", &run(&["apply", "-j", "-i", NIC, &richer]));
    compare(&mut page, "apply", &run(&["apply", "-j", "-i", NIC, &richer]));
    compare(&mut page, "show status", &testbed.run("show", &["status", "-j"]));
    compare(&mut page, "takeover", &run(&["takeover", "-j", "-i", NIC, "--for", "60s"]));
    for target in ["web1", V4.mail, "192.0.2.64/26"] {
        compare(&mut page, "release", &run(&["release", "-j", "-i", NIC, target]));
    }
    // what was released comes from the other router, and ends there
    let state = testbed.write("state.json", &exported.out);
    compare(&mut page, "import state", &run(&["import", "state", "-j", "-i", NIC, &state]));
    let mut none: Value = serde_json::from_str(&exported.out).expect("a state");
    none["items"] = Value::Array(Vec::new());
    let state = testbed.write("state.json", &none.to_string());
    compare(&mut page, "import state", &run(&["import", "state", "-j", "-i", NIC, &state]));
    compare(&mut page, "alarms", &testbed.run("alarms", &["-j"]));
    compare(&mut page, "show alarms", &testbed.run("show", &["alarms", "-j"]));
    compare(&mut page, "alarms unack", &testbed.run("alarms", &["-j", "unack", &id]));
    eventually("the follower reads both kinds", || {
        let text = followed();
        text.contains("\"audit\":{") && text.contains("\"step\":\"opened\"")
    });
    let html = testbed.folder.join("report.html").display().to_string();
    eventually("the history has them", || testbed.reported() > 0);
    compare(&mut page, "report", &run(&["report", "-j", "-i", NIC, "-o", &html]));
    // an incident that escalates, and a mode that changes
    testbed.remove_tracker();
    eventually("the gate has an alarm of its own", || {
        testbed.alarms(&[]).iter().any(|alarm| alarm["kind"] == "gate")
    });
    compare(&mut page, "alarms", &testbed.run("alarms", &["-j"]));
    assert!(daemon.end(Signal::SIGTERM).success());
    follower.wait().expect("an end");
    for line in followed().lines() {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let shape = if value.get("audit").is_some() { "alarms --follow, audit" } else { "alarms --follow" };
        page.compare(shape, &value);
    }
    // renamed, and put back
    testbed.router.ip(&format!("link set {NIC} down\nlink set {NIC} name dmz9\nlink set dmz9 up\n"));
    compare(&mut page, "show status", &run(&["show", "-j", "-i", "dmz9", "status"]));
    testbed.router.ip(&format!("link set dmz9 down\nlink set dmz9 name {NIC}\nlink set {NIC} up\n"));
    compare(&mut page, "detach", &run(&["detach", "-j", "-i", NIC]));
    // with names
    testbed.attach(&with_names());
    let ask = || run(&["explain", "-j", "-i", NIC, "--from", V4.web, "--to", V4.peer, "tcp/443"]);
    compare(&mut page, "explain", &ask());
    Lookup::new(&testbed, V4).answer("deb.vendor.example", V4.peer);
    compare(&mut page, "explain", &ask());
    compare(&mut page, "show names", &testbed.run("show", &["names", "-j"]));
    let text = testbed.write("names.toml", &with_names());
    compare(&mut page, "check", &run(&["check", "-j", &text]));
    compare(&mut page, "detach", &run(&["detach", "-j", "-i", NIC]));
    compare(&mut page, "release without a gate", &run(&["release", "-j", "-i", NIC, "ns1"]));
    compare(&mut page, "show audit", &testbed.run("show", &["audit", "-j"]));
    drop(stream);
    page.finish();
}
