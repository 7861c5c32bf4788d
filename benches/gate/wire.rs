//! The time that a filter adds to a packet that it drops, and to one that is forwarded, over veth.

use std::os::fd::AsFd as _;

use anyhow::{Result, bail};

use crate::Options;
use crate::engine::{Engine, Pace, Turn};
use crate::environment::{Environment, find_sink};
use crate::filters::{
    DROP, DROP_AGAIN, Duty, FILTERS, Filter, Filters, Listener, PASS, PASS_AGAIN, SERVICE, STRICT,
    fill_ports, tear_down,
};
use crate::generator::BPF_F_TEST_XDP_LIVE_FRAMES as LIVE;
use crate::network::{FROM_OUTSIDE, FROM_SERVERS, Lane, Network};
use crate::report::{Cell, Report, Section};
use crate::statistics::{Spread, median, zip};
use crate::traffic::{Kind, Traffic};

/// Number of flows that permitted packets belong to. Each packet takes one at random.
const FLOWS: u32 = 1000;
/// Number of servers in the policy and in the flows.
const SERVERS: u32 = 256;
/// Frames that each filter is checked with, before and after it is measured.
const PROOF: u32 = 20_000;
/// Slices of each lane in a round. They are long enough to warm a thousand flows.
const SLICES: u32 = 5;
const PACE: Pace = Pace { frames: 8192, warm: 3072 };

struct Wire {
    network: Network,
    engine: Engine,
    frame: Vec<u8>,
    listeners: Vec<Listener>,
}

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let environment = Environment::open()?;
    let reference = environment.load_reference()?;
    fill_ports(&reference)?;
    let mut wire = Wire::build(&environment, &reference)?;
    wire.open_flows()?;
    for (number, filter) in FILTERS.iter().enumerate() {
        wire.prove(filter, number)?;
    }
    let dropped = wire.measure(options, Duty::Drop)?;
    let passed = wire.measure(options, Duty::Pass)?;
    for (number, filter) in FILTERS.iter().enumerate() {
        wire.prove(filter, number)?; // nothing has changed meanwhile
    }
    write_section(report, &dropped, &passed);
    Ok(())
}

