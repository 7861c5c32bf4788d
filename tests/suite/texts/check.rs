//! `check`: what a policy lets each server do, and what is wrong with one. The language's own mistakes have
//! snapshots beside the code.

use std::fs;

use super::{portcullis, transcript};
use crate::support::snapshot::assert_text;

/// A policy in the folder that the program runs in would be in its messages; so it comes by a name that is
/// always the same.
fn check(policy: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    fs::write(&path, policy).expect("a file");
    let path = path.display().to_string();
    transcript(&[&["check"], more, &[&path]].concat()).replace(&path, "policy.toml")
}

fn starter() -> String {
    String::from_utf8(portcullis(&["init"]).stdout).expect("UTF-8")
}

#[test]
fn the_starter_policy_is_summed_up_as_before() {
    assert_text("check-starter", &check(&starter(), &[]));
    assert_text("check-starter-json", &check(&starter(), &["--json"]));
}

#[test]
fn every_mistake_of_a_policy_is_shown_as_before() {
    let policy = r#"
[policy]
mode = "enforced"
management = ["tcp/22 from @bastion"]

[sets]
loghosts = ["198.51.100.20/24"]

[roles.web]
in  = ["tcp/80000", "80/tcp"]
out = ["tcp/25 from 203.0.113.7"]

[servers.web1]
addresses = ["192.0.2.10", "192.0.2.10"]
roles = ["wbe"]
"#;
    assert_text("check-mistakes", &check(policy, &[]));
}

#[test]
fn a_policy_that_is_not_there_is_refused_as_before() {
    assert_text("check-missing", &transcript(&["check", "/nonexistent/policy.toml"]));
}
