//! `--metrics`, read by Prometheus' own tools and by those who mean no good.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::Daemon;
use super::policies::{dmz, dmz_with};
use super::socket::{NEVER, tcp_talks};
use super::testbed::{Testbed, V4, exclusive, ip, share_machine};
use crate::support::patience::{PATIENCE, deadline, eventually};

/// On the router's loopback: a namespace of its own, so the port is free.
pub const ADDRESS: &str = "127.0.0.1:9464";

fn connect(testbed: &Testbed) -> TcpStream {
    let address: SocketAddr = ADDRESS.parse().expect("an address");
    let mut stream = None;
    // the daemon opens the port just after it says that the gate is attached
    eventually("somebody listens at the metrics' port", || {
        stream = testbed.router.enter(|| TcpStream::connect(address)).ok();
        stream.is_some()
    });
    let stream = stream.expect("a connection");
    stream.set_read_timeout(Some(deadline(PATIENCE))).expect("a timeout");
    stream
}

/// What the server says to these bytes, until it closes; nothing on an error.
fn say(testbed: &Testbed, bytes: &[u8]) -> String {
    let mut stream = connect(testbed);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The page of metrics.
#[track_caller]
pub fn scrape(testbed: &Testbed) -> String {
    let answer = say(testbed, b"GET /metrics HTTP/1.1\r\nHost: router\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    body.to_owned()
}

/// The sum of the samples of a family that have all these labels; `None` when there is none.
pub fn value(page: &str, family: &str, labels: &[&str]) -> Option<f64> {
    let samples = page.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'));
    let values: Vec<f64> = samples
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').expect("a value").1.parse().expect("a number"))
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[test]
fn the_page_says_how_the_gate_is_attached_and_counts_exactly_and_promtool_finds_no_fault() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &["--metrics", ADDRESS]);
    testbed.prove_drops(&tap, 9);
    daemon.wait_for_line(&["alarm #1"]);
    let drops = ["server=\"web1\"", "reason=\"new_flow\""];
    eventually("the drops are counted", || {
        value(&scrape(&testbed), "portcullis_drops_total", &drops) == Some(9.0)
    });
    eventually("the alarm is open", || {
        value(&scrape(&testbed), "portcullis_alarms_open", &["severity=\"high\""]) == Some(1.0)
    });
    let page = scrape(&testbed);
    for (family, labels, expected) in [
        ("portcullis_enforcing", &[][..], 1.0),
        ("portcullis_consumer_up", &[], 1.0),
        ("portcullis_mode_info", &["attached=\"native\"", "tracking=\"strict\"", "tracker=\"tcx\""], 1.0),
        ("portcullis_policy_generation", &[], 1.0),
        ("portcullis_servers", &[], 3.0),
        ("portcullis_alarms_total", &["kind=\"attempt\"", "severity=\"high\""], 1.0),
        ("portcullis_events_lost_total", &[], 0.0),
        ("portcullis_sink_failures_total", &["sink=\"stderr\""], 0.0),
        ("portcullis_history_failures_total", &[], 0.0),
        ("portcullis_table_size", &["table=\"ledger\""], 4096.0),
        ("portcullis_mode_changes_total", &["part=\"tracker\""], 0.0),
    ] {
        assert_eq!(value(&page, family, labels), Some(expected), "{family} {labels:?}\n{page}");
    }
    assert!(value(&page, "portcullis_passes_total", &[]).is_some(), "{page}");
    let hash = testbed.show("status")["policy_hash"].as_str().expect("a hash").to_owned();
    assert!(page.contains(&format!("hash=\"{hash}\"")), "{page}");

    // what it does not drop it does not call dropped
    let observed = dmz().replace("[policy]\n", "[policy]\nmode = \"observe\"\n");
    testbed.apply(&observed);
    eventually("observe is no enforcing", || {
        value(&scrape(&testbed), "portcullis_enforcing", &[]) == Some(0.0)
    });
    testbed.prove_passes(&tap, 4);
    eventually("would-be drops are counted apart", || {
        let page = scrape(&testbed);
        value(&page, "portcullis_would_drops_total", &drops) == Some(4.0)
            && value(&page, "portcullis_drops_total", &drops) == Some(9.0)
    });

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of the package prometheus");
    promtool.stdin.take().expect("a pipe").write_all(scrape(&testbed).as_bytes()).expect("a reader");
    let output = promtool.wait_with_output().expect("an end");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn slow_and_nonsensical_clients_hold_up_neither_the_consumer_nor_other_clients() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &["--metrics", ADDRESS]);
    // some who never finish their request, and one who never reads
    let mut slow: Vec<TcpStream> = (0..5).map(|_| connect(&testbed)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HT").expect("a listener");
    }
    let mut deaf = connect(&testbed);
    deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("a listener");
    testbed.prove_drops(&tap, 3);
    daemon.wait_for_line(&["alarm #1", "web1"]);
    assert!(scrape(&testbed).contains("portcullis_consumer_up{interface=\"dmz0\"} 1\n"));
    for (request, status) in [
        (&b"GET /else HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
        (b"GET /metrics\r\n\r\n", "400"),
    ] {
        let answer = say(&testbed, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    let head = say(&testbed, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    // a request that is too long is not read to its end
    let mut long = b"GET /metrics HTTP/1.1\r\n".to_vec();
    long.extend(std::iter::repeat_n(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 100_000).flatten());
    let answer = say(&testbed, &long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // more than are served at a time: closed, and the rest goes on once the slow ones are left
    let crowd: Vec<TcpStream> = (0..40).map(|_| connect(&testbed)).collect();
    testbed.prove_drops(&tap, 3);
    drop(crowd);
    eventually("the slow ones are left", || {
        say(&testbed, b"GET /metrics HTTP/1.1\r\n\r\n")
            .contains("portcullis_consumer_up{interface=\"dmz0\"} 1\n")
    });
    drop((slow, deaf));
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_metrics_port_that_is_taken_keeps_no_gate_away_and_is_used_when_it_is_free() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let taken = testbed.router.enter(|| std::net::TcpListener::bind(ADDRESS)).expect("a free port");
    let mut daemon = testbed.daemon(&dmz(), &["--metrics", ADDRESS]);
    daemon.wait_for_line(&["warning", "could not serve metrics", ADDRESS, "another program uses the port"]);
    testbed.prove_drops(&tap, 3);
    drop(taken);
    daemon.wait_for_line(&["metrics are served at", ADDRESS]);
    assert!(scrape(&testbed).contains("portcullis_enforcing{interface=\"dmz0\"} 1"));
    assert!(daemon.end(Signal::SIGTERM).success());
}

/// A Prometheus of the test's own, on the router's loopback.
struct Prometheus(Child);

impl Prometheus {
    fn start(testbed: &Testbed) -> Prometheus {
        let config = testbed.write(
            "prometheus.yml",
            &format!(
                "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [\"{}/packaging/prometheus-rules.yml\"]\n\
                 scrape_configs:\n  - job_name: portcullis\n    static_configs:\n      - targets: [\"{ADDRESS}\"]\n",
                env!("CARGO_MANIFEST_DIR")
            ),
        );
        let data = testbed.folder.join("prometheus");
        let log = fs::File::create(testbed.folder.join("prometheus.log")).expect("a file");
        let mut command = testbed.router.command("prometheus");
        command
            .arg(format!("--config.file={config}"))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdout(Stdio::null())
            .stderr(log);
        Prometheus(command.spawn().expect("prometheus, of the package prometheus"))
    }

    /// The values of an instant query.
    fn ask(testbed: &Testbed, query: &str) -> Vec<Value> {
        let Ok(mut stream) = testbed.router.enter(|| TcpStream::connect("127.0.0.1:9090")) else {
            return Vec::new();
        };
        let _ = stream.set_read_timeout(Some(deadline(Duration::from_secs(5))));
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).is_err() || stream.read_to_string(&mut answer).is_err() {
            return Vec::new();
        }
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        value["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_prometheus_scrapes_it_and_its_rules_fire() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon: Daemon = testbed.daemon(&dmz(), &["--metrics", ADDRESS]);
    let _prometheus = Prometheus::start(&testbed);
    eventually("it is scraped", || {
        Prometheus::ask(&testbed, "up").first().is_some_and(|up| up["value"][1] == "1")
    });
    testbed.prove_drops(&tap, 11);
    eventually("the drops are in its database", || {
        Prometheus::ask(&testbed, "portcullis_drops_total%7Bserver=%22web1%22%7D")
            .first()
            .is_some_and(|drops| drops["value"][1] == "11")
    });
    eventually("the rule for open alarms fires", || {
        Prometheus::ask(&testbed, "ALERTS%7Balertname=%22PortcullisAlarmOpen%22,alertstate=%22firing%22%7D")
            .len()
            == 1
    });
    show_every_panel(&testbed);
    daemon.end(Signal::SIGTERM);
    eventually("it notices that nobody is there", || {
        Prometheus::ask(&testbed, "up").first().is_some_and(|up| up["value"][1] == "0")
    });
}

/// Each panel of the dashboard has data, with all of its variables at "All". One is about what passes by `observe`.
fn show_every_panel(testbed: &Testbed) {
    testbed.apply(&dmz_with("mode = \"observe\""));
    let target = SocketAddr::new(ip(V4.peer), 9);
    tcp_talks(&testbed.dmz, ip(V4.web), target, NEVER);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "host", "interface", "server"]);
    for panel in dashboard["panels"].as_array().expect("panels") {
        for expression in panel["targets"].as_array().expect("targets").iter().map(|target| &target["expr"]) {
            let mut query = expression.as_str().expect("an expression").replace("$__rate_interval", "1m");
            for name in &names {
                query = query.replace(&format!("${name}"), ".*");
            }
            assert!(!query.contains('$'), "{query}");
            eventually(&format!("{}: {query}", panel["title"]), || {
                !Prometheus::ask(testbed, &percent_encode(&query)).is_empty()
            });
        }
    }
}

/// A text as a part of a URL.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Names of metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("portcullis_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn rules_and_dashboard_use_existing_metrics_and_the_rules_pass_their_own_tests() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let read = |name: &str| fs::read_to_string(packaging.join(name)).expect(name);
    let rules = read("prometheus-rules.yml");
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let mut expressions = dashboard["annotations"]["list"][0]["expr"].to_string();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            expressions.push_str(target["expr"].as_str().expect("an expression"));
            expressions.push(' ');
        }
    }
    let all = dmz_with("handover = \"conntrack\"");
    let _daemon = testbed.daemon(&all, &["--metrics", ADDRESS]);
    let page = scrape(&testbed);
    let known: BTreeSet<String> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned()))
        .collect();
    for asked in [names_in(&rules), names_in(&expressions)] {
        assert!(asked.len() > 5, "{asked:?}");
        assert_eq!(asked.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    }
    for args in [["check", "rules", "prometheus-rules.yml"], ["test", "rules", "prometheus-rules.test.yml"]] {
        let output = Command::new("promtool").args(args).current_dir(&packaging).output().expect("promtool");
        assert!(output.status.success(), "{output:?}");
    }
}
