//! TCP throughput of the router, by iperf3, with and without the gate.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::Options;
use crate::daemon::ordinary;
use crate::environment::Environment;
use crate::network::{Namespace, run as run_command};
use crate::policy::{Shape, write_policy};
use crate::report::{Cell, Report, Section};
use crate::statistics::{Spread, zip};
use crate::tool;

/// Limit of rounds: each takes four seconds for each of [`SETUPS`].
const MOST_ROUNDS: u32 = 7;
const SECONDS: &str = "2";

/// The programs at `dmz0`. A bare pass is among them, because on a veth any XDP program makes the kernel give up
/// large segments. A NIC with native XDP does not.
const SETUPS: &[&str] = &["no program", "bare XDP pass", "portcullis"];

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let environment = Environment::open()?;
    let spaces = Spaces::make()?;
    let policy = environment.folder().join("iperf.toml");
    std::fs::write(&policy, write_policy(&Shape::default()))?;
    let bare = environment.compile("reference")?;
    let _server = Server::start(&spaces.server)?;
    let mut series: Vec<[Vec<f64>; 2]> = vec![[Vec::new(), Vec::new()]; SETUPS.len()];
    for round in 0..options.rounds.min(MOST_ROUNDS) as usize {
        for step in 0..SETUPS.len() {
            let way = (round + step) % SETUPS.len();
            match SETUPS[way] {
                "portcullis" => {
                    tool::attach(&spaces.router, "dmz0", &policy)?;
                }
                "bare XDP pass" => {
                    let mut command = spaces.router.command("ip");
                    command.args(["link", "set", "dmz0", "xdpdrv", "object"]).arg(&bare);
                    run_command(command.args(["program", "bare_pass"]))?;
                }
                _ => {}
            }
            for (direction, slot) in [&[][..], &["--reverse"]].iter().zip(&mut series[way]) {
                slot.push(spaces.transfer(direction)?);
            }
            match SETUPS[way] {
                "portcullis" => tool::detach(&spaces.router, "dmz0"),
                "bare XDP pass" => {
                    run_command(spaces.router.command("ip").args(["link", "set", "dmz0", "xdpdrv", "off"]))?;
                }
                _ => {}
            }
        }
    }
    let mut lines = Vec::new();
    for (way, name) in SETUPS.iter().enumerate() {
        let mut line = vec![Cell::Text((*name).to_owned())];
        for (direction, own) in series[way].iter().enumerate() {
            let ratio = |base: usize| Spread::of(&zip(own, &series[base][direction], |own, base| own / base));
            line.push(Cell::Text(format!("{:.2}", Spread::of(own).median)));
            line.push(Cell::Ratio(ratio(0)));
            line.push(Cell::Ratio(ratio(1)));
            report.record(format!("iperf/{name}/{direction}"), own.clone());
        }
        lines.push(line);
    }
    report.sections.push(Section {
        key: "iperf",
        title: "TCP through the router".to_owned(),
        note: "One connection of iperf3 from a peer to a server behind the gate (`in`) and back (`out`), in Gbit/s. \
               All three hosts share the cores of this machine. Ratios are to no program and to a bare pass."
            .to_owned(),
        columns: vec!["at dmz0", "in", "to none", "to bare", "out", "to none", "to bare"],
        lines,
    });
    Ok(())
}

/// A server, a router and a peer, connected by veth.
struct Spaces {
    server: Namespace,
    router: Namespace,
    peer: Namespace,
}

impl Spaces {
    fn make() -> Result<Spaces> {
        let spaces = Spaces {
            server: Namespace::make("server")?,
            router: Namespace::make("router")?,
            peer: Namespace::make("peer")?,
        };
        let (server, peer) = (spaces.server.name(), spaces.peer.name());
        let ip = |space: &Namespace, lines: &str| space.feed("ip", &["-batch", "-"], lines);
        ip(
            &spaces.router,
            &format!(
                "link add dmz0 type veth peer name s0 netns {server}\n\
                 link add out0 type veth peer name o0 netns {peer}\n\
                 address add 192.0.2.1/30 dev dmz0\naddress add 192.0.2.5/30 dev out0\n\
                 link set dmz0 up\nlink set out0 up\n"
            ),
        )?;
        // s1 and a peer, as the policy has them
        ip(
            &spaces.server,
            "link set lo up\naddress add 192.0.2.2/30 dev s0\naddress add 198.18.0.1/32 dev lo\nlink set s0 up\n\
             route add default via 192.0.2.1 src 198.18.0.1\n",
        )?;
        ip(
            &spaces.peer,
            "link set lo up\naddress add 192.0.2.6/30 dev o0\naddress add 198.19.0.1/32 dev lo\nlink set o0 up\n\
             route add default via 192.0.2.5 src 198.19.0.1\n",
        )?;
        ip(&spaces.router, "route add 198.18.0.0/16 via 192.0.2.2\nroute add 198.19.0.0/16 via 192.0.2.6\n")?;
        spaces.router.set("ipv4/ip_forward", "1")?;
        Ok(spaces)
    }

    /// Transfers for two seconds over one connection. Returns Gbit/s.
    fn transfer(&self, more: &[&str]) -> Result<f64> {
        let mut command = ordinary(&self.peer, "iperf3");
        command.args(["-c", "198.18.0.1", "-p", "80", "-B", "198.19.0.1", "-t", SECONDS, "-J"]).args(more);
        let answer: serde_json::Value = serde_json::from_str(&run_command(&mut command)?)?;
        let bits = answer["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.with_context(|| format!("iperf3 said: {answer}"))? / 1e9)
    }
}

/// iperf3 on the server, at the port that its role offers.
struct Server(Child);

impl Server {
    fn start(space: &Namespace) -> Result<Server> {
        let mut command = ordinary(space, "iperf3");
        command.args(["-s", "-p", "80", "-B", "198.18.0.1"]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(command.spawn().context("could not start iperf3")?);
        for _ in 0..200 {
            let listens = || Ok(std::net::TcpStream::connect("198.18.0.1:80").is_ok());
            if space.enter(listens)? {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
