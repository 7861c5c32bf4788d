//! Grants as people read them: which address a name was seen to have, for whom, and until when.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use libbpf_rs::MapFlags;
use serde::{Serialize, Serializer};

use super::Gate;
use super::error::GateError;
use crate::abi::{
    from_address, grant, grant_origin, granted, granted_key, layout, name_count, read_text, share_key, state,
    to_address,
};
use crate::clock::{Clock, NS_PER_S, now_ns};
use crate::net::DomainName;

/// Where the gate has a grant from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantOrigin {
    /// From an answer to the server itself.
    Answer,
    /// From an answer to the daemon.
    Daemon,
    /// From the file that outlives a reboot.
    Saved,
    /// From an answer to a server that forwards.
    Forwarded,
}

impl GrantOrigin {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            GrantOrigin::Answer => "answer",
            GrantOrigin::Daemon => "daemon",
            GrantOrigin::Saved => "saved",
            GrantOrigin::Forwarded => "forwarded",
        }
    }

    fn of(number: u32) -> GrantOrigin {
        match number {
            n if n == grant_origin::GRANT_DAEMON.0 => GrantOrigin::Daemon,
            n if n == grant_origin::GRANT_SAVED.0 => GrantOrigin::Saved,
            n if n == grant_origin::GRANT_FORWARDED.0 => GrantOrigin::Forwarded,
            _ => GrantOrigin::Answer,
        }
    }
}

/// A grant. Its JSON is a row of `show names -j`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// `None`: it is for all servers whose needs have the name.
    pub server: Option<String>,
    /// The name of the policy.
    #[serde(serialize_with = "serialize_name")]
    pub name: DomainName,
    /// The address that the name was seen to have.
    pub address: IpAddr,
    /// Where the gate has it from.
    pub from: GrantOrigin,
    /// When the last answer had it.
    pub answered: Timestamp,
    /// Until when it lets connections open.
    pub until: Timestamp,
    /// When it last let one open.
    pub last_used: Option<Timestamp>,
}

impl Grant {
    /// Whether it lets connections open.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.until > now
    }

    /// Whether this server may use it.
    pub fn is_for(&self, server: &str) -> bool {
        self.server.as_deref().is_none_or(|owner| owner == server)
    }

    fn new(
        row: &grant,
        server: Option<String>,
        name: DomainName,
        cap_ns: u64,
        clock: &Clock,
    ) -> Option<Grant> {
        // signed, as the filter compares: a saved grant may be older than the clock
        let ahead_ns = |moment_ns: u64| moment_ns.wrapping_sub(clock.mono_ns).cast_signed();
        let to_wall = |ahead_ns: i64| {
            clock.wall.saturating_add(SignedDuration::from_nanos(ahead_ns)).unwrap_or(clock.wall)
        };
        let until_ns = ahead_ns(row.open_until_ns).min(ahead_ns(row.answered_ns.wrapping_add(cap_ns)));
        Some(Grant {
            server,
            name,
            address: from_address(&row.address)?,
            from: GrantOrigin::of(row.origin),
            answered: to_wall(ahead_ns(row.answered_ns)),
            until: to_wall(until_ns),
            last_used: (row.used_ns != 0).then(|| to_wall(ahead_ns(row.used_ns))),
        })
    }
}

fn serialize_name<S: Serializer>(name: &DomainName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

/// What the gate does with names, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NameStatus {
    /// Names of the live policy. 0: it has none, and no answer is read.
    pub names: usize,
    /// Resolvers whose answers count.
    pub resolvers: usize,
    /// Grants that let connections open.
    pub grants: u64,
    /// Of the server that has most of them.
    pub most_of_server: u64,
    /// How many rows each server has.
    pub share: u64,
    /// What was counted since the gate was attached, by [`NAME_COUNTS`].
    pub counts: BTreeMap<&'static str, u64>,
}

