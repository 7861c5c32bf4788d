//! A gate of its own for each test, and the checks that every packet through it undergoes.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use libbpf_rs::{MapCore, MapFlags};
use plain::Plain;
use portcullis::abi::Reason;
use portcullis::abi::{flow, half_open, layout, ledger_key, row_counts, state};
use portcullis::clock::now_ns;
use portcullis::compile::compile;
use portcullis::drops::CountedRow;
use portcullis::gate::{EditAction, EditAsked, FlowTable, Gate, PrivateGate, Verdict};
use portcullis::policy::{Direction, parse, parse_need};

use super::dmz::{self, Family, in_both_families};
use super::frame::{ACK, Endpoint, ROUTER_MAC, SYN, tcp_numbered};
use super::own_openings;

const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
/// `TC_ACT_UNSPEC`, which is `TCX_NEXT`: whatever comes next decides.
const TC_NEXT: u32 = u32::MAX;

pub const SECOND_NS: u64 = 1_000_000_000;

/// Small tables, but not too small for an LRU: each CPU takes up to 128 entries for itself.
const TABLES: [(&str, u32); 11] = [
    ("servers", 64),
    ("established", 2048),
    ("half_open", 2048),
    ("datagrams", 2048),
    ("icmp", 2048),
    ("unlisted", 2048),
    ("fragments", 2048),
    ("heard", HEARD_BYTES),
    ("ledger", 4096),
    ("limits", 64),
    ("grants", 2048),
];

/// Room for some hundreds of peers in each region.
const HEARD_BYTES: u32 = 8192;

/// Tables that packets change. Per-CPU ones are read through the gate.
const FLOW_MAPS: [&str; 11] = [
    "established",
    "half_open",
    "datagrams",
    "icmp_queries",
    "unlisted",
    "fragments",
    "refused_fragments",
    "lessors",
    "limits",
    "evidence",
    "exchanges",
];

/// The memory of peers that asked: arrays, which the tracker alone writes.
const HEARD_MAPS: [&str; 2] = ["heard", "heard_bits"];

/// What the programs note of names as destinations.
pub const NAME_MAPS: [&str; 9] = [
    "lookups",
    "grants",
    "granted",
    "name_connections",
    "connection_places",
    "queries",
    "streams",
    "name_shares",
    "name_events",
];

/// What the filter learns of the link.
const LINK_MAPS: [&str; 1] = ["neighbour_macs"];

/// Tables that the control tool fills and that outlive a policy.
const TOOL_MAPS: [&str; 9] = [
    "names",
    "counted_needs",
    "quarantines",
    "quarantined_addresses",
    "quarantined_macs",
    "own_macs",
    "own_interfaces",
    "own_networks",
    "domains",
];

/// Sizes of tables that are not those of [`TABLES`].
type Sizes = BTreeMap<String, u32>;

/// Gates that tests have done with, by their sizes. The verifier takes a second for each, and eight times as long
/// in an emulated machine, so they are emptied and used again: a test begins with a gate that is as good as
/// new, and nobody else has it meanwhile.
static POOL: Mutex<Vec<(Sizes, Arc<Gate>)>> = Mutex::new(Vec::new());

/// A gate that is attached nowhere, and the only user of its tables.
pub struct TestGate {
    gate: Arc<Gate>,
    /// For another test that may have the gate afterwards; `None` when none may.
    sizes: Option<Sizes>,
}

impl Deref for TestGate {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.gate
    }
}

impl Drop for TestGate {
    fn drop(&mut self) {
        if let Some(sizes) = self.sizes.take()
            && !std::thread::panicking()
        {
            POOL.lock().expect("the pool").push((sizes, self.gate.clone()));
        }
    }
}

/// A row of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub key: ledger_key,
    pub row: CountedRow,
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A row that is compared whole.
#[derive(Clone, Copy, Debug)]
struct WholeRow(CountedRow);

impl WholeRow {
    fn fields(&self) -> ([u64; 7], [[u32; 4]; 2]) {
        let row = &self.0;
        (
            [
                row.number.into(),
                row.packets,
                row.bytes,
                row.first_ns,
                row.last_ns,
                row.sampled_ns,
                row.sampled_packets,
            ],
            [row.last_source.word_be, row.last_destination.word_be],
        )
    }
}

impl PartialEq for WholeRow {
    fn eq(&self, other: &WholeRow) -> bool {
        self.fields() == other.fields()
    }
}

