//! A daemon that does not answer: commands say which process it is, and go on with its history.

use nix::sys::signal::Signal;

use super::policies::dmz;
use super::testbed::{Testbed, V4, share_machine};
use crate::support::patience::eventually;

#[test]
fn commands_name_a_daemon_that_is_stopped_and_go_on_with_its_history() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.prove_drops(&tap, 3);
    eventually("the drops are written", || testbed.reported() == 3);
    daemon.signal(Signal::SIGSTOP);

    let named = [format!("process {}", daemon.process()), "is stopped".to_owned(), "kill -CONT".to_owned()];
    let names = |text: &str| named.iter().all(|words| text.contains(words));
    let open = testbed.run("alarms", &["-j"]).done();
    assert!(names(&open.err), "{open:#?}");
    assert_eq!((&open.json()[0]["server"], &open.json()[0]["state"]), (&"web1".into(), &"open".into()));
    let shown = testbed.run("show", &["alarms"]).done();
    assert!(names(&shown.err) && shown.out.contains("web1"), "{shown:#?}");
    let page = testbed.folder.join("page.html").display().to_string();
    let report = testbed.run("report", &["-o", &page, "-j"]).done();
    assert!(names(&report.err) && report.json()["drops"] == 3, "{report:#?}");
    let followed = testbed.run("alarms", &["--follow"]);
    assert!(followed.code == Some(1) && names(&followed.err), "{followed:#?}");
    // the kernel answers as ever
    testbed.prove_drops(&tap, 2);
    assert_eq!(testbed.show("status")["enforcing"], true);
    testbed.run("quarantine", &["mx1"]).done();
    assert_eq!(testbed.verdict(V4.mail, V4.peer, "tcp/25").1, "quarantined");

    daemon.signal(Signal::SIGCONT);
    eventually("the daemon answers again", || {
        let outcome = testbed.run("alarms", &["-j"]).done();
        !outcome.err.contains("process") && outcome.json()[0]["packets"] == 5
    });
    assert!(daemon.end(Signal::SIGTERM).success());
}
