//! The loaded programs and the model, side by side: every event happens to both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use plain::Plain;
use portcullis::abi::Reason;
use portcullis::abi::{
    address, edit_cell, edits_word, layout, mac_key, quarantine, settings_flag, state, to_mac_number,
    to_prefix_key,
};
use portcullis::compile::compile;
use portcullis::gate::{Answer, Edit, EditAction, Gate, Verdict};
use portcullis::policy::{Direction, Need, Policy, parse, parse_need};

use super::event::{Above, EditOrder, Event, JUMP_PART_NS, Known, KnownState, Sequence, Whom};
use super::setting::{LOCAL_RESOLVER, WAY, WAY_IFINDEX, index_of, stays_on_link};
use crate::model::{self, Coverage, FlowKey, LedgerKey, Model, Origin, Outcome, Table as FlowTable};
use crate::support::conntrack_table::{Entry, FIN_WAIT, SEEN_REPLY, TCP, Table, UDP};
use crate::support::frame::IP;
use crate::support::own_openings;
use crate::support::test_gate::{SECOND_NS, XDP_PASS, clear_ledger, load_gate};

mod names;
mod tables;

/// Of a differ's gate at a time.
const MOST_EDITS: usize = 40;
const XDP_DROP: u32 = 1;
const TC_NEXT: u32 = u32::MAX;

/// Entries moved by one system call: the tables are small.
const BATCH: u32 = 1024;
/// The programs' clock ticks this coarsely at worst, and the machine has other work.
const TOLERANCE_NS: u64 = SECOND_NS / 2;

const SIZES: &str = "\n[tables]\nservers = 64\nestablished = 1024\nhalf_open = 1024\ndatagrams = 1024\n\
    icmp = 1024\nunlisted = 1024\nfragments = 1024\nlimits = 1024\n";

fn read_time(value: &[u8]) -> u64 {
    u64::from_ne_bytes(*value.first_chunk().expect("a time"))
}

/// How much room a differ's gate has for drops and for peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For every kind of drop, and every peer that ever asked.
    Ample,
    /// For some kinds: the rest is counted by server and reason alone. One word for the peers of a server, which
    /// only chance distinguishes.
    Scarce,
}

impl Room {
    fn sizes(self) -> String {
        let (rows, peers) = match self {
            Room::Ample => (16_384, 65_536),
            Room::Scarce => (32, 64),
        };
        format!("{SIZES}ledger = {rows}\nheard = {peers}\n")
    }
}

/// Tables whose entries begin with a time.
const TIMED: [&str; 7] =
    ["established", "half_open", "datagrams", "icmp_queries", "unlisted", "fragments", "refused_fragments"];

const QUARANTINES: [&str; 3] = ["quarantines", "quarantined_addresses", "quarantined_macs"];

/// Of the router's NIC: where frames go if nobody says otherwise.
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Of a device above the NIC. A test run's NIC is the loopback device.
const ABOVE_IFINDEX: u32 = 4242;
const NIC_IFINDEX: u32 = 1;

/// The memory of peers ages by halves of so many nanoseconds.
const HEARD_EPOCH_NS: u64 = layout::HEARD_EPOCH_S.0 as u64 * SECOND_NS;

/// A difference of opinion.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The event that showed it; as many as there are: the tables afterwards.
    pub at: usize,
    pub what: String,
}

/// A gate that nobody else has, and the model of it.
pub struct Differ {
    gate: Gate,
    room: Room,
    model: Model,
    /// The text of the live policy.
    live: String,
    /// What waiting has added to the model's clock.
    offset_ns: u64,
    /// What waiting has added, of which the memory of peers does not know yet.
    heard_ns: u64,
    /// By how many epochs it has aged.
    heard_epochs: u64,
    /// Names that ids have had under any policy.
    all_names: HashMap<u32, String>,
    /// Lines of the live policy's rules, and the names of ids.
    lines: Vec<u32>,
    names: HashMap<u32, String>,
    /// Whose the live policy's addresses are.
    owners: Vec<(IpNet, String)>,
    /// The gate's generation before the model's first policy.
    generation_before: u32,
    counters_before: Counters,
    /// The live policy's rules, and how often the needs of each line were used before.
    rules: Vec<portcullis::compile::RuleRow>,
    uses_before: BTreeMap<u32, u64>,
    /// Of drops without a row of their own, before.
    rest_before: u64,
    /// In the model's time, with the need of each.
    edits: Vec<(Edit, Need)>,
    last_edit: u32,
    /// A swap may give a server rows that it did not have.
    swapped: bool,
    /// Of this thread's network namespace, and the flows that it was given.
    conntrack: Table,
    known_to_conntrack: BTreeSet<FlowKey>,
    /// While a policy is on trial: the one before it.
    before_trial: Option<String>,
    /// The live policy was installed for a trial, which may be over.
    was_on_trial: bool,
    /// The longest time since it began that the program had a packet, while the model's clock stood.
    longest_run_ns: u64,
    pub packets: u64,
    /// Of the models that this one replaced.
    coverage: Coverage,
}

