use super::*;

fn pages() -> Vec<(String, String)> {
    render_pages("2026-11-30".parse().unwrap()).unwrap()
}

#[test]
fn there_is_a_page_for_each_command_with_its_options_and_examples() {
    let pages = pages();
    for page in GROUPS.iter().flat_map(|group| group.pages) {
        let name = format!("portcullis-{}.1", page.path.replace(' ', "-"));
        let (_, text) = pages.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}"));
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS", ".SH EXAMPLES"] {
            assert_eq!(text.lines().filter(|line| *line == section).count(), 1, "{name}: {section}");
        }
        for (_, line) in page.examples {
            assert!(text.contains(&escape(line)), "{name}: {line}");
        }
    }
    let (_, program) = &pages[0];
    assert!(GROUPS.iter().all(|group| program.contains(&format!(".SS {}\n", group.heading))), "{program}");
    assert!(
        !pages.iter().any(|(name, _)| name.contains("manuals")),
        "a command for packages alone has no page"
    );
}

#[test]
fn no_line_of_text_is_taken_for_a_request_or_is_longer_than_a_line_of_roff() {
    assert_eq!(wrap(&format!("{} .so x", "a".repeat(WIDTH))), [&"a".repeat(WIDTH), "\\&.so x"]);
    assert_eq!(escape("a-b's\n.c\\d"), "a\\-b\\(aqs\n\\&.c\\ed");
    for (name, text) in pages() {
        let is_request = |line: &str| line.starts_with(['.', '\'']) || line.starts_with("portcullis ");
        let long = text.lines().find(|line| line.len() > 80 && !is_request(line));
        assert_eq!(long, None, "{name}");
    }
}

#[test]
fn each_shell_gets_completions_that_know_the_commands() {
    for (name, text) in render_completions() {
        for word in ["quarantine", "fall-back", "nft"] {
            assert!(text.contains(word), "{name}: {word}");
        }
        assert!(!text.contains("manuals"), "{name}");
    }
}

#[test]
fn a_folder_that_is_there_already_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = run("2026-11-30".parse().unwrap(), folder.path()).unwrap_err();
    assert!(format!("{error:#}").contains("cannot make the folder"), "{error:#}");
}
