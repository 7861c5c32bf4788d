//! What outlives a packet, of the programs and of the model: flows, first fragments, counters, the ledger.

use std::collections::BTreeMap;

use portcullis::abi::{
    REASONS, Reason, drop_flag, flow, flow_flag, flow_key, fragment, fragment_key, half_open, ledger_key,
    opening, refused_fragment,
};

use super::{Counters, Differ, Drops, Room, SECOND_NS, TOLERANCE_NS, to_ip};
use crate::model::{FlowKey, FlowState, FragmentKey, LedgerKey, Table};

impl Differ {
    /// Compares all that outlives a packet.
    pub fn compare_tables(&self) -> Result<(), String> {
        self.compare_flows()?;
        self.compare_books()
    }

    pub fn compare_flows(&self) -> Result<(), String> {
        self.compare_names()?;
        self.check_servers_of_flows()?;
        compare(self.read_flows(), self.model.flows(), "flow", |program, model| {
            program.flags == model.flags
                && program.generation == model.generation
                && program.last_ns.abs_diff(model.last_ns) < TOLERANCE_NS
        })?;
        let fragments: BTreeMap<FragmentKey, (u64, u32)> = self
            .entries::<fragment_key, fragment>("fragments")
            .map(|(key, value)| {
                (
                    to_fragment_key(&key),
                    (self.to_model_time(value.passed_ns), self.to_model_generation(value.generation)),
                )
            })
            .collect();
        compare(fragments, self.model.fragments(), "first fragment", |program, model| {
            program.1 == model.1 && program.0.abs_diff(model.0) < TOLERANCE_NS
        })?;
        let refused: BTreeMap<FragmentKey, (u64, Reason)> = self
            .entries::<fragment_key, refused_fragment>("refused_fragments")
            .map(|(key, value)| {
                let reason = Reason::from_number(value.reason).expect("a reason");
                (to_fragment_key(&key), (self.to_model_time(value.refused_ns), reason))
            })
            .collect();
        compare(refused, self.model.refused_fragments(), "dropped first fragment", |program, model| {
            program.1 == model.1 && program.0.abs_diff(model.0) < TOLERANCE_NS
        })
    }

    /// How often the needs of each line of the live policy were used.
    pub(super) fn read_uses(&self) -> BTreeMap<u32, u64> {
        let mut lines = BTreeMap::new();
        for row in self.gate.need_uses_of(&self.rules).expect("uses") {
            *lines.entry(row.line).or_default() += row.count.map_or(0, |count| count.uses);
        }
        lines
    }

    /// Compares how often the needs of the live policy were used since it is live, or since this was asked.
    pub(super) fn compare_uses(&mut self) -> Result<(), String> {
        let mut used = self.read_uses();
        for (line, uses) in &mut used {
            *uses -= self.uses_before.get(line).copied().unwrap_or(0);
        }
        let model = self.model.take_uses();
        let total: u64 = used.values().sum();
        if total != model.total {
            return Err(format!("uses of needs\nprogram: {total}, {used:?}\nmodel:   {model:?}"));
        }
        for (line, uses) in &used {
            let of_model = model.lines.get(line).copied().unwrap_or_default();
            if !(of_model.certain..=of_model.possible).contains(uses) {
                return Err(format!("uses of line {line}\nprogram: {uses}\nmodel:   {of_model:?}"));
            }
        }
        Ok(())
    }

