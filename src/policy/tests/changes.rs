//! Differences between policies.

use super::{BASE, diff, read};

fn changes(old: &str, new: &str) -> Vec<String> {
    diff(&read(old), &read(new)).iter().map(ToString::to_string).collect()
}

const OLD: &str = r#"
[sets]
hosts = ["198.51.100.20", "198.51.100.21"]
[roles.web]
in = ["tcp/80", "tcp/81"]
out = ["udp/514 to @hosts"]
[roles.mail]
out = ["tcp/25"]
[servers.web1]
addresses = ["192.0.2.10"]
roles = ["web", "mail"]
"#;

#[test]
fn a_policy_does_not_differ_from_itself() {
    assert!(changes(OLD, OLD).is_empty());
    assert!(changes(super::STARTER, super::STARTER).is_empty());
}

#[test]
fn comments_order_and_names_are_no_difference() {
    let new = r#"
# a comment
[servers.web1]
roles = ["post", "web"]
addresses = ["192.0.2.10/32"]
[roles.post]
out = ["6/smtp"]
[roles.web]
out = ["udp/514 to @logs"]
in = ["tcp/80-81"]
[sets]
logs = ["198.51.100.20/31"]
[policy]
mode = "enforce"
pickup = 120
"#;
    assert_eq!(changes(OLD, new), [""; 0]);
}

#[test]
fn a_new_server_is_listed_with_all_it_may_do() {
    let new = format!("{OLD}[servers.web2]\naddresses = [\"192.0.2.11\"]\nroles = [\"web\"]\n");
    assert_eq!(
        changes(OLD, &new),
        [
            "+ server web2 (192.0.2.11)",
            "+ web2 may accept tcp/80",
            "+ web2 may accept tcp/81",
            "+ web2 may open udp/514 to @hosts",
        ]
    );
    assert_eq!(changes(&new, OLD), ["- server web2 (192.0.2.11)"]);
}

#[test]
fn a_need_that_comes_or_goes_is_listed_for_each_server() {
    let new = OLD.replace("\"tcp/25\"", "\"tcp/25 limit 20/s\", \"tcp/113\"");
    assert_eq!(
        changes(OLD, &new),
        ["+ web1 may open tcp/113", "+ web1 may open tcp/25 limit 20/s", "- web1 may no longer open tcp/25"]
    );
    let new = OLD.replace("\"tcp/80\", \"tcp/81\"", "\"tcp/80\"");
    assert_eq!(changes(OLD, &new), ["- web1 may no longer accept tcp/81"]);
}

#[test]
fn joined_limits_are_a_difference_for_they_share_a_bucket() {
    let [two, one] = ["\"tcp/25 limit 1/s\", \"tcp/26 limit 1/s\"", "\"tcp/25-26 limit 1/s\""]
        .map(|needs| OLD.replace("\"tcp/25\"", needs));
    assert_eq!(changes(&two, &one).len(), 3);
}

#[test]
fn settings_are_listed_with_both_values() {
    let new = format!(
        "{OLD}[policy]\nmode = \"observe\"\npickup = 5\n[alarms]\neve = \"/x\"\n[tables]\nledger = 7\n"
    );
    assert_eq!(
        changes(OLD, &new),
        [
            "~ mode enforce -> observe",
            "~ pickup 120 -> 5",
            "~ alarms.eve none -> /x",
            "~ tables.ledger 32768 -> 7"
        ]
    );
}

#[test]
fn a_servers_own_settings_are_listed_when_they_make_a_difference() {
    let new =
        OLD.replace("roles = [", "mac = \"02:00:00:00:00:10\"\nvlan = 7\nmode = \"observe\"\nroles = [");
    assert_eq!(
        changes(OLD, &new),
        ["~ web1 mac any -> 02:00:00:00:00:10", "~ web1 vlan any -> 7", "~ web1 mode enforce -> observe"]
    );
    assert!(changes(OLD, &OLD.replace("roles = [", "mode = \"enforce\"\nroles = [")).is_empty());
}

#[test]
fn addresses_are_listed_one_by_one() {
    let new = OLD.replace("\"192.0.2.10\"", "\"192.0.2.11\"");
    assert_eq!(
        changes(OLD, &new),
        ["+ web1 has address 192.0.2.11", "- web1 no longer has address 192.0.2.10"]
    );
}

#[test]
fn other_members_of_a_set_are_listed_once() {
    let new = OLD.replace("\"198.51.100.21\"", "\"198.51.100.22\"");
    assert_eq!(changes(OLD, &new), ["~ set hosts: +198.51.100.22, -198.51.100.21"]);
}

#[test]
fn members_of_a_set_that_no_need_names_are_no_difference() {
    let new = BASE.replace("203.0.113.7", "203.0.113.8");
    assert!(changes(BASE, &new).is_empty());
}

#[test]
fn management_is_listed_for_every_server() {
    let new = format!("{OLD}[policy]\nmanagement = [\"tcp/22 from @hosts\"]\n");
    assert_eq!(changes(OLD, &new), ["+ every server may accept tcp/22 from @hosts"]);
}

#[test]
fn a_change_is_json_with_its_kind() {
    let new = OLD.replace("\"tcp/25\"", "");
    let json = serde_json::to_value(diff(&read(OLD), &read(&new))).unwrap();
    let expected = serde_json::json!([{"change": "need_removed", "server": "web1", "direction": "out", "need": "tcp/25"}]);
    assert_eq!(json, expected);
}
