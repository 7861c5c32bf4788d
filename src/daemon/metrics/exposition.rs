//! Prometheus' text format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::snapshot::Snapshot;
use crate::alarm::Severity;
use crate::gate::GateStatistics;

const SEVERITIES: [Severity; 4] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

/// A page under construction.
struct Text<'a> {
    interface: &'a str,
    text: String,
}

impl Text<'_> {
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

/// The whole page. Without a measure (the gate was lifted, or can't be read) it says that nothing
/// is enforced, and what the daemon knows of itself.
pub fn render(interface: &str, measure: Option<&GateStatistics>, board: &Snapshot) -> String {
    let mut page = Text { interface, text: String::new() };
    page.family("portcullis_build_info", "gauge", "Version of the daemon; always 1.");
    page.sample("portcullis_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge(
        "portcullis_enforcing",
        "1 if what is not allowed is dropped: the filter is attached, and not every server observes.",
        measure.is_some_and(GateStatistics::enforcing).into(),
    );
    if let Some(measure) = measure {
        render_gate(&mut page, measure);
    }
    render_daemon(&mut page, board);
    page.text
}

fn render_gate(page: &mut Text<'_>, measure: &GateStatistics) {
    page.family(
        "portcullis_mode_info",
        "gauge",
        "How the gate is in force: attached native, generic or no; tracker tcx, clsact or no; always 1.",
    );
    page.sample(
        "portcullis_mode_info",
        &[
            ("attached", measure.mode.name()),
            ("mode", if measure.observe { "observe" } else { "enforce" }),
            ("tracking", if measure.strict { "strict" } else { "service" }),
            ("tracker", measure.tracker.name()),
        ],
        1,
    );
    page.gauge("portcullis_policy_generation", "Generation of the live policy.", measure.facts.generation);
    page.family("portcullis_policy_info", "gauge", "SHA-256 of the live policy, and its file; always 1.");
    page.sample("portcullis_policy_info", &[("hash", &measure.hash), ("file", &measure.file)], 1);
    page.gauge(
        "portcullis_policy_applied_timestamp_seconds",
        "When the live policy was applied.",
        measure.applied_s,
    );
    page.gauge("portcullis_servers", "Servers of the live policy.", measure.facts.servers as u64);
    page.gauge("portcullis_servers_observing", "Of those, in mode observe.", measure.facts.observing as u64);
    render_drops(page, measure);
    page.family("portcullis_passes_total", "counter", "Packets that passed, by reason.");
    for (reason, packets, _) in &measure.passes {
        page.sample("portcullis_passes_total", &[("reason", reason.name())], packets);
    }
    let events = &measure.events;
    page.counter(
        "portcullis_events_total",
        "Samples of drops that the programs put into the perf buffer.",
        events.samples_sent,
    );
    page.counter(
        "portcullis_events_lost_total",
        "Samples that found the perf buffer full; the ledger has their drops.",
        events.samples_lost,
    );
    page.counter(
        "portcullis_events_unheard_total",
        "Samples while no daemon listened; the ledger has their drops.",
        events.samples_unheard,
    );
    page.counter(
        "portcullis_ledger_full_total",
        "Drops that are counted by server and reason only, for want of room in the ledger.",
        events.ledger_full,
    );
    page.counter("portcullis_flows_lost_total", "Flows that could not be recorded.", events.flows_lost);
    page.family("portcullis_quarantined", "gauge", "Servers in quarantine; always 1.");
    for server in &measure.quarantined {
        page.sample("portcullis_quarantined", &[("server", server)], 1);
    }
    type Number = fn(&crate::gate::TableUsage) -> Option<u64>;
    let of_tables: [(&str, &str, Number); 3] = [
        ("portcullis_table_entries", "Entries of the kernel's tables.", |fill| {
            fill.entries.map(|entries| entries as u64)
        }),
        ("portcullis_table_size", "Entries that there is room for.", |fill| Some(fill.size.into())),
        ("portcullis_table_bytes", "Kernel memory of the tables.", |fill| Some(fill.bytes)),
    ];
    for (name, help, number) in of_tables {
        page.family(name, "gauge", help);
        for fill in &measure.tables {
            if let Some(number) = number(fill) {
                page.sample(name, &[("table", fill.table)], number);
            }
        }
    }
}

