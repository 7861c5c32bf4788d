//! A real Alertmanager: alarms fire, change, are resolved.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use portcullis::alarm::Step;
use portcullis::sink::{Alertmanager, Event, Sink as _};
use serde_json::Value;

use super::{HOSTILE, Process, dmz_with_alarms, life_of_a_worm, make_certificates, opened};
use crate::e2e::socket::udp;
use crate::e2e::testbed::{Testbed, V4, share_machine};
use crate::support::patience::eventually;

const BASE: &str = "http://127.0.0.1:9093";

struct Server<'w> {
    testbed: &'w Testbed,
    _process: Process,
}

impl<'w> Server<'w> {
    fn start(testbed: &'w Testbed) -> Server<'w> {
        let server = Server::start_with(testbed, &[]);
        eventually("the Alertmanager answers", || server.ask("/-/ready").is_some());
        server
    }

    fn start_with(testbed: &'w Testbed, more: &[String]) -> Server<'w> {
        let config =
            testbed.write("alertmanager.yml", "route:\n  receiver: none\nreceivers:\n- name: none\n");
        let folder = testbed.folder.display();
        let mut command = testbed.router.command("prometheus-alertmanager");
        command.args([
            &format!("--config.file={config}"),
            &format!("--storage.path={folder}/alertmanager"),
            "--web.listen-address=127.0.0.1:9093",
            "--cluster.listen-address=",
        ]);
        command.args(more);
        let process = Process::start(command, &format!("{folder}/alertmanager.out"));
        Server { testbed, _process: process }
    }

    /// The body of an answer that says 200.
    fn ask(&self, path: &str) -> Option<String> {
        self.testbed.router.enter(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9093").ok()?;
            let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            head.split(' ').nth(1).filter(|status| *status == "200")?;
            Some(body.to_owned())
        })
    }

    /// What fires.
    fn alerts(&self) -> Vec<Value> {
        let body = self.ask("/api/v2/alerts").expect("an answer");
        serde_json::from_str(&body).expect("a list")
    }

    fn names(&self) -> Vec<String> {
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().expect("a name").to_owned();
        self.alerts().iter().map(name).collect()
    }
}

#[test]
fn an_alarm_of_the_daemon_fires_with_what_to_do() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let server = Server::start(&testbed);
    let mut daemon = testbed.daemon(&dmz_with_alarms(&format!("alertmanager = \"{BASE}/\"")), &[]);
    testbed.prove_drops(&tap, 3);
    eventually("it fires", || server.names() == ["portcullis_attempt"]);
    let alert = &server.alerts()[0];
    for (label, value) in [
        ("severity", "high"),
        ("kind", "attempt"),
        ("server", "web1"),
        ("service", "udp/4000"),
        ("interface", "dmz0"),
        ("host", portcullis::host::host_name()),
        ("mode", "enforce"),
    ] {
        assert_eq!(alert["labels"][label], value, "{alert}");
    }
    let next = alert["annotations"]["next"].as_str().expect("a command");
    assert!(next.starts_with("portcullis quarantine -i dmz0 web1\nportcullis explain "), "{next}");

    // its own silences know the alert by its labels, which an acknowledgement leaves alone
    let mut amtool = testbed.router.command("amtool");
    amtool.args([&format!("--alertmanager.url={BASE}"), "silence", "add", "alertname=portcullis_attempt"]);
    let output = amtool.args(["-a", "anna", "-c", "a test", "-d", "1h"]).output().expect("amtool");
    assert!(output.status.success(), "{output:?}");
    let labels = alert["labels"].clone();
    testbed.run("alarms", &["ack", "1", "--note", "on it"]).done();
    eventually("it is reported as acknowledged", || {
        let alerts = server.alerts();
        alerts[0]["annotations"]["acknowledged"].as_str().is_some_and(|text| text.ends_with(": on it"))
    });
    let alerts = server.alerts();
    assert_eq!((alerts.len(), &alerts[0]["labels"]), (1, &labels));
    assert_eq!(alerts[0]["status"]["state"], "suppressed", "its own silence holds");
    // one that opens in a silence of ours is not sent at all
    testbed.run("alarms", &["silence", "mx1", "--for", "1h", "--note", "it moves"]).done();
    udp(&testbed.dmz, V4.mail, 0).send_to(b"x", (V4.peer, 4000)).expect("a datagram");
    daemon.wait_for_line(&["opened", "mx1", "Silenced (mx1)"]);
    assert_eq!(server.alerts().len(), 1);
    testbed.run("alarms", &["unsilence", "mx1"]).done();
    eventually("it fires after the silence", || server.alerts().len() == 2);
    daemon.end(Signal::SIGTERM);
}

