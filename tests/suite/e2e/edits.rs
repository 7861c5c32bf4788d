//! `allow` and `deny` on real packets: an edit begins at once, ends by itself, and outlives what a policy and a
//! daemon don't.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use portcullis::gate::Edit;
use serde_json::{Value, json};

use super::policies::{dmz, dmz_with, dmz_with_web};
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, connect, echoes, tcp_talks, udp_talks};
use super::testbed::{FAMILIES, Family, NIC, Testbed, V4, ip, share_machine};
use crate::support::patience::{PATIENCE, deadline, eventually};

impl Testbed {
    /// The file that keeps the edits.
    fn saved_edits(&self) -> PathBuf {
        self.history().join("edits.json")
    }

    /// The edits, as `show edits` lists them.
    #[track_caller]
    fn edits(&self) -> Vec<Value> {
        self.show("edits").as_array().expect("a list").clone()
    }

    /// Whether the web server reaches a port of a peer.
    fn web_reaches(&self, family: Family, peer: &str, port: u16, waits: bool) -> bool {
        let wait = if waits { ARRIVES } else { NEVER };
        tcp_talks(&self.dmz, ip(family.web), SocketAddr::new(ip(peer), port), wait)
    }

    /// A peer's connection to the web server, with a word echoed on it.
    #[track_caller]
    fn visit(&self, port: u16) -> TcpStream {
        let web = SocketAddr::new(ip(V4.web), port);
        let mut visit = connect(&self.internet, ip(V4.peer), web, ARRIVES).expect("a connection");
        assert!(echoes(&mut visit));
        visit.set_read_timeout(Some(deadline(PATIENCE))).expect("a timeout");
        visit
    }
}

#[test]
fn an_allowance_opens_one_port_to_one_peer_and_ends_by_itself_without_a_daemon() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _https = TcpServer::start(&testbed.internet, 443);
    testbed.attach(&dmz());
    for family in FAMILIES {
        assert!(!testbed.web_reaches(family, family.peer, 443, false), "not yet");
        let need = format!("tcp/443 to {}", family.peer);
        let said =
            testbed.run("allow", &["web1", "out", &need, "--for", "1h", "--note", "an update"]).done().out;
        assert!(
            said.contains(&format!("allow web1 out {need} for ")) && said.contains(": an update"),
            "{said}"
        );
        assert!(testbed.web_reaches(family, family.peer, 443, true), "at once: {said}");
        assert!(!testbed.web_reaches(family, family.exchanger, 443, false), "and nowhere else");
        let why = testbed.explain("web1", family.peer, "tcp/443");
        assert_eq!((&why["verdict"], &why["reason"]), (&json!("pass"), &json!("need")), "{why}");
        assert!(why["source"].as_str().is_some_and(|source| source.contains("edit ")), "{why}");
    }
    let edits = testbed.edits();
    assert_eq!(edits.len(), 2);
    assert_eq!(
        (&edits[0]["number"], &edits[0]["action"], &edits[0]["note"]),
        (&json!(1), &json!("allow"), &json!("an update"))
    );
    assert!((3_000..=3_600).contains(&edits[0]["left_s"].as_u64().expect("a time")), "{edits:#?}");
    assert!(edits[0]["who"].as_str().is_some_and(|who| !who.is_empty()));

    // the policy says nothing of it, and a file differs by it
    assert!(!testbed.run("show", &["policy"]).done().out.contains("443 to"));
    let path = testbed.write("same.toml", &dmz());
    let differs = testbed.run("diff", &[&path]);
    assert_eq!(differs.code, Some(1), "{differs:#?}");
    assert!(differs.out.contains("! edit 1: allow web1 out tcp/443"), "{differs:#?}");

    // cancelled
    testbed.run("allow", &["--cancel", "1"]).done();
    testbed.run("deny", &["--cancel", "2"]).done();
    testbed.run("allow", &["--cancel", "2"]).refused(&["there is no edit 2", "help:"]);
    assert!(!testbed.web_reaches(V4, V4.peer, 443, false));
    assert!(!testbed.saved_edits().exists(), "nothing to keep");

    // it ends by itself, and a connection that it let the server open with it
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "6s"]).done();
    let server = SocketAddr::new(ip(V4.peer), 443);
    let mut open = connect(&testbed.dmz, ip(V4.web), server, ARRIVES).expect("a connection");
    assert!(echoes(&mut open));
    eventually("the end of the edit", || testbed.edits().is_empty());
    eventually("the end of its verdicts", || testbed.verdict("web1", V4.peer, "tcp/443").0 == "drop");
    open.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
    let before = testbed.dropped("web1", "tcp", 443, "no_flow");
    assert!(!echoes(&mut open), "the open connection has ended too");
    assert!(testbed.dropped("web1", "tcp", 443, "no_flow") > before);
}

