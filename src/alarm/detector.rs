//! What one server attempted lately: finds worms, scans and reverse shells in single attempts.
//!
//! Everything in here is a short list or a [`Recent`] map. A server that tries everything everywhere
//! costs no more than a few kilobytes.
//!
//! A server may be a prefix, with many machines. Ten machines that call one place each are no worm, so
//! sources count as well.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use super::Thresholds;
use super::distinct::Distinct;
use super::likely::{Likely, Payload, read_payload, service_of};
use super::meaning::is_download;
use super::recent::Recent;
use crate::drops::{DropEvent, Origin};
use crate::net::TCP;

const S: u64 = 1_000_000_000;

/// Destinations that are remembered of one service. More than a spread takes, so that one destination
/// that is contacted again among others is found as well.
const MAX_CONTACTS: usize = 16;
/// Services of one server that are followed at a time.
const MAX_SERVICES: usize = 32;
/// Destinations whose services are followed at a time.
const MAX_TARGETS: usize = 8;
/// Two attempts at the same destination are apart by this, nanoseconds. Connections that are opened
/// together count once, as those of a browser or a resolver in a hurry do.
const ATTEMPT_GAP_NS: u64 = 900_000_000;
/// Within this, nanoseconds, a SYN from the same port is the same attempt: Linux sends one SYN seven
/// times in 127 s.
const RETRANSMISSION_NS: u64 = 130 * S;
/// After such a pause, nanoseconds, attempts are counted anew.
const ATTEMPTS_FORGOTTEN_NS: u64 = 3_600 * S;

/// A package manager tries each of its mirrors a few times within minutes, and gives up. So at a port for
/// downloads a callback takes more attempts, over a longer time.
const DOWNLOAD_ATTEMPTS: u32 = 10;
const DOWNLOAD_TIME_NS: u64 = 300 * S;
/// A package manager also has many mirrors. So at a port for downloads a spread takes less time.
const DOWNLOAD_WINDOW_NS: u64 = 60 * S;

/// A worm that contacts a thousand hosts a second shows only one or two of them a second: in samples, and
/// in last packets. A streak of so many destinations, none of them seen before, that stands for so many
/// packets can hardly come from fewer destinations than a spread takes.
const STREAK: u32 = 5;
const STREAK_PACKETS: u64 = 50;
/// The packets of a streak come within this, nanoseconds.
const STREAK_WINDOW_NS: u64 = 60 * S;
/// A poll counts for a streak only if so many packets came since the one before. Otherwise frequent polls
/// would show all destinations there are, and each would stand for itself alone.
const POLL_PACKETS: u64 = STREAK_PACKETS / STREAK as u64;

/// A client of a time server or a resolver sends so seldom, for each machine: one packet in this time on
/// average, nanoseconds, and so many at once.
const PLAIN_INTERVAL_NS: u64 = 10 * S;
const PLAIN_BURST: u64 = 30;
/// Machines that are remembered before they are estimated.
const MAX_MACHINES: usize = 16;

/// Whether an event is the last packet of a ledger row, which is counted by other ways.
pub(super) fn is_last_packet(drop: &DropEvent) -> bool {
    drop.drops == 0 && drop.from == Origin::Ledger
}

/// What an attempt turned out to be part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    /// Many destinations at this port.
    pub spread: bool,
    /// This destination, again and again.
    pub callback: Option<IpAddr>,
    /// Many services.
    pub scan: Scan,
    /// What else it probably is. It is no spread and no callback then.
    pub likely: Likely,
    /// Its payload is not what its port is for.
    pub is_odd: bool,
}

/// Whether the last attempts were at many services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scan {
    /// They were not.
    #[default]
    No,
    /// They were, wherever.
    Anywhere,
    /// They were, at this destination.
    Here,
}

/// The attempts of one server.
#[derive(Debug)]
pub(super) struct Detector {
    services: Recent<(u8, u16), ServiceAttempts>,
    /// The last distinct services, the newest last.
    last_services: Vec<LastService>,
    /// Where a machine tries several services, the newest last.
    targets: Vec<Target>,
    /// When the last attempt was noted.
    pub last_ns: u64,
}

impl Default for Detector {
    fn default() -> Detector {
        Detector {
            services: Recent::new(MAX_SERVICES),
            last_services: Vec::new(),
            targets: Vec::new(),
            last_ns: 0,
        }
    }
}

/// A service, and its last attempt.
#[derive(Debug)]
struct LastService {
    service: (u8, u16),
    source: IpAddr,
    last_ns: u64,
}

