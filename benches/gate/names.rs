//! What names as destinations cost: packets that have nothing to do with DNS, questions, answers, and SYNs by a name.
//!
//! Gates with and without names take turns. Questions go through the filter before their answers go through the
//! tracker, for an answer counts once, and only when its question was noted.

use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Result, bail};
use portcullis::abi::name_count;
use portcullis::compile::compile;
use portcullis::gate::{Consumer, Gate};
use portcullis::policy::parse;

use crate::Options;
use crate::engine::{Engine, Pace, Turn};
use crate::environment::{Environment, find_program};
use crate::network::{FROM_OUTSIDE, FROM_SERVERS};
use crate::report::{Cell, Report, Section};
use crate::statistics::{Spread, median, zip};
use crate::traffic::{Kind, Traffic};

/// Questions under way, each with an id of its own, and how often they are asked and answered in a round.
const QUESTIONS: u32 = 256;
const REPETITIONS: u32 = 48;
/// Short: of many slices few are interrupted.
const PACE: Pace = Pace { frames: QUESTIONS, warm: 64 };
/// Addresses that SYNs by a name go to.
const GRANTED: u32 = 256;
/// Flows that segments belong to.
const FLOWS: u32 = 1000;
const BY_NAME: u16 = 443;
const XDP_PASS: u32 = 2;

const WITHOUT: &str = "without names";
const WITH: &str = "with names";
/// Each answer brings addresses that are not granted, and rows have to make room for them.
const FULL: &str = "with names, all rows taken";
/// Its role has `dns = "named"`, so the filter judges what is asked.
const JUDGED: &str = "with names, questions judged";

/// Addresses of answers that always bring others: more than a share of 1,024 has room for.
const CHANGING: u32 = 2048;

/// Room for grants. A server's share is a fourth of it.
const GATES: [(&str, u32); 4] = [(WITHOUT, 1024), (WITH, 1 << 14), (FULL, 1 << 12), (JUDGED, 1 << 14)];

fn write_policy(gate: &str, grants: u32) -> String {
    let dns = if gate == JUDGED { "dns = \"named\"\n" } else { "" };
    let (head, to) = match gate != WITHOUT {
        true => (
            "[names]\nresolvers = [\"127.0.0.53\"]\nprivate = [\"198.19.0.0/16\"]\n",
            " to deb.vendor.example",
        ),
        false => ("", ""),
    };
    format!(
        "[policy]\npickup = 0\n{head}\
         [roles.r]\nin = [\"tcp/80\"]\nout = [\"udp/53 to 127.0.0.53\", \"tcp/587\", \"tcp/{BY_NAME}{to}\"]\n{dns}\
         [servers.s]\naddresses = [\"198.18.0.0\"]\nroles = [\"r\"]\n\
         [tables]\ngrants = {grants}\n"
    )
}

/// One line of the table: which program of each gate gets which traffic.
struct Case {
    key: &'static str,
    title: &'static str,
    traffic: Traffic,
    tracker: bool,
    gates: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    let of = |kind| Traffic { flows: FLOWS, ..Traffic::of(kind) };
    let messages = |kind, addresses| Traffic { flows: QUESTIONS, servers: addresses, ..Traffic::of(kind) };
    let case = |key, title, traffic, tracker, gates| Case { key, title, traffic, tracker, gates };
    const BOTH: &[&str] = &[WITHOUT, WITH];
    const ALL: &[&str] = &[WITHOUT, WITH, FULL, JUDGED];
    const CHANGES: &[&str] = &[WITHOUT, FULL];
    vec![
        case("reply", "replies of 1,000 flows", of(Kind::Reply), false, BOTH),
        case("outbound", "SYNs by a need without a name", of(Kind::Outbound), false, BOTH),
        case("inbound", "segments of 1,000 flows, at egress", of(Kind::Completion), true, BOTH),
        // in this order: an answer is to a question, and a SYN to what was answered
        case("question", "questions", messages(Kind::Question, 0), false, ALL),
        case("answer", "answers of four addresses", messages(Kind::Resolution, GRANTED), true, BOTH),
        case(
            "change",
            "answers of four other addresses",
            messages(Kind::Resolution, CHANGING),
            true,
            CHANGES,
        ),
        case("named", "SYNs by a name, of new connections", named(65_536), false, BOTH),
        case("named again", "SYNs by a name, sent again", named(1), false, BOTH),
    ]
}

