//! The cost of the daemon in a flood, with every sink on: its share of a core, its memory, and how much it slows
//! the program down.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Options;
use crate::daemon::Daemon;
use crate::engine::{Engine, Pace, Turn};
use crate::environment::{Environment, find_sink};
use crate::generator::BPF_F_TEST_XDP_LIVE_FRAMES as LIVE;
use crate::network::{FROM_SERVERS, Network};
use crate::policy::{Shape, write_policy};
use crate::report::{Cell, Report, Section};
use crate::statistics::{Spread, zip};
use crate::tool;
use crate::traffic::{Kind, Traffic};

/// As many as the largest flood has.
const SERVERS: u32 = 256;
/// Slices of each lane in a round.
const SLICES: u32 = 24;
/// A flood runs for this long before it is measured, so that its first alarms are not counted.
const SETTLE: Duration = Duration::from_secs(12);
const FLOOD: Duration = Duration::from_secs(20);
const AT_ONCE: u32 = 1 << 18;
/// Long slices, because the daemon wakes seldom.
const PACE: Pace = Pace { frames: 65_536, warm: 4096 };

const FLOODS: &[(&str, Kind, u32)] = &[
    ("a worm on one server", Kind::Worm, 1),
    ("a worm on 256 servers", Kind::Worm, 256),
    ("one server calls every port", Kind::RandomPort, 1),
    ("16 servers call every port", Kind::RandomPort, 16),
    ("256 servers call every port", Kind::RandomPort, 256),
];

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let environment = Environment::open()?;
    let reference = environment.load_reference()?;
    let sink = find_sink(&reference)?;
    let mut lines = Vec::new();
    for (number, flood) in FLOODS.iter().enumerate() {
        lines.push(measure(options, &environment, sink.as_fd(), number, flood, report)?);
    }
    report.sections.push(Section {
        key: "daemon",
        title: "The daemon in the flood".to_owned(),
        note: format!(
            "Two routers have the same policy of {SERVERS} servers. Only one of them has a daemon, with every sink \
             on and a receiver behind each. The share of a core is measured while this router gets all frames, {} s \
             into the flood and for {} s. The ratio is that of the time of a drop on the two routers, which take turns.",
            SETTLE.as_secs(),
            FLOOD.as_secs()
        ),
        columns: vec!["flood", "Mpps", "share of a core", "RSS MiB", "peak MiB", "time of a drop, ratio"],
        lines,
    });
    Ok(())
}

fn measure(
    options: &Options,
    environment: &Environment,
    sink: std::os::fd::BorrowedFd<'_>,
    number: usize,
    flood: &(&str, Kind, u32),
    report: &mut Report,
) -> Result<Vec<Cell>> {
    let (name, kind, servers) = *flood;
    let network = Network::make(&["watched", "alone"], sink)?;
    let mut engine = Engine::load(environment, "live", |_| ())?;
    let traffic = Traffic { kind, servers, ..Traffic::default() };
    let frame = traffic.blank_frame();
    let policy = write_policy(&Shape { servers: SERVERS, ..Shape::default() });
    let [watched, alone] = [&network.lanes[0], &network.lanes[1]];
    let folder = environment.folder().join(format!("flood{number}"));
    let daemon = Daemon::start(&watched.router, &folder, &policy, true)?;
    let path = folder.join("alone.toml");
    std::fs::write(&path, &policy)?;
    tool::attach(&alone.router, &alone.nic, &path)?;

    network.dmz.visit()?;
    engine.plan(&[traffic], FROM_SERVERS)?;
    let turns = [watched, alone].map(|lane| Turn { target: lane.from_servers, plan: 0 });
    engine.schedule_one(turns[0])?;
    flood_for(&engine, &frame, SETTLE)?;
    let before = daemon.cpu_time()?;
    let start = Instant::now();
    let sent = flood_for(&engine, &frame, FLOOD)?;
    let mpps = sent as f64 / start.elapsed().as_secs_f64() / 1e6;
    let share = before.share_until(daemon.cpu_time()?);
    let (rss, peak) = daemon.memory_mib()?;

    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        let round = engine.interleave("generate", &frame, LIVE, &turns, PACE, SLICES)?;
        for (series, slices) in times.iter_mut().zip(&round) {
            // the mean, not the median: the daemon runs seldom and then costs much
            series.push(slices.iter().sum::<f64>() / slices.len() as f64);
        }
    }
    drop(daemon);
    for lane in &network.lanes {
        tool::detach(&lane.router, &lane.nic);
    }
    let ratio = zip(&times[0], &times[1], |watched, alone| watched / alone);
    let line = vec![
        Cell::Text(name.to_owned()),
        Cell::Text(format!("{mpps:.2}")),
        Cell::Text(format!("{:.1} %", share * 100.0)),
        Cell::Text(format!("{rss:.0}")),
        Cell::Text(format!("{peak:.0}")),
        Cell::Ratio(Spread::of(&ratio)),
    ];
    report.hold(
        format!("the daemon, {name}: 5 % of a core"),
        format!("daemon/share/{name}"),
        vec![share],
        0.05,
    );
    report.hold(format!("the daemon, {name}: 64 MiB"), format!("daemon/peak/{name}"), vec![peak], 64.0);
    report.hold(
        format!("a drop with a daemon to one without, {name}: 1.02 times"),
        format!("daemon/ratio/{name}"),
        ratio,
        1.02,
    );
    Ok(line)
}

fn flood_for(engine: &Engine, frame: &[u8], time: Duration) -> Result<u64> {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        engine.run("generate", frame, LIVE, AT_ONCE)?;
        sent += u64::from(AT_ONCE);
    }
    Ok(sent)
}