type Counters = BTreeMap<(Reason, bool), (u64, u64)>;
type Drops = BTreeMap<LedgerKey, (u64, u64)>;

/// Reads a policy as a differ takes it; `None` for one that the tool refuses.
pub fn read_policy(text: &str, room: Room) -> Option<(Policy, portcullis::compile::Tables)> {
    let policy = parse(&format!("{text}{}", room.sizes()), "fuzz.toml").ok()?;
    let tables = compile(&policy).ok()?;
    Some((policy, tables))
}

impl Differ {
    /// A gate; the calling thread is in a network namespace of its own.
    pub fn new(room: Room) -> Differ {
        let text =
            "[policy]\nhandover = \"conntrack\"\n[servers.nobody]\naddresses = [\"192.0.2.1\"]\nroles = []\n";
        let (policy, tables) = read_policy(text, room).expect("a policy");
        let gate = load_gate(&policy, &tables);
        let mut differ = Differ {
            gate,
            room,
            model: Model::new(),
            live: text.to_owned(),
            offset_ns: 0,
            heard_ns: 0,
            heard_epochs: 0,
            all_names: HashMap::new(),
            lines: Vec::new(),
            names: HashMap::new(),
            owners: Vec::new(),
            generation_before: 0,
            counters_before: Counters::new(),
            rules: Vec::new(),
            uses_before: BTreeMap::new(),
            rest_before: 0,
            edits: Vec::new(),
            last_edit: 0,
            swapped: false,
            conntrack: Table::open(),
            known_to_conntrack: BTreeSet::new(),
            before_trial: None,
            was_on_trial: false,
            longest_run_ns: 0,
            packets: 0,
            coverage: Coverage::default(),
        };
        for index in [NIC_IFINDEX, ABOVE_IFINDEX] {
            let own = differ.gate.maps.find("own_interfaces").expect("a map");
            own.update(&index.to_ne_bytes(), &1_u32.to_ne_bytes(), MapFlags::ANY).expect("an update");
        }
        assert_eq!(index_of(WAY), WAY_IFINDEX, "the interfaces of the namespace");
        differ.read_names(&tables);
        differ
    }

    /// Begins anew: no flow, no drop, this policy. False when the tool refuses the policy.
    pub fn begin(&mut self, policy: &str) -> bool {
        let Some((parsed, tables)) = read_policy(policy, self.room) else { return false };
        clear_ledger(&self.gate);
        for name in TIMED.iter().chain(&QUARANTINES).chain(&["neighbour_macs", "own_macs", "lessors"]) {
            for (key, _) in self.dump(name) {
                self.gate.maps.find(name).expect("a map").delete(&key).expect("a deletion");
            }
        }
        own_openings::clear(&self.gate);
        self.clear_names();
        self.write_state(state::STATE_QUARANTINES, 0);
        self.edits.clear();
        self.gate.write_edits(&[]).expect("no edits");
        self.forget_heard();
        self.heard_ns = 0;
        self.heard_epochs = 0;
        self.write_state(state::STATE_PICKUP_UNTIL_NS, 0);
        self.write_state(state::STATE_TAKEOVER_UNTIL_NS, 0);
        self.write_state(state::STATE_TAKEOVER_NS, 0);
        if !std::mem::take(&mut self.known_to_conntrack).is_empty() {
            self.conntrack.clear();
        }
        // as good as a token bucket that has just been made
        self.shift_times("limits", |_| 0);
        let was_on_trial = std::mem::take(&mut self.was_on_trial);
        if self.before_trial.take().is_some() {
            self.write_state(state::STATE_ACTIVE, self.read_state(state::STATE_ACTIVE) & 0xff);
        }
        // A swap waits for all that runs, and what is live already can stay. What was on trial was installed
        // beside another policy, and may track flows for that one.
        if self.live != policy || was_on_trial {
            self.gate.install(&parsed, &tables).expect("a policy");
        }
        policy.clone_into(&mut self.live);
        self.read_names(&tables);
        self.offset_ns = 0;
        self.coverage.add(self.model.coverage());
        self.model = Model::new();
        self.model.set_link_routes(stays_on_link);
        self.model.set_ways(index_of, &[LOCAL_RESOLVER]);
        self.set_own_macs(&[OWN_MAC]);
        self.model.apply(&parsed, self.now());
        self.model.set_pickup_until(0);
        let settings = self.gate.live_settings().expect("settings").expect("a policy");
        self.generation_before = settings.generation as u32 - 1;
        self.model.set_last_generation(self.last_generation());
        self.counters_before = self.read_counters();
        self.uses_before = self.read_uses();
        self.rest_before = self.gate.program_statistics().expect("the statistic").ledger_full;
        self.swapped = false;
        self.longest_run_ns = 0;
        true
    }

