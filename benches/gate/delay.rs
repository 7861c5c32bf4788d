//! The time from a drop to its alarm on standard error and in EVE, idle and in a flood.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::daemon::Daemon;
use crate::environment::{Environment, find_sink};
use crate::generator::Generator;
use crate::network::{FROM_SERVERS, Namespace, Network};
use crate::policy::{Shape, write_policy};
use crate::report::{Cell, Report, Section};
use crate::tool::detach;
use crate::traffic::{Kind, Traffic};
use crate::{Options, cpu};

/// Number of alarms that are timed, each about a server that had none before.
const ATTEMPTS: u32 = 300;
/// Servers that make the flood. Each other server makes one attempt.
const FLOODING: u32 = 16;
const SERVERS: u32 = FLOODING + ATTEMPTS;
/// The port that each sends a datagram to.
const PORT: u16 = 4444;
/// How long to wait for one alarm.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this time a datagram is sent again, for the flood fills the ring before the gate and the first one may
/// be lost there. The note of the table says how often, because an alarm that was only late is among them.
const AGAIN: Duration = Duration::from_secs(1);
/// Pause between two reads of the files.
const LOOK: Duration = Duration::from_micros(200);
/// How long a flood runs before the first attempt.
const SETTLE: Duration = Duration::from_secs(5);

const SITUATIONS: &[(&str, Option<(Kind, u32)>)] = &[
    ("idle", None),
    ("a worm on 16 servers", Some((Kind::Worm, FLOODING))),
    ("16 servers call every port", Some((Kind::RandomPort, FLOODING))),
];

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let environment = Environment::open()?;
    let reference = environment.load_reference()?;
    let sink = find_sink(&reference)?;
    let attempts = if options.quick { ATTEMPTS / 6 } else { ATTEMPTS };
    let mut lines = Vec::new();
    let mut repeated = Vec::new();
    for (number, (name, flood)) in SITUATIONS.iter().enumerate() {
        let network = Network::make(&["watched"], std::os::fd::AsFd::as_fd(&sink))?;
        let policy = write_policy(&Shape { servers: SERVERS, ..Shape::default() });
        let router = &network.lanes[0].router;
        route(&network.dmz)?;
        let folder = environment.folder().join(format!("delay{number}"));
        let daemon = Daemon::start(router, &folder, &policy, true)?;
        let (delays, again) = measure(&environment, &network, &daemon, *flood, attempts)
            .with_context(|| format!("traffic: {name}"))?;
        repeated.push(format!("{again} times ({name})"));
        drop(daemon);
        detach(router, "dmz0");
        for (sink, delays) in ["standard error", "EVE"].iter().zip(&delays) {
            lines.push(vec![
                Cell::Text((*name).to_owned()),
                Cell::Text((*sink).to_owned()),
                Cell::Text(format!("{:.1}", percentile(delays, 50))),
                Cell::Text(format!("{:.1}", percentile(delays, 99))),
                Cell::Text(format!("{:.1}", percentile(delays, 100))),
            ]);
            let most = if flood.is_none() { 20.0 } else { 200.0 };
            let title = format!("from a drop to its alarm, {name}, {sink}, p99: {most} ms");
            report.record(format!("delay/{name}/{sink}"), delays.clone());
            report.hold(title, format!("delay/p99/{name}/{sink}"), vec![percentile(delays, 99)], most);
        }
    }
    report.sections.push(Section {
        key: "delay",
        title: "From the drop to the alarm".to_owned(),
        note: format!(
            "Milliseconds from just before a datagram is sent to the line of its alarm. There are {attempts} attempts, \
             each by another server, and all sinks are on. In a flood, other servers send as fast as one core can. \
             A flood also fills the ring before the gate, so a datagram without an alarm after a second was sent \
             again. This happened: {}.",
            repeated.join(", ")
        ),
        columns: vec!["traffic", "sink", "p50 ms", "p99 ms", "max ms"],
        lines,
    });
    Ok(())
}