/// SYNs to addresses that were answered. `servers` says from how many ports, for there is one server.
fn named(ports: u32) -> Traffic {
    Traffic { need: BY_NAME, flows: GRANTED, servers: ports, ..Traffic::of(Kind::Named) }
}

impl Case {
    fn is_of_messages(&self) -> bool {
        matches!(self.traffic.kind, Kind::Question | Kind::Resolution)
    }
}

struct NameGates {
    engine: Engine,
    gates: Vec<(&'static str, &'static Gate)>,
    consumers: Vec<Consumer<'static>>,
}

impl NameGates {
    fn build(environment: &Environment) -> Result<NameGates> {
        let reference = environment.load_reference()?;
        let engine = Engine::load(environment, "drive", |_| ())?;
        let (mut gates, mut consumers) = (Vec::new(), Vec::new());
        for (name, grants) in GATES {
            let policy = parse(&write_policy(name, grants), "bench.toml")
                .map_err(|errors| anyhow::anyhow!("{errors}"))?;
            let tables = compile(&policy).map_err(|errors| anyhow::anyhow!("{errors}"))?;
            let gate: &'static Gate = Box::leak(Box::new(Gate::load(&policy, &tables)?));
            consumers.push(gate.consume_samples()?);
            gates.push((name, gate));
        }
        for (map, base) in [("filters", "bare_drop"), ("trackers", "bare_next")] {
            let base = find_program(&reference, base)?.as_fd().try_clone_to_owned()?;
            let own: Vec<_> = gates
                .iter()
                .map(|(_, gate)| match map {
                    "filters" => gate.programs.filter.as_fd(),
                    _ => gate.programs.track.as_fd(),
                })
                .collect();
            let list: Vec<_> = (0..).zip([base.as_fd()].into_iter().chain(own)).collect();
            engine.install(map, &list)?;
        }
        let mut bench = NameGates { engine, gates, consumers };
        for target in 1..=bench.gates.len() as u32 {
            for (kind, tracker) in [(Kind::Opening, true), (Kind::Answer, false), (Kind::Completion, true)] {
                let traffic = Traffic { flows: FLOWS, ..Traffic::of(kind) };
                bench.run(target, &traffic, tracker, FLOWS)?;
            }
        }
        Ok(bench)
    }

    /// The number of a program among those of its driver.
    fn find(&self, name: &str) -> u32 {
        self.gates.iter().position(|(gate, _)| *gate == name).map_or(0, |number| number as u32 + 1)
    }

    fn run(&mut self, target: u32, traffic: &Traffic, tracker: bool, frames: u32) -> Result<u32> {
        self.engine.plan(&[*traffic], if tracker { FROM_OUTSIDE } else { FROM_SERVERS })?;
        self.engine.schedule_one(Turn { target, plan: 0 })?;
        self.engine.run(driver(tracker), &traffic.blank_frame(), 0, frames)
    }

    /// Nanoseconds a frame of each gate, the base first, slice by slice.
    fn measure(&mut self, case: &Case) -> Result<Vec<Vec<f64>>> {
        let targets: Vec<u32> =
            [0].into_iter().chain(case.gates.iter().map(|gate| self.find(gate))).collect();
        let turns: Vec<Turn> =
            (0..).zip(&targets).map(|(plan, target)| Turn { target: *target, plan }).collect();
        let plans = vec![case.traffic; turns.len()];
        self.engine.plan(&plans, if case.tracker { FROM_OUTSIDE } else { FROM_SERVERS })?;
        let slices = if case.is_of_messages() { 1 } else { REPETITIONS };
        let frame = case.traffic.blank_frame();
        self.engine.interleave(driver(case.tracker), &frame, 0, &turns, PACE, slices)
    }

