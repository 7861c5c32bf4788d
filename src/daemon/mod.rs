//! `portcullis run`: the daemon. It puts the gate down, reads the perf buffer,
//! sweeps the ledger, raises alarms. When it ends, the gate stays.

/// Says a line on standard error, and waits for nobody.
macro_rules! notice {
    ($($text:tt)*) => { crate::stderr::notice(format_args!($($text)*)) };
}

pub mod control;
mod intake;
mod metrics;
mod monitor;
mod responder;
mod service_manager;
mod signals;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::{debug, info, warn};

use crate::alarm::{Change, Engine, Thresholds};
use crate::clock::Clock;
use crate::compile::compile;
use crate::drops::decode;
use crate::drops::{Baseline, Context, DropEvent, HotRows, Ledger, Names, Reconciler};
use crate::exit::Exit;
use crate::gate::{
    AttachMode, Attachment, Consumer, Gate, GateError, GatePlace, Hook, detach, return_memory,
};
use crate::history::{HistoryWriter, Limits};
use crate::output::Output;
use crate::policy::{Alarms, Policy, Tracking};
use crate::policy_file::{read_policy, refuse};
use crate::sink::{Event, Fanout, build_fanout};
use crate::stderr;
use control::server::Socket;
use intake::LedgerCursor;
use metrics::snapshot::{Snapshot, count};
use responder::{Outcome, Responder};
use service_manager::Notifier;
use signals::Signals;

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
/// How long SIGHUP waits for another command that is at the gate.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Quarantines that wait for another command to leave the gate.
const MOST_WANTED: usize = 256;
/// Between two notes of what has been reported, when that is much or a sink lags behind.
const SETTLE: Duration = Duration::from_secs(10);
/// Kinds of drops that are noted every second.
const FEW_KINDS: usize = 2048;

/// What the daemon is told on its command line.
pub struct Options<'o> {
    pub path: &'o Path,
    pub detach_on_exit: bool,
    pub metrics: Option<SocketAddr>,
}

pub fn run(interface: &str, options: &Options<'_>, output: &Output) -> anyhow::Result<Exit> {
    let Options { path, detach_on_exit, metrics } = *options;
    let policy = read_policy(path)?.map_err(|diagnostics| refuse(&diagnostics, output))?;
    // Reading it needs as much for a while as compiling it.
    return_memory();
    let tables = compile(&policy).map_err(|diagnostics| refuse(&diagnostics, output))?;
    let place = GatePlace::of(interface)?;
    let _daemon = place.lock_daemon()?;
    let signals = Signals::install()?;
    stderr::spawn_writer();
    let mut notifier = Notifier::from_env();
    let listener = metrics.map(metrics::listen).transpose()?;
    // It opens while the gate is put down, which waits for no disk.
    let days = policy.response.history_days;
    let writer = HistoryWriter::start(&place.history(), Limits::of_days(days));
    let (gate, attachment) = {
        let _lock = place.lock()?;
        Gate::attach(&place, &policy, &tables)?
    };
    for warning in &attachment.warnings {
        output.warn(warning);
    }
    // Where people look, so that they see it came up; no alarm, so no sink has it.
    notice!(
        "portcullis: the gate on {interface} is down: {}, {}, generation {}",
        attachment.mode.name(),
        policy.settings.tracking.value,
        attachment.generation
    );

    let consumer = gate.consume_samples()?;
    let mut daemon = Daemon::start(&place, &gate, &policy, &attachment, writer, output)?;
    if let Some(listener) = listener {
        metrics::serve(listener, &place, Arc::clone(&daemon.board))?;
    }
    // A policy of thousands of servers takes more memory than all the rest: the kernel has it now.
    drop((policy, tables));
    return_memory();
    notifier.ready(&daemon.describe());
    let ended = daemon.watch(&consumer, &signals, path, &mut notifier);
    let lifted = daemon.lifted;
    notifier.stopping();
    daemon.stop(detach_on_exit || !gate.is_pinned_at(&place));
    ended?;
    if lifted {
        return Ok(Exit::Done);
    }
    if detach_on_exit {
        let _lock = place.lock()?;
        if gate.is_pinned_at(&place) {
            detach(&place)?;
        }
        notice!("portcullis: the gate on {interface} is lifted: nothing is dropped any more");
    } else {
        notice!("portcullis: the daemon ends, the gate on {interface} stays down and enforcing");
    }
    Ok(Exit::Done)
}

