//! Suggestions for names that don't exist.

/// The longest name that is compared with others, in bytes. The time of a comparison grows with its square.
const MAX_COMPARED: usize = 256;

/// The candidate that is closest to `name`; `None` if none is close.
pub(crate) fn find_closest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if name.len() > MAX_COMPARED {
        return None;
    }
    let wanted = name.to_lowercase();
    // A third of the letters may be wrong, but at least one.
    let reach = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(wanted.len()) <= reach)
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= reach)
        // Of equally close names the one that begins alike: people rarely mistype the first letter.
        .min_by_key(|(distance, candidate)| (*distance, !starts_alike(&wanted, candidate), *candidate))
        .map(|(_, candidate)| candidate)
}

fn starts_alike(wanted: &str, candidate: &str) -> bool {
    let first = |text: &str| text.chars().next().map(|letter| letter.to_ascii_lowercase());
    first(wanted) == first(candidate)
}

/// A help line that offers the closest candidate.
pub(crate) fn suggest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    find_closest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_two_letters_swapped_is_recognised() {
        assert_eq!(suggest("wbe", ["mail", "web"]).as_deref(), Some("did you mean `web`?"));
    }

    #[test]
    fn case_is_no_difference() {
        assert_eq!(find_closest("TCP", ["tcp", "udp"]), Some("tcp"));
    }

    #[test]
    fn a_name_that_resembles_nothing_gets_no_suggestion() {
        assert_eq!(suggest("database", ["web", "mail"]), None);
    }

    #[test]
    fn of_equally_close_names_the_one_that_begins_alike_is_meant() {
        assert_eq!(find_closest("htps", ["ftps", "https"]), Some("https"));
    }

    #[test]
    fn of_equally_close_names_the_choice_is_stable() {
        assert_eq!(find_closest("wec", ["wed", "web"]), Some("web"));
    }
}
