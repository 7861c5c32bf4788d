//! What one server tried lately: finds worms, scans and reverse shells in single tries.
//!
//! Everything in here is a short list or a [`Recent`] map, so a server that tries everything
//! everywhere costs no more than a few kilobytes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use super::Thresholds;
use crate::drops::{DropEvent, Origin};
use crate::net::TCP;

/// Destinations that are remembered of one port. More than it takes to call it a spread, so
/// that one destination that is called among others is found as well.
const DESTINATIONS: usize = 16;
/// Ports of one server that are followed at a time.
const PORTS_FOLLOWED: usize = 32;
/// Two tries at the same destination are apart by this, nanoseconds: connections that are
/// opened together count once, and so does what a browser or a resolver does in a hurry.
const TRY_GAP_NS: u64 = 900_000_000;
/// Within this, nanoseconds, a SYN from the same port is the same try: Linux sends one SYN
/// seven times in 127 s.
const RETRANSMISSION_NS: u64 = 130_000_000_000;

/// A worm that calls a thousand hosts a second shows only one or two of them a second: samples
/// and last_packets. So many in a row, none of them seen before, that stand for so many packets,
/// can hardly come from fewer destinations than it takes to call it a spread. Looks that follow
/// each other faster count only where several packets came in between: else they would show
/// all destinations there are, and stand for none but themselves.
const ROW: u32 = 5;
const ROW_PACKETS: u64 = 50;
const LOOK_PACKETS: u64 = ROW_PACKETS / ROW as u64;

/// Is it the last packet of a kind, seen in the ledger, that counts by other ways?
pub(super) fn is_last_packet(drop: &DropEvent) -> bool {
    drop.drops == 0 && drop.from == Origin::Ledger
}

/// A map of what was used lately, bounded to `cap` entries. Two generations: when the young
/// one is half the cap, it becomes the old one, and what was old and has not been asked for
/// since is forgotten. Constant time per use, unlike a search for the oldest.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V: Default> Recent<K, V> {
    pub(super) fn new(cap: usize) -> Recent<K, V> {
        Recent { young: HashMap::new(), old: HashMap::new(), half: (cap / 2).max(1) }
    }

    pub(super) fn entry(&mut self, key: K) -> &mut V {
        if !self.young.contains_key(&key) && self.young.len() >= self.half {
            // Taken out first: else it would be forgotten in the moment it is asked for.
            let kept = self.old.remove(&key);
            self.old = std::mem::take(&mut self.young);
            return self.young.entry(key).or_insert(kept.unwrap_or_default());
        }
        let old = &mut self.old;
        let kept = old.remove(&key);
        self.young.entry(key).or_insert_with(|| kept.unwrap_or_default())
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// What a try turned out to be part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    /// Many destinations at this port.
    pub spread: bool,
    /// This destination, again and again.
    pub callback: Option<IpAddr>,
    /// Many ports.
    pub scan: bool,
}

/// The tries of one server.
#[derive(Debug)]
pub(super) struct Watch {
    services: Recent<(u8, u16), Calls>,
    /// The last distinct services, the newest last, with the time of the last try.
    tried: Vec<((u8, u16), u64)>,
    /// Of the last try.
    pub last_ns: u64,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { services: Recent::new(PORTS_FOLLOWED), tried: Vec::new(), last_ns: 0 }
    }
}

/// What was called at one port.
#[derive(Debug, Default)]
struct Calls {
    targets: Vec<Target>,
    /// The last destination, and how many there were in a row of which none had been seen before.
    latest: Option<IpAddr>,
    row: u32,
    /// As samples told of them, and as looks did.
    row_packets: (u64, u64),
    row_ns: u64,
}

/// One destination at one port.
#[derive(Debug)]
struct Target {
    address: IpAddr,
    last_ns: u64,
    /// Of the last packet that counted as a try.
    try_ns: u64,
    source_port: Option<u16>,
    tries: u32,
}

