//! The cost of programs by test run, beside reference programs that do one thing each.
//!
//! A driver writes each frame and calls the program under test. The time of a program that only drops is
//! subtracted. All programs take turns within one call.

use anyhow::{Context as _, Result};

use crate::Options;
use crate::candidates::{BASE, Candidates, Driver, LRU_INSERT};
use crate::cases::{ADDRESSES, Case, LRU, MAIN, SERVERS, VARIANT, Verdict, cases};
use crate::engine::{Pace, Turn};
use crate::environment::Environment;
use crate::network::{FROM_OUTSIDE, FROM_SERVERS};
use crate::report::{Cell, Report, Section};
use crate::statistics::{Spread, median, zip};
use crate::traffic::{Kind, Traffic};

/// Slices of each program in a round. They are long enough to warm the rows of 4,096 servers.
const SLICES: u32 = 3;
const PACE: Pace = Pace { frames: 16_384, warm: 8192 };
/// The base a second time. The difference between the two is the noise.
const AGAIN: &str = "base again (noise)";
/// Flows of new connections at egress. No table holds as many, so each is new.
const NEW_FLOWS: u32 = 4_000_000;

/// One program with the traffic of one case.
struct Item {
    case: usize,
    program: &'static str,
    driver: Driver,
    turn: Turn,
    series: Vec<f64>,
}

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let environment = Environment::open()?;
    let mut candidates = Candidates::build(&environment, options.variant.as_deref())?;
    let cases = cases();
    for case in &cases {
        for program in &case.programs(options.variant.is_some()) {
            // a lookup passes every frame that it finds
            let verdict = if [ADDRESSES, LRU].contains(program) { Verdict::Pass } else { case.verdict };
            candidates.prove(program, &case.traffic, verdict)?;
        }
    }
    measure_filters(options, report, &mut candidates, &cases)?;
    measure_tracker(options, report, &mut candidates)
}

fn measure_filters(
    options: &Options,
    report: &mut Report,
    candidates: &mut Candidates,
    cases: &[Case],
) -> Result<()> {
    let mut items = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut add = |driver, program, name: &str| -> Result<()> {
            let turn = Turn { target: candidates.find_at(driver, name)?, plan: number as u32 };
            items.push(Item { case: number, program, driver, turn, series: Vec::new() });
            Ok(())
        };
        add(Driver::Filter, BASE, BASE)?;
        add(Driver::Filter, AGAIN, BASE)?;
        for program in case.programs(options.variant.is_some()) {
            let driver = candidates.find(program)?.0;
            add(driver, program, program)?;
            if driver == Driver::Plain {
                add(driver, BASE, BASE)?;
            }
        }
    }
    let plans: Vec<Traffic> = cases.iter().map(|case| case.traffic).collect();
    candidates.engine.plan(&plans, FROM_SERVERS)?;
    let frame = vec![0; 74]; // the longest of them
    measure_items(options, candidates, &frame, &mut items)?;

    let mut lines = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let find = |program: &str, driver: Option<Driver>| {
            let is_it = |item: &&Item| {
                item.case == number
                    && item.program == program
                    && driver.is_none_or(|driver| item.driver == driver)
            };
            items.iter().find(is_it).with_context(|| format!("no times of {program}"))
        };
        let cost = |program: &str| -> Result<Vec<f64>> {
            let own = find(program, None)?;
            let base = find(BASE, Some(own.driver))?;
            Ok(zip(&own.series, &base.series, |own, base| own - base))
        };
        for program in case.programs(options.variant.is_some()).iter().chain([&AGAIN]) {
            let own = cost(program)?;
            let other = if *program == VARIANT { MAIN } else { case.beside };
            let compared = *program != case.beside && *program != AGAIN;
            let ratio = match compared {
                true => Cell::Ratio(Spread::of(&zip(&own, &cost(other)?, |own, other| own / other))),
                false => Cell::Nothing,
            };
            if *program != AGAIN || number == 0 {
                lines.push(vec![
                    Cell::Text(case.title.to_owned()),
                    Cell::Text((*program).to_owned()),
                    ratio,
                    Cell::Text(if compared { other.to_owned() } else { String::new() }),
                    Cell::Ns(Spread::of(&own)),
                ]);
            }
            report.record(format!("cost/{}/{program}", case.key), own);
        }
    }
    report.sections.push(Section {
        key: "cost",
        title: "The cost of programs".to_owned(),
        note: "Measured by test run on one core, in nanoseconds above a program that drops the same frames without \
               a look. References parse the frame and then do the one thing in their name. Gates count in the \
               ledger, and their samples are read. `xdp-filter, all but ports` drops every port that its list \
               lacks, as a policy does."
            .to_owned(),
        columns: vec!["traffic", "program", "ratio", "to", "ns"],
        lines,
    });
    Ok(())
}

