//! Policies that people start from, and what the manual says about one: `portcullis init`, `examples/` and
//! `docs/policy.md`.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::*;
use crate::compile::compile;

/// The addresses for documentation: RFC 5737 and RFC 3849.
const DOCUMENTATION: [&str; 4] = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"];

/// The MACs for documentation: RFC 7042.
const DOCUMENTATION_MACS: [u8; 5] = [0x00, 0x00, 0x5e, 0x00, 0x53];

/// Names and texts of the policies in `examples/`.
fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| (name_of(path), fs::read_to_string(path).unwrap())).collect()
}

fn name_of(path: &Path) -> String {
    assert_eq!(path.extension().unwrap_or_default(), "toml", "{}", path.display());
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads and compiles a policy, as `portcullis check` does.
fn check(name: &str, text: &str) -> Policy {
    let policy = parse(text, &format!("{name}.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    if let Err(errors) = compile(&policy) {
        panic!("{errors}");
    }
    policy
}

/// Compares with the file `snapshots/NAME.snap`.
fn assert_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Everything in a text, comments included, that reads as an address or a prefix.
fn addresses_in(text: &str) -> Vec<IpNet> {
    let words = text.split(|letter: char| !(letter.is_ascii_hexdigit() || ".:/".contains(letter)));
    let words = words.map(|word| word.trim_matches(['.', '/']).trim_end_matches(':'));
    words
        .filter(|word| word.contains(['.', ':']))
        .filter_map(|word| word.parse().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from)))
        .collect()
}

#[test]
fn each_example_passes_check_and_says_what_each_server_may_do() {
    let examples = examples();
    let names: Vec<&str> = examples.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["dmz", "hosting", "mail", "web"] {
        assert!(names.contains(&name), "examples/{name}.toml is not there: {names:?}");
    }
    for (name, text) in &examples {
        let policy = check(name, text);
        assert_snapshot(
            &format!("check_{name}"),
            &(describe(&policy, Detail::Brief) + &describe_alarms(&policy)),
        );
        let doubts = find_doubts(&policy);
        assert!(doubts.is_empty(), "{name}: {doubts:#?}");
    }
}

#[test]
fn each_example_explains_itself_before_its_first_table() {
    for (name, text) in examples() {
        let comment: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(comment.len() >= 3 && text.contains("portcullis check"), "examples/{name}.toml");
    }
}

#[test]
fn policies_to_start_from_have_documentation_addresses_only() {
    let ranges = DOCUMENTATION.map(|range| range.parse::<IpNet>().unwrap());
    let starter = ("the starter".to_owned(), STARTER.to_owned());
    for (name, text) in examples().into_iter().chain([starter]) {
        let addresses = addresses_in(&text);
        assert!(addresses.len() > 5, "{name}: {addresses:?}");
        for address in addresses {
            assert!(ranges.iter().any(|range| range.contains(&address)), "{name}: {address}");
        }
    }
    for (name, text) in examples() {
        for server in check(&name, &text).servers {
            assert!(server.macs.iter().all(|(mac, _)| mac.starts_with(&DOCUMENTATION_MACS)), "{name}");
        }
    }
}

#[test]
fn addresses_are_found_in_comments_too() {
    let found: Vec<String> =
        addresses_in("a = [\"192.0.2.1\"] # ask 10.0.0.1, not fe80::1/64: see tls://[::1]:80, at 12:30.")
            .iter()
            .map(ToString::to_string)
            .collect();
    assert_eq!(found, ["192.0.2.1/32", "10.0.0.1/32", "fe80::1/64", "::1/128"]);
}

/// The code blocks of the manual, without their fences.
fn manual_blocks() -> Vec<&'static str> {
    MANUAL.split("```").skip(1).step_by(2).collect()
}

#[test]
fn the_manuals_first_example_prints_what_the_manual_says() {
    let blocks = manual_blocks();
    let policy = blocks.iter().find_map(|block| block.strip_prefix("toml\n")).expect("an example");
    let outputs: Vec<&str> =
        blocks.iter().filter_map(|block| block.strip_prefix("\n$ portcullis check web.toml\n")).collect();
    let [good, bad] = outputs[..] else { panic!("the manual has {} outputs of check", outputs.len()) };
    let checked = check("web", policy);
    assert_eq!(describe(&checked, Detail::Brief) + &describe_alarms(&checked), good);

    let misspelt = policy.replace("roles = [\"web\", \"managed\"]", "roles = [\"web\", \"manged\"]");
    let errors = parse(&misspelt, "web.toml").expect_err("no such role");
    assert!(bad.starts_with(&format!("{errors}\n")), "{errors}\n-- the manual has:\n{bad}");
}

#[test]
fn a_spoiled_policy_is_refused_with_each_mistake_at_its_place() {
    let errors = parse(SPOILED, "spoiled.toml").expect_err("it is spoiled");
    assert_snapshot("diagnostics", &errors.to_string());
}

/// One mistake of most kinds.
const SPOILED: &str = r#"[policy]
mode = "enforec"
tracking = "loose"
pickup = 99999999
dhcp = "yes"
managment = ["tcp/22"]

[sets]
hosts = ["192.0.2.1/24", "198.51.100.1", "@others"]
mirrors = ["deb.vendor.example", "fe80::1%eth0", "192.0.2.010"]
nobody = []

[roles.web]
in = ["tcp/99999 from @hots, 10.0.0.300 limit 0/s", "tpc/1", "tcp/htpps", "udp/138-137"]
out = [
    "udp/53 from @hosts",
    "tcp/25 limit 20/h",
    "tcp/25, tcp/26",
    "tcp/tftp",
    "gre/80",
    "icmp/8-13",
    "tcp/22 to hosts",
    "tcp/22 to @nobody",
    "tcp/22 to",
]
quiet = "udp/5353"

[roles."a b"]

[servers.web1]
adresses = ["192.0.2.1"]
roles = ["wbe"]
vlan = 5000
mac = "03:00:00:00:00:10"

[servers.web2]
addresses = ["192.0.2.2", "127.0.0.1", "::ffff:192.0.2.3"]

[servers.web3]
addresses = ["192.0.2.2"]
mac = "02:00:00:00:10"

[alarms]
eve = "/var/log/portcullis.json"
ecs = "/var/log/portcullis.json"
syslog = "loghost"
alertmanager = "192.0.2.9:9093"
command = ["page"]
quarantine_on = ["spoof", "sprad"]
quarantine_for = "soon"

[tables]
ledger = 0
"#;
