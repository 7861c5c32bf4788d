//! From a long story to the few packets that matter.

use super::play::{Playing, Stage};
use super::story::{PLAIN, Story};

/// The part of a story that is one talk.
pub fn only_talk(story: &Story, talk: usize) -> Story {
    let mut events: Vec<_> = story.events.iter().filter(|event| event.talk == talk).cloned().collect();
    events.iter_mut().for_each(|event| event.talk = 0);
    Story { talks: vec![story.talks[talk]], events }
}

/// The shortest story found that still shows something. `None`: it does not show it again.
pub fn shrink(stage: &mut Stage, story: &Story, shows: impl Fn(&Stage, &Playing) -> bool) -> Option<Playing> {
    let mut play = |story: &Story| {
        stage.renew(story);
        let playing = stage.play(story);
        shows(stage, &playing).then_some(playing)
    };
    let mut shown = play(story)?;
    let mut best = story.clone();
    loop {
        let before = best.clone();
        for at in (0..best.events.len()).rev() {
            let mut less = best.clone();
            less.events.remove(at);
            if let Some(found) = play(&less) {
                (best, shown) = (less, found);
            }
        }
        for at in 0..best.events.len() {
            let mut plain = best.clone();
            plain.events[at].manner = PLAIN;
            if plain != best
                && let Some(found) = play(&plain)
            {
                (best, shown) = (plain, found);
            }
        }
        if best == before {
            return Some(shown);
        }
    }
}
