//! Tests of the policy language as a whole.

mod changes;
mod claims;
mod clauses;
mod documents;
mod doubts;
mod hostile;
mod keys;
mod model;
mod names;
mod needs;
mod neighbours;
mod policy_tests;
mod refusals;
mod set_files;
mod together;

use super::*;
use crate::{net, policy};

/// The manual of the policy language.
const MANUAL: &str = include_str!("../../../docs/policy.md");

/// A valid policy of seven lines, to be spoiled by what tests add.
const BASE: &str = "\
[sets]
bastion = [\"203.0.113.7\"]
[roles.web]
in = [\"tcp/80\"]
[servers.web1]
addresses = [\"192.0.2.10\"]
roles = [\"web\"]
";

fn read(text: &str) -> Policy {
    parse(text, "dmz.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Every mistake as `LINE:COLUMN: message`.
fn complaints(text: &str) -> Vec<String> {
    let errors = parse(text, "dmz.toml").expect_err("this policy should be refused");
    errors.iter().map(|error| format!("{}:{}: {}", error.line, error.column, error.message)).collect()
}

/// The help of the only mistake in a policy.
fn help(text: &str) -> String {
    let errors = parse(text, "dmz.toml").expect_err("this policy should be refused");
    assert_eq!(errors.len(), 1, "{errors}");
    errors.iter().next().and_then(|error| error.help.clone()).unwrap_or_default()
}
