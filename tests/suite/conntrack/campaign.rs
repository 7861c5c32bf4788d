//! Many stories, under one policy after another, until there were enough.

use std::time::{Duration, Instant};

use super::case::{Case, Record};
use super::differences::KNOWN_DIFFERENCES;
use super::inventor::Inventor;
use super::late::invent_late;
use super::play::{Fate, Playing, Stage};
use super::policy::{Policy, make_policy};
use super::shrink::{only_talk, shrink};
use super::story::{Side, Story};
use crate::support::chance::Chance;

/// Packets under one policy.
const ROUND: u64 = 20_000;
/// Talks with pauses at a time.
const LATE: usize = 400;
/// After so many differences a fault is known well enough.
const ENOUGH: usize = 5;

/// What is asked of a campaign.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub seed: u64,
    pub packets: u64,
    pub time: Option<Duration>,
    /// The longest pause in a talk, which is how long it all takes at least.
    pub pause_s: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub packets: u64,
    pub stories: u64,
    pub policies: u64,
    /// Packets of servers that both let through, and that both held.
    pub passed: u64,
    pub held: u64,
    /// Packets towards servers, which both let through.
    pub arrived: u64,
    /// Talks with a pause, and those whose pause took far too long.
    pub late: u64,
    pub overslept: u64,
    /// By known difference.
    pub known: Vec<u64>,
    /// Differences that did not come again, when all was played once more.
    pub passing: u64,
    /// Stories with a difference that nothing explains, and both opinions.
    pub found: Vec<String>,
}

/// What explains that both judges differ about a packet, by its number in the list.
pub fn explain(case: &Case<'_>) -> Option<usize> {
    let who = case.who_passes()?;
    KNOWN_DIFFERENCES.iter().position(|known| known.passes == who && (known.explains)(case))
}

/// The first packet of a story about which both judges differ without an explanation.
pub fn find_unexplained(stage: &Stage, playing: &Playing) -> Option<usize> {
    let record = Record::new(&stage.policy, playing);
    record.cases().find(|case| case.who_passes().is_some() && explain(case).is_none()).map(|case| case.at)
}

/// Runs until the order is done or faults were found.
pub fn run(order: Order) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome { known: vec![0; KNOWN_DIFFERENCES.len()], ..Outcome::default() };
    let mut part = 0;
    let is_enough = |outcome: &Outcome| {
        let late = order.time.is_some_and(|time| begun.elapsed() >= time);
        outcome.found.len() >= ENOUGH || late || outcome.packets >= order.packets
    };
    while !is_enough(&outcome) {
        // talks with pauses go on when others have been played for as long
        let mut late = Late::begin(order, part);
        part += 1;
        loop {
            play_round(order.seed, part, &mut late, &mut outcome);
            part += 1;
            if is_enough(&outcome) || late.go_on().is_none() {
                break;
            }
        }
        late.end(&mut outcome);
    }
    outcome
}

fn make_stage(seed: u64, part: u64) -> (Stage, Chance) {
    let mut chance = Chance::part(seed, part);
    let policy = Policy::read(&make_policy(&mut chance));
    (Stage::new(policy), chance)
}

/// Stories under one policy, which depends on the seed and its number alone.
fn play_round(seed: u64, part: u64, late: &mut Late, outcome: &mut Outcome) {
    let (mut stage, chance) = make_stage(seed, part);
    let policy = stage.policy.clone();
    let mut inventor = Inventor::new(chance, &policy);
    outcome.policies += 1;
    while stage.packets < ROUND && outcome.found.len() < ENOUGH {
        late.go_on();
        let story = inventor.invent();
        stage.renew(&story);
        let playing = stage.play(&story);
        count(&stage, &playing, outcome);
        if let Some(at) = find_unexplained(&stage, &playing) {
            look_into(&mut stage, &playing, at, outcome);
        }
    }
    outcome.packets += stage.packets;
}