    /// Everything that a sequence has, and the tables afterwards; `None` when it has no say, for the
    /// tool refuses a policy of it.
    pub fn play(&mut self, sequence: &Sequence) -> Option<Result<(), Disagreement>> {
        if !self.begin(&sequence.policy) {
            return None;
        }
        for (at, event) in sequence.events.iter().enumerate() {
            if let Err(what) = self.happen(event)? {
                return Some(Err(Disagreement { at, what }));
            }
        }
        let at = sequence.events.len();
        let compared = self.compare_tables().and_then(|()| self.compare_uses());
        Some(compared.map_err(|what| Disagreement { at, what }))
    }

    /// One event; `None` when it is a policy that the tool refuses.
    pub fn happen(&mut self, event: &Event) -> Option<Result<(), String>> {
        match event {
            Event::From(frame) => return Some(self.send(frame)),
            Event::To(frame) => return Some(self.deliver(frame, None)),
            Event::Back(frame, above) => return Some(self.deliver(frame, Some(*above))),
            Event::Via(frame, interface, together) => {
                return Some(self.deliver_by(frame, *interface, *together));
            }
            Event::Wait(seconds) => self.wait(seconds * SECOND_NS + JUMP_PART_NS),
            Event::Swap(policy) => {
                let (parsed, tables) = read_policy(policy, self.room)?;
                if self.before_trial.is_some() {
                    return Some(Ok(()));
                }
                if let Err(what) = self.compare_uses() {
                    return Some(Err(what));
                }
                // what is over ends no flow later than the model has it
                self.write_edits();
                self.swap(&parsed, &tables, None);
                self.was_on_trial = false;
                self.edits.retain(|(edit, _)| parsed.find_server(&edit.server).is_some());
                policy.clone_into(&mut self.live);
                self.swapped = true;
                self.read_names(&tables);
                let now = self.now();
                self.model.apply(&parsed, now);
                self.write_edits();
            }
            Event::Edit(order) => self.edit(order),
            Event::Cancel if self.edits.is_empty() => {}
            Event::Cancel => {
                self.edits.remove(0);
                self.write_edits();
            }
            Event::Trial(policy) => {
                let (parsed, tables) = read_policy(policy, self.room)?;
                if self.before_trial.is_some() {
                    return Some(Ok(()));
                }
                self.swap(&parsed, &tables, Some(Duration::from_secs(3600)));
                self.was_on_trial = true;
                self.before_trial = Some(std::mem::replace(&mut self.live, policy.clone()));
                self.swapped = true;
                self.read_names(&tables);
                self.model.begin_trial(&parsed);
            }
            Event::WayBack => {
                if let Some(policy) = self.before_trial.take() {
                    // the deadline is as old as can be
                    let slots = self.read_state(state::STATE_ACTIVE) & 0xff;
                    self.write_state(state::STATE_ACTIVE, slots | 0x100);
                    let (_, tables) = read_policy(&policy, self.room)?;
                    self.live = policy;
                    self.was_on_trial = false;
                    self.swapped = true;
                    self.read_names(&tables);
                    self.model.go_back();
                }
            }
            Event::Confirm => {
                if self.before_trial.take().is_some() {
                    self.write_state(state::STATE_ACTIVE, self.read_state(state::STATE_ACTIVE) & 0xff);
                    self.model.confirm();
                }
            }
            Event::Quarantine(whom, seconds) => self.quarantine(whom, *seconds),
            Event::Release(whom) => self.release(whom),
            Event::OwnMacs(macs) => self.set_own_macs(macs),
            Event::Takeover(seconds) => {
                let (now, time) = (self.now(), u64::from(*seconds) * SECOND_NS);
                self.write_state(state::STATE_TAKEOVER_NS, now - self.offset_ns);
                self.write_state(state::STATE_TAKEOVER_UNTIL_NS, now + time - self.offset_ns);
                self.model.begin_takeover(now, now + time);
            }
            Event::Conntrack(known) => self.note_conntrack(known),
            Event::Pickup(seconds) => {
                let until = self.now() + u64::from(*seconds) * SECOND_NS;
                self.write_state(state::STATE_PICKUP_UNTIL_NS, until - self.offset_ns);
                self.model.set_pickup_until(until);
            }
        }
        Some(Ok(()))
    }

    /// Whether a packet took so long, since it began, that the two need not agree about its time: the machine had
    /// other work.
    pub fn stood_still(&self) -> bool {
        self.longest_run_ns >= TOLERANCE_NS / 2
    }

