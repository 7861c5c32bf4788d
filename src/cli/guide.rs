//! The commands by what a person wants to do, with examples: for `--help` and for the manual pages. clap can't group
//! commands, so the list is rendered here. A test is red when a command has no group or no example.

use std::fmt::Write as _;

use clap::Command;

/// What a person wants to do, and the commands for it.
#[derive(Debug)]
pub struct Group {
    /// The heading, an imperative.
    pub heading: &'static str,
    /// Its commands, in the order in which they are needed.
    pub pages: &'static [Page],
}

/// A command with its examples.
#[derive(Debug)]
pub struct Page {
    /// The words of the command: `attach`, `export nft`.
    pub path: &'static str,
    /// What each command line is for, and the line.
    pub examples: &'static [(&'static str, &'static str)],
}

const fn page(path: &'static str, examples: &'static [(&'static str, &'static str)]) -> Page {
    Page { path, examples }
}

/// The commands, in the order of `portcullis --help`. A new command needs its page here.
pub const GROUPS: &[Group] = &[
    Group {
        heading: "Write a policy",
        pages: &[
            page(
                "init",
                &[
                    (
                        "with what this machine knows, each guess marked",
                        "portcullis init -i dmz0 -o dmz0.toml",
                    ),
                    ("the commented example", "portcullis init > dmz0.toml"),
                ],
            ),
            page(
                "learn",
                &[
                    (
                        "a first policy from what a capture shows",
                        "portcullis learn --servers 192.0.2.0/24 -o dmz0.toml monday.pcap",
                    ),
                    (
                        "the same from what the gate has kept while its policy observed",
                        "portcullis learn -i dmz0 --from 7d -o dmz0.toml",
                    ),
                    (
                        "what a policy lacks, as a patch",
                        "portcullis learn --against dmz0.toml monday.pcap > needs.patch",
                    ),
                ],
            ),
            page(
                "check",
                &[
                    ("every mistake, and what each server may do", "portcullis check dmz0.toml"),
                    (
                        "the needs that nothing has used for a month",
                        "portcullis check --unused 30d -i dmz0 /etc/portcullis/dmz0.toml",
                    ),
                ],
            ),
            page("test", &[("what the policy's own tests say", "portcullis test dmz0.toml")]),
            page(
                "replay",
                &[
                    (
                        "what a policy would have dropped on Monday",
                        "portcullis replay -p dmz0.toml monday.pcap",
                    ),
                    (
                        "the packets that two policies judge differently",
                        "portcullis replay -p old.toml --against new.toml monday.pcap",
                    ),
                ],
            ),
            page(
                "export",
                &[(
                    "the policy as a ruleset of nftables",
                    "portcullis export nft -i dmz0 /etc/portcullis/dmz0.toml > dmz0.nft",
                )],
            ),
            page(
                "export nft",
                &[(
                    "the policy as a ruleset of nftables",
                    "portcullis export nft -i dmz0 /etc/portcullis/dmz0.toml > dmz0.nft",
                )],
            ),
        ],
    },
    Group {
        heading: "Attach the gate",
        pages: &[
            page(
                "run",
                &[
                    ("gate and alarms, until Ctrl-C", "portcullis run -i dmz0 -p dmz0.toml"),
                    (
                        "with metrics for Prometheus",
                        "portcullis run -i dmz0 -p dmz0.toml --metrics 127.0.0.1:9464",
                    ),
                ],
            ),
            page(
                "attach",
                &[(
                    "as the unit portcullis-gate@dmz0 does",
                    "portcullis attach -i dmz0 -p /etc/portcullis/dmz0.toml --fall-back",
                )],
            ),
            page("pickup", &[("after a failover, for a minute", "portcullis pickup -i dmz0 --for 60s")]),
            page(
                "detach",
                &[
                    ("nothing is dropped any more", "portcullis detach -i dmz0"),
                    ("remove what gates of deleted namespaces left", "portcullis detach --orphans"),
                ],
            ),
        ],
    },
    Group {
        heading: "Change the policy",
        pages: &[
            page("diff", &[("what a file would change", "portcullis diff -i dmz0 dmz0.toml")]),
            page(
                "apply",
                &[
                    (
                        "on trial: without `confirm` the kernel goes back by itself",
                        "portcullis apply -i dmz0 dmz0.toml --confirm 60s --note \"new mirror\"",
                    ),
                    ("for good", "portcullis apply -i dmz0 dmz0.toml"),
                ],
            ),
            page("confirm", &[("keep the policy that is on trial", "portcullis confirm -i dmz0")]),
            page(
                "rollback",
                &[
                    ("the policies that there are to go back to", "portcullis rollback -i dmz0 --list"),
                    ("the one before the live one", "portcullis rollback -i dmz0"),
                ],
            ),
            page("reload", &[("after an edit of the service's file", "portcullis reload -i dmz0")]),
        ],
    },
    Group {
        heading: "See and understand",
        pages: &[
            page(
                "show",
                &[
                    ("does the gate hold?", "portcullis show -i dmz0 status"),
                    ("every drop, counted exactly", "portcullis show -i dmz0 drops"),
                    ("who did what since yesterday", "portcullis show -i dmz0 audit --since 24h"),
                    ("the gates of all network namespaces", "portcullis show gates"),
                ],
            ),
            page(
                "explain",
                &[
                    (
                        "why can't the server open this?",
                        "portcullis explain -i dmz0 --from web1 --to 198.51.100.9 tcp/80",
                    ),
                    (
                        "does my ssh get through?",
                        "portcullis explain -i dmz0 --from 203.0.113.7 --to web1 tcp/22",
                    ),
                ],
            ),
            page("doctor", &[("does anything get past the gate?", "portcullis doctor -i dmz0")]),
            page("test-alarm", &[("would an alarm reach me?", "portcullis test-alarm -i dmz0")]),
            page(
                "alarms",
                &[
                    ("tonight's, from high up", "portcullis alarms -i dmz0 --severity high --from 8h"),
                    ("as they come in", "portcullis alarms -i dmz0 --follow"),
                    ("you are at it", "portcullis alarms -i dmz0 ack 3 --note \"case 4711\""),
                    (
                        "nobody is to be called for a time",
                        "portcullis alarms -i dmz0 silence mx1 --for 2h --note \"it moves\"",
                    ),
                ],
            ),
            page("top", &[("servers, rates and reasons, live", "portcullis top -i dmz0")]),
            page(
                "report",
                &[(
                    "one page for the incident file",
                    "portcullis report -i dmz0 --from 24h -o incident.html",
                )],
            ),
        ],
    },
    Group {
        heading: "Act on an alarm",
        pages: &[
            page(
                "quarantine",
                &[
                    ("cut a server off for an hour", "portcullis quarantine -i dmz0 web1 --for 1h"),
                    (
                        "cut off one machine of a server that is a prefix",
                        "portcullis quarantine -i dmz0 192.0.2.130",
                    ),
                ],
            ),
            page("release", &[("let a server back", "portcullis release -i dmz0 web1")]),
            page(
                "deny",
                &[(
                    "close one need at once, open connections too",
                    "portcullis deny -i dmz0 mx1 out tcp/25 --for 1h --note \"sends spam\"",
                )],
            ),
            page(
                "allow",
                &[
                    (
                        "open one need for ten minutes",
                        "portcullis allow -i dmz0 web1 out tcp/443 to 198.51.100.80 --for 10m",
                    ),
                    ("end edit 3 now", "portcullis allow -i dmz0 --cancel 3"),
                ],
            ),
        ],
    },
    Group {
        heading: "Run a pair of routers",
        pages: &[
            page(
                "takeover",
                &[("first line of the notify script of a failover", "portcullis takeover -i dmz0 --for 10s")],
            ),
            page(
                "export state",
                &[(
                    "quarantines, edits and grants of this router",
                    "portcullis export state -i dmz0 > state.json",
                )],
            ),
            page("import", &[("from a pipe", "portcullis import state -i dmz0 -")]),
            page(
                "import state",
                &[("what the other router has printed", "portcullis import state -i dmz0 state.json")],
            ),
        ],
    },
];

