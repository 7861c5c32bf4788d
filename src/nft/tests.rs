//! The text of rulesets. Whether nft takes them, and what they let through, is for the suite.

use super::*;
use crate::policy::{STARTER, parse};

const POLICY: &str = "\
[policy]
management = [\"tcp/22 from @bastion\"]
[sets]
bastion = [\"203.0.113.7\", \"2001:db8:f::/64\"]
loghosts = [\"198.51.100.20\", \"198.51.100.21\"]
[roles.web]
in = [\"tcp/80\"]
out = [\"tcp/25 limit 20/s\", \"udp/514 to @loghosts\"]
quiet = [\"udp/137-138\"]
[servers.web1]
addresses = [\"192.0.2.10\", \"2001:db8:1::10\"]
roles = [\"web\"]
[servers.farm]
addresses = [\"192.0.2.0/28\"]
roles = [\"web\"]
";

fn write(text: &str) -> Ruleset {
    let policy = parse(text, "/etc/portcullis/dmz0.toml").unwrap_or_else(|errors| panic!("{errors}"));
    export(&policy, "dmz0")
}

fn line<'t>(ruleset: &'t Ruleset, words: &str) -> &'t str {
    ruleset
        .text
        .lines()
        .find(|line| line.contains(words))
        .unwrap_or_else(|| panic!("no `{words}` in\n{}", ruleset.text))
        .trim()
}

#[test]
fn each_need_stands_with_its_place_in_the_file() {
    let ruleset = write(POLICY);
    let answer = "tcp sport 80 accept comment \"/etc/portcullis/dmz0.toml:7 tcp/80\"";
    assert_eq!(line(&ruleset, "tcp sport 80 "), answer);
    assert_eq!(
        line(&ruleset, "udp dport 514 "),
        "udp dport 514 ip daddr 198.51.100.20/31 accept comment \
         \"/etc/portcullis/dmz0.toml:8 udp/514 to @loghosts\""
    );
    assert!(
        ruleset
            .text
            .contains("udp dport 137-138 counter goto refuse_quietly comment \"/etc/portcullis/dmz0.toml:9 ")
    );
    assert!(line(&ruleset, "tcp sport 22 ip6 daddr").contains("2001:db8:f::/64 accept"));
}

#[test]
fn servers_of_the_same_roles_share_their_rules_and_no_two_prefixes_overlap() {
    let ruleset = write(POLICY);
    assert_eq!(ruleset.text.matches("chain profile_").count(), 1);
    // the longest prefix wins, and nft wants intervals that don't overlap
    for piece in ["192.0.2.0/29 ", "192.0.2.8/31 ", "192.0.2.11 ", "192.0.2.12/30 "] {
        assert!(
            ruleset.text.contains(&format!("{piece}comment \"/etc/portcullis/dmz0.toml:13 farm\"")),
            "{piece}"
        );
    }
    assert!(
        ruleset.text.contains("192.0.2.10 comment \"/etc/portcullis/dmz0.toml:10 web1\" : goto profile_1")
    );
}

#[test]
fn a_limit_counts_by_server_in_both_families_and_only_openings() {
    let ruleset = write(POLICY);
    assert!(ruleset.text.contains("limit limit_1_web1 {\n        rate 20/second burst 20 packets\n    }"));
    assert!(ruleset.text.contains("192.0.2.10 : \"limit_1_web1\""));
    assert!(ruleset.text.contains("2001:db8:1::10 : \"limit_1_web1\""));
    let later = line(&ruleset, "tcp dport 25 tcp flags");
    assert!(later.starts_with("tcp dport 25 tcp flags & (syn | ack) != syn accept"), "{later}");
    assert!(line(&ruleset, "tcp dport 25 limit name ip saddr").contains("map @limits_1_4 accept"));
}

#[test]
fn the_head_says_what_nft_lacks_of_this_policy_and_no_more() {
    let plain = write(POLICY);
    let has = |ruleset: &Ruleset, words: &str| {
        let listed = ruleset.lacks.iter().any(|lack| lack.contains(words));
        assert_eq!(ruleset.text.lines().any(|line| line.starts_with("# - ") && line.contains(words)), listed);
        listed
    };
    assert!(has(&plain, "nf_conntrack_tcp_loose") && has(&plain, "the tokens"));
    for words in ["VLAN 7", "quiet_ethertypes", "DHCP", "without a name", "node information"] {
        assert!(!has(&plain, words), "{words}");
    }
    let full = POLICY
        .replace(
            "[policy]",
            "[policy]\ndhcp = true\nunknown_sources = \"allow\"\nquiet_ethertypes = [0x8899]",
        )
        .replace("\"tcp/80\"", "\"tcp/80\", \"icmpv6/node-information-request\"")
        .replace("[servers.farm]", "[servers.farm]\nvlan = 7");
    let full = write(&full);
    for words in ["VLAN 7", "quiet_ethertypes` (0x8899)", "DHCP", "without a name", "node information"] {
        assert!(has(&full, words), "{words}");
    }
    let service = write(&POLICY.replace("[policy]", "[policy]\ntracking = \"service\""));
    assert!(!has(&service, "nf_conntrack_tcp_loose") && has(&service, "service tracking"));
}

#[test]
fn a_ruleset_replaces_its_own_table_and_names_no_other() {
    let ruleset = write(STARTER);
    assert_eq!(ruleset.table, "inet portcullis-dmz0");
    let commands: Vec<&str> =
        ruleset.text.lines().filter(|line| !line.starts_with([' ', '#', '}']) && !line.is_empty()).collect();
    assert_eq!(
        commands,
        ["table inet portcullis-dmz0 {", "delete table inet portcullis-dmz0", "table inet portcullis-dmz0 {"]
    );
}

#[test]
fn a_file_with_a_strange_name_writes_no_rules_of_its_own() {
    let name = "/tmp/a\"\n} drop \u{1b}[31m.toml";
    let policy = parse(POLICY, name).unwrap_or_else(|errors| panic!("{errors}"));
    let text = export(&policy, "dmz0").text;
    assert!(!text.contains("\n} drop") && !text.contains('\u{1b}'), "{text}");
    assert!(text.lines().all(|line| line.starts_with('#') || !line.contains("a\"")), "{text}");
    let long = format!("/{}/dmz0.toml", "x".repeat(300));
    let policy = parse(POLICY, &long).unwrap_or_else(|errors| panic!("{errors}"));
    let text = export(&policy, "dmz0").text;
    assert!(text.contains("comment \"dmz0.toml:7 tcp/80\""), "{text}");
}

#[test]
fn only_names_without_a_meaning_in_nft_stand_in_a_ruleset() {
    for name in ["dmz0", "eth0.7", "br-dmz", "a@b", "a+b"] {
        assert!(is_plain_name(name), "{name}");
    }
    for name in ["", "dmz*", "a\"b", "a\\b", "a b", "a:b", "sixteen-letters-", "dmzä"] {
        assert!(!is_plain_name(name), "{name}");
    }
    assert_ne!(name_table("a@b"), name_table("a+b"));
}
