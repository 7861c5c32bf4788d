//! The programs that test runs measure: gates with open flows, xdp-filter, and references.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{Object, Program, Xdp, XdpFlags};
use nix::net::if_::if_nametoindex;
use portcullis::compile::compile;
use portcullis::gate::{Consumer, Gate, OBJECT};
use portcullis::policy::parse;

use crate::cases::{
    ADDRESSES, GateCase, HASH, LRU, MILLION, PARSE, SERVERS, VARIANT, Verdict, XDP_FILTER, XDP_FILTER_DENY,
    gates, main_gate,
};
use crate::engine::{Engine, Turn};
use crate::environment::{Environment, find_program};
use crate::filters::fill_ports;
use crate::network::{FROM_OUTSIDE, FROM_SERVERS, Namespace, run};
use crate::policy::write_policy;
use crate::traffic::{Kind, Traffic, Version};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Flows that are opened at once. A gate has room for somewhat more openings.
const FLOWS_AT_ONCE: u32 = 32_768;
/// Frames whose verdicts are checked one by one.
const SINGLES: u32 = 200;
/// Frames whose verdicts are checked by the counters of the gate. They also bring its tables to their steady state.
const BULK: u32 = 500_000;

/// A driver of `drive.bpf.c`. It calls programs of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Filter,
    /// For filters that were built without support for frames in several buffers.
    Plain,
    Tracker,
}

impl Driver {
    pub const ALL: [Driver; 3] = [Driver::Filter, Driver::Plain, Driver::Tracker];

    /// The driver's program, and the array of the programs that it calls.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Driver::Filter => ("drive_filter", "filters"),
            Driver::Plain => ("drive_plain", "plain_filters"),
            Driver::Tracker => ("drive_tracker", "trackers"),
        }
    }

    pub fn program(self) -> &'static str {
        self.names().0
    }
}

/// A program under the name that the report gives it.
struct Entry {
    driver: Driver,
    name: &'static str,
    fd: OwnedFd,
}

