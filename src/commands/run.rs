//! `portcullis run`: the daemon. It puts the gate down, reads the perf buffer,
//! sweeps the ledger, raises alarms. When it ends, the gate stays.

mod baseline;
mod doorbell;
mod socket;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::{debug, info, warn};

use super::Exit;
use super::output::Output;
use super::policy_file::{Compiled, examine, load};
use crate::alarm::{Change, Engine};
use crate::clock::Clock;
use crate::drops::{Context, Drop, Names, Sweep};
use crate::gate::{Consumer, Gate, GateError, Mode, Place, lift, return_memory};
use crate::policy::{Alarms, diff};
use crate::sample::decode;
use crate::sink::{Event, Outlet, open_outlet};
use doorbell::Doorbell;
use socket::Socket;

/// How long one wait for samples lasts: a signal is answered as fast.
const POLL: Duration = Duration::from_millis(100);
/// Between two sweeps of the ledger.
const SWEEP: Duration = Duration::from_secs(1);
/// Drops of one server that are told one by one between two sweeps; the rest is in the ledger and
/// in its alarms. A server that calls every port must not fill the disk.
const MOST_DROPS_TOLD: u32 = 500;
/// Between two looks at how full the baseline on disk is behind.
const KEEP: Duration = Duration::from_secs(10);
/// How long the sinks may take to write what waits for them when the daemon ends.
const LAST_WRITES: Duration = Duration::from_secs(2);

pub fn run(interface: &str, path: &Path, raise_on_exit: bool, output: &Output) -> anyhow::Result<Exit> {
    let Compiled { policy, tables } = load(path, output)?;
    let place = Place::of(interface)?;
    let _daemon = place.lock_daemon()?;
    let doorbell = Doorbell::install()?;
    let (gate, attachment) = {
        let _lock = place.lock()?;
        Gate::put_down(&place, &policy, &tables)?
    };
    for warning in &attachment.warnings {
        output.warn(warning);
    }
    // Where people look, so that they see it came up; no alarm, so no sink has it.
    eprintln!(
        "portcullis: the gate on {interface} is down: {}, {}, generation {}",
        attachment.mode.name(),
        policy.settings.tracking.value,
        attachment.generation
    );

    let consumer = gate.consume_samples()?;
    let alarms = policy.alarms.clone();
    // A policy of thousands of servers takes more memory than all the rest: the kernel has it now.
    drop((policy, tables));
    return_memory();
    let mut daemon = Daemon::start(&place, &gate, alarms, attachment.mode, output)?;
    let ended = daemon.watch(&consumer, &doorbell, path);
    daemon.stop();
    ended?;
    if raise_on_exit {
        let _lock = place.lock()?;
        if gate.is_pinned_at(&place) {
            lift(&place)?;
        }
        eprintln!("portcullis: the gate on {interface} is lifted: nothing is dropped any more");
    } else {
        eprintln!("portcullis: the daemon ends, the gate on {interface} stays down and enforcing");
    }
    Ok(Exit::Done)
}

/// What a running daemon holds.
struct Daemon<'gate> {
    place: Place,
    gate: &'gate Gate,
    interface: Arc<str>,
    alarms: Alarms,
    mode: Mode,
    colour: bool,
    names: Names,
    engine: Engine,
    sweep: Sweep,
    outlet: Outlet,
    socket: Option<Socket>,
    /// Drops told since the last sweep, by server.
    told: HashMap<u32, u32>,
}

impl<'gate> Daemon<'gate> {
    /// Reports what happened while no daemon ran.
    fn start(
        place: &Place,
        gate: &'gate Gate,
        alarms: Alarms,
        mode: Mode,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let socket = Socket::listen(&place.socket())
            .inspect_err(|error| warn!("{error:#}; `show alarms` will not work"))
            .ok();
        let colour = output.colours_stderr();
        let mut daemon = Daemon {
            place: place.clone(),
            gate,
            interface: place.interface.as_str().into(),
            outlet: open_outlet(&alarms, &place.interface, colour),
            alarms,
            mode,
            colour,
            names: Names::new(),
            engine: Engine::default(),
            sweep: Sweep::default(),
            socket,
            told: HashMap::new(),
        };
        daemon.learn_names()?;
        let ledger = gate.ledger_snapshot()?;
        let baseline = baseline::read(place);
        let (sweep, missed) = Sweep::starting(&ledger, &baseline, &daemon.context());
        daemon.sweep = sweep;
        for drop in missed {
            daemon.report(drop);
        }
        Ok(daemon)
    }

    fn watch(&mut self, consumer: &Consumer<'_>, doorbell: &Doorbell, path: &Path) -> anyhow::Result<()> {
        let mut swept = Instant::now();
        let mut kept = Instant::now();
        while !doorbell.asked_to_stop() {
            self.take_samples(consumer)?;
            if doorbell.asked_to_reload() {
                self.reload(path);
            }
            if let Some(socket) = &self.socket {
                socket.answer(&self.engine);
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.look_at_ledger()?;
                self.look_at_gate()?;
            }
            if kept.elapsed() >= KEEP {
                kept = Instant::now();
                baseline::write(&self.place, &self.sweep.baseline());
            }
        }
        // what came between the last poll and the signal
        self.take_samples(consumer)?;
        self.look_at_ledger()
    }

    fn stop(&mut self) {
        baseline::write(&self.place, &self.sweep.baseline());
        std::mem::take(&mut self.outlet).close(LAST_WRITES);
    }

