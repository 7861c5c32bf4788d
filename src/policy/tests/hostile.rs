//! Texts that nobody writes by hand: random, hostile, and very large ones.

use std::fmt::Write;

use super::claims::{check_diagnostics, check_need, check_policy, print_policy};
use super::*;
use crate::chance::Chance;

/// Pieces of policies, so that random texts get past the first line.
const PIECES: &[&str] = &[
    "[policy]\n",
    "[sets]\n",
    "[roles.web]\n",
    "[servers.a]\n",
    "[routers.r]\n",
    "[servers.\"b\"]\n",
    "[alarms]\n",
    "[tables]\n",
    "[[tests]]\n",
    "from = \"a\"\n",
    "to = \"a\"\n",
    "accept = [\"tcp/80\"]\n",
    "deny = ",
    "only = ",
    "reason = \"new_flow\"\n",
    "one = ",
    "in = ",
    "out = ",
    "quiet = ",
    "addresses = ",
    "roles = ",
    "mac = ",
    "vlan = ",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "\n",
    "\r\n",
    "\t",
    " ",
    "#",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "\\u001b",
    "\"web\"",
    "\"@one\"",
    "{ file = \"f\" }",
    "{ file = \"f\"\n}",
    "one = { file = \"f\" }\n",
    "[0x8899]",
    "\"tcp/1 to a sport 20-30\"",
    "\"enforce\"",
    "\"observe\"",
    "\"service\"",
    "true",
    "false",
    "1",
    "0x10",
    "-1",
    "99999999999",
    "1.5",
    "1979-05-27",
    "\"192.0.2.1\"",
    "\"192.0.2.0/24\"",
    "\"2001:db8::/32\"",
    "\"::ffff:192.0.2.1\"",
    "\"tcp/80\"",
    "\"udp/ntp to @one limit 5/s\"",
    "\"icmp/echo-request from 192.0.2.1, @one\"",
    "\"02:00:00:00:00:01\"",
    "é",
    "\u{2028}",
    "\u{feff}",
    "\u{7f}",
    "\0",
    "a",
    "servers",
    "roles",
    "sets",
    "in",
    "x.y",
    "a b",
];

/// Pieces of needs.
const WORDS: &[&str] = &[
    "tcp",
    "udp",
    "icmp",
    "icmpv6",
    "igmp",
    "sctp",
    "47",
    "256",
    "/",
    "-",
    "80",
    "65536",
    "domain",
    "http",
    "echo-request",
    " ",
    ",",
    "to",
    "from",
    " to ",
    " from ",
    "limit",
    " limit ",
    "20/s",
    "100/m",
    "0/s",
    "@one",
    "@none",
    "@",
    "192.0.2.1",
    "192.0.2.0/24",
    "192.0.2.1/24",
    "2001:db8::1",
    "::/0",
    "é",
    "\u{a0}",
    "\t",
    "\u{1b}",
];

/// Every key of the language, as the beginning of a line.
fn key_pieces() -> Vec<String> {
    let keys = [Settings::KEYS, Alarms::KEYS, Response::KEYS, TableSizes::KEYS].concat();
    keys.into_iter().map(|key| format!("{key} = ")).collect()
}

fn compose(chance: &mut Chance, pieces: &[&str], most: usize) -> String {
    (0..chance.below(most + 1)).map(|_| chance.pick(pieces)).collect()
}

/// A text with some of its bytes replaced, removed or repeated.
fn spoil(chance: &mut Chance, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=chance.below(6) {
        let at = chance.below(bytes.len());
        let end = (at + 1 + chance.below(12)).min(bytes.len());
        let piece = bytes[at..end].to_vec();
        match chance.below(4) {
            0 => bytes[at] = chance.byte(),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, piece)),
            _ => drop(bytes.splice(at..end, chance.pick(PIECES).bytes())),
        }
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn any_text_is_refused_within_itself_or_means_what_it_prints() {
    let keys = key_pieces();
    let pieces: Vec<&str> = PIECES.iter().copied().chain(keys.iter().map(String::as_str)).collect();
    for seed in 0..4_000 {
        let mut chance = Chance::part(0x70_6f6c, seed);
        let text = match chance.below(4) {
            0 => {
                let count = chance.below(200);
                String::from_utf8_lossy(&chance.bytes(count)).into_owned()
            }
            1 => compose(&mut chance, &pieces, 60),
            2 => spoil(&mut chance, STARTER),
            _ => spoil(&mut chance, BASE),
        };
        let claimed = std::panic::catch_unwind(|| check_policy(&text));
        assert!(claimed.is_ok(), "seed {seed}: {text:?}");
    }
}