    fn note_run(&mut self, begun: u64) {
        self.longest_run_ns = self.longest_run_ns.max(self.now() - begun);
    }

    fn note_conntrack(&mut self, known: &Known) {
        let protocol = if known.tcp { TCP } else { UDP };
        let key = FlowKey {
            server: known.server.0,
            peer: known.peer.0,
            protocol,
            server_port: known.server.1,
            peer_port: known.peer.1,
        };
        let FlowKey { server, peer, server_port, peer_port, .. } = key;
        let back =
            FlowKey { server: peer, peer: server, server_port: peer_port, peer_port: server_port, ..key };
        // it has each flow once, whoever opened it
        if self.known_to_conntrack.contains(&key) || self.known_to_conntrack.contains(&back) {
            return;
        }
        self.known_to_conntrack.insert(key);
        let entry = Entry::of_peer(protocol, known.server, known.peer);
        let entry = match known.state {
            KnownState::Answered => entry,
            KnownState::OfServer => Entry { original: entry.reply, reply: entry.original, ..entry },
            KnownState::Unanswered => Entry { status: 0, ..entry },
            KnownState::Unassured => Entry { status: SEEN_REPLY, ..entry },
            KnownState::Ending => Entry { tcp_state: FIN_WAIT, ..entry },
            KnownState::OfOtherZone => Entry { zone: 7, ..entry },
        };
        self.conntrack.add(entry);
        // these say something of TCP alone
        let good = match known.state {
            KnownState::Answered => true,
            KnownState::Unassured | KnownState::Ending => !known.tcp,
            KnownState::OfServer | KnownState::Unanswered | KnownState::OfOtherZone => false,
        };
        self.model.note_conntrack(key, good);
        // a peer may be a server too
        self.model.note_conntrack(back, known.state == KnownState::OfServer);
    }

    /// How many entries the fullest of the tables has, that must not push any out.
    pub fn fullest(&self) -> usize {
        let mut counts = BTreeMap::<FlowTable, usize>::new();
        for (table, _) in self.model.flows().keys() {
            *counts.entry(*table).or_default() += 1;
        }
        let flows = counts.values().copied().max().unwrap_or(0);
        let fragments = self.model.fragments().len().max(self.model.refused_fragments().len());
        let names = self.model.names();
        flows
            .max(names.queries.len())
            .max(names.grants.len())
            .max(names.connections.len())
            .max(names.streams.len())
            .max(fragments)
            .max(self.model.own_openings().len())
            .max(self.model.ledger().len() / 3)
            .max(self.model.heard())
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.packets += 1;
        let now = self.now();
        self.tell_epoch();
        let answer = self.gate.explain(frame, false, None).map_err(|error| error.to_string())?;
        let mut model = std::mem::take(&mut self.model);
        let outcome = model.from_server_seen(frame, now, |outcome| !self.compare_answer(&answer, outcome));
        self.model = model;
        let run = self.gate.programs.run_filter(frame, 1).map_err(|errno| errno.to_string())?;
        self.note_run(now);
        let differs = self.compare_answer(&answer, &outcome);
        let action = if answer.verdict == Verdict::Drop { XDP_DROP } else { XDP_PASS };
        if differs || run.action != action || run.data != frame {
            let reason = answer.reason.map_or("none", |reason| reason.name());
            let server = self.names.get(&answer.server).map_or("nobody", String::as_str);
            return Err(format!(
                "program: {:?} {reason}, action {}, server {server}, port {}, quiet {}, presumed {}, need of line {}{}\n\
                 model:   {:?} {}, server {}, port {}, quiet {}, presumed {}, needs of lines {:?}{}",
                answer.verdict,
                run.action,
                answer.port,
                answer.quiet,
                answer.presumed,
                self.line_of(answer.rule),
                if run.data == frame { "" } else { ", and it changed the frame" },
                outcome.verdict,
                outcome.reason,
                outcome.server.as_deref().unwrap_or("nobody"),
                outcome.port,
                outcome.quiet,
                outcome.presumed,
                outcome.needs,
                self.describe_borders(now),
            ));
        }
        Ok(())
    }

