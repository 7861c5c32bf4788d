//! What people read of a live gate, word by word: `explain`, the page of metrics, a report.

use super::metrics;
use super::policies::dmz;
use super::testbed::{Testbed, V4, V6, share_machine};
use crate::support::patience::eventually;
use crate::support::snapshot::{assert_text, without_times};

impl Testbed {
    /// The text without the name of the test's folder.
    fn hide_folder(&self, text: &str) -> String {
        text.replace(&self.folder.display().to_string(), "FOLDER")
    }
}

#[test]
fn explain_answers_as_before() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let mut text = String::new();
    let mut ask = |args: &[&str]| {
        let said = testbed.run("explain", args).done();
        text.push_str(&format!(
            "$ portcullis explain -i dmz0 {}\n{}{}\n",
            args.join(" "),
            said.out,
            said.err
        ));
    };
    for args in [
        ["--from", V4.dns, "--to", V4.peer, "udp/53"],
        ["--from", V6.dns, "--to", V6.peer, "tcp/53"],
        ["--from", V4.web, "--to", V4.peer, "tcp/80"],
        ["--from", V4.web, "--to", V4.peer, "udp/123"],
        ["--from", V6.web, "--to", V6.peer, "icmpv6/echo-request"],
        ["--from", V4.peer, "--to", V4.web, "tcp/443"],
        ["--from", V4.peer, "--to", V4.web, "tcp/22"],
        ["--from", V4.bastion, "--to", V4.mail, "tcp/22"],
        ["--from", "192.0.2.99", "--to", V4.peer, "tcp/80"],
    ] {
        ask(&args);
    }
    for args in [
        ["--from", "web1", "--to", V6.peer, "tcp/22"],
        ["--from", V4.peer, "--to", "web1", "tcp/443"],
        // two servers of one link, the public address of a DNAT rule, and one address twice
        ["--from", "web1", "--to", "mx1", "tcp/25"],
        ["--from", V4.peer, "--to", "203.0.113.80", "tcp/80"],
        ["--from", "web1", "--to", "web1", "tcp/80"],
    ] {
        ask(&args);
    }
    ask(&["--from", V4.web, "--to", V4.peer, "tcp/50000", "--sport", "80", "--flags", "SA"]);
    testbed.run("quarantine", &["web1"]).done();
    ask(&["--from", V4.peer, "--to", V4.web, "tcp/80"]);
    ask(&["--from", V4.bastion, "--to", V4.web, "tcp/22"]);
    assert_text("explain", &testbed.hide_folder(&text));
    let refused = testbed.run("explain", &["--from", "wbe1", "--to", V4.peer, "tcp/80"]);
    refused.refused(&["`wbe1` is neither an address nor a server", "did you mean `web1`"]);
    let refused = testbed.run("explain", &["--from", V4.web, "--to", V6.peer, "tcp/80"]);
    refused.refused(&["have no address of the same family", "help:"]);
    let json = format!("{:#}\n", testbed.explain(V4.dns, V4.peer, "udp/53"));
    assert_text("explain-json", &testbed.hide_folder(&json));
}

/// The page with each sample's value as `#`, and what depends on the machine as `…`.
fn normalise(page: &str) -> String {
    let lines = page.lines().map(|line| match line.rsplit_once(' ') {
        Some((sample, _)) if !line.starts_with('#') => {
            let mut words: Vec<String> = Vec::new();
            for part in sample.split(',') {
                let hidden = ["hash=\"", "version=\""];
                let hidden = hidden.iter().find_map(|name| Some(&part[..part.find(name)? + name.len()]));
                let end = if part.ends_with('}') { "\"}" } else { "\"" };
                words.push(hidden.map_or_else(|| part.to_owned(), |before| format!("{before}…{end}")));
            }
            format!("{} #\n", words.join(","))
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn the_page_of_metrics_is_as_before() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let daemon = testbed.daemon(&dmz(), &["--metrics", "127.0.0.1:9464"]);
    testbed.prove_drops(&tap, 3);
    daemon.wait_for_line(&["alarm #1", "web1"]);
    eventually("the alarm is on the page", || {
        metrics::value(&metrics::scrape(&testbed), "portcullis_alarms_open", &[]) >= Some(1.0)
    });
    assert_text("metrics", &testbed.hide_folder(&normalise(&metrics::scrape(&testbed))));
}

/// What a page says without its markup, styles and drawings' coordinates.
fn read_page(page: &str) -> String {
    let (mut text, mut rest) = (String::new(), page);
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push('\n');
        let (name, after) = tag.split_once('>').expect("the end of a tag");
        rest = match name.split(' ').next() {
            Some("style") => after.split_once("</style>").expect("its end").1,
            // as a test of its own reads it
            Some("script") => after.split_once("</script>").expect("its end").1,
            _ => after,
        };
    }
    let text = without_times(&text);
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // as many times of day as the axis has
    lines.dedup();
    // the bytes of the frame: ports and numbers by chance
    lines.retain(|line| !line.starts_with("00"));
    lines.join("\n") + "\n"
}

#[test]
fn a_report_says_what_it_said_before() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let daemon = testbed.daemon(&dmz(), &[]);
    testbed.wait_for_consumer();
    // one, so that no minute parts them
    testbed.prove_drops(&tap, 1);
    daemon.wait_for_line(&["alarm #1", "web1"]);
    eventually("the drop is written", || testbed.reported() == 1);
    let page = testbed.run("report", &["--from", "1h", "-o", "-"]).done().out;
    // who did it is this run's
    let parent = std::fs::read_to_string("/proc/self/comm").expect("a name");
    let hash = testbed.show("status")["policy_hash"].as_str().expect("a hash").to_owned();
    let page = page.replace(&hash, "HASH").replace(portcullis::host::host_name(), "HOST");
    let page = page.replace(&testbed.folder.display().to_string(), "FOLDER").replace(
        &format!("process {}, under {}", daemon.pid(), parent.trim_end()),
        "process PID, under PARENT",
    );
    assert_text("report", &read_page(&page));
}