#[test]
fn any_need_is_refused_within_itself_or_means_what_it_prints() {
    for seed in 0..20_000 {
        let mut chance = Chance::part(0x6e_6565, seed);
        let text = compose(&mut chance, WORDS, 12);
        let claimed = std::panic::catch_unwind(|| check_need(&text));
        assert!(claimed.is_ok(), "seed {seed}: {text:?}");
    }
}

#[test]
fn the_starter_printed_from_its_model_means_the_same() {
    let policy = read(STARTER);
    let again = parse(&print_policy(&policy), "dmz.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(summarize(&again), summarize(&policy));
    assert_eq!(again.tables.entries().len(), policy.tables.entries().len());
}

/// Expects a short refusal. The time is not asserted, but work that grows with the square of five megabytes
/// takes hours, so that such a test would never end.
fn refuse_briefly(text: &str) -> Diagnostics {
    let diagnostics = parse(text, "dmz.toml").expect_err("this policy should be refused");
    check_diagnostics(text, &diagnostics);
    // A few screens at most, however large the file is.
    assert!(diagnostics.to_string().len() < 1 << 20, "{} bytes", diagnostics.to_string().len());
    diagnostics
}

#[test]
fn help_steers_no_cursor() {
    let text = format!("{BASE}[roles.r]\nin = \"\\u001b[2J\"\n");
    assert_eq!(help(&text), "write [\"\u{fffd}[2J\"]");
}

#[test]
fn a_long_name_is_quoted_by_its_beginning_and_its_end() {
    let errors = parse(&format!("{BASE}first{}last = 1\n", "x".repeat(9999)), "dmz.toml").unwrap_err();
    let message = &errors.iter().next().unwrap().message;
    assert!(
        message.starts_with("unknown key `first") && message.contains("last` in [servers.web1]"),
        "{message}"
    );
    assert!(message.chars().count() < 500, "{message}");
}

#[test]
fn a_deep_nest_of_anything_is_refused() {
    let deep = 10_000;
    refuse_briefly(&format!("{BASE}x = {}{}\n", "[".repeat(deep), "]".repeat(deep)));
    refuse_briefly(&format!("{BASE}x = {}\n", "[".repeat(deep)));
    refuse_briefly(&format!("{BASE}x = {}1{}\n", "{a = ".repeat(deep), "}".repeat(deep)));
    refuse_briefly(&format!("{BASE}{}x = 1\n", "a.".repeat(deep)));
    refuse_briefly(&format!("{BASE}[{}x]\ny = 1\n", "a.".repeat(deep)));
    refuse_briefly(&"[".repeat(deep));
}

#[test]
fn a_line_of_five_megabytes_is_refused_in_few_words() {
    let long = 5 << 20;
    refuse_briefly(&"x".repeat(long));
    refuse_briefly(&format!("{BASE}mac = \"{}\"\n", "x".repeat(long)));
    refuse_briefly(&format!("{BASE}{} = 1\n", "x".repeat(long)));
    refuse_briefly(&format!("{BASE}[roles.r]\nin = [\"tcp/{}\"]\n", "9".repeat(long)));
    refuse_briefly(&format!("{BASE}[roles.r]\nin = [\"tcp to {}\"]\n", "@one, ".repeat(long / 6)));
    refuse_briefly(&format!("{BASE}mac = {}\n", "x".repeat(long)));
    refuse_briefly(&format!("{BASE}[servers.b]\naddresses = [{}]\n", "\"x\",".repeat(long / 4)));
    refuse_briefly(&"= ".repeat(long / 2));
}

#[test]
fn a_hundred_thousand_mistakes_are_counted_and_some_are_shown() {
    let mut files = vec![String::from(BASE); 5];
    for number in 0..100_000 {
        writeln!(files[0], "unknown{number} = 1").unwrap();
        writeln!(files[1], "twice = 1").unwrap();
        writeln!(files[2], "a = = b").unwrap();
        writeln!(files[3], "[servers.web1]").unwrap();
        writeln!(files[4], "[servers.s{number}]\nroles = [\"nobody\"]\nx y").unwrap();
    }
    for file in &files {
        let diagnostics = refuse_briefly(file);
        // Some of the first mistakes follow from others, and are left out.
        assert!(diagnostics.len() > 1 && diagnostics.len() <= MAX_DIAGNOSTICS + 1);
        let last = diagnostics.iter().last().unwrap();
        assert!(last.message.contains("more mistakes"), "{last}");
    }
}