/// Measures the tracker, which sees packets from outside.
fn measure_tracker(options: &Options, report: &mut Report, candidates: &mut Candidates) -> Result<()> {
    let opening = Traffic { servers: SERVERS, flows: NEW_FLOWS, ..Traffic::of(Kind::Opening) };
    let warm = Traffic { servers: SERVERS, flows: crate::cases::WARM, ..Traffic::of(Kind::Completion) };
    let cases: [(&'static str, &'static str, Traffic, &[&'static str]); 2] = [
        ("opening", "new inbound connections, at egress", opening, &[MAIN, LRU_INSERT]),
        ("inbound", "segments of 1,000 flows, at egress", warm, &[MAIN]),
    ];
    let variant = options.variant.is_some().then_some(VARIANT);
    let mut items = Vec::new();
    let mut plans = Vec::new();
    for (number, (_, _, traffic, programs)) in cases.iter().enumerate() {
        for program in [BASE].into_iter().chain(variant).chain(programs.iter().copied()) {
            // a plan of its own for each: with a shared one each would get every third flow only
            let turn =
                Turn { target: candidates.find_at(Driver::Tracker, program)?, plan: plans.len() as u32 };
            plans.push(*traffic);
            items.push(Item { case: number, program, driver: Driver::Tracker, turn, series: Vec::new() });
        }
    }
    candidates.engine.plan(&plans, FROM_OUTSIDE)?;
    measure_items(options, candidates, &opening.blank_frame(), &mut items)?;

    let mut lines = Vec::new();
    for (number, (key, title, _, programs)) in cases.iter().enumerate() {
        let find = |program: &str| {
            let item = items.iter().find(|item| item.case == number && item.program == program);
            item.map(|item| item.series.clone()).unwrap_or_default()
        };
        let cost = |program: &str| zip(&find(program), &find(BASE), |own, base| own - base);
        for program in variant.into_iter().chain(programs.iter().copied()) {
            let own = cost(program);
            let beside = programs.contains(&LRU_INSERT) && program != LRU_INSERT;
            let ratio = match beside {
                true => Cell::Ratio(Spread::of(&zip(&own, &cost(LRU_INSERT), |own, insert| own / insert))),
                false => Cell::Nothing,
            };
            lines.push(vec![
                Cell::Text((*title).to_owned()),
                Cell::Text(program.to_owned()),
                ratio,
                Cell::Text(if beside { LRU_INSERT.to_owned() } else { String::new() }),
                Cell::Ns(Spread::of(&own)),
            ]);
            report.record(format!("cost/{key}/{program}"), own);
        }
    }
    if let Some(section) = report.sections.iter_mut().find(|section| section.key == "cost") {
        section.lines.extend(lines);
    }
    Ok(())
}

fn measure_items(
    options: &Options,
    candidates: &mut Candidates,
    frame: &[u8],
    items: &mut [Item],
) -> Result<()> {
    for _ in 0..options.rounds {
        for driver in Driver::ALL {
            let mut own: Vec<&mut Item> = items.iter_mut().filter(|item| item.driver == driver).collect();
            if own.is_empty() {
                continue;
            }
            let turns: Vec<Turn> = own.iter().map(|item| item.turn).collect();
            let round = candidates.engine.interleave(driver.program(), frame, 0, &turns, PACE, SLICES)?;
            for (item, slices) in own.iter_mut().zip(&round) {
                item.series.push(median(slices));
            }
            candidates.drain()?;
        }
    }
    Ok(())
}
