//! The cost of a policy: time and memory to check it, attach it and change it, and the memory of the daemon.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::Options;
use crate::daemon::{Daemon, ordinary, read_memory};
use crate::environment::Environment;
use crate::network::{Namespace, run as run_command};
use crate::policy::{Shape, write_policy};
use crate::report::{Cell, Report, Section};
use crate::statistics::median;
use crate::tool::{PORTCULLIS, detach};

/// How often the memory of a running command is read.
const LOOK: Duration = Duration::from_millis(1);

const POLICIES: &[(&str, Shape)] = &[
    ("one server", Shape { servers: 1, needs_each: 4, ..MANY }),
    ("4,096 servers share a role of 32 needs", MANY),
    ("4,096 servers with 32 needs of their own", Shape { own_roles: true, ..MANY }),
    ("65,536 addresses of 4,096 servers", Shape { addresses_each: 16, needs_each: 4, ..MANY }),
];

const MANY: Shape = Shape {
    servers: 4096,
    addresses_each: 1,
    needs_each: 32,
    own_roles: false,
    strict: true,
    handover: false,
    established: 65_536,
};

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let environment = Environment::open()?;
    let router = Namespace::make("control")?;
    run_command(router.command("ip").args(["link", "add", "dmz0", "type", "veth", "peer", "name", "far0"]))?;
    let mut lines = Vec::new();
    for (name, shape) in POLICIES {
        lines.push(measure(options, &environment, &router, name, shape, report)?);
    }
    report.sections.push(Section {
        key: "policies",
        title: "Policies".to_owned(),
        note: "Times are medians in seconds, memory is the peak in MiB. Each apply replaces a policy that differs in \
               one server. The daemon's memory is taken after its start."
            .to_owned(),
        columns: vec![
            "policy",
            "file KiB",
            "check s",
            "attach s",
            "apply s",
            "check + apply s",
            "apply MiB",
            "daemon MiB",
            "its peak MiB",
        ],
        lines,
    });
    Ok(())
}

fn measure(
    options: &Options,
    environment: &Environment,
    router: &Namespace,
    name: &str,
    shape: &Shape,
    report: &mut Report,
) -> Result<Vec<Cell>> {
    let text = write_policy(shape);
    let [first, second] = ["first.toml", "second.toml"].map(|file| environment.folder().join(file));
    fs::write(&first, &text)?;
    // an equal policy would be recognised and not compared
    fs::write(&second, text.replacen("[servers.s0]\n", "[servers.s0]\nmode = \"observe\"\n", 1))?;
    let (mut checks, mut attaches, mut applies) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0.0_f64;
    for round in 0..options.rounds {
        checks.push(take(router, &["check"], &first)?.0);
        if round < 3 {
            detach(router, "dmz0");
            attaches.push(take(router, &["attach", "-i", "dmz0", "-p"], &first)?.0);
        }
        for path in [&second, &first] {
            let (seconds, mib) = take(router, &["apply", "-i", "dmz0"], path)?;
            applies.push(seconds);
            peak = peak.max(mib);
        }
    }
    detach(router, "dmz0");
    let daemon = Daemon::start(router, &environment.folder().join("daemon"), &text, false)?;
    // it gives memory back shortly after its first message
    std::thread::sleep(Duration::from_secs(2));
    let (rss, most) = daemon.memory_mib()?;
    drop(daemon);
    detach(router, "dmz0");
    let both: Vec<f64> = vec![median(&checks) + median(&applies)];
    let key = format!("policies/check and apply/{name}");
    if shape.own_roles {
        report.hold("checking and applying 4,096 servers with 32 needs each: 0.5 s", key, both.clone(), 0.5);
        let title = "peak memory of the daemon, with 131,072 needs: 64 MiB";
        report.hold(title, format!("policies/peak/{name}"), vec![most], 64.0);
    } else {
        report.record(key, both.clone());
    }
    Ok(vec![
        Cell::Text(name.to_owned()),
        Cell::Text((text.len() / 1024).to_string()),
        Cell::Text(format!("{:.3}", median(&checks))),
        Cell::Text(format!("{:.3}", median(&attaches))),
        Cell::Text(format!("{:.3}", median(&applies))),
        Cell::Text(format!("{:.3}", both[0])),
        Cell::Text(format!("{peak:.0}")),
        Cell::Text(format!("{rss:.0}")),
        Cell::Text(format!("{most:.0}")),
    ])
}

/// Runs a command of the tool. Returns seconds and peak memory, MiB.
fn take(router: &Namespace, arguments: &[&str], policy: &Path) -> Result<(f64, f64)> {
    let mut command = ordinary(router, PORTCULLIS);
    command.args(arguments).arg(policy).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut peak = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = peak.max(read_memory(child.id(), "VmHWM:").unwrap_or(0.0));
        std::thread::sleep(LOOK);
    };
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!("failed: {command:?}: {:?}", child.wait_with_output());
    }
    Ok((seconds, peak))
}