    /// A round: medians for each case and gate. Messages go first, each question before its answer.
    fn measure_all(&mut self, cases: &[Case]) -> Result<Vec<Vec<f64>>> {
        let mut times: Vec<Vec<Vec<f64>>> =
            cases.iter().map(|case| vec![Vec::new(); case.gates.len() + 1]).collect();
        for _ in 0..REPETITIONS {
            for (case, times) in cases.iter().zip(&mut times).filter(|(case, _)| case.is_of_messages()) {
                times.iter_mut().zip(self.measure(case)?).for_each(|(times, more)| times.extend(more));
            }
        }
        for (case, times) in cases.iter().zip(&mut times).filter(|(case, _)| !case.is_of_messages()) {
            *times = self.measure(case)?;
        }
        for consumer in &self.consumers {
            consumer.poll(Duration::ZERO)?;
        }
        Ok(times.iter().map(|gates| gates.iter().map(|slices| median(slices)).collect()).collect())
    }

    fn count(&self, what: name_count) -> Result<Vec<u64>> {
        let counts = self.gates.iter().map(|(_, gate)| Ok(gate.name_counts()?[what.0 as usize]));
        counts.collect()
    }

    /// Fails unless names did what they are for since these counts.
    fn prove(&mut self, before: &[u64; 2]) -> Result<()> {
        let after = self.totals()?;
        // of two gates at least; a few push each other out
        let all = u64::from(QUESTIONS * REPETITIONS) * 2;
        if (0..2).any(|what| after[what] - before[what] < all * 97 / 100) {
            bail!("of {all} questions too few counted: {before:?} to {after:?}");
        }
        let verdict = self.run(self.find(WITH), &named(1), false, 1)?;
        if verdict != XDP_PASS {
            bail!("a SYN by a name got {verdict}");
        }
        Ok(())
    }

    /// Questions that were noted, and answers that were read.
    fn totals(&self) -> Result<[u64; 2]> {
        Ok([
            self.count(name_count::NAME_QUERY_NOTED)?.iter().sum(),
            self.count(name_count::NAME_ANSWER_READ)?.iter().sum(),
        ])
    }
}

fn driver(tracker: bool) -> &'static str {
    if tracker { "drive_tracker" } else { "drive_filter" }
}

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let environment = Environment::open()?;
    let mut bench = NameGates::build(&environment)?;
    let cases = cases();
    let mut series: Vec<Vec<Vec<f64>>> =
        cases.iter().map(|case| vec![Vec::new(); case.gates.len() + 1]).collect();
    // the first round fills the tables
    for round in 0..=options.rounds {
        let before = bench.totals()?;
        for (times, series) in bench.measure_all(&cases)?.into_iter().zip(&mut series) {
            if round > 0 {
                series.iter_mut().zip(times).for_each(|(series, time)| series.push(time));
            }
        }
        bench.prove(&before)?;
    }
    let mut lines = Vec::new();
    for (case, series) in cases.iter().zip(&series) {
        let cost = |at: usize| zip(&series[at], &series[0], |own, base| own - base);
        let without = cost(1);
        for (at, gate) in (1..).zip(case.gates) {
            let own = cost(at);
            let more = zip(&own, &without, |own, without| own - without);
            let is_without = *gate == WITHOUT;
            lines.push(vec![
                Cell::Text(case.title.to_owned()),
                Cell::Text((*gate).to_owned()),
                if is_without { Cell::Nothing } else { Cell::Ns(Spread::of(&more)) },
                Cell::Ns(Spread::of(&own)),
            ]);
            report.record(format!("names/{}/{gate}", case.key), own.clone());
            let key = format!("names/{}/{gate}/bound", case.key);
            match (case.key, *gate) {
                ("reply" | "outbound" | "inbound", WITH) => {
                    report.hold(format!("names on, {}: 3 ns more", case.title), key, more, 3.0);
                }
                ("answer" | "change", WITH | FULL) => {
                    report.hold(format!("{}, {gate}: 1 µs", case.title), key, own, 1000.0);
                }
                _ => {}
            }
        }
    }
    report.sections.push(Section {
        key: "names",
        title: "Names as destinations".to_owned(),
        note: format!(
            "Measured by test run on one core, in nanoseconds above a program that drops the same frames without a \
             look. Gates with and without names take turns. *More* is the difference to the gate without names, \
             round by round. {QUESTIONS} questions are under way at a time, and their answers have {GRANTED} \
             addresses, which are granted anew. With all rows taken, each of an answer's four addresses takes the \
             row of another. A new connection takes the place of one that is still open: the worst case."
        ),
        columns: vec!["traffic", "gate", "more, ns", "ns"],
        lines,
    });
    Ok(())
}
