//! ssh and scp from the bastion, with keys of the test's own.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::service::{ENOUGH, Service, run_client};
use super::site::{LONG_PICKUP_S, Site};
use super::website::bracketed;
use crate::e2e::testbed::{FAMILIES, Family, Testbed, in_both_families};
use crate::support::patience::{Wait, eventually, within};

/// An sshd in mount and host name namespaces of its own, as the demo has it.
const SSHD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo.d/sshd");
const HOST: &str = "dmz-host";

pub struct Login {
    _sshd: Service,
    options: Vec<String>,
    folder: std::path::PathBuf,
}

impl Login {
    pub fn start(testbed: &Testbed) -> Login {
        let folder = testbed.folder.join("ssh");
        fs::create_dir_all(&folder).expect("a folder");
        let accounts = fs::read_to_string("/etc/passwd").expect("accounts");
        let admin = "admin:*:65533:65534:portcullis test:/:/bin/sh\n";
        fs::write(folder.join("passwd"), accounts + admin).expect("a file");
        for key in ["bastion", HOST] {
            let path = folder.join(key);
            let status =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
            assert!(status.expect("ssh-keygen").success());
        }
        fs::copy(folder.join("bastion.pub"), folder.join("authorized_keys")).expect("a file");
        let public = fs::read_to_string(folder.join(format!("{HOST}.pub"))).expect("a key");
        fs::write(folder.join("known_hosts"), format!("* {public}")).expect("a file");
        let path = folder.display().to_string();
        let command = ["unshare", "--mount", "--uts", "--propagation", "private", SSHD, HOST, &path];
        let sshd = Service::start(
            testbed,
            &testbed.dmz,
            "sshd",
            &command,
            &[("tcp", "0.0.0.0", 22), ("tcp", "::", 22)],
        );
        // the account has no home, and writes here
        fs::create_dir(folder.join("open")).expect("a folder");
        fs::set_permissions(folder.join("open"), Permissions::from_mode(0o777)).expect("its mode");
        let options = [
            "-F".to_owned(),
            "/dev/null".to_owned(),
            "-i".to_owned(),
            format!("{path}/bastion"),
            "-oIdentitiesOnly=yes".to_owned(),
            "-oBatchMode=yes".to_owned(),
            "-oStrictHostKeyChecking=yes".to_owned(),
            format!("-oUserKnownHostsFile={path}/known_hosts"),
            "-oGlobalKnownHostsFile=/dev/null".to_owned(),
        ];
        Login { _sshd: sshd, options: options.into(), folder }
    }

    fn run(
        &self,
        testbed: &Testbed,
        family: &Family,
        wait: Wait,
        program: &str,
        more: &[&str],
    ) -> Option<String> {
        let bind = format!("-oBindAddress={}", family.bastion);
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        run_client(&testbed.internet, wait, &[&[program], &options[..], &[&bind], more].concat())
    }

    pub fn logs_in(&self, testbed: &Testbed, family: &Family, server: &str, wait: Wait) -> bool {
        let said = self.run(testbed, family, wait, "ssh", &[&format!("admin@{server}"), "hostname"]);
        said.is_some_and(|said| said.trim() == HOST)
    }

    /// Copies a file there and back; whether it is the same.
    fn copies(&self, testbed: &Testbed, family: &Family, server: &str) -> bool {
        let (here, back) = (self.folder.join("large"), self.folder.join("back"));
        let bytes: Vec<u8> =
            (0..8_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(&here, &bytes).expect("a file");
        let copied = self.folder.join("open/copied");
        let there = format!("admin@{}:{}", bracketed(server), copied.display());
        let [here, back] = [here, back].map(|path| path.display().to_string());
        let done = self.run(testbed, family, ENOUGH, "scp", &["-q", &here, &there]).is_some()
            && self.run(testbed, family, ENOUGH, "scp", &["-q", &there, &back]).is_some();
        let _ = fs::remove_file(copied);
        done && fs::read(back).is_ok_and(|read| read == bytes)
    }

    /// A session whose far end repeats what it reads.
    pub fn open_session(&self, testbed: &Testbed, family: &Family) -> Session {
        let mut command = testbed.internet.command("ssh");
        command.args(&self.options).arg(format!("-oBindAddress={}", family.bastion));
        command.arg(format!("admin@{}", family.web)).arg("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("ssh");
        let reader = BufReader::new(child.stdout.take().expect("a pipe"));
        Session { child, reader }
    }
}

pub struct Session {
    child: std::process::Child,
    reader: BufReader<std::process::ChildStdout>,
}

impl Session {
    /// Waits for the echo: forever, if need be until the test is ended.
    pub fn echoes(&mut self, word: &str) -> bool {
        let mut line = String::new();
        let pipe = self.child.stdin.as_mut().expect("a pipe");
        writeln!(pipe, "{word}").and_then(|()| pipe.flush()).is_ok()
            && self.reader.read_line(&mut line).is_ok()
            && line.trim() == word
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.child.stdin.take();
        if !within(Duration::from_secs(5), || matches!(self.child.try_wait(), Ok(Some(_)))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[test]
fn the_bastion_logs_in_and_copies_files() {
    let site = Site::new();
    let login = Login::start(&site.testbed);
    in_both_families(|family| {
        for server in [family.web, family.mail, family.dns] {
            assert!(login.logs_in(&site.testbed, &family, server, ENOUGH), "{server}");
        }
        assert!(login.copies(&site.testbed, &family, family.web), "{}", family.web);
    });
    site.assert_quiet();
    in_both_families(|family| {
        site.hangs_on("web1", ("policy", "management", "tcp/22 from @bastion"), |wait| {
            login.logs_in(&site.testbed, &family, family.web, wait)
        });
    });
}

#[test]
fn a_session_that_was_open_before_the_gate_stays_idle_for_longer_than_the_pickup_and_goes_on() {
    let mut site = Site::without_gate();
    let login = Login::start(&site.testbed);
    let mut sessions = FAMILIES.map(|family| login.open_session(&site.testbed, &family));
    assert!(sessions.iter_mut().all(|session| session.echoes("before")));
    site.start_daemon_with(LONG_PICKUP_S);
    // one word within the pickup takes it over
    assert!(sessions.iter_mut().all(|session| session.echoes("while it is new")));
    site.outlast_pickup();
    eventually("the sessions are known", || {
        site.testbed
            .show("flows")
            .as_array()
            .is_some_and(|flows| flows.iter().filter(|flow| flow["table"] == "established").count() >= 2)
    });
    assert!(sessions.iter_mut().all(|session| session.echoes("afterwards")));
    // and one that the gate has seen from its beginning
    let mut late = FAMILIES.map(|family| login.open_session(&site.testbed, &family));
    assert!(late.iter_mut().all(|session| session.echoes("late")));
    drop((sessions, late));
    site.assert_quiet();
}
