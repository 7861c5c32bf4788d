//! `[[tests]]` of a policy, run on the loaded programs.

use portcullis::abi::Reason;
use portcullis::gate::{PrivateGate, PrivateSizes, Verdict};
use portcullis::policy::{Detail, STARTER, describe, parse};
use portcullis::policy_tests::{Failure, FailureKind, TestReport, run_tests, run_tests_in};

use crate::support::chance::Chance;
use crate::support::test_gate::{TestGate, read_policy};

/// The first line of its tests is 35.
const POLICY: &str = r#"[policy]
management = ["tcp/22 from @bastion"]
[sets]
bastion = ["203.0.113.7", "2001:db8:f::/64"]
logs    = ["198.51.100.0/24", "2001:db8:2::/64"]

[roles.web]
in  = ["tcp/80", "tcp/8000-8080", "udp/443", "icmp/echo-request", "icmpv6/echo-request", "gre from 203.0.113.9", "sctp/5000"]
[roles.managed]
out = [
    "udp/514 to @logs",
    "tcp/3000-3999 to 203.0.113.40, 2001:db8:50::/48",
    "tcp/25 limit 1/m",
    "icmp/echo-request",
    "esp to 203.0.113.9",
]
[roles.ftp]
out = ["tcp/1024-65535 sport 20"]
[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["web", "managed"]
[servers.ftp1]
addresses = ["192.0.2.20", "2001:db8:1::20"]
mac = ["02:00:00:00:00:20", "02:00:00:00:00:21"]
vlan = 7
roles = ["ftp"]
[servers.farm]
addresses = ["192.0.2.128/26", "2001:db8:1:8000::/64"]
roles = ["managed"]
mode = "observe"
[servers.odd]
addresses = ["192.0.2.128", "192.0.2.129"]
roles = ["web"]
"#;

/// The outcome of tests with these lines, of [`POLICY`]. No line of it begins with the first one.
fn run(tests: &str) -> TestReport {
    run_with(POLICY, tests)
}

fn run_with(policy: &str, tests: &str) -> TestReport {
    let text = format!("{policy}{tests}\n");
    let gate = TestGate::new(&text);
    let (policy, tables) = read_policy(&text, &[]);
    run_tests_in(&gate.private(), &policy, &tables).expect("a report")
}

#[track_caller]
fn pass(tests: &str) -> TestReport {
    let report = run(tests);
    assert_eq!(report.failed, 0, "{}", report.describe());
    report
}

/// The only failure of the only test.
#[track_caller]
fn fail(tests: &str) -> Failure {
    let report = run(tests);
    let text = report.describe();
    let failures: Vec<Failure> = report.tests.into_iter().flat_map(|test| test.failures).collect();
    assert_eq!((report.failed, failures.len()), (1, 1), "{text}");
    failures.into_iter().next().expect("a failure")
}

/// The line of a policy that has these words, as `test.toml:LINE`.
fn line_of(words: &str) -> String {
    let line = POLICY.lines().position(|line| line.contains(words)).expect("a line");
    format!("test.toml:{}", line + 1)
}

fn decided(failure: &Failure) -> (String, Option<String>) {
    let decided = failure.decided.clone().expect("what decided");
    (decided.source, decided.need)
}

#[test]
fn what_servers_may_and_may_not_open_is_tested_in_both_families() {
    let report = pass(
        r#"[[tests]]
from = "web1"
accept = ["udp/514 to @logs", "tcp/3000-3999 to 203.0.113.40, 2001:db8:50::/48", "tcp/25", "icmp/echo-request", "esp to 203.0.113.9"]
deny = ["tcp/80", "udp/53 to 198.51.100.9", "udp/514 to 203.0.113.20", "tcp/2999 to 203.0.113.40", "tcp/4000 to 2001:db8:50::1", "icmpv6/echo-request", "gre"]"#,
    );
    assert!(report.packets > 24, "{}", report.packets);
}

#[test]
fn a_failed_test_names_its_own_line_and_that_of_the_need_that_decided() {
    let failure =
        fail("[[tests]]\nfrom = \"web1\"\ndeny = [\"udp/53 to 198.51.100.9\", \"udp/514 to 198.51.100.9\"]");
    assert_eq!((failure.kind, failure.need.as_str()), (FailureKind::Deny, "udp/514 to 198.51.100.9"));
    let line = POLICY.lines().count() + 3;
    assert_eq!(failure.source, format!("test.toml:{line}:36"));
    assert_eq!((failure.verdict, failure.reason), (Some(Verdict::Pass), Some(Reason::Need)));
    assert_eq!(decided(&failure), (line_of("udp/514"), Some("udp/514 to @logs".to_owned())));
    let role = failure.decided.as_ref().and_then(|decided| decided.role.clone());
    assert_eq!(role.as_deref(), Some("managed"));

    let failure = fail("[[tests]]\nfrom = \"web1\"\naccept = [\"udp/514 to 203.0.113.9\"]");
    assert_eq!((failure.verdict, failure.reason), (Some(Verdict::Drop), Some(Reason::Destination)));
    assert_eq!(
        decided(&failure),
        (line_of("udp/514"), Some("udp/514 to @logs".to_owned())),
        "the nearest need"
    );
    let failure = fail("[[tests]]\nfrom = \"web1\"\naccept = [\"tcp/80 to 203.0.113.9\"]");
    let roles_of_web1 =
        POLICY.lines().position(|line| line == "roles = [\"web\", \"managed\"]").expect("a line");
    assert_eq!(decided(&failure), (format!("test.toml:{}", roles_of_web1 + 1), None));
}

#[test]
fn a_test_text_says_what_was_expected_and_what_came_instead() {
    let report =
        run("[[tests]]\nfrom = \"web1\"\ndeny = [\"udp/514 to 198.51.100.9\"]\nreason = \"new_flow\"");
    let text = report.describe();
    for words in [
        "the test of web1 failed\n",
        "deny     udp/514 to 198.51.100.9\n",
        "packet   192.0.2.10 to 198.51.100.9, udp/514\n",
        "expected drop: new_flow\n",
        "got      pass: need\n",
        &format!("decided  {}  udp/514 to @logs of managed\n", line_of("udp/514")),
        "test.toml: 1 of 1 test failed\n",
    ] {
        assert!(text.contains(words), "{words:?} is missing:\n{text}");
    }
    assert!(report.describe_failures().starts_with("test.toml: 1 of 1 test failed\n"));
}

#[test]
fn a_drop_for_another_reason_than_the_tests_is_a_failure() {
    pass("[[tests]]\nfrom = \"web1\"\ndeny = [\"udp/514 to 203.0.113.20\"]\nreason = \"destination\"");
    let failure =
        fail("[[tests]]\nfrom = \"web1\"\ndeny = [\"udp/514 to 203.0.113.20\"]\nreason = \"new_flow\"");
    assert_eq!((failure.verdict, failure.reason), (Some(Verdict::Drop), Some(Reason::Destination)));
    assert_eq!(failure.expected.reason, Some(Reason::NewFlow));
}

#[test]
fn one_open_port_in_a_range_and_one_open_peer_in_a_prefix_are_found() {
    for (deny, witness) in [
        ("tcp/1-65535 to 203.0.113.40", "tcp/25"),
        ("tcp/2000-3000 to 203.0.113.40", "tcp/3000"),
        ("tcp/3999-5000 to 203.0.113.0/24", "tcp/3999"),
        ("tcp/3500 to 203.0.113.0/24", "tcp/3500"),
        ("udp", "udp/514"),
        ("esp", "esp"),
        ("icmp", "icmp/echo-request"),
    ] {
        let failure = fail(&format!("[[tests]]\nfrom = \"web1\"\ndeny = [\"{deny}\"]"));
        let packet = failure.packet.expect("a packet");
        assert_eq!(packet.service, witness, "{deny}");
    }
    for deny in
        ["tcp/4000-65535 to 203.0.113.40", "tcp/3000-3999 to 203.0.113.41", "tcp/3000-3999 to 203.0.112.0/24"]
    {
        pass(&format!("[[tests]]\nfrom = \"web1\"\ndeny = [\"{deny}\"]"));
    }
}

#[test]
fn one_shut_port_in_a_range_and_one_shut_peer_in_a_prefix_are_found() {
    for (accept, witness) in [
        ("tcp/3000-4000 to 203.0.113.40", "tcp/4000"),
        ("tcp/2999-3999 to 203.0.113.40", "tcp/2999"),
        ("tcp/3500 to 203.0.113.40/31", "tcp/3500"),
        ("udp/514 to 198.51.100.0/23", "udp/514"),
        ("udp/514", "udp/514"),
    ] {
        let failure = fail(&format!("[[tests]]\nfrom = \"web1\"\naccept = [\"{accept}\"]"));
        assert_eq!(failure.packet.expect("a packet").service, witness, "{accept}");
    }
}

#[test]
fn services_are_tested_with_the_answers_that_servers_give() {
    for peer in ["198.51.100.9", "2001:db8:9::9"] {
        let ping = if peer.contains(':') { "icmpv6/echo-request" } else { "icmp/echo-request" };
        pass(&format!(
            "[[tests]]\nfrom = \"{peer}\"\nto = \"web1\"\n\
             accept = [\"tcp/80\", \"tcp/8000-8080\", \"udp/443\", \"{ping}\", \"sctp/5000\"]\n\
             deny = [\"tcp/22\", \"tcp/81-7999\", \"udp/53\", \"gre\", \"tcp/8081-65535\"]"
        ));
        pass(&format!(
            "[[tests]]\nfrom = \"{peer}\"\nto = \"web1\"\ndeny = [\"tcp/9000\"]\nreason = \"unlisted_service\""
        ));
        pass(&format!(
            "[[tests]]\nfrom = \"{peer}\"\nto = \"web1\"\ndeny = [\"tcp/22\"]\nreason = \"stranger\""
        ));
    }
    pass(
        "[[tests]]\nfrom = \"@bastion\"\nto = [\"web1\", \"ftp1\", \"farm\", \"odd\"]\naccept = [\"tcp/22\"]",
    );
    pass("[[tests]]\nfrom = \"203.0.113.9\"\nto = \"web1\"\naccept = [\"gre\"]");
    let failure = fail("[[tests]]\nto = \"web1\"\ndeny = [\"tcp/22\"]");
    assert_eq!(decided(&failure), (line_of("management"), Some("tcp/22 from @bastion".to_owned())));
    assert_eq!((failure.verdict, failure.reason), (Some(Verdict::Pass), Some(Reason::Reply)));
    let failure = fail("[[tests]]\nfrom = \"198.51.100.9\"\nto = \"web1\"\naccept = [\"tcp/8000-8081\"]");
    assert_eq!(failure.packet.expect("a packet").service, "tcp/8081");
    assert_eq!(failure.reason, Some(Reason::UnlistedService));
}

#[test]
fn services_are_tested_without_a_tracker_where_there_is_none() {
    let policy = POLICY.replacen("[policy]\n", "[policy]\ntracking = \"service\"\n", 1);
    let tests = "[[tests]]\nfrom = \"198.51.100.9\"\nto = \"web1\"\naccept = [\"tcp/80\", \"udp/443\"]\ndeny = [\"tcp/22\", \"udp/53\"]";
    let report = run_with(&policy, tests);
    assert_eq!(report.failed, 0, "{}", report.describe());
}

#[test]
fn a_peer_that_is_a_server_has_to_be_allowed_to_open_as_well() {
    let failure = fail("[[tests]]\nfrom = \"farm\"\nto = \"web1\"\naccept = [\"tcp/80\"]");
    assert!(failure.note.as_deref().is_some_and(|note| note.contains("a server itself")), "{failure:?}");
    assert_eq!(failure.reason, Some(Reason::NewFlow));
    // its own need has these ports, and that server's service as well
    pass("[[tests]]\nfrom = \"ftp1\"\nto = \"web1\"\ndeny = [\"tcp/8000\"]");
    pass("[[tests]]\nfrom = \"farm\"\nto = \"web1\"\naccept = [\"icmp/echo-request\"]");
}

#[test]
fn servers_with_a_mac_a_vlan_a_prefix_or_observe_are_tested_by_what_their_needs_say() {
    pass(
        "[[tests]]\nfrom = \"ftp1\"\naccept = [\"tcp/2000 sport 20\"]\ndeny = [\"tcp/80 sport 20\", \"udp\"]",
    );
    pass("[[tests]]\nfrom = \"farm\"\naccept = [\"udp/514 to @logs\"]\ndeny = [\"tcp/80\"]");
    // within the farm's prefix, and another server
    pass("[[tests]]\nfrom = [\"odd\", \"192.0.2.128\"]\ndeny = [\"udp/514 to @logs\"]");
    pass("[[tests]]\nfrom = \"192.0.2.130\"\naccept = [\"udp/514 to 198.51.100.9\"]");
    let failure = fail("[[tests]]\nfrom = \"farm\"\naccept = [\"tcp/80\"]");
    assert_eq!(failure.verdict, Some(Verdict::WouldDrop));
}

#[test]
fn a_source_port_of_the_server_opens_what_a_deny_without_one_forbids() {
    let failure = fail("[[tests]]\nfrom = \"ftp1\"\ndeny = [\"tcp/6000 to 203.0.113.9\"]");
    assert_eq!(failure.packet.expect("a packet").sport, Some(20));
    fail("[[tests]]\nfrom = \"ftp1\"\naccept = [\"tcp/6000 to 203.0.113.9\"]");
    pass("[[tests]]\nfrom = \"ftp1\"\ndeny = [\"tcp/6000 to 203.0.113.9 sport 21-65535\"]");
}

#[test]
fn an_address_of_no_server_is_dropped_or_passes_as_the_policy_says() {
    pass("[[tests]]\nfrom = \"192.0.2.99\"\ndeny = [\"tcp/80\"]\nreason = \"unknown_source\"\nonly = true");
    let failure = fail("[[tests]]\nfrom = \"203.0.113.9\"\naccept = [\"tcp/80 to 192.0.2.10\"]");
    assert!(
        failure.note.as_deref().is_some_and(|note| note.contains("name that server as `to`")),
        "{failure:?}"
    );
    let open = POLICY.replacen("[policy]\n", "[policy]\nunknown_sources = \"allow\"\n", 1);
    let report = run_with(&open, "[[tests]]\nfrom = \"192.0.2.99\"\naccept = [\"tcp/80\"]");
    assert_eq!(report.failed, 0, "{}", report.describe());
    let report = run_with(&open, "[[tests]]\nfrom = \"192.0.2.99\"\nonly = true");
    assert_eq!(report.failed, 1, "{}", report.describe());
    assert!(report.describe().contains("unknown_sources = \"allow\""), "{}", report.describe());
}

#[test]
fn only_names_all_that_is_open_beyond_accept_each_by_the_need_that_opens_it() {
    let whole = r#"accept = ["udp/514 to @logs", "tcp/3000-3999 to 203.0.113.40, 2001:db8:50::/48", "tcp/25", "icmp/echo-request", "esp to 203.0.113.9"]"#;
    pass(&format!("[[tests]]\nfrom = \"web1\"\n{whole}\nonly = true"));
    for (gone, instead, open) in [
        ("udp/514 to @logs", "udp/123", "udp/514 to 198.51.100.0/24, 2001:db8:2::/64"),
        ("udp/514 to @logs", "udp/514 to 198.51.100.0/24", "udp/514 to 2001:db8:2::/64"),
        ("udp/514 to @logs", "udp/514 to 198.51.100.0/25, 2001:db8:2::/64", "udp/514 to 198.51.100.128/25"),
        ("tcp/3000-3999", "tcp/3000-3998", "tcp/3999 to 203.0.113.40, 2001:db8:50::/48"),
        ("\"tcp/25\"", "\"tcp/26\"", "tcp/25"),
        ("\"tcp/25\"", "\"tcp/25 to 0.0.0.0/0\"", "tcp/25 to ::/0"),
        ("esp to", "ah to", "esp to 203.0.113.9"),
        ("icmp/echo-request", "udp/123", "icmp/echo-request"),
    ] {
        let accept = whole.replacen(gone, instead, 1);
        let report = run(&format!("[[tests]]\nfrom = \"web1\"\n{accept}\nonly = true"));
        let failures = report.tests.iter().flat_map(|test| &test.failures);
        let only: Vec<&Failure> = failures.filter(|failure| failure.kind == FailureKind::Only).collect();
        let [failure] = only[..] else { panic!("{instead}: {}", report.describe()) };
        assert_eq!(failure.need, open, "{instead}");
        let word = open.split_whitespace().next().expect("a word").split('-').next().expect("a word");
        let (source, need) = decided(failure);
        assert!(
            need.is_some_and(|need| need.starts_with(&word[..3])) && source.starts_with("test.toml:1"),
            "{source}"
        );
    }
}

#[test]
fn only_is_about_the_peers_that_the_test_names() {
    let accept = r#"accept = ["tcp/80", "tcp/8000-8080", "udp/443", "icmp/echo-request", "sctp/5000"]"#;
    pass(&format!("[[tests]]\nfrom = \"198.51.100.9\"\nto = \"web1\"\n{accept}\nonly = true"));
    let failure = fail(&format!("[[tests]]\nfrom = \"203.0.113.9\"\nto = \"web1\"\n{accept}\nonly = true"));
    assert_eq!(failure.need, "gre from 203.0.113.9");
    let failure =
        fail(&format!("[[tests]]\nfrom = \"203.0.113.0/29\"\nto = \"web1\"\n{accept}\nonly = true"));
    assert_eq!(failure.need, "tcp/22 from 203.0.113.7");
    assert_eq!(decided(&failure).0, line_of("management"));
    let failure = fail("[[tests]]\nfrom = \"ftp1\"\nonly = true");
    assert_eq!(failure.need, "tcp/1024-65535 sport 20");
    pass("[[tests]]\nfrom = \"ftp1\"\naccept = [\"tcp/1024-65535 sport 20\"]\nonly = true");
    pass("[[tests]]\nfrom = \"odd\"\nonly = true");
}

#[test]
fn no_test_leaves_a_flow_that_another_would_take_for_an_answer() {
    // what the peers open on every port of the server comes before what the server opens, in the file
    let policy = POLICY.replacen("in  = [\"tcp/80\",", "in  = [\"udp\", \"tcp\",", 1);
    let tests = "[[tests]]\nfrom = \"198.51.100.9\"\nto = \"web1\"\naccept = [\"udp\", \"tcp\"]\n\
                 [[tests]]\nfrom = \"web1\"\ndeny = [\"udp/53 to 198.51.100.9\", \"udp/49152 to 198.51.100.9\"]\n";
    let report = run_with(&policy, tests);
    assert_eq!(report.failed, 0, "{}", report.describe());
    assert!(report.tests[0].test.contains("accept"), "the order of the file");
}

#[test]
fn accept_of_what_no_packet_can_be_fails() {
    let failure = fail("[[tests]]\nfrom = \"odd\"\naccept = [\"tcp/80 to 2001:db8:9::9\"]");
    assert!(failure.note.as_deref().is_some_and(|note| note.contains("no such packet")), "{failure:?}");
    assert_eq!(failure.verdict, None);
}

#[test]
fn the_tests_of_the_starter_the_examples_and_the_read_me_pass() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![("starter".to_owned(), STARTER.to_owned())];
    for file in std::fs::read_dir(folder.join("examples")).expect("a folder") {
        let path = file.expect("a file").path();
        texts.push((path.display().to_string(), std::fs::read_to_string(&path).expect("a text")));
    }
    let read_me = std::fs::read_to_string(folder.join("README.md")).expect("a text");
    let block =
        read_me.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a policy");
    texts.push(("README.md".to_owned(), block.to_owned()));
    assert_eq!(texts.len(), 7);
    let common = std::fs::read_to_string(folder.join("docs/common.md")).expect("a text");
    for (number, block) in common.split("```toml\n").skip(1).enumerate() {
        let block = block.split("```").next().expect("a policy");
        texts.push((format!("policy {} of docs/common.md", number + 1), block.to_owned()));
    }
    assert_eq!(texts.len(), 17, "docs/common.md has ten policies");
    let mut gate: Option<PrivateGate> = None;
    for (name, text) in texts {
        let policy = parse(&text, &name).unwrap_or_else(|errors| panic!("{errors}"));
        let tables = portcullis::compile::compile(&policy).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!policy.tests.is_empty(), "{name} has no tests");
        assert!(describe(&policy, Detail::Full).contains("\ntests\n"), "{name}");
        let gate = match &gate {
            Some(gate) => {
                gate.install(&policy, &tables).expect("a policy");
                gate
            }
            None => gate.insert(PrivateGate::load(&policy, &tables, PrivateSizes::Small).expect("a gate")),
        };
        let report = run_tests_in(gate, &policy, &tables).expect("a report");
        assert_eq!(report.failed, 0, "{}", report.describe());
    }
}

