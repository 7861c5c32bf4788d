//! Mail in and out: the demo's mail server, and curl as the one who brings it.

use std::fs;

use super::service::{ENOUGH, Service, run_client};
use super::site::Site;
use super::website::bracketed;
use crate::e2e::testbed::{FAMILIES, Family, Namespace, Testbed};
use crate::support::patience::{PATIENCE, Wait, within};

/// Debian's own, for its aiosmtpd.
const PYTHON: &str = "/usr/bin/python3";
const MAILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo.d/maild.py");

struct Mailbox {
    _server: Service,
    spool: std::path::PathBuf,
}

impl Mailbox {
    fn start(testbed: &Testbed, machine: &Namespace, address: &str) -> Mailbox {
        let name = format!("mail-{address}");
        let spool = testbed.folder.join(format!("{name}.spool"));
        let path = spool.display().to_string();
        let command = [PYTHON, MAILD, "example.org", &path, "none", address];
        let server = Service::start(testbed, machine, &name, &command, &[("tcp", address, 25)]);
        Mailbox { _server: server, spool }
    }

    /// Brings a message, larger than a window; whether it lies in the spool.
    fn take(
        &self,
        testbed: &Testbed,
        machine: &Namespace,
        from: &str,
        to: &str,
        token: &str,
        wait: Wait,
    ) -> bool {
        let body = "All is well in the zone between the walls.\r\n".repeat(4000);
        let text = format!("From: a@example.com\r\nTo: b@example.org\r\nSubject: {token}\r\n\r\n{body}");
        let path = testbed.write(&format!("message-{token}"), &text);
        let url = format!("smtp://{}", bracketed(to));
        let sent = run_client(
            machine,
            wait,
            &[
                "curl",
                "-q",
                "-sS",
                "--noproxy",
                "*",
                "--interface",
                from,
                &url,
                "--mail-from",
                "a@example.com",
                "--mail-rcpt",
                "b@example.org",
                "--upload-file",
                &path,
            ],
        );
        let arrived = || fs::read_to_string(&self.spool).unwrap_or_default().contains(token);
        sent.is_some() && within(PATIENCE, arrived)
    }
}

#[test]
fn mail_comes_in_and_goes_out() {
    let site = Site::new();
    let testbed = &site.testbed;
    let boxes = FAMILIES.map(|family| {
        let inside = Mailbox::start(testbed, &testbed.dmz, family.mail);
        (family, inside, Mailbox::start(testbed, &testbed.internet, family.exchanger))
    });
    let incoming = |family: &Family, mailbox: &Mailbox, token: &str, wait| {
        mailbox.take(testbed, &testbed.internet, family.exchanger, family.mail, token, wait)
    };
    let outgoing = |family: &Family, mailbox: &Mailbox, token: &str, wait| {
        mailbox.take(testbed, &testbed.dmz, family.mail, family.exchanger, token, wait)
    };
    for (family, inside, outside) in &boxes {
        for number in 0..3 {
            assert!(incoming(family, inside, &format!("in-{number}"), ENOUGH), "to {}", family.mail);
            assert!(outgoing(family, outside, &format!("out-{number}"), ENOUGH), "from {}", family.mail);
        }
    }
    site.assert_quiet();
    for (family, inside, outside) in &boxes {
        site.hangs_on("mx1", ("mail", "in", "tcp/25"), |s| incoming(family, inside, "hangs-in", s));
        site.hangs_on("mx1", ("mail", "out", "tcp/25"), |s| outgoing(family, outside, "hangs-out", s));
    }
}
