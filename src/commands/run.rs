//! `portcullis run`: the daemon. It puts the gate down, reads the perf buffer,
//! sweeps the ledger, raises alarms. When it ends, the gate stays.

mod board;
mod doorbell;
mod exposition;
mod ledger;
mod metrics;
mod notify;
mod response;
mod socket;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::{debug, info, warn};

use super::Exit;
use super::output::Output;
use super::policy_file::{read_policy, refuse};
use crate::alarm::{Change, Engine, Settings};
use crate::clock::Clock;
use crate::compile::compile;
use crate::drops::{Baseline, Context, Drop, Names, Sweep};
use crate::gate::contract::settings_flag;
use crate::gate::{Attachment, Consumer, Gate, GateError, Hook, Mode, Place, lift, return_memory};
use crate::history::{Keeper, Limits};
use crate::policy::{Alarms, Policy, Tracking};
use crate::sample::decode;
use crate::sink::{Event, Outlet, open_outlet};
use board::{Board, count};
use doorbell::Doorbell;
use ledger::Glance;
use notify::Notifier;
use response::{Outcome, Responder};
use socket::Socket;

/// How long one wait for samples lasts: a signal is answered as fast.
const POLL: Duration = Duration::from_millis(100);
/// Between two sweeps of the ledger.
const SWEEP: Duration = Duration::from_secs(1);
/// Drops that are told one by one: so many at once, and then so many a second; the rest is in the
/// ledger and in its alarms. Servers that call every port must fill neither the disk nor a core.
const DROPS_TOLD_AT_ONCE: u32 = 1024;
const DROPS_TOLD_A_SECOND: u32 = 128;
/// Beyond those, so many again of servers that had few in this second: one that calls every port must
/// not hide the others.
const FEW_DROPS_TOLD: u32 = 8;
/// How long samples are left to gather when some have just been taken: of thousands a second, each
/// would wake the daemon for itself.
const GATHER: Duration = Duration::from_millis(4);
/// How long the sinks may take to write what waits for them when the daemon ends.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// Quarantines that wait for another command to leave the gate.
const MOST_WANTED: usize = 256;
/// Between two notes of what has been reported, when that is much or a sink lags behind.
const SETTLE: Duration = Duration::from_secs(10);
/// Kinds of drops that are noted every second.
const FEW_KINDS: usize = 2048;

/// What the daemon is told on its command line.
pub struct Options<'o> {
    pub path: &'o Path,
    pub raise_on_exit: bool,
    pub metrics: Option<SocketAddr>,
}

pub fn run(interface: &str, options: &Options<'_>, output: &Output) -> anyhow::Result<Exit> {
    let Options { path, raise_on_exit, metrics } = *options;
    let policy = read_policy(path)?.map_err(|diagnostics| refuse(&diagnostics, output))?;
    // Reading it needs as much for a while as compiling it.
    return_memory();
    let tables = compile(&policy).map_err(|diagnostics| refuse(&diagnostics, output))?;
    let place = Place::of(interface)?;
    let _daemon = place.lock_daemon()?;
    let doorbell = Doorbell::install()?;
    let mut notifier = Notifier::from_env();
    let listener = metrics.map(metrics::listen).transpose()?;
    // Before the gate is put down: what comes between that and the first look at the ledger is
    // told as if no daemon had listened, and a disk may be slow.
    let days = policy.alarms.response.history_days;
    let keeper = Keeper::start(&place.history(), Limits::of_days(days));
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
    let mut daemon = Daemon::start(&place, &gate, &policy, &attachment, keeper, output)?;
    if let Some(listener) = listener {
        metrics::serve(listener, &place, Arc::clone(&daemon.board))?;
    }
    // A policy of thousands of servers takes more memory than all the rest: the kernel has it now.
    drop((policy, tables));
    return_memory();
    notifier.ready(&daemon.describe());
    let ended = daemon.watch(&consumer, &doorbell, path, &mut notifier);
    notifier.stopping();
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
    responder: Responder,
    mode: Mode,
    tracker: Hook,
    strict: bool,
    colour: bool,
    names: Names,
    engine: Engine,
    sweep: Sweep,
    /// What was last noted as reported.
    settled: Baseline,
    outlet: Outlet,
    keeper: Keeper,
    board: Arc<Board>,
    socket: Option<Socket>,
    /// Quarantines to be made: alarm and server.
    wanted: Vec<(u64, String)>,
    /// Drops in this second, by server.
    told: HashMap<u32, u32>,
    /// How many more may be told, and how many more of servers that had few.
    allowance: u32,
    reserve: u32,
    /// Those that were not.
    untold: u32,
    /// What the ledger held when it was last looked at.
    glance: Glance,
}

