//! Types the commands of docs/change.md in their order, and compares what they say with the page.

use std::fs;

use super::command::Outcome;
use super::testbed::{NIC, Testbed, share_machine};
use crate::support::dmz::ip;
use crate::support::frame::{ACK, ROUTER_MAC, SERVER_MAC, SYN, tcp_numbered};

const PAGE: &str = include_str!("../../../docs/change.md");

/// The content of the page's blocks of one language.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("```{language}\n");
    let parts = PAGE.split("```").collect::<Vec<_>>();
    let inside = parts.into_iter().skip(1).step_by(2);
    let start = language.len() + 1;
    inside.filter(move |block| format!("```{block}").starts_with(&fence)).map(move |block| &block[start..])
}

/// Words as a shell has them: a text in quotes is one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(number, part)| match number % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// What differs from run to run stands for itself: times, the process, the width of columns.
fn plain(text: &str) -> Vec<String> {
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', '.', ')']);
        let is_time = bare.len() == 20 && bare.ends_with('Z') && bare.as_bytes()[10] == b'T';
        if is_time { "TIME".to_owned() } else { word.to_owned() }
    };
    let line = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(word).collect();
        for at in 0..words.len() {
            if words[at].ends_with("(process") {
                // `(process 4021, under bash)`
                words[at + 1] = "N,".to_owned();
                words[at + 3] = "SHELL)".to_owned();
            }
        }
        words.join(" ")
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

/// Two visits, of a service that the new policy has and of one that it has no more.
fn capture() -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    let (web, peer) = (ip("192.0.2.10"), ip("198.51.100.9"));
    for (number, port) in [80_u16, 443].into_iter().enumerate() {
        let (server, peer) = ((web, port), (peer, 51_000 + number as u16));
        let mut asked = tcp_numbered(peer, server, SYN, (1000, 0));
        asked[..6].copy_from_slice(&SERVER_MAC);
        asked[6..12].copy_from_slice(&ROUTER_MAC);
        for (later, frame) in [asked, tcp_numbered(server, peer, SYN | ACK, (5000, 1001))].iter().enumerate()
        {
            let (seconds, length) = (1_764_424_800 + 2 * number as u32 + later as u32, frame.len() as u32);
            for word in [seconds, 0, length, length] {
                file.extend_from_slice(&word.to_le_bytes());
            }
            file.extend_from_slice(frame);
        }
    }
    file
}

#[test]
fn the_page_about_changes_can_be_typed_as_it_stands_and_says_what_one_reads() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let live = blocks("toml").next().expect("a policy");
    let change = blocks("diff").next().expect("a change");
    let [old, new] = ['-', '+'].map(|sign| change.lines().filter_map(move |line| line.strip_prefix(sign)));
    let text = old.zip(new).fold(live.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "the policy has no line `{old}`");
        text.replacen(old, new, 1)
    });
    let files = [
        ("/etc/portcullis/dmz0.toml", testbed.write("dmz0.toml", live)),
        ("/root/new.toml", testbed.write("new.toml", &text)),
        ("/root/day.pcap", testbed.folder.join("day.pcap").display().to_string()),
    ];
    fs::write(&files[2].1, capture()).expect("a capture");
    testbed.run("attach", &["-p", &files[0].1]).done();

    let (mut typed, mut wrong) = (Vec::new(), Vec::new());
    for block in blocks("") {
        let Some((line, said)) = block.split_once('\n') else { continue };
        let Some(line) = line.strip_prefix("$ sudo portcullis ") else { continue };
        let here =
            |text: &str| files.iter().fold(text.to_owned(), |text, (name, path)| text.replace(name, path));
        let there =
            |text: &str| files.iter().fold(text.to_owned(), |text, (name, path)| text.replace(path, name));
        let mut arguments: Vec<String> = words(line).iter().map(|word| here(word)).collect();
        let command = arguments.remove(0);
        let mut whole = testbed.router.prepare(&[&command]);
        whole.args(&arguments);
        let outcome = Outcome::of(&mut whole);
        let expected = if matches!(command.as_str(), "diff" | "replay") { 1 } else { 0 };
        assert_eq!(outcome.code, Some(expected), "{line}: {outcome:#?}");
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name").trim().to_owned();
        let output = there(&(outcome.out + &outcome.err))
            .replace(&format!(" {host} {NIC} "), &format!(" router {NIC} "));
        if plain(&output) != plain(said) {
            wrong.push(format!("$ portcullis {line}\n{output}instead of\n{said}"));
        }
        typed.push(command);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for command in
        ["check", "test", "replay", "diff", "apply", "confirm", "rollback", "allow", "deny", "pickup", "show"]
    {
        assert!(typed.iter().any(|one| one == command), "the page has no `{command}`");
    }
}
