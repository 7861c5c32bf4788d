//! `[[tests]]`: read, refused at their places, summed up, compared and doubted.

use super::{complaints, diff, find_doubts, help, read, summarize};
use crate::abi::Reason;
use crate::policy::{Detail, Direction, Peer, describe};

/// A policy of eleven lines, without doubts.
const POLICY: &str = "\
[policy]
management = [\"tcp/22 from @bastion\"]
[sets]
bastion = [\"203.0.113.7\"]
[roles.web]
in = [\"tcp/80\"]
[servers.web1]
addresses = [\"192.0.2.10\"]
roles = [\"web\"]
[[tests]]
from = \"web1\"
";

fn with(lines: &str) -> String {
    format!("{POLICY}{lines}\n")
}

/// A test of its own; its header is line 10.
fn instead(lines: &str) -> String {
    format!("{}{lines}\n", POLICY.replace("from = \"web1\"\n", ""))
}

#[test]
fn tests_keep_their_order_their_ends_and_their_needs() {
    let policy = read(&with(
        "accept = [\"udp/53 to @bastion\"]\ndeny = [\"tcp/80\", \"gre\"]\nreason = \"new_flow\"\n\
         [[tests]]\nfrom = [\"@bastion\", \"198.51.100.0/24\"]\nto = \"web1\"\naccept = [\"tcp/80\"]\nonly = true\n\
         [[tests]]\nto = [\"web1\"]\ndeny = [\"tcp/25\"]",
    ));
    let [out, services, anybody] = &policy.tests[..] else { panic!("{:?}", policy.tests) };
    assert!(matches!(&out.from[..], [Peer::Server(name, _)] if name == "web1"));
    assert_eq!((out.reason, out.only, out.place.line), (Some(Reason::NewFlow), false, 10));
    assert!(out.needs().all(|need| need.direction == Direction::Out));
    assert_eq!(out.deny[0].place.line, 13);
    assert!(services.needs().all(|need| need.direction == Direction::In) && services.only);
    assert!(matches!(&services.from[..], [Peer::Set(_), Peer::Prefix(_)]));
    assert!(anybody.from.is_empty() && anybody.is_about_services());
    let texts: Vec<String> = policy.tests.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "web1: accept `udp/53 to @bastion`; deny `tcp/80`, `gre` as new_flow",
            "@bastion, 198.51.100.0/24 to web1: accept `tcp/80`; nothing else",
            "every peer to web1: deny `tcp/25`",
        ]
    );
    let text = describe(&policy, Detail::Brief);
    assert!(text.contains(&format!("\ntests\n  {}\n", texts[0])), "{text}");
    let summary = serde_json::to_value(summarize(&policy)).unwrap();
    assert_eq!(summary["tests"][1]["from"][0], "@bastion");
    assert_eq!(summary["tests"][0]["reason"], "new_flow");
}

#[test]
fn each_mistake_of_a_test_is_shown_at_its_place_with_what_was_meant() {
    for (lines, complaint, hint) in [
        ("acept = []", "12:1: unknown key `acept` in [[tests]]", "did you mean `accept`?"),
        ("deny = [\"tcp/htpps\"]", "12:14: no tcp service is called `htpps`", "did you mean `https`?"),
        (
            "deny = [\"tcp/25 limit 1/s\"]",
            "12:10: `tcp/25 limit 1/s` has a limit, and a test is about one packet",
            "remove `limit`",
        ),
        ("deny = [\"tcp/25 from 203.0.113.7\"]", "12:17: a need of `out` has `to`, not `from`", "write `to`"),
        (
            "deny = [\"tcp/25\"]\nreason = \"new_flo\"",
            "13:11: `reason` can't be `new_flo`",
            "did you mean `new_flow`?",
        ),
        (
            "deny = [\"tcp/25\"]\nreason = \"need\"",
            "13:11: `reason` can't be `need`: packets pass for it",
            "write the reason for which `deny` is dropped, or remove the key",
        ),
        (
            "accept = [\"tcp/25\"]\nreason = \"new_flow\"",
            "13:11: `reason` is that of `deny`, and this test has none",
            "add what must be dropped for it: deny = [\"tcp/80\"]",
        ),
        (
            "only = \"true\"",
            "12:8: `only` must be true or false, not text",
            "write true or false without quotes",
        ),
        ("to = \"web2\"\ndeny = [\"tcp/25\"]", "12:7: no server is called `web2`", "did you mean `web1`?"),
        (
            "to = \"web1\"\ndeny = [\"tcp/25 from 203.0.113.7\"]",
            "13:10: `tcp/25 from 203.0.113.7` names a peer, which is the `from` of its test",
            "write the peer as `from`, and the need without it",
        ),
        (
            "to = \"web1\"\naccept = [\"icmp/echo-reply\"]",
            "13:12: `icmp/echo-reply` asks nothing, so a server does not answer it",
            "test a request, as in icmp/echo-request",
        ),
    ] {
        assert_eq!(complaints(&with(lines)), [complaint], "{lines}");
        assert_eq!(help(&with(lines)), hint, "{lines}");
    }
}

#[test]
fn whom_a_test_is_about_is_a_server_an_address_or_with_to_any_peer() {
    for (lines, complaint, hint) in [
        ("deny = [\"tcp/80\"]", "10:1: [[tests]] has no `from`", "name a server, as in: from = \"web1\""),
        ("from = \"wbe1\"\ndeny = [\"tcp/80\"]", "11:9: no server is called `wbe1`", "did you mean `web1`?"),
        ("from = []\ndeny = [\"tcp/80\"]", "11:1: `from` names nobody", "name somebody, or remove the key"),
        (
            "from = \"bastion\"\nto = \"web1\"\ndeny = [\"tcp/80\"]",
            "11:9: `bastion` is not an address",
            "write `@bastion`: the name of a set has an `@` before it",
        ),
        (
            "from = \"192.0.2.0/24\"\ndeny = [\"tcp/80\"]",
            "11:9: `192.0.2.0/24` is no server and no single address",
            "a prefix or a set can be the peers of a test about services: with `to`, name a server",
        ),
        (
            "from = \"@bastio\"\nto = \"web1\"\ndeny = [\"tcp/80\"]",
            "11:9: no set is called `bastio`",
            "did you mean `@bastion`?",
        ),
    ] {
        assert_eq!(complaints(&instead(lines)), [complaint], "{lines}");
        assert_eq!(help(&instead(lines)), hint, "{lines}");
    }
    read(&instead("from = \"192.0.2.99\"\ndeny = [\"tcp/80\"]"));
    read(&instead("from = \"198.51.100.0/24\"\nto = \"web1\"\ndeny = [\"tcp/25\"]"));
}

#[test]
fn tests_that_are_no_list_of_tables_are_refused() {
    let text = POLICY.replace("[[tests]]", "[tests]");
    assert_eq!(complaints(&text), ["10:1: `tests` must be a list of tables, not a table"]);
    assert_eq!(help(&text), "write `[[tests]]` before each");
    let text = format!("tests = [1]\n{}", POLICY.split("[[tests]]").next().unwrap());
    assert_eq!(complaints(&text), ["1:10: each element of `tests` must be a table, not a number"]);
    assert_eq!(complaints(&POLICY.replace("[[tests]]", "[[test]]"))[0], "10:3: unknown table `test`");
}

#[test]
fn a_difference_names_tests_that_came_and_went_but_not_their_order() {
    let old = read(&with("deny = [\"tcp/80\"]\n[[tests]]\nfrom = \"web1\"\ndeny = [\"tcp/25\"]"));
    let same = read(&with("deny = [\"tcp/25\"]\n[[tests]]\nfrom = \"web1\"\ndeny = [\"tcp/80\"]"));
    assert_eq!(diff(&old, &same), []);
    let new = read(&with("deny = [\"tcp/80\"]\n[[tests]]\nfrom = \"web1\"\nonly = true"));
    let changes: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["+ test web1: nothing else", "- test web1: deny `tcp/25`"]);
}

#[test]
fn a_test_that_tests_nothing_is_doubted() {
    let doubts = |lines: &str| -> Vec<String> {
        let doubts = find_doubts(&read(&with(lines)));
        doubts.iter().map(|doubt| format!("{}: {}", doubt.line, doubt.message)).collect()
    };
    assert_eq!(doubts(""), ["10: this test tests nothing"]);
    assert_eq!(doubts("only = false"), ["10: this test tests nothing"]);
    for lines in ["only = true", "deny = [\"tcp/80\"]", "accept = [\"tcp/80 to 203.0.113.1, 2001:db8::1\"]"] {
        assert_eq!(doubts(lines), Vec::<String>::new(), "{lines}");
    }
    assert_eq!(
        doubts("deny = [\"tcp/80\", \"tcp/80 to 2001:db8::1\"]"),
        ["12: `tcp/80 to 2001:db8::1` tests nothing: there is no such packet of web1"]
    );
    assert_eq!(doubts("deny = [\"icmpv6\"]").len(), 1);
    assert_eq!(doubts("to = \"web1\"\ndeny = [\"tcp/25\"]\n[[tests]]\nfrom = \"2001:db8::1\"\nto = \"web1\"\ndeny = [\"tcp/25\"]").len(), 1);
}

#[test]
fn a_set_that_only_tests_name_is_not_doubted() {
    let text = with("deny = [\"tcp/80\"]").replace("bastion = [", "foes = [\"198.51.100.66\"]\nbastion = [");
    assert_eq!(find_doubts(&read(&text)).len(), 1);
    let text = text
        .replace("\"tcp/80\"]\n\n", "\"tcp/80\"]\n")
        .replace("deny = [\"tcp/80\"]", "deny = [\"tcp/80 to @foes\"]");
    assert!(find_doubts(&read(&text)).is_empty());
}