type Rows = BTreeMap<Vec<u8>, WholeRow>;

/// Everything that a packet may change, byte for byte.
#[derive(Clone, Debug, PartialEq)]
struct Snapshot {
    /// By reason: packets and bytes; the would-be drops of observe second.
    counters: [Vec<(Reason, u64, u64)>; 2],
    ledger: Rows,
    flows: Vec<Entries>,
    /// By number: times that a need was used, and the last one.
    uses: Vec<(u64, u64)>,
    statistic: portcullis::gate::ProgramStatistics,
}

impl TestGate {
    /// A gate with this policy and small tables.
    pub fn new(policy: &str) -> TestGate {
        TestGate::sized(policy, &[])
    }

    /// A gate with this policy and tables of which some have other sizes.
    pub fn sized(policy: &str, sizes: &[(&str, u32)]) -> TestGate {
        let (policy, tables) = read_policy(policy, sizes);
        let mut sizes: Sizes = sizes.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
        // its programs are others
        sizes.insert("handover".to_owned(), tables.settings.has_handover().into());
        let used = {
            let mut pool = POOL.lock().expect("the pool");
            let at = pool.iter().position(|(others, _)| *others == sizes);
            at.map(|at| pool.swap_remove(at).1)
        };
        let gate = match used {
            Some(gate) => {
                empty(&gate);
                gate.install(&policy, &tables).expect("a policy");
                gate
            }
            None => Arc::new(load_gate(&policy, &tables)),
        };
        set_own_mac(&gate, ROUTER_MAC);
        TestGate { gate, sizes: Some(sizes) }
    }

    /// As [`TestGate::sized`], for a test that no other must have come before, or whose gate none can use again.
    pub fn fresh(policy: &str, sizes: &[(&str, u32)]) -> TestGate {
        let (policy, tables) = read_policy(policy, sizes);
        let gate = load_gate(&policy, &tables);
        set_own_mac(&gate, ROUTER_MAC);
        TestGate::of(gate)
    }

    /// A gate that was made elsewhere.
    pub fn of(gate: impl Into<Arc<Gate>>) -> TestGate {
        TestGate { gate: gate.into(), sizes: None }
    }

    /// The same gate, as the tests of a policy and `replay` have one.
    pub fn private(&self) -> PrivateGate {
        PrivateGate::of(self.gate.clone())
    }

    /// A gate with the policy that most tests use.
    pub fn dmz() -> TestGate {
        TestGate::new(dmz::POLICY)
    }

    /// Makes another policy the live one.
    pub fn swap(&self, policy: &str) {
        let (policy, tables) = read_policy(policy, &[]);
        self.gate.install(&policy, &tables).expect("a swap");
    }

    /// Sends a frame from the DMZ that must pass, for this reason.
    #[track_caller]
    pub fn passes(&self, frame: &[u8], reason: Reason) {
        let row = self.send(frame, Verdict::Pass, reason);
        assert!(row.is_none(), "a row of the ledger for a pass: {row:?}");
    }

    /// Sends a frame from the DMZ that must be dropped, for this reason.
    #[track_caller]
    pub fn drops(&self, frame: &[u8], reason: Reason) -> Row {
        self.send(frame, Verdict::Drop, reason).expect("a row of the ledger")
    }

    /// Sends a frame from the DMZ that must be counted as a drop, and pass.
    #[track_caller]
    pub fn would_drop(&self, frame: &[u8], reason: Reason) -> Row {
        self.send(frame, Verdict::WouldDrop, reason).expect("a row of the ledger")
    }