/// What a running daemon holds.
struct Daemon<'gate> {
    place: GatePlace,
    gate: &'gate Gate,
    interface: Arc<str>,
    alarms: Alarms,
    responder: Responder,
    mode: AttachMode,
    tracker: Hook,
    strict: bool,
    /// Somebody typed `detach`.
    lifted: bool,
    /// Why the gate could not be put down again, as it was last said.
    refusal: String,
    /// When SIGHUP came that has not been obeyed yet.
    asked_to_reload: Option<Instant>,
    colour: bool,
    names: Names,
    engine: Engine,
    reconciler: Reconciler,
    /// The ledger at the beginning, until it is known what of it was reported before.
    found: Option<Ledger>,
    peek: HotRows,
    /// When it was last asked.
    peeked: Instant,
    /// What was last noted as reported.
    settled: Baseline,
    fanout: Fanout,
    writer: HistoryWriter,
    board: Arc<Snapshot>,
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
    glance: LedgerCursor,
}

impl<'gate> Daemon<'gate> {
    /// Reports what happened while no daemon ran.
    fn start(
        place: &GatePlace,
        gate: &'gate Gate,
        policy: &Policy,
        attachment: &Attachment,
        mut writer: HistoryWriter,
        output: &Output,
    ) -> anyhow::Result<Self> {
        // What comes from here on is live.
        let ledger = gate.ledger_snapshot()?;
        let board = Arc::new(Snapshot::default());
        board.beat();
        let socket = Socket::listen(&place.socket(), Arc::clone(&board))
            .inspect_err(|error| warn!("{error:#}; `show alarms` will not work"))
            .ok();
        let colour = output.colours_stderr();
        let alarms = policy.alarms.clone();
        let settings = Thresholds { first_id: writer.wait_for_previous_run() + 1, ..Thresholds::default() };
        let mut daemon = Daemon {
            place: place.clone(),
            gate,
            interface: place.interface.as_str().into(),
            fanout: build_fanout(&alarms, &place.interface, colour),
            alarms,
            responder: Responder::new(policy),
            mode: attachment.mode,
            tracker: attachment.hook,
            strict: policy.settings.tracking.value == Tracking::Strict,
            lifted: false,
            refusal: String::new(),
            asked_to_reload: None,
            colour,
            names: Names::new(),
            engine: Engine::new(settings),
            reconciler: Reconciler::default(),
            found: None,
            peek: HotRows::default(),
            peeked: Instant::now(),
            settled: Baseline::default(),
            writer,
            board,
            socket,
            wanted: Vec::new(),
            told: HashMap::new(),
            allowance: DROPS_TOLD_AT_ONCE,
            reserve: DROPS_TOLD_A_SECOND,
            untold: 0,
            glance: LedgerCursor::default(),
        };
        daemon.learn_names()?;
        daemon.reconciler = Reconciler::starting(&ledger, &Baseline::default(), &daemon.context()).0;
        daemon.found = Some(ledger);
        daemon.report_found();
        daemon.publish_metrics();
        Ok(daemon)
    }