/// What is counted of questions, answers and grants, with its word.
pub const NAME_COUNTS: &[(name_count, &str)] = &[
    (name_count::NAME_QUERY_NOTED, "questions"),
    (name_count::NAME_QUERY_PUSHED, "questions_pushed"),
    (name_count::NAME_ANSWER_READ, "answers_read"),
    (name_count::NAME_ANSWER_NEGATIVE, "answers_negative"),
    (name_count::NAME_ANSWER_OTHER, "answers_other"),
    (name_count::NAME_ANSWER_NO_QUERY, "answers_no_query"),
    (name_count::NAME_ANSWER_QUESTION, "answers_question"),
    (name_count::NAME_ANSWER_INTERFACE, "answers_interface"),
    (name_count::NAME_ANSWER_MALFORMED, "answers_malformed"),
    (name_count::NAME_ANSWER_CUT, "answers_cut"),
    (name_count::NAME_ADDRESS_PRIVATE, "addresses_private"),
    (name_count::NAME_GRANT_MADE, "grants_made"),
    (name_count::NAME_GRANT_RENEWED, "grants_renewed"),
    (name_count::NAME_GRANT_PUSHED, "grants_pushed"),
    (name_count::NAME_GRANT_LOST, "grants_lost"),
    (name_count::NAME_CONNECTION_PUSHED, "connections_pushed"),
    (name_count::NAME_CONNECTION_LOST, "connections_lost"),
    (name_count::NAME_STREAM_LOST, "streams_lost"),
    (name_count::NAME_EVENT_LOST, "events_lost"),
];