    /// Asks what would become of a frame, then sends it, and checks that both agree, that the
    /// question changed nothing, and that the verdict left its marks and no other.
    #[track_caller]
    fn send(&self, frame: &[u8], verdict: Verdict, reason: Reason) -> Option<Row> {
        let before = self.take_snapshot();
        let answer = self.gate.explain(frame, false, None).expect("an answer");
        let between = self.take_snapshot();
        assert_eq!(before, between, "the question left marks, for\n{}", hex(frame));

        let run = self.gate.programs.run_filter(frame, 1).expect("a run");
        let after = self.take_snapshot();
        assert_eq!((answer.verdict, answer.reason), (verdict, Some(reason)), "for\n{}", hex(frame));
        if verdict == Verdict::Pass {
            let named = answer.rule != 0 || answer.edit.is_some();
            assert_eq!(named, is_by_need(reason), "the need that it names, for\n{}", hex(frame));
        }
        let action = if verdict == Verdict::Drop { XDP_DROP } else { XDP_PASS };
        assert_eq!(run.action, action, "the filter decided otherwise, for\n{}", hex(frame));
        assert_eq!(run.data, frame, "the filter changed the frame");

        let length = frame.len() as u64;
        let would = usize::from(verdict == Verdict::WouldDrop);
        let mut expected = before.counters.clone();
        for counter in expected[would].iter_mut().filter(|counter| counter.0 == reason) {
            counter.1 += 1;
            counter.2 += length;
        }
        assert_eq!(after.counters, expected, "the counters, for\n{}", hex(frame));
        let count = |snapshot: &Snapshot| snapshot.uses.iter().map(|(openings, _)| openings).sum::<u64>();
        let used = count(&after) - count(&before);
        match (verdict, reason) {
            // what an edit allows is no need of the policy
            (Verdict::Pass, Reason::Need) => {
                assert_eq!(used, u64::from(answer.edit.is_none()), "uses of needs, for\n{}", hex(frame));
            }
            // the first answer in a flow of datagrams, or any in service tracking
            (Verdict::Pass, Reason::Reply) => assert!(used <= 1, "{used} uses, for\n{}", hex(frame)),
            _ => assert_eq!(used, 0, "uses of needs, for\n{}", hex(frame)),
        }

        let row = find_growth(&before.ledger, &after.ledger, length)?;
        assert_eq!(row.key.reason, reason.number(), "the reason in the ledger, for\n{}", hex(frame));
        assert_eq!(row.key.server, answer.server, "the server in the ledger");
        let in_rest = row.key.port == 0 && row.key.protocol == 0;
        assert!(in_rest || row.key.port == answer.port, "the port in the ledger");
        let flags = u32::from(row.key.flags);
        assert_eq!(flags & 1 != 0, answer.quiet, "the flag DROP_QUIET");
        assert_eq!(flags & 2 != 0, verdict == Verdict::WouldDrop, "the flag DROP_WOULD");
        Some(row)
    }

    /// Lets the tracker see a frame on its way to a server. It must leave everything be but flows.
    #[track_caller]
    pub fn to_server(&self, frame: &[u8]) {
        let before = self.take_snapshot();
        let run = self.gate.programs.run_track(frame, 1).expect("a run");
        assert_eq!(run.action, TC_NEXT, "the tracker decided about\n{}", hex(frame));
        assert_eq!(run.data, frame, "the tracker changed the frame");
        let after = self.take_snapshot();
        assert_eq!(before.counters, after.counters, "the tracker counted");
        assert_eq!(before.ledger, after.ledger, "the tracker wrote to the ledger");
    }

    /// As [`TestGate::to_server`], for a frame that came in by the interface of this index.
    #[track_caller]
    pub fn to_server_from(&self, frame: &[u8], ifindex: u32) {
        let before = self.take_snapshot();
        let run = self.gate.programs.run_track_from(frame, ifindex).expect("a run");
        assert_eq!(run.action, TC_NEXT, "the tracker decided about\n{}", hex(frame));
        assert_eq!(run.data, frame, "the tracker changed the frame");
        let after = self.take_snapshot();
        assert_eq!(before.counters, after.counters, "the tracker counted");
        assert_eq!(before.ledger, after.ledger, "the tracker wrote to the ledger");
    }

    /// Changes every entry of a table.
    pub fn change<V: Plain + Copy + Default>(&self, map: &str, change: impl Fn(&mut V)) {
        let map = self.gate.maps.find(map).expect("a map");
        for (key, value) in dump(map) {
            let mut value = read::<V>(&value);
            change(&mut value);
            map.update(&key, bytes_of(&value), MapFlags::EXIST).expect("an update");
        }
    }

    /// A peer and a server shake hands: afterwards the flow is established.
    #[track_caller]
    pub fn establish(&self, server: Endpoint, peer: Endpoint) {
        self.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        self.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        self.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
        assert!(self.has_flow(FlowTable::Established, server, peer), "the flow is not established");
        assert!(!self.has_flow(FlowTable::HalfOpen, server, peer), "the flow is half-open as well");
    }

