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

#[test]
fn several_policies_are_checked_each_by_itself_and_a_bad_one_keeps_no_other_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (good, bad) = (write("good.toml", &starter()), write("bad.toml", "[servers.web1]\n"));
    let missing = folder.path().join("missing.toml").display().to_string();
    let outcome = portcullis(&["check", "--quiet", &good, &good]);
    assert_eq!(
        (outcome.status.code(), outcome.stdout.len(), outcome.stderr.len()),
        (Some(0), 0, 0),
        "{outcome:?}"
    );
    let outcome = portcullis(&["check", &bad, &missing, &good]);
    let (said, wrong) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    assert_eq!(outcome.status.code(), Some(1));
    assert!(said.contains(&good) && said.contains("ns1  192.0.2.53"), "{said}");
    assert!(wrong.contains(&format!("{bad}:1:")) && wrong.contains("missing.toml"), "{wrong}");
    let outcome = portcullis(&["check", "-j", &good, &good]);
    assert_eq!(String::from_utf8_lossy(&outcome.stdout).lines().count(), 2, "one value a file");
}

#[test]
fn check_warns_of_mails_and_logins_that_cannot_work_or_give_a_password_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = folder.path().join("password").display().to_string();
    fs::write(&open, "secret").expect("a file");
    let with =
        |lines: &str| check(&starter().replace("[alarms]\n", &format!("[alarms]\n{lines}\n")), &["--quiet"]);
    for (lines, words) in [
        ("mail_server = \"smtps://mx\"", "write the sender as `mail_from`"),
        ("mail_server = \"smtps://mx\"", "write the recipients as `mail_to`"),
        ("mail_to = \"noc@example.com\"", "there is no `mail_server`"),
        ("mail_server = \"smtp://mx\"\nmail_user = \"a\"", "does not travel without encryption"),
        ("mail_server = \"smtps://mx\"\nmail_user = \"a\"", "`mail_user` needs `mail_password_file` as well"),
        (&format!("mail_password_file = \"{open}\""), "type chmod 0600"),
        ("alertmanager_token_file = \"/nonexistent/token\"", "cannot read /nonexistent/token"),
        (
            "alertmanager = \"http://am\"\nalertmanager_token_file = \"/nonexistent/token\"",
            "the login for http://am travels without encryption",
        ),
        ("command = [\"/usr/sbin/sendmail\", \"-t\"]", "use `mail_server`"),
    ] {
        let text = with(lines);
        assert!(text.contains(words) && text.ends_with("status 0\n"), "{lines}: {words}: {text}");
    }
}

#[test]
fn check_warns_of_doubts_and_of_sinks_that_cannot_work_and_still_succeeds() {
    let sinks = "[alarms]\neve = \"/nonexistent/eve.json\"\ncommand = [\"/nonexistent/page\"]\n";
    let policy = starter().replace("[alarms]\n", sinks) + "\n[roles.spare]\nin = [\"tcp/9\"]\n";
    let text = check(&policy, &["--quiet"]);
    for words in [
        "no server has the role `spare`",
        "/nonexistent is no folder",
        "/nonexistent/page is not on this machine",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.contains("warning") && text.ends_with("status 0\n"), "{text}");
}

#[test]
fn a_check_says_that_it_did_not_run_the_tests_and_a_policy_without_any_says_nothing() {
    let starter = starter();
    assert!(
        check(&starter, &[])
            .contains("4 tests not run, for that needs root: sudo portcullis test policy.toml\n")
    );
    assert!(check(&starter, &["--json"]).contains("\"tests_run\":false"));
    let tests = starter.find("[[tests]]").expect("tests");
    let alarms = starter.find("[alarms]").expect("a table");
    let without = format!("{}{}", &starter[..tests], &starter[alarms..]);
    assert!(!check(&without, &[]).contains("not run"));
}

#[test]
fn the_tests_of_a_policy_that_is_bad_are_not_run_and_that_is_trouble_and_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    fs::write(&path, starter().replace("\"web1\"", "\"web9\"")).expect("a file");
    let path = path.display().to_string();
    let said = transcript(&["test", &path]);
    assert!(
        said.contains("no server is called `web9`") && said.contains("so its tests were not run"),
        "{said}"
    );
    assert!(said.ends_with("status 2\n"), "{said}");
}
