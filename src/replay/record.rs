//! The findings of a replay, as they are printed in JSON. `text` prints them for people.

use std::path::PathBuf;

use serde::Serialize;

use super::counts::{Addresses, Row};
use super::difference::{Differences, Side};
use super::lane::{Lane, Totals, to_wall};
use crate::abi::ReasonCode;
use crate::alarm::Change;
use crate::capture::{Damage, LINK_TYPES, Timestamp, Trouble};
use crate::drops::name_service;
use crate::net::name_protocol;

/// Addresses of a list that are printed.
const SHOWN_ADDRESSES: usize = 16;

/// An address and how many packets it had.
#[derive(Clone, Debug, Serialize)]
pub struct AddressRecord {
    /// The address.
    pub address: String,
    /// Its packets.
    pub packets: u64,
}

/// The most frequent addresses of a list.
#[derive(Clone, Debug, Serialize)]
pub struct AddressList {
    /// The most frequent ones.
    pub first: Vec<AddressRecord>,
    /// How many there are.
    pub count: usize,
    /// There are more, which were not counted one by one.
    pub is_partial: bool,
}

impl AddressList {
    fn of(addresses: &Addresses) -> AddressList {
        let ranked = addresses.ranked();
        let count = ranked.len();
        let first = ranked.into_iter().take(SHOWN_ADDRESSES);
        let first = first.map(|(address, packets)| AddressRecord { address: address.to_string(), packets });
        AddressList { first: first.collect(), count, is_partial: addresses.others > 0 }
    }
}

/// Packets of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct PacketRecord {
    /// Name of the server; `None`: no server has the source address.
    pub server: Option<String>,
    /// The service in the words of a need.
    pub service: String,
    /// IP protocol by name.
    pub proto: String,
    /// As in `show drops`.
    pub port: u16,
    /// Why.
    pub reason: ReasonCode,
    /// `pass`, `drop` or `would_drop`.
    pub verdict: &'static str,
    /// It raises no alarm.
    pub quiet: bool,
    /// How many packets.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Packets of connections that begin with one of these. They would never have been sent.
    pub followers: u64,
    /// Time of the first.
    pub first: String,
    /// Time of the last.
    pub last: String,
    /// Their source addresses.
    pub sources: AddressList,
    /// Their destinations.
    pub destinations: AddressList,
}

impl PacketRecord {
    fn of(row: &Row, lane: &Lane<'_>, verdict: Option<&'static str>) -> PacketRecord {
        let kind = row.kind;
        let reason = ReasonCode::from(kind.reason);
        let verdict = verdict.unwrap_or(if kind.would { "would_drop" } else { "drop" });
        PacketRecord {
            server: name_server(lane, kind.server),
            service: name_service(reason, kind.protocol, kind.port, kind.is_rest),
            proto: name_protocol(kind.protocol).into_owned(),
            port: kind.port,
            reason,
            verdict,
            quiet: kind.quiet,
            packets: row.packets,
            bytes: row.bytes,
            followers: row.followers,
            first: to_wall(row.first_ns).to_string(),
            last: to_wall(row.last_ns).to_string(),
            sources: AddressList::of(&row.sources),
            destinations: AddressList::of(&row.destinations),
        }
    }
}

/// A place where a capture is damaged.
#[derive(Clone, Debug, Serialize)]
pub struct DamageRecord {
    /// The file.
    pub file: String,
    /// The byte at which what is damaged begins.
    pub offset: u64,
    /// Packets of the file that were read before.
    pub packets: u64,
    /// What is wrong.
    pub why: String,
}

/// How many packets went where.
#[derive(Clone, Debug, Serialize)]
pub struct TotalsRecord {
    /// In the captures.
    pub packets: u64,
    /// From servers, and permitted.
    pub passed: u64,
    /// From servers, and dropped.
    pub dropped: u64,
    /// From servers, and dropped if the policy did not observe.
    pub would_drop: u64,
    /// Of connections whose first packet was dropped. They would never have been sent.
    pub followers: u64,
    /// Of connections that began before the capture, and could not be judged.
    pub before: u64,
    /// To servers.
    pub to_servers: u64,
    /// The same packet as another one, which the router sent on.
    pub copies: u64,
    /// To servers, as they came in on another side.
    pub arriving: u64,
    /// Neither end is a server.
    pub neither: u64,
    /// Could not be read.
    pub unreadable: u64,
}