fn render_drops(page: &mut Text<'_>, measure: &GateStatistics) {
    type Number = fn(&(u64, u64)) -> u64;
    let families: [(&str, &str, bool, Number); 4] = [
        ("portcullis_drops_total", "Packets that were dropped, exactly.", false, |sum| sum.0),
        ("portcullis_drop_bytes_total", "Bytes of the frames that were dropped.", false, |sum| sum.1),
        ("portcullis_would_drops_total", "Packets that observe let pass.", true, |sum| sum.0),
        ("portcullis_would_drop_bytes_total", "Bytes of the frames that observe let pass.", true, |sum| {
            sum.1
        }),
    ];
    for (name, help, would, number) in families {
        page.family(name, "counter", &format!("{help} server=\"\": no server has the source address."));
        for ((server, reason, is_would), sum) in &measure.drops {
            if *is_would == would {
                page.sample(name, &[("server", server), ("reason", &reason.to_string())], number(sum));
            }
        }
    }
}

fn render_daemon(page: &mut Text<'_>, board: &Snapshot) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let told = board.told();
    page.gauge(
        "portcullis_consumer_up",
        "1 while the daemon reads the perf buffer and sweeps the ledger.",
        board.is_consumer_up().into(),
    );
    page.counter("portcullis_samples_read_total", "Samples that the daemon has read.", read(&board.samples));
    page.counter("portcullis_samples_bad_total", "Samples that it could not decode.", read(&board.undecoded));
    page.family(
        "portcullis_mode_changes_total",
        "counter",
        "Changes of how filter and tracker are attached, since the daemon's start.",
    );
    for (part, counter) in [("filter", &board.filter_changes), ("tracker", &board.tracker_changes)] {
        page.sample("portcullis_mode_changes_total", &[("part", part)], read(counter));
    }
    page.family("portcullis_alarms_total", "counter", "Alarms that were opened, or turned into this kind.");
    for ((kind, severity), count) in &told.alarms {
        page.sample(
            "portcullis_alarms_total",
            &[("kind", kind.name()), ("severity", severity.name())],
            count,
        );
    }
    page.family("portcullis_alarms_open", "gauge", "Alarms that are open.");
    for severity in SEVERITIES {
        let open = told.open.get(&severity).copied().unwrap_or(0);
        page.sample("portcullis_alarms_open", &[("severity", severity.name())], open);
    }
    page.counter(
        "portcullis_auto_quarantines_total",
        "Servers that the daemon put into quarantine by itself.",
        read(&board.quarantines),
    );
    type Number = fn(&crate::sink::SinkStatus) -> u64;
    let of_sinks: [(&str, &str, &str, Number); 4] = [
        ("portcullis_sink_events_total", "counter", "Events that a sink took.", |sink| sink.written),
        ("portcullis_sink_failures_total", "counter", "Tries of a sink that failed.", |sink| sink.failures),
        ("portcullis_sink_lost_total", "counter", "Events that a sink never got.", |sink| sink.lost),
        ("portcullis_sink_pending", "gauge", "Events that wait for a sink.", |sink| sink.pending as u64),
    ];
    for (name, kind, help, number) in of_sinks {
        page.family(name, kind, help);
        for sink in &told.sinks {
            page.sample(name, &[("sink", &sink.name)], number(sink));
        }
    }
    let history = &told.history;
    page.counter("portcullis_history_writes_total", "Writes of the history.", history.written);
    page.counter(
        "portcullis_history_failures_total",
        "Tries to write the history that failed.",
        history.failures,
    );
    page.counter(
        "portcullis_history_lost_total",
        "Alarms and samples that never got into the history.",
        history.lost,
    );
    page.counter(
        "portcullis_clients_left_total",
        "Clients of the daemon's socket that did not read, and were left.",
        read(&board.clients_left),
    );
    page.counter("portcullis_scrapes_total", "Requests of this page.", read(&board.scrapes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_in_its_label() {
        let mut page = Text { interface: "dmz0", text: String::new() };
        page.sample("x_total", &[("server", "a\"} 1\nx_total{b=\"\\")], 7);
        assert_eq!(page.text, "x_total{interface=\"dmz0\",server=\"a\\\"} 1\\nx_total{b=\\\"\\\\\"} 7\n");
    }

    #[test]
    fn without_a_gate_it_says_that_nothing_is_enforced() {
        let text = render("dmz0", None, &Snapshot::default());
        assert!(text.contains("portcullis_enforcing{interface=\"dmz0\"} 0\n"));
        assert!(text.contains("portcullis_consumer_up{interface=\"dmz0\"} "));
    }
}