/// The page of a command, by its words.
pub fn find_page(path: &str) -> Option<&'static Page> {
    GROUPS.iter().flat_map(|group| group.pages).find(|page| page.path == path)
}

/// Adds the groups to the page of the program, and its examples to that of each command.
pub(super) fn add_help(command: Command) -> Command {
    let list = list_groups(&command);
    let command = add_examples(command, "");
    command
        .help_template(format!(
            "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}{}\n{{options}}{{after-help}}",
            heading("Options")
        ))
        .after_help(
            "`portcullis help COMMAND` and `man portcullis-COMMAND` have the options of a command and examples.\n\
             `man 5 portcullis.toml` is about the policy, `man 7 portcullis` about the idea.",
        )
}

/// The commands below the headings of their groups. A command without a group stands below the last heading.
fn list_groups(command: &Command) -> String {
    let commands: Vec<&Command> = command.get_subcommands().filter(|known| !known.is_hide_set()).collect();
    let width = commands.iter().map(|known| known.get_name().len()).max().unwrap_or(0);
    let group_of =
        |name: &str| GROUPS.iter().position(|group| group.pages.iter().any(|page| page.path == name));
    let style = *command.get_styles().get_literal();
    let mut list = String::new();
    let mut print = |title: &str, known: &mut dyn Iterator<Item = &&Command>| {
        let mut lines = known.peekable();
        if lines.peek().is_none() {
            return;
        }
        // a String takes all that is written to it
        let _ = writeln!(list, "{}", heading(title));
        for known in lines {
            let about = known.get_about().map(ToString::to_string).unwrap_or_default();
            let name = known.get_name();
            let _ = writeln!(list, "  {style}{name}{style:#}{:pad$}  {about}", "", pad = width - name.len());
        }
        list.push('\n');
    };
    for group in GROUPS {
        let paths =
            group.pages.iter().filter_map(|page| commands.iter().find(|known| known.get_name() == page.path));
        print(group.heading, &mut paths.into_iter());
    }
    print("More", &mut commands.iter().filter(|known| group_of(known.get_name()).is_none()));
    list
}