    /// Whether a table of flows holds this one.
    pub fn has_flow(&self, table: FlowTable, server: Endpoint, peer: Endpoint) -> bool {
        self.gate.flows().expect("flows").iter().any(|row| {
            row.table == table
                && (row.server, row.server_port) == (Some(server.0), server.1)
                && (row.peer, row.peer_port) == (Some(peer.0), peer.1)
        })
    }

    /// Makes every entry of a table this much older, as if nothing had come for so long.
    pub fn age(&self, map: &str, seconds: u64) {
        self.age_ns(map, seconds * SECOND_NS);
    }

    /// As [`TestGate::age`], in nanoseconds. Every one of these types begins with its time.
    pub fn age_ns(&self, map: &str, by_ns: u64) {
        const { assert!(std::mem::offset_of!(flow, last_ns) == 0) };
        const { assert!(std::mem::offset_of!(half_open, opened_ns) == 0) };
        if map == "own_openings" {
            assert!(!own_openings::read(&self.gate).is_empty(), "nothing to age in {map}");
            own_openings::age(&self.gate, by_ns);
            return;
        }
        assert!(FLOW_MAPS.contains(&map), "{map} has no times");
        let entries = dump(self.gate.maps.find(map).expect("a map"));
        assert!(!entries.is_empty(), "nothing to age in {map}");
        for (key, mut value) in entries {
            let time = u64::from_ne_bytes(value[..8].try_into().expect("eight bytes"));
            if time == 0 {
                continue; // a limit of which nothing was spent
            }
            // The clock counts from boot, and a router may have booted a minute ago: wrap, as the
            // difference of two times does. But a token bucket's time is compared, not subtracted.
            let older =
                if map == "limits" { time.saturating_sub(by_ns).max(1) } else { time.wrapping_sub(by_ns) };
            value[..8].copy_from_slice(&older.to_ne_bytes());
            self.gate
                .maps
                .find(map)
                .expect("a map")
                .update(&key, &value, MapFlags::EXIST)
                .expect("an update");
        }
    }

    /// Puts every row's last sample at this time.
    pub fn move_samples(&self, to_ns: u64) {
        let rows = self.gate.ledger().expect("the ledger").into_iter();
        rows.filter(|(_, row)| !row.given_back).for_each(|(_, row)| self.move_sample(row.number, to_ns));
    }

    /// Puts the last sample of one row at this time.
    pub fn move_sample(&self, number: u32, to_ns: u64) {
        let rows = &self.gate.maps.ledger_rows;
        let mut row = rows.get(number).expect("a row").expect("a row");
        row.sampled_ns = to_ns;
        rows.handle().update(&number.to_ne_bytes(), bytes_of(&row), MapFlags::EXIST).expect("an update");
        self.change_counts(number, |counts| counts.due_ns = 0);
    }

    /// Changes what each CPU has counted in a row.
    pub fn change_counts(&self, number: u32, change: impl Fn(&mut row_counts)) {
        let counts = &self.gate.maps.ledger_counts;
        let rows = self.gate.maps.ledger_rows.capacity();
        for index in (number..counts.capacity()).step_by(rows as usize) {
            let mut count = counts.get(index).expect("counts").expect("counts");
            change(&mut count);
            let bytes = bytes_of(&count);
            counts.handle().update(&index.to_ne_bytes(), bytes, MapFlags::EXIST).expect("an update");
        }
    }

    /// Forgets every flow, as if none had ever been: for tests that begin more than once.
    pub fn forget_flows(&self) {
        for name in FLOW_MAPS.iter().filter(|name| **name != "limits") {
            for key in dump(self.gate.maps.find(name).expect("a map")).keys() {
                self.gate.maps.find(name).expect("a map").delete(key).expect("a deletion");
            }
        }
        own_openings::clear(&self.gate);
        self.forget_heard();
    }

    /// Forgets which peers have asked, and nothing else.
    pub fn forget_heard(&self) {
        HEARD_MAPS.iter().for_each(|name| clear_array(self.gate.maps.find(name).expect("a map")));
    }

    /// Lets the time in which flows are taken over end so many seconds from now, or before.
    pub fn set_pickup(&self, seconds: i64) {
        let until = now_ns().checked_add_signed(seconds * SECOND_NS as i64).expect("a time");
        let key = state::STATE_PICKUP_UNTIL_NS.0.to_ne_bytes();
        self.gate.maps.state.handle().update(&key, &until.to_ne_bytes(), MapFlags::ANY).expect("an update");
    }

