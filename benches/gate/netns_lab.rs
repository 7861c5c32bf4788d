//! Everything that a test run needs: the drivers, the gates with their flows, the references.

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
use crate::environment::Environment;
use crate::filters::fill_ports;
use crate::network::{FROM_OUTSIDE, FROM_SERVERS, Namespace, run};
use crate::policy::write_policy;
use crate::traffic::{Kind, Traffic, Version};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Openings that a gate has room for are some more; so many flows are opened at once.
const FLOWS_AT_ONCE: u32 = 32_768;
/// Frames whose verdicts are looked at one by one.
const SINGLES: u32 = 200;
/// Frames that bring tables to where they stay, and whose verdicts the gate itself has counted.
const BULK: u32 = 500_000;

/// A driver, which calls programs of one sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Filter,
    /// For filters that don't know frames in several buffers.
    Plain,
    Tracker,
}

impl Driver {
    pub const ALL: [Driver; 3] = [Driver::Filter, Driver::Plain, Driver::Tracker];

    /// The program, and the array of those that it calls.
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

/// A program by its name in the tables of the report.
struct Entry {
    driver: Driver,
    name: &'static str,
    fd: OwnedFd,
}

pub struct NetnsLab {
    pub engine: Engine,
    /// Their order is that of the arrays that the drivers call.
    entries: Vec<Entry>,
    /// For as long as the program runs: who reads their samples borrows them.
    gates: Vec<(GateCase, &'static Gate)>,
    /// As with a daemon: a sample that nobody reads is no cost to measure.
    consumers: Vec<Consumer<'static>>,
    reference: Object,
    /// Holds the NICs that xdp-filter sits on.
    shelter: Namespace,
}

/// What is subtracted from every time.
pub const BASE: &str = "base";
/// At egress.
pub const LRU_INSERT: &str = "one LRU insert";

impl NetnsLab {
    pub fn build(environment: &Environment, variant: Option<&Path>) -> Result<NetnsLab> {
        let reference = environment.load("reference", |_| ())?;
        fill_ports(&reference)?;
        let shelter = Namespace::make("filters")?;
        let engine = Engine::load(environment, "drive", |_| ())?;
        let mut all = NetnsLab {
            engine,
            entries: Vec::new(),
            gates: Vec::new(),
            consumers: Vec::new(),
            reference,
            shelter,
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
        let found = self.reference.progs_mut().find(|found| found.name() == program);
        Ok(found.with_context(|| format!("no program `{program}`"))?.as_fd().try_clone_to_owned()?)
    }

    /// The programs of xdp-filter as its own command loads them, but alone: a dispatcher in front
    /// can't be called by another program.
    fn add_xdp_filters(&mut self) -> Result<()> {
        // one mode at a time; a program that has gone from its NIC is still ours, and its tables
        for (name, nic, policy) in [(XDP_FILTER_DENY, "f0", "deny"), (XDP_FILTER, "f1", "allow")] {
            let add = ["link", "add", nic, "netns", self.shelter.name(), "type", "veth"];
            run(Command::new("ip")
                .args(add)
                .args(["peer", "name", &format!("{nic}-far")])
                .args(["netns", self.shelter.name()]))?;
            let mut load = self.shelter.command("xdp-filter");
            load.env("LIBXDP_SKIP_DISPATCHER", "1");
            run(load.args(["load", nic, "-m", "native", "-p", policy, "-f", "tcp,udp"]))?;
            if policy == "allow" {
                run(self.shelter.command("xdp-filter").args(["port", "80", "-p", "tcp", "-m", "dst"]))?;
            }
            let any = self.entries[0].fd.as_fd();
            let id = self.shelter.enter(|| {
                let index = if_nametoindex(nic)?;
                Ok(Xdp::new(any).query_id(index as i32, XdpFlags::DRV_MODE)?)
            })?;
            self.entries.push(Entry { driver: Driver::Plain, name, fd: Program::fd_from_id(id)? });
            run(self.shelter.command("xdp-filter").args(["unload", nic]))?;
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

    /// Opens the flows, and fills what the references look up.
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

    /// Reads the samples that have come.
    pub fn drain(&self) -> Result<()> {
        for consumer in &self.consumers {
            consumer.poll(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Who calls a program, and its number there.
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

    /// Proves that a program does with every frame of some traffic what it should.
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
                    "`{name}` is not what it should be: of {:?} ({:?}), frame {number} got verdict {action}, \
                       where all should get {verdict:?}",
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
            // 5 % are a worm's
            Verdict::Either => passed + dropped == all && dropped > all * 4 / 100 && dropped < all * 6 / 100,
        };
        if !right {
            bail!(
                "`{name}` is not what it should be: of {BULK} frames ({:?}, {:?}) {passed} passed and {dropped} \
                   were dropped, where it should be {verdict:?}",
                traffic.kind,
                traffic.version
            );
        }
        Ok(())
    }

    /// Packets that a gate has passed and dropped.
    fn count(&self, number: usize) -> Result<(u64, u64)> {
        let counters = self.gates[number].1.counters(false)?;
        Ok(counters.iter().fold((0, 0), |sum, (reason, packets, _)| match reason.drops() {
            true => (sum.0, sum.1 + packets),
            false => (sum.0 + packets, sum.1),
        }))
    }
}
