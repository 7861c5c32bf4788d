//! The modes that are reported are those that hold.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use super::policies::{dmz, dmz_with};
use super::socket::{ARRIVES, NEVER, TcpServer, tcp_talks};
use super::tap::UDP;
use super::testbed::{Plug, Testbed, V4, in_both_families, ip, share_machine, tracker_hook};
use super::traffic::FORBIDDEN;
use crate::support::patience::eventually;

fn warnings(testbed: &Testbed) -> String {
    testbed.show("status")["warnings"].to_string()
}

#[test]
fn a_cable_has_the_gate_in_its_driver() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let attached = testbed.attach(&dmz());
    assert!(attached.out.contains("native") && attached.err.is_empty(), "{attached:#?}");
    let status = testbed.show("status");
    assert_eq!(status["attached"], "native");
    assert_eq!(status["enforcing"], true);
    assert_eq!((&status["tracking"], &status["tracker"]), (&"strict".into(), &tracker_hook().into()));
    assert_eq!(status["warnings"], serde_json::json!([]));
    assert_eq!(testbed.xdp_of(), "xdp");
}

#[test]
fn a_nic_without_xdp_has_a_generic_gate_that_drops_all_the_same_and_says_so() {
    let _machine = share_machine();
    let testbed = Testbed::plugged(Plug::Bridge);
    let tap = testbed.tap_internet();
    let _server = TcpServer::start(&testbed.dmz, 80);
    testbed.prove_passes(&tap, 3);
    let attached = testbed.attach(&dmz());
    assert!(attached.err.contains("warning") && attached.err.contains("generic"), "{attached:#?}");
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"generic".into(), &true.into()));
    assert!(warnings(&testbed).contains("generic"), "{status:#}");
    assert!(testbed.run("show", &["status"]).done().out.contains("warning: generic"));
    assert_eq!(testbed.xdp_of(), "xdpgeneric");
    testbed.prove_drops(&tap, 9);
    in_both_families(|family| {
        let web = SocketAddr::new(ip(family.web), 80);
        assert!(tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES));
    });
    testbed.detach();
    testbed.wait_for_detach();
    testbed.prove_passes(&tap, 3);
}

#[test]
fn service_tracking_is_reported_with_its_weakness_and_strict_tracking_without_its_tracker_is_a_warning() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz_with("tracking = \"service\""));
    let status = testbed.show("status");
    assert_eq!((&status["tracking"], &status["tracker"]), (&"service".into(), &"no".into()));
    assert!(warnings(&testbed).contains("service tracking is weaker"), "{status:#}");

    testbed.apply(&dmz());
    let status = testbed.show("status");
    assert_eq!((&status["tracking"], &status["tracker"]), (&"strict".into(), &tracker_hook().into()));
    assert_eq!(status["warnings"], serde_json::json!([]));

    testbed.remove_tracker();
    eventually("the tracker is off", || testbed.show("status")["tracker"] == "no");
    assert!(warnings(&testbed).contains("strict tracking without its tracker"));
    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    assert_eq!(testbed.show("status")["tracker"], tracker_hook());
    assert_eq!(testbed.show("status")["warnings"], serde_json::json!([]));
}

#[test]
fn observing_drops_nothing_counts_everything_and_is_never_called_enforcing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let left = || tap.count_to(ip(V4.web), UDP, FORBIDDEN);
    testbed.attach(&dmz_with("mode = \"observe\""));
    let status = testbed.show("status");
    assert_eq!((&status["enforcing"], &status["mode"]), (&false.into(), &"observe".into()));
    assert_eq!(testbed.verdict(V4.web, V4.peer, "udp/4000"), ("would_drop".into(), "new_flow".into()));
    let _server = TcpServer::start(&testbed.internet, 80);
    assert!(tcp_talks(&testbed.dmz, ip(V4.web), SocketAddr::new(ip(V4.peer), 80), ARRIVES));
    testbed.prove_passes(&tap, 8);
    let row = |port: u16, would: bool| {
        let rows = testbed.drops();
        rows.iter()
            .filter(|row| row.0["port"] == port && row.0["would_drop"] == would)
            .map(super::command::Row::packets)
            .sum::<u64>()
    };
    assert_eq!((row(FORBIDDEN, true), row(FORBIDDEN, false)), (8, 0));

    // enforcing, the same is dropped and counted apart
    testbed.apply(&dmz());
    assert_eq!(testbed.show("status")["enforcing"], true);
    testbed.send_from_web(FORBIDDEN, 6);
    eventually("the drops are counted", || row(FORBIDDEN, false) == 6);
    testbed.catch_up(&tap);
    assert_eq!((left(), row(FORBIDDEN, true)), (8, 8));
    assert!(!tcp_talks(&testbed.dmz, ip(V4.web), SocketAddr::new(ip(V4.peer), 80), NEVER));

    // one server that observes does not make the gate an observer
    testbed.apply(&dmz().replacen(
        "roles = [\"web\", \"managed\"]",
        "roles = [\"web\", \"managed\"]\nmode = \"observe\"",
        1,
    ));
    let status = testbed.show("status");
    assert_eq!((&status["enforcing"], &status["observing"]), (&true.into(), &serde_json::json!(["web1"])));
    testbed.prove_passes(&tap, 2);
    assert_eq!(testbed.verdict(V4.mail, V4.peer, "udp/4000").0, "drop");
}