    /// What is, to some ticks of the clock, as old as a timeout: there the programs' clocks may
    /// differ from the model's, and from each other's.
    fn describe_borders(&self, now: u64) -> String {
        const TICKS_NS: i64 = 25_000_000;
        const TIMEOUTS_S: [i64; 6] = [10, 30, 60, 120, 600, 432_000];
        let now = now.wrapping_sub(self.offset_ns) as i64;
        let mut text = String::new();
        for table in TIMED {
            for (_, value) in self.dump(table) {
                let age = now.wrapping_sub(read_time(&value) as i64);
                let border =
                    TIMEOUTS_S.iter().find(|timeout| (age - *timeout * SECOND_NS as i64).abs() < TICKS_NS);
                if let Some(timeout) = border {
                    let beyond = age - timeout * SECOND_NS as i64;
                    text.push_str(&format!(
                        "\nborder:  an entry of {table} is {timeout} s old, and {beyond} ns"
                    ));
                }
            }
        }
        let until =
            self.dump("quarantines").into_iter().map(|(_, value)| ("a quarantine", read_time(&value) as i64));
        let pickup = ("the pickup", self.read_state(state::STATE_PICKUP_UNTIL_NS) as i64);
        let takeover = ("the takeover", self.read_state(state::STATE_TAKEOVER_UNTIL_NS) as i64);
        for (what, until) in
            until.chain([pickup, takeover]).filter(|(_, until)| (now - until).abs() < TICKS_NS)
        {
            text.push_str(&format!("\nborder:  {what} ended {} ns ago", now - until));
        }
        text
    }

    /// Whether the two say different things about a frame.
    fn compare_answer(&self, answer: &Answer, outcome: &Outcome) -> bool {
        let verdict = match answer.verdict {
            Verdict::Pass => model::Verdict::Pass,
            Verdict::Drop => model::Verdict::Drop,
            Verdict::WouldDrop => model::Verdict::WouldDrop,
        };
        let passes = answer.verdict == Verdict::Pass;
        let server = self.names.get(&answer.server);
        verdict != outcome.verdict
            || answer.reason != Some(outcome.reason)
            || answer.quiet != outcome.quiet
            || answer.presumed != outcome.presumed
            || server != outcome.server.as_ref()
            // what passes is in no ledger, so its port is nobody's concern
            || (!passes && answer.port != outcome.port)
            || (passes && !outcome.needs.is_empty() && !outcome.needs.contains(&self.line_of(answer.rule)))
    }

    fn line_of(&self, rule: u32) -> u32 {
        self.lines.get(rule as usize).copied().unwrap_or(0)
    }

    /// A frame on its way to a server, from beyond or back from the link.
    fn deliver(&mut self, frame: &[u8], back: Option<Above>) -> Result<(), String> {
        let now = self.now();
        self.tell_epoch();
        let run = match back {
            None => self.gate.programs.run_track(frame, 1),
            // the filter drops a stranger's frame otherwise, so that none can come
            Some(true) if self.passes_strangers() => self.gate.programs.run_track_from(frame, ABOVE_IFINDEX),
            Some(_) => self.gate.programs.run_track_from(frame, NIC_IFINDEX),
        };
        let run = match run {
            // the kernel makes no socket buffer of less than an IP header, and so no test run
            Err(Errno::EINVAL) if frame.len() < IP + 40 => return Ok(()),
            run => run.map_err(|errno| errno.to_string())?,
        };
        self.packets += 1;
        self.note_run(now);
        self.model.to_server_from(if back.is_some() { Origin::Link } else { Origin::Beyond }, frame, now);
        let interface = match back {
            None => 0,
            Some(true) if self.passes_strangers() => ABOVE_IFINDEX,
            Some(_) => NIC_IFINDEX,
        };
        self.model.hear_resolver(frame, interface, 0, now);
        if run.action != TC_NEXT || run.data != frame {
            return Err(format!("the tracker's action is {}, or it changed the frame", run.action));
        }
        Ok(())
    }

    /// As [`Differ::deliver`], for a frame that came from beyond by an interface.
    fn deliver_by(&mut self, frame: &[u8], interface: u32, together: u16) -> Result<(), String> {
        let now = self.now();
        self.tell_epoch();
        let run = match self.gate.programs.run_track_of_many(frame, interface, together) {
            Err(Errno::EINVAL) if frame.len() < IP + 40 => return Ok(()),
            run => run.map_err(|errno| errno.to_string())?,
        };
        self.packets += 1;
        self.model.to_server_from(Origin::Beyond, frame, now);
        self.model.hear_resolver(frame, interface, usize::from(together), now);
        if run.action != TC_NEXT || run.data != frame {
            return Err(format!("the tracker's action is {}, or it changed the frame", run.action));
        }
        Ok(())
    }

    fn passes_strangers(&self) -> bool {
        let settings = self.gate.live_settings().expect("settings").expect("a policy");
        settings.flags & (settings_flag::SETTINGS_UNKNOWN_ALLOW.0 | settings_flag::SETTINGS_OBSERVE.0) != 0
    }

    /// Another policy. What it makes of quarantines is the tool's own, and has its own tests: here each order
    /// stays as it was given.
    fn swap(&self, policy: &Policy, tables: &portcullis::compile::Tables, trial: Option<Duration>) {
        let orders = QUARANTINES.map(|name| (self.gate.maps.find(name).expect("a map"), self.dump(name)));
        for (map, rows) in &orders {
            rows.iter().for_each(|(key, _)| map.delete(key).expect("a deletion"));
        }
        match trial {
            None => self.gate.install(policy, tables).expect("a swap"),
            Some(time) => self.gate.install_on_trial(policy, tables, time).expect("a trial"),
        };
        for (map, rows) in &orders {
            rows.iter().for_each(|(key, row)| map.update(key, row, MapFlags::ANY).expect("an update"));
        }
    }