impl<'gate> Daemon<'gate> {
    /// Reports what happened while no daemon ran.
    fn start(
        place: &Place,
        gate: &'gate Gate,
        policy: &Policy,
        attachment: &Attachment,
        keeper: Keeper,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let board = Arc::new(Board::default());
        board.beat();
        let socket = Socket::listen(&place.socket(), Arc::clone(&board))
            .inspect_err(|error| warn!("{error:#}; `show alarms` will not work"))
            .ok();
        let colour = output.colours_stderr();
        let alarms = policy.alarms.clone();
        let settings = Settings { first_id: keeper.last_id() + 1, ..Settings::default() };
        let mut daemon = Daemon {
            place: place.clone(),
            gate,
            interface: place.interface.as_str().into(),
            outlet: open_outlet(&alarms, &place.interface, colour),
            alarms,
            responder: Responder::new(policy),
            mode: attachment.mode,
            tracker: attachment.hook,
            strict: policy.settings.tracking.value == Tracking::Strict,
            colour,
            names: Names::new(),
            engine: Engine::new(settings),
            sweep: Sweep::default(),
            settled: Baseline::default(),
            keeper,
            board,
            socket,
            wanted: Vec::new(),
            told: HashMap::new(),
            allowance: DROPS_TOLD_AT_ONCE,
            reserve: DROPS_TOLD_A_SECOND,
            untold: 0,
            glance: Glance::default(),
        };
        daemon.learn_names()?;
        let ledger = gate.ledger_snapshot()?;
        let baseline = daemon.keeper.baseline();
        let (sweep, missed) = Sweep::starting(&ledger, &baseline, &daemon.context());
        daemon.sweep = sweep;
        for drop in missed {
            daemon.report(drop);
        }
        daemon.look_at_standing();
        Ok(daemon)
    }

    fn watch(
        &mut self,
        consumer: &Consumer<'_>,
        doorbell: &Doorbell,
        path: &Path,
        notifier: &mut Notifier,
    ) -> anyhow::Result<()> {
        let mut swept = Instant::now();
        let mut settled = Instant::now();
        while !doorbell.asked_to_stop() {
            self.take_samples(consumer)?;
            self.respond();
            self.board.beat();
            notifier.alive();
            if doorbell.asked_to_reload() {
                self.reload(path);
            }
            if let Some(socket) = &self.socket {
                socket.answer(&self.engine, &self.keeper.store());
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.look_at_ledger()?;
                self.look_at_gate()?;
                self.look_at_standing();
                notifier.status(&self.describe());
                let at_once = self.sweep.len() <= FEW_KINDS && self.have_sinks_caught_up();
                if at_once || settled.elapsed() >= SETTLE {
                    settled = Instant::now();
                    self.settle();
                }
            }
        }
        // what came between the last poll and the signal
        self.take_samples(consumer)?;
        self.read_ledger()?;
        self.end_round();
        Ok(())
    }

    fn stop(&mut self) {
        std::mem::take(&mut self.outlet).close(LAST_WRITES);
        self.settle();
    }

