//! What other users of the machine, peers of the sinks and a noisy server try against the daemon and its
//! files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use portcullis::gate::{Gate, GatePlace};
use serde_json::Value;

use super::command::{Daemon, Outcome};
use super::metrics::{scrape, value};
use super::policies::{dmz, dmz_with};
use super::testbed::{NIC, Testbed, V4, share_machine};
use super::traffic::{FORBIDDEN, syn_of};
use crate::support::patience::{PATIENCE, eventually, within};

const METRICS: [&str; 2] = ["--metrics", "127.0.0.1:9464"];

#[test]
fn another_user_reads_that_the_daemon_may_not_be_asked_and_not_that_there_is_none() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    // where that user may run it
    let program = testbed.folder.join("portcullis");
    fs::copy(env!("CARGO_BIN_EXE_portcullis"), &program).expect("a copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    for args in
        [&["show", "-i", NIC, "alarms"][..], &["alarms", "-i", NIC], &["report", "-i", NIC, "-o", "-"]]
    {
        let mut command = testbed.router.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).args(args);
        let outcome = Outcome::of(command.env_remove("RUST_LOG")).refused(&["help: run it as root"]);
        for lie in ["no daemon answers", "no history"] {
            assert!(!outcome.err.contains(lie), "{args:?}: `{lie}` in {outcome:#?}");
        }
    }
}

#[test]
fn another_user_who_may_open_the_socket_reads_and_does_not_reload() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    testbed.write("daemon.toml", &dmz_with("mode = \"observe\""));
    // as a group of the socket's would let them
    let run = |args: &[&str]| {
        let mut command = testbed.router.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]);
        Outcome::of(command.arg(env!("CARGO_BIN_EXE_portcullis")).args(args).env_remove("RUST_LOG"))
    };
    assert_eq!(run(&["show", "-i", NIC, "alarms", "-j"]).done().json(), Value::Array(Vec::new()));
    for force in [&[][..], &["--force"]] {
        run(&[&["reload", "-i", NIC], force].concat()).refused(&["only root may", "help: run it as root"]);
    }
    assert_eq!(testbed.show("status")["generation"], 1);
    assert!(!testbed.audited().iter().any(|event| event.contains("reload")), "{:#?}", testbed.audit());
    testbed.run("reload", &[]).done();
    assert_eq!(testbed.show("status")["generation"], 2);
}

#[test]
fn a_policy_that_is_a_fifo_is_refused_at_a_hangup_and_holds_up_nothing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    let path = testbed.folder.join("daemon.toml");
    fs::remove_file(&path).expect("a file");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["regular file"]);
    testbed.prove_drops(&tap, 3);
    eventually("the drops are reported", || testbed.reported() == 3);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_report_leaves_a_link_and_what_it_leads_to_alone() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    let (target, link) = (testbed.folder.join("target"), testbed.folder.join("link.html"));
    fs::write(&target, "precious").expect("a file");
    symlink(&target, &link).expect("a link");
    testbed.run("report", &["-o", &link.display().to_string()]).refused(&["link.html", "help:"]);
    assert_eq!(fs::read_to_string(&target).expect("a file"), "precious");
    assert!(link.is_symlink());
    drop(daemon);
}

#[test]
fn a_limit_on_the_size_of_files_costs_the_daemon_a_sink_and_not_its_life() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let eve = testbed.folder.join("eve.json");
    let policy = format!("{}\n[alarms]\neve = \"{}\"\n", dmz(), eve.display());
    let path = testbed.write("daemon.toml", &policy);
    let mut command = testbed.router.command("prlimit");
    // the history's file is smaller
    command.arg("--fsize=262144").arg(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["run", "-i", NIC, "-p", &path]).args(METRICS).env_remove("RUST_LOG");
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line(&["attached to dmz0: "]);
    testbed.wait_for_consumer();
    let failures = || value(&scrape(&testbed), "portcullis_sink_failures_total", &["eve"]).unwrap_or(0.0);
    let mut port = 10_000;
    let failed = within(PATIENCE * 3, || {
        for _ in 0..32 {
            testbed.send_from_web(port, 1);
            port += 1;
        }
        failures() > 0.0
    });
    assert!(failed, "{} bytes were written", fs::metadata(&eve).map_or(0, |file| file.len()));
    assert!(daemon.is_running());
    assert_eq!(testbed.run("show", &["alarms"]).code, Some(0));
    assert!(daemon.end(Signal::SIGTERM).success());
}