/// The services that one machine tried at one destination.
#[derive(Debug)]
struct Target {
    source: IpAddr,
    destination: IpAddr,
    /// Each with its last attempt.
    services: Vec<((u8, u16), u64)>,
}

/// The attempts at one service.
#[derive(Debug, Default)]
struct ServiceAttempts {
    contacts: Vec<Contact>,
    /// The last destination.
    latest: Option<IpAddr>,
    streak: Streak,
    /// The list of the row's first destinations was seen before.
    has_list: bool,
    /// Of a service that policies forget.
    client: Option<Client>,
}

/// Whether the packets look like those of a client of a time server or a resolver.
#[derive(Debug)]
struct Client {
    is_plain: bool,
    is_odd: bool,
    is_fast: bool,
    /// When the packets would have come at the pace of a client.
    paced_ns: u64,
    machines: Distinct<IpAddr>,
}

/// Destinations in a row of which none had been seen before.
#[derive(Debug, Default)]
struct Streak {
    length: u32,
    /// How many packets they stand for, as samples count them.
    sampled_packets: u64,
    /// As polls count them.
    polled_packets: u64,
    began_ns: u64,
    /// The machines that called them; one more than count is enough.
    machines: Vec<IpAddr>,
}

/// One destination of one machine at one service.
#[derive(Debug)]
struct Contact {
    address: IpAddr,
    source: IpAddr,
    /// Time of the last packet; 0: long ago.
    last_ns: u64,
    /// Time of the first attempt.
    began_ns: u64,
    /// Time of the last packet that counted as an attempt.
    attempt_ns: u64,
    source_port: Option<u16>,
    attempts: u32,
}

impl Detector {
    /// Notes an attempt, at `now_ns`. `age_ns` is how long ago its row began, as far as known.
    /// `new_packets` is how many packets a poll of its ledger row found; `None` for an event that no poll
    /// has made.
    pub(super) fn note(
        &mut self,
        drop: &DropEvent,
        new_packets: Option<u64>,
        (now_ns, age_ns): (u64, u64),
        thresholds: &Thresholds,
    ) -> Finding {
        let service = (drop.protocol, drop.port);
        let source = source_of(drop);
        let mut finding = self.note_protocol(drop, now_ns, thresholds);
        let Some(destination) = drop.destination else {
            return finding;
        };
        let attempts = self.services.entry(service);
        (finding.likely, finding.is_odd) = attempts.note_client(drop, source, now_ns);
        let is_streak = attempts.note_streak((source, destination), drop.drops, new_packets, now_ns);
        let window_ns = if is_download(drop) { DOWNLOAD_WINDOW_NS } else { thresholds.spread_window_ns };
        attempts.note_list(drop, source, (now_ns, age_ns), window_ns);
        let contact = attempts.note_contact(destination, source, drop, now_ns);
        let is_callback = match is_download(drop) {
            true => {
                contact.attempts >= DOWNLOAD_ATTEMPTS.max(thresholds.callback_attempts)
                    && contact.attempt_ns.saturating_sub(contact.began_ns) >= DOWNLOAD_TIME_NS
            }
            false => contact.attempts >= thresholds.callback_attempts,
        };
        if finding.likely == Likely::Unknown {
            finding.callback = is_callback.then_some(destination);
            let wanted = thresholds.spread_destinations.min(MAX_CONTACTS);
            finding.spread = is_streak || attempts.is_spread(wanted, now_ns.saturating_sub(window_ns));
        }
        finding
    }

    /// Notes a packet of a protocol without ports. Such packets are repeated by habit, so only a scan is found
    /// in them.
    pub(super) fn note_protocol(
        &mut self,
        drop: &DropEvent,
        now_ns: u64,
        thresholds: &Thresholds,
    ) -> Finding {
        self.last_ns = now_ns;
        let (service, source) = ((drop.protocol, drop.port), source_of(drop));
        let is_anywhere = self.note_service(service, source, now_ns, thresholds);
        let is_here = drop
            .destination
            .is_some_and(|destination| self.note_target(service, (source, destination), now_ns, thresholds));
        let scan = match (is_here, is_anywhere) {
            (true, _) => Scan::Here,
            (false, true) => Scan::Anywhere,
            (false, false) => Scan::No,
        };
        Finding { scan, ..Finding::default() }
    }

