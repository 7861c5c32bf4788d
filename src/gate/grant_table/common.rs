//! Grants of all servers, rows of server 0: what this machine's own questions were answered.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use libbpf_rs::MapFlags;

use super::{GRACE_S, is_open};
use crate::abi::{grant, grant_origin, name_event, name_event_key, name_event_kind, to_address};
use crate::clock::{NS_PER_S, now_ns};
use crate::compile::Tables;
use crate::gate::Gate;
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::net::DomainName;
use crate::policy::{NameSources, TimeToLive};
use crate::resolve::{Lookup, PATIENCE, look_up};

/// So many names are named in one sentence.
const MOST_NAMED: usize = 5;

/// Asks the resolvers of a policy for its exact names, if it wants that and a gate does not have them yet. Their
/// answers become grants with the policy, before a packet sees it. Returns what came to nothing, a sentence each. It
/// takes [`PATIENCE`] at most, and the caller holds no lock meanwhile.
pub fn look_up_new_names(place: &GatePlace, tables: &mut Tables) -> Vec<String> {
    let sources = &tables.destinations.sources;
    let mut names = sources.list_asked();
    if names.is_empty() {
        return Vec::new();
    }
    // without a gate, or in one of another version, all are new
    if let Ok(known) = Gate::open(place).and_then(|gate| gate.list_common_names()) {
        names.retain(|name| !known.contains(name));
    }
    let answers = look_up(&names, &sources.resolvers, PATIENCE);
    let failures = describe_failures(&answers);
    tables.destinations.seeds = answers;
    failures.into_iter().collect()
}

/// Names that nobody knows an address of, in a sentence.
pub fn describe_failures(answers: &[Lookup]) -> Option<String> {
    let failed: Vec<&Lookup> = answers.iter().filter(|lookup| lookup.addresses.is_empty()).collect();
    let why = failed.first()?.failure.clone().unwrap_or_default();
    let names = list_names(failed.iter().map(|lookup| &lookup.name));
    Some(format!(
        "this machine can't resolve {names}, so they open only what servers are answered themselves ({why})"
    ))
}

