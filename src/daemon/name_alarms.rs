//! Name alarms: what the tracker has noted of answers, as reports for the alarm engine. What many servers were
//! answered is one report for each name and resolver, so a flood is as many as the policy has of these.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alarm::{About, AnswerReport};
use crate::clock::Clock;
use crate::gate::{AnswerFault, NameEvent};

/// Addresses and servers of one report.
const MOST_NAMED: usize = 32;

/// Makes reports of events, the same at each call. `started_ns`: when the daemon did, by CLOCK_MONOTONIC.
pub(super) fn gather(events: Vec<NameEvent>, started_ns: u64, clock: &Clock) -> Vec<AnswerReport> {
    let mut reports: BTreeMap<(bool, Arc<str>), AnswerReport> = BTreeMap::new();
    for event in events {
        let (about, subject, address) = match event.fault {
            AnswerFault::Rebinding { id, name, address } => (About::Name(id), name, Some(address)),
            AnswerFault::Forged => (About::Resolver(event.resolver), event.resolver.to_string().into(), None),
        };
        let (first, last) = (clock.to_wall(event.first_ns), clock.to_wall(event.last_ns));
        let key = (matches!(about, About::Name(_)), Arc::clone(&subject));
        let report = reports.entry(key).or_insert_with(|| AnswerReport {
            about,
            subject,
            answers: 0,
            resolvers: Vec::new(),
            addresses: Vec::new(),
            servers: Vec::new(),
            interface: Arc::clone(&event.interface),
            first,
            last,
            while_away: false,
        });
        report.answers = report.answers.saturating_add(event.answers);
        report.while_away |= event.first_ns < started_ns;
        report.first = report.first.min(first);
        if last >= report.last {
            (report.last, report.interface) = (last, event.interface);
        }
        add(&mut report.resolvers, event.resolver);
        address.into_iter().for_each(|address| add(&mut report.addresses, address));
        event.server.into_iter().for_each(|server| add(&mut report.servers, server));
    }
    reports.into_values().collect()
}

fn add<T: PartialEq>(known: &mut Vec<T>, one: T) {
    if known.len() < MOST_NAMED && !known.contains(&one) {
        known.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::NS_PER_S;

    fn event(server: &str, fault: AnswerFault, at_s: u64) -> NameEvent {
        NameEvent {
            fault,
            server: Some(server.into()),
            resolver: "198.51.100.53".parse().unwrap(),
            interface: format!("eth{at_s}").into(),
            answers: 2,
            first_ns: at_s * NS_PER_S,
            last_ns: (at_s + 1) * NS_PER_S,
        }
    }

    fn rebinding(address: &str) -> AnswerFault {
        AnswerFault::Rebinding { id: 4, name: "a.b.example".into(), address: address.parse().unwrap() }
    }

    #[test]
    fn what_many_servers_were_answered_is_one_report_for_each_name_and_resolver() {
        let clock = Clock { mono_ns: 100 * NS_PER_S, wall: "2026-11-30T12:00:00Z".parse().unwrap() };
        let events = vec![
            event("web2", AnswerFault::Forged, 60),
            event("web1", rebinding("10.0.0.1"), 50),
            event("web2", rebinding("10.0.0.2"), 40),
            event("web1", AnswerFault::Forged, 30),
        ];
        let reports = gather(events, 45 * NS_PER_S, &clock);
        let [forged, rebound] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((forged.about, forged.answers), (About::Resolver("198.51.100.53".parse().unwrap()), 4));
        assert_eq!((&*forged.subject, &*forged.interface), ("198.51.100.53", "eth60"));
        assert!(forged.addresses.is_empty() && forged.while_away);
        assert_eq!((rebound.about, &*rebound.subject), (About::Name(4), "a.b.example"));
        assert_eq!(rebound.addresses.len(), 2);
        assert_eq!(rebound.servers, ["web1".into(), "web2".into()]);
        assert_eq!(rebound.first, clock.to_wall(40 * NS_PER_S));
        assert_eq!(rebound.last, clock.to_wall(51 * NS_PER_S));
    }

    #[test]
    fn a_report_names_a_bounded_number_of_servers() {
        let clock = Clock { mono_ns: 100 * NS_PER_S, wall: "2026-11-30T12:00:00Z".parse().unwrap() };
        let events =
            (0..1000).map(|number| event(&format!("web{number}"), AnswerFault::Forged, 60)).collect();
        let reports = gather(events, 0, &clock);
        assert_eq!((reports.len(), reports[0].servers.len()), (1, MOST_NAMED));
        assert_eq!((reports[0].answers, reports[0].while_away), (2000, false));
    }
}
