//! Syslog to a real rsyslog: local socket, UDP, TCP, TLS.

use std::fs;

use nix::sys::signal::Signal;
use portcullis::policy::{Endpoint, SyslogTarget};
use portcullis::sink::{Sink as _, Syslog};

use super::{HOSTILE, Process, dmz_with_alarms, make_certificates, opened};
use crate::e2e::testbed::{Testbed, share_machine};
use crate::support::patience::{eventually, within};

/// What the test waits for when it waits for nothing to come.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(500);

/// An rsyslog on the router that writes down, by way of arrival, what it understood.
struct Rsyslog<'w> {
    testbed: &'w Testbed,
    process: Process,
}

impl<'w> Rsyslog<'w> {
    fn start(testbed: &'w Testbed) -> Rsyslog<'w> {
        make_certificates(&testbed.folder);
        let folder = testbed.folder.display();
        let config = format!(
            r#"
global(workDirectory="{folder}" net.enableDNS="off" maxMessageSize="16k"
    defaultNetstreamDriverCAFile="{folder}/ca.pem"
    defaultNetstreamDriverCertFile="{folder}/server.pem"
    defaultNetstreamDriverKeyFile="{folder}/server.key")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
template(name="parts" type="string"
    string="%pri%~%hostname%~%app-name%~%msgid%~%structured-data%~%msg%\n")
input(type="imuxsock" Socket="{folder}/log" useSpecialParser="off" ruleset="unix")
input(type="imudp" address="127.0.0.1" port="514" ruleset="udp")
input(type="imtcp" address="127.0.0.1" port="514" ruleset="tcp")
input(type="imtcp" address="127.0.0.1" port="6514" ruleset="tls"
    StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
"#
        );
        let rulesets: String = ["unix", "udp", "tcp", "tls"]
            .map(|way| {
                format!(
                    "ruleset(name=\"{way}\") {{ action(type=\"omfile\" file=\"{folder}/{way}.log\" \
                     template=\"parts\") }}\n"
                )
            })
            .concat();
        let path = testbed.write("rsyslog.conf", &(config + &rulesets));
        let mut command = testbed.router.command("rsyslogd");
        command.args(["-n", "-f", &path, "-i", &format!("{folder}/rsyslog.pid")]);
        let process = Process::start(command, &format!("{folder}/rsyslog.out"));
        let rsyslog = Rsyslog { testbed, process };
        eventually("rsyslog listens", || {
            testbed.folder.join("log").exists() && [514, 6514].iter().all(|port| rsyslog.listens(*port))
        });
        assert_eq!(rsyslog.process.said(), "", "rsyslog complains");
        rsyslog
    }

    /// Asked of the kernel: a connection without TLS would make it complain.
    fn listens(&self, port: u16) -> bool {
        let table = self.testbed.router.enter(|| fs::read_to_string("/proc/thread-self/net/tcp"));
        let local = format!("0100007F:{port:04X}");
        table.expect("a table").lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next() == Some(&local) && words.nth(1) == Some("0A")
        })
    }