fn list_names<'n>(names: impl ExactSizeIterator<Item = &'n DomainName>) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let named: Vec<String> = names.take(MOST_NAMED).map(ToString::to_string).collect();
    let more = if more > 0 { format!(" and {more} more names") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

impl Gate {
    /// The names with a grant for all servers that is open.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn list_common_names(&self) -> Result<BTreeSet<DomainName>, GateError> {
        let Some(slot) = self.live_slot()? else { return Ok(BTreeSet::new()) };
        let (now_ns, cap_ns) = (now_ns(), self.find_cap_ns(slot)?);
        let mut ids = BTreeSet::new();
        self.maps.grants.visit(|key, row| {
            if key.server == 0 && is_open(row, now_ns, cap_ns) {
                ids.insert(row.name);
            }
        })?;
        Ok(self
            .domains_by_id()?
            .into_iter()
            .filter(|(id, _)| ids.contains(id))
            .map(|(_, name)| name)
            .collect())
    }

    /// Exact names of a policy that this machine asks for and knows no address of, in a sentence.
    pub(in crate::gate) fn describe_unknown_names(
        &self,
        sources: &NameSources,
    ) -> Result<Option<String>, GateError> {
        let mut names = sources.list_asked();
        if names.is_empty() {
            return Ok(None);
        }
        let known = self.list_common_names()?;
        names.retain(|name| !known.contains(name));
        Ok((!names.is_empty()).then(|| {
            format!(
                "this machine knows no address of {}: they open only what servers are answered themselves",
                list_names(names.iter())
            )
        }))
    }

    /// Makes grants for all servers of what was answered, under the live policy. Returns what came to nothing, a
    /// sentence each. `generation` is of the policy that the names are of: if another one is live by now, nothing is
    /// written. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel refuses to read or write.
    pub fn grant_to_all(&self, answers: &[Lookup], generation: u64) -> Result<Vec<String>, GateError> {
        let (Some(slot), Some(live)) = (self.live_slot()?, self.live_settings()?) else {
            return Ok(Vec::new());
        };
        if live.generation != generation {
            return Ok(Vec::new());
        }
        let ids = self.domains_by_id()?.into_iter().map(|(id, name)| (name, id)).collect();
        let ttl = TimeToLive { floor_s: live.name_floor_s, cap_s: live.name_cap_s };
        self.grant_to_all_under(answers, slot, &ids, ttl)
    }

    /// As [`Gate::grant_to_all`], under the policy of a slot that need not be the live one yet.
    pub(in crate::gate) fn grant_to_all_under(
        &self,
        answers: &[Lookup],
        slot: u32,
        ids: &HashMap<DomainName, u32>,
        ttl: TimeToLive,
    ) -> Result<Vec<String>, GateError> {
        if answers.is_empty() {
            return Ok(Vec::new());
        }
        let rules = self.grant_rules(slot)?;
        let now_ns = now_ns();
        let cap_ns = (u64::from(ttl.cap_s) + GRACE_S) * NS_PER_S;
        let (mut rows, mut sentences) = (Vec::new(), Vec::new());
        for lookup in answers {
            let Some(name) = ids.get(&lookup.name).copied() else { continue };
            for (address, seconds) in &lookup.addresses {
                if !rules.may_have(*address)? {
                    self.note_rebinding(name, *address, now_ns)?;
                    sentences.push(format!(
                        "{} has the address {address}, which no name may have unless `private` has it",
                        lookup.name
                    ));
                    continue;
                }
                rows.push(grant {
                    answered_ns: now_ns,
                    open_until_ns: now_ns + find_time_ns(*seconds, ttl),
                    used_ns: 0,
                    address: to_address(*address),
                    server: 0,
                    name,
                    origin: grant_origin::GRANT_DAEMON.0,
                    claimed: 0,
                    checked: 0,
                });
            }
        }
        let lost = self.write_grants(&rows, now_ns, cap_ns)?;
        if lost > 0 {
            sentences.push(format!("{lost} addresses of names find no room; [tables] grants is too small"));
        }
        Ok(sentences)
    }

    /// For the alarm, as the tracker does.
    fn note_rebinding(&self, name: u32, ip: IpAddr, now_ns: u64) -> Result<(), GateError> {
        let key = name_event_key { kind: name_event_kind::NAME_EVENT_REBINDING.0, server: 0, name };
        let known = self.maps.name_events.get(&key)?.unwrap_or_default();
        let event = name_event {
            first_ns: if known.count == 0 { now_ns } else { known.first_ns },
            last_ns: now_ns,
            count: known.count + 1,
            address: to_address(ip),
            ..known
        };
        self.maps.name_events.put(&key, &event, MapFlags::ANY)
    }
}

/// As `step_record` of the programs.
fn find_time_ns(seconds: u32, ttl: TimeToLive) -> u64 {
    // the highest bit counts as zero (RFC 2181, 8)
    let seconds = if seconds >> 31 == 0 { seconds } else { 0 };
    (u64::from(seconds.clamp(ttl.floor_s, ttl.cap_s)) + GRACE_S) * NS_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_opens_for_its_time_within_floor_and_cap_and_half_a_minute_more() {
        let ttl = TimeToLive::default();
        for (seconds, expected) in [(0, 330), (301, 331), (86_401, 86_430), (u32::MAX, 330)] {
            assert_eq!(find_time_ns(seconds, ttl), expected * NS_PER_S, "{seconds}");
        }
    }

    #[test]
    fn failures_are_one_sentence_with_a_few_names() {
        let lookup = |number: usize| Lookup {
            name: DomainName::parse(&format!("h{number}.vendor.example")).unwrap(),
            addresses: Vec::new(),
            failure: Some("it has no address".to_owned()),
        };
        assert_eq!(describe_failures(&[]), None);
        let known = Lookup { addresses: vec![("203.0.113.80".parse().unwrap(), 60)], ..lookup(0) };
        assert_eq!(describe_failures(std::slice::from_ref(&known)), None);
        let text = describe_failures(&[known, lookup(1), lookup(2)]).unwrap();
        assert!(text.contains("resolve h1.vendor.example, h2.vendor.example, so"), "{text}");
        let text = describe_failures(&(1..=8).map(lookup).collect::<Vec<_>>()).unwrap();
        assert!(text.contains("h5.vendor.example and 3 more names"), "{text}");
    }
}
