//! The event loop. It alone connects the parts of the daemon: what one of them finds, the others are
//! given here. It has more than 500 lines, because whoever reads the loop wants to see all of it.

mod alarm_orders;
mod audit;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{debug, warn};

use super::audit_teller::AuditTeller;
use super::control::{ControlServer, ReloadOrder};
use super::dispatch::Dispatch;
use super::doctor_watch::DoctorWatch;
use super::early_answers::EarlyAnswers;
use super::handling_saver::{HandlingSaver, load};
use super::intake::{Intake, LedgerReading};
use super::metrics::snapshot::Snapshot;
use super::monitor::Monitor;
use super::name_alarms;
use super::name_watch::NameWatch;
use super::quarantine_writer::QuarantineWriter;
use super::reload::{BAD_POLICY, Guard, ReadFile, Reload};
use super::responder::Responder;
use super::service_manager::ServiceManager;
use super::signals::Signals;
use super::sink_watch::SinkWatch;
use crate::alarm::{Alarm, Change, Engine, GateTrouble, Handling, Thresholds};
use crate::audit::{Action, Entry};
use crate::clock::{Clock, now_ns};
use crate::drops::{Baseline, DropEvent};
use crate::gate::{Attachment, Consumer, Gate, GateError, GatePlace};
use crate::history::HistoryWriter;
use crate::memory::return_memory;
use crate::policy::Policy;
use crate::stderr::notice;

/// How long one wait for samples lasts. A signal is answered within this time.
const POLL: Duration = Duration::from_millis(100);
/// How long samples gather after some were taken. Each of thousands a second would wake the daemon.
const GATHER: Duration = Duration::from_millis(4);
/// How long they gather at most, while each look finds some.
pub(crate) const LONGEST_GATHER: Duration = Duration::from_millis(32);
/// Between two rounds of everything that is done once a second.
pub(crate) const ROUND: Duration = Duration::from_secs(1);
/// Between two pictures of the quarantines, edits and grants, whose times are those of the wall clock: it may be
/// stepped.
const SAVE: Duration = Duration::from_secs(60);
/// Between two times in which idle rows of the ledger are given back.
const SWEEP: Duration = Duration::from_secs(10);
/// Between two looks for machines of servers in quarantine.
const NOTE_MACHINES: Duration = Duration::from_secs(10);
/// Between two checkpoints when there is much to note or a sink lags behind.
const CHECKPOINT: Duration = Duration::from_secs(10);

/// The beginnings of a daemon.
pub(super) struct Start<'gate, 's> {
    pub place: &'s GatePlace,
    pub gate: &'gate Gate,
    pub policy: &'s Policy,
    pub attachment: &'s Attachment,
    pub policy_file: &'s Path,
    pub colour: bool,
    pub doctor: bool,
    pub snapshot: &'s Arc<Snapshot>,
}

/// A running daemon.
pub(super) struct Daemon<'gate> {
    gate: &'gate Gate,
    intake: Intake<'gate>,
    engine: Engine,
    early_answers: EarlyAnswers,
    /// What people have said about alarms.
    handling: Handling,
    handling_saver: HandlingSaver,
    /// The servers of the live policy.
    servers: Vec<String>,
    dispatch: Dispatch,
    responder: Responder,
    quarantine_writer: QuarantineWriter,
    monitor: Monitor<'gate>,
    name_watch: NameWatch<'gate>,
    /// When the daemon began: CLOCK_MONOTONIC, nanoseconds.
    started_ns: u64,
    reload: Reload,
    audit: AuditTeller,
    sink_watch: SinkWatch,
    /// `None`: nobody asked for it.
    doctor: Option<DoctorWatch>,
    /// Generation of the live policy when it last was the one of the daemon's file.
    own_generation: u64,
    /// The trial whose text was refused last because nobody has confirmed it: when it began. Each SIGHUP finds the
    /// same text, and the alarm about it is raised once.
    reported_trial: Option<Timestamp>,
    /// Who has typed `reload` since the last one.
    reload_order: ReloadOrder,
    control: Option<ControlServer>,
    signals: Signals,
    service_manager: ServiceManager,
    snapshot: Arc<Snapshot>,
    /// How long samples gather before the next look.
    gather: Duration,
    /// When idle rows of the ledger were last given back.
    swept: Instant,
    /// The perf buffer. It is last, so that it is open while the other parts end.
    consumer: Consumer<'gate>,
}