    /// The typed entries of a table.
    pub fn entries<K: Plain + Copy + Default, V: Plain + Copy + Default>(&self, map: &str) -> Vec<(K, V)> {
        dump(self.gate.maps.find(map).expect("a map"))
            .iter()
            .map(|(key, value)| (read(key), read(value)))
            .collect()
    }

    /// Rows of the ledger: those of one kind each, or those of what found no room.
    pub fn ledger_rows(&self, rest: bool) -> Vec<CountedRow> {
        let rows = self.gate.ledger().expect("the ledger");
        rows.into_iter().map(|(_, row)| row).filter(|row| row.overflow == rest).collect()
    }

    /// All packets and bytes of the ledger.
    pub fn ledger_total(&self) -> (u64, u64) {
        let rows = self.gate.ledger().expect("the ledger");
        rows.iter().fold((0, 0), |sum, (_, row)| (sum.0 + row.packets, sum.1 + row.bytes))
    }

    /// Allows a server a need for an hour. Returns the number of the edit.
    #[track_caller]
    pub fn allow(&self, server: &str, direction: &str, need: &str) -> u32 {
        self.edit(EditAction::Allow, server, direction, need, 3600)
    }

    /// Denies a server a need for an hour.
    #[track_caller]
    pub fn deny(&self, server: &str, direction: &str, need: &str) -> u32 {
        self.edit(EditAction::Deny, server, direction, need, 3600)
    }

    /// Makes an edit.
    #[track_caller]
    pub fn edit(&self, action: EditAction, server: &str, direction: &str, need: &str, seconds: u64) -> u32 {
        let policy = self.gate.live_policy().expect("a policy").expect("a live one");
        let direction = if direction == "in" { Direction::In } else { Direction::Out };
        let need = parse_need(need, direction, &policy).expect("a need");
        let (server, who) = (server.to_owned(), "a test".to_owned());
        let asked = EditAsked { action, server, need, seconds, who, note: None };
        self.gate.add_edit(&policy, asked).expect("an edit").number
    }

    /// Lets the time of every edit be over, as only time does: nothing tells the programs.
    pub fn end_time_of_edits(&self) {
        let word = self.gate.maps.state.get(&state::STATE_EDITS.0).expect("a word").expect("the word");
        let slot = (word & 3) as u32 - 1;
        let table = self.gate.maps.edit_tables.open_inner(slot).expect("a table");
        for (key, mut cell) in table.entries().expect("rows") {
            let end = |until_ns: &mut u64| *until_ns = (*until_ns).min(1);
            end(&mut cell.allow_until_ns);
            end(&mut cell.deny_until_ns);
            table.put(&key, &cell, MapFlags::ANY).expect("a row");
        }
    }

    /// The id of a server's name.
    pub fn id_of(&self, name: &str) -> u32 {
        self.gate.ids_by_name().expect("names")[name]
    }

    fn take_snapshot(&self) -> Snapshot {
        let ledger = self.gate.ledger().expect("the ledger");
        Snapshot {
            counters: [false, true].map(|would| self.gate.counters(would).expect("counters")),
            // the rest has protocol and port 0, as a kind may have too
            ledger: ledger
                .iter()
                .map(|(key, row)| ([bytes_of(key), &[u8::from(row.overflow)]].concat(), WholeRow(*row)))
                .collect(),
            flows: FLOW_MAPS
                .iter()
                .chain(&LINK_MAPS)
                .chain(&NAME_MAPS)
                .map(|name| dump(self.gate.maps.find(name).expect("a map")))
                .collect(),
            uses: read_uses(&self.gate),
            statistic: self.gate.program_statistics().expect("the statistic"),
        }
    }
}

/// Does the same in both families, each with a new [`TestGate::dmz`].
pub fn with_dmz_in_both_families(mut test: impl FnMut(TestGate, Family)) {
    in_both_families(|family| test(TestGate::dmz(), family));
}

/// Whether what passes for this reason does so by a need, which `explain` then names.
fn is_by_need(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::LinkLayer | Reason::Neighbour | Reason::Dhcp | Reason::UnknownAllowed | Reason::Router
    )
}

/// A gate with the programs that are built in, or with those of the object file that
/// `PORTCULLIS_OBJECT` names: `scripts/mutate` breaks them one by one.
pub fn load_gate(policy: &portcullis::policy::Policy, tables: &portcullis::compile::Tables) -> Gate {
    match std::env::var_os("PORTCULLIS_OBJECT") {
        Some(path) => {
            let object = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Gate::load_object(&object, policy, tables).expect("a gate of that object")
        }
        None => Gate::load(policy, tables).expect("a gate"),
    }
}