    /// A need for a server, or against it. What the tool would refuse changes nothing.
    fn edit(&mut self, order: &EditOrder) {
        let (policy, _) = read_policy(&self.live, self.room).expect("the live policy");
        let direction = if order.inbound { Direction::In } else { Direction::Out };
        let Ok(need) = parse_need(&order.need, direction, &policy) else { return };
        if policy.find_server(&order.server).is_none() || self.edits.len() == MOST_EDITS {
            return;
        }
        self.last_edit += 1;
        let edit = Edit {
            number: self.last_edit,
            server: order.server.clone(),
            action: if order.allows { EditAction::Allow } else { EditAction::Deny },
            direction,
            need: need.to_string(),
            protocol: need.protocol,
            ports: (*need.ports.start(), *need.ports.end()),
            peers: need.resolve_peers(&policy.sets),
            since_ns: 0,
            until_ns: self.now() + u64::from(order.seconds) * SECOND_NS,
            who: "the fuzzer".to_owned(),
            note: None,
        };
        self.edits.push((edit, need));
        self.write_edits();
    }

    /// Makes the edits that are not over take effect, on both sides.
    fn write_edits(&mut self) {
        let now = self.now();
        self.edits.retain(|(edit, _)| edit.until_ns > now);
        let until_ns = |edit: &Edit| edit.until_ns - self.offset_ns;
        let edits: Vec<Edit> =
            self.edits.iter().map(|(edit, _)| Edit { until_ns: until_ns(edit), ..edit.clone() }).collect();
        self.gate.write_edits(&edits).expect("edits");
        let edits = self.edits.iter().map(|(edit, need)| model::Edit {
            server: edit.server.clone(),
            allows: edit.action == EditAction::Allow,
            need: need.clone(),
            peers: edit.peers.clone(),
            until_ns: edit.until_ns,
        });
        self.model.set_edits(edits.collect());
    }

    /// Brings the ends of the edits nearer, and tells nobody.
    fn age_edits(&self, by_ns: u64) {
        let word = self.read_state(state::STATE_EDITS);
        let Some(slot) = u32::try_from(word & u64::from(edits_word::EDITS_SLOT_MASK.0))
            .ok()
            .and_then(|slot| slot.checked_sub(1))
        else {
            return;
        };
        let table = self.gate.maps.edit_tables.open_inner(slot).expect("a table");
        let nearer = |until_ns: u64| if until_ns == 0 { 0 } else { until_ns.saturating_sub(by_ns).max(1) };
        for (key, cell) in table.entries().expect("rows") {
            let aged = edit_cell {
                allow_until_ns: nearer(cell.allow_until_ns),
                deny_until_ns: nearer(cell.deny_until_ns),
                ..cell
            };
            table.put(&key, &aged, MapFlags::ANY).expect("a row");
        }
    }

    fn quarantine(&mut self, whom: &Whom, seconds: Option<u32>) {
        let until = seconds.map(|seconds| self.now() + u64::from(seconds) * SECOND_NS);
        let until_ns = until.map_or(0, |until| until - self.offset_ns);
        let row = quarantine { since_ns: 1, until_ns, ..Default::default() };
        match whom {
            Whom::Server(name) => {
                // of a server that the live policy does not have, it is refused
                if !self.owners.iter().any(|(_, owner)| owner == name) {
                    return;
                }
                let Some(server) = self.id_of(name) else { return };
                self.gate.maps.quarantines.put(&server, &row, MapFlags::ANY).expect("an update");
                self.model.quarantine(name, until);
            }
            Whom::Addresses(prefix) => {
                let rows = &self.gate.maps.quarantined_addresses;
                rows.put(&to_prefix_key(prefix), &row, MapFlags::ANY).expect("an update");
                self.model.quarantine_addresses(*prefix, until);
            }
            Whom::Machine(name, mac) => {
                let Some(server) = self.id_of(name) else { return };
                let key = mac_key { mac: to_mac_number(*mac), server, zero: 0 };
                self.gate.maps.quarantined_macs.put(&key, &row, MapFlags::ANY).expect("an update");
                self.cut_off_under_nobodys_address(key.mac);
                self.model.quarantine_machine(name, *mac, until);
            }
        }
        self.write_state(state::STATE_QUARANTINES, 1);
        self.outdate_verdicts();
    }

