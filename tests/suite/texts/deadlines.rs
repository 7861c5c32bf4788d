//! Each wait that `docs/operations.md` gives a deadline is played by a test.

use std::fs;
use std::path::Path;

/// The beginning of a row, and the test that plays it.
const PLAYED: &[(&str, &str, &str)] = &[
    (
        "syslog: lookup of the name, connection and TLS",
        "tests/suite/e2e/strangers.rs",
        "a_handshake_that_drips_is_counted_as_a_failure_and_reloads_leave_no_threads_behind",
    ),
    (
        "syslog: one message",
        "src/sink/connection.rs",
        "a_peer_that_sends_a_byte_now_and_then_does_not_move_the_deadline_of_a_read",
    ),
    (
        "syslog: data that the receiver's kernel does not acknowledge",
        "tests/suite/e2e/strangers.rs",
        "a_log_server_that_vanishes_is_given_up_and_the_next_one_gets_the_alarm",
    ),
    (
        "Alertmanager: a request",
        "src/sink/alertmanager.rs",
        "an_answer_that_drips_ends_with_the_patience_for_the_whole_request",
    ),
    (
        "mail: a delivery",
        "src/sink/mail/tests.rs",
        "a_server_that_hangs_drips_breaks_off_or_never_ends_holds_the_sink_no_longer_than_a_delivery",
    ),
    (
        "a hanging lookup of a name",
        "src/sink/connection.rs",
        "lookups_that_hang_are_given_up_and_never_more_than_a_few",
    ),
    ("command", "src/sink/command.rs", "a_program_that_never_ends_is_killed_with_all_it_started"),
    (
        "standard error: a line that nobody reads",
        "tests/suite/e2e/sinks/stuck.rs",
        "a_standard_error_that_nobody_reads_holds_up_nothing_and_catches_up_when_it_is_read_again",
    ),
    (
        "a file's lock of another process",
        "src/sink/file/tests.rs",
        "a_file_that_another_process_keeps_locked_is_an_error_and_no_hang",
    ),
    (
        "a sink that a new policy has replaced",
        "src/sink/fanout/tests.rs",
        "reloads_while_a_sink_hangs_leave_no_more_threads_than_there_may_be",
    ),
    (
        "all sinks, when the daemon ends",
        "src/sink/fanout/tests.rs",
        "closing_writes_waiting_events_and_does_not_wait_for_a_sink_that_hangs",
    ),
    (
        "a client of the socket: its request",
        "src/daemon/control/server/tests.rs",
        "a_client_that_asks_byte_by_byte_does_not_get_more_time",
    ),
    (
        "a client of the socket: reading an answer",
        "src/daemon/control/server/tests.rs",
        "a_client_that_reads_byte_by_byte_does_not_get_more_time",
    ),
    (
        "a client that follows: reading one change",
        "src/daemon/control/server/tests.rs",
        "a_client_that_never_reads_is_dropped_and_the_daemon_never_waits_for_it",
    ),
    (
        "a client that follows: reading anything of what waits for it",
        "src/daemon/control/server/tests.rs",
        "a_follower_that_reads_nothing_is_ended_though_nothing_more_is_sent_to_it",
    ),
    (
        "SIGHUP: reading the policy file and its set files",
        "src/daemon/reload.rs",
        "a_file_that_hangs_is_given_up_holds_up_nobody_and_leaves_one_thread",
    ),
    (
        "SIGHUP: another command that changes the gate",
        "src/daemon/reload.rs",
        "a_reload_waits_for_another_command_but_not_for_ever",
    ),
    (
        "a request for metrics, and again the answer",
        "src/daemon/metrics/server.rs",
        "a_client_that_sends_a_byte_now_and_then_does_not_get_more_time",
    ),
    (
        "`resolve = true`: the addresses of all names",
        "src/resolve/tests.rs",
        "a_resolver_that_is_silent_or_drips_ends_with_the_patience_for_all_names",
    ),
    (
        "with `handover`: an alarm about an answer in no flow",
        "src/daemon/early_answers.rs",
        "without_a_takeover_each_is_observed_after_five_seconds",
    ),
    (
        "a command: room in the daemon's queue, and again the first byte of its answer",
        "src/daemon/control/client.rs",
        "a_stopped_daemon_with_a_full_queue_is_given_up_in_time",
    ),
    (
        "a command: the next part of the daemon's answer",
        "tests/suite/e2e/silence.rs",
        "commands_name_a_daemon_that_is_stopped_and_go_on_with_its_history",
    ),
    (
        "a command: the history of a daemon that does not answer",
        "tests/suite/e2e/silence.rs",
        "commands_name_a_daemon_that_is_stopped_and_go_on_with_its_history",
    ),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_wait_that_the_page_gives_a_deadline_is_played_by_a_test() {
    let page = read("docs/operations.md");
    let section =
        page.split("\n## ").find(|section| section.starts_with("Deadlines\n")).expect("the section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let waits: Vec<&str> = rows.filter(|cell| *cell != "wait" && !cell.starts_with("---")).collect();
    assert_eq!(waits.len(), PLAYED.len(), "{waits:#?}");
    for (wait, (begins, file, test)) in waits.iter().zip(PLAYED) {
        assert!(wait.starts_with(begins), "`{wait}` has no test, or stands elsewhere: `{begins}`");
        let is_there = read(file).lines().any(|line| line.trim_start().starts_with(&format!("fn {test}()")));
        assert!(is_there, "`{wait}`: no test {test} in {file}");
    }
}