/// Delays on standard error and in EVE, milliseconds, and the number of datagrams that were sent again.
fn measure(
    environment: &Environment,
    network: &Network,
    daemon: &Daemon,
    flood: Option<(Kind, u32)>,
    attempts: u32,
) -> Result<([Vec<f64>; 2], u32)> {
    let (over, interface) = (AtomicBool::new(false), network.lanes[0].from_servers);
    let dmz = &network.dmz;
    let (stderr, eve) = (daemon.stderr(), daemon.eve());
    std::thread::scope(|scope| {
        let trying = scope.spawn(|| {
            let result = try_all(dmz, [&stderr, &eve], flood.is_some(), attempts);
            over.store(true, Ordering::Relaxed);
            result
        });
        if let Some((kind, servers)) = flood {
            network.dmz.visit()?;
            let mut generator = Generator::load(environment)?;
            generator.aim(&Traffic { kind, servers, ..Traffic::default() }, FROM_SERVERS, interface)?;
            while !over.load(Ordering::Relaxed) {
                generator.send(1 << 17)?;
            }
        }
        trying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn try_all(dmz: &Namespace, files: [&Path; 2], flood: bool, attempts: u32) -> Result<([Vec<f64>; 2], u32)> {
    cpu::avoid_pinned()?;
    if flood {
        std::thread::sleep(SETTLE);
    }
    dmz.visit()?;
    let mut tails = files.map(Tail::new);
    let mut delays = [Vec::new(), Vec::new()];
    let mut again = 0;
    for number in 0..attempts {
        let server = FLOODING + number;
        // out of step with the daemon's timers
        std::thread::sleep(Duration::from_millis(5 + u64::from(number * 7 % 43)));
        let marks = [format!(": s{server} "), format!("\"server\":\"s{server}\"")];
        let begun = call(server)?;
        let mut start = begun;
        let mut found = [None, None];
        while found.iter().any(Option::is_none) {
            if found == [None, None] && start.elapsed() > AGAIN {
                again += 1;
                start = call(server)?;
            }
            if begun.elapsed() > PATIENCE {
                bail!("no alarm of s{server} within {} s: {found:?}", PATIENCE.as_secs());
            }
            for ((tail, mark), found) in tails.iter_mut().zip(&marks).zip(&mut found) {
                if tail.has(mark)? {
                    found.get_or_insert_with(|| start.elapsed());
                }
            }
            std::thread::sleep(LOOK);
        }
        for (delays, found) in delays.iter_mut().zip(found) {
            delays.push(found.unwrap_or_default().as_secs_f64() * 1000.0);
        }
    }
    Ok((delays, again))
}

/// Gives the namespace the address of every server, and a route to the peers through the router.
fn route(dmz: &Namespace) -> Result<()> {
    dmz.feed(
        "ip",
        &["-batch", "-"],
        "link set lo up\naddress add 192.0.2.2/30 dev s0\nroute add local 198.18.0.0/16 dev lo\n\
         neigh add 192.0.2.1 lladdr 02:00:00:00:00:02 dev s0 nud permanent\n\
         route add 198.19.0.0/16 via 192.0.2.1\n",
    )
}

/// Sends a server's first datagram to a peer.
fn call(server: u32) -> Result<Instant> {
    let address = |net: u32| Ipv4Addr::from(net + server);
    let socket = UdpSocket::bind((address(0xc612_0000), 40_000))?;
    let start = Instant::now();
    socket.send_to(b"?", (address(0xc613_0000), PORT))?;
    Ok(start)
}

/// Follows a file, line by line.
struct Tail<'p> {
    path: &'p Path,
    file: Option<File>,
    rest: String,
}

impl<'p> Tail<'p> {
    fn new(path: &'p Path) -> Tail<'p> {
        Tail { path, file: None, rest: String::new() }
    }

    /// Whether a new line is of an alarm and contains the mark.
    fn has(&mut self, mark: &str) -> Result<bool> {
        if self.file.is_none() {
            self.file = File::open(self.path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let end = self.rest.rfind('\n').map_or(0, |at| at + 1);
        let is_alarm = |line: &str| line.contains(" alarm #") || line.contains("\"event_type\":\"alert\"");
        let lines: String = self.rest.drain(..end).collect();
        Ok(lines.lines().any(|line| line.contains(mark) && is_alarm(line)))
    }
}

/// The value that `part` percent of the values do not exceed.
fn percentile(values: &[f64], part: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * part).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