    /// Notes a service, and says whether the last attempts were at many distinct ones, by few machines.
    fn note_service(
        &mut self,
        service: (u8, u16),
        source: IpAddr,
        now_ns: u64,
        thresholds: &Thresholds,
    ) -> bool {
        let last = &mut self.last_services;
        last.retain(|known| known.service != service);
        last.push(LastService { service, source, last_ns: now_ns });
        if last.len() > thresholds.scan_services {
            last.remove(0);
        }
        let since_ns = now_ns.saturating_sub(thresholds.scan_window_ns);
        last.len() >= thresholds.scan_services
            && last.iter().all(|known| known.last_ns >= since_ns)
            && 4 * count_distinct(last.iter().map(|known| known.source)) <= last.len()
    }

    /// Notes a service at a destination, and says whether this machine tried many there.
    fn note_target(
        &mut self,
        service: (u8, u16),
        (source, destination): (IpAddr, IpAddr),
        now_ns: u64,
        thresholds: &Thresholds,
    ) -> bool {
        let is_it = |target: &Target| target.destination == destination && target.source == source;
        let mut target = match self.targets.iter().position(is_it) {
            Some(place) => self.targets.remove(place),
            None => Target { source, destination, services: Vec::new() },
        };
        let since_ns = now_ns.saturating_sub(thresholds.target_window_ns);
        target.services.retain(|(known, last_ns)| *known != service && *last_ns >= since_ns);
        if target.services.len() >= thresholds.target_services {
            target.services.remove(0);
        }
        target.services.push((service, now_ns));
        let is_scan = target.services.len() >= thresholds.target_services;
        if self.targets.len() >= MAX_TARGETS {
            self.targets.remove(0);
        }
        self.targets.push(target);
        is_scan
    }
}

impl ServiceAttempts {
    /// Looks at the payload and the pace of a datagram to a service that policies forget.
    fn note_client(&mut self, drop: &DropEvent, source: IpAddr, now_ns: u64) -> (Likely, bool) {
        let likely = service_of(drop.protocol, drop.port);
        if likely == Likely::Unknown || drop.own_port {
            return (Likely::Unknown, false);
        }
        let client = self.client.get_or_insert_with(|| Client {
            is_plain: false,
            is_odd: false,
            is_fast: false,
            paced_ns: now_ns,
            machines: Distinct::new(MAX_MACHINES),
        });
        match read_payload(drop) {
            Payload::Plain => client.is_plain = true,
            Payload::Odd => client.is_odd = true,
            Payload::Unknown => {}
        }
        client.machines.insert(source);
        for source in drop.sources.iter().flat_map(|sources| &sources.first) {
            client.machines.insert(*source);
        }
        let machines = client.machines.len() as u64;
        let passed_ns = drop.drops.saturating_mul(PLAIN_INTERVAL_NS) / machines;
        client.paced_ns = client.paced_ns.max(now_ns).saturating_add(passed_ns);
        client.is_fast |= client.paced_ns - now_ns > PLAIN_BURST * PLAIN_INTERVAL_NS;
        let is_client = client.is_plain && !client.is_odd && !client.is_fast;
        (if is_client { likely } else { Likely::Unknown }, client.is_odd || client.is_fast)
    }

    /// Notes a destination, and says whether the last ones stand for many more. A streak ends with a
    /// destination that is known and not the last one, and with the window.
    fn note_streak(
        &mut self,
        (source, destination): (IpAddr, IpAddr),
        drops: u64,
        new_packets: Option<u64>,
        now_ns: u64,
    ) -> bool {
        let is_known = self.contacts.iter().any(|contact| contact.address == destination);
        let is_same = self.latest.replace(destination) == Some(destination);
        let streak = &mut self.streak;
        if (is_known && !is_same) || streak.began_ns < now_ns.saturating_sub(STREAK_WINDOW_NS) {
            *streak = Streak { began_ns: now_ns, ..Streak::default() };
        }
        let is_representative = new_packets.is_none_or(|packets| packets >= POLL_PACKETS);
        if !streak.machines.contains(&source) && streak.machines.len() < MAX_CONTACTS {
            streak.machines.push(source);
        }
        streak.length += u32::from(!is_known && is_representative);
        streak.sampled_packets = streak.sampled_packets.saturating_add(drops);
        streak.polled_packets = streak.polled_packets.saturating_add(new_packets.unwrap_or(0));
        let is_of_few =
            streak.machines.len() < MAX_CONTACTS && streak.length as usize >= 2 * streak.machines.len();
        let packets = streak.sampled_packets.max(streak.polled_packets);
        streak.length >= STREAK && packets >= STREAK_PACKETS && is_of_few
    }

