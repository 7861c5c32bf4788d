//! What one server attempted lately: finds worms, scans and reverse shells in single attempts.
//!
//! Everything in here is a short list or a [`Recent`] map. A server that tries everything everywhere
//! costs no more than a few kilobytes.

use std::net::IpAddr;

use super::Thresholds;
use super::recent::Recent;
use crate::drops::{DropEvent, Origin};
use crate::net::TCP;

/// Destinations that are remembered of one service. More than a spread takes, so that one destination
/// that is contacted again among others is found as well.
const MAX_CONTACTS: usize = 16;
/// Services of one server that are followed at a time.
const MAX_SERVICES: usize = 32;
/// Two attempts at the same destination are apart by this, nanoseconds. Connections that are opened
/// together count once, as those of a browser or a resolver in a hurry do.
const ATTEMPT_GAP_NS: u64 = 900_000_000;
/// Within this, nanoseconds, a SYN from the same port is the same attempt: Linux sends one SYN seven
/// times in 127 s.
const RETRANSMISSION_NS: u64 = 130_000_000_000;

/// A worm that contacts a thousand hosts a second shows only one or two of them a second: in samples, and
/// in last packets. A streak of so many destinations, none of them seen before, that stands for so many
/// packets can hardly come from fewer destinations than a spread takes.
const STREAK: u32 = 5;
const STREAK_PACKETS: u64 = 50;
/// A poll counts for a streak only if so many packets came since the one before. Otherwise frequent polls
/// would show all destinations there are, and each would stand for itself alone.
const POLL_PACKETS: u64 = STREAK_PACKETS / STREAK as u64;

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
    /// Many ports.
    pub scan: bool,
}

/// The attempts of one server.
#[derive(Debug)]
pub(super) struct Detector {
    services: Recent<(u8, u16), ServiceAttempts>,
    /// The last distinct services, the newest last, each with the time of its last attempt.
    last_services: Vec<((u8, u16), u64)>,
    /// When the last attempt was noted.
    pub last_ns: u64,
}

impl Default for Detector {
    fn default() -> Detector {
        Detector { services: Recent::new(MAX_SERVICES), last_services: Vec::new(), last_ns: 0 }
    }
}

/// The attempts at one service.
#[derive(Debug, Default)]
struct ServiceAttempts {
    contacts: Vec<Contact>,
    /// The last destination.
    latest: Option<IpAddr>,
    streak: Streak,
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
}

/// One destination at one service.
#[derive(Debug)]
struct Contact {
    address: IpAddr,
    /// Time of the last packet.
    last_ns: u64,
    /// Time of the last packet that counted as an attempt.
    attempt_ns: u64,
    source_port: Option<u16>,
    attempts: u32,
}

impl Detector {
    /// Notes an attempt, at `now_ns`. `new_packets` is how many packets a poll of its ledger row found;
    /// `None` for an event that no poll has made.
    pub(super) fn note(
        &mut self,
        drop: &DropEvent,
        new_packets: Option<u64>,
        now_ns: u64,
        thresholds: &Thresholds,
    ) -> Finding {
        self.last_ns = now_ns;
        let service = (drop.protocol, drop.port);
        let scan = self.is_scan(service, now_ns, thresholds);
        let mut finding = Finding { scan, ..Finding::default() };
        let Some(destination) = drop.destination else {
            return finding;
        };
        let attempts = self.services.entry(service);
        let since_ns = now_ns.saturating_sub(thresholds.spread_window_ns);
        let is_streak = attempts.note_streak(destination, drop.drops, new_packets, now_ns, since_ns);
        let contact = note_contact(&mut attempts.contacts, destination, drop, now_ns);
        if contact.attempts >= thresholds.callback_attempts {
            finding.callback = Some(destination);
        }
        let recent = attempts.contacts.iter().filter(|contact| contact.last_ns >= since_ns).count();
        finding.spread = is_streak || recent >= thresholds.spread_destinations.min(MAX_CONTACTS);
        finding
    }

    /// Notes a service, and says whether the last attempts were at many distinct ones.
    fn is_scan(&mut self, service: (u8, u16), now_ns: u64, thresholds: &Thresholds) -> bool {
        let last = &mut self.last_services;
        last.retain(|(known, _)| *known != service);
        last.push((service, now_ns));
        if last.len() > thresholds.scan_ports {
            last.remove(0);
        }
        let since_ns = now_ns.saturating_sub(thresholds.scan_window_ns);
        last.len() >= thresholds.scan_ports && last.iter().all(|(_, last_ns)| *last_ns >= since_ns)
    }
}

impl ServiceAttempts {
    /// Notes a destination, and says whether the last ones stand for many more. A streak ends with a
    /// destination that is known and not the last one, and with the window.
    fn note_streak(
        &mut self,
        destination: IpAddr,
        drops: u64,
        new_packets: Option<u64>,
        now_ns: u64,
        since_ns: u64,
    ) -> bool {
        let is_known = self.contacts.iter().any(|contact| contact.address == destination);
        let is_same = self.latest.replace(destination) == Some(destination);
        let streak = &mut self.streak;
        if (is_known && !is_same) || streak.began_ns < since_ns {
            *streak = Streak { began_ns: now_ns, ..Streak::default() };
        }
        let is_representative = new_packets.is_none_or(|packets| packets >= POLL_PACKETS);
        streak.length += u32::from(!is_known && is_representative);
        streak.sampled_packets = streak.sampled_packets.saturating_add(drops);
        streak.polled_packets = streak.polled_packets.saturating_add(new_packets.unwrap_or(0));
        streak.length >= STREAK && streak.sampled_packets.max(streak.polled_packets) >= STREAK_PACKETS
    }
}

