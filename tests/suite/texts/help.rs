//! `--help` of the program and of each of its commands.

use super::{portcullis, transcript};
use crate::support::snapshot::assert_text;

/// The commands that the program lists, below the headings of their groups.
fn list_commands() -> Vec<String> {
    let output = portcullis(&["--help"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let list =
        text.split("\nOptions:\n").next().and_then(|text| text.split("\nUsage: ").nth(1)).expect("a list");
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_help_of_each_command_is_as_it_was() {
    assert_text("help", &transcript(&["--help"]));
    let commands = list_commands();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        assert_text(&format!("help-{command}"), &transcript(&[&command, "--help"]));
    }
}

#[test]
fn the_short_help_is_as_it_was() {
    assert_text("short-help", &transcript(&["-h"]));
}

#[test]
fn a_command_that_there_is_not_is_answered_as_before() {
    assert_text("unknown-command", &transcript(&["atach", "-i", "dmz0"]));
}