#[test]
fn a_connection_that_peers_open_under_an_edit_ends_with_it_and_one_of_the_policy_does_not() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (_odd, _web) = (TcpServer::start(&testbed.dmz, 8080), TcpServer::start(&testbed.dmz, 80));
    testbed.attach(&dmz());
    testbed.run("allow", &["web1", "in", "tcp/8080", "--for", "8s"]).done();
    let (mut odd, mut web) = (testbed.visit(8080), testbed.visit(80));
    assert!(echoes(&mut odd) && echoes(&mut odd));
    eventually("the end of the edit", || testbed.edits().is_empty());
    odd.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
    eventually("the end of the connection", || !echoes(&mut odd));
    assert!(echoes(&mut web));
}

#[test]
fn a_denial_cuts_an_open_connection_at_once_and_lets_it_go_on_afterwards() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _web = TcpServer::start(&testbed.dmz, 80);
    testbed.attach(&dmz());
    let mut visit = testbed.visit(80);
    let said = testbed.run("deny", &["web1", "in", "tcp/80", "from", V4.peer, "--for", "1h"]).done().out;
    assert!(said.contains("edit 1: deny web1 in tcp/80 from 198.51.100.99"), "{said}");
    visit.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
    assert!(!echoes(&mut visit));
    assert!(testbed.dropped("web1", "tcp", 80, "denied") >= 1);
    let rows = testbed.show("drops");
    let row =
        rows.as_array().expect("rows").iter().find(|row| row["reason"] == "denied").expect("a row").clone();
    assert_eq!(row["edit"], 1, "{row}");
    let text = testbed.run("show", &["drops"]).done().out;
    assert!(text.contains("denied (edit 1)"), "{text}");
    let other = SocketAddr::new(ip(V4.web), 80);
    assert!(tcp_talks(&testbed.internet, ip(V4.exchanger), other, ARRIVES), "others go on");
    // the management
    testbed.run("deny", &["web1", "in", "tcp/20-30", "--for", "10m"]).refused(&[
        "management",
        "--force",
        "nothing was changed",
    ]);
    assert_eq!(testbed.edits().len(), 1);
    testbed.run("deny", &["web1", "in", "tcp/22", "--for", "10m", "--force"]).done();
    assert_eq!(testbed.verdict(V4.bastion, "web1", "tcp/22"), ("drop".to_owned(), "denied".to_owned()));
    testbed.run("allow", &["--cancel", "1"]).done();
    // TCP sends again what was lost
    visit.set_read_timeout(Some(deadline(PATIENCE))).expect("a timeout");
    eventually("the connection", || echoes(&mut visit));
}

#[test]
fn an_edit_survives_apply_and_a_reboot_and_ends_with_its_server() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let (_odd, _https) = (TcpServer::start(&testbed.dmz, 8080), TcpServer::start(&testbed.internet, 443));
    testbed.attach(&dmz());
    testbed.run("allow", &["web1", "in", "tcp/8080", "--for", "1h", "--note", "kept"]).done();
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "2d"]).done();
    testbed.run("deny", &["mx1", "out", "tcp/25", "--for", "10m"]).done();
    let mut visit = testbed.visit(8080);
    let said = testbed.apply(&dmz_with_web("\"tcp/80\"")).out;
    assert!(said.contains("= edit 1: allow web1 in tcp/8080"), "{said}");
    assert!(echoes(&mut visit), "a policy ends no connection of an edit");

    // as after a reboot, a minute later
    testbed.reboot();
    let said = testbed.attach_later(&dmz(), 60).out;
    assert!(said.contains("as before: edit 1: allow web1 in tcp/8080 for 5"), "{said}");
    assert!(testbed.web_reaches(V4, V4.peer, 443, true));
    assert_eq!(testbed.verdict("mx1", V4.exchanger, "tcp/25"), ("drop".to_owned(), "denied".to_owned()));
    let edits = testbed.edits();
    assert_eq!(edits.len(), 3);
    assert_eq!(edits[0]["note"], "kept");
    let left_s = edits[0]["left_s"].as_u64().expect("a time");
    assert!((3_000..=3_540).contains(&left_s), "{left_s}");

    // and a detach, eleven minutes later: the denial is over
    testbed.detach();
    testbed.run("allow", &["--cancel", "2"]).done();
    testbed.run("allow", &["--cancel", "2"]).refused(&["there is no edit 2"]);
    testbed.attach_later(&dmz(), 720);
    assert_eq!(testbed.edits().iter().map(|edit| edit["number"].clone()).collect::<Vec<_>>(), [json!(1)]);
    assert_eq!(testbed.verdict("mx1", V4.exchanger, "tcp/25").0, "pass");
    let said = testbed.run("allow", &["web1", "out", "tcp/444", "--for", "1m"]).done().out;
    assert!(said.contains("edit 4:"), "a number comes once: {said}");

    let said = testbed.apply(&dmz().replace("servers.web1", "servers.shop")).out;
    assert!(said.contains("! edit 1 ends, for this policy has no web1"), "{said}");
    assert_eq!(testbed.edits(), [] as [Value; 0]);
    testbed.apply(&dmz());
    assert_eq!(testbed.verdict("web1", V4.peer, "tcp/444").0, "drop");
}