    /// Notes the first destinations of the row. Those that were not there before have come since. When the
    /// list is seen for the first time, the row's age says whether they have just come. If several machines
    /// have a part in the row, nobody knows which of them called.
    fn note_list(&mut self, drop: &DropEvent, source: IpAddr, (now_ns, age_ns): (u64, u64), window_ns: u64) {
        let Some(list) = &drop.destinations else {
            return;
        };
        let is_recent = match std::mem::replace(&mut self.has_list, true) {
            true => true,
            false => !is_last_packet(drop) && age_ns <= window_ns,
        };
        for &address in &list.first {
            if self.contacts.iter().any(|contact| contact.address == address) {
                continue;
            }
            let is_same_family = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4();
            let sources = drop.sources.as_ref().map_or(&[][..], |sources| &sources.first);
            let is_of_one = sources.iter().filter(is_same_family).count() <= 1;
            let last_ns = if is_recent && is_of_one { now_ns } else { 0 };
            self.make_room(now_ns);
            self.contacts.push(Contact {
                address,
                source,
                last_ns,
                began_ns: 0,
                attempt_ns: 0,
                source_port: None,
                attempts: 0,
            });
        }
    }

    fn note_contact(&mut self, address: IpAddr, source: IpAddr, drop: &DropEvent, now_ns: u64) -> &Contact {
        let is_it = |contact: &Contact| {
            contact.address == address && (contact.source == source || contact.attempts == 0)
        };
        let place = match self.contacts.iter().position(is_it) {
            Some(place) => place,
            None => {
                self.make_room(now_ns);
                self.contacts.push(Contact {
                    address,
                    source,
                    last_ns: now_ns,
                    began_ns: now_ns,
                    attempt_ns: 0,
                    source_port: None,
                    attempts: 0,
                });
                self.contacts.len() - 1
            }
        };
        let contact = &mut self.contacts[place];
        contact.last_ns = now_ns;
        if !is_last_packet(drop) && is_new_attempt(contact, drop, now_ns) {
            let is_forgotten = now_ns.saturating_sub(contact.attempt_ns) > ATTEMPTS_FORGOTTEN_NS;
            if contact.attempts == 0 || is_forgotten {
                (contact.attempts, contact.began_ns, contact.source) = (0, now_ns, source);
            }
            contact.attempts = contact.attempts.saturating_add(1);
            contact.attempt_ns = now_ns;
            contact.source_port = drop.source_port;
        }
        contact
    }

    /// The one with the fewest attempts goes, and of those the oldest. Otherwise a server could hide one
    /// callback among many other attempts.
    fn make_room(&mut self, now_ns: u64) {
        if self.contacts.len() < MAX_CONTACTS {
            return;
        }
        let rank = |contact: &Contact| match now_ns.saturating_sub(contact.attempt_ns) {
            0..=ATTEMPTS_FORGOTTEN_NS => (contact.attempts, contact.last_ns),
            _ => (0, contact.last_ns),
        };
        let least = self.contacts.iter().enumerate().min_by_key(|(_, contact)| rank(contact));
        let least = least.map_or(0, |(place, _)| place);
        self.contacts.remove(least);
    }

    /// Whether few machines called many destinations since then.
    fn is_spread(&self, wanted: usize, since_ns: u64) -> bool {
        let recent = || self.contacts.iter().filter(|contact| contact.last_ns >= since_ns.max(1));
        let destinations = count_distinct(recent().map(|contact| contact.address));
        let machines = count_distinct(recent().map(|contact| contact.source));
        destinations >= wanted && destinations >= 2 * machines
    }
}

fn source_of(drop: &DropEvent) -> IpAddr {
    drop.source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Lists are short, so a scan costs less than a hash.
fn count_distinct(addresses: impl Iterator<Item = IpAddr>) -> usize {
    let mut distinct: Vec<IpAddr> = Vec::with_capacity(MAX_CONTACTS);
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct.len()
}

fn is_new_attempt(contact: &Contact, drop: &DropEvent, now_ns: u64) -> bool {
    let gap_ns = now_ns.saturating_sub(contact.attempt_ns);
    let same_port = drop.source_port.is_some() && drop.source_port == contact.source_port;
    if drop.protocol == TCP && same_port { gap_ns >= RETRANSMISSION_NS } else { gap_ns >= ATTEMPT_GAP_NS }
}
