use jiff::{SignedDuration, Timestamp};

use super::saved::SavedEdit;
use super::*;
use crate::clock::Clock;

const NOW: Clock = Clock { mono_ns: 5_000 * NS_PER_S, wall: Timestamp::UNIX_EPOCH };

fn edit(action: EditAction) -> Edit {
    Edit {
        number: 7,
        server: "web1".to_owned(),
        action,
        direction: Direction::Out,
        need: "tcp/443 to 198.51.100.0/24".to_owned(),
        protocol: 6,
        ports: (443, 443),
        peers: vec!["198.51.100.0/24".parse().unwrap()],
        since_ns: 4_000 * NS_PER_S,
        until_ns: 6_000 * NS_PER_S,
        who: "root".to_owned(),
        note: Some("a \"note\"".to_owned()),
    }
}

/// The machine is off for so long. Its monotonic clock then begins anew.
fn after(seconds: i64) -> Clock {
    let wall = NOW.wall.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    Clock { mono_ns: 100 * NS_PER_S, wall }
}

#[test]
fn an_edit_is_saved_with_all_that_is_known_of_it() {
    let edit = edit(EditAction::Deny);
    let text = serde_json::to_string(&SavedEdit::of(&edit, &NOW)).unwrap();
    let saved: SavedEdit = serde_json::from_str(&text).unwrap();
    assert_eq!(saved.to_edit(&NOW), Some(edit));
}

#[test]
fn an_edit_comes_back_with_what_is_left_of_its_time() {
    let saved = SavedEdit::of(&edit(EditAction::Allow), &NOW);
    let back = saved.to_edit(&after(400)).unwrap();
    assert_eq!(back.until_ns, (100 + 600) * NS_PER_S);
    assert_eq!(saved.to_edit(&after(1_000)), None);
}

#[test]
fn where_the_clock_may_be_wrong_what_denies_goes_on_and_what_allows_ends() {
    let far = after(30 * 86_400);
    assert_eq!(SavedEdit::of(&edit(EditAction::Allow), &NOW).to_edit(&far), None);
    let back = SavedEdit::of(&edit(EditAction::Deny), &NOW).to_edit(&far).unwrap();
    assert!(back.until_ns >= (100 + 1_000) * NS_PER_S, "{back:?}");
}

#[test]
fn a_clock_that_was_put_back_makes_no_edit_longer_than_it_was() {
    let back = SavedEdit::of(&edit(EditAction::Allow), &NOW).to_edit(&after(-86_400)).unwrap();
    assert!(back.until_ns <= (100 + 2_000) * NS_PER_S, "{back:?}");
}

#[test]
fn an_edit_covers_its_own_ports_of_its_own_server() {
    let edit = edit(EditAction::Allow);
    assert!(edit.covers("web1", Direction::Out, 6, 443));
    assert!(!edit.covers("web2", Direction::Out, 6, 443));
    assert!(!edit.covers("web1", Direction::In, 6, 443));
    assert!(!edit.covers("web1", Direction::Out, 17, 443));
    assert!(!edit.covers("web1", Direction::Out, 6, 444));
    assert!(edit.has_peer("198.51.100.9".parse().unwrap()));
    assert!(!edit.has_peer("203.0.113.9".parse().unwrap()));
    assert_eq!(edit.to_string(), "allow web1 out tcp/443 to 198.51.100.0/24");
}

#[test]
fn a_rule_of_the_policy_is_no_edit() {
    assert_eq!(Gate::number_of_edit(7), None);
    assert_eq!(Gate::number_of_edit(rule_flag::RULE_EDIT.0 | 7), Some(7));
}