fn count(stage: &Stage, playing: &Playing, outcome: &mut Outcome) {
    outcome.stories += 1;
    for case in Record::new(&stage.policy, playing).cases() {
        match (case.fate(), case.event().from) {
            (Fate { gate: true, conntrack: true }, Side::Server) => outcome.passed += 1,
            (Fate { gate: true, conntrack: true }, Side::Peer) => outcome.arrived += 1,
            (Fate { gate: false, conntrack: false }, Side::Server) => outcome.held += 1,
            _ => {
                if let Some(known) = explain(&case) {
                    outcome.known[known] += 1;
                }
            }
        }
    }
}

/// A difference that nothing explains: the least that shows it, at new routers.
fn look_into(stage: &mut Stage, playing: &Playing, at: usize, outcome: &mut Outcome) {
    let talk = only_talk(&playing.story, playing.story.events[at].talk);
    let shows = |stage: &Stage, playing: &Playing| find_unexplained(stage, playing).is_some();
    let least = shrink(stage, &talk, shows).or_else(|| shrink(stage, &playing.story, shows));
    match least {
        Some(least) => {
            stage.start_over();
            let last = stage.play(&least.story);
            let alone = shows(stage, &last);
            let note = if alone { "" } else { "it takes what was played before, too:\n" };
            let shown = describe(if alone { &last } else { &least });
            outcome.found.push(format!("{note}{shown}\n{}", stage.worlds.describe()));
        }
        None => note_passing(playing, outcome),
    }
}

/// A story with both opinions.
pub fn describe(playing: &Playing) -> String {
    let fates = playing.fates();
    let mut text = Story { talks: playing.story.talks.clone(), events: Vec::new() }.to_string();
    for (event, fate) in playing.story.events.iter().zip(&fates) {
        let opinion = match fate {
            Fate { gate: true, conntrack: true } => "passes",
            Fate { gate: false, conntrack: false } => "held",
            Fate { gate: true, conntrack: false } => "the gate passes it, conntrack HOLDS it",
            Fate { gate: false, conntrack: true } => "the gate HOLDS it, conntrack passes it",
        };
        text.push_str(&format!("{event}\n    --> {opinion}\n"));
    }
    text
}

/// Talks with pauses, all at once, while others are played.
struct Late {
    stage: Stage,
    talks: Vec<Playing>,
}

impl Late {
    fn begin(order: Order, part: u64) -> Late {
        let (mut stage, chance) = make_stage(order.seed, part);
        let policy = stage.policy.clone();
        let mut inventor = Inventor::new(chance, &policy);
        let mut talks: Vec<Playing> = Vec::new();
        for _ in 0..LATE {
            let mut playing = stage.begin(invent_late(&mut inventor, order.pause_s));
            stage.advance(&mut playing);
            talks.push(playing);
        }
        Late { stage, talks }
    }

    /// Plays on what is due. Returns when the next one is.
    fn go_on(&mut self) -> Option<Instant> {
        let now = Instant::now();
        for playing in self.talks.iter_mut().filter(|playing| !playing.is_over() && playing.due() <= now) {
            self.stage.advance(playing);
        }
        self.talks.iter().filter(|playing| !playing.is_over()).map(Playing::due).min()
    }

    fn end(mut self, outcome: &mut Outcome) {
        while let Some(due) = self.go_on() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        outcome.packets += self.stage.packets;
        for playing in &self.talks {
            if playing.overslept {
                outcome.overslept += 1;
                continue;
            }
            outcome.late += 1;
            count(&self.stage, playing, outcome);
            if find_unexplained(&self.stage, playing).is_some() && outcome.found.len() < ENOUGH {
                // not shrunk, for each play takes its pause
                let again = self.stage.play(&playing.story);
                let found = find_unexplained(&self.stage, &again).is_some();
                if found { outcome.found.push(describe(&again)) } else { note_passing(playing, outcome) }
            }
        }
    }
}

fn note_passing(playing: &Playing, outcome: &mut Outcome) {
    outcome.passing += 1;
    eprintln!("this did not come again:\n{}", describe(playing));
}