    fn watch(
        &mut self,
        consumer: &Consumer<'_>,
        signals: &Signals,
        path: &Path,
        notifier: &mut Notifier,
    ) -> anyhow::Result<()> {
        let mut swept = Instant::now();
        let mut settled = Instant::now();
        while !signals.asked_to_stop() && !self.lifted {
            self.take_samples(consumer)?;
            self.poll_hot_rows();
            self.respond();
            self.board.beat();
            notifier.alive();
            if signals.asked_to_reload() {
                self.asked_to_reload = Some(Instant::now());
                self.fanout.reopen();
            }
            self.reload(path);
            if let Some(socket) = &self.socket {
                socket.answer(&self.engine, &self.writer.store());
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.reconcile_ledger()?;
                self.check_attachment()?;
                self.publish_metrics();
                notifier.status(&self.describe());
                self.report_found();
                let at_once = self.reconciler.len() <= FEW_KINDS && self.have_sinks_caught_up();
                if (at_once || settled.elapsed() >= SETTLE) && self.settle() {
                    settled = Instant::now();
                }
            }
        }
        // what came between the last poll and the signal
        self.take_samples(consumer)?;
        self.read_ledger()?;
        self.end_round();
        Ok(())
    }

    /// `last`: the ledger goes with its gate, and no daemon after this one can make up for anything.
    fn stop(&mut self, last: bool) {
        self.report_found();
        if last {
            self.report_unreported(&Baseline::default());
            self.report_rest();
        }
        std::mem::take(&mut self.fanout).close(LAST_WRITES);
        if !self.settle() && last {
            self.note_reported();
        }
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
            self.peek.note_sample(sample.key(), sample.time_ns);
            let fresh = self.reconciler.note_sample(sample.key(), sample.time_ns, sample.drops);
            let drop = sample.to_event(fresh, &self.context());
            self.report(drop);
        }
        if !received.samples.is_empty() {
            std::thread::sleep(GATHER);
        }
        Ok(())
    }

    /// Where tries go on to, between two sweeps.
    fn poll_hot_rows(&mut self) {
        if self.peeked.elapsed() < POLL {
            return;
        }
        self.peeked = Instant::now();
        let mut peek = std::mem::take(&mut self.peek);
        // the daemon is changed while they are read
        let names = std::mem::take(&mut self.names);
        let context = self.context_of(&names);
        for seen in peek.poll(&context, |key| self.gate.ledger_row(key).ok().flatten()) {
            let (reconciler, mut counted) = (&mut self.reconciler, None);
            let claim = || {
                counted = reconciler.take_unreported(seen.key, &seen.entry, &context);
                counted.clone()
            };
            let changes = self.engine.observe_hot_row(&seen.drop, seen.new_packets, claim, Clock::now());
            if let Some(drop) = counted {
                self.pass_on(drop);
            }
            changes.into_iter().for_each(|change| self.tell(change));
        }
        self.names = names;
        self.peek = peek;
    }

    /// Puts servers of grave alarms into quarantine, where the policy asks for it.
    fn respond(&mut self) {
        for (alarm, server) in std::mem::take(&mut self.wanted) {
            let text = match self.responder.quarantine(self.gate, &self.place, alarm, &server) {
                Outcome::Done(text) => {
                    count(&self.board.quarantines);
                    notice!(
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

    /// Reports what came before this daemon and was not reported by the one before, as soon as the
    /// history says what was.
    fn report_found(&mut self) {
        if self.found.is_none() {
            return;
        }
        if let Some(previous_run) = self.writer.take_previous_run() {
            self.engine.skip_ids(previous_run.last_id);
            self.report_unreported(&previous_run.baseline);
        }
    }

    fn report_unreported(&mut self, baseline: &Baseline) {
        let Some(ledger) = self.found.take() else {
            return;
        };
        let unreported = Reconciler::starting(&ledger, baseline, &self.context()).1;
        drop(ledger);
        for drop in unreported {
            self.report(drop);
        }
        return_memory();
    }

    /// Notes what has been reported, for the next daemon; not while that can't be said of every
    /// drop: the next one would take for reported what this one has never told, or tell again what a
    /// sample alone has told.
    fn settle(&mut self) -> bool {
        if self.found.is_some() || !self.reconciler.has_seen_all() {
            return false;
        }
        self.note_reported();
        true
    }

    fn note_reported(&mut self) {
        let baseline = self.reconciler.baseline();
        if baseline != self.settled {
            self.settled = baseline.clone();
            self.writer.checkpoint(baseline);
        }
    }

    /// What a sink has not been given is not called reported, as long as the sink works: after a
    /// kill the next daemon reports it. Rather twice than never.
    fn have_sinks_caught_up(&self) -> bool {
        self.fanout.status().iter().all(|sink| sink.error.is_some() || sink.pending == 0)
    }

    /// For metrics, and for `systemctl status`.
    fn publish_metrics(&self) {
        self.board.note_standing(&self.engine, self.fanout.status(), self.writer.status());
    }

    /// SIGHUP: the policy anew, as soon as no other command is at the gate. A bad one changes
    /// nothing. Log rotation asks for it as well.
    fn reload(&mut self, path: &Path) {
        let Some(asked) = self.asked_to_reload else {
            return;
        };
        let lock = match self.place.try_lock() {
            Err(GateError::Locked { .. }) if asked.elapsed() < LOCK_PATIENCE => return,
            lock => lock,
        };
        self.asked_to_reload = None;
        match lock.map_err(anyhow::Error::from).and_then(|_lock| self.try_reload(path)) {
            Ok(text) => notice!("{text}"),
            Err(error) => notice!("portcullis: {error:#}\nportcullis: the live policy stays as it was"),
        }
        return_memory();
    }

    /// The caller holds the lock.
    fn try_reload(&mut self, path: &Path) -> anyhow::Result<String> {
        let bad = |diagnostics| anyhow::anyhow!("the policy is bad\n{diagnostics}");
        let policy = read_policy(path)?.map_err(bad)?;
        if !self.gate.is_pinned_at(&self.place) {
            anyhow::bail!("the gate on {} was lifted by another command", self.interface);
        }
        // Each of the steps needs much memory for a while: one after the other, and given back between.
        return_memory();
        let changes = self.gate.changes_to(&policy)?;
        return_memory();
        let tables = compile(&policy).map_err(bad)?;
        let generation = self.gate.apply(&self.place, &policy, &tables)?;
        self.responder.follow(&policy);
        self.writer.set_limits(Limits::of_days(policy.response.history_days));
        if policy.alarms != self.alarms {
            self.alarms = policy.alarms.clone();
            self.fanout = build_fanout(&self.alarms, &self.interface, self.colour);
        }
        self.learn_names()?;
        let mut text = crate::policy::list_changes(&changes);
        text.push_str(&format!("portcullis: generation {generation} is live on {}", self.interface));
        Ok(text)
    }

    fn report(&mut self, drop: DropEvent) {
        let now = Clock::now();
        let changes = self.engine.observe(&drop, now);
        self.pass_on(drop);
        for change in changes {
            self.tell(change);
        }
    }

    /// To the history and the sinks.
    fn pass_on(&mut self, drop: DropEvent) {
        self.writer.note_drop(&drop);
        let told = self.told.entry(drop.server_id()).or_default();
        *told = told.saturating_add(1);
        let left = match self.allowance {
            0 if *told <= FEW_DROPS_TOLD => &mut self.reserve,
            _ => &mut self.allowance,
        };
        if *left > 0 {
            *left -= 1;
            self.fanout.send(Event::Drop(drop));
        } else {
            self.untold += 1;
        }
    }

    fn tell(&mut self, change: Change) {
        info!("alarm #{} {}", change.alarm.id, change.step.name());
        self.writer.note_alarm(&change);
        self.board.note_alarm(&change);
        if let Some(socket) = &self.socket {
            socket.tell(&change);
        }
        if let Some(server) = self.responder.find_culprit(&change)
            && self.wanted.len() < MOST_WANTED
        {
            self.wanted.push((change.alarm.id, server.to_owned()));
        }
        self.fanout.send(Event::Alarm(change));
    }

    fn learn_names(&mut self) -> anyhow::Result<()> {
        self.names = self.gate.names_by_id().context("could not read the servers' names")?;
        Ok(())
    }

    fn context(&self) -> Context<'_> {
        self.context_of(&self.names)
    }

    fn context_of<'n>(&self, names: &'n Names) -> Context<'n> {
        Context { interface: self.interface.clone(), clock: Clock::now(), names }
    }
}
