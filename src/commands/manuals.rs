//! `portcullis manuals`: writes the manual pages of the commands and the completions of the shells, for packages.
//!
//! clap knows options and arguments. The examples and what the commands have in common are added here.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use jiff::civil::Date;

use crate::cli::Cli;
use crate::cli::guide::{GROUPS, find_page};
use crate::exit::Exit;

/// The width of a line of roff, at which mandoc complains no longer.
const WIDTH: usize = 78;
/// With what each of clap_mangen's sections begins, and a page may begin once.
const PREAMBLE: [&str; 2] = [".ie \\n(.g .ds Aq \\(aq", ".el .ds Aq '"];

/// Writes everything into a new folder.
///
/// # Errors
/// When the folder is there already, or can't be written to.
pub fn run(date: Date, folder: &Path) -> anyhow::Result<Exit> {
    fs::create_dir(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for (name, text) in render_pages(date)?.into_iter().chain(render_completions()) {
        let path = folder.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Exit::Done)
}

/// The completions, by the names under which the shells look for them.
fn render_completions() -> Vec<(String, String)> {
    let shells =
        [(Shell::Bash, "portcullis.bash"), (Shell::Zsh, "_portcullis"), (Shell::Fish, "portcullis.fish")];
    let render = |(shell, name): (Shell, &str)| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut visible_commands(), "portcullis", &mut text);
        (name.to_owned(), String::from_utf8_lossy(&text).into_owned())
    };
    shells.map(render).into()
}

/// The command line without what is for packages alone, which clap_complete would show all the same.
fn visible_commands() -> Command {
    let program = <Cli as clap::CommandFactory>::command();
    Command::new("portcullis")
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments().cloned())
        .subcommands(program.get_subcommands().filter(|known| !known.is_hide_set()).cloned())
}

/// The page of the program, and one for each command.
fn render_pages(date: Date) -> anyhow::Result<Vec<(String, String)>> {
    // the examples come from the guide, not from the help
    let mut program = <Cli as clap::CommandFactory>::command().disable_help_subcommand(true);
    program.build();
    let mut pages = vec![("portcullis.1".to_owned(), render_program(&program, date)?)];
    add_pages(&program, "", date, &mut pages)?;
    Ok(pages)
}

fn add_pages(
    parent: &Command,
    path: &str,
    date: Date,
    pages: &mut Vec<(String, String)>,
) -> anyhow::Result<()> {
    for command in parent.get_subcommands().filter(|known| !known.is_hide_set()) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        let name = format!("portcullis-{}.1", path.replace(' ', "-"));
        pages.push((name, render_command(command, &path, date)?));
        add_pages(command, &path, date, pages)?;
    }
    Ok(())
}

/// What clap knows, with a synopsis that names the values.
fn render_head(command: &Command, date: Date) -> anyhow::Result<String> {
    let man = man(command, date);
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    man.render_name_section(&mut roff)?;
    let mut text = into_text(roff);
    let usage = command.clone().render_usage().to_string();
    text.push_str(".SH SYNOPSIS\n");
    for line in usage.trim_start_matches("Usage:").lines() {
        text.push_str(&format!("{}\n.br\n", escape(line.trim())));
    }
    let mut roff = Vec::new();
    man.render_description_section(&mut roff)?;
    text.push_str(&into_text(roff));
    Ok(text)
}

fn man(command: &Command, date: Date) -> Man {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    Man::new(command.clone())
        .title(name.to_uppercase())
        .date(date.to_string())
        .source(concat!("portcullis ", env!("CARGO_PKG_VERSION")))
        .manual("The gate on a DMZ router")
}

fn render_options(command: &Command, date: Date) -> anyhow::Result<String> {
    let mut roff = Vec::new();
    man(command, date).render_options_section(&mut roff)?;
    Ok(into_text(roff))
}

fn render_command(command: &Command, path: &str, date: Date) -> anyhow::Result<String> {
    let mut text = render_head(command, date)?;
    if let Some(more) = command.get_after_help() {
        text.push_str(&format!(".PP\n{}\n", escape(&more.to_string())));
    }
    let below: Vec<&Command> = command.get_subcommands().filter(|known| !known.is_hide_set()).collect();
    if !below.is_empty() {
        text.push_str(".SH COMMANDS\n");
        for known in below {
            text.push_str(&entry(known, &format!("{path} {}", known.get_name())));
        }
    }
    text.push_str(&render_options(command, date)?);
    if let Some(page) = find_page(path) {
        text.push_str(".SH EXAMPLES\n");
        for (number, (purpose, line)) in page.examples.iter().enumerate() {
            let space = if number == 0 { "" } else { ".PP\n" };
            text.push_str(&format!("{space}{}:\n.PP\n.RS 4\n.nf\n", escape(&capitalize(purpose))));
            text.push_str(&format!("{}\n.fi\n.RE\n", escape(line)));
        }
    }
    text.push_str(".SH SEE ALSO\n.BR portcullis (1),\n.BR portcullis.toml (5),\n.BR portcullis (7)\n");
    Ok(tidy(&text))
}

fn render_program(program: &Command, date: Date) -> anyhow::Result<String> {
    let mut text = render_head(program, date)?;
    text.push_str(".SH COMMANDS\n");
    for group in GROUPS {
        text.push_str(&format!(".SS {}\n", group.heading));
        for page in group.pages {
            if let Some(command) = program.get_subcommands().find(|known| known.get_name() == page.path) {
                text.push_str(&entry(command, page.path));
            }
        }
    }
    text.push_str(&render_options(program, date)?);
    text.push_str(include_str!("manuals/program.roff"));
    Ok(tidy(&text))
}

/// The entry of a command in the list of another page.
fn entry(command: &Command, path: &str) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let name = escape(&format!("portcullis-{}", path.replace(' ', "-")));
    format!(".TP\n.BR {name} (1)\n{}\n", escape(&about))
}

/// As a sentence begins.
fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Text as roff takes it: none of it is a request, and `-` is what is typed.
fn escape(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
        if line.starts_with('.') { format!("\\&{line}") } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn into_text(roff: Vec<u8>) -> String {
    String::from_utf8_lossy(&roff).into_owned()
}

/// Wraps what clap_mangen leaves in long lines, and takes out what would stand there twice.
fn tidy(text: &str) -> String {
    let mut tidied: Vec<String> = PREAMBLE.map(str::to_owned).into();
    let mut is_literal = false;
    for line in text.lines().filter(|line| !PREAMBLE.contains(line)) {
        match line.trim_end() {
            ".nf" => is_literal = true,
            ".fi" => is_literal = false,
            _ => {}
        }
        // a break after a break, or before a section, has no effect
        if (line == ".br" || line.starts_with(".SH")) && tidied.last().is_some_and(|last| last == ".br") {
            tidied.pop();
        }
        if is_literal || line.starts_with(['.', '\'']) {
            tidied.push(line.trim_end().to_owned());
        } else {
            tidied.extend(wrap(line));
        }
    }
    tidied.join("\n") + "\n"
}

/// A line of text as lines of the usual width. None begins with what would make it a request.
fn wrap(line: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.len() + word.len() < WIDTH => {
                last.push(' ');
                last.push_str(word);
            }
            _ if word.starts_with(['.', '\'']) => lines.push(format!("\\&{word}")),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