    fn take_samples(&mut self, consumer: &Consumer<'_>) -> anyhow::Result<()> {
        let received = consumer.poll(POLL)?;
        if received.lost > 0 {
            self.glance.is_lossy = true;
            debug!("the perf buffer lost {} samples; the ledger has their drops", received.lost);
        }
        self.board.samples.fetch_add(received.samples.len() as u64, Ordering::Relaxed);
        for bytes in &received.samples {
            let sample = match decode(bytes) {
                Ok(sample) => sample,
                Err(error) => {
                    count(&self.board.undecoded);
                    self.glance.is_lossy = true;
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
        if !received.samples.is_empty() {
            std::thread::sleep(GATHER);
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
            count(&self.board.filter_changes);
        }
        // asked of the kernel: `apply` may have changed it
        if let Some(settings) = self.gate.live_settings()? {
            self.strict = settings.flags & settings_flag::SETTINGS_STRICT.0 != 0;
        }
        let tracker = self.gate.find_tracker(&self.place);
        if tracker != self.tracker {
            let consequence = match (tracker, self.strict) {
                (Hook::No, true) => {
                    "NEW FLOWS OF PEERS ARE NOT SEEN, and what servers answer is dropped; \
                     was its program taken off?"
                }
                (Hook::No, false) => "none is needed in service tracking",
                (Hook::Tcx | Hook::Clsact, _) => "it sees the flows of peers",
            };
            eprintln!(
                "portcullis: warning: the tracker on {} went from {} to {}: {consequence}",
                self.interface,
                self.tracker.name(),
                tracker.name()
            );
            self.tracker = tracker;
            count(&self.board.tracker_changes);
        }
        if mode == Mode::No || self.strict && tracker == Hook::No {
            self.try_to_reattach();
        }
        Ok(())
    }

    /// Puts servers of grave alarms into quarantine, where the policy asks for it.
    fn respond(&mut self) {
        for (alarm, server) in std::mem::take(&mut self.wanted) {
            let text = match self.responder.quarantine(self.gate, &self.place, alarm, &server) {
                Outcome::Done(text) => {
                    count(&self.board.quarantines);
                    eprintln!(
                        "portcullis: alarm #{alarm}: {text}; next: portcullis release -i {} {server}",
                        self.interface
                    );
                    text
                }
                Outcome::Failed(text) => text,
                Outcome::Already => continue,
                Outcome::Later => {
                    self.wanted.push((alarm, server));
                    continue;
                }
            };
            let now = Clock::now();
            if let Some(change) = self.engine.note_response(alarm, &text, now) {
                self.tell(change);
            }
        }
    }

    /// Notes what has been reported, for the next daemon.
    fn settle(&mut self) {
        let baseline = self.sweep.baseline();
        if baseline != self.settled {
            self.settled = baseline.clone();
            self.keeper.settle(baseline);
        }
    }

    /// What a sink has not been given is not called reported, as long as the sink works: after a
    /// kill the next daemon reports it. Rather twice than never.
    fn have_sinks_caught_up(&self) -> bool {
        self.outlet.status().iter().all(|sink| sink.error.is_some() || sink.pending == 0)
    }

    /// For metrics, and for `systemctl status`.
    fn look_at_standing(&self) {
        self.board.note_standing(&self.engine, self.outlet.status(), self.keeper.status());
    }

    fn describe(&self) -> String {
        let holds = match (self.mode, self.strict && self.tracker == Hook::No) {
            (Mode::No, _) => "NOT ATTACHED, nothing is dropped".to_owned(),
            (mode, true) => format!("{}, WITHOUT ITS TRACKER", mode.name()),
            (mode, false) => mode.name().to_owned(),
        };
        format!("gate on {}: {holds}; {} alarms open", self.interface, self.board.count_open())
    }

    /// An interface that was deleted and made again gets its gate back.
    fn try_to_reattach(&mut self) {
        let Ok(place) = Place::of(&self.interface) else {
            return;
        };
        let restored = place.try_lock().and_then(|_lock| match self.gate.is_pinned_at(&place) {
            true => self.gate.reattach(&place),
            false => Err(GateError::NotAttached { interface: place.interface.clone() }),
        });
        match restored {
            Ok((mode, warnings)) => {
                for warning in warnings {
                    eprintln!("portcullis: warning: {warning}");
                }
                let tracker = self.gate.find_tracker(&place);
                eprintln!(
                    "portcullis: the gate on {} is down again: {}, tracker {}",
                    self.interface,
                    mode.name(),
                    tracker.name()
                );
                if mode != self.mode {
                    count(&self.board.filter_changes);
                }
                if tracker != self.tracker {
                    count(&self.board.tracker_changes);
                }
                (self.mode, self.tracker) = (mode, tracker);
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
        let bad = |diagnostics| anyhow::anyhow!("the policy is bad\n{diagnostics}");
        let policy = read_policy(path)?.map_err(bad)?;
        let _lock = self.place.lock()?;
        if !self.gate.is_pinned_at(&self.place) {
            anyhow::bail!("the gate on {} was lifted by another command", self.interface);
        }
        // Each of the steps needs much memory for a while: one after the other, and given back between.
        return_memory();
        let changes = self.gate.changes_to(&policy)?;
        return_memory();
        let tables = compile(&policy).map_err(bad)?;
        let generation = self.gate.apply(&self.place, &policy, &tables)?;
        self.responder = Responder::new(&policy);
        self.keeper.set_limits(Limits::of_days(policy.alarms.response.history_days));
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
        self.keeper.note_drop(&drop);
        let told = self.told.entry(drop.server_id()).or_default();
        *told = told.saturating_add(1);
        let left = match self.allowance {
            0 if *told <= FEW_DROPS_TOLD => &mut self.reserve,
            _ => &mut self.allowance,
        };
        if *left > 0 {
            *left -= 1;
            self.outlet.send(Event::Drop(drop));
        } else {
            self.untold += 1;
        }
        for change in changes {
            self.tell(change);
        }
    }

    fn tell(&mut self, change: Change) {
        info!("alarm #{} {}", change.alarm.id, change.step.name());
        self.keeper.note_alarm(&change);
        self.board.note_alarm(&change);
        if let Some(socket) = &self.socket {
            socket.tell(&change);
        }
        if let Some(server) = self.responder.find_culprit(&change)
            && self.wanted.len() < MOST_WANTED
        {
            self.wanted.push((change.alarm.id, server.to_owned()));
        }
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
