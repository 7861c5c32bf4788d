//! Each mistake by itself: its position, its message and its help.

use super::{BASE, complaints, help};

/// Adds lines to a valid policy; the first one is line 8.
fn with(lines: &str) -> String {
    format!("{BASE}{lines}\n")
}

/// A policy with one role that has these needs; the first need is in line 2.
fn with_role(lines: &str) -> String {
    format!(
        "[roles.r]\n{lines}\n[sets]\nbastion = [\"203.0.113.7\"]\nnobody = []\n[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n"
    )
}

/// A policy with one server that has these keys; the first one is in line 2.
fn with_server(lines: &str) -> String {
    format!("[servers.s]\n{lines}\n[roles.web]\nin = [\"tcp/80\"]\n")
}

#[test]
fn an_unknown_table_is_refused() {
    let text = with("[polcy]\nmode = \"observe\"");
    assert_eq!(complaints(&text), ["8:2: unknown table `polcy`"]);
    assert_eq!(help(&text), "did you mean `policy`?");
}

#[test]
fn an_unknown_key_is_refused_in_every_table() {
    assert_eq!(complaints(&with("[policy]\nmodes = \"enforce\"")), ["9:1: unknown key `modes` in [policy]"]);
    assert_eq!(complaints(&with("[alarms]\nevee = \"x\"")), ["9:1: unknown key `evee` in [alarms]"]);
    assert_eq!(complaints(&with("[tables]\nserver = 1")), ["9:1: unknown key `server` in [tables]"]);
    assert_eq!(complaints(&with_role("inn = []")), ["2:1: unknown key `inn` in [roles.r]"]);
    assert_eq!(
        complaints(&with_server("addresses = [\"192.0.2.1\"]\n  vlna = 7")),
        ["3:3: unknown key `vlna` in [servers.s]"]
    );
    assert_eq!(
        help(&with("[policy]\ncolour = 1")),
        "the keys are mode, tracking, unknown_sources, management, link_services, quiet_ethertypes, pickup, \
            handover, dhcp"
    );
}

