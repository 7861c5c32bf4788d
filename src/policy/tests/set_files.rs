//! Sets whose members stand in a file of their own.

use std::collections::BTreeMap;

use super::{Diagnostics, Policy, SetFile, diff, parse, parse_with_files, read};

/// Parses a policy beside these files. The sets begin in line 2.
fn with_files(sets: &str, files: &[(&str, &str)]) -> Result<Policy, Diagnostics> {
    let text = format!("[sets]\n{sets}\n[roles.r]\nout = [\"tcp/80 to @feeds\"]\n{SERVER}");
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    parse_with_files(&text, "dmz.toml", &|path| match files.get(path) {
        Some(text) => Ok(SetFile { name: format!("/etc/{path}"), text: (*text).to_owned() }),
        None => Err("there is no such file".to_owned()),
    })
}

const SERVER: &str = "[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n";
const FEEDS: &str = "# who\n198.51.100.1\n\n  2001:db8::/32\t# why\r\n198.51.100.0/24";

fn complaints(sets: &str, files: &[(&str, &str)]) -> Vec<String> {
    let errors = with_files(sets, files).expect_err("this policy should be refused");
    errors.iter().map(|at| format!("{}:{}:{}: {}", at.file, at.line, at.column, at.message)).collect()
}

#[test]
fn the_members_of_a_file_are_those_of_the_set_and_stand_in_the_policys_text() {
    let policy = with_files("feeds = { file = \"f\" } # theirs", &[("f", FEEDS)]).unwrap();
    let inline = "feeds = [\"198.51.100.1\", \"2001:db8::/32\", \"198.51.100.0/24\"] # theirs\n";
    assert!(policy.text.contains(inline), "{}", policy.text);
    assert_eq!(policy.sets["feeds"].members.len(), 3);
    assert_eq!(policy.roles[0].outbound[0].place.line, 4, "later lines keep their numbers");
    let stored = parse(&policy.text, "anywhere.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert!(diff(&policy, &stored).is_empty());
}

#[test]
fn several_sets_have_their_files_beside_sets_without_one() {
    let sets = "a = { file = \"a\" }\nfeeds = [\"192.0.2.9\"]\nb = {file=\"b\"}\nc = { file = \"a\" }";
    let policy = with_files(sets, &[("a", "192.0.2.7\n"), ("b", "192.0.2.8")]).unwrap();
    let members: Vec<String> = policy.sets.values().map(|set| set.members[0].0.addr().to_string()).collect();
    assert_eq!(members, ["192.0.2.7", "192.0.2.8", "192.0.2.7", "192.0.2.9"]);
}

#[test]
fn a_policy_without_files_keeps_its_text() {
    let policy = with_files("feeds = [\"192.0.2.9\"]", &[]).unwrap();
    assert!(diff(&policy, &read(&policy.text)).is_empty());
    assert!(policy.text.starts_with("[sets]\nfeeds = [\"192.0.2.9\"]\n[roles.r]"));
}

#[test]
fn a_mistake_in_a_file_is_shown_at_its_own_place() {
    let file = "198.51.100.1\n  198.51.100.5/24 # no\n@other\n";
    assert_eq!(
        complaints("feeds = { file = \"f\" }", &[("f", file)]),
        ["/etc/f:2:3: `198.51.100.5/24` has host bits set", "/etc/f:3:1: a set can't hold another set",]
    );
}

#[test]
fn a_file_that_is_missing_is_a_mistake_of_the_policy() {
    let errors = with_files("feeds = { file = \"f\" }", &[]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "dmz.toml:2:18: could not read the set file `f`: there is no such file
    feeds = { file = \"f\" }
                     ^^^
    help: a path is relative to the folder of the policy file"
    );
}

#[test]
fn an_empty_file_is_an_empty_set() {
    assert_eq!(
        complaints("feeds = { file = \"f\" }", &[("f", "# nothing yet\n")]),
        ["dmz.toml:4:19: set `feeds` is empty, so this need could never be met"]
    );
    let unused = "feeds = [\"192.0.2.9\"]\nnobody = { file = \"f\" }";
    assert!(with_files(unused, &[("f", "")]).is_ok());
}

#[test]
fn a_set_that_is_a_table_has_one_key() {
    assert_eq!(
        complaints("feeds = { fil = \"f\" }", &[("f", FEEDS)]),
        ["dmz.toml:2:11: unknown key `fil` in a set"]
    );
    assert_eq!(complaints("feeds = {}", &[]), ["dmz.toml:2:9: this set has no `file`"]);
    assert_eq!(complaints("feeds = { file = 7 }", &[]), ["dmz.toml:2:18: `file` must be text"]);
    let header = complaints("[sets.feeds]\nfile = \"f\"", &[("f", FEEDS)]);
    assert!(header.iter().any(|complaint| complaint.ends_with("`feeds` must be a list")), "{header:?}");
}

#[test]
fn mistakes_of_the_policy_come_before_those_of_its_files() {
    let sets = "feeds = { file = \"f\" }\nhosts = [\"192.0.2.1/24\"]\nothers = { file = \"g\" }";
    assert_eq!(
        complaints(sets, &[("f", "x,y")]),
        [
            "dmz.toml:3:11: `192.0.2.1/24` has host bits set",
            "dmz.toml:4:19: could not read the set file `g`: there is no such file",
            "/etc/f:1:1: `x,y` is not an address",
        ]
    );
}

#[test]
fn without_access_to_files_a_set_file_is_refused() {
    let text = format!("[sets]\nfeeds = {{ file = \"/etc/passwd\" }}\n{SERVER}[roles.r]\n");
    assert_eq!(super::complaints(&text), ["2:9: `feeds` must be a list"]);
}
