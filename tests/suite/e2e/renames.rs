//! NICs that get another name, a second one, or another network namespace. The gate stays on its NIC, is found
//! under the name of today, and never goes over to another NIC.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::Outcome;
use super::metrics::{ADDRESS, scrape};
use super::namespace::PINS;
use super::policies::{dmz, dmz_with};
use super::tap::{Tap, UDP};
use super::testbed::{NIC, Testbed, V4, ip, share_machine};
use super::traffic::{FORBIDDEN, syn};
use crate::support::patience::eventually;

impl Testbed {
    /// `portcullis COMMAND -i NIC ARGS...` on the router.
    #[track_caller]
    fn at(&self, nic: &str, command: &str, args: &[&str]) -> Outcome {
        self.router.portcullis(&[&[command, "-i", nic], args].concat())
    }

    fn status_at(&self, nic: &str) -> Value {
        self.at(nic, "show", &["status", "-j"]).done().json()
    }

    fn rename(&self, from: &str, to: &str) {
        self.router.ip(&format!("link set {from} name {to}\n"));
    }

    fn swap_names(&self) {
        for (from, to) in [(NIC, "spare0"), ("wan0", NIC), ("spare0", "wan0")] {
            self.rename(from, to);
        }
    }

    /// Drops of datagrams of the web server, by the ledger of the gate on this NIC.
    fn drops_at(&self, nic: &str) -> u64 {
        let rows = self.at(nic, "show", &["drops", "-j"]).done().json();
        let ours =
            |row: &&Value| row["server"] == "web1" && row["port"] == FORBIDDEN && row["reason"] == "new_flow";
        rows.as_array().expect("a list").iter().filter(ours).filter_map(|row| row["packets"].as_u64()).sum()
    }

    /// Forbidden datagrams are dropped by the gate on this NIC, and none gets out.
    #[track_caller]
    fn prove_drops_at(&self, nic: &str, tap: &Tap) {
        let left = || tap.count_to(ip(V4.web), UDP, FORBIDDEN);
        let before = (self.drops_at(nic), left());
        self.send_from_web(FORBIDDEN, 3);
        eventually("each drop is in the ledger", || self.drops_at(nic) >= before.0 + 3);
        self.catch_up(tap);
        assert_eq!(left(), before.1, "what got out");
    }

    fn has_xdp_at(&self, nic: &str) -> bool {
        let output = self.router.command("ip").args(["link", "show", "dev", nic]).output().expect("ip");
        String::from_utf8_lossy(&output.stdout).contains("xdp")
    }
}

#[test]
fn a_renamed_nic_keeps_its_gate_and_every_command_finds_it_under_both_names() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    testbed.prove_drops_at(NIC, &tap);
    testbed.rename(NIC, "dmz1");
    let path = testbed.write("policy.toml", &dmz_with("unknown_sources = \"allow\""));
    for name in ["dmz1", NIC] {
        testbed.prove_drops_at(name, &tap);
        let status = testbed.status_at(name);
        assert_eq!(
            (&status["interface"], &status["attached_as"], &status["attached"]),
            (&"dmz1".into(), &NIC.into(), &"native".into()),
            "{status:#}"
        );
        let said = testbed.at(name, "show", &["status"]).done();
        assert!(said.out.contains("dmz1 (attached as dmz0)"), "{said:#?}");
        let is_noted = said.err.contains(
            "no interface is called dmz0: the NIC that the gate was attached to under this name is dmz1 now",
        );
        assert_eq!(is_noted, name == NIC, "{said:#?}");

        let other = testbed.write("other.toml", &dmz_with("mode = \"observe\""));
        let changed = testbed.at(name, "apply", &[&other]).done();
        assert!(changed.out.contains("is live on dmz1"), "{changed:#?}");
        testbed.at(name, "diff", &[&other]).done();
        testbed.at(name, "apply", &[&path]).done();
        let quarantined = testbed.at(name, "quarantine", &["web1"]).done();
        assert!(quarantined.out.contains("portcullis release -i dmz1 web1"), "{quarantined:#?}");
        testbed.at(name, "release", &["web1"]).done();
        let asked = ["--from", V4.web, "--to", V4.peer, "udp/4000", "-j"];
        assert_eq!(testbed.at(name, "explain", &asked).done().json()["verdict"], "drop");
        testbed.at(name, "top", &[]).refused(&["`top` needs a terminal", "show -i dmz1 drops"]);
        let again = testbed.at(name, "attach", &["-p", &path]).done();
        assert!(
            again.out.contains("attached to dmz1: native") && again.out.contains("replaced"),
            "{again:#?}"
        );
        testbed.prove_drops_at(name, &tap);
    }
    assert!(testbed.pins().exists(), "the pins keep the name of attach");

    let off = testbed.at("dmz1", "detach", &[]).done();
    assert!(off.out.contains("detached from dmz1"), "{off:#?}");
    eventually("the gate is off", || !testbed.has_xdp_at("dmz1"));
    assert!(!testbed.pins().exists());
    testbed.prove_passes(&tap, 2);
    testbed.at(NIC, "show", &["status"]).refused(&["there is no interface `dmz0`"]);
}

