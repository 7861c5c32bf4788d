//! `portcullis check`: checks policy files and says what each server may do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::shared::{count_mistakes, show_mistakes};
use crate::exit::Exit;
use crate::output::Output;
use crate::policy::{
    Alarms, Detail, Diagnostic, MailSecurity, Policy, Summary, describe, describe_alarms, find_doubts,
    summarize,
};
use crate::policy_file::read_and_compile;
use crate::policy_tests::count_tests;
use crate::sink::{check_log_file, check_secret_file};
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
    /// Always false: `portcullis test` runs the tests.
    tests_run: bool,
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
            tests_run: false,
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
            if !policy.tests.is_empty() {
                let (tests, file) = (count_tests(policy), &policy.file);
                output.text(&format!(
                    "\n{tests} not run, for that needs root: sudo portcullis test {file}\n"
                ))?;
            }
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
    for (key, file) in files {
        if let Some(Err(error)) = file.as_deref().map(|file| check_log_file(Path::new(file))) {
            sentences.push(format!("`{key}` can't be written: {error:#}"));
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
    sentences.extend(find_unusable_logins(alarms));
    sentences
}

/// Mails and Alertmanagers that can't work, or that give away a password.
fn find_unusable_logins(alarms: &Alarms) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut say = |sentence: String| sentences.push(sentence);
    for (key, file) in [
        ("alertmanager_password_file", &alarms.alertmanager_password_file),
        ("alertmanager_token_file", &alarms.alertmanager_token_file),
        ("mail_password_file", &alarms.mail_password_file),
    ] {
        if let Some(Err(error)) = file.as_deref().map(check_secret_file) {
            say(format!("`{key}` can't be used: {error:#}"));
        }
    }
    for (user, has_user, file, has_file) in [
        (
            "alertmanager_user",
            alarms.alertmanager_user.is_some(),
            "alertmanager_password_file",
            alarms.alertmanager_password_file.is_some(),
        ),
        ("mail_user", alarms.mail_user.is_some(), "mail_password_file", alarms.mail_password_file.is_some()),
    ] {
        if has_user != has_file {
            let (has, lacks) = if has_user { (user, file) } else { (file, user) };
            say(format!("`{has}` needs `{lacks}` as well"));
        }
    }
    let has_login = alarms.alertmanager_user.is_some() || alarms.alertmanager_token_file.is_some();
    if alarms.alertmanager_user.is_some() && alarms.alertmanager_token_file.is_some() {
        say("`alertmanager_token_file` is not used, as there is an `alertmanager_user`: leave one out"
            .to_owned());
    }
    if has_login && alarms.alertmanager.0.is_empty() {
        say("there is a login for an Alertmanager and no `alertmanager`".to_owned());
    }
    for url in alarms.alertmanager.0.iter().filter(|url| has_login && url.starts_with("http:")) {
        say(format!("the login for {url} travels without encryption: write https:// if the server can"));
    }
    match &alarms.mail_server {
        Some(server) => {
            if alarms.mail_from.is_none() {
                say("`mail_server` can send nothing: write the sender as `mail_from`".to_owned());
            }
            if alarms.mail_to.0.is_empty() {
                say("`mail_server` can send nothing: write the recipients as `mail_to`".to_owned());
            }
            if alarms.mail_user.is_some() && server.security == MailSecurity::None {
                say("`mail_user` can't log in at smtp://: a password does not travel without encryption; write \
                     smtps:// or starttls://"
                    .to_owned());
            }
        }
        None if alarms.mail_from.is_some() || !alarms.mail_to.0.is_empty() => {
            say("no mail is sent, as there is no `mail_server`".to_owned());
        }
        None => {}
    }
    if let Some(program) = alarms.command.first().filter(|program| is_mail_program(program)) {
        say(format!(
            "`command` can't send mail by {program} under the unit's sandbox, which takes its group away: use \
             `mail_server`"
        ));
    }
    sentences
}

/// Programs that hand a mail to a local queue by the rights of a group.
fn is_mail_program(program: &str) -> bool {
    let name = Path::new(program).file_name().and_then(|name| name.to_str());
    matches!(
        name,
        Some("sendmail" | "mail" | "mailx" | "bsd-mailx" | "s-nail" | "mutt" | "postdrop" | "exim4")
    )
}

fn check_program(program: &Path) -> Result<(), &'static str> {
    match program.metadata() {
        Err(_) => Err("is not on this machine"),
        Ok(file) if !file.is_file() => Err("is no file"),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => Err("is not executable; try chmod +x"),
        Ok(_) => Ok(()),
    }
}
