//! Texts that people read, held to the copies in `tests/suite/snapshots`. A difference is red, and so is a copy
//! that is missing; `INSTA_UPDATE=always scripts/test TIER texts` writes them anew.

/// Compares a text with its copy.
#[track_caller]
pub fn assert_text(name: &str, text: &str) {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// The text with what differs from run to run under names of its own: dates, times and the version.
pub fn without_times(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let words = line.split(' ').map(|word| {
            let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let name = match shape(core).as_str() {
                "9999-99-99" => "DATE",
                "99:99" | "99:99:99" => "TIME",
                "9999-99-99T99:99:99Z" => "MOMENT",
                longer if longer.starts_with("99:99:99.") => "TIME",
                _ if core == env!("CARGO_PKG_VERSION") => "VERSION",
                _ => return word.to_owned(),
            };
            word.replacen(core, name, 1)
        });
        words.collect::<Vec<_>>().join(" ") + "\n"
    });
    lines.collect()
}

/// The word with each digit as 9.
fn shape(word: &str) -> String {
    word.chars().map(|letter| if letter.is_ascii_digit() { '9' } else { letter }).collect()
}