impl Gate {
    /// All grants, also those that are over and those of names that the live policy no longer has: by server, name
    /// and address.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn grants(&self) -> Result<Vec<Grant>, GateError> {
        let cap_ns = self.name_cap_ns()?;
        let servers = self.names_by_id()?;
        let names: HashMap<u32, DomainName> = self
            .maps
            .domains
            .entries()?
            .iter()
            .map(|(id, text)| (*id, DomainName::from_printed(&read_text(&text.text))))
            .collect();
        let listed: HashMap<(u32, [u32; 4]), [u32; layout::GRANTS_OF_ADDRESS_MAX.0 as usize]> = self
            .maps
            .granted
            .entries()?
            .iter()
            .map(|(key, list)| ((key.server, key.address.word_be), list.place_plus_one))
            .collect();
        let clock = Clock::now();
        let mut grants = Vec::new();
        for (key, row) in self.maps.grants.entries()? {
            // The filter finds a row by the list of its address alone.
            let places = listed.get(&(key.server, row.address.word_be));
            if row.claimed != 0 || !places.is_some_and(|places| places.contains(&(key.place + 1))) {
                continue;
            }
            let server = match key.server {
                0 => None,
                id => Some(servers.get(&id).map_or_else(|| format!("#{id}"), ToString::to_string)),
            };
            if let Some(name) = names.get(&row.name) {
                grants.extend(Grant::new(&row, server, name.clone(), cap_ns, &clock));
            }
        }
        grants.sort_by(|a, b| (&a.server, &a.name, a.address).cmp(&(&b.server, &b.name, b.address)));
        Ok(grants)
    }

    /// Counts what the gate does with the names of a policy.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub(super) fn name_status(&self, names: usize, resolvers: usize) -> Result<NameStatus, GateError> {
        let cap_ns = self.name_cap_ns()?;
        let now_ns = now_ns();
        let is_open = |row: &grant| {
            let is_ahead = |moment_ns: u64| moment_ns.wrapping_sub(now_ns).cast_signed() > 0;
            is_ahead(row.open_until_ns) && is_ahead(row.answered_ns.wrapping_add(cap_ns))
        };
        let mut by_server: HashMap<u32, u64> = HashMap::new();
        self.maps.grants.visit(|key, row| {
            if is_open(row) {
                *by_server.entry(key.server).or_default() += 1;
            }
        })?;
        let counted = self.name_counts()?;
        let count_of = |what: &name_count| counted.get(what.0 as usize).copied().unwrap_or(0);
        Ok(NameStatus {
            names,
            resolvers,
            grants: by_server.values().sum(),
            most_of_server: by_server.values().copied().max().unwrap_or(0),
            share: self.read_state(state::STATE_GRANT_ROOM)?,
            counts: NAME_COUNTS.iter().map(|(what, word)| (*word, count_of(what))).collect(),
        })
    }

    /// Makes a grant in a gate that no NIC uses, in place of what was planted for this address before.
    pub(super) fn plant_grant(
        &self,
        server: &str,
        name: &DomainName,
        address: IpAddr,
    ) -> Result<(), GateError> {
        let lack = |what: String| GateError::Other {
            what: "could not answer a server an address".to_owned(),
            why: format!("the gate has no {what}"),
        };
        let ids = self.ids_by_name()?;
        let server = *ids.get(server).ok_or_else(|| lack(format!("server {server}")))?;
        let text = name.to_string();
        let names = self.maps.domains.entries()?;
        let known = names.iter().find(|(_, known)| read_text(&known.text) == text);
        let name = known.map(|(id, _)| *id).ok_or_else(|| lack(format!("name {text}")))?;
        // one for each name, whatever room the tracker has
        let place = name;
        let address = to_address(address);
        let now_ns = now_ns();
        let row = grant {
            answered_ns: now_ns,
            open_until_ns: now_ns + 3600 * NS_PER_S,
            address,
            server,
            name,
            origin: grant_origin::GRANT_ANSWER.0,
            ..grant::default()
        };
        self.maps.grants.put(&share_key { server, place }, &row, MapFlags::ANY)?;
        let mut list = granted { place_plus_one: [0; layout::GRANTS_OF_ADDRESS_MAX.0 as usize] };
        list.place_plus_one[0] = place + 1;
        self.maps.granted.put(&granted_key { address, server }, &list, MapFlags::ANY)
    }

    /// How long after an answer its addresses are open at most.
    fn name_cap_ns(&self) -> Result<u64, GateError> {
        let cap_s = self.live_settings()?.map_or(0, |settings| u64::from(settings.name_cap_s));
        Ok((cap_s + u64::from(layout::GRANT_GRACE_S.0)) * NS_PER_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP_NS: u64 = 100 * NS_PER_S;

    fn clock(mono_s: u64) -> Clock {
        Clock { mono_ns: mono_s * NS_PER_S, wall: "2026-11-30T12:00:00Z".parse().unwrap() }
    }

    fn read(answered_s: i64, open_until_s: i64, clock: &Clock) -> Grant {
        let to_ns = |seconds: i64| (seconds * NS_PER_S.cast_signed()).cast_unsigned();
        let row = grant {
            answered_ns: to_ns(answered_s),
            open_until_ns: to_ns(open_until_s),
            address: to_address("198.51.100.80".parse().unwrap()),
            origin: grant_origin::GRANT_SAVED.0,
            ..grant::default()
        };
        let name = DomainName::from_printed("a.b.example");
        Grant::new(&row, None, name, CAP_NS, clock).unwrap()
    }

    #[test]
    fn a_grant_ends_with_its_time_and_never_later_than_the_cap_after_its_answer() {
        let now = clock(1000);
        let grant = read(990, 1050, &now);
        assert_eq!(grant.until.as_second() - now.wall.as_second(), 50);
        assert_eq!(grant.answered.as_second() - now.wall.as_second(), -10);
        assert!(grant.is_open(now.wall));
        let kept_open = read(910, 4600, &now);
        assert_eq!(kept_open.until.as_second() - now.wall.as_second(), 10);
        assert!(!read(900, 4600, &now).is_open(now.wall));
    }

    #[test]
    fn a_saved_grant_may_be_older_than_the_clock() {
        let now = clock(5);
        let grant = read(-40, 20, &now);
        assert_eq!(grant.answered.as_second() - now.wall.as_second(), -45);
        assert!(grant.is_open(now.wall));
        assert_eq!((grant.from.name(), grant.last_used), ("saved", None));
    }

    #[test]
    fn everything_that_the_programs_count_has_one_word() {
        let mut numbers: Vec<u32> = NAME_COUNTS.iter().map(|(what, _)| what.0).collect();
        numbers.sort_unstable();
        let last = name_count::NAME_EVENT_LOST.0;
        assert_eq!(numbers, (0..=last).collect::<Vec<u32>>());
        let words: std::collections::BTreeSet<&str> = NAME_COUNTS.iter().map(|(_, word)| *word).collect();
        assert_eq!(words.len(), NAME_COUNTS.len());
    }

    #[test]
    fn a_grant_of_nobody_is_for_every_server() {
        let common = read(0, 20, &clock(5));
        assert!(common.is_for("web1"));
        let own = Grant { server: Some("web1".into()), ..common };
        assert!(own.is_for("web1") && !own.is_for("web2"));
    }
}