#[test]
fn an_edit_needs_no_daemon_and_does_nothing_in_quarantine() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _clock = UdpServer::start(&testbed.internet, V4.peer, 9000);
    let mut daemon = testbed.daemon(&dmz(), &[]);
    let asks = |waits: bool| {
        let wait = if waits { ARRIVES } else { NEVER };
        udp_talks(&testbed.dmz, V4.web, SocketAddr::new(ip(V4.peer), 9000), wait)
    };
    testbed.run("allow", &["web1", "out", "udp/9000", "--for", "1h"]).done();
    assert!(asks(true));
    daemon.end(Signal::SIGKILL);
    assert!(asks(true));
    testbed.run("quarantine", &["web1"]).done();
    assert!(!asks(false));
    let said = testbed.run("allow", &["web1", "out", "udp/9001", "--for", "1h"]).done();
    assert!(said.err.contains("is in quarantine, where no `allow` counts"), "{said:#?}");
    testbed.run("release", &["web1"]).done();
    assert!(asks(true));
    let audit = testbed.run("show", &["edits"]).done().out;
    assert!(audit.contains("out udp/9000"), "{audit}");
}

#[test]
fn whatever_an_edit_may_not_be_is_refused_at_its_place_and_changes_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).refused(&["there is no gate"]);
    testbed.attach(&dmz());
    let cases: [(&[&str], i32, &[&str]); 13] = [
        (
            &["web1", "out", "tcp/443"],
            2,
            &["an edit needs an end", "--for 10m", "belongs in the policy file"],
        ),
        (&["web1", "out", "tcp/443", "--for", "31d"], 2, &["30d at most"]),
        (&["web1", "out", "tcp/443", "--for", "0s"], 2, &["from 1s"]),
        (&["web1", "out", "tcp/443", "--for", "soon"], 2, &["no length of time"]),
        (&["web1", "sideways", "tcp/443", "--for", "1h"], 2, &["in"]),
        (&["web1", "--for", "1h"], 2, &["in|out"]),
        (&["web9", "out", "tcp/443", "--for", "1h"], 1, &["no server is called `web9`"]),
        (&["web1", "out", "tcp/443 limit 5/s", "--for", "1h"], 1, &["can't have a `limit`"]),
        (&["web1", "out", "tcp/20 sport 20", "--for", "1h"], 1, &["can't have a `sport`"]),
        (&["web1", "out", "tcp/70000", "--for", "1h"], 1, &["need:1:"]),
        (&["web1", "out", "tcp/443 to @nobody", "--for", "1h"], 1, &["need:1:", "nobody"]),
        (&["web1", "out", "tcp/443 from 192.0.2.1", "--for", "1h"], 1, &["need:1:"]),
        (&["web1", "out", "tcp/443", "--for", "1h", "--note", "a\nb"], 2, &["one line"]),
    ];
    for (args, status, words) in cases {
        testbed.run("allow", args).failed(status, words);
    }
    testbed
        .run("allow", &["web1", "out", "tcp/1", "--for", "1h", "--force"])
        .refused(&["--force goes with `deny`"]);
    testbed.run("allow", &["web1", "out", "tcp/1", "--for", "1h", "--cancel", "1"]).failed(2, &["cancel"]);
    testbed.run("allow", &["--cancel", "1"]).refused(&["there is no edit 1"]);
    assert_eq!(testbed.edits(), [] as [Value; 0]);
    assert!(!testbed.saved_edits().exists());
    assert!(testbed.run("show", &["edits"]).done().out.contains("there is no edit"));
    let _ = NIC;
}

