//! `scripts/bench flood`: the traffic generator by itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};

use crate::cpu::pin_to;
use crate::environment::Environment;
use crate::generator::Generator;
use crate::traffic::{Kind, Macs, Traffic, Version};

/// Send frames out of a NIC, as fast as one core can or at a rate
#[derive(Args, Debug)]
pub struct Flood {
    /// Network namespace to send from: a name or a path
    #[arg(long)]
    netns: Option<PathBuf>,
    /// NIC to send out of; the other end of a veth needs an XDP program
    #[arg(short, long)]
    interface: String,
    /// Destination MAC address
    #[arg(long, value_parser = parse_mac)]
    mac: [u8; 6],
    #[arg(long, value_enum, default_value = "worm")]
    kind: Kind,
    /// Send IPv6
    #[arg(short = '6')]
    v6: bool,
    /// Number of server addresses, from 198.18.0.0 or 2001:db8:5::1 up
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    servers: u32,
    /// Number of flows that replies belong to
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    flows: u32,
    /// Destination port of worms
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// Port of the service that servers offer
    #[arg(long, default_value_t = 80)]
    service: u16,
    /// Destination port that servers may open
    #[arg(long, default_value_t = 587)]
    need: u16,
    /// How long to send
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Send this number of frames at once instead, flow by flow from the first
    #[arg(long)]
    frames: Option<u32>,
    /// Limit, in frames a second
    #[arg(long)]
    rate: Option<u32>,
    /// CPU to send on
    #[arg(long)]
    cpu: Option<usize>,
}

pub fn run(flood: &Flood) -> Result<()> {
    let environment = Environment::open()?;
    let mut generator = Generator::load(&environment)?;
    if let Some(name) = &flood.netns {
        let path = Path::new("/run/netns").join(name); // an absolute path stays what it is
        let file = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
        setns(&file, CloneFlags::CLONE_NEWNET).context("could not enter the namespace")?;
    }
    if let Some(cpu) = flood.cpu {
        pin_to(cpu)?;
    }
    let interface = if_nametoindex(flood.interface.as_str())
        .with_context(|| format!("no NIC {} in this namespace", flood.interface))?;
    let traffic = Traffic {
        kind: flood.kind,
        version: if flood.v6 { Version::V6 } else { Version::V4 },
        servers: flood.servers,
        flows: flood.flows,
        port: flood.port,
        service: flood.service,
        need: flood.need,
        ..Traffic::default()
    };
    let macs = Macs { destination: flood.mac, source: [2, 0, 0, 0, 0, 1] };
    generator.aim(&traffic, macs, interface)?;
    let start = Instant::now();
    match flood.frames {
        Some(frames) => generator.send(frames)?,
        None => {
            generator.send_for(Duration::from_secs_f64(flood.seconds), flood.rate)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({ "sent": generator.sent()?, "seconds": seconds }));
    Ok(())
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    portcullis::net::parse_mac(text).ok_or_else(|| "expected six bytes, such as 02:00:00:00:00:01".to_owned())
}