    fn release(&mut self, whom: &Whom) {
        match whom {
            Whom::Server(name) => {
                // a name that never was has no id
                let Some(server) = self.id_of(name) else { return };
                let _ = self.gate.maps.quarantines.remove(&server);
                self.model.release(name);
            }
            Whom::Addresses(prefix) => {
                let _ = self.gate.maps.quarantined_addresses.remove(&to_prefix_key(prefix));
                self.model.release_addresses(*prefix);
            }
            Whom::Machine(name, mac) => {
                let Some(server) = self.id_of(name) else { return };
                let key = mac_key { mac: to_mac_number(*mac), server, zero: 0 };
                let _ = self.gate.maps.quarantined_macs.remove(&key);
                self.cut_off_under_nobodys_address(key.mac);
                self.model.release_machine(name, *mac);
            }
        }
        let is_empty = QUARANTINES.iter().all(|name| self.dump(name).is_empty());
        self.write_state(state::STATE_QUARANTINES, u64::from(!is_empty));
        self.outdate_verdicts();
    }

    /// As the tool does with each MAC: under addresses of no server it is cut off as long as under any server.
    fn cut_off_under_nobodys_address(&self, mac: u64) {
        let table = &self.gate.maps.quarantined_macs;
        let key = mac_key { mac, server: 0, zero: 0 };
        let rows = table.entries().expect("a table").into_iter();
        let of_servers = rows.filter(|(other, _)| other.mac == mac && other.server != 0);
        let longest = of_servers.map(|(_, row)| row).max_by_key(|row| row.until_ns.wrapping_sub(1));
        match longest {
            Some(row) => table.put(&key, &row, MapFlags::ANY).expect("an update"),
            None => _ = table.remove(&key).expect("a deletion"),
        }
    }

    fn id_of(&self, name: &str) -> Option<u32> {
        self.names.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
    }

    /// As the tool does after every change of a quarantine.
    fn outdate_verdicts(&self) {
        let changes = self.read_state(state::STATE_QUARANTINE_CHANGES);
        self.write_state(state::STATE_QUARANTINE_CHANGES, changes + 1);
    }

    /// What was met since this was asked last.
    pub fn take_coverage(&mut self) -> Coverage {
        self.coverage.add(&self.model.take_coverage());
        std::mem::take(&mut self.coverage)
    }

    /// The model's time: what the programs' clock says, and what was waited for.
    fn now(&self) -> u64 {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("the clock");
        time.tv_sec() as u64 * SECOND_NS + time.tv_nsec() as u64 + self.offset_ns
    }

    /// Time goes by: in the model by its clock, in the kernel by all entries growing older.
    fn wait(&mut self, by_ns: u64) {
        self.offset_ns += by_ns;
        for name in TIMED {
            // the clock counts from boot, which may have been a minute ago: wrap
            self.shift_times(name, |time| time.wrapping_sub(by_ns));
        }
        own_openings::age(&self.gate, by_ns);
        self.age_names(by_ns);
        // 0 is a token bucket of which nothing was spent
        self.shift_times("limits", |time| time.saturating_sub(by_ns));
        // 0 is a quarantine without an end
        for name in QUARANTINES {
            self.shift_times(name, |time| if time == 0 { 0 } else { time.saturating_sub(by_ns).max(1) });
        }
        self.age_edits(by_ns);
        let pickup = self.read_state(state::STATE_PICKUP_UNTIL_NS);
        self.write_state(state::STATE_PICKUP_UNTIL_NS, pickup.saturating_sub(by_ns));
        let takeover = self.read_state(state::STATE_TAKEOVER_UNTIL_NS);
        self.write_state(state::STATE_TAKEOVER_UNTIL_NS, takeover.saturating_sub(by_ns));
        // 0: there was none
        let takeover = self.read_state(state::STATE_TAKEOVER_NS);
        let older = if takeover == 0 { 0 } else { takeover.wrapping_sub(by_ns).max(1) };
        self.write_state(state::STATE_TAKEOVER_NS, older);
        self.heard_ns += by_ns;
        let epochs = self.heard_ns / HEARD_EPOCH_NS;
        self.heard_ns %= HEARD_EPOCH_NS;
        self.heard_epochs += epochs;
        match epochs {
            0 => {}
            1 => self.age_heard(),
            _ => self.forget_heard(),
        }
    }

    /// Tells the model which epoch of the memory of peers it is.
    fn tell_epoch(&mut self) {
        self.model.set_epoch(read_epoch() + self.heard_epochs);
    }

    fn set_own_macs(&mut self, macs: &[[u8; 6]]) {
        self.write_state(state::STATE_OWN_MAC, macs.first().map_or(0, |mac| to_mac_number(*mac)));
        let own = self.gate.maps.find("own_macs").expect("a map");
        for (key, _) in self.dump("own_macs") {
            own.delete(&key).expect("a deletion");
        }
        for mac in macs {
            let key = to_mac_number(*mac).to_ne_bytes();
            own.update(&key, &1_u32.to_ne_bytes(), MapFlags::ANY).expect("an update");
        }
        self.model.set_own_macs(macs.iter().copied());
    }