    fn lines(&self, way: &str) -> Vec<String> {
        let text = fs::read_to_string(self.testbed.folder.join(format!("{way}.log"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn local(port: u16) -> Endpoint {
    Endpoint { host: "127.0.0.1".into(), port }
}

#[test]
fn an_alarm_reaches_rsyslog_over_every_transport_with_its_structured_data() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let rsyslog = Rsyslog::start(&testbed);
    let folder = testbed.folder.display();
    for (way, target) in [
        ("unix", format!("unix:{folder}/log")),
        ("udp", "udp://127.0.0.1".to_owned()),
        ("tcp", "tcp://127.0.0.1:514".to_owned()),
        ("tls", "tls://127.0.0.1".to_owned()),
    ] {
        let policy = dmz_with_alarms(&format!("syslog = \"{target}\"\ntls_ca = \"{folder}/ca.pem\""));
        let mut daemon = testbed.daemon(&policy, &[]);
        testbed.prove_drops(&tap, 2);
        eventually("rsyslog has the alarm", || !rsyslog.lines(way).is_empty());
        daemon.end(Signal::SIGTERM);
        let lines = rsyslog.lines(way);
        let parts: Vec<&str> = lines[0].split('~').collect();
        assert_eq!((parts[0], parts[2], parts[3]), ("26", "portcullis", "attempt"), "{way}: {lines:#?}");
        for word in ["[portcullis@32473 alarm=", "server=\"web1\"", "service=\"udp/4000\"", "step=\"opened\""]
        {
            assert!(parts[4].contains(word), "{way}: no {word} in {lines:#?}");
        }
        // numbers go on from daemon to daemon
        assert!(parts[5].contains(" opened: high attempt: web1 tried udp/4000"), "{way}: {lines:#?}");
    }
}

#[test]
fn a_hostile_name_is_one_message_over_every_transport() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let rsyslog = Rsyslog::start(&testbed);
    let ca = testbed.folder.join("ca.pem").display().to_string();
    for (way, target) in [
        ("unix", SyslogTarget::Unix(testbed.folder.join("log").display().to_string())),
        ("udp", SyslogTarget::Udp(local(514))),
        ("tcp", SyslogTarget::Tcp(local(514))),
        ("tls", SyslogTarget::Tls(local(6514))),
    ] {
        testbed.router.enter(|| {
            let mut sink = Syslog::new(&target, Some(&ca));
            for name in [HOSTILE, "last"] {
                sink.write(&opened(name)).expect("a message on its way");
            }
        });
        eventually("both are there", || {
            rsyslog.lines(way).iter().any(|line| line.contains("server=\"last\""))
        });
        let lines = rsyslog.lines(way);
        assert_eq!(lines.len(), 2, "{way}: {lines:#?}");
        assert!(lines.iter().all(|line| line.starts_with("26~")), "{way}: {lines:#?}");
        assert!(!lines[0].contains(|c: char| c.is_control()), "{way}: {lines:#?}");
        assert!(lines[0].contains(r#"server="w1\"\]'=|"#), "{way}: {lines:#?}");
    }
}

#[test]
fn a_tls_server_that_the_wrong_authority_vouches_for_gets_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let rsyslog = Rsyslog::start(&testbed);
    let other = testbed.folder.join("other.pem").display().to_string();
    let error = testbed.router.enter(|| {
        let mut sink = Syslog::new(&SyslogTarget::Tls(local(6514)), Some(&other));
        format!("{:#}", sink.write(&opened("web1")).expect_err("a refusal"))
    });
    assert!(
        error.contains("cannot connect to tls://127.0.0.1:6514") && error.contains("certificate"),
        "{error}"
    );
    assert!(!within(MOMENT, || !rsyslog.lines("tls").is_empty()));
}

#[test]
fn a_log_server_that_is_started_anew_gets_what_was_said_meanwhile() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let rsyslog = Rsyslog::start(&testbed);
    let mut daemon = testbed.daemon(&dmz_with_alarms("syslog = \"tcp://127.0.0.1\""), &[]);
    testbed.prove_drops(&tap, 1);
    eventually("the first alarm is there", || !rsyslog.lines("tcp").is_empty());
    drop(rsyslog);
    let _ = fs::remove_file(testbed.folder.join("log"));
    // another kind of drop, so another part of the alarm
    testbed.send_from_web(4001, 1);
    daemon.wait_for_line(&["alarm #1 escalated", "udp/4001"]);
    let rsyslog = Rsyslog::start(&testbed);
    let is_second = |line: &String| line.contains("alarm=\"1\"") && line.contains("step=\"escalated\"");
    eventually("the change is there", || rsyslog.lines("tcp").iter().any(is_second));
    daemon.end(Signal::SIGTERM);
}
