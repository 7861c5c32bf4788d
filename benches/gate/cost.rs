//! What programs cost by test run, next to programs that do one thing.
//!
//! A driver writes each frame and calls the program under test; what it takes to call one that
//! only says drop is subtracted. All of it takes turns within one call.

use anyhow::{Context as _, Result};

use crate::Options;
use crate::cases::{ADDRESSES, Case, LRU, MAIN, SERVERS, VARIANT, Verdict, cases};
use crate::engine::{Pace, Turn};
use crate::environment::Environment;
use crate::netns_lab::{BASE, Driver, LRU_INSERT, NetnsLab};
use crate::network::{FROM_OUTSIDE, FROM_SERVERS};
use crate::report::{Cell, Report, Section};
use crate::statistics::{Spread, median, zip};
use crate::traffic::{Kind, Traffic};

/// Slices of each program in a round, and how long: the rows of 4,096 servers become warm.
const SLICES: u32 = 3;
const PACE: Pace = Pace { frames: 16_384, warm: 8192 };
/// A second time the base: the difference is the noise.
const AGAIN: &str = "base again (noise)";
/// New flows at egress: more than any table holds, so that each is new.
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
    let mut netns_lab = NetnsLab::build(&environment, options.variant.as_deref())?;
    let cases = cases();
    for case in &cases {
        for program in &case.programs(options.variant.is_some()) {
            // a lookup alone says that it hit
            let verdict = if [ADDRESSES, LRU].contains(program) { Verdict::Pass } else { case.verdict };
            netns_lab.prove(program, &case.traffic, verdict)?;
        }
    }
    measure_filters(options, report, &mut netns_lab, &cases)?;
    measure_tracker(options, report, &mut netns_lab)
}

fn measure_filters(
    options: &Options,
    report: &mut Report,
    netns_lab: &mut NetnsLab,
    cases: &[Case],
) -> Result<()> {
    let mut items = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut add = |driver, program, name: &str| -> Result<()> {
            let turn = Turn { target: netns_lab.find_at(driver, name)?, plan: number as u32 };
            items.push(Item { case: number, program, driver, turn, series: Vec::new() });
            Ok(())
        };
        add(Driver::Filter, BASE, BASE)?;
        add(Driver::Filter, AGAIN, BASE)?;
        for program in case.programs(options.variant.is_some()) {
            let driver = netns_lab.find(program)?.0;
            add(driver, program, program)?;
            if driver == Driver::Plain {
                add(driver, BASE, BASE)?;
            }
        }
    }
    let plans: Vec<Traffic> = cases.iter().map(|case| case.traffic).collect();
    netns_lab.engine.plan(&plans, FROM_SERVERS)?;
    let frame = vec![0; 74]; // as long as the longest
    measure_items(options, netns_lab, &frame, &mut items)?;

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
        title: "What programs cost".to_owned(),
        note: "By test run on one core: nanoseconds over a program that only says drop, which sees the same \
               frames. References parse the frame before they do the one thing that they are called by. \
               The gates count in the ledger, and their samples are read. `xdp-filter, all but ports` denies \
               what its list does not have, as a policy does."
            .to_owned(),
        columns: vec!["traffic", "program", "ratio", "to", "ns"],
        lines,
    });
    Ok(())
}

/// At the other hook: what comes in from outside.
fn measure_tracker(options: &Options, report: &mut Report, netns_lab: &mut NetnsLab) -> Result<()> {
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
            // a plan of its own for each, or they would see every third flow only
            let turn =
                Turn { target: netns_lab.find_at(Driver::Tracker, program)?, plan: plans.len() as u32 };
            plans.push(*traffic);
            items.push(Item { case: number, program, driver: Driver::Tracker, turn, series: Vec::new() });
        }
    }
    netns_lab.engine.plan(&plans, FROM_OUTSIDE)?;
    measure_items(options, netns_lab, &opening.blank_frame(), &mut items)?;

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
    netns_lab: &mut NetnsLab,
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
            let round = netns_lab.engine.interleave(driver.program(), frame, 0, &turns, PACE, SLICES)?;
            for (item, slices) in own.iter_mut().zip(&round) {
                item.series.push(median(slices));
            }
            netns_lab.drain()?;
        }
    }
    Ok(())
}
