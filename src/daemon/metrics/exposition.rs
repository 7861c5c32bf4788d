//! Prometheus' text format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::snapshot::Snapshot;
use crate::alarm::SEVERITIES;
use crate::gate::{AttachMode, GateStatus, NameStatus};

/// A page under construction.
struct PageText<'a> {
    interface: &'a str,
    text: String,
}

impl PageText<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // writing to a String can't fail
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{name}{{interface=\"{}\"", escape(self.interface));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    /// A family of one sample.
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

/// The label values of the format: backslash, quote and line feed are escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The whole page. Without status (the gate is detached, or can't be read) it has the daemon's own
/// numbers and says that nothing is enforced.
pub(super) fn render(interface: &str, status: Option<&GateStatus>, snapshot: &Snapshot) -> String {
    let mut page = PageText { interface, text: String::new() };
    page.family("portcullis_build_info", "gauge", "Version of the daemon; always 1.");
    page.sample("portcullis_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge(
        "portcullis_enforcing",
        "1 if packets that are not allowed are dropped: the filter is attached, and not every server is in observe.",
        status.is_some_and(|status| status.enforcing).into(),
    );
    page.gauge(
        "portcullis_attached",
        "1 while the filter is attached. If it is not, nothing is dropped.",
        status.is_some_and(|status| status.attached != AttachMode::No).into(),
    );
    if let Some(status) = status {
        render_gate(&mut page, status);
    }
    render_daemon(&mut page, snapshot);
    page.text
}

fn render_gate(page: &mut PageText<'_>, status: &GateStatus) {
    page.family(
        "portcullis_mode_info",
        "gauge",
        "How the gate is attached: native, generic or no; tracker: tcx, clsact or no. Always 1.",
    );
    let mut labels = vec![("attached", status.attached.name())];
    labels.extend(&status.settings);
    labels.push(("tracker", status.tracker.name()));
    page.sample("portcullis_mode_info", &labels, 1);
    page.family(
        "portcullis_interface_info",
        "gauge",
        "Name that the interface has today. The label `interface` is its name when the gate was attached. Always 1.",
    );
    page.sample("portcullis_interface_info", &[("name", &status.interface)], 1);
    page.gauge("portcullis_policy_generation", "Generation of the live policy.", status.policy.generation);
    page.family("portcullis_policy_info", "gauge", "SHA-256 and file of the live policy. Always 1.");
    page.sample(
        "portcullis_policy_info",
        &[("hash", &status.policy.policy_hash), ("file", &status.policy.policy_file)],
        1,
    );
    page.gauge(
        "portcullis_policy_applied_timestamp_seconds",
        "When the live policy was applied.",
        status.policy.applied_s,
    );
    page.gauge("portcullis_servers", "Servers of the live policy.", status.policy.servers as u64);
    page.gauge(
        "portcullis_servers_observing",
        "Servers of the live policy in mode observe.",
        status.policy.observing.len() as u64,
    );
    page.gauge(
        "portcullis_trial_left_seconds",
        "Seconds until the kernel goes back from a policy on trial. 0: none is.",
        status.trial.map_or(0, |trial| trial.left_s),
    );
    render_drops(page, status);
    page.family("portcullis_passes_total", "counter", "Packets that passed, by reason.");
    for (reason, packets, _) in &status.passes {
        page.sample("portcullis_passes_total", &[("reason", reason.name())], packets);
    }
    let events = &status.events;
    page.counter(
        "portcullis_events_total",
        "Samples of drops that the programs put into the perf buffer.",
        events.samples_sent,
    );
    page.counter(
        "portcullis_events_lost_total",
        "Samples that found the perf buffer full. The ledger has their drops.",
        events.samples_lost,
    );
    page.counter(
        "portcullis_events_no_reader_total",
        "Samples while no daemon read them. The ledger has their drops.",
        events.samples_no_reader,
    );
    page.counter(
        "portcullis_ledger_full_total",
        "Drops that are counted by server and reason only, because the ledger is full.",
        events.ledger_full,
    );
    page.counter("portcullis_flows_lost_total", "Flows that could not be recorded.", events.flows_lost);
    render_names(page, &status.names);
    if let Some(handover) = &status.handover_state {
        page.gauge(
            "portcullis_handover_active",
            "1 while the programs can ask conntrack for flows of another router.",
            handover.active.into(),
        );
        page.counter(
            "portcullis_handover_asked_total",
            "Flows that conntrack was asked for. Those that it had are passes of the reason handover.",
            handover.asked,
        );
        page.counter(
            "portcullis_handover_refused_total",
            "Flows that conntrack was not asked for, because too many were asked in vain.",
            handover.refused,
        );
    }
    page.family(
        "portcullis_quarantined",
        "gauge",
        "Servers, and addresses of servers, in quarantine. Always 1.",
    );
    for server in &status.quarantined {
        page.sample("portcullis_quarantined", &[("server", server)], 1);
    }
    for row in &status.quarantined_addresses {
        let server = row.server.as_deref().unwrap_or_default();
        page.sample("portcullis_quarantined", &[("server", server), ("address", &row.address)], 1);
    }
    type Number = fn(&crate::gate::TableUsage) -> Option<u64>;
    let of_tables: [(&str, &str, Number); 3] = [
        ("portcullis_table_entries", "Entries of the kernel's tables.", |fill| {
            fill.entries.map(|entries| entries as u64)
        }),
        ("portcullis_table_size", "Entries that the kernel's tables have room for.", |fill| {
            Some(fill.size.into())
        }),
        ("portcullis_table_bytes", "Kernel memory of the tables.", |fill| Some(fill.bytes)),
    ];
    for (name, help, number) in of_tables {
        page.family(name, "gauge", help);
        for fill in &status.tables {
            if let Some(number) = number(fill) {
                page.sample(name, &[("table", fill.table)], number);
            }
        }
    }
}

fn render_names(page: &mut PageText<'_>, names: &NameStatus) {
    page.gauge("portcullis_names", "Names of the live policy. With 0 no answer is read.", names.names as u64);
    page.gauge("portcullis_grants", "Addresses that names let servers open now.", names.grants);
    page.family(
        "portcullis_grant_share_used_ratio",
        "gauge",
        "Part of its share that the server with most open grants uses. At 1 its longest unused grants go.",
    );
    let used = if names.share == 0 { 0.0 } else { names.most_of_server as f64 / names.share as f64 };
    page.sample("portcullis_grant_share_used_ratio", &[], format!("{used:.6}"));
    let count = |word: &str| names.counts.get(word).copied().unwrap_or(0);
    page.counter(
        "portcullis_name_questions_total",
        "Questions to resolvers that were noted.",
        count("questions"),
    );
    let families: [(&str, &str, &str, &str, &[&str]); 3] = [
        (
            "portcullis_name_answers_total",
            "What came of answers. `read` and `negative` are well. `cut` is counted besides.",
            "outcome",
            "answers_",
            &["read", "negative", "other", "no_query", "question", "interface", "malformed", "cut"],
        ),
        (
            "portcullis_name_grants_total",
            "Grants by what came of them. `pushed`: the share of their server was full.",
            "outcome",
            "grants_",
            &["made", "renewed", "pushed", "lost"],
        ),
        (
            "portcullis_name_lost_total",
            "What the tables of names had no room for, or what could not be followed.",
            "what",
            "",
            &["questions_pushed", "connections_pushed", "connections_lost", "streams_lost", "events_lost"],
        ),
    ];
    for (name, help, label, group, words) in families {
        page.family(name, "counter", help);
        for word in words {
            page.sample(name, &[(label, word)], count(&format!("{group}{word}")));
        }
    }
    page.counter(
        "portcullis_name_addresses_refused_total",
        "Addresses of answers that no name may have.",
        count("addresses_private"),
    );
}

fn render_drops(page: &mut PageText<'_>, status: &GateStatus) {
    type Number = fn(&(u64, u64)) -> u64;
    let families: [(&str, &str, bool, Number); 4] = [
        ("portcullis_drops_total", "Packets that were dropped, exactly.", false, |sum| sum.0),
        ("portcullis_drop_bytes_total", "Bytes of the frames that were dropped.", false, |sum| sum.1),
        ("portcullis_would_drops_total", "Packets that passed because of observe.", true, |sum| sum.0),
        (
            "portcullis_would_drop_bytes_total",
            "Bytes of the frames that passed because of observe.",
            true,
            |sum| sum.1,
        ),
    ];
    for (name, help, would, number) in families {
        page.family(name, "counter", &format!("{help} With server=\"\" no server has the source address."));
        for ((server, reason, is_would), sum) in &status.drops {
            if *is_would == would {
                page.sample(name, &[("server", server), ("reason", &reason.to_string())], number(sum));
            }
        }
    }
}

fn render_daemon(page: &mut PageText<'_>, snapshot: &Snapshot) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let state = snapshot.state();
    page.gauge(
        "portcullis_consumer_up",
        "1 while the daemon reads the perf buffer and the ledger.",
        snapshot.is_consumer_up().into(),
    );
    page.counter(
        "portcullis_samples_read_total",
        "Samples that the daemon has read.",
        read(&snapshot.samples),
    );
    page.counter(
        "portcullis_samples_bad_total",
        "Samples that the daemon could not decode.",
        read(&snapshot.undecoded),
    );
    page.family(
        "portcullis_mode_changes_total",
        "counter",
        "Changes of how filter and tracker are attached, since the daemon started.",
    );
    for (part, counter) in [("filter", &snapshot.filter_changes), ("tracker", &snapshot.tracker_changes)] {
        page.sample("portcullis_mode_changes_total", &[("part", part)], read(counter));
    }
    page.family("portcullis_alarms_total", "counter", "Alarms that opened as this kind or escalated to it.");
    for ((kind, severity), count) in &state.alarms {
        page.sample(
            "portcullis_alarms_total",
            &[("kind", kind.name()), ("severity", severity.name())],
            count,
        );
    }
    page.family("portcullis_alarms_open", "gauge", "Open alarms.");
    for severity in SEVERITIES {
        let open = state.open.get(&severity).copied().unwrap_or(0);
        page.sample("portcullis_alarms_open", &[("severity", severity.name())], open);
    }
    page.counter(
        "portcullis_auto_quarantines_total",
        "Servers and addresses that the daemon has put into quarantine.",
        read(&snapshot.quarantines),
    );
    type Number = fn(&crate::sink::SinkStatus) -> u64;
    let of_sinks: [(&str, &str, &str, Number); 4] = [
        ("portcullis_sink_events_total", "counter", "Events that a sink took.", |sink| sink.written),
        ("portcullis_sink_failures_total", "counter", "Attempts of a sink that failed.", |sink| {
            sink.failures
        }),
        ("portcullis_sink_lost_total", "counter", "Events that a sink never took.", |sink| sink.lost),
        ("portcullis_sink_pending", "gauge", "Events that wait for a sink.", |sink| sink.pending as u64),
    ];
    for (name, kind, help, number) in of_sinks {
        page.family(name, kind, help);
        for sink in &state.sinks {
            page.sample(name, &[("sink", &sink.name)], number(sink));
        }
    }
    let history = &state.history;
    page.counter("portcullis_history_writes_total", "Writes of the history.", history.written);
    page.counter(
        "portcullis_history_failures_total",
        "Attempts to write the history that failed.",
        history.failures,
    );
    page.counter(
        "portcullis_history_damaged_total",
        "Damaged histories that were put aside.",
        history.damaged,
    );
    page.counter(
        "portcullis_history_removed_total",
        "Packets whose counts the history had no room for.",
        history.removed,
    );
    page.counter(
        "portcullis_history_lost_total",
        "Alarms and samples that the history never took.",
        history.lost,
    );
    page.counter(
        "portcullis_clients_disconnected_total",
        "Clients of the daemon's socket that did not read and were disconnected.",
        read(&snapshot.clients_disconnected),
    );
    page.counter("portcullis_scrapes_total", "Requests of this page.", read(&snapshot.scrapes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::NAME_COUNTS;

    #[test]
    fn a_hostile_name_stays_in_its_label() {
        let mut page = PageText { interface: "dmz0", text: String::new() };
        page.sample("x_total", &[("server", "a\"} 1\nx_total{b=\"\\")], 7);
        assert_eq!(page.text, "x_total{interface=\"dmz0\",server=\"a\\\"} 1\\nx_total{b=\\\"\\\\\"} 7\n");
    }

    #[test]
    fn every_count_of_names_is_on_the_page_once() {
        let counts = (1..).zip(NAME_COUNTS).map(|(number, (_, word))| (*word, 1000 + number)).collect();
        let names =
            NameStatus { names: 3, grants: 7, most_of_server: 4, share: 16, counts, ..NameStatus::default() };
        let mut page = PageText { interface: "dmz0", text: String::new() };
        render_names(&mut page, &names);
        for number in 1..=NAME_COUNTS.len() {
            let value = format!("}} {}\n", 1000 + number);
            assert_eq!(page.text.matches(&value).count(), 1, "{number} in\n{}", page.text);
        }
        assert!(page.text.contains("portcullis_grant_share_used_ratio{interface=\"dmz0\"} 0.250000\n"));
    }

    #[test]
    fn without_a_gate_it_says_that_nothing_is_enforced() {
        let text = render("dmz0", None, &Snapshot::default());
        assert!(text.contains("portcullis_enforcing{interface=\"dmz0\"} 0\n"));
        assert!(text.contains("portcullis_attached{interface=\"dmz0\"} 0\n"));
        assert!(text.contains("portcullis_consumer_up{interface=\"dmz0\"} "));
    }
}