#[test]
fn an_alternative_name_is_as_good_as_the_first_one() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let long = "dmz-in-front-of-the-servers";
    testbed.router.ip(&format!(
        "link property add dev {NIC} altname dmz-front\nlink property add dev {NIC} altname {long}\n"
    ));
    let path = testbed.write("policy.toml", &dmz());
    let attached = testbed.at(long, "attach", &["-p", &path]).done();
    assert!(attached.out.contains("attached to dmz0: native"), "{attached:#?}");
    assert!(testbed.pins().exists(), "the pins have the first name");
    for name in [long, "dmz-front", NIC] {
        let status = testbed.status_at(name);
        assert_eq!((&status["interface"], &status["attached_as"]), (&NIC.into(), &Value::Null), "{status:#}");
        testbed.prove_drops_at(name, &tap);
        testbed.at(name, "apply", &[&path]).done();
    }
    testbed.at("dmz-front", "detach", &[]).done();
    testbed.wait_for_detach();
}

#[test]
fn after_a_swap_of_names_the_gate_stays_on_its_nic_and_no_command_takes_it_away() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    testbed.swap_names();
    let path = testbed.write("policy.toml", &dmz());
    let taken = ["dmz0 has no gate, and the gate that was attached as dmz0 is on wan0", "help: type -i wan0"];
    for (command, more) in [
        ("attach", vec!["-p", &path]),
        ("run", vec!["-p", &path]),
        ("apply", vec![&path]),
        ("detach", vec![]),
        ("show", vec!["status"]),
        ("quarantine", vec!["web1"]),
    ] {
        testbed.at(NIC, command, &more).refused(&taken);
        assert!(testbed.has_xdp_at("wan0") && !testbed.has_xdp_at(NIC), "after {command}");
    }
    let status = testbed.status_at("wan0");
    assert_eq!((&status["attached_as"], &status["attached"]), (&NIC.into(), &"native".into()), "{status:#}");
    testbed.prove_drops_at("wan0", &tap);
    let again = testbed.at("wan0", "attach", &["-p", &path, "-j"]).done().json();
    assert_eq!((&again["interface"], &again["replaced"]), (&"wan0".into(), &true.into()), "{again:#}");
    testbed.prove_drops_at("wan0", &tap);

    // as the help says
    testbed.at("wan0", "detach", &[]).done();
    testbed.at("wan0", "attach", &["-p", &path]).done();
    assert!(Path::new(PINS).join(format!("wan0::{}", testbed.router.inode())).exists());
    testbed.prove_drops_at("wan0", &tap);
    testbed.at(NIC, "show", &["status"]).refused(&["there is no gate on dmz0"]);
    testbed.at("wan0", "detach", &[]).done();
}