/// Nanoseconds a packet, by filter and round by round.
type Times = Vec<(&'static str, Vec<f64>)>;

impl Wire {
    fn build(environment: &Environment, reference: &libbpf_rs::Object) -> Result<Wire> {
        let names: Vec<&'static str> = FILTERS.iter().map(|filter| filter.name).collect();
        let network = Network::make(&names, find_sink(reference)?.as_fd())?;
        let engine = Engine::load(environment, "live", |_| ())?;
        let frame = Traffic::default().blank_frame();
        let mut wire = Wire { network, engine, frame, listeners: Vec::new() };
        let filters = Filters { reference, folder: environment.folder() };
        for (filter, lane) in FILTERS.iter().zip(&wire.network.lanes) {
            wire.listeners.extend(filter.set_up(&filters, lane)?);
        }
        Ok(wire)
    }

    /// Sends the handshakes of all flows through every filter.
    fn open_flows(&mut self) -> Result<()> {
        for number in 0..self.network.lanes.len() {
            for kind in [Kind::Opening, Kind::Answer, Kind::Completion] {
                let traffic = Traffic { kind, servers: SERVERS, flows: FLOWS, ..Traffic::default() };
                self.send(number, &traffic, FLOWS)?;
            }
        }
        Ok(())
    }

    /// Sends frames through one lane.
    fn send(&mut self, lane: usize, traffic: &Traffic, frames: u32) -> Result<()> {
        let from_outside = matches!(traffic.kind, Kind::Opening | Kind::Completion);
        let (space, macs, target) = match from_outside {
            true => (&self.network.outside, FROM_OUTSIDE, self.network.lanes[lane].from_outside),
            false => (&self.network.dmz, FROM_SERVERS, self.network.lanes[lane].from_servers),
        };
        space.visit()?;
        self.engine.plan(&[*traffic], macs)?;
        self.engine.schedule_one(Turn { target, plan: 0 })?;
        self.engine.run("generate", &self.frame, LIVE, frames)?;
        Ok(())
    }

    /// Checks that a filter drops every forbidden packet and passes every permitted one.
    fn prove(&mut self, filter: &Filter, lane: usize) -> Result<()> {
        let permitted = Traffic { kind: Kind::Reply, servers: SERVERS, flows: FLOWS, ..Traffic::default() };
        if filter.duty != Duty::Drop {
            self.prove_kind(filter, lane, &permitted, PROOF)?;
        }
        if filter.duty == Duty::Pass {
            return Ok(());
        }
        if filter.knows_all && filter.duty == Duty::Both {
            let permitted = Traffic { servers: SERVERS, ..Traffic::of(Kind::Outbound) };
            self.prove_kind(filter, lane, &permitted, PROOF)?;
        }
        let kinds: &[Kind] =
            if filter.knows_all { &[Kind::Worm, Kind::Scatter, Kind::RandomPort] } else { &[Kind::Worm] };
        for kind in kinds {
            self.prove_kind(filter, lane, &Traffic { servers: SERVERS, ..Traffic::of(*kind) }, 0)?;
        }
        Ok(())
    }

    fn prove_kind(&mut self, filter: &Filter, lane: usize, traffic: &Traffic, passes: u32) -> Result<()> {
        let before = self.network.lanes[lane].count()?;
        self.send(lane, traffic, PROOF)?;
        let after = self.network.lanes[lane].count()?;
        let (came, went) = (after.came_in - before.came_in, after.went_out - before.went_out);
        if came != u64::from(PROOF) || went != u64::from(passes) {
            bail!(
                "the filter `{}` passed {went} of {came} frames that came in ({:?}), expected: {passes} of {PROOF}",
                filter.name,
                traffic.kind
            );
        }
        Ok(())
    }

    /// Measures all filters of a duty, in turns.
    fn measure(&mut self, options: &Options, duty: Duty) -> Result<Times> {
        let traffic = match duty {
            Duty::Drop => Traffic::of(Kind::Worm),
            Duty::Both | Duty::Pass => {
                Traffic { kind: Kind::Reply, servers: SERVERS, flows: FLOWS, ..Traffic::default() }
            }
        };
        let lanes: Vec<&Lane> = FILTERS
            .iter()
            .zip(&self.network.lanes)
            .filter(|(filter, _)| filter.duty == Duty::Both || filter.duty == duty)
            .map(|(_, lane)| lane)
            .collect();
        let turns: Vec<Turn> = lanes.iter().map(|lane| Turn { target: lane.from_servers, plan: 0 }).collect();
        let mut times: Times = lanes.iter().map(|lane| (lane.name, Vec::new())).collect();
        self.network.dmz.visit()?;
        self.engine.plan(&[traffic], FROM_SERVERS)?;
        let before: Vec<u64> = lanes.iter().map(|lane| Ok(lane.count()?.came_in)).collect::<Result<_>>()?;
        for _ in 0..options.rounds {
            let round = self.engine.interleave("generate", &self.frame, LIVE, &turns, PACE, SLICES)?;
            for (slot, slices) in times.iter_mut().zip(&round) {
                slot.1.push(median(slices));
            }
        }
        let expected = u64::from(PACE.frames) * u64::from(SLICES) * u64::from(options.rounds);
        for (lane, before) in lanes.iter().zip(before) {
            let came = lane.count()?.came_in - before;
            // one more frame ends each round, in some lane
            if came < expected {
                eprintln!("warning: {} of {expected} frames did not reach `{}`", expected - came, lane.name);
            }
        }
        Ok(times)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.listeners.clear();
        for lane in &self.network.lanes {
            tear_down(lane);
        }
    }
}

fn write_section(report: &mut Report, dropped: &Times, passed: &Times) {
    let find = |times: &Times, name: &str| {
        times.iter().find(|(other, _)| *other == name).map(|(_, series)| series.clone())
    };
    let (drop_base, pass_base) =
        (find(dropped, DROP).unwrap_or_default(), find(passed, PASS).unwrap_or_default());
    let mut lines = Vec::new();
    for filter in FILTERS {
        let mut line = vec![Cell::Text(filter.name.to_owned())];
        for (key, times, base) in [("drop", dropped, &drop_base), ("pass", passed, &pass_base)] {
            let Some(series) = find(times, filter.name) else {
                line.extend([Cell::Nothing, Cell::Nothing]);
                continue;
            };
            let (ratio, added) =
                (zip(&series, base, |own, base| own / base), zip(&series, base, |own, base| own - base));
            line.push(Cell::Ratio(Spread::of(&ratio)));
            line.push(Cell::Ns(Spread::of(&added)));
            report.record(format!("wire/{key}/{}", filter.name), added);
            report.record(format!("wire/{key} ratio/{}", filter.name), ratio);
        }
        lines.push(line);
    }
    let at = |series: &[f64]| Spread::of(series).median;
    let noise = |kind: &str, name: &str| {
        let ratios = report.series(&format!("wire/{kind} ratio/{name}")).unwrap_or_default();
        ratios.iter().map(|ratio| (ratio - 1.0).abs() * 100.0).fold(0.0, f64::max)
    };
    let noise = [noise("drop", DROP_AGAIN), noise("pass", PASS_AGAIN)];
    report.sections.push(Section {
        key: "wire",
        title: "On the wire".to_owned(),
        note: format!(
            "Veth between three namespaces, one core, frames of 60 bytes. The dropped packets are a worm's SYNs from \
             one server, each to another peer from another port. A bare drop takes {:.0} ns, the generator \
             included. The passed packets are segments of {FLOWS} warm flows of {SERVERS} servers, which the kernel \
             forwards. With a bare pass that takes {:.0} ns. `{STRICT}` and `{SERVICE}` count in the ledger, and \
             their samples are read. The base differs from itself by {:.1} % of a drop and {:.1} % of a pass at most.",
            at(&drop_base),
            at(&pass_base),
            noise[0],
            noise[1]
        ),
        columns: vec!["filter", "drop, ratio", "drop adds ns", "pass, ratio", "pass adds ns"],
        lines,
    });
}