/// Parses and compiles a policy, with tables as small as a test needs them.
pub fn read_policy(
    text: &str,
    sizes: &[(&str, u32)],
) -> (portcullis::policy::Policy, portcullis::compile::Tables) {
    let mut text = format!("{text}\n[tables]\n");
    for (name, default) in TABLES {
        let size = sizes.iter().find(|(other, _)| *other == name).map_or(default, |(_, size)| *size);
        text.push_str(&format!("{name} = {size}\n"));
    }
    let policy = parse(&text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let tables = compile(&policy).unwrap_or_else(|errors| panic!("{errors}"));
    (policy, tables)
}

/// Makes a gate as good as new: without policy, server, flow or count.
fn empty(gate: &Gate) {
    own_openings::clear(gate); // by the names that are still there
    clear_ledger(gate);
    clear_array(&gate.maps.hot_kinds);
    HEARD_MAPS.iter().for_each(|name| clear_array(gate.maps.find(name).expect("a map")));
    for name in FLOW_MAPS.iter().chain(&TOOL_MAPS).chain(&LINK_MAPS).chain(&NAME_MAPS) {
        for key in dump(gate.maps.find(name).expect("a map")).keys() {
            gate.maps.find(name).expect("a map").delete(key).expect("a deletion");
        }
    }
    let cpus = libbpf_rs::num_possible_cpus().expect("CPUs");
    for map in ["counters", "statistics", "name_counts"].map(|name| gate.maps.find(name).expect("a map")) {
        let zeros = vec![vec![0; map.value_size() as usize]; cpus];
        for key in 0..map.max_entries() {
            map.update_percpu(&key.to_ne_bytes(), &zeros, MapFlags::ANY).expect("an update");
        }
    }
    // the changes are counted on
    let edits = gate.maps.state.get(&state::STATE_EDITS.0).expect("a word").expect("the word");
    gate.maps.state.put(&state::STATE_EDITS.0, &((edits & !3) + 4), MapFlags::ANY).expect("an update");
    // all but the last tell of the maps; of the last the filter may remember an older value
    let kept = [
        state::STATE_LAYOUT,
        state::STATE_HEARD_WORDS,
        state::STATE_VERDICT_CACHE,
        state::STATE_LEDGER_BLOOM,
        state::STATE_LEDGER_ROWS,
        state::STATE_CPUS,
        state::STATE_QUARANTINE_CHANGES,
        state::STATE_EDITS,
        state::STATE_CONNTRACK,
    ]
    .map(|it| it.0);
    for key in (0..state::STATE_COUNT.0).filter(|key| !kept.contains(key)) {
        gate.maps.state.handle().update(&key.to_ne_bytes(), &[0; 8], MapFlags::ANY).expect("an update");
    }
}

/// How often the needs of the live policy were used, and when last, by their numbers.
fn read_uses(gate: &Gate) -> Vec<(u64, u64)> {
    let mut numbers: Vec<u32> =
        gate.maps.counted_needs.entries().expect("needs").into_iter().map(|(number, _)| number).collect();
    numbers.sort_unstable();
    let read = |number: u32| {
        let values = gate.maps.need_uses.get_per_cpu(&number).expect("uses");
        let last_ns = values.iter().map(|value| value.last_ns).max().unwrap_or(0);
        (values.iter().map(|value| value.openings).sum(), last_ns)
    };
    numbers.into_iter().map(read).collect()
}

/// Fills an array of 64-bit words with zeros.
fn clear_array(map: &libbpf_rs::MapHandle) {
    let words: Vec<u8> = (0..map.max_entries()).flat_map(u32::to_ne_bytes).collect();
    let zeros = vec![0; 2 * words.len()];
    map.update_batch(&words, &zeros, map.max_entries(), MapFlags::ANY, MapFlags::ANY).expect("an update");
}

/// The MAC of the NIC at which a gate that is attached nowhere would be.
fn set_own_mac(gate: &Gate, mac: [u8; 6]) {
    let key = state::STATE_OWN_MAC.0.to_ne_bytes();
    let value = mac_number(mac).to_ne_bytes();
    gate.maps.state.handle().update(&key, &value, MapFlags::ANY).expect("an update");
}

/// A MAC as maps have it: the first byte in bits 40 to 47.
pub fn mac_number(mac: [u8; 6]) -> u64 {
    mac.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Forgets every drop. What the filter keeps of verdicts names rows, so that is outdated.
pub fn clear_ledger(gate: &Gate) {
    let (rows, counts) = (gate.maps.ledger_rows.handle(), gate.maps.ledger_counts.handle());
    let addresses = gate.maps.ledger_addresses.handle();
    let zeros = vec![0; addresses.value_size() as usize];
    let zero = |map: &libbpf_rs::MapHandle, index: u32| {
        let zeros = &zeros[..map.value_size() as usize];
        map.update(&index.to_ne_bytes(), zeros, MapFlags::ANY).expect("an update");
    };
    for (_, number) in dump(gate.maps.ledger.handle()).iter().chain(&dump(gate.maps.ledger_overflow.handle()))
    {
        let number = read::<u32>(number);
        // a test that fills the tables writes numbers of no row
        if number < rows.max_entries() {
            zero(rows, number);
            zero(addresses, number);
            forget_frequent(gate, number);
            let of_cpus = (number..counts.max_entries()).step_by(rows.max_entries() as usize);
            of_cpus.for_each(|index| zero(counts, index));
        }
    }
    for name in ["ledger", "ledger_overflow", "ledger_given_back", "ledger_quotas"] {
        for key in dump(gate.maps.find(name).expect("a map")).keys() {
            gate.maps.find(name).expect("a map").delete(key).expect("a deletion");
        }
    }
    clear_array(gate.maps.ledger_bloom.handle());
    let key = state::STATE_LEDGER_BLOOM.0.to_ne_bytes();
    let word = u64::from(gate.maps.ledger_bloom.capacity() / 2 - 1).to_ne_bytes();
    gate.maps.state.handle().update(&key, &word, MapFlags::ANY).expect("an update");
    let key = state::STATE_QUARANTINE_CHANGES.0.to_ne_bytes();
    let changes = gate.maps.state.handle().lookup(&key, MapFlags::ANY).expect("a word").expect("a word");
    let changes = u64::from_ne_bytes(changes.try_into().expect("eight bytes")) + 1;
    gate.maps.state.handle().update(&key, &changes.to_ne_bytes(), MapFlags::ANY).expect("an update");
}

/// Forgets which addresses a row has most often.
fn forget_frequent(gate: &Gate, number: u32) {
    let frequent = &gate.maps.frequent;
    let part = layout::FREQUENT_PER_CPU.0;
    for index in (number % part..frequent.capacity()).step_by(part as usize) {
        let zeros = vec![0; frequent.handle().value_size() as usize];
        frequent.handle().update(&index.to_ne_bytes(), &zeros, MapFlags::ANY).expect("an update");
    }
}

/// The one row that has grown, by one packet of this length; `None` when none has.
#[track_caller]
fn find_growth(before: &Rows, after: &Rows, length: u64) -> Option<Row> {
    assert!(before.keys().all(|key| after.contains_key(key)), "a row of the ledger has gone");
    let mut grown = after.iter().filter(|(key, row)| before.get(*key) != Some(row));
    let (key, row) = grown.next()?;
    assert!(grown.next().is_none(), "one packet, and more than one row of the ledger");
    let old = before.get(key).map(|row| row.0).unwrap_or_default();
    let row = row.0;
    assert_eq!((row.packets, row.bytes), (old.packets + 1, old.bytes + length), "the ledger");
    assert!(row.first_ns <= row.last_ns && row.last_ns <= now_ns(), "the times in the ledger");
    Some(Row { key: read(key), row })
}

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: what the tables hold are integers without padding.
    unsafe { plain::as_bytes(value) }
}

/// Every entry of a map, as bytes.
fn dump(map: &libbpf_rs::MapHandle) -> Entries {
    map.lookup_batch(4096, MapFlags::ANY, MapFlags::ANY).expect("a table").collect()
}

fn read<T: Plain + Copy + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    plain::copy_from_bytes(&mut value, bytes).expect("a value of its type");
    value
}

/// The frame as `text2pcap` and Wireshark take it.
fn hex(frame: &[u8]) -> String {
    let lines = frame.chunks(16).enumerate().map(|(line, bytes)| {
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}  {}", line * 16, bytes.join(" "))
    });
    lines.take(40).collect::<Vec<_>>().join("\n")
}
