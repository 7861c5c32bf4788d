//! Claims about every text that may be given as a policy or a need. The tests beside this file check them
//! with random texts. The coverage-guided fuzzers in `fuzz/` share this file and check the texts that they
//! find.

use super::net::show_mac;
use super::policy::{
    Diagnostics, Direction, MAX_DIAGNOSTICS, Need, Policy, PolicyTest, Role, Router, Server, Set, SetFile,
    Value, parse, parse_need, parse_with_files, summarize,
};
use std::fmt::Write;

/// More than the longest message or help has: their quotations are cut.
const LONGEST_MESSAGE: usize = 1000;

/// A policy is refused with mistakes that lie in the text, or printed and read again it means the same.
pub(crate) fn check_policy(text: &str) {
    check_set_files(text);
    let policy = match parse(text, "fuzz.toml") {
        Ok(policy) => policy,
        Err(diagnostics) => return check_diagnostics(text, &diagnostics),
    };
    assert!(!policy.servers.is_empty());
    let printed = print_policy(&policy);
    let again = parse(&printed, "fuzz.toml")
        .unwrap_or_else(|errors| panic!("printed, it is refused: {errors}\n{printed}"));
    assert_eq!(summarize(&again), summarize(&policy), "{printed}");
    assert_eq!(print_policy(&again), printed);
}

/// A policy with set files that is not refused has a text that means the same without them, line by line.
fn check_set_files(text: &str) {
    let read = |_: &str| Ok(SetFile { name: "f".to_owned(), text: "198.51.100.1\n".to_owned() });
    if let Ok(policy) = parse_with_files(text, "fuzz.toml", &read) {
        let again = parse(&policy.text, "fuzz.toml")
            .unwrap_or_else(|errors| panic!("without its files it is refused: {errors}\n{}", policy.text));
        assert_eq!(summarize(&again), summarize(&policy), "{text}");
        assert_eq!(policy.text.lines().count(), text.lines().count(), "{text}");
    }
}

/// The same for a need in each direction. It may name a set or a server.
pub(crate) fn check_need(text: &str) {
    let policy =
        parse("[sets]\none = [\"192.0.2.1\"]\nnone = []\n[servers.a]\naddresses = [\"192.0.2.2\"]\n", "fuzz");
    let policy = policy.unwrap_or_else(|errors| panic!("{errors}"));
    for direction in Direction::ALL {
        match parse_need(text, direction, &policy) {
            Ok(need) => check_printed(&need, &policy),
            Err(diagnostics) => check_diagnostics(text, &diagnostics),
        }
    }
}

fn check_printed(need: &Need, policy: &Policy) {
    let printed = need.to_string();
    let again = parse_need(&printed, need.direction, policy)
        .unwrap_or_else(|errors| panic!("printed, it is refused: {errors}"));
    assert_eq!(again.to_string(), printed);
    // Only the place may differ.
    assert_eq!(Need { place: need.place, ..again }, *need, "{printed}");
}

/// Every mistake lies in the text, none fills more than a screen, and their number is limited.
pub(crate) fn check_diagnostics(text: &str, diagnostics: &Diagnostics) {
    assert!((1..=MAX_DIAGNOSTICS + 1).contains(&diagnostics.len()), "{}", diagnostics.len());
    let lines: Vec<&str> = text.split('\n').collect();
    let mut last = (0, 0);
    for diagnostic in diagnostics {
        let (line, column) = (diagnostic.line as usize, diagnostic.column as usize);
        assert!((1..=lines.len()).contains(&line), "line {line} of {}: {diagnostic}", lines.len());
        // The place after the last character of a line counts: something may be missing there.
        let width = lines[line - 1].chars().count();
        assert!((1..=width + 1).contains(&column), "column {column} of {width}: {diagnostic}");
        assert!(last <= (line, column), "out of order: {diagnostic}");
        last = (line, column);
        let help = diagnostic.help.as_deref().unwrap_or_default();
        for said in [&diagnostic.message, &diagnostic.source, &diagnostic.marker, help] {
            assert!(said.chars().count() <= LONGEST_MESSAGE, "{} bytes", said.len());
            assert!(!said.chars().any(|letter| letter.is_control() && letter != '\t'), "{said:?}");
        }
    }
}

