//! What holds for every text that may be given as a policy or a need. The tests beside this file
//! claim it of texts by chance, the coverage-guided fuzzers in `fuzz/` of those they find.

use super::net::show_mac;
use super::policy::{
    Alarms, Diagnostics, Direction, MAX_DIAGNOSTICS, Need, Policy, Set, parse, parse_need, summarize,
};
use std::collections::BTreeMap;
use std::fmt::Write;

/// More than the words of a message: its quotations are cut.
const LONGEST_MESSAGE: usize = 1000;

/// A text is either refused, with mistakes that lie in it, or it means what it means when printed.
pub fn check_policy(text: &str) {
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

/// A need in each direction, with a set that it may name: refused, or printed and read again the
/// same.
pub fn check_need(text: &str) {
    let policy =
        parse("[sets]\none = [\"192.0.2.1\"]\nnone = []\n[servers.a]\naddresses = [\"192.0.2.2\"]\n", "fuzz");
    let sets = policy.map(|policy| policy.sets).unwrap_or_else(|errors| panic!("{errors}"));
    for direction in [Direction::In, Direction::Out, Direction::Quiet] {
        match parse_need(text, direction, &sets) {
            Ok(need) => check_printed(&need, &sets),
            Err(diagnostics) => check_diagnostics(text, &diagnostics),
        }
    }
}

fn check_printed(need: &Need, sets: &BTreeMap<String, Set>) {
    let printed = need.to_string();
    let again = parse_need(&printed, need.direction, sets)
        .unwrap_or_else(|errors| panic!("printed, it is refused: {errors}"));
    assert_eq!(again.to_string(), printed);
    // Only the place may differ.
    assert_eq!(Need { place: need.place, ..again }, *need, "{printed}");
}

/// Every mistake lies in the text, none is larger than a screen, and there is an end to them.
pub fn check_diagnostics(text: &str, diagnostics: &Diagnostics) {
    assert!((1..=MAX_DIAGNOSTICS + 1).contains(&diagnostics.len()), "{}", diagnostics.len());
    let lines: Vec<&str> = text.split('\n').collect();
    let mut last = (0, 0);
    for diagnostic in diagnostics {
        let (line, column) = (diagnostic.line as usize, diagnostic.column as usize);
        assert!((1..=lines.len()).contains(&line), "line {line} of {}: {diagnostic}", lines.len());
        // The place after the last character is one, for what is missing there.
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

/// A policy as a file that means the same: every value written out, nothing left to a default.
pub fn print_policy(policy: &Policy) -> String {
    let mut text = String::new();
    let settings = &policy.settings;
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    line(format!("[policy]\nmode = \"{}\"", settings.mode.value));
    line(format!("tracking = \"{}\"", settings.tracking.value));
    line(format!("unknown_sources = \"{}\"", settings.unknown_sources.value));
    line(format!("pickup = {}\ndhcp = {}", settings.pickup_s.value, settings.dhcp.value));
    line(format!("management = {}", print_list(&settings.management)));
    line("[sets]".into());
    for set in policy.sets.values() {
        line(format!("{} = {}", print_text(&set.name), print_list(set.prefixes())));
    }
    for role in &policy.roles {
        line(format!("[roles.{}]", print_text(&role.name)));
        line(format!("in = {}\nout = {}", print_list(&role.inbound), print_list(&role.outbound)));
        line(format!("quiet = {}", print_list(&role.quiet)));
    }
    for server in &policy.servers {
        line(format!("[servers.{}]", print_text(&server.name)));
        line(format!("addresses = {}", print_list(server.addresses.iter().map(|(prefix, _)| prefix))));
        line(format!("roles = {}", print_list(server.roles.iter().map(|(role, _)| role))));
        if let Some((mac, _)) = &server.mac {
            line(format!("mac = \"{}\"", show_mac(mac)));
        }
        if let Some((vlan, _)) = server.vlan {
            line(format!("vlan = {vlan}"));
        }
        if let Some((mode, _)) = server.mode {
            line(format!("mode = \"{mode}\""));
        }
    }
    line(print_alarms(&policy.alarms));
    line("[tables]".into());
    for (key, size) in policy.tables.entries() {
        line(format!("{key} = {}", size.value));
    }
    text
}

fn print_alarms(alarms: &Alarms) -> String {
    let syslog = alarms.syslog.as_ref().map(ToString::to_string);
    let texts = [
        ("eve", &alarms.eve),
        ("ecs", &alarms.ecs),
        ("cef", &alarms.cef),
        ("pcapng", &alarms.pcapng),
        ("syslog", &syslog),
        ("alertmanager", &alarms.alertmanager),
        ("tls_ca", &alarms.tls_ca),
    ];
    let mut text = format!(
        "[alarms]\nrotate_mib = {}\nrotate_keep = {}\njournald = {}\ncommand_timeout = {}\n\
         quarantine_on = {}\nquarantine_for = \"{}\"\nhistory_days = {}\n",
        alarms.rotate_mib,
        alarms.rotate_keep,
        alarms.journald,
        alarms.command_timeout_s,
        print_list(alarms.response.quarantine_on.iter().map(|kind| kind.name())),
        alarms.response.quarantine_s.map_or("released".to_owned(), |seconds| format!("{seconds}s")),
        alarms.response.history_days,
    );
    for (key, value) in texts {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {}\n", print_text(value)));
        }
    }
    if !alarms.command.is_empty() {
        text.push_str(&format!("command = {}\n", print_list(&alarms.command)));
    }
    text
}

fn print_list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = values.into_iter().map(|value| print_text(&value.to_string())).collect();
    format!("[{}]", texts.join(", "))
}

/// A TOML string with nothing in it that needs thought.
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