#[test]
fn an_alarm_fires_is_updated_becomes_graver_and_is_resolved() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let server = Server::start(&testbed);
    let mut sink = Alertmanager::new(BASE, None);
    let mut steps = Vec::new();
    let mut received = Vec::new();
    for change in life_of_a_worm() {
        steps.push(change.step.name());
        let is_over = matches!(change.step, Step::Closed { .. });
        let packets = change.alarm.packets.to_string();
        testbed.router.enter(|| sink.write(&Event::of_alarm(change)).expect("an answer"));
        match is_over {
            true => eventually("nothing fires any more", || server.names().is_empty()),
            false => eventually("the change has arrived", || {
                server.alerts().iter().any(|alert| alert["annotations"]["packets"] == packets.as_str())
            }),
        }
        received.push(server.names());
    }
    assert_eq!(steps, ["opened", "escalated", "updated", "closed"]);
    let name = |name: &str| vec![name.to_owned()];
    let spread = name("portcullis_spread");
    assert_eq!(received, [name("portcullis_attempt"), spread.clone(), spread, Vec::new()]);
}

#[test]
fn a_hostile_name_is_one_label_and_is_taken() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let server = Server::start(&testbed);
    let mut sink = Alertmanager::new(BASE, None);
    testbed.router.enter(|| sink.write(&opened(HOSTILE)).expect("an answer"));
    eventually("it fires", || server.names().len() == 1);
    let text = server.alerts()[0]["labels"]["server"].as_str().expect("a name").to_owned();
    assert!(text.starts_with("w1\"]'=|\\\\\\u{a}<0>1") && !text.contains(char::is_control), "{text:?}");
}

#[test]
fn an_alertmanager_behind_tls_is_notified_only_if_the_right_authority_vouches_for_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    make_certificates(&testbed.folder);
    let folder = testbed.folder.display();
    let config =
        format!("tls_server_config:\n  cert_file: {folder}/server.pem\n  key_file: {folder}/server.key\n");
    let config = testbed.write("web.yml", &config);
    let _server = Server::start_with(&testbed, &[format!("--web.config.file={config}")]);
    eventually("the Alertmanager listens", || {
        testbed.router.enter(|| TcpStream::connect("127.0.0.1:9093").is_ok())
    });
    let send = |ca: &str, name: &str| {
        let ca = format!("{folder}/{ca}.pem");
        let mut sink = Alertmanager::new("https://127.0.0.1:9093", Some(&ca));
        testbed.router.enter(|| sink.write(&opened(name)))
    };
    let error = format!("{:#}", send("other", "wrong").expect_err("a refusal"));
    assert!(error.contains("certificate"), "{error}");
    send("ca", "right").expect("an answer");
    let trust = testbed.write("client.yml", &format!("tls_config:\n  ca_file: {folder}/ca.pem\n"));
    let mut amtool = testbed.router.command("amtool");
    amtool.args(["--alertmanager.url=https://127.0.0.1:9093", &format!("--http.config.file={trust}")]);
    let output = amtool.args(["alert", "query", "-o", "json"]).output().expect("amtool");
    let alerts: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let servers: Vec<&Value> =
        alerts.as_array().expect("a list").iter().map(|alert| &alert["labels"]["server"]).collect();
    assert_eq!(servers, ["right"]);
}