#[test]
fn with_two_gates_a_name_means_the_nic_that_has_it_today() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    let observe = testbed.write("observe.toml", &dmz_with("mode = \"observe\""));
    testbed.at("wan0", "attach", &["-p", &observe]).done();
    testbed.swap_names();
    for (now, then, enforcing) in [("wan0", NIC, true), (NIC, "wan0", false)] {
        let said = testbed.at(now, "show", &["status", "-j"]).done();
        let status = said.json();
        assert_eq!(
            (&status["interface"], &status["attached_as"], &status["enforcing"]),
            (&now.into(), &then.into(), &enforcing.into()),
            "{status:#}"
        );
        let note = format!(
            "{now} is the name of another NIC since a gate was attached as {now}: that gate is on {then} now, and \
             this one was attached as {then}"
        );
        assert!(said.err.contains(&note), "{said:#?}");
    }
    testbed.prove_drops_at("wan0", &tap);
    let daemon = {
        let path = testbed.write("daemon.toml", &dmz());
        let daemon =
            super::command::Daemon::start(testbed.router.prepare(&["run", "-i", "wan0", "-p", &path]));
        daemon.wait_for_line(&["attached to wan0: native", "enforcing"]);
        daemon
    };
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["is live on wan0"]);
    assert!(testbed.socket().exists(), "the socket keeps the name of attach");
    testbed.prove_drops_at("wan0", &tap);
    assert_eq!(testbed.status_at(NIC)["enforcing"], false);
    drop(daemon);
    testbed.at(NIC, "detach", &[]).done();
    assert!(testbed.has_xdp_at("wan0") && !testbed.has_xdp_at(NIC));
    testbed.prove_drops_at("wan0", &tap);
    testbed.at("wan0", "detach", &[]).done();
}

#[test]
fn a_daemon_follows_its_nic_and_its_alarms_and_metrics_keep_the_name_of_attach() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &["--metrics", ADDRESS]);
    testbed.rename(NIC, "dmz1");
    daemon.wait_for_line(&["dmz0 is called dmz1 now, and the gate stays on it"]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["is live on dmz1"]);
    testbed.dmz.inject("eth0", &syn(22));
    daemon.wait_for_line(&[" dmz0 alarm #1 opened: critical attempt: web1"]);
    let page = scrape(&testbed);
    for line in [
        "portcullis_interface_info{interface=\"dmz0\",name=\"dmz1\"} 1\n",
        "portcullis_enforcing{interface=\"dmz0\"} 1\n",
    ] {
        assert!(page.contains(line), "{page}");
    }
    for name in ["dmz1", NIC] {
        let alarms = testbed.at(name, "alarms", &["-j"]).done().json();
        assert_eq!(alarms[0]["interface"], NIC, "{alarms:#}");
        testbed.at(name, "report", &["-o", "-"]).done();
    }
    let path = testbed.write("policy.toml", &dmz());
    testbed.at("dmz1", "run", &["-p", &path]).refused(&["process"]);

    // a NIC that has the old name gets nothing, also when the program is gone from its own
    testbed.router.ip(&format!("link add {NIC} type bridge\nlink set {NIC} up\n"));
    fs::remove_file(testbed.pins().join("links/filter")).expect("the filter's link");
    daemon.wait_for_line(&["opened: critical gate", "no longer attached (was native)"]);
    daemon.wait_for_line(&["attached to dmz1 again: native"]);
    assert!(!testbed.has_xdp_at(NIC));
    testbed.prove_drops_at("dmz1", &tap);
    testbed.router.ip(&format!("link delete {NIC}\n"));
    assert!(daemon.end(Signal::SIGTERM).success());

    // as its unit starts it, by the name of attach
    let daemon = super::command::Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &path]));
    daemon.wait_for_line(&["note: no interface is called dmz0", "dmz1 now"]);
    daemon.wait_for_line(&["attached to dmz1: native"]);
    testbed.prove_drops_at("dmz1", &tap);
}