/// Prints a policy as a file that means the same. Every key has its value, so nothing is left to a default.
pub(crate) fn print_policy(policy: &Policy) -> String {
    let Policy {
        file: _,
        text: _,
        settings,
        names,
        sets,
        routers,
        roles,
        servers,
        tests,
        alarms,
        response,
        ratings,
        tables,
    } = policy;
    let mut text = format!(
        "[policy]\n{}[names]\n{}[sets]\n",
        print_keys(settings.entries()),
        print_keys(names.entries())
    );
    for Set { name, members, names, .. } in sets.values() {
        let members = members.iter().map(|(prefix, _)| prefix.to_string());
        let members = print_list(members.chain(names.iter().map(|(name, _)| name.to_string())));
        text += &format!("{} = {members}\n", print_text(name));
    }
    for Role { name, place: _, inbound, outbound, quiet, dns } in roles {
        text += &format!("[roles.{}]\n", print_text(name));
        for (key, needs) in [("in", inbound), ("out", outbound), ("quiet", quiet)] {
            text += &format!("{key} = {}\n", print_list(needs));
        }
        text.extend(dns.map(|(questions, _)| format!("dns = \"{questions}\"\n")));
    }
    for Router { name, place: _, addresses, macs } in routers {
        text += &format!("[routers.{}]\n", print_text(name));
        text += &format!("addresses = {}\n", print_list(addresses.iter().map(|(address, _)| address)));
        text += &format!("mac = {}\n", print_list(macs.iter().map(|(mac, _)| show_mac(mac))));
    }
    text.extend(servers.iter().map(print_server));
    text.extend(tests.iter().map(print_test));
    text += &format!("[alarms]\n{}{}", print_keys(alarms.entries()), print_keys(response.entries()));
    text += "[alarms.severity]\n";
    for (rated, severity) in &ratings.0 {
        text += &format!("{} = \"{severity}\"\n", print_text(&rated.to_string()));
    }
    text + &format!("[tables]\n{}", print_keys(tables.entries()))
}

fn print_server(server: &Server) -> String {
    let Server { name, place: _, addresses, macs, vlan, roles, roles_place: _, mode, forwards } = server;
    let mut text = format!("[servers.{}]\n", print_text(name));
    text += &format!("addresses = {}\n", print_list(addresses.iter().map(|(prefix, _)| prefix)));
    text += &format!("roles = {}\n", print_list(roles.iter().map(|(role, _)| role)));
    if !macs.is_empty() {
        text += &format!("mac = {}\n", print_list(macs.iter().map(|(mac, _)| show_mac(mac))));
    }
    text.extend(vlan.map(|(vlan, _)| format!("vlan = {vlan}\n")));
    text.extend(mode.map(|(mode, _)| format!("mode = \"{mode}\"\n")));
    text += &format!("forwards = {forwards}\n");
    text
}

fn print_test(test: &PolicyTest) -> String {
    let PolicyTest { place: _, from, to, accept, deny, reason, only } = test;
    let mut text = String::from("[[tests]]\n");
    for (key, peers) in [("from", from), ("to", to)] {
        if !peers.is_empty() {
            text += &format!("{key} = {}\n", print_list(peers));
        }
    }
    text += &format!("accept = {}\ndeny = {}\nonly = {only}\n", print_list(accept), print_list(deny));
    text.extend(reason.map(|reason| format!("reason = \"{reason}\"\n")));
    text
}

fn print_keys(entries: Vec<(&'static str, Value)>) -> String {
    let print = |(key, value)| {
        let value = match value {
            Value::Unset => return String::new(),
            // A file without a program leaves the key out.
            Value::Command(words) if words.is_empty() => return String::new(),
            Value::Text(text) => print_text(&text),
            Value::Number(number) => number.to_string(),
            Value::Truth(truth) => truth.to_string(),
            Value::EtherTypes(list) => format!("[{list}]"),
            Value::Numbers(list) => format!("{list:?}"),
            Value::List(list) | Value::Needs(list) | Value::Command(list) => print_list(list),
        };
        format!("{key} = {value}\n")
    };
    entries.into_iter().map(print).collect()
}

fn print_list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = values.into_iter().map(|value| print_text(&value.to_string())).collect();
    format!("[{}]", texts.join(", "))
}

/// A TOML string with its quotes; everything special in it is escaped by its number.
fn print_text(text: &str) -> String {
    let mut printed = String::from("\"");
    for letter in text.chars() {
        if letter.is_control() || matches!(letter, '"' | '\\') {
            write!(printed, "\\U{:08X}", u32::from(letter)).expect("a string takes everything");
        } else {
            printed.push(letter);
        }
    }
    printed + "\""
}