    fn forget_heard(&self) {
        if self.heard_nobody() {
            return;
        }
        for name in ["heard", "heard_bits"] {
            self.write_words(name, &vec![0; self.read_words(name).len()]);
        }
    }

    /// The memory of peers grows older by one epoch: what is of the current one stands then in the other
    /// half, and all else is forgotten.
    fn age_heard(&self) {
        if self.heard_nobody() {
            return;
        }
        let epoch = read_epoch() & 0xffff;
        for name in ["heard", "heard_bits"] {
            let words = self.read_words(name);
            let half = words.len() / 2;
            let mut aged = vec![0; words.len()];
            let (from, to) = if epoch & 1 == 0 { (0, half) } else { (half, 0) };
            for (at, word) in
                words[from..from + half].iter().enumerate().filter(|(_, word)| **word >> 48 == epoch)
            {
                aged[to + at] = (epoch.wrapping_sub(1) & 0xffff) << 48 | (*word & 0xffff_ffff_ffff);
            }
            self.write_words(name, &aged);
        }
    }

    /// By the number of bits in each region, which is read faster than these.
    fn heard_nobody(&self) -> bool {
        self.read_words("heard_bits").iter().all(|word| *word == 0)
    }

    fn read_words(&self, name: &str) -> Vec<u64> {
        let mut entries: Vec<(u32, u64)> = self.entries(name).collect();
        entries.sort_unstable();
        entries.into_iter().map(|(_, word)| word).collect()
    }

    fn write_words(&self, name: &str, words: &[u64]) {
        let keys: Vec<u8> = (0..words.len() as u32).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let map = self.gate.maps.find(name).expect("a map");
        let count = words.len() as u32;
        map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY).expect("an update");
    }

    fn shift_times(&self, name: &str, shift: impl Fn(u64) -> u64) {
        const { assert!(std::mem::offset_of!(quarantine, until_ns) == 0) };
        let entries = self.dump(name);
        if entries.is_empty() {
            return;
        }
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, mut value) in entries.iter().cloned() {
            let time = read_time(&value);
            value[..8].copy_from_slice(&shift(time).to_ne_bytes());
            keys.extend(key);
            values.extend(value);
        }
        let count = entries.len() as u32;
        self.gate
            .maps
            .find(name)
            .expect("a map")
            .update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
            .expect("an update");
    }

    // ---- the gate's maps --------------------------------------------------------

    fn read_names(&mut self, tables: &portcullis::compile::Tables) {
        self.lines = tables.rules.iter().map(|rule| rule.line).collect();
        tables.rules.clone_into(&mut self.rules);
        // under each policy by itself
        self.uses_before = self.read_uses();
        self.model.take_uses();
        let names = self.gate.names_by_id().expect("names");
        self.names = names.iter().map(|(id, name)| (*id, name.to_string())).collect();
        self.all_names.extend(self.names.iter().map(|(id, name)| (*id, name.clone())));
        self.owners =
            tables.servers.iter().map(|row| (row.prefix, tables.names[row.server].clone())).collect();
    }

    fn read_state(&self, index: state) -> u64 {
        let word = self.gate.maps.state.handle().lookup(&index.0.to_ne_bytes(), MapFlags::ANY);
        word.expect("a word").map_or(0, |word| u64::from_ne_bytes(*word.first_chunk().expect("eight bytes")))
    }

    /// The last generation that was given, as the model counts.
    fn last_generation(&self) -> u32 {
        (self.read_state(state::STATE_GENERATION) as u32).wrapping_sub(self.generation_before)
    }

    fn write_state(&self, index: state, value: u64) {
        let map = self.gate.maps.state.handle();
        map.update(&index.0.to_ne_bytes(), &value.to_ne_bytes(), MapFlags::ANY).expect("an update");
    }

    fn dump(&self, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.gate
            .maps
            .find(name)
            .expect("a map")
            .lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY)
            .expect("a table")
            .collect()
    }

    fn entries<K: Plain + Copy + Default, V: Plain + Copy + Default>(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (K, V)> {
        self.dump(name).into_iter().map(|(key, value)| (read(&key), read(&value)))
    }
}

/// The number of the current epoch, by the programs' clock.
fn read_epoch() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("the clock");
    time.tv_sec() as u64 / u64::from(layout::HEARD_EPOCH_S.0)
}

fn to_ip(address: &address) -> IpAddr {
    portcullis::abi::from_address(address).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

fn read<T: Plain + Copy + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    plain::copy_from_bytes(&mut value, bytes).expect("a value of its type");
    value
}