#[test]
fn a_file_of_edits_that_can_not_be_read_just_now_is_kept_for_the_next_attach() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).done();
    testbed.reboot();
    // as if its disk did not answer
    let (file, elsewhere) = (testbed.history().join("edits.json"), testbed.history().join("elsewhere"));
    fs::rename(&file, &elsewhere).expect("a file");
    fs::create_dir(&file).expect("a folder");
    let said = testbed.attach(&dmz());
    assert!(
        said.err.contains("edits.json can't be read") && said.err.contains("stays as it is"),
        "{said:#?}"
    );
    assert_eq!(testbed.verdict(V4.web, V4.peer, "tcp/443").0, "drop");
    let said = testbed.run("allow", &["web1", "out", "tcp/8443", "--for", "1h"]).done();
    for words in ["has edits that could not be read", "not saved", "attach -i dmz0"] {
        assert!(said.err.contains(words), "{said:#?}");
    }
    assert!(file.is_dir(), "nobody writes over it");
    // a policy goes live all the same
    testbed.apply(&dmz_with("mode = \"enforce\""));
    fs::remove_dir(&file).expect("the folder");
    fs::rename(&elsewhere, &file).expect("a file");
    let said = testbed.attach(&dmz());
    assert!(said.out.contains("as before: edit 2: allow web1 out tcp/443"), "{said:#?}");
    let hold = || {
        let edits = testbed.show("edits");
        let edits = edits.as_array().expect("a list").iter();
        edits.map(|edit| (edit["number"].as_u64().unwrap_or(0), edit["need"].to_string())).collect::<Vec<_>>()
    };
    let both = [(1, "\"tcp/8443\"".to_owned()), (2, "\"tcp/443\"".to_owned())];
    assert_eq!(hold(), both);
    for port in ["tcp/443", "tcp/8443"] {
        assert_eq!(testbed.verdict(V4.web, V4.peer, port).0, "pass");
    }
    testbed.run("allow", &["--cancel", "1"]).done();
    testbed.reboot();
    testbed.attach(&dmz());
    assert_eq!(hold(), both[1..]);
}

#[test]
fn one_edit_more_than_a_gate_takes_is_refused_in_words_and_changes_nothing() {
    const MOST: u32 = 16_384;
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).done();
    let gate = testbed.open_gate();
    let first = gate.edits().expect("edits").remove(0);
    let of = |number: u32| {
        let port = 20_000 + number as u16;
        Edit { number, need: format!("tcp/{port}"), ports: (port, port), ..first.clone() }
    };
    let edits: Vec<Edit> = std::iter::once(first.clone()).chain((2..=MOST).map(of)).collect();
    gate.write_edits(&edits).expect("room for all of them");
    let words = ["no room for another edit beside the 16384", "nothing was changed", "--cancel"];
    testbed.run("allow", &["web1", "out", "tcp/444", "--for", "1h"]).refused(&words);
    testbed.run("deny", &["mx1", "out", "tcp/25", "--for", "1h"]).refused(&words);
    assert_eq!(gate.edits().expect("edits").len(), MOST as usize);
    let pass = "pass".to_owned();
    for port in [443, 20_002, 20_000 + MOST] {
        assert_eq!(testbed.verdict(V4.web, V4.peer, &format!("tcp/{port}")).0, pass, "{port}");
    }
    for port in [444, 20_001 + MOST] {
        assert_ne!(testbed.verdict(V4.web, V4.peer, &format!("tcp/{port}")).0, pass, "{port}");
    }
    // one that ends makes room for one
    testbed.run("allow", &["--cancel", "1"]).done();
    let said = testbed.run("allow", &["web1", "out", "tcp/444", "--for", "1h"]).done();
    assert_eq!(testbed.verdict(V4.web, V4.peer, "tcp/444").0, pass, "{said:#?}");
    testbed.run("allow", &["web1", "out", "tcp/443", "--for", "1h"]).refused(&words);
}
