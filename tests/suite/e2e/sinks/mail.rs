//! Mails to a real server, aiosmtpd, with TLS and a login.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;

use super::{Process, dmz_with_alarms, make_certificates};
use crate::e2e::testbed::{Testbed, share_machine};
use crate::support::patience::eventually;

#[test]
fn an_alarm_is_mailed_over_starttls_and_tls_with_a_login_and_a_wrong_password_is_tried_again() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    make_certificates(&testbed.folder);
    let folder = testbed.folder.display();
    let script = testbed.write("smtpd.py", include_str!("smtpd.py"));
    for (mode, port) in [("starttls", "587"), ("smtps", "465")] {
        let mut command = testbed.router.command("/usr/bin/python3");
        command.args([&script, &folder.to_string(), mode, port]);
        let server = Process::start(command, &format!("{folder}/{mode}.out"));
        eventually("the mail server listens", || server.said().contains("ready"));
        let password = testbed.write("password", "wrong\n");
        fs::set_permissions(&password, Permissions::from_mode(0o600)).expect("a mode");
        let lines = format!(
            "mail_server = \"{mode}://127.0.0.1\"\nmail_from = \"gate@example.com\"\n\
             mail_to = [\"noc@example.com\", \"on-call@example.com\"]\nmail_user = \"gate\"\n\
             mail_password_file = \"{password}\"\ntls_ca = \"{folder}/ca.pem\""
        );
        let mut daemon = testbed.daemon(&dmz_with_alarms(&lines), &[]);
        testbed.prove_drops(&tap, 2);
        daemon.wait_for_line(&["fails and is retried", "does not let gate in"]);
        fs::write(&password, "s3cret\n").expect("a file");
        eventually("the mail is there", || server.said().contains("END OF MAIL"));
        daemon.end(Signal::SIGTERM);
        let said = server.said();
        for words in [
            "gate@example.com ['noc@example.com', 'on-call@example.com']",
            "Subject: [portcullis]",
            "web1 tried udp/4000 to ",
            "portcullis quarantine -i dmz0 web1",
        ] {
            assert!(said.contains(words), "{mode}: no {words} in {said}");
        }
    }
}
