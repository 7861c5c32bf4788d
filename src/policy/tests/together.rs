//! Many mistakes at once, broken TOML, and how diagnostics look.

use super::{BASE, complaints, parse};

#[test]
fn every_mistake_of_a_file_is_reported_in_its_order() {
    let text = "\
[policy]
mode = \"enforec\"
pickup = 99999999

[sets]
hosts = [\"192.0.2.1/24\", \"198.51.100.1\"]

[roles.web]
in = [\"tcp/99999 from @hots, 10.0.0.300 limit 0/s\", \"tpc/1\"]
out = [\"udp/53 from @hosts\"]

[servers.web1]
adresses = [\"192.0.2.1\"]
roles = [\"wbe\"]
vlan = 5000
";
    assert_eq!(
        complaints(text),
        [
            "2:9: `mode` can't be `enforec`",
            "3:10: `pickup` must be from 0 to 86400",
            "6:11: `192.0.2.1/24` has host bits set",
            "9:12: port 99999 is over 65535",
            "9:23: no set is called `hots`",
            "9:30: `10.0.0.300` is not an address",
            "9:41: `limit` caps what a server opens, so it belongs to `out`, not to `in`",
            "9:54: no protocol is called `tpc`",
            "10:16: a need of `out` has `to`, not `from`",
            "12:1: [servers.web1] has no `addresses`",
            "13:1: unknown key `adresses` in [servers.web1]",
            "14:11: no role is called `wbe`",
            "15:8: `vlan` must be from 1 to 4094",
        ]
    );
}

#[test]
fn syntax_errors_do_not_hide_other_mistakes() {
    let text = "[policy]\nmode = enforce\n[roles.web]\nin = [\"tcp/80\" \"tcp/70000\"]\n[servers.a]\naddresses = [\"192.0.2.1\"]\nroles = [\"wbe\"]\n";
    assert_eq!(
        complaints(text),
        [
            "2:8: text must be in quotes",
            "4:16: missing comma between array elements, expected `,`",
            "4:21: port 70000 is over 65535",
            "7:11: no role is called `wbe`",
        ]
    );
}

#[test]
fn an_array_without_its_end_costs_one_message() {
    let text = "[roles.web]\nin = [\"tcp/80\"\nout = [\"tcp/70000\"]\n[servers.a]\naddresses = [\"192.0.2.1\",\nroles = [\"web\"]\n[servers.b]\naddresses = [\"192.0.2.2\"]\nvlan = 0\n";
    assert_eq!(
        complaints(text),
        [
            "2:6: this array has no closing `]`",
            "3:13: port 70000 is over 65535",
            "5:13: this array has no closing `]`",
            "9:8: `vlan` must be from 1 to 4094",
        ]
    );
}

#[test]
fn an_array_that_is_open_at_the_end_of_the_file_costs_one_message() {
    let text = "[servers.a]\naddresses = [\"192.0.2.1\"]\nroles = [\n";
    assert_eq!(complaints(text).len(), 1, "{:?}", complaints(text));
}

#[test]
fn a_header_without_its_end_costs_one_message() {
    let text = "[roles.web\nin = [\"tcp/80\"]\n[servers.a]\naddresses = [\"192.0.2.1\"]\nroles = [\"web\"]\n";
    assert_eq!(complaints(text), ["1:11: this header has no closing `]`"]);
}

#[test]
fn a_string_without_its_end_costs_one_message() {
    let text = "[servers.a]\naddresses = [\"192.0.2.1\"]\nmode = \"observe\nvlan = 0\n";
    assert_eq!(
        complaints(text),
        ["3:16: invalid basic string, expected `\"`", "4:8: `vlan` must be from 1 to 4094"]
    );
}

#[test]
fn a_key_without_its_value_costs_one_message() {
    let text = "[servers.a]\naddresses [\"192.0.2.1\"]\nvlan =\nmac\nroles = [\"x\"]\n";
    assert_eq!(
        complaints(text),
        [
            "2:1: `addresses` has no value: expected `=` after it",
            "3:7: a value is missing here",
            "4:1: `mac` has no value: expected `=` after it",
            "5:11: no role is called `x`",
        ]
    );
}

#[test]
fn a_server_that_stands_twice_is_refused_once() {
    let text = format!("{BASE}[servers.web1]\naddresses = [\"192.0.2.11\"]\nroles = [\"web\"]\n");
    assert_eq!(complaints(&text), ["8:10: `web1` is defined twice"]);
    let errors = parse(&text, "x").unwrap_err();
    assert_eq!(errors.iter().next().unwrap().help.as_deref(), Some("the first definition is in line 5"));
}

#[test]
fn a_role_that_stands_twice_is_refused_once() {
    let text = format!("{BASE}[roles.web]\nin = [\"tcp/443\"]\n");
    assert_eq!(complaints(&text), ["8:8: `web` is defined twice"]);
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let text = format!("{BASE}roles = []\n");
    assert_eq!(complaints(&text), ["8:1: `roles` is defined twice"]);
}

#[test]
fn a_role_whose_needs_are_bad_is_still_known() {
    let text =
        "[roles.web]\nin = [\"tcp/70000\"]\n[servers.a]\naddresses = [\"192.0.2.1\"]\nroles = [\"web\"]\n";
    assert_eq!(complaints(text), ["2:12: port 70000 is over 65535"]);
}

#[test]
fn a_set_whose_members_are_bad_is_not_empty_as_well() {
    let text = "[sets]\na = [\"x\"]\n[roles.r]\nin = [\"tcp/22 from @a\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n";
    assert_eq!(complaints(text), ["2:7: `x` is not an address"]);
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let text = "[servers.s]\naddresses = [\"é\", \"192.0.2.300\"]\n";
    assert_eq!(complaints(text), ["2:15: `é` is not an address", "2:20: `192.0.2.300` is not an address"]);
}

#[test]
fn columns_are_right_far_into_a_long_line_that_is_not_ascii() {
    let padding = "é".repeat(5000);
    let text = format!("[servers.s]\naddresses = [\"{padding}\", \"192.0.2.300\"]\n");
    assert_eq!(complaints(&text)[1], "2:5019: `192.0.2.300` is not an address");
}

#[test]
fn a_string_with_escapes_is_pointed_at_as_a_whole() {
    let text = "[roles.r]\nin = [\"tcp\\u002F70000\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n";
    assert_eq!(complaints(text), ["2:7: port 70000 is over 65535"]);
    let text = "[roles.r]\nin = ['tcp/70000', '''tcp/70000''']\n[servers.s]\naddresses = [\"192.0.2.1\"]\n";
    assert_eq!(complaints(text), ["2:12: port 70000 is over 65535", "2:20: port 70000 is over 65535"]);
}

#[test]
fn a_diagnostic_shows_file_line_caret_and_help() {
    let text = "[roles.web]\nin = [\"tcp/80\", \"tcp/htpps\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n";
    assert_eq!(
        parse(text, "dmz.toml").unwrap_err().to_string(),
        "dmz.toml:2:22: no tcp service is called `htpps`
    in = [\"tcp/80\", \"tcp/htpps\"]
                         ^^^^^
    help: did you mean `https`?"
    );
}

#[test]
fn tabs_keep_the_caret_below_its_text() {
    let text = "[servers.s]\n\taddresses\t= [\":\"]\r\n";
    assert_eq!(
        parse(text, "dmz.toml").unwrap_err().to_string(),
        "dmz.toml:2:16: `:` is not an address\n    \taddresses\t= [\":\"]\n    \t         \t    ^"
    );
}

#[test]
fn a_very_long_line_is_shown_around_the_mistake_only() {
    let many = "\"192.0.2.1\", ".repeat(1000);
    let text =
        format!("[sets]\na = [{many}\"nonsense\", {many}]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n");
    let errors = parse(&text, "dmz.toml").unwrap_err();
    let error = errors.iter().next().unwrap();
    assert_eq!((error.line, error.column), (2, 13_007));
    assert!(error.source.len() < 140 && error.source.starts_with("... ") && error.source.ends_with(" ..."));
    let at = error.marker.find('^').unwrap();
    let marked = at..at + error.marker.matches('^').count();
    assert_eq!(error.source.get(marked), Some("nonsense"));
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let text = "[servers.s]\naddresses = [\"\u{1b}[2J\"]\n";
    let shown = parse(text, "dm\u{7}z.toml").unwrap_err().to_string();
    assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    let text = "[servers.s]\naddresses = [\"\\u001b[2J\"]\n\"\\u001b\" = 1\n";
    let shown = parse(text, "dmz.toml").unwrap_err().to_string();
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn diagnostics_are_a_json_array() {
    let errors = parse("[servers.s]\naddresses = [\"::g\"]\n", "dmz.toml").unwrap_err();
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{"file": "dmz.toml", "line": 2, "column": 15, "message": "`::g` is not an address",
            "source": "addresses = [\"::g\"]", "help": null}])
    );
}

#[test]
fn no_beginning_of_a_policy_makes_the_parser_panic() {
    let text = super::STARTER;
    let beginnings = (0..text.len()).filter_map(|end| text.get(..end));
    for beginning in beginnings.step_by(7) {
        let _ = parse(beginning, "cut.toml");
    }
}

#[test]
fn no_spoilt_byte_makes_the_parser_panic() {
    let text = super::STARTER.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let halves = (0..text.len()).filter_map(|at| text.get(..at).zip(text.get(at + 1..)));
    for (before, after) in halves.step_by(17) {
        for with in ["", "[", "]", "\"", "=", "\u{0}", "é", "\n", ",", ".", "{"] {
            let spoilt = format!("{before}{with}{after}");
            if let Err(errors) = parse(&spoilt, "spoilt.toml") {
                let _ = errors.to_string();
            }
        }
    }
}

#[test]
fn a_slip_in_the_name_of_a_table_costs_one_message() {
    let text = BASE.replace("[roles.web]", "[rolse.web]");
    assert_eq!(complaints(&text), ["3:2: unknown table `rolse`"]);
    let text = BASE.replace("[sets]", "[set]");
    assert_eq!(complaints(&text), ["1:2: unknown table `set`"]);
    let text = BASE.replace("[servers.web1]", "[server.web1]").replace(".10\"", ".300\"");
    assert_eq!(complaints(&text), ["5:2: unknown table `server`", "6:15: `192.0.2.300` is not an address"]);
}

#[test]
fn a_slip_before_a_header_costs_one_message() {
    let text = BASE.replace("[roles.web]", "x[roles.web]");
    assert_eq!(complaints(&text), ["3:1: `x` has no value: expected `=` after it"]);
    let text = BASE.replace("[roles.web]", "roles.web]");
    assert_eq!(complaints(&text), ["3:1: this header has no opening `[`"]);
}

#[test]
fn what_is_left_of_a_list_costs_no_messages() {
    let text = "[roles.r]\nin x [\n    \"tcp/80\",\n\n    # comment\n    \"tcp/81\",\n]\n[servers.s]\naddresses = [\"192.0.2.1\"]\nvlan = x\n";
    assert_eq!(
        complaints(text),
        ["2:1: `in` has no value: expected `=` after it", "10:8: text must be in quotes"]
    );
}

#[test]
fn each_missing_comma_is_reported() {
    let text = "[servers.s]\naddresses = [\"192.0.2.1\" \"192.0.2.2\" \"192.0.2.3\"]\n";
    assert_eq!(complaints(text).len(), 2);
}