impl<'gate> Daemon<'gate> {
    /// Opens the perf buffer and everything else, and reports the drops from before the start, if the
    /// history already says which ones were reported.
    pub(super) fn start(
        start: &Start<'gate, '_>,
        mut history: HistoryWriter,
        signals: Signals,
        service_manager: ServiceManager,
    ) -> anyhow::Result<Daemon<'gate>> {
        let Start { place, gate, policy, attachment, policy_file, colour, doctor, snapshot } = *start;
        // What a sink writes down keeps this name, so that a time series goes on after a rename.
        let interface: Arc<str> = place.attached_as.as_str().into();
        // Every drop from here on is live.
        let consumer = gate.consume_samples()?;
        let intake = Intake::start(gate, Arc::clone(&interface), Arc::clone(snapshot))?;
        snapshot.note_heartbeat();
        let control = ControlServer::listen(&place.socket(), Arc::clone(snapshot))
            .inspect_err(|error| warn!("{error:#}; `show alarms` will not work"))
            .ok();
        let followers = control.as_ref().map(ControlServer::followers);
        let first_id = history.wait_for_previous_run() + 1;
        let dispatch = Dispatch::start(
            Arc::clone(&interface),
            colour,
            &policy.alarms,
            history,
            followers,
            Arc::clone(snapshot),
        );
        let doctor = doctor.then(|| DoctorWatch::start(place.clone(), Arc::clone(snapshot))).transpose()?;
        let quarantine_writer = QuarantineWriter::start(place.clone())?;
        // an earlier command may have died before it came to that
        quarantine_writer.save();
        let handling_saver = HandlingSaver::start(&place.history())?;
        let mut daemon = Daemon {
            gate,
            consumer,
            intake,
            engine: Engine::new(Thresholds { first_id, ..Thresholds::default() }),
            early_answers: EarlyAnswers::default(),
            handling: load(&place.history()),
            handling_saver,
            servers: Vec::new(),
            dispatch,
            responder: Responder::new(interface, policy, Arc::clone(snapshot)),
            quarantine_writer,
            monitor: Monitor::new(gate, place, policy, attachment, Arc::clone(snapshot)),
            name_watch: NameWatch::new(gate, policy, attachment.generation),
            started_ns: now_ns(),
            reload: Reload::new(policy_file),
            audit: AuditTeller::start(place.audit_log()),
            sink_watch: SinkWatch::default(),
            doctor,
            own_generation: attachment.generation,
            reported_trial: None,
            reload_order: ReloadOrder::default(),
            control,
            signals,
            service_manager,
            snapshot: Arc::clone(snapshot),
            gather: GATHER,
            swept: Instant::now(),
        };
        daemon.engine.set_prefix_servers(policy.prefix_servers());
        daemon.early_answers.set_pair(policy.has_handover());
        daemon.follow_ratings(policy);
        daemon.note_audit_unchanged(Entry::done(Action::DaemonStart).file(policy_file));
        daemon.report_startup_drops();
        daemon.dispatch.publish(&daemon.handling);
        Ok(daemon)
    }

    /// Tells the service manager that the daemon is ready, and runs until a signal or `detach`.
    ///
    /// # Errors
    /// When the gate is gone without `detach`, or can't be read any more.
    pub(super) fn watch(&mut self) -> anyhow::Result<()> {
        self.service_manager.notify_ready(&self.monitor.describe());
        let mut last_round = Instant::now();
        let (mut last_checkpoint, mut last_save) = (Instant::now(), Instant::now());
        let mut last_note = Instant::now();
        while !self.signals.asked_to_stop() && !self.monitor.is_detached() {
            self.take_samples()?;
            self.poll_hot_rows();
            self.release_early_answers();
            self.make_quarantines();
            self.snapshot.note_heartbeat();
            self.service_manager.keep_alive();
            self.reload_if_asked();
            self.answer_orders();
            self.answer_clients();
            self.tell_audit();
            if last_round.elapsed() >= ROUND {
                last_round = Instant::now();
                self.run_round(&mut last_checkpoint)?;
                let may_have_quarantines = self.gate.may_have_quarantines().unwrap_or(true);
                if may_have_quarantines && last_note.elapsed() >= NOTE_MACHINES {
                    last_note = Instant::now();
                    self.note_machines();
                }
                let has_state = may_have_quarantines
                    || self.name_watch.has_names()
                    || self.gate.has_evidence().unwrap_or(true);
                if has_state && last_save.elapsed() >= SAVE {
                    last_save = Instant::now();
                    self.quarantine_writer.save();
                }
            }
        }
        // Whatever came between the last poll and the signal.
        self.take_samples()?;
        let reading = self.intake.read_ledger()?;
        self.report_reading(reading);
        self.release_early_answers();
        for drop in self.early_answers.release_all() {
            self.observe(&drop);
        }
        self.end_second();
        self.quarantine_writer.save();
        Ok(())
    }

    /// Everything that is done once a second.
    fn run_round(&mut self, last_checkpoint: &mut Instant) -> anyhow::Result<()> {
        let reading = self.intake.read_ledger_if_due();
        let reading = self.unless_short(reading)?;
        self.report_reading(reading);
        self.end_second();
        self.check_gate()?;
        if let Err(error) = self.name_watch.run_round(self.monitor.place()) {
            debug!("{error}");
        }
        self.report_answers();
        for text in self.dispatch.take_history_damage() {
            self.report_trouble(GateTrouble::HistoryDamaged, &text);
        }
        self.check_sinks();
        self.report_findings();
        self.dispatch.publish(&self.handling);
        self.service_manager.notify_status(&self.monitor.describe());
        self.report_startup_drops();
        self.give_rows_back();
        let is_cheap = self.intake.has_few_kinds() && self.dispatch.has_caught_up();
        if (is_cheap || last_checkpoint.elapsed() >= CHECKPOINT) && self.checkpoint() {
            *last_checkpoint = Instant::now();
        }
        Ok(())
    }

    /// What a lack of descriptors or memory keeps from being read is read the next time.
    fn unless_short<T: Default>(&mut self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        outcome.or_else(|error| {
            let gate_error = error.chain().find_map(|cause| cause.downcast_ref::<GateError>());
            if !gate_error.is_some_and(GateError::is_shortage) {
                return Err(error);
            }
            self.monitor.note_failed_check(&error);
            Ok(T::default())
        })
    }

    /// Looks how the gate is attached, and reports what is wrong to everybody.
    fn check_gate(&mut self) -> anyhow::Result<()> {
        self.monitor.settle_trial();
        let check = match self.monitor.check() {
            Ok(check) => check,
            // One look that fails is no sign of a gate that is gone. The next look comes in a second.
            Err(error) => {
                self.monitor.note_failed_check(&error);
                return Ok(());
            }
        };
        for text in check.changes {
            self.note_audit_unchanged(Entry::done(Action::ModeChange).detail(text));
        }
        for (trouble, text) in &check.troubles {
            self.report_trouble(*trouble, text);
        }
        for trouble in check.over {
            let changes = self.engine.end_trouble(trouble, Clock::now());
            self.publish(changes);
        }
        if check.has_other_policy
            && let Ok(Some(policy)) = self.gate.live_policy()
        {
            self.follow(&policy)?;
            // read before the policy was, so it is never that of an earlier one
            self.name_watch.follow(&policy, self.monitor.seen_generation());
            if let Some(text) = self.monitor.note_policy(&policy) {
                self.report_trouble(GateTrouble::Observing, &text);
            }
            if !self.monitor.is_observing() {
                let changes = self.engine.end_trouble(GateTrouble::Observing, Clock::now());
                self.publish(changes);
            }
        }
        check.end.map_or(Ok(()), Err)
    }

    /// Reports answers that opened nothing. What can't be read now is there a second later.
    fn report_answers(&mut self) {
        let events = self.gate.take_name_events().unwrap_or_else(|error| {
            debug!("{error}");
            Vec::new()
        });
        let now = Clock::now();
        let interface: Arc<str> = self.monitor.place().attached_as.as_str().into();
        for report in name_alarms::gather(events, self.started_ns, &now) {
            let changes = self.engine.report_answers(&report, &interface, now);
            self.publish(changes);
        }
    }

    /// Reports what `doctor` has found, and what is over.
    fn report_findings(&mut self) {
        let Some(news) = self.doctor.as_mut().map(DoctorWatch::take_news) else { return };
        for (trouble, text) in &news.appeared {
            self.report_trouble(*trouble, text);
        }
        for trouble in news.over {
            let changes = self.engine.end_trouble(trouble, Clock::now());
            self.publish(changes);
        }
    }

    /// Tells everybody that the gate is under the last confirmed policy, because another one was refused.
    pub(super) fn report_refused_policy(&mut self, text: &str, unconfirmed_since: Option<Timestamp>) {
        notice!("portcullis: {text}");
        self.reported_trial = unconfirmed_since;
        self.report_trouble(GateTrouble::PolicyRefused, text);
    }

    fn report_trouble(&mut self, trouble: GateTrouble, text: &str) {
        let interface: Arc<str> = self.monitor.place().attached_as.as_str().into();
        let changes = self.engine.report_trouble(trouble, text, &interface, Clock::now());
        self.publish(changes);
    }

    /// Reports what is left and closes the sinks. With the gate its ledger goes, so then every drop is
    /// reported now: no later daemon can.
    pub(super) fn stop(&mut self, detach_on_exit: bool) {
        self.service_manager.notify_stopping();
        if self.name_watch.has_names() {
            // what was granted since the last minute
            self.quarantine_writer.save();
        }
        // A gate of which that can't be found out may be there: the next daemon reports what is left.
        let is_pinned = self.gate.is_pinned_at(self.monitor.place()).unwrap_or(true);
        let is_last = detach_on_exit || !is_pinned;
        self.report_startup_drops();
        if is_last {
            self.report_startup_drops_beyond(&Baseline::default());
            for drop in self.intake.read_rest() {
                self.report(drop);
            }
            for drop in self.early_answers.release_all() {
                self.observe(&drop);
            }
        }
        if detach_on_exit && !self.monitor.is_detached() {
            let interface = &self.monitor.place().interface;
            let text = format!("the daemon ends and detaches the gate from {interface}: nothing is dropped");
            self.report_trouble(GateTrouble::Detached, &text);
        }
        self.end_audit();
        self.dispatch.close_sinks();
        self.finish_audit();
        if !self.checkpoint() && is_last {
            self.note_checkpoint();
        }
    }

    /// How the gate is attached.
    pub(super) fn monitor(&self) -> &Monitor<'gate> {
        &self.monitor
    }

    /// Gives rows of the ledger back when a quota is nearly used up, unless another command is changing the
    /// gate.
    fn give_rows_back(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        if !self.gate.is_ledger_crowded().unwrap_or(false) {
            return;
        }
        let Ok(_lock) = self.monitor.place().try_lock() else { return };
        if let Err(error) = self.intake.give_rows_back() {
            warn!("{error:#}");
        }
    }

    fn take_samples(&mut self) -> anyhow::Result<()> {
        let received = self.consumer.poll(POLL)?;
        if received.lost > 0 {
            self.intake.note_lost_samples();
            debug!("the perf buffer lost {} samples; the ledger has their drops", received.lost);
        }
        self.snapshot.samples.fetch_add(received.samples.len() as u64, Ordering::Relaxed);
        for bytes in &received.samples {
            let drop = self.intake.read_sample(bytes);
            if let Some(drop) = self.unless_short(drop)? {
                self.report(drop);
            }
        }
        if received.samples.is_empty() {
            self.gather = GATHER;
        } else {
            #[expect(
                clippy::disallowed_methods,
                reason = "no signal has to be heard within so short a time"
            )]
            std::thread::sleep(self.gather);
            // A flood brings some each time. The first drop after a pause is reported at once.
            self.gather = (2 * self.gather).min(LONGEST_GATHER);
        }
        Ok(())
    }

    /// Follows attempts between two readings of the ledger.
    fn poll_hot_rows(&mut self) {
        for row in self.intake.poll_hot_rows() {
            let mut unreported = None;
            let intake = &mut self.intake;
            let take = || {
                unreported = intake.take_unreported(&row);
                unreported.clone()
            };
            let changes = self.engine.observe_hot_row(&row.drop, row.new_packets, take, Clock::now());
            if let Some(drop) = unreported {
                self.dispatch.send_drop(drop);
            }
            self.publish(changes);
        }
    }

    /// Puts servers into quarantine whose alarms ask for it.
    fn make_quarantines(&mut self) {
        let changes = self.engine.flush(Clock::now());
        self.publish(changes);
        for pending in self.responder.take_pending() {
            let alarm = pending.alarm;
            if let Some(text) = self.responder.answer(pending, self.gate, self.monitor.place()) {
                self.quarantine_writer.save();
                let change = self.engine.note_response(alarm, &text, Clock::now());
                self.publish(change);
            }
            for entry in self.responder.take_audit() {
                self.note_audit_unchanged(entry);
            }
        }
    }

    /// Looks for machines of servers in quarantine. Where another command is changing the gate, it does so later.
    fn note_machines(&self) {
        let place = self.monitor.place();
        match place.try_lock().and_then(|_lock| self.gate.note_new_machines(place)) {
            Ok(true) => self.quarantine_writer.save(),
            Ok(false) => {}
            Err(error) => debug!("{error}"),
        }
    }

    fn answer_clients(&self) {
        if let Some(control) = &self.control {
            control.answer_clients(|| self.stamped_alarms(), &self.dispatch.store());
            control.tests().answer(|| self.dispatch.send_test());
        }
    }

    /// SIGHUP: opens the files of the sinks anew, and makes the policy file the live policy as soon as
    /// no other command is changing the gate.
    fn reload_if_asked(&mut self) {
        if self.signals.asked_to_reload() {
            self.reload.ask(Instant::now());
            self.dispatch.reopen();
        }
        if let Some(order) = self.control.as_ref().and_then(|control| control.reloads().take()) {
            self.reload.ask(Instant::now());
            self.reload_order.join(order);
        }
        let place = self.monitor.place();
        let Some(turn) = self.reload.take_turn(Instant::now(), || place.try_lock()) else {
            return;
        };
        let before = self.gate.policy_mark();
        let ReloadOrder { force, askers } = std::mem::take(&mut self.reload_order);
        let outcome = turn.and_then(|(_lock, file)| self.apply_policy(file, force));
        if let Some(control) = &self.control {
            let answer = outcome.as_ref().map(Clone::clone).map_err(|error| format!("{error:#}"));
            control.reloads().finish(answer);
        }
        match outcome {
            Ok(text) => {
                notice!("{text}");
                self.note_reload(before, None, askers);
                self.reported_trial = None;
                let changes = self.engine.end_trouble(GateTrouble::PolicyRefused, Clock::now());
                self.publish(changes);
            }
            Err(error) => {
                notice!("portcullis: {error:#}\nportcullis: the live policy stays as it was");
                let refusal = describe_refusal(&error);
                self.note_reload(before, Some(&refusal), askers);
                // Whoever tries a policy knows. The next reload comes after the trial.
                if !GateError::is_trial(&error) {
                    let unconfirmed = GateError::unconfirmed_since(&error);
                    if unconfirmed.is_none() || unconfirmed != self.reported_trial {
                        self.report_trouble(GateTrouble::PolicyRefused, &refusal);
                    }
                    self.reported_trial = unconfirmed;
                }
            }
        }
        return_memory();
    }

    fn apply_policy(&mut self, file: ReadFile, force: bool) -> anyhow::Result<String> {
        let guard = Guard { own_generation: self.own_generation, force };
        let reloaded = Reload::apply(self.gate, self.monitor.place(), file, &guard)?;
        self.own_generation = reloaded.generation;
        self.quarantine_writer.save();
        self.follow(&reloaded.policy)?;
        self.monitor.follow(&reloaded.policy, reloaded.generation);
        self.name_watch.follow(&reloaded.policy, reloaded.generation);
        Ok(reloaded.text)
    }

    /// Goes by another policy, which is the live one now.
    fn follow(&mut self, policy: &Policy) -> anyhow::Result<()> {
        self.engine.set_prefix_servers(policy.prefix_servers());
        self.early_answers.set_pair(policy.has_handover());
        self.follow_ratings(policy);
        self.responder.follow(policy);
        self.consider_open(self.engine.open_alarms());
        self.dispatch.follow(policy);
        let names = self.intake.learn_names();
        self.unless_short(names)
    }

    fn follow_ratings(&mut self, policy: &Policy) {
        self.handling.set_ratings(policy.ratings.clone());
        self.servers = policy.servers.iter().map(|server| server.name.clone()).collect();
    }

    /// Reports the drops from before the start, as soon as the history says which ones were reported.
    fn report_startup_drops(&mut self) {
        if self.intake.has_startup_ledger()
            && let Some(previous_run) = self.dispatch.take_previous_run()
        {
            self.engine.skip_ids(previous_run.last_id);
            self.report_startup_drops_beyond(&previous_run.baseline);
        }
    }

    fn report_startup_drops_beyond(&mut self, baseline: &Baseline) {
        if self.intake.has_startup_ledger() {
            for drop in self.intake.take_startup_drops(baseline) {
                self.report(drop);
            }
            return_memory();
        }
    }

    fn report_reading(&mut self, reading: LedgerReading) {
        for packet in &reading.last_packets {
            let changes = self.engine.observe_last_packet(packet, Clock::now());
            self.publish(changes);
        }
        for drop in reading.unreported {
            self.report(drop);
        }
    }

    /// Begins the next second of budgets, and publishes the updates that alarms have waited with.
    fn end_second(&mut self) {
        self.dispatch.end_second();
        let changes = self.engine.tick(Clock::now());
        self.publish(changes);
        let joined = if self.responder.is_asked() { self.engine.take_joined() } else { Vec::new() };
        self.consider_open(joined);
        self.end_silences();
        for mut change in self.engine.take_unrecorded(Clock::now()) {
            self.handling.stamp(&mut change.alarm);
            self.dispatch.note_record(&change);
        }
        self.dispatch.send_open(&self.engine);
    }

    fn report(&mut self, drop: DropEvent) {
        if self.early_answers.may_be_early(&drop) {
            self.dispatch.send_drop(drop.clone());
            self.early_answers.hold(drop, now_ns());
            return;
        }
        let changes = self.engine.observe(&drop, Clock::now());
        self.dispatch.send_drop(drop);
        self.publish(changes);
    }

    /// Shows a drop that was held to the alarm engine.
    fn observe(&mut self, drop: &DropEvent) {
        let changes = self.engine.observe(drop, Clock::now());
        self.publish(changes);
    }

    /// Alarms about answers in no flow wait until it is clear that no takeover has begun.
    fn release_early_answers(&mut self) {
        if self.early_answers.is_empty() {
            return;
        }
        // what can't be read is no takeover
        let began_ns = self.gate.takeover_ns().unwrap_or(0);
        let clock = Clock::now();
        let takeover = (began_ns != 0).then(|| clock.to_wall(began_ns));
        for drop in self.early_answers.release(takeover, clock.mono_ns) {
            self.observe(&drop);
        }
    }

    fn publish(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.responder.consider(&change);
            let change = self.handling.apply(change, Clock::now());
            self.dispatch.send_change(change);
        }
    }

    /// Asks the responder about alarms without a change.
    fn consider_open(&mut self, alarms: Vec<Alarm>) {
        self.responder.consider_open(alarms, Clock::now());
    }

    /// Notes what was reported, for the next daemon. `false` if that can't be said of every drop yet.
    fn checkpoint(&mut self) -> bool {
        // a drop is not called reported before its alarm is
        let is_true = self.intake.can_checkpoint() && self.early_answers.is_empty();
        if is_true {
            self.note_checkpoint();
        }
        is_true
    }

    fn note_checkpoint(&mut self) {
        if let Some(baseline) = self.intake.take_checkpoint() {
            self.dispatch.checkpoint(baseline);
        }
    }
}

/// A refused policy in one line: the first of its mistakes.
fn describe_refusal(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let mistake = text.lines().map(str::trim).find(|line| !line.is_empty() && *line != BAD_POLICY);
    format!(
        "the policy file was refused, and the live policy stays: {}",
        mistake.unwrap_or("no reason is known")
    )
}