impl TotalsRecord {
    fn of(lane: &Lane<'_>) -> TotalsRecord {
        let totals = &lane.totals;
        TotalsRecord {
            packets: totals.frames,
            passed: totals.passed.values().sum(),
            dropped: totals.dropped,
            would_drop: totals.would_drop,
            followers: totals.followers,
            before: lane.before.packets(),
            to_servers: totals.to_servers,
            copies: totals.copies,
            arriving: totals.arriving,
            neither: totals.neither,
            unreadable: totals.troubles.values().sum(),
        }
    }
}

/// `replay -j`.
#[derive(Debug, Serialize)]
pub struct Replay {
    /// The captures.
    pub files: Vec<String>,
    /// The policy.
    pub policy: String,
    /// Time of the first packet; `None`: there was none.
    pub from: Option<String>,
    /// Time of the last packet.
    pub to: Option<String>,
    /// What would have been dropped.
    pub drops: Vec<PacketRecord>,
    /// What began before the capture: taken over, or not to be judged.
    pub before: Vec<PacketRecord>,
    /// The alarms, change by change.
    pub alarms: Vec<Change>,
    /// Changes of alarms beyond those in the list.
    pub more_alarms: u64,
    /// Alarms that were open at the end.
    pub open_alarms: usize,
    /// How many packets went where.
    pub totals: TotalsRecord,
    /// Where captures are damaged.
    pub damages: Vec<DamageRecord>,
    /// What can't be known, a sentence each.
    pub notes: Vec<String>,
}

impl Replay {
    pub(super) fn of(lane: &Lane<'_>, files: &[PathBuf], damages: &[Damage]) -> Replay {
        let mut before: Vec<PacketRecord> =
            lane.before.ranked().into_iter().map(|row| PacketRecord::of(row, lane, None)).collect();
        let picked_up = lane.picked_up.ranked();
        before.extend(picked_up.into_iter().map(|row| PacketRecord::of(row, lane, Some("pass"))));
        let (from, to) = list_times(lane);
        Replay {
            files: list_files(files),
            policy: lane.compiled.policy.file.clone(),
            from,
            to,
            drops: lane.drops.ranked().into_iter().map(|row| PacketRecord::of(row, lane, None)).collect(),
            before,
            alarms: lane.alarms.changes.clone(),
            more_alarms: lane.alarms.more_changes,
            open_alarms: lane.alarms.count_open(),
            totals: TotalsRecord::of(lane),
            damages: list_damages(damages),
            notes: find_notes(&lane.totals),
        }
    }
}

/// What one policy decided about a difference.
#[derive(Clone, Debug, Serialize)]
pub struct SideRecord {
    /// `pass` or `drop`; `none`: by this policy no server has to do with it.
    pub verdict: &'static str,
    /// Why.
    pub reason: Option<ReasonCode>,
    /// The need that permits it, or that came nearest.
    pub need: Option<String>,
    /// FILE:LINE of the need.
    pub source: Option<String>,
}

/// Packets about which two policies differ.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceRecord {
    /// Name of the server.
    pub server: Option<String>,
    /// The service in the words of a need.
    pub service: String,
    /// By `--policy`.
    pub policy: SideRecord,
    /// By `--against`.
    pub against: SideRecord,
    /// How many packets.
    pub packets: u64,
    /// Time of the first.
    pub first: String,
    /// Time of the last.
    pub last: String,
    /// Their source addresses.
    pub sources: AddressList,
    /// Their destinations.
    pub destinations: AddressList,
}

/// `replay --against -j`.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The captures.
    pub files: Vec<String>,
    /// The policy.
    pub policy: String,
    /// The one that it is compared with.
    pub against: String,
    /// Time of the first packet; `None`: there was none.
    pub from: Option<String>,
    /// Time of the last packet.
    pub to: Option<String>,
    /// What one drops and the other passes.
    pub differences: Vec<DifferenceRecord>,
    /// Packets of differences that found no room in the list.
    pub more_differences: u64,
    /// How many packets went where, by the policy.
    pub totals: TotalsRecord,
    /// The same by the other policy.
    pub against_totals: TotalsRecord,
    /// Where captures are damaged.
    pub damages: Vec<DamageRecord>,
    /// What can't be known, a sentence each.
    pub notes: Vec<String>,
}