impl Watch {
    /// EventFilter note of a try, at `now_ns`.
    pub(super) fn see(
        &mut self,
        drop: &DropEvent,
        since: Option<u64>,
        now_ns: u64,
        settings: &Thresholds,
    ) -> Finding {
        self.last_ns = now_ns;
        let service = (drop.protocol, drop.port);
        let mut finding = Finding { scan: self.see_port(service, now_ns, settings), ..Finding::default() };
        let Some(destination) = drop.destination else {
            return finding;
        };
        let calls = self.services.entry(service);
        let since_ns = now_ns.saturating_sub(settings.spread_window_ns);
        let in_a_row = calls.see_row(destination, (drop.drops, since), now_ns, since_ns);
        let targets = &mut calls.targets;
        let target = see_target(targets, destination, drop, now_ns);
        if target.tries >= settings.callback_tries {
            finding.callback = Some(destination);
        }
        let lately = targets.iter().filter(|target| target.last_ns >= since_ns).count();
        finding.spread = in_a_row || lately >= settings.spread_destinations.min(DESTINATIONS);
        finding
    }

    /// Are there many distinct services among the last tries?
    fn see_port(&mut self, service: (u8, u16), now_ns: u64, settings: &Thresholds) -> bool {
        self.tried.retain(|(known, _)| *known != service);
        self.tried.push((service, now_ns));
        if self.tried.len() > settings.scan_ports {
            self.tried.remove(0);
        }
        let since_ns = now_ns.saturating_sub(settings.scan_window_ns);
        self.tried.len() >= settings.scan_ports && self.tried.iter().all(|(_, last_ns)| *last_ns >= since_ns)
    }
}

impl Calls {
    /// Do the last destinations, each another one, stand for many more?
    fn see_row(
        &mut self,
        destination: IpAddr,
        (told, looked): (u64, Option<u64>),
        now_ns: u64,
        since_ns: u64,
    ) -> bool {
        let is_known = self.targets.iter().any(|target| target.address == destination);
        let is_same = self.latest.replace(destination) == Some(destination);
        if (is_known && !is_same) || self.row_ns < since_ns {
            (self.row, self.row_packets, self.row_ns) = (0, (0, 0), now_ns);
        }
        let is_telling = looked.is_none_or(|packets| packets >= LOOK_PACKETS);
        self.row += u32::from(!is_known && is_telling);
        self.row_packets.0 = self.row_packets.0.saturating_add(told);
        self.row_packets.1 = self.row_packets.1.saturating_add(looked.unwrap_or(0));
        self.row >= ROW && self.row_packets.0.max(self.row_packets.1) >= ROW_PACKETS
    }
}

fn see_target<'a>(
    targets: &'a mut Vec<Target>,
    address: IpAddr,
    drop: &DropEvent,
    now_ns: u64,
) -> &'a Target {
    let place = match targets.iter().position(|target| target.address == address) {
        Some(place) => {
            let target = &mut targets[place];
            target.last_ns = now_ns;
            if !is_last_packet(drop) && is_new_try(target, drop, now_ns) {
                target.tries = target.tries.saturating_add(1);
                target.try_ns = now_ns;
                target.source_port = drop.source_port;
            }
            place
        }
        None => {
            if targets.len() >= DESTINATIONS {
                // The one that was called least, and of those the longest ago: else a server
                // could hide one callback among many other calls.
                let least = targets
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, target)| (target.tries, target.last_ns))
                    .map_or(0, |(place, _)| place);
                targets.remove(least);
            }
            targets.push(Target {
                address,
                last_ns: now_ns,
                try_ns: if is_last_packet(drop) { 0 } else { now_ns },
                source_port: drop.source_port,
                tries: u32::from(!is_last_packet(drop)),
            });
            targets.len() - 1
        }
    };
    &targets[place]
}