    /// The quarantine of the server that a flow names is asked for its answers.
    fn check_servers_of_flows(&self) -> Result<(), String> {
        let live = self.gate.live_settings().expect("settings").expect("a policy").generation as u32;
        for table in ["established", "datagrams", "icmp_queries"] {
            for (key, flow) in self.entries::<flow_key, flow>(table) {
                if flow.server == 0 || flow.generation != live {
                    continue;
                }
                let address = to_ip(&key.server);
                let owners = self.owners.iter().filter(|(prefix, _)| prefix.contains(&address));
                let owner = owners.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, name)| name);
                if self.names.get(&flow.server) != owner {
                    let name = self.names.get(&flow.server);
                    return Err(format!("a flow of {address} in {table} names {name:?}, not {owner:?}"));
                }
            }
        }
        Ok(())
    }

    fn read_flows(&self) -> BTreeMap<(Table, FlowKey), FlowState> {
        let mut flows = BTreeMap::new();
        let tables = [
            (Table::Established, "established"),
            (Table::Datagrams, "datagrams"),
            (Table::IcmpQueries, "icmp_queries"),
        ];
        for (table, name) in tables {
            flows.extend(self.entries::<flow_key, flow>(name).map(|(key, flow)| {
                ((table, to_flow_key(&key)), self.to_state(flow.last_ns, flow.flags, flow.generation))
            }));
        }
        flows.extend(self.entries::<flow_key, half_open>("half_open").map(|(key, half)| {
            ((Table::HalfOpen, to_flow_key(&key)), self.to_state(half.opened_ns, 0, half.generation))
        }));
        flows.extend(self.entries::<flow_key, opening>("unlisted").map(|(key, opening)| {
            let last_ns = self.to_model_time(opening.opened_ns);
            ((Table::Unlisted, to_flow_key(&key)), FlowState { last_ns, flags: 0, generation: 0 })
        }));
        flows
    }

    fn to_state(&self, last_ns: u64, flags: u32, generation: u32) -> FlowState {
        // the time of a revoked flow was set back, so that it is over
        let set_back = if flags & flow_flag::FLOW_REVOKED.0 == 0 { 0 } else { 432_000 * SECOND_NS };
        let last_ns = last_ns.wrapping_add(set_back);
        let generation = self.to_model_generation(generation);
        FlowState { last_ns: self.to_model_time(last_ns), flags, generation }
    }

    pub(super) fn to_model_time(&self, ns: u64) -> u64 {
        ns.wrapping_add(self.offset_ns)
    }

    fn to_model_generation(&self, generation: u32) -> u32 {
        // an edit permitted it, and no policy
        if generation == 0 { 0 } else { generation.wrapping_sub(self.generation_before) }
    }

    /// Ledger and counters, exactly.
    pub fn compare_books(&self) -> Result<(), String> {
        let (mut own, mut rest) = (Drops::new(), Drops::new());
        for (key, row) in self.gate.ledger().expect("the ledger") {
            let part = if !row.overflow { &mut own } else { &mut rest };
            part.insert(self.to_model_kind(&key), (row.packets, row.bytes));
        }
        let statistic = self.gate.program_statistics().expect("the statistic");
        if statistic.flows_lost + statistic.ledger_overflow_full > 0 {
            return Err(format!("something did not fit: {statistic:?}"));
        }
        let beyond: u64 = rest.values().map(|(packets, _)| packets).sum();
        if beyond != statistic.ledger_full - self.rest_before {
            return Err(format!("{beyond} drops without a row of their own, {statistic:?} counted"));
        }
        if self.room == Room::Ample && beyond > 0 {
            return Err(format!("{beyond} drops did not fit"));
        }
        self.compare_ledger(own, rest)?;

        let mut counters = self.read_counters();
        counters.retain(|key, sum| {
            let before = self.counters_before.get(key).copied().unwrap_or_default();
            *sum = (sum.0 - before.0, sum.1 - before.1);
            *sum != (0, 0)
        });
        compare(counters, self.model.counters(), "counter", |program, model| program == model)
    }

    /// Each kind that has a row has all its drops there; the others, and what of a kind was before
    /// a swap made room for it, or before it got a row of the reserve, are counted by server and reason.
    fn compare_ledger(&self, own: Drops, rest: Drops) -> Result<(), String> {
        let mut expected = Drops::new();
        let mut beyond = Drops::new();
        let late = self.swapped || self.room == Room::Scarce;
        for (kind, (packets, bytes)) in self.model.ledger() {
            let here = match own.get(&kind) {
                Some(row) if late && row.0 <= packets && row.1 <= bytes => *row,
                Some(_) => (packets, bytes),
                None => (0, 0),
            };
            if here.0 > 0 {
                expected.insert(kind.clone(), here);
            }
            if packets > here.0 {
                let sum = beyond.entry(LedgerKey { protocol: 0, port: 0, ..kind }).or_default();
                *sum = (sum.0 + packets - here.0, sum.1 + bytes - here.1);
            }
        }
        compare(own, expected, "row of the ledger", |program, model| program == model)?;
        compare(rest, beyond, "row of its rest", |program, model| program == model)
    }

    fn to_model_kind(&self, key: &ledger_key) -> LedgerKey {
        let has = |flag: drop_flag| u32::from(key.flags) & flag.0 != 0;
        LedgerKey {
            server: self.names.get(&key.server).cloned(),
            protocol: key.protocol,
            port: key.port,
            reason: Reason::from_number(key.reason).expect("a reason"),
            quiet: has(drop_flag::DROP_QUIET),
            would: has(drop_flag::DROP_WOULD),
            own_port: has(drop_flag::DROP_OWN_PORT),
            presumed: has(drop_flag::DROP_PRESUMED),
        }
    }

    pub(super) fn read_counters(&self) -> Counters {
        let mut counters = Counters::new();
        for would in [false, true] {
            let values = self.gate.counters(would).expect("counters");
            counters.extend(
                values.into_iter().map(|(reason, packets, bytes)| ((reason, would), (packets, bytes))),
            );
        }
        assert_eq!(counters.len(), 2 * REASONS.len());
        counters
    }
}

/// Says which entry is in one table only, or differs.
pub(super) fn compare<K: Ord + std::fmt::Debug, V: std::fmt::Debug>(
    program: BTreeMap<K, V>,
    model: BTreeMap<K, V>,
    what: &str,
    same: impl Fn(&V, &V) -> bool,
) -> Result<(), String> {
    for (key, value) in &program {
        match model.get(key) {
            Some(other) if same(value, other) => {}
            Some(other) => return Err(format!("{what} {key:?}\nprogram: {value:?}\nmodel:   {other:?}")),
            None => return Err(format!("{what} {key:?}\nprogram: {value:?}\nmodel:   has none")),
        }
    }
    match model.iter().find(|(key, _)| !program.contains_key(key)) {
        Some((key, value)) => Err(format!("{what} {key:?}\nprogram: has none\nmodel:   {value:?}")),
        None => Ok(()),
    }
}

fn to_fragment_key(key: &fragment_key) -> FragmentKey {
    FragmentKey {
        source: to_ip(&key.source),
        destination: to_ip(&key.destination),
        id: key.id,
        protocol: to_ip(&key.source).is_ipv4().then_some(key.protocol),
    }
}

pub(super) fn to_flow_key(key: &flow_key) -> FlowKey {
    FlowKey {
        server: to_ip(&key.server),
        peer: to_ip(&key.peer),
        protocol: key.protocol,
        server_port: u16::from_be(key.server_port_be),
        peer_port: u16::from_be(key.peer_port_be),
    }
}