impl Comparison {
    pub(super) fn of(
        [one, other]: [&Lane<'_>; 2],
        differences: &Differences,
        files: &[PathBuf],
        damages: &[Damage],
    ) -> Comparison {
        let rows = differences.ranked().into_iter().map(|([policy, against], row)| {
            let (side, lane) = match (policy, against) {
                (Some(side), _) if side.drops || against.is_none() => (Some(side), one),
                (_, against) => (against, other),
            };
            let server = side.and_then(|side| name_server(lane, side.server));
            let service =
                side.map(|side| name_service(ReasonCode::from(side.reason), side.protocol, side.port, false));
            DifferenceRecord {
                server,
                service: service.unwrap_or_default(),
                policy: SideRecord::of(policy, one),
                against: SideRecord::of(against, other),
                packets: row.packets,
                first: to_wall(row.first_ns).to_string(),
                last: to_wall(row.last_ns).to_string(),
                sources: AddressList::of(&row.sources),
                destinations: AddressList::of(&row.destinations),
            }
        });
        let differences_list = rows.collect();
        let (from, to) = list_times(one);
        let mut notes = find_notes(&one.totals);
        notes.extend(find_notes(&other.totals));
        notes.dedup();
        Comparison {
            files: list_files(files),
            policy: one.compiled.policy.file.clone(),
            against: other.compiled.policy.file.clone(),
            from,
            to,
            differences: differences_list,
            more_differences: differences.others,
            totals: TotalsRecord::of(one),
            against_totals: TotalsRecord::of(other),
            damages: list_damages(damages),
            notes,
        }
    }

    /// Whether both policies decide the same about every packet.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty() && self.more_differences == 0
    }
}

impl SideRecord {
    fn of(side: Option<Side>, lane: &Lane<'_>) -> SideRecord {
        let Some(side) = side else {
            return SideRecord { verdict: "none", reason: None, need: None, source: None };
        };
        let rule = lane.compiled.tables.rules.get(side.rule as usize).filter(|_| side.rule != 0);
        SideRecord {
            verdict: if side.drops { "drop" } else { "pass" },
            reason: Some(ReasonCode::from(side.reason)),
            need: rule.map(|rule| rule.need.clone()),
            source: rule.map(|rule| format!("{}:{}", lane.compiled.policy.file, rule.line)),
        }
    }
}

fn name_server(lane: &Lane<'_>, id: u32) -> Option<String> {
    lane.alarms.names().get(&id).map(|name| name.to_string())
}

fn list_files(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| file.display().to_string()).collect()
}

fn list_times(lane: &Lane<'_>) -> (Option<String>, Option<String>) {
    let show = |time_ns: Timestamp| to_wall(time_ns).to_string();
    (lane.first_ns.map(show), lane.first_ns.map(|_| show(lane.last_ns)))
}

fn list_damages(damages: &[Damage]) -> Vec<DamageRecord> {
    let damages = damages.iter().cloned();
    damages.map(|Damage { file, offset, packets, why }| DamageRecord { file, offset, packets, why }).collect()
}

fn find_notes(totals: &Totals) -> Vec<String> {
    let mut notes = Vec::new();
    let packets = |count: u64| format!("{count} packet{}", if count == 1 { "" } else { "s" });
    for (trouble, count) in &totals.troubles {
        let count = packets(*count);
        notes.push(match trouble {
            Trouble::LinkType(number) => {
                format!("{count} of link type {number} were not read: it is none of {LINK_TYPES}")
            }
            Trouble::Cut => format!(
                "{count} were cut before the end of their headers, so nobody can judge them: capture with a larger \
                 snaplen (tcpdump -s 0)"
            ),
            Trouble::NoFrame => format!("{count} are no packets of a network, or too short for one"),
        });
    }
    if totals.backwards > 0 {
        notes.push(format!(
            "{} dated before the one that comes first in the capture; the clock stood still for them",
            packets(totals.backwards)
        ));
    }
    if totals.without_receiver > 0 {
        notes.push(format!(
            "{} do not show the receiver's MAC, so `elsewhere` can't be found: capture at the NIC itself, and not at \
             `any`",
            packets(totals.without_receiver)
        ));
    }
    if totals.without_mac > 0 {
        notes.push(format!(
            "{} do not show the MAC or VLAN that the policy asks for, and were taken as right: `spoofed` can't be found \
             there",
            packets(totals.without_mac)
        ));
    }
    if totals.to_servers == 0 && totals.arriving > 0 {
        notes.push(
            "the capture has no packet that goes out to a server, so what peers opened is not known and answers are \
             dropped: capture both directions"
                .to_owned(),
        );
    } else if totals.to_servers == 0 && totals.passed.is_empty() && totals.dropped + totals.would_drop == 0 {
        notes.push("no packet has to do with a server of the policy".to_owned());
    }
    notes
}
