//! The tests of a large policy: what they cost does not grow with the servers.

use std::fmt::Write as _;

use portcullis::policy_tests::run_tests_in;

use crate::support::test_gate::{TestGate, read_policy};

/// A policy of many servers in a few roles, and tests of some of them.
fn large_policy(servers: usize, tests: usize) -> String {
    let mut text = String::from(
        "[policy]\nmanagement = [\"tcp/22 from 203.0.113.7\"]\n[sets]\nlogs = [\"198.51.100.0/24\", \"2001:db8:2::/64\"]\n\
         [roles.managed]\nout = [\"udp/514 to @logs\", \"udp/123 to 2001:db8:3::30\"]\n",
    );
    for role in 0..16 {
        let port = 8000 + role;
        writeln!(
            text,
            "[roles.r{role}]\nin = [\"tcp/{port}\"]\nout = [\"tcp/{port} to 2001:db8:4::{role}\"]"
        )
        .expect("text");
    }
    for server in 0..servers {
        // there are fewer addresses of IPv4 in documentation than servers here
        writeln!(
            text,
            "[servers.s{server}]\naddresses = [\"2001:db8:1::{server:x}\"]\nroles = [\"managed\", \"r{}\"]",
            server % 16
        )
        .expect("text");
    }
    for test in 0..tests {
        // spread over all servers
        let server = test * servers / tests;
        let (role, port) = (server % 16, 8000 + server % 16);
        let test = match test % 3 {
            0 => format!(
                "from = \"s{server}\"\naccept = [\"udp/514 to 2001:db8:2::9\"]\ndeny = [\"tcp/80\", \"udp/53\"]"
            ),
            1 => format!(
                "from = \"2001:db8:2::9\"\nto = \"s{server}\"\naccept = [\"tcp/{port}\"]\nonly = true"
            ),
            _ => format!(
                "from = \"s{server}\"\naccept = [\"udp/514 to @logs\", \"udp/123 to 2001:db8:3::30\", \
                 \"tcp/{port} to 2001:db8:4::{role}\"]\nonly = true"
            ),
        };
        writeln!(text, "[[tests]]\n{test}").expect("text");
    }
    text
}

/// The packets that the tests of such a policy take, all of which pass.
fn count_packets(servers: usize, tests: usize) -> u64 {
    let text = large_policy(servers, tests);
    let sizes = [("servers", 8192)];
    let gate = TestGate::sized(&text, &sizes);
    let (policy, tables) = read_policy(&text, &sizes);
    let report = run_tests_in(&gate.private(), &policy, &tables).expect("a report");
    assert_eq!(report.failed, 0, "{}", report.describe_failures());
    report.packets
}

#[test]
fn the_packets_of_a_thousand_tests_are_few_and_do_not_grow_with_the_servers() {
    let few = count_packets(64, 1000);
    let many = count_packets(4096, 1000);
    assert_eq!(few, many);
    assert!((1000..20_000).contains(&many), "{many}");
}