/// The programs, loaded and ready to run.
pub struct Candidates {
    pub engine: Engine,
    /// In the order of the arrays that the drivers call.
    entries: Vec<Entry>,
    /// Leaked, because the readers of their samples borrow them.
    gates: Vec<(GateCase, &'static Gate)>,
    /// Read the samples, as a daemon does. Samples that nobody reads would cost less.
    consumers: Vec<Consumer<'static>>,
    reference: Object,
    /// The namespace of the NICs that xdp-filter is loaded on.
    xdp_filter_space: Namespace,
}

/// A program that only returns a verdict. Its time is subtracted from every other.
pub const BASE: &str = "base";
/// The reference at egress.
pub const LRU_INSERT: &str = "one LRU insert";

impl Candidates {
    pub fn build(environment: &Environment, variant: Option<&Path>) -> Result<Candidates> {
        let reference = environment.load("reference", |_| ())?;
        fill_ports(&reference)?;
        let xdp_filter_space = Namespace::make("filters")?;
        let engine = Engine::load(environment, "drive", |_| ())?;
        let mut all = Candidates {
            engine,
            entries: Vec::new(),
            gates: Vec::new(),
            consumers: Vec::new(),
            reference,
            xdp_filter_space,
        };
        use Driver::{Filter, Plain, Tracker};
        for (driver, name, program) in [
            (Filter, BASE, "bare_drop"),
            (Filter, PARSE, "parse_only"),
            (Filter, HASH, "hash_ports"),
            (Filter, ADDRESSES, "hash_addresses"),
            (Filter, LRU, "lru_lookup"),
            (Filter, "fill LRU", "lru_fill"),
            (Filter, "fill addresses", "address_fill"),
            (Plain, BASE, "bare_drop_plain"),
            (Tracker, BASE, "bare_next"),
            (Tracker, LRU_INSERT, "lru_insert"),
        ] {
            let fd = all.find_reference(program)?;
            all.entries.push(Entry { driver, name, fd });
        }
        all.add_xdp_filters()?;
        for gate in gates() {
            all.add_gate(gate, OBJECT)?;
        }
        if let Some(path) = variant {
            let object = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
            all.add_gate(main_gate(VARIANT), &object)?;
        }
        for driver in Driver::ALL {
            let list = all.entries.iter().enumerate().filter(|(_, entry)| entry.driver == driver);
            let list: Vec<(u32, BorrowedFd<'_>)> =
                list.map(|(number, entry)| (number as u32, entry.fd.as_fd())).collect();
            all.engine.install(driver.names().1, &list)?;
        }
        all.fill()?;
        Ok(all)
    }

    fn find_reference(&self, program: &str) -> Result<OwnedFd> {
        Ok(find_program(&self.reference, program)?.as_fd().try_clone_to_owned()?)
    }

    /// Loads the programs of xdp-filter by its own command, without its dispatcher, which another program cannot
    /// call.
    fn add_xdp_filters(&mut self) -> Result<()> {
        // xdp-filter loads one mode at a time. Our descriptor keeps the program and its tables after the unload.
        for (name, nic, policy) in [(XDP_FILTER_DENY, "f0", "deny"), (XDP_FILTER, "f1", "allow")] {
            let add = ["link", "add", nic, "netns", self.xdp_filter_space.name(), "type", "veth"];
            run(Command::new("ip")
                .args(add)
                .args(["peer", "name", &format!("{nic}-far")])
                .args(["netns", self.xdp_filter_space.name()]))?;
            let mut load = self.xdp_filter_space.command("xdp-filter");
            load.env("LIBXDP_SKIP_DISPATCHER", "1");
            run(load.args(["load", nic, "-m", "native", "-p", policy, "-f", "tcp,udp"]))?;
            if policy == "allow" {
                run(self
                    .xdp_filter_space
                    .command("xdp-filter")
                    .args(["port", "80", "-p", "tcp", "-m", "dst"]))?;
            }
            let any = self.entries[0].fd.as_fd();
            let id = self.xdp_filter_space.enter(|| {
                let index = if_nametoindex(nic)?;
                Ok(Xdp::new(any).query_id(index as i32, XdpFlags::DRV_MODE)?)
            })?;
            self.entries.push(Entry { driver: Driver::Plain, name, fd: Program::fd_from_id(id)? });
            run(self.xdp_filter_space.command("xdp-filter").args(["unload", nic]))?;
        }
        Ok(())
    }

    fn add_gate(&mut self, case: GateCase, object: &[u8]) -> Result<()> {
        let text = write_policy(&case.shape);
        let policy = parse(&text, "bench.toml").map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let tables = compile(&policy).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let gate: &'static Gate = Box::leak(Box::new(Gate::load_object(object, &policy, &tables)?));
        let filter = gate.programs.filter.try_clone()?;
        let track = gate.programs.track.try_clone()?;
        self.entries.push(Entry { driver: Driver::Filter, name: case.name, fd: filter });
        self.entries.push(Entry { driver: Driver::Tracker, name: case.name, fd: track });
        self.consumers.push(gate.consume_samples()?);
        self.gates.push((case, gate));
        Ok(())
    }

    /// Opens the flows of the gates, and fills the tables of the references.
    fn fill(&mut self) -> Result<()> {
        for number in 0..self.gates.len() {
            let (case, _) = &self.gates[number];
            let (name, flows) = (case.name, case.flows);
            let servers = (case.shape.servers * case.shape.addresses_each).min(65_536);
            for (version, flows) in [(Version::V4, flows[0]), (Version::V6, flows[1])] {
                self.open_flows(name, servers, version, flows)?;
            }
        }
        let flow_by_flow = |servers, flows| Traffic { servers, flows, ..Traffic::of(Kind::Answer) };
        self.run(Driver::Filter, "fill LRU", &flow_by_flow(SERVERS, MILLION), MILLION)?;
        self.run(Driver::Filter, "fill addresses", &flow_by_flow(65_536, 65_536), 65_536)?;
        Ok(())
    }

    fn open_flows(&mut self, gate: &str, servers: u32, version: Version, flows: u32) -> Result<()> {
        let mut first = 0;
        while first < flows {
            let end = flows.min(first + FLOWS_AT_ONCE);
            let traffic = |kind| Traffic { kind, version, servers, first, flows: end, ..Traffic::default() };
            self.run(Driver::Tracker, gate, &traffic(Kind::Opening), end - first)?;
            self.run(Driver::Filter, gate, &traffic(Kind::Answer), end - first)?;
            self.run(Driver::Tracker, gate, &traffic(Kind::Completion), end - first)?;
            first = end;
        }
        Ok(())
    }

    /// Reads the samples that have arrived.
    pub fn drain(&self) -> Result<()> {
        for consumer in &self.consumers {
            consumer.poll(Duration::ZERO)?;
        }
        Ok(())
    }

    /// The driver that calls a program, and its number there.
    pub fn find(&self, name: &str) -> Result<(Driver, u32)> {
        let found = [Driver::Filter, Driver::Plain].iter().find_map(|driver| {
            let target = self.find_at(*driver, name).ok()?;
            Some((*driver, target))
        });
        found.with_context(|| format!("no program `{name}`"))
    }

    /// The number of a program among those of a driver.
    pub fn find_at(&self, driver: Driver, name: &str) -> Result<u32> {
        let number = self.entries.iter().position(|entry| (entry.driver, entry.name) == (driver, name));
        Ok(number.with_context(|| format!("no program `{name}`"))? as u32)
    }

    fn run(&mut self, driver: Driver, name: &str, traffic: &Traffic, frames: u32) -> Result<u32> {
        let target = self.find_at(driver, name)?;
        let macs = if driver == Driver::Tracker { FROM_OUTSIDE } else { FROM_SERVERS };
        self.engine.plan(&[*traffic], macs)?;
        self.engine.schedule_one(Turn { target, plan: 0 })?;
        self.engine.run(driver.program(), &traffic.blank_frame(), 0, frames)
    }

    /// Checks that a program returns the right verdict for every frame of some traffic.
    pub fn prove(&mut self, name: &str, traffic: &Traffic, verdict: Verdict) -> Result<()> {
        let (driver, target) = self.find(name)?;
        self.engine.plan(&[*traffic], FROM_SERVERS)?;
        self.engine.schedule_one(Turn { target, plan: 0 })?;
        let frame = traffic.blank_frame();
        for number in 0..SINGLES {
            let action = self.engine.run(driver.program(), &frame, 0, 1)?;
            let right = match verdict {
                Verdict::Drop => action == XDP_DROP,
                Verdict::Pass => action == XDP_PASS,
                Verdict::Either => action == XDP_DROP || action == XDP_PASS,
            };
            if !right {
                bail!(
                    "`{name}` returned {action} for frame {number} of {:?} ({:?}), expected: {verdict:?}",
                    traffic.kind,
                    traffic.version
                );
            }
        }
        self.prove_by_counters(name, traffic, verdict)
    }

    fn prove_by_counters(&mut self, name: &str, traffic: &Traffic, verdict: Verdict) -> Result<()> {
        let Some(number) = self.gates.iter().position(|(case, _)| case.name == name) else { return Ok(()) };
        let before = self.count(number)?;
        self.run(Driver::Filter, name, traffic, BULK)?;
        let after = self.count(number)?;
        let (passed, dropped) = (after.0 - before.0, after.1 - before.1);
        let all = u64::from(BULK);
        let right = match verdict {
            Verdict::Drop => (passed, dropped) == (0, all),
            Verdict::Pass => (passed, dropped) == (all, 0),
            // 5 % belong to a worm
            Verdict::Either => passed + dropped == all && dropped > all * 4 / 100 && dropped < all * 6 / 100,
        };
        if !right {
            bail!(
                "`{name}` passed {passed} and dropped {dropped} of {BULK} frames ({:?}, {:?}), expected: {verdict:?}",
                traffic.kind,
                traffic.version
            );
        }
        Ok(())
    }

    /// Numbers of packets that a gate has passed and dropped.
    fn count(&self, number: usize) -> Result<(u64, u64)> {
        let counters = self.gates[number].1.counters(false)?;
        Ok(counters.iter().fold((0, 0), |sum, (reason, packets, _)| match reason.drops() {
            true => (sum.0, sum.1 + packets),
            false => (sum.0 + packets, sum.1),
        }))
    }
}