fn note_contact<'a>(
    contacts: &'a mut Vec<Contact>,
    address: IpAddr,
    drop: &DropEvent,
    now_ns: u64,
) -> &'a Contact {
    let place = match contacts.iter().position(|contact| contact.address == address) {
        Some(place) => {
            let contact = &mut contacts[place];
            contact.last_ns = now_ns;
            if !is_last_packet(drop) && is_new_attempt(contact, drop, now_ns) {
                contact.attempts = contact.attempts.saturating_add(1);
                contact.attempt_ns = now_ns;
                contact.source_port = drop.source_port;
            }
            place
        }
        None => {
            if contacts.len() >= MAX_CONTACTS {
                // The one with the fewest attempts goes, and of those the oldest. Otherwise a server could
                // hide one callback among many other attempts.
                let least = contacts
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, contact)| (contact.attempts, contact.last_ns))
                    .map_or(0, |(place, _)| place);
                contacts.remove(least);
            }
            contacts.push(Contact {
                address,
                last_ns: now_ns,
                attempt_ns: if is_last_packet(drop) { 0 } else { now_ns },
                source_port: drop.source_port,
                attempts: u32::from(!is_last_packet(drop)),
            });
            contacts.len() - 1
        }
    };
    &contacts[place]
}

fn is_new_attempt(contact: &Contact, drop: &DropEvent, now_ns: u64) -> bool {
    let gap_ns = now_ns.saturating_sub(contact.attempt_ns);
    let same_port = drop.source_port.is_some() && drop.source_port == contact.source_port;
    if drop.protocol == TCP && same_port { gap_ns >= RETRANSMISSION_NS } else { gap_ns >= ATTEMPT_GAP_NS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::example::syn;

    const S: u64 = 1_000_000_000;

    fn thresholds() -> Thresholds {
        Thresholds::default()
    }

    #[test]
    fn one_syn_sent_seven_times_is_one_attempt() {
        let mut detector = Detector::default();
        for seconds in [0, 1, 3, 7, 15, 31, 63] {
            let finding = detector.note(&syn(), None, 1000 * S + seconds * S, &thresholds());
            assert_eq!(finding.callback, None);
        }
    }

    #[test]
    fn new_connections_to_one_destination_are_attempts() {
        let mut detector = Detector::default();
        for number in 0..5_u16 {
            let mut drop = syn();
            drop.source_port = Some(40000 + number);
            let finding = detector.note(&drop, None, (1000 + u64::from(number) * 10) * S, &thresholds());
            assert_eq!(finding.callback.is_some(), number == 4);
        }
    }

    #[test]
    fn connections_that_are_opened_together_are_one_attempt() {
        let mut detector = Detector::default();
        for number in 0..100_u16 {
            let mut drop = syn();
            drop.source_port = Some(40000 + number);
            let finding = detector.note(&drop, None, 1000 * S + u64::from(number), &thresholds());
            assert_eq!(finding.callback, None);
        }
    }

    #[test]
    fn a_streak_of_new_destinations_ends_with_an_older_one_and_not_with_the_last_one_again() {
        let is_spread = |destinations: &[u8]| {
            let mut detector = Detector::default();
            let mut spread = false;
            for (number, host) in destinations.iter().enumerate() {
                let mut drop = syn();
                drop.destination = Some([198, 51, 100, *host].into());
                drop.drops = 20;
                spread |= detector.note(&drop, None, 1000 * S + number as u64, &thresholds()).spread;
            }
            spread
        };
        assert!(is_spread(&[1, 2, 3, 4, 5]));
        assert!(is_spread(&[1, 1, 2, 2, 3, 3, 4, 4, 5]));
        assert!(!is_spread(&[1, 2, 3, 4, 1, 5, 6, 7, 8]));
    }

    #[test]
    fn a_callback_among_many_other_attempts_is_found() {
        let mut detector = Detector::default();
        let mut found = false;
        for number in 0..100_u16 {
            let mut drop = syn();
            drop.source_port = Some(40000 + number);
            if number % 4 != 0 {
                drop.destination = Some(std::net::Ipv4Addr::from(u32::from(number)).into());
            }
            // so slowly that it is no spread
            let finding = detector.note(&drop, None, (1000 + u64::from(number) * 20) * S, &thresholds());
            assert!(!finding.spread);
            found |= finding.callback == syn().destination;
        }
        assert!(found);
    }

    #[test]
    fn a_server_that_tries_everything_everywhere_costs_little() {
        let mut detector = Detector::default();
        for number in 0..200_000_u32 {
            let mut drop = syn();
            drop.port = (number % 65_536) as u16;
            drop.destination = Some(std::net::Ipv4Addr::from(number.wrapping_mul(77)).into());
            detector.note(&drop, None, 1000 * S + u64::from(number), &thresholds());
        }
        assert!(detector.services.len() <= MAX_SERVICES);
        assert!(detector.last_services.len() <= thresholds().scan_ports);
        let contacts = detector.services.entry((6, 65_535)).contacts.len();
        assert!(contacts <= MAX_CONTACTS);
    }
}