/// A log server whose handshake of TLS never comes to its end: it sends a byte now and then.
fn start_dripping(testbed: &Testbed, stop: &Arc<AtomicBool>) {
    let listener = testbed.router.enter(|| TcpListener::bind("0.0.0.0:6514").expect("a listener"));
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let Ok(mut stream) = stream else { return };
                // a handshake's record of 16,128 bytes (RFC 8446, 5.1), and a little of it
                let record = [22, 3, 3, 0x3f, 0].into_iter().chain(std::iter::repeat(0));
                for byte in record {
                    if stop.load(Ordering::Relaxed) || stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
}

fn count_threads(daemon: &Daemon) -> usize {
    fs::read_dir(Path::new("/proc").join(daemon.pid().to_string()).join("task")).map_or(0, Iterator::count)
}

#[test]
fn a_handshake_that_drips_is_counted_as_a_failure_and_reloads_leave_no_threads_behind() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let stop = Arc::new(AtomicBool::new(false));
    start_dripping(&testbed, &stop);
    let policy = |round: u16| format!("{}\n[alarms]\nsyslog = \"tls://127.0.0.1\"\n# {round}\n", dmz());
    let mut daemon = testbed.daemon(&policy(0), &METRICS);
    testbed.wait_for_consumer();
    testbed.send_from_web(FORBIDDEN, 1);
    let failures = || value(&scrape(&testbed), "portcullis_sink_failures_total", &["syslog"]).unwrap_or(0.0);
    assert!(within(PATIENCE * 2, || failures() >= 1.0), "{:#?}", daemon.said());
    daemon.wait_for_line(&["syslog", "it took too long"]);
    let before = count_threads(&daemon);
    for round in 1..=8_u16 {
        let lines = policy(round).replace("tls://127.0.0.1", &format!("tls://127.0.0.{round}"));
        testbed.write("daemon.toml", &lines);
        daemon.signal(Signal::SIGHUP);
        eventually("the reload is done", || {
            testbed.show("policy")["policy"].as_str().is_some_and(|text| text.contains(&format!("# {round}")))
        });
        // the new sink has something to say, and hangs as well
        testbed.send_from_web(FORBIDDEN + round, 1);
    }
    let most = before + 2;
    assert!(within(PATIENCE * 4, || count_threads(&daemon) <= most), "{} threads", count_threads(&daemon));
    stop.store(true, Ordering::Relaxed);
    assert!(daemon.end(Signal::SIGTERM).success());
}

/// A log server, and all that it has heard.
fn listen_for_logs(testbed: &Testbed) -> Arc<Mutex<String>> {
    let listener = testbed.internet.enter(|| TcpListener::bind((V4.loghost, 601)).expect("a listener"));
    let heard: Arc<Mutex<String>> = Arc::default();
    let log = Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    log.lock().expect("the log").push_str(&String::from_utf8_lossy(&bytes[..length]));
                }
            });
        }
    });
    heard
}

#[test]
fn a_log_server_that_vanishes_is_given_up_and_the_next_one_gets_the_alarm() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let log = listen_for_logs(&testbed);
    let heard = |what: &str| log.lock().expect("the log").contains(what);
    let policy = format!("{}\n[alarms]\nsyslog = \"tcp://{}:601\"\n", dmz(), V4.loghost);
    let mut daemon = testbed.daemon(&policy, &METRICS);
    testbed.wait_for_consumer();
    testbed.send_from_web(FORBIDDEN, 1);
    eventually("the log server gets the first alarm", || heard("udp/4000"));
    // nothing says that it has gone: what is for it goes to a machine that is not there
    let way = |mac: &str| {
        let line = format!("neighbour replace 203.0.113.130 lladdr {mac} dev wan0 nud permanent\n");
        testbed.router.ip(&line);
    };
    way("02:00:00:00:00:99");
    testbed.send_from_web(FORBIDDEN + 1, 1);
    let failures = || value(&scrape(&testbed), "portcullis_sink_failures_total", &["syslog"]).unwrap_or(0.0);
    assert!(within(PATIENCE * 3, || failures() >= 1.0), "{:#?}", daemon.said());
    way("02:00:00:00:00:03");
    testbed.send_from_web(FORBIDDEN + 2, 1);
    assert!(within(PATIENCE * 4, || heard("udp/4002")), "{:#?}", daemon.said());
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_server_that_calls_every_port_costs_no_other_server_its_records() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    testbed.send_from_web(FORBIDDEN, 5);
    eventually("the healthy server's drops are written", || testbed.reported() == 5);
    let place = testbed.router.enter(|| GatePlace::of(NIC)).expect("a place");
    let gate = testbed.router.enter(|| Gate::open(&place)).expect("a gate");
    let mut frame = syn_of(V4.mail, 1);
    let mut sent = 0_u64;
    for port in (300..60_300_u16).step_by(3) {
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        gate.programs.run_filter(&frame, 1).expect("a run");
        sent += 1;
    }
    let ledger = |server: &str| -> u64 {
        let rows = testbed.drops();
        rows.iter().filter(|row| row.0["server"] == server).map(|row| row.packets()).sum()
    };
    assert_eq!((ledger("mx1"), ledger("web1")), (sent, 5));
    eventually("every drop is in the history", || testbed.reported() == sent + 5);
    let page = testbed.folder.join("page.html").display().to_string();
    let summary = testbed.run("report", &["-o", &page, "-j"]).done().json();
    let folded = summary["folded"].as_u64().expect("a count");
    assert!(folded > sent / 2 && folded <= sent, "{summary:#}");
    let text = fs::read_to_string(&page).expect("a page");
    for fact in ["web1", "udp/4000", "Folded"] {
        assert!(text.contains(fact), "no `{fact}` in the report");
    }
    drop(daemon);
}