    fn take_samples(&mut self, consumer: &Consumer<'_>) -> anyhow::Result<()> {
        let received = consumer.poll(POLL)?;
        if received.lost > 0 {
            debug!("the perf buffer lost {} samples; the ledger has their drops", received.lost);
        }
        for bytes in &received.samples {
            let sample = match decode(bytes) {
                Ok(sample) => sample,
                Err(error) => {
                    warn!("{error}");
                    continue;
                }
            };
            if sample.server != 0 && !self.names.contains_key(&sample.server) {
                self.learn_names()?;
            }
            let fresh = self.sweep.hear(sample.key(), sample.time_ns, sample.drops);
            let drop = sample.to_drop(fresh, &self.context());
            self.report(drop);
        }
        Ok(())
    }

    fn look_at_ledger(&mut self) -> anyhow::Result<()> {
        let ledger = self.gate.ledger_snapshot()?;
        if ledger.keys().any(|key| key.server != 0 && !self.names.contains_key(&key.server)) {
            self.learn_names()?;
        }
        let mut sweep = std::mem::take(&mut self.sweep);
        for glimpse in sweep.glimpse(&ledger, &self.context()) {
            for change in self.engine.glimpse(&glimpse, Clock::now()) {
                self.tell(change);
            }
        }
        let missed = sweep.step(&ledger, &self.context());
        self.sweep = sweep;
        for drop in missed {
            self.report(drop);
        }
        for (server, told) in self.told.drain() {
            if told > MOST_DROPS_TOLD {
                info!("{} events of server {server} were left to the ledger", told - MOST_DROPS_TOLD);
            }
        }
        let now = Clock::now();
        for change in self.engine.tick(now) {
            self.tell(change);
        }
        Ok(())
    }

    /// The mode never changes silently, and a gate that somebody lifted has no daemon.
    fn look_at_gate(&mut self) -> anyhow::Result<()> {
        if !self.gate.is_pinned_at(&self.place) {
            anyhow::bail!(
                "the gate on {} was lifted by another command; the daemon ends\n\
                 help: portcullis run -i {0} -p POLICY puts it down again",
                self.interface
            );
        }
        let mode = self.gate.find_mode(&self.place);
        if mode != self.mode {
            let consequence = match mode {
                Mode::No => "NOTHING IS DROPPED; was the interface deleted, or its program taken off?",
                Mode::Generic => "slower, and after the kernel has made a buffer of the packet",
                Mode::Native => "in the driver again",
            };
            eprintln!(
                "portcullis: warning: the gate on {} went from {} to {}: {consequence}",
                self.interface,
                self.mode.name(),
                mode.name()
            );
            self.mode = mode;
        }
        if mode == Mode::No {
            self.try_to_reattach();
        }
        Ok(())
    }

    /// An interface that was deleted and made again gets its gate back.
    fn try_to_reattach(&mut self) {
        let Ok(place) = Place::of(&self.interface) else {
            return;
        };
        let restored = place.lock().and_then(|_lock| match self.gate.is_pinned_at(&place) {
            true => self.gate.reattach(&place),
            false => Err(GateError::NotAttached { interface: place.interface.clone() }),
        });
        match restored {
            Ok((mode, warnings)) => {
                for warning in warnings {
                    eprintln!("portcullis: warning: {warning}");
                }
                eprintln!("portcullis: the gate on {} is down again: {}", self.interface, mode.name());
                self.mode = mode;
                self.place = place;
            }
            Err(error) => debug!("{error}"),
        }
    }

    /// SIGHUP: the policy anew. A bad one changes nothing. Log rotation asks for it as well.
    fn reload(&mut self, path: &Path) {
        match self.try_reload(path) {
            Ok(text) => eprintln!("{text}"),
            Err(error) => eprintln!("portcullis: {error:#}\nportcullis: the live policy stays as it was"),
        }
        self.outlet.reopen();
        return_memory();
    }

    fn try_reload(&mut self, path: &Path) -> anyhow::Result<String> {
        let Compiled { policy, tables } =
            examine(path)?.map_err(|diagnostics| anyhow::anyhow!("the policy is bad\n{diagnostics}"))?;
        let _lock = self.place.lock()?;
        if !self.gate.is_pinned_at(&self.place) {
            anyhow::bail!("the gate on {} was lifted by another command", self.interface);
        }
        let changes = match self.gate.live_policy()? {
            Some(live) => diff(&live, &policy),
            None => Vec::new(),
        };
        let generation = self.gate.apply(&self.place, &policy, &tables)?;
        if policy.alarms != self.alarms {
            self.alarms = policy.alarms.clone();
            self.outlet = open_outlet(&self.alarms, &self.interface, self.colour);
        }
        self.learn_names()?;
        let mut text = super::apply::list(&changes);
        text.push_str(&format!("portcullis: generation {generation} is live on {}", self.interface));
        Ok(text)
    }

    fn report(&mut self, drop: Drop) {
        let now = Clock::now();
        let changes = self.engine.observe(&drop, now);
        let told = self.told.entry(drop.server_id()).or_default();
        *told = told.saturating_add(1);
        if *told <= MOST_DROPS_TOLD {
            self.outlet.send(Event::Drop(drop));
        }
        for change in changes {
            self.tell(change);
        }
    }

    fn tell(&mut self, change: Change) {
        info!("alarm #{} {}", change.alarm.id, change.step.name());
        self.outlet.send(Event::Alarm(change));
    }

    fn learn_names(&mut self) -> anyhow::Result<()> {
        self.names = self.gate.names_by_id().context("could not read the servers' names")?;
        Ok(())
    }

    fn context(&self) -> Context<'_> {
        Context { interface: self.interface.clone(), clock: Clock::now(), names: &self.names }
    }
}
