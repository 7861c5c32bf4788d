//! Holds the pages to the program: the parser accepts their commands, and their files and metrics exist.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use clap::error::ErrorKind;

use super::Cli;

/// The code on the pages of the project, each line of a block and each span by itself, with its page.
fn codes() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut codes = Vec::new();
    for file in [root.to_owned(), root.join("docs")].iter().flat_map(|folder| fs::read_dir(folder).unwrap()) {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let (text, page) = (fs::read_to_string(&path).unwrap(), path.display().to_string());
        for (number, part) in text.split("```").enumerate() {
            match number % 2 {
                0 => codes.extend(part.split('`').skip(1).step_by(2).map(|code| (page.clone(), code.into()))),
                _ => {
                    // behind a prompt stands a command, and below it what that has said
                    let has_prompts = part.lines().any(|line| line.starts_with("$ "));
                    let is_said = |line: &&str| has_prompts && line.starts_with("portcullis ");
                    let lines = part.lines().filter(|line| !is_said(line));
                    codes.extend(lines.map(|line| (page.clone(), line.into())));
                }
            }
        }
    }
    codes
}

/// As a shell does: a text in quotes is one word.
pub(super) fn split_words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(number, part)| match number % 2 {
        0 => part.split_whitespace().collect::<Vec<_>>(),
        _ => vec![part],
    });
    words.map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_pages_is_accepted() {
    let mut commands = 0;
    for (page, code) in codes() {
        let code =
            code.trim_start_matches("$ ").trim_start_matches("sudo ").replace("ADDR:PORT", "[::1]:9464");
        if !code.starts_with("portcullis ") {
            continue;
        }
        let words = split_words(&code)
            .into_iter()
            .take_while(|word| !["#", "&&", ">", "|", "…", "..."].contains(&word.as_str()));
        match Cli::try_parse_from(words).map_err(|error| error.kind()) {
            // A sentence may name a command without all of its arguments.
            Ok(_) | Err(ErrorKind::MissingRequiredArgument | ErrorKind::DisplayVersion) => commands += 1,
            Err(kind) => panic!("{page}: {kind:?}: {code}"),
        }
    }
    assert!(commands > 50, "{commands}");
}

#[test]
fn every_file_metric_and_program_of_the_pages_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = ["src/daemon/metrics/exposition.rs", "bpf/portcullis.bpf.c", "packaging/portcullis-guard"];
    let known = named.map(|file| fs::read_to_string(root.join(file)).unwrap()).concat();
    for (page, code) in codes() {
        for name in code.split(|end: char| end.is_whitespace() || "{,:;()".contains(end)) {
            let folder = name.split_once('/').map_or("", |(folder, _)| folder);
            let ours = ["src", "bpf", "tests", "scripts", "packaging", "benches", "fuzz"].contains(&folder);
            assert!(
                !ours || name.contains('*') || name.contains("NAME") || root.join(name).exists(),
                "{page}: {name}"
            );
            let metric = name.starts_with("portcullis_") && !name.contains("KIND");
            assert!(!metric || known.contains(name), "{page}: {name}");
        }
    }
}