#[test]
fn a_private_gate_is_gone_with_its_value_and_counts_nothing_for_explain() {
    let (policy, tables) = read_policy(POLICY, &[]);
    let gate = PrivateGate::load(&policy, &tables, PrivateSizes::Small).expect("a gate");
    let frame = crate::support::frame::tcp(
        ("192.0.2.10".parse().expect("an address"), 40_000),
        ("203.0.113.40".parse().expect("an address"), 3000),
        crate::support::frame::SYN,
    );
    assert_eq!(gate.explain(&frame).expect("an answer").reason, Some(Reason::Need));
    let count = |gate: &PrivateGate| -> u64 {
        gate.gate().counters(false).expect("counters").iter().map(|(_, packets, _)| packets).sum()
    };
    assert_eq!(count(&gate), 0);
    assert!(gate.filter(&frame).expect("a verdict"));
    assert_eq!(count(&gate), 1);
    let report = run_tests(&policy, &tables).expect("a report");
    assert_eq!((report.tests.len(), report.packets), (0, 0));
}

/// Random tests against the rule that the compiled rows have for each single packet.
#[test]
fn random_tests_agree_with_the_rows_of_each_single_packet() {
    let mut chance = Chance::new(16);
    let peers = ["198.51.100.9", "203.0.113.40", "203.0.113.41", "203.0.113.9", "198.51.101.1"];
    let mut tests = String::new();
    let mut expected = Vec::new();
    let (policy, tables) = read_policy(POLICY, &[]);
    let profile =
        tables.servers.iter().find(|row| policy.servers[row.server].name == "web1").expect("a row").profile;
    for _ in 0..200 {
        let (proto, name) = chance.pick(&[(6, "tcp"), (17, "udp")]);
        let port = chance.pick(&[25, 80, 514, 2999, 3000, 3500, 3999, 4000]);
        let peer = chance.pick(&peers);
        let rule = tables.decide(
            profile,
            portcullis::policy::Direction::Out,
            proto,
            port,
            peer.parse().expect("an address"),
        );
        expected.push(rule != 0);
        tests += &format!("[[tests]]\nfrom = \"192.0.2.10\"\naccept = [\"{name}/{port} to {peer}\"]\n");
    }
    let report = run(&tests);
    let passed: Vec<bool> = report.tests.iter().map(|test| test.passed).collect();
    assert_eq!(passed, expected);
    assert!(expected.iter().any(|it| *it) && expected.iter().any(|it| !it));
}