fn is_new_try(target: &Target, drop: &DropEvent, now_ns: u64) -> bool {
    let gap_ns = now_ns.saturating_sub(target.try_ns);
    let same_port = drop.source_port.is_some() && drop.source_port == target.source_port;
    if drop.protocol == TCP && same_port { gap_ns >= RETRANSMISSION_NS } else { gap_ns >= TRY_GAP_NS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::example::syn;

    const S: u64 = 1_000_000_000;

    fn settings() -> Thresholds {
        Thresholds::default()
    }

    #[test]
    fn the_map_forgets_what_was_not_used_lately_and_keeps_what_was() {
        let mut recent: Recent<u32, u32> = Recent::new(8);
        *recent.entry(0) = 7;
        for key in 1..1000 {
            recent.entry(key);
            assert_eq!(*recent.entry(0), 7);
            assert!(recent.len() <= 8);
        }
        assert_eq!(*recent.entry(1), 0);
        // half of the cap is sure to be kept, whatever else is asked for in between
        for key in 2000..2004 {
            *recent.entry(key) = key;
        }
        for key in 2000..2004 {
            assert_eq!(*recent.entry(key), key);
        }
    }

    #[test]
    fn one_syn_sent_seven_times_is_one_try() {
        let mut watch = Watch::default();
        for seconds in [0, 1, 3, 7, 15, 31, 63] {
            let finding = watch.see(&syn(), None, 1000 * S + seconds * S, &settings());
            assert_eq!(finding.callback, None);
        }
    }

    #[test]
    fn new_connections_to_one_destination_are_tries() {
        let mut watch = Watch::default();
        for number in 0..5_u16 {
            let mut drop = syn();
            drop.source_port = Some(40000 + number);
            let finding = watch.see(&drop, None, (1000 + u64::from(number) * 10) * S, &settings());
            assert_eq!(finding.callback.is_some(), number == 4);
        }
    }

    #[test]
    fn connections_that_are_opened_together_are_one_try() {
        let mut watch = Watch::default();
        for number in 0..100_u16 {
            let mut drop = syn();
            drop.source_port = Some(40000 + number);
            let finding = watch.see(&drop, None, 1000 * S + u64::from(number), &settings());
            assert_eq!(finding.callback, None);
        }
    }

    #[test]
    fn a_row_of_new_destinations_ends_with_an_older_one_and_not_with_the_last_one_again() {
        let is_spread = |destinations: &[u8]| {
            let mut watch = Watch::default();
            let mut spread = false;
            for (number, host) in destinations.iter().enumerate() {
                let mut drop = syn();
                drop.destination = Some([198, 51, 100, *host].into());
                drop.drops = 20;
                spread |= watch.see(&drop, None, 1000 * S + number as u64, &settings()).spread;
            }
            spread
        };
        assert!(is_spread(&[1, 2, 3, 4, 5]));
        assert!(is_spread(&[1, 1, 2, 2, 3, 3, 4, 4, 5]));
        assert!(!is_spread(&[1, 2, 3, 4, 1, 5, 6, 7, 8]));
    }

    #[test]
    fn a_callback_among_many_other_calls_is_found() {
        let mut watch = Watch::default();
        let mut found = false;
        for number in 0..100_u16 {
            let mut drop = syn();
            drop.source_port = Some(40000 + number);
            if number % 4 != 0 {
                drop.destination = Some(std::net::Ipv4Addr::from(u32::from(number)).into());
            }
            // so slowly that it is no spread
            let finding = watch.see(&drop, None, (1000 + u64::from(number) * 20) * S, &settings());
            assert!(!finding.spread);
            found |= finding.callback == syn().destination;
        }
        assert!(found);
    }

    #[test]
    fn a_server_that_tries_everything_everywhere_costs_little() {
        let mut watch = Watch::default();
        for number in 0..200_000_u32 {
            let mut drop = syn();
            drop.port = (number % 65_536) as u16;
            drop.destination = Some(std::net::Ipv4Addr::from(number.wrapping_mul(77)).into());
            watch.see(&drop, None, 1000 * S + u64::from(number), &settings());
        }
        assert!(watch.services.len() <= PORTS_FOLLOWED);
        assert!(watch.tried.len() <= settings().scan_ports);
        let targets = watch.services.entry((6, 65_535)).targets.len();
        assert!(targets <= DESTINATIONS);
    }
}