#[test]
fn a_misspelt_mode_is_refused_with_what_was_meant() {
    assert_eq!(complaints(&with("[policy]\nmode = \"observ\"")), ["9:9: `mode` can't be `observ`"]);
    assert_eq!(help(&with("[policy]\nmode = \"observ\"")), "did you mean `observe`?");
    assert_eq!(help(&with("[policy]\ntracking = \"loose\"")), "the values are strict, service");
    assert_eq!(
        complaints(&with("[policy]\nunknown_sources = \"drop\"")),
        ["9:20: `unknown_sources` can't be `drop`"]
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    assert_eq!(complaints(&with("[policy]\nmode = 1")), ["9:8: `mode` must be text, not a number"]);
    assert_eq!(
        complaints(&with("[policy]\ndhcp = \"true\"")),
        ["9:8: `dhcp` must be true or false, not text"]
    );
    assert_eq!(help(&with("[policy]\ndhcp = \"true\"")), "write true or false without quotes");
    assert_eq!(
        complaints(&with("[policy]\npickup = \"120\"")),
        ["9:10: `pickup` must be a whole number, not text"]
    );
    assert_eq!(help(&with("[policy]\npickup = \"120\"")), "write a whole number without quotes");
    assert_eq!(help(&with("[policy]\npickup = true")), "");
    assert_eq!(complaints(&with_role("in = \"tcp/80\"")), ["2:6: `in` must be a list"]);
    assert_eq!(help(&with_role("in = \"tcp/80\"")), "write [\"tcp/80\"]");
    assert_eq!(complaints(&with_role("in = [80]")), ["2:7: each element of `in` must be text, not a number"]);
    assert_eq!(complaints(&with("[roles]\nx = 1")), ["9:5: `x` must be a table, not a number"]);
    assert_eq!(help(&with("[roles]\nx = 1")), "write `[roles.x]`");
    assert_eq!(
        complaints(&with("[[policy]]\nmode = \"observe\"")),
        ["8:3: `policy` must be a table, not a list of tables"]
    );
    assert_eq!(help(&with("[[servers.s]]\nvlan = 1")), "write `[servers.s]`");
}

#[test]
fn a_number_out_of_its_range_is_refused() {
    assert_eq!(complaints(&with("[policy]\npickup = 86401")), ["9:10: `pickup` must be from 0 to 86400"]);
    assert_eq!(complaints(&with("[policy]\npickup = -1")), ["9:10: `pickup` must be from 0 to 86400"]);
    assert_eq!(complaints(&with("[tables]\nneeds = 0")), ["9:9: `needs` must be from 1 to 16777216"]);
    assert_eq!(complaints(&with("[tables]\npeers = 16777217")), ["9:9: `peers` must be from 1 to 16777216"]);
    for vlan in ["0", "4095", "99999999999999"] {
        let text = with_server(&format!("addresses = [\"192.0.2.1\"]\nvlan = {vlan}"));
        assert_eq!(complaints(&text), ["3:8: `vlan` must be from 1 to 4094"]);
    }
}

#[test]
fn an_unknown_role_is_refused_with_what_was_meant() {
    let text = with_server("addresses = [\"192.0.2.1\"]\nroles = [\"web\", \"wbe\"]");
    assert_eq!(complaints(&text), ["3:18: no role is called `wbe`"]);
    assert_eq!(help(&text), "did you mean `web`?");
}

#[test]
fn an_unknown_set_is_refused_with_what_was_meant() {
    let text = with_role("in = [\"tcp/22 from 192.0.2.0/24, @bastoin\"]");
    assert_eq!(complaints(&text), ["2:34: no set is called `bastoin`"]);
    assert_eq!(help(&text), "did you mean `@bastion`?");
}

#[test]
fn a_set_without_its_at_sign_is_recognised() {
    let text = with_role("in = [\"tcp/22 from bastion\"]");
    assert_eq!(complaints(&text), ["2:20: `bastion` is not an address"]);
    assert_eq!(help(&text), "write `@bastion`: the name of a set has an `@` before it");
}

#[test]
fn an_empty_set_is_refused_only_where_a_need_names_it() {
    assert_eq!(
        complaints(&with_role("in = [\"tcp/22 from @nobody\"]")),
        ["2:20: set `nobody` is empty, so this need could never be met"]
    );
    assert!(super::parse(&with_role("in = [\"tcp/22\"]"), "x").is_ok());
}

#[test]
fn an_unknown_service_is_refused_at_its_name() {
    let text = with_role("in = [\"tcp/80\", \"tcp/htpps\"]");
    assert_eq!(complaints(&text), ["2:22: no tcp service is called `htpps`"]);
    assert_eq!(help(&text), "did you mean `https`?");
}

#[test]
fn a_service_of_another_protocol_is_refused_with_the_right_one() {
    assert_eq!(complaints(&with_role("in = [\"tcp/tftp\"]")), ["2:12: no tcp service is called `tftp`"]);
    assert_eq!(
        help(&with_role("in = [\"tcp/tftp\"]")),
        "did you mean `udp/tftp`? If not, write the port's number"
    );
}

#[test]
fn a_port_over_65535_is_refused_at_the_port() {
    assert_eq!(complaints(&with_role("in = [\"tcp/65536\"]")), ["2:12: port 65536 is over 65535"]);
    assert_eq!(complaints(&with_role("in = [\"tcp/80-70000\"]")), ["2:15: port 70000 is over 65535"]);
    assert_eq!(
        complaints(&with_role("in = [\"tcp/99999999999999999999\"]")),
        ["2:12: port 99999999999999999999 is over 65535"]
    );
}

#[test]
fn a_range_that_runs_backwards_is_refused() {
    assert_eq!(
        complaints(&with_role("in = [\"udp/138-137\"]")),
        ["2:12: the range `138-137` runs backwards"]
    );
    assert_eq!(help(&with_role("in = [\"udp/138-137\"]")), "did you mean `137-138`?");
}

#[test]
fn ports_of_a_protocol_without_ports_are_refused() {
    assert_eq!(complaints(&with_role("in = [\"gre/80\"]")), ["2:12: protocol `gre` has no ports"]);
    assert_eq!(complaints(&with_role("in = [\"89/1\"]")), ["2:11: protocol `ospf` has no ports"]);
}

#[test]
fn an_unknown_protocol_is_refused() {
    assert_eq!(complaints(&with_role("in = [\"tpc/80\"]")), ["2:8: no protocol is called `tpc`"]);
    assert_eq!(help(&with_role("in = [\"tpc/80\"]")), "did you mean `tcp`?");
    assert_eq!(help(&with_role("in = [\"TCP/80\"]")), "write `tcp/80`");
    assert_eq!(help(&with_role("in = [\"eigrp\"]")), "write its number, 0 to 255");
    assert_eq!(help(&with_role("in = [\"https\"]")), "did you mean `tcp/https`?");
    assert_eq!(complaints(&with_role("in = [\"256\"]")), ["2:8: `256` is not how a need is written"]);
    assert_eq!(help(&with_role("in = [\"256\"]")), "write one need for each: `tcp/256`, `udp/256`");
}

#[test]
fn an_icmp_type_must_exist_for_its_version() {
    assert_eq!(
        complaints(&with_role("in = [\"icmp/packet-too-big\"]")),
        ["2:13: no icmp type is called `packet-too-big`"]
    );
    assert_eq!(complaints(&with_role("in = [\"icmpv6/256\"]")), ["2:15: icmpv6 type 256 is over 255"]);
    assert_eq!(
        help(&with_role("in = [\"icmp/8-13\"]")),
        "write one need for each type: types have no ranges"
    );
    assert_eq!(help(&with_role("in = [\"icmp/echo-requets\"]")), "did you mean `echo-request`?");
}

#[test]
fn peers_are_from_in_in_and_to_in_out_and_quiet() {
    assert_eq!(
        complaints(&with_role("out = [\"tcp/80 from 192.0.2.0/24\"]")),
        ["2:16: a need of `out` has `to`, not `from`"]
    );
    assert_eq!(
        complaints(&with_role("in = [\"tcp/80 to 192.0.2.0/24\"]")),
        ["2:15: a need of `in` has `from`, not `to`"]
    );
    assert_eq!(
        complaints(&with_role("quiet = [\"tcp/80 from 192.0.2.0/24\"]")),
        ["2:18: a need of `quiet` has `to`, not `from`"]
    );
    assert!(super::parse(&with_role("quiet = [\"tcp/80 to 192.0.2.0/24\"]"), "x").is_ok());
}

#[test]
fn a_limit_outside_of_out_is_refused() {
    let message = |key| format!("`limit` caps what a server opens, so it belongs to `out`, not to `{key}`");
    assert_eq!(complaints(&with_role("in = [\"tcp/80 limit 5/s\"]")), [format!("2:15: {}", message("in"))]);
    assert_eq!(
        complaints(&with_role("quiet = [\"tcp/80 limit 5/s\"]")),
        [format!("2:18: {}", message("quiet"))]
    );
}

#[test]
fn a_limit_must_be_a_number_above_zero_and_a_unit() {
    let complain =
        |limit: &str| complaints(&with_role(&format!("out = [\"tcp/25 limit {limit}\"]"))).join("; ");
    assert_eq!(complain("0/s"), "2:22: a limit of zero lets nothing out");
    assert_eq!(complain("20/h"), "2:25: `h` is not a unit of a limit");
    assert_eq!(complain("20"), "2:22: `20` is not a limit");
    assert_eq!(complain("-1/s"), "2:22: `-1` is not a number");
    assert_eq!(complain("10000001/s"), "2:22: limit 10000001 is over 10000000");
    assert_eq!(complain("5/s limit 6/s"), "2:26: `limit` is not expected here");
    assert_eq!(complain(""), "2:21: a limit is missing here");
}

#[test]
fn a_list_of_peers_must_be_complete() {
    let complain = |peers: &str| complaints(&with_role(&format!("out = [\"tcp/25 {peers}\"]"))).join("; ");
    assert_eq!(complain("to"), "2:18: an address, prefix or @set is missing here");
    assert_eq!(complain("to 192.0.2.1,"), "2:29: an address, prefix or @set is missing here");
    assert_eq!(complain("to , 192.0.2.1"), "2:19: an address is missing before this comma");
    assert_eq!(complain("to 192.0.2.1 192.0.2.2"), "2:29: expected a comma or `limit` before `192.0.2.2`");
    assert_eq!(complain("192.0.2.1"), "2:16: `192.0.2.1` is not expected here");
    assert_eq!(help(&with_role("out = [\"tcp/25 192.0.2.1\"]")), "write `to 192.0.2.1`");
    assert_eq!(help(&with_role("out = [\"tcp/25, tcp/26\"]")), "write one need for each: `tcp/25`, `tcp/26`");
    assert_eq!(complain("limit 5/s to 192.0.2.1"), "2:26: `to` is not expected here");
}

#[test]
fn an_empty_need_is_refused() {
    assert_eq!(complaints(&with_role("in = [\"\"]")), ["2:7: this need is empty"]);
    assert_eq!(complaints(&with_role("in = [\"tcp/\"]")), ["2:12: a port is missing after `/`"]);
    assert_eq!(complaints(&with_role("in = [\"/80\"]")), ["2:8: a protocol is missing here"]);
}

#[test]
fn host_bits_are_refused_at_the_prefix() {
    let text = with_server("addresses = [\"192.0.2.1\", \"198.51.100.5/24\"]");
    assert_eq!(complaints(&text), ["2:28: `198.51.100.5/24` has host bits set"]);
    assert_eq!(help(&text), "write `198.51.100.0/24` for the network, or `198.51.100.5` for the host");
    let text = with_role("out = [\"udp/53 to 2001:db8::1/64\"]");
    assert_eq!(complaints(&text), ["2:19: `2001:db8::1/64` has host bits set"]);
}

#[test]
fn an_address_held_twice_is_refused_and_its_first_holder_named() {
    let text = with("[servers.web2]\naddresses = [\"192.0.2.11\", \"192.0.2.10/32\"]");
    assert_eq!(complaints(&text), ["9:29: server `web1` already has `192.0.2.10`"]);
    assert_eq!(help(&text), "see line 6, column 15");
    let text = with_server("addresses = [\"192.0.2.1\", \"192.0.2.1\"]");
    assert_eq!(complaints(&text), ["2:28: this server already has `192.0.2.1`"]);
}

#[test]
fn an_address_inside_a_prefix_of_another_server_is_allowed() {
    assert!(super::parse(&with("[servers.farm]\naddresses = [\"192.0.2.0/24\"]"), "x").is_ok());
}

#[test]
fn an_address_that_no_server_can_have_is_refused() {
    for (address, reason) in [
        ("0.0.0.0", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.5", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("0.0.0.0/0", "unspecified"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("::ffff:192.0.2.1", "written as IPv6"),
    ] {
        let complaint = complaints(&with_server(&format!("addresses = [\"{address}\"]"))).join("; ");
        assert!(complaint.starts_with("2:15: `") && complaint.contains(reason), "{complaint}");
    }
}

#[test]
fn a_server_without_addresses_is_refused() {
    assert_eq!(complaints(&with_server("roles = [\"web\"]")), ["1:1: [servers.s] has no `addresses`"]);
    assert_eq!(complaints(&with_server("addresses = []")), ["2:1: server `s` has no address"]);
}

#[test]
fn a_policy_without_servers_is_refused() {
    assert_eq!(complaints(""), ["1:1: this policy has no server"]);
    assert_eq!(complaints("[policy]\n[servers]\n"), ["2:2: this policy has no server"]);
}

#[test]
fn a_bad_mac_is_refused() {
    let complain = |mac: &str| {
        complaints(&with_server(&format!("addresses = [\"192.0.2.1\"]\nmac = \"{mac}\""))).join("; ")
    };
    assert_eq!(complain("02:00:00:00:10"), "3:8: `02:00:00:00:10` is not a MAC");
    assert_eq!(complain("03:00:00:00:00:10"), "3:8: `03:00:00:00:00:10` can't be the source of a frame");
}

#[test]
fn a_set_holds_addresses_and_prefixes_only() {
    assert_eq!(
        complaints("[sets]\na = [\"@b\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n"),
        ["2:7: a set can't hold another set"]
    );
    assert_eq!(
        complaints("[sets]\na = [\"192.0.2.300\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n"),
        ["2:7: `192.0.2.300` is not an address"]
    );
}

#[test]
fn a_name_has_plain_characters_and_at_most_63() {
    assert_eq!(complaints(&with("[roles.\"a b\"]")), ["8:8: `a b` can't be the name of a role"]);
    assert_eq!(
        complaints(&with("[servers.\"\"]\naddresses=[\"192.0.2.1\"]")),
        ["8:10: a server needs a name"]
    );
    let long = "x".repeat(64);
    assert_eq!(
        complaints(&with(&format!("[roles.{long}]"))),
        ["8:8: the name of a role has at most 63 characters, not 64"]
    );
    assert!(super::parse(&with(&format!("[roles.\"a.b-c_{}\"]", "x".repeat(57))), "x").is_ok());
}

#[test]
fn an_alarm_file_needs_a_path() {
    assert_eq!(complaints(&with("[alarms]\neve = \"\"")), ["9:7: `eve` must be the path of a file"]);
}

#[test]
fn a_sink_that_can_not_be_is_refused_at_its_place() {
    let of = |line: &str| complaints(&with(&format!("[alarms]\n{line}")));
    for (line, complaint) in [
        ("syslog = \"loghost\"", "9:11: this is not a syslog server"),
        ("syslog = \"upd://loghost\"", "9:11: syslog can't use `upd`"),
        ("syslog = \"udp://\"", "9:17: expected the name or address of a host"),
        ("syslog = \"udp://a b\"", "9:17: expected the name or address of a host"),
        ("syslog = \"udp://loghost:99999\"", "9:25: a port must be a number from 1 to 65535"),
        ("syslog = \"tcp://2001:db8::1\"", "9:17: an IPv6 address must be in brackets"),
        ("syslog = \"tcp://[2001:db8::1\"", "9:17: this address has no closing `]`"),
        ("syslog = \"tcp://[loghost]\"", "9:18: `loghost` is not an IPv6 address"),
        (
            "syslog = \"unix:log\"",
            "9:16: the path of a local socket must start with `/` and have at most 107 bytes",
        ),
        ("alertmanager = \"192.0.2.9:9093\"", "9:17: this is not the URL of an Alertmanager"),
        ("alertmanager = \"http://me@host\"", "9:24: a user and a password do not belong in an address"),
        ("alertmanager = [\"http://a\", \"http://a/\"]", "9:30: `alertmanager` has http://a twice"),
        ("mail_server = \"mx\"", "9:16: this is not a mail server"),
        ("mail_server = \"smpt://mx\"", "9:16: mails can't use `smpt`"),
        ("mail_server = \"smtps://me:pw@mx\"", "9:24: a user and a password do not belong in an address"),
        ("mail_from = \"gate\"", "9:14: this is not the address of a mailbox"),
        ("mail_to = [\"noc@example.com\\r\\nBcc: x@y.z\"]", "9:12: this is not the address of a mailbox"),
        ("mail_to = \"NOC <noc@example.com>\"", "9:12: this is not the address of a mailbox"),
        ("mail_user = \"a\\nb\"", "9:13: expected the name of a user"),
        ("eve = \"eve.json\"", "9:8: `eve` must have a full path"),
        ("eve = \"/\"", "9:8: `eve` must be a file, and this is a folder"),
        ("eve = \"/var/log/\"", "9:8: `eve` must be a file, and this is a folder"),
        ("eve = \"/var/..\"", "9:8: `eve` must be a file, and this is a folder"),
        ("eve = \"/a\"\ncef = \"/./b/..//a\"", "10:8: `cef` is the same file as `eve`"),
        (
            "eve = \"/a\"\ncef = \"/a.1\"",
            "10:8: `cef` and `eve` differ by a number alone, which a rotation adds",
        ),
        ("alertmanager = \"http://host/a?b\"", "9:30: this path can't have a `?`"),
        ("command = []", "9:11: `command` must be a program and its arguments"),
        ("command = [\"page\"]", "9:13: the program must have its full path"),
        ("command = [\"/bin/page\", \"a\\u0000\"]", "9:25: an argument can't have a NUL character"),
        ("command_timeout = 0", "9:19: `command_timeout` must be from 1 to 3600"),
        ("journald = \"yes\"", "9:12: `journald` must be true or false, not text"),
        ("rotate_keep = 0", "9:15: `rotate_keep` must be from 1 to 999"),
        ("eve = \"/a\"\ncef = \"/a\"", "10:8: `cef` is the same file as `eve`"),
    ] {
        assert_eq!(of(line), [complaint], "{line}");
    }
}

#[test]
fn a_quarantine_by_itself_names_kinds_that_there_are_and_that_its_server_can_be_blamed_for() {
    let on = |kinds: &str| with(&format!("[alarms]\nquarantine_on = [{kinds}]"));
    assert_eq!(complaints(&on("\"spread\", \"sprad\"")), ["9:29: there is no kind of alarm `sprad`"]);
    assert_eq!(help(&on("\"sprad\"")), "did you mean `spread`?");
    assert_eq!(
        help(&on("\"everything\"")),
        "the kinds are attempt, fetch, question, callback, scan, backdoor, spread"
    );
    for kind in ["spoof", "stray", "burst", "gate", "rebinding", "forged_answer"] {
        let complaint = format!("9:19: `{kind}` can't lead to a quarantine");
        assert_eq!(complaints(&on(&format!("\"{kind}\""))), [complaint]);
    }
    assert!(help(&on("\"burst\"")).contains("anybody outside"));
    assert_eq!(
        complaints(&with("[alarms]\nquarantine_on = \"spread\"")),
        ["9:17: `quarantine_on` must be a list"]
    );
    assert_eq!(
        complaints(&with("[alarms]\nquarantine_for = \"1 week\"")),
        ["9:19: `quarantine_for`: `1 week` is no length of time: write 30s, 10m, 1h, 2d or 1h30m"]
    );
    assert_eq!(
        complaints(&with("[alarms]\nhistory_days = 0")),
        ["9:16: `history_days` must be from 1 to 3650"]
    );
}

#[test]
fn a_name_with_dots_needs_quotes() {
    let text = "[roles.web]\nin = [\"tcp/80\"]\n[servers.www.example.com]\naddresses = [\"192.0.2.1\"]\nroles = [\"web\"]\n";
    assert_eq!(complaints(text), ["3:10: `www.example.com` needs quotes, because it has dots"]);
    assert_eq!(help(text), "write [servers.\"www.example.com\"]");
    let text = with("[roles.web.front]\nin = [\"tcp/8080\"]");
    assert!(complaints(&text).iter().all(|complaint| !complaint.contains("panicked")));
}

#[test]
fn a_set_is_no_address_of_a_server() {
    let text = with_server("addresses = [\"@vms\"]");
    assert_eq!(complaints(&text), ["2:15: a set can't be the address of a server"]);
}

#[test]
fn a_list_in_one_text_is_taken_apart_in_the_help() {
    assert_eq!(help(&with_role("in = \"tcp/80, tcp/443\"")), "write [\"tcp/80\", \"tcp/443\"]");
    assert_eq!(
        help(&with("[alarms]\ncommand = \"/usr/local/bin/page --dmz\"")),
        "write [\"/usr/local/bin/page\", \"--dmz\"]"
    );
}

#[test]
fn the_path_of_an_api_is_left_out() {
    assert_eq!(
        help(&with("[alarms]\nalertmanager = \"http://198.51.100.9:9093/api/v2/alerts\"")),
        "write http://198.51.100.9:9093: portcullis adds the path"
    );
}

#[test]
fn a_severity_of_what_is_no_server_and_no_kind_is_refused_at_its_place() {
    let text = |line: &str| with(&format!("[alarms.severity]\n{line}"));
    for line in ["\"web1/attempt\" = \"low\"", "web1 = \"high\"", "scan = \"medium\""] {
        assert!(crate::policy::parse(&text(line), "p.toml").is_ok(), "{line}");
    }
    for (line, complaint, helpful) in [
        ("wbe1 = \"low\"", "9:1: `wbe1` is no server and no kind of alarm", "did you mean `web1`?"),
        ("\"web1/atempt\" = \"low\"", "9:1: there is no kind of alarm `atempt`", "did you mean `attempt`?"),
        ("\"mx9/scan\" = \"low\"", "9:1: there is no server `mx9`", "write a server, a kind, or both"),
        ("scan = \"hihg\"", "9:9: there is no severity `hihg`", "did you mean `high`?"),
        ("scan = 3", "9:8: `scan` must be text", ""),
    ] {
        let text = text(line);
        let found = complaints(&text);
        assert!(found.len() == 1 && found[0].starts_with(complaint), "{found:?}");
        assert!(helpful.is_empty() || help(&text).starts_with(helpful), "{}", help(&text));
    }
}
