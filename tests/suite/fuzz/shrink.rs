//! From a long story to the few events that matter.

use super::differ::{Differ, Disagreement};
use super::event::{Event, Sequence};

/// What shrinking may cost: a long story is played in milliseconds.
const PLAYS: usize = 4000;

struct Shrinker<'r> {
    differ: &'r mut Differ,
    plays: usize,
}

/// The shortest sequence found that still shows a disagreement, and which; `None` when the story
/// does not show one again.
pub fn shrink(differ: &mut Differ, story: &Sequence) -> Option<(Sequence, Disagreement)> {
    let mut shrinker = Shrinker { differ, plays: 0 };
    let mut best = shrinker.find_tail(story)?;
    loop {
        let before = size_of(&best);
        shrinker.drop_events(&mut best);
        shrinker.drop_lines(&mut best);
        shrinker.simplify_frames(&mut best);
        if size_of(&best) == before || shrinker.plays >= PLAYS {
            break;
        }
    }
    let disagreement = shrinker.play(&best)?;
    Some((best, disagreement))
}

fn size_of(sequence: &Sequence) -> usize {
    sequence.to_string().len()
}

impl Shrinker<'_> {
    fn play(&mut self, sequence: &Sequence) -> Option<Disagreement> {
        self.plays += 1;
        self.differ.play(sequence)?.err()
    }

    fn shows(&mut self, sequence: &Sequence) -> bool {
        self.plays < PLAYS && self.play(sequence).is_some()
    }

    /// The end of the story, from the shortest that shows a disagreement.
    fn find_tail(&mut self, story: &Sequence) -> Option<Sequence> {
        let mut length = 32;
        loop {
            let from = story.events.len().saturating_sub(length);
            let tail = from_event(story, from);
            if let Some(disagreement) = self.play(&tail) {
                let mut tail = tail;
                tail.events.truncate(disagreement.at + 1);
                // a second time, or it was the clock
                return self.play(&tail).map(|_| tail);
            }
            if from == 0 {
                return None;
            }
            length *= 4;
        }
    }

    /// Delta debugging: without halves, quarters, and so on to single events.
    fn drop_events(&mut self, best: &mut Sequence) {
        let mut chunk = best.events.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < best.events.len() {
                let mut less = best.clone();
                less.events.drain(at..(at + chunk).min(best.events.len()));
                if self.shows(&less) {
                    *best = less;
                } else {
                    at += chunk;
                }
            }
            if chunk == 1 {
                break;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// Lines of the policies, single ones: what no longer is a policy shows nothing.
    fn drop_lines(&mut self, best: &mut Sequence) {
        let swaps: Vec<usize> = (0..best.events.len())
            .filter(|at| matches!(best.events[*at], Event::Swap(_) | Event::Trial(_)))
            .collect();
        for swap in std::iter::once(None).chain(swaps.into_iter().map(Some)) {
            let mut chunk = 16;
            while chunk > 0 {
                let mut line = 0;
                while let Some(less) = without_lines(best, swap, line, chunk) {
                    if self.shows(&less) {
                        *best = less;
                    } else {
                        line += chunk;
                    }
                }
                chunk /= 4;
            }
        }
    }

    /// Shorter frames, shorter waits.
    fn simplify_frames(&mut self, best: &mut Sequence) {
        for at in 0..best.events.len() {
            let length = match &best.events[at] {
                Event::From(frame) | Event::To(frame) | Event::Back(frame, _) => frame.len(),
                Event::Wait(_) => {
                    for seconds in [0, 1, 10, 30, 60, 120] {
                        let mut simpler = best.clone();
                        if simpler.events[at] != Event::Wait(seconds) {
                            simpler.events[at] = Event::Wait(seconds);
                            if self.shows(&simpler) {
                                *best = simpler;
                                break;
                            }
                        }
                    }
                    continue;
                }
                _ => continue,
            };
            for shorter in [14, 34, 42, 54, 62, 74, 94, 128, length / 2, length.saturating_sub(8)] {
                if (14..length).contains(&shorter) {
                    let mut simpler = best.clone();
                    if let Event::From(frame) | Event::To(frame) | Event::Back(frame, _) =
                        &mut simpler.events[at]
                    {
                        frame.truncate(shorter);
                    }
                    if self.shows(&simpler) {
                        *best = simpler;
                        break;
                    }
                }
            }
        }
    }
}

/// The story from this event on, under the policy that is live then.
fn from_event(story: &Sequence, from: usize) -> Sequence {
    let (mut live, mut before) = (&story.policy, None);
    for event in &story.events[..from] {
        match event {
            Event::Swap(policy) => live = policy,
            Event::Trial(policy) => before = Some(std::mem::replace(&mut live, policy)),
            Event::WayBack => live = before.take().unwrap_or(live),
            Event::Confirm => before = None,
            _ => {}
        }
    }
    Sequence { policy: live.clone(), events: story.events[from..].to_vec() }
}

fn without_lines(sequence: &Sequence, swap: Option<usize>, line: usize, count: usize) -> Option<Sequence> {
    let mut less = sequence.clone();
    let text = match swap {
        None => &mut less.policy,
        Some(at) => match &mut less.events[at] {
            Event::Swap(policy) | Event::Trial(policy) => policy,
            _ => return None,
        },
    };
    let lines: Vec<&str> = text.lines().collect();
    if line >= lines.len() {
        return None;
    }
    let kept = lines.iter().enumerate().filter(|(at, _)| !(line..line + count).contains(at));
    *text = kept.fold(String::new(), |text, (_, line)| text + line + "\n");
    Some(less)
}
