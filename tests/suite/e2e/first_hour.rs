//! From nothing to a gate that observes: `portcullis init -i` on a router with neighbours.

use super::command::Outcome;
use super::policies::TABLES;
use super::testbed::{NIC, Testbed, V4, share_machine};

#[test]
fn init_begins_a_policy_with_the_neighbours_that_checks_tests_and_attaches() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let file = testbed.folder.join("begun.toml").display().to_string();
    let connection = format!("{} 52000 {} 22", V4.bastion, V4.router);
    let begin = || {
        let mut command = testbed.router.prepare(&["init", "-i", NIC, "-o", &file]);
        Outcome::of(command.env("SSH_CONNECTION", &connection))
    };
    begin().done();
    let text = std::fs::read_to_string(&file).expect("a policy");
    for words in [
        format!("bastion = [\"{}\"]    # GUESS", V4.bastion),
        format!("\"{}\"", V4.web),
        format!("This machine is {}", V4.router),
    ] {
        assert!(text.contains(&words), "{words}: {text}");
    }
    begin().refused(&["exists", "init replaces nothing"]);
    assert_eq!(std::fs::read_to_string(&file).expect("a policy"), text);
    testbed.router.portcullis(&["init", "-i", "nic9"]).refused(&["nic9", "ip link"]);

    testbed.router.portcullis(&["check", &file]).done();
    testbed.router.portcullis(&["test", &file]).done();
    testbed.attach(&(text + TABLES));
    let (verdict, _) = testbed.verdict(V4.web, V4.peer, "tcp/80");
    assert_eq!(verdict, "would_drop", "it observes");
}