fn heading(title: &str) -> String {
    let style = *clap::builder::Styles::styled().get_header();
    format!("{style}{title}:{style:#}")
}

/// Adds the examples to a command and to those below it.
fn add_examples(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|known| known.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command.mut_subcommand(name, |known| {
            let known = add_examples(known, &path);
            match find_page(&path) {
                Some(page) => {
                    let before = known.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
                    known.after_help(before + &show_examples(page))
                }
                None => known,
            }
        })
    })
}

fn show_examples(page: &Page) -> String {
    let title = if page.examples.len() == 1 { "Example" } else { "Examples" };
    let mut text = heading(title);
    for (purpose, line) in page.examples {
        // a String takes all that is written to it
        let _ = write!(text, "\n  # {purpose}\n  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Cli;

    /// The words of every command that people see.
    fn list_paths(command: &Command, path: &str) -> Vec<String> {
        // `-i` stands before the orders of `alarms`, so its own page has them
        let known = command.get_subcommands().filter(|known| !known.is_hide_set() && path != "alarms");
        known
            .flat_map(|known| {
                let path = format!("{path} {}", known.get_name()).trim().to_owned();
                [vec![path.clone()], list_paths(known, &path)].concat()
            })
            .collect()
    }

    #[test]
    fn every_command_has_one_group_and_an_example() {
        let mut grouped: Vec<&str> =
            GROUPS.iter().flat_map(|group| group.pages).map(|page| page.path).collect();
        let mut paths = list_paths(&Cli::command(), "");
        grouped.sort_unstable();
        paths.sort_unstable();
        assert_eq!(grouped, paths, "write the page of a new command into GROUPS of src/cli/guide.rs");
        for page in GROUPS.iter().flat_map(|group| group.pages) {
            assert!(!page.examples.is_empty(), "{} has no example", page.path);
        }
    }

    #[test]
    fn every_example_is_a_command_line_of_its_command() {
        for page in GROUPS.iter().flat_map(|group| group.pages) {
            for (_, line) in page.examples {
                let rest = line.strip_prefix("portcullis ").and_then(|line| line.strip_prefix(page.path));
                assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')), "{line}");
                let words = crate::cli::documents::split_words(line);
                let words = words.into_iter().take_while(|word| !["|", ">"].contains(&word.as_str()));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn a_command_without_a_group_is_listed_all_the_same() {
        let command =
            add_help(Command::new("x").subcommand(Command::new("init")).subcommand(Command::new("odd")));
        let text = { command }.render_help().to_string();
        let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word}: {text}"));
        assert!(place("Write a policy:") < place("  init"), "{text}");
        assert!(place("  init") < place("More:") && place("More:") < place("  odd"), "{text}");
    }
}
