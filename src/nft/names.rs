//! Names and comments as nft reads them.

use crate::policy::{Location, Policy};

/// The longest comment that nft takes, in bytes.
const LONGEST_COMMENT: usize = 127;

/// Whether an interface's name can stand in a ruleset: nft has its own meaning for `*`, `\` and quotes.
pub fn is_plain_name(interface: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-@+".contains(letter);
    (1..=15).contains(&interface.len()) && interface.chars().all(plain)
}

/// The table of an interface. The name has a `-`, because packaging/portcullis-guard owns `portcullis_guard`.
pub(super) fn name_table(interface: &str) -> String {
    let spelled: String = interface
        .chars()
        .map(|letter| match letter {
            '@' | '+' => format!("_{:02x}", u32::from(letter)),
            _ => letter.to_string(),
        })
        .collect();
    format!("inet portcullis-{spelled}")
}

/// Where the policy says it, and what it says there.
pub(super) fn cite(policy: &Policy, place: &Location, what: &str) -> String {
    let (whole, name) = (policy.locate(place), policy.file.rsplit('/').next().unwrap_or_default());
    let long = format!("{whole} {what}");
    let short = if long.len() <= LONGEST_COMMENT { long } else { format!("{name}:{} {what}", place.line) };
    quote(&short)
}

/// ` comment "…"`.
pub(super) fn quote(text: &str) -> String {
    let mut plain: String =
        text.chars().map(|letter| if letter == '"' || letter.is_control() { '?' } else { letter }).collect();
    while plain.len() > LONGEST_COMMENT {
        plain.pop();
    }
    format!(" comment \"{plain}\"")
}

/// A text within one line of comments.
pub(super) fn comment_out(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