#[test]
fn attach_and_the_daemon_say_whether_the_gate_enforces_or_observes() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let observing = dmz_with("mode = \"observe\"");
    let roles = "roles = [\"web\", \"managed\"]";
    let partly = dmz().replacen(roles, &format!("{roles}\nmode = \"observe\""), 1);
    let says = |policy: &str, words: &str| {
        let path = testbed.write("policy.toml", policy);
        let text = testbed.run("attach", &["-p", &path]).done().out;
        assert_eq!(text, format!("attached to dmz0: native, strict tracking, {words}\n"));
    };
    says(&dmz(), "enforcing, generation 1");
    says(&observing, "observing, generation 2 (replaced without a gap)");

    let mut daemon = testbed.daemon(&partly, &[]);
    daemon.wait_for_line(&["attached to dmz0: native, strict tracking, partly observing, generation 3"]);
    assert!(daemon.end(Signal::SIGTERM).success());
    let last = daemon.said().pop().expect("a last word");
    assert!(last.ends_with("the gate on dmz0 stays attached and partly observing"), "{last}");

    // another command's policy counts, and a reload
    let mut daemon = testbed.daemon(&partly, &[]);
    testbed.apply(&observing);
    assert!(daemon.end(Signal::SIGTERM).success());
    let last = daemon.said().pop().expect("a last word");
    assert!(last.ends_with("the gate on dmz0 stays attached and observing"), "{last}");
    let mut daemon = testbed.daemon(&observing, &[]);
    testbed.write("daemon.toml", &dmz());
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["is live on dmz0"]);
    assert!(daemon.end(Signal::SIGTERM).success());
    let last = daemon.said().pop().expect("a last word");
    assert!(last.ends_with("the gate on dmz0 stays attached and enforcing"), "{last}");
}

#[test]
fn a_gate_whose_nic_went_away_is_reported_and_comes_back_with_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.replace_cable();
    let tap = testbed.tap_internet();
    daemon.wait_for_line(&["opened: critical gate", "no longer attached (was"]);
    daemon.wait_for_line(&["attached to dmz0 again: native"]);
    daemon.wait_for_line(&["closed: critical gate"]);
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"native".into(), &true.into()), "{status:#}");
    testbed.prove_drops(&tap, 3);
}

#[test]
fn a_gate_whose_nic_went_away_while_no_daemon_ran_says_so_until_it_is_attached() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.replace_cable();
    let tap = testbed.tap_internet();
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"no".into(), &false.into()));
    assert!(warnings(&testbed).contains("nothing is dropped"), "{status:#}");
    testbed.prove_passes(&tap, 3);

    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"native".into(), &true.into()), "{status:#}");
    assert_eq!(status["warnings"], serde_json::json!([]));
    testbed.prove_drops(&tap, 3);
}

#[test]
fn a_daemon_that_lived_through_another_nic_can_still_reload() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.replace_cable();
    daemon.wait_for_line(&["opened: critical gate", "no longer attached (was"]);
    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    let generation = testbed.show("status")["generation"].as_u64().expect("a number");

    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&[&format!("generation {} is live", generation + 1)]);
    let status = testbed.show("status");
    assert_eq!(
        (&status["attached"], &status["tracker"]),
        (&"native".into(), &tracker_hook().into()),
        "{status:#}"
    );
    let _server = TcpServer::start(&testbed.dmz, 80);
    let web = SocketAddr::new(ip(V4.web), 80);
    assert!(tcp_talks(&testbed.internet, ip(V4.peer), web, ARRIVES), "new flows of peers are not seen");
}

#[test]
fn a_removed_filter_is_reported_and_attach_restores_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    testbed.prove_drops(&tap, 2);
    // `ip link set dev dmz0 xdp off` is no way: the link holds the program
    let off =
        testbed.router.command("ip").args(["link", "set", "dev", "dmz0", "xdp", "off"]).output().expect("ip");
    assert!(!off.status.success(), "the link does not hold the program");
    testbed.prove_drops(&tap, 2);

    std::fs::remove_file(testbed.pins().join("links/filter")).expect("the filter's link");
    eventually("the program is off", || !testbed.has_xdp());
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"no".into(), &false.into()));
    assert!(warnings(&testbed).contains("the gate on dmz0 is NOT ATTACHED"), "{status:#}");
    assert!(testbed.run("show", &["status"]).done().out.contains("NO"));
    testbed.prove_passes(&tap, 2);

    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    assert_eq!(testbed.show("status")["attached"], "native");
    testbed.prove_drops(&tap, 2);
}