#[test]
fn a_gate_whose_nic_is_in_another_namespace_is_found_there_and_reported_here() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let daemon = testbed.daemon(&dmz(), &["--metrics", ADDRESS]);
    let other = testbed.add_machine("o");
    testbed.router.ip(&format!("link set {NIC} netns {}\n", other.name()));
    daemon.wait_for_line(&["opened: critical gate", "the NIC dmz0 is in another network namespace now"]);
    let page = scrape(&testbed);
    for name in ["attached", "enforcing"] {
        assert!(page.contains(&format!("portcullis_{name}{{interface=\"dmz0\"}} 0\n")), "{page}");
    }
    testbed.at(NIC, "show", &["status"]).refused(&[
        "there is no interface `dmz0`",
        "the NIC of the gate that was attached as dmz0 is in another network namespace now",
    ]);
    // another NIC of this name gets no gate that protects others
    testbed.router.ip(&format!("link add {NIC} type bridge\nlink set {NIC} up\n"));
    let path = testbed.write("policy.toml", &dmz());
    let away = ["the gate that was attached as dmz0 is on a NIC that is in another network namespace now"];
    testbed.at(NIC, "attach", &["-p", &path]).refused(&away);
    testbed.at(NIC, "detach", &[]).refused(&away);
    daemon.wait_for_line(&["tries every second to attach again", away[0]]);
    testbed.router.ip(&format!("link delete {NIC}\n"));

    other.ip(&format!("link set {NIC} name moved0\n"));
    let status = other.portcullis(&["show", "-i", "moved0", "status", "-j"]).done().json();
    assert_eq!(
        (&status["interface"], &status["attached_as"], &status["attached"]),
        (&"moved0".into(), &NIC.into(), &"native".into()),
        "{status:#}"
    );
    let again = other.portcullis(&["attach", "-i", "moved0", "-p", &path, "-j"]).done().json();
    assert_eq!(again["replaced"], true, "{again:#}");

    other.ip(&format!("link set moved0 netns {} name {NIC}\n", testbed.router.name()));
    testbed.wire_router_to_dmz(NIC);
    daemon.wait_for_line(&["closed: critical gate"]);
    testbed.prove_drops_at(NIC, &tap);
    assert_eq!(testbed.status_at(NIC)["enforcing"], true);

    testbed.router.ip(&format!("link set {NIC} netns {}\n", other.name()));
    other.portcullis(&["detach", "-i", NIC]).done();
    eventually("the gate is off", || !testbed.pins().exists());
}

#[test]
fn a_name_that_a_nic_with_a_gate_of_its_own_has_taken_means_that_gate() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let observe = testbed.write("observe.toml", &dmz_with("mode = \"observe\""));
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.at("wan0", "attach", &["-p", &observe]).done();
    testbed.router.ip(&format!("link delete {NIC}\nlink set wan0 name {NIC}\n"));
    daemon.wait_for_line(&["opened: critical gate", "no longer attached (was native)"]);
    daemon.wait_for_line(&["tries every second", "the gate that was attached as wan0 is on dmz0"]);
    let status = testbed.status_at(NIC);
    assert_eq!((&status["attached_as"], &status["enforcing"]), (&"wan0".into(), &false.into()), "{status:#}");
    let again = testbed.at(NIC, "attach", &["-p", &observe]).done();
    assert!(!again.err.contains("another XDP program"), "{again:#?}");
    assert!(daemon.find(&["another XDP program"]).is_empty(), "{:#?}", daemon.said());

    // the name is free again: a NIC that is made again gets its gate back
    testbed.rename(NIC, "wan0");
    testbed.make_cable_again();
    daemon.wait_for_line(&["attached to dmz0 again: native"]);
    assert_eq!(testbed.status_at(NIC)["enforcing"], true);
    testbed.at("wan0", "detach", &[]).done();
}

impl Testbed {
    /// Makes the router's NIC again, after it was deleted.
    fn make_cable_again(&self) {
        super::testbed::feed_ip(&format!(
            "link add {NIC} address 02:00:00:00:00:01 netns {} type veth \
             peer name eth0 address 02:00:00:00:00:10 netns {}\n",
            self.router.name(),
            self.dmz.name()
        ));
        self.wire_router_to_dmz(NIC);
    }
}