/// The first line of its tests is 16.
const NAMED: &str = r#"[names]
resolvers = ["198.51.100.53"]
private = ["203.0.113.0/24"]
[sets]
mirrors = ["*.mirror.example", "203.0.113.80"]
[roles.updated]
out = ["udp/53 to 198.51.100.53", "tcp/443 to @mirrors, deb.vendor.example", "tcp/25 to mx.vendor.example"]
[roles.other]
out = ["tcp/443 to rpm.vendor.example"]
[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["updated"]
[servers.web2]
addresses = ["192.0.2.11"]
roles = ["other"]
"#;

fn failures(report: &TestReport) -> Vec<String> {
    let failures = report.tests.iter().flat_map(|test| &test.failures);
    failures.map(|failure| format!("{:?} {}", failure.kind, failure.need)).collect()
}

#[test]
fn a_name_in_a_test_stands_for_an_address_that_the_server_was_answered() {
    let report = run_with(
        NAMED,
        "[[tests]]\nfrom = \"web1\"\naccept = [\"tcp/443 to deb.vendor.example, a.mirror.example, @mirrors\"]\n\
         deny = [\"tcp/25 to deb.vendor.example\", \"tcp/443 to rpm.vendor.example, mirror.example\", \"udp/443 to @mirrors\"]",
    );
    assert_eq!((report.failed, failures(&report)), (0, Vec::new()), "{}", report.describe());
    // of another server, for another port, and of no need at all
    let report = run_with(
        NAMED,
        "[[tests]]\nfrom = \"web2\"\naccept = [\"tcp/443 to deb.vendor.example\", \"tcp/25 to rpm.vendor.example\", \
         \"tcp/443 to evil.example\"]\ndeny = [\"tcp/443 to rpm.vendor.example\"]",
    );
    let expected = [
        "Accept tcp/443 to deb.vendor.example",
        "Accept tcp/25 to rpm.vendor.example",
        "Accept tcp/443 to evil.example",
        "Deny tcp/443 to rpm.vendor.example",
    ];
    assert_eq!(failures(&report), expected);
    let notes: Vec<&str> =
        report.tests[0].failures.iter().filter_map(|failure| failure.note.as_deref()).collect();
    assert!(
        notes[0].ends_with("stands for an address that the server was answered for deb.vendor.example"),
        "{notes:?}"
    );
    assert!(
        notes[2].ends_with("stands for an address of a name that no need of the policy has"),
        "{notes:?}"
    );
}

#[test]
fn what_a_name_may_open_is_said_where_a_test_denies_it() {
    let report = run_with(
        NAMED,
        "[[tests]]\nfrom = \"web1\"\ndeny = [\"tcp/443 to 203.0.113.9\", \"tcp/80-500\", \"tcp/22 to 203.0.113.9\", \
         \"tcp/443 to 192.0.2.11\", \"tcp/443 to 10.0.0.1\", \"udp/443 to 203.0.113.9\"]",
    );
    let notes = report.tests[0].notes.join("\n");
    assert_eq!(report.tests[0].notes.len(), 2, "{notes}");
    let said = "test.toml:18:10: `tcp/443 to 203.0.113.9` is denied to web1 unless a name gives it the address: test.toml:7 has \
                `tcp/443 to @mirrors, deb.vendor.example`";
    assert!(notes.contains(said), "{notes}");
    assert!(notes.contains("`tcp/80-500` is denied to web1 unless"), "{notes}");
    assert!(report.describe().contains(said), "{}", report.describe());
    // a name gives it to another server alone
    let report = run_with(NAMED, "[[tests]]\nfrom = \"web2\"\ndeny = [\"tcp/25 to 203.0.113.9\"]");
    assert_eq!((report.failed, report.tests[0].notes.len()), (0, 0));
}

#[test]
fn a_test_that_accepts_nothing_else_names_what_a_name_opens() {
    let accept = "\"udp/53 to 198.51.100.53\", \"tcp/443 to 203.0.113.80\"";
    let only = |names: &str| {
        let test = format!("[[tests]]\nfrom = \"web1\"\naccept = [{accept}{names}]\nonly = true");
        failures(&run_with(NAMED, &test))
    };
    let mut found = only("");
    found.sort_unstable();
    let expected = [
        "Only tcp/25 to mx.vendor.example",
        "Only tcp/443 to *.mirror.example",
        "Only tcp/443 to deb.vendor.example",
    ];
    assert_eq!(found, expected);
    let most = ", \"tcp/443 to *.mirror.example, deb.vendor.example\", \"tcp/25 to mx.vendor.example\"";
    assert_eq!(only(most), Vec::<String>::new());
    // a name accepts no address
    let names_alone = "[[tests]]\nfrom = \"web1\"\nonly = true\naccept = [\"udp/53 to 198.51.100.53\", \
                       \"tcp/443 to *.mirror.example, deb.vendor.example\", \"tcp/25 to mx.vendor.example\"]";
    assert_eq!(failures(&run_with(NAMED, names_alone)), ["Only tcp/443 to 203.0.113.80"]);
}
