//! `portcullis check`: checks policy files and says what each server may do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::shared::{count_mistakes, show_mistakes};
use crate::exit::Exit;
use crate::output::Output;
use crate::policy::{Detail, Diagnostic, Policy, Summary, describe, describe_alarms, find_doubts, summarize};
use crate::policy_file::read_and_compile;
use crate::stderr;

/// One file without a mistake, in JSON.
#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    summary: Summary,
    /// Parts that nobody can have meant.
    warnings: Vec<Diagnostic>,
    /// Parts of `[alarms]` that can't work on this machine.
    unusable: Vec<String>,
}

/// Checks policy files, each by itself. Needs no privilege and no gate.
///
/// # Errors
/// When a file can't be read. A bad policy among several keeps none of the others from being checked.
pub fn run(paths: &[PathBuf], servers: bool, quiet: bool, output: &Output) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    for (index, path) in paths.iter().enumerate() {
        let compiled = match read_and_compile(path) {
            Ok(Ok(compiled)) => compiled,
            Ok(Err(mistakes)) => {
                show_mistakes(&mistakes, output)?;
                let what = count_mistakes(&mistakes);
                stderr::notice(format_args!("portcullis: {}: {what}. Nothing was changed.", path.display()));
                exit = Exit::Failed;
                continue;
            }
            Err(error) if paths.len() > 1 => {
                stderr::notice(format_args!("portcullis: {error:#}"));
                exit = Exit::Failed;
                continue;
            }
            Err(error) => return Err(error),
        };
        let policy = &compiled.policy;
        let checked = Checked {
            summary: summarize(policy),
            warnings: find_doubts(policy),
            unusable: find_unusable(policy),
        };
        if output.json {
            output.value(&checked)?;
            continue;
        }
        if !quiet {
            let detail = if servers { Detail::Full } else { Detail::Brief };
            let gap = if index > 0 { "\n" } else { "" };
            let heading = if paths.len() > 1 { format!("{gap}{}\n", policy.file) } else { String::new() };
            output.text(&(heading + &describe(policy, detail) + &describe_alarms(policy)))?;
        }
        for warning in &checked.warnings {
            output.warn(&warning.to_string());
        }
        for sentence in &checked.unusable {
            output.warn(&format!("{}: {sentence}", policy.file));
        }
    }
    Ok(exit)
}

/// Parts of `[alarms]` that can't work on this machine, a sentence each.
fn find_unusable(policy: &Policy) -> Vec<String> {
    let alarms = &policy.alarms;
    let mut sentences = Vec::new();
    let files =
        [("eve", &alarms.eve), ("ecs", &alarms.ecs), ("cef", &alarms.cef), ("pcapng", &alarms.pcapng)];
    for (key, file) in files {
        let folder = file.as_deref().and_then(|file| Path::new(file).parent());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            sentences.push(format!(
                "`{key}` can't be written: {folder} is no folder of this machine; make it: mkdir -p {folder}",
                folder = folder.display()
            ));
        }
    }
    if let Some(program) = alarms.command.first()
        && let Err(why) = check_program(Path::new(program))
    {
        sentences.push(format!("`command` can't be run: {program} {why}"));
    }
    if let Some(file) = alarms.tls_ca.as_deref().filter(|file| !Path::new(file).is_file()) {
        sentences.push(format!("`tls_ca` can't be read: there is no file {file} on this machine"));
    }
    sentences
}

fn check_program(program: &Path) -> Result<(), &'static str> {
    match program.metadata() {
        Err(_) => Err("is not on this machine"),
        Ok(file) if !file.is_file() => Err("is no file"),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => Err("is not executable; try chmod +x"),
        Ok(_) => Ok(()),
    }
}
